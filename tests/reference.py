"""The slow, plain way: one row at a time, no padding, vectors put in by a loop, the head on every position."""
import torch

from ptune.model import Example, PromptModel
from ptune.template import Encoded


def log_probs(model: PromptModel, task: int, row: Encoded, batch_vectors: torch.Tensor | None = None) -> torch.Tensor:
    """Log probabilities where the row's answer is read [K, V]."""
    lm, fitted = model.lm, model.tasks[task]
    vectors = batch_vectors if batch_vectors is not None else (model.bank.encoders[fitted.prompt]() if fitted.prompt >= 0 else None)
    embedded = []
    for token, slot in zip(row.ids, row.slots):
        embedded.append(vectors[slot] if slot >= 0 else lm.embed(torch.tensor([token]))[0])
    inputs = {"inputs_embeds": torch.stack(embedded)[None].to(lm.dtype)}
    if row.types is not None and "token_type_ids" in lm.model.forward.__code__.co_varnames:
        inputs["token_type_ids"] = torch.tensor([row.types])
    if row.decoder is not None:
        inputs["decoder_input_ids"] = torch.tensor([row.decoder])
    logits = lm.model(**inputs).logits[0]
    return torch.stack([logits[read] for read in row.reads]).log_softmax(-1)


def loss(model: PromptModel, example: Example) -> torch.Tensor:
    """Minus the log probability of the right answer, among the labels or in the whole vocabulary."""
    fitted = model.tasks[example.task]
    if fitted.task.loss == "vocabulary":
        values = log_probs(model, example.task, example.learn[0])
        return -sum(values[k, token] for k, token in enumerate(example.answer))
    return -label_scores(model, example).log_softmax(0)[example.label]


def label_scores(model: PromptModel, example: Example) -> torch.Tensor:
    """For each label the log of the mean, over its words, of the product of the probabilities of a word's tokens."""
    fitted = model.tasks[example.task]
    own: list[list[torch.Tensor]] = [[] for _ in fitted.verbalizer.labels]
    for ids, owner in zip(fitted.verbalizer.ids, fitted.verbalizer.owners):
        answer = [None] * len(ids) if model.lm.kind == "masked" else [*ids[:-1], None]
        row = fitted.template.encode(example.row, model.lm.tokens, model.lm.kind, model.max_length, answer, model.lm.start)
        values = log_probs(model, example.task, row)
        own[owner].append(torch.stack([values[k, token] for k, token in enumerate(ids)]).sum().exp())
    return torch.stack([torch.stack(words).mean().log() for words in own])
