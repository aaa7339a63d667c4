"""How a prefix enters an LM: its keys and values stand in front of the layer's own, in one
attention function that is registered with transformers. The same function trains, scores and
generates; the prefix never goes into the cache.

Prefix-Tuning, section 4: P_theta holds the activations of the prefix at every layer, keys and
values here.
"""

import contextlib
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ptune.errors import ModelError
from ptune.lm.batch import Batch
from ptune.lm.patches.packing import current, packed
from ptune.lm.patches.prefixes.hidden_tokens import ActiveVisibility, hiding
from ptune.prompts.bank import PrefixBatch

GROUPS = ("self", "encoder", "decoder", "cross")
OURS = SDPA, EAGER = "ptune", "ptune-eager"


@dataclass(frozen=True)
class AttentionSite:
    """One attention of one layer.

    Attributes:
        group: one of ``GROUPS``.
        heads: the number of its key-value heads Hkv.
        size: the size D of a head.
        start: where its values begin among the W of a prefix vector: Hkv x D for the key, then as
            many for the value.
    """

    group: str
    heads: int
    size: int
    start: int = 0

    @property
    def width(self) -> int:
        """How many of the W values of a prefix vector enter here."""
        return 2 * self.heads * self.size

    @property
    def end(self) -> int:
        """The first of the W values behind those that enter here."""
        return self.start + self.width


@dataclass(frozen=True)
class HeadShare:
    """The key-value heads that this process has of every attention: the ``rank``-th of ``count``
    equal parts."""

    rank: int = 0
    count: int = 1

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """Its part of keys or values [B, Hkv, P, D]."""
        return values.chunk(self.count, 1)[self.rank]


class Recorder:
    """Notes which attention modules a call goes through, with their keys, their values and how many
    queries they have."""

    def __init__(self) -> None:
        self.calls: list[tuple[nn.Module, torch.Tensor, torch.Tensor, int]] = []


class ActivePrefixes:
    """The prefixes of the rows of the call that runs now."""

    def __init__(
        self,
        sites: list[AttentionSite],
        prefixes: PrefixBatch,
        batch: Batch,
        *,
        copies: int,
        causal: bool,
        heads: HeadShare,
    ):
        self.sites, self.prefixes, self.copies, self.heads = sites, prefixes, copies, heads
        self.rows = batch.prompts.clamp(min=0)
        count = prefixes.values.shape[1]
        columns = torch.arange(count, device=self.rows.device)
        lengths = torch.where(batch.prompts < 0, 0, prefixes.lengths[self.rows])
        self.present = columns >= count - lengths[:, None]  # [B, P]
        infix = causal and batch.starts is not None and bool((batch.starts > 0).any())
        self.starts = (
            nn.functional.pad(batch.starts, (count - batch.starts.shape[1], 0))
            if infix and batch.starts is not None
            else None
        )
        self.calls: Counter[nn.Module] = Counter()
        self.reached: set[int] = set()
        self._gathered: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}

    def prefix_of(
        self, number: int, rows: int, queries: int, keys: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A site's prefix keys and values [B, Hkv, P, D], and which of them each query may see [B,
        Q or 1, P]."""
        if rows != len(self.rows) * self.copies:
            raise ModelError(
                f"The prefixes of {len(self.rows)} rows do not fit {rows} rows in attention."
            )
        self.reached.add(number)
        prefix_keys, prefix_values, seen = self._gathered.get(number) or self._gather(number)
        if not torch.is_grad_enabled():  # decoding asks again at every step
            self._gathered[number] = prefix_keys, prefix_values, seen
        if self.starts is None or queries != keys:
            return prefix_keys, prefix_values, seen[:, None]
        # An infix is seen from its position on. A call with a cache is behind all of them.
        behind = (
            torch.arange(queries, device=seen.device)[:, None]
            >= self.starts.repeat_interleave(self.copies, 0)[:, None]
        )
        return prefix_keys, prefix_values, seen[:, None] & behind

    def _gather(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A site's prefix keys and values [B, Hkv, P, D] for all rows, those of the heads that are
        here, and which of them each row has [B, P]."""
        site, prefixes = self.sites[number], self.prefixes
        vectors = prefixes.values[..., site.start : site.end]  # [N, P, 2 Hkv D]
        if len(vectors) == 1:
            vectors = vectors.expand(len(self.rows), -1, -1)
        else:
            vectors = vectors[self.rows]
        parts = vectors.unflatten(-1, (2, site.heads, site.size)).permute(2, 0, 3, 1, 4)
        keys, values = map(self.heads.of, parts)
        seen = self.present & prefixes.reach[self.rows, site.start][:, None]
        if self.copies > 1:
            keys, values, seen = (
                part.repeat_interleave(self.copies, 0) for part in (keys, values, seen)
            )
        return keys, values, seen


