"""Text that an LM writes for the rows of a batch, by transformers' own ``generate`` and its
caches."""

import copy
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.generation.streamers import BaseStreamer

from ptune.errors import ModelError
from ptune.lm.batch import Batch, Side
from ptune.lm.patches.text_cache import Context
from ptune.lm.source.loading import first_line
from ptune.lm.trials.capabilities import Capability
from ptune.lm.trials.trial import FAILURES, Trial, close
from ptune.lm.writing.draws import Draws
from ptune.lm.writing.read_ahead import read_ahead
from ptune.prompts.bank import PrefixBatch
from ptune.template.language import EncodedRow

if TYPE_CHECKING:
    from ptune.lm.language_model import LanguageModel


@torch.no_grad()
def write(
    lm: "LanguageModel",
    batch: Batch,
    vectors: torch.Tensor | None,
    prefixes: PrefixBatch | None,
    *,
    copies: int,
    settings: dict[str, Any],
    draws: Draws | None = None,
    streamer: BaseStreamer | None = None,
    cache: DynamicCache | None = None,
) -> Any:
    """Let an LM continue the rows of a batch; arguments as in ``LanguageModel.write``.

    Args:
        draws: choose the tokens, where they are drawn.
        streamer: gets the tokens of each step.
        cache: of a causal LM, what is there of the rows' keys and values; it is added to.

    Returns:
        New token ids [B, T'], or what else ``generate`` returns with these settings.

    Raises:
        ModelError: padding would change what is written, or transformers cannot continue from
            embeddings here.
    """
    check_batch(lm, batch, copies)
    batch = batch.to(lm.device)
    options: dict[str, Any] = {}
    if "stop_strings" in settings:
        options["tokenizer"] = lm.tokens.tokenizer
    if draws is not None:
        options["logits_processor"] = [draws]
    if streamer is not None:
        options["streamer"] = streamer
    inputs: dict[str, Any] = {
        "attention_mask": batch.attention,
        "inputs_embeds": lm.forward.embed_batch(batch, vectors),
    }
    if lm.forward.offset is not None:
        inputs["position_ids"] = lm.forward.positions(batch)
    if lm.kind == "encoder-decoder":
        settings = settings | {"decoder_start_token_id": lm.start}
        with lm.prefixed(batch, prefixes, groups=("encoder",)):
            encoded = lm.model.get_encoder()(**inputs)
        inputs = {
            "attention_mask": batch.attention,
            "encoder_outputs": encoded,
            "decoder_input_ids": batch.decoder,
        }
    elif cache is None and copies == 1:
        cache = read_ahead(lm, batch, vectors, prefixes)
    if batch.visibility is not None and lm.kind == "causal" and cache is None:
        cache = DynamicCache()  # that of a sliding window drops keys, and the rest lose their place
    if cache is not None:
        inputs[lm.forward.cache_name] = cache
    inputs["generation_config"] = GenerationConfig(**settings)
    with (
        lm.length_switches.lock,
        lm.prefixed(batch, prefixes, copies, ("self", "decoder", "cross")),
        lm.forward.filled_decoder(batch, vectors),
        warnings.catch_warnings(),
    ):
        # ngrams are meant to be unlike each other within the new text alone
        warnings.filterwarnings(
            "ignore", message="Passing `no_repeat_ngram_size` with `inputs_embeds`"
        )
        return generate(lm.model, **inputs, **options)


@torch.no_grad()
def write_behind(
    lm: "LanguageModel",
    before: Sequence[int],
    rows: Sequence[Sequence[int]],
    *,
    values: torch.Tensor | None,
    settings: dict[str, Any],
) -> list[list[int]]:
    """Let a causal LM continue rows that stand behind one text; arguments as in
    ``LanguageModel.write_behind``."""
    values = (lm.context_values(tuple(before)) if values is None else values)[:, :, None]
    settings = settings | {"eos_token_id": lm.ends, "pad_token_id": lm.tokens.pad}
    written: dict[int, list[int]] = {}
    with lm.length_switches.lock, lm.evaluating():
        for numbers in _of_equal_length(rows, 16 if lm.writes_together else 1):
            context = Context(
                values.expand(-1, -1, len(numbers), -1, -1, -1),
                torch.full((len(numbers),), len(before), device=lm.device),
            )
            ids = torch.tensor([[*before, *rows[n]] for n in numbers], device=lm.device)
            output = generate(
                lm.model,
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=GenerationConfig(use_cache=True, **settings),
                **{lm.forward.cache_name: context.cache()},
            )
            for number, row in zip(numbers, output[:, ids.shape[1] :].tolist()):
                written[number] = list(itertools.takewhile(lambda token: token not in lm.ends, row))
    return [written[number] for number in range(len(rows))]


