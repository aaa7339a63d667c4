"""The interfaces over HTTP: OpenAI's, classify, the prompts, and what goes wrong."""

import asyncio
import json
import re
import statistics
from dataclasses import replace

import pytest
import serving_kit
import torch
from serving_kit import TEXTS

from ptune import PromptModel, Task, Template, Verbalizer, load, save
from ptune.settings import DecodingConfig


@pytest.fixture(scope="module")
def serving(prompts):
    paths = [prompts / name for name in serving_kit.TEMPLATES]
    with serving_kit.serving(*paths, max_rows=8, max_body_kb=8) as both:
        yield both


@pytest.fixture
def server(serving):
    return serving[0]


@pytest.fixture
def client(serving):
    return serving[1]


def problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status and "Traceback" not in answer.text
    assert document["error"]["message"] == document["detail"]
    return document


def written(prompts, name, text, **settings):
    model = load(prompts / name, serving_kit.lm())
    config = DecodingConfig(**{"max_new_tokens": serving_kit.WRITTEN} | settings)
    return model.generate([{"x": text}], config=config)[0]


def events(answer):
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines) and lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_it_lives_and_is_ready(client):
    assert client.get("/health").json() == {"status": "alive"}
    assert client.get("/ready").json() == {"status": "ready"}


def test_every_prompt_is_a_model_with_its_task_fields_and_labels(client):
    models = {model["id"]: model for model in client.get("/v1/models").json()["data"]}
    assert list(models) == sorted(serving_kit.TEMPLATES)
    assert models["film"]["task"] == "labels" and models["letter"]["task"] == "text"
    assert models["film"]["labels"] == ["good", "bad", "great"]
    assert models["pair"]["fields"] == ["x", "y"]
    assert [part["kind"] for part in models["film"]["parts"] if part["kind"] != "text"] == [
        "soft",
        "field",
        "mask",
    ]
    assert client.get("/v1/models/film").json() == models["film"]
    problem(client.get("/v1/models/other"), 404)


def test_rows_of_many_prompts_in_one_request(client, prompts):
    names = ("film", "city", "plain")
    rows = [{"prompt": name, "fields": {"x": text}} for text in TEXTS[:2] for name in names]
    answers = client.post("/v1/classify", json={"rows": rows}).json()["answers"]
    for row, answer in zip(rows, answers):
        alone = load(prompts / row["prompt"], serving_kit.lm()).predict([row["fields"]])[0]
        assert answer["prompt"] == row["prompt"] and answer["label"] == alone["prediction"]
        assert answer["scores"] == pytest.approx(alone["scores"], abs=1e-5)
        assert answer["batch"]["prompts"] == dict.fromkeys(names, 2)
    top = client.post("/v1/classify", json={"rows": rows[:1], "top": 1}).json()["answers"]
    assert list(top[0]["scores"]) == [top[0]["label"]]


def test_a_broken_row_has_a_problem_and_the_others_their_answers(client):
    rows = [
        {"prompt": "film", "fields": {"x": "Rome"}},
        {"prompt": "film", "fields": {"y": "Rome"}},
        {"prompt": "letter", "fields": {"x": "Rome"}},
        {"prompt": "nothing", "fields": {}},
    ]
    good, *broken = client.post("/v1/classify", json={"rows": rows}).json()["answers"]
    assert good["label"] in ("good", "bad", "great")
    fields = [answer["problem"]["field"] for answer in broken]
    assert fields == ["rows[1].fields", "rows[2].prompt", "rows[3].prompt"]
    assert "'x'" in broken[0]["problem"]["detail"] and "Row 2" in broken[0]["problem"]["detail"]
    problem(client.post("/v1/classify", json={"rows": rows[1:]}), 400)


def test_every_answer_says_what_of_its_text_cannot_be_read(client):
    texts = ["Rome", "\u200b"]
    rows = [{"prompt": "film", "fields": {"x": text}} for text in texts]
    answers = client.post("/v1/classify", json={"rows": rows}).json()["answers"]
    assert [answer["unknown"] for answer in answers] == [0.0, 1.0]
    body = {"model": "letter", "prompt": texts}
    choices = client.post("/v1/completions", json=body).json()["choices"]
    assert [choice["unknown"] for choice in choices] == [0.0, 1.0]
    ends = [
        event["choices"][0]
        for event in events(client.post("/v1/completions", json=body | {"stream": True}))
        if event["choices"][0]["finish_reason"]
    ]
    assert {end["index"]: end["unknown"] for end in ends} == {0: 0.0, 1: 1.0}


