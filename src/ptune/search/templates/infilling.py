"""Templates that an LM writes (LM-BFF, Gao et al. 2021, section 5.2): it fills the gaps between a
row's text and its right word, so that what it writes is likely for all train rows at once. An
encoder-decoder with sentinels writes spans of any length; a masked LM fills runs of masks."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ptune.errors import ConfigError, PtuneError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import Row
from ptune.reports.search_results import CandidateScore, WrittenTemplate, WrittenTemplates
from ptune.search.common.running_search import RunningSearch
from ptune.search.common.token_scores import log_probs
from ptune.search.tokens.trigger import allowed_tokens, as_text
from ptune.template.language import EncodedRow, Soft, Template, Text
from ptune.template.parts import shown

SHAPES = 12  # combinations of lengths of the gaps that a masked LM fills at most
Ids = tuple[int, ...]
Beam = tuple[float, Ids]


def propose(search: RunningSearch, source: str, beams: int) -> list[CandidateScore]:
    """Templates that the LM writes into the gaps of a template, which its soft tokens mark; those
    of the highest likelihood first, the task's own before them.

    Args:
        beams: how many are kept at each step of the writing.

    Raises:
        ConfigError: the LM fills no gaps; or the budget is too small.
    """
    task, lm = search.task, search.task.lm
    _check(lm)
    gaps = _gaps(Template.parse(source), lm)
    allowed = torch.full((lm.words,), -torch.inf)
    allowed[allowed_tokens(search, whole_words=False).all] = 0.0
    if lm.kind == "masked":
        shapes = list(itertools.product(*(range(1, length + 1) for length in gaps)))[:SHAPES]
    else:
        shapes = [tuple(gaps)]
    least = _calls(task.train, beams, lm, shapes[0])
    reserved = search.reserved_for_last(CandidateScore(template=_shaped(source, (0,) * len(gaps))))
    if not search.budget.allows(least, reserved):
        raise ConfigError(
            f"--budget {search.budget.limit} is too small: to write one template takes {least} "
            f"rows, and the last scores {reserved}."
        )

    def write(number: int) -> WrittenTemplates:
        shape = shapes[number]
        if not search.budget.allows(_calls(task.train, beams, lm, shape), reserved):
            return WrittenTemplates(templates=[], calls=0)
        fill = fill_masks if lm.kind == "masked" else write_spans
        return fill(search, source, shape, beams=beams, allowed=allowed)

    def count(result: WrittenTemplates) -> None:
        search.budget.spent += result.calls

    parts = [[source, beams, shape] for shape in shapes]
    done = search.stage("written", parts, write, form=WrittenTemplates, on_result=count)
    written = sorted(
        (one for result in done for one in result.templates), key=lambda one: -one.log_prob
    )
    return [
        *(CandidateScore(template=text, source="manual") for text in task.patterns),
        *(CandidateScore(template=one.template, source="written by the LM") for one in written),
    ]


def _check(lm: LanguageModel) -> None:
    """Refuse an LM that fills no gaps.

    Raises:
        ConfigError: it is a causal one, or an encoder-decoder without sentinels.
    """
    if lm.kind == "causal":
        raise ConfigError(
            "A causal LM does not see the right word behind a gap, so it cannot fill one: take a "
            "masked LM or T5, or search --by gradient, paraphrase or mine."
        )
    if lm.kind == "encoder-decoder" and lm.tokens.sentinel is None:
        raise ConfigError(
            f"{type(lm.model).__name__} has no <extra_id_0> for a gap: take T5 or a masked LM."
        )


def _gaps(template: Template, lm: LanguageModel) -> list[int]:
    """How many tokens each gap may have."""
    return [length for length, _ in template.groups(lm.tokens)]


def _calls(rows: Sequence[Row], beams: int, lm: LanguageModel, shape: Sequence[int]) -> int:
    """How many rows the LM reads to fill gaps of these lengths, at most."""
    steps = sum(shape) + (len(shape) if lm.kind == "encoder-decoder" else 0)
    return len(rows) * (1 + beams * (steps - 1))


def _shaped(source: str, lengths: Sequence[int]) -> str:
    """A template whose runs of soft tokens have these lengths; none where that is 0."""
    left = iter(lengths)
    pieces = []
    for part in Template.parse(source).parts:
        if isinstance(part, Soft):
            length = next(left)
            pieces.append(f"{{soft:{length}}}" if length else "")
        elif isinstance(part, Text):
            pieces.append(part.text.replace("{", "{{").replace("}", "}}"))
        else:
            pieces.append(shown(part))
    return "".join(pieces)


def _rows(search: RunningSearch, template: Template) -> list[EncodedRow]:
    """The train rows with their right words in the place of the answer."""
    task, lm = search.task, search.task.lm
    encoded = []
    for row in task.train:
        word = task.answers_of(row)[0]
        answer = lm.tokens.words([word], template.place)[0]
        encoded.append(
            template.encode(row, lm.tokens, "masked", max_length=task.max_length, answer=answer)
        )
    return encoded


def _best(beams: Sequence[Beam], count: int) -> list[Beam]:
    return sorted(beams, key=lambda beam: (-beam[0], beam[1]))[:count]


def fill_masks(
    search: RunningSearch, source: str, shape: Sequence[int], *, beams: int, allowed: torch.Tensor
) -> WrittenTemplates:
    """Fill runs of masks from left to right by beam search."""
    lm = search.task.lm
    template = Template.parse(_shaped(source, shape))
    rows = _rows(search, template)
    mask = lm.tokens.mask
    assert mask is not None

    def rows_of(ids: Ids) -> list[EncodedRow]:
        return [masked_behind(row, ids, mask) for row in rows]

    current: list[Beam] = [(0.0, ())]
    calls = 0
    for _ in range(sum(shape)):
        calls += len(current) * len(rows)
        wide = _widened(lm, current, rows_of, allowed=allowed, beams=beams)
        current = _best(wide, beams)
    templates = [_written(template, ids, total, lm) for total, ids in current]
    return WrittenTemplates(templates=[one for one in templates if one], calls=calls)


def _widened(
    lm: LanguageModel,
    current: Sequence[Beam],
    rows_of: Callable[[Ids], Sequence[EncodedRow]],
    *,
    allowed: torch.Tensor,
    beams: int,
) -> list[Beam]:
    """The beams with one more token each: the log probability of a token is summed over the rows,
    and all beams share batches with all rows.

    Args:
        rows_of: the rows behind some tokens, read where the next one stands.
        allowed: 0 at the tokens that may be written, minus infinity at others [V].
        beams: how many extensions each has.
    """
    rows = [row for _, ids in current for row in rows_of(ids)]
    sums = log_probs(lm, rows).view(len(current), -1, len(allowed)).sum(1) + allowed
    values, tokens = sums.topk(min(len(allowed), beams), dim=1)
    wider: list[Beam] = []
    for (total, ids), of_beam, tokens_of_beam in zip(current, values.tolist(), tokens.tolist()):
        wider += [
            (total + value, (*ids, token))
            for value, token in zip(of_beam, tokens_of_beam)
            if value > -float("inf")
        ]
    return wider


def masked_behind(row: EncodedRow, ids: Ids, mask: int) -> EncodedRow:
    """A row with tokens at its first soft slots and masks at the others, read at the first of
    these."""
    pairs = list(zip(row.ids, row.soft_slots))
    whole = tuple(
        token if slot < 0 else ids[slot] if slot < len(ids) else mask for token, slot in pairs
    )
    place = next(n for n, (_, slot) in enumerate(pairs) if slot == len(ids))
    slots = (-1,) * len(whole)
    return replace(row, ids=whole, soft_slots=slots, answer_positions=(place,))


def _written(
    template: Template, ids: Ids, total: float, lm: LanguageModel
) -> WrittenTemplate | None:
    """The template with what was written; None where that is no text."""
    try:
        return WrittenTemplate(template=as_text(template, ids, lm.tokens), log_prob=total)
    except PtuneError:
        return None


@dataclass(frozen=True)
class _Spans:
    """What an encoder-decoder has written: for each gap its tokens, and in which it writes."""

    sentinels: Sequence[int]
    ids: Ids

    def lengths(self) -> list[int]:
        """How many tokens each gap has so far; one entry more than gaps where all are closed."""
        counts = [0]
        for token in self.ids:
            if token in self.sentinels:
                counts.append(0)
            else:
                counts[-1] += 1
        return counts


def write_spans(
    search: RunningSearch, source: str, shape: Sequence[int], *, beams: int, allowed: torch.Tensor
) -> WrittenTemplates:
    """Let the decoder write all gaps by beam search, each closed by the sentinel of the next."""
    lm = search.task.lm
    names = [f"<extra_id_{number}>" for number in range(len(shape) + 1)]
    sentinels = lm.tokens.tokenizer.convert_tokens_to_ids(names)
    rows = [with_sentinels(row, shape, sentinels) for row in _rows(search, Template.parse(source))]

    def rows_of(ids: Ids) -> list[EncodedRow]:
        decoder = (lm.start, sentinels[0], *ids)
        return [replace(row, decoder=decoder, answer_positions=(len(decoder) - 1,)) for row in rows]

    current: list[Beam] = [(0.0, ())]
    finished: list[Beam] = []
    calls = 0
    while current:
        calls += len(current) * len(rows)
        wide = _spans_widened(
            lm, current, rows_of, allowed=allowed, sentinels=sentinels, shape=shape, beams=beams
        )
        best = _best(list(wide), beams)
        finished += [
            beam for beam in best if len(_Spans(sentinels, beam[1]).lengths()) > len(shape)
        ]
        current = [beam for beam in best if beam not in finished]
    templates = []
    for total, ids in _best(finished, beams):
        lengths = _Spans(sentinels, ids).lengths()[: len(shape)]
        words = tuple(token for token in ids if token not in sentinels)
        template = Template.parse(_shaped(source, lengths))
        templates.append(_written(template, words, total, lm))
    return WrittenTemplates(templates=[one for one in templates if one], calls=calls)


def _spans_widened(
    lm: LanguageModel,
    current: Sequence[Beam],
    rows_of: Callable[[Ids], Sequence[EncodedRow]],
    *,
    allowed: torch.Tensor,
    sentinels: Sequence[int],
    shape: Sequence[int],
    beams: int,
) -> Iterator[Beam]:
    """The beams with one more token each, or with their gap closed, which a full one is."""
    rows = [row for _, ids in current for row in rows_of(ids)]
    sums = log_probs(lm, rows).view(len(current), -1, len(allowed)).sum(1)
    for (total, ids), of_beam in zip(current, sums):
        lengths = _Spans(sentinels, ids).lengths()
        gap = len(lengths) - 1
        closing = sentinels[gap + 1]
        yield total + float(of_beam[closing]), (*ids, closing)
        if lengths[-1] < shape[gap]:
            values, tokens = (of_beam + allowed).topk(min(len(allowed), beams))
            for value, token in zip(values.tolist(), tokens.tolist()):
                if value > -float("inf"):
                    yield total + value, (*ids, token)


def with_sentinels(row: EncodedRow, shape: Sequence[int], sentinels: Sequence[int]) -> EncodedRow:
    """An encoder's row with one sentinel for each run of soft slots."""
    starts = dict(zip(itertools.accumulate((0, *shape[:-1])), sentinels))
    ids = []
    for token, slot in zip(row.ids, row.soft_slots):
        if slot < 0:
            ids.append(token)
        elif slot in starts:
            ids.append(starts[slot])
    return replace(row, ids=tuple(ids), soft_slots=(-1,) * len(ids), types=None)
