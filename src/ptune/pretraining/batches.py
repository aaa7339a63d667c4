"""The texts of a pretraining, and the batches that its objective makes of them. The data of a step
follow from the seed and the number of the step alone."""

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ptune.errors import ConfigError, DataError
from ptune.lm.batch import Batch
from ptune.lm.language_model import LanguageModel
from ptune.pretraining import corpus, segmentation, vocabulary
from ptune.pretraining.corpus import Corpus
from ptune.pretraining.parts import Objective, Schedule

PAIRS = {
    "two-way": ("adjacent", "not adjacent"),
    "three-way": ("adjacent", "same document", "another document"),
}
TRIED = 20  # draws of another text for the second half of a row
Picks = list[tuple[int, int]]
Words = tuple[np.ndarray, np.ndarray]


@dataclass
class Text:
    """What is read: each text's corpus, its training pieces and its held-out ones, both [S, 3]
    (``Corpus.sequences``)."""

    corpora: list[Corpus]
    training: list[np.ndarray]
    held_out: list[np.ndarray]


@dataclass
class Batched:
    """A batch, the token asked for at each of its answer positions, and how the pairs relate, where
    the rows are pairs."""

    batch: Batch
    labels: torch.Tensor
    relations: torch.Tensor | None


def read(
    paths: Sequence[pathlib.Path],
    lm: LanguageModel,
    folder: pathlib.Path,
    *,
    objective: Objective,
    length: int,
    held_out: float,
    seed: int,
) -> Text:
    """Tokenise the texts, and cut them into pieces, of which some are held out.

    Args:
        folder: what is read is kept there.
        length: tokens in a piece at most, special ones included.
        held_out: the share of the pieces that is held out, drawn by the seed.

    Raises:
        DataError: there is too little text for the objective.
    """
    segment = segmentation.segmenter(objective.segmenter)
    tokenised = [
        corpus.tokenise(path, _of(lm), folder, end=_end(lm), segment=segment) for path in paths
    ]
    text = _cut(tokenised, lm, objective, length)
    pieces = text.training
    aside = [
        np.random.default_rng((seed, number)).random(len(part)) < held_out
        for number, part in enumerate(pieces)
    ]
    text.training = [part[~chosen] for part, chosen in zip(pieces, aside)]
    text.held_out = [part[chosen] for part, chosen in zip(pieces, aside)]
    if not sum(map(len, text.training)):
        raise DataError("The texts hold no sequence to train on.")
    documents = {
        (number, document)
        for number, part in enumerate(pieces)
        for document in np.unique(part[:, 2])
    }
    if objective.next_sentence != "none" and len(documents) < 2:
        raise DataError(
            "Next-sentence prediction needs several documents: put blank lines between them."
        )
    return text


def sample(
    paths: Sequence[pathlib.Path], lm: LanguageModel, objective: Objective, length: int
) -> Text:
    """A few pieces from the beginning of each text, which nothing is written of; the same are
    trained on and held out.

    Raises:
        DataError: a text cannot be read.
    """
    segment = segmentation.segmenter(objective.segmenter)
    begun = [corpus.beginning(path, _of(lm), _end(lm), segment) for path in paths]
    text = _cut(begun, lm, objective, length)
    text.training = [part[:2] for part in text.training]
    text.held_out = text.training
    return text


def _of(lm: LanguageModel) -> Any:
    return lm.tokens.tokenizer


def _end(lm: LanguageModel) -> int | None:
    """What ends a text in the joined stream of an LM that reads from left to right."""
    return None if lm.kind == "masked" else _of(lm).eos_token_id


