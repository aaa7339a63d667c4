"""What rules on who sees whom make of the tokens of a row, and which rules are refused."""

import pytest
import tiny
from pydantic import ValidationError

from ptune.answers.readers.reader_table import READERS
from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError, TemplateError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.settings import VisibilityRule
from ptune.template.encoding.visibility import RowVisibility, idle_rules
from ptune.template.language import Template
from ptune.template.tokenizer import Tokens

BOTH = 3


def rule(hide, blind) -> VisibilityRule:
    return VisibilityRule(hide=hide, from_=blind)


def encoded(family, template, row, rules, **more):
    """The row, and what each of its tokens is: its text, the rules that hide it, and those by which
    it does not see what they hide."""
    lm = LanguageModel(*tiny.tiny(family))
    parsed = Template.parse(template).with_visibility(rules).for_lm(lm.tokens, lm.kind)[0]
    out = parsed.encode(row, lm.tokens, lm.kind, start=lm.start, **more)
    shown = [
        f"soft {slot}" if slot >= 0 else lm.tokens.show(token)
        for token, slot in zip(out.ids, out.soft_slots)
    ]
    return out, list(zip(shown, *zip(*out.visibility.tokens)))


def test_every_token_is_of_the_part_that_wrote_it():
    row = {"a": "Vienna", "b": "Rome is great"}
    rules = [rule("a", "b"), rule("words", "soft"), rule("soft@s", ("mask", "fields"))]
    _, shown = encoded("bert", "The {soft:1} {a} , {soft:1@s} {b} ? {mask}", row, rules)
    assert shown == [
        ("[CLS]", 2, 0),
        ("the", 2, 0),
        ("soft 0", 0, 2),
        ("vienna", 1, 4),
        (",", 2, 0),
        ("soft 1", 4, 2),
        *((word, 0, 1 + 4) for word in ("rome", "is", "great")),
        ("?", 2, 0),
        ("[MASK]", 0, 4),
        ("[SEP]", 2, 0),
    ]


@pytest.mark.parametrize("family", ["gpt2", "roberta", "llama", "t5", "bert"])
def test_a_token_of_two_parts_is_of_both(family):
    """Whatever the tokenizer makes of the text; spaces are those of the word behind them."""
    end = "" if family == "t5" else " {mask}"
    rules = [rule("a", "b"), rule("b", "words")]
    row = {"a": "Vien", "b": "na lies"}
    out, shown = encoded(family, "{soft:1} {a}{b} ? it is" + end, row, rules)
    named = {"Vien": 1, "na lies": 2, "? it is": 4}
    text = "Vienna lies ? it is"
    owners = [kind for part, kind in named.items() for sign in part if sign != " "]
    position = 0
    lm = LanguageModel(*tiny.tiny(family))
    start = shown.index(next(one for one in shown if one[0] == "soft 0")) + 1
    for token, hidden, blind in shown[start:]:
        signs = token.replace("##", "").replace("\u2581", "").replace("\u0120", "").strip()
        if token in lm.tokens.tokenizer.all_special_tokens:
            continue
        inside = owners[position : position + len(signs)] or owners[position : position + 1]
        position += len(signs)
        kinds = set(inside)
        assert hidden == (1 if 1 in kinds else 0) + (2 if 2 in kinds else 0), (token, shown)
        reads = 1 if 2 in kinds else 0
        assert blind == reads + (2 if 4 in kinds else 0), (token, shown)
    assert position == len(text.replace(" ", "")), "some text is missing"
    assert len(out.visibility.tokens) == len(out.ids)


def test_the_answer_of_a_causal_lm_is_read_at_the_token_before_it():
    row = {"a": "Vienna", "b": "Rome"}
    rules = [rule("a", "mask"), rule("mask", "mask")]
    _, shown = encoded("gpt2", "{a} and {b} is {mask}", row, rules, answer=(5, 6, None))
    assert [blind for _, _, blind in shown[-3:]] == [3, 3, 3] and shown[-4][2] == 0
    assert [hidden for _, hidden, _ in shown[-3:]] == [0, 2, 2]
    out, shown = encoded("t5", "{a} and {b} is", row, rules)
    assert {blind for *_, blind in shown} == {0} and out.visibility.written == (2, 3)


