"""Requests for many prompts over one LM: labels, and texts. PEFT holds one adapter a prompt, and
switches."""

from collections.abc import Callable, Iterator

import peft
import torch

from benchmarks import lms
from benchmarks.side import Work
from benchmarks.training import FLOORS, floor, fronted
from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer
from ptune.model.running.generate import write
from ptune.settings import DecodingConfig

REQUESTS, PROMPTS, SOFT, NEW = 64, 16, 10, 16
WORDS = {"0": "w1", "1": "w2"}


def _requests(alike: bool) -> list[tuple[int, str]]:
    """(prompt, text) of each, the prompts taking turns; ``alike``: of one length for each
    prompt."""
    sizes = lms.lengths(REQUESTS, 20, 40)
    return [
        (number % PROMPTS, text)
        for number, text in enumerate(
            lms.texts(
                [sizes[number % PROMPTS] if alike else sizes[number] for number in range(REQUESTS)]
            )
        )
    ]


def _vectors(width: int) -> torch.Tensor:
    return torch.randn(PROMPTS, SOFT, width, generator=torch.Generator().manual_seed(1)) * 0.1


def _adapters(network: torch.nn.Module, task_type: str) -> peft.PeftModel:
    config = peft.PromptTuningConfig(task_type=task_type, num_virtual_tokens=SOFT)
    wrapped = peft.get_peft_model(network, config, adapter_name="0")
    for number in range(1, PROMPTS):
        wrapped.add_adapter(str(number), config)
    for number, vectors in enumerate(_vectors(network.get_input_embeddings().weight.shape[1])):
        wrapped.prompt_encoder[str(number)].embedding.weight.data.copy_(vectors)
    return wrapped.eval()


def _groups(side: str, requests: list[tuple[int, str]]) -> Iterator[tuple[int, list[int]]]:
    """The requests by number that PEFT takes in one call, and their prompt."""
    if side == "PEFT":
        yield from ((prompt, [number]) for number, (prompt, _) in enumerate(requests))
    else:
        for group in range(PROMPTS):
            yield group, [number for number, (prompt, _) in enumerate(requests) if prompt == group]


def scoring(side: str, device: str, small: bool) -> Work:
    """The scores of two label words."""
    network, tokenizer = lms.lm("bert", device, small)
    requests = _requests(alike=False)
    if side.startswith("PEFT"):
        wrapped = _adapters(network, "FEATURE_EXTRACTION")
        answers = torch.tensor(tokenizer.convert_tokens_to_ids(list(WORDS.values())), device=device)

        @torch.no_grad()
        def theirs() -> list[float]:
            scores_of: dict[int, list[float]] = {}
            for prompt, members in _groups(side, requests):
                wrapped.set_adapter(str(prompt))
                inputs = tokenizer(
                    [f"{requests[number][1]} [MASK]" for number in members],
                    padding=True,
                    return_tensors="pt",
                ).to(device)
                logits = wrapped(
                    input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
                ).logits[:, SOFT:]
                scores = logits[inputs["input_ids"] == tokenizer.mask_token_id].log_softmax(-1)[
                    :, answers
                ]
                scores_of |= dict(zip(members, scores.tolist()))
            return [score for number in range(REQUESTS) for score in scores_of[number]]

        return Work(theirs, theirs, network)
    model = _bank(
        network, tokenizer, f"{{soft:{SOFT}}} {{x}} {{mask}}", Verbalizer.from_words(WORDS)
    )

    def ours() -> list[float]:
        examples = [
            fronted(model.encode(prompt, [{"x": text}], labelled=False)[0])
            for prompt, text in requests
        ]
        return torch.stack(model.scores(examples)).flatten().tolist()

    if side in FLOORS:
        return floor(
            side,
            model,
            [
                fronted(model.encode(prompt, [{"x": text}], labelled=False)[0])
                for prompt, text in requests
            ],
            backward=False,
        )
    return Work(ours, ours, network)


def generation(side: str, device: str, small: bool) -> Work:
    """Sixteen new tokens, the best each time. The lengths are the same for each prompt, since PEFT
    is wrong where it pads on the left."""
    network, tokenizer = lms.lm("gpt2", device, small)
    requests = _requests(alike=True)
    if side.startswith("PEFT"):
        wrapped = _adapters(network, "CAUSAL_LM")

        @torch.no_grad()
        def theirs() -> list[str]:
            text_of = {}
            for prompt, members in _groups(side, requests):
                wrapped.set_adapter(str(prompt))
                inputs = tokenizer(
                    [requests[number][1] for number in members], return_tensors="pt"
                ).to(device)
                ids = wrapped.generate(
                    input_ids=inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    max_new_tokens=NEW,
                    min_new_tokens=NEW,
                    do_sample=False,
                )
                text_of |= dict(
                    zip(
                        members,
                        tokenizer.batch_decode(
                            ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
                        ),
                    )
                )
            return [text_of[number] for number in range(REQUESTS)]

        return Work(theirs, _numbers(theirs), network)
    model = _bank(network, tokenizer, f"{{soft:{SOFT}}} {{x}} {{mask}}", None)
    settings = DecodingConfig(
        max_new_tokens=NEW,
        min_new_tokens=NEW,
        rows=4 if side == "ptune, 4 at once" else DecodingConfig().rows,
    )

    def ours() -> list[str]:
        return write(
            model,
            [
                model.encode(prompt, [{"x": text}], labelled=False, room=NEW)[0]
                for prompt, text in requests
            ],
            settings,
        )

    return Work(ours, _numbers(ours), network)


def _bank(
    network: torch.nn.Module, tokenizer: object, template: str, verbalizer: Verbalizer | None
) -> PromptModel:
    model = PromptModel(LanguageModel(network, tokenizer))
    for number, vectors in enumerate(_vectors(model.lm.width)):
        model.add(Task(str(number), Template.parse(template), verbalizer, encoder="table"))
        model.bank.encoders[number].embedding.weight.data.copy_(vectors)
    return model


def _numbers(write: Callable[[], list[str]]) -> Callable[[], list[float]]:
    """Texts as figures: their words' numbers."""
    return lambda: [float(word[1:]) for text in write() for word in text.split()]
