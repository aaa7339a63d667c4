"""Words and templates for a task that nobody has described."""

import pytest
import tiny

from ptune.errors import VerbalizerError
from ptune.survey import proposals
from ptune.template.language import Template
from ptune.template.tokenizer import Tokens


@pytest.mark.parametrize(
    "tokenizer", [tiny.wordpiece, lambda: tiny.byte_level(False), tiny.prepended]
)
def test_every_word_is_one_token_of_the_lm_and_none_comes_twice(tokenizer):
    tokens = Tokens(tokenizer())
    labels = [
        "great",
        "very_bad",
        "Vienna",
        "Terrible",
        "VIENNA",
        "xyzzy",
        "42",
        "the bestFilm",
        "café",
    ]
    actual = proposals.label_words(labels, tokens)
    ids = tokens.words(list(actual.words.values()), "spaced")
    assert (
        list(actual.words) == labels
        and all(len(word_ids) == 1 for word_ids in ids)
        and len({word_ids[0] for word_ids in ids}) == len(labels)
    )
    assert tokens.tokenizer.unk_token_id not in {word_ids[0] for word_ids in ids}
    assert "no whole word for 'xyzzy'" in actual.notes["xyzzy"]


def test_which_word():
    actual = proposals.label_words(
        ["very_bad", "Film", "theCity", "Vienna", "VIENNA"], Tokens(tiny.wordpiece())
    )
    assert (
        list(actual.words.values())[:4] == ["bad", "Film", "City", "Vienna"]
        and "stands for another label" in actual.notes["VIENNA"]
    )
    with pytest.raises(VerbalizerError, match="Name words for the labels yourself"):
        proposals.label_words([f"q{number}x" for number in range(60)], Tokens(tiny.wordpiece()))


def test_templates_are_read_as_they_are_written():
    assert proposals.pattern(["ticket"], "team_name") == "{ticket|shorten} Team name: {mask}"
    assert proposals.soft_template(["a", "b"]) == "{a|shorten} {b|shorten} {soft:3} Label: {mask}"
    for name in ("ticket", "Review Text", "文本", "mask"):
        assert list(Template.parse(proposals.pattern([name], "{x}")).fields) == [name]
