"""Answers beside every context: as likely as plain transformers finds them, told on the page."""

import itertools
import pathlib
from dataclasses import replace

import pytest
import torch
from documents_kit import cache_of, config, lessons_of, lm_of, quiet

from ptune import DecodingConfig, load
from ptune.documents import judge, read_documents
from ptune.documents.train_documents import distil, judged_in
from ptune.errors import DataError, StoreError
from ptune.reports.pages import documents_page
from ptune.reports.trial_results import JudgedContext
from ptune.storage import prompt_folder


@pytest.fixture(scope="module")
def judged(world, tmp_path_factory):
    """A run that was judged when it was over."""
    out = tmp_path_factory.mktemp("judged") / "out"
    distil(config(world, out), quiet)
    with pytest.raises(StoreError, match="was not judged"):
        judged_in(out)
    questions = world / "questions.jsonl"
    distil(config(world, out, judge=questions, resume=True), quiet)
    return out, judged_in(out)


def plain_nats(lm, context, ids, count, prefix=None):
    """Nats a token of the last ``count`` tokens behind a text, or behind a prefix."""
    extra, before = {}, len(context)
    if prefix is not None:
        size = len(prefix)
        extra = {
            lm.forward.cache_name: cache_of(lm, prefix),
            "attention_mask": torch.ones(1, size + len(ids), dtype=torch.long),
            "position_ids": torch.arange(size, size + len(ids))[None],
        }
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*context, *ids]]), **extra).logits[0, before:]
    scores = logits.log_softmax(-1)[-count - 1 : -1]
    return -scores.gather(1, torch.tensor(ids[-count:])[:, None]).sum() / count


def test_nats_are_those_of_plain_transformers(judged):
    out, contexts = judged
    model = load(prompt_folder.folders_in(out))
    lm, number = model.lm, model.number("austria")
    text = next(one.text for one in read_documents.saved_in(out) if one.name == "austria")
    document = lm.tokens.start(text)
    row = {"document": "austria", "question": "the capital ?", "answer": "Vienna"}
    example = model.encode(number, [row])[0]
    ids, count = [*example.learn[0].ids, example.answer[-1]], len(example.answer)
    prefix = model.bank.prefixes[model.tasks[number].prompt]()
    budget = int(len(document) / 2)
    expected = {
        ("no document", 0.0): plain_nats(lm, [], ids, count),
        ("whole document", 1.0): plain_nats(lm, document, ids, count),
        ("first tokens", 2.0): plain_nats(lm, document[:budget], ids, count),
        ("prefix", None): plain_nats(lm, [], ids, count, prefix),
    }
    for (kind, smaller), nats in expected.items():
        (one,) = [
            one
            for one in contexts
            if one.kind == kind and (smaller is None or one.smaller == smaller)
        ]
        assert one.nats_of["austria"] == pytest.approx(float(nats), abs=1e-4), kind
    (prefix_figures,) = [one for one in contexts if one.kind == "prefix"]
    assert prefix_figures.vectors == 4
    assert prefix_figures.bytes == 4 * lm.route.width * 4
    assert {one.questions for one in contexts} == {3}


def test_every_size_is_counted_from_the_document_where_a_stretch_of_it_is_read(world, tmp_path):
    """An LM whose window is shorter than the document reads the stretch that has the answer."""
    out = tmp_path / "out"
    distil(config(world, out, window=16, judge=world / "questions.jsonl"), quiet)
    model = load(prompt_folder.folders_in(out))
    tokens = model.lm.tokens
    sizes = [len(tokens.start(one.text)) for one in read_documents.saved_in(out)]
    mean = sum(sizes) / len(sizes)
    contexts = {one.kind: one for one in judged_in(out) if one.exact is not None}
    assert contexts["whole document"].vectors < mean - 1
    for kind, one in contexts.items():
        if kind != "no document":
            assert one.smaller == pytest.approx(mean / one.vectors, rel=0.02), kind


@pytest.mark.parametrize(
    "written, right, is_same",
    [("Vienna.", "vienna", True), (" the  Danube ", "The Danube", True), ("Rome", "Romes", False)],
)
def test_answers_are_compared_without_capitals_and_full_stops(written, right, is_same):
    assert (judge._plain(written) == judge._plain(right)) == is_same


def test_answers_are_written_beside_each_context_and_compared(judged):
    out, contexts = judged
    writing = [one for one in contexts if one.exact is not None]
    beside = {"retrieval", "summary", "first tokens", "no document"}
    kinds = {"whole document", "prefix", *beside}
    assert {one.kind for one in writing} == kinds and len(writing) == 6
    assert all(one.tokens_a_second > 0 for one in writing)
    model = load(prompt_folder.folders_in(out))
    text = next(one.text for one in read_documents.saved_in(out) if one.name == "austria")
    number, tokens = model.number("austria"), model.lm.tokens
    row = {"document": "austria", "question": "the capital ?", "answer": "Vienna"}
    example = model.encode(number, [row])[0]
    ahead, asked = tokens.start(text), example.fills[0].ids
    count = len(example.answer) + judge.MORE
    ids = [*ahead, *asked]
    behind = tokens.tokenizer.decode(greedy(model.lm, ids, count)[len(ids) :])
    (beside,) = model.generate([row], number, DecodingConfig(max_new_tokens=count))
    for right, is_exact in ((behind, True), ("Rome", False)):
        answer = judge._answer_behind(
            model.lm, ahead, asked, values=None, example=example, right=right
        )
        assert (answer.is_exact, answer.tokens) == (is_exact, count)
    assert judge._answer_with_prefix(model, example, beside).is_exact
    assert not judge._answer_with_prefix(model, example, behind).is_exact


