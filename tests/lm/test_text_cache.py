"""Contexts that are kept, against rows that are run whole, which test_families holds against the
plain way."""

import dataclasses

import pytest
import tiny
import torch
from family_checks import FAR, ONE_WORD, TOLERANCE
from killing import killed_after

from ptune.answers.label_words import Verbalizer
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.text_cache import Context, Contexts
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import TrainConfig
from ptune.template.language import Template
from ptune.training.loop import fit

CAUSAL = [name for name in tiny.FAMILIES if LanguageModel(*tiny.tiny(name)).kind == "causal"]
ROWS = [
    {"text": "Vienna lies on the Danube", "label": "a"},
    {"text": "Rome", "label": "b"},
    {"text": "It was a great film , it was", "label": "b"},
]
WORDS = Verbalizer.from_words({"a": ["Yes", "great"], "b": ["No", "terrible"]})


def build(family: str) -> PromptModel:
    """Soft tokens behind the text, in front of it, and none."""
    model = PromptModel(LanguageModel(*tiny.tiny(family)))
    for number, (text, loss) in enumerate(
        [
            ("{text} ? {soft:3} is {mask}", "labels"),
            ("The {text} {soft:2} {mask}", "vocabulary"),
            ("{soft:2} {text} {mask}", "labels"),
            ("{text} ? {mask}", "labels"),
        ]
    ):
        model.add(
            Task(
                f"task {number}",
                Template.parse(text),
                WORDS if loss == "labels" else ONE_WORD,
                encoder="table",
                loss=loss,
            )
        )
    for parameter in model.bank.parameters():
        torch.nn.init.normal_(
            parameter, 0, 0.7, generator=torch.Generator().manual_seed(parameter.numel())
        )
    return model


def results(model: PromptModel, rows) -> list[torch.Tensor]:
    losses = model.losses(rows)
    gradients = torch.autograd.grad(losses.sum(), list(model.bank.parameters()), allow_unused=True)
    return [losses.detach(), *(gradient for gradient in gradients if gradient is not None)]


def calls(model: PromptModel) -> list[tuple[int, ...]]:
    """The shapes of the LM's inputs from now on."""
    actual: list[tuple[int, ...]] = []
    model.lm.model.register_forward_pre_hook(
        lambda _, given, named: actual.append(tuple(named["inputs_embeds"].shape[:2])),
        with_kwargs=True,
    )
    return actual


@pytest.mark.parametrize("family", CAUSAL)
def test_behind_kept_contexts_all_is_as_in_whole_rows(family, monkeypatch):
    model = build(family)
    rows = [example for task in range(4) for example in model.encode(task, ROWS)]
    expected = results(model, rows)
    assert model.lm.takes_contexts
    seen = calls(model)
    learn = [fill for row in rows for fill in row.learn]
    with model.lm.keeping_contexts(learn, 1):
        first = results(model, rows)
        computed = list(seen)
        second = results(model, rows)
        for name, wrong in {
            "positions from the start": lambda c: dataclasses.replace(
                c, lengths=c.lengths * 0 + c.values.shape[4]
            ),
            "another row's context": lambda c: dataclasses.replace(c, values=c.values.flip(2)),
        }.items():
            with monkeypatch.context() as patch:
                patch.setattr(
                    Contexts,
                    "run_together",
                    lambda self, texts, wrong=wrong, right=Contexts.run_together: wrong(
                        right(self, texts)
                    ),
                )
                assert (results(model, rows)[0] - expected[0]).abs().max() > FAR, (
                    f"{name} does not show, so this test could not fail"
                )
        with monkeypatch.context() as patch:
            patch.setattr(
                Context,
                "seen",
                property(
                    lambda self: torch.ones(
                        len(self.lengths), self.values.shape[4], dtype=torch.long
                    )
                ),
            )
            assert (results(model, rows)[0] - expected[0]).abs().max() > FAR, (
                "padding that is seen does not show"
            )
    starts = [first_trained(row) for row in learn]
    contexts = {row.ids[:start] for row, start in zip(learn, starts) if start}
    tails = (len(learn), max(len(row.ids) - start for row, start in zip(learn, starts)))
    assert sorted(computed) == sorted([(1, 1), *((1, len(text)) for text in contexts), tails])
    assert seen[len(computed) :] == [tails] * 4, "a context was computed twice, or a whole row"
    for actual in (first, second):
        for ours, theirs in zip(actual, expected):
            scale = theirs.abs().max().clamp(min=1)
            torch.testing.assert_close(ours / scale, theirs / scale, atol=TOLERANCE, rtol=0)


