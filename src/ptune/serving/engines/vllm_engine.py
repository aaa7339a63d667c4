"""Texts that a vLLM server writes, which runs the same LM in an environment of its own. ptune stays
before it: it knows the prompts, the tokens and whose turn it is, and no request reaches vLLM but
those that are made here. Rows with labels run on ptune's own copy of the LM, as in
``BatchEngine``."""

import base64
import hashlib
import http.client
import io
import json
import pathlib
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import torch

from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.lm.patches.prefixes.attention_route import AttentionRoute
from ptune.model.running.forward import prompt_vectors
from ptune.serving.engines.batch_engine import BatchEngine, More, nobody, note_of, take_token
from ptune.serving.engines.jobs import BatchNote, Job
from ptune.serving.engines.live_text import LiveText
from ptune.serving.problems import Problem, internal
from ptune.serving.vllm import registry
from ptune.template.encoding.encode import EncodedRow

PAUSE = 0.02  # seconds after which rows with labels and further texts get their turn
TRIAL = 4  # tokens by which it is seen that the server has the same LM


class VllmEngine(BatchEngine):
    """Hands texts on to a vLLM server.

    Args:
        tokens: of a batch of labels at most.
        rows: texts that vLLM has at once.
        url: of the server.
        folder: where it reads deep prefixes; None where it reads none.

    Raises:
        ConfigError: no server is there, or it has another LM.
    """

    joins = True

    def __init__(
        self, lm: LanguageModel, tokens: int, rows: int, *, url: str, folder: pathlib.Path | None
    ):
        super().__init__(lm, tokens)
        if lm.kind != "causal":
            raise ConfigError(f"--engine vllm: {type(lm.model).__name__} is no causal LM.")
        self.rows, self.folder = rows, folder
        self.server = _Server(url)
        self._pool = ThreadPoolExecutor(rows, thread_name_prefix="vllm")
        self._check_lm()

    def prepare(self, job: Job) -> None:
        """Tokenise a job's row.

        Raises:
            ConfigError: vLLM cannot write for this prompt, or so, with the reason.
        """
        super().prepare(job)
        if job.settings is not None and (reason := self._refusal(job)):
            raise ConfigError(f"{reason}, which --engine vllm does not do.")

    def text_batch(self, jobs: Sequence[Job]) -> list[Job]:
        """All that there is room for."""
        return list(jobs[: self.rows])

    def write(self, jobs: Sequence[Job], between: Callable[[], None], more: More = nobody) -> None:
        """Let the texts of jobs be written, and of those that come meanwhile."""
        running: dict[Future[None], Job] = {}

        def begin(job: Job) -> None:
            note = note_of([*running.values(), job])
            running[self._pool.submit(self._follow, job, self._request(job), note)] = job

        for job in jobs:
            begin(job)
        while running:
            for done in wait(running, PAUSE, FIRST_COMPLETED).done:
                del running[done]
            between()
            while len(running) < self.rows and (joining := more(lambda job: True)) is not None:
                begin(joining)

    def _refusal(self, job: Job) -> str:
        settings, row = job.settings, job.examples[0].fills[0]
        assert settings is not None
        if settings.copies > 1 or len(job.examples) > 1:
            return "Several texts, beams and ensembles are written together"
        if settings.no_repeat_ngram or settings.banned:
            return "no_repeat_ngram and banned look at what was written"
        if row.visibility:
            return "The prompt hides tokens from others (visibility)"
        if any(row.prefix) or (row.prefix and max(row.soft_slots) >= 0):
            return "The prompt has a prefix behind its text's beginning, or soft tokens beside one"
        if job.loaded.model.tasks[job.examples[0].task].task.prefix.reads_rows:
            return "The prompt has gates that read each row (prefix.gates: row)"
        if row.prefix and self.folder is None:
            return "The prompt has a deep prefix, and --vllm-prefixes names no folder for it"
        if row.prefix and not isinstance(self.lm.route, AttentionRoute):
            return "The prompt's prefix stands in layer inputs"
        return ""

    def _request(self, job: Job) -> dict[str, Any]:
        """What vLLM is asked. Salt and prefix are set here and by nobody else: without a salt one
        prompt's rows would be read from what another's left in the cache."""
        settings, example = job.settings, job.examples[0]
        assert settings is not None
        request = self._row(job.loaded.model, example.task, example.fills[0])
        request |= {"max_tokens": settings.max_new_tokens, "min_tokens": settings.min_new_tokens}
        if settings.sample:
            request |= {
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "top_k": settings.top_k,
                "seed": settings.seed,
            }
        return request

    @torch.no_grad()
    def _row(self, model: Any, task: int, row: EncodedRow) -> dict[str, Any]:
        learned = prompt_vectors(model, [task])
        if row.prefix:
            assert learned.prefixes is not None and self.folder is not None
            route = self.lm.route
            assert isinstance(route, AttentionRoute)
            name = registry.put(self.folder, route.sites, learned.prefixes.values[0])
            ids = [row.ids[0]] * len(row.prefix) + list(row.ids)
            asked = {"prompt": ids, "kv_transfer_params": {"prefix": name}, "cache_salt": name}
        elif max(row.soft_slots) >= 0:
            assert learned.vectors is not None
            batch = self.lm.collate([row], [0])
            vectors = self.lm.forward.embed_batch(batch, learned.vectors)[0].cpu().contiguous()
            content = io.BytesIO()
            torch.save(vectors.clone(), content)
            salt = hashlib.sha256(learned.vectors.cpu().numpy().tobytes()).hexdigest()
            encoded = base64.b64encode(content.getvalue()).decode()
            asked = {"prompt_embeds": encoded, "cache_salt": salt}
        else:
            asked = {"prompt": list(row.ids), "cache_salt": "none"}
        return asked | {"temperature": 0.0, "stop_token_ids": self.lm.ends}

    def _follow(self, job: Job, request: dict[str, Any], note: BatchNote) -> None:
        """Take a text's tokens as they come; in a thread of the pool."""
        assert job.settings is not None
        text = LiveText(job.loaded.model, job.settings.max_new_tokens, job.settings.stop)
        try:
            for token in self.server.tokens(request):
                take_token(job, text, token, note)
                if text.end is not None or not job.is_wanted:
                    return
            take_token(job, text, self.lm.end, note)
        except Problem as problem:
            job.fail(problem)
        except Exception:
            job.fail(internal())

    def _check_lm(self) -> None:
        """See that the server has the same LM.

        Raises:
            ConfigError: it continues a row otherwise.
        """
        ids = self.lm.trial_rows().ids[0].tolist()
        row = EncodedRow(tuple(ids), (-1,) * len(ids), None, (len(ids) - 1,))
        settings: dict[str, Any] = {"max_new_tokens": TRIAL, "pad_token_id": self.lm.tokens.pad}
        batch = self.lm.collate([row], [-1], "left")
        ours = self.lm.write(batch, eos_token_id=self.lm.ends, **settings)[0].tolist()
        asked = {"prompt": ids, "max_tokens": TRIAL, "temperature": 0.0, "cache_salt": "none"}
        try:
            theirs = list(self.server.tokens(asked))
        except Problem as problem:
            raise ConfigError(f"--engine vllm: {problem.detail}") from problem
        if theirs != ours[: len(theirs)] or not theirs:
            raise ConfigError(
                f"--engine vllm: the server at {self.server.url} has another LM than "
                f"{self.lm.source or type(self.lm.model).__name__}, or runs it in another format "
                "of numbers: it continues a row otherwise."
            )


