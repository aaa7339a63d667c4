"""How many tokens rows have as an LM gets them, what of them would be cut, and what it cannot
read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ptune.errors import PtuneError, TemplateError
from ptune.lm.source.reading import Reading
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
        cut: how many do not fit; most_cut: the tokens that are too many in the longest.
        limit: the most tokens of an input; None for no limit.
    """

    limit: int | None
    rows: int = 0
    refused: int = 0
    lengths: Lengths = field(default_factory=lambda: Lengths("tokens"))
    cut: int = 0
    most_cut: int = 0
    unknown: Unknown = field(default_factory=Unknown)

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
        if sentence := self.unknown.sentence(where):
            refused = (
                " Training refuses this unless --allow-unknown is given."
                if self.unknown.is_refused
                else ""
            )
            sentences.append(f"{sentence}{refused}")
        return sentences


def count(
    rows: Iterable[Row], template: Template, reading: Reading, *, limit: int | None, step: int = 1
) -> TokenCounts:
    """Tokenise every so manieth row.

    Args:
        template: in which the rows' texts stand.
        limit: the most tokens of an input, where it is not the LM's.
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
            counts.cut += 1
            counts.most_cut = max(counts.most_cut, size - counts.limit)
    return counts
