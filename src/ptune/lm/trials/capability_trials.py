"""What an LM can do with prompts, tried when it is loaded: the route of its prefixes, packed rows,
kept contexts, gradients, and the lengths that it takes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ptune.errors import ModelError
from ptune.lm.patches.packing import Packing
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.lm.patches.prefixes.prefix_layer_inputs import LayerRoute
from ptune.lm.patches.text_cache import Contexts
from ptune.lm.source.loading import first_line
from ptune.lm.trials.capabilities import Capability
from ptune.lm.trials.trial import FAILURES, Route, Trial, close, one_row
from ptune.template.language import EncodedRow

if TYPE_CHECKING:
    from ptune.lm.language_model import LanguageModel

# tokens of a row that is tried on both sides of a length from which an LM may compute otherwise
LONGEST_TRIED = 256
# names in configs of the windows and chunks of attention
WINDOWS = (
    "sliding_window",
    "attention_chunk_size",
    "local_attention",
    "attention_window",
    "local_radius",
    "window_size",
)


def find_route(lm: "LanguageModel", trial: Trial) -> Route | str:
    """How deep prefixes enter this LM, or the reason why they do not."""
    if reason := _without_attention(lm.model.config.get_text_config()):
        return reason
    reasons = []

    def run() -> Any:
        return trial.run(one_row(trial.rows, 0))

    for make_route in (
        lambda: AttentionRoute(lm.model, run, lm.kind == "causal"),
        lambda: LayerRoute(lm.model, run),
    ):
        try:
            route: Route = make_route()
            trial.check_prefix(route)
            return route
        except (ModelError, *FAILURES) as error:
            reason = str(error) if isinstance(error, ModelError) else first_line(error)
            reasons.append(reason.rstrip("."))
    return "; ".join(reasons)


def try_packing(lm: "LanguageModel", trial: Trial, route: Route | str) -> Capability:
    """Whether the rows of a batch may run as one without padding."""
    if not lm.forward.gathers:
        return Capability(
            False, "the part before its vocabulary head hands over no answer positions"
        )
    if lm.forward.offset is None and lm.kind != "encoder-decoder":
        return Capability(False, "it takes no positions, which begin anew in every row")
    if not isinstance(route, AttentionRoute):
        return Capability(False, "it does not go through transformers' attention interface")
    packing = Packing(trial.rows.attention, lm.device)
    try:
        with torch.no_grad():
            padded = lm.forward.token_values(lm.forward.run(trial.rows))
            expected = padded if lm.kind == "encoder-decoder" else packing.pack(padded)
            packed = lm.forward.token_values(lm.forward.run(replace(trial.rows, packing=packing)))
            if not close(packed, expected):
                return Capability(False, "packed rows are answered otherwise")
    except (ModelError, *FAILURES) as error:
        return Capability(False, f"packed rows are not answered: {first_line(error)}")
    return Capability(True)


def try_contexts(lm: "LanguageModel", trial: Trial) -> Capability:
    """Whether a row is answered the same behind kept keys and values."""
    if lm.kind != "causal":
        return Capability(
            False, "the text before soft tokens sees them, and only a causal LM's does not"
        )
    if lm.forward.offset is None or not lm.forward.gathers or not lm.forward.cache_name:
        return Capability(False, "it takes no positions behind a cache")
    texts = [one_row(trial.rows, number).ids[0].tolist() for number in range(2)]
    rows = [
        EncodedRow(tuple(ids), (-1,) * len(ids), None, (len(ids) // 2 + number, len(ids) - 1))
        for number, ids in enumerate(texts)
    ]
    try:
        with torch.no_grad():
            parts = Contexts(lm.context_values, rows, 2**30).split(rows)
            assert parts is not None
            context, tails = parts
            apart = lm.read(lm.collate(tails, [-1, -1], context=context))
            if not close(apart.scores, lm.read(lm.collate(rows, [-1, -1])).scores):
                return Capability(False, "rows behind kept keys and values are answered otherwise")
    except (ModelError, *FAILURES) as error:
        return Capability(
            False, f"it keeps no keys and values that could be used again: {first_line(error)}"
        )
    return Capability(True)


def try_gradients(lm: "LanguageModel", trial: Trial, route: Route | str) -> Capability:
    """Whether soft tokens, and a prefix where it enters, get a gradient."""
    try:
        lost = parts_without_gradient(trial, lm.embed, None if isinstance(route, str) else route)
    except FAILURES as error:
        return Capability(False, first_line(error))
    if lost:
        parts = " and ".join(lost)
        return Capability(False, f"none comes back to {parts}, as from some quantised LMs")
    return Capability(True)


def try_visibility(trial: Trial, route: Route | str) -> Capability:
    """Whether tokens may be hidden from others."""
    if isinstance(route, str):
        return Capability(False, route)
    if not isinstance(route, AttentionRoute):
        return Capability(False, "it does not go through transformers' attention interface")
    try:
        reason = trial.leak(route)
    except (ModelError, *FAILURES) as error:
        reason = first_line(error)
    return Capability(not reason, reason)


def parts_without_gradient(
    trial: Trial, embed: Callable[[torch.Tensor], torch.Tensor] | None, route: Route | None
) -> list[str]:
    """Which get no gradient in a backward pass: soft tokens (tried where ``embed`` is given), and a
    prefix (where its route is)."""
    lost = []
    if embed is not None and not trial.soft_tokens_learn(embed):
        lost.append("soft tokens")
    if route is not None and not trial.prefix_learns(route):
        lost.append("a prefix")
    return lost


def position_limit(lm: "LanguageModel") -> int | None:
    """The most tokens for which the LM has positions, or None where its files set no limit."""
    limits = [lm.tokens.tokenizer.model_max_length]
    positions = getattr(lm.model.config.get_text_config(), "max_position_embeddings", None)
    if positions and positions > 0:
        limits.append(positions - (lm.forward.offset or 0))
    known = [limit for limit in limits if limit and limit < 10**6]
    return int(min(known)) if known else None


@torch.no_grad()
def length_limit(lm: "LanguageModel", trial: Trial) -> int | None:
    """The longest row up to which a short row is answered beside a long one as alone, tried on both
    sides of each length that the config names; None where no limit is known."""
    limit = lm.max_length
    for length in (*_window_lengths(lm.model.config.get_text_config()), *lm.switches):
        if length > LONGEST_TRIED or (limit is not None and length + 3 > limit):
            continue
        rows = _long_and_short_row(lm, trial, length)
        together = lm.read_rows(rows, [-1, -1]).scores
        alone = torch.cat([lm.read_rows([row], [-1]).scores for row in rows])
        if not close(together, alone):
            limit = length
    return limit


def _long_and_short_row(lm: "LanguageModel", trial: Trial, length: int) -> list[EncodedRow]:
    """A row a little longer than a length, and one of four tokens."""
    ids = trial.rows.ids[0].tolist()
    texts = [(ids * length)[:size] for size in (length + 3, 4)]
    rows = [EncodedRow(tuple(text), (-1,) * len(text), None, (len(text) - 1,)) for text in texts]
    if lm.kind == "encoder-decoder":
        rows = [replace(row, answer_positions=(0,), decoder=(lm.start,)) for row in rows]
    return rows


def _window_lengths(config: Any) -> list[int]:
    """The lengths from which an LM may compute otherwise: windows and chunks of attention."""
    return sorted(set(_whole_numbers([getattr(config, name, None) for name in WINDOWS])))


def _whole_numbers(values: list[Any]) -> Iterator[int]:
    """The positive whole numbers among values and in lists among them."""
    for value in values:
        if isinstance(value, list):
            yield from _whole_numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
            yield value


def _without_attention(config: Any) -> str:
    """Why an LM of this config has layers that keep no keys and values, or nothing."""
    kinds: set[str] = set()
    for name in ("layer_types", "layers_block_type"):
        kinds |= set(getattr(config, name, None) or ())
    others = sorted(kind for kind in kinds if "attention" not in kind or "linear" in kind)
    if others:
        return f"some of its layers ({', '.join(others)}) keep a state instead of keys and values"
    if getattr(config, "num_attention_heads", None):
        return ""
    return "its layers keep a state instead of keys and values"
