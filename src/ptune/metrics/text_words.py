"""How texts are split into words before they are compared: by the script of the references, or as
asked."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

from ptune import writing_systems

WordSplit = Literal["auto", "13a", "unicode", "zh", "ja-mecab", "ko-mecab", "char"]
ABOUT = {
    "13a": "words between spaces and punctuation (mteval-v13a)",
    "unicode": "13a's words, and in ROUGE those of any script",
    "zh": "Chinese characters and other words (sacrebleu)",
    "ja-mecab": "Japanese words (MeCab)",
    "ko-mecab": "Korean words (MeCab)",
    "char": "characters",
}
OF_SCRIPT: dict[str, WordSplit] = {
    "latin": "13a",
    "han": "zh",
    "unspaced": "char",
    "other": "unicode",
}
LANGUAGE = {"zh": "Chinese", "ja-mecab": "Japanese", "char": "in a script without spaces"}


def split_for(references: Iterable[Iterable[str]]) -> WordSplit:
    """The split that suits the references: by the script of most of their letters."""
    script = writing_systems.script_of(text for texts in references for text in texts)
    if script == "japanese":
        return "char" if unavailable("ja-mecab") else "ja-mecab"
    return OF_SCRIPT[script]


def unavailable(split: str) -> str:
    """Why texts cannot be split so on this machine; "" where they can."""
    if split not in ("ja-mecab", "ko-mecab"):
        return ""
    try:
        splitter(split)
    except (ImportError, RuntimeError) as error:
        language = split[:2]
        first = str(error).strip().splitlines()[0] if str(error).strip() else "it is missing"
        return (
            f"metric_words: {split} needs MeCab ({first}). Install it with: pip install "
            f"'sacrebleu[{language}]'; or set metric_words to char."
        )
    return ""


@functools.cache
def splitter(split: str) -> Callable[[str], str]:
    """What puts spaces between the words of a text.

    Raises:
        ImportError, RuntimeError: its package is not installed.
    """
    if split in ("13a", "unicode"):
        from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a as Chosen
    elif split == "zh":
        from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh as Chosen
    elif split == "char":
        from sacrebleu.tokenizers.tokenizer_char import TokenizerChar as Chosen
    elif split == "ja-mecab":
        from sacrebleu.tokenizers.tokenizer_ja_mecab import TokenizerJaMecab as Chosen
    else:
        from sacrebleu.tokenizers.tokenizer_ko_mecab import TokenizerKoMecab as Chosen
    chosen: Any = Chosen()
    return chosen


def words(text: str, split: str) -> list[str]:
    """The words of a text in lower case, punctuation left out."""
    return [token for token in splitter(split)(text.lower()).split() if _is_word(token)]


def _is_word(token: str) -> bool:
    return any(map(str.isalnum, token))


def sentence(split: str) -> str:
    """What to say of figures whose words were not split as usual; "" where they were."""
    if split in ("auto", "13a"):
        return ""
    language = LANGUAGE.get(split, "in a script that is not Latin")
    return (
        f"The right texts are {language}, so metrics compare {ABOUT[split]}: metric_words {split}."
    )
