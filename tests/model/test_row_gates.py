"""Gates of a deep prefix that read the row, beside a plain computation row by row."""

import json
from dataclasses import replace

import pytest
import reference
import tiny
import torch
from killing import killed_after
from safetensors.torch import load_file, save_file
from torch import nn

from ptune.answers.extraction import Extraction
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.cli import main
from ptune.documents.ask import compose
from ptune.errors import ConfigError, StoreError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.prompts import encoders
from ptune.settings import DecodingConfig, PrefixConfig, TrainConfig
from ptune.storage import peft_format, prompt_folder
from ptune.template.language import Template
from ptune.training.loop import fit

WORDS = Verbalizer.from_words({"a": "Yes", "b": "No"})
TEXTS = [
    "Vienna lies on the Danube , in the east of Austria",
    "a terrible film",
    "Rome",
    "people speak German and pay with the euro in Berlin",
    "It was the best and the worst",
    "Madrid or London",
]
ROWS = [{"x": text, "label": "ab"[n % 2], "y": "of it"} for n, text in enumerate(TEXTS)]
CASES = [
    ("bert", "{prefix:3} {x} ; it is {mask}"),
    ("roberta", "{prefix:2} {x} is {mask}"),
    ("albert", "{prefix:2} {x} {soft:2} is {mask}"),
    ("deberta", "{prefix:3} {x} is {mask}"),
    ("gpt2", "{prefix:3} {x|shorten} , so {mask}"),
    ("llama", "it is {x} {prefix:2} or {mask}"),
    ("gemma", "{prefix:2} {x} is {mask}"),
    ("t5", "{prefix:3} {x} is {mask}"),
    ("bart", "{prefix:3} {x} is {mask}"),
]


def lm_of(family, dtype=torch.float64):
    return LanguageModel(*tiny.tiny(family, dtype))


def widen(model, seed=0):
    """Prefixes and gates far from where they begin, so that a fault shows."""
    for number, parameter in enumerate(model.bank.parameters()):
        generator = torch.Generator().manual_seed(seed + number)
        nn.init.normal_(parameter, 0, 0.9, generator=generator)
    for prefix in model.bank.prefixes:
        if isinstance(made_by := getattr(prefix, "encoder", None), encoders.RowGated):
            with torch.no_grad():
                made_by.slopes *= 6


def bank(lm, template, attentions=(), gates="row", hidden=0, verbalizer=WORDS, **settings):
    model = PromptModel(lm)
    model.add(
        Task(
            "t",
            Template.parse(template),
            verbalizer,
            encoder="table",
            prefix=PrefixSettings(hidden, attentions=attentions, gates=gates),
            **settings,
        )
    )
    model.bank.to(lm.dtype)
    return model


def columns_of(lm, attentions=()):
    """For each attention that a prefix enters its columns among the W of the LM."""
    taken = []
    for name, (first, last) in lm.route.spans.items():
        if not attentions or name in attentions:
            taken += [(a, b) for a, b in lm.route.parts if first <= a and b <= last]
    return taken


def gates_by_hand(model, row, names=("x",)):
    """The gates of one row, token by token."""
    lm, made_by = model.lm, model.bank.prefixes[0].encoder
    ids = [id_ for name in names for id_ in lm.tokens.follow(" " + row[name])]
    total = torch.zeros(lm.width, dtype=torch.float64)
    for id_ in ids:
        total = total + lm.embed(torch.tensor([id_]))[0].double()
    mean = total / len(ids) / float(made_by.size)
    return [
        2 / (1 + torch.exp(-((slope * mean).sum() + opening)))
        for slope, opening in zip(made_by.slopes, made_by.openings)
    ]


class _OfRow(nn.Module):
    """A prefix of one row alone, all its values multiplied one attention after the other."""

    def __init__(self, values, columns, gates):
        super().__init__()
        self.values, self.columns, self.factors = values, columns, gates

    def forward(self):
        factors = torch.ones(self.values.shape[1], dtype=self.values.dtype)
        for (start, end), gate in zip(self.columns, self.factors):
            inside = torch.zeros_like(factors)
            inside[start:end] = 1
            factors = factors * (1 - inside) + inside * gate
        return self.values * factors


def by_hand(model, row, attentions=(), read=reference.label_scores):
    """What is read of a row by a prefix that is its own."""
    example = model.encode(0, [row])[0]
    kept = model.bank.prefixes[0]
    columns = columns_of(model.lm, attentions)
    model.bank.prefixes[0] = _OfRow(kept(), columns, gates_by_hand(model, row))
    try:
        return read(model, example)
    finally:
        model.bank.prefixes[0] = kept


