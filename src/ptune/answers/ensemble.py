"""Several prompts of one task, run in one batch, answer as one (Prompt Tuning, section 6: an
ensemble costs one LM)."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import torch

Combine = Literal["mean", "vote", "weighted", "confident", "neighbours"]
TIE = 1e-3


def combine(
    scores: Sequence[torch.Tensor], how: Combine, weights: Sequence[float] | None = None
) -> torch.Tensor:
    """The members' label scores [C] each, as one share of each label [C]: the mean of their
    probabilities; or the share of members that vote for it, a tie decided by the mean; or by the
    weighted mean of their scores (PET, section 3.3); or as the one member answers whose
    probabilities are the surest, of the smallest entropy; or by the mean of their probabilities
    with weights for this row ("neighbours"): the last two are a prompt for each row.

    Args:
        scores: log probabilities of the labels, not normalised over them.
        weights: of the members, for "weighted" and "neighbours"; equal ones by default, or where
            all are 0.
    """
    share = torch.tensor(weights if weights and sum(weights) > 0 else [1.0] * len(scores))
    if how == "weighted":
        return (torch.stack(list(scores)) * share[:, None]).sum(0).div(share.sum()).softmax(0)
    shares = torch.stack([label_scores.softmax(0) for label_scores in scores])
    if how == "mean":
        return shares.mean(0)
    if how == "neighbours":
        return (shares * share[:, None]).sum(0) / share.sum()
    if how == "confident":
        return shares[torch.special.entr(shares).sum(1).argmin()]
    votes = torch.bincount(
        shares.argmax(1), minlength=shares.shape[1]
    )  # whole numbers, so that a share below one only decides ties
    return (votes + TIE * shares.mean(0)) / (len(shares) + TIE)


def most_said(texts: Sequence[str]) -> str:
    """The text that most members wrote; of equally frequent ones the earliest."""
    counts = Counter(texts)
    return max(counts, key=lambda text: counts[text])
