"""Methods are tried on the labelled rows alone, each row answered by what did not learn from it."""

from collections import Counter
from dataclasses import replace

import pytest
import tiny
from killing import killed_after_every_file

from ptune.errors import ConfigError, DivergedError
from ptune.lm.language_model import LanguageModel
from ptune.selection import choice, training
from ptune.selection.candidates import candidates, with_best_patterns
from ptune.selection.choice import choose
from ptune.selection.cross_validation import ALWAYS_LEARNED, folds, out_of_fold
from ptune.settings import PetConfig
from ptune.tasks.resolved.task_form import Answers, TaskForm

TEXTS = ["great film", "terrible film", "the best", "the worst", "Vienna is great", "bad Rome"]
ROWS = [
    {"text": f"{text} {number}", "label": "good" if number % 2 else "bad"}
    for number, text in enumerate([*TEXTS, *TEXTS])
]
TASK = TaskForm(
    name="films",
    template="{text|shorten} {soft:2} it is {mask}",
    patterns=("{text|shorten} it is {mask}", "It is {mask} : {text|shorten}"),
    answers=Answers({"good": "great", "bad": "bad"}),
)


@pytest.fixture(scope="module")
def lm():
    return LanguageModel(*tiny.tiny("bert"))


def of(name, lm, **settings):
    """A candidate with a short training."""
    (chosen,) = [one for one in candidates(TASK, lm, True) if one.name == name]
    settings = {"steps": 2, "epochs": None} | settings
    method = replace(chosen.method, train=chosen.method.train.replaced(settings))
    return replace(chosen, method=method)


def test_folds_have_as_many_rows_of_each_label_and_keep_equal_texts_together():
    rows = [*ROWS, {"text": "one of its kind", "label": "other"}, ROWS[0], ROWS[0]]
    fold_of = folds(TASK, rows, 3, seed=0)
    assert fold_of[12] == ALWAYS_LEARNED
    assert fold_of[0] == fold_of[13] == fold_of[14]
    sizes = Counter((row["label"], fold) for row, fold in zip(ROWS, fold_of))
    assert set(sizes.values()) == {2} and len(sizes) == 6
    assert folds(TASK, rows, 3, seed=1) != fold_of


def test_rows_of_one_text_stay_together_whatever_their_ids():
    """With copies in other folds, labels drawn at random would be learned by heart and answered."""
    copies = [{**row, "text": row["text"].upper(), "label": "bad"} for row in ROWS]
    rows = [{**row, "id": str(number)} for number, row in enumerate([*ROWS, *copies])]
    fold_of = folds(TASK, rows, 3, seed=0)
    assert fold_of[: len(ROWS)] == fold_of[len(ROWS) :] == folds(TASK, ROWS, 3, seed=0)


@pytest.mark.parametrize("name", ["regression", "contrastive", "head", "manual+fine-tune"])
def test_a_row_is_answered_by_what_did_not_learn_from_it(name, lm):
    """Its own label changes nothing of its answer, and much of those to rows of other folds."""
    candidate, fold_of = of(name, lm), folds(TASK, ROWS, 3, seed=0)
    before = lm.fingerprint()
    answers = out_of_fold(candidate, lm, ROWS, fold_of)
    assert sorted(answers) == list(range(len(ROWS))) and lm.fingerprint() == before
    assert all(sum(shares) == pytest.approx(1) for shares in answers.values())
    held = [number for number, fold in enumerate(fold_of) if fold == fold_of[0]]
    changed = [
        {**row, "label": "good" if row["label"] == "bad" else "bad"} if n in held else row
        for n, row in enumerate(ROWS)
    ]
    again = out_of_fold(candidate, lm, changed, fold_of)
    assert all(again[n] == pytest.approx(answers[n], abs=1e-5) for n in held)
    others = set(answers) - set(held)
    assert any(abs(again[n][0] - answers[n][0]) > 1e-4 for n in others)


def planted(monkeypatch, quality):
    """Answers of each candidate that are right with a given probability in so many of 12 rows."""

    def answer(candidate, lm, rows, fold_of):
        if candidate.name not in quality:
            raise DivergedError("the loss was no finite number", {})
        right, share = quality[candidate.name]
        return {
            n: [share, 1 - share] if (row["label"] == "good") == (n < right) else [1 - share, share]
            for n, row in enumerate(rows)
        }

    monkeypatch.setattr(choice, "out_of_fold", answer)


