"""The answer to a row with labels: the best label or labels, the probabilities, and a set of labels
that holds the right one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ptune.answers.confidence import Confidence
from ptune.answers.extraction import Extraction
from ptune.answers.from_row import Choices, Span
from ptune.answers.word_labels import WordLabels
from ptune.errors import ConfigError
from ptune.model.rows.examples import Example
from ptune.settings import TrustConfig

if TYPE_CHECKING:
    from ptune.model.prompt_model import PromptModel


def label_answer(
    model: "PromptModel",
    example: Example,
    shares: Sequence[float],
    *,
    coverage: float | None = None,
    at_least: float | None = None,
) -> dict[str, Any]:
    """What is answered to a row; see ``PromptModel.predict``.

    Args:
        example: the row.
        shares: the labels' probabilities [C] by all tasks that answer it.

    Raises:
        ConfigError: the task keeps no scores of dev rows, by which sets are made.
    """
    bound, labels = model.tasks[example.task], example.labels.labels
    ranked = dict(sorted(zip(labels, shares), key=lambda pair: -pair[1]))
    if bound.task.multi_label:
        had = [label for label, share in ranked.items() if share >= bound.threshold]
        return {"prediction": had, "scores": ranked}
    best, probability = next(iter(ranked.items()))
    is_sure = at_least is None or probability >= at_least
    answer: dict[str, Any] = {"prediction": best if is_sure else None, "scores": ranked}
    if coverage is not None:
        numbers = confidence_of(model, example.task).label_set(shares, coverage)
        answer["set"] = [labels[number] for number in numbers]
    return answer


def check_one_label(
    model: "PromptModel", task: int, coverage: float | None, at_least: float | None
) -> None:
    """Refuse sets of labels, or sure answers alone, of a task whose rows have no single label, and
    probabilities that are none.

    Raises:
        ConfigError: one is asked for.
    """
    if coverage is None and at_least is None:
        return
    TrustConfig(coverage=coverage, at_least=at_least)
    settings = model.tasks[task].task
    reads_tokens = isinstance(settings.verbalizer, WordLabels | Extraction)
    has_one = settings.verbalizer is not None and not settings.multi_label and not reads_tokens
    if has_one:
        return
    what = (
        "a label for each word"
        if isinstance(settings.verbalizer, WordLabels)
        else "parts of texts as answers"
        if reads_tokens
        else "several labels"
        if settings.multi_label
        else "texts as answers"
    )
    raise ConfigError(
        f"--coverage and --at-least are of rows with one label each, and those of {settings.name} "
        f"have {what}: leave them out."
    )


def confidence_of(model: "PromptModel", task: int) -> Confidence:
    """What a task keeps about its probabilities.

    Raises:
        ConfigError: nothing.
    """
    bound = model.tasks[task]
    if isinstance(bound.verbalizer, Choices | Span):
        raise ConfigError(
            f"The rows of {bound.task.name} bring their own answers, and sets (--coverage) are of "
            "labels that all rows share: leave the coverage out."
        )
    if bound.confidence is None or not bound.confidence.nonconformity:
        raise ConfigError(
            f"{bound.task.name} keeps no scores of dev rows, from which sets of labels "
            "(--coverage) are made: train it with rows for dev (data.dev, or data.shots)."
        )
    return bound.confidence
