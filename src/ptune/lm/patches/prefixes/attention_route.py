"""The route by which a prefix enters attention: which attentions an LM has, in which order a call
goes through them, and which columns of a prefix vector belong to each."""

import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import distributed, nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ptune.errors import ModelError
from ptune.lm.batch import Batch
from ptune.lm.patches.prefixes.hidden_tokens import ActiveVisibility
from ptune.lm.patches.prefixes.prefix_attention import (
    EAGER,
    GROUPS,
    OURS,
    SDPA,
    ActivePrefixes,
    AttentionSite,
    HeadShare,
    Home,
    Recorder,
    bias_of_packed,
    entered,
    hidden,
    homes,
    stock_attention,
)
from ptune.lm.patches.sharding import SummedGradient
from ptune.prompts.bank import PrefixBatch


class AttentionRoute:
    """Prefixes as keys and values in front of every layer's own.

    Attributes:
        sites: the LM's attentions, in the order in which a call goes through them.
        width: W, how many values a prefix vector has over all sites.
        parts: the columns of W (start, end) of each site.
        spans: for each group of attentions, its columns.
        heads: which heads of each attention this process has.

    Args:
        run: calls the LM on one row, which is of another length than the decoder's.
        causal: the LM reads from left to right, so that an infix is seen from its place on only.

    Raises:
        ModelError: the LM does not go through transformers' attention interface.
    """

    name: Literal["attention"] = "attention"
    in_text = False

    def __init__(self, model: PreTrainedModel, run: Callable[[], Any], causal: bool):
        self.causal, self.model, self.heads = causal, model, HeadShare()
        before = model.config._attn_implementation
        if before not in ("sdpa", "eager", *OURS):
            raise ModelError(
                f"{type(model).__name__} computes attention by {before!r}, and a prefix enters "
                "sdpa or eager only"
            )
        function = EAGER if before in ("eager", EAGER) else SDPA
        set_attention(model, function)
        try:
            if {
                part.config._attn_implementation
                for part in model.modules()
                if isinstance(part, PreTrainedModel)
            } != {function}:
                raise ModelError(
                    f"{type(model).__name__} does not go through transformers' attention interface"
                )
            recorder = _record(run)
            if not recorder.calls:
                raise ModelError(f"{type(model).__name__} calls no registered attention function")
            self.sites = self._place(model, recorder)
        except ModelError:
            set_attention(model, before)
            raise
        self.width = sum(site.width for site in self.sites)
        self.parts = [(site.start, site.end) for site in self.sites]
        self.spans: dict[str, tuple[int, int]] = {}
        for group in GROUPS:
            if parts := [(site.start, site.end) for site in self.sites if site.group == group]:
                self.spans[group] = min(parts)[0], max(parts)[1]

    def _place(self, model: PreTrainedModel, recorder: Recorder) -> list[AttentionSite]:
        """A site for every attention call, its columns grouped by kind, then by layer."""
        sites = _sites(model, recorder)
        order = sorted(range(len(sites)), key=lambda number: GROUPS.index(sites[number].group))
        start = 0
        for number in order:
            sites[number] = replace(sites[number], start=start)
            start = sites[number].end
        numbers: dict[nn.Module, list[int]] = {}
        for number, (module, *_) in enumerate(recorder.calls):
            numbers.setdefault(module, []).append(number)
        for module, calls in numbers.items():
            group = sites[calls[0]].group
            of_group = [
                other for other, theirs in numbers.items() if sites[theirs[0]].group == group
            ]
            homes[module] = Home(stock_attention(module), calls, _bias_owner([module, *of_group]))
            if hasattr(module, "relative_attention_bias") and "compute_bias" not in vars(module):
                module.compute_bias = bias_of_packed(module.compute_bias)
        return sites

    @contextlib.contextmanager
    def entering(
        self, batch: Batch, prefixes: PrefixBatch, copies: int = 1, groups: Sequence[str] = GROUPS
    ) -> Iterator[None]:
        """While this is open, the rows of the batch (each ``copies`` times, for beams) have their
        prefixes.

        Args:
            groups: the attentions that must be reached; those of an encoder and its decoder may run
                apart.

        Raises:
            ModelError: an attention was not reached; the LM was set to another attention function
                since, or ran in another thread.
        """
        if batch.deep is not None:
            raise ModelError("The prefixes of this batch are spelt out as layer inputs.")
        if self.heads.count > 1:
            prefixes = replace(prefixes, values=SummedGradient.apply(prefixes.values))
        now = ActivePrefixes(
            self.sites, prefixes, batch, copies=copies, causal=self.causal, heads=self.heads
        )
        with entered(now):
            yield
        self._check_reached(now.reached, groups, "A prefix")

    @contextlib.contextmanager
    def hiding(
        self, batch: Batch, copies: int = 1, groups: Sequence[str] = GROUPS
    ) -> Iterator[None]:
        """While this is open, the tokens of the batch's rows (each ``copies`` times, for beams) do
        not attend to what is hidden from them; arguments as in ``entering``.

        Raises:
            ModelError: as in ``entering``.
        """
        assert batch.visibility is not None
        before = 0 if batch.context is None else batch.context.values.shape[4]
        visibility = batch.visibility if copies == 1 else batch.visibility.copied(copies)
        now = ActiveVisibility([site.group for site in self.sites], visibility, before)
        with hidden(now):
            yield
        self._check_reached(now.reached, groups, "What is hidden from others")

    def _check_reached(self, reached: set[int], groups: Sequence[str], what: str) -> None:
        """Refuse a call that went past an attention of these groups.

        Raises:
            ModelError: it did.
        """
        expected = {number for number, site in enumerate(self.sites) if site.group in groups}
        missed = expected - reached
        if missed and not self.model.training:  # layer dropout skips whole layers
            raise ModelError(
                f"{what} did not reach {len(missed)} of the {len(expected)} attentions of "
                f"{type(self.model).__name__}: "
                "its attention function was set to another one after it was loaded, or it runs "
                "elsewhere."
            )

    def activations(self, run: Callable[[], Any]) -> torch.Tensor:
        """The LM's own keys and values in a call on one row of P tokens (of as many on either
        side): [P, W]."""
        calls = _record(run).calls
        out = calls[0][1].new_zeros(calls[0][1].shape[2], self.width)
        for site, (_, key, value, _) in zip(self.sites, calls):
            parts = out[:, site.start : site.end].unflatten(1, (2, site.heads, site.size))
            for part, values in zip(parts.permute(1, 2, 0, 3), (key[0], value[0])):
                self.heads.of(part[None])[0].copy_(values)
        if self.heads.count > 1:
            distributed.all_reduce(out)  # each process has the values of its heads
        return out

    def split_heads(self, heads: HeadShare, run: Callable[[], Any]) -> None:
        """From now on, this process has a share of the heads of every attention.

        Args:
            run: calls the LM on one row.

        Raises:
            ModelError: it has another number of them.
        """
        for site, (module, key, *_) in zip(self.sites, _record(run).calls):
            if key.shape[1] * heads.count != site.heads:
                raise ModelError(
                    f"of the {site.heads} heads of {type(module).__name__} each process has "
                    f"{key.shape[1]}"
                )
        self.heads = heads


