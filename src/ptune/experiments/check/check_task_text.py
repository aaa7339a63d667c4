"""The YAML of a task that reads files as they were checked."""

import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from ptune.experiments.check.check_files import Checked
from ptune.survey import findings, proposals
from ptune.survey.columns import MOST_NAMED_LABELS, Column, listed
from ptune.survey.task_text import TaskText
from ptune.survey.word_task_text import WordLabelCounts, word_task_text
from ptune.template.tokenizer import Tokens

WRITER = "HuggingFaceTB/SmolLM2-135M"
SCORES = (
    "score",
    "similarity",
    "stars",
    "rating",
    "relevance",
    "price",
    "value",
    "label",
    "target",
)


def task_text(
    checked: Checked, lm: str | None, method: str, tokens: Tokens | None
) -> tuple[str, str]:
    """The YAML of a task that reads the files, and else the reason why there is none.

    Args:
        lm: the LM that the command names.
        method: the method that it names.
        tokens: those of the LM; without them a label's word is its own name.
    """
    roles, columns = checked.roles, checked.files[0].columns
    if {"annotations", "data"} <= columns.keys():
        return "", (
            "This seems to be Label Studio's full export, in which the answers lie deep: export it "
            "as JSON-MIN or CSV, which have a column for each."
        )
    if checked.files[0].word_labels is not None:
        return _text_of_words(checked, lm), ""
    if not roles.texts:
        return "", f"No column looks like a text: name it with --text. {listed(columns)}"
    if roles.label is None and roles.answer is None:
        return "", _no_label(columns)
    words, notes, relabel = _words(checked, tokens)
    if roles.label and not 2 <= len(words) <= MOST_NAMED_LABELS:
        return "", (
            f"The column {roles.label!r} has {columns[roles.label].variety} values, and labels are "
            f"2 to {MOST_NAMED_LABELS}: name another with --label."
        )
    lm_note = ""
    if lm is None:
        lm, lm_note = "builtin", "builtin knows few words: a folder or a name on the hub knows more"
        if not words:
            lm, lm_note = WRITER, "or any other causal LM; builtin-causal is here, and tiny"
    head = [f"Made by ptune check of {', '.join(file.path.name for file in checked.files)}."]
    if len(checked.files) == 1:
        head.append("`ptune new` draws rows for dev and test from the file, if it is the only one.")
    task = TaskText(
        name=checked.files[0].path.name.split(".")[0],
        lm=lm,
        method=method,
        roles=roles,
        words=words,
        data=_data(checked, relabel),
        head=head,
        notes=notes,
        lm_note=lm_note,
        multi_label=checked.label_sets is not None,
    )
    return task.yaml(), ""


def _text_of_words(checked: Checked, lm: str | None) -> str:
    """The YAML of a task that gives words their labels."""
    counts = WordLabelCounts()
    for file in checked.files:
        if file.word_labels is not None:
            counts.words.update(file.word_labels.words)
            counts.broken += file.word_labels.broken
    return word_task_text(
        name=checked.files[0].path.name.split(".")[0],
        lm=lm or "builtin",
        columns=(checked.roles.texts[0], str(checked.roles.label)),
        counts=counts,
        data=_data(checked, {}),
        head=[f"Made by ptune check of {', '.join(file.path.name for file in checked.files)}."],
        lm_note="" if lm else "a folder or a name on the hub knows more words",
    )


def _words(
    checked: Checked, tokens: Tokens | None
) -> tuple[dict[str, str], dict[str, str], dict[str, dict[str, str]]]:
    """A word for each label, what is to be said of it, and for each split the labels that have
    another form there."""
    if checked.roles.label is None:
        return {}, {}, {}
    values: Counter[str] = Counter()
    for file in checked.files:
        if column := file.columns.get(checked.roles.label):
            sets = column.label_sets if checked.label_sets else None
            values.update(sets.labels if sets else column.values)
    forms = same_labels(values)
    labels = sorted(values if checked.label_sets else set(forms.values()))
    relabel = (
        {}
        if checked.label_sets
        else {
            file.split: {form: forms[form] for form in column.values}
            for file in checked.files
            if (column := file.columns.get(checked.roles.label))
            and any(forms[form] != form for form in column.values)
        }
    )
    if tokens is None:
        return {label: label for label in labels}, {}, relabel
    proposed = proposals.label_words(labels, tokens)
    return proposed.words, proposed.notes, relabel


def same_labels(values: Mapping[str, int]) -> dict[str, str]:
    """For each spelling of a label the one that stands for it: labels that differ in the white
    space around them, in case or in Unicode's form alone are one, by its most frequent spelling."""
    chosen: dict[str, str] = {}
    for form in sorted(values, key=lambda form: -values[form]):
        chosen.setdefault(findings.plain_form(form), unicodedata.normalize("NFC", form.strip()))
    return {form: chosen[findings.plain_form(form)] for form in values}


def _data(checked: Checked, relabel: Mapping[str, Mapping[str, str]]) -> list[tuple[str, Any, str]]:
    """What stands under ``data:``."""
    lines: list[tuple[str, Any, str]] = [
        (file.split, str(file.path), f"{file.rows:,} rows") for file in checked.files
    ]
    needed: dict[str, Any] = {}
    for file in checked.files:
        needed |= file.form.needed if file.form else {}
    lines += [(name, value, "") for name, value in needed.items()]
    if checked.label_sets and checked.label_sets.separator:
        separator = checked.label_sets.separator
        lines.append(("label_separator", separator, "between the labels of a row"))
    if relabel:
        lines.append(("relabel", relabel, "spellings that are one label"))
    return lines


def _no_label(columns: Mapping[str, Column]) -> str:
    """Why no task can be written of a file without a label."""
    for name, column in columns.items():
        numbers = column.kinds["number"] + column.kinds["whole number"]
        if name.strip().lower() in SCORES and column.is_open and numbers == column.filled:
            return (
                f"The column {name!r} holds numbers, which is regression, and ptune has labels and "
                "texts alone: make a few labels of the numbers, such as low, middle and high."
            )
    return (
        "No column looks like a label or a text to be written: name it with --label. "
        f"{listed(columns)} A file without answers is for `predict --data`, or "
        "`data: {unlabeled: ...}` of PET."
    )
