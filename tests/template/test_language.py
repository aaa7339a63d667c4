import copy
import re

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AddedToken

from ptune.errors import TemplateError
from ptune.template.language import Field, Mask, Sep, Soft, Template, Text
from ptune.template.parts import with_soft_words
from ptune.template.tokenizer import Tokens

BERT, GPT2, ROBERTA, T5, LLAMA = (
    Tokens(t)
    for t in (
        tiny.wordpiece(),
        tiny.byte_level(False),
        tiny.byte_level(True),
        tiny.unigram(),
        tiny.prepended(),
    )
)
SMOLLM = Tokens(tiny.merging())


def shown(encoded, tokens):
    """The row as text: soft tokens as #n, the others as pieces."""
    return [
        f"#{slot}" if slot >= 0 else tokens.tokenizer.convert_ids_to_tokens(token)
        for token, slot in zip(encoded.ids, encoded.soft_slots)
    ]


def test_parts():
    template = Template.parse(
        '{{x}} {premise|lower|shorten:start}{sep}{soft:"the capital"@c} {soft@c} {x|strip:.!} '
        "{mask}"
    )
    assert template.parts == (
        Text("{x} "),
        Field("premise", (("lower", ""), ("shorten", "start"))),
        Sep(),
        Soft(None, "the capital", "c"),
        Text(" "),
        Soft(None, None, "c"),
        Text(" "),
        Field("x", (("strip", ".!"),)),
        Text(" "),
        Mask(),
    )
    assert template.fields == ("premise", "x")


@pytest.mark.parametrize(
    "source, message, caret",
    [
        ("{premise|shortn} {mask}", "Did you mean 'shorten'?", "         ^^^^^^"),
        ("It is {mask", "never closed", "      ^"),
        ("It is } {mask}", "closes nothing", "      ^"),
        ("{soft:0} {mask}", "no 0 soft tokens", " ^^^^^^"),
        ("{soft:x} {mask}", "Soft tokens are written", " ^^^^^^"),
        ("{mask} and {mask}", "one {mask}", "           ^^^^^^"),
        ("{soft@rel} {mask}", "No soft tokens are named 'rel'", "     ^^^^"),
        ("{soft:2@a} {soft:3@a} {mask}", "given twice", "                  ^^"),
        ("{a b} {mask}", "no field name", " ^^^"),
        ("{} {mask}", "Empty braces", "^^"),
        ("{sotf:3} {mask}", "Did you mean 'soft'?", " ^^^^^^"),
        ("{x|shorten:middle} {mask}", "at its :start or its :end", "   ^^^^^^^^^^^^^^"),
        ("{mask:3}", "takes nothing more", " ^^^^^^"),
        ("{Review Text|shorten} {mask}", 'as in {"Review Text"}', " ^^^^^^^^^^^"),
        ("{#1} {mask}", 'as in {"#1"}', " ^^"),
        ("It is {\uff5bx\uff5d", "never closed", "      ^"),
        (
            "{x} is \uff5bmask\uff5d .",
            "full-width braces, which are text: write {mask}",
            "       ^^^^^^^^",
        ),
        (
            "\uff5b\u8bc4\u8bba|shorten\uff5d {mask}",
            "write {\u8bc4\u8bba|shorten}",
            "^^^^^^^^^^^^^^^^",
        ),
        ("{x|join:a|b} {mask}", "no filter 'b'", "          ^"),
        ("{soft:1000000000} {mask}", "10,000 are the most", " ^^^^^^^^^^^^^^^"),
        ("[X] was born in {mask} .", "both [X] and [Y]", "^^^"),
        ("{x} was born in [Y] .", "write {mask}", "                ^^^"),
        ("{a..b} {mask}", "no field name", " ^^^^"),
    ],
)
def test_faults_are_shown_with_a_caret(source, message, caret):
    with pytest.raises(TemplateError) as error:
        Template.parse(source)
    text, line, under = str(error.value).rsplit("\n", 2)
    assert message in text
    assert line == "  " + source
    assert under == "  " + caret