@pytest.mark.parametrize(("family", "template"), CASES)
def test_scores_and_gradients_are_those_of_each_rows_own_prefix(family, template):
    model = bank(lm_of(family), template)
    widen(model)
    made_by = model.bank.prefixes[0].encoder
    gates = torch.tensor([[g.item() for g in gates_by_hand(model, row)] for row in ROWS])
    assert len(columns_of(model.lm)) == gates.shape[1] > 1
    assert gates.std(0).min() > 0.05, "the gates differ from row to row"
    expected = [by_hand(model, row) for row in ROWS]
    losses = [-one.log_softmax(0)["ab".index(row["label"])] for one, row in zip(expected, ROWS)]
    weights = [made_by.slopes, made_by.openings, made_by.values.embedding.weight]
    right = torch.autograd.grad(torch.stack(losses).sum(), weights)
    examples = model.encode(0, ROWS)
    scores = torch.stack(model.scores(examples))
    assert (scores.double() - torch.stack(expected)).abs().max() < 1e-5
    with torch.no_grad():
        made_by.slopes *= -1
    assert (torch.stack(model.scores(examples)) - scores).abs().max() > 1e-3
    with torch.no_grad():
        made_by.slopes *= -1
    for train in (
        lambda: model.losses(examples).sum().backward(),
        lambda: model.backward(examples, [1.0] * len(examples), sizes=[4, 2]),
    ):
        train()
        for parameter, gradient in zip(weights, right):
            assert gradient.abs().max() > 1e-4
            assert (parameter.grad - gradient).abs().max() < 1e-5
            parameter.grad = None


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "deberta"])
def test_an_untrained_gate_changes_nothing(family):
    lm = lm_of(family, torch.float32)
    gated, plain = (bank(lm, "{prefix:3} {x} is {mask}", gates=gates) for gates in ("row", False))
    for ours, theirs in zip(gated.encode(0, ROWS), plain.encode(0, ROWS)):
        assert torch.equal(gated.scores([ours])[0], plain.scores([theirs])[0])
        assert not theirs.fills[0].field_tokens


def own_prefixes(model, attentions=()):
    """A bank without gates for each row, whose prefix is that row's own."""
    kept = model.bank.prefixes[0]
    settings = model.tasks[0].task.prefix
    banks = []
    for row in ROWS:
        gates = gates_by_hand(model, row)
        values = _OfRow(kept(), columns_of(model.lm, attentions), gates)()[:, kept.reach].detach()
        alone = PromptModel(model.lm)
        alone.add(
            replace(model.tasks[0].task, prefix=replace(settings, gates=False)),
            encoder=model.bank.encoders[0],
            prefix=encoders.Baked(values),
        )
        banks.append(alone)
    return banks


@pytest.mark.parametrize(
    ("family", "attentions", "template", "verbalizer"),
    [
        ("bart", ("decoder", "cross"), "{prefix:3} {x} is {mask}", WORDS),
        ("t5", ("encoder",), "{prefix:2} of {x} {decoder} to {y} {mask}", None),
        ("t5", ("cross",), "{prefix:2} {x} :", None),
        ("gpt2", (), "{prefix:2} {x} : {mask}", None),
        ("llama", (), "of {x} {prefix:2} {soft:1} {mask}", None),
    ],
)
def test_scores_losses_and_texts_are_those_of_a_bank_for_each_row(
    family, attentions, template, verbalizer
):
    """Also where a prefix enters some attentions alone, and what a decoder reads is not read."""
    model = bank(lm_of(family), template, attentions, verbalizer=verbalizer, target="label")
    widen(model)
    alone, examples = own_prefixes(model, attentions), model.encode(0, ROWS)
    assert len(columns_of(model.lm, attentions)) == len(model.bank.prefixes[0].encoder.openings)
    losses = model.losses(examples)
    by_row = torch.stack([one.losses(one.encode(0, [row]))[0] for one, row in zip(alone, ROWS)])
    assert (losses - by_row).abs().max() < 1e-5
    other = [one.losses(one.encode(0, [row]))[0] for one, row in zip(alone[1:], ROWS)]
    assert (torch.stack(other) - by_row[:-1]).abs().max() > 1e-3, "another row's gates do not show"
    if verbalizer is not None:
        return
    for beams in (1, 2):
        config = DecodingConfig(max_new_tokens=8, beams=beams)
        texts = model.generate(ROWS, config=config)
        assert texts == [one.generate([row], config=config)[0] for one, row in zip(alone, ROWS)]
        assert len(set(texts)) > 2


