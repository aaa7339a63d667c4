"""Prompts as PEFT keeps them: ``adapter_config.json`` and ``adapter_model.safetensors`` with one
tensor, ``prompt_embeddings``.

PEFT's format can say two things that ptune can say too: soft tokens in front of everything, and a
prefix in the attention of a causal LM or of a decoder, which it calls PREFIX_TUNING, or CARTRIDGE
where it stands for a document (PEFT 0.20 and newer). PEFT answers with them as ptune does, where
rows are not padded on the left. Everything else is refused with the reason. The text of a template
and the label words have no place in the format. PEFT itself is not needed.
"""

import inspect
import pathlib
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open

from ptune.answers.label_words import Verbalizer
from ptune.base import files, plain_files
from ptune.errors import ConfigError, StoreError, first_fault
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.lm.patches.prefixes.prefix_attention import AttentionSite
from ptune.lm.source.loading import local_path
from ptune.model.prompt_model import BoundTask, PrefixSettings, PromptModel, Task
from ptune.prompts import encoders
from ptune.prompts.bank import Prefix
from ptune.template.language import EncodedRow, PrefixPart, Soft, Template

CONFIG, WEIGHTS, PICKLED, TENSOR = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "prompt_embeddings",
)
SOFT, PREFIX, CARTRIDGE = ("PROMPT_TUNING", "P_TUNING"), "PREFIX_TUNING", "CARTRIDGE"
ABOUT_GENERATE = (
    "PEFT's forward answers with it as ptune does. The generate of PEFT 0.21 does not on "
    "transformers 5.24 and later: soft tokens need use_cache=False there, and a prefix is left out "
    "in most LMs. Let ptune write, or use transformers 5.23 beside PEFT."
)
TASK_TYPES = {"causal": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}


class Adapter(BaseModel):
    """What ``adapter_config.json`` tells of the tensor's shape. For soft tokens it is [P x
    submodules, token_dim], of which the first P count; for a prefix [P, layers x 2 x token_dim],
    and token_dim is heads x the size of a head."""

    model_config = ConfigDict(strict=True)

    peft_type: str
    task_type: str | None = None
    num_virtual_tokens: PositiveInt
    token_dim: PositiveInt | None = None
    num_transformer_submodules: PositiveInt | None = None
    num_attention_heads: PositiveInt | None = None
    num_layers: PositiveInt | None = None
    num_frozen_tokens: int | None = None  # of a cartridge, which PEFT does not train on


def export(
    model: PromptModel, folder: files.Path, task: int | str = 0, cartridge: bool = False
) -> None:
    """Write a task's prompt as PEFT's two files, so that ``PeftModel.from_pretrained(lm, folder)``
    answers as ptune does.

    Args:
        cartridge: write a causal LM's prefix as PEFT's type CARTRIDGE, and not as PREFIX_TUNING.

    Raises:
        ConfigError: PEFT's format cannot say this prompt, with the reason.
        StoreError: the folder cannot be written.
    """
    check(model, task, cartridge)
    bound = model.tasks[model.number(task)]
    is_prefix = model.bank.has_prefix(bound.prompt)
    adapter, values = (_prefix_out if is_prefix else _soft_out)(model, bound)
    if cartridge:
        adapter = adapter.model_copy(update={"peft_type": CARTRIDGE, "num_frozen_tokens": 0})
    folder = pathlib.Path(folder)
    files.write_tensors(folder / WEIGHTS, {TENSOR: values})
    files.write_json(
        folder / CONFIG,
        {
            **adapter.model_dump(exclude=None if cartridge else {"num_frozen_tokens"}),
            "base_model_name_or_path": _base(model.lm.source),
            "inference_mode": True,
        },
    )


def written_by_ptune(folder: files.Path) -> list[str]:
    """The names of PEFT's two files in a folder where ``export`` wrote them; none where they are
    another program's, or not there."""
    path = pathlib.Path(folder) / WEIGHTS
    try:
        plain_files.check(path)
        with safe_open(path, "pt") as stream:
            is_ours = "note" in (stream.metadata() or {}) and [*stream.keys()] == [TENSOR]
    except (OSError, SafetensorError):
        return []
    return [CONFIG, WEIGHTS] if is_ours else []


def check(model: PromptModel, task: int | str = 0, cartridge: bool = False) -> None:
    """Refuse a task's prompt that PEFT's format cannot say.

    Args:
        cartridge: it is to be of PEFT's type CARTRIDGE.

    Raises:
        ConfigError: the reason.
    """
    bound = model.tasks[model.number(task)]
    if bound.prompt < 0:
        raise ConfigError(
            f"{bound.task.name} has a template without learned tokens: there is nothing to export."
        )
    if reason := _unsaid(model, bound):
        raise ConfigError(f"The prompt of {bound.task.name} cannot be exported for PEFT: {reason}.")
    if cartridge and not (model.bank.has_prefix(bound.prompt) and model.lm.kind == "causal"):
        raise ConfigError(
            f"The prompt of {bound.task.name} is no cartridge, which is the prefix of a causal LM: "
            "export it to peft."
        )


