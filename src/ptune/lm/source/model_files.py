"""What the files of an LM may ask for. They come from strangers: they are data, and nothing in them
is run, read from outside their folder, or fetched beside what was named.
"""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from ptune.base import plain_files
from ptune.errors import ModelError

INDEX = "model.safetensors.index.json"
ATTENTION = ("sdpa", "eager")
NO_CODE = (
    "its config names code of its own ({key}: {value}), which ptune never runs: only LMs that "
    "transformers itself "
    "knows can be loaded"
)
LARGEST_JSON = 2**27


def check(source: str, **where: Any) -> None:
    """Refuse an LM whose files ask for code, pickled weights, or files from elsewhere.

    Args:
        source: a folder, or a name on the hub.
        where: the revision on the hub, or the name of a ``.gguf`` file in the folder.

    Raises:
        ModelError: they do; which, and why it is refused.
        OSError, ValueError: there are no such files, or transformers cannot read them.
    """
    if (pathlib.Path(source) / "adapter_config.json").exists():
        raise ModelError(
            f"{source} is an adapter of PEFT and no LM, and would fetch one from elsewhere: give "
            "--lm the LM that it "
            f"belongs to; `ptune import` reads the adapters of prompts."
        )
    if "gguf_file" in where:
        return
    for path in pathlib.Path(source).glob("*"):
        if plain_files.is_other(path):
            raise ModelError(f"{path} cannot be read: {plain_files.OTHER}.")
    for path in pathlib.Path(source).glob("*.json"):
        if path.stat().st_size > LARGEST_JSON:
            raise ModelError(
                f"{path} is larger than {LARGEST_JSON // 2**20} MB, which no LM needs."
            )
    config, _ = PreTrainedConfig.get_config_dict(source, **where)
    check_config(source, config)
    check_tokenizer_config(source, get_tokenizer_config(source, **where))
    index = cached_file(source, INDEX, _raise_exceptions_for_missing_entries=False, **where)
    if index is not None:
        _check_index(source, pathlib.Path(index))


def check_config(source: str, config: Mapping[str, Any]) -> None:
    """Refuse a config that names code, a kernel from elsewhere, or a file that is no safetensors.

    Raises:
        ModelError: it does.
    """
    if code := config.get("auto_map"):
        from transformers import CONFIG_MAPPING

        if config.get("model_type") not in CONFIG_MAPPING:
            raise ModelError(
                f"No LM can be loaded from {source!r}: "
                f"{NO_CODE.format(key='auto_map', value=_short(code))}."
            )
    for key, value in _settings(config):
        implementations = value.values() if isinstance(value, Mapping) else [value]
        if key.endswith("_implementation") and any(_is_a_kernel(name) for name in implementations):
            raise ModelError(
                f"No LM can be loaded from {source!r}: its config names a kernel to be fetched "
                "and run "
                f"({key}: {_short(value)}), which ptune never does. Take that line out of "
                "config.json: ptune "
                f"computes attention by {' or '.join(ATTENTION)}."
            )
    weights = config.get("transformers_weights")
    if weights is not None and not str(weights).endswith(
        (".safetensors", ".safetensors.index.json")
    ):
        raise ModelError(
            f"No LM can be loaded from {source!r}: its config takes its weights from "
            f"{_short(weights)}, and ptune "
            f"reads safetensors only."
        )


def check_tokenizer_config(source: str, config: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that only code of its own could make.

    Raises:
        ModelError: it is one.
    """
    code = config.get("auto_map")
    name = config.get("tokenizer_class")
    if code and not (isinstance(name, str) and _is_known_tokenizer(name)):
        raise ModelError(
            f"No tokenizer can be loaded from {source!r}: "
            f"{NO_CODE.format(key='auto_map', value=_short(code))}."
        )


def check_words(source: str, tokenizer: Any) -> None:
    """Refuse a tokenizer without words: transformers makes one where its files are missing.

    Raises:
        ModelError: it has none.
    """
    words = tokenizer.get_vocab().keys() - {*tokenizer.all_special_tokens, "\u2581"}
    if len(words) < 2:
        raise ModelError(
            f"{source} holds no tokenizer (tokenizer.json, or vocab.txt, vocab.json, spiece.model "
            "by the kind of "
            "LM), so that every word would be an unknown one: copy it there from where the LM "
            "comes from."
        )


def _check_index(source: str, path: pathlib.Path) -> None:
    """Weights in several files are all safetensors, and all in the folder."""
    try:
        files = set(json.loads(plain_files.read_text(path))["weight_map"].values())
    except (OSError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise ModelError(
            f'{path} is damaged: it should hold a table "weight_map" of weights and files.'
        ) from error
    for name in files:
        if (
            not isinstance(name, str)
            or not name.endswith(".safetensors")
            or pathlib.PurePath(name).name != name
            or "\\" in name
        ):
            raise ModelError(
                f"No LM can be loaded from {source!r}: {INDEX} takes weights from {_short(name)}, "
                "and ptune reads "
                f"safetensors files of the LM's folder only."
            )


def _settings(config: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """All settings of a config, those of its parts too."""
    for key, value in config.items():
        yield key, value
        if isinstance(value, Mapping) and depth < 10:
            yield from _settings(value, depth + 1)


def _is_a_kernel(name: Any) -> bool:
    return isinstance(name, str) and any(mark in name for mark in "/:@|")


def _is_known_tokenizer(name: str) -> bool:
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    return tokenizer_class_from_name(name) is not None


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 100 else f"{text[:100]}..."
