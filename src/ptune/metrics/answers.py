"""How good answers are that are parts of a text: exact match and F1 of their words, as SQuAD counts
them (Rajpurkar et al. 2016, section 6.1)."""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from ptune.errors import ConfigError, nearest

DEFAULT = ("token-f1", "exact-match")
ARTICLES = re.compile(r"\b(a|an|the)\b")


def words_of(text: str) -> list[str]:
    """The words of an answer in small letters, without punctuation and articles."""
    plain = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return ARTICLES.sub(" ", plain).split()


def exact_match(right: str, answer: str) -> float:
    """1 where two answers have the same words in the same order."""
    return float(words_of(right) == words_of(answer))


def token_f1(right: str, answer: str) -> float:
    """The F1 of the words that two answers share; of answers without words 1 where both have
    none."""
    expected, actual = words_of(right), words_of(answer)
    shared = (Counter(expected) & Counter(actual)).total()
    if not expected or not actual:
        return float(expected == actual)
    return 2 * shared / (len(expected) + len(actual))


OF_A_PAIR: dict[str, Callable[[str, str], float]] = {
    "token-f1": token_f1,
    "exact-match": exact_match,
}


def of_rows(name: str, right: Sequence[Sequence[str]], predicted: Sequence[str]) -> list[float]:
    """The figure of each row: that with the nearest of its right answers, and where it has none,
    with no answer.

    Args:
        right: the right answers of each row.
        predicted: the answer to each, empty for none.
    """
    figure = OF_A_PAIR[name]
    pairs = [(answers or [""], answer) for answers, answer in zip(right, predicted)]
    return [max(figure(one, answer) for one in answers) for answers, answer in pairs]


def check(names: Sequence[str]) -> None:
    """Refuse metrics that there are not.

    Raises:
        ConfigError: there is no such metric.
    """
    for name in names:
        if name not in OF_A_PAIR:
            raise ConfigError(
                f"There is no metric {name!r} of answers that are parts of a text. "
                f"{nearest(name, OF_A_PAIR)}"
            )
