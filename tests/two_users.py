"""A tiny LM's folder, and rows of two users and two labels."""

import json

import tiny

from ptune.tasks import yaml_task

TOWNS = ("Vienna", "Rome", "Paris", "Berlin", "London", "Madrid")


def write(folder):
    """Write ``lm`` and ``rows.jsonl`` into a folder."""
    for part in tiny.tiny("bert"):
        part.save_pretrained(folder / "lm")
    rows = [
        {"x": f"{town} film", "label": "ab"[number % 2], "user": user}
        for number, town in enumerate(TOWNS)
        for user in ("anna", "bob")
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def read_task(world, out, text, **more):
    """The task of a YAML text in a folder, with another out folder and other settings."""
    (world / "task.yaml").write_text(text)
    return yaml_task.read(world / "task.yaml").model_copy(update={"out": out, **more})
