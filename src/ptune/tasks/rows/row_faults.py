"""What is wrong with rows, told at once: the first faults, each with the lines that it comes in,
and how many more there are."""

import re
from collections.abc import Sequence

from ptune.data.formats.header import field_hint
from ptune.data.row import place_of
from ptune.errors import DataError, TemplateError
from ptune.tasks.rows.few_shot import Row
from ptune.template.language import Field, text_of

SHOWN = 5
"""So many faults are told; the others are counted."""
SAME_LISTED = 4  # further lines with the same fault that are named
PLACE = re.compile(r"(?P<file>.*?, line |Row )(?P<line>\d+)(?P<fault>.*)", re.DOTALL)


def refuse(faults: Sequence[str], last: str = "") -> None:
    """Tell the first few of many faults, each once with the lines that it comes in, how many more
    there are, and what is to be told in the end.

    Raises:
        DataError: there is one.
    """
    if faults:
        lines: dict[tuple[str, str], list[str]] = {}
        for fault in faults:
            where = PLACE.fullmatch(fault)
            key = (where["file"], where["fault"]) if where else (fault, "")
            lines.setdefault(key, []).append(where["line"] if where else "")
        grouped = list(lines.items())
        more = sum(len(numbers) for _, numbers in grouped[SHOWN:])
        counted = [f"... and {more} more faults in the rows."] if more else []
        sentences = [_with_lines(*key, numbers) for key, numbers in grouped[:SHOWN]]
        raise DataError("\n".join([*sentences, *counted, *([last] if last else [])]))


def _with_lines(file: str, fault: str, lines: Sequence[str]) -> str:
    """A fault at the first of its lines, and in which others it is."""
    sentence = f"{file}{lines[0]}{fault}"
    if len(others := lines[1:]) == 0:
        return sentence
    more = f" and {len(others) - SAME_LISTED} more" if len(others) > SAME_LISTED else ""
    place = "row" if file == "Row " else "line"
    listed = ", ".join(others[:SAME_LISTED])
    return f"{sentence} The same in {place}{'s' if len(others) > 1 else ''} {listed}{more}."


def fault_of(row: Row, number: int, field: Field) -> str:
    """What is wrong with a field that should hold a text; empty where nothing is."""
    try:
        text_of(row, field)
    except TemplateError as error:
        if field.name not in row and field.name.split(".")[0] not in row:
            return lacking(row, number, field.name, "which the task reads")
        return f"{place_of(row, number)}: {error}"
    return ""


def lacking(row: Row, number: int, field: str, what: str) -> str:
    """The sentence that a row lacks a field, what for, and which of its fields may be meant."""
    return f"{place_of(row, number)} has no field {field!r}, {what}. {field_hint(field, row)}"
