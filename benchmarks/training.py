"""Training steps: forward, backward, and the optimiser's step on the prompt alone."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import peft
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from benchmarks import lms
from benchmarks.side import Work
from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer
from ptune.lm.patches.cpu.onednn_linear import multiply
from ptune.model.prompt_model import Example

SOFT = 9
FLOORS = ("floor", "floor, oneDNN")
OPEN = contextlib.ExitStack()  # as long as the process


def cloze(rows: int) -> Callable[[str, str, bool], Work]:
    """A word of the whole vocabulary at the mask; nine soft tokens by a BiLSTM and an MLP."""

    def build(side: str, device: str, small: bool) -> Work:
        network, tokenizer = lms.lm("bert", device, small)
        texts = lms.texts(lms.lengths(rows, 18, 32))
        labels = [f"w{i}" for i in range(rows)]
        config = peft.PromptEncoderConfig(
            task_type="FEATURE_EXTRACTION",
            num_virtual_tokens=SOFT,
            encoder_reparameterization_type="LSTM",
            encoder_hidden_size=network.config.hidden_size // 2,
            encoder_num_layers=2,
            encoder_dropout=0.0,
        )
        wrapped = peft.get_peft_model(network, config)
        theirs = _as_the_paper(wrapped.prompt_encoder["default"])
        if side == "PEFT":
            inputs = tokenizer(
                [f"{text} [MASK]" for text in texts], padding=True, return_tensors="pt"
            ).to(device)
            ids = inputs["input_ids"]
            targets = torch.where(
                ids == tokenizer.mask_token_id,
                torch.tensor(tokenizer.convert_tokens_to_ids(labels), device=device)[:, None],
                -100,
            )

            def loss() -> torch.Tensor:
                logits = wrapped(input_ids=ids, attention_mask=inputs["attention_mask"]).logits[
                    :, SOFT:
                ]
                return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

            return work(
                network,
                loss,
                [p for p in theirs.parameters() if p.requires_grad],
                wrapped.get_prompt(1)[0],
            )
        model = PromptModel(LanguageModel(network, tokenizer))
        task = Task(
            "cloze",
            Template.parse(f"{{soft:{SOFT}}} {{x}} {{mask}}"),
            Verbalizer.from_words({word: word for word in labels}),
            loss="vocabulary",
            encoder="lstm",
        )
        number = model.add(task)
        _take(model.bank.encoders[0], theirs)
        examples = [
            fronted(example)
            for example in model.encode(
                number, [{"x": x, "label": y} for x, y in zip(texts, labels)]
            )
        ]
        if side in FLOORS:
            return floor(side, model, examples)
        return work(
            network,
            lambda: model.losses(examples).mean(),
            list(model.bank.parameters()),
            model.bank.encoders[0](),
        )

    return build


def spread(side: str, device: str, small: bool) -> Work:
    """One epoch over rows of very different lengths."""
    network, tokenizer = lms.lm("bert", device, small)
    rows, size, soft = 32, 8, 20
    texts = lms.texts(lms.lengths(rows, 16 - 3, 256 - 3 - soft))
    labels = [str(i % 2) for i in range(rows)]
    words = {"0": "w1", "1": "w2"}
    start = (
        torch.randn(soft, network.config.hidden_size, generator=torch.Generator().manual_seed(1))
        * 0.02
    )
    if side == "PEFT":
        wrapped = peft.get_peft_model(
            network,
            peft.PromptTuningConfig(task_type="FEATURE_EXTRACTION", num_virtual_tokens=soft),
        )
        weight = wrapped.prompt_encoder["default"].embedding.weight
        weight.data.copy_(start)
        answers = torch.tensor(tokenizer.convert_tokens_to_ids(list(words.values())), device=device)
        batches = [
            tokenizer(
                [f"{text} [MASK]" for text in texts[start_row : start_row + size]],
                padding=True,
                return_tensors="pt",
            ).to(device)
            for start_row in range(0, rows, size)
        ]
        targets = torch.tensor([int(label) for label in labels], device=device).split(size)

        def batch_loss(number: int) -> torch.Tensor:
            ids = batches[number]["input_ids"]
            logits = wrapped(
                input_ids=ids, attention_mask=batches[number]["attention_mask"]
            ).logits[:, soft:]
            return nn.functional.cross_entropy(
                logits[ids == tokenizer.mask_token_id].log_softmax(-1)[:, answers], targets[number]
            )

        return work(network, batch_loss, [weight], weight, rows // size)
    model = PromptModel(LanguageModel(network, tokenizer))
    number = model.add(
        Task(
            "spread",
            Template.parse(f"{{soft:{soft}}} {{x}} {{mask}}"),
            Verbalizer.from_words(words),
            loss="labels",
            encoder="table",
        )
    )
    weight = model.bank.encoders[0].embedding.weight
    weight.data.copy_(start)
    examples = [
        fronted(example)
        for example in model.encode(number, [{"x": x, "label": y} for x, y in zip(texts, labels)])
    ]
    if side in FLOORS:
        return floor(side, model, examples)
    return work(
        network,
        lambda number: model.losses(examples[number * size : (number + 1) * size]).mean(),
        [weight],
        weight,
        rows // size,
    )


def prefix(side: str, device: str, small: bool) -> Work:
    """A text of 20 tokens behind 40; keys and values for 10 tokens at every layer, by an MLP."""
    network, tokenizer = lms.lm("gpt2", device, small)
    rows, count, hidden = 10, 10, 512
    inputs, outputs = (
        lms.texts(lms.lengths(rows, 30, 50)),
        lms.texts(lms.lengths(rows, 15, 25, 1), 1),
    )
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=count,
        prefix_projection=True,
        encoder_hidden_size=hidden,
    )
    wrapped = peft.get_peft_model(network, config)
    theirs = _seeded(wrapped.prompt_encoder["default"])
    if side == "PEFT":
        full = tokenizer(
            [f"{x} {y} [SEP]" for x, y in zip(inputs, outputs)], padding=True, return_tensors="pt"
        ).to(device)
        labels = full["input_ids"].clone()
        for row, (x, y) in enumerate(zip(inputs, outputs)):
            labels[row, : len(x.split())] = -100
            labels[row, len(x.split()) + len(y.split()) + 1 :] = -100
        values = theirs(torch.arange(count, device=device)[None])[0]
        return work(
            network,
            lambda: wrapped(**full, labels=labels).loss,
            [p for p in theirs.parameters() if p.requires_grad],
            values,
        )
    model = PromptModel(LanguageModel(network, tokenizer))
    number = model.add(
        Task(
            "prefix",
            Template.parse(f"{{prefix:{count}}} {{x}} {{mask}}"),
            None,
            prefix=replace(Task.prefix, hidden=hidden),
        )
    )
    examples = model.encode(number, [{"x": x, "label": y} for x, y in zip(inputs, outputs)])
    if side in FLOORS:
        return floor(side, model, examples)
    encoder = model.bank.prefixes[0].encoder
    for mine, other in ((encoder.embedding, theirs.embedding), (encoder.mlp, theirs.transform)):
        mine.load_state_dict(other.state_dict())
    answers = sum(len(example.answer) for example in examples)
    return work(
        network,
        lambda: model.losses(examples).sum() / answers,
        list(model.bank.parameters()),
        encoder(),
    )


def prompt_tuning(side: str, device: str, small: bool) -> Work:
    """An answer of two words and the end to 40 to 80 words."""
    network, tokenizer = lms.lm("t5", device, small)
    rows, soft = 16, 20
    sources, targets = lms.texts(lms.lengths(rows, 40, 80)), lms.texts([2] * rows, 1)
    start = (
        torch.randn(soft, network.config.d_model, generator=torch.Generator().manual_seed(1)) * 0.02
    )
    if side == "PEFT":
        wrapped = peft.get_peft_model(
            network, peft.PromptTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=soft)
        )
        table = wrapped.prompt_encoder["default"].embedding.weight  # twice as many as are used
        table.data[:soft].copy_(start)
        inputs = tokenizer(sources, padding=True, return_tensors="pt").to(device)
        labels = tokenizer(targets, return_tensors="pt")["input_ids"].to(device)
        return work(network, lambda: wrapped(**inputs, labels=labels).loss, [table], table[:soft])
    model = PromptModel(LanguageModel(network, tokenizer))
    number = model.add(Task("t5", Template.parse(f"{{soft:{soft}}} {{x}}"), None, encoder="table"))
    weight = model.bank.encoders[0].embedding.weight
    weight.data.copy_(start)
    examples = model.encode(number, [{"x": x, "label": y} for x, y in zip(sources, targets)])
    if side in FLOORS:
        return floor(side, model, examples)
    return work(network, lambda: model.losses(examples).sum() / (3 * rows), [weight], weight)


def bank(prompts: int) -> Callable[[str, str, bool], Work]:
    """P-tuning prompts, each with eight rows of its own: all in one batch, or one after the
    other."""

    def build(side: str, device: str, small: bool) -> Work:
        network, tokenizer = lms.lm("bert", device, small)
        size = 8
        model = PromptModel(LanguageModel(network, tokenizer))
        template, batches = Template.parse(f"{{soft:{SOFT}}} {{x}} {{mask}}"), []
        for number in range(prompts):
            words = {f"w{i}": f"w{i}" for i in range(size)}
            model.add(
                Task(
                    str(number),
                    template,
                    Verbalizer.from_words(words),
                    loss="vocabulary",
                    encoder="lstm",
                )
            )
            texts = lms.texts(lms.lengths(size, 18, 32, number), number)
            batches.append(
                model.encode(number, [{"x": x, "label": y} for x, y in zip(texts, words)])
            )
        if side in FLOORS:
            return floor(side, model, [example for batch in batches for example in batch])
        if side == "together":
            batches = [[example for batch in batches for example in batch]]
        optimiser = torch.optim.AdamW(model.bank.parameters(), lr=1e-3, fused=True)

        def step() -> None:
            for batch in batches:
                model.backward(batch, [1.0] * len(batch))
            optimiser.step()
            optimiser.zero_grad()

        def proof() -> list[float]:
            losses = torch.cat([model.backward(batch, [1.0] * len(batch)) for batch in batches])
            gradients = [
                encoder.embedding.weight.grad.norm().item() for encoder in model.bank.encoders
            ]
            optimiser.zero_grad()
            return losses.tolist() + gradients

        return Work(step, proof, network)

    return build


def context(side: str, device: str, small: bool) -> Work:
    """Soft tokens behind a long text, which PEFT cannot have; a plain call of transformers can.
    What is kept of the text is there before the steps that are timed, as it is from the second
    epoch on."""
    network, tokenizer = lms.lm("gpt2", device, small)
    rows, soft = 8, 8
    texts, labels = lms.texts(lms.lengths(rows, 180, 220)), [str(i % 2) for i in range(rows)]
    words = {"0": "w1", "1": "w2"}
    start = (
        torch.randn(soft, network.config.n_embd, generator=torch.Generator().manual_seed(1)) * 0.1
    )
    if side == "transformers":
        vectors = nn.Parameter(start.to(device))
        inputs = tokenizer(texts, padding=True, return_tensors="pt").to(device)
        embeddings, seen = (
            network.get_input_embeddings()(inputs["input_ids"]),
            inputs["attention_mask"],
        )
        ends, width = seen.sum(1), seen.shape[1] + soft
        columns = torch.arange(width, device=device)
        soft_slots = columns - ends[:, None]
        inside = (soft_slots >= 0) & (soft_slots < soft)
        wide = torch.cat([embeddings, embeddings.new_zeros(rows, soft, embeddings.shape[2])], 1)
        attention = (columns < ends[:, None] + soft).long()
        answers = torch.tensor(tokenizer.convert_tokens_to_ids(list(words.values())), device=device)
        targets = torch.tensor([int(label) for label in labels], device=device)

        def loss() -> torch.Tensor:
            filled = torch.where(inside[..., None], vectors[soft_slots.clamp(0, soft - 1)], wide)
            logits = network(inputs_embeds=filled, attention_mask=attention).logits
            return nn.functional.cross_entropy(
                logits[torch.arange(rows, device=device), ends + soft - 1].log_softmax(-1)[
                    :, answers
                ],
                targets,
            )

        return work(network, loss, [vectors], vectors)
    model = PromptModel(LanguageModel(network, tokenizer))
    number = model.add(
        Task(
            "context",
            Template.parse(f"{{x}} {{soft:{soft}}} {{mask}}"),
            Verbalizer.from_words(words),
            loss="labels",
            encoder="table",
        )
    )
    weight = model.bank.encoders[0].embedding.weight
    weight.data.copy_(start)
    examples = model.encode(number, [{"x": x, "label": y} for x, y in zip(texts, labels)])
    if side != "ptune, nothing kept":
        OPEN.enter_context(
            model.lm.keeping_contexts(
                [row for example in examples for row in example.learn], megabytes=1024
            )
        )
        model.losses(examples)
    return (
        floor(side, model, examples)
        if side in FLOORS
        else work(network, lambda: model.losses(examples).mean(), [weight], weight)
    )


def work(
    network: nn.Module,
    loss: Callable[..., torch.Tensor],
    parameters: Sequence[nn.Parameter],
    vectors: torch.Tensor,
    batches: int = 0,
) -> Work:
    """A training step, or one for each of some batches; proved by the losses and by the gradient,
    through the prompt's encoder, of its first parameter."""
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    calls = [(number,) for number in range(batches)] or [()]

    def step() -> None:
        for call in calls:
            loss(*call).backward()
            optimiser.step()
            optimiser.zero_grad()

    def proof() -> list[float]:
        values: list[float] = vectors.detach().flatten()[:8].tolist()
        for call in calls:
            value = loss(*call)
            gradients = torch.autograd.grad(value, parameters)
            values += [value.item(), gradients[0].norm().item()]
        return values

    return Work(step, proof, network)


