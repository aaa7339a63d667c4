"""A task's YAML file made from a CoNLL file: labels counted, sentences split."""

import pathlib
import random
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from ptune.base import files
from ptune.data.file_form import FileForm
from ptune.data.row import FileRow
from ptune.errors import ConfigError, DataError
from ptune.settings import FileConfig
from ptune.survey.findings import rows_in_words
from ptune.survey.word_task_text import WordLabelCounts, word_task_text
from ptune.tasks.layouts import conll
from ptune.tasks.options import NewConfig

SPLITS = ("train", "dev", "test")


def new_words(
    config: NewConfig,
    form: FileForm,
    report: Callable[[str], None],
    *,
    may_exist: bool = False,
) -> pathlib.Path:
    """Write a task's YAML file, and the sentences as three files beside it; return the YAML file.

    Args:
        may_exist: a YAML file that is there already and would be the same is taken.

    Raises:
        DataError: the file cannot be read, or has no labels.
        ConfigError: an option is of tables, or a file is there already.
    """
    for option, value in (("--text", config.text), ("--label", config.label)):
        if value is not None:
            raise ConfigError(
                f"{config.data} is a CoNLL file, whose columns --columns names, the words first "
                f"and their labels last: leave {option} out."
            )
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    options = FileConfig(encoding=form.options.encoding, columns=config.columns)
    rows = conll.read(config.data, options, skipped)
    columns = list(rows[0])
    if len(columns) < 2:
        raise DataError(f"{config.data} has words alone, and no column of labels.")
    counts = WordLabelCounts()
    for row in rows:
        counts.add(row[columns[-1]])
    if len(counts.labels) < 2:
        raise DataError(f"All words of {config.data} have the label {counts.labels[0]!r}.")
    split = _split(rows, config.dev_share, config.test_share, config.seed)
    paths = {
        name: config.out.with_name(f"{config.out.stem}.{name}.conll")
        for name, rows_of_split in split.items()
        if rows_of_split
    }
    texts = {path: _text(split[name]) for name, path in paths.items()}
    data: list[tuple[str, Any, str]] = [("form", "conll", "")]
    if len(columns) > 2 or config.columns:
        data.append(("columns", columns, ""))
    data += [(name, path.name, rows_in_words(len(split[name]))) for name, path in paths.items()]
    ends = (columns[0], columns[-1])
    page = _page(config.out, config.data.name, lm=config.lm, ends=ends, counts=counts, data=data)
    kept = {**texts, **({config.out: page} if may_exist else {})}
    for path in (config.out, *paths.values()):
        if path.exists() and (path not in kept or path.read_bytes() != kept[path].encode()):
            raise ConfigError(f"{path} is there already: choose another --out, or delete it.")
    for path, text in texts.items():
        files.write_text(path, text)
    files.write_text(config.out, page)
    for sentence in [*(f"Skipped: {fault}" for fault in skipped or ()), counts.sentence]:
        if sentence:
            report(sentence)
    shown = ", ".join(f"{label} ({counts.words[label]:,})" for label in counts.labels)
    report(f"{rows_in_words(len(rows))} of words with labels: {shown}")
    report(f"Rows to learn from, for dev and for test: {', '.join(map(str, paths.values()))}")
    report(f"Written: {config.out}")
    return config.out


def _split(
    rows: Sequence[FileRow], dev_share: float, test_share: float, seed: int
) -> dict[str, list[FileRow]]:
    """The sentences of each split, drawn by the seed, in the file's order; the same sentence does
    not stand in two of them."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(tuple(next(iter(row.values()))), []).append(number)
    order = list(groups.values())
    random.Random(seed).shuffle(order)
    dev = round(dev_share * len(order))
    test = dev + round(test_share * len(order))
    parts = (order[test:], order[:dev], order[dev:test])
    return {
        name: [rows[number] for number in sorted(sum(part, []))]
        for name, part in zip(SPLITS, parts)
    }


def _text(rows: Sequence[FileRow]) -> str:
    """Sentences as a CoNLL file with tabs between its columns."""
    return "".join(
        "".join("\t".join(cells) + "\n" for cells in zip(*row.values())) + "\n" for row in rows
    )


def _page(
    file: pathlib.Path,
    source: str,
    *,
    lm: str,
    ends: tuple[str, str],
    counts: WordLabelCounts,
    data: list[tuple[str, Any, str]],
) -> str:
    """The YAML file's text, with what each line is for.

    Args:
        source: the name of the file that it is made from.
        ends: the columns of the words and of their labels.
    """
    out = shlex.quote(f"{file.stem}-trained")
    return word_task_text(
        name=file.stem,
        lm=lm,
        columns=ends,
        counts=counts,
        data=data,
        head=[
            f"ptune train {shlex.quote(file.name)} --out {out}",
            f"Made by ptune new from {source}; docs/sequence.md explains such tasks.",
        ],
        lm_note="builtin knows few words: a folder or a name on the hub knows more",
    )
