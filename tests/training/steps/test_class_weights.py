"""Rows of rare labels count more in the loss, beside a plain computation."""

import numpy as np
import pytest
import tiny
import torch
from sklearn.utils.class_weight import compute_class_weight

from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.settings import TrainConfig
from ptune.template.language import Template
from ptune.training import loop
from ptune.training.prompt_training import PromptTraining

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No", "c": "Maybe"})
ROWS = [{"x": f"Vienna {town}", "label": label} for town, label in zip(
    ("Paris", "Rome", "Berlin", "Madrid", "London", "euro", "film"), "aabbbbb")]  # fmt: skip


def job_of(weights, reader="words", rows=ROWS, loss="labels"):
    model = PromptModel(LanguageModel(*tiny.tiny("bert", torch.float64)))
    template = "{x} {soft:3} {mask}"
    task = Task("t", Template.parse(template), WORDS, reader=READERS[reader], loss=loss)
    model.add(task, rows)
    config = TrainConfig(batch_size=4, class_weights=weights)
    return model, PromptTraining(
        model, 0, rows, dev=rows, config=config, tune="prompt", unlabeled=()
    )


@pytest.mark.parametrize("weights", [None, "balanced", {"b": 0.25}])
@pytest.mark.parametrize("reader", ["words", "soft"])
def test_a_steps_gradient_is_that_of_the_weighted_mean(weights, reader):
    model, job = job_of(weights, reader)
    gradients = []
    job.update = lambda: gradients.extend(p.grad.clone() for p in job.parameters)
    loop.take_step(model, [job], job.config)
    position = job.order[:4].tolist()
    labels = [row["label"] for row in ROWS]
    balanced = dict(
        zip("ab", compute_class_weight("balanced", classes=np.array(["a", "b"]), y=labels))
    )
    by_label = balanced if weights == "balanced" else {"a": 1.0, "b": 1.0, **(weights or {})}
    factors = torch.tensor([by_label[labels[i]] for i in position], dtype=torch.float64)
    for parameter in job.parameters:
        parameter.grad = None
    losses = model.losses([job.rows[i] for i in position], model.learned([0]))
    loss = (losses * factors).mean()
    loss.backward()
    assert float(job.losses[0]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for gradient, parameter in zip(gradients, job.parameters):
        assert torch.allclose(gradient, parameter.grad, rtol=1e-5, atol=1e-9)


def test_what_has_no_labels_to_weigh_is_refused():
    for weights, options, message in (
        ({"d": 2}, {}, "label 'd', which t does not have"),
        ("balanced", {"loss": "vocabulary"}, "compared with no labels of its own"),
        ("balanced", {"reader": "linear"}, "knows no class_weights"),
    ):
        with pytest.raises(ConfigError, match=message):
            job_of(weights, **options)
    with pytest.raises(ValueError, match="^class_weights.a: Input should be greater than 0"):
        TrainConfig(class_weights={"a": 0})


def test_the_yaml_takes_both_forms(tmp_path):
    from ptune.tasks import yaml_task

    for written, weights in (("balanced", "balanced"), ("{urgent: 5, '1': 2.5}",
            {"urgent": 5.0, "1": 2.5})):  # fmt: skip
        (tmp_path / "t.yaml").write_text(
            f"name: t\ntemplate: '{{x}} {{mask}}'\ntrain: {{class_weights: {written}}}\n"
        )
        assert yaml_task.read(tmp_path / "t.yaml").train.class_weights == weights
    for written, message in (
        ("{urgent: 0}", r"train.class_weights.urgent: Input should be greater than 0 \(it is"),
        ("even", r"train.class_weights: Input should be 'balanced' \(it is 'even'\)"),
    ):
        (tmp_path / "t.yaml").write_text(
            f"name: t\ntemplate: '{{x}} {{mask}}'\ntrain: {{class_weights: {written}}}\n"
        )
        with pytest.raises(ConfigError, match=message):
            yaml_task.read(tmp_path / "t.yaml")