def first_trained(row) -> int:
    return min(
        [
            *row.answer_positions,
            *(position for position, slot in enumerate(row.soft_slots) if slot >= 0),
        ]
    )


def test_what_has_no_room_is_run_whole():
    model = build("llama")
    rows = model.encode(0, ROWS)
    expected = results(model, rows)
    learn = [row.learn[0] for row in rows]
    lengths = [first_trained(row) for row in learn]
    assert lengths[2] > 1
    a_token = model.lm.context_values(learn[0].ids[:1]).nbytes
    model.lm.contexts = contexts = Contexts(
        model.lm.context_values, learn, a_token * (lengths[0] + lengths[1] + 1)
    )
    seen = calls(model)
    actual = [results(model, rows) for _ in range(2)]
    model.lm.contexts = None
    assert set(contexts.kept) == {row.ids[:start] for row, start in zip(learn[:2], lengths)}
    whole = (3 * len(rows[2].learn), max(len(fill.ids) for fill in rows[2].learn))
    assert (
        sorted(seen[:2]) == sorted((1, length) for length in lengths[:2])
        and seen[2:] == [whole] * 2
    )
    for scores in actual:
        torch.testing.assert_close(scores, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_training_with_contexts_is_training_without():
    def trained(megabytes: int):
        model = build("gpt2")
        seen = calls(model)
        config = TrainConfig(batch_size=2, epochs=3, patience=0, context_mb=megabytes)
        history = fit(model, {0: (ROWS, ROWS), 1: (ROWS, ROWS)}, config)
        return (
            model,
            [evaluation for training in history.values() for evaluation in training.history],
            sum(rows * width for rows, width in seen),
        )

    (kept, with_, fewer), (plain, without, more) = trained(64), trained(0)
    assert len(with_) == 6 and fewer < 0.75 * more and kept.lm.contexts is None
    for ours, theirs in zip(with_, without):
        assert vars(ours) == pytest.approx(vars(theirs), abs=1e-4)
    torch.testing.assert_close(
        list(kept.bank.parameters()), list(plain.bank.parameters()), atol=1e-4, rtol=1e-4
    )


def test_an_lm_that_is_tuned_or_recomputed_keeps_none(monkeypatch):
    def compute(self, texts):
        raise RuntimeError("a context is asked for")

    monkeypatch.setattr(LanguageModel, "context_values", compute)
    model = build("gpt2")
    model.lm.__dict__["takes_contexts"] = True
    fit(model, {0: (ROWS, ROWS)}, TrainConfig(epochs=1, batch_size=2), tune="both")
    fit(model, {0: (ROWS, ROWS)}, TrainConfig(epochs=1, batch_size=2, recompute=True))
    with pytest.raises(RuntimeError, match="a context is asked for"):
        fit(model, {0: (ROWS, ROWS)}, TrainConfig(epochs=1, batch_size=2))
    assert model.lm.contexts is None


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_other_lms_keep_none(family):
    lm = LanguageModel(*tiny.tiny(family))
    with lm.keeping_contexts([], 64):
        assert lm.contexts is None and not lm.takes_contexts


def test_rows_of_which_nothing_can_be_kept():
    model = PromptModel(LanguageModel(*tiny.tiny("gpt2")))
    for number, text in enumerate(
        ["{soft:2} {text} {mask}", "{text} {prefix:2} ? {mask}", "{text} {soft:2} {mask}"]
    ):
        model.add(
            Task(
                str(number), Template.parse(text), WORDS, encoder="table", prefix=PrefixSettings(0)
            )
        )
    front, deep, behind = (model.encode(number, ROWS)[0].fills[0] for number in range(3))
    contexts = Contexts(model.lm.context_values, [front, deep, behind], 2**20)
    assert (
        contexts.split([front]) is None
        and contexts.split([deep]) is None
        and contexts.split([behind, deep]) is None
    )
    context, tails = contexts.split([behind, front])
    (text,) = contexts.kept
    assert context.lengths.tolist() == [len(text), 0] and tails[1] == front
    assert (
        text + tails[0].ids == behind.ids
        and tails[0].soft_slots[:2] == (0, 1)
        and tails[0].answer_positions == (1,)
    )


def test_an_lm_that_is_otherwise_behind_a_context_keeps_none(monkeypatch):
    monkeypatch.setattr(
        Context,
        "seen",
        property(
            lambda self: torch.zeros(len(self.lengths), self.values.shape[4], dtype=torch.long)
        ),
    )
    assert not LanguageModel(*tiny.tiny("llama")).takes_contexts


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path, monkeypatch):
    """Keys and values of a text differ in their last bits by what it was computed beside, so that
    must not hang on where a run was killed."""
    rows = [
        {
            "text": " ".join(["Vienna lies on the Danube"] * (1 + number % 5)) + f" {number}",
            "label": "ab"[number % 2],
        }
        for number in range(24)
    ]
    config = TrainConfig(batch_size=4, epochs=2, patience=0, learning_rate=0.1, save_seconds=0)

    def run(**more):
        model = build("gpt2")
        history = fit(model, {0: (rows, rows[:5])}, config, **more)[0].history
        return [parameter.detach().clone() for parameter in model.bank.parameters()], history

    whole, history = run()
    for stop in (1, 3, 8):
        with killed_after(stop, monkeypatch):
            run(folder=tmp_path / str(stop))
        state, actual = run(folder=tmp_path / str(stop), resume=True)
        assert actual == history and all(torch.equal(a, b) for a, b in zip(state, whole))


