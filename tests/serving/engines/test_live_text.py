"""The pieces of a text add up to the whole, whatever stands at their seams."""

import pytest
import serving_kit
from serving_kit import TEXTS

from ptune import load
from ptune.model.running.generate import text_of
from ptune.serving.engines.live_text import LiveText


@pytest.fixture(scope="module")
def model(prompts):
    return load(prompts / "letter", serving_kit.lm())


def live(model, ids, stops=(), most=99):
    text, pieces = LiveText(model, most, stops), []
    for token in ids:
        text.add(token)
        pieces.append(text.piece())
    return text, pieces


@pytest.mark.parametrize("stops", [(), ("st film",), (" film , it",), ("zz", "x"), ("great",)])
@pytest.mark.parametrize("words", ["It was a great film , it was the best film", "München 😀 ist"])
def test_pieces_are_the_whole(model, words, stops):
    ids = model.lm.tokens.plain(f"  {words}  ")
    text, pieces = live(model, [*ids, model.lm.end, *ids], stops)
    assert "".join(pieces) == text.text == text_of(model, [*ids, model.lm.end], stops)
    assert text.end == "stop" and sum(map(bool, pieces)) > 1
    assert "�" not in "".join(pieces)


def test_what_may_begin_a_stop_string_is_held_back(model):
    ids = model.lm.tokens.plain("the best film")
    _, pieces = live(model, ids, ("t film",))
    assert "".join(pieces) == "the bes"
    _, pieces = live(model, ids[:-1], ("t film",))
    assert "".join(pieces) in ("the bes", "the b", "the"), "it may still be the stop string"
    _, pieces = live(model, ids[:-1] + model.lm.tokens.plain(" Rome"), ("t film",), len(ids))
    assert "".join(pieces).startswith("the best")


def test_a_tokenizer_that_joins_words_again_hands_out_whole_words(model, monkeypatch):
    tokenizer = model.lm.tokens.tokenizer
    monkeypatch.setattr(tokenizer, "clean_up_tokenization_spaces", True, raising=False)
    anyway = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output"
    monkeypatch.setattr(tokenizer, anyway, True, raising=False)
    ids = [token for word in ("do", " n", "'t", " go") for token in model.lm.tokens.plain(word)]
    text, pieces = live(model, [*ids, model.lm.end])
    assert "".join(pieces) == text.text == "don't go"


def test_the_most_tokens_end_a_text(model):
    ids = model.lm.tokens.plain(TEXTS[3])
    text, _ = live(model, ids, most=4)
    assert text.end == "length" and len(text.ids) == 4
