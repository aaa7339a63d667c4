"""YAML as data: texts as they are written, a key once, and bounds."""

import pathlib
import time

import pytest

from ptune.data.yaml_files import parse
from ptune.errors import ConfigError

PATH = pathlib.Path("task.yaml")


@pytest.mark.parametrize(
    "written",
    [
        "true",
        "False",
        "yes",
        "No",
        "on",
        "0",
        "010",
        "0x10",
        "1.0",
        "1.10",
        "1e3",
        ".5",
        "1_000",
        "7:30",
        "2020-11-28",
        "2020-13-45",
        "=",
        "<<",
        ".inf",
        "5" * 500,
    ],
)
def test_a_scalar_is_the_text_that_is_written(written):
    assert parse(f"labels: {{{written}: [{written}, a]}}", PATH) == {
        "labels": {written: [written, "a"]}
    }
    assert parse(f"{written}: '{written}'\nb: \"{written}\"", PATH) == {
        written: written,
        "b": written,
    }


def test_nothing_is_none_but_a_label_may_be_called_null():
    assert parse("a: null\nb: ~\nc:\nd: 'null'\ne: !!str null", PATH) == {
        "a": None,
        "b": None,
        "c": None,
        "d": "null",
        "e": "null",
    }
    assert parse("labels: {null: [null, ~], x: }", PATH, ("labels",)) == {
        "labels": {"null": ["null", "~"], "x": None}
    }
    assert parse("", PATH) is None and parse("# nothing", PATH) is None


def test_numbers_and_truths_under_core_tags_are_texts_too():
    assert parse("a: !!int 5\nb: !!bool true\nc: !!float 1.50\nd: !!map {e: !!seq [f]}", PATH) == {
        "a": "5",
        "b": "true",
        "c": "1.50",
        "d": {"e": ["f"]},
    }


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "name: a\nlabels: {good: x, bad: y}\nname: b",
            "line 3, column 1: the key 'name' stands twice; the first is in line 1",
        ),
        ("labels: {1: x, '1': y}", "line 1, column 16: the key '1' stands twice"),
        (
            "labels:\n  good: x\n  good: y",
            "line 3, column 3: the key 'good' stands twice; the first is in line 2",
        ),
        (
            "a: !!python/name:os.system x",
            "line 1, column 4: the tag 'tag:yaml.org,2002:python/name:os.system' makes an object",
        ),
        ("a: !!set {b}", "makes an object"),
        ("a: !!binary aGk=", "makes an object"),
        ("a: !mine [b]", "makes an object"),
        ("? [a, b]\n: c", "a key should be a text"),
        ("a: *b", "nothing is named &b before"),
        ("a: &b [*b]", "stands within what it names"),
        ("a: 1\n---\nb: 2", "line 2, column 1: a second document"),
        ("a: [", "line 1 is not valid YAML"),
        ("a: b: c", "is not valid YAML"),
        ("a: b\ntemplate: {ticket} {mask}", "Put the template in quotation marks, as in template"),
        ("a:\n  - {text} Team: {mask}", "Put the template in quotation marks, as in template"),
        ("template: Is {x} it: {mask}", "Put the template in quotation marks, as in template"),
        ("a: \x00", "is not valid YAML"),
        ('a: "\\U99999999"', "is not valid YAML"),
        ("a: \ud800", "is not valid YAML"),
        ("%YAML 9.9\n---\na", "is not valid YAML"),
        ("[" * 100_000, "nested more than 50 deep"),
        ("{a: " * 100_000, "nested more than 50 deep"),
        ("- " * 10_000 + "a", "nested more than 50 deep"),
        ("a: " + "b" * 1_000_000, "1,000,003 characters long"),
    ],
)
def test_what_is_refused_is_told_with_its_line(text, message):
    with pytest.raises(ConfigError) as error:
        parse(text, PATH)
    assert message in str(error.value) and str(error.value).startswith("task.yaml")


def test_aliases_are_counted_as_often_as_they_are_used():
    levels = [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 10) + "]" for n in range(1, 30)]
    began = time.monotonic()
    with pytest.raises(ConfigError, match="more than 100,000 values"):
        parse("\n".join(["a0: &a0 [x, x, x]", *levels]), PATH)
    assert time.monotonic() - began < 2
    assert parse("a: &a {b: c}\nd: [*a, *a]", PATH) == {
        "a": {"b": "c"},
        "d": [{"b": "c"}, {"b": "c"}],
    }
