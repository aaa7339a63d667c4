"""Which LM a prompt belongs to: a record of the LM's config, tokens and of every one of its
weights, that is written beside the prompt and compared with the LM that is to answer.

Weights are compared exactly where their number formats allow it. An LM that was loaded in a shorter
format is compared by what the longer one rounds to; only between bfloat16 and float16, where either
LM is quantised, and where a record of float32 weights of ptune 0.1 meets float16, is there a
tolerance.
"""

import base64
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import nn

COLUMNS = 1021  # a prime, so that rows of a matrix that change places fall into other columns
SAMPLES = 8
PLAIN = (torch.Tensor, nn.Parameter, nn.Buffer)
ROUNDING = 2**-7  # relative: one step of bfloat16
# relative: 8 values of a weight matrix lose a fifth at most in 4 bits; those of another LM differ
# by more
QUANTISED = 0.5
WITHOUT_EFFECT = (
    "_token_id",
    "_token_ids",
    "_implementation",
    "dtype",
    "use_cache",
    "transformers_version",
    "tie_word_embeddings",
    "name_or_path",
    "return_dict",
    "problem_type",
    "num_labels",
)
WITHOUT_EFFECT_PARTS = (
    "drop",
    "initializer",
    "vocab_size",
    "quantization_config",
    "id2label",
    "label2id",
    "output_",
    "architectures",
    "task_specific_params",
    "gradient_checkpointing",
)


class LMRecord(BaseModel):
    """What is known of an LM.

    Attributes:
        config: the values of its config that may decide an answer; nested ones have a dot in their
            names.
        tokens: how many tokens its tokenizer has, and ``words`` a hash of them in their order.
        rows: how many vectors its table of embeddings has.
        names: a hash of the names and shapes of its weights.
        format: the shortest number format that holds all its weights without loss.
        quantised: whether some weights are kept in integers, or in a form of a quantiser's own.
        exact: a hash of all weights in full precision.
        rounded: a hash of all weights rounded to bfloat16.
        halved: a hash of all weights rounded to float16 and widened again, which is ``exact`` where
            nothing is lost; empty for bfloat16, and in records of ptune 0.1.
        sample: some values of each weight, for comparisons with a tolerance; bfloat16 in base64.
    """

    model_config = ConfigDict(frozen=True)

    config: dict[str, bool | int | float | str]
    tokens: PositiveInt
    words: str
    rows: PositiveInt
    names: str
    format: str
    quantised: bool
    exact: str
    rounded: str
    sample: str
    halved: str = ""

    def hash(self) -> str:
        """One value for the config, the tokens and every weight as they are."""
        parts = [
            sorted(self.config.items()),
            self.words,
            self.rows,
            self.names,
            self.format,
            self.exact,
        ]
        return _short(json.dumps(parts).encode())


def record(
    network: nn.Module,
    tokenizer: Any,
    *,
    rows: int,
    keep_rows: int | None = None,
    keep_tokens: int | None = None,
) -> LMRecord:
    """The record of a transformers model and its tokenizer.

    Args:
        rows: how many vectors the table of embeddings has.
        keep_rows: leave out what the vocabulary has beyond this many vectors.
        keep_tokens: leave out what the tokenizer has beyond this many tokens.
    """
    weights = {name: _narrowed(weight, rows, keep_rows) for name, weight in _dense(network)}
    names = [[name, list(weight.shape)] for name, weight in weights.items()]
    number_format = _format(weights)
    rounded = _hash(weights, torch.bfloat16)
    is_short = number_format == torch.bfloat16
    exact = rounded if is_short else _hash(weights, torch.float32)
    halved = "" if is_short else _hash(weights, torch.float16, torch.float32)
    return LMRecord(
        config=_config_values(network.config.to_dict()),
        tokens=min(len(tokenizer), keep_tokens or len(tokenizer)),
        words=_words(tokenizer, keep_tokens),
        rows=min(rows, keep_rows or rows),
        names=_short(json.dumps(names).encode()),
        format=str(number_format).removeprefix("torch."),
        quantised=is_quantised(network),
        exact=exact,
        rounded=rounded,
        sample=_sample(weights),
        halved=halved,
    )