def test_the_planted_best_is_chosen(lm, monkeypatch):
    planted(monkeypatch, {"regression": (7, 0.9), "contrastive": (11, 0.9), "head": (9, 0.9)})
    lines = []
    selection, chosen = choose(TASK, lm, ROWS, report=lines.append)
    assert selection.chosen == ["contrastive"] == [one.name for one in chosen]
    assert selection.figure == pytest.approx(11 / 12) and selection.sureness > 80
    failed = [attempt for attempt in selection.attempts if attempt.name == "p-tuning"]
    assert failed[0].figure is None and "no finite number" in failed[0].note
    assert any("contrastive" in line and "0.917" in line for line in lines)


def test_a_choice_that_is_killed_after_any_file_tries_nothing_twice(lm, monkeypatch, tmp_path):
    planted(monkeypatch, {"regression": (7, 0.9), "contrastive": (11, 0.9), "head": (9, 0.9)})
    tried, answer = [], choice.out_of_fold

    def counted(candidate, *arguments):
        tried.append(candidate.name)
        return answer(candidate, *arguments)

    monkeypatch.setattr(choice, "out_of_fold", counted)
    ended = []
    files = killed_after_every_file(
        lambda: ended.append(choose(TASK, lm, ROWS, folder=tmp_path, identity="a")),
        monkeypatch,
    )
    assert tried == [one.name for one in candidates(TASK, lm, True)]
    assert len(files) == len(tried) + 1
    ((selection, chosen),) = ended
    assert [one.name for one in chosen] == ["contrastive"] and selection.sureness > 80
    again = choose(TASK, lm, ROWS, folder=tmp_path, identity="a")[0]
    assert again == selection and len(tried) == len(selection.attempts) - 1
    with pytest.raises(ConfigError, match="computed with another"):
        choose(TASK, lm, ROWS, folder=tmp_path, identity="b")


def test_of_equal_figures_the_lower_loss_is_chosen_and_two_answer_together_where_that_is_better(
    lm, monkeypatch
):
    planted(monkeypatch, {"regression": (9, 0.55), "head": (9, 0.6)})
    assert choose(TASK, lm, ROWS)[0].chosen == ["head"]
    monkeypatch.undo()
    right = {"regression": range(9), "contrastive": range(4, 12)}

    def answer(candidate, lm, rows, fold_of):
        if candidate.name not in right:
            raise DivergedError("the loss was no finite number", {})
        shares = {}
        for n, row in enumerate(rows):
            share = 0.9 if n in right[candidate.name] else 0.4
            shares[n] = [share, 1 - share] if row["label"] == "good" else [1 - share, share]
        return shares

    monkeypatch.setattr(choice, "out_of_fold", answer)
    selection, chosen = choose(TASK, lm, ROWS)
    assert selection.chosen == ["contrastive", "regression"] and selection.figure == 1.0


def test_a_contrastive_prompt_is_taken_unless_what_leaves_the_lm_as_it_is_is_clearly_ahead(
    lm, monkeypatch
):
    """A row that one alone answers rightly is a standard error, and of four rows two are one."""
    planted(monkeypatch, {"regression": (11, 0.6), "contrastive": (10, 0.9)})
    assert choose(TASK, lm, ROWS)[0].chosen == ["contrastive"]
    planted(monkeypatch, {"regression": (11, 0.6), "contrastive": (7, 0.9)})
    assert choose(TASK, lm, ROWS)[0].chosen == ["regression"]
    planted(monkeypatch, {"head": (11, 0.9), "contrastive": (10, 0.6)})
    assert choose(TASK, lm, ROWS)[0].chosen == ["head"]


@pytest.mark.parametrize("right, chosen", [((6, 12), "contrastive"), ((12, 3), "regression")])
def test_what_there_is_no_time_for_is_tried_in_fewer_folds(lm, monkeypatch, right, chosen):
    """Two candidates are compared on the rows that both answered: those of the first fold."""
    held = []
    quality = dict(zip(("regression", "contrastive"), right))

    def answer(candidate, lm, rows, fold_of):
        if candidate.name not in quality:
            raise DivergedError("the loss was no finite number", {})
        right, numbers = quality[candidate.name], [n for n, fold in enumerate(fold_of) if fold >= 0]
        if candidate.name == "contrastive":
            held.extend(numbers)
        shares = {True: [0.9, 0.1], False: [0.1, 0.9]}
        return {n: shares[(rows[n]["label"] == "good") == (n < right)] for n in numbers}

    monkeypatch.setattr(choice, "out_of_fold", answer)
    (one,) = [one for one in candidates(TASK, lm, True) if one.name == "contrastive"]
    passes = one.row_passes(8) + one.row_passes(12)
    monkeypatch.setattr(choice, "_seconds_a_pass", lambda *_: 60 / passes)
    selection, _ = choose(TASK, lm, ROWS, minutes=1.01)
    fold_of = folds(TASK, ROWS, 3, seed=0)
    assert held == [n for n, fold in enumerate(fold_of) if fold == 0]
    tried = {attempt.name: attempt for attempt in selection.attempts}
    assert (tried["regression"].folds, tried["contrastive"].folds) == (3, 1)
    assert "tried in 1 of 3 folds" in choice.line(tried["contrastive"], "accuracy")
    assert "folds" not in choice.line(tried["regression"], "accuracy")
    assert selection.chosen == [chosen]
    assert (selection.rows, selection.folds) == ((4, 1) if chosen == "contrastive" else (12, 3))