def test_rows_with_several_labels_are_answered_with_a_list(tmp_path):
    model = PromptModel(serving_kit.lm())
    words = Verbalizer.from_words(serving_kit.LABELS)
    template = Template.parse("{soft:3} {x} It was {mask}")
    model.add(Task("topics", template, words, multi_label=True))
    rows = [{"x": text} for text in TEXTS]
    shares = [share for answer in model.predict(rows) for share in answer["scores"].values()]
    model.tasks[0] = replace(model.tasks[0], threshold=statistics.median(shares))
    save(model, tmp_path / "topics")
    wanted = load(tmp_path / "topics", serving_kit.lm()).predict(rows)
    with serving_kit.serving(tmp_path / "topics") as (_, client):
        body = {"rows": [{"prompt": "topics", "fields": row} for row in rows], "top": 2}
        answers = client.post("/v1/classify", json=body).json()["answers"]
        body = {"model": "topics", "prompt": TEXTS}
        choices = client.post("/v1/completions", json=body).json()["choices"]
    assert [answer["labels"] for answer in answers] == [row["prediction"] for row in wanted]
    assert [choice["text"] for choice in choices] == [
        ", ".join(row["prediction"]) for row in wanted
    ]
    assert any(row["prediction"] for row in wanted) and "label" not in answers[0]
    assert all(len(answer["scores"]) == 2 for answer in answers)


@pytest.mark.parametrize("prompt", ["Rome", '{"x": "Rome"}', {"x": "Rome"}])
def test_fields_come_as_text_as_json_and_by_name(client, prompts, prompt):
    wanted = written(prompts, "letter", "Rome")
    for body in ({"prompt": prompt}, {"prompt": "", "fields": {"x": "Rome"}}):
        answer = client.post("/v1/completions", json={"model": "letter", **body}).json()
        choice = answer["choices"][0]
        assert choice["text"] == wanted and choice["finish_reason"] in ("stop", "length")
    content = prompt if isinstance(prompt, str) else json.dumps(prompt)
    body = {"model": "letter", "messages": [{"role": "user", "content": content}]}
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["choices"][0]["message"]["content"] == wanted
    assert answer["usage"]["total_tokens"] > answer["usage"]["completion_tokens"] > 0


def test_a_list_of_prompts_and_labels_as_texts(client, prompts):
    body = {"model": "film", "prompt": TEXTS[:3]}
    choices = client.post("/v1/completions", json=body).json()["choices"]
    model = load(prompts / "film", serving_kit.lm())
    rows = model.predict([{"x": text} for text in TEXTS[:3]])
    assert [choice["text"] for choice in choices] == [row["prediction"] for row in rows]
    assert [choice["index"] for choice in choices] == [0, 1, 2]


@pytest.mark.parametrize("settings", [{}, {"max_tokens": 5}, {"stop": "posit"}, {"stop": ["q"]}])
@pytest.mark.parametrize("name", ["letter", "deep"])
def test_a_stream_adds_up_to_the_text(client, name, settings):
    body = {"model": name, "prompt": TEXTS[3:], **settings}
    whole = client.post("/v1/completions", json=body).json()
    streamed = events(client.post("/v1/completions", json=body | {"stream": True}))
    for choice in whole["choices"]:
        pieces = [
            piece
            for event in streamed
            for piece in event["choices"]
            if piece["index"] == choice["index"]
        ]
        assert "".join(piece["text"] for piece in pieces) == choice["text"]
        assert pieces[-1]["finish_reason"] == choice["finish_reason"]
    assert len(streamed) > 4, "it came in one piece"


