"""The command line as a user meets it."""

import contextlib
import json
import logging
import os
import pathlib
import signal
import subprocess
import sys
import time

import forked
import pytest
import tiny

from ptune.answers.label_words import Verbalizer
from ptune.base.ranks import Ranks
from ptune.cli import main as cli
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.storage.prompt_folder import save
from ptune.template.language import Template

TASK = """name: t
template: "{x} {soft:2} {mask}"
labels: {y: Yes, n: No}
lm: ./lm
data: {train: rows.jsonl, dev: rows.jsonl}
"""


def main(capsys, *arguments):
    """Run in this process: status, standard output, standard error."""
    status = 0
    try:
        cli.main(list(map(str, arguments)))
    except SystemExit as end:
        status = end.code or 0
    return status, *capsys.readouterr()


@pytest.fixture
def lm(tmp_path):
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def test_help_and_import_load_no_torch():
    code = """
import sys, ptune
from ptune.cli.main import main
main(["--help"])
for command in sys.argv[1:]:
    try:
        main([command, "--help"])
    except SystemExit as ended:
        assert not ended.code
    assert not {"torch", "transformers"} & set(sys.modules), command
"""
    commands = ["probe", "pretrain", "evaluate", "predict", "inspect", "train"]
    run = [sys.executable, "-c", code, *commands]
    text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert all(f"usage: ptune {command}" in text for command in commands)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["prob"], "no command 'prob'. Did you mean 'probe'"),
        (["inspect", "{x|shortn} {mask}"], "Did you mean 'shorten'"),
        (["probe", "--lm", "/nowhere/lm"], "There is no LM folder /nowhere/lm"),
        (["probe", "--facts", "/nowhere"], "no facts at /nowhere"),
        (["train", "/nowhere.yaml"], "cannot be read"),
        (["evaluate", "/nowhere", "--data", "x.csv"], "There is no folder /nowhere"),
        (["predict", "folder", "rows.csv"], "--data: ptune predict folder --data rows.csv"),
        (["report", "."], "There is no finished run of ptune train in ."),
        (["probe", "--lm", "nosuchlm/"], "There is no LM folder nosuchlm."),
        (["inspect", "{x} {mask}", "--row", "{"], "--row: not valid JSON"),
        (["probe", "--device", "cuda:55"], "is not there"),
    ],
)
def test_faults_end_with_status_2_and_no_traceback(
    capsys, monkeypatch, tmp_path, arguments, message
):
    monkeypatch.chdir(tmp_path)
    status, _, errors = main(capsys, *arguments)
    assert status == 2 and message in " ".join(errors.split()) and "Traceback" not in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "task.yaml"],
        ["train", "task.yaml", "--estimate"],
        ["train", "task.yaml", "--method", "auto"],
        ["compare", "task.yaml"],
        ["probe", "--facts", "/nowhere"],
        ["serve", "/nowhere"],
    ],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    capsys, monkeypatch, tmp_path, arguments
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.yaml").write_text(TASK)
    status, _, errors = main(capsys, *arguments, "--device", "tpu")
    assert status == 2 and "no device 'tpu'" in errors and "This machine has" in errors


@pytest.mark.parametrize("more", [[], ["--estimate"], ["--method", "auto"]])
def test_one_process_shares_no_lm_out(capsys, monkeypatch, tmp_path, more):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "task.yaml").write_text(TASK + "lm_sharding: fsdp\n")
    status, _, errors = main(capsys, "train", "task.yaml", *more)
    assert status == 2
    assert "over several processes, and this is one: start" in " ".join(errors.split())


