"""Vocabularies: new ones from text, and a WordPiece one cut to the pieces that a text needs."""

import json
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ptune.base import plain_files
from ptune.errors import ConfigError, DataError
from ptune.template.language import Kind

SENTINELS = 100


def new_tokenizer(
    texts: Iterable[pathlib.Path], kind: Kind, size: int, length: int
) -> PreTrainedTokenizerFast:
    """Learn a tokenizer: WordPiece (lower case) for a masked LM, byte-level BPE for a causal one,
    Unigram with sentinels for an encoder-decoder. The same texts give the same tokenizer."""
    learn = {"masked": _wordpiece, "causal": _byte_level, "encoder-decoder": _unigram}[kind]
    learned, special = learn(list(texts), size)
    return PreTrainedTokenizerFast(
        tokenizer_object=learned,
        model_max_length=length,
        **special,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"]
        if kind == "masked"
        else ["input_ids", "attention_mask"],
    )


def _wordpiece(texts: Sequence[pathlib.Path], size: int) -> tuple[Tokenizer, dict[str, Any]]:
    """The library numbers the letters within words in no fixed order, and of equally frequent pairs
    joins the one with the lowest numbers. So a first run finds those letters, and a second one gets
    them in order."""
    special = dict(
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    inner: list[str] = []
    for _ in range(2):
        learned = _with_wordpieces(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=[*special.values(), *inner], show_progress=False
        )
        learned.train_from_iterator(lines(texts), trainer)
        pieces = learned.get_vocab()
        inner = sorted(piece for piece in pieces if piece.startswith("##") and len(piece) == 3)
    learned = _with_wordpieces(models.WordPiece(vocab=pieces, unk_token="[UNK]"))
    learned.post_processor = processors.BertProcessing(
        ("[SEP]", pieces["[SEP]"]), ("[CLS]", pieces["[CLS]"])
    )
    return learned, special


def _with_wordpieces(model: models.WordPiece) -> Tokenizer:
    learned = Tokenizer(model)
    learned.normalizer, learned.pre_tokenizer = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    learned.decoder = decoders.WordPiece()
    return learned


def _byte_level(texts: Sequence[pathlib.Path], size: int) -> tuple[Tokenizer, dict[str, Any]]:
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer, learned.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learned.train_from_iterator(lines(texts), trainer)
    return learned, dict(
        eos_token="<|endoftext|>", bos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def _unigram(texts: Sequence[pathlib.Path], size: int) -> tuple[Tokenizer, dict[str, Any]]:
    """The library adds up the scores in no fixed order, so they are rounded to what does not hang
    on it, and put in order."""
    learned = Tokenizer(models.Unigram())
    learned.normalizer = normalizers.NFKC()
    learned.pre_tokenizer, learned.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    learned.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    named = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=size - SENTINELS, special_tokens=named, unk_token="<unk>", show_progress=False
    )
    learned.train_from_iterator(lines(texts), trainer)
    pieces = [
        (piece, round(score, 6)) for piece, score in json.loads(learned.to_str())["model"]["vocab"]
    ]
    ordered = sorted(pieces[len(named) :], key=lambda pair: (-pair[1], pair[0]))
    learned.model = models.Unigram([*pieces[: len(named)], *ordered], unk_id=named.index("<unk>"))
    special = dict(
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[f"<extra_id_{i}>" for i in range(SENTINELS)],
    )
    return learned, special


def lines(texts: Iterable[pathlib.Path]) -> Iterator[str]:
    """The lines of text files that hold anything.

    Raises:
        DataError: a file is missing or is not UTF-8.
    """
    for path in texts:
        try:
            plain_files.check(path)
            with open(path, encoding="utf-8") as stream:
                yield from (line for line in map(str.strip, stream) if line)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8 text (byte {error.start}); convert it first."
            ) from error