@dataclass(frozen=True)
class AttentionCall:
    """One call of an attention function, prefixes in front.

    Attributes:
        query: [B, H, Q, D].
        key, value: [B, Hkv, P + K, D].
        mask: [B, 1, Q, P + K], boolean (True is seen) or added to the scores; None hides nothing
            that the module does not hide by itself.
        options: what else the module hands to the function.
    """

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    options: dict[str, Any]


watching: ContextVar[Callable[[AttentionCall, torch.Tensor], None] | None] = ContextVar(
    "watching", default=None
)
"""What gets every call of attention, with its output [B, Q, H, D]."""
_entering: ContextVar[ActivePrefixes | Recorder | None] = ContextVar("entering", default=None)


@dataclass
class Home:
    """What is known of an attention module.

    Attributes:
        stock: the attention function that it calls without ptune.
        sites: the numbers of its sites.
        bias: the module that computes their position bias; a weak reference, since a module that
            refers to itself would never be freed.
    """

    stock: Callable[..., Any]
    sites: list[int]
    bias: "weakref.ref[nn.Module] | None" = None


homes: "weakref.WeakKeyDictionary[nn.Module, Home]" = weakref.WeakKeyDictionary()


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    **options: Any,
) -> Any:
    """Attention with each row's prefix in front of the layer's own keys and values, without what
    the row's rules hide. This is where a prefix enters.

    Args:
        query: [B, H, Q, D]; of packed rows [1, H, N, D].
        key, value: [B, Hkv, K, D], those of the cache among them; of packed rows [1, Hkv, N, D].
        mask: [B, 1, Q, K], boolean (True is seen) or added to the scores.
    """
    if (packing := current()) is not None:
        with packed(None):
            out, weights = attend(
                module,
                packing.spread(query),
                packing.spread(key),
                packing.spread(value),
                mask,
                **options,
            )
        return packing.pack(out), weights
    now, visibility = _entering.get(), hiding.get()
    if isinstance(now, Recorder):
        now.calls.append((module, key, value, query.shape[2]))
        return _stock(module)(module, query, key, value, mask, **options)
    (rows, _, queries, _), keys = query.shape, key.shape[2]
    if visibility is not None:
        mask = visibility.hide(homes[module].sites, mask, query, keys)
    if now is None:
        return _run(_stock(module), AttentionCall(module, query, key, value, mask, options))
    home = homes[module]
    number = home.sites[now.calls[module] % len(home.sites)]
    now.calls[module] += 1
    prefix_keys, prefix_values, seen = now.prefix_of(number, rows, queries, keys)
    if visibility is not None:
        seen = visibility.hide_prefix(number, seen, queries, keys)
    if (bias := options.get("position_bias")) is not None:
        past = keys - queries if now.sites[number].group == "decoder" else 0
        options["position_bias"] = torch.cat(
            [_bias_before(home, bias, prefix_keys.shape[2], past), bias], -1
        )
    call = AttentionCall(
        module,
        query,
        torch.cat([prefix_keys.to(key.dtype), key], 2),
        torch.cat([prefix_values.to(value.dtype), value], 2),
        _widened(mask, seen, query, keys),
        options,
    )
    return _run(home.stock, call)


def _run(stock: Callable[..., Any], call: AttentionCall) -> Any:
    """Attention as the module computes it without ptune; who watches sees the call and its output,
    and changes neither."""
    output = stock(call.module, call.query, call.key, call.value, call.mask, **call.options)
    if (watcher := watching.get()) is not None:
        watcher(call, output[0])
    return output