def _sites(model: PreTrainedModel, recorder: Recorder) -> list[AttentionSite]:
    """The attentions of a recorded call, in order.

    Raises:
        ModelError: keys and values differ in shape, or a layer calls no registered attention.
    """
    two_parts = getattr(model.config, "is_encoder_decoder", False)
    encoder = set(model.get_encoder().modules()) if two_parts else set()
    sites = []
    for module, key, value, queries in recorder.calls:
        if key.shape != value.shape:
            raise ModelError(f"the keys and values of {type(module).__name__} differ in shape")
        if not two_parts:
            group = "self"
        elif module in encoder:
            group = "encoder"
        else:
            group = "decoder" if key.shape[2] == queries else "cross"
        sites.append(AttentionSite(group, key.shape[1], key.shape[3]))
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    if not two_parts and len(sites) < layers:
        raise ModelError(
            f"only {len(sites)} of the {layers} layers of {type(model).__name__} go through "
            "transformers' attention interface"
        )
    return sites


def _bias_owner(modules: Sequence[nn.Module]) -> "weakref.ref[nn.Module] | None":
    """The first of these modules that computes a relative position bias."""
    for module in modules:
        if hasattr(module, "relative_attention_bias"):
            return weakref.ref(module)
    return None


def set_attention(model: PreTrainedModel, name: str) -> None:
    """Choose an attention function; that it was taken is for the caller to check, so transformers'
    warning is not shown."""
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        model.set_attn_implementation(name)
    finally:
        transformers_logging.set_verbosity(level)


def _record(run: Callable[[], Any]) -> Recorder:
    with entered(recorder := Recorder()), torch.no_grad():
        run()
    return recorder
