"""Prompts that share a table, beside a plain computation row by row."""

import json
from dataclasses import replace

import pytest
import tiny
import torch
from by_hand import Plain, of_labels
from killing import killed_after

from ptune.answers.label_words import Verbalizer
from ptune.cli import main
from ptune.errors import ConfigError
from ptune.experiments.beginning import transfer
from ptune.experiments.beginning.first_steps import train_copies
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.prompts import encoders
from ptune.settings import TrainConfig
from ptune.storage import prompt_folder
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig
from ptune.template.language import Template
from ptune.training import rehearsal
from ptune.training.loop import Training, fit
from ptune.training.steps.optimisers import rate_share
from ptune.training.steps.shared_training import SharedTraining

WORDS = {"a": ["Yes"], "b": ["No"]}
TEMPLATE = "{soft:2} {x} {soft:1} is {mask}"
TOWNS = "Vienna Paris Rome Berlin Madrid London euro film city".split()
SETTINGS = dict(batch_size=8, epochs=6, learning_rate=0.02, patience=0)


def rows(user, count):
    start = 0 if user == "anna" else 4
    return [
        {"x": f"{TOWNS[(start + i) % 9]} film", "label": "ab"[i % 3 % 2], "user": user}
        for i in range(count)
    ]


DATA = {"anna": (rows("anna", 5), rows("anna", 4)), "ben": (rows("ben", 8), rows("ben", 3))}


def bank(names=("anna", "ben"), dtype=torch.float64, encoder="multitask", family="bert"):
    model = PromptModel(LanguageModel(*tiny.tiny(family, dtype)))
    for name in names:
        task = Task(
            name,
            Template.parse(TEMPLATE),
            Verbalizer.from_words(WORDS),
            encoder=encoder,
            by=("user", name),
        )
        model.add(task)
    model.bank.to(dtype)
    return model


def by_hand(table, settings, family="bert"):
    """Both prompts P* o (u v^T), trained row by row by three optimisers: one for P*, which gets the
    sum of the gradients, and one for the u and v of each."""
    plain = Plain(family, dtype=torch.float64)
    table = table.clone().requires_grad_()
    factors = {
        name: [torch.ones(size, dtype=torch.float64, requires_grad=True) for size in table.shape]
        for name in DATA
    }

    def vectors(name):
        u, v = factors[name]
        return table * (u[:, None] * v[None])

    of_table = torch.optim.AdamW([table], lr=settings.learning_rate, weight_decay=0.0)
    of_each = {
        name: torch.optim.AdamW(pair, lr=settings.learning_rate, weight_decay=0.0)
        for name, pair in factors.items()
    }
    for _ in range(settings.epochs):
        for name, (train_rows, _) in DATA.items():
            for row in train_rows:
                pieces = [0, 1, f" {row['x']}", 2, " is"]
                scores = of_labels(plain.words(pieces, list(WORDS.values()), None, vectors(name)))
                loss = -scores.log_softmax(-1)["ab".index(row["label"])] / len(train_rows)
                loss.backward()
        for parameters in ([table], *factors.values()):
            torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        for optimiser in (of_table, *of_each.values()):
            optimiser.step()
            optimiser.zero_grad()
    return {name: vectors(name).detach() for name in DATA}


def last_state(*_):
    """A dev score by which the last state is kept."""
    last_state.count += 1
    return float(last_state.count)


def trained(settings, encoder="multitask", family="bert", **more):
    last_state.count = 0
    model = bank(encoder=encoder, family=family)
    fit(model, DATA, settings, metric=last_state, **more)
    return {bound.task.name: model.bank.encoders[bound.prompt]() for bound in model.tasks}


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_prompts_that_share_a_table_are_those_of_a_plain_computation(family):
    settings = TrainConfig(**SETTINGS, clip=0.05)
    table = bank(family=family).bank.encoders[0].shared().detach()
    ours, theirs = trained(settings, family=family), by_hand(table, settings, family)
    apart = trained(settings, encoder="table", family=family)
    for name, vectors in theirs.items():
        assert (ours[name] - vectors).abs().max() < 1e-6  # an LM's scores are float32
        assert (apart[name] - vectors).abs().max() > 1e-3
        assert (table - vectors).abs().max() > 1e-3


def test_all_begin_as_the_table_which_is_one():
    model = bank()
    first, second = model.bank.encoders
    assert first.shared is second.shared and torch.equal(first(), second())
    assert torch.equal(first(), first.shared())
    assert first.rows is not second.rows and first.columns is not second.columns
    one_alone = bank(["anna"], encoder="table").bank.encoders[0]()
    assert torch.allclose(first(), one_alone), "it begins as the first one's own table would"


