"""Prompts whose gates read each row, served beside others."""

from types import SimpleNamespace

import pytest
import serving_kit
import torch
from serving_kit import TEXTS, WRITTEN

from ptune import PromptModel, Task, Template, Verbalizer, load, save
from ptune.model.task import PrefixSettings
from ptune.serving.engines.jobs import Job
from ptune.serving.engines.vllm_engine import VllmEngine
from ptune.settings import DecodingConfig

KINDS = {
    "label": ("{prefix:4} {x} is {mask}", Verbalizer.from_words({"yes": "Yes", "no": "No"}), "row"),
    "text": ("{prefix:3} {x} = {mask}", None, "row"),
    "other": ("{prefix:3} {x} : {mask}", None, False),
}


@pytest.fixture(scope="module")
def gated_prompts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gated")
    for seed, (name, (template, words, gates)) in enumerate(KINDS.items()):
        model = PromptModel(serving_kit.lm())
        model.add(
            Task(
                name,
                Template.parse(template),
                words,
                encoder="table",
                prefix=PrefixSettings(0, gates=gates),
                decoding=DecodingConfig(max_new_tokens=WRITTEN),
            )
        )
        torch.manual_seed(seed)
        for parameter in model.bank.parameters():
            torch.nn.init.normal_(parameter, 0, 2)
        save(model, folder / name)
    return folder


@pytest.mark.parametrize("engine", ["batch", "continuous"])
def test_rows_are_answered_as_each_alone(gated_prompts, engine):
    """Also where others are written token by token from one cache, which has one prefix for all
    rows of a prompt: those of gated prompts are then written in batches."""
    loaded = {name: load(gated_prompts / name, serving_kit.lm()) for name in KINDS}
    with serving_kit.serving(*(gated_prompts / name for name in KINDS), engine=engine) as (kit, _):
        jobs = [
            Job(name, {"x": text}, decoding=None if name == "label" else {})
            for text in TEXTS
            for name in KINDS
        ]
        for job in jobs:
            kit.scheduler.submit([job])
        texts = set()
        for job in jobs:
            given, model = job.answer.result(60), loaded[job.prompt]
            if job.prompt == "label":
                expected = model.predict([job.row])[0]["scores"]
                assert given.scores == pytest.approx(expected, abs=1e-5)
            else:
                assert given.texts == model.generate([job.row])
                texts.add(given.texts[0])
    assert len(texts) > 4


def test_a_vllm_server_is_sent_no_text_whose_prefix_is_its_own(gated_prompts):
    for name in ("text", "other"):
        model = load(gated_prompts / name, serving_kit.lm())
        job = SimpleNamespace(
            loaded=SimpleNamespace(model=model),
            examples=model.encode(0, [{"x": "Rome"}], labelled=False),
            settings=DecodingConfig(),
        )
        engine = SimpleNamespace(folder="registry", lm=serving_kit.lm())
        reads_rows = "gates that read each row" in VllmEngine._refusal(engine, job)
        assert reads_rows == (name == "text")
