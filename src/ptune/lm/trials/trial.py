"""What an LM is like, tried on two short rows: whether it takes embeddings, from where it counts
positions, whether padding or later tokens change its answers, and whether prefixes take effect. An
LM that fails is refused with the reason.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ptune.errors import ModelError
from ptune.lm.batch import Batch, collate
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.lm.patches.prefixes.prefix_layer_inputs import LayerRoute
from ptune.lm.source.loading import first_line
from ptune.lm.visibility import BatchVisibility
from ptune.prompts.bank import PrefixBatch
from ptune.template.encoding.visibility import RowVisibility
from ptune.template.language import EncodedRow
from ptune.template.tokenizer import Tokens

Route = AttentionRoute | LayerRoute
# what an LM may raise on what is only tried
FAILURES = (
    AttributeError,
    TypeError,
    ValueError,
    LookupError,
    RuntimeError,
    NotImplementedError,
)


class Run(Protocol):
    """The logits [B, T, V] of one call of the LM, on embeddings with ``vectors`` at the slots or on
    the token ids."""

    def __call__(
        self, batch: Batch, vectors: torch.Tensor | None = None, ids: bool = False
    ) -> torch.Tensor: ...


@dataclass(frozen=True)
class Trial:
    """An LM and two rows to try it on.

    Attributes:
        name: what the LM is called in errors.
        rows: nine tokens of a sentence, and five, which are padded; their last tokens are answered.
        pad: the padding token.
        dtype: the number format of the LM.
        is_quantised: some of its weights are kept in integers, or in a quantiser's form.

    Raises:
        ModelError: by the methods that check, where the LM fails.
    """

    name: str
    run: Run
    rows: Batch
    pad: int
    dtype: torch.dtype
    is_quantised: bool = False

    @torch.no_grad()
    def check_embeddings(self, embed: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """The LM must be the same with embeddings as with token ids, and take vectors that are no
        word's."""
        alone = one_row(self.rows, 0)
        try:
            by_ids = self.run(alone, ids=True)
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            dtype = str(self.dtype).removeprefix("torch.")
            advice = (
                " Mixtures of experts run in float32, bfloat16 and float16: choose one."
                if dtype == "float64"
                else ""
            )
            raise ModelError(
                f"{self.name} does not run here in {dtype}: {first_line(error)}.{advice}"
            ) from error
        try:
            by_vectors = self.run(alone)
        except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
            raise ModelError(
                f"{self.name} does not run on embeddings, so soft tokens cannot enter it: {error}"
            ) from error
        if not close(by_ids, by_vectors):
            raise ModelError(
                f"{self.name} does not compute the same from its embeddings as from token ids, so "
                f"soft tokens would stand in the wrong place. ptune cannot use it."
            )
        positions = torch.arange(alone.ids.shape[1], device=alone.ids.device)
        soft = replace(
            alone,
            soft_slots=torch.where(positions < 2, positions, -1)[None],
            prompts=alone.prompts * 0,
        )
        vectors = 1.5 * embed(alone.ids[:, :2]).float() - 0.5 * embed(alone.ids[:, 1:3]).float()
        try:
            taken = self.run(soft, vectors)
        except (TypeError, ValueError, LookupError, NotImplementedError, RuntimeError) as error:
            raise ModelError(
                f"{self.name} takes the embeddings of its own words only, and soft tokens are no "
                "word's: "
                f"{first_line(error)}"
            ) from error
        if torch.equal(taken, by_vectors):
            raise ModelError(
                f"{self.name} does not notice soft tokens among its embeddings. ptune cannot use "
                "it."
            )

    @torch.no_grad()
    def find_offset(self, count_from: Callable[[int], None]) -> None:
        """Find the position of the first token in the LM's own count; RoBERTa's is 2.
        ``count_from`` sets where runs begin to count."""
        alone = one_row(self.rows, 0)
        default = self.run(alone)
        for offset in range(4):
            count_from(offset)
            try:
                if close(self.run(alone), default):
                    return
            except (IndexError, RuntimeError):
                continue
        raise ModelError(f"{self.name} counts positions in a way that ptune does not know.")

    @torch.no_grad()
    def check_padding(self) -> None:
        """Padding must not change the answers."""
        if not self.same_padded(self.rows):
            reason = "it ignores the attention mask"
            if self.is_quantised:
                reason += (
                    ", or its quantiser rounds each row by the others in its batch, as the 8 bits "
                    "of bitsandbytes do, and neither its 4 bits nor torchao's weight-only forms"
                )
            raise ModelError(
                f"{self.name} answers differently when a row is padded: {reason}. So rows of "
                "different lengths cannot share a batch, and ptune cannot use it."
            )

    @torch.no_grad()
    def check_order(self) -> None:
        """The tokens of a causal LM must not see those behind them."""
        long = one_row(self.rows, 0)
        short = replace(long, ids=long.ids[:, :-1], attention=long.attention[:, :-1])
        if not close(self.run(long)[:, :-1], self.run(short)):
            raise ModelError(
                f"{self.name} is no masked LM, and its tokens see those behind them, so it is no "
                "causal one either. "
                f"ptune does not know where it would put its answer."
            )

    @torch.no_grad()
    def can_pad_left(self) -> bool:
        """Whether padding on the left changes no answer either."""
        rows = self.rows
        shift = int(rows.attention.shape[1] - rows.attention[1].sum())
        columns = (
            rows.columns if rows.decoder is not None else rows.columns + shift * (rows.rows == 1)
        )
        return self.same_padded(
            replace(
                rows,
                ids=_rolled(rows.ids, shift),
                attention=_rolled(rows.attention, shift),
                columns=columns,
            )
        )

    def check_prefix(self, route: Route) -> None:
        """Every layer must take a prefix into account, and only in its own row.

        Raises:
            ModelError: one does not, or the prefix changes another row.
        """
        batch, prefixes = self._prefixed(route)
        logits, gradient = self._gradient(
            batch, prefixes.values, lambda: route.entering(batch, prefixes)
        )
        answers = batch.columns[batch.rows == 0]
        for start, end in route.parts:
            # an LM that loses gradients may take the prefix into account all the same
            if not gradient[..., start:end].any():
                values = prefixes.values.detach().clone()
                values[..., start:end] *= -1
                with torch.no_grad(), route.entering(batch, replace(prefixes, values=values)):
                    if torch.equal(self.run(batch)[0, answers], logits[0, answers]):
                        raise ModelError(
                            f"{self.name} does not take a prefix into account at every layer"
                        )
        with torch.no_grad():  # with gradients attention may be computed otherwise
            with route.entering(batch, prefixes):
                beside = self.run(batch)[1, batch.columns[batch.rows == 1]]
            alone = self.run(one_row(self.rows, 1))[0, -1:]
        if not close(beside, alone):
            raise ModelError(f"a prefix in {self.name} leaks from row to row")

    @torch.no_grad()
    def leak(self, route: AttentionRoute) -> str:
        """Why a token that is hidden from all others is none to them: they compute otherwise where
        another token stands there; or something else is shown or hidden by it. Empty where that
        token alone is hidden."""
        alone = one_row(self.rows, 0)
        place, count = 2, alone.ids.shape[1]
        others = [number for number in range(count) if number != place]
        changed = alone.ids.clone()
        changed[0, place] = abs(int(alone.ids[0, place]) - 1)

        def run(ids: torch.Tensor, rule: int) -> torch.Tensor:
            tokens = tuple((rule, 0) if n == place else (0, rule) for n in range(count))
            row = replace(_encoded(alone), visibility=RowVisibility(tokens, written=(0, rule)))
            hidden = replace(alone, ids=ids, visibility=BatchVisibility.of([row], "right"))
            with route.hiding(hidden):
                return self.run(hidden)

        whole, first, second = self.run(alone), run(alone.ids, 1), run(changed, 1)
        read = slice(None) if alone.decoder is not None else others
        if not close(first[:, read], second[:, read]):
            return "its tokens see others past its mask of attention"
        if torch.equal(first, whole):
            return "its attention takes no mask but its own"
        if not close(run(alone.ids, 0), whole):
            return "it computes otherwise where its mask of attention is given"
        return ""

    def soft_tokens_learn(self, embed: Callable[[torch.Tensor], torch.Tensor]) -> bool:
        """Whether soft tokens get a gradient."""
        batch = one_row(self.rows, 0)
        positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)
        batch = replace(
            batch,
            soft_slots=torch.where(positions < 2, positions, -1)[None],
            prompts=batch.prompts * 0,
        )
        vectors = embed(batch.ids[:, :2]).detach().float().requires_grad_()
        return bool(self._gradient(batch, vectors, contextlib.nullcontext, vectors)[1].any())

    def prefix_learns(self, route: Route) -> bool:
        """Whether a prefix gets a gradient at every layer."""
        batch, prefixes = self._prefixed(route)
        _, gradient = self._gradient(
            batch, prefixes.values, lambda: route.entering(batch, prefixes)
        )
        return all(bool(gradient[..., start:end].any()) for start, end in route.parts)

    def same_padded(self, rows: Batch) -> bool:
        """Whether the second row, which is padded, is answered as alone."""
        padded = self.run(rows)[1, rows.columns[rows.rows == 1]]
        return close(padded, self.run(one_row(rows, 1))[0, -1:])

    def _prefixed(self, route: Route) -> tuple[Batch, PrefixBatch]:
        """The first row with a prefix of two random vectors, and the second without."""
        device = self.rows.ids.device
        first_row, second_row = (_encoded(one_row(self.rows, number)) for number in range(2))
        rows = [replace(first_row, prefix=(0, 0)), second_row]
        if route.in_text:
            rows = [row.spelt_out() for row in rows]
        batch = collate(rows, [0, -1], self.pad).to(device)
        values = (
            torch.randn(1, 2, route.width, generator=torch.Generator().manual_seed(0))
            .to(device, self.dtype)
            .requires_grad_()
        )
        return batch, PrefixBatch(
            values,
            torch.tensor([2], device=device),
            torch.ones(1, route.width, dtype=torch.bool, device=device),
        )

    def _gradient(
        self,
        batch: Batch,
        values: torch.Tensor,
        entering: Callable[[], contextlib.AbstractContextManager[None]],
        vectors: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of a batch, and the gradient that ``values`` get from the first row's answer;
        zeros for none."""
        with torch.enable_grad(), entering():
            logits = self.run(batch, vectors)
            loss = -logits[0, batch.columns[batch.rows == 0]].float().log_softmax(-1)[:, 0].sum()
        gradient = None
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, values, allow_unused=True)
        return logits.detach(), torch.zeros_like(values) if gradient is None else gradient


def two_rows(tokens: Tokens, start: int | None = None) -> Batch:
    """The rows of a trial; ``start`` begins the input of a decoder, where there is one."""
    text = tokens.plain("The capital of Austria, on the Danube, is Vienna.") or [1, 2, 3]
    texts = [tuple(text[i : i + n]) for i, n in ((0, 9), (2, 5))]
    if start is None:
        rows = [EncodedRow(ids, (-1,) * len(ids), None, (len(ids) - 1,)) for ids in texts]
    else:
        rows = [
            EncodedRow(
                ids=ids,
                soft_slots=(-1,) * len(ids),
                types=None,
                answer_positions=(1,),
                decoder=(start, ids[0]),
            )
            for ids in texts
        ]
    return collate(rows, [-1, -1], tokens.pad)


def one_row(batch: Batch, number: int) -> Batch:
    """One row of a batch by itself, without padding."""
    kept = batch.attention[number].bool()
    answers = batch.rows == number
    return Batch(
        ids=batch.ids[number : number + 1, kept],
        attention=batch.attention[number : number + 1, kept],
        soft_slots=batch.soft_slots[number : number + 1, kept],
        prompts=batch.prompts[number : number + 1],
        types=None,
        rows=batch.rows[answers] * 0,
        columns=batch.columns[answers],
        decoder=None if batch.decoder is None else batch.decoder[number : number + 1],
        decoder_attention=None
        if batch.decoder_attention is None
        else batch.decoder_attention[number : number + 1],
    )


def switch_lengths(config: Any) -> tuple[int, ...]:
    """How many positions the longest row of a batch may have before an LM computes otherwise for
    all of its rows, in order. So do ``longrope``'s rotary factors; ``dynamic`` ones change beyond
    the LM's last position only, where no row goes."""
    parameters = getattr(config, "rope_parameters", None) or {}
    kinds = [parameters] if "rope_type" in parameters else list(parameters.values())
    longest = [
        kind.get("original_max_position_embeddings")
        for kind in kinds
        if isinstance(kind, dict) and kind.get("rope_type") == "longrope"
    ]
    return tuple(sorted({int(length) for length in longest if length}))


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal up to the rounding of the LM's number format (many an LM has float32 steps in
    float64)."""
    tolerance = {torch.float64: 1e-5, torch.float32: 1e-3}.get(a.dtype, 0.1)
    spread = b.float().std().clamp(min=1e-6)
    return a.shape == b.shape and bool(((a - b).float().abs().max() / spread) < tolerance)


def _encoded(alone: Batch) -> EncodedRow:
    return EncodedRow(
        ids=tuple(alone.ids[0].tolist()),
        soft_slots=(-1,) * alone.ids.shape[1],
        types=None,
        answer_positions=tuple(alone.columns.tolist()),
        decoder=None if alone.decoder is None else tuple(alone.decoder[0].tolist()),
    )


def _rolled(values: torch.Tensor, shift: int) -> torch.Tensor:
    """The second row moved to the right."""
    return torch.stack([values[0], values[1].roll(shift)])
