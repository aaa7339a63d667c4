"""A task's configuration, resolved into plain values."""

import pathlib

import pytest

from ptune.errors import ConfigError
from ptune.settings import DecodingConfig
from ptune.tasks.resolved import resolve
from ptune.tasks.rows import data_sets
from ptune.tasks.schema import ReadingConfig, TaskConfig

TASK = TaskConfig(name="t", template="{soft:2} {x} {mask}", labels={"a": "great", "b": "bad"})
ANY = "a value that stands for any"
# fields that are of the method, the LM or the run, or that are read before
OF_OTHER_PARTS = (
    *("method", "preset", "minutes", "train", "pet", "allow_unknown"),
    *("lm", "device", "dtype", "continue_from", "transfer", "lm_sharding"),
    *("out", "resume", "only", "log", "title", "version"),
    *("chat", "code"),
)


@pytest.mark.parametrize("name", sorted(TaskConfig.model_fields.keys() - {*OF_OTHER_PARTS}))
def test_what_a_task_says_of_its_form_and_its_prompts_is_kept(name):
    given = getattr(TASK, name)
    if hasattr(given, "model_copy"):  # settings with a subject of their own stay as they are
        field = next(iter(type(given).model_fields))
        changed = TASK.model_copy(update={name: given.model_copy(update={field: ANY})})
    else:
        changed = TASK.model_copy(update={name: ANY})
    if name == "data":
        changed = TASK.model_copy(update={name: given.model_copy(update={"label_separator": ANY})})
    assert ANY in repr((resolve.task_form(changed), resolve.learning(changed)))


def test_the_parts_of_a_training_are_what_the_task_says():
    config = TaskConfig.model_validate(
        {
            **TASK.model_dump(exclude_unset=True),
            "method": "fine-tune",
            "reading": {"by": "soft"},
            "train": {"seed": 5, "steps": 7},
            "prefix": {"hidden": 3},
            "encoder": "mlp",
            "lm": "small",
            "dtype": "float32",
            "out": "there",
            "title": "Mine",
            "log": ["jsonl"],
            "allow_unknown": True,
        }
    )
    parts = resolve.training(config)
    assert parts.method.tune == "both", "a trained reader is trained with the LM"
    assert (parts.method.encoder, parts.method.hidden) == ("mlp", 3)
    assert (parts.learning.seed, parts.train.seed, parts.train.steps) == (5, 5, 7)
    assert (parts.source.name, parts.source.dtype) == ("small", "float32")
    assert (parts.output.folder, parts.title) == (pathlib.Path("there"), "Mine")
    assert parts.output.log == ("jsonl",)
    assert parts.allow_unknown and parts.settings == config.model_dump(mode="json")
    assert not {"lm", "dtype", "out", "title", "device", "log"} & parts.deciding.keys()
    assert parts.deciding["train"] == {"steps": 7, "seed": 5}


def test_files_are_hashed_when_a_run_is_claimed_and_not_at_the_door(tmp_path):
    data = {"train": tmp_path / "rows.csv"}
    config = TASK.model_copy(update={"data": TASK.data.model_copy(update=data)})
    assert resolve.training(config).deciding["data"]["train"] == tmp_path / "rows.csv"


@pytest.mark.parametrize("door", [resolve.training, resolve.selection])
def test_a_data_set_is_read_as_files(door, monkeypatch):
    file = pathlib.Path("train.jsonl")
    monkeypatch.setattr(data_sets, "as_files", lambda data: data.model_copy(update={"train": file}))
    assert door(TASK).data.train == file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "pet", "continue_from": "p"}, "pet trains its members anew"),
        ({"minutes": 2.0}, "minutes is what method auto may take"),
        ({"only": ("a",)}, "only names values of prompt_by"),
        ({"prompt_by": "user", "combine": "vote"}, "combine: vote says how the members"),
        ({"combine": "weighted"}, "give data.dev"),
        ({"combine": "neighbours"}, "t has one with p-tuning: give it several patterns"),
        ({"combine": "neighbours", "patterns": ("{x} {mask}",) * 2, "method": "pet"}, "t has one"),
        ({"combine": "neighbours", "prompts": 2}, "t has none: give data.train"),
        ({"combine": "neighbours", "labels": {}}, "the answers of t are texts"),
        (
            {"reading": ReadingConfig(by="weighted-words"), "method": "manual"},
            "manual trains no such weights",
        ),
        (
            {"reading": ReadingConfig(by="weighted-words"), "method": "pet"},
            "pet trains no such weights",
        ),
        (
            {"reading": ReadingConfig(by="weighted-words", aggregate="max")},
            "reading.aggregate: max is another way",
        ),
        ({"neighbours": 3}, "of combine: neighbours, and the task has combine: mean"),
        ({"prompts": 2, "method": "manual"}, "2 prompts of different seeds"),
        ({"prompts": 2, "method": "fine-tune"}, "An ensemble goes with a method that trains"),
        ({"log": ("jsonl",), "method": "manual"}, "log tells .* manual trains nothing"),
        ({"parts": "part"}, "this task has labels or places in its rows: leave parts out"),
        ({"stop_by": "bleu"}, "stop_by names the figure of written answers"),
        ({"target_length": 5}, "target_length bounds what of a right text"),
        ({"smoothing": 0.1}, "smoothing smooths the loss of written answers"),
        ({"metric_words": "zh"}, "metric_words says how written answers are split"),
        ({"decoding": DecodingConfig(beams=2)}, "decoding says how answers are written"),
        ({"patterns": ("{x} {mask}",), "template": "", "method": "p-tuning"}, "has no template"),
        ({"template": "{soft:2} {x} {label|lower} {mask}"}, "shows the LM the field 'label'"),
        ({"patterns": ("{x} {mask}", "{y} {mask}"), "target": "y"}, "shows the LM the field 'y'"),
        ({"reading": ReadingConfig(domain="{label} {mask}")}, "shows the LM the field 'label'"),
        ({"labels": {}, "target": "x"}, "shows the LM the field 'x', which holds the right answer"),
        ({"prompt_by": "label"}, "prompt_by and target are both 'label'"),
    ],
)
def test_what_cannot_go_together_is_refused_at_the_door(changes, message):
    with pytest.raises(ConfigError, match=message):
        resolve.training(TASK.model_copy(update=changes))
