"""A task as the model takes it, made of what its YAML file says, and put into a model."""

import copy
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ptune.answers.extraction import Extraction
from ptune.answers.from_row import Choices, Span
from ptune.answers.label_words import Verbalizer, allowed
from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.base import plain_files
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.reading import Reading
from ptune.model import calibration
from ptune.model.prompt_model import PromptModel, Row, Task
from ptune.model.task import Gates
from ptune.prompts.bank import Prefix
from ptune.tasks.layouts.lama import read_vocabulary
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.tasks.schema import Words
from ptune.tasks.task_members import Member, asked, reader_of
from ptune.template.language import Template
from ptune.training.methods import Method


def task_of(
    form: TaskForm,
    lm: LanguageModel | Reading,
    member: Member,
    *,
    method: Method,
    learning: Learning,
    name: str | None = None,
) -> Task:
    """One way to ask the task, as the model takes it.

    Args:
        name: what it adds to the task's name; with ``prompt_by``, the value of the rows that it
            takes.

    Raises:
        ConfigError: the task says what no LM, or not this one, can be asked.
    """
    template, method = asked(form, member), learning.applied_to(method)
    reading, judging = form.reading, form.judging
    return Task(
        form.name if name is None else f"{form.name}/{name}",
        template,
        verbalizer=_verbalizer(form, lm, member, template=template, method=method),
        target=form.target,
        encoder=method.encoder,
        init=method.init,
        loss=learning.loss,
        seed=learning.seed + member.seed,
        prefix=learning.prefix_of(method),
        smoothing=learning.smoothing,
        target_length=learning.target_length,
        decoding=form.decoding,
        combine=form.combine,
        neighbours=form.neighbours,
        by=None if form.prompt_by is None else (form.prompt_by, str(name)),
        reader=reader_of(form, method),
        swap=reading.swap,
        domain=None if reading.domain is None else Template.parse(reading.domain),
        max_length=form.max_length,
        layout=form.layout,
        metrics=judging.metrics,
        metric_words=judging.metric_words,
        parts=judging.parts,
        pooling=reading.pooling or method.pooling,
        layer=reading.layer,
        windows=reading.windows,
        multi_label=form.answers.multi_label,
        threshold=reading.threshold,
    )


def _verbalizer(
    form: TaskForm,
    lm: LanguageModel | Reading,
    member: Member,
    *,
    template: Template,
    method: Method,
) -> Verbalizer | Choices | Span | WordLabels | Extraction | None:
    answers, reading = form.answers, form.reading
    _check_one_kind(form, member)
    if answers.are_read_at_tokens:
        return answers.word_labels or answers.extraction
    if (
        READERS[reading.by].scores_words
        and not member.words
        and (reading.words or reading.refine or reading.aggregate != "probability")
    ):
        raise ConfigError(f"{form.name} has no label words to extend, thin out or aggregate.")
    if answers.span:
        return Span(answers.span)
    if answers.choices:
        return Choices(answers.choices, reading.order, reading.length)
    if answers.vocabulary:
        return allowed(
            read_vocabulary(answers.vocabulary, lm.tokens),
            lm.tokens,
            template.for_lm(lm.tokens, lm.kind)[0].place,
        )[0]
    if READERS[method.reader or reading.by].words_are_relations:
        return Verbalizer.from_words(_relations(form, member))
    if not member.words:
        return None
    words = _extended(member.words, reading.words) if reading.words else member.words
    return Verbalizer.from_words(words, reading.aggregate, reading.order, reading.length)


def _check_one_kind(form: TaskForm, member: Member) -> None:
    """Refuse answers of two kinds.

    Raises:
        ConfigError: there are some.
    """
    given = {
        "labels": member.words,
        "vocabulary": form.answers.vocabulary,
        "choices": form.answers.choices,
        "span": form.answers.span,
    }
    if len(both := [name for name, value in given.items() if value]) > 1:
        raise ConfigError(
            f"{form.name} has {' and '.join(both)}: the answer is one of labels (each with its "
            "words), of a vocabulary (a file of allowed "
            "answers), of choices in the row, or a span; without any of them it is text that the "
            "LM writes."
        )


def _relations(form: TaskForm, member: Member) -> Words:
    """The relations that stand for each label, where a next-sentence head reads."""
    relations = form.answers.relations
    if tuple(relations) not in ((), tuple(member.words)):
        raise ConfigError(
            f"The relations of {form.name} are for {list(relations)}, and its labels are "
            f"{list(member.words)}."
        )
    return relations or member.words


def _extended(words: Words, path: pathlib.Path) -> dict[str, list[str]]:
    """The labels' words and those of a list, a line for each label (KPT's form).

    Raises:
        ConfigError: the list cannot be read, or has other lines than there are labels.
    """
    try:
        lines = plain_files.read_text(path, "utf-8-sig").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The word list {path} cannot be read: {error}.") from error
    if len(lines) != len(words):
        raise ConfigError(
            f"{path} has {len(lines)} lines, and the task {len(words)} labels: a line for each, "
            "in that order, its words with commas between."
        )
    listed = {
        label: [words_of_label] if isinstance(words_of_label, str) else list(words_of_label)
        for label, words_of_label in words.items()
    }
    return {
        label: list(
            dict.fromkeys([*words_of_label, *filter(None, map(str.strip, line.split(",")))])
        )
        for (label, words_of_label), line in zip(listed.items(), lines)
    }


