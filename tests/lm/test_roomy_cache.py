"""A cache with room holds what transformers' own holds, whatever is done with it."""

import torch
from transformers import DynamicCache

from ptune.lm.writing.roomy_cache import ROOM, RoomyCache

STEPS = (
    ("add", 5),
    ("add", 1),
    ("keep", [2, 0]),
    ("add", 1),
    ("keep", [1, 0]),  # as many rows as there were, in another order
    ("add", 1),
    ("add", ROOM),
    ("crop", -3),
    ("add", 2),
    ("repeat", 2),
    ("add", 1),
    ("keep", [0, 1]),
    ("add", 1),
)


def test_a_cache_with_room_is_transformers_own():
    torch.manual_seed(0)
    caches, rows = (RoomyCache(), DynamicCache()), 3
    for kind, what in STEPS:
        if kind == "add":
            values = torch.randn(2, 2, rows, 2, what, 4)
            for layer, (key, value) in enumerate(values):
                ours, theirs = (cache.update(key, value, layer) for cache in caches)
                assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
        for cache in caches:
            if kind == "keep":
                cache.batch_select_indices(torch.tensor(what))
            elif kind == "repeat":
                cache.batch_repeat_interleave(what)
            elif kind == "crop":
                cache.crop(what)
        rows = {"keep": 2, "repeat": rows * 2}.get(kind, rows)
        assert caches[0].get_seq_length() == caches[1].get_seq_length()


def test_a_token_takes_no_copy_of_those_before():
    cache = RoomyCache()
    first, _ = cache.update(torch.ones(1, 1, 3, 2), torch.ones(1, 1, 3, 2), 0)
    second, _ = cache.update(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2), 0)
    assert first.data_ptr() == second.data_ptr() and second.shape[2] == 4
