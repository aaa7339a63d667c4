"""The kept candidates ranked on dev after fine-tuning with each, against the same training of a
fresh LM for each, scored by the network alone."""

import pytest
import tiny
import torch
from killing import killed_after_every_file
from search_kit import YAML, config_of, lm_of, plain_score, search, write_task

from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.search import run_search
from ptune.search.common import reranking
from ptune.template.language import Template
from ptune.training.loop import fit

OPTIONS = {"by": "label-words", "rerank": "fine-tune", "rerank_steps": 12, "keep": 3}
OF_ONE_PATTERN = YAML.replace(', "the {text} : {mask}"', "")


@pytest.fixture
def folder(tmp_path):
    write_task(tmp_path, "bert", OF_ONE_PATTERN)
    (tmp_path / "words.txt").write_text("great\nbad\ngood\nYes\nNo\ncity\nfilm\nbest\n")
    return tmp_path


def options(folder, **more):
    words = {"words": folder / "words.txt", "words_per_label": 1}
    return config_of(folder, **{**OPTIONS, **words, **more})


def tuned_apart(folder, candidate, settings, lm):
    """The figure and the loss on dev of an LM that was fine-tuned with a candidate alone."""
    task = run_search.read_task(folder / "task.yaml", lm=None, shots=None, seed=0)
    rows = run_search.of_task(
        task.form, task.data, lm, learning=task.learning, most_rows=200, seed=0, report=print
    )
    model = PromptModel(lm)
    verbalizer = Verbalizer.from_words(candidate.words)
    model.add(Task("opinions", Template.parse(candidate.template), verbalizer))
    fit(model, {0: (rows.train, rows.dev)}, settings, tune="lm")
    with lm.evaluating():
        return plain_score(lm, candidate.template, candidate.words, rows.dev)


def test_candidates_are_ranked_by_what_the_lm_learns_with_each(folder):
    lm = lm_of("bert")
    before = lm.weights()
    results = search(options(folder), lambda line: None)
    assert all(torch.equal(value, before[name]) for name, value in lm.weights().items())
    settings = reranking.tuning_of(12, 8, 0)
    kept = results.candidates
    assert len(kept) == 3 and settings.batch_size == 8
    shared = LanguageModel(*tiny.tiny("bert"))
    for number, one in enumerate(kept):
        apart = LanguageModel(*tiny.tiny("bert"))
        expected = tuned_apart(folder, one, settings, apart)
        assert (one.tuned, one.tuned_loss) == pytest.approx(expected, abs=1e-5)
        in_turn = tuned_apart(folder, one, settings, shared)
        assert not number or abs(in_turn[1] - one.tuned_loss) > 1e-4, "an LM that was not put back"
        assert abs(one.tuned_loss - one.dev_loss) > 1e-4
    order = [(-one.tuned, one.tuned_loss) for one in kept]
    assert order == sorted(order)
    zero_shot = search(
        options(folder, out=folder / "other", rerank="zero-shot", rerank_steps=20),
        lambda line: None,
    ).candidates
    assert {str(one.words) for one in zero_shot} == {str(one.words) for one in kept}
    assert all(one.tuned is None for one in zero_shot)
    page = (folder / "out" / "report.html").read_text()
    assert (
        "dev, fine-tuned" in page
        and "fine-tuned" not in (folder / "other" / "report.html").read_text()
    )


def test_the_order_is_that_of_the_figures_after_training(folder):
    kept = search(options(folder, keep=8, rerank_steps=24), lambda line: None).candidates
    after = [(-one.tuned, one.tuned_loss) for one in kept]
    before = [(-one.dev, one.dev_loss) for one in kept]
    assert after == sorted(after) and before != sorted(before)


def test_a_kill_loses_nothing_and_the_budget_is_kept(folder, monkeypatch):
    def run(name, **more):
        out = folder / name
        resume = (out / "settings.json").exists()
        return search(options(folder, out=out, resume=resume, **more), lambda line: None)

    whole = run("whole", keep=2, rerank_steps=2)
    killed_after_every_file(lambda: run("kills", keep=2, rerank_steps=2), monkeypatch)
    for path in sorted((folder / "whole").rglob("*.json")):
        other = folder / "kills" / path.relative_to(folder / "whole")
        if path.name != "settings.json":
            assert other.read_text() == path.read_text(), path.name
    exact = run("exact", keep=2, rerank_steps=2, budget=whole.calls)
    assert exact.calls == whole.calls and exact.candidates == whole.candidates
    with pytest.raises(ConfigError, match="is too small"):
        run("small", keep=2, rerank_steps=2, budget=40)
    assert not list((folder / "small").glob("results/tuned*"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"by": "paraphrase", "paraphrases": "words.txt"}, "of generate and label-words"),
        ({"by": "gradient"}, "of generate and label-words, and this search is by gradient"),
        ({"rerank": "zero-shot"}, "--rerank-steps is of --rerank fine-tune"),
    ],
)
def test_reranking_is_obeyed_or_refused(given, message, folder):
    plain = {"words": None, "words_per_label": 3}
    with pytest.raises(ConfigError, match=message):
        search(options(folder, **plain, **given), print)
    assert not (folder / "out").exists()


def test_an_lm_that_cannot_be_tuned_is_refused_before_the_search(folder, monkeypatch):
    def refuse(*arguments, **settings):
        raise ConfigError("it cannot be tuned")

    monkeypatch.setattr(reranking.rehearsal, "one_step", refuse)
    with pytest.raises(ConfigError, match="cannot be tuned"):
        search(options(folder), print)
    assert not (folder / "out" / "results").exists()