def test_gated_and_other_prompts_train_together_as_apart():
    lm = lm_of("bert")
    kinds = {"a": "row", "b": False, "c": True, "d": "row"}
    settings = TrainConfig(steps=5, batch_size=2, learning_rate=0.05, patience=0)

    def trained(names):
        model = PromptModel(lm)
        for name in names:
            prefix = PrefixSettings(4 if name == "d" else 0, gates=kinds[name])
            text = "{prefix:3} {x} is {mask}" if name != "d" else "{prefix:2} {soft:1} {x} {mask}"
            model.add(Task(name, Template.parse(text), WORDS, encoder="table", prefix=prefix))
        model.bank.to(torch.float64)
        fit(model, dict.fromkeys(range(len(names)), (ROWS, ROWS)), settings)
        return model

    together = trained("abcd")
    for number, name in enumerate("abcd"):
        alone = trained(name)
        pairs = zip(together.bank.parameters_of(number), alone.bank.parameters_of(0), strict=True)
        assert max((one - other).abs().max() for one, other in pairs) < 1e-9
        ours, theirs = (
            one.scores(one.encode(n, ROWS)) for one, n in ((together, number), (alone, 0))
        )
        assert (torch.stack(ours) - torch.stack(theirs)).abs().max() < 1e-5
    made_by = together.bank.prefixes[0].encoder
    assert made_by.slopes.abs().max() > 1e-2 and made_by.openings.abs().max() > 1e-2
    values = sum(parameter.numel() for parameter in together.bank.parameters_of(0))
    assert together.bank.size(0) == values


def saved(tmp_path, family="gpt2", hidden=4):
    model = bank(lm_of(family, torch.float32), "{prefix:3} {x} {soft:1} is {mask}", hidden=hidden)
    widen(model)
    prompt_folder.save(model, tmp_path, encoder=True)
    return model, torch.stack(model.scores(model.encode(0, ROWS)))


@pytest.mark.parametrize("family", ["gpt2", "deberta", "bart"])
def test_what_is_saved_answers_as_what_was_trained(tmp_path, family):
    model, expected = saved(tmp_path, family)
    assert json.loads((tmp_path / "prompt.json").read_text())["prefix"]["gates"] == "row"

    def loaded(trainable=False):
        one = prompt_folder.load(tmp_path, model.lm, trainable=trainable)
        scores = torch.stack(one.scores(one.encode(0, ROWS)))
        assert (scores - expected).abs().max() < 1e-5 and one.tasks[0].task.prefix.reads_rows
        assert one.is_baked(0) != trainable
        assert bool(one.bank.parameters_of(0)) == trainable
        return one

    baked = loaded()
    again = tmp_path / "again"
    prompt_folder.save(baked, again, encoder=True)
    assert not (again / "encoder.safetensors").exists()
    known = load_file(tmp_path / "prompt.safetensors")
    assert all(torch.equal(v, known[k]) for k, v in load_file(again / "prompt.safetensors").items())
    assert isinstance(loaded(True).bank.prefixes[0].encoder.values, encoders.Reparameterised)
    (tmp_path / "encoder.safetensors").unlink()
    table = loaded(True)
    assert isinstance(table.bank.prefixes[0].encoder.values, encoders.Table)
    size = model.bank.prefixes[0].encoder.size
    assert table.bank.prefixes[0].encoder.size == size != 1
    with torch.no_grad():
        baked.bank.prefixes[0].encoder.slopes.zero_()
    wrong = torch.stack(baked.scores(baked.encode(0, ROWS)))
    assert (wrong - expected).abs().max() > 1e-3


def test_a_prompt_without_its_gates_is_damaged(tmp_path):
    model, _ = saved(tmp_path)
    tensors = load_file(tmp_path / "prompt.safetensors")
    for values in (None, torch.zeros(1, 3), torch.full_like(tensors["gates.slopes"], torch.nan)):
        changed = {name: value for name, value in tensors.items() if name != "gates.slopes"}
        save_file(
            changed | ({} if values is None else {"gates.slopes": values}),
            tmp_path / "prompt.safetensors",
        )
        with pytest.raises(StoreError, match="should hold gates.slopes|not numbers"):
            prompt_folder.load(tmp_path, model.lm)


