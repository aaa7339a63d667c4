"""Export and import from the command line; the forms themselves are tested in test_peft_format and
test_google_format."""

import inspect
import json
import pathlib
import re

import pytest
import tiny
import torch

from ptune.base import files
from ptune.cli import main
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PrefixSettings, PromptModel, Task
from ptune.prompts import encoders
from ptune.settings import BUILTIN_LMS
from ptune.storage import google_format, peft_format, prompt_folder
from ptune.storage.options import ImportConfig
from ptune.template.language import Template

ROWS = [{"x": "Vienna", "text": "great"}]


@pytest.fixture
def lm(tmp_path):
    network, tokenizer = tiny.tiny("gpt2")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return LanguageModel.load(tmp_path / "lm", device="cpu")


def saved(lm, tmp_path, template):
    model = PromptModel(lm)
    model.add(
        Task(
            "t",
            Template.parse(template),
            verbalizer=None,
            target="text",
            encoder="table",
            prefix=PrefixSettings(0),
        )
    )
    prompt_folder.save(model, tmp_path / "prompt")
    return model


def run(*arguments):
    main.main([str(argument) for argument in arguments])


def test_the_template_that_the_help_of_import_shows_is_taken(lm, tmp_path, capsys):
    template = re.search(r'in front: "([^"]+)"', inspect.getsource(ImportConfig))[1]
    saved(lm, tmp_path, "{soft:3} {x} = {mask}")
    run("export", tmp_path / "prompt", tmp_path / "peft")
    arguments = ["--lm", tmp_path / "lm", "--template", template]
    run("import", tmp_path / "peft", tmp_path / "back", *arguments)
    assert f"{{soft:3}}{template}" in capsys.readouterr().out


@pytest.mark.parametrize("front", ["{soft:3}", "{prefix:3}"])
def test_out_to_peft_and_back(lm, tmp_path, front, capsys):
    model = saved(lm, tmp_path, front + " {x} = {mask}")
    run("export", tmp_path / "prompt", tmp_path / "peft")
    assert "peft_type" in json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    run(
        "import",
        tmp_path / "peft",
        tmp_path / "back",
        "--lm",
        tmp_path / "lm",
        "--template",
        " {x} = {mask}",
    )
    imported = prompt_folder.load(tmp_path / "back", lm)
    torch.testing.assert_close(
        imported.losses(imported.encode(0, ROWS)),
        model.losses(model.encode(0, ROWS)),
        atol=1e-6,
        rtol=1e-6,
    )
    shown = capsys.readouterr().out
    assert front in shown
    assert "a prefix is left out" in shown


@pytest.mark.parametrize("soft", ["{soft:4}", "{soft:1@a} {soft:3@b}"])
def test_out_to_google_and_back(lm, tmp_path, soft):
    model = saved(lm, tmp_path, soft + " {x} = {mask}")
    run("export", tmp_path / "prompt", tmp_path / "p.npy", "--to", "google")
    assert torch.equal(
        google_format.read(tmp_path / "p.npy"), encoders.bake(model.bank.encoders[0])
    )
    run(
        "import",
        tmp_path / "p.npy",
        tmp_path / "back",
        "--lm",
        tmp_path / "lm",
        "--template",
        " {x} = {mask}",
    )
    imported = prompt_folder.load(tmp_path / "back", lm)
    assert torch.equal(
        imported.losses(imported.encode(0, ROWS)), model.losses(model.encode(0, ROWS))
    )


@pytest.mark.parametrize(
    "template, to, message",
    [
        ("{prefix:2} {x} = {mask}", "google", "has a deep prefix"),
        ("{x} = {mask}", "google", "has no soft tokens"),
        ("{x} {soft:2} = {mask}", "peft", "front"),
        ("{soft:2} {x} {soft:2} = {mask}", "google", "and Google's form has each of them once, in"),
        ("so {soft:2} {x} = {mask}", "google", "in front of everything else"),
        ("{soft:2@a} {soft@a} {x} = {mask}", "google", "in front of everything else"),
        ("{soft:2@a} {x} {soft@a} = {mask}", "google", "in front of everything else"),
    ],
)
def test_what_cannot_be_said(lm, tmp_path, capsys, template, to, message):
    saved(lm, tmp_path, template)
    with pytest.raises(SystemExit):
        run("export", tmp_path / "prompt", tmp_path / "out", "--to", to)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["google", "peft"])
