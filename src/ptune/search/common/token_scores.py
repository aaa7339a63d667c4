"""What an LM says of single tokens: of the next one, and of all those of a text."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ptune.lm.language_model import LanguageModel
from ptune.template.language import EncodedRow

ROWS = 64  # that the LM reads at once


@torch.no_grad()
def log_probs(lm: LanguageModel, rows: Sequence[EncodedRow]) -> torch.Tensor:
    """The log probabilities of the tokens [A, V] at the answer positions of rows."""
    parts = []
    with lm.evaluating():
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            scores = lm.read_rows(part, [-1] * len(part)).scores
            parts.append(scores[:, : lm.words].log_softmax(-1).cpu())
    return torch.cat(parts)


def rows_of_text(lm: LanguageModel, row: EncodedRow) -> tuple[list[EncodedRow], list[int]]:
    """What the LM reads to score every token of a text, and these tokens: of a causal LM the text
    once, each token behind those before it; of a masked LM the text with each token masked in turn
    (pseudo-likelihood, Salazar et al. 2020)."""
    first = len(lm.tokens.before)
    if lm.kind == "causal":
        places = range(max(first, 1), len(row.ids))
        read = replace(row, answer_positions=tuple(place - 1 for place in places))
        return [read], [row.ids[place] for place in places]
    assert lm.tokens.mask is not None
    places = range(first, len(row.ids) - len(lm.tokens.after))
    masked = [
        replace(
            row,
            ids=(*row.ids[:place], lm.tokens.mask, *row.ids[place + 1 :]),
            answer_positions=(place,),
        )
        for place in places
    ]
    return masked, [row.ids[place] for place in places]


def mean_log_probs(lm: LanguageModel, texts: Sequence[EncodedRow]) -> list[float]:
    """The mean log probability of the tokens of each text; all texts share batches."""
    read, tokens = zip(*(rows_of_text(lm, text) for text in texts), strict=True)
    scores = log_probs(lm, [row for rows in read for row in rows])
    flat = torch.tensor([token for of_text in tokens for token in of_text])
    values = scores[torch.arange(len(flat)), flat]
    return [float(part.mean()) for part in values.split([len(of_text) for of_text in tokens])]
