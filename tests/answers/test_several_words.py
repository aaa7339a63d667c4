"""Several words of one label: the likeliest, votes, and weights that are learned; against counts
over all ways to take one word of every label, and gradients by hand."""

import itertools
import math

import pytest
import tiny
import torch

from ptune.answers.bound_verbalizer import TIE
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.errors import ConfigError, VerbalizerError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

ROWS = [
    {"x": "Vienna lies on the Danube", "label": "a"},
    {"x": "It was the worst", "label": "b"},
    {"x": "great film", "label": "c"},
    {"x": "Paris", "label": "a"},
]
WORDS = {"a": ["Yes", "great film", "best"], "b": ["No", "bad"], "c": "Rome"}
TWO = {"a": ["Yes", "great film", "best"], "b": ["No", "bad"]}


def model_of(
    words, family="bert", template="{soft:2} {x} is {mask}", aggregate="probability", **more
):
    torch.manual_seed(0)
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    verbalizer = Verbalizer.from_words(words, aggregate)
    model.add(Task("t", Template.parse(template), verbalizer, encoder="table", **more))
    return model


def by_label(model, rows):
    """For each row the scores of the words of each label."""
    owners = model.tasks[0].verbalizer.owners
    return [
        [[value for value, owner in zip(row, owners) if owner == n] for n in range(max(owners) + 1)]
        for row in model.word_scores(rows, 0)
    ]


def voted(words):
    """The log share of votes of each label, counted, and a little of the mean of probabilities."""
    votes = [0.0] * len(words)
    ways = list(itertools.product(*words))
    for one in ways:
        votes[max(range(len(one)), key=lambda n: one[n])] += 1 / len(ways)
    means = [sum(math.exp(word) for word in of_label) / len(of_label) for of_label in words]
    shares = [mean / sum(means) for mean in means]
    return [math.log((vote + TIE * one) / (1 + TIE)) for vote, one in zip(votes, shares)]


def smooth(words):
    """The log share of votes where each word is ahead of another with some probability [C]."""
    shares = []
    for label, ours in enumerate(words):
        total = 0.0
        for word in ours:
            product = 1.0
            for other, theirs in enumerate(words):
                if other != label:
                    ahead = [torch.sigmoid(word - one) for one in theirs]
                    product = product * sum(ahead) / len(ahead)
            total = total + product / len(ours)
        shares.append(total)
    return torch.stack(shares).log().log_softmax(0)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
@pytest.mark.parametrize("words", [WORDS, TWO])
@pytest.mark.parametrize("aggregate", ["max", "vote"])
def test_scores_are_those_of_the_likeliest_word_or_of_a_count_of_votes(family, words, aggregate):
    model = model_of(words, family, aggregate=aggregate)
    rows = [row for row in ROWS if row["label"] in words]
    scores = torch.stack(model.scores(model.encode(0, rows)))
    of_rows = by_label(model, rows)
    largest = [[max(of_label) for of_label in row] for row in of_rows]
    expected = largest if aggregate == "max" else [voted(row) for row in of_rows]
    torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-5, rtol=1e-5)
    mean = model_of(words, family)
    assert (scores - torch.stack(mean.scores(mean.encode(0, rows)))).abs().max() > 1e-2


def test_votes_differ_from_the_likeliest_word_and_from_the_mean():
    """Of six ways to take a word of each label four are won by b, whose best word is behind."""
    bound = model_of(TWO, aggregate="vote").tasks[0].verbalizer
    words = torch.tensor([[-0.1, -5.0, -6.0, -1.0, -2.0], [-1.0, -1.0, -1.0, -1.0, -1.0]])
    scores = bound.of_labels(words)
    votes = scores.exp()[0]
    assert votes[1] == pytest.approx(2 / 3, abs=1e-3) and votes.sum() == pytest.approx(1, abs=1e-5)
    assert scores[1, 0] == scores[1, 1], "words that are all alike"


def test_the_smooth_votes_of_two_labels_are_the_mean_of_all_verbalizers_probabilities():
    words = [torch.randn(3), torch.randn(2)]
    ways = [torch.stack(one).softmax(0) for one in itertools.product(*words)]
    torch.testing.assert_close(smooth(words).exp(), torch.stack(ways).mean(0))