def _base(source: str) -> str | None:
    """The LM's name as PEFT reads it, from any working folder."""
    path = local_path(source)
    return source or None if path is None else str(path)


def _unsaid(model: PromptModel, bound: BoundTask) -> str:
    """Why PEFT's format cannot say a task's prompt, or nothing."""
    lm, prefix = model.lm, model.bank.prefixes[bound.prompt]
    row = _row(lm, bound)
    if bound.task.prefix.reads_rows:
        return (
            "its gates read each row (prefix.gates: row), and PEFT has one prefix for all rows: "
            "train it with prefix.gates: true, or without gates"
        )
    soft = sum(slot >= 0 for slot in row.soft_slots)
    if row.visibility:
        return "it hides tokens from others (visibility), and to PEFT all see each other"
    if row.decoder_slots:
        return "soft tokens stand in the decoder's input, and PEFT has them before the encoder's"
    if soft and row.prefix:
        return "it has soft tokens and a prefix, and PEFT has one of them at a time"
    if reason := _unsaid_by(lm, bool(row.prefix)):
        return reason
    if min(row.soft_slots[:soft], default=0) < 0:
        return "soft tokens stand behind text, and PEFT has them in front only"
    if any(row.prefix):
        return "a prefix stands behind text, and PEFT has it in front only"
    if isinstance(prefix, Prefix) and prefix.spans != (_span(lm),):
        return (
            "its prefix enters other attentions than the decoder's own, and PEFT has none "
            "there: train it with attentions=('decoder',)"
        )
    return ""


def _row(lm: LanguageModel, bound: BoundTask) -> EncodedRow:
    """A row of the task, for what its template puts where."""
    return bound.template.encode(
        dict.fromkeys(bound.template.fields, "a"), lm.tokens, lm.kind, start=lm.start
    )


def _unsaid_by(lm: LanguageModel, deep: bool) -> str:
    """Why soft tokens, or a prefix, are not the same to PEFT and to ptune with this LM, or
    nothing."""
    name = type(lm.model).__name__
    if lm.kind == "masked":
        return "PEFT has no task type for masked LMs"
    if not deep:
        return (
            (
                "PEFT puts soft tokens before everything, and ptune puts them behind "
                f"{' '.join(map(lm.tokens.show, lm.tokens.before))}, which "
                f"this LM's tokenizer puts before a text"
            )
            if lm.tokens.before
            else ""
        )
    if not isinstance(lm.route, AttentionRoute):
        return f"a prefix enters {name} as the inputs of its layers, and PEFT has keys and values"
    if lm.kind == "causal" and "position_ids" not in inspect.signature(lm.model.forward).parameters:
        return (
            f"PEFT's prefix takes up positions, and {name} takes no position ids, so that "
            "ptune's takes up none"
        )
    if lm.kind == "encoder-decoder" and not any(
        hasattr(part, "relative_attention_bias") for part in lm.model.get_decoder().modules()
    ):
        return (
            "PEFT's prefix moves the positions of the decoder's tokens, ptune's does not, and "
            f"those of {name} are not relative"
        )
    if _slides(lm.model.config.get_text_config()):
        return (
            f"{name} has a sliding window, out of which PEFT's prefix falls, and ptune's does not"
        )
    if len({(site.heads, site.size) for site in _sites(lm)}) > 1:
        return (
            f"the layers of {name} have keys and values of several sizes, and PEFT has one for all"
        )
    return ""


def _slides(config: Any) -> bool:
    kinds = getattr(config, "layer_types", None)
    return (
        bool(set(kinds) - {"full_attention"})
        if kinds
        else bool(getattr(config, "sliding_window", None))
    )


def _group(lm: LanguageModel) -> str:
    return "decoder" if lm.kind == "encoder-decoder" else "self"


def _sites(lm: LanguageModel) -> list[AttentionSite]:
    """The attentions that PEFT's prefix enters, by layer."""
    assert isinstance(lm.route, AttentionRoute)
    return [site for site in lm.route.sites if site.group == _group(lm)]


def _span(lm: LanguageModel) -> tuple[int, int]:
    """The columns of a prefix that are theirs."""
    return lm.route.spans[_group(lm)]


