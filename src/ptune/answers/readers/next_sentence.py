"""The head that tells how two texts of one input relate: a task of pretraining (next-sentence
prediction) that can itself be asked, without any training, as a prompt for pairs."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.label_words import Verbalizer
from ptune.answers.readers.reader import Reader
from ptune.base import files
from ptune.errors import ModelError, VerbalizerError, nearest
from ptune.lm.language_model import LanguageModel
from ptune.lm.source import model_files
from ptune.lm.source.loading import locate, quiet_loading, read_weights

BERT = ("adjacent", "not adjacent")


class PairHead(nn.Module):
    """Tells how two texts of one input relate, from the hidden state of its first token (BERT,
    section 3.1, task 2).

    Attributes:
        labels: the relations that it tells apart.
    """

    def __init__(self, width: int, labels: tuple[str, ...]):
        super().__init__()
        self.labels = labels
        self.dense, self.classifier = nn.Linear(width, width), nn.Linear(width, len(labels))

    def forward(self, first: torch.Tensor) -> torch.Tensor:
        """The scores of the relations [B, C] from the hidden states of the first tokens [B, H]."""
        return self.classifier(torch.tanh(self.dense(first)))

    def save(self, folder: pathlib.Path) -> None:
        """Write the head into the folder of its LM.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        files.write_tensors(folder / "pair_head.safetensors", self.state_dict())
        files.write_json(folder / "pair_head.json", {"labels": list(self.labels)})

    @classmethod
    def load(cls, folder: pathlib.Path) -> "PairHead":
        """The head that ``save`` wrote into a folder.

        Raises:
            StoreError: its files are missing or damaged.
        """
        tensors = files.read_tensors(folder / "pair_head.safetensors")
        head = cls(
            tensors["dense.weight"].shape[0],
            tuple(files.read_json(folder / "pair_head.json")["labels"]),
        )
        head.load_state_dict(tensors)
        return head


class RelationReader(Reader):
    """A pair head of pretraining read as labels: a label's score is the log probability of the
    relations that stand for it. Nothing is trained.

    Args:
        head: tells relations from the hidden state of the first token.
        words: for each label the names of its relations; those that this head does not tell count
            for nothing.

    Raises:
        VerbalizerError: the head tells none of a label's relations.
    """

    name = "pair"
    mask = "refused"
    words_are_relations = True
    is_trained = decides_apart = False

    def __init__(self, head: PairHead, words: Sequence[Sequence[str]]):
        super().__init__()
        self.head = head.requires_grad_(False)
        self.columns = [
            [head.labels.index(word) for word in names if word in head.labels] for names in words
        ]
        if [] in self.columns:
            unknown = words[self.columns.index([])][0]
            raise VerbalizerError(
                f"This LM's pair head tells no relation {unknown!r} for a label to stand for. "
                f"{nearest(unknown, head.labels)}"
            )

    @classmethod
    def start(
        cls, lm: LanguageModel, verbalizer: Verbalizer | None, bound: BoundVerbalizer | None
    ) -> Self:
        """The pair head that stands beside the LM.

        Raises:
            ModelError: the LM has none.
            VerbalizerError: the head tells none of a label's relations.
        """
        assert verbalizer is not None
        return cls(of(lm.source), verbalizer.words)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The scores of the labels [B, C] from the hidden states of the first tokens [B, H]."""
        shares = self.head(hidden.float()).log_softmax(-1)
        return torch.stack([shares[:, columns].logsumexp(1) for columns in self.columns], 1)

    def scores(self, inputs: torch.Tensor, bound: BoundVerbalizer) -> torch.Tensor:
        """The scores of the labels [B, C]: the mean over both orders of a pair."""
        return torch.stack([self(hidden) for hidden in inputs]).mean(0)


def of(source: str | os.PathLike[str]) -> PairHead:
    """The pair head that stands beside an LM: the one of ``ptune pretrain``, or BERT's own
    ("adjacent", "not adjacent").

    Raises:
        ModelError: the LM has none.
    """
    if not os.fspath(source):
        raise ModelError(
            "This LM was loaded from no folder, so it has no next-sentence head beside it."
        )
    folder, where = locate(os.fspath(source))
    if (pathlib.Path(folder) / "pair_head.safetensors").exists():
        return PairHead.load(pathlib.Path(folder))
    return _berts(folder, where)


def _berts(source: str, where: Mapping[str, str]) -> PairHead:
    """The next-sentence head of a BERT, read from its own weights.

    Raises:
        ModelError: there is none, or some of its weights are missing.
    """
    from transformers import AutoModelForNextSentencePrediction

    try:
        with quiet_loading(source, pathlib.Path(source)):
            model_files.check(source, **where)
            model, loading_info = read_weights(AutoModelForNextSentencePrediction, source, where)
    except ModelError as error:
        raise ModelError(f"{source} has no next-sentence head: {error}") from error
    missing = sorted(name for name in loading_info["missing_keys"] if "position_ids" not in name)
    if missing:
        raise ModelError(f"{source} has no next-sentence head: its weights lack {missing[0]}.")
    pooler, classifier = _linear(model.base_model.pooler), _linear(model.cls)
    head = PairHead(pooler.in_features, BERT)
    head.dense, head.classifier = pooler, classifier
    return head.float()


def _linear(module: Any) -> nn.Linear:
    """The one linear layer of a module."""
    return next(part for part in module.modules() if isinstance(part, nn.Linear))
