"""Nothing that a stranger's file holds is obeyed by the terminal."""

import io
import json
import re

import pytest
from rich.table import Table

from ptune.base import progress, terminal
from ptune.cli import main
from ptune.errors import DataError

HOSTILE = "film \x1b]0;title\x07\x1b[2J\x9b31m [/red] \u202efdp.exe\r"
SHOWN = "film \\x1b]0;title\\x07\\x1b[2J\\x9b31m [/red] \\u202efdp.exe\\r"


def test_what_is_printed_is_shown_and_not_obeyed(capsys):
    terminal.print_line(HOSTILE)
    terminal.warn(HOSTILE)
    printed = capsys.readouterr()
    assert printed.out == printed.err == f"{SHOWN}\n"
    assert terminal.clean("Grüße,\tстолица 首都\n") == "Grüße,\tстолица 首都\n"
    assert terminal.clean("\ud800") == "\\ud800"


@pytest.mark.parametrize("is_terminal", [True, False])
def test_tables_and_lines_of_the_console(is_terminal):
    stream = io.StringIO()
    console = terminal.Console(file=stream, force_terminal=is_terminal, width=200)
    table = Table("name")
    table.add_row(HOSTILE)
    console.print(table)
    console.print(HOSTILE)
    printed = re.sub("\x1b\\[[0-9;]*m", "", stream.getvalue())  # the console's own colours
    assert "\x1b" not in printed
    assert printed.count("\\x1b]0;title") == 2 and printed.count("[/red]") == 2
    assert not any(sign in printed for sign in ("\x1b]", "\x1b[2J", "\x9b", "\u202e", "\x07"))


def test_the_bar_of_a_task_with_markup_in_its_name(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", stream)
    with progress.Progress(HOSTILE, 3) as bar:
        bar.advance(2, loss=1.5)
    assert (
        "[/red]" in stream.getvalue()
        and "\x1b]0;" not in stream.getvalue()
        and "\x9b" not in stream.getvalue()
    )


def test_a_line_of_progress(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1)
    progress.Progress(HOSTILE, 3).advance()
    assert SHOWN in capsys.readouterr().err


def test_an_error_that_names_what_a_stranger_wrote(monkeypatch, capsys):
    def fail(_):
        raise DataError(f"There is no relation {HOSTILE}")

    monkeypatch.setitem(main.COMMANDS, "predict", fail)
    with pytest.raises(SystemExit) as stopped:
        main.main(["predict"])
    assert stopped.value.code == 2 and SHOWN in capsys.readouterr().err


def test_json_for_a_terminal_says_the_same_and_holds_nothing_to_obey():
    value = {"a\u202e": "\x9b31m \x1b[0m \u2066 \u4e2d \n"}
    text = terminal.clean_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value and not terminal.COMMANDS.search(text) and "\u4e2d" in text


def test_what_is_loading_is_told_to_a_person_alone(monkeypatch, capsys):
    for is_person in (True, False):
        monkeypatch.setattr("sys.stderr.isatty", lambda answer=is_person: answer)
        terminal.announce("Loading LM builtin ...")
        assert capsys.readouterr().err == ("Loading LM builtin ...\n" if is_person else "")
