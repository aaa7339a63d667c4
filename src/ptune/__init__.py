"""Prompt learning on frozen language models: one LM, many prompts, one batch."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ptune.answers.extraction import Extraction
    from ptune.answers.label_words import Verbalizer
    from ptune.answers.readers.reader_table import READERS
    from ptune.answers.word_labels import WordLabels
    from ptune.data.rows import read_rows
    from ptune.errors import PtuneError
    from ptune.estimators.classifier import PromptClassifier
    from ptune.estimators.generator import PromptGenerator
    from ptune.lm.language_model import LanguageModel
    from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
    from ptune.runs.logs.training_log import LogEntry, TrainingLog
    from ptune.settings import DecodingConfig, TrainConfig, VisibilityRule
    from ptune.storage.prompt_folder import load, save
    from ptune.template.language import Template
    from ptune.training.loop import fit

_HOMES = {
    "DecodingConfig": "settings",
    "Extraction": "answers.extraction",
    "LanguageModel": "lm.language_model",
    "LogEntry": "runs.logs.training_log",
    "PrefixSettings": "model.prompt_model",
    "PromptClassifier": "estimators.classifier",
    "PromptGenerator": "estimators.generator",
    "PromptModel": "model.prompt_model",
    "PtuneError": "errors",
    "READERS": "answers.readers.reader_table",
    "Task": "model.prompt_model",
    "Template": "template.language",
    "TrainConfig": "settings",
    "TrainingLog": "runs.logs.training_log",
    "Verbalizer": "answers.label_words",
    "VisibilityRule": "settings",
    "WordLabels": "answers.word_labels",
    "fit": "training.loop",
    "load": "storage.prompt_folder",
    "read_rows": "data.rows",
    "save": "storage.prompt_folder",
}
__all__ = [
    "DecodingConfig",
    "Extraction",
    "LanguageModel",
    "LogEntry",
    "PrefixSettings",
    "PromptClassifier",
    "PromptGenerator",
    "PromptModel",
    "PtuneError",
    "READERS",
    "Task",
    "Template",
    "TrainConfig",
    "TrainingLog",
    "Verbalizer",
    "VisibilityRule",
    "WordLabels",
    "fit",
    "load",
    "read_rows",
    "save",
]


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, so that importing ptune loads no torch."""
    if name == "__version__":
        return importlib.metadata.version("ptune")
    if name not in _HOMES:
        raise AttributeError(f"module 'ptune' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ptune.{_HOMES[name]}"), name)