def test_nothing_is_evaluated(tmp_path):
    """OpenPrompt runs template text through eval()."""
    with pytest.raises(TemplateError):
        Template.parse("{__import__('pathlib').Path('" + str(tmp_path / "x") + "').touch()} {mask}")
    template = Template.parse("open('/x') {x} {mask}")
    assert shown(template.encode({"x": "{y}"}, BERT, "masked"), BERT).count("{") <= 1
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "source, longhand",
    [
        ("(3, 3, 3)", "{soft:3} {subject} {soft:3} {mask} {soft:3}"),
        ("3,3,0", "{soft:3} {subject} {soft:3} {mask}"),
        ("[X] was born in [Y] .", "{subject} was born in {mask} ."),
        ("{soft:2} [X] {soft:3@a} [Y] {soft@a}", "{soft:2} {subject} {soft:3@a} {mask} {soft@a}"),
        ("{{a}} [X] [Y]", "{{a}} {subject} {mask}"),
    ],
)
def test_shorthands(source, longhand):
    assert Template.parse(source).parts == Template.parse(longhand).parts


def test_the_papers_template_puts_the_answer_behind_the_subject():
    """P-tuning's LAMA code for BERT has [MASK] before the subject; the paper says (3, sub, 3, obj,
    3)."""
    row = Template.parse("(3,3,3)").encode({"subject": "Vienna"}, BERT, "masked")
    assert shown(row, BERT) == [
        "[CLS]",
        "#0",
        "#1",
        "#2",
        "vienna",
        "#3",
        "#4",
        "#5",
        "[MASK]",
        "#6",
        "#7",
        "#8",
        "[SEP]",
    ]
    assert row.answer_positions == (8,)


def test_shared_soft_tokens_have_the_same_slots():
    row = Template.parse("{soft:2@a} {x} {soft:1} {soft@a} {mask}").encode(
        {"x": "Vienna"}, BERT, "masked"
    )
    assert [s for s in row.soft_slots if s >= 0] == [0, 1, 2, 0, 1]
    assert Template.parse("{soft:2@a} {x} {soft:1} {soft@a} {mask}").prompt_length(BERT) == 3


def test_words_give_the_length_and_the_start():
    template = Template.parse('{soft:"the capital of"} {x} {mask}')
    assert template.groups(BERT) == [(3, BERT.plain("the capital of"))]
    assert template.groups(GPT2) == [
        (len(GPT2.plain(" the capital of")), GPT2.plain(" the capital of"))
    ]


@pytest.mark.parametrize(
    "tokens", [BERT, GPT2, ROBERTA, T5, LLAMA], ids=["bert", "gpt2", "roberta", "t5", "llama"]
)
def test_text_is_joined_before_it_is_split(tokens):
    """A row without soft tokens has the tokens that the tokenizer gives the finished text."""
    kind = (
        "masked"
        if tokens.tokenizer.mask_token_id is not None
        else "encoder-decoder"
        if tokens is T5
        else "causal"
    )
    template = Template.parse("The {a} of {b}, is" + (" {mask}" if kind == "causal" else ""))
    if kind == "masked":
        template = Template.parse("The {a} of {b}, is{mask}")
    row = template.encode({"a": "capital", "b": "Austria"}, tokens, kind)
    ids = [i for i in row.ids if i != tokens.mask]
    wanted = tokens.tokenizer("The capital of Austria, is")["input_ids"]
    assert ids == (wanted[: len(wanted) - len(tokens.after)] if kind == "causal" else wanted)


@pytest.mark.parametrize(
    "tokens", [GPT2, ROBERTA, T5, LLAMA], ids=["gpt2", "roberta", "t5", "llama"]
)
def test_text_behind_a_soft_token_has_one_space(tokens):
    """Llama's tokenizer puts a mark before every text, so " Vienna" alone would get two: a space
    piece of its own."""
    kind = (
        "causal"
        if tokens in (GPT2, LLAMA)
        else "masked"
        if tokens is ROBERTA
        else "encoder-decoder"
    )
    row = Template.parse("{soft:1} {x} {soft:1} {mask}").encode({"x": "Vienna lies"}, tokens, kind)
    position = row.soft_slots.index(0)
    between = list(row.ids[position + 1 : row.soft_slots.index(1)])
    assert between == tokens.plain("a Vienna lies")[len(tokens.plain("a")) :]
    if tokens is LLAMA:
        assert between != tokens.plain(" Vienna lies"), (
            "the trap is not there, so this test could not fail"
        )