def test_a_prefix_and_what_is_spelt_out():
    row = {"a": "Vienna", "b": "Rome"}
    out, _ = encoded("gpt2", "{prefix:2} {a} is {b} {mask}", row, [rule("prefix", "a")])
    assert out.visibility.prefix == (1, 0)
    whole = out.spelt_out()
    assert len(whole.visibility.tokens) == len(whole.ids)
    a_token = next(n for n, one in enumerate(whole.visibility.tokens) if one == (0, 1))
    assert not whole.visibility.sees(a_token, 0) and whole.visibility.sees(a_token, a_token)
    assert whole.visibility.sees(len(whole.ids) - 1, 0)


def test_a_token_sees_itself():
    row = RowVisibility(((1, 1), (1, 1)))
    assert row.sees(0, 0) and not row.sees(0, 1)


def test_fields_that_are_cut_and_lists_and_line_breaks():
    row = {"a": "Vienna lies on the Danube , it was a great film", "b": ["Rome", "Paris"]}
    template = '{a|shorten|lower}\n{b|join:", "}\n? {mask}'
    _, shown = encoded("gpt2", template, row, [rule("a", "words"), rule("b", "a")], max_length=22)
    text = "".join(one[0].replace("\u0120", " ") for one in shown)
    assert "film" not in text and text.startswith("vienna")
    breaks = [one for one in shown if "\n" in one[0] or "\u010a" in one[0]]
    assert breaks and all(one[1:] == (0, 1) for one in breaks)


def test_words_that_are_read_one_by_one():
    model = PromptModel(LanguageModel(*tiny.tiny("bert")))
    template = Template.parse("{soft:2} {words} .").with_visibility([rule("soft", '"words"')])
    labels = WordLabels("words", ("O", "B-a"))
    with pytest.raises(TemplateError, match="'words', which is a field .* write \"words\" with"):
        template.with_visibility([rule("words", "soft")])
    model.add(Task("t", template, labels, encoder="table", reader=READERS["token-head"]))
    row = model.encode(0, [{"words": ["Vienna", "lies"]}], labelled=False)[0].fills[0]
    end = len(row.ids) - 2  # the full stop and the separator
    assert row.visibility.tokens[1:3] == ((1, 0), (1, 0))
    assert set(row.visibility.tokens[3:end]) == {(0, 1)}


def test_special_tokens_in_a_row():
    """Where the tokenizer spells them out, what is whose cannot be told where it matters."""
    rules = [rule("a", "words")]
    with pytest.raises(TemplateError, match="take special tokens out of the row"):
        Tokens(tiny.tiny("gpt2")[1]).places([1, 2, 3], "Vienna")
    _, shown = encoded("gpt2", "{soft:1} {a} {soft:1} is {mask}", {"a": "<|endoftext|> a"}, rules)
    assert sum(one[1] for one in shown) > 2


@pytest.mark.parametrize(
    "hide, blind, message",
    [
        ("premis", "b", "'premis', which is nothing in the template .* Did you mean 'premise'"),
        ("premise", "text", "'text', which is nothing in the template"),
        ("soft@t", "b", "'soft@t', which is nothing .* Did you mean 'soft@s'"),
        ("prefix", "b", "'prefix', which is nothing"),
        ('"soft"', "b", "which is nothing"),
    ],
)
def test_a_rule_that_names_nothing(hide, blind, message):
    template = Template.parse("{soft:2@s} {premise} {b} {mask}")
    with pytest.raises(TemplateError, match=message):
        template.with_visibility([rule(hide, blind)])


def test_rules_that_an_lm_cannot_follow():
    gpt2, bert, t5, bart = (
        LanguageModel(*tiny.tiny(one)) for one in ("gpt2", "bert", "t5", "bart")
    )

    def bound(lm, text, *rules, whole=False):
        template = Template.parse(text).with_visibility(rules)
        return template.for_lm(lm.tokens, lm.kind, whole)

    with pytest.raises(TemplateError, match="look at nothing.*hide: prefix, from"):
        Template.parse("{prefix:2} {a} {mask}").with_visibility([rule("a", "prefix")])
    with pytest.raises(TemplateError, match="'words', and in the template .* no such token"):
        bound(gpt2, "{soft:2} {a} {mask}", rule("words", "a"))
    assert bound(bert, "{soft:2} {a} {mask}", rule("words", "a"))
    assert bound(gpt2, "{soft:2} {a} is {mask}", rule("words", "a"))
    with pytest.raises(TemplateError, match="'mask', and in the template .*the answer"):
        bound(bert, "{soft:2} {a}", rule("a", "mask"), whole=True)
    with pytest.raises(TemplateError, match=r"has a \{decoder\}, and visibility"):
        bound(t5, "{a} {decoder} is {mask}", rule("a", "mask"))
    with pytest.raises(TemplateError, match=r"leave \{mask\} out, so that the decoder writes"):
        bound(bart, "{a} and {b} is {mask}", rule("a", "b"))
    assert bound(t5, "{a} and {b} is {mask}", rule("a", "b"))
    with pytest.raises(TemplateError, match="behind {mask}|'soft', and in the template"):
        bound(gpt2, "{a} is {mask} {soft:2}", rule("soft", "a"))


