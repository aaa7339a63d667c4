"""The head that tells how two texts of one input relate: a task of pretraining (next-sentence prediction) that can itself be
asked, without any training, as a prompt for pairs."""
import os
import pathlib
from typing import Any

import torch
from torch import nn

from ptune import store
from ptune.errors import ModelError
from ptune.loading import BUILTIN, first_line

BERT = ("adjacent", "not adjacent")


class PairHead(nn.Module):
    """Tells how two texts of one input relate, from the hidden state of its first token (BERT, section 3.1, task 2).

    Attributes:
        labels: the relations that it tells apart.
    """

    def __init__(self, width: int, labels: tuple[str, ...]):
        super().__init__()
        self.labels = labels
        self.dense, self.classifier = nn.Linear(width, width), nn.Linear(width, len(labels))

    def forward(self, first: torch.Tensor) -> torch.Tensor:
        """[B, H] to the scores of the relations [B, C]."""
        return self.classifier(torch.tanh(self.dense(first)))

    def save(self, folder: pathlib.Path) -> None:
        store.write_tensors(folder / "pair_head.safetensors", self.state_dict())
        store.write_json(folder / "pair_head.json", {"labels": list(self.labels)})

    @classmethod
    def load(cls, folder: pathlib.Path) -> "PairHead":
        tensors = store.read_tensors(folder / "pair_head.safetensors")
        head = cls(tensors["dense.weight"].shape[0], tuple(store.read_json(folder / "pair_head.json")["labels"]))
        head.load_state_dict(tensors)
        return head


def of(source: str | os.PathLike[str]) -> PairHead:
    """The pair head that stands beside an LM: the one of ``ptune pretrain``, or BERT's own ("adjacent", "not adjacent").

    Raises:
        ModelError: the LM has none.
    """
    if not os.fspath(source):
        raise ModelError("This LM was loaded from no folder, so it has no next-sentence head beside it.")
    folder = BUILTIN if source == "builtin" else pathlib.Path(source).expanduser()
    if (folder / "pair_head.safetensors").exists():
        return PairHead.load(folder)
    return _berts(os.fspath(folder if folder.exists() else source))


def _berts(source: str) -> PairHead:
    from transformers import AutoModelForNextSentencePrediction
    from transformers.utils import logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # the head of the vocabulary, which is in the file too, is no fault
    logging.disable_progress_bar()
    try:
        model, told = AutoModelForNextSentencePrediction.from_pretrained(source, output_loading_info=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(f"{source} has no next-sentence head: {first_line(error)}") from error
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
    if missing := [name for name in told["missing_keys"] if "position_ids" not in name]:
        raise ModelError(f"{source} has no next-sentence head: its weights lack {missing[0]}.")
    pooler, classifier = _linear(model.base_model.pooler), _linear(model.cls)
    head = PairHead(pooler.in_features, BERT)
    head.dense, head.classifier = pooler, classifier
    return head.float()


def _linear(module: Any) -> nn.Linear:
    """The one linear layer of a module."""
    return next(part for part in module.modules() if isinstance(part, nn.Linear))
