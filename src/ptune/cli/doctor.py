"""What is installed here, and what an LM can do with prompts: the first thing to look at when
something is slower or other than it should be."""

import importlib.metadata
import importlib.util
import platform

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ptune.cli.options import DoctorConfig
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import choose_device, choose_dtype
from ptune.model.check_task import WITHOUT_WORDS

PACKAGES = "ptune", "torch", "transformers", "tokenizers", "safetensors", "numpy"
OPTIONAL = {
    "gguf": ("LMs in .gguf files", "pip install 'ptune[gguf]'"),
    "accelerate": ("LMs in .gguf files", "pip install 'ptune[gguf]'"),
    "torchao": ("LMs quantised by torchao", "pip install torchao"),
    "bitsandbytes": ("LMs quantised by bitsandbytes", "pip install bitsandbytes"),
    "ray": ("sweeps and answers on a Ray cluster", "pip install 'ptune[ray]'"),
    "optuna": ("searches of ptune sweep", "pip install 'ptune[search]'"),
    "peft": ("the tests of exported prompts", "pip install peft"),
}


def doctor(config: DoctorConfig, console: Console | None = None) -> None:
    """Print versions, the device, optional packages, and the capabilities of an LM where one is
    named.

    Raises:
        ModelError: the LM cannot be loaded, or takes no prompts.
    """
    console = console or Console()
    console.print("System", style="bold")
    console.print(_versions(config))
    console.print("Optional packages", style="bold")
    console.print(_optional())
    if config.lm is None:
        console.print(Text("ptune doctor LM tries what an LM can do with prompts."))
    else:
        lm = LanguageModel.load(config.lm, device=config.device, dtype=config.dtype)
        console.print(Text(f"{config.lm}: {type(lm.model).__name__} ({lm.kind})", style="bold"))
        console.print(_capabilities(lm))


def _versions(config: DoctorConfig) -> Table:
    table = _table()
    table.add_row(
        "system",
        Text(f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
    )
    for package in PACKAGES:
        table.add_row(package, Text(_version(package) or "not installed"))
    device, threads = choose_device(config.device), torch.get_num_threads()
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{threads} thread{'s' if threads > 1 else ''}"
    )
    dtype = str(choose_dtype(config.dtype, device)).removeprefix("torch.")
    table.add_row("device", Text(f"{device} ({name}), in {dtype}"))
    return table


def _optional() -> Table:
    table = _table()
    for package, (use, command) in OPTIONAL.items():
        installed = _version(package)
        table.add_row(
            package,
            Text(installed or "not installed"),
            Text(f"for {use}" if installed else f"for {use}: {command}"),
        )
    return table


def _capabilities(lm: LanguageModel) -> Table:
    table = _table()
    table.add_row(
        "tokens", "", Text(f"{lm.max_length or 'any number'} in an input, of {lm.words} kinds")
    )
    if not lm.has_head:
        note = f"methods that read hidden states fit: {', '.join(WITHOUT_WORDS)}"
        table.add_row("vocabulary head", Text("no", style="yellow"), Text(note))
    for length in lm.switches:
        table.add_row(
            "length",
            "",
            Text(f"it computes otherwise from {length} tokens on; longer rows run apart"),
        )
    for name, capability in [*lm.capabilities.named(), ("visibility", lm.hides_tokens)]:
        table.add_row(
            name,
            Text("yes" if capability else "no", style="green" if capability else "yellow"),
            Text(capability.note),
        )
    return table


def _table() -> Table:
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(no_wrap=True)
    return table


def _version(package: str) -> str | None:
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
