"""Training on answers that are text: the loss by hand, rows that are too long, and runs that stop
and go on."""

import pytest
import reference
import tiny
import torch
from killing import killed_after

from ptune.errors import TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.settings import TrainConfig
from ptune.template.language import Template
from ptune.training.loop import fit

CITIES = {
    "Austria": "Vienna lies on the Danube",
    "France": "It is Paris",
    "Italy": "Rome",
    "Germany": "Berlin is great",
    "Spain": "Madrid is the capital",
}
ROWS = [{"x": country, "y": city} for country, city in CITIES.items()]
DATA = dict.fromkeys(range(3), (ROWS, ROWS[:2]))


def build(family: str, hidden: int = 4, dtype: torch.dtype = torch.float32, **more) -> PromptModel:
    """A deep prefix made by an MLP (or direct), a prefix with soft tokens, and an infix or soft
    tokens alone."""
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    templates = [
        "{prefix:3} {x} is",
        "{prefix:2} {x} {soft:2} is",
        "{x} {prefix:2} is" if model.lm.kind == "causal" else "{soft:3} {x} is",
    ]
    for number, text in enumerate(templates):
        text += " {mask}" if model.lm.kind == "causal" else ""
        model.add(
            Task(
                f"task {number}",
                Template.parse(text),
                None,
                "y",
                prefix=PrefixSettings(hidden),
                **more,
            )
        )
    return model


def parameters(model: PromptModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.bank.parameters()]


def histories(trained) -> list[list[dict]]:
    return [[vars(evaluation) for evaluation in one.history] for one in trained.values()]


# The loss.


