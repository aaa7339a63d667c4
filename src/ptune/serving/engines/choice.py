"""Which engine runs the LM."""

import logging
import pathlib

from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.paged_writing import refusal
from ptune.serving.engines.batch_engine import BatchEngine

log = logging.getLogger("ptune.serving")


def engine_for(
    lm: LanguageModel,
    name: str,
    *,
    rows: int,
    batch_tokens: int,
    vllm_url: str,
    vllm_prefixes: pathlib.Path | None,
) -> BatchEngine:
    """The engine that is asked for; with auto the best for this LM and device.

    Args:
        rows, batch_tokens: how many a batch has at most.
        vllm_url, vllm_prefixes: where vLLM's server is, and the folder of prefixes that it reads.

    Raises:
        ConfigError: the LM cannot be run so, with the reason.
    """
    if name == "auto":
        name = "continuous" if lm.device.type == "cuda" and not refusal(lm) else "batch"
    log.info("The engine is %s.", name)
    if name == "vllm":
        from ptune.serving.engines.vllm_engine import VllmEngine

        return VllmEngine(lm, batch_tokens, rows, url=vllm_url, folder=vllm_prefixes)
    if name == "continuous":
        from ptune.serving.engines.continuous_engine import ContinuousEngine

        return ContinuousEngine(lm, batch_tokens, rows)
    return BatchEngine(lm, batch_tokens)