def add(
    model: PromptModel,
    form: TaskForm,
    member: Member,
    rows: Sequence[Row],
    *,
    method: Method,
    learning: Learning,
    name: str | None = None,
    begun: "Begun | None" = None,
) -> int:
    """Put one way to ask the task into a model: its words thinned out, its prompt initialised, its
    scores calibrated; return its number there.

    Args:
        rows: to learn from.
        begun: a prompt to begin from, instead of a new one.

    Raises:
        PtuneError: the task does not fit the LM or the prompt that it begins from; the model is
            then as before.
    """
    task = task_of(form, model.lm, member, method=method, learning=learning, name=name)
    if form.reading.refine:
        member = _thinned_out(model, member, task, rows)
        form = replace(form, reading=form.reading.model_copy(update={"words": None}))
        task = task_of(form, model.lm, member, method=method, learning=learning, name=name)
    if begun is not None and learning.encoder not in (None, begun.encoder):
        raise ConfigError(
            f"The prompt to go on from was trained with an encoder {begun.encoder!r}, and "
            f"{form.name} asks for {learning.encoder!r}."
        )
    if begun is not None and learning.prefix.gates not in (False, begun.gates):
        raise ConfigError(
            f"The prompt to go on from was trained with {_said(begun.gates)}, and {form.name} asks "
            f"for {_said(learning.prefix.gates)}: go on with the same, or let a new prompt begin "
            "as that one by transfer."
        )
    with model.as_before_if_it_fails():
        number = model.add(task, rows) if begun is None else begun.add(model, task, rows)
        calibration.calibrate(model, number, _calibration(form, task), rows)
    return number


def _said(gates: Gates) -> str:
    """A setting of gates as a task's file has it."""
    return f"prefix.gates: {str(gates).lower()}"


def _thinned_out(model: PromptModel, member: Member, task: Task, rows: Sequence[Row]) -> Member:
    """A member without the words that the LM hardly says, or that speak for another label."""
    trial = PromptModel(model.lm, max_length=model.max_length)
    words = calibration.refine(trial, trial.add(task, rows), rows)
    kept: Words = {
        label: list(words_of_label) for label, words_of_label in zip(words.labels, words.words)
    }
    return replace(member, words=kept)


def _calibration(form: TaskForm, task: Task) -> calibration.Calibration:
    """What is taken off the words' scores. Where each word decides by itself whether a row has its
    label, that is at least its mean probability, so that the decision begins at even chances."""
    how = form.reading.calibration
    if task.multi_label and task.reader.scores_words and how == "none" and not task.domain:
        return "prior"
    return how


@dataclass(frozen=True)
class Begun:
    """A loaded prompt, with which another training begins."""

    model: PromptModel
    task: int

    @property
    def encoder(self) -> str:
        """The name of the encoder that makes its soft tokens, such as table."""
        return self.model.tasks[self.task].task.encoder

    @property
    def gates(self) -> Gates:
        """The gates of its prefix, as ``prefix.gates`` says them."""
        return self.model.tasks[self.task].task.prefix.gates

    def add(self, model: PromptModel, task: Task, rows: Sequence[Row]) -> int:
        """Add a task whose prompt begins as this one, under the same template.

        Raises:
            ConfigError: the task's template or encoder is another.
        """
        fitted = self.model.tasks[self.task]
        old, bank, prompt = fitted.task, self.model.bank, fitted.prompt
        if task.template.source != old.template.source:
            raise ConfigError(
                f"The prompt to go on from has the template {old.template.source!r}, and "
                f"{task.name} has "
                f"{task.template.source!r}: give the task that template, or none."
            )
        if task.template.visibility != old.template.visibility:
            raise ConfigError(
                f"The prompt to go on from and {task.name} have the same template with another "
                "visibility: give the task that of the prompt (prompt.json shows it), or leave "
                "out its template and its visibility to take both from the prompt."
            )
        reader = None
        same = (task.reader, _labels(task)) == (old.reader, _labels(old))
        if same and task.reader.is_trained:
            reader = copy.deepcopy(self.model.reader(self.task))
        prefix = bank.prefixes[prompt] if prompt >= 0 else None
        made_by = copy.deepcopy(prefix.encoder) if isinstance(prefix, Prefix) else None
        soft = copy.deepcopy(bank.encoders[prompt]) if prompt >= 0 else None
        return model.add(
            replace(task, encoder=old.encoder, init=old.init, prefix=old.prefix),
            rows,
            encoder=soft,
            prefix=made_by,
            reader=reader,
        )


def _labels(task: Task) -> tuple[str, ...]:
    verbalizer = task.verbalizer
    return verbalizer.labels if isinstance(verbalizer, Verbalizer | WordLabels) else ()