def test_a_rule_that_hides_a_token_from_itself_alone():
    lms = {kind: LanguageModel(*tiny.tiny(kind)) for kind in ("bert", "gpt2", "t5")}

    def bound(family, text, *rules):
        lm = lms[family]
        return Template.parse(text).with_visibility(rules).for_lm(lm.tokens, lm.kind)

    alone = [
        ("bert", "{soft:1@v} {a} {mask}", rule("soft@v", "soft@v")),
        ("gpt2", "{soft:1} {a} {mask}", rule("soft", "soft")),
        ("gpt2", "{a} is {mask}", rule("words", "words")),
        ("t5", '{soft:"is"} {a}', rule("soft", "soft")),
    ]
    for family, text, one in alone:
        with pytest.raises(TemplateError, match="hides no token from another one in the template"):
            bound(family, text, rule("a", "mask"), one)
    several = [
        ("bert", "{soft:2@v} {a} {mask}", rule("soft@v", "soft@v")),
        ("bert", "{soft:1@v} {a} {soft@v} {mask}", rule("soft@v", "soft@v")),
        ("bert", "{a} is {mask}", rule("words", "words")),
        ("gpt2", "{a} is {mask}", rule("a", "a")),
        ("gpt2", "{a} is {mask}", rule("mask", "mask")),
        ("t5", "{a}", rule("mask", "mask")),
    ]
    assert all(bound(*one) for one in several)


def test_rules_that_an_lm_follows_by_itself():
    lms = {kind: LanguageModel(*tiny.tiny(kind)) for kind in ("bert", "gpt2", "t5")}

    def idle(family, text, *rules):
        lm = lms[family]
        template, _ = Template.parse(text).with_visibility(rules).for_lm(lm.tokens, lm.kind)
        return idle_rules(template, lm.tokens, lm.kind)

    before, behind = rule("a", "b"), rule("b", "a")
    assert idle("bert", "{a} {b} {mask}", before, behind) == []
    assert idle("gpt2", "{a} {b} {mask}", before, behind) == [behind]
    assert idle("gpt2", "{a} {b} {a} {mask}", before, behind) == []
    assert idle("t5", "{a} {b}", behind, rule("mask", "a"), rule("a", "mask")) == [
        rule("mask", "a")
    ]


def test_a_decoder_has_to_see_something():
    hidden = [rule(("fields", "words"), "mask")]
    with pytest.raises(TemplateError, match="hides all that the encoder reads of this row"):
        encoded("t5", "{a} and {b}", {"a": "Rome", "b": "Paris"}, hidden)
    _, shown = encoded("t5", "{soft:1} {a} and {b}", {"a": "Rome", "b": "Paris"}, hidden)
    assert shown


def test_what_is_no_list_of_rules_is_refused():
    template = Template.parse("{soft:2} {a} {b} {mask}")
    written = template.with_visibility([{"hide": "a", "from": "b"}])
    assert written.visibility == (rule("a", "b"),)
    for wrong in (rule("a", "b"), {"hide": "a", "from": "b"}, ["a"], [{"hide": "a"}], 3):
        with pytest.raises(TemplateError, match="^visibility is a list of rules"):
            template.with_visibility(wrong)
    with pytest.raises(TemplateError, match="at most 60 items"):
        template.with_visibility([rule("a", "b")] * 61)


def test_rules_as_they_are_written():
    written = VisibilityRule.model_validate({"hide": "a", "from": ["b", "soft"]})
    assert written == rule("a", ("b", "soft"))
    assert written.model_dump(mode="json") == {"hide": ["a"], "from": ["b", "soft"]}
    for wrong in ({"hide": "a"}, {"hide": [], "from": "b"}, {"hide": "a", "from": 3}):
        with pytest.raises((ValidationError, ConfigError)):
            VisibilityRule.model_validate(wrong)
