"""How many tokens rows have as an LM gets them, what of them would be cut, and what it cannot
read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptune.errors import PtuneError, TemplateError
from ptune.lm.source.reading import Reading
from ptune.model.rows.without_weights import examples_without_weights
from ptune.model.task import BoundTask
from ptune.survey.text_checks.texts import Lengths
from ptune.survey.text_checks.unknown_text import Unknown
from ptune.template.language import Field, Template, text_of

Row = Mapping[str, Any]


@dataclass
class TokenCounts:
    """What was counted over the rows of a file.

    Attributes:
        rows: how many were tokenised; refused: how many of those cannot be, such as empty ones.
        lengths: of whole rows, with the template around their texts.
        cut: how many are longer than fits, and are cut; most_cut: the tokens that are
            too many in the longest of them.
        windows: how many are read in several windows.
        too_long: how many cannot be cut so far that they fit; why: what is said of the first one.
        limit: the most tokens of an input; None for no limit.
    """

    limit: int | None
    rows: int = 0
    refused: int = 0
    lengths: Lengths = field(default_factory=lambda: Lengths("tokens"))
    cut: int = 0
    most_cut: int = 0
    windows: int = 0
    too_long: int = 0
    why: str = ""
    unknown: Unknown = field(default_factory=Unknown)

    def add_longer(self, row: Row, more: int, task: BoundTask | None, reading: Reading) -> None:
        """Count a row that has so many tokens more than fit."""
        try:
            example = None
            if task is not None:
                (example,) = examples_without_weights(task, reading, [row], labelled=False)
        except TemplateError as error:
            self.too_long += 1
            self.why = self.why or str(error)
            return
        if example is None or example.cut:
            self.cut += 1
            self.most_cut = max(self.most_cut, more)
        else:
            self.windows += 1

    def findings(self, where: str) -> list[str]:
        """What is to be told.

        Args:
            where: begins the sentences.
        """
        sentences = []
        if self.cut:
            sentences.append(
                f"{where}: {self.cut:,} of {self.rows:,} rows have more than {self.limit} tokens, "
                f"by {self.most_cut} at most, and would be cut."
            )
        if self.windows:
            sentences.append(
                f"{where}: {self.windows:,} of {self.rows:,} rows have more than {self.limit} "
                "tokens, and would be read in windows."
            )
        if self.too_long:
            sentences.append(
                f"{where}: {self.too_long:,} of {self.rows:,} rows are too long, and training "
                f"refuses them. {self.why}"
            )
        if sentence := self.unknown.sentence(where):
            refused = (
                " Training refuses this unless --allow-unknown is given."
                if self.unknown.is_refused
                else ""
            )
            sentences.append(f"{sentence}{refused}")
        return sentences


def count(
    rows: Iterable[Row],
    template: Template,
    reading: Reading,
    *,
    limit: int | None,
    step: int = 1,
    task: BoundTask | None = None,
) -> TokenCounts:
    """Tokenise every so manieth row.

    Args:
        template: in which the rows' texts stand.
        limit: the most tokens of an input, where it is not the LM's.
        task: says what becomes of rows that are longer; without it they are cut.
    """
    usable, _ = template.for_lm(reading.tokens, reading.kind, whole=True)
    fields = [part for part in usable.parts if isinstance(part, Field)]
    limits = [most for most in (limit, reading.limit) if most is not None]
    counts = TokenCounts(min(limits, default=None))
    for number, row in enumerate(rows):
        if number % step:
            continue
        counts.rows += 1
        try:
            texts = [text_of(row, part) for part in fields]
            size = usable.encode(row, reading.tokens, reading.kind, max_length=None).size
        except (PtuneError, TemplateError):
            counts.refused += 1
            continue
        counts.unknown.count([" ".join(texts)], reading.tokens)
        counts.lengths.add(size)
        if counts.limit is not None and size > counts.limit:
            counts.add_longer(row, size - counts.limit, task, reading)
    return counts
