"""Logistic regression on an LM's vectors, and the contrast that trains a prompt before it, against
plain references."""

import numpy as np
import pytest
import tiny
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.linear_reader import LinearReader, contrast, regression
from ptune.errors import DivergedError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.model.running import losses
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

WORDS = "Vienna Danube east Austria people euro Berlin city Germany Rome Italy film".split()
ROWS = [
    {"text": f"{word} is {'great' if number % 3 else 'a'} {word}", "label": "abc"[number % 3]}
    for number, word in enumerate(WORDS)
]
TRAIN = TrainConfig(learning_rate=1e-2, batch_size=8, steps=6, evaluate_every=3, patience=0)


def model_of(names, dtype=torch.float32, family="bert"):
    """A bank of contrastive prompts, each with its own seed."""
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    words = Verbalizer.from_words({label: label for label in "abc"})
    for name in names:
        task = Task(
            name,
            Template.parse("{prefix:3} {text}"),
            words,
            encoder="table",
            prefix=PrefixSettings(0),
            reader=LinearReader,
            pooling="mean",
        )
        model.add(task, ROWS)
    return model


def prefix_of(model, number):
    return model.bank.prefixes[number]().detach().clone()


def test_the_contrast_is_how_surely_a_row_picks_those_of_its_label_among_the_others():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3])  # the last is alone
    parts = []
    for i in range(7):
        others = [j for j in range(7) if j != i]
        nearness = [hidden[i] @ hidden[j] / hidden[i].norm() / hidden[j].norm() for j in others]
        picked = (torch.stack(nearness) / 0.1).softmax(0)
        alike = [share for share, j in zip(picked, others) if labels[j] == labels[i]]
        parts.append(-torch.stack(alike).log().mean() if alike else hidden.sum() * 0)
    (gradient,) = torch.autograd.grad(torch.stack(parts).sum(), hidden)
    loss = contrast(hidden, labels)
    torch.testing.assert_close(loss.double(), torch.stack(parts), atol=1e-5, rtol=1e-5)
    (actual,) = torch.autograd.grad(loss.sum(), hidden)
    torch.testing.assert_close(actual, gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("labels", [[0], [1, 1], [0, 1]])
def test_a_batch_that_lacks_a_kind_of_pair_has_a_finite_contrast(labels):
    hidden = torch.randn(len(labels), 4, requires_grad=True)
    loss = contrast(hidden, torch.tensor(labels))
    loss.sum().backward()
    assert loss.isfinite().all() and hidden.grad.isfinite().all()


@pytest.mark.parametrize("present", [[0, 1, 2], [0, 2], [2]])
def test_the_regression_is_scikit_learns(present):
    vectors = np.random.default_rng(0).normal(size=(12, 6))
    labels = np.array([present[number % len(present)] for number in range(12)])
    reader = LinearReader(6, 3)
    reader.start_from(torch.tensor(vectors)[None], torch.tensor(labels))
    shares = reader(torch.tensor(vectors)).softmax(1).double()
    assert set(shares.argmax(1).tolist()) <= set(present)
    if len(present) > 1:
        model = LogisticRegression(C=10, max_iter=1000, tol=1e-12)
        model.fit(normalize(vectors), labels)
        expected = torch.tensor(model.predict_proba(normalize(vectors)))
        torch.testing.assert_close(shares[:, present], expected, atol=1e-6, rtol=1e-6)


def test_an_absent_label_never_wins():
    weight, bias = regression(torch.eye(4), torch.tensor([0, 0, 1, 1]), 3)
    assert (torch.eye(4) @ weight.T + bias).argmax(1).tolist() == [0, 0, 1, 1]


def test_a_bank_learns_what_each_of_its_prompts_learns_alone():
    model = model_of(["one", "two"], torch.float64)
    begun = [prefix_of(model, number) for number in (0, 1)]
    rows = {0: (ROWS[:8], ROWS), 1: (ROWS[4:], ROWS)}
    fit(model, rows, TRAIN)
    for number, name in enumerate(("one", "two")):
        alone = model_of([name], torch.float64)
        fit(alone, {0: rows[number]}, TRAIN)
        assert (prefix_of(alone, 0) - begun[number]).abs().max() > 1e-3
        torch.testing.assert_close(prefix_of(model, number), prefix_of(alone, 0))
        for ours, theirs in zip(model.reader(number).buffers(), alone.reader(0).buffers()):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(monkeypatch):
    model = model_of(["one"])
    examples = model.encode(0, ROWS)
    weights = [1 / len(examples)] * len(examples)
    gradients = []
    for limit in (10_000, 1):
        monkeypatch.setattr(losses, "CPU_TOKENS", limit)
        model.bank.zero_grad()
        model.backward(examples, weights)
        gradients.append([parameter.grad.clone() for parameter in model.bank.parameters()])
    assert gradients[0][0].abs().max() > 1e-4
    for whole, parts in zip(*gradients):
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-4)


def test_the_regression_follows_the_prompt_and_is_saved(tmp_path):
    model = model_of(["one"])
    before = model.reader(0).weight.clone()
    fit(model, {0: (ROWS, ROWS)}, TRAIN)
    after = model.reader(0).weight.clone()
    assert (after - before).abs().max() > 1e-3
    model.solve_reader(0, model.encode(0, ROWS))
    torch.testing.assert_close(model.reader(0).weight, after)
    model.lm.source = str(tmp_path / "lm")
    model.lm.save(tmp_path / "lm")
    prompt_folder.save(model, tmp_path / "prompt")
    assert prompt_folder.load(tmp_path / "prompt").predict(ROWS) == model.predict(ROWS)
    assert model.bank.size(0) == prefix_of(model, 0).numel() + after.numel() + 3


def test_a_training_that_diverges_says_so():
    model = model_of(["one"])
    with pytest.raises(DivergedError, match="lower learning_rate"):
        fit(model, {0: (ROWS, ROWS)}, TRAIN.replaced({"learning_rate": 1e30, "clip": 0}))
