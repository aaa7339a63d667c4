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
    from ptune.serving.engines.continuous_engine import ContinuousEngine

    name = config.engine
    if name == "auto":
        name = "continuous" if lm.device.type == "cuda" and not refusal(lm) else "batch"
    log.info("The engine is %s.", name)
    if name == "continuous":
        return ContinuousEngine(lm, config.batch_tokens, config.rows)
    return BatchEngine(lm, config.batch_tokens)