@pytest.mark.parametrize("family", ["gpt2", "llama", "t5", "bart"])
def test_the_loss_is_that_of_the_answer_and_its_end_alone(family):
    """Against the sum by hand, and against transformers' own loss with the row's other tokens left
    out of its labels."""
    model = build(family)
    model.add(
        Task(
            "plain",
            Template.parse("{x} is" + (" {mask}" if model.lm.kind == "causal" else "")),
            None,
            "y",
        )
    )
    for task in range(4):
        example = model.encode(task, ROWS[:1])[0]
        row, answer = example.learn[0], torch.tensor(example.answer)
        assert answer[-1] == model.lm.end and len(answer) > 3
        values = reference.log_probs(model, task, row)
        wanted = -sum(values[k, token] for k, token in enumerate(answer))
        assert (wanted + values[:-1].gather(1, answer[:-1, None]).sum()).abs() > 1e-3, (
            "the end token does not show"
        )
        torch.testing.assert_close(model.losses([example])[0], wanted, atol=1e-5, rtol=1e-5)
    ids = torch.tensor([row.ids])
    if model.lm.kind == "causal":
        whole = torch.cat([ids[:, : len(row.ids) - len(answer) + 1], answer[None]], 1)
        labels = torch.where(
            torch.arange(whole.shape[1]) < whole.shape[1] - len(answer), -100, whole
        )
        assert (
            model.lm.model(whole, labels=whole).loss * (whole.shape[1] - 1) - wanted
        ).abs() > 1, "the row's own tokens do not show"
        plain_loss = model.lm.model(whole, labels=labels).loss
    else:
        plain_loss = model.lm.model(
            ids, decoder_input_ids=torch.tensor([row.decoder]), labels=answer[None]
        ).loss
    torch.testing.assert_close(plain_loss * len(answer), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_label_smoothing_by_hand(family):
    model = build(family, smoothing=0.1)
    examples = [example for task in range(3) for example in model.encode(task, ROWS)]
    for example, loss in zip(examples, model.losses(examples)):
        values, answer = (
            reference.log_probs(model, example.task, example.learn[0]),
            torch.tensor(example.answer),
        )
        count = values.shape[1]
        target = torch.full_like(values, 0.1 / count)
        target[range(len(answer)), answer] += 0.9
        torch.testing.assert_close(loss, -(target * values).sum(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            loss,
            torch.nn.functional.cross_entropy(values, answer, reduction="sum", label_smoothing=0.1),
            atol=1e-5,
            rtol=1e-5,
        )
        assert (
            loss - torch.nn.functional.cross_entropy(values, answer, reduction="sum")
        ).abs() > 1e-3


# Rows that are too long.


def long(words: int, answer: int) -> dict[str, str]:
    return {"x": "great " * words, "y": "bad " * answer}


@pytest.mark.parametrize("family", ["gpt2", "gptj"])
def test_the_input_is_shortened_before_the_answer(family, monkeypatch):
    from more_families import MORE

    monkeypatch.setattr(tiny, "FAMILIES", tiny.FAMILIES | {"gptj": MORE["gptj"]()})
    model = build(family)
    task = model.add(
        Task(
            "t",
            Template.parse("{prefix:3} {x|shorten} is {mask}"),
            None,
            "y",
            prefix=PrefixSettings(0),
        )
    )
    whole = model.encode(task, [long(1, 400)])[0]
    per = len(model.encode(task, [long(1, 21)])[0].answer) - len(
        model.encode(task, [long(1, 20)])[0].answer
    )  # tokens of a word
    for words, answer in ((200, 5), (1, 5), (200, 60 // per)):
        example = model.encode(task, [long(words, answer)])[0]
        row = example.learn[0]
        assert len(example.answer) == answer * per + 1 and example.answer[-1] == model.lm.end, (
            "the answer is whole"
        )
        assert (
            bool(row.cut) == (words == 200)
            and len(row.ids) + 3 <= model.max_length == 80
            and (not row.cut or len(row.ids) + 3 > 80 - 2 * per)
        )
        assert (
            row.ids[len(row.ids) - len(example.answer) + 1 :] == example.answer[:-1]
            and row.answer_positions[-1] == len(row.ids) - 1
        )
    row = whole.learn[0]
    assert row.cut and len(row.ids) + 3 == 80 and model.lm.end not in whole.answer, (
        "no room is left for the end"
    )
    assert whole.answer == tuple(
        model.lm.tokens.words(["bad " * 400], "spaced")[0][: len(whole.answer)]
    )
    assert not set(model.lm.tokens.follow(" great")) & set(
        row.ids[: len(row.ids) - len(whole.answer) + 1]
    ), "the input goes first"
    assert model.losses([whole, *model.encode(task, [long(200, 5)])]).isfinite().all()
    with pytest.raises(TemplateError, match="and 80 fit"):
        model.encode(0, [long(200, 5)])


def test_an_answer_has_a_decoder_of_its_own_and_a_length_of_its_own():
    model = build("bart", target_length=6)
    task = model.add(
        Task("t", Template.parse("{prefix:3} {x|shorten} is"), None, "y", prefix=PrefixSettings(0))
    )
    example = model.encode(task, [long(200, 200)])[0]
    assert example.learn[0].cut and len(example.answer) == 80 == len(example.learn[0].decoder)
    assert example.learn[0].ids == model.encode(task, [long(200, 1)])[0].learn[0].ids, (
        "the answer takes no room of the input"
    )
    assert [len(e.answer) for e in model.encode(0, [long(1, 200), {"x": "Italy", "y": "a"}])][
        0
    ] == 6
    assert model.encode(0, [{"x": "Italy", "y": "a"}])[0].answer[-1] == model.lm.end
    assert model.losses([example]).isfinite().all()


# Runs.


def test_recomputing_trains_the_same():
    """Of a bank with prefixes, infixes and soft tokens: all looks at dev, and what was learned."""
    runs = []
    for recompute in (False, True):
        model = build("llama", dtype=torch.float64)
        model.bank.double()
        config = TrainConfig(
            batch_size=2, epochs=3, patience=0, learning_rate=1e-2, recompute=recompute
        )
        calls, forward = [], model.lm.model.model.layers[0].mlp.forward
        model.lm.model.model.layers[0].mlp.forward = lambda x, calls=calls, forward=forward: (
            calls.append(torch.is_grad_enabled()) or forward(x)
        )
        before = parameters(model)
        trained = fit(model, DATA, config)
        runs.append((histories(trained), parameters(model), sum(calls)))
        assert all((a - b).abs().max() > 1e-3 for a, b in zip(before, parameters(model)))
    (history, learned, calls), (again, learned_again, more_calls) = runs
    assert more_calls == 2 * calls
    for looks, other in zip(history, again):
        for a, b in zip(looks, other):
            assert (
                a["step"] == b["step"]
                and a["loss"] == pytest.approx(b["loss"], abs=1e-10)
                and a["dev_loss"] == pytest.approx(b["dev_loss"], abs=1e-10)
            )
    for a, b in zip(learned, learned_again):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


CONFIG = {
    "batch_size": 2,
    "epochs": 4,
    "patience": 2,
    "evaluate_every": 2,
    "warmup": 0.2,
    "decay": "linear",
    "save_seconds": 0,
    "learning_rate": 0.03,
}


@pytest.mark.parametrize(
    "family, optimiser, hidden",  # each value of one with each of another
    [("gpt2", "adafactor", 4), ("gpt2", "adamw", 0), ("t5", "adafactor", 0), ("t5", "adamw", 4)],
)
def test_a_run_that_is_stopped_and_resumed_is_the_run_that_was_not(
    family, optimiser, hidden, tmp_path, monkeypatch
):
    """PEFT cannot go on training a prompt, and keeps no MLP of a prefix."""
    config = TrainConfig(**CONFIG, optimiser=optimiser)
    model = build(family, hidden)
    before = parameters(model)
    history = histories(fit(model, DATA, config))
    whole = parameters(model)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(before, whole))
    for stop in (1, 2, 5):
        with killed_after(stop, monkeypatch):
            fit(build(family, hidden), DATA, config, folder=tmp_path / str(stop))
        resumed = build(family, hidden)
        torch.manual_seed(99)
        assert (
            histories(fit(resumed, DATA, config, folder=tmp_path / str(stop), resume=True))
            == history
        )
        assert all(map(torch.equal, parameters(resumed), whole))


def test_a_log_shows_what_is_written_and_changes_nothing():
    class Written(list):
        def begin(self, training, step): ...

        def write(self, entry):
            self.extend(entry.texts)

        def flush(self): ...

    log, values = Written(), []
    for logs in ((), (log,)):
        model = build("gpt2")
        fit(model, DATA, TrainConfig(steps=2, evaluate_every=1), logs=logs)
        values.append([p.detach().clone() for p in model.bank.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*values))
    assert len(log) == 2 * 3 * 2 and all(log)
