"""A frozen LM of any family, and the two things prompts need of it: vectors put in at slots, scores
read at answers.

What the family is, its positions, its embedding width, where its head begins, is found by trying
the LM on a few tokens when it is loaded. An LM that fails the trial is refused with the reason.
"""

import bisect
import contextlib
import copy
import hashlib
import inspect
import json
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from operator import is_not
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from ptune.base import files
from ptune.errors import ConfigError, ModelError
from ptune.lm.batch import Batch, Side, collate
from ptune.lm.capabilities import Capabilities, Capability
from ptune.lm.fingerprint import LMRecord, difference, named_weights, record
from ptune.lm.loading import choose_device, choose_dtype, first_line, kind_of, load_model
from ptune.lm.patches import answer_positions
from ptune.lm.patches.onednn_linear import use_onednn
from ptune.lm.patches.packing import Packing, packed
from ptune.lm.patches.prefix_attention import GROUPS, AttentionRoute, recompute
from ptune.lm.patches.prefix_layer_inputs import LayerRoute
from ptune.lm.patches.text_cache import Context, Contexts, Ids
from ptune.lm.trial import Trial, close, one_row, switch_lengths, two_rows
from ptune.prompts.bank import PrefixBatch
from ptune.template.language import EncodedRow, Kind
from ptune.template.tokenizer import Tokens

# tokens of a row that is tried on both sides of a length from which an LM may compute otherwise
LONGEST_TRIED = 256
FAILURES = (
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    RuntimeError,
    NotImplementedError,
)  # of what is only tried
_LOADING = (
    threading.RLock()
)  # what is tried changes a network, which another LM that is made may have
# the share of padding from which rows are packed: below, what is saved is not worth the way to and
# fro
PADDED = 0.1


class Answers(NamedTuple):
    """What an LM makes of its A answer places.

    Attributes:
        hidden: the last hidden states, as the vocabulary head gets them [A, H].
        features: what the head compares with the vectors of the vocabulary [A, F]; None for an LM
            without such vectors.
        scores: scores of the vocabulary [A, V], float32.
    """

    hidden: torch.Tensor
    features: torch.Tensor | None
    scores: torch.Tensor


class _Recorded(NamedTuple):
    """The record of an LM, and the state of its weights and vocabulary from which it was made."""

    record: LMRecord
    state: list[int]
    references: list[weakref.ref[torch.Tensor]]

    def weights(self) -> list[torch.Tensor | None]:
        return [reference() for reference in self.references]


def fill(
    embeddings: torch.Tensor, vectors: torch.Tensor, prompts: torch.Tensor, soft_slots: torch.Tensor
) -> torch.Tensor:
    """Put each row's prompt vectors at its slots. This is where soft tokens enter the input, and
    where the rows of many prompts meet in one batch.

    Args:
        embeddings: [B, T, E], of the real tokens.
        vectors: the bank [N, P, E].
        prompts: the prompt of each row [B].
        soft_slots: [B, T], -1 at real tokens.
    """
    numbers = prompts.clamp(min=0)[:, None] * vectors.shape[1] + soft_slots.clamp(min=0)
    chosen = nn.functional.embedding(numbers, vectors.flatten(0, 1)).to(
        embeddings.dtype
    )  # [B, T, E]; its backward is a fast one
    return torch.where((soft_slots >= 0)[..., None], chosen, embeddings)


