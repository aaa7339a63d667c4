"""The options of ``ptune export``, ``import``, ``push`` and ``pull``."""

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


class PushConfig(Config):
    """Put a saved prompt, or all of a run, into a repository of the model hub, with a model card
    and, where PEFT can say the same, its files."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt, or of a run with several."""
    repository: tyro.conf.Positional[str]
    """The repository: owner/name. It is made where it is not there."""
    private: bool = False
    """Make it a private one."""
    dry_run: bool = False
    """Show the files and the card, and send nothing."""
    lm: Lm | None = None
    """What the LM is called on the hub, where it was a folder of this machine."""
    license: str | None = None
    """The licence of the prompt, such as apache-2.0."""


class PullConfig(Config):
    """Fetch the prompts of a repository of the model hub: safetensors and JSON alone."""

    repository: tyro.conf.Positional[str]
    """The repository: owner/name, or owner/name@revision."""
    out: tyro.conf.Positional[pathlib.Path]
    """The folder for them."""
    revision: str | None = None
    """A commit, branch or tag; the newest by default. The commit is noted in hub.json."""
