"""Which unlabelled rows the members of iPET's later generations learn from (section 3.4)."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch

FIRST_ROWS = 10  # without labelled rows, so many are learned from by the first later generation
LIKELIEST = 100  # and are drawn among so many of the most probable rows of each label
LEAST_HELD_OUT = 100  # unlabelled rows, of which some are held out of the classifier's training
LEAST = 1e-9  # confidence by which a row is drawn


def new_rows(
    labels: Iterable[str],
    names: Sequence[str],
    growth: float,
    generation: int,
    fractions: Literal["round", "cut"] = "round",
) -> list[int]:
    """How many new rows of each label a generation (from 1) learns from beside the training rows,
    so that there are ``growth`` times as many in all as in the one before it, the ratio of the
    labels kept. Without training rows the first has ten, as many of each label.

    The paper (section 3.4) says nothing about fractions.

    Args:
        labels: of the training rows.
        names: of all labels.
        fractions: "round" rounds a label's number. "cut" is what the paper's code does
            (``generate_ipet_train_sets``): it cuts the number down to a whole one, and without
            training rows it deals out the whole number, so that the first labels get a row more
            (ten rows of four labels: 3, 3, 2, 2; rounded 2 each).
    """
    counts = Counter(labels)
    if fractions == "cut":
        return _cut(counts, names, growth, generation)
    if counts:
        return [round(counts[name] * growth**generation) - counts[name] for name in names]
    return [max(1, round(FIRST_ROWS / len(names) * growth ** (generation - 1)))] * len(names)


def _cut(
    counts: Mapping[str, int], names: Sequence[str], growth: float, generation: int
) -> list[int]:
    """The numbers of ``new_rows`` with the fractions cut off."""
    if total := sum(counts.values()):
        new = int(total * growth**generation - total)
        return [int(counts[name] * new / total) for name in names]
    whole, left_over = divmod(int(FIRST_ROWS / growth * growth**generation), len(names))
    return [whole + (number < left_over) for number in range(len(names))]


def draw(
    shares: torch.Tensor,
    counts: Sequence[int],
    generator: torch.Generator,
    likeliest: int | None = None,
) -> list[list[int]]:
    """Draw rows for each label, each with a probability proportional to its label's, and return
    their numbers.

    Args:
        shares: [N, C], the label probabilities of each row.
        counts: how many rows to draw for each label; all candidates where there are fewer.
        likeliest: draw among this many rows with the highest probability of the label, even where
            another label is more probable; by default, among the rows whose most probable label
            it is.
    """
    drawn, best = [], shares.argmax(1)
    for label, count in enumerate(counts):
        label_shares = shares[:, label]
        among = (
            label_shares.topk(min(likeliest, len(label_shares))).indices
            if likeliest
            else (best == label).nonzero()[:, 0]
        )
        count = min(count, len(among))
        drawn.append(
            among[
                torch.multinomial(label_shares[among].clamp(min=LEAST), count, generator=generator)
            ].tolist()
            if count
            else []
        )
    return drawn


def held_out(count: int, share: float) -> list[bool]:
    """Which of so many unlabelled rows the classifier does not learn from: a share of them, evenly
    spread; none of fewer than 100."""
    if not share or count < LEAST_HELD_OUT:
        return [False] * count
    return [int((number + 1) * share) > int(number * share) for number in range(count)]
