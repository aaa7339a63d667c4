"""Rows of a table that seem to be none: comments among the rows, and a total below them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ptune.data.row import is_missing

TOTALS = frozenset(
    ("total", "grand total", "totals", "sum", "subtotal", "summe", "gesamt", "gesamtsumme")
    + ("total général", "somme", "totale", "suma", "итого", "всего", "合计", "总计", "合計")
)
FEW = 0.05
"""The share of rows that comments are at most; of more it is how texts begin."""
LISTED = 5


@dataclass
class OddRows:
    """What was seen, row by row.

    Attributes:
        comments: how many rows begin with a number sign and a space; places: the first lines.
        last: the first text of the row that came last; last_line: its line.
    """

    rows: int = 0
    comments: int = 0
    places: list[int] = field(default_factory=list)
    last: str = ""
    last_line: int = 0

    def add(self, row: Mapping[str, Any], line: int) -> None:
        """Count a row, in the order of the file."""
        filled = (str(value) for value in row.values() if not is_missing(value) and value != "")
        self.rows, self.last, self.last_line = self.rows + 1, next(filled, "").strip(), line
        if self.last.startswith("# "):
            self.comments += 1
            if len(self.places) < LISTED:
                self.places.append(line)

    def sentences(self, where: str = "") -> list[str]:
        """What is to be told of them."""
        sentences = []
        if 0 < self.comments <= max(1, FEW * self.rows):
            lines = ", ".join(map(str, self.places))
            more = ", ..." if self.comments > len(self.places) else ""
            sentences.append(
                f"{where}rows that begin with # and may be comments (line {lines}{more}): they are "
                "taken as rows, so leave them out of the file."
            )
        if self.rows > 1 and self.last.casefold().rstrip(" :") in TOTALS:
            sentences.append(
                f"{where}the last row ({self.last!r}, line {self.last_line}) seems to be a total, "
                "and is taken as a row: leave it out of the file."
            )
        return sentences
