"""A frozen LM of any family, and the two things that prompts need of it: vectors that are put in at
slots, and scores that are read at answer positions.

Its positions, its embedding width and where its head begins are learned by trying the LM on a few
tokens when it is loaded. An LM that fails the trial is refused with the reason.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ptune.base import files
from ptune.base.ranks import Ranks
from ptune.errors import ConfigError, ModelError
from ptune.lm import batching
from ptune.lm.batch import Batch, Side, collate
from ptune.lm.forward import ForwardPass, LMOutput, evaluating
from ptune.lm.identity.fingerprint import LMRecord, difference, is_quantised
from ptune.lm.identity.record_cache import RecordCache
from ptune.lm.length_switches import LengthSwitches
from ptune.lm.patches import answer_positions
from ptune.lm.patches.checkpointing import outermost_layers, recompute
from ptune.lm.patches.cpu.onednn_linear import use_onednn
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.lm.patches.prefixes.prefix_attention import GROUPS, HeadShare
from ptune.lm.patches.sharding import shard_layers, split_layers
from ptune.lm.patches.text_cache import Context, Contexts, Ids, RepeatedContexts
from ptune.lm.source.loading import (
    choose_device,
    choose_dtype,
    commit_of,
    first_line,
    kind_of,
    load_model,
    without_bars,
)
from ptune.lm.trials import capability_trials
from ptune.lm.trials.capabilities import Capabilities, Capability
from ptune.lm.trials.trial import (
    FAILURES,
    Route,
    Trial,
    one_row,
    switch_lengths,
    two_rows,
)
from ptune.lm.vocabulary_head import VocabularyHead
from ptune.lm.writing import whole_texts
from ptune.lm.writing.draws import Draws
from ptune.prompts.bank import PrefixBatch
from ptune.settings import Sharding
from ptune.template import chat
from ptune.template.language import EncodedRow, Kind
from ptune.template.tokenizer import Tokens

CORRELATED = 0.99  # scores of an LM on a CPU and on GPUs, in bfloat16 at least
# trying an LM changes its network, which another LM that is made at the same time may share
_LOADING = threading.RLock()


class LanguageModel:
    """A pretrained LM, frozen.

    Attributes:
        model: the transformers model, in evaluation mode, without gradients.
        tokens: its tokenizer.
        commit: that of the hub's repository from which it was loaded, or None.
        kind: "masked", "causal" or "encoder-decoder".
        width: the embedding width E, where soft tokens live.
        max_length: the most tokens that fit into an input, or None where the LM sets no limit.
        forward: how the LM is called on a batch.
        head: its vocabulary head.
        mixed: the number format of the matrix multiplications, where it is not that of the weights;
            for an LM that is tuned.
        capabilities: what this LM can do, found by trying it, with the reason for what it cannot.
        pads_left: whether rows may be padded on the left (BART counts its encoder's positions
            through the padding).
        packs: whether the rows of a batch may run as one without padding.
        takes_contexts: whether a row is answered the same behind kept keys and values.
        writes_together: whether rows of equal length that are written for in one call get what each
            gets alone; RWKV's cache mixes them up.
        switches: from more positions than these on in any row, the LM computes otherwise for all
            rows of a call (longrope).
        contexts: the keys and values that are kept (``keeping_contexts``,
            ``keep_repeated_contexts``), or None.

    Raises:
        ModelError: the LM cannot take prompts: it is not the same with embeddings as with token
            ids, or padding changes its answers.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, kind: Kind | None = None, source: str = ""
    ):
        self.model, self.tokens, self.source = model, Tokens(tokenizer), source
        self.commit: str | None = None
        self._records = RecordCache(model, tokenizer)
        use_onednn(model)
        self.kind: Kind = kind or kind_of(model.config, tokenizer)
        self.tune(False)
        self.forward = ForwardPass(model)
        self.head = VocabularyHead(model, self.forward)
        self.tokens.limit_to(self.forward.vocabulary_size)
        self._undo: list[Callable[[], None]] = []
        self.contexts: Contexts | None = None
        self.start = _start(model)
        self.switches = switch_lengths(model.config.get_text_config())
        self.length_switches = LengthSwitches(type(model).__name__, self.switches)
        with _LOADING, self.evaluating():
            self._try()

    def _try(self) -> None:
        """Find out what the LM can do, and refuse it where it takes no prompts."""
        trial = self.trial()
        self._check(trial)
        self.pads_left = trial.can_pad_left()
        self.forward.gathers = answer_positions.gather(
            self.model, self.kind == "encoder-decoder", trial.run, trial.rows
        )
        if self.vocabulary is not None:
            answer_positions.keep_features(self.vocabulary)
        self.max_length = capability_trials.position_limit(self)
        self._route = route = capability_trials.find_route(self, trial)
        packing = capability_trials.try_packing(self, trial, route)
        self.packs = bool(packing)
        contexts = capability_trials.try_contexts(self, trial)
        self.takes_contexts = bool(contexts)
        self.writes_together = True  # until it has been tried
        together = whole_texts.try_writing(self, trial)
        self.writes_together = bool(together)
        self.max_length = capability_trials.length_limit(self, trial)
        left_note = "" if self.pads_left else "it counts positions through padding on the left"
        self.capabilities = Capabilities(
            left_padding=Capability(self.pads_left, left_note),
            packing=packing,
            kept_contexts=contexts,
            prefix=Capability(False, route)
            if isinstance(route, str)
            else Capability(True, f"by {route.name}"),
            writing=together,
            gradients=capability_trials.try_gradients(self, trial, route),
        )

    def _check(self, trial: Trial) -> None:
        """Refuse an LM that takes no prompts, and find its width and its first position.

        Raises:
            ModelError: it takes none, with the reason.
        """
        self.width = self.embed(trial.rows.ids).shape[-1]
        trial.check_embeddings(self.embed)
        if "position_ids" in self.forward.parameters:
            trial.find_offset(self.forward.count_from)
        trial.check_padding()
        if self.kind == "causal":
            trial.check_order()

    def __sklearn_clone__(self) -> "LanguageModel":
        """Itself: scikit-learn's clones of an estimator share its LM, which they leave as it is."""
        return self

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        kind: Kind | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tuned: bool = False,
    ) -> "LanguageModel":
        """Load an LM from a transformers folder, a ``.gguf`` file, the model hub, or one that comes
        with ptune: "builtin", which fills masks, or "builtin-causal", which writes.

        Only safetensors weights are read, and no code that comes with a model is run.

        Args:
            device: "cpu", "cuda", ...; "auto" takes a GPU if there is one.
            dtype: "float32", "bfloat16", "float16"; "auto" is float32 on a CPU and bfloat16 on a
                GPU that has it.
            tuned: the LM itself will be trained. It keeps float32 weights then, which a shorter
                format would round its small steps off; ``dtype`` is of its matrix multiplications.

        Raises:
            ModelError: nothing can be loaded from there, weights are missing, or the LM cannot take
                prompts.
            ConfigError: there is no such dtype or device, or the LM cannot be tuned in it.
        """
        chosen_device = choose_device(device)
        chosen_dtype = choose_dtype(dtype, chosen_device)
        if tuned and dtype == "float16":
            raise ConfigError(
                "An LM is not tuned in float16, where small gradients vanish: take bfloat16 or "
                "float32."
            )
        weights_dtype = torch.float32 if tuned and chosen_dtype.itemsize < 4 else chosen_dtype
        model, tokenizer = load_model(os.fspath(source), kind, weights_dtype)
        lm = cls(model.to(chosen_device), tokenizer, kind, os.fspath(source))
        lm.commit = commit_of(os.fspath(source))
        if tuned and chosen_dtype == torch.bfloat16:
            lm.forward.mixed = torch.bfloat16
        return lm

    def shard(self, sharding: Sharding, ranks: Ranks, device: torch.device) -> None:
        """Hold the LM, which lies whole in the CPU's memory, together with other processes, each of
        which calls this: of its layers each keeps a share on its device. From then on all of them
        call the LM together.

        Args:
            sharding: "fsdp" or "tensor" (``ptune.lm.patches.sharding``).

        Raises:
            ModelError: this LM cannot be shared out so.
        """
        name, trial = type(self.model).__name__, self.trial()
        if self.switches and sharding == "fsdp":
            raise ModelError(
                f"{name} computes otherwise from {self.switches[0]} positions on, so processes "
                "with rows of other lengths would call it unequally often: take --lm-sharding "
                "tensor."
            )
        self._records.keep(self.forward.vocabulary_size)
        try:
            with torch.no_grad():
                whole = trial.run(trial.rows)
                (shard_layers if sharding == "fsdp" else split_layers)(self.model, device)
                trial = self.trial()
                if sharding == "tensor" and isinstance(self._route, AttentionRoute):
                    heads = HeadShare(ranks.rank, ranks.count)
                    self._route.split_heads(heads, lambda: trial.run(one_row(trial.rows, 0)))
                if not _alike(trial.run(trial.rows).cpu(), whole):
                    raise ModelError("it answers otherwise when it is")
        except (ModelError, *FAILURES) as error:
            raise ModelError(
                f"{name} cannot be shared out over {ranks.count} processes by --lm-sharding "
                f"{sharding}: {first_line(error)}"
            ) from error

    @cached_property
    def end(self) -> int:
        """The token that ends a text.

        Raises:
            ModelError: the tokenizer has none.
        """
        of_config = getattr(self.model.config, "eos_token_id", None)
        for token in (self.tokens.tokenizer.eos_token_id, of_config):
            if isinstance(token, int):
                return token
        raise ModelError(
            f"The tokenizer of {self.source or type(self.model).__name__} has no end token, so no "
            "text that it writes would end."
        )

    @cached_property
    def ends(self) -> list[int]:
        """The tokens at which a text that is being written ends: ``end``, what ends a message in
        the tokenizer's chat template, and the control tokens that the LM's settings of writing
        (generation_config.json) name as ends.

        Raises:
            ModelError: the tokenizer has no end token.
        """
        message_end = chat.message_end(self.tokens)
        ends = [self.end, *([] if message_end is None else [message_end]), *self._named_ends()]
        return list(dict.fromkeys(ends))

    def _named_ends(self) -> list[int]:
        """Without those that stand for text: a config that nobody wrote has numbers of its own."""
        settings = getattr(self.model, "generation_config", None)
        named: Any = getattr(settings, "eos_token_id", None)
        tokens: list[int] = named if isinstance(named, list) else [named]
        return [one for one in tokens if one in self.tokens.tokenizer.added_tokens_decoder]

    @property
    def vocabulary(self) -> nn.Linear | None:
        """The last layer of the vocabulary head: one vector [F] for each token; None for an LM
        without it."""
        return self.head.layer

    @property
    def has_head(self) -> bool:
        """Whether it scores a vocabulary; a sentence encoder without such a head has hidden states
        alone, which trained readers read."""
        return self.forward.has_head

    @property
    def mixed(self) -> torch.dtype | None:
        """The number format of the matrix multiplications, where it is not that of the weights; for
        an LM that is tuned."""
        return self.forward.mixed

    @property
    def words(self) -> int:
        """How many tokens the LM reads: those of its tokenizer that have an embedding."""
        return min(len(self.tokens.tokenizer), self.forward.vocabulary_size)

    @cached_property
    def hidden_width(self) -> int:
        """The width H of the last hidden states."""
        with torch.no_grad():
            return int(self.hidden(one_row(self.trial().rows, 0)).shape[-1])

    @property
    def device(self) -> torch.device:
        """Where the LM's input embeddings are, and so where its inputs have to be."""
        return self.forward.device

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the LM's weights."""
        return self.model.dtype

    def tune(self, on: bool) -> None:
        """Let the LM's own weights be trained, with its dropout (fine-tuning), or freeze it
        again."""
        self._records.clear()
        self.model.requires_grad_(on)
        self.model.train(on)

    def tune_head(self) -> None:
        """Let the vocabulary head alone be trained; its vectors part from the input's embeddings,
        where they were the same.

        Raises:
            ModelError: the head cannot be told from the rest, or the LM needs it to be tied.
        """
        self.head.untie(self.trial())
        self.tune(False)
        for parameter in self.head_parameters():
            parameter.requires_grad_(True)

    def head_parameters(self) -> list[nn.Parameter]:
        """The vocabulary head's parameters; its vectors are among them only where they are not the
        input's embeddings too (``tune_head``)."""
        return self.head.parameters()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the LM's weights on the CPU, for ``restore``."""
        return {
            name: value.detach().to("cpu", copy=True)
            for name, value in self.model.state_dict().items()
        }

    def restore(self, weights: dict[str, torch.Tensor]) -> None:
        """Put weights back. A head that was parted from the input's embeddings (``tune_head``) is
        tied to them again, if they are the same."""
        self._records.clear()
        self.model.load_state_dict(weights)
        self.head.tie_if_equal()

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        """While this is open, the LM's dropout is off."""
        return evaluating(self.model)

    def save(self, folder: files.Path) -> None:
        """Save the LM and its tokenizer as a transformers folder, whole or not at all.

        Raises:
            StoreError: the disk is full or the folder cannot be written.
        """
        files.write_folder(folder, self.write_files)

    def write_files(self, folder: str) -> None:
        """Write the files of a transformers folder.

        Raises:
            OSError, SafetensorError: the disk is full or the folder cannot be written.
        """
        with without_bars():
            self.model.save_pretrained(folder)
        try:
            self.tokens.tokenizer.save_pretrained(folder)
        except OSError:
            raise
        except Exception as error:  # the tokenizers library has no class of its own for a full disk
            raise OSError(first_line(error)) from error

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The vectors of token ids as soft tokens stand beside them, any scaling included: [...,
        E]."""
        return self.forward.embed(ids)

    def collate(
        self,
        rows: Sequence[EncodedRow],
        prompts: Sequence[int],
        side: Side = "right",
        context: Context | None = None,
    ) -> Batch:
        """Rows as one batch, their prefixes where this LM takes them.

        Args:
            prompts: the number of each row's prompt in the bank, -1 for none.
            context: kept keys and values of what stands before the rows.

        Raises:
            ModelError: a row has a prefix, and this LM cannot take any, or none at that side of the
                padding.
        """
        return batching.make_batch(self, rows, prompts, side=side, context=context)

    def scores(
        self, batch: Batch, vectors: torch.Tensor | None = None, prefixes: PrefixBatch | None = None
    ) -> torch.Tensor:
        """Vocabulary scores at the batch's answer positions: [A, V], float32. The head runs there
        only."""
        return self.read(batch, vectors, prefixes).scores

    def hidden(
        self, batch: Batch, vectors: torch.Tensor | None = None, prefixes: PrefixBatch | None = None
    ) -> torch.Tensor:
        """The last hidden states at the batch's answer positions, as the head gets them: [A, H]."""
        return self.read(batch, vectors, prefixes).hidden

    def read_rows(
        self,
        rows: Sequence[EncodedRow],
        prompts: Sequence[int],
        vectors: torch.Tensor | None = None,
        prefixes: PrefixBatch | None = None,
    ) -> LMOutput:
        """Read rows that are not a batch yet, as ``read`` does; the keys and values of what stands
        before their first soft tokens are kept while ``keeping_contexts`` is open."""
        parts = batching.batches(self, rows, prompts)
        outputs = [self.read(batch, vectors, prefixes) for _, batch in parts]
        return batching.in_order(rows, [numbers for numbers, _ in parts], outputs)

    def read(
        self,
        batch: Batch,
        vectors: torch.Tensor | None = None,
        prefixes: PrefixBatch | None = None,
    ) -> LMOutput:
        """Run the LM once, and read it at the batch's answer positions.

        Args:
            vectors: the soft tokens of the bank's prompts [N, P, E].
            prefixes: their deep prefixes.
        """
        if batch.side == "left" and not self.pads_left:
            raise ModelError(
                f"{type(self.model).__name__} counts positions through padding on the left; pad "
                "on the right."
            )
        self.check_lengths(batch)
        batch = batch.to(self.device)
        entering = self.prefixed(batch, None if batch.context is not None else prefixes)
        with self.length_switches.lock, entering:
            return self.forward.read(batch, vectors)

    def check_lengths(self, batch: Batch) -> None:
        """Refuse rows of which one would change the others by its length.

        Raises:
            ModelError: there are rows on both sides of a length from which the LM computes
                otherwise.
        """
        if self.switches and self.forward.offset is not None:
            positions = self.forward.positions(batch).amax(1) + 1
            self.length_switches.check_batch(positions.tolist())

    @contextlib.contextmanager
    def keeping_contexts(self, rows: Sequence[EncodedRow], megabytes: int) -> Iterator[None]:
        """While this is open, and the LM frozen, the keys and values of what stands before the soft
        tokens of these rows are computed once (causal LMs)."""
        if megabytes and not self._undo and self.takes_contexts:
            short = [row for row in rows if not self.side(row)]
            self.contexts = Contexts(self.context_values, short, megabytes * 2**20)
        try:
            yield
        finally:
            self.contexts = None

    def keep_repeated_contexts(self, megabytes: int) -> None:
        """From now on, and for a frozen LM, keep the keys and values of texts that stand before
        the soft tokens of rows again and again (causal LMs)."""
        if megabytes and self.takes_contexts and not self.switches:
            self.contexts = RepeatedContexts(self.context_values, megabytes * 2**20)

    def context_values(self, text: Ids) -> torch.Tensor:
        """The keys and values that the LM computes for a text: [L, 2, Hkv, S, D]."""
        row = EncodedRow(text, (-1,) * len(text), None, (len(text) - 1,))
        return self.forward.keys_and_values(self.collate([row], [-1]))

    def write(
        self,
        batch: Batch,
        vectors: torch.Tensor | None = None,
        prefixes: PrefixBatch | None = None,
        copies: int = 1,
        *,
        draws: Draws | None = None,
        **settings: Any,
    ) -> torch.Tensor:
        """Let the LM continue the rows of a batch, by transformers' own ``generate`` and its
        caches: new token ids [B, T'].

        Args:
            batch: of a causal LM padded on the left, of an encoder-decoder on the right.
            vectors: the soft tokens of the bank's prompts [N, P, E].
            prefixes: their deep prefixes.
            copies: into how many rows ``generate`` makes each (beams, or sampled texts).
            draws: choose the tokens, where they are drawn.
            settings: of transformers' ``GenerationConfig``; the defaults in the LM's files are not
                used.

        Raises:
            ModelError: padding would change what is written, or transformers cannot continue from
                embeddings here.
        """
        return whole_texts.write(
            self, batch, vectors, prefixes, copies=copies, settings=settings, draws=draws
        )

    def write_behind(
        self,
        before: Sequence[int],
        rows: Sequence[Sequence[int]],
        values: torch.Tensor | None = None,
        **settings: Any,
    ) -> list[list[int]]:
        """Let a causal LM continue rows that stand behind one text, whose keys and values are
        computed once: the new tokens of each row, up to its end.

        Args:
            before: the tokens of the text.
            rows: the tokens behind it.
            values: its keys and values (``context_values``), where they are there already.
            settings: of transformers' ``GenerationConfig``, as in ``write``.
        """
        return whole_texts.write_behind(self, before, rows, values=values, settings=settings)

    @contextlib.contextmanager
    def prefixed(
        self,
        batch: Batch,
        prefixes: PrefixBatch | None,
        copies: int = 1,
        groups: Sequence[str] = GROUPS,
    ) -> Iterator[None]:
        """While this is open, the rows have their prefixes, in these groups of attentions at least,
        and their tokens do not attend to what is hidden from them.

        Raises:
            ModelError: rows have a prefix and none is given, it did not reach the LM's layers, or
                tokens cannot be hidden in this LM.
        """
        with contextlib.ExitStack() as states:
            if prefixes is not None:
                states.enter_context(self._entering(batch, prefixes, copies, groups))
            elif batch.starts is not None or batch.deep is not None:
                raise ModelError("Rows of this batch have a prefix, and its values are not given.")
            if batch.visibility is not None:
                states.enter_context(self._hiding_route.hiding(batch, copies, groups))
            yield

    def _entering(
        self, batch: Batch, prefixes: PrefixBatch, copies: int, groups: Sequence[str]
    ) -> contextlib.AbstractContextManager[None]:
        """While this is open, the rows have their prefixes, those that gates make for each row
        too."""
        prefixes = prefixes.to(self.device)
        if prefixes.gates is not None:
            texts = self.forward.mean_texts(batch)
            prefixes, prompts = prefixes.of_rows(batch.prompts, texts)
            batch = replace(batch, prompts=prompts)
        return self.route.entering(batch, prefixes, copies, groups)

    @cached_property
    def hides_tokens(self) -> Capability:
        """Whether tokens may be hidden from others, as a task's ``visibility`` says; tried when it
        is first asked for, so that loading an LM takes no longer."""
        with self.evaluating():
            return capability_trials.try_visibility(self.trial(), self._route)

    @property
    def _hiding_route(self) -> AttentionRoute:
        """By which tokens are hidden from others.

        Raises:
            ModelError: they cannot be, with the reason.
        """
        if not isinstance(self._route, AttentionRoute) or not self.hides_tokens:
            raise ModelError(
                f"{type(self.model).__name__} cannot hide tokens from others: "
                f"{self.hides_tokens.note}. Leave visibility out of the task."
            )
        return self._route

    @property
    def route(self) -> Route:
        """How deep prefixes enter this LM.

        Raises:
            ModelError: they cannot, with the reason.
        """
        if isinstance(self._route, str):
            raise ModelError(
                f"{type(self.model).__name__} takes no prefix: {self._route}. Soft tokens "
                f"({{soft:5}}) work."
            )
        return self._route

    def side(self, row: EncodedRow, new_tokens: int = 0) -> int:
        """How many of the lengths from which the LM computes otherwise a row goes beyond, with as
        many new tokens after it."""
        return self.length_switches.side(len(row.ids) + len(row.prefix) + new_tokens)

    def check_room(self, row: EncodedRow, new_tokens: int) -> None:
        """Refuse to write so many tokens behind a row where the LM would compute otherwise midway,
        since what it keeps of the row is then of no use.

        Raises:
            ModelError: it would.
        """
        if self.kind == "causal":
            self.length_switches.check_room(len(row.ids) + len(row.prefix), new_tokens)

    def check_gradients(self, soft: bool, deep: bool) -> None:
        """See by one backward pass on a trial row that soft tokens, and deep prefixes, get the
        gradient that trains them.

        Raises:
            ModelError: they get none, as from some quantised LMs.
        """
        lost = capability_trials.parts_without_gradient(
            self.trial(), self.embed if soft else None, self.route if deep else None
        )
        if lost:
            raise ModelError(
                f"No gradient comes back through {type(self.model).__name__} to "
                f"{' and '.join(lost)}, so nothing could be learned: some "
                "quantised LMs lose it. Train on the LM as it was before; what is learned there "
                "can be used with this one."
            )

    @torch.no_grad()
    def activations(self, ids: Sequence[int]) -> torch.Tensor:
        """What a deep prefix would hold to be these tokens, read from the front: [P, W]."""
        row = EncodedRow(
            ids=tuple(ids),
            soft_slots=(-1,) * len(ids),
            types=None,
            answer_positions=(len(ids) - 1,),
            decoder=tuple(ids) if self.kind == "encoder-decoder" else None,
        )
        batch = collate([row], [-1], self.tokens.pad).to(self.device)
        return self.route.activations(lambda: self.forward.run(batch))

    def recompute(self, on: bool) -> None:
        """Gradient checkpointing of every layer, on or off: less memory, a third more time."""
        while self._undo:
            self._undo.pop()()
        if on:
            self._undo += [recompute(layer) for layer in outermost_layers(self.model)]

    def fingerprint(self) -> str:
        """A hash of the LM as it is now: of its config, its tokens and every one of its weights, in
        their number format."""
        return self.record().hash()

    def record(self) -> LMRecord:
        """The record of the LM's config, tokens and weights, to be written beside a prompt;
        computed anew when a weight has changed."""
        return self._records.record(self.forward.vocabulary_size)

    def hold_record(self) -> None:
        """Take it that no weight changes until ``tune`` is called, so that a server need not look
        at all of them for each prompt that it reads."""
        self._records.hold()

    def difference(self, saved: LMRecord) -> str | None:
        """What this LM has that the LM of a record had not, as the end of the sentence "this LM has
        ..."; None for the same one."""
        with torch.no_grad():
            return difference(saved, self.model, self.tokens.tokenizer, self.record())

    def trial_rows(self) -> Batch:
        """Two rows of a sentence on which it can be tried what the LM does."""
        start = self.start if self.kind == "encoder-decoder" else None
        return two_rows(self.tokens, start).to(self.device)

    def trial(self) -> Trial:
        """A few short rows and how to run them, by which it is found out what the LM can do."""
        rows = self.trial_rows()
        return Trial(
            name=type(self.model).__name__,
            run=lambda batch, vectors=None, ids=False: self.forward.token_values(
                self.forward.run(batch, vectors, ids)
            ),
            rows=rows,
            pad=self.tokens.pad,
            dtype=self.dtype,
            is_quantised=is_quantised(self.model),
        )