def test_afterwards_each_has_its_best_state_as_a_table_of_its_own():
    """Of the step at which it was the best; and it is saved as any prompt."""
    looks, kept = [], []
    model = bank()
    table = [model.bank.encoders[0], model.bank.encoders[1]]

    def metric(scores, examples):
        looks.append(len(examples))
        kept.append([encoder().detach().clone() for encoder in table])
        return {4: [3, 1, 2], 3: [1, 2, 3]}[len(examples)][looks.count(len(examples)) - 1]

    settings = TrainConfig(batch_size=8, epochs=3, patience=0, learning_rate=0.02)
    fit(model, DATA, settings, metric=metric)
    anna, ben = model.bank.encoders
    assert isinstance(anna, encoders.Table) and isinstance(ben, encoders.Table)
    assert torch.equal(anna(), kept[0][0]) and torch.equal(ben(), kept[-1][1])
    assert not torch.equal(kept[0][0], kept[-1][0])
    assert {bound.task.encoder for bound in model.tasks} == {"table"}


def test_one_that_has_stopped_moves_the_table_no_more(monkeypatch):
    """The other one goes on as it would with a plain loop; the step of the schedule is that of the
    training that is the longest."""
    settings = TrainConfig(batch_size=8, epochs=6, patience=1, decay="linear", learning_rate=0.02)
    scores = {4: iter([1.0, 0.5]), 3: iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])}
    model = bank()
    histories = fit(model, DATA, settings, metric=lambda _, examples: next(scores[len(examples)]))
    assert (histories["anna"].step, histories["ben"].step) == (2, 6)
    plain = bank()
    first, second = plain.bank.encoders
    shared = first.shared.embedding.weight
    of_table = torch.optim.AdamW([shared], lr=0.02, weight_decay=0.0)
    of_each = [
        torch.optim.AdamW([one.rows, one.columns], lr=0.02, weight_decay=0.0)
        for one in (first, second)
    ]
    for step in range(6):
        drawn, weights = [], []
        for number, name in enumerate(("anna", "ben")):
            if number == 0 and step >= 2:
                continue
            examples = plain.encode(number, DATA[name][0])
            drawn += examples
            weights += [1 / len(examples)] * len(examples)
        (plain.losses(drawn) * torch.tensor(weights)).sum().backward()
        for number, optimiser in enumerate((*of_each, of_table)):
            parameters = optimiser.param_groups[0]["params"]
            if number == 0 and step >= 2:
                continue
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.param_groups[0]["lr"] = 0.02 * rate_share(step, 6, 1, settings)
            optimiser.step()
            optimiser.zero_grad()
    assert (model.bank.encoders[1]() - second()).abs().max() < 1e-9


def test_a_killed_training_goes_on_to_the_same(tmp_path, monkeypatch):
    """With the moments of the table's optimiser, without which it ends elsewhere."""
    settings = TrainConfig(**{**SETTINGS, "epochs": 8}, save_seconds=0)
    whole = trained(settings)
    last_state.count = 0
    with killed_after(4, monkeypatch):
        fit(bank(), DATA, settings, metric=last_state, folder=tmp_path)
    last_state.count = 8
    model = bank()
    fit(model, DATA, settings, metric=last_state, folder=tmp_path, resume=True)
    for encoder, vectors in zip(model.bank.encoders, whole.values()):
        assert (encoder() - vectors).abs().max() < 1e-12


def test_prompts_of_other_fields_or_lengths_share_nothing():
    model = bank()
    for name, by, template in (
        ("carla", ("shop", "carla"), TEMPLATE),
        ("dora", ("user", "dora"), "{soft:5} {x} {mask}"),
        ("emma", ("user", "emma"), TEMPLATE),
    ):
        words = Verbalizer.from_words(WORDS)
        task = Task(name, Template.parse(template), words, encoder="multitask", by=by)
        model.add(task)
    tables = [id(encoder.shared) for encoder in model.bank.encoders]
    assert tables[0] == tables[1] == tables[4] and len(set(tables)) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"by": None}, "t has one prompt: name the field"),
        ({"template": Template.parse("{prefix:2} {x} {mask}")}, "none: put some in it"),
    ],
)
def test_a_table_that_is_shared_with_none_is_refused(changes, message):
    words = Verbalizer.from_words(WORDS)
    task = Task("t", Template.parse(TEMPLATE), words, encoder="multitask", by=("user", "t"))
    model = bank([])
    with pytest.raises(ConfigError, match=message):
        model.add(replace(task, **changes))
    assert not model.tasks and not len(model.bank)