class LanguageModel:
    """A pretrained LM, frozen.

    Attributes:
        model: the transformers model, in evaluation mode, without gradients.
        tokens: its tokenizer.
        kind: "masked", "causal" or "encoder-decoder".
        width: the embedding width E, where soft tokens live.
        max_length: the most tokens that fit into an input, or None where the LM sets no limit.
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

    Raises:
        ModelError: the LM cannot take prompts: it is not the same with embeddings as with token
            ids, or padding changes its answers.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: Any, kind: Kind | None = None, source: str = ""
    ):
        self.model, self.tokens, self.source = model, Tokens(tokenizer), source
        self._recorded: _Recorded | None = None
        use_onednn(model)
        self.kind: Kind = kind or kind_of(model.config, tokenizer)
        self.tune(False)
        self._parameters = inspect.signature(model.forward).parameters
        self._embeddings = _embeddings(model)
        self.tokens.limit_to(self._vocabulary_size())
        self.mixed: torch.dtype | None = None
        self._parted: tuple[nn.Parameter, bool] | None = None
        self._offset: int | None = None
        self._undo: list[Callable[[], None]] = []
        self._contexts: Contexts | None = None
        self.start = _start(model)
        self.switches = switch_lengths(model.config.get_text_config())
        self._turn = (
            threading.RLock() if self.switches else contextlib.nullcontext()
        )  # the LM keeps what it switches
        with _LOADING, self.evaluating():
            self._try()

    def _try(self) -> None:
        """Find out what the LM is like, and refuse it where it takes no prompts."""
        model, trial = self.model, self._trial()
        self.width = self.embed(trial.rows.ids).shape[-1]
        trial.check_embeddings(self.embed)
        if "position_ids" in self._parameters:
            trial.find_offset(self._count_from)
        trial.check_padding()
        if self.kind == "causal":
            trial.check_order()
        self.pads_left = trial.can_pad_left()
        self._gathers = answer_positions.gather(
            model, self.kind == "encoder-decoder", trial.run, trial.rows
        )
        if self.vocabulary is not None:
            answer_positions.keep_features(self.vocabulary)
        self.max_length = self._find_limit()
        self._route = self._find_route(trial)
        packing = self._try_packing(trial)
        self.packs = bool(packing)
        contexts, writing = self._try_contexts(trial), self._try_writing(trial)
        self.takes_contexts, self.writes_together = bool(contexts), bool(writing)
        self._try_lengths()
        self.capabilities = Capabilities(
            Capability(
                self.pads_left,
                "" if self.pads_left else "it counts positions through padding on the left",
            ),
            packing,
            contexts,
            Capability(
                not isinstance(self._route, str),
                self._route if isinstance(self._route, str) else f"by {self._route.name}",
            ),
            writing,
            self._try_gradients(trial),
        )

    def __sklearn_clone__(self) -> "LanguageModel":
        """Itself: scikit-learn's clones of an estimator share its LM, which they leave as it is."""
        return self

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        kind: Kind | None = None,
        device: str = "auto",
        dtype: str = "auto",
        tuned: bool = False,
    ) -> "LanguageModel":
        """Load an LM from a transformers folder, a ``.gguf`` file, the model hub, or "builtin".

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
        where = choose_device(device)
        wanted = choose_dtype(dtype, where)
        if tuned and dtype == "float16":
            raise ConfigError(
                "An LM is not tuned in float16, where small gradients vanish: take bfloat16 or "
                "float32."
            )
        model, tokenizer = load_model(
            os.fspath(source), kind, torch.float32 if tuned and wanted.itemsize < 4 else wanted
        )
        lm = cls(model.to(where), tokenizer, kind, os.fspath(source))
        lm.mixed = torch.bfloat16 if tuned and wanted == torch.bfloat16 else None
        return lm

    @cached_property
    def end(self) -> int:
        """The token that ends a text.

        Raises:
            ModelError: the tokenizer has none.
        """
        for found in (
            self.tokens.tokenizer.eos_token_id,
            getattr(self.model.config, "eos_token_id", None),
        ):
            if isinstance(found, int):
                return found
        raise ModelError(
            f"The tokenizer of {self.source or type(self.model).__name__} has no end token, so no "
            "text that it writes would end."
        )

    @property
    def vocabulary(self) -> nn.Linear | None:
        """The last layer of the vocabulary head: one vector [F] for each token; None for an LM
        without it."""
        found = self.model.get_output_embeddings()
        return found if isinstance(found, nn.Linear) else None

    @property
    def words(self) -> int:
        """How many tokens the LM reads: those of its tokenizer that have an embedding."""
        return min(len(self.tokens.tokenizer), self._vocabulary_size())

    @cached_property
    def hidden_width(self) -> int:
        """The width H of the last hidden states."""
        with torch.no_grad():
            return int(self.hidden(one_row(self._trial().rows, 0)).shape[-1])

    @property
    def device(self) -> torch.device:
        return (
            self._embeddings.weight.device
            if hasattr(self._embeddings, "weight")
            else next(self.model.parameters()).device
        )

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    def tune(self, on: bool) -> None:
        """Let the LM's own weights be trained, with its dropout (fine-tuning), or freeze it
        again."""
        self._recorded = None
        self.model.requires_grad_(on)
        self.model.train(on)

    def tune_head(self) -> None:
        """Let the vocabulary head alone be trained; its vectors part from the input's embeddings,
        where they were the same.

        Raises:
            ModelError: the head cannot be told from the rest, or the LM needs it to be tied.
        """
        if not self._gathers or self.vocabulary is None:
            raise ModelError(
                f"{type(self.model).__name__} has no vocabulary head that could be trained by "
                "itself."
            )
        trial = self._trial()
        if not any(parameter is self.vocabulary.weight for parameter in self.head_parameters()):
            self._parted = self.vocabulary.weight, self.model.config.tie_word_embeddings
        with torch.no_grad():
            before = trial.run(trial.rows)
            self.vocabulary.weight = nn.Parameter(self.vocabulary.weight.detach().clone())
            self.model.config.tie_word_embeddings = False
            if not close(trial.run(trial.rows), before):
                if self._parted is not None:
                    (
                        (self.vocabulary.weight, self.model.config.tie_word_embeddings),
                        self._parted,
                    ) = self._parted, None
                raise ModelError(
                    f"{type(self.model).__name__} computes otherwise when its head has vectors of "
                    "its own."
                )
        self.tune(False)
        for parameter in self.head_parameters():
            parameter.requires_grad_(True)

    def head_parameters(self) -> list[nn.Parameter]:
        """The vocabulary head's own parameters; with its vectors where they are not the input's
        embeddings too (``tune_head``)."""
        parts = [
            *self._gathers,
            *([self.model.get_encoder()] if self.kind == "encoder-decoder" else []),
        ]
        body = {id(parameter) for part in parts for parameter in part.parameters()}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in body]

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the LM's weights on the CPU, for ``restore``."""
        return {
            name: value.detach().to("cpu", copy=True)
            for name, value in self.model.state_dict().items()
        }

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
        self.model.save_pretrained(folder)
        try:
            self.tokens.tokenizer.save_pretrained(folder)
        except OSError:
            raise
        except Exception as error:  # the tokenizers library has no class of its own for a full disk
            raise OSError(first_line(error)) from error

    def restore(self, weights: dict[str, torch.Tensor]) -> None:
        """Put weights back; a head that has parted from the input's embeddings (``tune_head``) is
        one with them again, if they are the same."""
        self._recorded = None
        self.model.load_state_dict(weights)
        if (
            self._parted is not None
            and self.vocabulary is not None
            and torch.equal(self.vocabulary.weight, self._parted[0])
        ):
            (self.vocabulary.weight, self.model.config.tie_word_embeddings), self._parted = (
                self._parted,
                None,
            )

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """While this is open, the LM's dropout is off."""
        tuned = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(tuned)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """The vectors of token ids as soft tokens stand beside them, any scaling included: [...,
        E]."""
        return self._embeddings(ids.to(self.device))

    def collate(
        self, rows: Sequence[EncodedRow], prompts: Sequence[int], side: Side = "right"
    ) -> Batch:
        """Rows as one batch, their prefixes where this LM takes them.

        Raises:
            ModelError: a row has a prefix, and this LM cannot take any, or none at that side of the
                padding.
        """
        if any(row.prefix for row in rows):
            if self.kind == "encoder-decoder" and side == "left":
                raise ModelError(
                    "A prefix stands just before its row's text, which padding on the left moves "
                    "away in an encoder-decoder; pad on the right."
                )
            rows = [row.spelt_out() for row in rows] if self.route.in_text else rows
        return collate(rows, prompts, self.tokens.pad, side)

    def scores(
        self, batch: Batch, vectors: torch.Tensor | None = None, prefixes: PrefixBatch | None = None
    ) -> torch.Tensor:
        """Vocabulary scores at the batch's answer places: [A, V], float32. The head runs there
        only."""
        return self.read(batch, vectors, prefixes).scores

    def hidden(
        self, batch: Batch, vectors: torch.Tensor | None = None, prefixes: PrefixBatch | None = None
    ) -> torch.Tensor:
        """The last hidden states at the batch's answer places, as the head gets them: [A, H]."""
        return self.read(batch, vectors, prefixes).hidden

    def read_rows(
        self,
        rows: Sequence[EncodedRow],
        prompts: Sequence[int],
        vectors: torch.Tensor | None = None,
        prefixes: PrefixBatch | None = None,
    ) -> Answers:
        """The same for rows that are yet to be made a batch; what stands before their first soft
        tokens is kept while ``keeping_contexts`` is open."""
        if len(sides := sorted({self.side(row) for row in rows})) > 1:
            return self._read_apart(rows, prompts, vectors, prefixes, sides)
        if self._contexts is not None and (parts := self._contexts.split(rows)):
            context, tails = parts
            return self.read(self.collate(tails, prompts), vectors, context=context)
        return self.read(self.collate(rows, prompts), vectors, prefixes)

    def _read_apart(
        self,
        rows: Sequence[EncodedRow],
        prompts: Sequence[int],
        vectors: torch.Tensor | None,
        prefixes: PrefixBatch | None,
        sides: Sequence[int],
    ) -> Answers:
        """The same in a call for the rows of each side of the lengths from which the LM computes
        otherwise."""
        order: list[int] = []
        parts = []
        for side in sides:
            numbers = [number for number, row in enumerate(rows) if self.side(row) == side]
            parts.append(
                self.read_rows(
                    [rows[n] for n in numbers], [prompts[n] for n in numbers], vectors, prefixes
                )
            )
            order += [n for n in numbers for _ in rows[n].answer_positions]
        back = torch.tensor(order, device=self.device).argsort(stable=True)
        hidden, features, scores = (
            None if own[0] is None else torch.cat(own)[back] for own in zip(*parts)
        )
        return Answers(hidden, features, scores)

    def read(
        self,
        batch: Batch,
        vectors: torch.Tensor | None = None,
        prefixes: PrefixBatch | None = None,
        context: Context | None = None,
    ) -> Answers:
        """Run the LM once, and read it at the batch's answer places.

        Args:
            vectors: the soft tokens of the bank's prompts [N, P, E].
            prefixes: their deep prefixes.
            context: keys and values of what stands before the rows.
        """
        if batch.side == "left" and not self.pads_left:
            raise ModelError(
                f"{type(self.model).__name__} counts positions through padding on the left; pad "
                "on the right."
            )
        self._check_lengths(batch)
        packing = (
            Packing(batch.attention, self.device)
            if context is None and batch.padded > PADDED and self.packs
            else None
        )
        batch = batch.to(self.device)
        with self._turn, self._prefixed(batch, prefixes):
            return self._read(batch, vectors, packing, context)

    def _check_lengths(self, batch: Batch) -> None:
        """Refuse rows of which one would change the others by its length."""
        if not self.switches or self._offset is None:
            return
        sides = {
            bisect.bisect_left(self.switches, positions)
            for positions in (self._positions(batch).amax(1) + 1).tolist()
        }
        if len(sides) > 1:
            raise ModelError(
                f"{type(self.model).__name__} computes otherwise for all rows of a batch where "
                "one has more than "
                f"{' or '.join(map(str, self.switches))} tokens: run longer rows apart from "
                "shorter ones."
            )

    def _read(
        self,
        batch: Batch,
        vectors: torch.Tensor | None,
        packing: Packing | None,
        context: Context | None,
    ) -> Answers:
        places = batch.rows, batch.columns
        if packing is not None and batch.decoder is None:
            places = batch.rows * 0, packing.numbers(*places)
        more = {} if self._gathers else {"output_hidden_states": True}
        with answer_positions.reading(*places) as reading:
            output = self._run(batch, vectors, packing=packing, context=context, **more)
        if self._gathers:
            assert reading.hidden is not None
            return Answers(
                reading.hidden,
                None if reading.features is None else reading.features[0],
                output.logits[0].float(),
            )
        hidden = output.get("decoder_hidden_states", output.get("hidden_states"))[-1]
        return Answers(
            hidden[places],
            None if reading.features is None else reading.features[places],
            output.logits[places].float(),
        )

    def _try_packing(self, trial: Trial) -> Capability:
        """Whether the rows of a batch may run as one without padding."""
        if not self._gathers:
            return Capability(
                False, "the part before its vocabulary head hands over no answer places"
            )
        if self._offset is None and self.kind != "encoder-decoder":
            return Capability(False, "it takes no positions, which begin anew in every row")
        if not isinstance(self._route, AttentionRoute):
            return Capability(False, "it does not go through transformers' attention interface")
        packing = Packing(trial.rows.attention, self.device)
        try:
            with torch.no_grad():
                wanted = self._run(trial.rows).logits
                wanted = wanted if self.kind == "encoder-decoder" else packing.pack(wanted)
                if not close(self._run(trial.rows, packing=packing).logits, wanted):
                    return Capability(False, "packed rows are answered otherwise")
        except (ModelError, *FAILURES) as error:
            return Capability(False, f"packed rows are not answered: {first_line(error)}")
        return Capability(True)

    @contextlib.contextmanager
    def keeping_contexts(self, rows: Sequence[EncodedRow], megabytes: int) -> Iterator[None]:
        """While this is open, and the LM frozen, the keys and values of what stands before the soft
        tokens of these rows are computed once (causal LMs)."""
        if megabytes and not self._undo and self.takes_contexts:
            self._contexts = Contexts(
                self._context_values, [row for row in rows if not self.side(row)], megabytes * 2**20
            )
        try:
            yield
        finally:
            self._contexts = None

    def _try_contexts(self, trial: Trial) -> Capability:
        """Whether a row is answered the same behind kept keys and values."""
        if self.kind != "causal":
            return Capability(
                False, "the text before soft tokens sees them, and only a causal LM's does not"
            )
        if self._offset is None or not self._gathers or not self._cache_name:
            return Capability(False, "it takes no positions behind a cache")
        ids = [one_row(trial.rows, number).ids[0].tolist() for number in range(2)]
        rows = [
            EncodedRow(tuple(own), (-1,) * len(own), None, (len(own) // 2 + number, len(own) - 1))
            for number, own in enumerate(ids)
        ]
        try:
            with torch.no_grad():
                parts = Contexts(self._context_values, rows, 2**30).split(rows)
                assert parts is not None
                apart = self.read(self.collate(parts[1], [-1, -1]), context=parts[0])
                if not close(apart.scores, self.read(self.collate(rows, [-1, -1])).scores):
                    return Capability(
                        False, "rows behind kept keys and values are answered otherwise"
                    )
        except (ModelError, *FAILURES) as error:
            return Capability(
                False, f"it keeps no keys and values that could be used again: {first_line(error)}"
            )
        return Capability(True)

    @property
    def _cache_name(self) -> str:
        """What the LM calls the keys and values that it is given: ``cache`` from transformers 5.24
        on."""
        return next((name for name in ("cache", "past_key_values") if name in self._parameters), "")

    @torch.no_grad()
    def _context_values(self, text: Ids) -> torch.Tensor:
        """What the LM makes of a text: its keys and values [L, 2, Hkv, S, D]."""
        batch = self.collate(
            [EncodedRow(text, (-1,) * len(text), None, (len(text) - 1,))], [-1]
        ).to(self.device)
        cache = DynamicCache()
        with self.evaluating(), answer_positions.reading(batch.rows, batch.columns):
            self._run(batch, use_cache=True, **{self._cache_name: cache})
        return torch.stack([torch.cat([layer.keys, layer.values]) for layer in cache.layers])

    @torch.no_grad()
    def write(
        self,
        batch: Batch,
        vectors: torch.Tensor | None = None,
        prefixes: PrefixBatch | None = None,
        copies: int = 1,
        **settings: Any,
    ) -> torch.Tensor:
        """Let the LM go on from the rows of a batch, by transformers' own ``generate`` and its
        caches: new token ids [B, T'].

        Args:
            batch: of a causal LM padded on the left, of an encoder-decoder on the right.
            copies: into how many rows ``generate`` makes each (beams, or sampled texts).
            settings: of transformers' ``GenerationConfig``; what the LM's own file says there is
                not used.

        Raises:
            ModelError: the rows' padding would change what is written, or transformers cannot go on
                from embeddings here.
        """
        if self.kind == "causal" and not self.pads_left and not batch.attention.all():
            raise ModelError(
                f"{type(self.model).__name__} answers differently when a row is padded on the "
                "left: let it write for rows of equal length."
            )
        if len(batch.prompts) * copies > 1 and not self.writes_together:
            raise ModelError(
                f"{type(self.model).__name__} mixes up rows that it writes for at once: let it "
                "write one text for one row."
            )
        if batch.decoder_attention is not None and not batch.decoder_attention.all():
            raise ModelError(
                "The decoder's inputs are of different lengths, and it would go on behind their "
                "padding: let it write for equal ones."
            )
        self._check_lengths(batch)
        batch = batch.to(self.device)
        more = {"tokenizer": self.tokens.tokenizer} if "stop_strings" in settings else {}
        if self.kind == "encoder-decoder":
            settings["decoder_start_token_id"] = self.start
        inputs: dict[str, Any] = {
            "attention_mask": batch.attention,
            "inputs_embeds": self._embedded(batch, vectors),
        }
        if self._offset is not None:
            inputs["position_ids"] = self._positions(batch)
        if self.kind == "encoder-decoder":
            with self._prefixed(batch, prefixes, groups=("encoder",)):
                encoded = self.model.get_encoder()(**inputs)
            inputs = {
                "attention_mask": batch.attention,
                "encoder_outputs": encoded,
                "decoder_input_ids": batch.decoder,
            }
        with (
            self._turn,
            self._prefixed(batch, prefixes, copies, ("self", "decoder", "cross")),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings(
                "ignore", message="Passing `no_repeat_ngram_size` with `inputs_embeds`"
            )  # within the text is what is meant
            return self._generate(**inputs, generation_config=GenerationConfig(**settings), **more)

    def _generate(self, **arguments: Any) -> Any:
        try:
            return self._writer().generate(**arguments)
        except (LookupError, TypeError, ValueError) as error:
            raise ModelError(
                f"transformers does not let {type(self.model).__name__} write so: "
                f"{first_line(error)}"
            ) from error

    def _try_writing(self, trial: Trial) -> Capability:
        """Whether text can be written, for rows of equal length in one call as for each alone."""
        if self.kind == "masked":
            return Capability(False, "a masked LM writes no text")
        ids = trial.rows.ids[0].tolist()
        half = len(ids) // 2
        rows = [
            EncodedRow(
                tuple(own),
                (-1,) * half,
                None,
                (0,),
                (self.start,) if self.kind == "encoder-decoder" else None,
            )
            for own in (ids[:half], ids[half : 2 * half])
        ]
        self.writes_together = True  # for now, so that it is tried

        def first_scores(*some: EncodedRow) -> torch.Tensor:
            """The scores of the first tokens that are written [tokens, B, V]."""
            batch = self.collate(
                some,
                [-1] * len(some),
                "left" if self.kind == "causal" and self.pads_left else "right",
            )
            written = self.write(
                batch,
                max_new_tokens=2,
                pad_token_id=self.tokens.pad,
                use_cache=True,
                output_logits=True,
                return_dict_in_generate=True,
            )
            return torch.stack(written.logits)

        try:
            together, *alone = first_scores(*rows), first_scores(rows[0]), first_scores(rows[1])
        except (ModelError, *FAILURES) as error:
            return Capability(False, first_line(error))
        wanted = torch.cat(alone, 1)
        again = torch.equal(
            together[0].argmax(-1), wanted[0].argmax(-1)
        )  # else the second tokens are of other texts
        same = close(together[0], wanted[0]) and (not again or close(together[1], wanted[1]))
        return Capability(
            same,
            ""
            if same
            else "it mixes up rows that it writes for at once, so each is written for alone",
        )

    def _writer(self) -> PreTrainedModel:
        """The same network without habits of decoding of its own (forced tokens, penalties); other
        threads see none of it."""
        writer = copy.copy(self.model)
        writer.generation_config = GenerationConfig()
        return writer

    def _prefixed(
        self,
        batch: Batch,
        prefixes: PrefixBatch | None,
        copies: int = 1,
        groups: Sequence[str] = GROUPS,
    ) -> contextlib.AbstractContextManager[None]:
        """While this is open, the rows have their prefixes, in these groups of attentions at least.

        Raises:
            ModelError: rows have a prefix and none is given, or it did not reach the LM's layers.
        """
        if prefixes is not None:
            return self.route.entering(batch, prefixes.to(self.device), copies, groups)
        if batch.starts is not None or batch.deep is not None:
            raise ModelError("Rows of this batch have a prefix, and its values are not given.")
        return contextlib.nullcontext()

    @property
    def route(self) -> AttentionRoute | LayerRoute:
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

    def _find_route(self, trial: Trial) -> AttentionRoute | LayerRoute | str:
        """How deep prefixes enter this LM, or why they do not."""
        if reason := _without_attention(self.model.config.get_text_config()):
            return reason
        reasons = []

        def run() -> Any:
            return trial.run(one_row(trial.rows, 0))

        for make in (
            lambda: AttentionRoute(self.model, run, self.kind == "causal"),
            lambda: LayerRoute(self.model, run),
        ):
            try:
                route: AttentionRoute | LayerRoute = make()
                trial.check_prefix(route)
                return route
            except (ModelError, *FAILURES) as error:
                reasons.append(
                    (str(error) if isinstance(error, ModelError) else first_line(error)).rstrip(".")
                )
        return "; ".join(reasons)

    def _try_gradients(self, trial: Trial) -> Capability:
        """Whether soft tokens, and a prefix where it enters, get a gradient."""
        try:
            lost = [] if trial.soft_tokens_learn(self.embed) else ["soft tokens"]
            if not isinstance(self._route, str) and not trial.prefix_learns(self._route):
                lost.append("a prefix")
        except FAILURES as error:
            return Capability(False, first_line(error))
        return Capability(
            not lost,
            f"none comes back to {' and '.join(lost)}, as from some quantised LMs" if lost else "",
        )

    def side(self, row: EncodedRow, more: int = 0) -> int:
        """How many of the lengths from which the LM computes otherwise a row, with as many more
        tokens, goes beyond."""
        return bisect.bisect_left(self.switches, len(row.ids) + len(row.prefix) + more)

    def check_room(self, row: EncodedRow, new_tokens: int) -> None:
        """Refuse to write so many tokens behind a row where the LM would compute otherwise midway,
        since what it keeps of the row is then of no use.

        Raises:
            ModelError: it would.
        """
        if self.kind == "causal" and self.side(row) != self.side(row, new_tokens - 1):
            length = len(row.ids) + len(row.prefix)
            raise ModelError(
                f"{type(self.model).__name__} computes otherwise from "
                f"{self.switches[self.side(row)]} tokens on, and {new_tokens} new "
                f"ones behind a row of {length} would go beyond: set max_new_tokens lower, or "
                "shorten the row."
            )

    def check_gradients(self, soft: bool, deep: bool) -> None:
        """See by one backward pass on a trial row that soft tokens, and deep prefixes, get the
        gradient that trains them.

        Raises:
            ModelError: they get none, as from some quantised LMs.
        """
        trial = self._trial()
        lost = ["soft tokens"] if soft and not trial.soft_tokens_learn(self.embed) else []
        if deep and not trial.prefix_learns(self.route):
            lost.append("a prefix")
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
            tuple(ids),
            (-1,) * len(ids),
            None,
            (len(ids) - 1,),
            tuple(ids) if self.kind == "encoder-decoder" else None,
        )
        batch = collate([row], [-1], self.tokens.pad).to(self.device)
        return self.route.activations(lambda: self._run(batch))

    def recompute(self, on: bool) -> None:
        """Gradient checkpointing of every layer, on or off: less memory, a third more time."""
        while self._undo:
            self._undo.pop()()
        if on:
            self._undo += [recompute(layer) for layer in _layers(self.model)]

    def fingerprint(self) -> str:
        """A hash of the LM as it is now: of its config, its tokens and every one of its weights, in
        their number format."""
        return self.record().hash()

    @torch.no_grad()
    def record(self) -> LMRecord:
        """What is known of the LM, to be written beside a prompt; computed anew when a weight has
        changed."""
        weights = [weight for _, weight in named_weights(self.model)]
        state = [
            self._vocabulary_size(),
            len(self.tokens.tokenizer),
            *(weight._version for weight in weights),
        ]
        tuned = any(weight.requires_grad for weight in weights)  # fused optimisers count no version
        if (
            tuned
            or self._recorded is None
            or self._recorded.state != state
            or any(map(is_not, weights, self._recorded.weights()))
        ):
            made = record(self.model, self.tokens.tokenizer, state[0])
            self._recorded = _Recorded(made, state, [weakref.ref(weight) for weight in weights])
        return self._recorded.record

    def difference(self, saved: LMRecord) -> str | None:
        """What this LM has that the LM of a record had not, as the end of the sentence "this LM has
        ..."; None for the same one."""
        with torch.no_grad():
            return difference(saved, self.model, self.tokens.tokenizer, self.record())

    def shape(self) -> str:
        """A hash of the config's numbers and of the size of the vocabulary, by which older prompts
        know their LM."""
        config = {
            k: v
            for k, v in self.model.config.to_dict().items()
            if isinstance(v, int | float)
            and not isinstance(v, bool)
            and not k.endswith("_token_id")
        }
        return hashlib.sha256(
            json.dumps([sorted(config.items()), len(self.tokens.tokenizer)]).encode()
        ).hexdigest()[:16]

    @torch.no_grad()
    def sample(self) -> list[float]:
        """A few embedding values: the same weights have them in any number format, up to its
        rounding (``same_weights``)."""
        rows = torch.linspace(0, self._vocabulary_size() - 1, 32).long()
        return [round(value, 6) for value in self.embed(rows)[:, 0].tolist()]

    def same_weights(self, sample: Sequence[float]) -> bool:
        """Whether a sample was taken from these weights, whatever the number format then and
        now."""
        own, given = torch.tensor(self.sample()), torch.tensor(sample)
        return own.shape == given.shape and torch.allclose(own, given, rtol=2**-8, atol=1e-6)

    def _vocabulary_size(self) -> int:
        return int(
            getattr(self._embeddings, "num_embeddings", None) or self.model.config.vocab_size
        )

    def _run(
        self,
        batch: Batch,
        vectors: torch.Tensor | None = None,
        ids: bool = False,
        packing: Packing | None = None,
        context: Context | None = None,
        **more: Any,
    ) -> Any:
        """One call of the LM on embeddings with the slots filled (with ``ids``, on the token ids),
        its rows packed (those of an encoder-decoder in its encoder), or padded and behind a
        context."""
        inputs: dict[str, Any] = {"attention_mask": batch.attention}
        if ids:
            inputs["input_ids"] = batch.ids
        else:
            inputs["inputs_embeds"] = self._embedded(batch, vectors)
        if batch.types is not None and "token_type_ids" in self._parameters:
            inputs["token_type_ids"] = batch.types
        if self._offset is not None:
            inputs["position_ids"] = self._positions(batch)
        if packing is not None:
            inputs = {name: packing.pack(values) for name, values in inputs.items()}
        if context is not None:
            inputs |= {
                "attention_mask": torch.cat([context.seen, batch.attention], 1),
                self._cache_name: context.cache(),
                "position_ids": inputs["position_ids"] + context.lengths[:, None],
            }
        if "use_cache" in self._parameters:
            more = {"use_cache": context is not None} | more
        with (
            torch.autocast(self.device.type, self.mixed) if self.mixed else contextlib.nullcontext()
        ):
            if batch.decoder is not None:
                if packing is not None:
                    with packed(packing):
                        encoded = self.model.get_encoder()(**inputs).last_hidden_state
                    inputs = {
                        "encoder_outputs": BaseModelOutput(packing.unpack(encoded)),
                        "attention_mask": batch.attention,
                    }
                return self.model(
                    **inputs,
                    decoder_input_ids=batch.decoder,
                    decoder_attention_mask=batch.decoder_attention,
                    **more,
                )
            with packed(packing):
                return self.model(**inputs, **more)

    def _embedded(self, batch: Batch, vectors: torch.Tensor | None) -> torch.Tensor:
        embeddings = self.embed(batch.ids)
        return (
            embeddings
            if vectors is None
            else fill(embeddings, vectors.to(self.device), batch.prompts, batch.soft_slots)
        )

    def _positions(self, batch: Batch) -> torch.Tensor:
        """Position ids [B, T]: padding is not counted, prefix vectors are."""
        positions = (batch.attention.cumsum(-1) - 1).clamp(min=0) + self._offset
        return positions if batch.ahead is None else positions + batch.ahead

    def _count_from(self, offset: int) -> None:
        self._offset = offset

    def _trial(self) -> Trial:
        rows = two_rows(self.tokens, self.start if self.kind == "encoder-decoder" else None).to(
            self.device
        )
        return Trial(
            type(self.model).__name__,
            lambda batch, vectors=None, ids=False: self._run(batch, vectors, ids).logits,
            rows,
            self.tokens.pad,
            self.dtype,
        )

    @torch.no_grad()
    def _try_lengths(self) -> None:
        """See that a short row is answered beside a long one as alone, on both sides of each length
        that the config names. Where it is not, no longer rows are taken."""
        for length in (*_lengths(self.model.config.get_text_config()), *self.switches):
            if (
                length > LONGEST_TRIED
                or self.max_length is not None
                and length + 3 > self.max_length
            ):
                continue
            ids = self._trial().rows.ids[0].tolist()
            texts = [(ids * length)[:size] for size in (length + 3, 4)]
            rows = [
                EncodedRow(tuple(own), (-1,) * len(own), None, (len(own) - 1,)) for own in texts
            ]
            if self.kind == "encoder-decoder":
                rows = [replace(row, answer_positions=(0,), decoder=(self.start,)) for row in rows]
            together = self.read_rows(rows, [-1, -1]).scores
            alone = torch.cat([self.read_rows([row], [-1]).scores for row in rows])
            if not close(together, alone):
                self.max_length = length

    def _find_limit(self) -> int | None:
        limits = [self.tokens.tokenizer.model_max_length]
        if (
            positions := getattr(
                self.model.config.get_text_config(), "max_position_embeddings", None
            )
        ) and positions > 0:
            limits.append(positions - (self._offset or 0))
        known = [limit for limit in limits if limit and limit < 10**6]
        return int(min(known)) if known else None


@torch.no_grad()
def nearest_words(lm: LanguageModel, vectors: torch.Tensor, count: int = 5) -> list[list[str]]:
    """For each vector [P, E] the words of the vocabulary whose embeddings point most nearly the
    same way (cosine)."""
    ids = torch.arange(lm.words)
    rows = torch.nn.functional.normalize(lm.embed(ids).float(), dim=-1)
    likeness = torch.nn.functional.normalize(vectors.to(rows), dim=-1) @ rows.T
    likeness[:, [id_ for id_ in lm.tokens.tokenizer.all_special_ids if id_ < lm.words]] = -torch.inf
    return [
        [lm.tokens.show(i) for i in own]
        for own in likeness.topk(min(count, len(ids))).indices.tolist()
    ]


def _embeddings(model: PreTrainedModel) -> nn.Module:
    """The module that turns the input's token ids into vectors; for an encoder-decoder, the
    encoder's own."""
    owner = model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model
    return owner.get_input_embeddings()


def _start(model: PreTrainedModel) -> int:
    """The token that starts a decoder; 0 where there is none."""
    found = getattr(model.config, "decoder_start_token_id", None)
    if found is None and (generation := getattr(model, "generation_config", None)) is not None:
        found = generation.decoder_start_token_id
    return int(found) if found is not None else 0


def _lengths(config: Any) -> list[int]:
    """The lengths from which an LM may compute otherwise: windows and chunks of attention."""
    names = (
        "sliding_window",
        "attention_chunk_size",
        "local_attention",
        "attention_window",
        "local_radius",
        "window_size",
    )
    given = [getattr(config, name, None) for name in names]
    return sorted(
        {
            length
            for one in given
            for length in (one if isinstance(one, list) else [one])
            if isinstance(length, int) and not isinstance(length, bool) and length > 0
        }
    )


def _without_attention(config: Any) -> str:
    """Why an LM of this config has layers that keep no keys and values, or nothing."""
    kinds = {
        kind
        for name in ("layer_types", "layers_block_type")
        for kind in getattr(config, name, None) or ()
    }
    others = sorted(kind for kind in kinds if "attention" not in kind or "linear" in kind)
    if others:
        return f"some of its layers ({', '.join(others)}) keep a state instead of keys and values"
    return (
        ""
        if getattr(config, "num_attention_heads", None)
        else "its layers keep a state instead of keys and values"
    )


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """The outermost members of the model's lists of layers."""
    lists = [
        (name, part) for name, part in model.named_modules() if isinstance(part, nn.ModuleList)
    ]
    names = [name for name, _ in lists]
    return [
        layer
        for name, part in lists
        if not any(name.startswith(f"{other}.") for other in names)
        for layer in part
    ]
