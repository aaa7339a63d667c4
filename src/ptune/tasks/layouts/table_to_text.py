"""Table-to-text data: E2E (Novikova et al. 2017), WebNLG (Gardent et al. 2017, and its later years)
and DART (Nan et al. 2021), in the layouts they are published in and in Prefix-Tuning's (Li and
Liang 2021) text form of E2E. A table becomes one line, as Prefix-Tuning writes it, DART's relations
in lower case; but the underscores of names are spaces here, and quotation marks around them are
gone."""

import json
import os
import pathlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

from ptune.base import plain_files
from ptune.data import row_files
from ptune.data.row import FileRow
from ptune.data.rows import iterate_rows
from ptune.errors import DataError, nearest

SEEN_2017 = (
    "Airport",
    "Astronaut",
    "Building",
    "City",
    "ComicsCharacter",
    "Food",
    "Monument",
    "SportsTeam",
    "University",
    "WrittenWork",
)
SEEN_2020 = (
    *SEEN_2017,
    "Artist",
    "Athlete",
    "CelestialBody",
    "Company",
    "MeanOfTransportation",
    "Politician",
)
GOOD = ("", "good")  # what a text's comment says that is right; "toFix" is another
E2E_KEYS = {
    "eatType": "Type",
    "priceRange": "price",
    "customerRating": "customer rating",
    "familyFriendly": "family friendly",
}
ENGLISH = "en"
Entry = tuple[str, list[str] | None, dict[str, str]]  # the table, its texts, further fields
Read = Callable[[], Entry]  # reads an entry; what is wrong with it is a DataError


def read(
    path: str | os.PathLike[str],
    form: str,
    language: str | None = None,
    skipped: list[str] | None = None,
) -> list[dict[str, Any]]:
    """The rows of a data set: one for each distinct table, in order of first appearance.

    Args:
        form: "e2e" takes lines of ``table||text``, or a .csv with the columns mr,ref; "webnlg"
            takes JSON lines with the fields category, triples and lex, an .xml file, or a folder of
            these; "dart" takes its JSON.
        language: of WebNLG's texts, by the abbreviations of its .xml files (ru, br, cy, ga, mt);
            English by default, which those of 2017 are.
        skipped: where given, bad entries are left out and what was wrong with them is put here.

    Returns:
        Rows of ``table``, a line; ``text``, the list of all its reference texts as they stand in
        the file, repeats included; and for WebNLG the ``category`` and the ``part`` (of a table
        that stands under several categories, the first). The part is what the file says of a line,
        or its name (seen, unseen); else "seen" where that year's training set has the category,
        else "unseen". Texts of WebNLG that are marked as faulty (toFix), or are of another
        language, are left out, and an entry without any other. Entries that never had a text, as
        those of test sets published without answers, have no field ``text``.

    Raises:
        DataError: an unknown form, a file that cannot be read or is not of that form, an empty
            table, a table without a text, or no texts in that language.
    """
    if form not in KNOWN:
        raise DataError(f"There is no form {form!r} of table-to-text data. {nearest(form, KNOWN)}")
    path = pathlib.Path(path)
    reading = (
        _webnlg(path, language or ENGLISH, skipped)
        if form == "webnlg"
        else FORMS[form](path, skipped)
    )
    rows: dict[str, dict[str, Any]] = {}
    for place, read_entry in reading:
        try:
            table, texts, fields = _checked(place, read_entry())
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            continue
        row = rows.setdefault(table, {"table": table, **fields})
        if texts is not None:
            row.setdefault("text", []).extend(texts)
    if not rows:
        of_language = f" with a text marked lang={language!r}" if language else ""
        raise DataError(f"{path} holds no rows{of_language}.")
    return list(rows.values())


def _checked(place: str, entry: Entry) -> Entry:
    """An entry, its texts without the spaces around them."""
    table, texts, fields = entry
    if not table:
        raise DataError(f"{place}: the table is empty.")
    if texts is None:
        return entry
    if not (texts := [text.strip() for text in texts if text.strip()]):
        raise DataError(f"{place}: there is no text for the table.")
    return table, texts, fields