def test_methods_that_change_the_lm_and_slow_ones_are_left_out_where_they_are_to_be(lm):
    names = [candidate.name for candidate in candidates(TASK, lm, tune_lm=False)]
    assert "head" not in names and {"regression, layer 2", "contrastive", "manual, pattern 2"} <= {
        *names
    }
    selection, _ = choose(TASK, lm, ROWS, minutes=1e-4)
    assert selection.chosen == ["regression"]
    assert all("left out: it would take" in a.note for a in selection.attempts[2:] if not a.figure)


def test_what_is_chosen_learns_from_all_rows(lm):
    trained = training.train([of("regression", lm), of("contrastive", lm)], lm, ROWS)
    assert sorted(trained.tasks) == ["1", "2"] and trained.model.is_ensemble
    assert len(trained.model.predict([{"text": "great film"}])) == 1


def test_nothing_fits_an_encoder_decoder_without_words(monkeypatch):
    t5 = LanguageModel(*tiny.tiny("t5"))
    names = [candidate.name for candidate in candidates(TASK, t5, tune_lm=False)]
    assert names == ["manual, pattern 1", "manual, pattern 2", "p-tuning"]
    monkeypatch.setattr(type(t5), "has_head", False)
    with pytest.raises(ConfigError, match="No method fits films on this LM"):
        candidates(TASK, t5, tune_lm=False)


WORDS = replace(
    TASK, answers=replace(TASK.answers, verbalizers=({"good": "best", "bad": "worst"},))
)
QUICK = {"steps": 2, "epochs": None}


def pet_of(lm, task=WORDS):
    """PET with trainings of two steps."""
    pet = PetConfig(distil=PetConfig().distil.model_copy(update=QUICK))
    fitting = candidates(task, lm, True, ROWS[:6], pet=pet)
    (chosen,) = [one for one in fitting if one.name == "pet"]
    method = replace(chosen.method, train=chosen.method.train.replaced({"steps": 2}))
    return replace(chosen, method=method)


def test_every_pattern_is_tried_with_every_verbalizer_and_the_best_is_trained(lm, monkeypatch):
    tried = {one.name: one for one in candidates(WORDS, lm, True, ROWS[:6])}
    manual = [one for name, one in tried.items() if name.startswith("manual, pattern")]
    asked = {(one.member.template, str(one.member.words)) for one in manual}
    assert len(asked) == len(manual) == 4
    figures = {one.name: 0.5 + number / 10 for number, one in enumerate(manual)}
    settled = with_best_patterns(tried["manual+fine-tune"], figures, tried)
    assert settled.member == manual[-1].member
    pet = with_best_patterns(tried["pet"], figures, tried)
    assert list(pet.members) == [one.member for one in manual[:0:-1]]
    for name in ("p-tuning", "regression", manual[0].name):
        assert with_best_patterns(tried[name], figures, tried) is tried[name]
    right = {name: (6 + n, 0.9) for n, name in enumerate(figures)} | {"manual+fine-tune": (12, 0.9)}
    planted(monkeypatch, right)
    ((best,)) = choose(WORDS, lm, ROWS)[1]
    assert (best.name, best.member) == ("manual+fine-tune", manual[-1].member)


def test_pet_is_tried_where_there_are_unlabelled_rows_and_the_lm_may_change(lm):
    for given in ((WORDS, lm, True), (WORDS, lm, False, ROWS)):
        assert "pet" not in [one.name for one in candidates(*given)]
    candidate, fold_of = pet_of(lm), folds(TASK, ROWS, 3, seed=0)
    before = lm.fingerprint()
    answers = out_of_fold(candidate, lm, ROWS, fold_of)
    assert sorted(answers) == list(range(len(ROWS))) and lm.fingerprint() == before
    fine_tune = next(one for one in candidates(WORDS, lm, True) if one.name == "manual+fine-tune")
    full = next(one for one in candidates(WORDS, lm, True, ROWS[:6]) if one.name == "pet")
    assert full.row_passes(12) > 3 * fine_tune.row_passes(12) / 10
