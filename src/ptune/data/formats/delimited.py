"""Tables of text with a separator (CSV, TSV and their kin): their records, read and written one by
one, in constant memory."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

Quoting = Literal["csv", "none", "backslash", "single", "spaced"]
SEPARATORS = {
    ",": "comma",
    "\t": "tab",
    ";": "semicolon",
    "|": "vertical bar",
    "^": "caret",
    "~": "tilde",
    "\x01": "control sign 1",
    "\x1f": "control sign 31",
    ":": "colon",
}
BY_ENDING = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
UNCLOSED = "is never closed"
UP_TO_MARK = re.compile(r'(?:[^\\"]|\\.)*"', re.DOTALL)
ESCAPED = re.compile(r'\\([\\"])')


def written(fields: Iterable[str], separator: str) -> str:
    """A record of a table with its end, as every reader of CSV takes it: a field that holds the
    separator, a quotation mark, or either sign that may end a line stands in quotation marks, and
    so does one that is empty and alone, since an empty line is no record."""
    signs = (separator, '"', "\r", "\n")
    cells = [
        '"' + field.replace('"', '""') + '"' if any(sign in field for sign in signs) else field
        for field in fields
    ]
    return ('""' if cells == [""] else separator.join(cells)) + "\n"


@dataclass(frozen=True)
class Record:
    """A record of a table.

    Attributes:
        line: the number of its first line in the file.
        quoted: the numbers of the fields that stood in quotation marks.
        bare: how many others hold quotation marks.
        fault: what is wrong with a quotation mark; the fields are then not to be relied on.
    """

    line: int
    fields: list[str]
    quoted: tuple[int, ...] = ()
    bare: int = 0
    fault: str = ""

    @property
    def is_blank(self) -> bool:
        """Whether it is an empty line."""
        return self.fields == [""] and not self.quoted and not self.fault


class NumberedLines(Iterator[tuple[int, str]]):
    """Lines with their numbers, which can be read again from the second line of a record on.

    Attributes:
        given_up: the number of the last line of the records that were given up.
    """

    def __init__(self, lines: Iterator[str], first_number: int):
        self.lines, self.number, self.given_up = lines, first_number - 1, 0
        self.of_record: list[str] = []
        self.again: deque[str] = deque()

    def __next__(self) -> tuple[int, str]:
        line = self.again.popleft() if self.again else next(self.lines)
        self.of_record.append(line)
        self.number += 1
        return self.number, line

    def begin_record(self) -> None:
        """The line that comes next is the first of a record."""
        self.of_record.clear()

    def give_up_record(self) -> None:
        """Take only the first line of the record for it; the others come again."""
        self.given_up = max(self.given_up, self.number)
        self.number -= len(self.of_record) - 1
        self.again.extendleft(reversed(self.of_record[1:]))
        del self.of_record[1:]


def records(
    lines: Iterator[str],
    separator: str,
    *,
    quoting: Quoting,
    first_number: int = 1,
    lenient: bool = False,
) -> Iterator[Record]:
    """The records of a table, blank lines among them.

    Args:
        lines: with their ends.
        first_number: the number of the first line.
        lenient: a quotation mark out of place costs its line alone, and not those in which
            another one was looked for; of these, lines that might be the rest of its record are
            faulty too.
    """
    numbered = NumberedLines(lines, first_number)
    mark = "'" if quoting == "single" else '"'
    for number, line in numbered:
        if quoting == "none" or mark not in line:
            yield Record(number, content_of(line).split(separator))
        else:
            record = _with_marks(number, line, numbered, separator=separator, quoting=quoting)
            if lenient and record.fault:
                numbered.give_up_record()
            elif record.bare and number <= numbered.given_up + 1:
                numbered.given_up = max(number, numbered.given_up)
                record = replace(record, fault=f"that of {_shown(line)} may close one before it")
            yield record
        numbered.begin_record()


def _with_marks(
    start: int,
    line: str,
    numbered: Iterator[tuple[int, str]],
    *,
    separator: str,
    quoting: Quoting,
) -> Record:
    """The record that begins with this line, which has a quotation mark; it takes further lines
    where a quoted field does."""
    fields: list[str] = []
    quoted: list[int] = []
    position = 0
    mark = "'" if quoting == "single" else '"'
    while True:
        if quoting == "spaced":
            position = len(line) - len(line[position:].lstrip(" "))
        if line.startswith(mark, position):
            parts, position = [], position + 1
            begun = line[position:]
            while (closing := _closing_mark(line, position, mark, quoting)) < 0:
                parts.append(line[position:])
                following = next(numbered, None)
                if following is None:
                    return Record(
                        start, fields, fault=f"the quotation mark before {_shown(begun)} {UNCLOSED}"
                    )
                line, position = following[1], 0
            parts.append(line[position:closing])
            position = closing + 1
            quoted.append(len(fields))
            content = "".join(parts)
            if quoting == "backslash":
                fields.append(ESCAPED.sub(r"\1", content))
            else:
                fields.append(content.replace(mark * 2, mark))
            rest = content_of(line[position:])
            if rest and not rest.startswith(separator):
                return Record(
                    start,
                    fields,
                    fault=f"the quotation mark before {_shown(begun)} closes before "
                    f"{_shown(rest)}, and not at the end of the field",
                )
        else:
            end = line.find(separator, position)
            fields.append(line[position:end] if end >= 0 else content_of(line[position:]))
            position = end if end >= 0 else len(line)
        if not line.startswith(separator, position):
            bare = sum(mark in text for column, text in enumerate(fields) if column not in quoted)
            return Record(start, fields, tuple(quoted), bare)
        position += len(separator)


def _closing_mark(line: str, position: int, mark: str, quoting: Quoting) -> int:
    """The quotation mark that closes the field, which is not doubled, or not behind a backslash; -1
    where the field goes on in the next line."""
    if quoting == "backslash":
        closing = UP_TO_MARK.match(line, position)
        return closing.end() - 1 if closing else -1
    while (place := line.find(mark, position)) >= 0 and line.startswith(mark, place + 1):
        position = place + 2
    return place


def content_of(line: str) -> str:
    """A line without its end."""
    return (
        line[:-2] if line.endswith("\r\n") else line[:-1] if line.endswith(("\n", "\r")) else line
    )


def _shown(text: str) -> str:
    return repr(text.strip()[:30])


Opened = Callable[[], AbstractContextManager[Iterator[str]]]
