"""Rows with none, one or several labels: losses, gradients and answers beside a plain
computation."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from by_hand import Plain, of_labels
from killing import killed_after
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

from ptune.answers.from_row import Choices
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.linear_reader import STRENGTH
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, DataError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.model.running.forward import run_examples
from ptune.settings import LayoutConfig, TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

WORDS = (("great", "best"), ("bad",), ("city",))
LABELS = Verbalizer.from_words(dict(zip("abc", WORDS)))
ROWS = [
    {"x": "Vienna", "label": ["a", "c"]},
    {"x": "the Danube in the east of Austria", "label": []},
    {"x": "Rome and Italy", "label": ["b"]},
    {"x": "a film", "label": ["c", "b", "a"]},
]
PRESENT = [[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]]
TEMPLATE = "{soft:2} {x|shorten} is {mask}"


def model_of(family="bert", reader="words", template=TEMPLATE, words=LABELS, **more):
    model = PromptModel(LanguageModel(*tiny.tiny(family, torch.float64)))
    task = Task(
        "t",
        Template.parse(template),
        words,
        encoder="table",
        reader=READERS[reader],
        **{"multi_label": True, **more},
    )
    model.add(task, ROWS)
    return model


def expected_scores(model, family, reader, vectors):
    """The labels' scores [B, C] of each row, run by itself by transformers."""
    plain, read = Plain(family, dtype=torch.float64), model.reader(0)
    pieces = [(0, 1, f" {row['x']}", " is") for row in ROWS]
    if reader == "words":
        return torch.stack([of_labels(plain.words(row, WORDS, vectors=vectors)) for row in pieces])
    return read(torch.stack([plain.hidden(row, (None,), vectors) for row in pieces]))


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("reader", ["words", "head"])
def test_loss_and_gradient_are_the_binary_cross_entropy_of_every_label(family, reader):
    model = model_of(family, reader)
    model.bank.readers.eval()
    losses = model.losses(model.encode(0, ROWS))
    losses.sum().backward()
    table = model.bank.encoders[0]
    gradient = next(table.parameters()).grad.clone()
    vectors = table().detach().requires_grad_()
    scores = expected_scores(model, family, reader, vectors)
    present = torch.tensor(PRESENT, dtype=scores.dtype)
    for loss, row_scores, has in zip(losses, scores, present):
        expected = binary_cross_entropy_with_logits(row_scores, has)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    total = binary_cross_entropy_with_logits(scores, present, reduction="none").mean(1).sum()
    (by_hand,) = torch.autograd.grad(total, vectors)
    assert by_hand.abs().max() > 1e-3
    assert torch.allclose(gradient, by_hand.to(gradient), atol=1e-5, rtol=1e-4)


def test_a_batch_is_its_rows_alone_beside_a_task_of_one_label():
    model = model_of()
    words = Verbalizer.from_words({"yes": "Yes", "no": "No"})
    model.add(Task("other", Template.parse("{x} {soft:3} {mask}"), words, target="one"))
    rows = [{**row, "one": "yes"} for row in ROWS]
    mixed = [*model.encode(0, rows), *model.encode(1, rows)]
    alone = torch.stack([model.losses([example])[0] for example in mixed])
    assert torch.allclose(model.losses(mixed), alone, atol=1e-6)
    assert torch.allclose(model.backward(mixed, [1.0] * len(mixed), [3, 5]), alone, atol=1e-6)
    for example, scores in zip(mixed, model.scores(mixed)):
        assert torch.allclose(scores, model.scores([example])[0], atol=1e-6)


@pytest.mark.parametrize("windows", ["mean", "max"])
def test_windows_give_the_mean_or_the_largest_probability(windows):
    row = {"x": "the great film of the people of Vienna was the best " * 3, "label": ["a"]}
    model, plain = model_of(windows=windows, max_length=18), model_of(max_length=18)
    plain.bank = model.bank
    (example,) = model.encode(0, [row])
    size = len(plain.encode(0, ROWS[:1])[0].fills)
    starts = range(0, len(example.fills), size)
    assert len(starts) > 2
    parts = [replace(example, fills=example.fills[start : start + size]) for start in starts]
    shares = torch.stack(plain.scores(parts)).sigmoid()
    expected = shares.mean(0) if windows == "mean" else shares.amax(0)
    assert torch.allclose(model.scores([example])[0].sigmoid(), expected, atol=1e-6)


def test_regression_is_one_against_the_rest():
    model = model_of("bert", "linear", "{x|shorten}", pooling="mean")
    with torch.no_grad(), model.evaluating():
        outputs = run_examples(model, model.encode(0, ROWS))
    hidden = normalize(torch.stack([output[0].hidden[0] for output in outputs]).double(), dim=-1)
    scores = torch.stack(model.scores(model.encode(0, ROWS)))
    for label in range(3):
        right = np.array(PRESENT)[:, label]
        by_hand = LogisticRegression(C=STRENGTH, max_iter=1000, tol=1e-12).fit(
            hidden.numpy(), right
        )
        expected = by_hand.decision_function(hidden.numpy())
        assert scores[:, label].numpy() == pytest.approx(expected, abs=1e-4)


