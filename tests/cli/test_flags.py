"""Options that a command does not have or that stand twice, and what is refused before a file is
written."""

import pathlib
import subprocess
import sys

import pytest

from ptune.cli.commands import OPTIONS
from ptune.cli.main import main
from ptune.cli.parsing.flags import flags_of
from ptune.cli.parsing.parse import parse
from ptune.errors import ConfigError, StoreError
from ptune.runs.folder import check_empty, held
from ptune.tasks.schema import TaskConfig

ROWS = "text,label\n" + "".join(f"film {i} is {'bd'[i % 2]},{'yn'[i % 2]}\n" for i in range(12))


def refusal(capsys, *arguments):
    """What standard error holds of a command that ends with status 2."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("ptune: ") and errors.count("\n") == 1, errors
    return errors


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("plain.csv").write_text(ROWS)
    return tmp_path


@pytest.mark.parametrize("command", sorted(OPTIONS.keys() - {"train"}))
def test_the_options_are_those_of_the_help(capsys, command):
    with pytest.raises(SystemExit):
        parse(OPTIONS[command], ["--help"], "ptune x")
    words = capsys.readouterr().out.replace(",", " ").replace("│", " ").split()
    helped = {word for word in words if word.startswith("--")}
    for flag in flags_of(OPTIONS[command]):
        assert flag.name in helped, flag


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["predict", "mo", "--data", "a.csv", "--data=b.csv"], "--data is given twice: give it"),
        (["new", "t.csv", "--out", "a.yaml", "--out", "b.yaml"], "--out is given twice"),
        (["train", "trec", "--train.steps", "1", "--train.steps", "2"], "--train.steps is given"),
        (["train", "trec", "--max_length", "9", "--max-length", "8"], "--max-length is given"),
        (["train", "trec", "--log", "jsonl", "--log", "wandb"], "behind it: --log A B"),
        (["train", "t.csv", "--label", "a", "--label", "b"], "--label is given twice"),
        (["probe", "--json", "--no-json"], "--json and --no-json are one option"),
        (["ask", "x", "y", "-d", "a", "--document", "b"], "-d and --document are one option"),
    ],
)
def test_an_option_that_is_given_twice_is_refused(capsys, folder, arguments, message):
    pathlib.Path("t.csv").write_text(ROWS)
    assert message in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["new", "-odd.csv"], "no option -odd.csv. A file of that name is given as ./-odd.csv."),
        (["train", "-odd.csv"], "no option -odd.csv. A file of that name is given as ./-odd.csv."),
        (["new", "--help-me"], "no option --help-me. Did you mean '--help'?"),
        (["new", "plain.csv", "--seed"], "--seed needs a value."),
        (["new"], "ptune new lacks PATH (The table"),
        (["export"], "export lacks PATH (The folder of a saved prompt.) and PATH (Where it goes"),
        (["push"], "ptune push lacks PATH (The folder of a saved prompt, or of a run with"),
        (["push", "x"], "ptune push lacks STR (The repository: owner/name."),
        (["import", "x", "y"], "ptune import lacks --lm (The LM that it was trained for.) and --t"),
        (
            ["train", "trec", "--tune", "x"],
            "--tune takes prompt, head, lm, both, nothing or None, and it is 'x'.",
        ),
        (["train", "trec", "x.csv"], "ptune train trec has no place for x.csv."),
    ],
)
def test_what_cannot_be_parsed_is_refused_in_a_sentence(capsys, folder, arguments, message):
    assert message in refusal(capsys, *arguments)


def test_a_truth_is_written_as_in_yaml_too():
    for word, value in {"true": True, "True": True, "false": False, "False": False}.items():
        for written in (["--decoding.sample", word], [f"--decoding.sample={word}"]):
            parsed = parse(OPTIONS["generate"], ["true", *written], "ptune generate")
            assert parsed.decoding.sample is value and str(parsed.prompt) == "true"
        gated = parse(TaskConfig, ["--name", "true", "--prefix.gates", word], "ptune train")
        assert gated.prefix.gates is value and gated.name == "true"


@pytest.mark.parametrize("before", [{}, {"test": 9}, {"train": 7, "unlabeled": 8}])
@pytest.mark.parametrize(
    "written",
    [
        ["--data.take", "train", "50", "test", "3"],
        ["--data.take.train", "50", "--data.take.test=3"],
        ["--data.take.test", "3", "--name", "x", "--data.take", "train", "50"],
    ],
)
def test_a_mapping_is_written_in_both_forms_whatever_the_task_has(before, written):
    files = dict.fromkeys(("train", "test", "unlabeled"), "rows.csv")
    task = TaskConfig.model_validate({"name": "t", "data": {**files, "take": before}})
    parsed = parse(TaskConfig, written, "ptune train", default=task)
    assert parsed.data.take == {**before, "train": 50, "test": 3}
    assert task.data.take == before


def test_labels_are_written_in_both_forms():
    task = TaskConfig.model_validate({"name": "t", "labels": {"0": "bad", "1": ["good", "fine"]}})
    for written in (
        ["--labels", "0", "awful", "2", "so-so"],
        ["--labels.0=awful", "--labels.2=so-so"],
    ):
        parsed = parse(TaskConfig, written, "ptune train", default=task)
        expected = {"0": "awful", "1": ["good", "fine"], "2": "so-so"}
        assert [*parsed.labels.items()] == [*expected.items()]


@pytest.mark.parametrize("before", [{}, {"test": 9}])
@pytest.mark.parametrize(
    "written, message",
    [
        (["--data.take.tets", "3"], "--data.take has no tets. Did you mean 'test'?"),
        (["--data.take.train"], "--data.take.train needs a value"),
        (["--data.take.train", "--name", "x"], "--data.take.train needs a value"),
    ],
)
def test_what_is_no_key_of_a_mapping_is_refused(before, written, message, capsys):
    task = TaskConfig.model_validate(
        {"name": "t", "data": {"train": "a.csv", "test": "b.csv", "take": before}}
    )
    with pytest.raises((ConfigError, SystemExit)) as refused:
        parse(TaskConfig, written, "ptune train", default=task)
    assert message in f"{refused.value} {capsys.readouterr().err}"


def test_what_looks_like_an_option_may_be_a_value(capsys, folder):
    with pytest.raises(SystemExit):
        main(["train", "trec", "--template=--x {mask}", "--data.take.test", "3", "--seeds"])
    assert "no option --seeds" in capsys.readouterr().err
    assert "There is no device" in refusal(
        capsys, "train", "trec", "--data.take.test", "3", "--out=-x", "--device", "tpu"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "plain.csv", "--train.stepz", "2"],
        ["train", "plain.csv", "num.csv"],
        ["train", "plain.csv", "--tune", "x"],
        ["train", "plain.csv", "--text"],
        ["train", "plain.csv", "--method", "p-tunning"],
        ["new", "plain.csv", "--method", "p-tunning"],
        ["new", "plain.csv", "--out", "odd.json"],
    ],
)
def test_a_refused_option_of_a_table_writes_nothing(capsys, folder, arguments):
    refusal(capsys, *arguments)
    assert [path.name for path in folder.iterdir()] == ["plain.csv"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--out", "full/odd.txt"], "full/odd.txt is a file, and full/odd.txt is to be a folder"),
        (["--out", "full"], "full holds odd.txt, which this run did not write"),
        (["--device", "tpu"], "There is no device 'tpu'"),
        (["--resume"], "There is no run of ptune train in plain-trained to go on with"),
        (["--log", "trackio"], "--log trackio needs the package trackio"),
    ],
)
def test_where_a_table_cannot_be_trained_is_told_before_its_task_is_written(
    capsys, folder, monkeypatch, arguments, message
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    pathlib.Path("full").mkdir()
    pathlib.Path("full/odd.txt").write_text("x")
    assert message in refusal(capsys, "train", "plain.csv", *arguments)
    assert sorted(path.name for path in folder.rglob("*")) == ["full", "odd.txt", "plain.csv"]


def test_a_table_is_trained_after_a_refusal_that_came_late(capsys, folder):
    with pytest.raises(SystemExit):
        main(["train", "plain.csv", "--text=text", "--out", "t", "--tune", "lm"])
    assert pathlib.Path("t.yaml").exists() and "tune" in capsys.readouterr().err
    refused = ["train", "plain.csv", "--text", "text", "--out", "t", "--tune", "both"]
    with pytest.raises(SystemExit):
        main(refused)
    assert "there already" not in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "plain.csv", "--out", "t", "--method", "manual"])
    assert "t.yaml is there already" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["afile", "afile/within"])
def test_a_file_in_the_place_of_a_folder_is_named(folder, out):
    pathlib.Path("afile").write_text("x")
    message = f"^afile is a file, and {out} is to be a folder: choose another.$"
    with pytest.raises(StoreError, match=message), held(out):
        pass
    with pytest.raises(StoreError, match=message):
        check_empty(out)


def test_ctrl_c_while_the_command_line_is_imported_leaves_no_traceback():
    code = """
import runpy, sys
class Stop:
    def find_spec(self, name, *rest):
        if name == "ptune.cli.commands":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
runpy.run_module("ptune", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == "\nptune: stopped.\n", done.stderr
