"""Tokens: who may use which prompt, and how often; what is unknown and what is forbidden look
alike."""

import hmac
import logging
import threading

import pytest
import serving_kit

from ptune.errors import ConfigError
from ptune.serving import access
from ptune.serving.access import Access, hash_of, new_token, read_tokens
from ptune.serving.problems import Problem

ENTRIES = """\
- name: shop
  sha256: {shop}
  prompts: [film, "let*"]
- name: slow
  sha256: {slow}
  rows_per_minute: 3
- name: prometheus
  sha256: {prometheus}
  prompts: []
  metrics: true
"""


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens.yaml"
    path.write_text(ENTRIES.format(**{n: hash_of(n) for n in ("shop", "slow", "prometheus")}))
    return path


@pytest.fixture(scope="module")
def served(prompts, tokens):
    paths = [prompts / name for name in serving_kit.TEMPLATES]
    with serving_kit.serving(*paths, tokens=tokens, log_texts=False) as both:
        yield both


def ask(client, token, prompt, rows=1, path="/v1/classify"):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    body = {"rows": [{"prompt": prompt, "fields": {"x": "Rome"}}] * rows}
    if path != "/v1/classify":
        body = {"model": prompt, "prompt": "Rome"}
        body |= {"stream": True} if path.endswith("stream") else {}
    return client.post(path.removesuffix("?stream"), json=body, headers=headers)


def test_no_token_and_a_wrong_one(served):
    client = served[1]
    for token in ("", "other", "shop ping"):
        answer = ask(client, token, "film")
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    headers = {"Authorization": "Basic shop"}
    assert client.get("/v1/models", headers=headers).status_code == 401
    for path in ("/health", "/ready", "/"):
        assert client.get(path).status_code == 200


PATHS = ("/v1/classify", "/v1/completions", "/v1/completions?stream")


@pytest.mark.parametrize("path", PATHS)
def test_unknown_and_forbidden_are_answered_alike(served, path):
    client = served[1]
    assert ask(client, "shop", "film", path=path).status_code == 200
    forbidden = ask(client, "shop", "city", path=path)
    unknown = ask(client, "shop", "cuty", path=path)
    assert forbidden.status_code == unknown.status_code == 404
    assert forbidden.text.replace("city", "cuty") == unknown.text
    assert forbidden.headers.keys() == unknown.headers.keys()


def test_a_list_shows_what_may_be_used(served):
    headers = {"Authorization": "Bearer shop"}
    models = served[1].get("/v1/models", headers=headers).json()["data"]
    assert [model["id"] for model in models] == ["film", "letter"]
    assert served[1].get("/v1/models/city", headers=headers).status_code == 404


def test_a_batch_does_not_name_others_prompts(served):
    server, client = served
    paused = threading.Event()
    server.scheduler.call(paused.wait)
    answers = {}
    threads = [
        threading.Thread(
            target=lambda who, what: answers.update({who: ask(client, who, what)}), args=one
        )
        for one in (("shop", "film"), ("slow", "city"))
    ]
    for thread in threads:
        thread.start()
    while len(server.scheduler.label_queue) < 2:
        paused.wait(0.01)
    paused.set()
    for thread in threads:
        thread.join()
    batch = answers["shop"].json()["answers"][0]["batch"]
    assert batch["rows"] == 2 and batch["prompts"] == {"film": 1} and batch["others"] == 1


def test_rows_a_minute(prompts, tokens):
    known = Access(tokens)
    slow = known.tenant("Bearer slow")
    known.spend(slow, 2)
    with pytest.raises(Problem) as many:
        known.spend(slow, 2)
    assert many.value.status == 429 and 15 < many.value.retry_after < 25
    known.spend(slow, 1)
    with pytest.raises(Problem, match="3 rows at a time, not for 4") as never:
        known.spend(slow, 4)
    assert never.value.status == 400 and never.value.retry_after is None
    known.spend(known.tenant("Bearer shop"), 1000)


def test_the_figures_are_for_those_who_may_read_them(served):
    for token, status in (("prometheus", 200), ("shop", 403), ("", 401)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        assert served[1].get("/metrics", headers=headers).status_code == status


def test_every_hash_is_compared_in_constant_time(tokens, monkeypatch):
    compared = []
    monkeypatch.setattr(
        access.hmac, "compare_digest", lambda a, b: compared.append(a) or hmac.new and a == b
    )
    assert Access(tokens).tenant("Bearer shop").name == "shop"
    assert len(compared) == 3


def test_the_log_has_no_texts_and_no_tokens(served, caplog):
    with caplog.at_level(logging.INFO, "ptune.serving"):
        ask(served[1], "shop", "film")
    assert "shop" in caplog.text and "POST /v1/classify 200" in caplog.text
    assert "Rome" not in caplog.text and "Bearer" not in caplog.text


def test_a_token_that_is_taken_out_is_no_longer_good(tmp_path):
    path = tmp_path / "tokens.yaml"
    token, lines = new_token("a b: c")
    path.write_text(lines)
    known = Access(path)
    assert known.tenant(f"Bearer {token}").name == "a b: c" and not known.reload_if_changed()
    path.write_text("- name: other\n")
    with pytest.raises(ConfigError, match="sha256 is missing"):
        known.reload_if_changed()
    assert known.tenant(f"Bearer {token}")
    path.write_text("[]")
    assert known.reload_if_changed()
    with pytest.raises(Problem):
        known.tenant(f"Bearer {token}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x", "a list with an entry"),
        ("- name: x", "sha256 is missing"),
        ("- {name: x, sha256: abc}", "entry 1: sha256: String should match pattern [^\n]*$"),
        ("- {name: x, sha256: 'H', adnim: true}", "entry 1: adnim: [^\n]*$"),
        ("- {name: x, sha256: 'H', 3: true}", "entry 1: 3: [^\n]*$"),
        ("- {name: x, sha256: 'H'}\n- {name: y, sha256: 'H'}", "'x' and 'y' have one token"),
        ("- {name: x, sha256: 'H'}\n- {name: x, sha256: 'H'}", "two entries of the name 'x'"),
        ("- {name: x, sha256: 'H', rows_per_minute: 0}", "rows_per_minute"),
    ],
)
def test_a_file_that_is_at_fault(tmp_path, text, message):
    path = tmp_path / "tokens.yaml"
    path.write_text(text.replace("H", "a" * 64))
    with pytest.raises(ConfigError, match=message):
        read_tokens(path)


def test_a_star_alone_is_a_pattern():
    """A folder may have any name."""
    tenant = access.Tenant(name="shop", prompts=("team[1]", "what?", "a.b", "let*"))
    assert all(map(tenant.may_use, ("team[1]", "what?", "a.b", "let", "letter\n2")))
    assert not any(map(tenant.may_use, ("team1", "whatX", "axb", "a letter")))