def _of_equal_length(rows: Sequence[Sequence[int]], most: int) -> Iterator[list[int]]:
    """The numbers of rows that are written for in one call: so many at most, without padding, which
    would stand between the text and a row and count in the window of an LM that has one."""
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for _, alike in itertools.groupby(order, lambda number: len(rows[number])):
        numbers = list(alike)
        for start in range(0, len(numbers), most):
            yield numbers[start : start + most]


def check_batch(lm: "LanguageModel", batch: Batch, copies: int) -> None:
    """Refuse a batch for whose rows this LM cannot write in one call.

    Raises:
        ModelError: padding, or other rows, would change what is written for a row.
    """
    name = type(lm.model).__name__
    if lm.kind == "causal" and not lm.pads_left and not batch.attention.all():
        raise ModelError(
            f"{name} answers differently when a row is padded on the left: let it write for rows "
            "of equal length."
        )
    if len(batch.prompts) * copies > 1 and not lm.writes_together:
        raise ModelError(
            f"{name} mixes up rows that it writes for at once: let it write one text for one row."
        )
    if batch.decoder_attention is not None and not batch.decoder_attention.all():
        raise ModelError(
            "The decoder's inputs are of different lengths, and it would go on behind their "
            "padding: let it write for equal ones."
        )
    lm.check_lengths(batch)


def try_writing(lm: "LanguageModel", trial: Trial) -> Capability:
    """Whether an LM can write text, for rows of equal length in one call as for each alone."""
    if lm.kind == "masked":
        return Capability(False, "a masked LM writes no text")
    rows = _trial_rows(lm, trial)
    try:
        together = _first_scores(lm, rows)
        alone = [_first_scores(lm, [row]) for row in rows]
    except (ModelError, *FAILURES) as error:
        return Capability(False, first_line(error))
    expected = torch.cat(alone, 1)
    # where the first tokens differ, the second ones belong to other texts
    same_first = torch.equal(together[0].argmax(-1), expected[0].argmax(-1))
    same = close(together[0], expected[0]) and (not same_first or close(together[1], expected[1]))
    return Capability(
        same,
        "" if same else "it mixes up rows that it writes for at once, so each is written for alone",
    )


def _trial_rows(lm: "LanguageModel", trial: Trial) -> list[EncodedRow]:
    """Two rows of equal length."""
    ids = trial.rows.ids[0].tolist()
    half = len(ids) // 2
    decoder = (lm.start,) if lm.kind == "encoder-decoder" else None
    return [
        EncodedRow(
            ids=tuple(text),
            soft_slots=(-1,) * half,
            types=None,
            answer_positions=(0,),
            decoder=decoder,
        )
        for text in (ids[:half], ids[half : 2 * half])
    ]


def _first_scores(lm: "LanguageModel", rows: list[EncodedRow]) -> torch.Tensor:
    """The scores of the first two tokens that are written: [2, B, V]."""
    side: Side = "left" if lm.kind == "causal" and lm.pads_left else "right"
    written: Any = lm.write(
        lm.collate(rows, [-1] * len(rows), side),
        max_new_tokens=2,
        pad_token_id=lm.tokens.pad,
        use_cache=True,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(written.logits)


def generate(model: PreTrainedModel, **arguments: Any) -> Any:
    """What transformers' ``generate`` gives, without the LM's own decoding defaults.

    Raises:
        ModelError: it does not let this LM write so.
    """
    try:
        return _without_defaults(model).generate(**arguments)
    except (LookupError, TypeError, ValueError) as error:
        raise ModelError(
            f"transformers does not let {type(model).__name__} write so: {first_line(error)}"
        ) from error


def _without_defaults(model: PreTrainedModel) -> PreTrainedModel:
    """A view of the same network without its own decoding defaults (forced tokens, penalties);
    other threads see none of it."""
    view = copy.copy(model)
    view.generation_config = GenerationConfig()
    return view