def test_separator_is_the_tokenizers_own():
    for tokens in (BERT, ROBERTA):
        row = Template.parse("{a}{mask} {sep} {b}").encode(
            {"a": "Vienna", "b": "the capital"}, tokens, "masked"
        )
        ids = [i for i in row.ids if i != tokens.mask]
        both = tokens.tokenizer("Vienna", "the capital")
        assert ids == both["input_ids"]
        if tokens is BERT:
            assert [t for i, t in zip(row.ids, row.types) if i != tokens.mask] == both[
                "token_type_ids"
            ]
    with pytest.raises(TemplateError, match="no separator"):
        Template.parse("{a} {sep} {mask}").encode({"a": "Vienna"}, GPT2, "causal")


def test_a_causal_lm_sees_nothing_behind_the_answer():
    template, dropped = Template.parse("3,3,3").for_lm(BERT, "causal")
    assert dropped == "{soft:3}" and template.prompt_length(GPT2) == 6
    template, dropped = Template.parse("[X] is in [Y] .").for_lm(BERT, "causal")
    assert dropped == "."
    row = template.encode({"subject": "Vienna"}, GPT2, "causal")
    assert row.answer_positions == (len(row.ids) - 1,)
    with pytest.raises(
        TemplateError,
        match="'.*' has ' is the capital' behind {mask}, which a causal LM cannot see",
    ):
        Template.parse("{mask} is the capital").for_lm(BERT, "causal")
    with pytest.raises(TemplateError, match="Nothing stands before"):
        Template.parse("{mask}").encode({}, GPT2, "causal")


def test_an_answer_of_several_tokens():
    """A masked LM gets as many masks; the others get all but the last token, and read each behind
    those before it."""
    template = Template.parse("{x} is {mask} .")
    row = template.encode({"x": "Vienna"}, BERT, "masked", answer=(None, None))
    assert shown(row, BERT).count("[MASK]") == 2 and row.answer_positions == (3, 4)
    row = template.for_lm(BERT, "causal")[0].encode(
        {"x": "Vienna"}, GPT2, "causal", answer=(7, 8, None)
    )
    assert row.ids[-2:] == (7, 8) and row.answer_positions == tuple(
        range(len(row.ids) - 3, len(row.ids))
    )
    row = template.encode({"x": "Vienna"}, T5, "encoder-decoder", answer=(7, 8, None), start=0)
    assert row.decoder == (0, T5.sentinel, 7, 8) and row.answer_positions == (1, 2, 3)
    row = Template.parse("{x}").encode(
        {"x": "Vienna"}, T5, "encoder-decoder", answer=(7, None), start=0
    )
    assert row.decoder == (0, 7) and row.answer_positions == (0, 1) and T5.sentinel not in row.ids
    row = template.encode(
        {"x": "Vienna"}, ROBERTA, "encoder-decoder", start=2
    )  # a denoiser with a mask: BART
    before = row.ids[: row.ids.index(ROBERTA.mask)]
    assert row.decoder == (2, *before)


def test_rows_that_do_not_fit():
    template = Template.parse("{premise} {mask}")
    with pytest.raises(TemplateError, match="no field 'premise'. Did you mean 'premises'?"):
        template.encode({"premises": "x"}, BERT, "masked")
    with pytest.raises(TemplateError, match="The row is empty"):
        template.encode({"premise": "  "}, BERT, "masked")
    with pytest.raises(TemplateError, match="is missing \\(null or NaN\\)"):
        template.encode({"premise": None}, BERT, "masked")
    with pytest.raises(TemplateError, match="no {mask}"):
        Template.parse("{premise}").for_lm(BERT, "masked")
    with pytest.raises(TemplateError, match=r"needs 12 tokens .* and 8 fit. Mark another field"):
        template.encode({"premise": "great " * 9}, BERT, "masked", max_length=8)


def test_filters():
    template = Template.parse("{a|strip:.?|lower} {b|capitalize} {mask}")
    row = template.encode({"a": " Vienna. ", "b": "the euro"}, ROBERTA, "masked")
    assert (
        ROBERTA.tokenizer.decode([i for i in row.ids if i not in ROBERTA.tokenizer.all_special_ids])
        == "vienna The euro"
    )