def _widened(
    mask: torch.Tensor | None, seen: torch.Tensor, query: torch.Tensor, keys: int
) -> torch.Tensor:
    """The mask with columns for the prefix in front."""
    rows, _, queries, _ = query.shape
    if mask is None:
        mask = torch.ones(rows, 1, queries, keys, dtype=torch.bool, device=query.device)
    columns = seen[:, None].expand(rows, mask.shape[1], queries, -1)
    if mask.dtype != torch.bool:
        columns = torch.zeros((), dtype=mask.dtype, device=mask.device).masked_fill(
            ~columns, torch.finfo(mask.dtype).min
        )
    return torch.cat([columns, mask.expand(rows, -1, queries, -1)], -1)


def _bias_before(home: Home, bias: torch.Tensor, count: int, past: int) -> torch.Tensor:
    """The relative position bias of prefix vectors as of tokens just before the text (T5): [1, H,
    Q, P]."""
    owner = None if home.bias is None else home.bias()
    if owner is None:
        return bias.new_zeros(*bias.shape[:3], count)
    return owner.compute_bias(
        bias.shape[2], count, device=bias.device, past_seen_tokens=count + past
    ).to(bias.dtype)


def bias_of_packed(compute_bias: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Relative positions of packed rows, where it computes them among all tokens, are those among
    the tokens of the longest."""

    def compute(queries: int, keys: int, **options: Any) -> torch.Tensor:
        if (packing := current()) is not None:
            queries = keys = packing.width
        return compute_bias(queries, keys, **options)

    return compute


def _mask(**arguments: Any) -> torch.Tensor | None:
    """The stock mask, of packed rows as they are apart; with a prefix, with tokens that are hidden
    from others, and for who watches, it is always built, since a mask that is left out hides or
    shows the wrong columns."""
    if any(state.get() is not None for state in (_entering, hiding, watching)):
        arguments |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return sdpa_mask(**arguments | _packed_shape())


def _float_mask(**arguments: Any) -> torch.Tensor:
    return eager_mask(**arguments | _packed_shape() | {"allow_is_bidirectional_skip": False})


def _packed_shape() -> dict[str, Any]:
    return packing.mask_arguments() if (packing := current()) is not None else {}


for _name, _make in ((SDPA, _mask), (EAGER, _float_mask)):
    AttentionInterface.register(_name, attend)
    AttentionMaskInterface.register(_name, _make)


def _stock(module: nn.Module) -> Callable[..., Any]:
    """The attention function that the module would call without us."""
    if (home := homes.get(module)) is None:
        home = homes[module] = Home(stock_attention(module), [])
    return home.stock


def stock_attention(module: nn.Module) -> Callable[..., Any]:
    """The attention function of a module without prefixes: its family's eager one where the
    configuration asks for that, else torch's scaled dot product."""
    eager = hasattr(module, "config") and module.config._attn_implementation == EAGER
    plain = (
        getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
        if eager
        else None
    )
    return ALL_ATTENTION_FUNCTIONS["sdpa"] if plain is None else plain


@contextlib.contextmanager
def hidden(state: ActiveVisibility | None) -> Iterator[None]:
    """A context in which every attention that is called hides what a state says."""
    token = hiding.set(state)
    try:
        yield
    finally:
        hiding.reset(token)


@contextlib.contextmanager
def entered(state: ActivePrefixes | Recorder | None) -> Iterator[None]:
    """A context in which every attention that is called serves a state: prefixes enter, calls are
    noted, or with None nothing happens."""
    token = _entering.set(state)
    try:
        yield
    finally:
        _entering.reset(token)


def resume_point() -> Callable[[], contextlib.AbstractContextManager[None]]:
    """The state of the prefixes, and of who sees whom, in the call that runs now, to run a part of
    it again.

    Returns:
        What opens a context in which they are as they are now.
    """
    state, visibility = _entering.get(), hiding.get()
    calls = Counter(state.calls) if isinstance(state, ActivePrefixes) else Counter()

    @contextlib.contextmanager
    def resumed() -> Iterator[None]:
        if isinstance(state, ActivePrefixes):
            state.calls = Counter(calls)
        with entered(state), hidden(visibility):
            yield

    return resumed
