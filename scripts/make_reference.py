"""Writes the reference pages of docs/ from the code, so that they cannot differ from it.

    python scripts/make_reference.py [FOLDER]

docs/reference-task.md: every key of a task's YAML; docs/task.schema.json: the same as a JSON
Schema, which editors use; docs/reference-commands.md: every option of every command;
docs/reference-python.md: the public names; docs/results.schema.json: the form of the probe's
results.json.
"""

import ast
import inspect
import json
import pathlib
import re
import sys
import textwrap
import types
import typing

import tyro
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import ptune
from ptune.cli import commands as cli
from ptune.reports.schemas import Results
from ptune.tasks.schema import TaskConfig

FOLDER = pathlib.Path(__file__).parents[1] / "docs"
WITHOUT_OPTIONS = {
    "methods": "List the methods and what each trains; `ptune methods METHOD` shows one with its "
    "settings. It has no options.",
    "bench": "How fast training, scoring and writing are beside PEFT. It runs in a clone of ptune's "
    "repository alone, and its options are those of `python -m benchmarks`: "
    "`ptune bench --help` lists them.",
}
TRAIN = """
`ptune train TASK.yaml [OPTIONS]` trains what the file describes. Its options are the keys of the
file ([reference](reference-task.md)), and overrule it.

`ptune train TASK.yaml --estimate` prints how much memory that takes, by part, and loads no LM.

`ptune train TABLE.csv [--text COLUMN] [--label COLUMN] [OPTIONS]` first makes such a file of a table
(.csv, .tsv, .jsonl), as `ptune new` does, beside the folder of the run: `--out FOLDER` gives
`FOLDER.yaml`, and without `--out` the folder is `TABLE-trained`. A file of that name that is there
already is not written over, except that `--resume` goes on with it.
"""
NOTE = "<!-- Written by scripts/make_reference.py; edit the docstrings in the code instead. -->\n"


def main(folder: pathlib.Path = FOLDER) -> None:
    """Write all reference pages into a folder."""
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """The text of each page, by its file's name."""
    return {
        "reference-task.md": task_page(),
        "reference-commands.md": commands_page(),
        "reference-python.md": python_page(),
        "task.schema.json": json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
        "results.schema.json": json.dumps(_on_one_line(Results.model_json_schema()), indent=2)
        + "\n",
    }


def schema() -> dict[str, typing.Any]:
    """The JSON Schema of a task's YAML file."""
    title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A task of ptune"}
    return title | _on_one_line(TaskConfig.model_json_schema())


