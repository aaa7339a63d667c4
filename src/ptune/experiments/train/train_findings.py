"""What is odd about the rows of a training, as ``ptune check`` sees it."""

from collections import Counter
from collections.abc import Sequence

from ptune.data.row import FileRow, label_names, label_of
from ptune.errors import TemplateError
from ptune.experiments.train.train_rows import TaskRows
from ptune.model.prompt_model import Row
from ptune.survey import findings
from ptune.survey.text_checks.duplicates import SeenTexts
from ptune.survey.text_checks.texts import Texts
from ptune.tasks import task_members
from ptune.tasks.schema import TaskConfig
from ptune.template.language import Field, text_of

LOOKED_AT = ("train", "dev", "test")


def of_rows(config: TaskConfig, rows: TaskRows) -> list[str]:
    """Sentences about texts that stand twice or in two splits, that are damaged or empty, and about
    rare labels."""
    fields = task_members.fields(config)
    sentences = []
    with SeenTexts() as seen:
        for split in LOOKED_AT:
            texts = Texts()
            for number, row in enumerate(rows.splits[split], 1):
                line = row.line if isinstance(row, FileRow) else number
                text = _text(row, fields)
                texts.add(text, line)
                seen.add(text, _answer(row, config), split, line)
            sentences += findings.of_texts(texts, f"{split}: ")
        duplicates = seen.duplicates() if fields else None
    if config.labels:
        answers = [_answer(row, config) for row in rows.splits["train"]]
        if config.tag:
            answers = [label for row in rows.splits["train"] for label in row[config.target]]
        elif config.multi_label:
            answers = [
                label
                for row in rows.splits["train"]
                for label in label_names(row[config.target], config.data.label_separator)
            ]
        sentences += findings.of_labels(Counter(answers), "train: ")
    return sentences + (findings.of_duplicates(duplicates) if duplicates else [])


def _text(row: Row, fields: Sequence[Field]) -> str:
    """The texts that the task reads of a row, joined; of a field without a text, nothing."""
    texts = []
    for field in fields:
        try:
            texts.append(text_of(row, field))
        except TemplateError:
            continue
    return " ".join(texts)


def _answer(row: Row, config: TaskConfig) -> str:
    value = row.get(config.target)
    return "" if value is None else label_of(value, tuple(config.labels))