def test_a_chat_stream_has_openais_form(client):
    body = {
        "model": "letter",
        "messages": [{"role": "user", "content": [{"type": "text", "text": TEXTS[4]}]}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    first, *middle, end, usage = events(client.post("/v1/chat/completions", json=body))
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert all(event["choices"][0]["delta"]["content"] for event in middle)
    assert end["choices"][0]["delta"] == {} and end["choices"][0]["finish_reason"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] > 0


def test_several_texts_are_drawn_and_a_seed_repeats_them(client, prompts):
    body = {"model": "letter", "prompt": "Rome", "temperature": 1.5, "n": 3, "seed": 4}
    first, second = (client.post("/v1/completions", json=body).json() for _ in range(2))
    texts = [choice["text"] for choice in first["choices"]]
    assert texts == [choice["text"] for choice in second["choices"]] and len(set(texts)) > 1
    drawn = {"sample": True, "temperature": 1.5, "seed": 4, "texts": 3}
    assert texts == written(prompts, "letter", "Rome", **drawn)
    streamed = events(client.post("/v1/completions", json=body | {"stream": True}))
    for index, text in enumerate(texts):
        choices = [event["choices"][0] for event in streamed]
        assert "".join(c["text"] for c in choices if c["index"] == index) == text


FAULTS = {
    "model": ("/v1/completions", {"model": "nothing", "prompt": "a"}, 404),
    "prompt": ("/v1/completions", {"model": "letter"}, 400),
    "fields": ("/v1/completions", {"model": "letter", "prompt": "a", "fields": {"x": "b"}}, 400),
    "max_tokens": ("/v1/completions", {"model": "letter", "prompt": "a", "max_tokens": 5000}, 400),
    "temperature": ("/v1/completions", {"model": "film", "prompt": "a", "temperature": 1}, 400),
    "echo": ("/v1/completions", {"model": "letter", "prompt": "a", "echo": True}, 400),
    "tools": ("/v1/chat/completions", {"model": "letter", "tools": []}, 400),
    "messages": ("/v1/chat/completions", {"model": "letter", "messages": []}, 400),
    "messages[0].role": (
        "/v1/chat/completions",
        {"model": "letter", "messages": [{"role": "system", "content": "Be kind"}]},
        400,
    ),
    "messages[0].content": (
        "/v1/chat/completions",
        {"model": "pair", "messages": [{"role": "user", "content": "Rome"}]},
        400,
    ),
    "stop": ("/v1/completions", {"model": "letter", "prompt": "a", "stop": 5}, 400),
    "top": ("/v1/classify", {"rows": [{"prompt": "film", "fields": {"x": "a"}}], "top": True}, 400),
    "rows": ("/v1/classify", {"rows": [{"prompt": "film", "fields": {"x": "a"}}] * 9}, 400),
    "rows[0].feilds": ("/v1/classify", {"rows": [{"prompt": "film", "feilds": {}}]}, 400),
    "rows[0].fields": ("/v1/classify", {"rows": [{"prompt": "film", "fields": {"x": 1e999}}]}, 400),
}


def test_a_temperature_that_is_too_small_is_named(client):
    body = {"model": "letter", "prompt": "a", "temperature": 1e-9}
    document = problem(client.post("/v1/completions", json=body), 400)
    assert document["field"] == "temperature" and "0.001" in document["detail"]


@pytest.mark.parametrize("field", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_problem_names_the_field_at_fault(client, field, stream):
    path, body, status = FAULTS[field]
    if stream and path == "/v1/classify":
        return
    body = body | {"stream": True} if stream else body
    content = json.dumps(body)
    answer = client.post(path, content=content, headers={"content-type": "application/json"})
    document = problem(answer, status)
    assert document["field"] == field and document["detail"].endswith((".", "?"))


def test_a_row_as_in_a_file_is_told_what_a_request_has(client):
    document = problem(client.post("/v1/classify", json={"rows": [{"x": "Rome"}]}), 400)
    assert document["field"] == "rows[0].x"
    assert document["detail"].endswith("should stand there and is missing: prompt, fields.")
    whole = {"prompt": "film", "fields": {"x": "Rome"}, "y": 1}
    document = problem(client.post("/v1/classify", json={"rows": [whole, {}]}), 400)
    assert document["detail"].endswith("nothing is ignored.")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        ("{", "application/json", 400),
        ("[" * 100_000, "application/json", 413),
        ("[" * 8000, "application/json", 400),
        ('{"rows": []}', "text/plain", 415),
        (json.dumps({"model": "\ud800", "prompt": "a"}), "application/json", 404),
        (json.dumps({"model": "letter", "prompt": "\ud800"}), "application/json", 400),
        (json.dumps({"model": "letter", "fields": {"\ud800": "a"}}), "application/json", 400),
    ],
)
def test_bodies_that_are_no_requests(client, content, kind, status):
    path = "/v1/classify" if content[0] != "{" or "rows" in content else "/v1/completions"
    problem(client.post(path, content=content, headers={"content-type": kind}), status)


def test_a_body_without_a_length_is_limited_too(client):
    def chunks():
        yield b'{"rows": ['
        for _ in range(20):
            yield b" " * 1024

    headers = {"content-type": "application/json"}
    problem(client.post("/v1/classify", content=chunks(), headers=headers), 413)


def test_pages_and_methods_that_are_not_there(client):
    for path in ("/nothing", "/page/..%2fapp.py", "/page/%2e%2e/app.py"):
        problem(client.get(path), 404)
    problem(client.get("/v1/classify"), 405)


def test_every_answer_has_headers_for_safety(client):
    for path in ("/", "/health", "/v1/models", "/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]


def test_a_strangers_page_may_not_name_this_machine(client):
    """A name of a stranger's that leads here (DNS rebinding) is not answered."""
    for host in ("attacker.example", "attacker.example:8000", ""):
        problem(client.get("/v1/models", headers={"host": host}), 421)
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200


def test_the_figures(server, client):
    client.post("/v1/classify", json={"rows": [{"prompt": "film", "fields": {"x": "Rome"}}]})
    server.scheduler.call(lambda: None).result()  # a batch is counted behind its answers
    figures = client.get("/metrics").text
    assert 'ptune_row_seconds_count{prompt="film"}' in figures
    assert 'ptune_requests_total{route="/v1/classify",status="200"}' in figures
    assert "ptune_prompts 6.0" in figures and 'ptune_batch_rows_count{kind="labels"}' in figures


def test_prompts_are_not_changed_without_an_administrator(client):
    problem(client.put("/v1/prompts/film", content=b""), 403)
    problem(client.delete("/v1/prompts/film"), 403)


def test_a_client_that_leaves_frees_its_place(server, client):
    """The connection ends while a text is written; the text ends too."""
    body = {"model": "letter", "prompt": TEXTS[4], "max_tokens": 60, "stream": True}
    sent = asyncio.run(ask_and_leave(client.app, "/v1/completions", body))
    assert sent[0]["status"] == 200
    assert sum(b"[DONE]" in message.get("body", b"") for message in sent) == 0
    body = {"model": "letter", "prompt": TEXTS[4], "max_tokens": 60}
    assert asyncio.run(ask_and_leave(client.app, "/v1/completions", body)) == []
    server.scheduler.call(lambda: None).result()
    server.scheduler.call(lambda: None).result()
    assert not server.scheduler.text_queue


async def ask_and_leave(app, path, body):
    """What is sent to a client that leaves after the first piece, or after a moment."""
    first_piece, sent = asyncio.Event(), []
    messages = iter([{"type": "http.request", "body": json.dumps(body).encode()}])

    async def receive():
        if (message := next(messages, None)) is not None:
            return message
        if body.get("stream"):
            await first_piece.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if message.get("body"):
            first_piece.set()

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await asyncio.wait_for(app(scope, receive, send), 30)
    return [message for message in sent if message.get("status") != 499 and message != LAST]


LAST = {"type": "http.response.body", "body": b""}


def test_the_nearest_words_of_each_soft_token_are_told(client, prompts):
    model = load(prompts / "film", serving_kit.lm())
    vectors = model.bank.encoders[0]().detach()
    embeddings = model.lm.embed(torch.arange(model.lm.words))
    answer = client.get("/v1/words/film").json()
    assert answer["id"] == "film" and len(answer["words"]) == len(vectors) > 0
    for near, vector in zip(answer["words"], vectors):
        likeness = torch.nn.functional.cosine_similarity(vector[None], embeddings)
        likeness[model.lm.tokens.tokenizer.all_special_ids] = -2
        assert near[0] == model.lm.tokens.show(int(likeness.argmax())) and len(near) == 5
    problem(client.get("/v1/words/nothing"), 404)
    without = [name for name, (text, _) in serving_kit.TEMPLATES.items() if "soft" not in text]
    assert all(client.get(f"/v1/words/{name}").json()["words"] == [] for name in without)


def test_the_page_and_all_that_it_needs_come_from_the_server(client):
    """Without a script or a style in the page itself, which its policy would not run."""
    for path in ("/", "/docs"):
        text = client.get(path).text
        parts = re.findall(r'(?:src|href)="(/[^"]*)"', text)
        kinds = {part: client.get(part).headers["content-type"] for part in parts}
        assert any(kind.startswith("text/javascript") for kind in kinds.values()), path
        assert not re.search(r"<style|<script>|style=|onclick=|https?://", text)
        assert '<html lang="en">' in text and "<title>" in text
    script = client.get("/page/playground.js").text
    page = client.get("/").text
    for name in re.findall(r'\$\("([\w-]+)"\)', script):
        assert f'id="{name}"' in page, name
    assert "innerHTML" not in script, "names and texts of strangers would be obeyed"


def test_a_temperature_that_divides_scores_to_infinity_is_refused(client):
    body = {"model": "deep", "prompt": "Rome", "seed": 1}
    for temperature in (5e-324, 1e-30, 0.0009):
        answer = problem(
            client.post("/v1/completions", json=body | {"temperature": temperature}), 400
        )
        assert "0.001" in answer["detail"]
    choice = client.post("/v1/completions", json=body | {"temperature": 0.001}).json()["choices"][0]
    best = client.post("/v1/completions", json=body | {"temperature": 0}).json()["choices"][0]
    assert choice["text"] == best["text"]


ODD = ["null", "NaN", "-Infinity", "1e999", "1e308", "9" * 5000, "[null]", "true", "-0.0"]


@pytest.mark.parametrize("value", ODD)
def test_odd_values_in_a_row_are_answered_or_refused_and_hold_nothing_up(client, value):
    """An answer or one clear problem, in time; never a fault of the server."""
    bodies = {
        "/v1/classify": '{"rows": [{"prompt": "film", "fields": {"x": %s}}]}',
        "/v1/completions": '{"model": "deep", "fields": {"x": %s}}',
        "/v1/attention": '{"prompt": "film", "fields": {"x": %s}}',
    }
    for path, body in bodies.items():
        headers = {"content-type": "application/json"}
        answer = client.post(path, content=body % value, headers=headers)
        assert answer.status_code in (200, 400), answer.text
        json.loads(answer.text, parse_constant=pytest.fail)
        if answer.status_code == 400:
            assert answer.json()["detail"].endswith(".")
    good = {"rows": [{"prompt": "film", "fields": {"x": "Rome"}}]}
    assert client.post("/v1/classify", json=good).status_code == 200


def test_a_request_that_no_queue_could_take_is_refused_for_good(prompts):
    """Nobody is told to ask again for what can never be answered."""
    with serving_kit.serving(prompts / "film", prompts / "deep", queue=2) as (_, client):
        rows = [{"prompt": "film", "fields": {"x": "Rome"}}] * 3
        answer = problem(client.post("/v1/classify", json={"rows": rows}), 400)
        assert answer["detail"] == "A request may have 2 rows, and this one has 3."
        assert client.post("/v1/classify", json={"rows": rows[:2]}).status_code == 200
        body = {"model": "deep", "prompt": ["Rome"] * 3}
        problem(client.post("/v1/completions", json=body), 400)


def test_two_limits_of_one_meaning_are_refused_where_they_differ(client):
    body = {"model": "deep", "messages": [{"role": "user", "content": "Rome"}], "max_tokens": 3}
    path = "/v1/chat/completions"
    assert client.post(path, json=body | {"max_completion_tokens": 3}).status_code == 200
    answer = problem(client.post(path, json=body | {"max_completion_tokens": 9}), 400)
    assert "give one of them" in answer["detail"]
