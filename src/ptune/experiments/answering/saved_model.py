"""The prompts of a folder on their LM, and how they write."""

import pathlib

from pydantic import ValidationError

from ptune.errors import ConfigError, reason
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel
from ptune.settings import (
    DecodingConfig,
    DecodingOverrides,
    Device,
    Dtype,
)
from ptune.storage import prompt_folder


def load_model(
    prompt: pathlib.Path, lm_name: str | None, device: Device, dtype: Dtype
) -> PromptModel:
    """The prompts of a folder, on the LM that is named, or on theirs."""
    lm = LanguageModel.load(lm_name, device=device, dtype=dtype) if lm_name is not None else None
    return prompt_folder.load(prompt_folder.folders_in(prompt), lm, device=device, dtype=dtype)


def decoding_of(model: PromptModel, given: DecodingOverrides) -> DecodingConfig:
    """The task's own settings, with those that are given in their place.

    Raises:
        ConfigError: they do not go together, or one that is given is not read beside the others.
    """
    try:
        decoding = DecodingConfig.model_validate(
            {
                **model.tasks[0].task.decoding.model_dump(),
                **given.model_dump(exclude_none=True),
            }
        )
    except ValidationError as error:
        raise ConfigError(f"--decoding: {reason(error.errors()[0])}.") from error
    if given.length_penalty not in (None, 1.0) and decoding.beams == 1:
        raise ConfigError(
            "--decoding: length_penalty is of a search with beams: set beams to 2 or more, or "
            "leave it out."
        )
    return decoding
