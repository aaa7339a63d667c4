"""The slow, plain way: one row at a time, no padding, vectors put in by a loop, the head on every
position."""

import contextlib
import inspect
import sys
from collections.abc import Sequence

import torch

from ptune.model.prompt_model import Example, PromptModel
from ptune.prompts.encoders import RowGated
from ptune.template.language import EncodedRow


def log_probs(
    model: PromptModel, task: int, row: EncodedRow, batch_vectors: torch.Tensor | None = None
) -> torch.Tensor:
    """Log probabilities where the row's answer is read [K, V]."""
    lm, fitted = model.lm, model.tasks[task]
    vectors = (
        batch_vectors
        if batch_vectors is not None
        else (model.bank.encoders[fitted.prompt]() if fitted.prompt >= 0 else None)
    )
    embedded = []
    for token, slot in zip(row.ids, row.soft_slots):
        embedded.append(vectors[slot] if slot >= 0 else lm.embed(torch.tensor([token]))[0])
    inputs = {"inputs_embeds": torch.stack(embedded)[None].to(lm.dtype)}
    if row.types is not None and "token_type_ids" in inspect.signature(lm.model.forward).parameters:
        inputs["token_type_ids"] = torch.tensor([row.types])
    if row.decoder is not None:
        inputs |= {
            "decoder_input_ids": torch.tensor([row.decoder]),
            "decoder_attention_mask": torch.ones(1, len(row.decoder)),
        }
    if row.prefix:
        return _with_prefix(model, fitted.prompt, row, inputs)
    logits = lm.model(**inputs).logits[0]
    return torch.stack([logits[read] for read in row.answer_positions]).log_softmax(-1)


