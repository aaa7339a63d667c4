"""Data sets of the library ``datasets``: their splits are read as files are."""

import json

import pytest

from ptune.cli import main
from ptune.errors import ConfigError, DataError
from ptune.tasks import yaml_task
from ptune.tasks.rows import data_sets
from ptune.tasks.schema import DataConfig

ROWS = [
    {"text": f"{word} film {number}", "label": int(word == "great"), "year": 2000 + number}
    for number in range(10)
    for word in ("great", "terrible")
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    return tmp_path


@pytest.fixture
def datasets(cache, monkeypatch):
    library = pytest.importorskip("datasets", reason="the library datasets is not installed")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    return library


@pytest.fixture
def folder(cache, datasets):
    """A folder of files, as a data set of the hub is."""
    (cache / "films").mkdir()
    for split, rows in (("train", ROWS), ("test", ROWS[:4])):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (cache / "films" / f"{split}.jsonl").write_text(lines)
    return cache / "films"


def rows_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_splits_and_shares_are_files(folder):
    data = data_sets.as_files(
        DataConfig(dataset=str(folder), train="train[:50%]", dev="train[50%:]", test="test")
    )
    assert rows_in(data.train) == ROWS[:10] and rows_in(data.dev) == ROWS[10:]
    assert rows_in(data.test) == ROWS[:4] and data.dataset is None
    assert data_sets.as_files(data) is data


def test_columns_and_streams(folder):
    data = data_sets.as_files(
        DataConfig(dataset=str(folder), split="train[2:5]", columns=["text"], streaming=True)
    )
    assert rows_in(data.train) == [{"text": row["text"]} for row in ROWS[2:5]]
    assert data.columns is None


def test_a_folder_that_was_saved_to_disk(cache, datasets):
    whole = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    whole.save_to_disk(str(cache / "saved"))
    data = data_sets.as_files(DataConfig(dataset=str(cache / "saved"), train="train[:10%]"))
    assert rows_in(data.train) == ROWS[:2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "trian"}, "trian"),
        ({"train": "train", "columns": ["txt"]}, "no column 'txt'. Did you mean 'text'"),
        ({"train": "train[:10%]", "streaming": True}, "cannot be streamed"),
    ],
)
def test_what_a_data_set_does_not_have_is_one_clear_message(folder, settings, message):
    with pytest.raises(DataError) as error:
        data_sets.as_files(DataConfig(dataset=str(folder), **settings))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_could_hold_code_are_refused(cache, datasets):
    (cache / "tars").mkdir()
    (cache / "tars" / "train.tar").write_bytes(b"")
    with pytest.raises(DataError, match="webdataset"):
        data_sets.as_files(DataConfig(dataset=str(cache / "tars"), train="train"))


def test_a_data_set_that_is_not_there_is_told(cache, datasets):
    with pytest.raises(DataError, match="nobody/nothing"):
        data_sets.as_files(DataConfig(dataset="nobody/nothing", train="train"))


def test_without_the_library_it_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"pip install 'ptune\[data\]'"):
        data_sets.as_files(DataConfig(dataset="films", train="train"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": "a.csv", "streaming": True}, "streaming is of a data set"),
        ({"dataset": "a", "split": "train", "train": "train"}, "give one of them"),
    ],
)
def test_settings_that_do_not_go_together(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_a_task_on_a_data_set_is_trained_and_its_prompt_reads_files(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "task.yaml").write_text(
        """
name: films
template: "{soft:2} {text|shorten} It was {mask} ."
labels: {0: terrible, 1: great}
data: {dataset: films, split: "train[:80%]", dev: "train[80%:]", test: test, columns: [text, label]}
train: {steps: 2}
out: out
"""
    )
    main.main(["train", "task.yaml"])
    assert yaml_task.read(folder.parent / "task.yaml").data.dataset == str(folder)
    capsys.readouterr()
    main.main(["evaluate", "out", "--data", "films/test.jsonl"])
    assert "4 rows" in capsys.readouterr().out
