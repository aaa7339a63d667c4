"""Rows of any prompts meet in one batch, and each is answered as it is alone; nobody's rows hold up
another's."""

import threading
import time

import pytest
import serving_kit
from serving_kit import TEXTS, WRITTEN

from ptune import load
from ptune.serving.engines.jobs import Job, LabelAnswer, TextAnswer
from ptune.serving.problems import Problem
from ptune.settings import DecodingConfig

LABELLED, WRITING = ("film", "city", "plain"), ("letter", "deep", "pair")


@pytest.fixture
def server(prompts):
    paths = [prompts / name for name in serving_kit.TEMPLATES]
    with serving_kit.serving(*paths) as (server, _):
        yield server


def job(prompt, text, tenant="", **settings):
    decoding = {} if prompt in WRITING else None
    return Job(prompt, {"x": text, "y": "Paris"}, tenant, decoding=decoding, **settings)


def answer(job, seconds=60):
    return job.answer.result(seconds)


class Paused:
    """While this is open, the thread of the LM does nothing, so that rows meet."""

    def __init__(self, server):
        self.server, self.go_on = server, threading.Event()

    def __enter__(self):
        self.server.scheduler.call(self.go_on.wait)

    def __exit__(self, *error):
        self.go_on.set()


def alone(prompts, prompt, text, new=WRITTEN):
    model = load(prompts / prompt, serving_kit.lm())
    row = {"x": text, "y": "Paris"}
    if prompt in WRITING:
        return model.generate([row], config=DecodingConfig(max_new_tokens=new))[0]
    return model.predict([row])[0]


def test_a_mixed_batch_answers_as_each_row_alone(server, prompts):
    jobs = [job(prompt, text) for text in TEXTS for prompt in serving_kit.TEMPLATES]
    with Paused(server):
        for one in jobs:
            server.scheduler.submit([one])
    batches = set()
    for one in jobs:
        given, wanted = answer(one), alone(prompts, one.prompt, one.row["x"])
        batches.add(tuple(sorted(given.batch.rows.items())))
        if isinstance(given, LabelAnswer):
            assert given.label == wanted["prediction"]
            assert given.scores == pytest.approx(wanted["scores"], abs=1e-5)
        else:
            assert given.texts == [wanted], one.prompt
    assert {len(rows) for rows in map(dict, batches)} == {3}, "the prompts did not meet"
    assert len({answer(one).texts[0] for one in jobs if one.prompt in WRITING}) > 5


def test_rows_that_keep_coming_meet(server):
    """The first one does not go alone because the next come a moment later."""
    scheduler = server.scheduler
    scheduler.wait, scheduler.rows, scheduler.batch_seconds["labels"] = 0.25, 6, 60.0
    jobs = [job("film", TEXTS[0]) for _ in range(6)]
    for one in jobs:
        scheduler.submit([one])
        time.sleep(0.08)
    assert answer(jobs[0]).batch.rows == {"film": 6}
    scheduler.batch_seconds["labels"] = 0.0
    few = [job("film", TEXTS[0]) for _ in range(2)]
    for one in few:
        scheduler.submit([one])
        time.sleep(0.35)
    assert [answer(one).batch.rows for one in few] == [{"film": 1}] * 2


def test_texts_of_unlike_lengths_and_stops_share_a_batch(server, prompts):
    whole = alone(prompts, "letter", TEXTS[4])
    stop = whole.split()[2]
    jobs = [
        Job("letter", {"x": TEXTS[4]}, decoding={"max_new_tokens": 3}),
        Job("letter", {"x": TEXTS[4]}, decoding={"stop": (stop,)}),
        Job("letter", {"x": TEXTS[4]}, decoding={}),
    ]
    with Paused(server):
        for one in jobs:
            server.scheduler.submit([one])
    short, stopped, full = map(answer, jobs)
    assert short.batch.rows == stopped.batch.rows == {"letter": 3}
    assert short.texts == [alone(prompts, "letter", TEXTS[4], 3)] and short.ends == ["length"]
    assert stopped.texts == [whole.split(stop)[0].strip()] and stopped.ends == ["stop"]
    assert full.texts == [whole] and full.written == WRITTEN


