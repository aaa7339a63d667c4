"""Prompts whose tokens do not all see each other, served beside others."""

import pytest
import serving_kit
import torch
from serving_kit import TEXTS, WRITTEN
from test_scheduler import Paused, alone, answer

from ptune import PromptModel, Task, Template, Verbalizer, VisibilityRule, load, save
from ptune.serving.engines.batch_engine import BatchEngine
from ptune.serving.engines.jobs import Job, LabelAnswer
from ptune.serving.engines.vllm_engine import VllmEngine
from ptune.settings import DecodingConfig

HIDDEN = {
    "hidden letter": ("{soft:2} The {x} and {y} : {mask}", None),
    "hidden film": ("{soft:3} The {x} and {y} was {mask}", serving_kit.LABELS),
}
RULES = [VisibilityRule(hide="soft", from_="fields"), VisibilityRule(hide="x", from_="y")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two prompts with rules, and the same without, beside others."""
    path = tmp_path_factory.mktemp("hidden")
    serving_kit.save_prompts(path, ("film", "letter", "deep"))
    for name, (template, words) in HIDDEN.items():
        for rules in (RULES, []):
            model = PromptModel(serving_kit.lm())
            task = Task(
                name,
                Template.parse(template).with_visibility(rules),
                Verbalizer.from_words(words) if words else None,
                encoder="table",
                decoding=DecodingConfig(max_new_tokens=WRITTEN),
            )
            model.add(task)
            torch.manual_seed(7)
            for parameter in model.bank.parameters():
                torch.nn.init.normal_(parameter, 0, 0.7)
            save(model, path / (name if rules else f"{name} without"))
    return path


def expected(folder, name, text):
    if name in ("film", "letter", "deep"):
        return alone(folder, name, text)
    model, row = load(folder / name, serving_kit.lm()), {"x": text, "y": "Paris"}
    return model.predict([row])[0] if "film" in name else model.generate([row])[0]


@pytest.mark.parametrize("engine", ["batch", "continuous"])
def test_rows_with_rules_beside_others_are_as_each_alone(folder, engine):
    names = [path.name for path in sorted(folder.iterdir())]
    with serving_kit.serving(*(folder / name for name in names), engine=engine) as (server, _):
        jobs = [
            Job(name, {"x": text, "y": "Paris"}, decoding=None if "film" in name else {})
            for text in TEXTS
            for name in names
        ]
        with Paused(server):
            for one in jobs:
                server.scheduler.submit([one])
        given = {(one.prompt, one.row["x"]): answer(one) for one in jobs}
    for (name, text), one in given.items():
        wanted = expected(folder, name, text)
        if isinstance(one, LabelAnswer):
            assert one.scores == pytest.approx(wanted["scores"], abs=1e-5)
        else:
            assert one.texts == [wanted], (name, text)
    for name in HIDDEN:
        pairs = [(given[name, text], given[f"{name} without", text]) for text in TEXTS]
        if "film" in name:
            assert any(a.scores != pytest.approx(b.scores, abs=1e-3) for a, b in pairs)
        else:
            assert any(a.texts != b.texts for a, b in pairs)


@pytest.mark.parametrize("engine", ["batch", "continuous"])
def test_texts_that_end_one_after_the_other_stay_their_rows(folder, engine, monkeypatch):
    """With --engine continuous too, where such rows are written in a batch: the first text that
    ended gave its place, and the tokens behind it, to the next row's, until the call failed."""
    calls, write_live = [], BatchEngine._write_live

    def counted(self, jobs, between):
        calls.append(len(jobs))
        write_live(self, jobs, between)

    monkeypatch.setattr(BatchEngine, "_write_live", counted)
    names = ("hidden letter", "hidden letter without")
    with serving_kit.serving(*(folder / name for name in names), engine=engine) as (server, _):
        jobs = [
            Job(
                names[0],
                {"x": text, "y": "Paris"},
                decoding={"max_new_tokens": 1 + number % WRITTEN},
            )
            for number, text in enumerate(TEXTS)
        ]
        with Paused(server):
            for one in jobs:
                server.scheduler.submit([one])
        given = [answer(one).texts for one in jobs]
    assert calls == [len(TEXTS)], "it was written again, row by row"
    model = load(folder / names[0], serving_kit.lm())
    wanted = [
        model.generate([job.row], config=DecodingConfig(max_new_tokens=1 + number % WRITTEN))
        for number, job in enumerate(jobs)
    ]
    assert given == wanted and len(set(map(tuple, wanted))) > 2


def test_vllm_does_not_write_for_them(folder):
    model = load(folder / "hidden letter", serving_kit.lm())
    job = Job("hidden letter", {"x": "Rome", "y": "Paris"}, decoding={})
    job.settings = DecodingConfig()
    job.examples = model.encode(0, [job.row], labelled=False)
    engine = object.__new__(VllmEngine)
    assert engine._refusal(job) == "The prompt hides tokens from others (visibility)"