def test_a_killed_training_goes_on_to_the_same_gates(tmp_path, monkeypatch):
    settings = TrainConfig(steps=6, batch_size=3, patience=0, save_seconds=0, learning_rate=0.05)
    whole, model, killed = (bank(lm_of("gpt2"), "{prefix:3} {x} is {mask}") for _ in range(3))
    fit(whole, {0: (ROWS, ROWS)}, settings)
    with killed_after(3, monkeypatch):
        fit(killed, {0: (ROWS, ROWS)}, settings, folder=tmp_path)
    fit(model, {0: (ROWS, ROWS)}, settings, folder=tmp_path, resume=True)
    for ours, theirs in zip(model.bank.parameters_of(0), whole.bank.parameters_of(0), strict=True):
        assert torch.equal(ours, theirs)
    assert whole.bank.prefixes[0].encoder.slopes.abs().max() > 1e-2


def test_words_with_labels_and_parts_of_a_text_have_their_own_prefix():
    """A row that is read in several inputs has the gates of each input's text."""
    lm = lm_of("bert", torch.float32)
    labels = WordLabels("words", ("O", "B-a", "I-a"), "all")
    reader = READERS["token-head"]
    words = TEXTS[0].split()
    for template, verbalizer, row in (
        ("{prefix:3} {words} .", labels, {"words": words}),
        ("{prefix:3} {y} ? {x}", Extraction("x"), {"x": TEXTS[0], "y": "the Danube"}),
    ):
        model = bank(lm, template, verbalizer=verbalizer, reader=reader, max_length=14)
        widen(model)
        (example,) = model.encode(0, [row], labelled=False)
        assert len(example.fills) > 1
        for fill in example.fills:
            text = [fill.ids[place] for place in range(len(fill.ids)) if fill.ids[place] > 4]
            if verbalizer is labels:  # all but the full stop
                assert list(fill.field_tokens) == text[:-1]
            else:
                question = lm.tokens.follow(" the Danube")
                assert list(fill.field_tokens[:2]) == question == text[:2]
                assert list(fill.field_tokens[2:]) == text[3:]
        (scores,) = model.scores([example])
        with torch.no_grad():
            model.bank.prefixes[0].encoder.slopes *= -1
        assert (model.scores([example])[0] - scores).abs().max() > 1e-3


def test_what_is_read_are_the_fields_as_the_template_takes_them():
    lm = lm_of("bert", torch.float32)
    model = bank(lm, "{prefix:3} the {x|shorten|strip:n} is {mask}", max_length=16)
    fills = [model.encode(0, [row])[0].fills[0] for row in ROWS]
    assert {bool(fill.cut) for fill in fills} == {True, False}
    for fill in fills:
        assert fill.field_tokens == fill.ids[2:-3] != ()
    assert list(fills[5].field_tokens) == lm.tokens.follow(" Madrid or Londo")
    windows = bank(lm, "{prefix:3} {x|shorten} is {mask}", max_length=12, windows="mean")
    (example,) = windows.encode(0, [ROWS[3]])
    fields = [fill.field_tokens for fill in example.fills]
    assert len(set(fields)) > 1
    assert [id_ for ids in fields for id_ in ids] == lm.tokens.follow(f" {TEXTS[3]}")
    (empty,) = bank(lm, "{prefix:3} it is {mask}").encode(0, [ROWS[0]])
    assert not empty.fills[0].field_tokens


def test_a_row_whose_text_is_cut_to_nothing_has_gates_of_their_openings():
    model = bank(lm_of("gpt2"), "{prefix:3} it is {mask}")
    widen(model)
    with torch.no_grad():
        scores = model.scores(model.encode(0, ROWS[:1]))[0]
        model.bank.prefixes[0].encoder.slopes.normal_()
        assert torch.equal(model.scores(model.encode(0, ROWS[:1]))[0], scores)
        model.bank.prefixes[0].encoder.openings += 1
    assert (model.scores(model.encode(0, ROWS[:1]))[0] - scores).abs().max() > 1e-3


def test_gates_read_no_word_that_is_hidden():
    """Words that an auxiliary row hides are to be told from the others."""
    model = bank(lm_of("bert", torch.float32), "{prefix:3} {x} is {mask}")
    generator = torch.Generator().manual_seed(3)
    for example in model.hidden_words(0, ROWS * 4, generator):
        assert not set(example.answer) & set(example.learn[0].field_tokens)
        whole = model.encode(0, [example.row], labelled=False)[0].fills[0].field_tokens
        left = [id_ for id_ in whole if id_ not in example.answer]
        assert list(example.learn[0].field_tokens) == left


