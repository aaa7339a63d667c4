"""Rows of JSON: JSON lines, one array, one object of columns, or a nested object. Numbers keep
their spelling, missing values are None, and a key that stands twice is a fault."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

SHOWN = 60
INTEGER_DIGITS = 4000
"""Python turns no longer whole numbers into text."""


class Number(float):
    """A number that is written as it stood in its file: 5.00, 1e3."""

    spelling: str

    def __new__(cls, spelling: str) -> "Number":
        number = super().__new__(cls, spelling)
        number.spelling = spelling
        return number

    def __str__(self) -> str:
        return self.spelling

    def __reduce__(self) -> tuple[type["Number"], tuple[str]]:
        return Number, (self.spelling,)


def _whole(spelling: str) -> int | Number:
    return Number(spelling) if spelling == "-0" or len(spelling) > INTEGER_DIGITS else int(spelling)


def _constant(spelling: str) -> Number | None:
    return None if spelling == "NaN" else Number(spelling)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise RepeatedKey(
            f"the key {twice!r} stands twice, as value {names.index(twice) + 1} and value "
            f"{names.index(twice, names.index(twice) + 1) + 1} of its object: which is meant?"
        )
    return row


class RepeatedKey(ValueError):
    """An object has a key twice."""


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=Number, parse_int=_whole, parse_constant=_constant
)


def parsed(text: str) -> Any:
    """What a JSON text says; ``NaN`` is None, a missing value.

    Raises:
        ValueError: it is not JSON, has a key twice, or half of a character.
    """
    value = _DECODER.decode(text)
    _check_characters(text)
    return value


def row_of(line: str) -> dict[str, Any]:
    """The row that a line of JSON holds; a ValueError says why it holds none."""
    try:
        row = parsed(line)
    except RepeatedKey:
        raise
    except ValueError as error:
        raise ValueError(
            f"not valid JSON ({error}): {line.strip()[:SHOWN]!r}{_json_hint(line)}"
        ) from error
    except RecursionError as error:
        raise ValueError(f"JSON that is nested too deep: {line.strip()[:SHOWN]!r}") from error
    if not isinstance(row, dict):
        raise ValueError(
            f'a JSON object is expected, {{"field": "value", ...}}, and it is: '
            f"{line.strip()[:SHOWN]!r}"
        )
    return row


def _json_hint(line: str) -> str:
    """What seems to be wrong with a line that is nearly JSON."""
    text = line.strip()
    if re.fullmatch(r"\{.*\},", text):
        return ". A comma stands behind the object: take it off, or put [ and ] around all lines"
    if re.search(r",\s*[}\]]", text):
        return ". A comma stands before a closing bracket, which JSON does not know"
    if re.search(r'\}\s*\{"', text):
        return ". Objects stand one behind the other: put each on a line of its own"
    if text.startswith("{'"):
        return ". It is Python's spelling: json.dumps(row) writes JSON, with double quotation marks"
    return ""


def _check_characters(text: str) -> None:
    """Refuse half of a character (a lone surrogate), which no tokenizer and no file takes."""
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(json.loads(text, parse_int=str), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"half of a character stands there (\\u{ord(error.object[error.start]):04x})"
            ) from error


def written(value: Any) -> str:
    """JSON of a value, its numbers as they were spelt."""
    if isinstance(value, Number):
        return value.spelling
    if isinstance(value, Mapping):
        return (
            "{"
            + ", ".join(
                f"{json.dumps(str(name), ensure_ascii=False)}: {written(member)}"
                for name, member in value.items()
            )
            + "}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def half_character(value: Any) -> str:
    """What is wrong with the characters of a value: half of one (a lone surrogate), or a byte that
    is not of the file's encoding, which lenient reading keeps as such; empty where nothing is."""
    try:
        written(value).encode()
    except UnicodeEncodeError as error:
        return f"half of a character stands there (\\u{ord(error.object[error.start]):04x})"
    return ""


def values(text: str, check: bool = True) -> Iterator[tuple[int, Any]]:
    """The JSON values that stand in a text one behind the other, or, where it is one array, its
    elements; each with its line.

    Args:
        check: halves of characters are refused.

    Raises:
        ValueError: it is not JSON; the line is told.
    """
    position, line = _skipped(text, 0), 1
    line += text.count("\n", 0, position)
    in_array = text[position : position + 1] == "["
    if in_array:
        position += 1
    begun = position
    while True:
        start = _skipped(text, position)
        line += text.count("\n", position, start)
        if in_array and text[start : start + 1] == "]" or not in_array and start == len(text):
            if in_array and (rest := _skipped(text, start + 1)) < len(text):
                raise ValueError(
                    f"line {line}: something stands behind the end of the array: "
                    f"{text[rest : rest + SHOWN]!r}"
                )
            return
        if in_array and position != begun:
            if text[start : start + 1] != ",":
                raise ValueError(
                    f"line {line}: a comma or the end of the array is expected: "
                    f"{text[start : start + SHOWN]!r}"
                )
            after = _skipped(text, start + 1)
            line += text.count("\n", start, after)
            start = after
        try:
            value, position = _DECODER.raw_decode(text, start)
        except RepeatedKey as error:
            raise ValueError(f"line {line}: {error}") from error
        except json.JSONDecodeError as error:
            ended = text[error.pos :].count("\n") < 2 and error.pos + SHOWN > len(text)
            raise ValueError(
                f"line {error.lineno}: not valid JSON ({error.msg}): "
                f"{text[error.pos : error.pos + SHOWN]!r}"
                + (". The file ends before its end: copy it anew" if ended else "")
            ) from error
        except RecursionError as error:
            raise ValueError(f"line {line}: JSON that is nested too deep") from error
        if check:
            _check_part(text[start:position], line)
        yield line, value
        line += text.count("\n", start, position)


