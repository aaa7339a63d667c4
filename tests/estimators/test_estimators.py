"""Prompts behind scikit-learn's interface: its own checks, its searches and scores, saving."""

import contextlib
import pathlib
import pickle
import shutil

import numpy as np
import pytest
import tiny
from killing import Stop
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator

import ptune
from ptune.base import files
from ptune.errors import ConfigError, DataError, StoreError, VerbalizerError
from ptune.estimators import classifier as classifier_module
from ptune.estimators import prompt_estimator
from ptune.estimators.classifier import PromptClassifier
from ptune.estimators.generator import PromptGenerator
from ptune.lm.language_model import LanguageModel
from ptune.storage import peft_format

TEXTS = [
    "great film",
    "terrible film",
    "the best",
    "the worst",
    "Vienna is great",
    "bad Rome",
    "great city",
    "bad city",
    "good people",
    "a bad film",
]
LABELS = ["good", "bad"] * 5
SHORT = {"epochs": 2, "batch_size": 4}
# Of scikit-learn's checks those that must fail, each with its reason.
REFUSED = {
    "check_estimators_pickle": "a fitted estimator is not pickled: a pickle runs code, and would "
    "hold the whole LM; it is saved",
    "check_methods_subset_invariance": "floats differ in the seventh digit with the rows that "
    "share a batch, and 1e-7 is asked for",
}


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """The folder of a tiny LM."""
    folder = tmp_path_factory.mktemp("lm")
    network, tokenizer = tiny.tiny("bert")
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def writer():
    return LanguageModel(*tiny.tiny("gpt2"))


def classifier(lm, **options):
    options = {"method": "p-tuning", "train": SHORT} | options
    return PromptClassifier(lm, device="cpu", **options)


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_own_checks(lm):
    estimator = classifier(lm).set_params(train={"epochs": 1, "steps": 2})
    results = check_estimator(estimator, on_skip=None, on_fail=None)
    failed = {
        result["check_name"]: result["exception"]
        for result in results
        if result["status"] == "failed"
    }
    assert failed.keys() <= REFUSED.keys(), failed
    assert isinstance(failed["check_estimators_pickle"], StoreError)
    rounded = failed.get("check_methods_subset_invariance")  # by the values, it fails or not
    assert rounded is None or "rtol=1e-07" in str(rounded)
    assert sum(result["status"] == "passed" for result in results) > 40


def test_texts_in_labels_and_their_probabilities_out(lm):
    fitted = classifier(lm).fit(TEXTS, LABELS)
    assert fitted.classes_.tolist() == ["bad", "good"] and fitted.words_ == {
        "bad": "bad",
        "good": "good",
    }
    shares, answers = fitted.predict_proba(TEXTS), fitted.predict(TEXTS)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=0, atol=1e-12)
    assert answers.tolist() == fitted.classes_[shares.argmax(1)].tolist()
    assert fitted.score(TEXTS, LABELS) == np.mean(answers == np.array(LABELS))
    assert "{soft:3}" in fitted.template_ and fitted.history_
    again = clone(fitted).fit(np.array(TEXTS, dtype=object), LABELS)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), shares)
    column = classifier(lm).fit([[text] for text in TEXTS], LABELS)
    np.testing.assert_array_equal(column.predict_proba([[text] for text in TEXTS]), shares)


def test_rows_of_several_fields(lm):
    rows = [{"title": text, "more": "Vienna"} for text in TEXTS]
    fitted = classifier(lm, method="manual").fit(rows, LABELS)
    assert (
        fitted.template_ == "{title|shorten} {more|shorten} Label: {mask}" and fitted.history_ == []
    )
    with pytest.raises(ValueError, match="Row 2 has no field 'more'.*fitted on rows with"):
        fitted.predict([rows[0], {"title": "x"}])
    named = classifier(
        lm,
        template="{more} : {title|shorten} {mask}",
        words={"good": ["great", "best"], "bad": "bad"},
        method="fine-tune",
    ).fit(rows, LABELS)
    assert named.template_ == "{more} : {title|shorten} {mask}" and named.words_["good"] == [
        "great",
        "best",
    ]