def test_drawn_texts_and_beams_are_as_alone_whatever_is_beside_them(server, prompts):
    drawn = {"sample": True, "seed": 5, "temperature": 1.5}
    settings = [drawn, {"beams": 3}, {"beams": 3, "texts": 2}, drawn | {"texts": 3}]
    jobs = [Job("deep", {"x": TEXTS[1]}, decoding=one) for one in settings]
    with Paused(server):
        for one, setting in zip(jobs, settings):
            beside = Job("letter", {"x": TEXTS[2]}, decoding=setting)
            server.scheduler.submit([beside, one, job("letter", TEXTS[2])])
    model = load(prompts / "deep", serving_kit.lm())
    for one, setting in zip(jobs, settings):
        config = DecodingConfig(max_new_tokens=WRITTEN, **setting)
        wanted = model.generate([{"x": TEXTS[1]}], config=config)[0]
        assert answer(one).texts == (wanted if isinstance(wanted, list) else [wanted])


def test_drawn_texts_of_several_seeds_share_a_batch(server, prompts):
    drawn = {"sample": True, "temperature": 1.5}
    settings = [{**drawn, "seed": seed} for seed in (5, 6, 7)]
    jobs = [Job("letter", {"x": TEXTS[2]}, decoding=one) for one in settings]
    with Paused(server):
        for one in jobs:
            server.scheduler.submit([one])
    model = load(prompts / "letter", serving_kit.lm())
    wanted = [
        model.generate([{"x": TEXTS[2]}], config=DecodingConfig(max_new_tokens=WRITTEN, **one))[0]
        for one in settings
    ]
    assert [answer(one).texts for one in jobs] == [[text] for text in wanted]
    assert len(set(wanted)) == 3 and answer(jobs[0]).batch.rows == {"letter": 3}


def test_labels_are_answered_between_two_tokens_of_a_text(server, prompts):
    """Also with prefixes on both sides: neither sees the other's."""
    labels = []

    def ask(piece):
        if len(labels) < 2:
            labels.append(job(("film", "city")[len(labels)], TEXTS[3]))
            server.scheduler.submit([labels[-1]])

    text = job("deep", TEXTS[0], on_text=ask)
    done = []
    text.answer.add_done_callback(lambda _: done.extend(one.answer.done() for one in labels))
    server.scheduler.submit([text])
    assert answer(text).texts == [alone(prompts, "deep", TEXTS[0])]
    assert done and all(done), "the labels waited for the end of the text"
    for one in labels:
        wanted = alone(prompts, one.prompt, TEXTS[3])["scores"]
        assert answer(one).scores == pytest.approx(wanted, abs=1e-5)


def test_one_tenants_rows_do_not_hold_up_anothers(server):
    server.scheduler.rows = 8
    many = [job("film", TEXTS[0], "busy") for _ in range(100)]
    one = job("city", TEXTS[1], "calm")
    before: list[int] = []
    one.answer.add_done_callback(
        lambda _: before.append(sum(other.answer.done() for other in many))
    )
    with Paused(server):
        server.scheduler.submit(many)
        server.scheduler.submit([one])
    answer(one)
    assert before[0] < 8 and answer(many[-1])


def test_a_full_queue_refuses_and_says_when(server):
    server.scheduler.label_queue.most = 5
    with Paused(server):
        server.scheduler.submit([job("film", TEXTS[0], "a") for _ in range(4)])
        with pytest.raises(Problem) as full:
            server.scheduler.submit([job("film", TEXTS[0], "a") for _ in range(2)])
        server.scheduler.submit([job("film", TEXTS[0], "b")])  # who has lines of their own
        last = job("film", TEXTS[0], "a")
        server.scheduler.submit([last])
    assert full.value.status == 429 and full.value.retry_after >= 1
    assert isinstance(answer(last), LabelAnswer)


