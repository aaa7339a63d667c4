"""How an LM's answer is read: label words, or a whole vocabulary of answers.

A verbalizer proposes fills, the ways in which the answer's place must be filled so that every word can be scored, and
turns the LM's scores there into scores of the labels. It runs no LM.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from ptune.errors import VerbalizerError, nearest
from ptune.template import Kind
from ptune.tokens import Place, Tokens


@dataclass(frozen=True)
class Fill:
    """One way to fill the answer's place: its tokens (None where a mask stands), and the words that are read from it."""

    answer: tuple[int | None, ...]
    words: tuple[int, ...]


@dataclass(frozen=True)
class Verbalizer:
    """The words that stand for each label; ``words[c]`` are those of ``labels[c]``, at least one."""

    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]

    @classmethod
    def from_words(cls, words: Mapping[str, str | Sequence[str]]) -> "Verbalizer":
        """From a mapping of labels to a word or several.

        Raises:
            VerbalizerError: there are no labels, or one has no word.
        """
        listed = {str(label): (w,) if isinstance(w, str) else tuple(map(str, w)) for label, w in words.items()}
        if len(listed) < 2:
            raise VerbalizerError(f"A verbalizer needs at least two labels, and has {list(listed) or 'none'}.")
        for label, its in listed.items():
            if not its or not all(word.strip() for word in its):
                raise VerbalizerError(f"The label {label!r} has no word: give it one, or leave the label out.")
        return cls(tuple(listed), tuple(listed.values()))

    @lru_cache(maxsize=8)
    def bind(self, tokens: Tokens, place: Place, kind: Kind) -> "Bound":
        """The verbalizer for one LM and one place in a template.

        Raises:
            VerbalizerError: a word is unknown to the tokenizer, or two labels have the same word.
        """
        flat = [word for its in self.words for word in its]
        owners = [number for number, its in enumerate(self.words) for _ in its]
        ids = tokens.words(flat, place)
        unknown = tokens.tokenizer.unk_token_id
        seen: dict[tuple[int, ...], int] = {}
        for word, pieces, owner in zip(flat, ids, owners):
            if not pieces or unknown in pieces and unknown is not None:
                raise VerbalizerError(f"The label word {word!r} (label {self.labels[owner]!r}) is not in this LM's vocabulary; "
                                      f"choose another word.")
            if (other := seen.setdefault(tuple(pieces), owner)) != owner:
                raise VerbalizerError(f"The labels {self.labels[other]!r} and {self.labels[owner]!r} have the same word for this LM: "
                                      f"{word!r} is {[tokens.show(p) for p in pieces]}.")
        return Bound(self.labels, tuple(map(tuple, ids)), tuple(owners), kind)


@dataclass(frozen=True)
class Bound:
    """A verbalizer whose words are token ids: ``ids[w]`` of each word, ``owners[w]`` the number of its label."""

    labels: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    owners: tuple[int, ...]
    kind: Kind

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each label."""
        return {label: number for number, label in enumerate(self.labels)}

    @cached_property
    def fills(self) -> tuple[Fill, ...]:
        """How the answer's place must be filled to score every word: a masked LM is given masks, words of like length share
        them; another LM reads a word's tokens one after the other, so only words of one token share a fill."""
        shared: dict[tuple[int | None, ...], list[int]] = {}
        for number, ids in enumerate(self.ids):
            answer: tuple[int | None, ...] = (None,) * len(ids) if self.kind == "masked" or len(ids) == 1 else (*ids[:-1], None)
            shared.setdefault(answer, []).append(number)
        return tuple(Fill(answer, tuple(words)) for answer, words in shared.items())

    def number(self, label: str) -> int:
        """The number of a label.

        Raises:
            VerbalizerError: there is none of that name.
        """
        if label not in self.numbers:
            raise VerbalizerError(f"There is no label {label!r}. {nearest(label, self.labels)}")
        return self.numbers[label]

    def first_word(self, label: int) -> tuple[int, ...]:
        """The token ids of the label's first word."""
        return self.ids[self.owners.index(label)]

    def scores(self, log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scores of the labels [B, C]: the log of the mean probability of each label's words. The mean is taken of
        probabilities, not of logits, so that a rare word beside a good one does no harm. A word of several tokens has the
        product of their probabilities.

        Args:
            log_probs: for each fill, log probabilities of the vocabulary [B, K, V] where its K tokens are read.
        """
        device = log_probs[0].device
        words = log_probs[0].new_empty(len(log_probs[0]), len(self.ids))
        for (numbers, ids), values in zip(self._columns, log_probs):
            ids = ids.to(device)
            words[:, numbers.to(device)] = torch.stack([values[:, k, ids[:, k]] for k in range(ids.shape[1])]).sum(0)
        if len(self.ids) == len(self.labels):
            return words
        owners = torch.tensor(self.owners, device=device)
        counts = torch.bincount(owners, minlength=len(self.labels))
        most = words.new_full((len(words), len(self.labels)), -torch.inf).scatter_reduce(1, owners.expand_as(words), words, "amax")
        summed = torch.zeros_like(most).scatter_add(1, owners.expand_as(words), (words - most[:, owners]).exp())
        return most + summed.log() - counts.log()

    @cached_property
    def _columns(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each fill, the numbers of its words [W] and their token ids [W, K]."""
        return [(torch.tensor(fill.words), torch.tensor([self.ids[word] for word in fill.words])) for fill in self.fills]


def allowed(words: Sequence[str], tokens: Tokens, place: Place) -> tuple[Verbalizer, dict[str, str], int]:
    """A vocabulary of answers: those words that are one token of the LM, as labels of their own.

    Returns:
        The verbalizer; for each word given, the label that stands for its token (an LM that ignores case has one for
        several); and how many words were left out because the tokenizer splits them or does not know them.

    Raises:
        VerbalizerError: fewer than two words are left.
    """
    unknown = tokens.tokenizer.unk_token_id
    special = set(tokens.tokenizer.all_special_ids)
    labels: dict[int, str] = {}
    names: dict[str, str] = {}
    left_out = 0
    for word, ids in zip(words, tokens.words(words, place)):
        if len(ids) == 1 and ids[0] != unknown and ids[0] not in special:
            names[word] = labels.setdefault(ids[0], word)
        else:
            left_out += 1
    if len(labels) < 2:
        raise VerbalizerError(f"Of {len(words)} allowed words only {len(labels)} are single tokens of this LM; nothing can be ranked.")
    return Verbalizer(tuple(labels.values()), tuple((label,) for label in labels.values())), names, left_out
