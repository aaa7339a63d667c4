"""The embedded input of a decoder, which transformers takes as token ids alone where it writes:
what the decoder's embedding makes of those is replaced in the first call."""

import contextlib
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ptune.errors import ModelError

Replace = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class _Replacing:
    """What replaces the output of an embedding in the call that runs now.

    Attributes:
        is_done: it was replaced; calls behind that one go on from a cache.
    """

    embeddings: nn.Module
    replace: Replace
    is_done: bool = False


_replacing: ContextVar[_Replacing | None] = ContextVar("replacing decoder input", default=None)
_hooked: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()


@contextlib.contextmanager
def replaced(embeddings: nn.Module, replace: Replace) -> Iterator[None]:
    """While this is open, the first output of a decoder's embedding [B, T, E] is replaced; the
    encoder, which may share the embedding, is called on vectors meanwhile.

    Raises:
        ModelError: the embedding was not called.
    """
    if embeddings not in _hooked:
        _hooked.add(embeddings)
        embeddings.register_forward_hook(_replace)
    now = _Replacing(embeddings, replace)
    token = _replacing.set(now)
    try:
        yield
    finally:
        _replacing.reset(token)
    if not now.is_done:
        raise ModelError("The decoder did not read its soft tokens.")


def _replace(module: nn.Module, arguments: tuple[Any, ...], output: torch.Tensor) -> Any:
    """The hook."""
    now = _replacing.get()
    if now is None or now.is_done or module is not now.embeddings:
        return None
    now.is_done = True
    return now.replace(output)
