"""Table-to-text data: E2E (Novikova et al. 2017), WebNLG (Gardent et al. 2017, and its later years)
and DART (Nan et al. 2021), in the layouts they are published in and in Prefix-Tuning's (Li and
Liang 2021) text form of E2E. A table becomes one line, as Prefix-Tuning writes it, DART's relations
in lower case; but the underscores of names are spaces here, and quotation marks around them are
gone."""

import json
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException, ElementTree

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
WebnlgEntry = tuple[
    str, Any, str, Any, list[str]
]  # the place, the category, the part, the triples, the texts
Entry = tuple[
    str, str, list[str], dict[str, str]
]  # the place in the file, the table, its texts, further fields


def read(path: str | os.PathLike[str], form: str, language: str = "en") -> list[dict[str, Any]]:
    """The rows of a data set: one for each distinct table, in order of first appearance.

    Args:
        form: "e2e" takes lines of ``table||text``, or a .csv with the columns mr,ref; "webnlg"
            takes JSON lines with the fields category, triples and lex, an .xml file, or a folder of
            these; "dart" takes its JSON.
        language: of WebNLG's texts, by the files' abbreviations (en, ru, br, cy, ga, mt); those of
            2017 are English.

    Returns:
        Rows of ``table``, a line; ``text``, the list of all its reference texts as they stand in
        the file, repeats included; and for WebNLG the ``category`` and the ``part`` (of a table
        that stands under several categories, the first). The part is what the file says of a line,
        or its name (seen, unseen); else "seen" where that year's training set has the category,
        else "unseen". Texts of WebNLG that are marked as faulty (toFix), or are of another
        language, are left out, and an entry without any other.

    Raises:
        DataError: an unknown form, a file that cannot be read or is not of that form, an empty
            table, or a table without a text.
    """
    if form not in FORMS:
        raise DataError(f"There is no form {form!r} of table-to-text data. {nearest(form, FORMS)}")
    rows: dict[str, dict[str, Any]] = {}
    for place, table, texts, fields in FORMS[form](pathlib.Path(path), language):
        if not table:
            raise DataError(f"{place}: the table is empty.")
        if not (texts := [text.strip() for text in texts if text.strip()]):
            raise DataError(f"{place}: there is no text for the table.")
        rows.setdefault(table, {"table": table, "text": [], **fields})["text"] += texts
    if not rows:
        raise DataError(f"{path} holds no rows.")
    return list(rows.values())


def _e2e(path: pathlib.Path, language: str) -> Iterator[Entry]:
    if path.suffix == ".csv":
        yield from _e2e_csv(path)
        return
    for number, line in enumerate(_content(path).split("\n"), 1):
        table, separator, text = line.partition("||")
        if separator:
            yield f"{path}, line {number}", table.strip(), [text], {}
        elif line.strip():
            raise DataError(
                f"{path}, line {number}: table||text is expected, and it is: {line[:60]!r}"
            )


def _e2e_csv(path: pathlib.Path) -> Iterator[Entry]:
    for read_row in iterate_rows(path):
        row = {name.lower(): value for name, value in read_row.items()}
        for name in ("mr", "ref"):
            if name not in row:
                raise DataError(f"{path} has no column {name!r}. {nearest(name, row)}")
        yield read_row.place, _meaning(row["mr"], read_row.place), [row["ref"]], {}


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


def _webnlg(path: pathlib.Path, language: str) -> Iterator[Entry]:
    files = (
        sorted(file for file in path.rglob("*") if file.suffix in (".xml", ".jsonl"))
        if path.is_dir()
        else [path]
    )
    if not files:
        raise DataError(f"{path} is a folder without .xml or .jsonl files.")
    for file in files:
        entries = _webnlg_xml(file, language) if file.suffix == ".xml" else _webnlg_lines(file)
        for place, category, part, triples, texts in entries:
            if not isinstance(category, str) or not category:
                raise DataError(f"{place}: the category is missing.")
            yield place, _line(triples, place), texts, {"category": category, "part": part}


def _part(path: pathlib.Path, category: Any, seen: Collection[str]) -> str:
    """The part of an entry: by the name of its file, or by the categories that training has."""
    named = re.search(r"(?<![a-z])(un)?seen(?![a-z])", path.stem.lower())
    return named[0] if named else "seen" if category in seen else "unseen"


def _webnlg_xml(path: pathlib.Path, language: str) -> Iterator[WebnlgEntry]:
    try:
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
            if text.get("lang", "en") == language and text.get("comment", "").strip() in GOOD
        ]
        if taken or not texts:
            part = _part(path, entry.get("category"), SEEN_2020 if later else SEEN_2017)
            yield (
                f"{path}, entry {number} ({entry.get('eid')})",
                entry.get("category"),
                part,
                triples,
                taken,
            )


def _webnlg_lines(path: pathlib.Path) -> Iterator[WebnlgEntry]:
    for row in iterate_rows(path):
        place, category = row.place, row.get("category")
        part = row["part"] if isinstance(row.get("part"), str) else _part(path, category, SEEN_2017)
        yield place, category, part, row.get("triples"), _texts(row.get("lex"), place)


def _dart(path: pathlib.Path, language: str) -> Iterator[Entry]:
    try:
        entries = json.loads(_content(path))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(entries, list):
        raise DataError(
            f"{path} is not DART's layout, a list of entries with the fields tripleset and "
            "annotations."
        )
    for number, entry in enumerate(entries, 1):
        place = f"{path}, entry {number}"
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
        yield place, _line(triples, place), _texts(texts, place), {}


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


def _content(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8."
        ) from error


FORMS = {"e2e": _e2e, "webnlg": _webnlg, "dart": _dart}
