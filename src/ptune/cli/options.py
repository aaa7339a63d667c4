"""The options of the commands that only show something."""

import pathlib
from typing import Annotated

import tyro
from pydantic import Field

from ptune.settings import Config, Device, Dtype, Lm


class ReportConfig(Config):
    """Put the runs of ptune train side by side: a table, and a page with curves and outputs beside
    references."""

    runs: tyro.conf.Positional[list[pathlib.Path]]
    """The out folders of the runs; with --table also those of probes and comparisons."""
    out: pathlib.Path = pathlib.Path("report")
    """The folder for report.html."""
    table: pathlib.Path | None = None
    """A file for the figures, with mean and deviation over seeds: .csv, or .tex for LaTeX with
    booktabs."""


class DoctorConfig(Config):
    """Show versions, the device and optional packages, and what an LM can do with prompts."""

    lm: tyro.conf.Positional[str | None] = None
    """builtin, builtin-causal, a transformers folder, a .gguf file, or a name on the model hub;
    none by default."""
    device: Device = "auto"
    """auto (a GPU if there is one), cpu, cuda, ..."""
    dtype: Dtype = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU."""


class InspectConfig(Config):
    """Draw a template as the LM sees it, or show what a saved prompt has learned."""

    what: tyro.conf.Positional[str]
    """A template's text, a task's YAML file, or the folder of a saved prompt."""
    row: str | None = None
    """A row as JSON to fill the template with; the fields' names by default."""
    lm: Lm | None = None
    """The LM; builtin, or the one that the task or prompt names."""
    words: Annotated[int, Field(ge=1)] = 8
    """How many nearest words to show for each learned token."""
    device: Device = "cpu"
    """cpu, cuda, ..."""
