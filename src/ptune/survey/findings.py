"""What was counted over rows, as sentences that a person can act on."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from ptune.errors import nearest
from ptune.survey.columns import Column
from ptune.survey.label_sets import LabelSets
from ptune.survey.text_checks.duplicates import Duplicates
from ptune.survey.text_checks.texts import Texts, script_shares

WHOLE_AS_DECIMAL = re.compile(r"(?<=\d)\.0+$")
RARE = 3
"""A label with fewer rows cannot stand in train, dev and test."""
LISTED = 5
LEAKAGE = "Leakage"  # how a sentence about a text of two splits begins
MAY_BE_MISSING = "which may stand for a missing text"
MAIN_SHARE = 0.99
"""Texts in other scripts are told where the main one has less."""


def of_labels(labels: Mapping[str, int], where: str = "") -> list[str]:
    """What is odd about labels: forms that differ in white space, case or Unicode's form alone, and
    rare ones.

    Args:
        labels: how often each comes, as the file spells it.
        where: begins the sentences, such as "data.csv: ".
    """
    sentences = []
    forms: dict[str, list[str]] = {}
    for label in labels:
        forms.setdefault(plain_form(label), []).append(label)
    for alike in forms.values():
        if len(alike) > 1:
            listed = ", ".join(f"{label!r} ({labels[label]:,})" for label in alike)
            sentences.append(
                f"{where}labels that may be one and differ in {difference(alike[0], alike[1])}: "
                f"{listed}."
            )
    sentences += _several_in_one(labels, where)
    counts: dict[str, int] = {}
    for label, count in labels.items():
        counts[label.strip()] = counts.get(label.strip(), 0) + count
    rare = [label for label, count in counts.items() if count < RARE]
    if rare:
        listed = ", ".join(f"{label!r} ({counts[label]})" for label in rare[:LISTED])
        more = f" and {len(rare) - LISTED} more" if len(rare) > LISTED else ""
        sentences.append(f"{where}labels with fewer than {RARE} rows: {listed}{more}.")
    return sentences


def _several_in_one(labels: Mapping[str, int], where: str) -> list[str]:
    """Labels that seem to be several in one cell."""
    known = {label.strip() for label in labels}
    for separator in ("|", ";", ",", "/", "+"):
        several = [
            label
            for label in labels
            if separator in label and known & {part.strip() for part in label.split(separator)}
        ]
        if several:
            return [
                f"{where}labels that seem to be several in one cell, such as {several[0]!r}: "
                "where a row may have several, a task says multi_label: true and data: "
                f"{{label_separator: {separator!r}}}."
            ]
    return []


def of_label_sets(name: str, sets: LabelSets, where: str = "") -> list[str]:
    """That the cells of a column hold several labels.

    Args:
        name: of the column.
    """
    how = f"with {sets.separator!r} between them" if sets.separator else "as lists"
    return [
        f"{where}the column {name!r} seems to hold none, one or several labels in a cell, {how}, "
        "and the YAML says multi_label: true. Where a cell is one label, leave that out."
    ]


def plain_form(label: str) -> str:
    """A label without what is easily overlooked: Unicode's form, case, the white space around."""
    return unicodedata.normalize("NFKC", label).strip().casefold()


def difference(label: str, other: str) -> str:
    """In what two labels differ that look alike."""
    if label.strip() == other.strip():
        return "the white space around them"
    if unicodedata.normalize("NFC", label) == unicodedata.normalize("NFC", other):
        return "Unicode's form alone (a letter with its accent as one sign or as two, NFC and NFD)"
    if label.casefold() == other.casefold():
        return "upper and lower case"
    return "Unicode's form or the white space and case"


def like_label(label: str, labels: Iterable[str]) -> str | None:
    """The label that another one stands for, as far as they differ in what is easily overlooked or
    in the decimal point of a whole number; None where there is none."""
    whole = WHOLE_AS_DECIMAL.sub("", label)
    form = plain_form(label)
    return next((known for known in labels if known == whole or plain_form(known) == form), None)


def likest_label(label: str, labels: Iterable[str]) -> str:
    """A sentence that names the label which another one may stand for, and in what they differ."""
    labels = list(labels)
    known = like_label(label, labels)
    if known is None:
        return nearest(label, labels)
    if plain_form(known) == plain_form(label):
        return f"It differs from the label {known!r} in {difference(label, known)}."
    return (
        f"It is the label {known!r} with a decimal point, which data frames give to whole numbers "
        "where a cell of the column is empty."
    )


def of_answers(column: Column, rows: int, where: str = "") -> list[str]:
    """What is missing in the column with the right answer.

    Args:
        rows: how many rows the file has.
    """
    lacking = rows - column.filled
    if not lacking:
        return []
    return [
        f"{where}{rows_in_words(lacking)} of {rows:,} without a value in {column.name!r}, which "
        "training refuses: fill it in, or leave them out."
    ]


def rows_in_words(count: int) -> str:
    """So many rows."""
    return f"{count:,} row{'s' if count != 1 else ''}"


def of_texts(texts: Texts, where: str = "") -> list[str]:
    """What is odd about texts."""
    sentences = []
    for kind, count, what in (
        ("empty", texts.empty, "are empty, missing or without a visible sign"),
        (
            "damaged",
            texts.damaged,
            "have signs of an encoding that was read as another (Ã©, â€™, \ufffd)",
        ),
        ("marked_up", texts.marked_up, "have HTML in them (&amp;, <br>)"),
        (
            "placeholders",
            texts.placeholders,
            f"are nan, null, None, N/A or \\N, {MAY_BE_MISSING}",
        ),
        ("with_controls", texts.with_controls, "have control or invisible signs in them"),
    ):
        if count:
            lines = ", ".join(map(str, texts.places[kind]))
            more = ", ..." if count > len(texts.places[kind]) else ""
            sentences.append(
                f"{where}of {texts.rows:,} texts {count:,} {what} (line {lines}{more})."
            )
    letters = {script: count for script, count in texts.scripts.items() if script != "no letters"}
    if letters and max(letters.values()) < MAIN_SHARE * sum(letters.values()):
        sentences.append(f"{where}texts are in several scripts: {script_shares(letters)}.")
    return sentences


def of_duplicates(duplicates: Duplicates, learned: Sequence[str] = ("train",)) -> list[str]:
    """Texts that stand twice, within a split, in two of them, or under different labels.

    Args:
        learned: the splits that are learned from, which may share a text.
    """
    sentences = []
    for pair, count in duplicates.between.items():
        first_lines = _pairs(duplicates.lines[pair], "line {} has that of line {}")
        leakage = "" if set(pair) <= set(learned) else f"{LEAKAGE}: "
        sentences.append(
            f"{leakage}{pair[1]} has {rows_in_words(count)} with a text that {pair[0]} has too "
            f"({first_lines})."
        )
    for split, count in duplicates.within.items():
        if count:
            first_lines = _pairs(duplicates.lines[split, split], "line {} repeats line {}")
            sentences.append(
                f"{split}: {rows_in_words(count)} with the text of another ({first_lines})."
            )
    if duplicates.contradicting:
        shown = "; ".join(
            f"{split} line {line} and {f'{other} ' if other != split else ''}line {other_line}"
            for split, line, other, other_line in duplicates.contradicting_lines
        )
        sentences.append(
            f"Of the texts {duplicates.contradicting:,} stand there under several labels ({shown})."
        )
    return sentences


def _pairs(lines: Sequence[tuple[int, int]], form: str) -> str:
    return "; ".join(form.format(other, line) for line, other in lines)
