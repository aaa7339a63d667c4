"""The options of ``ptune export`` and ``ptune import``."""

import pathlib
from typing import Literal

import tyro

from ptune.settings import Config, Lm


class ExportConfig(Config):
    """Write a saved prompt in another library's form, where that can say the same."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt."""
    out: tyro.conf.Positional[pathlib.Path]
    """Where it goes: a folder for PEFT, a .npy file for Google's form."""
    to: Literal["peft", "cartridge", "google"] = "peft"
    """peft: an adapter folder (soft tokens in front, or a decoder's prefix). cartridge: the same of
    a causal LM's prefix, as PEFT's type for documents. google: the soft tokens as an array."""
    lm: Lm | None = None
    """The LM; by default the one that the prompt names."""


class ImportConfig(Config):
    """Make a prompt folder of PEFT's adapter folder, or of a .npy file of Google's Prompt
    Tuning."""

    source: tyro.conf.Positional[pathlib.Path]
    """The adapter folder or the .npy file."""
    out: tyro.conf.Positional[pathlib.Path]
    """The folder for the prompt."""
    lm: Lm
    """The LM that it was trained for."""
    template: str
    """The template behind the learned tokens, which stand in front: " {table} = {mask}"; an
    encoder-decoder's needs no {mask}."""
    name: str = "imported"
    """The task's name."""
    target: str = "text"
    """The field of a row that holds the right text."""
