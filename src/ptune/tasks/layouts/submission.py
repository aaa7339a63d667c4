"""Answers in the form of SuperGLUE's leaderboard: a line of JSON for each example, by its numbers
in the official test file; of MultiRC one for each passage, with its questions and their answers."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ptune.errors import ConfigError
from ptune.tasks.layouts.superglue import FORMS

Row = Mapping[str, Any]
NUMBER_OF_TRUTH = {"false": 0, "true": 1}
FILES = {
    "boolq": "BoolQ",
    "cb": "CB",
    "copa": "COPA",
    "multirc": "MultiRC",
    "record": "ReCoRD",
    "rte": "RTE",
    "wic": "WiC",
    "wsc": "WSC",
    "ax-b": "AX-b",
    "ax-g": "AX-g",
}
"""What the leaderboard calls the file of each form, without its ending."""


def check(form: str) -> None:
    """Refuse rows of which the leaderboard has no task.

    Raises:
        ConfigError: they are no official rows of SuperGLUE.
    """
    if form not in FORMS:
        raise ConfigError(
            f"--submission writes answers to SuperGLUE's official test files, and these rows are "
            f"of the form {form!r}: name one of {', '.join(FORMS)} with --form."
        )


def text(form: str, answers: Iterable[tuple[Row, str]]) -> str:
    """The file's text.

    Args:
        answers: the rows as ``superglue.read`` gives them, each with the label that was answered.

    Raises:
        ConfigError: a label is none of the task's.
    """
    lines = _of_passages(answers) if form == "multirc" else _of_rows(form, answers)
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _of_rows(form: str, answers: Iterable[tuple[Row, str]]) -> list[dict[str, Any]]:
    label_of = _LABELS.get(form, _plain)
    return [
        {"idx": int(row["id"].split("-")[-1]), "label": label_of(row, prediction)}
        for row, prediction in answers
    ]


def _of_passages(answers: Iterable[tuple[Row, str]]) -> list[dict[str, Any]]:
    passages: dict[int, dict[int, list[dict[str, int]]]] = {}
    for row, prediction in answers:
        passage, question, answer = map(int, row["id"].split("-"))
        answers_of_question = passages.setdefault(passage, {}).setdefault(question, [])
        answers_of_question.append({"idx": answer, "label": _known(prediction, NUMBER_OF_TRUTH)})
    return [
        {
            "idx": passage,
            "passage": {
                "questions": [
                    {"idx": number, "answers": labels} for number, labels in asked.items()
                ]
            },
        }
        for passage, asked in passages.items()
    ]


def _known(prediction: str, labels: Mapping[str, Any]) -> Any:
    """What the leaderboard has for a label.

    Raises:
        ConfigError: it has none.
    """
    if prediction not in labels:
        raise ConfigError(
            f"The prompt answered {prediction!r}, and the leaderboard takes {', '.join(labels)}: "
            "ask a prompt of that task."
        )
    return labels[prediction]


def _plain(row: Row, prediction: str) -> Any:
    return prediction


ENTAILMENT = {name: name for name in ("entailment", "not_entailment")}
_LABELS: dict[str, Callable[[Row, str], Any]] = {
    "copa": lambda row, prediction: _known(prediction, {"0": 0, "1": 1}),
    "record": lambda row, prediction: row["entities"][int(prediction)],
    "wsc": lambda row, prediction: _known(prediction, {"false": "False", "true": "True"}),
    "boolq": lambda row, prediction: _known(prediction, {"false": "false", "true": "true"}),
    "wic": lambda row, prediction: _known(prediction, {"false": "false", "true": "true"}),
    **dict.fromkeys(
        ("rte", "ax-b", "ax-g"),
        lambda row, prediction: _known(prediction, ENTAILMENT),
    ),
}