@pytest.mark.parametrize(
    "source, text",
    [
        ('{"Review Text"} {mask}', "great"),
        ('{"Review Text"|lower|shorten} {mask}', "great"),
        ("{\u8bc4\u8bba} {mask}", "film"),
        ("{\u041e\u0442\u0437\u044b\u0432} {mask}", "bad"),
        ("{gr\u00f6\u00dfe} {mask}", "Rome"),
        ("{\u091f\u093f\u092a\u094d\u092a\u0923\u0940} {mask}", "Vienna"),
        ('{"mask"} {mask}', "a mask"),
        ('{"soft"} {"sep"} {mask}', "soft sep"),
        ("{translation.en} {mask}", "good"),
        ("{answers.text.1} {mask}", "second"),
        ("{a.b} {mask}", "flat"),
        ('{"he said ""no"""} {mask}', "said"),
        ('{"x|y"} {"{x}"} {mask}', "bar brace"),
        ('{answers.text|join:" | "} {mask}', "first | second"),
        ("{answers.text|join} {mask}", "first, second"),
        ("{answers.text|join:/|lower} {mask}", "first/second"),
        ("{_id} {mask}", "7"),
        ("{{{_id}}} {mask}", "{7}"),
    ],
)
def test_fields_of_any_name_and_within_others(source, text):
    row = {
        "Review Text": "great",
        "\u8bc4\u8bba": "film",
        "\u041e\u0442\u0437\u044b\u0432": "bad",
        "gr\u00f6\u00dfe": "Rome",
        "\u091f\u093f\u092a\u094d\u092a\u0923\u0940": "Vienna",
        "mask": "a mask",
        "soft": "soft",
        "sep": "sep",
        "translation": {"en": "good"},
        "answers": {"text": ["first", "second"]},
        "a.b": "flat",
        "a": {"b": "deep"},
        'he said "no"': "said",
        "x|y": "bar",
        "{x}": "brace",
        "_id": 7,
    }
    template = Template.parse(source)
    assert list(template.encode(row, GPT2, "causal").ids) == GPT2.plain(text)
    for part in template.parts:
        if isinstance(part, Field):
            assert Template.parse(part.shown).parts == (part,)


def test_a_list_is_joined_or_refused():
    with pytest.raises(
        TemplateError,
        match=re.escape(
            "should be text, and it is list: \"['a', 'b']\". Its texts are joined by {x|join:\", "
            '"}'
        ),
    ):
        Template.parse("{x} {mask}").encode({"x": ["a", "b"]}, BERT, "masked")
    with pytest.raises(TemplateError, match="should be text, and it is list"):
        Template.parse("{x|join} {mask}").encode({"x": ["a", None]}, BERT, "masked")
    with pytest.raises(TemplateError, match="no field 'x.en'"):
        Template.parse("{x.en} {mask}").encode({"x": {"de": "a"}}, BERT, "masked")


@pytest.mark.parametrize(
    "filter_, before, behind",
    [
        ("strip", ' .22 caliber was "great!" ', '.22 caliber was "great'),
        ("strip", "It is (great).", "It is (great"),
        ("strip:.?!", ".22 (great)!", ".22 (great)"),
        ('strip:""', '"It was great , "" they said"', 'It was great , "" they said'),
        ("strip:.?!*", "*.22*!", ".22"),
        ("strip", "...", ""),
    ],
)
def test_what_is_stripped(filter_, before, behind):
    """A number that begins with a point keeps it; at the end bare strip takes all punctuation off,
    as PET's code does."""
    row = Template.parse(f"{{x|{filter_}}}: {{mask}}").encode({"x": before}, GPT2, "causal")
    assert list(row.ids) == GPT2.plain(f"{behind}:")


def test_the_limit_is_used_to_the_last_token():
    """P-tuning's code takes the special tokens off twice, and uses 254 of 256."""
    template = Template.parse("{soft:2} {a|shorten} {mask} .")
    row = template.encode({"a": "great " * 100}, BERT, "masked", max_length=40)
    assert len(row.ids) == 40 and row.cut


