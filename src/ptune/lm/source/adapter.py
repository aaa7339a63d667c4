"""LoRA adapters beneath prompts: a folder of PEFT's adapter, or its name on the hub, is an LM: that
which it was trained on with the adapter merged into its weights.

An adapter comes from strangers: of its config only what says how weights are put together is handed
to PEFT, and the LM that it names is never fetched because a file names it.
"""

import contextlib
import json
import pathlib
import warnings
from collections import Counter
from typing import Any

import safetensors.torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedModel

from ptune.base import plain_files
from ptune.errors import ModelError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LM_CONFIG = "config.json"
LARGEST_JSON = 2**20
TAKEN = (
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "fan_in_fan_out",
    "bias",
    "use_rslora",
    "use_dora",
    "lora_bias",
    "modules_to_save",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "target_parameters",
)  # what says how an adapter's weights are put together
WITHOUT_EFFECT = (
    "auto_mapping",
    "base_model_name_or_path",
    "ensure_weight_tying",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
)
STARTS = (True, False, "gaussian", "orthogonal")  # which leave the LM's own weights as they are


def is_adapter(folder: pathlib.Path) -> bool:
    """Whether a folder holds an adapter of PEFT, and no LM or prompt."""
    holds_more = any((folder / name).exists() for name in (LM_CONFIG, "prompt.json"))
    return (folder / CONFIG).exists() and not holds_more


def on_hub(name: str, revision: str | None) -> pathlib.Path | None:
    """The folder in the hub's cache of an adapter of that name; None where the name is of an LM, or
    of what was not fetched (``fetch``)."""
    lm_config, config = (
        try_to_load_from_cache(name, file, revision=revision) for file in (LM_CONFIG, CONFIG)
    )
    if isinstance(lm_config, str) or not isinstance(config, str):
        return None
    return pathlib.Path(config).parent


def fetch(name: str, revision: str | None) -> None:
    """Fetch an adapter of that name from the hub into its cache, or a newer state of it; of an LM
    its config alone.

    Raises:
        OSError, ValueError: nothing was fetched before, and the hub cannot be asked.
    """
    if isinstance(try_to_load_from_cache(name, LM_CONFIG, revision=revision), str):
        return
    try:
        hf_hub_download(name, LM_CONFIG, revision=revision)
    except RemoteEntryNotFoundError:  # it is an adapter's name, or nothing is there
        with contextlib.suppress(RemoteEntryNotFoundError):  # reading it says what is missing
            for file in (CONFIG, WEIGHTS):
                hf_hub_download(name, file, revision=revision)
    except OSError:
        if on_hub(name, revision) is None:
            raise


def base_of(folder: pathlib.Path) -> str:
    """The LM that an adapter was trained on: its folder, or its name on the hub.

    Raises:
        ModelError: the adapter is no LoRA, or its LM is not on this machine.
    """
    config = _config(folder)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name.strip():
        raise ModelError(
            f"{folder / CONFIG} does not say which LM the adapter belongs to: write its folder or "
            "its name on the hub under base_model_name_or_path."
        )
    for place in (folder / name, pathlib.Path(name).expanduser()):
        if place.is_dir():
            if (place / CONFIG).exists():
                raise ModelError(f"{folder} is an adapter of {place}, which is one too.")
            return str(place)
    source = f"{name}@{revision}" if isinstance(revision, str) else name
    is_name = not name.startswith((".", "/", "~")) and name.count("/") < 2
    where = revision if isinstance(revision, str) else None
    if is_name and isinstance(try_to_load_from_cache(name, LM_CONFIG, revision=where), str):
        return source
    raise ModelError(
        f"{folder} is an adapter of the LM {source}, which is not on this machine, and ptune "
        f"fetches none because a file names it: load it once (ptune doctor {source}), or write "
        f"where it lies into base_model_name_or_path in {folder / CONFIG}."
    )