def difference(
    saved: LMRecord, network: nn.Module, tokenizer: Any, present: LMRecord
) -> str | None:
    """What an LM has that the LM of a saved record had not, as the end of the sentence "this LM has
    ..."; None for the same LM, in whatever number format or quantisation.

    Args:
        present: the record of ``network`` and ``tokenizer``.
    """
    if changed := _changed_config(saved.config, present.config):
        return changed
    more_rows, more_tokens = present.rows - saved.rows, present.tokens - saved.tokens
    if more_rows >= 0 and more_tokens >= 0 and more_rows + more_tokens:
        before_growth = record(
            network, tokenizer, rows=present.rows, keep_rows=saved.rows, keep_tokens=saved.tokens
        )
        if saved.words == before_growth.words and same_weights(saved, before_growth, network):
            return (
                f"a vocabulary that has grown since by {max(more_rows, more_tokens)} tokens at "
                "its end, and is the same "
                f"LM otherwise"
            )
    if saved.tokens != present.tokens or saved.words != present.words:
        return (
            f"a tokenizer with other tokens ({present.tokens}, and it was trained with "
            f"{saved.tokens})"
        )
    if not same_weights(saved, present, network):
        differs = _first_difference(saved, present, network)
        return "other weights" + (f" (the first that differ: {differs})" if differs else "")
    return None


def config_hash(config: Mapping[str, Any], tokens: int) -> str:
    """A hash of a config's numbers and of the size of the vocabulary, by which older prompts know
    their LM."""
    numbers = [
        (name, value)
        for name, value in config.items()
        if _is_number(value) and not name.endswith("_token_id")
    ]
    return hashlib.sha256(json.dumps([sorted(numbers), tokens]).encode()).hexdigest()[:16]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def same_weights(saved: LMRecord, present: LMRecord, network: nn.Module) -> bool:
    """Whether two records are of the same weights, as far as the number formats of both can tell.

    Args:
        network: the model of the record ``present``.
    """
    if saved.exact == present.exact:
        return True
    if not saved.quantised and not present.quantised:
        if saved.format == present.format:
            return False
        if "float16" not in (saved.format, present.format):
            return saved.rounded == present.rounded
        if "float32" in (saved.format, present.format) and (halved := _halved(saved, network)):
            return halved == present.halved
        if saved.rounded == present.rounded:
            return True
    if (
        saved.names != present.names
    ):  # a quantiser may pack its weights, and then the table of embeddings has to do
        return saved.quantised or present.quantised
    return _first_difference(saved, present, network) is None


def _halved(saved: LMRecord, network: nn.Module) -> str:
    """The hash of a saved record's weights rounded to float16; empty where the record cannot tell
    it, as one without that hash whose LM may have kept some weights in float32."""
    if saved.halved or saved.format != "float16":
        return saved.halved
    return "" if getattr(network, "_keep_in_fp32_modules", None) else saved.exact


