"""How a table is written: which separator it has, and whether its quotation marks are CSV's or
plain text, by its first lines and by the whole of it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from ptune.data.formats.delimited import (
    SEPARATORS,
    UNCLOSED,
    Opened,
    Quoting,
    Record,
    content_of,
    records,
)

VARIANTS: dict[Quoting, str] = {
    "backslash": r"quotation marks in quoted fields stand behind a backslash, \"",
    "single": "fields stand in single quotation marks, '",
    "spaced": "a space stands before quoted fields",
}
"""How programs write quotation marks that do not write CSV's."""
IN_TEXTS = ":"
"""A sign that stands in many texts: it separates fields only where every line of the sample has the
same number of them, in a file whose name says that it is a table."""
FITTING = 0.9
"""The share of records that fit how a table is written, where bad ones are skipped."""
MOST_BEFORE = 20
SAMPLE = 100
"""So many records decide on the separator."""


@dataclass(frozen=True)
class Dialect:
    """How a table is written.

    Attributes:
        skip: lines before the header, such as Excel's ``sep=;``.
        note: what was decided and could have been otherwise; empty where nothing was to decide.
    """

    separator: str
    quoting: Quoting
    skip: int = 0
    note: str = ""


class UnclearTable(Exception):
    """The quotation marks fit neither reading; the message says where."""


def decide(
    opened: Opened,
    usual: str,
    *,
    separator: str | None = None,
    quoting: Quoting | None = None,
    columns: int = 0,
    lenient: bool = False,
    skip: int = 0,
) -> Dialect:
    """How a table is written, by the whole of it.

    Args:
        opened: opens its lines anew.
        usual: the separator that its name promises.
        separator, quoting: where they are given, they are not in question.
        columns: how many there are, where the file has no line that names them.
        lenient: bad records are skipped, so quotation marks that fit neither reading stop nothing.
        skip: how many lines stand before the table, such as a title.

    Raises:
        UnclearTable: the quotation marks fit neither reading.
    """
    with opened() as lines:
        sample = list(islice(lines, skip, skip + SAMPLE))
    declared = re.fullmatch(r'\s*"?sep=(.)"?\s*', sample[0], re.IGNORECASE) if sample else None
    if declared and len(sample) > 1:
        skip, sample = skip + 1, sample[1:]
    else:
        declared = None
    notes = []
    if separator is None:
        separator = declared[1] if declared else _separator(sample, usual, columns)
        if separator != usual:
            notes.append(f"its separator is a {SEPARATORS.get(separator, repr(separator))}")
    if quoting is None:
        with opened() as lines:
            signs = _signs_of(
                islice(lines, skip, None),
                separator,
                first_number=skip + 1,
                columns=columns,
                lenient=lenient,
            )
        variant = _variant(
            opened,
            skip,
            separator=separator,
            signs=signs,
            sample=sample,
            fitting=FITTING if lenient else 1,
        )
        if variant is not None:
            quoting, note = variant, f"{VARIANTS[variant]} (quoting: {variant})"
        else:
            quoting, note = _quoting(signs, separator, lenient)
        notes += [note] if note else []
    return Dialect(separator, quoting, skip, "; ".join(notes))


def _variant(
    opened: Opened,
    skip: int,
    *,
    separator: str,
    signs: "_Signs",
    sample: Sequence[str],
    fitting: float,
) -> Quoting | None:
    """How a table's quotation marks are written, where that is not as CSV has them and the whole
    table fits it: all marks close at the ends of fields, and all records are even.

    Args:
        fitting: the share of the records that have to be so.
    """
    candidates: list[Quoting] = ["backslash"] if signs.faults else []
    if separator != "\t" and 0 < signs.bare == signs.spaced:
        candidates.append("spaced")
    if signs.uneven and signs.none_uneven and any("'" in line for line in sample):
        candidates.append("single")
    for quoting in candidates:
        with opened() as lines:
            rest = islice(lines, skip, None)
            read = [
                (len(record.fields), bool(record.quoted), bool(record.fault or record.bare))
                for record in records(rest, separator, quoting=quoting)
                if not record.is_blank
            ]
        width = signs.width or read[0][0]
        good = sum(size == width and not is_bad for size, _, is_bad in read)
        if any(is_quoted for _, is_quoted, _ in read) and good >= fitting * len(read):
            return quoting
    return None