def floor(
    side: str, model: PromptModel, examples: Sequence[Example], backward: bool = True
) -> Work:
    """The products of the LM's linear layers for these rows without any padding, and those that
    carry the gradient back."""
    product = {"floor": lambda rows, weight: torch.mm(rows, weight.T), "floor, oneDNN": multiply}[
        side
    ]
    counts: dict[nn.Module, int] = {}
    linear = [m for m in model.lm.model.modules() if isinstance(m, nn.Linear | Conv1D)]
    hooks = [
        m.register_forward_pre_hook(
            lambda m, arguments: counts.update(
                {m: counts.get(m, 0) + arguments[0].shape[:-1].numel()}
            )
        )
        for m in linear
    ]
    with torch.no_grad():
        for example in examples:
            model.losses([example]) if backward else model.scores([example])
    for hook in hooks:
        hook.remove()
    weights = [
        (m.weight if isinstance(m, nn.Linear) else m.weight.T, count) for m, count in counts.items()
    ]  # [out, in]
    inputs = [
        torch.randn(count, weight.shape[1], device=weight.device) for weight, count in weights
    ]

    def step() -> None:
        for (weight, _), rows in zip(weights, inputs):
            out = product(rows, weight)
            if backward:
                product(out, weight.T)

    return Work(step, positions=counts[linear[0]])