def _check_part(text: str, line: int) -> None:
    try:
        _check_characters(text)
    except ValueError as error:
        raise ValueError(f"line {line}: {error}") from error


def _skipped(text: str, position: int) -> int:
    """Where the next sign stands that is no space."""
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def of_object(value: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str] | None:
    """The rows of an object that holds a whole table, and how it holds them; None where it is a row
    itself.

    Known are an object of columns (lists of one length, or objects with the same whole numbers as
    keys, as pandas writes), of rows under such numbers, pandas' "split" and "table", and an object
    with one list of objects.
    """
    if set(value) >= {"columns", "data"} and all(
        isinstance(value[name], list) for name in ("columns", "data")
    ):
        names = [str(name) for name in value["columns"]]
        if twice := [name for name in names if names.count(name) > 1]:
            raise RepeatedKey(f"the column {twice[0]!r} stands twice: which is meant?")
        return [
            dict(zip(names, row, strict=True)) for row in value["data"]
        ], 'pandas\' form "split"'
    members = list(value.values())
    if (
        len(members) > 1
        and all(isinstance(member, list) for member in members)
        and len(set(map(len, members))) == 1
        and not any(map(_objects, members))
    ):
        return [dict(zip(value, row)) for row in zip(*members)], "an object of columns"
    if members and all(isinstance(member, dict) and member for member in members):
        keys = list(members[0])
        are_columns = _are_numbers(keys) and all(list(member) == keys for member in members)
        if list(value) == [str(number) for number in range(len(value))] or (
            _are_numbers(value) and not are_columns
        ):
            return list(members), "an object of rows"
        if are_columns and not _are_numbers(value):
            return [
                {name: member[key] for name, member in value.items()} for key in keys
            ], "an object of columns"
    lists = [
        name for name, member in value.items() if isinstance(member, list) and _objects(member)
    ]
    if len(lists) == 1 and not any(
        isinstance(member, str) and name != "version" for name, member in value.items()
    ):
        return value[lists[0]], f"the list {lists[0]!r} of an object (record_path: {lists[0]})"
    return None


def _are_numbers(keys: Iterable[str]) -> bool:
    """Whether keys are whole numbers, as the index of a data frame is, of which some rows may have
    been taken."""
    return all(re.fullmatch(r"-?\d+", key) for key in keys)


def _objects(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(member, dict) for member in values)


def along(
    value: Any, path: Sequence[str], above: Mapping[str, Any] | None = None
) -> Iterator[dict[str, Any]]:
    """The objects of nested lists under the names of a path; each with the plain fields of those
    that hold it.

    Raises:
        KeyError: a name is not there; it is the argument.
    """
    above = above or {}
    if isinstance(value, list):
        for element in value:
            yield from along(element, path, above)
        return
    if not isinstance(value, dict):
        raise KeyError(path[0] if path else "")
    if not path:
        yield {**above, **value}
        return
    if path[0] not in value:
        raise KeyError(path[0])
    plain = {name: member for name, member in value.items() if not isinstance(member, dict | list)}
    yield from along(value[path[0]], path[1:], {**above, **plain})


def path_to_rows(value: Any) -> str:
    """The names that lead to the deepest list of objects, with dots between, as long as only one
    way leads on; empty where there is none."""
    path: list[str] = []
    last = 0
    while isinstance(value, dict):
        deeper = {
            name: member
            for name, member in value.items()
            if isinstance(member, dict) or isinstance(member, list) and _objects(member)
        }
        if len(deeper) != 1:
            break
        name, member = next(iter(deeper.items()))
        path.append(name)
        if isinstance(member, list):
            last, member = len(path), member[0]
        value = member
    return ".".join(path[:last])


def path_to(value: Any, field: str, path: tuple[str, ...] = ()) -> str | None:
    """Under which lists a field stands, such as "data.paragraphs.qas"; None where it stands nowhere
    or at the top."""
    if isinstance(value, list):
        return path_to(value[0], field, path) if value else None
    if not isinstance(value, dict):
        return None
    if path and field in value:
        return ".".join(path)
    deeper = (
        path_to(member, field, (*path, name))
        for name, member in value.items()
        if isinstance(member, dict | list)
    )
    return next((member_path for member_path in deeper if member_path), None)