def _separator(sample: Sequence[str], usual: str, columns: int) -> str:
    """The separator by the first lines: the usual one, unless another makes more of them even."""
    scores = {}
    for candidate in dict.fromkeys((usual, *SEPARATORS)):
        first_record = next(
            (
                record
                for record in records(iter(sample), candidate, quoting="csv")
                if not record.is_blank
            ),
            None,
        )
        width = columns or (len(first_record.fields) if first_record else 1)
        if width > 1:
            even = max(_evenness(sample, candidate, quoting, width) for quoting in ("csv", "none"))
            if candidate not in IN_TEXTS or even == 1 and len(sample) > 1:
                scores[candidate] = even
    best = max(scores, key=lambda candidate: (scores[candidate], candidate == usual), default=usual)
    return best if usual in scores or scores.get(best, 0) >= 0.8 else usual


def lines_before(sample: Sequence[str], separator: str) -> int:
    """How many lines seem to stand before a table, such as a title or comments: those after which
    all of the first lines have the same number of fields, if they do not have it from the start."""
    widths = [
        (record.line, len(record.fields))
        for record in records(iter(sample), separator, quoting="csv")
        if not record.is_blank and not record.fault
    ]
    for place, (line, width) in enumerate(widths[:MOST_BEFORE]):
        rest = {other for _, other in widths[place:]}
        if width > 1 and rest == {width} and len(widths) - place > 1:
            return line - 1 if place else 0
    return 0


def separator_of(sample: Sequence[str], quoting: Quoting = "csv") -> str | None:
    """What separates the fields of a table's first lines, where nothing says what they should be;
    None where no sign makes even fields of them."""
    if len(sample) < 2:
        return None
    for separator in (sign for sign in SEPARATORS if sign not in IN_TEXTS):
        first_record = next(records(iter(sample), separator, quoting=quoting))
        width = len(first_record.fields)
        if width > 1 and _evenness(sample, separator, quoting, width) == 1:
            return separator
    return None


def _evenness(sample: Sequence[str], separator: str, quoting: Quoting, width: int) -> float:
    """The share of the records that have so many fields."""
    widths = [
        len(record.fields)
        for record in records(iter(sample), separator, quoting=quoting)
        if not record.is_blank
    ]
    return widths.count(width) / len(widths)


