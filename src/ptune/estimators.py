"""Prompts behind scikit-learn's interface: ``PromptClassifier`` and ``PromptGenerator`` for its
pipelines, searches and scores."""

import pathlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

import numpy as np
from pydantic import ValidationError
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from ptune.answers.reader_table import READERS
from ptune.base import files
from ptune.errors import ConfigError, StoreError, reason
from ptune.lm.language_model import LanguageModel
from ptune.metrics import texts as text_metrics
from ptune.model.prompt_model import PromptModel
from ptune.settings import TrainConfig, TrainOverrides
from ptune.storage import prompt_folder
from ptune.survey import proposals
from ptune.tasks import yaml_task
from ptune.tasks.schema import TaskConfig
from ptune.training.loop import fit as train_prompts
from ptune.training.methods import Method, method

NOTE = "estimator.json"
Row = dict[str, Any]


class _PromptEstimator(BaseEstimator):
    """What the classifier and the generator share: parameters, rows, the LM, training, saving."""

    def __init__(
        self,
        lm: Any,
        method: str,
        template: str | None,
        train: Mapping[str, Any] | None,
        dev_share: float,
        max_length: int | None,
        random_state: Any,
        device: str,
        dtype: str,
    ):
        self.lm = lm
        self.method = method
        self.template = template
        self.train = train
        self.dev_share = dev_share
        self.max_length = max_length
        self.random_state = random_state
        self.device = device
        self.dtype = dtype

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "model_")

    def __getstate__(self) -> Any:
        """Unfitted, the parameters; a fitted estimator is refused.

        Raises:
            StoreError: it is fitted, or its LM is an object.
        """
        if hasattr(self, "model_"):
            raise StoreError(
                f"A fitted {type(self).__name__} is not pickled, since a pickle can run code when "
                "it is read and would hold the whole LM: "
                f"keep it by .save(folder), and take it up by {type(self).__name__}.load(folder)."
            )
        if isinstance(self.lm, LanguageModel):
            raise StoreError(
                f"A {type(self).__name__} over a loaded LM is not pickled, as other processes "
                "would need: give the LM by its folder or name."
            )
        return super().__getstate__()

    def save(self, folder: str | pathlib.Path) -> None:
        """Save the trained prompt as a prompt folder, which ``ptune predict`` and ``ptune.load``
        read too.

        Raises:
            NotFittedError: it is not fitted.
            StoreError: the folder cannot be written.
        """
        check_is_fitted(self)
        folder = pathlib.Path(folder)
        parameters = self.get_params()
        if isinstance(parameters["lm"], LanguageModel):
            parameters["lm"] = parameters["lm"].source
        if not isinstance(parameters["random_state"], int | None):
            parameters["random_state"] = self.seed_
        if _tunes_lm(method(self.method)):
            self.model_.lm.save(folder / "lm")
            self.model_.lm.source = "./lm"
        prompt_folder.save(self.model_, folder, 0, encoder=True)
        files.write_json(
            folder / NOTE,
            {
                "estimator": type(self).__name__,
                "parameters": parameters,
                "fields": self.fields_,
                **self._fitted_state(),
            },
        )

    @classmethod
    def load(
        cls,
        folder: str | pathlib.Path,
        lm: LanguageModel | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Self:
        """A fitted estimator from the folder in which ``save`` put it.

        Args:
            lm: the LM; without it, the one that the prompt names is loaded.

        Raises:
            StoreError: the folder is damaged, holds another estimator, or its LM is not there.
        """
        folder = pathlib.Path(folder)
        note = files.read_json(folder / NOTE)
        if not isinstance(note, dict) or note.get("estimator") != cls.__name__:
            raise StoreError(f"{folder / NOTE} is not of a {cls.__name__}.")
        estimator = cls(**note["parameters"])
        estimator.model_ = prompt_folder.load(folder, lm=lm, device=device, dtype=dtype)
        estimator.fields_ = note["fields"]
        estimator.n_features_in_ = len(estimator.fields_)
        estimator._restore(note)
        return estimator

    def _fitted_state(self) -> dict[str, Any]:
        return {}

    def _restore(self, note: Mapping[str, Any]) -> None:
        """Restore what ``_fitted_state`` has saved."""

    def _rows(self, X: Any, reset: bool) -> list[Row]:
        """Rows of fields: of a list of texts, a list of dictionaries, or a table with a column or
        several.

        Raises:
            ValueError: there are none, or they have other columns than those that were fitted.
        """
        if _is_list_of(X, Mapping):
            return self._checked_fields([dict(row) for row in X], reset)
        if _is_list_of(X, str) or _is_series_of_texts(X):
            if reset:
                self.n_features_in_ = 1
            return self._checked_fields([{"text": str(text)} for text in X], reset)
        names = [str(name) for name in X.columns] if hasattr(X, "columns") else None
        table = validate_data(self, X, reset=reset, dtype=None, ensure_min_features=1)
        names = names or (
            ["text"] if table.shape[1] == 1 else [f"x{number}" for number in range(table.shape[1])]
        )
        return self._checked_fields(
            [{name: _text(value) for name, value in zip(names, values)} for values in table], reset
        )

    def _checked_fields(self, rows: list[Row], reset: bool) -> list[Row]:
        if reset:
            self.fields_ = list(rows[0])
            self.n_features_in_ = len(self.fields_)
        for number, row in enumerate(rows, 1):
            if missing := [name for name in self.fields_ if name not in row]:
                raise ValueError(
                    f"Row {number} has no field {missing[0]!r}; {type(self).__name__} was fitted "
                    f"on rows with {self.fields_}."
                )
        return rows

    def _method(self) -> Method:
        chosen = method(self.method)
        asks_relations = chosen.reader and READERS[chosen.reader].words_are_relations
        if chosen.name in ("pet", "ipet") or asks_relations:
            raise ConfigError(
                f"{chosen.name} is not fitted by rows with labels alone: ptune train and ptune "
                "compare run it."
            )
        if _tunes_lm(chosen) and isinstance(self.lm, LanguageModel):
            raise ConfigError(
                f"{chosen.name} changes the LM, which others may use: give it by its folder or "
                "name, so that it is loaded for this fit."
            )
        return chosen

    def _load_lm(self, chosen: Method) -> LanguageModel:
        if isinstance(self.lm, LanguageModel):
            return self.lm
        if _tunes_lm(chosen):
            return LanguageModel.load(self.lm, device=self.device, dtype=self.dtype, tuned=True)
        return _frozen_lm(str(self.lm), self.device, self.dtype)

    def _settings(self, chosen: Method) -> TrainConfig:
        try:
            overrides = TrainOverrides.model_validate(dict(self.train or {}))
        except ValidationError as error:
            fault = error.errors()[0]
            raise ConfigError(
                f"train: {'.'.join(map(str, fault['loc']))}: {reason(fault)}."
            ) from error
        return chosen.train.replaced(
            {"seed": self.seed_, **overrides.model_dump(exclude_none=True)}
        )

    def _train(
        self,
        config: TaskConfig,
        chosen: Method,
        lm: LanguageModel,
        rows: list[Row],
        strata: Sequence[Any] | None,
    ) -> None:
        train, dev = self._halves(rows, strata)
        model = PromptModel(lm, max_length=self.max_length)
        number = yaml_task.add(
            model, config, yaml_task.members(config, chosen, lm)[0], train, method=chosen
        )
        self.history_ = []
        if chosen.tune != "nothing":
            trained = train_prompts(
                model,
                {number: (train, dev)},
                self._settings(chosen),
                tune=chosen.tune,
                label=type(self).__name__,
            )
            self.history_ = [vars(evaluation) for evaluation in trained[number].history]
        self.model_ = model

    def _halves(self, rows: list[Row], strata: Sequence[Any] | None) -> tuple[list[Row], list[Row]]:
        """Rows to learn from, and rows by which the best state is chosen; the same ones where there
        are too few to part."""
        if not 0 <= self.dev_share < 1:
            raise ConfigError(
                "dev_share is a share of the rows, from 0 (dev is what is learned from) up to 1, "
                f"and it is {self.dev_share}."
            )
        held_out = round(self.dev_share * len(rows))
        classes = len(set(strata)) if strata is not None else 1
        if (
            held_out < classes
            or len(rows) - held_out < classes
            or strata is not None
            and min(map(list(strata).count, set(strata))) < 2
        ):
            return rows, rows
        train, dev = train_test_split(
            rows, test_size=held_out, random_state=self.seed_, stratify=strata
        )
        return train, dev


class PromptClassifier(ClassifierMixin, _PromptEstimator):
    """A classifier that asks a language model: rows of text in, labels out; see scikit-learn's
    estimators.

    Args:
        lm: "builtin", a transformers folder, a .gguf file, a name on the hub, or a
            ``LanguageModel``. By name, a frozen LM is loaded once and shared; a method that tunes
            the LM loads its own.
        method: a method of ``ptune methods``, such as "p-tuning", "prefix-tuning", "manual" or
            "head".
        template: where fields, soft tokens and ``{mask}`` stand; by default all fields and then the
            answer.
        words: for each label a word, or several; by default words that the LM has whole (``words_``
            shows them).
        train: settings of training in place of the method's own: {"learning_rate": 1e-3, "epochs":
            10}.
        dev_share: the share of the rows that is kept back, by label, to choose the best state; 0
            takes the training rows.
        max_length: tokens of an input at most.
        random_state: of the rows that are kept back, the initialisation and the order of rows.
        device, dtype: as in ``LanguageModel.load``.

    Attributes:
        classes_: the labels, sorted.
        words_: the words that stand for them.
        template_: the template.
        model_: the fitted ``PromptModel``.
        history_: the looks at dev.
    """

    def __init__(
        self,
        lm: Any = "builtin",
        method: str = "p-tuning",
        template: str | None = None,
        words: Mapping[Any, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        dev_share: float = 0.2,
        max_length: int | None = None,
        random_state: Any = 0,
        device: str = "auto",
        dtype: str = "auto",
    ):
        super().__init__(
            lm, method, template, train, dev_share, max_length, random_state, device, dtype
        )
        self.words = words

    def fit(self, X: Any, y: Any) -> Self:
        """Train a prompt on rows and their labels.

        Args:
            X: a list of texts, of dictionaries (fields of a row), or a table of one column or
                several.
            y: a label for each row.

        Raises:
            ValueError: rows or labels that cannot be.
            PtuneError: the LM, the template, the words or the settings are at fault.
        """
        chosen = self._method()
        rows = self._rows(X, reset=True)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        y = column_or_1d(y, warn=True)
        check_consistent_length(rows, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Labels are told apart, and the rows have one class: {self.classes_[0]!r}."
            )
        self.seed_ = _seed(self.random_state)
        lm = self._load_lm(chosen)
        labels = [str(label) for label in self.classes_]
        target = _free_name("label", self.fields_)
        config = self._config(chosen, lm, labels, target)
        rows = [{**row, target: labels[number]} for row, number in zip(rows, numbers)]
        self._train(config, chosen, lm, rows, numbers.tolist())
        self.words_ = dict(config.labels)
        self.template_ = self.model_.tasks[0].task.template.source
        return self

    def _config(
        self, chosen: Method, lm: LanguageModel, labels: list[str], target: str
    ) -> TaskConfig:
        templates = (
            {"template": self.template}
            if self.template
            else {
                "patterns": (proposals.pattern(self.fields_),),
                "template": proposals.soft_template(self.fields_),
            }
        )
        words = self._label_words(lm, labels)
        return TaskConfig(
            name="classifier",
            labels=words,
            target=target,
            method=chosen.name,
            max_length=self.max_length,
            **templates,
        )

    def _label_words(self, lm: LanguageModel, labels: list[str]) -> dict[str, Any]:
        if self.words is None:
            return dict(proposals.label_words(labels, lm.tokens).words)
        words = {
            str(label): word if isinstance(word, str) else list(word)
            for label, word in self.words.items()
        }
        lacking, idle = (
            [label for label in labels if label not in words],
            [label for label in words if label not in labels],
        )
        if lacking or idle:
            raise ConfigError(
                "The words are not of the rows' labels: "
                f"{f'no word for {lacking}' if lacking else ''}{'; ' if lacking and idle else ''}"
                f"{f'no row has {idle}' if idle else ''}."
            )
        return {label: words[label] for label in labels}

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row [n]."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each label for each row [n, classes], in the order of ``classes_``."""
        check_is_fitted(self)
        answers = self.model_.predict(self._rows(X, reset=False), 0)
        return np.array(
            [[answer["scores"][str(label)] for label in self.classes_] for answer in answers]
        )

    def _fitted_state(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "words": self.words_, "template": self.template_}

    def _restore(self, note: Mapping[str, Any]) -> None:
        self.classes_, self.words_, self.template_ = (
            np.array(note["classes"]),
            note["words"],
            note["template"],
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.classifier_tags.poor_score = (
            True  # on scikit-learn's clouds of points, whose numbers are read as text
        )
        return tags


class PromptGenerator(_PromptEstimator):
    """A generator that lets a language model write: rows in, texts out; see ``PromptClassifier``
    for what they share.

    Args:
        template: a causal LM's ends with ``{mask}``, where it writes; by default all fields and
            then the text.
        decoding: how the LM writes: {"max_new_tokens": 40, "beams": 2}.
        metric: what ``score`` computes: bleu, rouge-l, chrf, ...; a higher score is better.
    """

    def __init__(
        self,
        lm: Any = "HuggingFaceTB/SmolLM2-135M-Instruct",
        method: str = "prefix-tuning",
        template: str | None = None,
        decoding: Mapping[str, Any] | None = None,
        metric: str = "rouge-l",
        train: Mapping[str, Any] | None = None,
        dev_share: float = 0.2,
        max_length: int | None = None,
        random_state: Any = 0,
        device: str = "auto",
        dtype: str = "auto",
    ):
        super().__init__(
            lm, method, template, train, dev_share, max_length, random_state, device, dtype
        )
        self.decoding = decoding
        self.metric = metric

    def fit(self, X: Any, y: Any) -> Self:
        """Train a prompt on rows and their right texts.

        Raises:
            ValueError: rows or texts that cannot be.
            PtuneError: the LM, the template or the settings are at fault.
        """
        chosen = self._method()
        rows = self._rows(X, reset=True)
        texts = _texts(y)
        check_consistent_length(rows, texts)
        self.seed_ = _seed(self.random_state)
        lm = self._load_lm(chosen)
        target = _free_name("answer", self.fields_)
        config = TaskConfig(
            name="generator",
            template=self.template or self._template(chosen, lm),
            target=target,
            method=chosen.name,
            max_length=self.max_length,
            decoding=dict(self.decoding or {}),
        )
        self._train(
            config, chosen, lm, [{**row, target: text} for row, text in zip(rows, texts)], None
        )
        self.template_ = self.model_.tasks[0].task.template.source
        return self

    def _template(self, chosen: Method, lm: LanguageModel) -> str:
        plain = proposals.pattern(self.fields_, "Answer")
        text = (
            chosen.frame.replace("<pattern>", plain)
            if "<pattern>" in chosen.frame
            else proposals.soft_template(self.fields_, "Answer")
        )
        return text if lm.kind == "causal" else text.replace(" Answer: {mask}", "")

    def predict(self, X: Any) -> np.ndarray:
        """The text that the LM writes for each row [n]."""
        check_is_fitted(self)
        return np.array(self.model_.generate(self._rows(X, reset=False), 0), dtype=object)

    def score(self, X: Any, y: Any) -> float:
        """The metric of what is written for rows, beside their right texts."""
        value = text_metrics.score(
            list(self.predict(X)),
            [text if isinstance(text, list) else [text] for text in _texts(y)],
            [self.metric],
        )[self.metric]
        return -value if self.metric == "ter" else value

    def _fitted_state(self) -> dict[str, Any]:
        return {"template": self.template_}

    def _restore(self, note: Mapping[str, Any]) -> None:
        self.template_ = note["template"]


@lru_cache(maxsize=2)
def _frozen_lm(source: str, device: str, dtype: str) -> LanguageModel:
    """A frozen LM, which the estimators of a search share."""
    return LanguageModel.load(source, device=device, dtype=dtype)


def _tunes_lm(chosen: Method) -> bool:
    return chosen.tune in ("head", "lm", "both")


def _seed(random_state: Any) -> int:
    return (
        random_state
        if isinstance(random_state, int)
        else int(check_random_state(random_state).randint(2**31 - 1))
    )


def _free_name(name: str, fields: Sequence[str]) -> str:
    while name in fields:
        name += "_"
    return name


def _is_list_of(X: Any, kind: type) -> bool:
    return (
        isinstance(X, list | tuple) and len(X) > 0 and all(isinstance(value, kind) for value in X)
    )


def _is_series_of_texts(X: Any) -> bool:
    """A one-dimensional array or series of texts."""
    return getattr(X, "ndim", 0) == 1 and len(X) > 0 and all(isinstance(value, str) for value in X)


def _text(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else f"{value:.4g}"
        if isinstance(value, float | np.floating)
        else str(value)
    )


def _texts(y: Any) -> list[Any]:
    """Right texts, or lists of them, as they were given.

    Raises:
        ValueError: there are none, or some are no texts.
    """
    if y is None:
        raise ValueError("The right texts are lacking: y is None.")
    texts = [list(value) if isinstance(value, list | tuple) else value for value in y]
    for number, value in enumerate(texts, 1):
        if not all(
            isinstance(text, str) for text in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(f"Row {number} has no right text, but {value!r:.60}.")
    return texts
