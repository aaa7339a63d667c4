"""Answers of several prompts as one, and their training in one batch."""

import pytest
import tiny
import torch

from ptune.answers.ensemble import combine, most_said
from ptune.answers.label_words import Verbalizer
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.settings import TrainConfig
from ptune.template.language import Template
from ptune.training.loop import fit


def test_mean_and_vote_by_hand():
    scores = [
        torch.tensor([0.9, 0.1]).log(),
        torch.tensor([0.4, 0.6]).log() - 5,
        torch.tensor([0.45, 0.55]).log(),
    ]
    torch.testing.assert_close(combine(scores, "mean"), torch.tensor([1.75, 1.25]) / 3)
    vote = combine(scores, "vote")
    torch.testing.assert_close(vote, torch.tensor([1, 2]) / 3, atol=1e-3, rtol=0)
    assert (
        vote.argmax() == 1
        and combine(scores, "mean").argmax() == 0
        and abs(float(vote.sum()) - 1) < 1e-6
    )


def test_a_tie_of_votes_is_decided_by_the_mean():
    scores = [torch.tensor([0.6, 0.4]).log(), torch.tensor([0.1, 0.9]).log()]
    assert (
        combine(scores, "vote").argmax() == 1
        and combine([scores[0], torch.tensor([0.45, 0.55]).log()], "vote").argmax() == 0
    )


def test_the_surest_member_answers_by_hand():
    """The smallest entropy decides, and neither the largest score nor the others' number."""
    scores = [
        torch.tensor([0.6, 0.3, 0.1]).log(),
        torch.tensor([0.02, 0.9, 0.08]).log() - 9,
        torch.tensor([0.6, 0.35, 0.05]).log() + 3,
    ]
    shares = combine(scores, "confident")
    torch.testing.assert_close(shares, torch.tensor([0.02, 0.9, 0.08]))


def test_the_text_that_most_wrote():
    assert most_said(["a", "b", "b"]) == "b" and most_said(["a", "b"]) == "a"


def test_weights_by_hand():
    """PET: the weighted mean of the members' scores, and of that the softmax; so a member that is
    surer of itself counts for more than in a mean of probabilities."""
    scores = [torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([-3.0, 0.0, -1.0])]
    merged = torch.tensor(
        [(3 * -1.0 + 1 * -3.0) / 4, (3 * -2.0 + 1 * 0.0) / 4, (3 * -4.0 + 1 * -1.0) / 4]
    )
    torch.testing.assert_close(
        combine(scores, "weighted", [0.75, 0.25]), merged.exp() / merged.exp().sum()
    )
    torch.testing.assert_close(
        combine(scores, "weighted", [3, 1]), combine(scores, "weighted", [0.75, 0.25])
    )
    equal = torch.tensor([-2.0, -1.0, -2.5]).softmax(0)
    for weights in (None, [1.0, 1.0], [0.0, 0.0], [0.2, 0.2]):
        torch.testing.assert_close(combine(scores, "weighted", weights), equal)
    torch.testing.assert_close(combine(scores, "weighted", [0.0, 0.5]), scores[1].softmax(0))
    assert (equal - combine(scores, "mean")).abs().max() > 0.01
    two_sure = [torch.tensor([0.999, 0.001]).log(), torch.tensor([0.2, 0.8]).log()]
    assert combine(two_sure, "weighted").argmax() == combine(two_sure, "mean").argmax() == 0
    torch.testing.assert_close(
        combine(two_sure, "weighted"),
        (torch.tensor([0.999 * 0.2, 0.001 * 0.8]).sqrt().log()).softmax(0),
    )


ROWS = [
    {"x": "Vienna lies on the Danube", "label": "a"},
    {"x": "It was", "label": "b"},
    {"x": "great film", "label": "a"},
    {"x": "Rome is in Italy", "label": "b"},
    {"x": "the worst", "label": "b"},
    {"x": "Paris", "label": "a"},
]
TEMPLATES = ["{soft:3} {x} is {mask}", "Question : {x} ? {soft:2} {mask}"]
VERBALIZERS = [
    Verbalizer.from_words({"a": ["Yes", "great film"], "b": "No"}),
    Verbalizer.from_words({"b": ["bad", "film"], "a": "great"}, "logit"),
]
MEMBERS = [(template, verbalizer) for template in TEMPLATES for verbalizer in VERBALIZERS]


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_members_that_learn_in_one_batch_are_those_that_learn_alone(family):
    """Two templates times two verbalizers, five steps on a frozen LM; the labels of one verbalizer
    come in another order than the other's."""

    def build(numbers):
        model = PromptModel(LanguageModel(*tiny.tiny(family)))
        for number in numbers:
            template, verbalizer = MEMBERS[number]
            model.add(
                Task(f"member {number}", Template.parse(template), verbalizer, encoder="table")
            )
        return model

    def trained(numbers):
        model = build(numbers)
        calls = []
        _ = model.lm.packs  # which is tried out once
        model.lm.model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
        fit(
            model,
            {f"member {number}": (ROWS[:5], ROWS[5:]) for number in numbers},
            TrainConfig(
                batch_size=1,
                epochs=1,
                evaluate_every=5,
                patience=0,
                learning_rate=1e-2,
                optimiser="adamw",
            ),
        )
        assert sum(calls) == 5 + 1  # one to see that gradients come back
        return [encoder().detach() for encoder in model.bank.encoders], model

    together, model = trained(range(4))
    start = [encoder().detach() for encoder in build(range(4)).bank.encoders]
    alone = [trained([number]) for number in range(4)]
    for number, ((vectors, single), before) in enumerate(zip(alone, start)):
        assert (vectors[0] - before).abs().max() > 1e-3
        torch.testing.assert_close(together[number], vectors[0], atol=1e-5, rtol=0)
        for ours, theirs in zip(
            model.scores(model.encode(number, ROWS)), single.scores(single.encode(0, ROWS))
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    assert model.is_ensemble and (together[0] - together[1]).abs().max() > 1e-3
