"""A task's YAML file made from a table of texts and labels: columns found, words proposed, rows
split."""

import json
import pathlib
import random
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.base import files
from ptune.data.json_rows import written
from ptune.data.row_files import form_of
from ptune.data.rows import (
    TABLES,
    headerless_hint,
    is_missing,
    looks_like_data,
    place_of,
    read_rows,
    spelled,
)
from ptune.errors import ConfigError, DataError, nearest
from ptune.lm.language_model import LanguageModel
from ptune.tasks import proposals
from ptune.tasks.options import NewConfig
from ptune.template.language import Template

Row = Mapping[str, Any]
LABEL_NAMES = (
    "label",
    "labels",
    "class",
    "category",
    "target",
    "intent",
    "sentiment",
    "topic",
    "team",
    "tag",
    "type",
    "rating",
    "stars",
)
TEXT_NAMES = (
    "text",
    "sentence",
    "ticket",
    "review",
    "message",
    "body",
    "content",
    "question",
    "document",
    "comment",
    "description",
)
MOST_LABELS = 50
FEWEST_TO_SPLIT = 3  # rows of a label, one for each split


@dataclass(frozen=True)
class Split:
    """The rows of the three files."""

    train: list[Row]
    dev: list[Row]
    test: list[Row]


def new(config: NewConfig, report: Callable[[str], None] = print) -> pathlib.Path:
    """Write a task's YAML file, and its rows as three files beside it; return the YAML file.

    Raises:
        DataError: the table cannot be read, or has no text or label in a row.
        ConfigError: no column looks like a text or a label, or a file is there already.
    """
    split_files = {
        split: config.out.with_name(f"{config.out.stem}.{split}.jsonl")
        for split in ("train", "dev", "test")
    }
    for path in (config.out, *split_files.values()):
        if path.exists():
            raise ConfigError(f"{path} is there already: choose another --out, or delete it.")
    notes: list[str] = []
    read = read_rows(config.data, options=config, notes=notes)
    if not config.columns and form_of(config.data) in TABLES and looks_like_data(read[0]):
        raise DataError(
            f"{config.data}: {headerless_hint(read[0])} For ptune new, --columns gives these names."
        )
    for note in notes:
        report(note)
    text, label = columns(read, config.text, config.label, config.data)
    rows = [{**row, label: spelled(row[label]).strip()} for row in read]
    counts = Counter(str(row[label]) for row in rows)
    split = split_rows(rows, text, label, config.dev_share, config.test_share, config.seed)
    lm = LanguageModel.load(config.lm, device="cpu")
    words = proposals.label_words(sorted(counts), lm.tokens)
    page = _page(config, text, label, counts, words, split, split_files)
    for name, path in split_files.items():
        files.write_text(path, "".join(written(row) + "\n" for row in getattr(split, name)))
    files.write_text(config.out, page)
    shown = ", ".join(
        f"{name} ({count})" for name, count in sorted(counts.items(), key=_by_frequency)
    )
    report(f"{len(rows)} rows; text: {text!r}; label: {label!r} with {shown}")
    sizes = f"{len(split.train)}, {len(split.dev)}, {len(split.test)}"
    report(
        f"Rows to learn from, for dev and for test: {sizes}, in "
        f"{', '.join(map(str, split_files.values()))}"
    )
    for name, why in words.notes.items():
        report(
            f"The word for {name!r} is {words.words[name]!r}, since {why}: write a better one "
            f"into {config.out}, or take an LM that has more words."
        )
    report(f"Written: {config.out}")
    return config.out