def greedy(lm, ids, count):
    """A text and its likeliest continuation, from plain transformers."""
    with torch.no_grad():
        for _ in range(count):
            ids = [*ids, int(lm.model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids


def test_a_summary_is_what_the_lm_writes_behind_the_document_and_is_read_alone(judged):
    out, contexts = judged
    model = load(prompt_folder.folders_in(out))
    lm, texts = model.lm, {one.name: one.text for one in read_documents.saved_in(out)}
    (beside,) = [one for one in contexts if one.kind == "summary"]
    sizes, right = [], {"austria": "Vienna", "danube": "Danube", "berlin": "Berlin"}
    asked = {"austria": "the capital ?", "danube": "the river ?", "berlin": "a city ?"}
    for name, text in texts.items():
        document = [*lm.tokens.start(text), *lm.tokens.follow(judge.SUMMARISE)]
        written = greedy(lm, document, 4)[len(document) :]
        ids = list(itertools.takewhile(lambda token: token not in lm.ends, written))
        row = {"document": name, "question": asked[name], "answer": right[name]}
        example = model.encode(model.number(name), [row])[0]
        row_ids, count = [*example.learn[0].ids, example.answer[-1]], len(example.answer)
        expected = plain_nats(lm, ids, row_ids, count)
        assert beside.nats_of[name] == pytest.approx(float(expected), abs=1e-4)
        sizes.append(len(ids))
    assert beside.vectors == pytest.approx(sum(sizes) / 3, abs=0.1) and max(sizes) > 0


def test_a_summary_of_stretches_has_a_part_of_each(world):
    settings = config(world, "out", length=5, window=16)
    lm = lm_of("llama")
    one = lessons_of(lm, settings)
    assert len(one.stretches) > 2
    written = judge.summary(lm, one, 5)
    parts = [judge.summary(lm, replace(one, stretches=(part,)), 5) for part in one.stretches]
    assert 0 < len(written) <= 5 and written[-1] in {token for part in parts for token in part}


def test_retrieval_takes_the_nearest_sentences_in_the_order_of_the_document(judged):
    out, _ = judged
    lm = load(prompt_folder.folders_in(out)).lm
    text = "The Danube is great . Rome is a city . Madrid or London ? Vienna ; Paris is Rome ."
    one = lessons_of(lm, config(pathlib.Path("."), "out", study=None), text=text)
    nearest = lm.tokens.tokenizer.decode(judge.nearest_sentences(lm, one, "what is Rome ?", 30))
    assert nearest.index("Rome is a city") < nearest.index("Paris is Rome")
    assert len(judge.nearest_sentences(lm, one, "what is Rome ?", 5)) == 5


def test_the_page_says_what_share_of_the_document_the_prefix_gives():
    def one(kind, smaller, vectors, share):
        return JudgedContext(
            kind=kind,
            smaller=smaller,
            vectors=vectors,
            bytes=8,
            nats=1.0,
            share=share,
            nats_of={"a<b": 1.0},
            seconds=0.1,
            seconds_before=0.0,
            questions=3,
        )

    contexts = [
        one("whole document", 1, 100, 1.0),
        one("prefix", 10, 10, 0.62),
        one("retrieval", 5, 20, 0.9),
        one("retrieval", 10, 10, 0.5),
        one("first tokens", 10, 10, 0.1),
        one("no document", 0, 0, 0.0),
    ]
    assert documents_page.answer(contexts) == (
        "A prefix 10.0 times smaller than its document gives 62% of what the whole document "
        "gives; at the same size retrieval 50%, first tokens 10%."
    )
    useless = [context.model_copy(update={"share": None}) for context in contexts]
    assert "no likelier than no document" in documents_page.answer(useless)
    assert documents_page.answer([]) == ""


def test_the_page_is_written_with_a_curve_of_several_runs(judged, world, tmp_path):
    out, _ = judged
    page = (out / "report.html").read_text()
    assert "austria" in page and "retrieval" in page and page.count("<svg") == 2
    other = tmp_path / "out"
    questions = world / "questions.jsonl"
    distil(config(world, other, length=8, judge=questions, beside=[out]), quiet)
    assert (other / "report.html").read_text().count("<svg") == 2
    with pytest.raises(StoreError):
        distil(config(world, tmp_path / "third", judge=questions, beside=[tmp_path]), quiet)


def test_what_is_judged_are_questions(world, tmp_path):
    (tmp_path / "q.jsonl").write_text('{"document": "austria", "text": "a town"}\n')
    with pytest.raises(DataError, match="a text without a question"):
        distil(config(world, tmp_path / "out", judge=tmp_path / "q.jsonl"), quiet)
    assert not (tmp_path / "out").exists()