def test_copies_for_a_trial_share_among_themselves():
    """The trial of a learning rate trains them as the training itself would, and the model stays as
    it is."""
    settings = TrainConfig(**SETTINGS)
    model = bank()
    before = [encoder().detach().clone() for encoder in model.bank.encoders]
    data = dict(enumerate(DATA.values()))
    copies = train_copies(model, data, settings, count=2, label="t", rates=[0.02, 0.001])
    alone = bank()
    fit(
        alone, data, settings.model_copy(update={"steps": 40, "epochs": None, "evaluate_every": 10})
    )
    twin = copies.model
    for task, number in copies.numbers[0].items():
        vectors = twin.bank.encoders[twin.tasks[number].prompt]()
        assert (vectors - alone.bank.encoders[task]()).abs().max() < 1e-9
    assert all(torch.equal(a(), b) for a, b in zip(model.bank.encoders, before))
    first, second = model.bank.encoders
    assert first.shared is second.shared
    training = Training(data, settings)
    rehearsal.one_step(model, [training])
    assert all(torch.equal(a(), b) for a, b in zip(model.bank.encoders, before))


TASK = TaskConfig(
    name="t",
    template=TEMPLATE,
    labels={"a": "Yes", "b": "No"},
    encoder="multitask",
    prompt_by="user",
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt_by": None}, "t has one prompt: name the field"),
        ({"only": ("anna",)}, "only names some: train all again, or add anna with encoder: table"),
    ],
)
def test_a_table_to_share_is_refused_at_the_door(changes, message):
    with pytest.raises(ConfigError, match=f"encoder: multitask .*{message}"):
        resolve.training(TASK.model_copy(update=changes))


def test_prompts_that_share_begin_as_one_other(tmp_path):
    model = bank(["anna"], torch.float32, encoder="table")
    prompt_folder.save(model, tmp_path / "first")
    model = bank(dtype=torch.float32)
    (source,) = transfer.sources_in([tmp_path / "first"], model.lm)
    data = dict(enumerate(DATA.values()))
    with pytest.raises(ConfigError, match="transfer names 2 prompts: name one of them"):
        transfer.check(model, [0, 1], [source, source])
    settings = TrainConfig(**SETTINGS)
    transfer.begin(model, data, settings, sources=[source], folder=tmp_path, report=lambda _: None)
    vectors = source.model.bank.encoders[0]()
    assert all(torch.equal(encoder(), vectors) for encoder in model.bank.encoders)


def test_the_command_saves_a_plain_prompt_for_each(tmp_path):
    """Which answers as the bank does, counts what was trained, and goes on by itself."""
    for part in tiny.tiny("bert"):
        part.save_pretrained(tmp_path / "lm")
    lines = [json.dumps(row) + "\n" for one, _ in DATA.values() for row in one]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    (tmp_path / "task.yaml").write_text(
        f'name: t\ntemplate: "{TEMPLATE}"\nlabels: {{a: "Yes", b: "No"}}\n'
        "data: {train: rows.jsonl, dev: rows.jsonl, test: rows.jsonl}\nlm: ./lm\n"
        "encoder: multitask\nprompt_by: user\ndevice: cpu\n"
        "train: {epochs: 2, batch_size: 4, learning_rate: 0.01}\n"
    )
    main.main(["train", str(tmp_path / "task.yaml"), "--out", str(tmp_path / "out")])
    folders = sorted((tmp_path / "out" / "prompts").iterdir())
    notes = [json.loads((folder / "prompt.json").read_text()) for folder in folders]
    assert [note["encoder"] for note in notes] == ["table", "table"]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    width = prompt_folder.load(folders[0], device="cpu").lm.width
    assert run["trained_parameters"] == 3 * width + 2 * (3 + width)
    assert run["kept_parameters"] == 2 * 3 * width
    again = ["--from", str(folders[0]), "--encoder", "table", "--prompt-by", "None"]
    main.main(["train", str(tmp_path / "task.yaml"), *again, "--out", str(tmp_path / "on")])
    assert (tmp_path / "on" / "prompt.json").exists()


def test_the_schedule_is_that_of_the_longest_training():
    settings = TrainConfig(decay="linear", learning_rate=0.02)
    parameter = torch.nn.Parameter(torch.ones(2))
    shared = SharedTraining([parameter], settings, steps=[2, 6], steps_an_epoch=[1, 3])
    rates = []
    for _ in range(6):
        parameter.grad = torch.ones(2)
        shared.update()
        rates.append(shared.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.02 * rate_share(step, 6, 3, settings) for step in range(6)])
