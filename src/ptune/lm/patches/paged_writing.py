"""Greedy texts by transformers' continuous batching: a row may come while others are being written,
and leaves when its own text ends.

Continuous batching takes token ids and nothing else. So each learned vector of a prompt gets an id
beyond the vocabulary, a virtual token id: soft tokens take their place in the input where such ids
stand, and at those of a deep prefix the keys and values that the LM computes are replaced, before
they go into the paged cache. Ids are never used twice, so that the cache shares no block between
prompts.

All that is used of ``transformers.generation.continuous_batching`` stands in this file. It changes
from version to version: ``check_version`` refuses one that lacks a part, and
``tests/lm/test_paged_writing.py`` fails on one that is not in ``KNOWN``.
"""

import contextlib
import queue
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import GenerationConfig

from ptune.errors import ModelError
from ptune.lm.patches.prefixes.attention_route import AttentionRoute, set_attention
from ptune.lm.patches.prefixes.prefix_attention import EAGER, SDPA
from ptune.lm.source.loading import first_line
from ptune.lm.trials.trial import FAILURES, close, one_row
from ptune.prompts.bank import PrefixBatch
from ptune.template.encoding.encode import EncodedRow

if TYPE_CHECKING:
    from ptune.lm.language_model import LanguageModel

KNOWN = ("5.23", "5.24")
"""The versions of transformers on which this was tried."""
PARTS = {
    "ContinuousBatchingManager": (
        "_create_batch_processor",
        "add_request",
        "cancel_request",
        "switch_to_cb_friendly_attn",
    ),
    "ContinuousBatchProcessor": ("prepare_next_batch", "_generation_step", "update_batch"),
}
PAGE = 16  # tokens of a page; equal beginnings of rows are shared in whole pages
READ = 512  # tokens that a step reads at most: the masks of a step grow with it
LAST_ID = 2**31 - 2**20  # ids are 32-bit numbers


@dataclass(frozen=True)
class VirtualPrompt:
    """A prompt whose vectors have token ids.

    Attributes:
        first: the id of its first vector; those of the soft tokens come first.
        soft: its soft tokens [P, E]; P may be 0.
        deep: its deep prefix [Q, W]; Q may be 0.
    """

    first: int
    soft: torch.Tensor
    deep: torch.Tensor

    @property
    def first_deep(self) -> int:
        """The id of its first prefix vector."""
        return self.first + len(self.soft)

    @property
    def end(self) -> int:
        """The first id behind those of its vectors."""
        return self.first_deep + len(self.deep)

    def spell(self, row: EncodedRow) -> list[int]:
        """A row as token ids, with the virtual ones where its vectors stand."""
        ids = [id_ if slot < 0 else self.first + slot for id_, slot in zip(row.ids, row.soft_slots)]
        spelt: list[int] = []
        for position in range(len(ids) + 1):
            starts = enumerate(row.prefix)
            spelt += [self.first_deep + number for number, start in starts if start == position]
            spelt += ids[position : position + 1]
        return spelt


