"""Which engine runs the LM."""

import logging

from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.paged_writing import refusal
from ptune.serving.engines.batch_engine import BatchEngine
from ptune.serving.options import ServeConfig

log = logging.getLogger("ptune.serving")


def engine_for(lm: LanguageModel, config: ServeConfig) -> BatchEngine:
    """The engine that is asked for; with auto the best for this LM and device.

    Raises:
        ConfigError: the LM cannot be run so, with the reason.
    """
    name = config.engine
    if name == "auto":
        name = "continuous" if lm.device.type == "cuda" and not refusal(lm) else "batch"
    log.info("The engine is %s.", name)
    if name == "vllm":
        from ptune.serving.engines.vllm_engine import VllmEngine

        url, folder = config.vllm_url, config.vllm_prefixes
        return VllmEngine(lm, config.batch_tokens, config.rows, url, folder)
    if name == "continuous":
        from ptune.serving.engines.continuous_engine import ContinuousEngine

        return ContinuousEngine(lm, config.batch_tokens, config.rows)
    return BatchEngine(lm, config.batch_tokens)
