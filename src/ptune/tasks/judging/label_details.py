"""What is known of answers with labels beside the figures: which labels were confused, whether the
probabilities can be trusted, and which wrong answers had the largest."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ptune.metrics.intervals import Interval
from ptune.metrics.labels import mean
from ptune.model.prompt_model import Row
from ptune.reports.schemas import Reliability, WrongAnswer

if TYPE_CHECKING:
    from ptune.tasks.judging.judge_labels import Answer

MOST_WRONG = 20  # wrong answers that are kept


@dataclass
class LabelDetails:
    """The details of answers to rows that share their labels.

    Attributes:
        confusion: for each right label how many rows got each label as their answer.
        calibration: the probabilities of the answers beside the share that is right, by tenths.
        wrong: the wrong answers that have the largest probability, largest first.
        answers: to all rows.
        intervals: of each figure the ends between which it lies in 95 of 100 redraws of the rows.
    """

    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    calibration: list[Reliability] = field(default_factory=list)
    wrong: list[WrongAnswer] = field(default_factory=list)
    answers: Sequence["Answer"] = ()
    intervals: dict[str, Interval] = field(default_factory=dict)

    def fill(
        self, labels: Sequence[str], rows: Sequence[Row], target: str, answers: Sequence["Answer"]
    ) -> None:
        """Fill in the details of rows and their answers.

        Args:
            target: the rows' field with the right label.
        """
        right = [str(row[target]) for row in rows]
        self.confusion = _confusion(labels, right, [answer.label for answer in answers])
        self.calibration = _calibration(answers)
        wrong = [number for number, answer in enumerate(answers) if not answer.right]
        wrong.sort(key=lambda number: -max(answers[number].shares))
        self.wrong = [
            WrongAnswer(
                row={name: value for name, value in rows[number].items() if name != target},
                right=right[number],
                answer=answers[number].label,
                probability=max(answers[number].shares),
            )
            for number in wrong[:MOST_WRONG]
        ]


def _confusion(
    labels: Sequence[str], right: Sequence[str], answered: Sequence[str]
) -> dict[str, dict[str, int]]:
    """For each right label how many rows got each label as their answer."""
    counts = {label: dict.fromkeys(labels, 0) for label in labels}
    for label, answer in zip(right, answered):
        row = counts.setdefault(label, {})
        row[answer] = row.get(answer, 0) + 1
    return counts


def _calibration(answers: Sequence["Answer"]) -> list[Reliability]:
    """The probabilities of the answers beside the share that is right, by tenths."""
    by_tenth: dict[int, list[tuple[float, bool]]] = {}
    for answer in answers:
        probability = max(answer.shares)
        by_tenth.setdefault(min(9, int(probability * 10)), []).append((probability, answer.right))
    return [
        Reliability(
            rows=len(pairs),
            probability=mean([probability for probability, _ in pairs]),
            accuracy=mean([float(is_right) for _, is_right in pairs]),
        )
        for _, pairs in sorted(by_tenth.items())
    ]