def test_who_leaves_frees_the_place(server):
    server.scheduler.label_queue.most = 3
    with Paused(server):
        left = [job("film", TEXTS[0]) for _ in range(3)]
        server.scheduler.submit(left)
        for one in left:
            one.answer.cancel()
        stays = [job("film", TEXTS[0]) for _ in range(3)]
        server.scheduler.submit(stays)
    for one in stays:
        assert answer(one).batch.rows == {"film": 3}


def test_a_text_that_nobody_waits_for_ends(server, monkeypatch):
    pieces: list[str] = []
    steps: list[int] = []
    monkeypatch.setattr(server.scheduler, "_between_tokens", lambda: steps.append(1))

    def leave(piece):
        pieces.append(piece)
        text.answer.cancel()

    text = Job("letter", {"x": TEXTS[4]}, decoding={"max_new_tokens": 40}, on_text=leave)
    server.scheduler.submit([text])
    while not text.answer.cancelled():
        time.sleep(0.01)
    server.scheduler.call(lambda: None).result()  # which is after the batch
    before = len(steps)
    follower = job("deep", TEXTS[0])
    server.scheduler.submit([follower])
    answer(follower)
    assert len(pieces) == 1 and before < 3


def test_what_is_late_is_told_so(server):
    waiting = job("film", TEXTS[0], deadline=time.monotonic() - 1)
    server.scheduler.submit([waiting])
    writing = job("letter", TEXTS[4])
    writing.on_text = lambda piece: setattr(writing, "deadline", 0.0)
    server.scheduler.submit([writing])
    for one in (waiting, writing):
        with pytest.raises(Problem) as late:
            answer(one)
        assert late.value.status == 504


def test_a_broken_row_fails_alone(server, prompts, monkeypatch):
    engine = server.scheduler.engine
    score = engine.score

    def fail_with_a_poisoned_row(jobs):
        if any(one.row["x"] == "poison" for one in jobs):
            raise RuntimeError("secret text")
        score(jobs)

    monkeypatch.setattr(engine, "score", fail_with_a_poisoned_row)
    good = [job("film", text) for text in TEXTS]
    lacking = Job("film", {"y": "Paris"}, number=3, place="rows[2].fields")
    poisoned, unknown = job("plain", "poison"), Job("nothing", {})
    broken = Job("letter", {"x": "a"}, decoding={"max_new_tokens": 200})
    with Paused(server):
        for one in (*good[:2], lacking, poisoned, unknown, broken, *good[2:]):
            server.scheduler.submit([one])
    for one in good:
        assert answer(one).label == alone(prompts, "film", one.row["x"])["prediction"]
    problems = {}
    for one in (lacking, poisoned, unknown, broken):
        with pytest.raises(Problem) as problem:
            answer(one)
        problems[one] = problem.value
    assert problems[lacking].field == "rows[2].fields" and "'x'" in problems[lacking].detail
    assert problems[poisoned].status == 500 and "secret" not in problems[poisoned].detail
    assert problems[unknown].status == 404 and problems[broken].status == 400


def test_the_thread_lives_through_a_fault_of_its_own(server, monkeypatch):
    for method in ("label_batches", "text_batch"):
        with monkeypatch.context() as patched:
            patched.setattr(server.scheduler.engine, method, lambda jobs: 1 / 0)
            one = job("film" if method == "label_batches" else "letter", TEXTS[0])
            server.scheduler.submit([one])
            with pytest.raises(Problem) as problem:
                answer(one)
            assert problem.value.status == 500
    for prompt in ("film", "letter"):
        server.scheduler.submit([again := job(prompt, TEXTS[0])])
        assert answer(again)


def test_closing_answers_what_waits(server):
    jobs = [job(prompt, TEXTS[0]) for prompt in ("film", "letter")]
    with Paused(server):
        for one in jobs:
            server.scheduler.submit([one])
    server.close()
    assert isinstance(answer(jobs[0], 0), LabelAnswer)
    assert isinstance(answer(jobs[1], 0), TextAnswer)
    with pytest.raises(Problem, match="stopped"):
        server.scheduler.submit([job("film", TEXTS[0])])
