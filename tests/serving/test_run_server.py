"""``ptune serve`` in a process of its own, and what it refuses before it begins."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from ptune.cli import main
from ptune.serving.access import hash_of

SOURCE = pathlib.Path(__file__).parents[2] / "src"


def fetch(url, body=None):
    headers = {"Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.loads(answer.read())


@contextlib.contextmanager
def running(*options):
    """A server in a process of its own; it lives before the LM is loaded."""
    command = [sys.executable, "-m", "ptune", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    try:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        assert fetch(f"{url}/health") == {"status": "alive"}
        wait_until_ready(url)
        yield url, process
    finally:
        process.kill()
        process.communicate()


def test_a_newcomer_sees_it_run_and_sigterm_ends_it():
    """Without arguments it serves the prompts that come with ptune, and ends with status 0."""
    with running() as (url, process):
        models = fetch(f"{url}/v1/models")["data"]
        assert [model["id"] for model in models] == ["continents", "currencies", "languages"]
        rows = [{"prompt": model["id"], "fields": {"country": "Brazil"}} for model in models]
        answers = fetch(f"{url}/v1/classify", {"rows": rows})["answers"]
        labels = [answer["label"] for answer in answers]
        assert labels == ["America", "real", "portuguese"]
        run_the_guide(url, "needs the server", 6, r"Africa|portuguese|America|continents")
        with ThreadPoolExecutor() as pool:
            body = {"rows": rows * 60, "top": 1}
            in_progress = pool.submit(fetch, f"{url}/v1/classify", body)
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            assert len(in_progress.result()["answers"]) == 180
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "Brazil" not in log and "POST /v1/classify 200" in log


def test_a_prompt_that_writes_comes_with_its_lm():
    with running("--lm", "builtin-causal") as (url, _):
        run_the_guide(url, "needs that server", 1, r"Kenya.*Nairobi|Nairobi.*Kenya")


def run_the_guide(url, needs, count, answer):
    """What docs/serving.md asks the server that it has started."""
    text = (SOURCE.parent / "docs" / "serving.md").read_text(encoding="utf-8")
    asked = re.findall(rf"<!-- {needs} -->\n```(sh|python)\n(.*?)```", text, re.S)
    assert len(asked) == count
    programs = {"sh": ["sh", "-c"], "python": [sys.executable, "-c"]}
    for language, block in asked:
        if language == "sh" and shutil.which("curl") is None:
            continue
        command = [*programs[language], block.replace("http://127.0.0.1:8000", url)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert re.search(answer, done.stdout), done.stdout
        assert '"status"' not in done.stdout


def environment():
    return {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}


def wait_until_ready(url):
    for _ in range(600):
        try:
            return fetch(f"{url}/ready")
        except urllib.error.HTTPError as error:
            assert error.code == 503
            time.sleep(0.1)
    raise TimeoutError


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--host", "0.0.0.0"], "--tokens FILE"),
        (["nothing-there"], "nothing-there"),
        (["--lm", "bert-base-cased"], "No prompt comes with ptune for the LM bert-base-cased"),
        (["--bank", "nothing-there"], "There is no folder nothing-there"),
        (["--tokens", "nothing-there"], "nothing-there cannot be read"),
        (["--host", "256.1.1.1", "--open"], "cannot listen at 256.1.1.1"),
    ],
)
def test_what_is_at_fault_is_told_before_anything_is_loaded(options, reason, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["serve", *options])
    assert ended.value.code == 2 and reason in capsys.readouterr().err


def test_a_port_that_is_taken(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit) as ended:
            main.main(["serve", "--port", port])
    assert ended.value.code == 2 and f"port {port}" in capsys.readouterr().err


def test_a_prompt_for_another_lm_ends_it_with_the_reason(prompts, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["serve", str(prompts / "film"), "--lm", "builtin", "--port", "0"])
    assert ended.value.code == 2 and "was trained for" in capsys.readouterr().err


def test_a_new_token_and_its_lines(capsys):
    main.main(["serve", "--new-token", "it's"])
    printed = capsys.readouterr().out
    token = re.search(r"ptune-\S+", printed)[0]
    assert hash_of(token) in printed and "name: 'it''s'" in printed


def test_without_the_packages_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        main.main(["serve"])
    assert ended.value.code == 2 and "pip install 'ptune[serve]'" in capsys.readouterr().err
