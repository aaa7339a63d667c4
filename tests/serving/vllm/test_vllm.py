"""vLLM with prompts: mixed requests are as one by one, and what would be wrong in silence is told.
``PTUNE_VLLM=FOLDER`` names an environment that ``scripts/vllm_env.sh`` has made."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.request

import pytest
import serving_kit
import tiny
import torch
from serving_kit import TEXTS
from transformers import LlamaForCausalLM

from ptune import PromptModel, Task, Template, load, save
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.task import PrefixSettings
from ptune.prompts.bank import PrefixBatch
from ptune.serving.engines.jobs import Job
from ptune.serving.options import ServeConfig
from ptune.serving.problems import Problem
from ptune.serving.server import PromptServer
from ptune.serving.vllm import registry
from ptune.settings import DecodingConfig
from ptune.template.encoding.encode import EncodedRow

NEW = 8
HERE = pathlib.Path(__file__).parent
ENVIRONMENT = os.environ.get("PTUNE_VLLM")
needs_vllm = pytest.mark.skipif(
    ENVIRONMENT is None, reason="PTUNE_VLLM names no environment with vLLM (scripts/vllm_env.sh)"
)


def wide_llama() -> LanguageModel:
    """A tiny Llama with heads of a size that vLLM takes."""
    model, tokenizer = tiny.tiny("llama")
    shape = {
        "max_position_embeddings": 256,
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    config = type(model.config)(**model.config.to_dict() | shape)
    torch.manual_seed(0)
    wide = LlamaForCausalLM(config).eval()
    for parameter in wide.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.15)
    return LanguageModel(wide, tokenizer)


def environment() -> dict[str, str]:
    source = HERE.parents[2] / "src" / "ptune" / "serving" / "vllm"
    space = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {**os.environ, "PYTHONPATH": str(source), **space}


def plain(ids) -> EncodedRow:
    return EncodedRow(tuple(ids), (-1,) * len(ids), None, (len(ids) - 1,))


@pytest.fixture(scope="module")
def contract(tmp_path_factory):
    """What vLLM answers, the task, and what each row is alone."""
    folder = tmp_path_factory.mktemp("vllm")
    lm = wide_llama()
    lm.save(folder / "lm")
    generator = torch.Generator().manual_seed(1)
    requests, deep, alone = [], [], []

    def written(row, vectors=None, prefixes=None):
        settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "pad_token_id": lm.tokens.pad}
        return lm.write(lm.collate([row], [0], "left"), vectors, prefixes, **settings)[0].tolist()

    text = list(range(20, 34))
    for length in (20, 32, 40):
        values = torch.randn(1, length, lm.route.width, generator=generator)
        reach = torch.ones(1, lm.route.width, dtype=torch.bool)
        prefixes = PrefixBatch(values, torch.tensor([length]), reach)
        name = registry.put(folder / "registry", lm.route.sites, values[0])
        deep.append({"embeds": None, "prefix": name, "ids": [text[0]] * length + text})
        row = EncodedRow(**{**vars(plain(text)), "prefix": (0,) * length})
        alone.append(written(row, None, prefixes))
    for number in range(2):
        vectors = torch.randn(1, 5, lm.width, generator=generator) * 0.2
        row = EncodedRow((0,) * 5 + tuple(text), (*range(5), *(-1,) * 14), None, (18,))
        embeds = lm.forward.embed_batch(lm.collate([row], [0]), vectors)[0].detach()
        torch.save(embeds.clone(), folder / f"{number}.pt")
        requests.append({"embeds": f"{number}.pt", "prefix": None, "ids": None})
        alone.append(written(row, vectors))
    requests = [*deep, *requests, {"embeds": None, "prefix": None, "ids": text}]
    alone.append(written(plain(text)))
    secret = folder / "secret.safetensors"
    secret.write_bytes(next((folder / "registry").iterdir()).read_bytes())
    wrong = ["../secret", str(secret), "0" * 64]
    task = {"new": NEW, "requests": requests, "deep": deep, "wrong names": wrong}
    (folder / "task.json").write_text(json.dumps(task))
    run = [f"{ENVIRONMENT}/bin/python", str(HERE / "vllm_contract.py"), str(folder)]
    one_process = environment() | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    done = subprocess.run(run, env=one_process, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads((folder / "result.json").read_text()), task, alone


@needs_vllm
def test_six_mixed_requests_are_as_one_by_one(contract):
    result, _, alone = contract
    assert result["mixed"] == alone
    assert result["again"] == alone and result["after"] == alone
    assert result["one by one"] == alone
    assert len({tuple(tokens) for tokens in alone}) == 6


@needs_vllm
def test_trap_without_a_salt_another_prefix_answers(contract):
    """Why the gateway sends one with every request."""
    result, _, alone = contract
    assert result["without salt"] != [*alone[:3], *alone[:3]]


@needs_vllm
def test_trap_prompt_logprobs_leave_the_prefix_aside(contract):
    """Why it asks for none: they are of the placeholders, unless the cache is read all the same."""
    result, _, _ = contract
    assert result["logprobs"] != result["logprobs, read"]


@needs_vllm
def test_trap_a_name_is_no_path_and_an_unknown_one_writes_nothing(contract):
    result, task, alone = contract
    for name in task["wrong names"]:
        reason, tokens = result[f"name {name}"]
        assert tokens != alone[0] and reason == "error", name


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """ptune before a vLLM server of its own."""
    folder = tmp_path_factory.mktemp("gateway")
    lm = wide_llama()
    lm.save(folder / "lm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    transfer = {
        "kv_connector": "PrefixConnector",
        "kv_role": "kv_both",
        "kv_connector_module_path": "ptune_connector",
        "kv_connector_extra_config": {"registry": str(folder / "registry")},
        "kv_load_failure_policy": "fail",
    }
    command = [f"{ENVIRONMENT}/bin/python", "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder / "lm"), "--port", str(port), "--dtype", "float32"]
    command += ["--max-model-len", "128", "--enforce-eager", "--enable-prompt-embeds"]
    command += ["--block-size", "32", "--kv-transfer-config", json.dumps(transfer)]
    log = folder / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment()) as server,
    ):
        try:
            paths = save_prompts(lm, folder)
            yield started(lm, paths, f"http://127.0.0.1:{port}", folder / "registry", server, log)
        finally:
            server.terminate()


def save_prompts(lm, folder):
    """Prompts with soft tokens, with prefixes, with neither, and with a prefix that vLLM cannot
    have."""
    paths = []
    templates = {
        "soft": "{soft:4} {x} :",
        "deep": "{prefix:33} {x} :",
        "other": "{prefix:40} {x} :",
        "bare": "{x} is",
        "infix": "{x} {prefix:2} is",
    }
    for number, (name, template) in enumerate(templates.items()):
        model = PromptModel(lm)
        decoding = DecodingConfig(max_new_tokens=NEW)
        parsed = Template.parse(f"{template} {{mask}}")
        task = Task(name, parsed, encoder="table", prefix=PrefixSettings(0), decoding=decoding)
        model.add(task)
        torch.manual_seed(number)
        for parameter in model.bank.parameters():
            torch.nn.init.normal_(parameter, 0, 0.7)
        save(model, folder / name)
        paths.append(folder / name)
    return paths


def started(lm, paths, url, registry_folder, server, log):
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/health", timeout=5)
            break
        assert server.poll() is None, log.read_text()[-5000:]
        time.sleep(0.5)
    return lm, paths, url, registry_folder


@needs_vllm
def test_texts_through_the_gateway_are_as_each_row_alone(gateway):
    lm, paths, url, registry_folder = gateway
    settings = {"engine": "vllm", "vllm_url": url, "vllm_prefixes": registry_folder}
    server = PromptServer(ServeConfig(prompts=tuple(paths), **settings))
    try:
        server.start(lm)
        jobs = [
            Job(path.name, {"x": text}, decoding={}) for text in TEXTS for path in paths[:4] * 2
        ]
        for job in jobs:
            server.scheduler.submit([job])
        for job in jobs:
            model = load(next(path for path in paths if path.name == job.prompt), lm)
            assert job.answer.result(120).texts == model.generate([job.row]), job.prompt
        stopped = Job("deep", {"x": TEXTS[0]}, decoding={"max_new_tokens": 2})
        refused = Job("infix", {"x": TEXTS[0]}, decoding={})
        for job in (stopped, refused):
            server.scheduler.submit([job])
        assert stopped.answer.result(60).ends == ["length"]
        with pytest.raises(Problem, match="has a prefix behind its text's beginning"):
            refused.answer.result(60)
    finally:
        server.scheduler.abandon()
        server.close()


def test_no_server_and_no_address_are_told(prompts):
    for url, reason in (("http://127.0.0.1:9", "No vLLM server answers"), ("ftp://x", "like http")):
        server = PromptServer(
            ServeConfig(prompts=(prompts / "letter",), engine="vllm", vllm_url=url)
        )
        try:
            with pytest.raises(ConfigError, match=reason):
                server.start(serving_kit.lm())
        finally:
            server.close()
