"""Transformers models and tokenizers from folders, ``.gguf`` files and the hub; the device and
number format to run them in."""

import contextlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil
import torch
from huggingface_hub import try_to_load_from_cache
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import logging as transformers_logging

from ptune.errors import ConfigError, ModelError, nearest
from ptune.lm.source import adapter, model_files
from ptune.settings import BUILTIN_LMS
from ptune.template.language import Kind

CLASSES = {
    "masked": AutoModelForMaskedLM,
    "causal": AutoModelForCausalLM,
    "encoder-decoder": AutoModelForSeq2SeqLM,
}
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
OTHER_NAMES = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps"}  # what devices are called too
FORMS_OF_LM = (
    "An LM is named by a folder, a .gguf file, its name on the hub, or builtin or builtin-causal, "
    "which need no network."
)


def local_path(source: str) -> pathlib.Path | None:
    """Where the LM of that name lies on this machine, as an absolute path; None where it is no
    folder or file here."""
    if source in BUILTIN_LMS:
        return BUILTIN_LMS[source]
    path = pathlib.Path(source).expanduser()
    return path.absolute() if source and path.exists() else None


def kind_of(config: Any, tokenizer: Any) -> Kind:
    """Masked, causal or encoder-decoder, by the config and by whether the tokenizer has a mask."""
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    fills_masks = (
        type(config) in MODEL_FOR_MASKED_LM_MAPPING and tokenizer.mask_token_id is not None
    )
    return "masked" if fills_masks and not getattr(config, "is_decoder", False) else "causal"


def choose_device(device: str) -> torch.device:
    """The named device, or the best there is for "auto".

    Raises:
        ConfigError: there is no such device here.
    """
    if device == "auto":
        return torch.device(
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        if torch.zeros(1, device=device).is_meta:
            raise RuntimeError("meta holds no values.")
    except (RuntimeError, AssertionError) as error:
        name = device.partition(":")[0]
        if name not in DEVICES:
            meant = OTHER_NAMES.get(name.lower())
            hint = f"Did you mean {meant!r}?" if meant else nearest(name, DEVICES)
            raise ConfigError(f"There is no device {device!r}. {hint} {_devices_here()}") from error
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"The device {device!r} is not there: {reason} {_devices_here()}"
        ) from error
    return torch.device(device)


def free_memory(device: torch.device) -> int:
    """The bytes that are free on a device, as the system tells them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def _devices_here() -> str:
    """A sentence with the devices of this machine."""
    cuda = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    others = [kind for kind in ("mps", "xpu") if getattr(torch, kind).is_available()]
    return (
        f"This machine has {', '.join([*cuda, *others, 'cpu'])}; --device auto takes a GPU if "
        "there is one, else the CPU."
    )


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The named number format, or for "auto" float32 on a CPU, bfloat16 (else float16) on a GPU."""
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        return (
            torch.bfloat16
            if device.type != "cuda" or torch.cuda.is_bf16_supported()
            else torch.float16
        )
    if dtype not in ("float32", "bfloat16", "float16", "float64"):
        raise ConfigError(
            f"There is no dtype {dtype!r}: float32, bfloat16, float16, float64 or auto."
        )
    return getattr(torch, dtype)


