"""A text joins those that are being written at any token, and is what it is alone."""

import threading
import time

import pytest
import serving_kit
from serving_kit import TEXTS, WRITTEN
from test_scheduler import WRITING, Paused, alone, answer, job

from ptune.errors import ConfigError, ModelError
from ptune.serving.engines.jobs import Job, LabelAnswer
from ptune.settings import DecodingConfig
from ptune.storage.prompt_folder import load


@pytest.fixture(scope="module")
def server(prompts):
    paths = [prompts / name for name in serving_kit.TEMPLATES]
    with serving_kit.serving(*paths, engine="continuous", batch_tokens=2048) as (server, _):
        yield server


def test_mixed_texts_and_labels_are_as_each_row_alone(server, prompts):
    jobs = [job(prompt, text) for text in TEXTS for prompt in serving_kit.TEMPLATES]
    with Paused(server):
        for one in jobs:
            server.scheduler.submit([one])
    for one in jobs:
        given, wanted = answer(one), alone(prompts, one.prompt, one.row["x"])
        if isinstance(given, LabelAnswer):
            assert given.scores == pytest.approx(wanted["scores"], abs=1e-5)
        else:
            assert given.texts == [wanted], one.prompt
    assert any(set(answer(one).batch.rows) == set(WRITING) for one in jobs if one.writes)
    assert not server.scheduler.engine.written and not len(server.scheduler.engine.writer)


def test_a_text_joins_those_that_have_begun_and_leaves_when_it_ends(server, prompts):
    """A short one that comes later is there while the long one still goes on."""
    begun, pieces = threading.Event(), []

    def slowly(piece):
        pieces.append(piece)
        begun.set()
        time.sleep(0.02)

    long = Job("letter", {"x": TEXTS[4]}, decoding={"max_new_tokens": 50}, on_text=slowly)
    server.scheduler.submit([long])
    assert begun.wait(60)
    short = [Job(name, {"x": TEXTS[2]}, decoding={"max_new_tokens": 3}) for name in WRITING[:2]]
    for one in short:
        server.scheduler.submit([one])
    for one in short:
        assert answer(one).texts == [alone(prompts, one.prompt, TEXTS[2], 3)]
    assert not long.answer.done() and answer(short[0]).batch.rows["letter"] == 2
    assert answer(long).texts == [alone(prompts, "letter", TEXTS[4], 50)]


def test_who_leaves_frees_the_place_and_what_cannot_join_gets_its_turn(server, prompts):
    begun = threading.Event()

    def slowly(piece):
        begun.set()
        time.sleep(0.02)

    left = Job("letter", {"x": TEXTS[4]}, decoding={"max_new_tokens": 50}, on_text=slowly)
    server.scheduler.submit([left])
    assert begun.wait(60)
    apart = Job("deep", {"x": TEXTS[1]}, decoding={"beams": 3})
    after = job("letter", TEXTS[1])
    server.scheduler.submit([apart])
    server.scheduler.submit([after])
    left.answer.cancel()
    assert answer(apart, 20).texts and answer(after, 20).texts == [
        alone(prompts, "letter", TEXTS[1])
    ]
    assert answer(after).batch.rows == {"letter": 1}, "it overtook the beams"


def test_a_drawn_text_is_as_the_static_engine_draws_it(server, prompts):
    drawn = {"sample": True, "temperature": 1.5, "seed": 4}
    one = Job("letter", {"x": TEXTS[2]}, decoding=drawn)
    with Paused(server):
        server.scheduler.submit([job("letter", TEXTS[1]), one])
    config = DecodingConfig(max_new_tokens=WRITTEN, **drawn)
    model = load(prompts / "letter", serving_kit.lm())
    assert answer(one).texts == model.generate([{"x": TEXTS[2]}], config=config)


def test_where_a_step_fails_the_rows_are_written_again_one_by_one(server, prompts, monkeypatch):
    engine = server.scheduler.engine
    step, fails = engine.writer.step, iter([None, None, ModelError("a step failed")])

    def failing():
        if (error := next(fails, None)) is not None:
            raise error
        return step()

    monkeypatch.setattr(engine.writer, "step", failing)
    jobs = [job(prompt, TEXTS[0]) for prompt in WRITING]
    with Paused(server):
        for one in jobs:
            server.scheduler.submit([one])
    for one in jobs:
        assert answer(one).texts == [alone(prompts, one.prompt, TEXTS[0])]
        assert len(answer(one).batch.rows) == 1


def test_virtual_ids_are_not_used_twice_and_run_out_without_harm(server, prompts, monkeypatch):
    """Two versions of a prompt must never share a block of the cache."""
    writer = server.scheduler.engine.writer
    before = writer.next_id
    assert answer(job_of(server, "deep", TEXTS[3])).texts == [alone(prompts, "deep", TEXTS[3])]
    server.scheduler.engine.virtual_prompts.clear()
    assert answer(job_of(server, "deep", TEXTS[3])).texts == [alone(prompts, "deep", TEXTS[3])]
    assert writer.next_id > before
    monkeypatch.setattr("ptune.lm.patches.paged_writing.LAST_ID", writer.next_id)
    assert answer(job_of(server, "deep", TEXTS[3])).texts == [alone(prompts, "deep", TEXTS[3])]
    assert writer.next_id == server.scheduler.engine.lm.forward.vocabulary_size + 3


def job_of(server, prompt, text):
    one = job(prompt, text)
    server.scheduler.submit([one])
    return one


def test_an_lm_that_cannot_is_refused_with_the_reason(prompts, monkeypatch):
    monkeypatch.setattr(
        "ptune.serving.engines.continuous_engine.refusal", lambda lm: "it is no causal LM"
    )
    with (
        pytest.raises(ConfigError, match="it is no causal LM. Take --engine batch"),
        serving_kit.serving(prompts / "letter", engine="continuous"),
    ):
        pass


def test_more_texts_than_rows_and_room_take_turns(prompts):
    with serving_kit.serving(
        prompts / "letter", prompts / "deep", engine="continuous", rows=2, batch_tokens=96
    ) as (server, _):
        jobs = [job(name, text) for text in TEXTS for name in ("letter", "deep")]
        for one in jobs:
            server.scheduler.submit([one])
        for one in jobs:
            assert answer(one).texts == [alone(prompts, one.prompt, one.row["x"], WRITTEN)]
            assert sum(answer(one).batch.rows.values()) <= 2
