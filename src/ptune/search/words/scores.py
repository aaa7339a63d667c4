"""How well a word stands for a label, from the log probabilities of words at the answer's place."""

import itertools
from collections.abc import Sequence

import torch

LIKELIEST = 1000  # words that PETAL compares (Schick et al. 2020, section 4.1)
SURE = 1 - 1e-7  # short of all, so that the log of the rest is finite
ASSIGNMENTS = 100_000  # of words to labels that are compared at most
AT_ONCE = 2000


def conditional(log_probs: torch.Tensor, right: torch.Tensor, label: int) -> torch.Tensor:
    """The log probability of each word over the rows of a label [W] (Gao et al. 2021, LM-BFF,
    equation 5).

    Args:
        log_probs: of the words for each row [B, W].
        right: the number of each row's label [B].
    """
    return log_probs[right == label].sum(0)


def likelihood_ratio(log_probs: torch.Tensor, right: torch.Tensor, label: int) -> torch.Tensor:
    """PETAL's likelihood ratio of each word [W]: the log odds of the word over the rows of the
    label, less those over the other rows, both kinds weighted as if they were equally many (Schick
    et al. 2020, section 3).

    Args:
        log_probs, right: as in ``conditional``.
    """
    odds = log_probs - torch.log1p(-log_probs.exp().clamp(max=SURE))
    positive = right == label
    weight = (~positive).sum() / positive.sum()
    return weight * odds[positive].sum(0) - odds[~positive].sum(0)


def best_ratios(
    log_probs: Sequence[torch.Tensor], right: torch.Tensor, label: int, count: int
) -> list[int]:
    """The numbers of the words with the largest likelihood ratio, jointly over patterns, among the
    label's likeliest words.

    Args:
        log_probs: for each pattern, of the words for each row [B, W].
    """
    likely = torch.stack([conditional(one, right, label) for one in log_probs]).sum(0)
    ratios = torch.stack([likelihood_ratio(one, right, label) for one in log_probs]).sum(0)
    among = likely.topk(min(LIKELIEST, len(likely))).indices
    return among[ratios[among].topk(min(count, len(among))).indices].tolist()


def best_conditional(
    log_probs: Sequence[torch.Tensor], right: torch.Tensor, label: int, count: int
) -> list[int]:
    """The numbers of the words that are likeliest for the rows of a label, jointly over
    patterns."""
    likely = torch.stack([conditional(one, right, label) for one in log_probs]).sum(0)
    return likely.topk(min(count, len(likely))).indices.tolist()


def words_each(labels: int, most: int = ASSIGNMENTS) -> int:
    """How many words of each label can be compared in all combinations."""
    count = 1
    while (count + 1) ** labels <= most:
        count += 1
    return count


def best_assignments(
    log_probs: Sequence[torch.Tensor],
    right: torch.Tensor,
    words: Sequence[Sequence[int]],
    count: int,
) -> list[tuple[int, ...]]:
    """The assignments of one word to each label that answer most rows rightly, jointly over
    patterns; of equally good ones those of the smaller loss (LM-BFF, section 5.1).

    Args:
        words: for each label the numbers of the words that may stand for it.
    """
    different = [one for one in itertools.product(*words) if len(set(one)) == len(one)]
    figures: list[tuple[int, float]] = []
    for start in range(0, len(different), AT_ONCE):
        chosen = torch.tensor(different[start : start + AT_ONCE])
        hits, losses = torch.zeros(len(chosen)), torch.zeros(len(chosen))
        for one in log_probs:
            scores = one[:, chosen]  # [B, N, C]
            hits += (scores.argmax(-1) == right[:, None]).sum(0)
            shares = scores.log_softmax(-1)
            losses -= shares[torch.arange(len(right)), :, right].sum(0)
        figures += zip(hits.tolist(), losses.tolist())
    order = sorted(range(len(different)), key=lambda n: (-figures[n][0], figures[n][1]))
    return [different[number] for number in order[:count]]
