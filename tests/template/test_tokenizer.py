import pytest
import tiny

from ptune.template.tokenizer import Tokens

ALL = {
    "bert": tiny.wordpiece,
    "gpt2": lambda: tiny.byte_level(False),
    "roberta": lambda: tiny.byte_level(True),
    "t5": tiny.unigram,
    "llama": tiny.prepended,
}


@pytest.fixture(params=ALL)
def tokens(request):
    return Tokens(ALL[request.param]())


def test_special_tokens_are_found_by_trying(tokens):
    single, pair = tokens.tokenizer("great film"), tokens.tokenizer("great", "film")
    assert single["input_ids"] == tokens.before + tokens.start("great film") + tokens.after
    if tokens.between is not None:
        assert (
            pair["input_ids"]
            == tokens.before
            + tokens.start("great")
            + tokens.between
            + tokens.start("film")
            + tokens.after
        )


def test_text_that_follows_has_the_tokens_of_the_whole(tokens):
    for before, behind in (
        ("The capital", " of Austria"),
        ("It was great", " ."),
        ("Is it", " Yes or No"),
    ):
        assert tokens.start(before) + tokens.follow(behind) == tokens.plain(before + behind)


def test_words_at_once_are_words_one_by_one(tokens):
    words = ["Vienna", "great", "euro", "Maybe", "a great film", "."]
    for place in ("start", "spaced", "joined"):
        one_by_one = [
            tokens.start(w)
            if place == "start"
            else tokens.follow(f" {w}" if place == "spaced" else w)
            for w in words
        ]
        assert tokens.words(words, place) == one_by_one
    assert tokens.words([], "spaced") == []


def test_label_words_that_share_a_space_piece_stay_apart():
    """Llama's " Positive" and " Negative" split to a space piece first, so that labels collide
    (csinva/tree-prompt#1)."""
    llama = Tokens(tiny.prepended())
    assert llama.plain(" positive")[0] == llama.plain(" negative")[0], (
        "the trap is not there, so this test could not fail"
    )
    positive, negative = llama.words(["positive", "negative"], "spaced")
    assert positive[0] != negative[0]


def test_special_tokens_in_a_rows_text_are_text(tokens):
    for special in tokens.tokenizer.all_special_tokens:
        assert not set(tokens.plain(f"great {special} film")) & (
            set(tokens.tokenizer.all_special_ids) - {tokens.tokenizer.unk_token_id}
        )


def test_masks_and_sentinels():
    assert Tokens(tiny.wordpiece()).mask == tiny.wordpiece().mask_token_id
    t5 = Tokens(tiny.unigram())
    assert t5.mask == t5.sentinel == t5.tokenizer.convert_tokens_to_ids("<extra_id_0>")
    gpt2 = Tokens(tiny.byte_level(False))
    assert gpt2.mask is None and gpt2.pad == gpt2.tokenizer.eos_token_id


def test_spans_are_those_of_the_tokens(tokens):
    text = "Vienna lies on the Danube"
    spans = tokens.spans(text)
    assert len(spans) == len(tokens.plain(text)) and spans[-1][1] == len(text)


def test_real_tokenizers(data):
    """BERT's real vocabulary and GPT-2's real merges."""
    from transformers import BertTokenizer, GPT2Tokenizer

    bert = Tokens(BertTokenizer(vocab=str(data / "tokenizers/bert-base-uncased/vocab.txt")))
    assert bert.before == [101] and bert.between == bert.after == [102] and bert.types == (0, 0, 1)
    gpt2 = Tokens(
        GPT2Tokenizer(
            vocab=str(data / "tokenizers/gpt2/encoder.json"),
            merges=str(data / "tokenizers/gpt2/vocab.bpe"),
        )
    )
    assert gpt2.tokenizer.convert_ids_to_tokens(gpt2.words(["Vienna"], "spaced")[0]) == [
        "\u0120Vienna"
    ]
    assert len(gpt2.words(["Vienna"], "start")[0]) == 2
