"""The options of ``ptune new``."""

import pathlib
from typing import Annotated

import tyro
from pydantic import Field

from ptune.settings import FileConfig


class NewConfig(FileConfig):
    """Make a task's YAML file from a table of texts and labels: columns found, label words
    proposed, rows split."""

    language: Annotated[str | None, tyro.conf.Suppress] = None
    """Of the texts of WebNLG, which is no table."""
    data: tyro.conf.Positional[pathlib.Path]
    """The table: .csv, .tsv or .jsonl; or a CoNLL file, whose words have a label each."""
    text: str | None = None
    """The column with the text; found by its name or its length by default."""
    label: str | None = None
    """The column with the label; found by its name or its few values by default."""
    skip_bad_lines: bool = False
    """Leave out rows without a text or a label and lines that cannot be read, and say which,
    instead of refusing the table."""
    out: pathlib.Path = pathlib.Path("task.yaml")
    """The YAML file; the rows to learn from, for dev and for test go beside it."""
    lm: str = "builtin"
    """The LM; the words proposed for the labels are single tokens of it, where it has such."""
    method: str = "auto"
    """The method that the file names: auto chooses one by the labelled rows; ptune methods lists
    them."""
    dev_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """The share of the rows by which the best state is chosen."""
    test_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """The share of the rows that are only scored."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split."""
