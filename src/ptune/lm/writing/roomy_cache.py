"""A cache of keys and values that has room for the next tokens: transformers' own copies all that
it holds for every token that is written."""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64  # tokens for which there is room behind those that are kept


class RoomyCache(DynamicCache):
    """As ``DynamicCache``; each layer has room."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_class_to_replicate = RoomyLayer


class RoomyLayer(DynamicLayer):
    """Keys and values [B, Hkv, S, D], the first S places of larger tensors."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Begin without tokens."""
        super().lazy_initialization(key_states, value_states)
        self.keys, self.values = key_states[..., :0, :], value_states[..., :0, :]
        self._rooms = [self.keys, self.values]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values of further tokens, and return those of all."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = self._added(0, self.keys, key_states)
        self.values = self._added(1, self.values, value_states)
        return self.keys, self.values

    def _added(self, number: int, kept: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """What is kept with what is new behind it, in the room where it fits."""
        room, length = self._rooms[number], kept.shape[-2]
        total = length + new.shape[-2]
        is_there = kept.data_ptr() == room.data_ptr() and kept.shape[0] == room.shape[0]
        if not is_there or total > room.shape[-2]:
            room = new.new_empty(*new.shape[:2], total + ROOM, new.shape[-1])
            room[..., :length, :] = kept
            self._rooms[number] = room
        room[..., length:total, :] = new
        return room[..., :total, :]
