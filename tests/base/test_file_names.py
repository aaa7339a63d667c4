"""File names: other names get other ones, and none is a path."""

import re
import string
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptune.base.file_names import file_name

ANY = st.text(st.characters(), max_size=300)


def undone(written: str) -> str:
    """The name that a short file name was made of."""
    plain = re.sub("@([a-z])", lambda match: match[1].upper(), written)
    return "" if plain == "%" else urllib.parse.unquote(plain, errors="surrogatepass")


@given(ANY)
def test_a_name_of_any_characters(name):
    written = file_name(name)
    assert (
        set(written) <= {*string.ascii_lowercase, *string.digits, *"-_+%@~"}
        and 0 < len(written) <= 80
    )
    assert "~" in written or undone(written) == name


@given(st.lists(ANY, min_size=1, max_size=3), st.lists(ANY, min_size=1, max_size=3))
def test_other_names_get_other_file_names(names, other_names):
    assert (file_name(*names).lower() == file_name(*other_names).lower()) == (names == other_names)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("../../esc", "%2e%2e%2f%2e%2e%2fesc"),
        ("/etc/passwd", "%2fetc%2fpasswd"),
        ("", "%"),
        (".", "%2e"),
        ("P140", "@p140"),
        ("p140", "p140"),
        ("con", "%63on"),
        ("C:\\x", "@c%3a%5cx"),
        ("é", "%c3%a9"),
        ("e\u0301", "e%cc%81"),
        ("\ud800", "%ed%a0%80"),
        ("a\0b", "a%00b"),
        ("manual+fine-tune", "manual+fine-tune"),
    ],
)
def test_names_that_are_no_file_names(name, written, tmp_path):
    assert file_name(name) == written
    (tmp_path / file_name(name)).touch()
    assert [path.name for path in tmp_path.iterdir()] == [written]


def test_long_names_differ_in_what_is_cut():
    names = ["a" * 300, "a" * 299 + "b", "a" * 301, "\u4e2d" * 100]
    assert len({file_name(name) for name in names}) == 4 and all(
        len(file_name(name)) == 73 for name in names
    )


def test_several_names_are_told_apart():
    assert file_name("p-tuning", "v2-x", 0) != file_name("p-tuning-v2", "x", 0) and file_name(
        "a", "b"
    ) != file_name("a.b")
    assert file_name("p-tuning", "P140", 3) == "p-tuning.@p140.3"
