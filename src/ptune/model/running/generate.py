"""Text written by the frozen LM, for rows of any tasks in one batch: transformers' own decoding,
its caches included."""

import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ptune.answers.ensemble import most_said
from ptune.base.seeding import seeded
from ptune.data.row import FileRow
from ptune.errors import ConfigError
from ptune.lm.batch import Side
from ptune.lm.writing.draws import Draws, Key
from ptune.lm.writing.live_writing import OnTokens, write_step_by_step
from ptune.model.rows.examples import Example
from ptune.model.running.forward import prompt_vectors
from ptune.model.task import Row
from ptune.settings import DecodingConfig

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel
    from ptune.model.rows.encode_rows import TaskChoice


def generate(
    model: "PromptModel",
    rows: Sequence[Row],
    tasks: "TaskChoice" = None,
    config: DecodingConfig | None = None,
) -> list[Any]:
    """The texts that the LM writes for rows of any tasks, mixed in batches.

    Args:
        tasks: the name or number of the task of all rows, or a sequence with one for each row.
            Without it a row goes to the prompt that its ``prompt_by`` field names, or to all tasks,
            of whose texts the most frequent is taken.
        config: how the LM writes; by default as each row's task says.

    Returns:
        A text for each row; where several texts a row are asked for, a list of texts for each row.

    Raises:
        TemplateError, DataError: a row does not fit its task; its number is told.
        ConfigError: there is no such task, it has labels, or the settings cannot be.
    """
    examples = model.encode_mixed(rows, tasks, room=config.max_new_tokens if config else None)
    flat = [example for examples_of_row in examples for example in examples_of_row]
    settings = [config or model.tasks[example.task].task.decoding for example in flat]
    keys = draw_keys(flat, [setting.seed for setting in settings])
    texts: list[list[str]] = [[] for _ in flat]
    for setting in dict.fromkeys(settings):
        members = [number for number, other in enumerate(settings) if other == setting]
        written = write_all(
            model, [flat[member] for member in members], setting, keys=[keys[m] for m in members]
        )
        for number, texts_of_member in zip(members, written):
            texts[number] = texts_of_member
    by_row, following = [], iter(zip(texts, settings))
    for examples_of_row in examples:
        answers = [next(following) for _ in examples_of_row]
        several = answers[0][1].texts > 1
        by_row.append(
            [text for written, _ in answers for text in written]
            if several
            else most_said([written[0] for written, _ in answers])
        )
    return by_row