def test_one_of_several_processes_of_torchrun_is_refused(capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(capsys, "methods")[0] in (0, None)  # set by something else
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    status, _, errors = main(capsys, "methods")
    assert status == 2
    assert "torchrun started 2 processes, and ptune methods runs in one" in " ".join(errors.split())


@pytest.fixture
def several(monkeypatch):
    """The first of two processes that torchrun started."""
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "ptune.base.ranks.joined", lambda *place: contextlib.nullcontext(Ranks(0, 2))
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["table.csv"], "make one of table.csv by ptune new"),
        (["task.yaml", "--estimate"], "--estimate runs in one process"),
        (["task.yaml", "--method", "auto"], "method auto tries one method after the other"),
        (["task.yaml", "--train.batch-size", "auto"], "takes what one process finds free"),
        (["task.yaml", "--method", "fine-tune"], "and fine-tune trains the LM:"),
        (["task.yaml", "--method", "pet"], "and pet trains several models one after the other"),
        (["task.yaml", "--method", "p-tuning", "--device", "cuda:1"], "--device names cuda:1"),
        (
            ["task.yaml", "--prompt-by", "x", "--only", "u", "--lm-sharding", "fsdp"],
            "only adds prompts to those in the out folder",
        ),
    ],
)
def test_what_several_processes_cannot_train_together_is_refused(
    capsys, several, monkeypatch, tmp_path, arguments, message
):
    """Before anything is read: the rows and the LM are nowhere."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("task.yaml").write_text(
        "name: t\nlabels: {a: a, b: b}\ntemplate: '{soft:1} {x} {mask}'\nmethod: p-tuning\n"
        "data: {train: none.csv, unlabeled: none.csv}\nlm: nowhere/\n"
    )
    pathlib.Path("table.csv").write_text("x,label\nu,a\nv,b\n")
    status, _, errors = main(capsys, "train", *arguments)
    assert status == 2 and message in " ".join(errors.split())


@pytest.mark.parametrize("command", [["compare", "task.yaml"], ["probe"]])
def test_processes_that_share_a_gpu_are_refused(capsys, several, command):
    status, _, errors = main(capsys, *command, "--device", "cuda:1")
    assert status == 2 and "--device names cuda:1" in " ".join(errors.split())


def test_a_process_that_is_not_the_first_is_silent(capsys, monkeypatch):
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit):
        cli.main(["methods"])
    sys.stdout.close()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--data.take", "test", "0"],
            "ptune: --data.take.test: Input should be greater than or equal to 1 (it is 0).",
        ),
        (
            ["--data.take", "unlabeled", "3"],
            "ptune: --data: take speaks of unlabeled, of which no file is given.",
        ),
        (
            ["--decoding.texts", "3"],
            "ptune: --decoding: 3 texts a row need sampling, or as many beams.",
        ),
        (
            ["--prompts", "0"],
            "ptune: --prompts: Input should be greater than or equal to 1 (it is 0).",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_told_in_one_sentence(capsys, arguments, message):
    status, out, errors = main(
        capsys,
        "train",
        os.path.join(os.path.dirname(__file__), "../../examples/continents.yaml"),
        *arguments,
    )
    text = " ".join((out + errors).replace("\u2502", " ").split())
    assert status == 2 and message in text
    assert not any(word in text for word in ("pydantic", "input_value", "Value error,"))


def test_an_unknown_option_is_refused(capsys):
    status, out, errors = main(capsys, "probe", "--seed", "3")
    assert status == 2 and "--seeds" in out + errors


def test_a_line_that_is_no_json_is_named(capsys, tmp_path, lm):
    (tmp_path / "rows.jsonl").write_text('{"x": "a", "label": "y"}\n{"x": \n')
    (tmp_path / "task.yaml").write_text(TASK)
    arguments = ["train", tmp_path / "task.yaml", "--out", tmp_path / "out", "--device", "cpu"]
    status, _, errors = main(capsys, *arguments)
    assert status == 2 and "Traceback" not in errors
    assert errors.strip().endswith(
        """not valid JSON (Expecting value: line 2 column 1 (char 7)): '{"x":' (dev)"""
    )
    assert "rows.jsonl, line 2" in errors


def test_ctrl_c_says_how_to_go_on(tmp_path, lm):
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"x": ("great film", "bad film")[i % 2], "label": "yn"[i % 2]}) + "\n"
            for i in range(400)
        )
    )
    (tmp_path / "task.yaml").write_text(
        TASK
        + "allow_unknown: true\n"
        + "train: {epochs: 1000, patience: 0, batch_size: 1, save_seconds: 0}\n"
    )
    process = forked.command(
        ["train", "task.yaml", "--out", "out dir", "--device", "cpu"], tmp_path
    )
    while not (tmp_path / "out dir" / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    errors = process.errors.read_text()
    assert "Traceback" not in errors and errors.strip().endswith(
        "Go on with: ptune train task.yaml --out 'out dir' --device cpu --resume"
    )


def test_full_disk_while_saving(capsys, tmp_path, lm):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", small], capture_output=True
    ).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        (tmp_path / "rows.jsonl").write_text(
            '{"x": "great", "label": "y"}\n{"x": "bad", "label": "n"}\n'
        )
        (tmp_path / "task.yaml").write_text(TASK + "train: {epochs: 1}\n")
        status, _, errors = main(
            capsys, "train", tmp_path / "task.yaml", "--out", small / "out", "--device", "cpu"
        )
        assert status == 2 and "could not be written" in errors and "Traceback" not in errors
    finally:
        subprocess.run(["umount", small], check=True)


def test_json_alone_on_standard_output(capsys, tmp_path, lm):
    (tmp_path / "t.csv").write_text(
        "subject,object\n" + "".join(f"film {i},{['vienna', 'paris'][i % 2]}\n" for i in range(30))
    )
    status, out, _ = main(
        capsys,
        "probe",
        "--lm",
        lm,
        "--facts",
        tmp_path / "t.csv",
        "--manual",
        "[X] is [Y] .",
        "--methods",
        "manual",
        "--json",
        "--allow-unknown",
        "--device",
        "cpu",
        "--out",
        tmp_path / "out",
    )
    assert status == 0
    assert json.loads(out) == json.loads((tmp_path / "out" / "results.json").read_text())


def test_inspect_draws_what_the_lm_sees(capsys, lm):
    status, out, _ = main(
        capsys,
        "inspect",
        "{soft:2} {subject} {sep} is {mask}",
        "--lm",
        lm,
        "--row",
        '{"subject": "Vienna"}',
    )
    assert (
        status == 0
        and "soft token 2" in out
        and "'vienna'" in out
        and "the answer is read here" in out
        and "B" in out
    )
    picture = out[out.index("who (down)") :].splitlines()[1:9]
    assert [line.split()[-8:] for line in picture] == [["x", "o", "o", "x", "x", "x", "x", "x"]] * 8


def test_inspect_draws_a_causal_triangle(capsys, tmp_path):
    network, tokenizer = tiny.tiny("gpt2")
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    _, out, _ = main(capsys, "inspect", "{soft:1} is {soft:1} {mask} {soft:2}", "--lm", tmp_path)
    assert "Left out, since a causal LM cannot see it: {soft:2}" in out
    rows = [line.split()[-3:] for line in out[out.index("who (down)") :].splitlines()[1:4]]
    assert rows == [["o", ".", "."], ["o", "x", "."], ["o", "x", "o"]]


def test_inspect_shows_what_a_prompt_has_learned(capsys, lm, tmp_path):
    from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer, save

    model = PromptModel(LanguageModel.load(lm, device="cpu"))
    model.add(
        Task(
            "t",
            Template.parse('{soft:"vienna euro"} {x} {mask}'),
            Verbalizer.from_words({"y": "Yes", "n": "No"}),
            encoder="table",
        )
    )
    save(model, tmp_path / "prompt")
    _, out, _ = main(capsys, "inspect", tmp_path / "prompt", "--words", "1")
    table = out[out.index("nearest word") :]
    assert "vienna" in table and "euro" in table


def test_a_reader_that_has_had_enough(lm):
    process = subprocess.Popen(
        [sys.executable, "-m", "ptune", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0
    process.stderr.close()


def test_version(capsys):
    for name in ("--version", "version"):
        assert main(capsys, name)[1].startswith("ptune 0.")
    assert main(capsys, "help")[1] == main(capsys, "--help")[1]


def test_one_method_is_shown_with_its_settings(capsys):
    assert (
        "train:\n  optimiser: adam\n  learning_rate: 0.001"
        in main(capsys, "methods", "p-tuning")[1]
    )
    status, _, errors = main(capsys, "methods", "ptuning")
    assert status == 2 and "Did you mean 'p-tuning'" in errors
    assert os.path.exists(cli.__file__)


def test_warnings_of_torchao_are_not_printed(capsys, caplog):
    """transformers imports it where it is installed, and it warns of libraries that it lacks."""
    with caplog.at_level(logging.WARNING, logger="torchao"):
        main(capsys, "predict", "nothing", "--data", "rows.jsonl")
        logging.getLogger("torchao.ops").warning("a library is missing")
        assert not caplog.records
        logging.getLogger("torchao.ops").error("a fault")
        assert [record.message for record in caplog.records] == ["a fault"]


def test_what_is_loaded_to_answer_keeps_quiet_and_is_no_more_than_that():
    code = """