def test_the_longest_field_is_cut_first_at_the_side_that_is_asked():
    """OpenPrompt's truncate_method="head" cuts the tail."""
    template = Template.parse("{a|shorten:start} {soft:1} {b|shorten} {soft:1} {c} {mask}")
    row = template.encode(
        {"a": "Is the film great", "b": "It was " * 10, "c": "Rome"}, BERT, "masked", max_length=17
    )
    pieces = shown(row, BERT)
    assert (
        pieces[:7] == ["[CLS]", "is", "the", "film", "great", "#0", "it"]
        and len(pieces) == 17
        and "rome" in pieces
    )
    row = template.encode(
        {"a": "Is the film great", "b": "It was", "c": "Rome"}, BERT, "masked", max_length=10
    )
    pieces = shown(row, BERT)
    assert pieces[1:3] == ["film", "great"], pieces


text = st.text(alphabet="abc de.V \u00e9\u4e2d", max_size=60)


@settings(max_examples=150, deadline=None)
@given(
    a=text,
    b=text,
    limit=st.integers(13, 40),
    tokens=st.sampled_from([BERT, GPT2, ROBERTA, T5, LLAMA]),
)
def test_shortening_touches_no_soft_token_no_mask_and_no_other_field(a, b, limit, tokens):
    kind = "encoder-decoder" if tokens is T5 else "causal" if tokens in (GPT2, LLAMA) else "masked"
    template = Template.parse("{soft:3} {a|shorten} {soft:2} {b|shorten:start} {soft:2} {mask}")
    if not (a + b).strip():
        return
    whole = template.encode({"a": a, "b": b}, tokens, kind)
    row = template.encode({"a": a, "b": b}, tokens, kind, max_length=limit)
    assert len(row.ids) <= limit
    assert [s for s in row.soft_slots if s >= 0] == list(range(7))
    assert bool(row.cut) == (len(whole.ids) > limit)
    if kind == "masked":
        assert [row.ids[i] for i in row.answer_positions] == [tokens.mask]
    assert row.ids[: len(tokens.before)] == tuple(tokens.before)


WHITE = ["\n", "\t", " ", "  ", "\n\n", "\r\n", " \n", "\n ", "\u00a0", "\u3000", "\t ", " \t\n "]
white = st.sampled_from(WHITE)
words_drawn = st.sampled_from(
    ["great", "the film", "Vienna", "is", "euro.", "1999", ":", "caf\u00e9"]
)
pieces = st.lists(st.tuples(words_drawn, white).map("".join), min_size=1, max_size=4).map("".join)


def plain(tokens, text):
    """What transformers itself makes of a text, without special tokens."""
    return tokens.tokenizer(text, add_special_tokens=False)["input_ids"]


def without_special(encoded, tokens):
    return list(encoded.ids[len(tokens.before) : len(encoded.ids) - len(tokens.after)])


@settings(max_examples=200, deadline=None)
@given(
    before=pieces,
    value=pieces,
    between=white,
    last=white,
    tokens=st.sampled_from([GPT2, LLAMA, SMOLLM]),
)
def test_a_causal_lm_reads_the_written_out_text(before, value, between, last, tokens):
    template = Template.parse(f"{before}{{x}}{between}Sentiment:{last}{{mask}}")
    row = template.encode({"x": value}, tokens, "causal")
    answer = tokens.words(["great"], template.place)[0]
    written = f"{before}{value}{between}Sentiment:{last}great"
    assert [*row.ids[len(tokens.before) :], *answer] == plain(tokens, written)


@settings(max_examples=200, deadline=None)
@given(
    before=pieces,
    value=pieces,
    last=white,
    behind=st.sampled_from(["", ".", " .", "\n.", " the\n", " \t."]),
    tokens=st.sampled_from([BERT, ROBERTA]),
)
def test_a_masked_lm_reads_the_written_out_text(before, value, last, behind, tokens):
    """The space before the mask goes into the masked word, where the tokenizer's words carry it."""
    row = Template.parse(f"{before}{{x}}{last}{{mask}}{behind}").encode(
        {"x": value}, tokens, "masked"
    )
    written = f"{before}{value}{last}".removesuffix(" ") + tokens.tokenizer.mask_token + behind
    assert list(row.ids) == tokens.tokenizer(written)["input_ids"]


