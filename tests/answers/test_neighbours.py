"""Members of an ensemble that are weighed for each row by the nearest labelled rows, against a
reference that counts token by token."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from ptune.answers.label_words import Verbalizer
from ptune.answers.neighbours import Neighbours, member_weights
from ptune.base import files
from ptune.errors import ConfigError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.neighbours import keep_neighbours
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage import prompt_folder
from ptune.template.language import Template

ROWS = [
    {"x": "Vienna lies on the Danube", "label": "a"},
    {"x": "It was the worst film", "label": "b"},
    {"x": "great film great", "label": "a"},
    {"x": "Rome is in Italy", "label": "b"},
    {"x": "the worst", "label": "b"},
    {"x": "the worst", "label": "a"},
    {"x": "Paris", "label": "a"},
]
TEXTS = ["the worst film", "great", "Vienna is in Italy", "the Danube the Danube", "Rome", "No"]
ASKED = [{"x": text} for text in TEXTS]
TEMPLATES = ["{x} is {mask}", "{soft:2} {x} ? {mask}"]
WORDS = [
    Verbalizer.from_words({"a": ["Yes", "great film"], "b": "No"}),
    Verbalizer.from_words({"a": "great", "b": "bad"}),
]


def reference_weights(known, log_probs, row, count, rarity=True):
    """What ``member_weights`` says.

    Args:
        known: the tokens of the labelled rows.
        log_probs: of each member for each of those rows.
        rarity: rare tokens count for more, as they should.
    """

    def vector(tokens):
        values = {
            token: number * math.log((1 + len(known)) / (1 + sum(token in one for one in known)))
            if rarity
            else number
            for token, number in Counter(tokens).items()
        }
        length = math.sqrt(sum(value**2 for value in values.values()))
        return {token: value / length for token, value in values.items()} if length else {}

    asked = vector(row)
    near = [sum(asked.get(token, 0) * v for token, v in vector(one).items()) for one in known]
    nearest = sorted(range(len(known)), key=lambda n: (-round(near[n], 12), n))[:count]
    shares = [math.exp(sum(near[n] * member[n] for n in nearest)) for member in log_probs]
    return np.array(shares) / sum(shares)


@pytest.mark.parametrize("seed", range(6))
def test_the_weights_are_those_of_a_loop_over_tokens(seed):
    chance = np.random.default_rng(seed)
    known = [[1, 2, *chance.integers(5, 30, chance.integers(1, 12))] for _ in range(25)]
    log_probs, row = -chance.exponential(2.0, (3, 25)), [1, 2, *chance.integers(5, 36, 7)]
    members = [Neighbours.of_rows(known, one) for one in log_probs]
    expected = reference_weights(known, log_probs, row, 4)
    np.testing.assert_allclose(member_weights(members, row, 4), expected, atol=1e-12)
    wrong = [
        reference_weights(known, log_probs, row, 25),
        reference_weights(known, log_probs, row, 4, rarity=False),
    ]
    assert min(abs(one - expected).max() for one in wrong) > 1e-3


def test_a_row_that_is_near_none_weighs_all_members_alike():
    members = [Neighbours.of_rows([[1, 5], [1, 6]], one) for one in ([-0.1, -0.1], [-4.0, -9.0])]
    for row in ([1], [], [1, 8, 9], [0]):
        assert member_weights(members, row, 1) == [0.5, 0.5]
    assert member_weights(members, [1, 6], 2)[0] > 0.99
    assert members[0].nearest([1, 7], 2)[0].tolist() == [0, 1], "equally near: the earlier first"


def ensemble(family="bert", count=3):
    """Four ways to ask, of which two have a soft prompt, that know ``ROWS``."""
    torch.manual_seed(0)
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    ways_to_ask = [(template, words) for template in TEMPLATES for words in WORDS]
    for number, (template, words) in enumerate(ways_to_ask):
        settings = {"encoder": "table", "combine": "neighbours", "neighbours": count}
        model.add(Task(f"t/{number}", Template.parse(template), words, **settings))
    keep_neighbours(model, range(4), ROWS)
    return model


def plain_answers(model, count):
    """The labels' probabilities of ``ASKED``, each row and each member by itself."""

    def scores(task, rows):
        examples = model.encode(task, rows, labelled="label" in rows[0])
        return [model.scores([one])[0] for one in examples], examples

    log_probs, known = [], []
    for task in range(len(model.tasks)):
        values, examples = scores(task, ROWS)
        right = [model.tasks[task].verbalizer.labels.index(row["label"]) for row in ROWS]
        log_probs.append([float(one.softmax(0)[n].log()) for one, n in zip(values, right)])
        known.append([[token for fill in one.fills for token in fill.ids] for one in examples])
    answers = []
    for row in ASKED:
        of_members = [scores(task, [row]) for task in range(len(model.tasks))]
        tokens = [token for fill in of_members[0][1][0].fills for token in fill.ids]
        weights = reference_weights(known[0], log_probs, tokens, count)
        shares = [values[0].softmax(0).numpy() for values, _ in of_members]
        answers.append(sum(weight * share for weight, share in zip(weights, shares)))
    return np.array(answers)


