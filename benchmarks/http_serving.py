"""Requests over HTTP for many prompts over one LM: 64 clients at once, each with a request of its
own. PEFT stands behind the same FastAPI and holds one adapter a prompt; "no prompts" is ptune's
server with templates that have nothing to learn, which is what the LM alone takes."""

import asyncio
import json
import pathlib
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
from benchmarks.serving import NEW, PROMPTS, REQUESTS, SOFT, WORDS, _adapters, _requests, _vectors
from benchmarks.side import Work
from ptune import LanguageModel, PromptModel, Task, Template, Verbalizer, save
from ptune.serving.http.app import create_app
from ptune.serving.http.schemas import ClassifyRequest, CompletionRequest
from ptune.serving.options import ServeConfig
from ptune.serving.server import PromptServer
from ptune.settings import DecodingConfig

MANY = 1000
Request = tuple[str, dict[str, Any]]
"""A path and a body."""
FREE = DecodingConfig(max_new_tokens=NEW)
DECODING = DecodingConfig(max_new_tokens=NEW, min_new_tokens=NEW)


def labels(side: str, device: str, small: bool) -> Work:
    """The probabilities of two label words."""

    def read(answer: dict[str, Any]) -> list[float]:
        scores = answer["answers"][0]["scores"]
        return [scores[label] for label in WORDS]

    return _work(side, device, small, "/v1/classify", _classify, read)


def texts(side: str, device: str, small: bool) -> Work:
    """Sixteen new tokens, the best each time."""

    def read(answer: dict[str, Any]) -> list[float]:
        return [float(word[1:]) for word in answer["choices"][0]["text"].split()]

    return _work(side, device, small, "/v1/completions", _complete, read)