def write(
    model: "PromptModel",
    examples: Sequence[Example],
    config: DecodingConfig,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[str]:
    """The same for examples of any tasks, mixed; the first text of each row where several are asked
    for (``write_all``)."""
    return [texts[0] for texts in write_all(model, examples, config, advance)]


@torch.no_grad()
def write_all(
    model: "PromptModel",
    examples: Sequence[Example],
    config: DecodingConfig,
    advance: Callable[[int], None] = lambda rows: None,
    *,
    keys: Sequence[Key] | None = None,
) -> list[list[str]]:
    """For each example as many texts as the settings ask for. Rows of like length share a batch,
    which changes no text, of those that are drawn neither; the LM's dropout is off.

    Args:
        advance: is told how many rows are done, batch by batch.
        keys: what decides the draws of each example; by default ``draw_keys``.
    """
    for number in {example.task for example in examples}:
        if model.tasks[number].verbalizer is not None:
            raise ConfigError(
                f"{model.tasks[number].task.name} has labels to choose from, so no text is "
                "written for it: predict its rows."
            )
    for example in examples:
        model.lm.check_room(example.fills[0], config.max_new_tokens)
    settings = _settings(model, config)
    texts: list[list[str]] = [[] for _ in examples]
    learned = prompt_vectors(model, [example.task for example in examples])
    keys = keys or draw_keys(examples, [config.seed] * len(examples))
    alone = config.sample and config.beams > 1  # whose draws transformers makes itself
    with model.lm.evaluating():
        for batch in written_together(model, examples, 1 if alone else config.rows):
            rows = [examples[i].fills[0] for i in batch]
            prompts = [learned.places.get(model.tasks[examples[i].task].prompt, -1) for i in batch]
            collated = model.lm.collate(
                rows, prompts, "left" if model.lm.kind == "causal" else "right"
            )
            with _drawing(model, config, [keys[i] for i in batch]) as draws:
                ids = model.lm.write(
                    collated,
                    learned.vectors,
                    learned.prefixes,
                    copies=config.copies,
                    draws=draws,
                    **settings,
                )
            written = collated.decoder.shape[1] if collated.decoder is not None else 0
            by_row = ids[:, written:].unflatten(0, (len(batch), -1)).tolist()
            for number, answers in zip(batch, by_row):
                texts[number] = [text_of(model, answer, config.stop) for answer in answers]
            advance(len(batch))
    return texts


@torch.no_grad()
def write_live(
    model: "PromptModel",
    examples: Sequence[Example],
    config: DecodingConfig,
    on_tokens: OnTokens,
    *,
    keys: Sequence[Key] | None = None,
) -> None:
    """Write one text for each example, all in one call of the LM, and hand out each step's tokens.

    Args:
        examples: rows that may share a call (``written_together``).
        config: how the LM writes; without beams. Where a text ends before its stop strings is for
            ``on_tokens`` to see.
        on_tokens: gets the next token of each example, padding where one has ended, and says which
            go on; the writing ends when none does.
        keys: what decides the draws of each example; by default ``draw_keys``.
    """
    settings = _settings(model, config.model_copy(update={"stop": ()}))
    learned = prompt_vectors(model, [example.task for example in examples])
    prompts = [learned.places.get(model.tasks[example.task].prompt, -1) for example in examples]
    side: Side = "left" if model.lm.kind == "causal" else "right"
    batch = model.lm.collate([example.fills[0] for example in examples], prompts, side)
    keys = keys or draw_keys(examples, [config.seed] * len(examples))
    with model.lm.evaluating(), _drawing(model, config, keys) as draws:
        write_step_by_step(
            model.lm,
            batch,
            learned.vectors,
            learned.prefixes,
            on_tokens=on_tokens,
            settings=settings,
            draws=draws,
        )


def draw_keys(examples: Sequence[Example], seeds: Sequence[int]) -> list[Key]:
    """For each example what decides its draws: its seed, the line of its row in its file or else
    the number of its row, and which of the row's prompts asks it."""
    keys: list[Key] = []
    number = member = 0
    previous: Row | None = None
    for example, seed in zip(examples, seeds):
        number, member = (number, member + 1) if example.row is previous else (number + 1, 0)
        previous = example.row
        line = example.row.line if isinstance(example.row, FileRow) else 0
        keys.append((seed, line or number, member))
    return keys


@contextlib.contextmanager
def _drawing(
    model: "PromptModel", config: DecodingConfig, keys: Sequence[Key]
) -> Iterator[Draws | None]:
    """What chooses the tokens where they are drawn. With beams transformers draws itself, for one
    row alone, by torch's global generator, which the row's key seeds meanwhile; it is asked for
    several texts of a row too, where nothing is left to be drawn."""
    if not config.sample:
        yield None
    elif config.copies == 1:
        yield _draws(config, keys)
    else:
        with seeded(random.Random(repr(keys[0])).randrange(2**63), model.lm.device):
            yield None if config.beams > 1 else _draws(config, keys)


def _draws(config: DecodingConfig, keys: Sequence[Key]) -> Draws:
    return Draws.of(
        keys,
        temperature=config.temperature,
        top_k=config.top_k,
        top_p=config.top_p,
        copies=config.copies,
    )


def written_together(
    model: "PromptModel", examples: Sequence[Example], limit: int
) -> Iterator[list[int]]:
    """The numbers of the examples that are written for in one call: of like length, and of equal
    length where padding would show."""

    def shape(number: int) -> tuple[int, ...]:
        row = examples[number].fills[0]
        if row.decoder is not None:
            return (len(row.decoder),)
        side = model.lm.side(row)
        return (side,) if model.lm.pads_left else (side, len(row.ids), len(row.prefix))

    limit = limit if model.lm.writes_together else 1
    for _, same in itertools.groupby(
        sorted(range(len(examples)), key=lambda i: (shape(i), examples[i].length)), shape
    ):
        numbers = list(same)
        for start in range(0, len(numbers), limit):
            yield numbers[start : start + limit]


def text_of(model: "PromptModel", ids: list[int], stops: Sequence[str]) -> str:
    """The text before the end token and before the first stop string."""
    end = next((number for number, token in enumerate(ids) if token in model.lm.ends), len(ids))
    ids = ids[:end]
    text = model.lm.tokens.tokenizer.decode(ids, skip_special_tokens=True)
    return min((text.split(stop)[0] for stop in stops), key=len, default=text).strip()


def _settings(model: "PromptModel", config: DecodingConfig) -> dict[str, Any]:
    """The settings as transformers' ``GenerationConfig`` names them."""
    tokens = model.lm.tokens
    banned: list[list[int]] = []
    for word in config.banned:
        banned += filter(None, (tokens.plain(word), tokens.follow(f" {word}")))
    settings: dict[str, Any] = {
        "max_new_tokens": config.max_new_tokens,
        "min_new_tokens": config.min_new_tokens or None,
        "num_beams": config.beams,
        "do_sample": config.sample and config.copies > 1,
        "num_return_sequences": config.texts,
        "length_penalty": config.length_penalty if config.beams > 1 else None,
        "no_repeat_ngram_size": config.no_repeat_ngram or None,
        "bad_words_ids": banned or None,
        "eos_token_id": model.lm.ends,
        "pad_token_id": tokens.pad,
        "stop_strings": list(config.stop) or None,
        "use_cache": True,
    }
    if config.sample and config.beams > 1:
        settings |= {
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
        }
    elif settings["do_sample"]:  # `Draws` leaves one token
        settings |= {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
    return {name: value for name, value in settings.items() if value is not None}