def test_texts_that_come_again_are_kept_within_a_budget(monkeypatch):
    """As a server gets them: rows of any prompts, one batch after the other."""
    model = build("llama")
    shared = "Vienna lies on the Danube , in the east of Austria ; its people speak German and pay"
    rows = [(0, shared), (1, shared), (2, "Rome"), (0, "It was a great film"), (0, shared)]
    examples = [model.encode(task, [{"text": x}], labelled=False)[0] for task, x in rows]
    whole = torch.cat([scores.flatten() for scores in model.scores(examples)])
    computed, compute = [], model.lm.context_values
    monkeypatch.setattr(model.lm, "context_values", lambda x: computed.append(x) or compute(x))
    model.lm.keep_repeated_contexts(1)
    for _ in range(3):
        kept = torch.cat([scores.flatten() for scores in model.scores(examples)])
        assert torch.allclose(kept, whole, atol=TOLERANCE, rtol=TOLERANCE)
    contexts = model.lm.contexts
    assert len(computed) == len(set(computed)) == len(contexts.kept) == 2
    size = next(iter(contexts.kept.values())).nbytes
    contexts.budget = int(1.5 * size)
    for number in range(40):
        row = {"text": f"{shared} {number % 20}"}
        model.scores(model.encode(0, [row], labelled=False))
    assert contexts.used == sum(values.nbytes for values in contexts.kept.values()) < 2 * size
    contexts.budget, before = 0, len(computed)
    model.scores(examples)
    assert not contexts.kept or len(computed) > before
