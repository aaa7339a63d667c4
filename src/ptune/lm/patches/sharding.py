"""A frozen LM that lies on several processes: each holds a share of its layers. Embeddings and the
vocabulary head, which are read outside of the layers too, stay whole in every process.
"""

import re
from typing import Any

import torch
from torch import distributed, nn
from transformers import PreTrainedModel

from ptune.errors import ModelError
from ptune.lm.patches.checkpointing import outermost_layers


def shard_layers(model: PreTrainedModel, device: torch.device) -> None:
    """Share the weights of every layer out by FSDP2: they are gathered when the layer runs, forward
    and backward, and each process runs rows of its own. All processes must call the LM equally
    often. Tables of embeddings within layers, as of relative positions, stay whole."""
    from torch.distributed.fsdp import fully_shard

    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    whole = {weight for table in tables for weight in table.parameters()}
    mesh = _mesh(device)
    for layer in outermost_layers(model):
        ours = whole & set(layer.parameters())
        fully_shard(layer, mesh=mesh, ignored_params=ours, reshard_after_forward=True)
    model.to(device)


def split_layers(model: PreTrainedModel, device: torch.device) -> None:
    """Share the heads of every attention and the units of every feed-forward layer out, as
    transformers' plan of the LM has it: all processes compute a part of each layer, for the same
    rows.

    Raises:
        ModelError: transformers has no plan for this LM.
    """
    from transformers.distributed.tensor_parallel import apply_tensor_parallelism

    if not (plan := _plan(model)):
        raise ModelError(
            f"transformers has no tensor-parallel plan for {type(model).__name__}: take "
            "--lm-sharding fsdp, which needs none."
        )
    for layer in outermost_layers(model):
        for module in layer.modules():
            vars(module).pop("forward", None)  # its own product (onednn_linear) takes whole weights
    apply_tensor_parallelism(model, _mesh(device), plan)
    model.to(device)


def _mesh(device: torch.device) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device.type, (distributed.get_world_size(),))


def _plan(model: PreTrainedModel) -> dict[str, str]:
    """How each module and each weight of the layers is shared out, by its name."""
    rules = model.tp_plan or {}
    inside = {module for layer in outermost_layers(model) for module in layer.modules()}
    plan: dict[str, str] = {}
    for name, module in model.named_modules():
        if module not in inside:
            continue
        rule = rules.get(_without_numbers(name))
        for weight, _ in module.named_parameters(recurse=False):
            of_weight = rules.get(_without_numbers(f"{name}.{weight}"), rule)
            plan |= {f"{name}.{weight}": of_weight} if of_weight else {}
        plan |= {name: rule} if rule else {}
    return plan


def _without_numbers(name: str) -> str:
    """The name of a part of a layer as plans have it, for all layers."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


class SummedGradient(torch.autograd.Function):
    """A tensor of which every process uses a part; the gradient of all parts is summed."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total
