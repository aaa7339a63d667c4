"""A tiny causal LM with saved prompts of several kinds, and servers on it."""

import contextlib
import functools
import pathlib

import tiny
import torch
from starlette.testclient import TestClient

from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer, save
from ptune.model.task import PrefixSettings
from ptune.serving.http.app import create_app
from ptune.serving.options import ServeConfig
from ptune.serving.server import PromptServer
from ptune.settings import DecodingConfig

LABELS = {"good": "good", "bad": "bad", "great": "great"}
TEMPLATES = {
    "film": ("{soft:3} {x} It was {mask}", LABELS),
    "city": ("{prefix:4} {x} is {mask}", {"yes": "Yes", "no": "No"}),
    "plain": ("Question : {x} Answer : {mask}", LABELS),
    "letter": ("{soft:2} {x} : {mask}", None),
    "deep": ("{prefix:3} {x} = {mask}", None),
    "pair": ("{soft:1} {x} and {y} {mask}", None),
}
TEXTS = [
    "Vienna lies on the Danube",
    "the best film",
    "Rome",
    "Berlin is a city in Germany and Rome is a city in Italy",
    "the people speak German and pay with the euro",
]
WRITTEN = 12


@functools.cache
def lm() -> LanguageModel:
    return LanguageModel(*tiny.tiny("gpt2"))


def save_prompt(folder: pathlib.Path, name: str, seed: int = 0) -> pathlib.Path:
    """One of the prompts, its vectors drawn by the seed."""
    template, words = TEMPLATES[name]
    model = PromptModel(lm())
    task = Task(
        name,
        Template.parse(template),
        Verbalizer.from_words(words) if words else None,
        encoder="table",
        prefix=PrefixSettings(0),
        decoding=DecodingConfig(max_new_tokens=WRITTEN),
    )
    model.add(task)
    torch.manual_seed(seed + sum(map(ord, name)))
    for number in range(len(model.bank)):
        for parameter in model.bank.parameters_of(number):
            torch.nn.init.normal_(parameter, 0, 0.7)
    save(model, folder / name)
    return folder / name


def save_prompts(folder: pathlib.Path, names=tuple(TEMPLATES)) -> list[pathlib.Path]:
    return [save_prompt(folder, name) for name in names]


@contextlib.contextmanager
def serving(*prompts: pathlib.Path, **settings):
    """A server that is ready, and a client in this process."""
    server = PromptServer(ServeConfig(prompts=tuple(prompts), **settings))
    try:
        server.start(lm())
        with TestClient(create_app(server), base_url="http://127.0.0.1") as client:
            yield server, client
    finally:
        server.scheduler.abandon()
        server.close()