def _on_one_line(value: typing.Any) -> typing.Any:
    """A schema whose descriptions have no line breaks."""
    if isinstance(value, dict):
        return {key: _on_one_line(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_on_one_line(entry) for entry in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def task_page() -> str:
    """Every key of a task's YAML file, each nested part in a table of its own."""
    head = (
        "# What a task's YAML file may say\n\n"
        "The same as a JSON Schema: [task.schema.json](task.schema.json). "
        "An editor with a YAML language server checks "
        "and completes a file that begins with\n\n"
        "```yaml\n# yaml-language-server: $schema=docs/task.schema.json\n```\n\n"
        "Each key can be set on the command line too: `data.take.train` as `--data.take.train`.\n"
    )
    return NOTE + head + "".join(_tables(TaskConfig, ""))


def _tables(model: type[BaseModel], path: str) -> list[str]:
    """A table of a model's own keys, and then the tables of the models in it."""
    rows, nested = [], []
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            nested += _tables(inner, f"{path}{name}.")
            continue
        option = _option_name(name, field, path)
        is_other = option != _plain_option(name, path) and option.startswith("`--")
        command_line = f"On the command line it is {option}." if is_other else ""
        rows.append(_row(f"`{path}{field.alias or name}`", field, command_line))
    title = f"## `{path.rstrip('.')}`" if path else "## The task itself"
    lines = [
        "\n",
        title,
        "\n\n",
        _cell_text(model.__doc__),
        "\n\n",
        "| key | value | default | |\n|---|---|---|---|\n",
    ]
    return [*lines, *rows, *nested]


def commands_page() -> str:
    """Every command with its options."""
    parts = [NOTE, "# Commands\n\n", "`ptune COMMAND --help` shows the same in a terminal.\n"]
    for name in sorted(cli.COMMANDS):
        model = cli.OPTIONS.get(name)
        if model is None:
            parts.append(f"\n## `ptune {name}`\n\n{WITHOUT_OPTIONS[name]}\n")
            continue
        parts.append(f"\n## `ptune {name}`\n\n{_cell_text(model.__doc__)}\n")
        if model is TaskConfig:
            parts.append(TRAIN)
            continue
        parts.append("\n| option | value | default | |\n|---|---|---|---|\n")
        parts += _options(model, "")
    return "".join(parts)


def _options(model: type[BaseModel], path: str) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        if tyro.conf.Suppress in field.metadata:
            continue
        inner = _model_in(field.annotation)
        if inner is not None:
            label = inner.__name__.removesuffix("Overrides").lower()
            rows.append(
                f"| `--{path}{name}.*` | | | {_cell(field.description)} "
                f"The keys are those of `{label}` in [a task's YAML](reference-task.md). |\n"
            )
            continue
        shown = _option_name(name, field, path)
        rows.append(_row(shown, field))
    return rows


def _row(shown: str, field: FieldInfo, note: str = "") -> str:
    """A line of a table: a key or an option, its value, its default, and its help with a note."""
    about = f"{_cell(field.description)} {note}".strip()
    return f"| {shown} | {_kind(field)} | {_default(field)} | {about} |\n"


def _option_name(name: str, field: FieldInfo, path: str) -> str:
    for extra in field.metadata:
        if type(extra).__name__ == "_PositionalMarker" or "Positional" in repr(extra):
            return f"`{name.upper()}`"
        if option := getattr(extra, "name", None):
            return f"`--{path}{option}`"
    return _plain_option(name, path)


def _plain_option(name: str, path: str) -> str:
    """A key as an option that has no name of its own."""
    return f"`--{path}{name.replace('_', '-')}`"


def python_page() -> str:
    """The public names: signature and docstring of each, and of its public methods."""
    parts = [
        NOTE,
        "# Python\n\n",
        "Everything here is imported from `ptune`; nothing heavy is loaded before it is used.\n",
    ]
    for name in sorted(ptune.__all__):
        thing = getattr(ptune, name)
        if isinstance(thing, dict):
            parts.append(f"\n## {name}\n\n{_entries(name, thing)}\n")
            continue
        parts.append(f"\n## {name}\n\n{_head(name, thing)}\n\n{_doc(thing)}\n")
        if inspect.isclass(thing):
            parts += _methods(name, thing)
    return "".join(parts)


def _entries(name: str, table: dict[str, type]) -> str:
    """The classes of a public table, with the first sentence of each."""
    lines = [f"- `{name}[{key!r}]`: {_first_sentence(entry)}." for key, entry in table.items()]
    return "A class for each name:\n\n" + "\n".join(lines)


def _first_sentence(thing: typing.Any) -> str:
    return _doc(thing).split("\n")[0].split(". ")[0].rstrip(".")


def _methods(owner: str, thing: type) -> list[str]:
    parts = []
    for name, member in vars(thing).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        if function.__module__.split(".")[0] == "ptune":
            parts.append(
                f"\n### {owner}.{name}\n\n```python\n{name}{_signature(function)}\n```\n\n"
                f"{_doc(function)}\n"
            )
    return parts


def _head(name: str, thing: typing.Any) -> str:
    """The signature of a public name; of a model of settings, where its keys are explained."""
    if inspect.isclass(thing) and issubclass(thing, BaseModel):
        key = name.removesuffix("Config").removesuffix("Rule").lower()
        keys = f"[`{key}` in a task's YAML](reference-task.md#{key})"
        return f"Its arguments are the keys of {keys}, given by name."
    return f"```python\n{name}{_signature(thing)}\n```"


def _signature(thing: typing.Any) -> str:
    """The arguments of a function or class as its source has them, without the modules of types."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    if isinstance(tree, ast.ClassDef):
        makers = [
            node
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == "__init__"
        ]
        if not makers:
            return _fields(tree)
        tree = makers[0]
    assert isinstance(tree, ast.FunctionDef)
    if tree.args.args and tree.args.args[0].arg in ("self", "cls"):
        del tree.args.args[0]
    returned = (
        f" -> {ast.unparse(tree.returns)}" if tree.returns and tree.name != "__init__" else ""
    )
    return _without_modules(f"({ast.unparse(tree.args)}){returned}")


def _fields(tree: ast.ClassDef) -> str:
    """The fields of a data class as arguments."""
    assigned = [node for node in tree.body if isinstance(node, ast.AnnAssign)]
    shown = [
        ast.unparse(node).replace(" = ", "=")
        for node in assigned
        if "init=False" not in ast.unparse(node)
    ]
    return _without_modules(f"({', '.join(shown)})") if shown else ""


def _without_modules(text: str) -> str:
    return re.sub(r"\b(?:[a-z_]+\.)+([A-Z]\w*)", r"\1", text)


def _doc(thing: typing.Any) -> str:
    """A docstring as Markdown: its sections as lists, a paragraph or an entry on one line."""
    lines: list[str] = []
    for line in (inspect.getdoc(thing) or "").replace("``", "`").splitlines():
        if re.fullmatch(r"(Args|Raises|Returns|Attributes|Yields):", line):
            lines += [f"**{line.rstrip(':')}**", ""]
        elif re.match(r"    [\w*`][^:]*: ", line):
            name, _, text = line.strip().partition(": ")
            lines.append(f"- `{name.strip('`')}`: {text}")
        elif line.strip() and lines and lines[-1]:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line.strip())
    return "\n".join(lines)


def _model_in(annotation: typing.Any) -> type[BaseModel] | None:
    choices = [annotation, *typing.get_args(annotation)]
    return next((c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _kind(field: FieldInfo) -> str:
    return _cell(_named(field.annotation)) + _bounds(field)


def _named(annotation: typing.Any) -> str:
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is typing.Annotated:
        return _named(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_named(part) for part in inner if part is not type(None))
    if origin in (list, tuple, set):
        return "a list of " + _named(inner[0]) if inner else "a list"
    if origin is dict:
        return f"{_named(inner[1])} for each {_named(inner[0])}"
    words = {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "true or false",
        pathlib.Path: "path",
    }
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounds(field: FieldInfo) -> str:
    signs = {"ge": "at least", "gt": "over", "le": "at most", "lt": "under"}
    metadata = [m for part in field.metadata for m in getattr(part, "metadata", [part])]
    bounds = []
    for bound in metadata:
        bounds += [f"{text} {getattr(bound, s)}" for s, text in signs.items() if hasattr(bound, s)]
    return f", {' and '.join(bounds)}" if bounds else ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value in (None, "", (), [], {}):
        return ""
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _cell(text: str | None) -> str:
    return _cell_text(text).replace("|", "\\|")


def _cell_text(text: str | None) -> str:
    return " ".join((text or "").replace("``", "`").split())


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
