"""Logistic regression on an LM's vectors: by itself a linear probe on a frozen LM, and behind a
prompt that is trained by contrast a contrastive prompt. SetFit (Tunstall et al. 2022, section 3)
tunes the whole encoder so.
"""

import torch
from torch.nn.functional import linear, normalize

from ptune.answers.bound_verbalizer import BoundVerbalizer
from ptune.answers.readers.reader import Reader

STRENGTH = 10.0  # C of the regression: the inverse of how strongly large weights are punished
EXACT = 1e-8  # the gradient that ends it: with scikit-learn's 1e-4 rounding moves scores by 1e-2
ABSENT = -30.0  # the score of a label that no row had
TEMPERATURE = 0.1  # cosines are divided by it: with a lower one the nearest rows count the most
NEVER = -1e9  # how near a row is to itself: it does not pick itself


class LinearReader(Reader):
    """Logistic regression on vectors of length one. It is computed from the training rows, and anew
    whenever the prompt before it has changed; no step of a training touches it.

    What is trained by steps is the prompt: of all rows of a batch, those of its own label are to be
    the nearest to each row.

    Args:
        width: of the vectors, H.
        labels: how many labels there are, C.
    """

    name = "linear"
    mask = "optional"
    pools = couples_rows = starts_from_rows = is_solved = True

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(labels, width))
        self.register_buffer("bias", torch.zeros(labels))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The scores of the labels [B, C] from hidden states [B, H]."""
        return linear(normalize(hidden.float(), dim=-1), self.weight, self.bias)

    def losses(
        self, inputs: torch.Tensor, bound: BoundVerbalizer, labels: torch.Tensor
    ) -> torch.Tensor:
        """Each row's share in the contrast of all pairs of rows [B]."""
        return contrast(inputs.sum(0), labels)

    @torch.no_grad()
    def start_from(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Compute the regression from the training rows. Where vectors are no finite numbers,
        the scores are no finite numbers either."""
        vectors = normalize(inputs.sum(0).float(), dim=-1)
        if not vectors.isfinite().all():
            self.weight.fill_(torch.nan)
            return
        weight, bias = regression(vectors, labels, len(self.bias))
        self.weight.copy_(weight)
        self.bias.copy_(bias)


def contrast(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each row's part [B] in the supervised contrast (Khosla et al. 2020, equation 2): a row picks
    one of the others by a softmax over their cosines, divided by a temperature, and its part is the
    mean of minus the log probability of those that have its label. A row that is the only one of
    its label adds nothing.

    Args:
        hidden: [B, H].
        labels: the numbers of the right labels [B].
    """
    vectors = normalize(hidden.float(), dim=-1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    nearness = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, NEVER)
    alike = (labels[:, None] == labels) & ~itself
    log_shares = nearness.log_softmax(-1).masked_fill(~alike, 0.0)
    return -log_shares.sum(-1) / alike.sum(-1).clamp(min=1)


def regression(
    vectors: torch.Tensor, labels: torch.Tensor, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights [C, H] and biases [C] of a logistic regression, by scikit-learn.

    Args:
        vectors: [B, H].
        labels: the numbers of the right labels [B], or whether each row has each label [B, C].
        count: how many labels there are, C; one that no row has gets a score that never wins.
    """
    if labels.dim() == 2:
        apart = [regression(vectors, has_label.long(), 2) for has_label in labels.T]
        weights = torch.stack([weight[1] for weight, _ in apart])
        return weights, torch.stack([bias[1] - bias[0] for _, bias in apart])
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    weight, bias = vectors.new_zeros(count, vectors.shape[1]), vectors.new_full((count,), ABSENT)
    present = labels.unique()
    bias[present] = 0.0
    if len(present) > 1:
        model = LogisticRegression(C=STRENGTH, max_iter=1000, tol=EXACT)
        with threadpool_limits(1, "blas"):  # several threads wait for each other on busy cores
            model.fit(vectors.double().cpu().numpy(), labels.cpu().numpy())
        rows = present if len(present) > 2 else present[1:]  # of two labels the second alone
        weight[rows] = torch.from_numpy(model.coef_).to(weight)
        bias[rows] = torch.from_numpy(model.intercept_).to(bias)
    return weight, bias