def named_weights(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """All that is saved of a model, in the order of its names; what is shared has each of its
    names."""
    saved = network.state_dict(keep_vars=True)
    buffers = [
        (name, value)
        for name, value in network.named_buffers(remove_duplicate=False)
        if name in saved
    ]
    yield from sorted(
        [*network.named_parameters(remove_duplicate=False), *buffers], key=lambda pair: pair[0]
    )


def is_quantised(network: nn.Module) -> bool:
    """Whether some weights are kept in integers, or in a form of a quantiser's own."""
    return any(not _is_plain(weight) for _, weight in named_weights(network))


def _is_plain(weight: torch.Tensor) -> bool:
    return type(weight) in PLAIN and (weight.is_floating_point() and weight.itemsize > 1)


def _dense(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights as plain tensors; what is shared is one tensor under each of its names."""
    dense: dict[int, torch.Tensor] = {}
    for name, weight in named_weights(network):
        if id(weight) not in dense:
            values = weight.detach()
            if type(values) is not torch.Tensor and hasattr(values, "dequantize"):
                values = values.dequantize()
            dense[id(weight)] = values
        yield name, dense[id(weight)]


def _narrowed(weight: torch.Tensor, rows: int, keep: int | None) -> torch.Tensor:
    """A weight without what it has beyond ``keep`` words, where one of its sizes is that of the
    vocabulary."""
    if keep is None or keep == rows:
        return weight
    for dimension, size in enumerate(weight.shape):
        if size == rows:
            weight = weight.narrow(dimension, 0, keep)
    return weight


def _format(weights: Mapping[str, torch.Tensor]) -> torch.dtype:
    """The shortest number format that holds all these weights without loss; float16 where they are
    kept in it, since what they were before may have been too small or too large for it."""
    floating = [weight for weight in weights.values() if weight.is_floating_point()]
    if any(weight.dtype == torch.float16 for weight in floating):
        return torch.float16
    for kind in (torch.bfloat16, torch.float16):
        if all(
            weight.dtype == kind or torch.equal(weight, weight.to(kind).to(weight.dtype))
            for weight in floating
        ):
            return kind
    return torch.float32


def _hash(weights: Mapping[str, torch.Tensor], *formats: torch.dtype) -> str:
    """A hash of names, shapes and all values in one number format, or in several, one after the
    other. Equal values have equal hashes on every device."""
    sums: dict[int, bytes] = {}
    whole = hashlib.sha256()
    for name, weight in weights.items():
        if id(weight) not in sums:
            values = weight
            for kind in formats if weight.is_floating_point() else ():
                values = values.to(kind)
            sums[id(weight)] = _column_sums(values)
        whole.update(json.dumps([name, list(weight.shape)]).encode() + sums[id(weight)])
    return whole.hexdigest()[:32]


def _column_sums(weight: torch.Tensor) -> bytes:
    """The sums of a tensor's bits in columns, as 64-bit integers: changed by a change of any one
    value."""
    bits = weight.contiguous().reshape(-1).view(torch.uint8)
    bits = nn.functional.pad(bits, (0, -len(bits) % 8)).view(torch.int64)
    whole = len(bits) // COLUMNS * COLUMNS
    sums = bits[:whole].view(-1, COLUMNS).sum(0).cpu().numpy().tobytes()
    return sums + bits[whole:].cpu().numpy().tobytes()


def _sample(weights: Mapping[str, torch.Tensor]) -> str:
    values = [_some_values(weight) for weight in weights.values()]
    together = (
        torch.cat(values).to(torch.bfloat16) if values else torch.zeros(0, dtype=torch.bfloat16)
    )
    return base64.b64encode(together.view(torch.int16).numpy().astype("<i2").tobytes()).decode()


def _some_values(weight: torch.Tensor) -> torch.Tensor:
    """Some values of a tensor, spread over it: [SAMPLES], float32 on the CPU."""
    if not weight.numel():
        return torch.zeros(SAMPLES)
    places = torch.linspace(0, weight.numel() - 1, SAMPLES, dtype=torch.float64).long()
    return weight.reshape(-1)[places.to(weight.device)].float().cpu()


def _read_sample(text: str) -> torch.Tensor:
    """The sample of a record: [weights, SAMPLES]; empty where it is damaged."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or len(data) % (2 * SAMPLES):
        return torch.zeros(0, SAMPLES)
    return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float().view(-1, SAMPLES)


def _first_difference(saved: LMRecord, present: LMRecord, network: nn.Module) -> str | None:
    """The name of the first weight whose sampled values differ by more than their formats allow;
    None without one."""
    before, now = _read_sample(saved.sample), _read_sample(present.sample)
    weights = list(named_weights(network))
    if before.shape != now.shape or len(before) != len(weights):
        return weights[0][0] if saved.names == present.names else None
    loosely = saved.quantised or present.quantised
    for (name, weight), expected, values in zip(weights, before, now):
        tolerance = QUANTISED if loosely and weight.dim() > 1 else ROUNDING
        if not (values - expected).norm() <= tolerance * expected.norm() + 1e-6:
            return name
    return None


def _words(tokenizer: Any, keep: int | None) -> str:
    """A hash of the tokenizer's tokens by number, up to a number."""
    known = sorted(
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if keep is None or number < keep
    )
    return _short(json.dumps(known).encode())


def _config_values(
    config: Mapping[str, Any], before: str = ""
) -> dict[str, bool | int | float | str]:
    """The single values and lists of a config that may decide an answer, by their names."""
    values: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if not isinstance(key, str) or key.startswith("_") or key.endswith(WITHOUT_EFFECT):
            continue
        if any(part in key for part in WITHOUT_EFFECT_PARTS):
            continue
        name = before + key
        if isinstance(value, Mapping):
            values |= _config_values(value, f"{name}.")
        elif isinstance(value, list | tuple):
            values[name] = _short(json.dumps(value, default=str).encode())
        elif isinstance(value, bool | int | str) or (
            isinstance(value, float) and math.isfinite(value)
        ):
            values[name] = value
    return values


def _changed_config(saved: Mapping[str, Any], present: Mapping[str, Any]) -> str | None:
    """The first value that two configs have and do not share, as the end of the sentence "this LM
    has ..."; what only one of them has comes from another version of transformers."""
    for name in sorted(saved.keys() & present.keys()):
        before, now = saved[name], present[name]
        numbers = all(isinstance(value, int | float) for value in (before, now))
        if not (math.isclose(before, now, rel_tol=1e-5) if numbers else before == now):
            return f"another config ({name} is {now!r}, and was {before!r})"
    return None


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
