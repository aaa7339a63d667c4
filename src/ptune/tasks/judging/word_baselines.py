"""What a user would get without prompts where words have labels: of each word its most frequent
label, and a linear probe on the LM's vectors at the words."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.lm.language_model import LanguageModel
from ptune.metrics import entities
from ptune.metrics.labels import FREQUENT, PROBE
from ptune.model.prompt_model import PromptModel, Row, Task
from ptune.model.running.token_answers import word_vectors
from ptune.tasks import task_members
from ptune.tasks.judging import judge_words
from ptune.tasks.resolved.task_form import TaskForm
from ptune.template.language import Template

MOST_WORDS = 10_000  # words that the probe learns from, about
ADVICE = "train for more steps, or try another method (p-tuning-v2+head, fine-tune)"
LEAST = 1e-9  # the probability of a label that the probe never saw


def figures(
    form: TaskForm, lm: LanguageModel, *, train: Sequence[Row], test: Sequence[Row]
) -> dict[str, dict[str, float]]:
    """The figures of the baselines on the test rows, each by its name; without the probe where all
    words that it learns from have one label."""
    labels = form.answers.word_labels
    assert labels is not None
    names = judge_words.metrics_of(labels, form.judging.metrics)
    right = [labels.names(labels.right(row, form.target)) for row in test]
    predicted = {FREQUENT: most_frequent(labels, form.target, train=train, test=test)}
    if (probed := _probed(form, labels, lm, train=train, test=test)) is not None:
        predicted[PROBE] = probed
    return {name: entities.figures(names, right, given) for name, given in predicted.items()}


def most_frequent(
    labels: WordLabels, target: str, *, train: Sequence[Row], test: Sequence[Row]
) -> list[list[str]]:
    """Of each word the label that it has most often in the training rows, of equally frequent ones
    the first met. A word that they lack is outside of entities; where labels make none, it has the
    most frequent label of all."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in train:
        for word, label in zip(labels.words(row), labels.names(labels.right(row, target))):
            counts[word][label] += 1
    total = sum(counts.values(), Counter[str]())
    unknown = entities.OUTSIDE if entities.OUTSIDE in labels.labels else _first(total)
    best = {word: _first(of_word) for word, of_word in counts.items()}
    return [[best.get(word, unknown) for word in labels.words(row)] for row in test]


def _first(counts: Counter[str]) -> str:
    return counts.most_common(1)[0][0]


def _probed(
    form: TaskForm,
    labels: WordLabels,
    lm: LanguageModel,
    *,
    train: Sequence[Row],
    test: Sequence[Row],
) -> list[list[str]] | None:
    """The labels of the test rows by a logistic regression on the vectors of the words, of all
    that the scheme allows the likeliest; None where the words to learn from have one label."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    rows = _some(labels, train)
    right = np.concatenate([labels.right(row, form.target) for row in rows])
    if len(np.unique(right)) < 2:
        return None
    model = plain_model(form, labels, lm)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with threadpool_limits(1, "blas"):  # several threads wait for each other on busy cores
        probe.fit(torch.cat(word_vectors(model, rows)).numpy(), right)
    predicted = []
    for vectors in word_vectors(model, test):
        shares = np.full((len(vectors), len(labels.labels)), LEAST)
        shares[:, probe.classes_] = probe.predict_proba(vectors.numpy())
        predicted.append(labels.names(labels.best(torch.tensor(shares).log())))
    return predicted


def _some(labels: WordLabels, rows: Sequence[Row]) -> list[Row]:
    """Rows that together have about ``MOST_WORDS`` words at most, drawn at random."""
    drawn = random.Random("baselines").sample(list(rows), len(rows))
    ends = np.cumsum([len(labels.words(row)) for row in drawn])
    return drawn[: max(1, int((ends <= MOST_WORDS).sum()))]


def plain_model(form: TaskForm, labels: WordLabels, lm: LanguageModel) -> PromptModel:
    """The LM asked by the words alone, without a prompt."""
    field = next(field for field in task_members.fields(form) if field.name == labels.field)
    template = Template.parse(field.shown).joined(labels.field)
    model = PromptModel(lm)
    reader = READERS["token-head"]
    model.add(Task(form.name, template, labels, reader=reader, max_length=form.max_length))
    return model