def _e2e(path: pathlib.Path, skipped: list[str] | None) -> Iterator[tuple[str, Read]]:
    if path.suffix == ".csv":
        yield from _e2e_csv(path, skipped)
        return
    with row_files.opened(path, lenient=True) as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                place = f"{path}, line {number}"
                fault = (
                    row_files.undecoded(path, number, None, skipped is not None)
                    if row_files.is_undecoded(line)
                    else ""
                )
                yield place, partial(_e2e_line, line, place, fault)


def _e2e_line(line: str, place: str, fault: str) -> Entry:
    if fault:
        raise DataError(fault)
    table, separator, text = line.partition("||")
    if not separator:
        raise DataError(f"{place}: table||text is expected, and it is: {line.rstrip()[:60]!r}")
    return table.strip(), [text], {}


def _e2e_csv(path: pathlib.Path, skipped: list[str] | None) -> Iterator[tuple[str, Read]]:
    for row in iterate_rows(path, skipped):
        values = {name.lower(): value for name, value in row.items()}
        for name in ("mr", "ref"):
            if name not in values:
                raise DataError(f"{path} has no column {name!r}. {nearest(name, values)}")
        yield row.place, partial(_e2e_values, values["mr"], values["ref"], row.place)


def _e2e_values(meaning: str, text: str, place: str) -> Entry:
    return _meaning(meaning, place), [text], {}


def _meaning(text: str, place: str) -> str:
    """A meaning representation, key[value], key[value], in the words and with the spaces of the
    text form."""
    if not re.fullmatch(r"([^][,]+\[[^][]*\](,|$))*", text.strip()):
        raise DataError(
            f"{place}: key[value], key[value], ... is expected, and it is: {text[:60]!r}"
        )
    pairs = re.findall(r"([^][,]+)\[([^][]*)\]", text)
    return " | ".join(
        f"{E2E_KEYS.get(key.strip(), key.strip())} : {_spaced(value.strip())}"
        for key, value in pairs
    )


def _spaced(value: str) -> str:
    """£20-25 as the text form has it, £ 20 - 25."""
    return re.sub(r"(?<=\d)-(?=\d)", " - ", re.sub(r"£(?=\d)", "£ ", value))