def test_numbers_and_truths_as_labels(lm):
    for labels in ([1, 0] * 5, [True, False] * 5):
        fitted = classifier(lm, words={labels[0]: "good", labels[1]: "bad"}, method="manual").fit(
            TEXTS, labels
        )
        assert (
            set(fitted.predict(TEXTS).tolist()) <= set(labels)
            and fitted.predict(TEXTS).dtype == np.array(labels).dtype
        )


@pytest.mark.parametrize(
    ("labels", "keys"),
    [
        ([1, 0], (1, 0)),
        ([1, 0], (np.int64(1), np.int64(0))),
        ([True, False], (True, np.False_)),
        ([1.0, 2.0], (1, 2)),
        ([1.0, 2.0], ("1", "2.0")),
        (["good", "bad"], ("good", "bad")),
    ],
)
def test_words_and_weights_by_labels_as_the_rows_have_them(lm, labels, keys):
    first, second = keys
    shares = [
        classifier(lm, words={first: "good", second: "bad"}, train={"steps": 2, **weights})
        .fit(TEXTS, labels * 5)
        .predict_proba(TEXTS)
        for weights in (
            {"class_weights": {first: 5.0}},
            {"class_weights": {str(label): 5.0 for label in labels[:1]}},
            {},
        )
    ]
    np.testing.assert_array_equal(shares[0], shares[1])
    assert np.abs(shares[0] - shares[2]).max() > 1e-4


def test_a_seed_of_numpy_is_that_number(lm):
    shares = [
        classifier(lm, train={"steps": 2}, random_state=seed)
        .fit(TEXTS, LABELS)
        .predict_proba(TEXTS)
        for seed in (3, np.int64(3), 4)
    ]
    np.testing.assert_array_equal(shares[0], shares[1])
    assert (shares[0] != shares[2]).any()


def test_scores_searches_and_pipelines(lm, monkeypatch):
    loaded = []
    right = LanguageModel.load.__func__
    monkeypatch.setattr(
        LanguageModel,
        "load",
        classmethod(
            lambda cls, *names, **options: loaded.append(names) or right(cls, *names, **options)
        ),
    )
    prompt_estimator.frozen_lm.cache_clear()
    assert len(cross_val_score(classifier(lm), TEXTS, LABELS, cv=2)) == 2
    search = GridSearchCV(
        classifier(lm), {"method": ["manual", "p-tuning"], "random_state": [0, 1]}, cv=2
    ).fit(TEXTS, LABELS)
    assert (
        search.best_params_["method"] in ("manual", "p-tuning") and len(search.predict(TEXTS)) == 10
    )
    steps = Pipeline(
        [
            ("lower", FunctionTransformer(lambda texts: [text.lower() for text in texts])),
            ("prompt", classifier(lm, method="manual")),
        ]
    )
    assert steps.fit(TEXTS, LABELS).predict(["A GREAT film"])[0] in ("good", "bad")
    assert len(loaded) == 1, "a frozen LM is loaded once"


def test_saved_and_taken_up_again(lm, tmp_path):
    for name in ("p-tuning", "fine-tune"):
        fitted = classifier(lm, method=name).fit(TEXTS, LABELS)
        with pytest.raises(
            StoreError, match=r"not pickled.*\.save\(folder\).*PromptClassifier\.load\(folder\)"
        ):
            pickle.dumps(fitted)
        fitted.save(tmp_path / name)
        loaded = PromptClassifier.load(tmp_path / name, device="cpu")
        np.testing.assert_allclose(
            loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-6
        )
        assert loaded.get_params() == fitted.get_params() and loaded.classes_.tolist() == [
            "bad",
            "good",
        ]
        assert ptune.load(tmp_path / name, device="cpu").predict([{"text": "great"}])[0][
            "prediction"
        ] in ("good", "bad")
    assert pickle.loads(pickle.dumps(classifier(lm))).get_params() == classifier(lm).get_params()
    with pytest.raises(StoreError, match="not of a PromptGenerator"):
        PromptGenerator.load(tmp_path / "p-tuning")
    with pytest.raises(NotFittedError):
        classifier(lm).save(tmp_path / "none")