def fronted(example: Example) -> Example:
    """The soft tokens before the first special token, where PEFT has them."""

    def front(row: Any) -> Any:
        order = sorted(range(len(row.ids)), key=lambda position: row.soft_slots[position] < 0)
        return replace(
            row,
            ids=tuple(row.ids[position] for position in order),
            soft_slots=tuple(row.soft_slots[position] for position in order),
            types=None,
        )

    return replace(
        example, fills=tuple(map(front, example.fills)), learn=tuple(map(front, example.learn))
    )


def _seeded(encoder: Any) -> Any:
    """A prompt encoder with weights that do not hang on the process."""
    torch.manual_seed(2)
    for parameter in encoder.parameters():
        parameter.data.copy_(torch.randn(parameter.shape) * 0.05)
    return encoder


def _as_the_paper(encoder: Any) -> Any:
    """PEFT's encoder of P-tuning, its one linear layer too many set to do nothing."""
    _seeded(encoder)
    for extra in [m for m in encoder.mlp_head if isinstance(m, nn.Linear)][1:-1]:
        nn.init.eye_(extra.weight)
        nn.init.zeros_(extra.bias)
    return encoder


def _take(ours: Any, theirs: Any) -> None:
    linears = [m for m in theirs.mlp_head if isinstance(m, nn.Linear)]
    ours.embedding.load_state_dict(theirs.embedding.state_dict())
    ours.lstm.load_state_dict(theirs.lstm_head.state_dict())
    for mine, other in zip((ours.mlp[0], ours.mlp[2]), (linears[0], linears[-1])):
        mine.load_state_dict(other.state_dict())