def cut(
    model: PreTrainedModel,
    tokenizer: Any,
    texts: Iterable[pathlib.Path],
    *,
    size: int,
    keep: Iterable[str] = (),
) -> Any:
    """Cut a WordPiece vocabulary to ``size`` pieces, and the model's embeddings with it; return the
    new tokenizer.

    Kept are the special tokens, every single character (so that nothing becomes unknown), the words
    of ``keep`` whole (a new piece starts as the mean of the pieces it was), and the pieces most
    frequent in the texts.

    Raises:
        ConfigError: the tokenizer is no WordPiece, or ``size`` is too small for what must be kept.
    """
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    if parts["model"]["type"] != "WordPiece":
        raise ConfigError(
            "Only a WordPiece vocabulary can be cut; this LM's tokenizer is of another kind."
        )
    old: dict[str, int] = parts["model"]["vocab"]
    special = {token["content"] for token in parts["added_tokens"]}
    words = dict.fromkeys(_normal(tokenizer, word) for word in keep)
    if split := next((word for word in words if len(word.split()) != 1), None):
        raise ConfigError(
            f"{split!r} is not one word, so it cannot be one piece of the vocabulary."
        )
    must = [piece for piece in old if piece in special or len(piece.removeprefix("##")) == 1]
    kept = dict.fromkeys([*must, *words])
    if len(kept) > size:
        raise ConfigError(
            f"A vocabulary of {size} is too small: special tokens, characters and kept words are "
            f"{len(kept)}."
        )
    counts: Counter[int] = Counter()
    for block in _batches(lines(texts)):
        for ids in tokenizer(block, add_special_tokens=False, verbose=False)["input_ids"]:
            counts.update(ids)
    names = {number: piece for piece, number in old.items()}
    for number, _ in counts.most_common():
        if len(kept) == size:
            break
        kept.setdefault(names[number])
    order = sorted(kept, key=lambda piece: old.get(piece, len(old)))
    sources = [
        [old[piece]] if piece in old else tokenizer(piece, add_special_tokens=False)["input_ids"]
        for piece in order
    ]
    _select_rows(model, sources)
    return _renumbered(tokenizer, parts, {piece: number for number, piece in enumerate(order)})


def _normal(tokenizer: Any, word: str) -> str:
    normalizer = tokenizer.backend_tokenizer.normalizer
    return (normalizer.normalize_str(word) if normalizer else word).strip()


def _batches(items: Iterator[str], size: int = 1000) -> Iterator[list[str]]:
    block: list[str] = []
    for item in items:
        block.append(item)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _select_rows(model: PreTrainedModel, sources: list[list[int]]) -> None:
    """Give the model's vocabulary the rows ``sources``, each the mean of some old rows."""
    with torch.no_grad():

        def chosen(weight: torch.Tensor) -> torch.Tensor:
            return torch.stack([weight[ids].mean(0) for ids in sources])

        rows = chosen(model.get_input_embeddings().weight)
        head = model.get_output_embeddings()
        head_rows = chosen(head.weight)
        bias = None if head.bias is None else chosen(head.bias)
        model.resize_token_embeddings(len(sources), mean_resizing=False)
        model.get_input_embeddings().weight.copy_(rows)
        head = model.get_output_embeddings()
        if not model.config.tie_word_embeddings:
            head.weight.copy_(head_rows)
        if bias is not None:
            head.bias.copy_(bias)


def _renumbered(tokenizer: Any, parts: dict[str, Any], vocabulary: dict[str, int]) -> Any:
    parts["model"]["vocab"] = vocabulary
    for token in parts["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    processor = parts.get("post_processor") or {}
    for name in ("sep", "cls"):
        if name in processor:
            processor[name][1] = vocabulary[processor[name][0]]
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [vocabulary[piece] for piece in token["tokens"]]
    names = {
        name: getattr(tokenizer, name)
        for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        if getattr(tokenizer, name) is not None
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(parts)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=tokenizer.model_input_names,
        **names,
    )
