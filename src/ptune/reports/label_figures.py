"""Which labels were confused with which, and precision, recall and F1 of each label."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ptune.reports.pages.parts.run_columns import Column


@dataclass(frozen=True)
class LabelFigures:
    """One label: its test rows, and the shares from 0 to 1."""

    label: str
    rows: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ConfusionTable:
    """Counts of test rows [C, C]: right labels in rows, answered labels in columns."""

    title: str
    runs: int
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]

    def share(self, row: int, column: int) -> float:
        """The share of a right label's rows that got an answer."""
        return round(self.counts[row][column] / max(1, sum(self.counts[row])), 3)

    def figures(self) -> list[LabelFigures]:
        """Precision, recall and F1 of each label; 0 where nothing was answered or was right."""
        figures = []
        for number, label in enumerate(self.labels):
            hits, rows = self.counts[number][number], sum(self.counts[number])
            answered = sum(row[number] for row in self.counts)
            precision, recall = hits / max(1, answered), hits / max(1, rows)
            f1 = 2 * hits / max(1, answered + rows)
            figures.append(
                LabelFigures(label=label, rows=rows, precision=precision, recall=recall, f1=f1)
            )
        return figures


def of_columns(columns: Sequence[Column]) -> list[ConfusionTable]:
    """A table for each column whose runs hold counts; those of several seeds are added up."""
    tables = []
    for column in columns:
        confusions = [run.confusion for run in column.runs if run.confusion]
        if confusions:
            labels, counts = added(confusions)
            tables.append(ConfusionTable(column.label, len(confusions), labels, counts))
    return tables


def added(
    confusions: Sequence[Mapping[str, Mapping[str, int]]],
) -> tuple[list[str], list[list[int]]]:
    """All labels, right ones first, and the sum of the counts [C, C] over runs."""
    right = [label for confusion in confusions for label in confusion]
    answers = [counts for confusion in confusions for counts in confusion.values()]
    labels = list(dict.fromkeys([*right, *itertools.chain.from_iterable(answers)]))
    counts = [
        [
            sum(confusion.get(row, {}).get(column, 0) for confusion in confusions)
            for column in labels
        ]
        for row in labels
    ]
    return labels, counts
