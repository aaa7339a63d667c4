"""A KV connector: a vLLM server reads deep prefixes as if it had computed them.

This file runs in vLLM's environment, which ptune does not share: it imports torch, safetensors and
vLLM alone, and ``scripts/vllm_env.sh`` copies it there. A request brings the name of its prefix in
``kv_transfer_params``, and as many placeholders before its text as the prefix is long; the keys and
values of these places come from the registry, a folder of files that the gateway writes.

Three faults would be silent, and each has a test in ``tests/serving/vllm``: a request without
``cache_salt`` gets what another prefix left in the cache; ``prompt_logprobs`` makes vLLM leave the
connector aside, unless ``skip_reading_prefix_cache`` is False; and a name from a client must never
be a path, so names are hashes, and nothing else is looked up.
"""

import pathlib
import re
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
)
from vllm.model_executor.models.utils import extract_layer_index

NAME = re.compile(r"[0-9a-f]{64}")


@dataclass
class Load:
    """A part of a prefix that goes into the cache.

    Attributes:
        name: of the prefix.
        first: its first vector that is not in the cache yet.
        slots: where in the cache its vectors go, from ``first`` on.
        blocks: the blocks that these are in.
    """

    name: str
    first: int
    slots: list[int]
    blocks: list[int]


@dataclass
class Loads(KVConnectorMetadata):
    """What the step that comes has to read."""

    loads: list[Load] = field(default_factory=list)


class Registry:
    """The prefixes in a folder, by the hashes of their values; nothing else there is read."""

    def __init__(self, folder: str):
        self.folder = pathlib.Path(folder)
        self._kept: dict[str, torch.Tensor] = {}

    def get(self, name: Any) -> torch.Tensor | None:
        """The keys and values of a prefix [L, 2, Hkv, P, D]; None where there is none."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return None
        if name not in self._kept:
            path = self.folder / f"{name}.safetensors"
            if not path.is_file():
                return None
            self._kept[name] = safetensors.torch.load_file(path)["values"]
            while len(self._kept) > 64:
                self._kept.pop(next(iter(self._kept)))
        return self._kept[name]


class PrefixConnector(KVConnectorBase_V1):
    """What vLLM asks for the beginnings of requests."""

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None):
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self.block = vllm_config.cache_config.block_size
        settings = vllm_config.kv_transfer_config
        self.registry = Registry(settings.get_from_extra_config("registry", ""))
        self._waiting: dict[str, tuple[str, int, int]] = {}
        self._failed: set[int] = set()

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int, bool]:
        """How many tokens of a request come from its prefix, beyond those in the cache."""
        name = (request.kv_transfer_params or {}).get("prefix")
        if name is None:
            return 0, False
        values = self.registry.get(name)
        if values is None:  # one token is asked for, whose reading then fails the request
            return max(0, 1 - num_computed_tokens), False
        return max(0, values.shape[3] - num_computed_tokens), False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Take note of what the next step has to read for a request."""
        if num_external_tokens:
            name = request.kv_transfer_params["prefix"]
            values = self.registry.get(name)
            end = 1 if values is None else values.shape[3]
            self._waiting[request.request_id] = (str(name), end - num_external_tokens, end)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """What the step has to read, told to those who hold the cache."""
        blocks_of = {one.req_id: one.block_ids[0] for one in scheduler_output.scheduled_new_reqs}
        again = scheduler_output.scheduled_cached_reqs
        for number, request in enumerate(again.req_ids):
            if request in again.resumed_req_ids and again.new_block_ids[number]:
                blocks_of[request] = again.new_block_ids[number][0]
        meta = Loads()
        for request, blocks in blocks_of.items():
            if request in self._waiting:
                name, first, end = self._waiting.pop(request)
                slots = [blocks[n // self.block] * self.block + n % self.block for n in range(end)]
                used = blocks[first // self.block : (end - 1) // self.block + 1]
                meta.loads.append(Load(name, first, slots[first:], list(used)))
        return meta

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Write prefixes into the cache, before the layers run. This is where a prefix enters."""
        meta = self._get_connector_metadata()
        assert isinstance(meta, Loads)
        for load in meta.loads:
            values = self.registry.get(load.name)
            if values is None:
                self._failed.update(load.blocks)
                continue
            for name, layer in forward_context.no_compile_layers.items():
                if getattr(layer, "kv_cache", None) is not None:
                    _write(layer, values[extract_layer_index(name)], load)

    def get_block_ids_with_load_errors(self) -> set[int]:
        """The blocks for which there was nothing; the requests that need them fail."""
        failed, self._failed = self._failed, set()
        return failed

    def wait_for_layer_load(self, layer_name: str) -> None:
        """All layers are read by ``start_load_kv``."""

    def save_kv_layer(
        self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any
    ) -> None:
        """Nothing is kept of what vLLM computes."""

    def wait_for_save(self) -> None:
        """Nothing is kept."""


def _write(layer: Any, values: torch.Tensor, load: Load) -> None:
    """Write a layer's part of a prefix by the attention's own writer, since some keep their cache
    in a form of their own.

    Args:
        values: [2, Hkv, P, D].

    Raises:
        ValueError: the layer has other heads, as under tensor parallelism.
    """
    cache = layer.kv_cache[0] if isinstance(layer.kv_cache, list | tuple) else layer.kv_cache
    if values.shape[1] != layer.num_kv_heads:
        raise ValueError(
            f"A prefix of {values.shape[1]} heads does not fit {layer.num_kv_heads}: tensor "
            "parallelism is not offered with prefixes."
        )
    new = values[:, :, load.first :].to(cache.device, cache.dtype)
    keys, values = (part.transpose(0, 1).contiguous() for part in new)
    slots = torch.tensor(load.slots, device=cache.device)
    layer.impl.do_kv_cache_update(layer, keys, values, cache, slots)
