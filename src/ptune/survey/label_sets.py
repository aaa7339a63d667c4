"""Columns whose cells hold several labels: lists, or names with a separator between them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ptune.data.row import LIST_IN_A_CELL, label_names

SEPARATORS = ("|", ";", ",")
FEWEST_SETS = 0.05
"""The share of cells that hold several labels at least, where a separator stands in cells."""


@dataclass(frozen=True)
class LabelSets:
    """What a column with several labels in a cell holds.

    Attributes:
        separator: what stands between the labels; None where they are lists.
        labels: how often each comes.
    """

    separator: str | None
    labels: Counter[str]


def of_values(
    values: Mapping[str, int], is_called_a_label: bool, most: int, longest: int
) -> LabelSets | None:
    """The labels of a column whose cells seem to hold several; None of a column of another kind.

    Lists hold labels where these come twice on average, or the column is called as labels are. A
    separator counts where one cell in twenty has it, and every name that it parts comes in two
    different cells, or by itself.

    Args:
        values: how often each value comes; a list as it is spelt.
        most: how many labels there may be; longest: how many signs each may have.
    """

    def are_labels(counts: Counter[str]) -> bool:
        return 2 <= len(counts) <= most and max(map(len, counts)) <= longest

    if len(values) < 2:
        return None
    lists = [value for value in values if LIST_IN_A_CELL.fullmatch(value.strip())]
    if lists and all(value in lists or len(value) <= longest for value in values):
        counts = _counted(values, None)
        again = is_called_a_label or counts.total() >= 2 * len(counts)
        return LabelSets(None, counts) if again and are_labels(counts) else None
    for separator in SEPARATORS:
        counts = _counted(values, separator)
        if _is_between_labels(separator, values) and are_labels(counts):
            return LabelSets(separator, counts)
    return None


def _is_between_labels(separator: str, values: Mapping[str, int]) -> bool:
    """Whether a sign in cells seems to part labels."""
    parted = [value for value in values if separator in value]
    rows = sum(values[value] for value in parted)
    if rows < FEWEST_SETS * sum(values.values()) or rows < 2:
        return False
    cells = Counter(name for value in values for name in label_names(value, separator))
    alone = {value.strip() for value in values if separator not in value}
    return all(count > 1 or name in alone for name, count in cells.items())


def _counted(values: Mapping[str, int], separator: str | None) -> Counter[str]:
    counts: Counter[str] = Counter()
    for value, count in values.items():
        for name in label_names(value, separator):
            counts[name] += count
    return counts
