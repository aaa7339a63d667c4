"""Words in scripts without spaces, for whole-word masking: characters, or a segmenter's words."""

import re
from collections.abc import Callable, Iterator, Sequence

from ptune.errors import ConfigError
from ptune.writing_systems import HAN, UNSPACED, splits_no_character

Segmenter = Callable[[str], Iterator[int]]
"""Gives the positions at which words begin in a text without spaces."""
RUN = re.compile(f"(?:{UNSPACED.pattern})+")


def characters(text: str) -> Iterator[int]:
    """Every character is a word; a mark belongs to its letter."""
    return (position for position in range(len(text)) if splits_no_character(text, position))


def jieba_words(text: str) -> Iterator[int]:
    """Chinese words as jieba finds them; other scripts by characters."""
    import jieba

    if not re.match(f"[{HAN}]", text):
        return characters(text)
    return (start for _, start, _ in jieba.tokenize(text))


def segmenter(name: str) -> Segmenter:
    """The segmenter of that name.

    Raises:
        ConfigError: its package is not installed.
    """
    if name == "characters":
        return characters
    try:
        import jieba  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "The segmenter jieba is not installed: pip install 'ptune[chinese]', or leave "
            "segmenter out, which takes each character for a word."
        ) from error
    return jieba_words


def unspaced_starts(
    line: str, offsets: Sequence[tuple[int, int]], starts: list[bool], segment: Segmenter
) -> list[bool]:
    """Whether each token begins a word, where runs in scripts without spaces are cut into words.

    Args:
        offsets: where each token begins and ends in the line, in characters.
        starts: whether each token begins a word by the spaces.
    """
    runs = [(matched.start(), matched.end()) for matched in RUN.finditer(line)]
    if not runs:
        return starts
    inside = {position for start, end in runs for position in range(start, end)}
    begins = {start + position for start, end in runs for position in segment(line[start:end])}
    begins |= {end for _, end in runs}
    words = []
    for number, (start, _) in enumerate(offsets):
        is_new = number == 0 or start != offsets[number - 1][0]
        if start in inside:
            words.append(is_new and start in begins)
        else:
            words.append(starts[number] or is_new and start in begins)
    return words