@torch.no_grad()
def nearest_words(lm: LanguageModel, vectors: torch.Tensor, count: int = 5) -> list[list[str]]:
    """For each vector [P, E] the words of the vocabulary whose embeddings point most nearly the
    same way (cosine)."""
    ids = torch.arange(lm.words)
    rows = torch.nn.functional.normalize(lm.embed(ids).float(), dim=-1)
    likeness = torch.nn.functional.normalize(vectors.to(rows), dim=-1) @ rows.T
    likeness[:, [id_ for id_ in lm.tokens.tokenizer.all_special_ids if id_ < lm.words]] = -torch.inf
    return [
        [lm.tokens.show(token) for token in nearest]
        for nearest in likeness.topk(min(count, len(ids))).indices.tolist()
    ]


def _alike(scores: torch.Tensor, others: torch.Tensor) -> bool:
    """Whether scores are the same but for the rounding of other devices, which is large in short
    number formats."""
    pair = torch.stack([scores.flatten(), others.flatten()]).double()
    return bool(torch.corrcoef(pair)[0, 1] > CORRELATED)


def _start(model: PreTrainedModel) -> int:
    """The token that starts a decoder; 0 where there is none."""
    token = getattr(model.config, "decoder_start_token_id", None)
    if token is None and (generation := getattr(model, "generation_config", None)) is not None:
        token = generation.decoder_start_token_id
    return int(token) if token is not None else 0