def mixed(clients: int, prompts: int) -> Callable[[str, str, bool], Work]:
    """Requests for labels and texts side by side, of 5 to 120 words, 4 to 24 tokens to write."""

    def build(side: str, device: str, small: bool) -> Work:
        network, tokenizer = lms.lm("gpt2", device, small)
        texts = lms.texts(lms.lengths(clients, 5, 120))
        new = lms.lengths(clients, 4, 24, seed=1)
        requests: list[Request] = []
        for number, text in enumerate(texts):
            prompt = str(2 * (number * 7 % (prompts // 2)) + number % 2)
            if number % 2:
                requests.append(("/v1/completions", _complete(prompt, text, new[number])))
            else:
                requests.append(("/v1/classify", _classify(prompt, text)))
        if side == "PEFT":
            app: Any = _peft_app(network, tokenizer, device, grouped=False)
        else:
            words_of = [Verbalizer.from_words(WORDS), None]
            app = _our_app(side, network, tokenizer, words_of, FREE, prompts)
        waits: list[float] = []

        def step() -> list[dict[str, Any]]:
            return asyncio.run(_ask_all(app, requests, waits))

        def proof() -> list[float]:
            return [figure for answer in step() for figure in _figures(answer)]

        return Work(step, None if side == "no prompts" else proof, network, waits=waits)

    return build


def _figures(answer: dict[str, Any]) -> list[float]:
    if "answers" in answer:
        return [answer["answers"][0]["scores"][label] for label in WORDS]
    return [float(word[1:]) for word in answer["choices"][0]["text"].split()]


def _classify(prompt: str, text: str) -> dict[str, Any]:
    return {"rows": [{"prompt": prompt, "fields": {"x": text}}]}


def _complete(prompt: str, text: str, new: int = 0) -> dict[str, Any]:
    return {"model": prompt, "prompt": text} | ({"max_tokens": new} if new else {})


def _work(
    side: str,
    device: str,
    small: bool,
    path: str,
    body: Callable[[str, str], dict[str, Any]],
    read: Callable[[dict[str, Any]], list[float]],
) -> Work:
    network, tokenizer = lms.lm("gpt2", device, small)
    requests = _requests(alike=True)
    if side.startswith("PEFT"):
        app: Any = _peft_app(network, tokenizer, device, grouped=side == "PEFT, grouped")
    else:
        verbalizer = Verbalizer.from_words(WORDS) if path == "/v1/classify" else None
        prompts = MANY if side == "ptune, 1,000 prompts" else PROMPTS
        app = _our_app(side, network, tokenizer, [verbalizer], prompts=prompts)
    many = side == "ptune, 1,000 prompts"
    numbers = [number * 15 if many else prompt for number, (prompt, _) in enumerate(requests)]
    asked = [(path, body(str(number), text)) for number, (_, text) in zip(numbers, requests)]
    waits: list[float] = []

    def step() -> list[dict[str, Any]]:
        return asyncio.run(_ask_all(app, asked, waits))

    def proof() -> list[float]:
        return [figure for answer in step() for figure in read(answer)]

    no_proof = many or side == "no prompts"
    return Work(step, None if no_proof else proof, network, waits=waits)


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
    decoding: DecodingConfig = DECODING,
    prompts: int = PROMPTS,
) -> Any:
    """ptune's server.

    Args:
        words: of the prompts in turn; None for one that writes.
    """
    lm = LanguageModel(network, tokenizer)
    soft = 0 if side == "no prompts" else SOFT
    template = f"{{soft:{soft}}} {{x}} {{mask}}" if soft else "{x} {mask}"
    folder = pathlib.Path(tempfile.mkdtemp())
    for number, vectors in enumerate(_vectors(lm.width)):
        model = PromptModel(lm)
        of_prompt = words[number % len(words)]
        task = Task(str(number), Template.parse(template), of_prompt, encoder="table")
        model.add(Task(**{**vars(task), "decoding": decoding}))
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
    """PEFT's adapters in one thread, a request at a time, or all that wait for one adapter. What is
    asked is named by how many tokens are written, at least and at most; none for labels."""

    def __init__(self, network: Any, tokenizer: Any, device: str, grouped: bool):
        self.network = _adapters(network, "CAUSAL_LM")
        self.tokenizer, self.device, self.grouped = tokenizer, device, grouped
        self.waiting: list[tuple[tuple[int, int], str, str, Future[Any]]] = []
        self.changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self, kind: tuple[int, int], prompt: str, text: str) -> Future[Any]:
        future: Future[Any] = Future()
        with self.changed:
            self.waiting.append((kind, prompt, text, future))
            self.changed.notify()
        return future

    def _run(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: bool(self.waiting))
                taken = self.waiting[:1]
                if self.grouped:
                    taken = [one for one in self.waiting if one[:2] == taken[0][:2]]
                self.waiting = [one for one in self.waiting if one not in taken]
            answers = self._answers(taken[0][0], taken[0][1], [text for _, _, text, _ in taken])
            for (*_, future), answer in zip(taken, answers):
                future.set_result(answer)

    @torch.no_grad()
    def _answers(self, kind: tuple[int, int], prompt: str, texts: list[str]) -> list[Any]:
        self.network.set_adapter(prompt)
        inputs = self.tokenizer(texts, return_tensors="pt").to(self.device)
        ids = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        if kind == (0, 0):
            words = self.tokenizer.convert_tokens_to_ids(list(WORDS.values()))
            return self.network(**ids).logits[:, -1, words].softmax(-1).tolist()
        written = self.network.generate(
            **ids, min_new_tokens=kind[0], max_new_tokens=kind[1], do_sample=False
        )
        new = written[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(new, skip_special_tokens=True)


def _peft_app(network: Any, tokenizer: Any, device: str, grouped: bool) -> FastAPI:
    adapters, app = _Adapters(network, tokenizer, device, grouped), FastAPI()

    @app.post("/v1/classify")
    async def classify(body: ClassifyRequest) -> dict[str, Any]:
        row = body.rows[0]
        shares = await asyncio.wrap_future(adapters.ask((0, 0), row.prompt, row.fields["x"]))
        return {"answers": [{"prompt": row.prompt, "scores": dict(zip(WORDS, shares))}]}

    @app.post("/v1/completions")
    async def complete(body: CompletionRequest) -> dict[str, Any]:
        new = (0, body.max_tokens) if body.max_tokens else (NEW, NEW)
        text = await asyncio.wrap_future(adapters.ask(new, body.model, str(body.prompt)))
        return {"choices": [{"index": 0, "text": text}]}

    return app