def test_a_label_that_all_or_no_rows_have_is_said_of_all_or_none():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    rows = [{**row, "label": ["a", "b"][: number % 2 + 1]} for number, row in enumerate(ROWS)]
    task = Task("t", Template.parse("{x}"), LABELS, reader=READERS["linear"], multi_label=True)
    model.add(replace(task, pooling="mean"), rows)
    answers = model.predict(ROWS)
    assert all(answer["scores"]["a"] > 0.99 > 0.01 > answer["scores"]["c"] for answer in answers)


def test_the_threshold_is_chosen_on_dev_and_saved(tmp_path):
    """What is saved answers as what was trained."""
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    model = PromptModel(LanguageModel.load(str(tmp_path / "lm"), device="cpu"))
    model.add(Task("t", Template.parse(TEMPLATE), LABELS, encoder="table", multi_label=True))
    config = TrainConfig(steps=30, learning_rate=0.05, batch_size=2)
    trained = fit(model, {0: (ROWS, ROWS)}, config)
    assert model.tasks[0].threshold != 0.5
    answers = model.predict(ROWS)
    said = [set(answer["prediction"]) for answer in answers]
    hits = sum(len(names & {*row["label"]}) for names, row in zip(said, ROWS))
    f1 = 2 * hits / (sum(map(len, said)) + 6)
    assert f1 == pytest.approx(trained[0].best.dev) and f1 > 0.7
    prompt_folder.save(model, tmp_path / "p", task=0)
    loaded = prompt_folder.load([tmp_path / "p"], device="cpu")
    assert loaded.tasks[0].threshold == model.tasks[0].threshold
    for before, after in zip(answers, loaded.predict(ROWS)):
        assert before["prediction"] == after["prediction"]
        assert after["scores"] == pytest.approx(before["scores"], abs=1e-6)


def test_a_run_that_is_stopped_and_resumed_has_the_same_threshold(tmp_path, monkeypatch):
    config = TrainConfig(steps=12, learning_rate=0.05, batch_size=2, save_seconds=0)

    def result(model, trained):
        history = [vars(evaluation) for evaluation in trained[0].history]
        return history, model.tasks[0].threshold, model.predict(ROWS)

    model = model_of()
    whole = result(model, fit(model, {0: (ROWS, ROWS)}, config))
    with killed_after(5, monkeypatch):
        fit(model_of(), {0: (ROWS, ROWS)}, config, folder=tmp_path)
    model = model_of()
    again = result(model, fit(model, {0: (ROWS, ROWS)}, config, folder=tmp_path, resume=True))
    assert again == whole and whole[1] != 0.5


def test_a_given_threshold_stays():
    model = model_of(threshold=0.01)
    fit(model, {0: (ROWS, ROWS)}, TrainConfig(steps=1))
    assert model.tasks[0].threshold == 0.01


def test_a_cell_of_a_table_holds_labels_too():
    model = model_of(layout=LayoutConfig(label_separator=";"))
    examples = model.encode(0, [{"x": "film", "label": "a; c;"}, {"x": "film", "label": ""}])
    assert [example.present for example in examples] == [(True, False, True), (False,) * 3]


@pytest.mark.parametrize(
    "row, error, message",
    [
        ({"label": ["d"]}, VerbalizerError, "no label 'd'"),
        ({"label": None}, DataError, "holds a list of them"),
        ({"label": [["a"]]}, DataError, "holds a list of them"),
        ({"label": ["a", None]}, DataError, "holds null"),
        ({}, DataError, "is missing"),
    ],
)
def test_bad_label_sets_are_refused(row, error, message):
    with pytest.raises(error, match=f"Row 1 of t: .*{message}"):
        model_of().encode(0, [{"x": "film", **row}])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"reader": "prototypes"}, "compares labels or rows"),
        ({"reader": "linear", "template": "{prefix:2} {x}", "pooling": "mean"}, "behind a prompt"),
        ({"words": Choices(("x",))}, "decided one by one"),
        (
            {"loss": "vocabulary", "words": Verbalizer.from_words({"a": "Yes", "b": "No"})},
            "decided one by one",
        ),
    ],
)
def test_what_does_not_decide_labels_apart_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        model_of(**options)


def test_two_prompts_do_not_answer_together():
    model = model_of()
    model.add(Task("u", Template.parse(TEMPLATE), LABELS, multi_label=True))
    with pytest.raises(ConfigError, match="one prompt answers"):
        model.predict(ROWS)
    assert len(model.predict(ROWS, ["t", "u", "t", "u"])) == 4