def load_model(
    source: str, kind: Kind | None, dtype: torch.dtype, needs_head: bool = True
) -> tuple[PreTrainedModel, Any]:
    """The transformers model and tokenizer of a folder, a ``.gguf`` file or a name on the hub; of
    an adapter those of its LM, the adapter merged into it.

    Args:
        needs_head: where no vocabulary head was ever trained, leave it out.

    Raises:
        ModelError: nothing can be loaded from there, or weights are missing.
    """
    _fetch_adapter(source)
    folder, where = locate(source)
    if (
        (path := pathlib.Path(folder)).is_dir()
        and "gguf_file" not in where
        and not list(path.glob("*.safetensors"))
    ):
        raise ModelError(
            f"The LM folder {path} holds no weights (*.safetensors)"
            + (
                "; its pickled ones (*.bin) are not read: save it again with save_pretrained."
                if list(path.glob("*.bin"))
                else "."
            )
        )
    with quiet_loading(source, path):
        model_files.check(folder, **where)
        local = path.exists()  # what lies here is never asked of the hub
        config = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=local, **where
        )
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=local, **where
        )
        model_files.check_words(source, tokenizer)
        model, report = read_weights(
            CLASSES[kind or kind_of(config, tokenizer)], folder, where, dtype=dtype
        )
    missing = _tie_again(model, sorted(report["missing_keys"]))
    if missing and needs_head and _lacks_head_alone(model, missing):
        model = model.base_model
    elif missing and needs_head:
        raise ModelError(
            f"{source} lacks weights of {type(model).__name__}: {', '.join(missing[:4])}"
            f"{', ...' if len(missing) > 4 else ''}. Its files are not whole, or are of another "
            "kind of network."
        )
    if (beneath := adapter_folder(source)) is not None:
        adapter.merge(model, beneath)
    return model, tokenizer


def _tie_again(model: PreTrainedModel, missing: Sequence[str]) -> list[str]:
    """Tie weights that a folder lacks as they are other names of weights that it has, but for the
    head's vectors: where these are not tied, transformers ties nothing else either, and yet leaves
    the other names out when it saves.

    Returns:
        What is missing all the same.
    """
    config, head = model.config, model.get_output_embeddings()
    if not missing or head is None or getattr(config, "tie_word_embeddings", True):
        return list(missing)
    config.tie_word_embeddings = True
    try:
        ties = model.get_expanded_tied_weights_keys(all_submodels=True)
    finally:
        config.tie_word_embeddings = False
    names = {
        name: ties[name]
        for name in missing
        if name in ties and model.get_parameter(name) is not getattr(head, "weight", None)
    }
    for name, same in names.items():
        module, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(module), attribute, model.get_parameter(same))
    return [name for name in missing if name not in names]


def _lacks_head_alone(model: PreTrainedModel, missing: Sequence[str]) -> bool:
    """Whether exactly the vocabulary head lacks its weights: the folder is of an encoder."""
    body = f"{model.base_model_prefix}."
    of_head = {name for name, _ in model.named_parameters() if not name.startswith(body)}
    return (
        model.base_model is not model
        and of_head <= set(missing)
        and not any(name.startswith(body) for name in missing)
    )


def locate(source: str) -> tuple[str, dict[str, str]]:
    """The folder or the name on the hub, and what else transformers is to know: a revision, as in
    ``name@revision``, or the name of a ``.gguf`` file in the folder; of an adapter those of the LM
    that it belongs to.

    Raises:
        ModelError: there is no such folder or file.
    """
    if not source.strip():
        raise ModelError(
            "An LM has a name: give --lm a folder, a .gguf file, a name on the hub, builtin, or "
            "builtin-causal."
        )
    if source in BUILTIN_LMS:
        return str(BUILTIN_LMS[source]), {}
    path = pathlib.Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"There is no file {path}.")
        return str(path.parent), {"gguf_file": path.name}
    if path.is_dir():
        if (path / "prompt.json").exists() and not (path / "config.json").exists():
            raise ModelError(
                f"{source} is a saved prompt, and no LM: to train on from it, --from {source}."
            )
        return locate(adapter.base_of(path)) if adapter.is_adapter(path) else (str(path), {})
    name, revision = _name_on_hub(source)
    if (adapted := adapter.on_hub(name, revision)) is not None:
        return locate(adapter.base_of(adapted))
    return name, {"revision": revision} if revision else {}


