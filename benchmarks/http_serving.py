"""Requests over HTTP for many prompts over one LM: many clients at once, each with a request of its
own. PEFT stands behind the same FastAPI and holds one adapter a prompt; "grouped" it answers all
that wait for one adapter at once, which it can where padding behind a row changes nothing, in
masked LMs. "no prompts" is ptune's server with templates that have nothing to learn, which is what
the LM alone takes, and "ten words" is the same with ten ordinary words where the ten soft tokens
are."""

import asyncio
import contextlib
import json
import pathlib
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import httpx2
import torch
from fastapi import FastAPI

from benchmarks import lms
from benchmarks.serving import NEW, PROMPTS, REQUESTS, SOFT, WORDS, _adapters, _vectors
from benchmarks.side import Work
from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer, save
from ptune.serving.http.app import create_app
from ptune.serving.http.schemas import ClassifyRequest, CompletionRequest
from ptune.serving.options import ServeConfig
from ptune.serving.server import PromptServer
from ptune.settings import DecodingConfig

Request = tuple[str, dict[str, Any]]
"""A path and a body."""
FREE = DecodingConfig(max_new_tokens=NEW)
TEN_WORDS = " ".join(f"w{number}" for number in range(10, 10 + SOFT))


def load(
    shape: str, clients: int, prompts: int, kinds: Sequence[str]
) -> Callable[[str, str, bool], Work]:
    """Requests of 5 to 120 words, 4 to 24 tokens to write, of as many clients, all at once.

    Args:
        kinds: of the clients in turn: "labels" or "texts"; the prompts take turns likewise.
    """

    def build(side: str, device: str, small: bool) -> Work:
        around = "$A [SEP]" if shape == "minilm" else None  # PEFT's soft tokens stand at the front
        network, tokenizer = lms.lm(shape, device, small, around)
        count = PROMPTS if side == "ptune, 16 prompts" else prompts
        texts = lms.texts(lms.lengths(clients, 5, 120))
        if side == "no prompts, ten words":
            texts = [f"{TEN_WORDS} {text}" for text in texts]
        new = lms.lengths(clients, 4, 24, seed=1)
        requests: list[Request] = []
        for number, text in enumerate(texts):
            kind = number % len(kinds)
            prompt = str(len(kinds) * (number * 7 % (count // len(kinds))) + kind)
            if kinds[kind] == "texts":
                requests.append(("/v1/completions", _complete(prompt, text, new[number])))
            else:
                requests.append(("/v1/classify", _classify(prompt, text)))
        if side.startswith("PEFT"):
            app: Any = _peft_app(network, tokenizer, device, grouped=side == "PEFT, grouped")
        else:
            words_of = [
                Verbalizer.from_words(WORDS) if kind == "labels" else None for kind in kinds
            ]
            app = _our_app(side, network, tokenizer, words_of, prompts=count)
        waits: list[float] = []

        def step() -> list[dict[str, Any]]:
            return asyncio.run(_ask_all(app, requests, waits))

        def proof() -> list[float]:
            return [figure for answer in step() for figure in _figures(answer)]

        alike = side in ("ptune", "PEFT", "PEFT, grouped", "ptune, continuous")
        counted = (
            network if kinds == ["labels"] and clients < 100 else None
        )  # positions, a step more
        return Work(step, proof if alike else None, counted, waits=waits)

    return build


def _figures(answer: dict[str, Any]) -> list[float]:
    if "answers" in answer:
        return [answer["answers"][0]["scores"][label] for label in WORDS]
    return [float(word[1:]) for word in answer["choices"][0]["text"].split()]


def _classify(prompt: str, text: str) -> dict[str, Any]:
    return {"rows": [{"prompt": prompt, "fields": {"x": text}}]}


def _complete(prompt: str, text: str, new: int) -> dict[str, Any]:
    return {"model": prompt, "prompt": text, "max_tokens": new}


async def _ask_all(app: Any, requests: list[Request], waits: list[float]) -> list[dict[str, Any]]:
    """The answers of as many clients as there are requests, all at once."""
    began = time.perf_counter()
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

        async def ask(path: str, body: dict[str, Any]) -> Any:
            answer = await client.post(path, json=body, timeout=600)
            waits.append(time.perf_counter() - began)
            return answer

        answers = await asyncio.gather(*(ask(*request) for request in requests))
    for answer in answers:
        answer.raise_for_status()
    return [json.loads(answer.content) for answer in answers]


def _our_app(
    side: str,
    network: Any,
    tokenizer: Any,
    words: Sequence[Verbalizer | None],
    *,
    prompts: int,
) -> Any:
    """ptune's server.

    Args:
        words: of the prompts in turn; None for one that writes.
    """
    lm = LanguageModel(network, tokenizer)
    soft = 0 if side.startswith("no prompts") else SOFT
    template = f"{{soft:{soft}}} {{x}} {{mask}}" if soft else "{x} {mask}"
    folder = pathlib.Path(tempfile.mkdtemp())
    for number, vectors in enumerate(_vectors(lm.width)):
        model = PromptModel(lm)
        of_prompt = words[number % len(words)]
        task = Task(str(number), Template.parse(template), of_prompt, encoder="table")
        model.add(Task(**{**vars(task), "decoding": FREE}))
        if soft:
            model.bank.encoders[0].embedding.weight.data.copy_(vectors)
        save(model, folder / str(number))
    for number in range(PROMPTS, prompts):
        shutil.copytree(folder / str(number % PROMPTS), folder / str(number))
    engine = "continuous" if side.endswith("continuous") else "batch"
    server = PromptServer(ServeConfig(bank=folder, rows=REQUESTS, timeout=3600, engine=engine))
    server.start(lm)
    return create_app(server)


class _Adapters:
    """PEFT's adapters in one thread, a request at a time, or all labels that wait for one adapter.
    What is asked is named by how many tokens are written at most; none for labels."""

    def __init__(self, network: Any, tokenizer: Any, device: str, grouped: bool):
        self.is_masked = network.config.model_type == "bert"
        self.network = _adapters(network, "FEATURE_EXTRACTION" if self.is_masked else "CAUSAL_LM")
        self.tokenizer, self.device, self.grouped = tokenizer, device, grouped
        self.waiting: queue.SimpleQueue[tuple[int, str, str, Future[Any]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self, new: int, prompt: str, text: str) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.put((new, prompt, text, future))
        return future

    def _run(self) -> None:
        waiting: list[tuple[int, str, str, Future[Any]]] = []
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    waiting.append(self.waiting.get(block=not waiting))
            new, prompt = waiting[0][:2]
            taken = [one for one in waiting if one[:2] == (new, prompt)]
            taken = taken if self.grouped and not new else waiting[:1]
            waiting = [one for one in waiting if one not in taken]
            texts = [text for _, _, text, _ in taken]
            answers = [self._written(new, prompt, texts[0])] if new else self._read(prompt, texts)
            for (*_, future), answer in zip(taken, answers):
                future.set_result(answer)

    @torch.no_grad()
    def _read(self, prompt: str, texts: list[str]) -> list[list[float]]:
        """The probabilities of the label words."""
        mask = " [MASK]" if self.is_masked else ""
        inputs = self._inputs(prompt, [text + mask for text in texts])
        words = self.tokenizer.convert_tokens_to_ids(list(WORDS.values()))
        logits = self.network(**inputs).logits
        lengths = inputs["attention_mask"].sum(1)
        # the mask stands before the separator; the soft tokens stand at the front
        places = lengths - inputs["input_ids"].shape[1] - (2 if self.is_masked else 1)
        rows = torch.arange(len(texts))
        return logits[rows, places][:, words].softmax(-1).tolist()

    @torch.no_grad()
    def _written(self, new: int, prompt: str, text: str) -> str:
        inputs = self._inputs(prompt, [text])
        written = self.network.generate(**inputs, max_new_tokens=new, do_sample=False)
        length = inputs["input_ids"].shape[1]
        return str(self.tokenizer.decode(written[0, length:], skip_special_tokens=True))

    def _inputs(self, prompt: str, texts: list[str]) -> dict[str, torch.Tensor]:
        self.network.set_adapter(prompt)
        padding = len(texts) > 1
        inputs = self.tokenizer(texts, return_tensors="pt", padding=padding).to(self.device)
        return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}


def _peft_app(network: Any, tokenizer: Any, device: str, grouped: bool) -> FastAPI:
    adapters, app = _Adapters(network, tokenizer, device, grouped), FastAPI()

    @app.post("/v1/classify")
    async def classify(body: ClassifyRequest) -> dict[str, Any]:
        row = body.rows[0]
        shares = await asyncio.wrap_future(adapters.ask(0, row.prompt, row.fields["x"]))
        return {"answers": [{"prompt": row.prompt, "scores": dict(zip(WORDS, shares))}]}

    @app.post("/v1/completions")
    async def complete(body: CompletionRequest) -> dict[str, Any]:
        new = body.max_tokens or NEW
        text = await asyncio.wrap_future(adapters.ask(new, body.model, str(body.prompt)))
        return {"choices": [{"index": 0, "text": text}]}

    return app
