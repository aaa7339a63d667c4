"""How much positions of a row attend to every prefix vector and every token: the softmax of the
scaled products of queries and keys, which sdpa computes and does not give away."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ptune.errors import ModelError
from ptune.lm.patches.prefixes.prefix_attention import AttentionCall, homes, watching

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8}
ROUGH = 3e-2  # of 16-bit numbers


class _Sites:
    """Tells which attention a module computes now, since one module may be several of them."""

    def __init__(self) -> None:
        self._calls: Counter[torch.nn.Module] = Counter()

    def next_of(self, module: torch.nn.Module) -> int:
        """The number of the attention, in the order of a call, that a module computes next."""
        sites = homes[module].sites
        number = sites[self._calls[module] % len(sites)]
        self._calls[module] += 1
        return number


class AttentionWeights:
    """Notes the weights of one attention of a call on one row. The module's output is what it is
    without this.

    Attributes:
        heads: of each head [H, P + K], the P prefix vectors in front; None until it was reached.

    Args:
        site: the number of the attention in the order of a call.
        position: whose attention it is, among the queries.
    """

    def __init__(self, site: int, position: int):
        self.site, self.position = site, position
        self.heads: torch.Tensor | None = None
        self._sites = _Sites()

    def __call__(self, call: AttentionCall, output: torch.Tensor) -> None:
        """See a call of attention with its output [1, Q, H, D].

        Raises:
            ModelError: the LM's code has no attention that gives its weights, or it computes
                something else than the one that runs.
        """
        number = self._sites.next_of(call.module)
        if number == self.site:
            place = slice(self.position, self.position + 1)
            self.heads = _weights(call, output, place)[0, :, 0].float()


class AttentionReceived:
    """Adds up, over the calls that it sees, how much each key of a row was attended to in every
    attention, by all queries of the heads that share it. The outputs are what they are without
    this.

    Attributes:
        sums: for each attention, in the order of a call, [Hkv, K], K the fewest keys of any call.
    """

    def __init__(self) -> None:
        self.sums: dict[int, torch.Tensor] = {}
        self._sites = _Sites()

    def __call__(self, call: AttentionCall, output: torch.Tensor) -> None:
        """See a call of attention on one row with its output [1, Q, H, D].

        Raises:
            ModelError: as ``AttentionWeights``.
        """
        number = self._sites.next_of(call.module)
        weights = _weights(call, output, slice(None))[0].float()  # [H, Q, K]
        received = weights.sum(1).unflatten(0, (call.key.shape[1], -1)).sum(1)
        if (before := self.sums.get(number)) is not None:
            keys = min(before.shape[1], received.shape[1])
            received = before[:, :keys] + received[:, :keys]
        self.sums[number] = received


@contextmanager
def watched(watcher: AttentionWeights | AttentionReceived) -> Iterator[None]:
    """While this is open, the watcher sees every call of attention."""
    token = watching.set(watcher)
    try:
        yield
    finally:
        watching.reset(token)


def _weights(call: AttentionCall, output: torch.Tensor, place: slice) -> torch.Tensor:
    """The weights of some queries [B, H, Q, K].

    Raises:
        ModelError: the LM's code has no attention that gives them, or it computes something else
            than the one that runs.
    """
    kind = type(call.module)
    eager = getattr(sys.modules[kind.__module__], "eager_attention_forward", None)
    if eager is None:
        raise ModelError(f"{kind.__name__} has no attention function that gives its weights")
    options: dict[str, Any] = dict(call.options)
    if (bias := options.get("position_bias")) is not None and bias.shape[2] > 1:
        options["position_bias"] = bias[:, :, place]
    mask = None if call.mask is None else _added(call.mask[:, :, place], call.query.dtype)
    again, weights = eager(
        call.module, call.query[:, :, place], call.key, call.value, mask, **options
    )
    tolerance = TOLERANCE.get(output.dtype, ROUGH)
    if weights is None or not torch.allclose(
        again, output[:, place], rtol=tolerance, atol=tolerance
    ):
        raise ModelError(
            f"the attention of {kind.__name__} that gives its weights computes something else "
            "than the one that answers"
        )
    return weights


def _added(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask as numbers that are added to the scores."""
    if mask.dtype != torch.bool:
        return mask
    hidden = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, hidden)
