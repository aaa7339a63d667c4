"""SuperGLUE (Wang et al. 2019) in its official layout, which is FewGLUE's too (Schick and Schütze
2021; its 32 dev rows: Liu et al. 2021): JSON lines with nested passages in two of the eight tasks,
here as flat rows that a template takes."""

import os
import re
import string
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ptune.data.row import FileRow
from ptune.data.rows import read_rows
from ptune.errors import DataError, nearest

TRUTH = {True: "true", False: "false"}
TRUTH_AS_NUMBER = {0: "false", 1: "true"}
CHOICES = {0: "0", 1: "1"}
CB = {label: label for label in ("entailment", "contradiction", "neutral")}
RTE = {label: label for label in ("entailment", "not_entailment")}
CONNECTIVES = {"cause": "because", "effect": "so"}
PAUSES = {"cause": "", "effect": ","}  # before the connective, in PET's code
KINDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}
GROUPED = ("multirc", "record")  # scored by groups of rows, which the ids tell
SENTENCE_END = re.compile(r"[.?!…][\"'”’)\]]*$")


def read(
    path: str | os.PathLike[str], form: str, skipped: list[str] | None = None
) -> list[FileRow]:
    """The rows of a file of SuperGLUE.

    Every row has an ``id``, the numbers of the file joined by "-", and, unless the file lacks it, a
    ``label``. The spaces around a text are gone; those within it stay. A row that stands in the
    file twice, every field the same (one of WiC's does), is read once.

    Args:
        form: which task; it says what further fields a row has.

            - "boolq": passage, question; the label "true" or "false".
            - "cb", "rte": premise, hypothesis; "entailment", "contradiction" or "neutral", and
              "entailment" or "not_entailment".
            - "ax-b", "ax-g": the diagnostics, which a prompt of "rte" answers: the same fields, and
              of "ax-g" pair, the number of the two rows that differ in the gender of a pronoun.
            - "copa": premise, choice1, choice2, question ("cause" or "effect"), connective
              ("because" or "so"); "0" or "1". Besides, as the papers' code has them: lower1 and
              lower2, the choices with their first letter in lower case and no sign at their end,
              and pause, a comma before "so".
            - "multirc": passage (without the markup and the numbers of its sentences), question,
              answer, group (passage and question); "true" or "false". Each answer is a row, and may
              be empty.
            - "record": passage (its highlights as sentences), dashed (the passage with a dash
              before each highlight, as in PET's code), before and after (the query around
              @placeholder), entities and, with a label, answers (lists of distinct texts); the
              place of the first answer among the entities, from "0" on. Each query is a row.
            - "wic": word, sentence1, sentence2; "true" or "false".
            - "wsc": text, span1, pronoun, marked (the text with stars around the pronoun,
              ``*it*``); "true" or "false".
        skipped: where given, bad lines are left out and what was wrong with them is put here.

    Raises:
        DataError: an unknown form, a file that cannot be read, a field that is missing or is not
            what the task has, an id that two rows have, a pronoun, a @placeholder or an entity that
            is not where it should be, or an answer that is no entity; the row is told.
    """
    if form not in FORMS:
        raise DataError(f"There is no form {form!r} of SuperGLUE. {nearest(form, FORMS)}")
    rows: list[FileRow] = []
    by_id: dict[str, FileRow] = {}
    for raw in read_rows(path, skipped):
        try:
            rows += _new_rows(raw, form, by_id)
        except DataError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
    return rows


def _new_rows(raw: FileRow, form: str, by_id: dict[str, FileRow]) -> list[FileRow]:
    """The rows that a line makes; where questions are scored by their ids, without those that a
    line before it made."""
    rows = []
    for values in list(_READERS[form](raw, raw.place)):
        row = raw.changed(values)
        first = by_id.setdefault(row["id"], row) if form in GROUPED else row
        if first is not row and first == row:
            continue
        if first is not row:
            raise DataError(
                f"{raw.place}: another row has the id {row['id']!r} too, in line "
                f"{first.line}; {form} is scored by it."
            )
        rows.append(row)
    return rows