@settings(max_examples=200, deadline=None)
@given(
    before=pieces,
    value=pieces,
    last=st.sampled_from(["", *WHITE]),
    tokens=st.sampled_from([T5, ROBERTA]),
)
def test_an_encoder_reads_the_written_out_text(before, value, last, tokens):
    row = Template.parse(f"{before}{{x}}{last}").encode({"x": value}, tokens, "encoder-decoder")
    assert list(row.ids) == tokens.tokenizer(f"{before}{value}{last}")["input_ids"]
    row = Template.parse(f"{before}{{x}}{last}{{mask}} .").encode(
        {"x": value}, tokens, "encoder-decoder"
    )
    head = f"{before}{value}{last}".removesuffix(" ")
    mask = tokens.tokenizer.convert_ids_to_tokens(tokens.mask)
    assert list(row.ids) == tokens.tokenizer(f"{head}{mask} .")["input_ids"]


@settings(max_examples=100, deadline=None)
@given(value=pieces, first=white, last=white, tokens=st.sampled_from([GPT2, LLAMA, SMOLLM]))
def test_white_space_around_soft_tokens_stays_but_for_one_space(value, first, last, tokens):
    row = Template.parse(f"{{x}}{first}{{soft:2}}{last}Label:{last}{{mask}}").encode(
        {"x": value}, tokens, "causal"
    )
    position = row.soft_slots.index(0)
    assert list(row.ids[len(tokens.before) : position]) == plain(
        tokens, (value + first).removesuffix(" ")
    )
    assert [
        *row.ids[position + 2 :],
        *tokens.words(["great"], Template.parse(f"a{last}{{mask}}").place)[0],
    ] == tokens.follow(f"{last}Label:{last}great")


def test_a_line_break_before_the_answer_and_behind_a_prefix_is_kept():
    row = Template.parse("{x}\nAnswer:\n{mask}").encode({"x": "great"}, GPT2, "causal")
    assert shown(row, GPT2)[-2:] == [":", "\u010a"]
    row = Template.parse("{prefix:2}\n{x}\t{soft:1} is{mask}").encode(
        {"x": "great "}, GPT2, "causal"
    )
    assert (
        shown(row, GPT2)[0] == "\u010a"
        and shown(row, GPT2)[row.soft_slots.index(0) - 1] == "\u0109"
    )
    row = Template.parse("{x} {soft:1} is{mask}").encode({"x": "great "}, GPT2, "causal")
    assert shown(row, GPT2)[row.soft_slots.index(0) - 1] == "\u0120", (
        "the space that ends the field is text"
    )


def test_a_mask_that_takes_the_white_space_before_it():
    """RoBERTa's own mask is written with the white space before it, line breaks too; so it stands
    in transformers' ids."""
    tokenizer = copy.deepcopy(ROBERTA.tokenizer)
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True, special=True)})
    tokens = Tokens(tokenizer)
    for space in WHITE:
        row = Template.parse(f"The {{x}}{space}{{mask}} .").encode({"x": "film"}, tokens, "masked")
        assert list(row.ids) == tokenizer(f"The film{space}<mask> .")["input_ids"]


def test_a_tokenizer_whose_words_carry_no_space():
    """Of bytes or letters: the space before the answer is a token of the text, and no part of the
    word."""
    tokens = Tokens(tiny.letters())
    template = Template.parse("the {x} is {mask}")
    row = template.encode({"x": "film"}, tokens, "causal")
    assert shown(row, tokens)[-1] == " " and shown(row, tokens) == list("the film is ")
    assert tokens.words(["bad"], template.place) == [plain(tokens, "bad")]


# Deep prefixes.


def tokens_of(family="gpt2"):
    return Tokens(tiny.FAMILIES[family][2]())


def test_a_prefix_at_the_front_leaves_the_text_as_it_is():
    tokens = tokens_of()
    for text in ("{x} = {mask}", "The {x} {mask}"):
        plain = Template.parse(text).encode({"x": "Vienna"}, tokens, "causal")
        actual = Template.parse("{prefix:3} " + text).encode({"x": "Vienna"}, tokens, "causal")
        assert (
            actual.ids == plain.ids
            and actual.answer_positions == plain.answer_positions
            and actual.prefix == (0, 0, 0)
        )


