"""What a check shows: in the terminal, and as JSON."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from ptune.base.terminal import Console
from ptune.experiments.check.check_files import Checked, CheckedFile
from ptune.survey.columns import Column
from ptune.survey.findings import rows_in_words
from ptune.survey.text_checks.texts import Lengths, drawn, script_shares

if TYPE_CHECKING:
    from ptune.experiments.check.check_lengths import TokenCounts

SHOWN_SIGNS = 40
SHOWN_LABELS = 30
SHOWN_COLUMNS = 30
NARROWEST = 100
NOTHING = "Nothing odd was seen."


def show(checked: Checked, counts: Mapping[str, "TokenCounts"]) -> None:
    """Print all of a check."""
    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST)
    for file in checked.files:
        _show_file(console, file, checked, counts.get(file.name))
    is_sound = not checked.faults and not checked.refused
    _show_list(console, "What to know", checked.findings, NOTHING if is_sound else "")
    for file in checked.files:
        if file.faults:
            rest = file.faults.total - len(file.faults)
            more = [f"... and {rest:,} more."] if rest else []
            _show_list(console, f"What cannot be read of {file.path}", [*file.faults, *more])
    if checked.yaml:
        _show_line(console, f"\nThe YAML that reads it{_refused(checked)}:\n")
        _show_line(console, checked.yaml.rstrip("\n"))
    elif checked.no_yaml:
        _show_line(console, f"\n{checked.no_yaml}")


def _refused(checked: Checked) -> str:
    """Why training would refuse the YAML, as the end of its title; empty where it would not."""
    if not checked.lacking and not checked.faults:
        return ""
    rest = checked.lacking.total - len(checked.lacking)
    more = f" and {rest:,} more" if rest else ""
    rows = f"{'; '.join(checked.lacking)}{more} has no text or no label"
    reason = rows if checked.lacking else "there are lines that cannot be read"
    return (
        f", which training refuses as long as {reason} (ptune new FILE --skip-bad-lines leaves "
        "such rows out)"
    )


def _show_file(
    console: Console, file: CheckedFile, checked: Checked, counted: "TokenCounts | None"
) -> None:
    how = f": {file.form.sentence}" if file.form else f", form {file.layout}"
    split = f"{file.split}: " if len(checked.files) > 1 else ""
    _show_line(console, f"{split}{file.path}{how}; {rows_in_words(file.rows)}")
    if not file.rows:
        return
    console.print(_columns_table(file, checked))
    if checked.roles.label and (column := file.columns.get(checked.roles.label)):
        words = file.word_labels.words if file.word_labels else None
        _show_line(console, f"labels ({column.name}): {_label_counts(column, words)}")
    if scripts := script_shares(file.texts.scripts):
        _show_line(console, f"scripts of the texts: {scripts}")
    _show_lengths(console, file.texts.characters, "")
    if counted is not None:
        limit = f", of which {counted.limit} fit" if counted.limit else ""
        _show_lengths(console, counted.lengths, f"{limit}, of {counted.rows:,} rows")
    console.print()


def _show_lengths(console: Console, lengths: Lengths, more: str) -> None:
    if not lengths.counts:
        return
    summary = ", ".join(f"{name} {length:,}" for name, length in lengths.summary.items())
    _show_line(console, f"lengths in {lengths.unit}{more}: {summary}")
    for line in drawn(lengths.histogram()):
        _show_line(console, f"  {line}")


def _show_line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)


def _show_list(console: Console, title: str, lines: Sequence[str], otherwise: str = "") -> None:
    if lines:
        _show_line(console, f"\n{title}:")
        for line in lines:
            _show_line(console, f"- {line}")
    elif otherwise:
        _show_line(console, f"\n{otherwise}")


def _columns_table(file: CheckedFile, checked: Checked) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("column", "read as", "holds", "values", "empty", "examples"):
        table.add_column(title, justify="right" if title in ("values", "empty") else "left")
    for name, column in list(file.columns.items())[:SHOWN_COLUMNS]:
        lacking = file.rows - column.filled
        table.add_row(
            Text(name or "(no name)"),
            _role(name, checked),
            column.kind,
            column.variety,
            f"{lacking:,}" if lacking else "",
            Text(", ".join(_shown(example) for example in column.examples[:2])),
        )
    if len(file.columns) > SHOWN_COLUMNS:
        table.caption = f"and {len(file.columns) - SHOWN_COLUMNS} more columns"
    return table


def _role(name: str, checked: Checked) -> str:
    roles = checked.roles
    if name in roles.texts:
        return "text"
    return "label" if name == roles.label else "answer" if name == roles.answer else ""


def _shown(text: str) -> str:
    return repr(text if len(text) <= SHOWN_SIGNS else f"{text[: SHOWN_SIGNS - 3]}...")


def _label_counts(column: Column, of_words: Counter[str] | None) -> str:
    """How many rows have each label, or how many words."""
    sets = column.label_sets
    labels = (of_words or (sets.labels if sets else column.labels)).most_common()
    listed = ", ".join(f"{label} {count:,}" for label, count in labels[:SHOWN_LABELS])
    more = f" and {len(labels) - SHOWN_LABELS} more" if len(labels) > SHOWN_LABELS else ""
    return f"{listed}{more}"


def as_json(checked: Checked, counts: Mapping[str, "TokenCounts"]) -> dict[str, Any]:
    """All of a check as JSON has it."""
    return {
        "files": [_file_json(file, counts.get(file.name)) for file in checked.files],
        "text": list(checked.roles.texts),
        "label": checked.roles.label,
        "answer": checked.roles.answer,
        "multi_label": checked.label_sets is not None,
        "duplicates": {
            "within": checked.duplicates.within,
            "between": [
                {"first": first, "second": second, "rows": rows}
                for (first, second), rows in checked.duplicates.between.items()
            ],
            "several_labels": checked.duplicates.contradicting,
        },
        "findings": checked.findings,
        "unreadable_lines": checked.faults,
        "refused": {"rows": checked.refused, "first": list(checked.lacking)},
        "yaml": checked.yaml or None,
        "no_yaml": checked.no_yaml or None,
    }


def _file_json(file: CheckedFile, counted: "TokenCounts | None") -> dict[str, Any]:
    form = file.form
    return {
        "path": str(file.path),
        "split": file.split,
        "form": file.layout,
        "kind": form.kind if form else file.layout,
        "encoding": form.encoding if form else None,
        "separator": file.options.separator,
        "quoting": file.options.quoting,
        "line_ends": form.line_ends if form else None,
        "gzip": form.is_packed if form else None,
        "rows": file.rows,
        "unreadable": {"lines": file.faults.total, "first": list(file.faults)},
        "columns": {name: _column_json(column, file) for name, column in file.columns.items()},
        "texts": {
            "empty": file.texts.empty,
            "scripts": dict(file.texts.scripts),
            "characters": file.texts.characters.summary,
        },
        "tokens": None if counted is None else _tokens_json(counted),
    }


def _column_json(column: Column, file: CheckedFile) -> dict[str, Any]:
    return {
        "holds": column.kind,
        "filled": column.filled,
        "empty": file.rows - column.filled,
        "values": None if column.is_open else len(column.labels),
        "counts": None if column.is_open else dict(column.values.most_common(200)),
        "longest": column.longest,
        "examples": column.examples,
    }


def _tokens_json(counted: "TokenCounts") -> dict[str, Any]:
    return {
        "rows": counted.rows,
        "limit": counted.limit,
        **counted.lengths.summary,
        "histogram": dict(counted.lengths.histogram()),
        "cut": counted.cut,
        "windows": counted.windows,
        "too_long": counted.too_long,
        "unknown_share": counted.unknown.share,
    }
