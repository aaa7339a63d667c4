"""What ``ptune doctor`` says."""

import importlib.util

import pytest
import tiny
import torch
import transformers

from ptune.cli import doctor
from ptune.cli.main import main


@pytest.fixture
def folder(tmp_path):
    network, tokenizer = tiny.tiny("bart")
    network.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return tmp_path / "lm"


def test_versions_device_and_what_could_be_installed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name == "gguf" else find(name)
    )
    main(["doctor", "--device", "cpu"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["transformers", transformers.__version__] in lines and [
        "torch",
        torch.__version__,
    ] in lines
    assert ["device", "cpu", "(1", "thread),", "in", "float32"] in lines
    assert [
        "gguf",
        "not",
        "installed",
        "for",
        "LMs",
        "in",
        ".gguf",
        "files:",
        "pip",
        "install",
        "'ptune[gguf]'",
    ] in lines
    assert not any("packing" in line for line in lines)


def test_what_an_lm_can_do(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    main(["doctor", str(folder), "--device", "cpu"])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert f"{folder}: BartForConditionalGeneration (encoder-decoder)" in lines
    assert "left padding no it counts positions through padding on the left" in lines
    assert "prefix yes by attention" in lines and "gradients yes" in lines


def test_an_lm_that_is_not_there(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "/nowhere/lm"])
    assert stopped.value.code == 2 and "/nowhere/lm" in capsys.readouterr().err