def test_values_that_no_lm_can_take_are_refused_by_import_too(lm, tmp_path, capsys, form):
    model = saved(lm, tmp_path, "{soft:3} {x} = {mask}")
    if form == "google":
        source = tmp_path / "p.npy"
        google_format.write(source, torch.full((3, lm.width), 1e30))
    else:
        source = tmp_path / "peft"
        peft_format.export(model, source)
        values = files.read_tensors(source / peft_format.WEIGHTS)
        too_large = {name: torch.full_like(value, 1e30) for name, value in values.items()}
        files.write_tensors(source / peft_format.WEIGHTS, too_large)
    arguments = ("--lm", tmp_path / "lm", "--template", " {x} = {mask}")
    with pytest.raises(SystemExit):
        run("import", source, tmp_path / "out", *arguments)
    assert "too large for any LM (1e+30)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_prompt_of_another_width(lm, tmp_path, capsys):
    google_format.write(tmp_path / "p.npy", torch.zeros(5, 7))
    with pytest.raises(SystemExit):
        run(
            "import",
            tmp_path / "p.npy",
            tmp_path / "out",
            "--lm",
            tmp_path / "lm",
            "--template",
            " {x} = {mask}",
        )
    assert "is 7 wide" in capsys.readouterr().err


def test_the_template_that_the_help_shows_is_taken(lm, tmp_path):
    saved(lm, tmp_path, "{soft:4} {table} = {mask}")
    run("export", tmp_path / "prompt", tmp_path / "p.npy", "--to", "google")
    shown = re.search('"(.+?)"', ImportConfig.model_fields["template"].description)[1]
    run(
        "import",
        tmp_path / "p.npy",
        tmp_path / "back",
        "--lm",
        tmp_path / "lm",
        "--template",
        shown,
    )
    assert prompt_folder.load(tmp_path / "back", lm).tasks[0].task.template.fields


def test_peft_finds_a_local_lm_from_any_folder(lm, tmp_path, monkeypatch):
    """Its settings name the LM as PEFT reads it: a relative path would be asked of the hub from
    elsewhere."""
    monkeypatch.chdir(tmp_path)
    for source, named in (
        ("./lm", str(tmp_path / "lm")),
        ("lm", str(tmp_path / "lm")),
        *((name, str(folder)) for name, folder in BUILTIN_LMS.items()),
        ("some/name", "some/name"),
    ):
        model = PromptModel(lm)
        model.add(
            Task(
                "t",
                Template.parse("{soft:3} {x} = {mask}"),
                verbalizer=None,
                target="text",
                encoder="table",
            )
        )
        monkeypatch.setattr(lm, "source", source)
        peft_format.export(model, tmp_path / "out")
        assert pathlib.Path(
            json.loads((tmp_path / "out" / "adapter_config.json").read_text())[
                "base_model_name_or_path"
            ]
        ) == pathlib.Path(named)


def test_nothing_of_another_run_is_overwritten(lm, tmp_path, capsys):
    saved(lm, tmp_path, "{soft:4} {x} = {mask}")
    before = (tmp_path / "prompt" / "prompt.json").read_bytes()
    for out in ("one.npy", "two.npy"):
        run("export", tmp_path / "prompt", tmp_path / out, "--to", "google")
    for arguments, message in [
        (("export", tmp_path / "prompt", tmp_path / "prompt"), "which this run did not write"),
        (
            ("export", tmp_path / "prompt", tmp_path / "one.npy", "--to", "google"),
            "is there already",
        ),
        (
            (
                "import",
                tmp_path / "one.npy",
                tmp_path / "prompt",
                "--lm",
                tmp_path / "lm",
                "--template",
                " {x} = {mask}",
            ),
            "which this run did not write",
        ),
        (
            (
                "import",
                tmp_path / "one.npy",
                tmp_path / "lm",
                "--lm",
                tmp_path / "lm",
                "--template",
                " {x} = {mask}",
            ),
            "which this run did not write",
        ),
    ]:
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "prompt" / "prompt.json").read_bytes() == before
    run(
        "import",
        tmp_path / "one.npy",
        tmp_path / "new",
        "--lm",
        tmp_path / "lm",
        "--template",
        " {x} = {mask}",
    )
    with pytest.raises(SystemExit):
        run(
            "import",
            tmp_path / "two.npy",
            tmp_path / "new",
            "--lm",
            tmp_path / "lm",
            "--template",
            " {x} : {mask}",
        )
    assert "begun with another template" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "command",
    [
        ["import", "prompt.npy", "PLACE", "--lm", "lm", "--template", "{text} ="],
        ["export", "prompt", "PLACE", "--to", "peft"],
    ],
)
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_file_where_the_folder_goes_is_told_before_an_lm_is_loaded(
    tmp_path, monkeypatch, capsys, command, place
):
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LanguageModel, "load", None)
    monkeypatch.setattr(prompt_folder, "load", None)
    with pytest.raises(SystemExit):
        main.main([place if value == "PLACE" else value for value in command])
    assert "file is a file" in capsys.readouterr().err