class PagedWriter:
    """Texts that are being written, one token of each in a step.

    Args:
        tokens: room in the cache, for rows and what is written behind them.
        rows: in a step at most.

    Raises:
        ModelError: this LM, or this version of transformers, cannot do it.
    """

    def __init__(self, lm: "LanguageModel", tokens: int, rows: int):
        check_version()
        self.lm, self.tokens, self.rows = lm, tokens, rows
        self.next_id = lm.forward.vocabulary_size
        self._prompts: dict[str, VirtualPrompt | None] = {}
        self._number = 0
        self._filled = _Filled(self)
        try:
            self._manager = self._make_manager()
        except (ImportError, *FAILURES) as error:
            raise ModelError(
                f"transformers has no continuous batching for {type(lm.model).__name__}: "
                f"{first_line(error)}"
            ) from error

    def _make_manager(self) -> Any:
        """Transformers' own manager, whose thread is never started: ``step`` does its work."""
        from transformers import ContinuousBatchingConfig
        from transformers.generation.continuous_batching import ContinuousBatchingManager

        model = self.lm.model
        before = model.config._attn_implementation
        if before in (EAGER, "eager"):
            raise ModelError(
                f"{type(model).__name__} computes attention by its eager function, which knows no "
                "paged cache"
            )
        generation = GenerationConfig(
            max_new_tokens=1,
            do_sample=False,
            eos_token_id=self.lm.ends,
            pad_token_id=self.lm.tokens.pad,
        )
        settings = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=-(-self.tokens // PAGE) + 1,
            max_batch_tokens=max(READ, self.rows),
            max_requests_per_batch=self.rows,
            max_blocks_per_request=0,
            use_async_batching=False,
            use_cuda_graph=False,
            auto_switch_to_flash=False,
        )
        try:
            # the masks are made for the function that ptune's calls
            set_attention(model, {SDPA: "sdpa"}.get(before, before))
            manager = ContinuousBatchingManager(model, generation, settings)
            self._processor = manager._create_batch_processor()
        finally:
            set_attention(model, before)
        return manager

    def __len__(self) -> int:
        """How many texts are being written."""
        return len(self._prompts)

    def virtual(
        self, vectors: torch.Tensor | None, prefixes: PrefixBatch | None
    ) -> VirtualPrompt | None:
        """Give ids to the vectors of a prompt, the only one in what is given; None where it has
        none.

        Raises:
            ModelError: its deep prefix cannot enter here.
        """
        device, dtype = self.lm.device, self.lm.dtype
        soft = torch.zeros(0, 0) if vectors is None else vectors[0]
        deep = torch.zeros(0, 0) if prefixes is None else prefixes.values[0]
        if not len(soft) and not len(deep):
            return None
        if len(deep) and (reason := self.lacks_prefixes):
            raise ModelError(reason)
        prompt = VirtualPrompt(self.next_id, soft.to(device, dtype), deep.to(device, dtype))
        self.next_id = prompt.end
        return prompt

    @property
    def lacks_prefixes(self) -> str:
        """Why deep prefixes cannot enter here; empty where they can."""
        name = type(self.lm.model).__name__
        if not self.lm.capabilities.prefix:
            return f"{name} takes no prefix: {self.lm.capabilities.prefix.note}"
        if not isinstance(self.lm.route, AttentionRoute):
            return f"a prefix stands in the layer inputs of {name}, not in its attention"
        if getattr(self.lm.model.config.get_text_config(), "sliding_window", None):
            return f"{name} has sliding windows, in which a prefix would go out of sight"
        return ""

    @property
    def has_ids(self) -> bool:
        """Whether there are ids left; where not, ``renew`` when no text is being written."""
        return self.next_id < LAST_ID

    def renew(self) -> None:
        """Forget all that the cache holds, and every virtual id."""
        self._prompts.clear()
        self._processor.fail_all_requests(RuntimeError("given up"))
        self._processor.reset()
        self._take_outputs()
        self._processor.cache.reset()
        self.next_id = self.lm.forward.vocabulary_size

    def add(self, row: EncodedRow, prompt: VirtualPrompt | None, most: int) -> str:
        """Let a row be continued from the next step on.

        Args:
            most: how many tokens to write.

        Returns:
            The name under which ``step`` gives its tokens.
        """
        name = str(self._number)
        self._number += 1
        ids = list(row.ids) if prompt is None else prompt.spell(row)
        self._manager.add_request(
            ids, name, max_new_tokens=most, streaming=True, eos_token_id=self.lm.ends
        )
        self._prompts[name] = prompt
        return name

    def cancel(self, name: str) -> None:
        """Write no more of a text."""
        if name in self._prompts:
            del self._prompts[name]
            self._manager.cancel_request(name)

    @torch.no_grad()
    def step(self) -> dict[str, int]:
        """Read a part of what is new, and write one token of each text that has been read.

        Returns:
            The new token of each text that got one.

        Raises:
            ModelError: a row failed.
        """
        processor = self._processor
        if processor.prepare_next_batch():
            processor._generation_step(self._filled)
            processor.update_batch()
        elif self._prompts:
            raise ModelError("Texts that have begun are not gone on with.")
        return self._take_outputs()

    def _take_outputs(self) -> dict[str, int]:
        tokens: dict[str, int] = {}
        with contextlib.suppress(queue.Empty):
            while True:
                output = self._manager.output_router.output_queue.get_nowait()
                if output.request_id not in self._prompts:
                    continue
                if output.error:
                    raise ModelError(f"A text could not be written: {output.error}")
                tokens[output.request_id] = output.generated_tokens[-1]
                if output.is_finished():
                    del self._prompts[output.request_id]
        return tokens

    def run(self, inputs: dict[str, Any]) -> Any:
        """Call the LM as transformers does in a step, with what virtual ids stand for in their
        places: soft tokens in the input, prefixes in attention. The rows run one behind the other.

        Args:
            inputs: of the model's ``forward``; ``input_ids`` [1, N].
        """
        # transformers would write it into the LM's config for the time of the call, where other
        # threads read it; the masks that come with a step say the same
        del inputs["is_causal"]
        ids, size = inputs.pop("input_ids"), self.lm.forward.vocabulary_size
        embeddings = self.lm.embed(torch.where(ids < size, ids, 0))
        columns, values = [], []
        for prompt in self._prompts_at(ids):
            soft = (ids[0] >= prompt.first) & (ids[0] < prompt.first_deep)
            if len(prompt.soft):
                embeddings[0, soft] = prompt.soft[ids[0, soft] - prompt.first]
            deep = ((ids[0] >= prompt.first_deep) & (ids[0] < prompt.end)).nonzero()[:, 0]
            if len(deep):
                columns.append(deep)
                values.append(prompt.deep[ids[0, deep] - prompt.first_deep])
        if not columns:
            return self.lm.model(**inputs, inputs_embeds=embeddings)
        with self._placing(torch.cat(values), torch.cat(columns)):
            return self.lm.model(**inputs, inputs_embeds=embeddings)

    @contextlib.contextmanager
    def _placing(self, vectors: torch.Tensor, columns: torch.Tensor) -> Iterator[None]:
        """While this is open, prefixes replace keys and values on their way into the cache.

        Args:
            vectors: of prefixes [n, W].
            columns: where each stands among the tokens of the step [n].
        """
        cache, route = self._processor.cache, self.lm.route
        assert isinstance(route, AttentionRoute)
        update = cache.update

        def place(
            key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            site = route.sites[layer_idx]
            of_site = vectors[:, site.start : site.end].to(key_states.dtype)
            keys, values = of_site.unflatten(-1, (2, site.heads, site.size)).permute(1, 2, 0, 3)
            return update(
                key_states.index_copy(2, columns, keys[None]),
                value_states.index_copy(2, columns, values[None]),
                layer_idx,
                kwargs,
            )

        cache.update = place
        try:
            yield
        finally:
            del cache.update

    def _prompts_at(self, ids: torch.Tensor) -> list[VirtualPrompt]:
        """The prompts of which there may be vectors among these ids."""
        if int(ids.max()) < self.lm.forward.vocabulary_size:
            return []
        return list({id(one): one for one in self._prompts.values() if one}.values())


class _Filled:
    """What transformers calls as the model in a step."""

    def __init__(self, writer: PagedWriter):
        self.writer = writer

    def __call__(self, **inputs: Any) -> Any:
        return self.writer.run(inputs)

    def _supports_logits_to_keep(self) -> bool:
        return bool(self.writer.lm.model._supports_logits_to_keep())


def check_version() -> None:
    """Refuse a version of transformers that lacks a part that is used here.

    Raises:
        ModelError: it does, with the part's name.
    """
    try:
        from transformers.generation.continuous_batching import continuous_api
    except ImportError as error:
        raise ModelError(_other_version("no continuous batching")) from error
    for owner, names in PARTS.items():
        for name in names:
            if not hasattr(getattr(continuous_api, owner, None), name):
                raise ModelError(_other_version(f"no {owner}.{name}"))


def _other_version(lack: str) -> str:
    return (
        f"transformers {transformers.__version__} has {lack}, which continuous batching with "
        f"prompts needs; it was tried with {' and '.join(KNOWN)}."
    )


def refusal(lm: "LanguageModel") -> str:
    """Why an LM cannot be written with so, tried on two rows; empty where it can."""
    if lm.kind != "causal":
        return f"{type(lm.model).__name__} is no causal LM"
    if lm.switches:
        return f"{type(lm.model).__name__} computes otherwise for long rows (longrope)"
    try:
        with torch.no_grad():
            return _differs(lm, _Recording(lm, 8 * PAGE, 4))
    except ModelError as error:
        return str(error)
    except FAILURES as error:
        return first_line(error)


def _differs(lm: "LanguageModel", writer: "_Recording") -> str:
    """Whether two rows that are written for together, one with soft tokens and one with a prefix,
    get other scores than alone; why, or nothing where they do not."""
    ids = one_row(lm.trial_rows(), 0).ids[0].tolist()
    vectors = lm.embed(torch.tensor([ids[:2]])).flip(-1)
    rows = [
        EncodedRow((0, 0, *ids), (0, 1, *(-1,) * len(ids)), None, (len(ids) + 1,)),
        EncodedRow(tuple(ids[2:]), (-1,) * len(ids[2:]), None, (len(ids) - 3,)),
    ]
    prefixes = None
    if not writer.lacks_prefixes:
        rows[1] = replace(rows[1], prefix=(0, 0, 0))
        values = lm.activations(ids[:3])
        reach = torch.ones(1, values.shape[1], dtype=torch.bool)
        prefixes = PrefixBatch(values[None], torch.tensor([3]), reach)
    values_of_rows = [(vectors, None), (None, prefixes)]
    names = [writer.add(row, writer.virtual(*v), 2) for row, v in zip(rows, values_of_rows)]
    for _ in range(2):
        tokens = writer.step()
        alone = [lm.scores(lm.collate([row], [0]), *v) for row, v in zip(rows, values_of_rows)]
        expected = torch.cat(alone)
        if not close(writer.scores.to(expected), expected):
            return f"{type(lm.model).__name__} scores rows otherwise in continuous batching"
        rows = [_followed(row, tokens[name]) for row, name in zip(rows, names)]
    return ""


class _Recording(PagedWriter):
    """Keeps the scores [B, V] of its last step."""

    scores: torch.Tensor

    def run(self, inputs: dict[str, Any]) -> Any:
        output = super().run(inputs)
        self.scores = output.logits[0]
        return output


def _followed(row: EncodedRow, token: int) -> EncodedRow:
    """The row with a token behind it, at which it is read."""
    return replace(
        row,
        ids=(*row.ids, token),
        soft_slots=(*row.soft_slots, -1),
        answer_positions=(len(row.ids),),
    )
