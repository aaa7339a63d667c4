"""Contexts that are kept, against rows that are run whole, which test_families holds against the plain way."""
import dataclasses

import pytest
import tiny
import torch
from test_families import FAR, TOLERANCE

from ptune.config import TrainConfig
from ptune.context import Context, Contexts, behind, split
from ptune.lm import LanguageModel
from ptune.model import PrefixSettings, PromptModel, Task
from ptune.template import Template
from ptune.train import fit
from ptune.verbalizer import Verbalizer

CAUSAL = [name for name in tiny.FAMILIES if LanguageModel(*tiny.tiny(name)).kind == "causal"]
ROWS = [{"text": "Vienna lies on the Danube", "label": "a"}, {"text": "Rome", "label": "b"}, {"text": "It was a great film , it was", "label": "b"}]
WORDS = Verbalizer.from_words({"a": ["Yes", "great"], "b": ["No", "terrible"]})


def build(family: str) -> PromptModel:
    """Soft tokens behind the text, in front of it, and none."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for number, (text, loss) in enumerate([("{text} ? {soft:3} is {mask}", "labels"), ("The {text} {soft:2} {mask}", "vocabulary"),
                                           ("{soft:2} {text} {mask}", "labels"), ("{text} ? {mask}", "labels")]):
        model.add(Task(f"task {number}", Template.parse(text), WORDS, encoder="table", loss=loss))
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(parameter, 0, 0.7, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def results(model: PromptModel, rows) -> list[torch.Tensor]:
    losses = model.losses(rows)
    gradients = torch.autograd.grad(losses.sum(), list(model.bank.parameters()), allow_unused=True)
    return [losses.detach(), *(gradient for gradient in gradients if gradient is not None)]


def calls(model: PromptModel) -> list[tuple[int, ...]]:
    """The shapes of the LM's inputs from now on."""
    found: list[tuple[int, ...]] = []
    model.lm.model.register_forward_pre_hook(lambda _, given, named: found.append(tuple(named["inputs_embeds"].shape[:2])), with_kwargs=True)
    return found


@pytest.mark.parametrize("family", CAUSAL)
def test_behind_kept_contexts_all_is_as_in_whole_rows(family, monkeypatch):
    model = build(family)
    rows = [example for task in range(4) for example in model.encode(task, ROWS)]
    wanted = results(model, rows)
    assert model.lm._takes_contexts
    seen = calls(model)
    with model.lm.keeping_contexts(1):
        first, second = results(model, rows), results(model, rows)
        for name, wrong in {"positions from the start": lambda c: dataclasses.replace(c, lengths=c.lengths * 0 + c.values.shape[4]),
                            "another row's context": lambda c: dataclasses.replace(c, values=c.values.flip(2))}.items():
            with monkeypatch.context() as patch:
                patch.setattr(Contexts, "of", lambda self, texts, wrong=wrong, right=Contexts.of: wrong(right(self, texts)))
                assert (results(model, rows)[0] - wanted[0]).abs().max() > FAR, f"{name} does not show, so this test could not fail"
        with monkeypatch.context() as patch:
            patch.setattr(Context, "seen", property(lambda self: torch.ones(len(self.lengths), self.values.shape[4], dtype=torch.long)))
            assert (results(model, rows)[0] - wanted[0]).abs().max() > FAR, "padding that is seen does not show"
    tails = [behind(fill, min([*fill.reads, *(at for at, slot in enumerate(fill.slots) if slot >= 0)])) for row in rows for fill in row.learn]
    assert seen[-1] == seen[1] == (len(tails), max(len(tail.ids) for tail in tails)) and len(seen) == 6, "a context was computed twice, or a whole row"
    for found in (first, second):
        for ours, theirs in zip(found, wanted):
            scale = theirs.abs().max().clamp(min=1)
            torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=0)


def test_what_has_no_room_is_computed_each_time():
    model = build("llama")
    rows = model.encode(0, ROWS)
    wanted = results(model, rows)
    asked, texts = [], split([row.learn[0] for row in rows])[0]
    longest = max(values.numel() * values.element_size() for values in model.lm._context_values(texts))
    contexts = Contexts(lambda texts: asked.append(len(texts)) or model.lm._context_values(texts), longest)
    model.lm._contexts = contexts
    found = [results(model, rows) for _ in range(3)]
    model.lm._contexts = None
    assert contexts.left >= 0 and 1 <= len(contexts.kept) < 3 and asked == [3, *[3 - len(contexts.kept)] * 2]
    for own in found:
        torch.testing.assert_close(own, wanted, atol=TOLERANCE, rtol=TOLERANCE)


def test_training_with_contexts_is_training_without():
    def trained(megabytes: int):
        model = build("gpt2")
        seen = calls(model)
        config = TrainConfig(batch_size=2, epochs=3, patience=0, context_mb=megabytes)
        history = fit(model, {0: (ROWS, ROWS), 1: (ROWS, ROWS)}, config)
        return model, [look for own in history.values() for look in own.history], sum(rows * width for rows, width in seen)

    (kept, with_, fewer), (plain, without, more) = trained(64), trained(0)
    assert len(with_) == 6 and fewer < 0.75 * more and kept.lm._contexts is None
    for ours, theirs in zip(with_, without):
        assert vars(ours) == pytest.approx(vars(theirs), abs=1e-4)
    torch.testing.assert_close(list(kept.bank.parameters()), list(plain.bank.parameters()), atol=1e-4, rtol=1e-4)


def test_an_lm_that_is_tuned_or_recomputed_keeps_none(monkeypatch):
    def compute(self, texts):
        raise RuntimeError("a context is asked for")

    monkeypatch.setattr(LanguageModel, "_context_values", compute)
    model = build("gpt2")
    model.lm.__dict__["_takes_contexts"] = True
    fit(model, {0: (ROWS, ROWS)}, TrainConfig(epochs=1, batch_size=2), tune="both")
    fit(model, {0: (ROWS, ROWS)}, TrainConfig(epochs=1, batch_size=2, recompute=True))
    with pytest.raises(RuntimeError, match="a context is asked for"):
        fit(model, {0: (ROWS, ROWS)}, TrainConfig(epochs=1, batch_size=2))
    assert model.lm._contexts is None


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_other_lms_keep_none(family):
    lm = LanguageModel(*tiny.tiny(family))
    with lm.keeping_contexts(64):
        assert lm._contexts is None and not lm._takes_contexts


def test_rows_of_which_nothing_can_be_kept():
    model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
    for number, text in enumerate(["{soft:2} {text} {mask}", "{text} {prefix:2} ? {mask}", "{text} {soft:2} {mask}"]):
        model.add(Task(str(number), Template.parse(text), WORDS, encoder="table", prefix=PrefixSettings(0)))
    assert split([model.encode(0, ROWS)[0].fills[0]]) is None
    assert split([model.encode(1, ROWS)[0].fills[0]]) is None
    texts, tails = split([model.encode(2, ROWS)[0].fills[0]])
    whole = model.encode(2, ROWS)[0].fills[0]
    assert texts[0] + tails[0].ids == whole.ids and tails[0].slots[:2] == (0, 1) and tails[0].reads == (1,)


def test_an_lm_that_is_otherwise_behind_a_context_keeps_none(monkeypatch):
    monkeypatch.setattr(Context, "seen", property(lambda self: torch.zeros(len(self.lengths), self.values.shape[4], dtype=torch.long)))
    assert not LanguageModel(*tiny.tiny("llama"))._takes_contexts
