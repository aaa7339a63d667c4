"""Deep prefixes as files that a vLLM server reads (``ptune_connector.py``)."""

import hashlib
import pathlib
from collections.abc import Sequence

import torch

from ptune.base import files
from ptune.lm.patches.prefixes.prefix_attention import AttentionSite


def put(folder: pathlib.Path, sites: Sequence[AttentionSite], values: torch.Tensor) -> str:
    """Put a prefix into the folder, whole or not at all.

    Args:
        sites: the LM's attentions, one a layer.
        values: [P, W].

    Returns:
        Its name, a hash of its values.
    """
    layers = [
        values[:, site.start : site.end].unflatten(1, (2, site.heads, site.size)) for site in sites
    ]
    stacked = torch.stack(layers).permute(0, 2, 3, 1, 4)  # [L, 2, Hkv, P, D]
    stacked = stacked.detach().float().cpu().contiguous()
    name = hashlib.sha256(stacked.numpy().tobytes()).hexdigest()
    path = folder / f"{name}.safetensors"
    if not path.exists():
        files.write_tensors(path, {"values": stacked})
    return name
