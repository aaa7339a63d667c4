"""A linear head that reads single tokens: the labels of words, or where an answer begins and
ends."""

import torch
from torch import nn

from ptune.answers.readers.reader import Reader
from ptune.answers.readers.trained_heads import DROPOUT


class TokenHead(Reader):
    """One linear layer on the hidden state of a token, as BERT's for named entities (section 5.3)
    and P-tuning v2's; dropout before it while the LM is trained with it.

    Args:
        width: of the hidden states, H.
        labels: how many labels there are, C.
    """

    name = "token-head"
    mask = "refused"
    reads_tokens = True

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.classifier = nn.Linear(width, labels)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The scores of the labels [A, C] from the hidden states at A tokens [A, H]."""
        return self.classifier(self.dropout(hidden.float()))