@pytest.mark.parametrize(
    ("options", "saved"),
    [
        ({"max_length": np.int64(20)}, {"max_length": 20}),
        ({"train": {"steps": np.int64(2)}}, {"train": {"steps": 2}}),
        (
            {"words": {np.int64(0): "bad", np.int64(1): np.array(["good", "great"])}},
            {"words": {"0": "bad", "1": ["good", "great"]}},
        ),
        ({"random_state": np.random.RandomState(0)}, {"random_state": 209652396}),
    ],
)
def test_parameters_are_saved_as_plain_values(lm, tmp_path, options, saved):
    fitted = classifier(pathlib.Path(lm), **options).fit(TEXTS, [1, 0] * 5)
    fitted.save(tmp_path)
    loaded = PromptClassifier.load(tmp_path, device="cpu")
    assert loaded.get_params() == {**fitted.get_params(), "lm": lm, **saved}
    np.testing.assert_array_equal(loaded.predict(TEXTS), fitted.predict(TEXTS))
    loaded.fit(TEXTS, [1, 0] * 5)


@pytest.fixture(scope="module")
def other_fits(lm):
    """Two classifiers that are fitted to other labels."""
    return [
        classifier(lm, method="regression", train=None).fit(TEXTS, labels)
        for labels in (["a", "b"] * 5, ["c"] * 4 + ["d"] * 6)
    ]


def test_what_cannot_be_saved_leaves_what_was_saved(tmp_path, monkeypatch, other_fits):
    earlier, later = other_fits
    earlier.save(tmp_path)
    monkeypatch.setattr(later, "words", {"c": "good", "d": {"great": b"best"}})
    with pytest.raises(StoreError, match=r"words\['d'\]\['great'\] is b'best', which JSON cannot"):
        later.save(tmp_path)
    loaded = PromptClassifier.load(tmp_path, device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), earlier.predict_proba(TEXTS))


def test_an_lm_that_was_tuned_goes_with_its_estimator(lm, tmp_path, monkeypatch, other_fits):
    """And it is written before anything gives way."""
    tuned = classifier(lm, method="fine-tune").fit(TEXTS, LABELS)
    folder = tmp_path / "saved"
    other_fits[0].save(folder)

    def stopped(lm, folder):
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(LanguageModel, "write_files", stopped)
        tuned.save(folder)
    loaded = PromptClassifier.load(folder, device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), other_fits[0].predict_proba(TEXTS))
    tuned.save(folder)
    loaded = PromptClassifier.load(folder, device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), tuned.predict_proba(TEXTS), atol=1e-6)
    tuned.save(folder)
    other_fits[1].save(folder)
    assert not (folder / "lm").exists()
    shutil.copytree(lm, tmp_path / "run" / "lm")
    for _ in range(2):  # the LM there is the user's
        other_fits[0].save(tmp_path / "run")
        assert (tmp_path / "run" / "lm" / "config.json").exists()
    with pytest.raises(StoreError, match="lm is there already, and no estimator saved it"):
        tuned.save(tmp_path / "run")


@pytest.mark.parametrize("written", range(7))
def test_a_save_that_is_killed_leaves_no_mixture(tmp_path, monkeypatch, other_fits, written):
    earlier, later = other_fits
    earlier.save(tmp_path)
    place, placed = files.place, []

    def dying(whole, path):
        if len(placed) == written:
            raise Stop
        placed.append(path)
        place(whole, path)

    with monkeypatch.context() as patch, contextlib.suppress(Stop):
        patch.setattr(files, "place", dying)
        later.save(tmp_path)
    try:
        loaded = PromptClassifier.load(tmp_path, device="cpu")
    except StoreError as error:
        assert "holds no saved PromptClassifier" in str(error)
        return
    whole = earlier if loaded.classes_.tolist() == ["a", "b"] else later
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), whole.predict_proba(TEXTS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fields": 5}, "fields: "),
        ({"fields": []}, "fields: "),
        ({"fields": ["a", 3]}, "fields.1: "),
        ({"classes": None}, "classes: "),
        ({"classes": ...}, "classes: "),
        ({"classes": ["a", "x"]}, "its classes are not the labels of the prompt"),
        ({"template": 3}, "template: "),
        ({"words": "w"}, "words: "),
        ({"selection": 3}, "selection: "),
        ({"parameters": None}, "parameters: "),
        ({"parameters": {"lm": "builtin", "speed": 9}}, "no parameter 'speed'"),
    ],
)
def test_a_damaged_note_is_refused(change, message, tmp_path, other_fits):
    other_fits[0].save(tmp_path)
    note = {**files.read_json(tmp_path / "estimator.json"), **change}
    kept = {name: value for name, value in note.items() if value is not ...}
    files.write_json(tmp_path / "estimator.json", kept)
    with pytest.raises(StoreError, match=f"estimator.json is damaged: .*{message}"):
        PromptClassifier.load(tmp_path, device="cpu")