def _flat(
    names: tuple[str, ...], labels: Mapping[Any, str], raw: dict[str, Any], place: str
) -> Iterator[dict[str, Any]]:
    yield {
        "id": _id(raw, place),
        **{name: _text(raw, name, place) for name in names},
        **_label(raw, labels, place),
    }


def _broad(raw: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    pair = {"premise": _text(raw, "sentence1", place), "hypothesis": _text(raw, "sentence2", place)}
    yield from _flat(("premise", "hypothesis"), RTE, {**raw, **pair}, place)


def _gendered(raw: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    """Rows 0 and 1 are a pair, 2 and 3 the next, which differ in the gender of a pronoun alone."""
    for row in _flat(("premise", "hypothesis"), RTE, raw, place):
        yield {**row, "pair": str(int(row["id"]) // 2)}


def _copa(raw: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    for row in _flat(("premise", "choice1", "choice2", "question"), CHOICES, raw, place):
        if row["question"] not in CONNECTIVES:
            raise DataError(
                f"{place}: the field 'question' should be 'cause' or 'effect', and it is "
                f"{row['question']!r}."
            )
        yield {
            **row,
            "connective": CONNECTIVES[row["question"]],
            "pause": PAUSES[row["question"]],
            "lower1": _lowered(row["choice1"]),
            "lower2": _lowered(row["choice2"]),
        }


def _lowered(choice: str) -> str:
    """A choice as the papers' code has it: its first letter in lower case, no sign at its end."""
    return (choice[0].lower() + choice[1:]).rstrip(string.punctuation)


def _multirc(raw: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    passage = _field(raw, "passage", dict, place)
    text = _without_markup(_text(passage, "text", place))
    for asked, question_place in _parts(passage, "questions", "question", place):
        group = f"{_id(raw, place)}-{_id(asked, question_place)}"
        question = _text(asked, "question", question_place)
        for answer, answer_place in _parts(asked, "answers", "answer", question_place):
            yield {
                "id": f"{group}-{_id(answer, answer_place)}",
                "passage": text,
                "question": question,
                "answer": _field(answer, "text", str, answer_place).strip(),
                "group": group,
                **_label(answer, TRUTH_AS_NUMBER, answer_place),
            }


def _without_markup(text: str) -> str:
    """<b>Sent 1: </b>It rains.<br><b>Sent 2: </b>... as It rains. ..."""
    return re.sub(
        r"\s*<br\s*/?>\s*", " ", re.sub(r"<b>\s*Sent(ence)?\s*\d+\s*:\s*</b>\s*", "", text)
    ).strip()


def _record(raw: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    passage = _field(raw, "passage", dict, place)
    text = _field(
        passage, "text", str, place
    )  # with the spaces around it: entities count from its start
    entities = list(
        dict.fromkeys(_span(text, *part) for part in _parts(passage, "entities", "entity", place))
    )
    for asked, part_place in _parts(raw, "qas", "query", place):
        pieces = _text(asked, "query", part_place).split("@placeholder")
        if len(pieces) != 2:
            raise DataError(
                f"{part_place}: there should be one @placeholder, and there are {len(pieces) - 1}."
            )
        yield {
            "id": f"{_id(raw, place)}-{_id(asked, part_place)}",
            "passage": _with_sentences(text),
            "dashed": _with_dashes(text),
            "before": pieces[0],
            "after": pieces[1],
            "entities": entities,
            **_answers(asked, entities, part_place),
        }


def _span(text: str, entity: dict[str, Any], place: str) -> str:
    """The text of an entity, whose end is its last character."""
    start, end = (_field(entity, name, int, place) for name in ("start", "end"))
    if not 0 <= start <= end < len(text):
        raise DataError(
            f"{place}: {start} to {end} lies outside the passage, which has {len(text)} characters."
        )
    return text[start : end + 1]


def _with_sentences(text: str) -> str:
    """The passage in one piece: where a line @highlight stood, a sentence ends, with a full stop
    unless there is a mark."""
    parts = (part.strip() for part in re.split(r"(?m)^\s*@highlight\s*$", text))
    return " ".join(part if SENTENCE_END.search(part) else f"{part}." for part in parts if part)


def _with_dashes(text: str) -> str:
    """The passage as PET's code has it: a dash before each highlight."""
    return re.sub(r"(?m)^\s*@highlight[^\S\n]*\n", "- ", text).strip()


def _answers(asked: dict[str, Any], entities: list[str], place: str) -> dict[str, Any]:
    if "answers" not in asked:
        return {}
    answers = list(
        dict.fromkeys(
            _text(part, "text", part_place)
            for part, part_place in _parts(asked, "answers", "answer", place)
        )
    )
    for answer in answers:
        if answer not in entities:
            raise DataError(f"{place}: the answer {answer!r} is no entity of the passage.")
    return {"answers": answers, "label": str(entities.index(answers[0]))}


def _wsc(raw: dict[str, Any], place: str) -> Iterator[dict[str, Any]]:
    target = _field(raw, "target", dict, place)
    text, pronoun = _text(raw, "text", place), _text(target, "span2_text", place)
    start, end = _find(pronoun, text, _field(target, "span2_index", int, place), place)
    yield {
        "id": _id(raw, place),
        "text": text,
        "span1": _text(target, "span1_text", place),
        "pronoun": pronoun,
        "marked": f"{text[:start]}*{text[start:end]}*{text[end:]}",
        **_label(raw, TRUTH, place),
    }


def _find(pronoun: str, text: str, index: int, place: str) -> tuple[int, int]:
    """Where the pronoun is: in the word of that number, whatever signs are attached, or in one
    beside it (an official row counts one too few)."""
    starts = [word.start() for word in re.finditer(r"\S+", text)]
    if not 0 <= index < len(starts):
        raise DataError(f"{place}: span2_index is {index}, and the text has {len(starts)} words.")
    pattern = re.compile(rf"[^\w\s]*({re.escape(pronoun)})(?!\w)", re.IGNORECASE)
    for start in (*starts[index : index + 2], *starts[:index][-1:]):
        if match := pattern.match(text, start):
            return match.span(1)
    raise DataError(
        f"{place}: span2_index {index} is the word {text[starts[index] :].split()[0]!r}, and the "
        f"pronoun is {pronoun!r}."
    )


def _label(owner: dict[str, Any], labels: Mapping[Any, str], place: str) -> dict[str, str]:
    if "label" not in owner:
        return {}
    value = owner["label"]
    for known, label in labels.items():
        if type(value) is type(known) and value == known:
            return {"label": label}
    raise DataError(
        f"{place}: the field 'label' should be one of {', '.join(map(repr, labels))}, and it is "
        f"{value!r:.60}."
    )


def _id(owner: dict[str, Any], place: str) -> str:
    return str(_field(owner, "idx", int, place))


def _text(owner: dict[str, Any], name: str, place: str) -> str:
    if not (text := _field(owner, name, str, place).strip()):
        raise DataError(f"{place}: the field {name!r} is empty.")
    return text


def _parts(
    owner: dict[str, Any], name: str, called: str, place: str
) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a list, each with its place."""
    parts = _field(owner, name, list, place)
    if not parts:
        raise DataError(f"{place}: the field {name!r} is empty.")
    for number, part in enumerate(parts, 1):
        if not isinstance(part, dict):
            raise DataError(
                f"{place}, {called} {number}: an object is expected, and it is {part!r:.60}."
            )
        yield part, f"{place}, {called} {number}"


def _field(owner: dict[str, Any], name: str, kind: type, place: str) -> Any:
    if name not in owner:
        raise DataError(f"{place}: the field {name!r} is missing. {nearest(name, owner)}")
    if type(value := owner[name]) is not kind:
        raise DataError(
            f"{place}: the field {name!r} should be {KINDS[kind]}, and it is {value!r:.60}."
        )
    return value


_READERS: dict[str, Callable[[dict[str, Any], str], Iterator[dict[str, Any]]]] = {
    "boolq": partial(_flat, ("passage", "question"), TRUTH),
    "cb": partial(_flat, ("premise", "hypothesis"), CB),
    "copa": _copa,
    "multirc": _multirc,
    "record": _record,
    "rte": partial(_flat, ("premise", "hypothesis"), RTE),
    "wic": partial(_flat, ("word", "sentence1", "sentence2"), TRUTH),
    "wsc": _wsc,
    "ax-b": _broad,
    "ax-g": _gendered,
}
FORMS = tuple(_READERS)
