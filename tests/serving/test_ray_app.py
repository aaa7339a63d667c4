"""Several replicas behind Ray Serve answer as one server does; skipped where Ray is absent."""

import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
import serving_kit

from ptune.errors import ConfigError
from ptune.serving.ray_app import build, prompt_of


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("/v1/classify", {"rows": [{"prompt": "film", "fields": {}}, {"prompt": "city"}]}, "film"),
        ("/v1/completions", {"model": "deep", "prompt": "Rome"}, "deep"),
        ("/v1/attention", {"prompt": "film", "fields": {}}, "film"),
        ("/v1/prompts/a%20b", None, "a b"),
        ("/v1/words/film", None, "film"),
        ("/v1/classify", {"rows": []}, ""),
        ("/v1/classify", {"rows": [3]}, ""),
        ("/v1/classify", [1], ""),
        ("/v1/completions", {"model": 4}, ""),
        ("/v1/models", None, ""),
    ],
)
def test_the_prompt_of_a_request(path, body, name):
    assert prompt_of(path, b"" if body is None else json.dumps(body).encode()) == name


def test_no_json_has_no_prompt():
    assert prompt_of("/v1/classify", b"{") == prompt_of("/v1/classify", b"\xff") == ""


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"replicas": "0"}, "replicas is a number of servers"),
        ({"port": 80}, "port is not an option of a replica"),
        ({"rows": 0}, "rows: "),
        ({"row": 1}, "row: "),
    ],
)
def test_options_that_cannot_be(args, text):
    with pytest.raises(ConfigError, match=text):
        build(args)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'ptune\[ray-serve\]'"):
        build({})


def ask(port, path, body=None, method=None):
    """Status and content."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


REQUESTS = [
    ("/v1/classify", {"rows": [{"prompt": "film", "fields": {"x": "Rome"}}]}),
    ("/v1/classify", {"rows": [{"prompt": "city", "fields": {"x": "Rome"}}], "top": 1}),
    ("/v1/completions", {"model": "deep", "prompt": "Vienna"}),
    ("/v1/classify", {"rows": [{"prompt": "film", "fields": {"y": "Rome"}}]}),
    ("/v1/completions", {"model": "nothing", "prompt": "Vienna"}),
    ("/v1/attention", {"prompt": "film", "fields": {"x": "Rome"}}),
    ("/v1/models", None),
]
OF_TIME = ("id", "created")


def comparable(content):
    """Without what changes with time, and numbers to five digits behind the point."""
    document = json.loads(content, parse_float=lambda text: round(float(text), 5))
    return {name: value for name, value in document.items() if name not in OF_TIME}


@pytest.mark.slow
def test_two_replicas_answer_as_one_server(prompts, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    serve = pytest.importorskip("ray.serve")
    folder = tmp_path / "lm"
    serving_kit.lm().save(folder)
    port = 8000 + os.getpid() % 1000
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        names = ("film", "city", "deep")
        args = {"prompts": [str(prompts / name) for name in names], "lm": str(folder)}
        serve.run(build({**args, "replicas": 2}))
        with serving_kit.serving(*(prompts / name for name in names)) as (_, client):
            wanted = [
                client.post(path, json=body) if body else client.get(path)
                for path, body in REQUESTS
            ]
        for _ in range(3):
            check_equal(port, wanted)
        killed = kill_a_replica()
        check_equal(port, wanted)
        end = time.monotonic() + 120
        while killed in (now := pids_of_replicas()) or len(now) < 2:
            assert time.monotonic() < end, "no replica came back"
            time.sleep(1)
        check_equal(port, wanted)
        stream = {"model": "deep", "prompt": "Vienna", "stream": True}
        _, content = ask(port, "/v1/completions", stream)
        pieces = [json.loads(line[6:]) for line in content.split(b"\n\n") if line[:7] == b"data: {"]
        text = "".join(piece["choices"][0]["text"] for piece in pieces)
        assert text == wanted[2].json()["choices"][0]["text"]
    finally:
        serve.shutdown()
        ray.shutdown()


def check_equal(port, wanted):
    """To rounding, as rows of other batches are."""
    for (path, body), right in zip(REQUESTS, wanted):
        status, content = ask(port, path, body)
        assert status == right.status_code, content
        assert comparable(content) == comparable(right.content)


def pids_of_replicas():
    """By the names that Ray gives to processes."""
    kind = "PtuneReplica"
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if kind in "".join(process.info["cmdline"] or ())[:200]
    }


def kill_a_replica():
    pids = pids_of_replicas()
    assert len(pids) == 2, pids
    os.kill(min(pids), signal.SIGKILL)
    return min(pids)
