"""What is odd about the rows of a training, as ``ptune check`` sees it."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ptune.data.row import FileRow, label_names, label_of
from ptune.model.prompt_model import Row
from ptune.survey import findings
from ptune.survey.text_checks.duplicates import SeenTexts
from ptune.survey.text_checks.texts import Texts
from ptune.tasks import task_members
from ptune.tasks.resolved.task_form import TaskForm
from ptune.template.fields import joined_texts

LOOKED_AT = ("train", "dev", "test")


def of_rows(
    form: TaskForm, splits: Mapping[str, Sequence[Row]], learned: Sequence[str] = ("train",)
) -> list[str]:
    """Sentences about texts that stand twice or in two splits, that are damaged or empty, and about
    rare labels.

    Args:
        splits: the rows of train, dev and test.
        learned: the splits that are learned from.
    """
    fields = task_members.fields(form)
    sentences = []
    with SeenTexts() as seen:
        for split in LOOKED_AT:
            texts = Texts()
            for number, row in enumerate(splits[split], 1):
                line = row.line if isinstance(row, FileRow) else number
                text = joined_texts(row, fields)
                texts.add(text, line)
                seen.add(text, _answer(row, form), split, line)
            sentences += findings.of_texts(texts, f"{split}: ")
        duplicates = seen.duplicates() if fields else None
    if form.answers.labels:
        answers = [_answer(row, form) for row in splits["train"]]
        if form.answers.word_labels:
            answers = [label for row in splits["train"] for label in row[form.target]]
        elif form.answers.multi_label:
            answers = [
                label
                for row in splits["train"]
                for label in label_names(row[form.target], form.layout.label_separator)
            ]
        sentences += findings.of_labels(Counter(answers), "train: ")
    return sentences + (findings.of_duplicates(duplicates, learned) if duplicates else [])


def _answer(row: Row, form: TaskForm) -> str:
    value = row.get(form.target)
    return "" if value is None else label_of(value, form.answers.names)