def predicted(model, rows):
    return np.array([[one["scores"][label] for label in "ab"] for one in model.predict(rows)])


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_an_ensemble_answers_by_the_nearest_rows_and_after_loading_too(family, tmp_path):
    model = ensemble(family)
    answers = predicted(model, ASKED)
    np.testing.assert_allclose(answers, plain_answers(model, 3), atol=1e-5)
    assert abs(answers - plain_answers(model, 7)).max() > 1e-4
    for bound in list(model.tasks):
        model.tasks[model.tasks.index(bound)] = replace(
            bound, task=replace(bound.task, combine="mean")
        )
    assert abs(answers - predicted(model, ASKED)).max() > 1e-3
    model = ensemble(family)
    for number in range(4):
        prompt_folder.save(model, tmp_path / "prompts" / str(number), task=number)
    loaded = prompt_folder.load(prompt_folder.folders_in(tmp_path), model.lm)
    assert loaded.tasks[0].task == model.tasks[0].task
    np.testing.assert_array_equal(predicted(loaded, ASKED), answers)
    alone = np.concatenate([predicted(loaded, [row]) for row in ASKED])
    np.testing.assert_allclose(alone, answers, atol=1e-6)


def test_a_packed_batch_is_answered_as_a_padded_one():
    model = ensemble()
    assert model.lm.packs
    packed = predicted(model, ASKED)
    model.lm.packs = False
    np.testing.assert_allclose(predicted(model, ASKED), packed, atol=1e-6)


def test_members_that_do_not_know_the_same_rows_are_refused(tmp_path):
    model = ensemble()
    keep_neighbours(model, [1], ROWS[:3])
    with pytest.raises(ConfigError, match="do not keep the same ones"):
        model.predict(ASKED)
    model.tasks[1] = replace(model.tasks[1], neighbours=None)
    with pytest.raises(ConfigError, match="do not keep the same ones"):
        model.predict(ASKED)
    assert model.predict(ASKED[:1], tasks=0), "a member alone answers without them"
    text = Task("w", Template.parse("{x} {mask}"), combine="neighbours")
    with pytest.raises(ConfigError, match="it needs labels"):
        PromptModel(LanguageModel(*tiny.tiny("gpt2"))).add(text)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("counts", lambda values: values[:-1]),
        ("counts", lambda values: values * 0),
        ("tokens", lambda values: values.float()),
        ("log_probs", lambda values: values[:-1]),
        ("log_probs", lambda values: values / 0),
        ("sizes", None),
    ],
)
def test_damaged_values_of_labelled_rows_are_refused(name, change, tmp_path):
    model = ensemble()
    prompt_folder.save(model, tmp_path)
    file = tmp_path / "prompt.safetensors"
    tensors = files.read_tensors(file)
    values = tensors.pop(f"neighbours.{name}")
    if change:
        tensors[f"neighbours.{name}"] = change(values)
    files.write_tensors(file, tensors)
    with pytest.raises(StoreError, match="what it keeps of labelled rows does not go together"):
        prompt_folder.load(tmp_path, model.lm)


def test_of_many_rows_some_are_kept():
    model = ensemble()
    keep_neighbours(model, [0], ROWS * 300)
    assert len(model.tasks[0].neighbours.sizes) == 1050
