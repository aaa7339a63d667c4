"""Gates of a deep prefix, beside a plain computation attention by attention."""

import json

import pytest
import tiny
import torch
from killing import killed_after

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.prompts import encoders
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
TOWNS = "Vienna Paris Rome Berlin Madrid London".split()
ROWS = [{"x": f"{town} film", "label": "ab"[n % 2]} for n, town in enumerate(TOWNS)]
CASES = [
    ("bert", ()),
    ("gpt2", ()),
    ("llama", ()),
    ("t5", ()),
    ("bart", ("decoder", "cross")),
    ("deberta", ()),
]


def bank(family, attentions=(), gates=True, hidden=0, dtype=torch.float64):
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    settings = PrefixSettings(hidden, attentions=attentions, gates=gates)
    model.add(Task("t", Template.parse("{prefix:3} {x} is {mask}"), WORDS, prefix=settings))
    model.bank.to(dtype)
    return model


def columns_of(lm, attentions):
    """For each attention that a prefix enters its columns among the prefix's own, in their
    order."""
    taken, start = [], 0
    for name, (first, last) in lm.route.spans.items():
        if attentions and name not in attentions:
            continue
        for begin, end in lm.route.parts:
            if first <= begin and end <= last:
                taken.append((start, start + end - begin))
                start += end - begin
    return taken


def test_gates_without_a_prefix_are_refused():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    settings = PrefixSettings(0, gates=True)
    with pytest.raises(ConfigError, match=r"'{soft:2} {x} {mask}' has none: put {prefix:5}"):
        model.add(Task("t", Template.parse("{soft:2} {x} {mask}"), WORDS, prefix=settings))


def test_gates_of_another_kind_are_refused():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    template = Template.parse("{prefix:2} {x} {mask}")
    for gates in ("rows", "true", None, 2):
        task = Task("t", template, WORDS, prefix=PrefixSettings(0, gates=gates))
        with pytest.raises(ConfigError, match="gates .* be False, True or 'row', and .* is"):
            model.add(task)


@pytest.mark.parametrize(("family", "attentions"), CASES)
def test_the_gradient_of_a_gate_is_that_of_its_keys_and_values(family, attentions):
    """Gate 1 leaves the prefix as it is; another one multiplies the keys and values of its own
    attention alone."""
    gated = bank(family, attentions)
    plain = bank(family, attentions, gates=False)
    made_by, table = gated.bank.prefixes[0].encoder, plain.bank.prefixes[0].encoder
    assert torch.equal(made_by(), table())
    columns = columns_of(gated.lm, attentions)
    assert len(columns) == len(made_by.gates) > 1
    openings = torch.linspace(-2, 2, len(columns), dtype=torch.float64)
    with torch.no_grad():
        made_by.openings.copy_(openings)
        scaled = table().clone()
        for (start, end), opening in zip(columns, openings):
            scaled[:, start:end] *= 2 / (1 + torch.exp(-opening))
        table.embedding.weight.copy_(scaled)
    assert (made_by() - table()).abs().max() < 1e-12
    losses = []
    for model in (gated, plain):
        loss = model.losses(model.encode(0, ROWS)).sum()
        loss.backward()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)
    gradient, values = table.embedding.weight.grad, made_by.values().detach()
    for number, (start, end) in enumerate(columns):
        share = torch.sigmoid(openings[number])
        slope = 2 * share * (1 - share)
        of_gate = (gradient[:, start:end] * values[:, start:end]).sum() * slope
        assert made_by.openings.grad[number] == pytest.approx(float(of_gate), abs=1e-7)
    assert made_by.openings.grad.abs().max() > 1e-4


def test_a_gated_prefix_is_saved_as_any_other_and_goes_on_with_its_gates(tmp_path):
    model = bank("bert", dtype=torch.float32, hidden=8)
    settings = TrainConfig(steps=4, batch_size=3, learning_rate=0.05, patience=0)
    fit(model, {0: (ROWS, ROWS)}, settings)
    gates = model.bank.prefixes[0].encoder.gates.detach()
    assert (gates - 1).abs().max() > 1e-2
    prompt_folder.save(model, tmp_path, encoder=True)
    note = json.loads((tmp_path / "prompt.json").read_text())
    assert note["prefix"]["gates"] == pytest.approx(gates.tolist())
    expected = torch.stack(model.scores(model.encode(0, ROWS)))
    for trainable in (False, True):
        loaded = prompt_folder.load(tmp_path, model.lm, trainable=trainable)
        scores = torch.stack(loaded.scores(loaded.encode(0, ROWS)))
        assert (scores - expected).abs().max() < 1e-5
        kind = encoders.Gated if trainable else encoders.Baked
        assert isinstance(loaded.bank.prefixes[0].encoder, kind)
    (tmp_path / "encoder.safetensors").unlink()
    loaded = prompt_folder.load(tmp_path, model.lm, trainable=True)
    assert isinstance(loaded.bank.prefixes[0].encoder, encoders.Table)
    assert not loaded.tasks[0].task.prefix.gates


def test_a_killed_training_goes_on_to_the_same_gates(tmp_path, monkeypatch):
    settings = TrainConfig(steps=6, batch_size=3, patience=0, save_seconds=0, learning_rate=0.05)
    whole, model = bank("gpt2"), bank("gpt2")
    fit(whole, {0: (ROWS, ROWS)}, settings)
    with killed_after(3, monkeypatch):
        fit(bank("gpt2"), {0: (ROWS, ROWS)}, settings, folder=tmp_path)
    fit(model, {0: (ROWS, ROWS)}, settings, folder=tmp_path, resume=True)
    ours, theirs = (one.bank.prefixes[0].encoder for one in (model, whole))
    assert torch.equal(ours.openings, theirs.openings) and torch.equal(ours(), theirs())


def test_a_gated_prefix_begins_as_another_prefix():
    ours, theirs = bank("bert"), bank("bert", gates=False)
    made_by, other = ours.bank.prefixes[0].encoder, theirs.bank.prefixes[0].encoder
    with torch.no_grad():
        other.embedding.weight.normal_()
        made_by.openings.normal_()
    encoders.begin_as(made_by, other)
    assert torch.equal(made_by(), other()) and made_by.gates.tolist() == [1.0] * len(made_by.gates)


def test_the_command_trains_gates(tmp_path):
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "task.yaml").write_text(
        'name: t\ntemplate: "{prefix:2} {x} is {mask}"\nlabels: {a: "Yes", b: "No"}\n'
        "data: {train: rows.jsonl, dev: rows.jsonl}\nlm: ./lm\nmethod: p-tuning-v2\n"
        "prefix: {gates: true}\ntrain: {steps: 3}\ndevice: cpu\n"
    )
    main.main(["train", str(tmp_path / "task.yaml"), "--out", str(tmp_path / "out")])
    note = json.loads((tmp_path / "out" / "prompt.json").read_text())
    assert len(set(note["prefix"]["gates"])) > 1
    again = ["--from", str(tmp_path / "out"), "--out", str(tmp_path / "on")]
    main.main(["train", str(tmp_path / "task.yaml"), *again, "--train.learning-rate", "1e-30"])
    on = json.loads((tmp_path / "on" / "prompt.json").read_text())
    assert on["prefix"]["gates"] == pytest.approx(note["prefix"]["gates"])