@pytest.mark.parametrize("words", [WORDS, TWO])
def test_votes_are_learned_through_their_smooth_count(words):
    """The gradient of the cross entropy: how far the votes are from the label, times the slope of
    the smooth count."""
    bound = model_of(words, aggregate="vote").tasks[0].verbalizer
    scores = torch.randn(1, len(bound.ids), generator=torch.Generator().manual_seed(1))
    scores = scores.requires_grad_()
    right = torch.tensor([1])
    torch.nn.functional.cross_entropy(bound.of_labels(scores), right).backward()
    values = scores.detach()[0].clone().requires_grad_()
    listed = [[v for v, o in zip(values, bound.owners) if o == n] for n in range(len(words))]
    error = torch.tensor(voted([[v.item() for v in one] for one in listed])).softmax(0)
    error[1] -= 1
    smooth(listed).backward(error)
    torch.testing.assert_close(scores.grad[0], values.grad, atol=1e-6, rtol=1e-5)
    assert values.grad.abs().max() > 1e-2


@pytest.mark.parametrize("template", ["{soft:2} {x} is {mask}", "{x} is {mask}"])
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_learned_weights_are_those_of_the_plain_formula(family, template):
    """Their scores, and the gradient: how far a label's probability is from right, times the word's
    weight, times how far the word is from the label's score."""
    model = model_of(WORDS, family, template, reader=READERS["weighted-words"])
    reader, owners = model.reader(0), model.tasks[0].verbalizer.owners
    plain = model_of(WORDS, family, template, aggregate="logit")
    examples = model.encode(0, ROWS)
    before = torch.stack(model.scores(examples))
    torch.testing.assert_close(before, torch.stack(plain.scores(plain.encode(0, ROWS))))
    with torch.no_grad():
        reader.logits.copy_(torch.tensor([0.5, -1.0, 2.0, 90.0, 88.0, -40.0]))
    weights = []
    for logit, owner in zip(reader.logits.tolist(), owners):
        of_label = [one for one, other in zip(reader.logits.tolist(), owners) if other == owner]
        weights.append(1 / sum(math.exp(one - logit) for one in of_label))
    words = model.word_scores(ROWS, 0)
    expected = torch.zeros(len(ROWS), 3)
    for number, owner in enumerate(owners):
        expected[:, owner] += weights[number] * words[:, number]
    scores = torch.stack(model.scores(examples))
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    assert (scores - before).abs().max() > 1e-2
    model.backward(examples, [1.0] * len(ROWS))
    right = torch.tensor([example.label for example in examples])
    error = expected.softmax(1) - torch.nn.functional.one_hot(right, 3)
    gradient = [
        sum(
            error[row, owner] * weights[n] * (words[row, n] - expected[row, owner])
            for row in range(4)
        )
        for n, owner in enumerate(owners)
    ]
    torch.testing.assert_close(reader.logits.grad, torch.stack(gradient), atol=1e-4, rtol=1e-4)
    assert reader.logits.grad.abs().max() > 1e-2


def test_weights_are_learned_without_soft_tokens_and_saved(tmp_path):
    model = model_of(WORDS, template="{x} is {mask}", reader=READERS["weighted-words"])
    fit(
        model,
        {0: (ROWS, ROWS)},
        TrainConfig(batch_size=2, epochs=4, learning_rate=0.3, optimiser="adamw"),
    )
    weights = model.reader(0).weights(model.tasks[0].verbalizer)
    assert (weights - torch.tensor([1 / 3] * 3 + [1 / 2] * 2 + [1])).abs().max() > 0.05
    prompt_folder.save(model, tmp_path)
    loaded = prompt_folder.load(tmp_path, model.lm)
    answers = [one["scores"] for one in model.predict(ROWS)]
    assert [one["scores"] for one in loaded.predict(ROWS)] == answers
    torch.testing.assert_close(loaded.reader(0).weights(loaded.tasks[0].verbalizer), weights)


def test_what_cannot_be_weighted_or_voted_on_is_refused():
    one = {"a": "Yes", "b": "No"}
    with pytest.raises(VerbalizerError, match="no label has two words"):
        model_of(one, reader=READERS["weighted-words"])
    with pytest.raises(ConfigError, match="votes of words are for one label of all"):
        model_of(WORDS, aggregate="vote", multi_label=True)
