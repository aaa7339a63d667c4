"""The results of single trials, as their files hold them and the pages read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict


class Finite(BaseModel):
    """A form in which every number is finite."""

    model_config = ConfigDict(allow_inf_nan=False)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation on the dev rows during training.

    Attributes:
        step: how many steps had been taken.
        epoch: how many epochs these steps are.
        loss: the mean training loss since the previous evaluation.
        dev_loss: the mean loss of the dev rows.
        dev: the dev score; higher is better.
    """

    step: int
    epoch: float
    loss: float
    dev_loss: float
    dev: float


class TrainedResult(Finite):
    """What every trial gives: figures on the test rows, and how its training went."""

    template: str = ""
    figures: dict[str, float] = {}
    """Figures on the test rows; none where the training left no finite state to keep."""
    trained: int = 0
    """How many parameters were trained."""
    kept: int = 0
    """How many parameters are kept."""
    history: list[Evaluation] = []
    diverged: bool = False
    account: list[str] = []
    """Why the training took fewer steps than were configured, as sentences."""


class AnsweredRow(Finite):
    """A test row, its right answer, and the answers that were given to it, the best first."""

    row: dict[str, Any]
    right: str
    answers: list[str]


class Wording(Finite):
    """The manual prompt in other words, with its main figure on the dev and the test rows."""

    template: str
    dev: float
    test: float


class FactsResult(TrainedResult):
    """A relation's facts asked by one method with one seed (``ptune probe``)."""

    method: str
    problem: str
    """The relation."""
    seed: int
    rows: int
    """How many test rows there are."""
    dropped: str = ""
    """What was left out of the template, since this kind of LM cannot see it."""
    steps: int = 0
    best: Evaluation | None = None
    examples: list[AnsweredRow] = []
    nearest: list[list[str]] = []
    """For each soft token the words of the vocabulary that are nearest to it."""
    wordings: list[Wording] = []


class PatternResult(TrainedResult):
    """One template with its label words."""

    intervals: dict[str, tuple[float, float]] = {}
    """Of each figure the ends between which it lies in 95 of 100 redraws of the test rows."""

    words: dict[str, str | list[str]] = {}
    reason: str = ""
    """Why there are no figures."""
    dev: float | None = None
    """The best score on dev."""
    steps: int | None = None
    """How many steps were taken; of PET, by its classifier."""
    train: dict[str, Any] = {}
    """The settings of training that were used."""


class EnsembleMember(Finite):
    """A member of a generation of PET."""

    name: str
    generation: int
    weight: float
    dev: float
    rows: int


class MethodOutcome(PatternResult):
    """What a method gives: the result of the template that it takes."""

    grid: list[PatternResult] = []
    """The results of all its templates, where all were tried."""
    ensembles: list[float] = []
    """Of PET, the accuracy of each generation on dev."""
    members: list[EnsembleMember] = []
    """Of PET, the members of all generations."""


class ComparedResult(MethodOutcome):
    """A task done by one method, with one draw of rows (``ptune compare``)."""

    task: str
    method: str
    shots: int
    seed: int
    metric: str
    """The figure that the task is judged by."""
    rows: dict[str, int]
    """How many training, dev, test and unlabelled rows there are."""
    impossible: str = ""
    """Why the method cannot do the task."""
    seconds: float = 0.0


class DocumentResult(Finite):
    """A document whose prefix was trained (``ptune distil``)."""

    document: str
    tokens: int
    """Tokens of the document."""
    length: int
    """Vectors of its prefix."""
    document_bytes: int
    """Bytes of the LM's keys and values of the whole document."""
    prefix_bytes: int
    """Bytes of those of its prefix."""
    slices: int
    """How many slices were learned from."""
    given: int
    """How many of the user's texts and questions were."""
    written: int = 0
    """How many texts that the LM wrote were."""
    held_out: int
    """How many texts were held out."""
    steps: int
    history: list[Evaluation] = []
    best: Evaluation | None = None
    """None where the training left no finite state, so that no prompt was saved."""
    diverged: bool = False


class JudgedContext(Finite):
    """How likely right answers are with something before their questions (``ptune distil
    --judge``)."""

    kind: str
    """no document, whole document, prefix, first tokens, summary, or retrieval."""
    smaller: float
    """How many times smaller than the document it is; 0 for no document."""
    vectors: float
    """Tokens, or vectors of a prefix, on average."""
    bytes: int
    """Of their keys and values."""
    nats: float
    """Nats a token of the answers."""
    share: float | None
    """How far that is from no document (0) to the whole one (1); None where the whole document
    does not help."""
    nats_of: dict[str, float] = {}
    """Nats a token by document."""
    seconds: float
    """To read a question and its answer, on average."""
    seconds_before: float
    """To compute the keys and values before them."""
    exact: float | None = None
    """The share of questions whose answer the LM writes as it should be, up to capitals, spaces and
    a full stop; None where it wrote none."""
    tokens_a_second: float | None = None
    """How many it writes, the keys and values before the question being there."""
    questions: int


def lost_trainings(results: Sequence[TrainedResult]) -> dict[str, int]:
    """How many of single results diverged, and how many of those have no figures."""
    diverged = [result for result in results if result.diverged]
    return {"diverged": len(diverged), "lost": sum(not result.figures for result in diverged)}


def divergences(results: Sequence[FactsResult] | Sequence[ComparedResult]) -> list[str]:
    """A sentence for every trial whose training diverged."""
    consequences = {
        True: "the figures are those of its best state before that",
        False: "it had no finite state to keep, and has no figures",
    }
    return [
        f"{result.problem if isinstance(result, FactsResult) else result.task}, "
        f"{result.method}, seed {result.seed}: the training diverged; "
        f"{consequences[bool(result.figures)]}."
        for result in results
        if result.diverged
    ]