def _name_on_hub(source: str) -> tuple[str, str | None]:
    """An LM's name on the hub, and the revision that stands behind it.

    Raises:
        ModelError: it is no such name.
    """
    if source.startswith((".", "/", "~")) or source.endswith("/") or source.count("/") > 1:
        raise ModelError(f"There is no LM folder {pathlib.Path(source).expanduser()}.")
    name, _, revision = source.partition("@")
    if "@" in source and not (name and revision):
        raise ModelError(
            f"{source!r} is no name of an LM: a revision stands behind it, as in name@revision."
        )
    return name, revision or None


def _fetch_adapter(source: str) -> None:
    """Fetch the adapter of that name, where there is one on the hub and nothing here.

    Raises:
        ModelError: nothing was fetched before, and the hub cannot be asked.
    """
    if source.strip() and local_path(source) is None and not source.endswith(".gguf"):
        name, revision = _name_on_hub(source)
        with quiet_loading(source, pathlib.Path(name)):
            adapter.fetch(name, revision)


def adapter_folder(source: str) -> pathlib.Path | None:
    """The folder of the adapter that an LM of that name is made with; None for an LM as it is."""
    if (path := local_path(source)) is None:
        return adapter.on_hub(*_name_on_hub(source))
    return path if path.is_dir() and adapter.is_adapter(path) else None


def commit_of(source: str) -> str | None:
    """The commit from which an LM of the hub was loaded, as the hub's cache tells it; None of an LM
    that lies on this machine.

    Raises:
        ModelError: there is no such LM.
    """
    if local_path(source) is not None:
        return None
    name, revision = _name_on_hub(source)
    if (folder := adapter.on_hub(name, revision)) is not None:
        return folder.name
    cached = try_to_load_from_cache(name, adapter.LM_CONFIG, revision=revision)
    return pathlib.Path(cached).parent.name if isinstance(cached, str) else None


def load_tokenizer(source: str) -> Any:
    """The tokenizer of a folder or a name on the hub; no code that comes with it is run.

    Raises:
        ModelError: there is none.
    """
    _fetch_adapter(source)
    folder, where = locate(source)
    with quiet_loading(source, pathlib.Path(folder)):
        model_files.check_tokenizer_config(source, get_tokenizer_config(folder, **where))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **where)
        model_files.check_words(source, tokenizer)
    return tokenizer


def read_weights(
    loader: Any, folder: str, where: Mapping[str, str], **settings: Any
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model of one of transformers' Auto classes and its report of loading: from safetensors or
    GGUF, without any code that comes with it, its attention by transformers' own sdpa, or eager
    where it knows no other, whatever its config says."""
    safe = {} if "gguf_file" in where else {"use_safetensors": True}
    local = pathlib.Path(folder).exists()
    settings |= {
        "trust_remote_code": False,
        "output_loading_info": True,
        "local_files_only": local,
        **safe,
        **where,
    }
    try:
        return loader.from_pretrained(folder, attn_implementation="sdpa", **settings)
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return loader.from_pretrained(folder, attn_implementation="eager", **settings)


@contextlib.contextmanager
def quiet_loading(source: str, path: pathlib.Path) -> Iterator[None]:
    """While this is open transformers reports errors only, and they end as one message.

    Args:
        path: where the LM lies, if it is a folder; bars are for downloads.

    Raises:
        ModelError: anything was raised.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with without_bars() if path.exists() else contextlib.nullcontext():
            yield
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(
            f"{source} needs a package that is not installed: "
            f"{str(error).strip().splitlines()[-1]} "
            f"(for .gguf files: pip install 'ptune[gguf]')"
        ) from error
    except (
        Exception
    ) as error:  # transformers raises every kind; all of them mean that nothing was loaded
        hint = "" if path.exists() else f" {FORMS_OF_LM}"
        raise ModelError(
            f"No LM can be loaded from {source!r}: {first_line(error)}{hint}"
        ) from error
    finally:
        transformers_logging.set_verbosity(level)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """While this is open transformers shows no progress bars."""
    shows = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shows:
            transformers_logging.enable_progress_bar()


def first_line(error: Exception) -> str:
    """The first line of an error's message that says anything."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
