"""Prompts in other libraries' forms: PEFT's adapter folders, and the .npy files of Google's Prompt
Tuning."""

import itertools
from collections.abc import Callable

from ptune.base import terminal
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.prompts import encoders
from ptune.runs import identity
from ptune.runs.folder import check_is_folder, working_in
from ptune.storage import google_format, peft_format, prompt_folder
from ptune.storage.options import ExportConfig, ImportConfig
from ptune.template.language import Template
from ptune.template.parts import Text
from ptune.template.tokenizer import Tokens


def export(config: ExportConfig, report: Callable[[str], None] = terminal.print_line) -> None:
    """Write a saved prompt in another form.

    Raises:
        ConfigError: that form cannot say what the prompt says, with the reason.
        StoreError: the prompt is damaged, or the place cannot be written.
    """
    if config.to != "google":
        check_is_folder(config.out)
    lm = LanguageModel.load(config.lm, device="cpu") if config.lm is not None else None
    model = prompt_folder.load(config.prompt, lm, device="cpu")
    if config.to != "google":
        is_cartridge = config.to == "cartridge"
        peft_format.check(model, cartridge=is_cartridge)
        with working_in(config.out, "ptune export", adds=True) as folder:
            folder.claim(
                {
                    "prompt": [
                        identity.of_file(config.prompt / name)
                        for name in ("prompt.json", "prompt.safetensors")
                    ]
                }
            )
            peft_format.export(model, config.out, cartridge=is_cartridge)
    else:
        if config.out.exists():
            raise ConfigError(
                f"{config.out} is there already, and would be overwritten: choose another place."
            )
        template, tokens = model.tasks[0].template, model.lm.tokens
        if template.visibility:
            raise ConfigError(
                f"{template.source!r} hides tokens from others (visibility), which Google's form "
                "does not say."
            )
        if not template.prompt_length(tokens) or template.prefixes(tokens):
            raise ConfigError(
                f"{template.source!r} has "
                f"{'a deep prefix' if template.prefixes(tokens) else 'no soft tokens'}, and "
                "Google's form holds soft "
                f"tokens alone."
            )
        if not _are_in_front(template, tokens):
            raise ConfigError(
                f"{template.source!r} has soft tokens behind something else, or one of them twice, "
                "and Google's form has each of them once, in front of everything else."
            )
        google_format.write(config.out, encoders.bake(model.bank.encoders[model.tasks[0].prompt]))
    report(f"Written to {config.out}")
    if config.to == "peft":
        report(peft_format.ABOUT_GENERATE)


def _are_in_front(template: Template, tokens: Tokens) -> bool:
    """Whether the soft tokens stand before all else, each once and in their order."""
    slots = [
        slots or ()
        for part, slots in zip(template.parts, template.slots(tokens))
        if not (isinstance(part, Text) and not part.text.strip(" "))
    ]
    in_front = [*itertools.chain(*itertools.takewhile(bool, slots))]
    anywhere = [number for numbers in slots for number in numbers]
    return in_front == anywhere == list(range(template.prompt_length(tokens)))


def import_prompt(
    config: ImportConfig, report: Callable[[str], None] = terminal.print_line
) -> None:
    """Make a prompt folder of another library's prompt.

    Raises:
        ConfigError, StoreError: it cannot be read, or does not fit the LM.
    """
    check_is_folder(config.out)
    lm = LanguageModel.load(config.lm, device="cpu")
    if config.source.suffix == ".npy":
        vectors = google_format.read(config.source)
        if vectors.shape[1] != lm.width:
            raise ConfigError(
                f"The prompt in {config.source} is {vectors.shape[1]} wide, and the embeddings of "
                f"{config.lm} are {lm.width} wide: it belongs "
                f"to another LM."
            )
        model = PromptModel(lm)
        task = Task(
            config.name,
            Template.parse(f"{{soft:{len(vectors)}}}{config.template}"),
            verbalizer=None,
            target=config.target,
            encoder="table",
        )
        model.add(task, encoder=encoders.Baked(vectors))
    else:
        model = peft_format.load(
            config.source, lm, config.template, name=config.name, target=config.target
        )
        if note := peft_format.other_lm(config.source, lm):
            report(note)
    prompt_folder.check_values(config.source, model.bank.state_dict().values())
    settings = {"template": config.template, "name": config.name, "target": config.target}
    with working_in(config.out, "ptune import", adds=True) as folder:
        folder.claim(
            {"source": identity.of_file(config.source), "lm": identity.of_lm(lm), **settings}
        )
        prompt_folder.save(model, config.out)
    report(f"{model.tasks[0].template.source!r}, saved in {config.out}")