def _with_prefix(
    model: PromptModel, prompt: int, row: EncodedRow, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    """The same for a row with a deep prefix: put in front of every layer's keys and values by hand,
    in attention written out plainly; or, where the LM takes layer inputs, written over them slot by
    slot."""
    lm, prefix = model.lm, _own_prefix(model, prompt, row)
    if lm.route.in_text:
        return _with_layer_inputs(lm, prefix, row, inputs)
    text = torch.arange(len(row.ids))
    if lm.forward.offset is not None:
        inputs["position_ids"] = (
            text
            + lm.forward.offset
            + torch.tensor([sum(start <= position for start in row.prefix) for position in text])
        )[None]
    inputs["attention_mask"] = torch.ones(
        1, len(row.ids)
    )  # without one, transformers takes a gap in the positions for two packed texts
    before = lm.model.config._attn_implementation
    lm.model.set_attn_implementation("eager")
    try:
        with by_hand(lm, prefix, row.prefix):
            logits = (
                lm.model(**inputs, use_cache=False).logits[0]
                if "use_cache" in lm.forward.parameters
                else lm.model(**inputs).logits[0]
            )
    finally:
        lm.model.set_attn_implementation(before)
    return torch.stack([logits[read] for read in row.answer_positions]).log_softmax(-1)


def _own_prefix(model: PromptModel, prompt: int, row: EncodedRow) -> torch.Tensor:
    """A prefix [P, W], multiplied by its gates where it has gates that read the row: value by
    value."""
    prefix, lm = model.bank.prefixes[prompt](), model.lm
    gates = getattr(model.bank.prefixes[prompt], "encoder", None)
    if not isinstance(gates, RowGated):
        return prefix
    texts = [lm.embed(torch.tensor([token]))[0].float() for token in row.field_tokens]
    text = sum(texts) / len(texts) / gates.size
    columns = model.bank.prefixes[prompt].reach.nonzero()[:, 0].tolist()
    gated = prefix.clone()
    for column, attention in zip(columns, gates.attentions.tolist()):
        read = (gates.slopes[attention] * text).sum() + gates.openings[attention]
        gated[:, column] = prefix[:, column] * 2 / (1 + torch.exp(-read))
    return gated


@contextlib.contextmanager
def by_hand(lm, prefix: torch.Tensor, starts: tuple[int, ...], blind: Sequence[int] = ()):
    """Every eager attention function of the LM's own file replaced by one that puts the prefix in
    front.

    Args:
        blind: the positions that do not see it.
    """
    file, calls, count = sys.modules[type(lm.model).__module__], [], len(prefix)
    kept = file.eager_attention_forward

    def plain(
        module,
        query,
        key,
        value,
        mask,
        scaling=None,
        softcap=None,
        position_bias=None,
        s_aux=None,
        **_,
    ):
        site = lm.route.sites[len(calls)]
        calls.append(module)
        keys_and_values = prefix[:, site.start : site.end].reshape(count, 2, site.heads, site.size)
        key = torch.cat([keys_and_values[:, 0].transpose(0, 1)[None].to(key.dtype), key], 2)
        value = torch.cat([keys_and_values[:, 1].transpose(0, 1)[None].to(value.dtype), value], 2)
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = (
            query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        )
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if position_bias is not None and site.group != "cross":
            length = query.shape[2]
            owner = next(
                m
                for m in (module, *calls)
                if hasattr(m, "relative_attention_bias") and m.is_decoder == module.is_decoder
            )
            scores = scores + owner.compute_bias(count + length, count + length)[:, :, count:]
        hidden = torch.zeros(query.shape[2], key.shape[2], dtype=torch.bool)
        if site.group == "self":
            for position in range(query.shape[2]):
                for number, start in enumerate(starts):
                    hidden[position, number] = lm.kind == "causal" and position < start
                hidden[position, :count] |= position in blind
        scores = scores.masked_fill(hidden, float("-inf"))
        if mask is not None:
            scores = torch.cat([scores[..., :count], scores[..., count:] + mask], -1)
        if s_aux is not None:  # a score of each head for nothing at all (GPT-OSS)
            scores = torch.cat(
                [scores, s_aux[None, :, None, None].expand(*scores.shape[:3], 1)], -1
            )
        return (scores.softmax(-1)[..., : key.shape[2]] @ value).transpose(1, 2).contiguous(), None

    file.eager_attention_forward = plain
    try:
        yield
    finally:
        file.eager_attention_forward = kept


def _with_layer_inputs(
    lm, prefix: torch.Tensor, row: EncodedRow, inputs: dict[str, torch.Tensor]
) -> torch.Tensor:
    row_out, embedded = row.spelt_out(), iter(inputs["inputs_embeds"][0])
    filler = torch.zeros_like(inputs["inputs_embeds"][0, 0])
    embeds = torch.stack([filler if number >= 0 else next(embedded) for number in row_out.deep])[
        None
    ]

    def over(layer: int):
        def hook(module, arguments):
            hidden = [
                prefix[number, layer * lm.route.size : (layer + 1) * lm.route.size]
                if number >= 0
                else arguments[0][0, position]
                for position, number in enumerate(row_out.deep)
            ]
            return (torch.stack(hidden)[None], *arguments[1:])

        return hook

    handles = [
        layer.register_forward_pre_hook(over(number))
        for number, layer in enumerate(lm.route.layers)
    ]
    try:
        types = {"token_type_ids": torch.tensor([row_out.types])} if row_out.types else {}
        logits = lm.model(inputs_embeds=embeds, **types).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([logits[read] for read in row_out.answer_positions]).log_softmax(-1)


def loss(model: PromptModel, example: Example) -> torch.Tensor:
    """Minus the log probability of the right answer, among the labels or in the whole
    vocabulary."""
    fitted = model.tasks[example.task]
    if fitted.task.loss == "vocabulary":
        values = log_probs(model, example.task, example.learn[0])
        return -sum(values[k, token] for k, token in enumerate(example.answer))
    return -label_scores(model, example).log_softmax(0)[example.label]


def label_scores(model: PromptModel, example: Example) -> torch.Tensor:
    """For each label the log of the mean, over its words, of the product of the probabilities of a
    word's tokens."""
    fitted = model.tasks[example.task]
    word_scores: list[list[torch.Tensor]] = [[] for _ in fitted.verbalizer.labels]
    for ids, owner in zip(fitted.verbalizer.ids, fitted.verbalizer.owners):
        answer = [None] * len(ids) if model.lm.kind == "masked" else [*ids[:-1], None]
        row = fitted.template.encode(
            example.row,
            model.lm.tokens,
            model.lm.kind,
            max_length=model.max_length,
            answer=answer,
            start=model.lm.start,
            keeps_fields=fitted.task.prefix.reads_rows,
        )
        values = log_probs(model, example.task, row)
        word_scores[owner].append(
            torch.stack([values[k, token] for k, token in enumerate(ids)]).sum().exp()
        )
    return torch.stack([torch.stack(words).mean().log() for words in word_scores])