def test_a_prompt_of_another_kind_takes_the_place_of_an_estimator(tmp_path, other_fits):
    earlier, later = other_fits
    earlier.save(tmp_path)
    ptune.save(later.model_, tmp_path)
    with pytest.raises(StoreError, match="holds no saved PromptClassifier"):
        PromptClassifier.load(tmp_path, device="cpu")


def test_an_estimator_takes_the_place_of_a_prompt_in_pefts_form(tmp_path, other_fits, writer):
    prompt = ptune.PromptModel(writer)
    prompt.add(ptune.Task("t", ptune.Template.parse("{soft:2}{x}{mask}"), None, encoder="table"))
    ptune.save(prompt, tmp_path)
    peft_format.export(prompt, tmp_path)
    other_fits[0].save(tmp_path)
    assert not list(tmp_path.glob("adapter*")) and (tmp_path / "prompt.json").exists()


def test_a_tuned_lm_is_taken_from_the_folder(lm, tmp_path, monkeypatch):
    shutil.copytree(lm, tmp_path / "lm")
    monkeypatch.chdir(tmp_path)
    fitted = classifier("lm", method="fine-tune").fit(TEXTS, LABELS)
    fitted.save("saved")
    (tmp_path / "saved").rename("moved")
    loaded = PromptClassifier.load("moved", device="cpu")
    np.testing.assert_allclose(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS), atol=1e-6)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"method": "ptuning"}, ConfigError, "Did you mean 'p-tuning'"),
        ({"method": "pet"}, ConfigError, "not fitted by rows with labels alone"),
        ({"train": {"epoch": 3}}, ConfigError, "train: epoch: "),
        ({"train": {"epochs": 0}}, ConfigError, "train: epochs: .*greater than or equal to 1"),
        (
            {"words": {"good": "good", "fine": "great"}},
            ConfigError,
            r"no word for \['bad'\]; no row has \['fine'\]",
        ),
        (
            {"words": {"good": "good", "bad": "\u4e2d"}},
            VerbalizerError,
            "not in this LM's vocabulary",
        ),
        ({"dev_share": 1.5}, ConfigError, "dev_share is a share of the rows"),
        (
            {"method": "fine-tune", "train": {"learning_rate": 0.5}},
            ConfigError,
            "not trained by fine-tune",
        ),
        (
            {"train": {"lm_learning_rate": 0.5}},
            ConfigError,
            "not trained by p-tuning",
        ),
        ({"dev_share": "0.2"}, ConfigError, "dev_share is a share of the rows.*it is '0.2'"),
        ({"dev_share": 5.0, "method": "auto"}, ConfigError, "dev_share is a share of the rows"),
        ({"minutes": -3, "method": "auto"}, ConfigError, "minutes: Input should be greater than 0"),
        ({"minutes": float("inf"), "method": "auto"}, ConfigError, "minutes: .*finite number"),
        ({"minutes": -3}, ConfigError, "minutes: Input should be greater than 0"),
        ({"minutes": 3}, ConfigError, "minutes is what method auto may take.*is p-tuning: leave"),
    ],
)
def test_faults_of_parameters(lm, options, error, message):
    with pytest.raises(error, match=message):
        PromptClassifier(lm, device="cpu", **{"method": "p-tuning"} | options).fit(TEXTS, LABELS)