def _cut(corpora: list[Corpus], lm: LanguageModel, objective: Objective, length: int) -> Text:
    """The texts in pieces, none of them held out. An LM that reads from left to right gets one
    joined stream."""
    joined = lm.kind != "masked"
    special = len(lm.tokens.before) + len(lm.tokens.after)
    room = length - (int(lm.kind != "causal") if joined else special)
    room -= len(lm.tokens.between or ()) if objective.next_sentence != "none" else 0
    pieces = [one.sequences(room, joined) for one in corpora]
    if joined:  # one token leaves nothing to predict
        pieces = [part[part[:, 1] - part[:, 0] > 1] for part in pieces]
    return Text(corpora, pieces, [])


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batches of one objective.

    Attributes:
        lm: whose tokens and kind they are for.
    """

    objective: Objective
    schedule: Schedule
    lm: LanguageModel
    text: Text

    def from_step(self, step: int) -> Iterator[Picks]:
        """The batches from a step on, as (text, piece); an epoch's order follows from the seed.

        Raises:
            DataError: an epoch takes nothing.
        """
        schedule, epoch_start, number = self.schedule, 0, 0
        extra = len(self.lm.tokens.before) + len(self.lm.tokens.after)
        while step < schedule.steps:
            batches = corpus.epoch(
                self.text.training,
                schedule.weights or [1.0] * len(self.text.corpora),
                schedule.batch_tokens,
                extra=extra,
                seed=schedule.seed + 7919 * number,
            )
            if not batches:
                raise DataError("With these weights an epoch takes nothing; make them larger.")
            for picks in batches[max(0, step - epoch_start) :]:
                if step == schedule.steps:
                    return
                yield picks
                step += 1
            epoch_start, number = epoch_start + len(batches), number + 1

    def held_out(self, most: int) -> list[Picks]:
        """The batches of the held-out text, as many as that at most."""
        weights = [1.0] * len(self.text.held_out)
        return corpus.epoch(
            self.text.held_out, weights, self.schedule.batch_tokens, extra=0, seed=0
        )[:most]

    def collate(self, picks: Picks, pieces: list[np.ndarray], seed: tuple[int, ...]) -> Batched:
        """A batch of some pieces as the objective asks them.

        Args:
            pieces: those of the training, or the held-out ones.
            seed: what the masks, spans and pairs follow from.

        Raises:
            ConfigError: the tokenizer lacks what the objective needs.
        """
        random = np.random.default_rng(seed)
        spans = [(number, *pieces[number][piece]) for number, piece in picks]
        rows = [np.asarray(self.text.corpora[c].ids[a:b]) for c, a, b, _ in spans]
        relations, types = None, None
        if self.objective.objective == "masked":
            starts = [np.asarray(self.text.corpora[c].starts[a:b]) for c, a, b, _ in spans]
            if self.objective.next_sentence != "none":
                rows, starts, types, relations = self._pairs(
                    spans, rows, starts, pieces=pieces, random=random
                )
            arrays = self._masked(rows, starts, random)
        elif self.objective.objective == "causal":
            arrays = corpus.causal(rows, self.lm.tokens.pad)
        else:
            arrays = self._to_decoder(rows, random)
        return _batched(arrays, types, relations)

    def _masked(
        self, rows: list[np.ndarray], starts: list[np.ndarray], random: np.random.Generator
    ) -> corpus.Batch:
        tokens = self.lm.tokens
        return corpus.masked(
            rows,
            starts,
            share=self.objective.mask_share,
            mask=int(tokens.mask or 0),
            size=len(tokens.tokenizer),
            random=random,
            around=(tokens.before, tokens.after),
            pad=tokens.pad,
            spared={*(tokens.between or ())},
        )

    def _to_decoder(self, rows: list[np.ndarray], random: np.random.Generator) -> corpus.Batch:
        """Span corruption, or the rest of a text from its beginning."""
        tokens, start = self.lm.tokens, self.lm.start
        end = tokens.tokenizer.eos_token_id
        if self.objective.objective == "prefix-lm":
            return corpus.split(rows, end=end, start=start, random=random, pad=tokens.pad)
        if tokens.sentinel is None:
            raise ConfigError(
                "Span corruption needs a tokenizer with sentinels (<extra_id_0> ...); "
                "this one has none."
            )
        sentinels = [tokens.sentinel + offset for offset in self._sentinel_order()]
        return corpus.corrupted(
            rows, sentinels, end=end, start=start, random=random, pad=tokens.pad
        )

    def _sentinel_order(self) -> list[int]:
        """Sentinels by number, as offsets from the first: T5's own vocabulary counts them
        downwards."""
        tokenizer, first_sentinel = self.lm.tokens.tokenizer, self.lm.tokens.sentinel
        second_sentinel = tokenizer.convert_tokens_to_ids("<extra_id_1>")
        step = (
            second_sentinel - first_sentinel
            if second_sentinel is not None and second_sentinel != tokenizer.unk_token_id
            else 1
        )
        return [step * number for number in range(vocabulary.SENTINELS)]

    def _pairs(
        self,
        spans: list[Any],
        rows: list[np.ndarray],
        starts: list[np.ndarray],
        *,
        pieces: list[np.ndarray],
        random: np.random.Generator,
    ) -> tuple[list[np.ndarray], list[np.ndarray], torch.Tensor, torch.Tensor]:
        """Cut each row in two at a word, put another text in place of some second halves, and the
        separator between. Returns the rows, where words begin in them, their token types, and how
        the halves relate."""
        tokens = self.lm.tokens
        between = tokens.between or []
        relations = random.integers(len(PAIRS[self.objective.next_sentence]), size=len(rows))
        joined_rows, marks, kinds = [], [], []
        for number, (span, ids, word_starts) in enumerate(zip(spans, rows, starts)):
            middle = _middle(ids, word_starts)
            second = ids[middle:], word_starts[middle:]
            if relations[number]:
                other = self._other(span, pieces, random, int(relations[number]))
                relations[number] = 0 if other is None else relations[number]
                second = second if other is None else _first_of(other, len(ids) - middle)
            joined_rows.append(np.concatenate([ids[:middle], between, second[0]]).astype(np.int64))
            marks.append(
                np.concatenate([word_starts[:middle], np.ones(len(between), bool), second[1]])
            )
            kinds.append(self._types(middle, len(second[0])))
        width = max(map(len, kinds))
        types = torch.tensor([kind + [0] * (width - len(kind)) for kind in kinds])
        return joined_rows, marks, types, torch.from_numpy(relations)

    def _types(self, first: int, second: int) -> list[int]:
        """The token types of a pair whose halves have so many tokens."""
        tokens = self.lm.tokens
        types = tokens.types or (0, 0, 1)
        return (
            [types[0]] * (len(tokens.before) + first)
            + [types[1]] * len(tokens.between or [])
            + [types[2]] * (second + len(tokens.after))
        )

    def _other(
        self,
        span: Sequence[int],
        pieces: list[np.ndarray],
        random: np.random.Generator,
        number: int,
    ) -> Words | None:
        """A random piece of the same document, or of any other one, as the relation of that number
        asks; None where chance finds none."""
        corpus_number, _, _, document = span
        same = self.objective.next_sentence == "three-way" and number == 1
        for _ in range(TRIED):
            drawn, pool = self._pool(corpus_number, document, pieces, random=random, same=same)
            if not len(pool):
                return None
            start, end, other_document = pool[random.integers(len(pool))]
            if ((drawn, other_document) == (corpus_number, document)) == same:
                text = self.text.corpora[drawn]
                return np.asarray(text.ids[start:end]), np.asarray(text.starts[start:end])
        return None

    def _pool(
        self,
        corpus_number: int,
        document: int,
        pieces: list[np.ndarray],
        *,
        random: np.random.Generator,
        same: bool,
    ) -> tuple[int, np.ndarray]:
        """The number of a text, and its pieces among which one is drawn: those of the same
        document, or all of a random text."""
        if same:
            of_text = pieces[corpus_number]
            return corpus_number, of_text[of_text[:, 2] == document]
        sizes = np.array(list(map(len, pieces)))
        drawn = int(random.choice(len(pieces), p=sizes / sizes.sum()))
        return drawn, pieces[drawn]


def _middle(ids: np.ndarray, word_starts: np.ndarray) -> int:
    """Where a row is cut in two: at the first word of its second half."""
    half = range(max(1, len(ids) // 2), len(ids))
    return next((position for position in half if word_starts[position]), len(ids))


def _first_of(words: Words, length: int) -> Words:
    """The first tokens of a piece, one at least."""
    return words[0][: max(1, length)], words[1][: max(1, length)]


def _batched(
    arrays: corpus.Batch, types: torch.Tensor | None, relations: torch.Tensor | None
) -> Batched:
    """The arrays as a batch that asks at each label; a pair head reads the first token, so that is
    one more answer position in each row of pairs."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    rows = len(tensors["input_ids"])
    has_label = tensors["labels"] != -100
    positions = has_label.nonzero()
    if relations is not None:
        first = torch.stack([torch.arange(rows), torch.zeros(rows, dtype=torch.long)], 1)
        positions = torch.cat([positions, first])
    batch = Batch(
        ids=tensors["input_ids"],
        attention=tensors["attention_mask"],
        soft_slots=torch.full_like(tensors["input_ids"], -1),
        prompts=torch.full((rows,), -1),
        types=types,
        rows=positions[:, 0],
        columns=positions[:, 1],
        decoder=tensors.get("decoder_input_ids"),
        decoder_attention=tensors.get("decoder_attention_mask"),
    )
    return Batched(batch, tensors["labels"][has_label], relations)
