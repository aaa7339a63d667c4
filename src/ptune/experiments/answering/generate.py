"""``ptune generate``: saved prompts write texts for rows."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ptune.answers.ensemble import most_said
from ptune.base import terminal
from ptune.experiments.answering.answer_checks import check_out, check_ray, run_of
from ptune.experiments.answering.saved_model import decoding_of, load_model
from ptune.experiments.answering.streams.answer_batches import Answering
from ptune.experiments.answering.streams.stream import answer_all, workers_of
from ptune.experiments.cluster.ray_cluster import RayOptions
from ptune.experiments.options import GenerateConfig
from ptune.model.prompt_model import Example
from ptune.model.running.generate import write_all
from ptune.settings import part_of


def generate(config: GenerateConfig, report: Callable[[str], None] = terminal.print_line) -> None:
    """Write text for rows of any users, mixed in batches, and put them out in their order. Where
    several texts are asked for, an ensemble gives those of all its members."""
    ray = part_of(RayOptions, config)
    check_out(run_of(config, "ptune generate"))
    check_ray(ray, config.out)
    answer_all(
        _generating(config),
        report,
        workers_of(ray, config.model_dump(mode="json"), _generating_apart),
    )


def _generating(config: GenerateConfig) -> Answering:
    """What answers rows by written texts."""
    model = load_model(config.prompt, config.lm, config.device, config.dtype)
    decoding = decoding_of(model, config.decoding)

    def texts(batch: list[list[Example]]) -> Iterator[dict[str, Any]]:
        outputs = iter(
            write_all(model, [example for examples in batch for example in examples], decoding)
        )
        for examples in batch:
            by_member = [next(outputs) for _ in examples]
            if decoding.texts == 1:
                yield {"text": most_said([texts_of_member[0] for texts_of_member in by_member])}
            else:
                yield {"texts": [text for texts_of_member in by_member for text in texts_of_member]}

    room, most = decoding.max_new_tokens, decoding.rows
    run, repeats = run_of(config, "ptune generate"), not decoding.sample
    parts = ("text",) if decoding.texts == 1 else ("texts",)
    return Answering(run, model, texts, room=room, most=most, repeats=repeats, parts=parts)


def _generating_apart(options: Mapping[str, Any]) -> Answering:
    return _generating(GenerateConfig(**options))