def test_a_prefix_stands_before_the_special_tokens_and_an_infix_where_it_is_written():
    tokens = tokens_of("bert")
    assert Template.parse("{prefix:2} {x} {mask}").encode(
        {"x": "vienna"}, tokens, "masked"
    ).prefix == (0, 0)
    actual = Template.parse("{prefix:1} the {x} {prefix:2} is {mask}").encode(
        {"x": "vienna"}, tokens, "masked"
    )
    assert actual.prefix == (0, 3, 3) and len(actual.ids) == 6, "[CLS] the vienna | is [MASK] [SEP]"
    spelt = actual.spelt_out()
    assert (
        spelt.deep == (0, -1, -1, -1, 1, 2, -1, -1, -1)
        and spelt.answer_positions == (7,)
        and spelt.prefix == ()
    )
    assert [i for i, d in zip(spelt.ids, spelt.deep) if d < 0] == list(actual.ids)


def test_words_make_a_prefix_as_long_as_they_are():
    tokens = tokens_of()
    runs = Template.parse('{prefix:"the capital of"} {x} {prefix:2} = {mask}').prefixes(tokens)
    assert runs == [(3, tokens.follow(" the capital of")), (2, None)]


def test_a_prefix_takes_room():
    tokens = tokens_of()
    template = Template.parse("{prefix:10} {x|shorten} is {mask}")
    actual = template.encode({"x": "Vienna " * 30}, tokens, "causal", max_length=20)
    assert actual.cut and len(actual.ids) + 10 <= 20 and len(actual.prefix) == 10
    assert template.least({"x": "Vienna " * 30}, tokens, "causal") == 11


@pytest.mark.parametrize(
    "text, kind, message",
    [
        ("{prefix} {x} {mask}", None, "written {prefix:5}"),
        ("{prefix:0} {x} {mask}", None, "no prefix of 0"),
        ('{prefix:" "} {mask}', None, "no words"),
        ("{x} {prefix:2} {mask}", "causal", "directly before {mask}"),
        (
            "{x} {prefix:2}",
            "encoder-decoder",
            "put it first. Keys and values",
        ),
        ("{prefixes:2} {x}", None, "no field name"),
        ("{prefix:2@a} {x} {mask}", None, "written {prefix:5}"),
    ],
)
def test_prefixes_that_cannot_be(text, kind, message):
    with pytest.raises(TemplateError, match=re.escape(message)):
        Template.parse(text).for_lm(BERT, kind)


def test_a_prefix_behind_the_answer_is_dropped_for_a_causal_lm():
    template, dropped = Template.parse("{x} {mask} {prefix:2}").for_lm(BERT, "causal")
    assert dropped == "{prefix:2}" and template.prefixes(tokens_of()) == []


@pytest.mark.parametrize(
    "pattern, softened",
    [
        ("{x} It was {mask}.", '{x} {soft:"It was"} {mask}.'),
        ("[Category: {mask}] {x}", '{soft:"[Category:"} {mask}] {x}'),
        ("{mask}: {x}", '{mask}{soft:":"} {x}'),
        ('"{x}" is {{so}} {mask}', '"{x}" {soft:"is"} {{{soft:"so"}}} {mask}'),
        ("[X] was born in [Y] .", '{subject} {soft:"was born in"} {mask} .'),
        ("{soft:3} {x|strip} of {mask}", '{soft:3} {x|strip} {soft:"of"} {mask}'),
        ("a\n{x} a a {mask}", '{soft:"a"}\n{x} {soft:"a a"} {mask}'),
        ('"{x}" {mask}', '"{x}" {mask}'),
        ("{x}\u00a0{mask}", "{x}\u00a0{mask}"),
    ],
)
def test_soft_tokens_in_the_place_of_words(pattern, softened):
    parts = Template.parse(pattern).parts
    assert with_soft_words(parts) == softened
    kept = [part for part in Template.parse(softened).parts if not isinstance(part, Text | Soft)]
    assert kept == [part for part in parts if not isinstance(part, Text | Soft)]
