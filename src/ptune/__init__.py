"""Prompt learning on frozen language models: one LM, many prompts, one batch."""
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptune.config import DecodingConfig, TrainConfig
    from ptune.data import read_rows
    from ptune.errors import PtuneError
    from ptune.estimators import PromptClassifier, PromptGenerator
    from ptune.lm import LanguageModel
    from ptune.model import PrefixSettings, PromptModel, Task
    from ptune.saving import load, save
    from ptune.template import Template
    from ptune.train import fit
    from ptune.verbalizer import Verbalizer

_HOMES = {
    "DecodingConfig": "config", "LanguageModel": "lm", "PrefixSettings": "model", "PromptClassifier": "estimators",
    "PromptGenerator": "estimators", "PromptModel": "model", "PtuneError": "errors", "Task": "model", "Template": "template",
    "TrainConfig": "config", "Verbalizer": "verbalizer", "fit": "train", "load": "saving", "read_rows": "data", "save": "saving"}
__all__ = ["DecodingConfig", "LanguageModel", "PrefixSettings", "PromptClassifier", "PromptGenerator", "PromptModel", "PtuneError",
           "Task", "Template", "TrainConfig", "Verbalizer", "fit", "load", "read_rows", "save"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that importing ptune loads no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ptune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ptune.{_HOMES[name]}"), name)