def merge(model: PreTrainedModel, folder: pathlib.Path) -> None:
    """Merge an adapter into the weights of its LM, or of its encoder where it was trained on that.

    Raises:
        ModelError: PEFT is not installed, or the adapter does not fit the LM.
    """
    settings = {name: value for name, value in _config(folder).items() if name in TAKEN}
    try:
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
        from peft.utils import get_peft_model_state_dict
    except ImportError as error:
        raise ModelError(
            f"{folder} is an adapter of PEFT, which is not installed: pip install 'ptune[lora]'"
        ) from error
    if not (folder / WEIGHTS).exists():
        raise ModelError(
            f"{folder} holds no {WEIGHTS}; pickled weights are not read: save the adapter again."
        )
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        parts = dict(model.named_children())
        first = [name.removeprefix("base_model.model.").partition(".")[0] for name in weights]
        with warnings.catch_warnings(action="ignore"):  # PEFT warns of what it calls itself
            part = model if any(name in parts for name in first) else model.base_model
            tied = _tied(model)
            adapted = get_peft_model(part, LoraConfig(**settings))
            _check_tied(folder, adapted, tied)
            wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
            _check_weights(folder, weights, wanted)
            set_peft_model_state_dict(adapted, weights)
            adapted.merge_and_unload(safe_merge=True)
    except (ValueError, TypeError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        raise ModelError(f"The adapter in {folder} does not fit its LM: {error}") from error


def _tied(model: PreTrainedModel) -> set[int]:
    """Which parameters several modules have, by their ids, as an embedding and a head may."""
    counts = Counter(
        id(parameter) for module in model.modules() for parameter in module.parameters(False)
    )
    return {parameter for parameter, count in counts.items() if count > 1}


def _check_tied(folder: pathlib.Path, adapted: nn.Module, tied: set[int]) -> None:
    """Refuse an adapter of a layer whose weights another one has too: merged, it would change both.

    Raises:
        ModelError: it is one.
    """
    for name, module in adapted.named_modules():
        is_adapted = hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
        if is_adapted and id(module.get_base_layer().weight) in tied:
            raise ModelError(
                f"The adapter in {folder} changes {name.removeprefix('base_model.model.')}, whose "
                "weights another part of its LM has too, so that it cannot be merged: leave that "
                "layer out of target_modules, and train it again."
            )


def _check_weights(folder: pathlib.Path, weights: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse an adapter whose weights are not those that its config speaks of.

    Raises:
        ModelError: some are missing, or too many; one is named.
    """
    for name in [*(wanted.keys() - weights.keys()), *(weights.keys() - wanted.keys())]:
        what = "lacks" if name in wanted else "holds, beside what its config speaks of,"
        raise ModelError(f"{folder / WEIGHTS} {what} {name}.")
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            raise ModelError(
                f"{folder / WEIGHTS} holds {name} of the shape {list(value.shape)}, and its LM "
                f"takes {list(wanted[name].shape)}."
            )


def _config(folder: pathlib.Path) -> dict[str, Any]:
    """What an adapter's config says; anything is refused that is more than how weights are put
    together.

    Raises:
        ModelError: it is damaged, of another kind, or says more.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON // 2**20} MB")
        config = json.loads(plain_files.read_text(path))
        if not isinstance(config, dict):
            raise ValueError("it should hold names and values")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: {error}.") from error
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{folder} is an adapter of PEFT of the kind {config.get('peft_type')!r}, and no LM: "
            "LoRA can stand beneath prompts; `ptune import` reads the adapters of prompts."
        )
    if config.get("init_lora_weights", True) not in STARTS:
        raise ModelError(
            f"The adapter in {folder} began by {config['init_lora_weights']!r}, which changes the "
            "LM's own weights: convert it to a usual LoRA (PEFT's path_initial_model_for_weight_"
            "conversion), or save the LM with it merged."
        )
    known = {*TAKEN, *WITHOUT_EFFECT, "init_lora_weights"}
    if more := [name for name, value in config.items() if value and name not in known]:
        raise ModelError(
            f"The adapter in {folder} has {more[0]}, which ptune does not load: save the LM with "
            "it merged (PEFT's merge_and_unload, save_pretrained), and give that folder."
        )
    return config
