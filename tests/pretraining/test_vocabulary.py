from random import Random

import pytest
import tiny
import torch

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.pretraining import vocabulary


@pytest.fixture
def text(tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(tiny.TEXT * 3))
    return tmp_path / "a.txt"


@pytest.mark.parametrize("kind", ["masked", "causal", "encoder-decoder"])
def test_new_tokenizers(kind, text):
    tokenizer = vocabulary.new_tokenizer([text], kind, 400, 64)
    assert len(tokenizer) <= 400 and tokenizer.model_max_length == 64
    sentence = "The capital of Austria is Vienna"
    ids = tokenizer(sentence)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip().lower() == sentence.lower()
    assert (tokenizer.mask_token_id is not None) == (kind == "masked")
    assert (
        tokenizer.convert_tokens_to_ids("<extra_id_0>") not in (None, tokenizer.unk_token_id)
    ) == (kind == "encoder-decoder")


@pytest.mark.parametrize("kind", ["masked", "causal", "encoder-decoder"])
def test_the_same_text_gives_the_same_tokenizer(kind, tmp_path):
    """Though the library breaks ties by chance: many pieces of this text are equally frequent."""
    random = Random(0)
    words = [
        "".join(random.choice("abcdefgh") for _ in range(random.randint(2, 8))) for _ in range(300)
    ]
    (tmp_path / "a.txt").write_text("\n".join(words))
    tokenizers = {
        vocabulary.new_tokenizer([tmp_path / "a.txt"], kind, 400, 64).backend_tokenizer.to_str()
        for _ in range(4)
    }
    assert len(tokenizers) == 1


def test_a_cut_vocabulary_is_the_same_lm_on_what_is_kept(text):
    network, old = tiny.tiny("bert")
    before = LanguageModel(*tiny.tiny("bert"))
    tokenizer = vocabulary.cut(
        network,
        old,
        [text],
        size=100,
        keep=["vienna", "terrible", "Positive", "the", "capital", "of", "austria", "is"],
    )
    assert (
        len(tokenizer)
        == 100
        == network.get_input_embeddings().num_embeddings
        == network.config.vocab_size
    )
    after = LanguageModel(network, tokenizer)
    sentence = "the capital of austria is [MASK] ."
    theirs, ours = old(sentence)["input_ids"], tokenizer(sentence)["input_ids"]
    assert (
        tokenizer.convert_ids_to_tokens(ours) == old.convert_ids_to_tokens(theirs)
        and ours != theirs
    )
    old_logits, new_logits = (
        before.model(torch.tensor([theirs])).logits[0],
        after.model(torch.tensor([ours])).logits[0],
    )
    kept = [p for p in tokenizer.get_vocab() if p in old.get_vocab()]
    torch.testing.assert_close(
        new_logits[:, tokenizer.convert_tokens_to_ids(kept)],
        old_logits[:, old.convert_tokens_to_ids(kept)],
        atol=1e-5,
        rtol=1e-5,
    )


def test_kept_words_are_whole_and_nothing_becomes_unknown(text):
    network, old = tiny.tiny("bert")
    pieces = old("terrible", add_special_tokens=False)["input_ids"]
    mean = network.get_input_embeddings().weight[pieces].mean(0).detach().clone()
    assert len(pieces) > 1
    tokenizer = vocabulary.cut(network, old, [text], size=110, keep=["terrible"])
    (piece,) = tokenizer("Terrible", add_special_tokens=False)["input_ids"]
    torch.testing.assert_close(network.get_input_embeddings().weight[piece], mean)
    for line in tiny.TEXT:
        assert tokenizer.unk_token_id not in tokenizer(line)["input_ids"]


def test_what_cannot_be_cut(text):
    network, tokenizer = tiny.tiny("bert")
    with pytest.raises(ConfigError, match="too small: .* are"):
        vocabulary.cut(network, tokenizer, [text], size=60)
    with pytest.raises(ConfigError, match="'great film' is not one word"):
        vocabulary.cut(network, tokenizer, [text], size=110, keep=["great film"])
    with pytest.raises(ConfigError, match="Only a WordPiece vocabulary"):
        vocabulary.cut(*tiny.tiny("gpt2"), [text], size=110)