def _soft_out(model: PromptModel, bound: BoundTask) -> tuple[Adapter, torch.Tensor]:
    order = [slot for slot in _row(model.lm, bound).soft_slots if slot >= 0]
    values = encoders.bake(model.bank.encoders[bound.prompt]).float()[order]
    return Adapter(
        peft_type=SOFT[0],
        task_type=TASK_TYPES[model.lm.kind],
        num_virtual_tokens=len(values),
        token_dim=values.shape[1],
        num_transformer_submodules=1,
        num_attention_heads=1,
        num_layers=1,
    ), values  # PEFT wants the last two, and does not use them


def _prefix_out(model: PromptModel, bound: BoundTask) -> tuple[Adapter, torch.Tensor]:
    """The values in PEFT's order: layer, key and value, head, size; the same as ptune's, but for
    what ``_taken`` tells of decoders."""
    prefix, sites = model.bank.prefixes[bound.prompt], _sites(model.lm)
    assert isinstance(prefix, Prefix)
    values, two = encoders.bake(prefix.encoder).float(), model.lm.kind == "encoder-decoder"
    if two:
        attention_values = values.unflatten(1, (len(sites), -1))
        values = torch.stack([attention_values, torch.zeros_like(attention_values)], 2).flatten(1)
    width = sites[0].heads * sites[0].size
    return Adapter(
        peft_type=PREFIX,
        task_type=TASK_TYPES[model.lm.kind],
        num_virtual_tokens=len(values),
        token_dim=width,
        num_transformer_submodules=2 if two else 1,
        num_attention_heads=sites[0].heads,
        num_layers=values.shape[1] // (2 * width),
    ), values


def load(
    folder: files.Path,
    lm: LanguageModel,
    template: str,
    *,
    name: str = "task",
    verbalizer: Verbalizer | None = None,
    target: str = "label",
) -> PromptModel:
    """Load a prompt that PEFT saved for this LM: by prompt tuning, P-tuning, prefix tuning
    or as a cartridge.

    Args:
        template: what stands behind the learned tokens, as in " {x} = {mask}". Its spaces count:
            PEFT put its tokens before a text as the tokenizer gives it.
        name, verbalizer, target: of the task that is made; without a verbalizer its answer is text.

    Raises:
        ConfigError: the folder holds something else, for another kind of LM, or what ptune cannot
            say, with the reason.
        StoreError: the folder is damaged, or was saved for an LM of another size.
    """
    path = pathlib.Path(folder)
    adapter = _adapter(path, lm)
    deep = adapter.peft_type in (PREFIX, CARTRIDGE)
    if reason := _unsaid_by(lm, deep):
        raise ConfigError(f"The prompt in {path} cannot be loaded for this LM: {reason}.")
    values = (_prefix_in if deep else _soft_in)(path, adapter, lm)
    rest = Template.parse(template)
    whole = Template.parse(f"{{{'prefix' if deep else 'soft'}:{len(values)}}}{template}")
    if whole.parts != ((PrefixPart if deep else Soft)(len(values)), *rest.parts) or any(
        isinstance(part, Soft | PrefixPart) for part in rest.parts
    ):
        raise ConfigError(
            f"The template {template!r} should be what stands behind PEFT's learned tokens: "
            "braces for fields, no learned tokens of its own."
        )
    baked = encoders.Baked(values.to(lm.device))
    settings = PrefixSettings(hidden=0, attentions=(_group(lm),)) if deep else PrefixSettings()
    model = PromptModel(lm)
    model.add(
        Task(name, whole, verbalizer, target, encoder="table", prefix=settings),
        encoder=None if deep else baked,
        prefix=baked if deep else None,
    )
    return model


def other_lm(folder: files.Path, lm: LanguageModel) -> str:
    """A sentence that an adapter was trained for an LM of another name; empty where it was not, or
    where the adapter does not say."""
    raw = files.read_json(pathlib.Path(folder) / CONFIG)
    named = raw.get("base_model_name_or_path") if isinstance(raw, dict) else None
    names = {"", _last_name(lm.source), _last_name(str(local_path(lm.source) or ""))}
    if not isinstance(named, str) or _last_name(named) in names:
        return ""
    return (
        f"{pathlib.Path(folder) / CONFIG} says that the prompt was trained for the LM {named}, and "
        f"it is taken for {lm.source}: if these are not the same weights, its answers mean nothing."
    )


def _last_name(lm: str) -> str:
    return pathlib.PurePath(lm).name.lower()


