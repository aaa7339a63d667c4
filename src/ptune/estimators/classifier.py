"""``PromptClassifier``: labels of rows, behind scikit-learn's interface."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from ptune.answers.label_words import Verbalizer
from ptune.errors import ConfigError
from ptune.estimators.input_rows import as_text, check_one_label_a_row, free_name, plain
from ptune.estimators.prompt_estimator import PromptEstimator, Row, SavedEstimator, seed_of
from ptune.lm.language_model import LanguageModel
from ptune.selection import training
from ptune.selection.choice import MINUTES, Selection, choose
from ptune.survey import proposals
from ptune.tasks.resolved import refusals, resolve
from ptune.tasks.resolved.task_form import Learning, TaskForm
from ptune.tasks.schema import AUTO, TaskConfig


class SavedClassifier(SavedEstimator):
    """What stands in the ``estimator.json`` of a classifier."""

    classes: list[bool | int | float | str]
    words: dict[str, Any]
    selection: Selection | None = None


class PromptClassifier(ClassifierMixin, PromptEstimator):
    """A classifier that asks a language model: rows of text in, labels out; see scikit-learn's
    estimators.

    Args:
        lm: "builtin", a transformers folder, a .gguf file, a name on the hub, or a
            ``LanguageModel``. By name, a frozen LM is loaded once and shared; a method that tunes
            the LM loads its own.
        method: "auto" tries the methods that leave the LM as it is on the rows, by
            cross-validation, and trains the best one on all of them; or a method of ``ptune
            methods``, such as "contrastive", "p-tuning", "manual" or "head".
        template: where fields, soft tokens and ``{mask}`` stand; by default all fields and then the
            answer.
        words: for each label a word, or several; by default words that the LM has whole (``words_``
            shows them).
        train: settings of training in place of the method's own: {"learning_rate": 1e-3, "epochs":
            10, "class_weights": {1: 5.0}}; "auto" takes none.
        dev_share: the share of the rows that is kept back, by label, to choose the best state; 0
            takes the training rows. "auto" keeps none back in the end.
        max_length: tokens of an input at most.
        random_state: of the rows that are kept back, the initialisation and the order of rows.
        device, dtype: as in ``LanguageModel.load``.
        minutes: what "auto" may take; a named method takes none.

    Attributes:
        classes_: the labels, sorted.
        words_: the words that stand for them.
        template_: the template.
        model_: the fitted ``PromptModel``.
        history_: the looks at dev.
        selection_: what "auto" tried and chose; None for a named method.
    """

    _saved_as = SavedClassifier

    def __init__(
        self,
        lm: Any = "builtin",
        method: str = AUTO,
        *,
        template: str | None = None,
        words: Mapping[Any, Any] | None = None,
        train: Mapping[str, Any] | None = None,
        dev_share: float = 0.2,
        max_length: int | None = None,
        random_state: Any = 0,
        device: str = "auto",
        dtype: str = "auto",
        minutes: float = MINUTES,
    ):
        super().__init__(
            lm,
            method,
            template=template,
            train=train,
            dev_share=dev_share,
            max_length=max_length,
            random_state=random_state,
            device=device,
            dtype=dtype,
        )
        self.words = words
        self.minutes = minutes

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
        self._check_dev_share()
        self._check_minutes()
        chosen = None if self.method == AUTO else self._method()
        if chosen is None and self.train:
            raise ConfigError(
                "Method auto takes every method's own settings: leave train out, or name a method."
            )
        rows = self._rows(X, reset=True)
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        check_one_label_a_row(y)
        y = column_or_1d(y, warn=True)
        check_consistent_length(rows, y)
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"Labels are told apart, and the rows have one class: {str(self.classes_[0])!r}."
            )
        self.seed_ = seed_of(self.random_state)
        lm = self._load_lm(chosen)
        labels = [str(label) for label in self.classes_]
        target = free_name("label", self.fields_)
        config = self._config(lm, labels, target)
        form, learning = resolve.task_form(config), resolve.learning(config)
        rows = [{**row, target: labels[number]} for row, number in zip(rows, numbers)]
        self.selection_: Selection | None = None
        if chosen is None:
            self._choose(form, learning, lm, rows)
        else:
            self._train(form, learning, chosen, lm, rows=rows, strata=numbers.tolist())
        self.words_ = dict(form.answers.labels)
        return self

    def _check_minutes(self) -> None:
        """Refuse minutes that are no time, and those of a choice where a method is named.

        Raises:
            ConfigError: it is so.
        """
        if self.minutes != MINUTES:
            config = TaskConfig(name="classifier", method=self.method, minutes=self.minutes)
            if self.method != AUTO:
                refusals.check_minutes(config)

    def _choose(
        self, form: TaskForm, learning: Learning, lm: LanguageModel, rows: Sequence[Row]
    ) -> None:
        """Choose among the methods that leave the LM as it is, and train the best on all rows.

        Raises:
            PtuneError: no method fits, or the training diverged.
        """
        self.selection_, chosen = choose(
            form, lm, rows, learning=learning, minutes=float(self.minutes or MINUTES), tune_lm=False
        )
        trained = training.train(chosen, lm, rows, confidence=self.selection_.confidence)
        self.model_ = trained.model
        self.template_ = self.model_.tasks[0].task.template.source
        self.history_ = [
            vars(evaluation)
            for history in trained.histories.values()
            for evaluation in history.history
        ]

    def _config(self, lm: LanguageModel, labels: list[str], target: str) -> TaskConfig:
        """The task of telling the labels apart.

        Raises:
            ConfigError, VerbalizerError: the words do not fit the labels, or the LM.
        """
        templates: dict[str, Any] = {"template": self.template}
        if not self.template:
            templates = {
                "patterns": (proposals.pattern(self.fields_),),
                "template": proposals.soft_template(self.fields_),
            }
        words = self._label_words(lm, labels)
        return TaskConfig(
            name="classifier",
            labels=words,
            target=target,
            method=self.method,
            max_length=self.max_length,
            train={"seed": self.seed_},
            **templates,
        )

    def _label_words(self, lm: LanguageModel, labels: list[str]) -> dict[str, Any]:
        """For each label the words that stand for it.

        Raises:
            ConfigError: the words that were given are of other labels.
            VerbalizerError: no word of the LM could be proposed for a label.
        """
        if self.words is None:
            return dict(proposals.label_words(labels, lm.tokens).words)
        words = {
            label: word if isinstance(word, str) else list(word)
            for label, word in self._by_label_name(self.words).items()
        }
        lacking = [label for label in labels if label not in words]
        idle = [label for label in words if label not in labels]
        if lacking or idle:
            raise ConfigError(
                "The words are not of the rows' labels: "
                f"{f'no word for {lacking}' if lacking else ''}{'; ' if lacking and idle else ''}"
                f"{f'no row has {idle}' if idle else ''}."
            )
        return {label: words[label] for label in labels}

    def _train_overrides(self) -> dict[str, Any]:
        overrides = super()._train_overrides()
        if isinstance(weights := overrides.get("class_weights"), Mapping):
            overrides["class_weights"] = self._by_label_name(weights)
        return overrides

    def _by_label_name(self, values: Mapping[Any, Any]) -> dict[str, Any]:
        """Values by the names of their labels; a key is a label, its name or a number that equals
        it."""
        names: dict[Any, str] = {}
        for label in self.classes_:
            names |= dict.fromkeys((label, str(label), as_text(label)), str(label))
        return {names.get(key, str(key)): value for key, value in values.items()}

    def predict(self, X: Any) -> np.ndarray:
        """The label of each row [n].

        Raises:
            NotFittedError: it is not fitted.
            ValueError: the rows have other fields than those that were fitted.
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each label for each row [n, classes], in the order of ``classes_``.

        Raises:
            NotFittedError: it is not fitted.
            ValueError: the rows have other fields than those that were fitted.
        """
        check_is_fitted(self)
        answers = self.model_.predict(self._rows(X, reset=False))
        shares = np.array(
            [[answer["scores"][str(label)] for label in self.classes_] for answer in answers]
        )
        return shares / shares.sum(1, keepdims=True)  # float32's sums differ from 1 by some 1e-7

    def _fitted_state(self) -> dict[str, Any]:
        return {
            "classes": plain(self.classes_, "classes_"),
            "words": self.words_,
            "selection": self.selection_ and self.selection_.model_dump(mode="json"),
            **super()._fitted_state(),
        }

    def _restore(self, saved: Any) -> None:
        super()._restore(saved)
        words = self.model_.tasks[0].task.verbalizer
        labels = set(words.labels) if isinstance(words, Verbalizer) else set()
        if set(map(str, saved.classes)) != labels:
            raise ValueError("its classes are not the labels of the prompt")
        self.classes_ = np.array(saved.classes)
        self.words_ = saved.words
        self.selection_ = saved.selection

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        # on scikit-learn's clouds of points, whose numbers are read as text
        tags.classifier_tags.poor_score = True
        return tags
