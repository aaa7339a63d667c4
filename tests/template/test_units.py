"""Words and passages in an input: whose tokens stand where, and windows in which none is lost."""

import pytest
import tiny

from ptune.errors import TemplateError
from ptune.template.encoding.encode import RowEncoder
from ptune.template.encoding.units import Passage, Words, encode_units, readers_of, spread
from ptune.template.language import Field, Template
from ptune.template.tokenizer import Tokens

WORDS = ["Vienna", "terrible", "\u200b", "on", "the", "Danube", "worst", "negative"] * 3


def windows(family, text, words, most=None):
    network, tokenizer = tiny.tiny(family)
    tokens = Tokens(tokenizer)
    kind = "causal" if family in ("gpt2", "llama") else "masked"
    template = Template.parse(text).joined("words")
    field = next(p for p in template.parts if isinstance(p, Field) and p.name == "words")
    encoder = RowEncoder(template, tokens, kind)
    row = {"words": words, "x": "the capital of Austria is Vienna"}
    return tokens, encode_units(
        encoder, row, field, units=Words(texts=tuple(words)), max_length=most
    )


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("text", ["{words}", "{soft:2} {words} .", "Is it {words} ?"])
def test_the_tokens_of_words_are_those_of_their_text(family, text):
    words = [word for word in WORDS if word != "\u200b"]
    tokens, (window,) = windows(family, text, words)
    row = window.row
    plain = Template.parse(text.replace("words", "y"))
    kind = "causal" if family in ("gpt2", "llama") else "masked"
    reference = RowEncoder(plain, tokens, kind).encode({"y": " ".join(words)}, None)
    assert row.ids == reference.ids and row.soft_slots == reference.soft_slots
    assert len(row.units) == len(words)
    for (start, end), word in zip(row.units, words):
        shown = "".join(tokens.show(token) for token in row.ids[start:end]).replace("##", "")
        assert shown.strip(" ▁").lower() == word.lower()


@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.parametrize("most", [12, 20, 33])
def test_windows_hold_every_word(family, most):
    _, (whole,) = windows(family, "{prefix:2} {x|shorten} : {words} .", WORDS)
    _, parts = windows(family, "{prefix:2} {x|shorten} : {words} .", WORDS, most)
    assert len(parts) > 1 and all(part.row.size <= most for part in parts)
    covered = [range(part.first, part.first + len(part.row.units)) for part in parts]
    assert set().union(*covered) == set(range(len(WORDS)))
    for part, numbers in zip(parts, covered):
        for number, (start, end) in zip(numbers, part.row.units):
            first, last = whole.row.units[number]
            if number != part.first:
                assert part.row.ids[start:end] == whole.row.ids[first:last][: end - start]


def test_a_word_without_tokens_is_an_unknown_one():
    tokens, (window,) = windows("bert", "{words}", ["a", "\u200b", ""])
    ids = [window.row.ids[start] for start, _ in window.row.units]
    assert ids[1:] == [tokens.tokenizer.unk_token_id] * 2


def test_a_word_that_does_not_fit_by_itself_loses_its_end():
    tokens, parts = windows("bert", "{words}", ["terrible" * 9, "on"], 8)
    assert [len(part.row.units) for part in parts] == [1, 1]
    assert parts[0].row.size == 8 and parts[0].row.cut > 0


def test_no_room_is_told():
    with pytest.raises(TemplateError, match="leaves no room"):
        windows("bert", "{x} {words}", WORDS, 6)


def test_windows_overlap_by_half_and_words_are_read_in_the_middle():
    parts = spread([1] * 10, 4)
    assert parts == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert readers_of(parts, 10, "masked") == [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert readers_of(parts, 10, "causal") == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert spread([4, 1, 4], 4) == [(0, 1), (1, 2), (2, 3)]


def test_a_template_takes_the_words_once():
    for text in ("{x}", "{words} {words}"):
        with pytest.raises(TemplateError, match="should have {words} once"):
            Template.parse(text).joined("words")


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_tokens_of_a_passage_know_their_characters(family):
    network, tokenizer = tiny.tiny(family)
    tokens = Tokens(tokenizer)
    text = "Vienna is the worst"
    for lead in ("", " "):
        passage = Passage(lead=lead, text=text)
        pieces, spans = passage.pieces(tokens, False), passage.spans(tokens)
        assert len(pieces) == len(spans)
        assert text[spans[0][0] : spans[0][1]].strip() in ("Vienna", "V", "Vi", "")
        assert spans[-1][1] == len(text)