def test_a_shared_lm_is_not_tuned():
    shared = LanguageModel(*tiny.tiny("bert"))
    estimator = PromptClassifier(shared, method="fine-tune")
    assert clone(estimator).lm is shared
    with pytest.raises(ConfigError, match="changes the LM, which others may use"):
        estimator.fit(TEXTS, LABELS)


@pytest.mark.parametrize("dev_share", [0.2, 0.5])
def test_no_row_that_is_kept_back_has_the_text_of_another(lm, monkeypatch, dev_share):
    parts, fit = [], prompt_estimator.train_prompts

    def fit_noted(model, data, *more, **options):
        parts.extend(data.values())
        return fit(model, data, *more, **options)

    monkeypatch.setattr(prompt_estimator, "train_prompts", fit_noted)
    rows = [*TEXTS, *(text.upper() for text in TEXTS)]
    estimator = PromptClassifier(lm, method="p-tuning", train=SHORT, dev_share=dev_share)
    estimator.fit(rows, LABELS * 2)
    ((train, dev),) = parts
    assert sorted(row["text"] for row in [*train, *dev]) == sorted(rows)
    assert len(dev) == 20 * dev_share
    assert not {row["text"].lower() for row in train} & {row["text"].lower() for row in dev}


def test_a_generator(writer, tmp_path):
    settings = {"decoding": {"max_new_tokens": 4}, "train": SHORT, "random_state": 3}
    fitted = PromptGenerator(writer, **settings).fit(TEXTS, ["a great film"] * 10)
    texts = fitted.predict(TEXTS[:3])
    assert texts.shape == (3,) and all(isinstance(text, str) for text in texts)
    assert (
        0 <= fitted.score(TEXTS, [["a great film", "a film"]] * 10) <= 100
        and "{prefix:5}" in fitted.template_
    )
    fitted.save(tmp_path)
    assert PromptGenerator.load(tmp_path, writer).predict(TEXTS[:3]).tolist() == texts.tolist()
    with pytest.raises(
        ConfigError, match="decoding.beams: Input should be greater than or equal to 1"
    ):
        PromptGenerator(writer, decoding={"beams": 0}).fit(["x"], ["y"])
    with pytest.raises(ValueError, match="Row 1 has no right text, but 3"):
        PromptGenerator(writer).fit(["x"], [3])


def test_a_generator_is_scored_when_it_is_fitted(writer):
    with pytest.raises(NotFittedError):
        PromptGenerator(writer).score(["x"], ["y"])


def test_an_unknown_metric_is_refused_before_the_training(writer):
    with pytest.raises(ConfigError, match="no metric 'rouge'. Did you mean"):
        PromptGenerator(writer, metric="rouge", train=SHORT).fit(TEXTS, TEXTS)


def test_of_several_texts_the_first_is_scored(writer):
    decoding = {"max_new_tokens": 4, "sample": True, "temperature": 5.0, "texts": 2}
    fitted = PromptGenerator(writer, decoding=decoding, train=SHORT).fit(TEXTS, ["a film"] * 10)
    texts = fitted.predict(TEXTS)
    assert texts.shape == (10, 2)
    assert fitted.score(TEXTS, texts[:, 0].tolist()) > fitted.score(TEXTS, texts[:, 1].tolist())


def test_a_method_is_chosen_and_saved(lm, tmp_path, monkeypatch):
    estimator = PromptClassifier(lm, device="cpu", minutes=1e-4).fit(TEXTS, LABELS)
    assert estimator.selection_.chosen == ["regression"]
    assert estimator.score(TEXTS, LABELS) > 0.5
    estimator.save(tmp_path / "one")
    loaded = PromptClassifier.load(tmp_path / "one", device="cpu")
    assert loaded.selection_ == estimator.selection_
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), estimator.predict_proba(TEXTS))
    choose = classifier_module.choose

    def both(form, lm, rows, **options):
        selection, (one,) = choose(form, lm, rows, **options)
        return selection, [one, one]

    monkeypatch.setattr(classifier_module, "choose", both)
    estimator.fit(TEXTS, LABELS).save(tmp_path / "two")
    assert estimator.model_.is_ensemble
    loaded = PromptClassifier.load(tmp_path / "two", device="cpu")
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), estimator.predict_proba(TEXTS))
    with pytest.raises(ConfigError, match="leave train out"):
        PromptClassifier(lm, device="cpu", train=SHORT).fit(TEXTS, LABELS)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2)])