class _Server:
    """vLLM's interface over HTTP.

    Raises:
        ConfigError: there is none at this address.
    """

    def __init__(self, url: str):
        self.url = url
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--vllm-url should be like http://127.0.0.1:8001, and is {url!r}.")
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self._connect = lambda: kinds[parts.scheme](str(parts.hostname), parts.port, timeout=600)
        try:
            self.model = self._models()[0]["id"]
        except (OSError, LookupError, ValueError, http.client.HTTPException) as error:
            raise ConfigError(f"No vLLM server answers at {url}: {error}") from error

    def _models(self) -> Any:
        connection = self._connect()
        try:
            connection.request("GET", "/v1/models")
            return json.loads(connection.getresponse().read())["data"]
        finally:
            connection.close()

    def tokens(self, request: dict[str, Any]) -> Iterator[int]:
        """The tokens that are written for a request, as they come.

        Raises:
            Problem: the server fails, or refuses.
        """
        asked = {"model": self.model, "stream": True, "return_token_ids": True} | request
        connection = self._connect()
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps(asked), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise _failed(f"it answered with status {response.status}")
            for line in response:
                event = line.decode().strip().removeprefix("data: ")
                if event == "[DONE]":
                    return
                if event:
                    yield from _tokens_of(json.loads(event))
        except (OSError, http.client.HTTPException) as error:
            raise _failed(type(error).__name__) from error
        finally:
            connection.close()


def _tokens_of(event: dict[str, Any]) -> list[int]:
    choice = (event.get("choices") or [{}])[0]
    if "error" in event or choice.get("finish_reason") == "error":
        raise _failed("it could not write this text")
    return choice.get("token_ids") or []


def _failed(reason: str) -> Problem:
    return Problem(502, "The engine failed", f"The vLLM server behind this one failed: {reason}.")
