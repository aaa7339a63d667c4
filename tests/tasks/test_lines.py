"""Files of plain lines."""

import typing

import pytest

from ptune.errors import DataError
from ptune.settings import TEXT_FORMS, Form
from ptune.tasks.layouts.forms import LAYOUTS
from ptune.tasks.rows.splits import read
from ptune.tasks.schema import DataConfig


def test_every_form_of_rows_has_its_layout():
    assert {"rows", *LAYOUTS} == {*typing.get_args(Form)} and {*TEXT_FORMS} < {*LAYOUTS}


def test_a_text_on_each_line(tmp_path):
    (tmp_path / "a.txt").write_text('first text\n\n  second\u2028text, "it" says \r\n')
    unlabeled = read(DataConfig(unlabeled=tmp_path / "a.txt", form="lines"), "label")["unlabeled"]
    assert (
        unlabeled == [{"text": "first text"}, {"text": '  second\u2028text, "it" says '}]
        and unlabeled[1].line == 3
    )


def test_questions_of_trec(tmp_path):
    (tmp_path / "a.label").write_bytes(
        "DESC:manner How did serfdom develop ?\nENTY:cremat What is caf\xe9 ?\n".encode("latin-1")
    )
    splits = read(
        DataConfig(train=tmp_path / "a.label", form="trec", encoding="latin-1"),
        "label",
        ("DESC", "ENTY"),
    )["train"]
    assert splits == [
        {"label": "DESC", "fine": "DESC:manner", "text": "How did serfdom develop ?"},
        {"label": "ENTY", "fine": "ENTY:cremat", "text": "What is caf\xe9 ?"},
    ]
    with pytest.raises(DataError, match="not UTF-8 text .* in line 2.*encoding"):
        read(DataConfig(train=tmp_path / "a.label", form="trec"), "label", ("DESC", "ENTY"))


def test_a_line_of_another_form(tmp_path):
    (tmp_path / "a.label").write_text("DESC:manner How ?\nWhat ?\n")
    with pytest.raises(
        DataError,
        match="a.label, line 2: LABEL:fine and a text are expected, and it is: 'What [?]'",
    ):
        read(DataConfig(train=tmp_path / "a.label", form="trec"), "label")
    (tmp_path / "b.txt").write_text("\n\n")
    with pytest.raises(DataError, match="holds no rows"):
        read(DataConfig(train=tmp_path / "b.txt", form="lines"), "label")