def test_an_ensemble_and_a_prompt_replace_each_other(lm, tmp_path, monkeypatch, before, after):
    choose = classifier_module.choose
    for members, labels in ((before, LABELS), (after, LABELS[::-1])):

        def several(form, lm, rows, members=members, **options):
            selection, (one,) = choose(form, lm, rows, **options)
            return selection, [one] * members

        monkeypatch.setattr(classifier_module, "choose", several)
        estimator = PromptClassifier(lm, device="cpu", minutes=1e-4).fit(TEXTS, labels)
        estimator.save(tmp_path / "saved")
    loaded = PromptClassifier.load(tmp_path / "saved", device="cpu")
    assert len(loaded.model_.tasks) == after
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), estimator.predict_proba(TEXTS))
    kept = tmp_path / "bank" / "prompts" / "anna" / "prompt.json"
    kept.parent.mkdir(parents=True)
    kept.write_text("{}")
    if after == 1:
        estimator.save(tmp_path / "bank")
    else:
        with pytest.raises(StoreError, match="prompts is there already, and no estimator saved it"):
            estimator.save(tmp_path / "bank")
    assert kept.read_text() == "{}"


@pytest.mark.parametrize("y", [[["a"], ["a", "b"], []], np.array([[1, 0], [1, 1], [0, 0]])])
def test_rows_with_several_labels_are_sent_to_a_task(y):
    with pytest.raises(ValueError, match="multi_label"):
        PromptClassifier(method="manual").fit(["a film", "a city", "a town"], y)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([], "There are no rows"),
        (np.array([], dtype=object), "There are no rows"),
        ("a single text", "write \\[text\\]"),
        (["good", None], "Row 2 is no text, but None"),
        ([None], "Row 1 is no text, but None"),
        (["good", 5], "Row 2 is no text, but 5"),
        ([{"text": "good"}, {"text": float("nan")}], "Row 2 has no value in 'text'"),
    ],
)
def test_rows_without_a_text_are_named(lm, X, message):
    with pytest.raises(ValueError, match=message):
        PromptClassifier(lm, "p-tuning", train=SHORT).fit(X, ["a"] * len(X))


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan])
def test_a_row_without_a_label_is_named(lm, missing):
    with pytest.raises(ValueError, match="Row 3 has no label"):
        PromptClassifier(lm).fit(TEXTS[:3], ["good", "bad", missing])


def test_columns_of_one_name_are_refused(lm):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame([["great", "film"], ["bad", "city"]], columns=["text", "text"])
    with pytest.raises(DataError, match="Two columns of the table are called 'text'"):
        PromptClassifier(lm, "manual").fit(table, ["good", "bad"])


def test_cells_of_a_table_keep_their_digits(lm):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.DataFrame(
        {
            "number": [12345, 2],
            "price": [1234567.25, 3.0],
            "right": [True, False],
        }
    )
    rows = PromptClassifier(lm)._rows(table, reset=True)
    assert rows[0] == {"number": "12345", "price": "1234567.25", "right": "True"}
    assert rows[1] == {"number": "2", "price": "3", "right": "False"}
    for column, lacking in {"price": None, "when": pandas.NaT, "number": pandas.NA}.items():
        holed = table.astype(object).assign(when=pandas.Timestamp("2020-02-03"))
        holed.loc[1, column] = lacking
        with pytest.raises(ValueError, match=f"Row 2 has no value in '{column}'"):
            PromptClassifier(lm)._rows(holed, reset=True)


def test_numbers_of_an_array_keep_their_digits(lm):
    rows = PromptClassifier(lm)._rows(np.array([[12345.0, 0.25], [1e6, 2.0]]), reset=True)
    assert rows == [{"x0": "12345", "x1": "0.25"}, {"x0": "1000000", "x1": "2"}]


def test_a_set_of_texts_has_no_order(lm):
    for texts in (set(TEXTS), frozenset(TEXTS)):
        with pytest.raises(ValueError, match="X is a set, whose texts have no order"):
            classifier(lm).fit(texts, LABELS[: len(texts)])
