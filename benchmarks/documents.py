"""Training steps of documents' prefixes (``ptune distil``): beside PEFT's cartridge, which begins
as the same keys and values and learns from the same slices; and several documents together."""

from collections.abc import Sequence

import peft
import torch

from benchmarks import lms
from benchmarks.side import Work
from benchmarks.training import FLOORS, floor, work
from ptune import LanguageModel, PromptModel
from ptune.documents import train_documents
from ptune.documents.options import DistilConfig
from ptune.documents.read_documents import Document
from ptune.documents.teaching import lessons
from ptune.model.prompt_model import Example
from ptune.settings import part_of

TOKENS, LENGTH, SLICES = 400, 40, 8
DOCUMENTS = 4


def taught(count: int, device: str, small: bool) -> tuple[PromptModel, list[Sequence[Example]]]:
    """Documents with their prefixes at their starts, and eight slices of each, of which the LM has
    said how they go on."""
    model = PromptModel(LanguageModel(*lms.lm("gpt2", device, small)))
    config = DistilConfig(documents=["pages"], lm="gpt2", length=LENGTH, cover=1)
    teaching = part_of(lessons.Teaching, config)
    batches = []
    for number, text in enumerate(lms.texts([TOKENS] * count)):
        one = lessons.plan(teaching, model.lm, Document(str(number), text, "pages"), [])
        task = train_documents.add(teaching, model, one)
        learned, _ = lessons.rows(teaching, model, task, lessons=one, kept=None)
        batches.append(model.encode(task, learned[:SLICES]))
    return model, batches


def cartridge(side: str, device: str, small: bool) -> Work:
    """A step of one document."""
    model, (examples,) = taught(1, device, small)
    if side in FLOORS:
        return floor(side, model, examples)
    if side == "ptune":
        parameters = list(model.bank.parameters())
        network = model.lm.model
        return work(network, lambda: model.losses(examples).mean(), parameters, parameters[0])
    network, tokenizer = lms.lm("gpt2", device, small)
    config = peft.CartridgeConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=LENGTH, num_frozen_tokens=0
    )
    wrapped = peft.get_peft_model(network, config)
    encoder = wrapped.prompt_encoder["default"]
    encoder.load_prompt_embeddings(model.bank.prefixes[0]().detach())
    texts = [{"input_ids": list(example.taught.ids)} for example in examples]
    inputs = tokenizer.pad(texts, padding_side="right", return_tensors="pt").to(device)
    task = model.tasks[0].task

    def loss() -> torch.Tensor:
        log_probs = wrapped(**inputs).logits.log_softmax(-1)
        losses = [
            example.loss(log_probs[row, list(example.taught.places)], task)
            for row, example in enumerate(examples)
        ]
        return torch.stack(losses).mean()

    return work(network, loss, [encoder.trainable_embedding], encoder.trainable_embedding)


def bank(side: str, device: str, small: bool) -> Work:
    """A step of each of four documents: all in one batch, or one after the other."""
    model, batches = taught(DOCUMENTS, device, small)
    every = [example for batch in batches for example in batch]
    if side in FLOORS:
        return floor(side, model, every)
    if side == "together":
        batches = [every]
    parameters = list(model.bank.parameters())
    optimiser = torch.optim.Adam(parameters, lr=5e-3, fused=True)

    def losses() -> torch.Tensor:
        return torch.cat([model.backward(batch, [1.0] * len(batch)) for batch in batches])

    def step() -> None:
        losses()
        optimiser.step()
        optimiser.zero_grad()

    def proof() -> list[float]:
        values = losses().tolist() + [values.grad.norm().item() for values in parameters]
        optimiser.zero_grad()
        return values

    return Work(step, proof, model.lm.model)