def columns(
    rows: Sequence[Row], text: str | None, label: str | None, path: pathlib.Path
) -> tuple[str, str]:
    """The column with the text and that with the label: those that are named, else those that look
    like them.

    A label is a column of a usual name, else the one with the fewest values, each of which comes
    twice on average; a text is a column of a usual name, else the one with the longest values.

    Raises:
        ConfigError: there is no such column.
        DataError: a row has nothing in one of them.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    for option, name in (("--text", text), ("--label", label)):
        if name is not None and name not in names:
            raise ConfigError(
                f"{path} has no column {name!r}, which {option} names. {nearest(name, names)}"
            )
    if text is not None and text == label:
        raise ConfigError(f"The text and the label are both {text!r}: they are two columns.")
    label = label or _label_column(rows, [name for name in names if name != text])
    text = text or _text_column(rows, [name for name in names if name != label])
    if label is None or text is None:
        what, option = ("label", "--label") if label is None else ("text", "--text")
        listed = ", ".join(f"{name} ({len(_values(rows, name))} values)" for name in names)
        raise ConfigError(
            f"No column of {path} looks like a {what}: name it with {option}. Its columns: "
            f"{listed}."
        )
    for number, row in enumerate(rows, 1):
        for name in (text, label):
            if is_missing(row.get(name)) or not str(row[name]).strip():
                raise DataError(
                    f"{place_of(row, number)} has nothing in the column {name!r}: fill it in, or "
                    "leave the row out."
                )
    values = _values(rows, label)
    if not 2 <= len(values) <= MOST_LABELS:
        raise ConfigError(
            f"The column {label!r} of {path} has {len(values)} values, and labels are 2 to "
            f"{MOST_LABELS}: name another with --label."
        )
    return text, label


def _by_frequency(counted: tuple[str, int]) -> tuple[int, str]:
    return -counted[1], counted[0]


def _values(rows: Sequence[Row], name: str) -> set[str]:
    return {spelled(row.get(name, "")).strip() for row in rows}


def _label_column(rows: Sequence[Row], names: Sequence[str]) -> str | None:
    fitting = [
        name
        for name in names
        if 2 <= len(_values(rows, name)) <= min(MOST_LABELS, max(2, len(rows) // 2))
        and _mean_length(rows, name) <= 40
    ]
    usual = [name for wanted in LABEL_NAMES for name in fitting if name.lower() == wanted]
    return next(iter(usual), min(fitting, key=lambda name: len(_values(rows, name)), default=None))


def _text_column(rows: Sequence[Row], names: Sequence[str]) -> str | None:
    usual = [name for wanted in TEXT_NAMES for name in names if name.lower() == wanted]
    longest = max(names, key=lambda name: _mean_length(rows, name), default=None)
    return next(
        iter(usual), longest if longest is not None and _mean_length(rows, longest) >= 8 else None
    )


def _mean_length(rows: Sequence[Row], name: str) -> float:
    return sum(len(str(row.get(name, ""))) for row in rows) / len(rows)


def split_rows(
    rows: Sequence[Row], text: str, label: str, dev: float, test: float, seed: int
) -> Split:
    """Rows parted by label, so that each split has the same share of every one; drawn by the seed,
    in the file's order.

    Rows with the same text stay in one split. A label with fewer than three texts goes to the rows
    to learn from.

    Args:
        dev, test: the shares of the rows that are kept back.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    for number, row in enumerate(rows):
        first_label = next(
            (name for name, texts in groups.items() if str(row[text]) in texts), str(row[label])
        )
        groups.setdefault(first_label, {}).setdefault(str(row[text]), []).append(number)
    taken: dict[str, list[int]] = {"train": [], "dev": [], "test": []}
    for name, texts in groups.items():
        order = list(texts.values())
        random.Random(f"{seed} {name}").shuffle(order)
        sizes = [
            max(1, round(share * len(order))) if share and len(order) >= FEWEST_TO_SPLIT else 0
            for share in (dev, test)
        ]
        bounds = (sizes[0], sizes[0] + sizes[1])
        for split, members in (
            ("dev", order[: bounds[0]]),
            ("test", order[bounds[0] : bounds[1]]),
            ("train", order[bounds[1] :]),
        ):
            taken[split] += [number for numbers in members for number in numbers]
    return Split(
        *([rows[number] for number in sorted(taken[split])] for split in ("train", "dev", "test"))
    )


def _page(
    config: NewConfig,
    text: str,
    label: str,
    counts: Counter[str],
    words: proposals.Words,
    split: Split,
    split_files: Mapping[str, pathlib.Path],
) -> str:
    """The YAML file's text, with what each line is for."""
    template, pattern = proposals.soft_template([text], label), proposals.pattern([text], label)
    for source in (template, pattern):
        Template.parse(source)
    name = re.sub(r"[^\w-]+", "-", config.out.stem).strip("-") or "task"
    lines = [
        f"# ptune train {shlex.quote(str(config.out.name))} --out "
        f"{shlex.quote(config.out.stem + '-trained')}",
        f"# Made by ptune new from {config.data.name}: {counts.total()} rows, {len(counts)} "
        "labels. Change what you like; every key stands in"
        " `ptune train --help`.",
        f"name: {_quoted(name)}",
        f"lm: {_quoted(config.lm)}            # builtin knows few words: a folder or a name on "
        "the hub, such as bert-base-uncased, knows more",
        f"method: {config.method}        # ptune methods lists them",
        "# Where the text, the three soft tokens that are trained, and the answer stand:",
        f"template: {_quoted(template)}",
        "patterns:                # the same without soft tokens, for methods that train none or "
        "bring their own",
        f"  - {_quoted(pattern)}",
        f"target: {_quoted(label)}",
        "labels:                  # for each label the word that the LM says for it, or several: "
        "[word, other]",
        *(
            f"  {_quoted(label_name)}: {_quoted(word)}{_comment(words, label_name)}"
            for label_name, word in words.words.items()
        ),
        f"data:                    # drawn from {config.data.name} by seed {config.seed}, each "
        "label by its share",
        *(
            f"  {name_of_split}: {_quoted(path.name)}  # {len(getattr(split, name_of_split))} rows"
            for name_of_split, path in split_files.items()
            if getattr(split, name_of_split)
        ),
        "metrics: [accuracy, f1-macro]",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A text as YAML takes it whatever it holds."""
    return (
        text
        if re.fullmatch(r"[A-Za-z][A-Za-z-]*", text) and text not in ("null", "Null", "NULL")
        else json.dumps(text, ensure_ascii=False)
    )


def _comment(words: proposals.Words, label: str) -> str:
    """A comment on a label's word, where there is one."""
    return f"  # {words.notes[label]}" if label in words.notes else ""