@dataclass
class _Signs:
    """What a table shows when it is read both as CSV and with plain quotation marks.

    Attributes:
        width: how many columns the first record has as CSV; none_width, with plain marks.
        records: how many there are as CSV.
        uneven, none_uneven: how many records have other numbers of fields.
        faults: how many quotation marks do not close where a field ends; the first of them with its
            record.
        header_quoted: every field of the first record stands in quotation marks.
        quoted: how many fields stand in quotation marks; of those, ``doubled`` hold quotation
            marks, ``broken`` line breaks, and ``needless`` nothing that asks for them.
        bare: how many fields hold quotation marks without standing in them; of those, ``spaced``
            stand in them behind a space.
        quoted_in, plain_in: of each column, how many fields stand in quotation marks, and how many
            others are not empty.
    """

    width: int = 0
    none_width: int = 0
    records: int = 0
    uneven: int = 0
    none_uneven: int = 0
    faults: int = 0
    first_fault: Record | None = None
    header_quoted: bool = False
    quoted: int = 0
    doubled: int = 0
    broken: int = 0
    needless: int = 0
    bare: int = 0
    spaced: int = 0
    quoted_in: Counter[int] = field(default_factory=Counter)
    plain_in: Counter[int] = field(default_factory=Counter)

    @property
    def mixed(self) -> bool:
        """Whether a column has fields in quotation marks that need none beside others without."""
        return self.needless > 0 and any(self.plain_in[column] for column in self.quoted_in)

    def watch(self, lines: Iterator[str], separator: str) -> Iterator[str]:
        """The lines as they come, counted as records with plain quotation marks."""
        for line in lines:
            if content := content_of(line):
                width = content.count(separator) + 1
                self.none_width = self.none_width or width
                self.none_uneven += width != self.none_width
            yield line

    def add(self, record: Record, separator: str) -> None:
        """Count a record, read as CSV."""
        if record.fault:
            self.faults += 1
            self.first_fault = self.first_fault or record
            return
        self.records += 1
        if self.records == 1:
            self.width = self.width or len(record.fields)
            self.header_quoted = len(record.quoted) == len(record.fields)
        self.uneven += len(record.fields) != self.width
        self.bare += record.bare
        if record.bare:
            texts = [text for text in record.fields if text.startswith(" ") and '"' in text]
            self.spaced += sum(text.strip()[0] == '"' == text.strip()[-1] for text in texts)
        for column in record.quoted:
            text = record.fields[column]
            self.quoted += 1
            self.doubled += '"' in text
            self.broken += "\n" in text
            self.needless += text.strip() == text != "" and not any(
                sign in text for sign in ('"', separator, "\n", "\r")
            )
        if not record.quoted and not self.quoted_in or self.records == 1:
            return
        self.quoted_in.update(record.quoted)
        self.plain_in.update(
            column
            for column, text in enumerate(record.fields)
            if text and column not in record.quoted
        )


def _signs_of(
    lines: Iterator[str], separator: str, *, first_number: int, columns: int, lenient: bool
) -> _Signs:
    signs = _Signs(width=columns, none_width=columns)
    watched = signs.watch(lines, separator)
    for record in records(
        watched, separator, quoting="csv", first_number=first_number, lenient=lenient
    ):
        if not record.is_blank:
            signs.add(record, separator)
    return signs


def _quoting(signs: _Signs, separator: str, lenient: bool) -> tuple[Quoting, str]:
    """What quotation marks are, and what is to be told about it.

    Raises:
        UnclearTable: they fit neither reading.
    """
    plain = "quotation marks are taken as plain text (quoting: none)"
    as_csv = "quotation marks around fields are taken as CSV's and belong to no text (quoting: csv)"
    by_tab = separator == "\t"
    if signs.faults == 0:
        if not signs.quoted:
            return "csv", ""
        if signs.none_uneven:
            return ("csv", "") if signs.uneven <= signs.none_uneven else ("none", plain)
        if signs.uneven or by_tab and not _is_written_as_csv(signs):
            return "none", plain
        return "csv", as_csv if signs.mixed else ""
    assert signs.first_fault is not None
    if by_tab:
        csv_is_likelier = signs.header_quoted or signs.doubled >= signs.faults
    else:
        csv_is_likelier = (
            signs.header_quoted
            or signs.quoted > signs.faults
            or signs.first_fault.fault.endswith(UNCLOSED)
        )
    if not csv_is_likelier and not signs.none_uneven:
        return "none", plain
    if lenient:
        csv_loses_less = signs.faults + signs.uneven <= signs.none_uneven
        return ("csv", as_csv) if csv_is_likelier or csv_loses_less else ("none", plain)
    raise UnclearTable(
        f"line {signs.first_fault.line}: a quotation mark is out of place: "
        f"{signs.first_fault.fault}"
        + (f"; {signs.faults - 1} more like it" if signs.faults > 1 else "")
    )


def _is_written_as_csv(signs: _Signs) -> bool:
    """Whether a program that writes CSV could have set these quotation marks: all fields have them,
    or those that need them, or all texts of a column."""
    if signs.header_quoted:
        return True
    return not signs.bare and not signs.mixed and (signs.width == 1 or not signs.broken)