import json, sys
from ptune.cli.main import main
main(["inspect", "{soft:2} {x} {mask}"])
import ptune.experiments.answering.predict, ptune.storage.peft_format
print(json.dumps(list(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "", "of the libraries, only errors are news"
    assert not {"matplotlib", "peft"} & set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inspect", "{x} " * 100 + "{mask}"], "tokens even when"),
        (["inspect", "{soft:1000000000} {x} {mask}"], "10,000 are the most"),
        (["inspect", "{x} {mask}", "--row", "[" * 100_000], "--row: JSON that is nested too deep"),
        (["inspect", "{x} {mask}", "--row", '{"x": "\\ud800"}'], "half of a character"),
        (["inspect", "{soft:2} {x} {mask}", "--words", "1000000"], ""),
        (["inspect", "{x} {mask}", "--device", "meta"], "meta"),
        (["train", "a\0b.yaml"], "NUL character"),
        (["train", "a\ud800.yaml"], "holds \\ud800, half of a character"),
        (["train", "a" * 5000], "too long"),
        (["predict", "a" * 5000, "--data", "x"], "too long"),
        (["predict", "a\0b", "--data", "x"], "a\0b"),
        (["compare"], "at least 1 item"),
        (["report"], "no run is named"),
        (["pretrain", "--out", "x"], "texts"),
        (["report", "a" * 5000], "too long"),
        (["probe", "--facts", "a" * 5000], "too long"),
        (["probe", "--vocab", "a\0b"], "a\0b"),
        (["import", "a\0b", "c", "--lm", "lm", "--template", "{x} {mask}"], "a\0b"),
    ],
)
def test_odd_arguments_end_with_a_message_or_well(
    capsys, lm, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    status, output, errors = main(
        capsys, *arguments, *(["--lm", "lm"] if arguments[0] in ("inspect", "probe") else [])
    )
    plain = (output + errors).lower()
    for nul in ("\0", "\\x00", "\u2400"):
        plain = plain.replace(nul, "")
    assert status == (2 if message else 0) and message.lower().replace("\0", "") in plain


def test_a_pipe_in_the_place_of_a_prompt_is_not_waited_for(capsys, tmp_path):
    os.mkfifo(tmp_path / "prompt.json")
    status, _, errors = main(capsys, "predict", tmp_path, "--data", "x.jsonl")
    assert status == 2 and "is a pipe or a device" in errors


@pytest.mark.parametrize(
    "arguments",
    [
        "predict prompt --data FILE.csv",
        "predict prompt --data FILE.jsonl",
        "train FILE.yaml --out out",
        "train FILE.csv --out out",
        "train task.yaml --out out --data.test FILE.csv",
        "new FILE.csv --out task.yaml",
        "probe --facts FILE.csv --out out",
        "probe --vocab FILE.txt --out out",
        "probe --vocab FILE.json --out out",
        "import FILE.npy out --lm lm --template={soft:2}{text}{mask}",
        "pretrain --texts FILE.txt --out out",
        "doctor FILE.gguf",
        "doctor folder",
    ],
)
def test_a_pipe_is_read_by_no_command(capsys, lm, tmp_path, monkeypatch, arguments):
    status, errors = answer_to("pipe", capsys, lm, tmp_path, monkeypatch, arguments)
    assert status == 2 and "ptune: " in errors


@pytest.mark.parametrize("end", ["loop", "/dev/zero"])
@pytest.mark.parametrize("arguments", ["new FILE.csv --out task.yaml", "train FILE.yaml --out out"])
def test_devices_and_loops_are_read_by_no_command(
    capsys, lm, tmp_path, monkeypatch, arguments, end
):
    status, errors = answer_to(end, capsys, lm, tmp_path, monkeypatch, arguments)
    assert status == 2 and "ptune: " in errors


def answer_to(end, capsys, lm, tmp_path, monkeypatch, arguments):
    """What a command says to a file that is a pipe, a device or a loop of links."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("folder").mkdir()
    if "prompt" in arguments:
        model = PromptModel(LanguageModel.load(lm))
        words = Verbalizer.from_words({"a": "great", "b": "bad"})
        model.add(Task("t", Template.parse("{soft:1} {text} {mask}"), words))
        save(model, "prompt")
    pathlib.Path("task.yaml").write_text("name: t\ntemplate: '{soft:1} {text} {mask}'\n")
    words = arguments.split()
    for file in [word for word in words if word.startswith("FILE.")] or ["folder/tokenizer.json"]:
        if end == "pipe":
            os.mkfifo(file)
        else:
            os.symlink(pathlib.Path(file).absolute() if end == "loop" else end, file)
    status, _, errors = main(capsys, *words)
    return status, errors


def test_a_full_disk_and_closed_streams_end_with_a_message(lm, tmp_path, monkeypatch):
    def write_to_a_full_disk():
        sys.stdout = open("/dev/full", "w", encoding="ascii")  # noqa: SIM115
        cli.main(["inspect", "{x} {mask} \u4e2d", "--lm", str(lm)])

    process = forked.Forked(write_to_a_full_disk, tmp_path)
    assert process.wait() == 2
    errors = process.errors.read_text()
    assert "No space left" in errors and "Traceback" not in errors
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    cli.main(["inspect", "{x} {mask}", "--lm", str(lm)])
    sys.stdout.close()
    sys.stderr.close()


EVIL = "\x1b]0;owned\x07\x9b31m\u202e"


@pytest.mark.parametrize(
    "arguments",
    [
        ["probe", f"--{EVIL}"],
        ["probe", "--seeds", EVIL],
        ["predict", "p", EVIL],
        ["train", "t.yaml", "--help"],
        ["train", "t.yaml", f"--{EVIL}"],
        [EVIL],
        ["new", EVIL],
    ],
)
def test_messages_about_arguments_hold_nothing_to_obey(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    text = TASK.replace("name: t", 'name: "\\e]0;owned\\a\\u009b\\u202e"')
    pathlib.Path("t.yaml").write_text(text)
    _, output, errors = main(capsys, *arguments)
    assert not set(EVIL) & {"\x1b", "\x07", "\x9b", "\u202e"} & set(output + errors)
    assert "owned" in output + errors