def _adapter(path: pathlib.Path, lm: LanguageModel) -> Adapter:
    if not path.is_dir():
        raise StoreError(f"There is no folder {path}.")
    if not (path / CONFIG).exists():
        within = sorted(str(file.parent) for file in path.glob(f"*/{CONFIG}"))
        raise ConfigError(
            f"{path} holds no {CONFIG}, so it is no folder of an adapter of PEFT's."
            + (f" Folders within it are: {', '.join(within)}." if within else "")
        )
    raw = files.read_json(path / CONFIG)
    kind = raw.get("peft_type") if isinstance(raw, dict) else None
    if kind not in (*SOFT, PREFIX, CARTRIDGE):
        raise ConfigError(
            f"{path / CONFIG} is of PEFT's type {kind!r}, and ptune loads "
            f"{', '.join((*SOFT, PREFIX))} and {CARTRIDGE} only."
        )
    if kind == CARTRIDGE and lm.kind != "causal":
        raise ConfigError(
            f"{path / CONFIG} is a cartridge, which is for a causal LM, and {lm.source} is "
            f"{lm.kind}."
        )
    try:
        adapter = Adapter.model_validate(raw)
    except ValidationError as error:
        raise StoreError(f"{path / CONFIG} is damaged: {first_fault(error)}.") from error
    if lm.kind in TASK_TYPES and adapter.task_type != TASK_TYPES[lm.kind]:
        raise ConfigError(
            f"{path / CONFIG} is of PEFT's task type {adapter.task_type}, and this LM, "
            f"{lm.source}, is {lm.kind}: {TASK_TYPES[lm.kind]}."
        )
    return adapter


def _soft_in(path: pathlib.Path, adapter: Adapter, lm: LanguageModel) -> torch.Tensor:
    """The soft tokens [P, E]; for an encoder-decoder PEFT keeps twice as many and uses the first
    half."""
    length = adapter.num_virtual_tokens
    submodules = adapter.num_transformer_submodules or (2 if lm.kind == "encoder-decoder" else 1)
    return _values(path, (length * submodules, lm.width))[:length]


def _prefix_in(path: pathlib.Path, adapter: Adapter, lm: LanguageModel) -> torch.Tensor:
    """The values of the prefix [P, w], in the order of the LM's layers."""
    sites = _sites(lm)
    heads, width = sites[0].heads, sites[0].heads * sites[0].size
    layers = adapter.num_layers or len(sites)
    submodules = 2 if lm.kind == "encoder-decoder" else 1
    if (
        adapter.num_attention_heads or heads,
        adapter.token_dim or width,
        adapter.num_transformer_submodules or submodules,
    ) != (heads, width, submodules) or (
        layers < len(sites) if submodules == 2 else layers != len(sites)
    ):
        raise StoreError(
            f"{path / CONFIG} is for an LM of {layers} layers with {adapter.num_attention_heads} "
            f"heads, {adapter.token_dim} values a key, and "
            f"this LM, {lm.source}, has {len(sites)} layers with {heads} heads, {width} values a "
            "key."
        )
    values = _values(path, (adapter.num_virtual_tokens, layers * 2 * width)).unflatten(
        1, (layers, -1)
    )
    return values[:, _taken(len(sites), layers) if submodules == 2 else slice(None)].flatten(1)


def _taken(sites: int, layers: int) -> list[int]:
    """Which of the saved layers PEFT gives each layer of a decoder.

    PEFT repeats the saved layers, so that a layer has one part for its own attention and one for
    the cross-attention, deals them out two by two, and then drops the second part: every second one
    goes lost, and from the middle on the first come again. A prefix that is to reach every layer
    therefore has twice as many, every second one empty.
    """
    return [2 * number % layers for number in range(sites)]


def _values(path: pathlib.Path, shape: tuple[int, int]) -> torch.Tensor:
    """The saved tensor in float32, its shape and values checked."""
    file = path / WEIGHTS
    if not file.exists() and (path / PICKLED).exists():
        raise StoreError(
            f"{path} holds pickled weights ({PICKLED}), which ptune never reads: save it again "
            f"with a newer PEFT, as {WEIGHTS}."
        )
    tensors = files.read_tensors(file)
    if others := sorted(set(tensors) - {TENSOR}):
        raise ConfigError(
            f"{file} holds more than a prompt: "
            f"{', '.join(others[:4])}{', ...' if len(others) > 4 else ''}."
        )
    values = tensors.get(TENSOR)
    if (
        values is None
        or tuple(values.shape) != shape
        or values.dtype not in (torch.float32, torch.bfloat16, torch.float16)
    ):
        shown = "nothing" if values is None else f"{values.dtype} {list(values.shape)}"
        raise StoreError(
            f"{file} should hold {TENSOR} of {list(shape)}, as {CONFIG} and this LM have it, and "
            f"holds {shown}."
        )
    if not torch.isfinite(values).all():
        raise StoreError(f"{file} holds values that are not numbers.")
    return values.float()
