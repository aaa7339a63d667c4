"""``PromptGenerator``: texts for rows, behind scikit-learn's interface."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_consistent_length, check_is_fitted

from ptune.estimators.input_rows import free_name, right_texts
from ptune.estimators.prompt_estimator import PromptEstimator, seed_of
from ptune.lm.language_model import LanguageModel
from ptune.metrics import texts as text_metrics
from ptune.survey import proposals
from ptune.tasks.resolved import resolve
from ptune.tasks.schema import TaskConfig
from ptune.tasks.task_members import framed
from ptune.training.methods import Method


class PromptGenerator(PromptEstimator):
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
        *,
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
        self.decoding = decoding
        self.metric = metric

    def fit(self, X: Any, y: Any) -> Self:
        """Train a prompt on rows and their right texts.

        Raises:
            ValueError: rows or texts that cannot be.
            PtuneError: the LM, the template, the metric or the settings are at fault.
        """
        text_metrics.check([str(self.metric)])
        chosen, rows = self._begin(X)
        texts = right_texts(y)
        check_consistent_length(rows, texts)
        self.seed_ = seed_of(self.random_state)
        lm = self._load_lm(chosen)
        target = free_name("answer", self.fields_)
        config = TaskConfig(
            name="generator",
            template=self.template or self._template(chosen, lm),
            target=target,
            method=chosen.name,
            max_length=self.max_length,
            decoding=dict(self.decoding or {}),
        )
        rows = [{**row, target: text} for row, text in zip(rows, texts)]
        form, learning = resolve.task_form(config), resolve.learning(config)
        self._train(form, learning, chosen, lm, rows=rows, strata=None)
        return self

    def _template(self, chosen: Method, lm: LanguageModel) -> str:
        """The template where none is given: the method's frame about all fields and the answer."""
        proposed = proposals.pattern if chosen.takes_pattern else proposals.soft_template
        text = proposed(self.fields_, "Answer")
        text = text if lm.kind == "causal" else text.replace(" Answer: {mask}", "")
        return framed(chosen, text) if chosen.takes_pattern else text

    def predict(self, X: Any) -> np.ndarray:
        """The text that the LM writes for each row [n], or texts [n, texts] where several are asked
        for.

        Raises:
            NotFittedError: it is not fitted.
            ValueError: the rows have other fields than those that were fitted.
        """
        check_is_fitted(self)
        return np.array(self.model_.generate(self._rows(X, reset=False), 0), dtype=object)

    def score(self, X: Any, y: Any) -> float:
        """The metric of what is written for rows, the first text of each, compared with their right
        texts, as a share from 0 to 1 or on the metric's own scale; of ``ter``, where less is
        better, the negative.

        Raises:
            NotFittedError: it is not fitted.
            ValueError: rows or texts that cannot be.
            PtuneError: the metric is not known or not on this machine, or a right text is blank.
        """
        check_is_fitted(self)
        text_metrics.check([str(self.metric)])
        written = self.model_.generate(self._rows(X, reset=False), 0)
        value = text_metrics.score(
            [texts[0] if isinstance(texts, list) else texts for texts in written],
            [text if isinstance(text, list) else [text] for text in right_texts(y)],
            [self.metric],
        )[self.metric]
        return -value if self.metric == "ter" else value