def test_a_gated_prefix_begins_as_another():
    lm = lm_of("bert")
    text = "{prefix:3} {x} is {mask}"
    ours, plain, gated, mlp = (
        bank(lm, text, gates=gates, hidden=hidden)
        for gates, hidden in (("row", 0), (False, 0), ("row", 0), ("row", 4))
    )
    for model in (ours, plain, gated, mlp):
        widen(model, seed=len(model.bank.parameters_of(0)))
    made_by = ours.bank.prefixes[0].encoder
    encoders.begin_as(made_by, plain.bank.prefixes[0].encoder)
    expected, actual = (torch.stack(m.scores(m.encode(0, ROWS))) for m in (plain, ours))
    assert (expected - actual).abs().max() < 1e-9
    for other in (gated, mlp):
        with torch.no_grad():
            other.bank.prefixes[0].encoder.size.fill_(3.0)
        encoders.begin_as(made_by, other.bank.prefixes[0].encoder)
        expected, actual = (torch.stack(m.scores(m.encode(0, ROWS))) for m in (other, ours))
        assert (expected - actual).abs().max() < 1e-5
    with pytest.raises(ConfigError, match="gates that read each row .*take a prompt"):
        encoders.begin_as(plain.bank.prefixes[0].encoder, made_by)


def test_what_has_one_prefix_for_all_rows_is_refused():
    model = bank(lm_of("gpt2", torch.float32), "{prefix:3} {x} {mask}", verbalizer=None)
    with pytest.raises(ConfigError, match="gates read each row .*PEFT has one prefix for all"):
        peft_format.check(model)
    with pytest.raises(ConfigError, match="there are no vectors that are its prefix in all rows"):
        compose(model, [0, 0])
    with pytest.raises(ConfigError, match=r"has none: put {prefix:5}"):
        bank(model.lm, "{soft:2} {x} {mask}")
    assert [PrefixConfig(gates=one).gates for one in ("no", "true", "row")] == [False, True, "row"]
    with pytest.raises(ConfigError, match="gates: Input should be False, True or 'row'"):
        PrefixConfig(gates="rows")


YAML = """\
name: t
template: "{prefix:2} {x} is {mask}"
labels: {a: "Yes", b: "No"}
data: {train: rows.jsonl, dev: rows.jsonl}
lm: ./lm
method: p-tuning-v2
prefix: {gates: GATES}
train: {steps: 3}
device: cpu
"""


def test_the_commands_train_answer_and_go_on_with_row_gates(tmp_path, capsys):
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def train(out, gates, *more, to="--out"):
        (tmp_path / "task.yaml").write_text(YAML.replace("GATES", gates))
        return main.main(["train", str(tmp_path / "task.yaml"), to, str(tmp_path / out), *more])

    train("out", "row")
    train("plain", "false")
    train("number", "true")
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["settings"]["prefix"]["gates"] == "row"
    capsys.readouterr()
    main.main(
        ["evaluate", str(tmp_path / "out"), "--data", str(tmp_path / "rows.jsonl"), "--device=cpu"]
    )
    accuracy = json.loads((tmp_path / "out" / "prompt.json").read_text())["metrics"]["dev accuracy"]
    assert f"accuracy {accuracy:.4f} on 6 rows" in capsys.readouterr().out
    kept = prompt_folder.load(tmp_path / "out", device="cpu").bank.prefixes[0].encoder
    assert kept.slopes.abs().max() > 0
    row = str(tmp_path / "out")
    train("on", "row", "--from", row, "--train.learning-rate", "1e-30")
    on = prompt_folder.load(tmp_path / "on", device="cpu").bank.prefixes[0].encoder
    assert torch.allclose(on.slopes, kept.slopes, atol=1e-6) and torch.equal(on(), kept())
    train("begun", "row", "--transfer", str(tmp_path / "plain"))
    for out, gates, more in (
        ("one", "row", ("--from", str(tmp_path / "plain"))),
        ("two", "true", ("--from", row)),
        ("three", "false", ("--transfer", row)),
    ):
        with pytest.raises(SystemExit):
            train(out, gates, *more)
    messages = capsys.readouterr().err
    assert "was trained with prefix.gates: false, and t asks for prefix.gates: row" in messages
    assert "was trained with prefix.gates: row, and t asks for prefix.gates: true" in messages
    assert "has gates that read each row, and t has none: set prefix.gates to row" in messages