def _webnlg(
    path: pathlib.Path, language: str, skipped: list[str] | None
) -> Iterator[tuple[str, Read]]:
    files = (
        sorted(file for file in path.rglob("*") if file.suffix in (".xml", ".jsonl"))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise DataError(f"{path} is a folder without .xml or .jsonl files.")
    for file in files:
        if file.suffix == ".xml":
            yield from _webnlg_xml(file, language)
        elif language == ENGLISH:
            yield from _webnlg_lines(file, skipped)
        else:
            raise DataError(
                f"{file}: WebNLG's JSON lines hold English texts, and {language!r} is asked for: "
                "give its .xml files."
            )


def _webnlg_entry(
    place: str, category: Any, part: str, *, triples: Any, texts: list[str] | None
) -> Entry:
    if not isinstance(category, str) or not category:
        raise DataError(f"{place}: the category is missing.")
    return _line(triples, place), texts, {"category": category, "part": part}


def _part(path: pathlib.Path, category: Any, seen: Collection[str]) -> str:
    """The part of an entry: by the name of its file, or by the categories that training has."""
    named = re.search(r"(?<![a-z])(un)?seen(?![a-z])", path.stem.lower())
    return named[0] if named else "seen" if category in seen else "unseen"


def _webnlg_xml(path: pathlib.Path, language: str) -> Iterator[tuple[str, Read]]:
    try:
        plain_files.check(path)
        root = ElementTree.parse(path, forbid_dtd=True).getroot()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except DefusedXmlException as error:
        raise DataError(
            f"{path} holds a document type or entities, which are not read: {error}"
        ) from error
    except (ParseError, ValueError) as error:
        raise DataError(f"{path} is not valid XML: {error}.") from error
    later = root.find(".//lex[@lang]") is not None  # since 2020 a text says its language
    for number, entry in enumerate(root.iter("entry"), 1):
        triples = [
            (triple.text or "").split(" | ")
            for triple in entry.findall("modifiedtripleset/mtriple")
        ]
        texts = entry.findall("lex")
        taken = [
            text.text or ""
            for text in texts
            if text.get("lang", ENGLISH) == language and text.get("comment", "").strip() in GOOD
        ]
        if taken or not texts:
            category, place = entry.get("category"), f"{path}, entry {number} ({entry.get('eid')})"
            part = _part(path, category, SEEN_2020 if later else SEEN_2017)
            of_entry = taken if texts else None
            yield (
                place,
                partial(_webnlg_entry, place, category, part, triples=triples, texts=of_entry),
            )


def _webnlg_lines(path: pathlib.Path, skipped: list[str] | None) -> Iterator[tuple[str, Read]]:
    for row in iterate_rows(path, skipped):
        yield row.place, partial(_webnlg_row, row, path)


def _webnlg_row(row: FileRow, path: pathlib.Path) -> Entry:
    category = row.get("category")
    part = row["part"] if isinstance(row.get("part"), str) else _part(path, category, SEEN_2017)
    texts = _texts(row["lex"], row.place) if "lex" in row else None
    return _webnlg_entry(row.place, category, part, triples=row.get("triples"), texts=texts)


def _dart(path: pathlib.Path, skipped: list[str] | None) -> Iterator[tuple[str, Read]]:
    try:
        with row_files.opened(path) as stream:
            entries = json.loads(stream.read())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(entries, list):
        raise DataError(
            f"{path} is not DART's layout, a list of entries with the fields tripleset and "
            "annotations."
        )
    for number, entry in enumerate(entries, 1):
        place = f"{path}, entry {number}"
        yield place, partial(_dart_entry, entry, place)


def _dart_entry(entry: Any, place: str) -> Entry:
    if not isinstance(entry, dict) or not isinstance(entry.get("annotations"), list):
        raise DataError(
            f"{place}: an object with the fields tripleset and annotations is expected, and "
            f"it is: {str(entry)[:60]}"
        )
    texts = [
        annotation.get("text") if isinstance(annotation, dict) else None
        for annotation in entry["annotations"]
    ]
    triples = entry.get("tripleset")
    if isinstance(triples, list):
        triples = [_lowered(triple) for triple in triples]
    return _line(triples, place), _texts(texts, place), {}


def _lowered(triple: Any) -> Any:
    """A triple with its relation in lower case, as Prefix-Tuning's code reads DART; what is none
    stays."""
    if isinstance(triple, list) and len(triple) == 3 and isinstance(triple[1], str):
        return [triple[0], triple[1].lower(), triple[2]]
    return triple


def _line(triples: Any, place: str) -> str:
    """Triples as subject : property : object | subject : property : object."""
    if not isinstance(triples, list):
        raise DataError(f"{place}: the list of triples is missing.")
    for triple in triples:
        if not isinstance(triple, list) or len(triple) != 3 or not _strings(triple):
            raise DataError(
                f"{place}: a triple is a subject, a property and an object, and this is {triple!r}."
            )
    return " | ".join(
        f"{_plain(subject)} : {name.strip()} : {_plain(value)}" for subject, name, value in triples
    )


def _plain(entity: str) -> str:
    entity = entity.replace("_", " ").strip()
    return entity[1:-1] if re.fullmatch('"[^"]*"', entity) else entity


def _texts(texts: Any, place: str) -> list[str]:
    if not isinstance(texts, list) or not _strings(texts):
        raise DataError(f"{place}: a list of texts is expected, and it is: {str(texts)[:60]}")
    return texts


def _strings(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


FORMS = {"e2e": _e2e, "dart": _dart}
KNOWN = (*FORMS, "webnlg")
