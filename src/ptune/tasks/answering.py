"""Saved prompts at work: scored on rows, or answering them one batch after the other."""
import io
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from pydantic import ValidationError

from ptune import saving, store, terminal
from ptune.config import DecodingConfig, EvaluateConfig, GenerateConfig, PredictConfig
from ptune.data import iterate_rows, row_of
from ptune.ensemble import most_said
from ptune.errors import ConfigError, DataError, PtuneError, reason
from ptune.generate import write_all
from ptune.lm import LanguageModel
from ptune.model import Example, PromptModel
from ptune.tasks import labelled, written
from ptune.tasks.rows import rows_of

ANSWERS_AT_ONCE = 64


def evaluate(config: EvaluateConfig, say: Callable[[str], None] = terminal.say) -> dict[str, float]:
    """Score a saved prompt (or the prompts of many users) on rows with right answers."""
    model = _model(config)
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    rows = rows_of(config.data, config.form, skipped)
    if model.tasks[0].verbalizer is None:
        judged = written.judge(model, rows, _decoding(config, model), config.metrics, config.parts)
        figures = judged.figures
        for name, own in judged.parts.items():
            say(f"{name}: " + ", ".join(f"{metric} {value:.4g}" for metric, value in own.items()))
        skipped = [*(skipped or []), *(f"{name}: {reason}" for name, reason in judged.left_out.items())]
    else:
        figures = labelled.judge(model, rows, config.metrics)
    for message in skipped or ():
        say(f"Skipped: {message}")
    say(", ".join(f"{name} {value:.4f}" for name, value in figures.items()) + f" on {len(rows)} rows")
    return {**figures, "rows": float(len(rows))}


def predict(config: PredictConfig, say: Callable[[str], None] = terminal.say) -> None:
    """Answer rows, as many at once as share a batch: JSON lines out, in the order of the rows."""
    model = _model(config)

    def answers(batch: list[list[Example]]) -> Iterator[dict[str, Any]]:
        found = iter(model.scores([example for own in batch for example in own]))
        for own in batch:
            shares = labelled.together(model, own, [next(found) for _ in own]).tolist()
            best = sorted(zip(own[0].labels.labels, shares), key=lambda pair: -pair[1])
            yield {"prediction": best[0][0], "scores": {label: round(share, 6) for label, share in best[:config.top]}}

    _stream(config, model, answers, 0, ANSWERS_AT_ONCE, say)


def generate(config: GenerateConfig, say: Callable[[str], None] = terminal.say) -> None:
    """Write text for rows of any users, mixed in batches: JSON lines out, in the order of the rows."""
    model = _model(config)
    decoding = _decoding(config, model)

    def texts(batch: list[list[Example]]) -> Iterator[dict[str, Any]]:
        found = iter(write_all(model, [example for own in batch for example in own], decoding))
        for own in batch:
            written_texts = [next(found) for _ in own]
            yield {"text": most_said([texts[0] for texts in written_texts])} if decoding.texts == 1 else {"texts": written_texts[0]}

    _stream(config, model, texts, decoding.max_new_tokens, decoding.rows, say)


def _stream(config: PredictConfig | GenerateConfig, model: PromptModel, answer: Callable[[list[list[Example]]], Iterator[dict[str, Any]]], room: int, most: int,
            say: Callable[[str], None]) -> None:
    """Read rows, answer them in batches, and put out each with its answer."""
    skipped: list[str] | None = [] if config.skip_bad_lines else None
    rows = iterate_rows(config.data, skipped) if config.data else _standard_input(skipped)
    if config.out is None:
        _answer(model, rows, sys.stdout, answer, room, most, skipped)
    else:
        answers = io.StringIO()  # kept in memory, so that the file is whole or absent
        _answer(model, rows, answers, answer, room, most, skipped)
        store.write_text(config.out, answers.getvalue())
    for message in skipped or ():
        say(f"Skipped: {message}")


def _decoding(config: EvaluateConfig | GenerateConfig, model: PromptModel) -> DecodingConfig:
    """The task's own settings, with those that are given in their place."""
    try:
        return DecodingConfig.model_validate({**model.tasks[0].task.decoding.model_dump(), **config.decoding.model_dump(exclude_none=True)})
    except ValidationError as error:
        raise ConfigError(f"--decoding: {reason(error.errors()[0])}.") from error


def _model(config: EvaluateConfig | PredictConfig | GenerateConfig) -> PromptModel:
    lm = LanguageModel.load(config.lm, device=config.device, dtype=config.dtype) if config.lm else None
    return saving.load(saving.folders_in(config.prompt), lm, device=config.device, dtype=config.dtype)


def _standard_input(skipped: list[str] | None) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(sys.stdin, 1):
        if line.strip():
            try:
                yield row_of(line)
            except ValueError as error:
                if skipped is None:
                    raise DataError(f"standard input, line {number}: {error}") from error
                skipped.append(f"standard input, line {number}: {error}")


def _answer(model: PromptModel, rows: Iterator[dict[str, Any]], out: TextIO, answer: Callable[[list[list[Example]]], Iterator[dict[str, Any]]],
            room: int, most: int, skipped: list[str] | None) -> None:
    batch: list[list[Example]] = []

    def flush() -> None:
        for own, answered in zip(batch, answer(batch)):
            out.write(json.dumps({**own[0].row, **answered}, ensure_ascii=False) + "\n")
        out.flush()
        batch.clear()

    for number, row in enumerate(rows, 1):
        try:
            batch.append(model.encode_for(row, number, labelled=False, room=room))
        except PtuneError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
        if len(batch) == most:
            flush()
    if batch:
        flush()
