"""The model card of a repository of prompts, made from what was saved."""

import json
import pathlib
from collections.abc import Sequence

from pydantic import ValidationError

from ptune.base import files
from ptune.errors import StoreError
from ptune.reports.schemas import Run
from ptune.settings import BUILTIN_LMS
from ptune.storage.saved_lm import repository_of
from ptune.storage.saved_prompt import SavedPrompt
from ptune.template.encoding.visibility import written


def card(
    folder: pathlib.Path,
    notes: Sequence[SavedPrompt],
    repo: str,
    *,
    license_name: str | None,
    lm_license: str | None,
    has_adapter: bool,
) -> str:
    """The text of README.md.

    Args:
        folder: of the run, whose run.json has the figures.
        notes: what each prompt says of itself.
        lm_license: that of the LM, where the hub tells it.
        has_adapter: PEFT's files lie beside ours.
    """
    note, run = notes[0], _run(folder)
    sections = [
        _front(note, license_name, run),
        f"# {note.name}\n\n{_about(notes, run)}",
        _template(note),
        _answers(note),
        f"## The language model\n\n`{note.lm.source}` ({_kind(note)}), not part of this "
        f"repository. Its licence: {lm_license or 'see its own card'}. The prompt fits it alone: "
        "its weights are compared before the prompt is used.",
        _figures(note, run),
        _usage(note, repo, has_adapter, len(notes)),
        "## Limits\n\nA prompt answers as well as its language model and its training rows allow. "
        "On texts of another kind, or with another language model, it was not tried; texts longer "
        "than the language model takes are shortened where the template says so.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _run(folder: pathlib.Path) -> Run | None:
    """run.json of the run; None where there is none."""
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        return Run.model_validate(files.read_json(path))
    except ValidationError as error:
        raise StoreError(f"{path} is damaged.") from error


def _front(note: SavedPrompt, license_name: str | None, run: Run | None) -> str:
    """The card's metadata; values are written as JSON, which YAML holds."""
    values: dict[str, object] = {"library_name": "ptune"}
    if note.lm.source not in BUILTIN_LMS:
        values["base_model"] = repository_of(note.lm.source)
    if license_name:
        values["license"] = license_name
    values["tags"] = ["ptune", "prompt-learning", *([run.method] if run else [])]
    lines = (f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
    return "---\n" + "\n".join(lines) + "\n---"


def _kind(note: SavedPrompt) -> str:
    return note.lm.kind + (f", at commit {note.lm.commit}" if note.lm.commit else "")


def _about(notes: Sequence[SavedPrompt], run: Run | None) -> str:
    count = "A learned prompt" if len(notes) == 1 else f"{len(notes)} learned prompts"
    method = f", trained by {run.title}" if run else ""
    return f"{count} for a frozen language model{method}, with ptune {notes[0].ptune}."


def _template(note: SavedPrompt) -> str:
    """What the LM reads, and what of it depends on more than the template."""
    lines = [f"## Template\n\n```text\n{note.template}\n```"]
    if note.visibility:
        lines.append(f"Hidden (`visibility`): {', '.join(map(written, note.visibility))}")
    if note.prefix and note.prefix.gates == "row":
        lines.append("The prefix is multiplied in each row by gates that read the row's text.")
    return "\n\n".join(lines)


def _answers(note: SavedPrompt) -> str:
    if note.labels is None:
        return f"The answer is text; right texts stand in the field `{note.target}`."
    words = note.words or [[label] for label in note.labels]
    rows = "\n".join(
        f"| {label} | {', '.join(words_of_label)} |"
        for label, words_of_label in zip(note.labels, words)
    )
    return f"## Labels\n\n| label | words |\n|---|---|\n{rows}"


def _figures(note: SavedPrompt, run: Run | None) -> str:
    """How it was trained, and how good it is."""
    lines = []
    if run is not None:
        counts = ", ".join(f"{count} {split}" for split, count in run.rows.items())
        lines.append(f"Rows: {counts}. Seed of the prompt: {note.seed}.")
        lines.append(f"Trained parameters: {run.trained_parameters:,}.")
    figures = note.metrics if run is None or not run.figures else run.figures
    if figures:
        lines.append("\n| figure | value |\n|---|---|")
    lines += [f"| {name} | {value:.4g} |" for name, value in sorted(figures.items())]
    return "## Training and figures\n\n" + "\n".join(lines) if lines else ""


def _usage(note: SavedPrompt, repo: str, has_adapter: bool, prompts: int) -> str:
    call = "generate" if note.labels is None else "predict"
    text = (
        "## Usage\n\n```python\nimport ptune\n\n"
        f'model = ptune.load("{repo}")\nprint(model.{call}([{{...}}]))  # the fields of a row\n```'
    )
    if has_adapter:
        name = ', subfolder="prompts/NAME"' if prompts > 1 else ""
        text += (
            "\n\nWith PEFT, whose files lie beside; the text behind the learned tokens is then "
            f"written by hand:\n\n```python\nfrom peft import PeftModel\n\n"
            f'model = PeftModel.from_pretrained(lm, "{repo}"{name})\n```'
        )
    return text
