"""The YAML file of a task that gives each word of a CoNLL file a label."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ptune.metrics import entities
from ptune.metrics.entities import Scheme
from ptune.survey.task_text import commented, inline, named, quoted

METHOD = "p-tuning-v2+head"
NOTE = "prefix-tuning, p-tuning, head (which tunes the LM) and others; ptune methods lists all"


@dataclass
class WordLabelCounts:
    """The labels of words, counted over rows.

    Attributes:
        words: how many words have each label.
        broken: how many words have an I- that continues nothing.
    """

    words: Counter[str] = field(default_factory=Counter)
    broken: int = 0

    def add(self, labels: Any) -> None:
        """Count the labels of a row's words."""
        names = list(map(str, labels)) if isinstance(labels, list) else []
        self.words.update(names)
        self.broken += sum(1 for _ in entities.faults(names, "bio"))

    @property
    def labels(self) -> list[str]:
        """All labels: the one outside of entities, and then those of each kind together."""
        kinds = {label: entities.parts_of(label) for label in self.words}
        return sorted(self.words, key=lambda label: (kinds[label][::-1], label))

    @property
    def scheme(self) -> Scheme:
        """The scheme that the labels keep."""
        scheme = entities.scheme_of(list(self.words))
        return "iob1" if scheme == "bio" and self.broken else scheme

    @property
    def _is_bilou(self) -> bool:
        prefixes = {label.partition("-")[0] for label in self.words if "-" in label}
        outside = {label for label in self.words if "-" not in label} - {entities.OUTSIDE}
        return not outside and bool(prefixes & set("LU")) and prefixes <= set("BILU")

    @property
    def sentence(self) -> str:
        """That an I- begins an entity, where one does, or that labels of a scheme that is not known
        make no entities; else nothing."""
        if self._is_bilou:
            return (
                "Labels that begin with L- and U- (BILOU) are read as plain ones, which make no "
                "entities: write E- for L- and S- for U-, which is the scheme bioes, to have them."
            )
        if self.scheme != "iob1":
            return ""
        return (
            f"{self.broken:,} words have a label I- that does not continue one before it, and the "
            "YAML says scheme: iob1, in which an entity may begin so: leave that out, and mend "
            "the labels, where it is a mistake."
        )


def word_task_text(
    name: str,
    lm: str,
    columns: tuple[str, str],
    *,
    counts: WordLabelCounts,
    data: Sequence[tuple[str, Any, str]],
    head: Sequence[str] = (),
    lm_note: str = "",
) -> str:
    """The file's text.

    Args:
        columns: the field with the words, and that with their labels.
        data: under ``data:``, each key with its value and a comment, or "".
        head: comments above it, one a line.
        lm_note: a comment behind the LM.
    """
    words, target = columns
    scheme: Mapping[str, str] = {"scheme": "iob1"} if counts.scheme == "iob1" else {}
    return "\n".join(
        [
            *(f"# {line}" for line in head),
            f"name: {named(name)}",
            commented(f"lm: {quoted(lm)}", lm_note, 20),
            commented(f"method: {METHOD}", NOTE),
            commented(f"tag: {quoted(words)}", "each of these words has one of the labels"),
            f"target: {quoted(target)}",
            f"labels: {inline(counts.labels)}",
            *(
                [commented(f"reading: {inline(scheme)}", "I- may begin an entity")]
                if scheme
                else []
            ),
            "data:",
            *(commented(f"  {key}: {inline(value)}", comment) for key, value, comment in data),
            "",
        ]
    )
