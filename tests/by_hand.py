"""A tiny LM of transformers called directly, one row at a time, on ids that are put together here:
no template, no batch, no padding. Rows are written as their pieces, text and numbers of soft
vectors, up to the answer.
"""

import functools
from collections.abc import Hashable, Sequence
from typing import Any

import tiny
import torch

Pieces = Sequence[str | int]
BEHIND = " x"  # any word: what stands behind it is tokenised as it would be in the middle of a text


@functools.cache
def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    encoded = tokenizer(text, add_special_tokens=False, split_special_tokens=True)
    return tuple(encoded["input_ids"])


class Plain:
    """A tiny LM of a family, and its vocabulary scores where an answer is read."""

    def __init__(self, family: str, seed: int = 0, dtype: torch.dtype = torch.float32):
        self.network, self.tokenizer = tiny.tiny(family, dtype, seed)
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        config = self.network.config
        self.kind = (
            "encoder-decoder"
            if config.is_encoder_decoder
            else "masked"
            if family in (*tiny.MASKED, "distilbert")
            else "causal"
        )
        whole, text = self.tokenizer("x")["input_ids"], self.ids("x")
        position = whole.index(text[0])
        self.before, self.after = whole[:position], whole[position + len(text) :]
        sentinel = self.tokenizer.convert_tokens_to_ids("<extra_id_0>")
        self.sentinel = None if sentinel in (None, self.tokenizer.unk_token_id) else sentinel
        self.mask = self.tokenizer.mask_token_id if self.sentinel is None else self.sentinel
        self._logits: dict[Hashable, torch.Tensor] = {}

    def ids(self, text: str) -> list[int]:
        return list(_ids(self.tokenizer, text))

    def follow(self, text: str) -> list[int]:
        """The ids of a text behind another."""
        return self.ids(BEHIND + text)[len(self.ids(BEHIND)) :]

    def word(self, text: str) -> list[int]:
        """The ids of a word of the answer."""
        return self.follow(f" {text}")

    def row(
        self, pieces: Pieces, answer: Sequence[int | None] | None = (None,)
    ) -> tuple[list[int | str], list[int] | None, list[int]]:
        """Ids (a soft vector as "soft 0"), the decoder's ids, and where the answer's tokens are
        read. An answer of None is a row that is read as a whole: at its first token, a causal LM's
        last, a decoder's start."""
        row: list[int | str] = list(self.before)
        for number, piece in enumerate(pieces):
            row += (
                [f"soft {piece}"]
                if isinstance(piece, int)
                else self.ids(piece)
                if number == 0
                else self.follow(piece)
            )
        start = getattr(self.network.config, "decoder_start_token_id", None)
        if answer is None:
            answer_positions = [len(row) - 1] if self.kind == "causal" else [0]
            return (
                [*row, *(self.after if self.kind != "causal" else [])],
                [start] if self.kind == "encoder-decoder" else None,
                answer_positions,
            )
        if self.kind == "masked":
            answer_positions = list(range(len(row), len(row) + len(answer)))
            return (
                [*row, *(self.mask if token is None else token for token in answer), *self.after],
                None,
                answer_positions,
            )
        if self.kind == "causal":
            answer_positions = list(range(len(row) - 1, len(row) - 1 + len(answer)))
            return [*row, *answer[:-1]], None, answer_positions
        decoder = [
            start,
            *(
                [self.sentinel]
                if self.sentinel is not None
                else [id_ for id_ in row if isinstance(id_, int)]
            ),
            *answer[:-1],
        ]
        return (
            [*row, self.mask, *self.after],
            decoder,
            list(range(len(decoder) - len(answer), len(decoder))),
        )

    def run(
        self,
        row: Sequence[int | str],
        decoder: Sequence[int] | None = None,
        vectors: torch.Tensor | None = None,
        **more,
    ):
        """What transformers' model says of one row."""
        words = self.network.get_input_embeddings()
        if all(isinstance(id_, int) for id_ in row):
            more["input_ids"] = torch.tensor([row])
        else:
            embedded = [
                words(torch.tensor(id_)) if isinstance(id_, int) else vectors[int(id_.split()[1])]
                for id_ in row
            ]
            more["inputs_embeds"] = torch.stack(embedded)[None]
        if decoder is not None:
            more["decoder_input_ids"] = torch.tensor([decoder])
        return self.network(**more)

    def logits(
        self,
        pieces: Pieces,
        answer: Sequence[int | None] = (None,),
        vectors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[K, V] where the answer's K tokens are read."""
        row, decoder, answer_positions = self.row(pieces, answer)
        if vectors is not None and vectors.requires_grad and torch.is_grad_enabled():
            return self.run(row, decoder, vectors).logits[0][answer_positions]
        key = (  # a row is asked for again and again, and its answer is the same
            tuple(row),
            tuple(decoder or ()),
            None if vectors is None else tuple(vectors.detach().flatten().tolist()),
            *(parameter._version for parameter in self.network.parameters()),
        )
        if key not in self._logits:
            self._logits[key] = self.run(row, decoder, vectors).logits[0]
        return self._logits[key][answer_positions]

    def hidden(
        self,
        pieces: Pieces,
        answer: Sequence[int | None] | None,
        vectors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The last hidden state [H] where the answer's first token is read."""
        row, decoder, answer_positions = self.row(pieces, answer)
        output = self.run(row, decoder, vectors, output_hidden_states=True)
        return (output.decoder_hidden_states if decoder is not None else output.hidden_states)[-1][
            0, answer_positions[0]
        ]

    def spelt(
        self,
        pieces: Pieces,
        ids: Sequence[int],
        order: str | None = None,
        vectors: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The log probability of a word of the answer."""
        count, total = len(ids), torch.zeros(())
        if self.kind != "masked":
            values = self.logits(pieces, ids, vectors).log_softmax(-1)
            return sum(values[position, ids[position]] for position in range(count))
        if order in (None, "parallel"):
            values = self.logits(pieces, [None] * count, vectors).log_softmax(-1)
            return sum(values[position, ids[position]] for position in range(count))
        answer: list[int | None] = [None] * count
        while None in answer:
            values = self.logits(pieces, answer, vectors).log_softmax(-1)
            empty = [position for position in range(count) if answer[position] is None]
            position = (
                empty[0]
                if order == "left-to-right"
                else max(
                    empty, key=lambda position: float(values[position, ids[position]].detach())
                )
            )
            total, answer[position] = total + values[position, ids[position]], ids[position]
        return total

    def words(
        self,
        pieces: Pieces,
        words: Sequence[Sequence[str]],
        order: str | None = None,
        vectors: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """For each label the log probabilities of its words."""
        return [
            torch.stack(
                [self.spelt(pieces, self.word(word), order, vectors) for word in label_words]
            )
            for label_words in words
        ]


def of_labels(words: Sequence[torch.Tensor], aggregate: str = "probability") -> torch.Tensor:
    """The labels' scores [C] from the log probabilities of their words."""
    return torch.stack(
        [
            word_scores.exp().mean().log() if aggregate == "probability" else word_scores.mean()
            for word_scores in words
        ]
    )
