"""What a search for prompts tried and chose, as its files hold it and the page reads it."""

from typing import Any

from ptune.reports.trial_results import Finite


class CandidateScore(Finite):
    """A prompt that a search proposed, and its scores."""

    template: str
    words: dict[str, str | list[str]] = {}
    """The labels with their words; none where they are the task's own, or answers are words of a
    vocabulary."""
    source: str = ""
    """How it came about."""
    train: float | None = None
    """The figure on the train rows."""
    train_loss: float | None = None
    """Minus the mean log probability of the right label among the labels."""
    dev: float | None = None
    dev_loss: float | None = None
    tuned: float | None = None
    """The figure on the dev rows after the LM was fine-tuned with this prompt."""
    tuned_loss: float | None = None
    impossible: str = ""
    """Why this LM cannot be asked so."""


class ScoredCandidates(Finite):
    """Candidates that were scored together on train or dev rows."""

    candidates: list[CandidateScore]
    calls: int
    """How many rows the LM read for it."""


class SearchStep(Finite):
    """A step of a search that goes on from what it has."""

    number: int
    loss: float
    """Of the best prompt so far, on the rows of the step."""
    tried: int
    """How many candidates were evaluated."""
    text: str
    """The words that the step ended with."""


class SearchResults(Finite):
    """What ``ptune search`` writes to results.json."""

    task: str
    by: str
    metric: str
    lm: str
    rows: dict[str, int]
    """How many train and dev rows candidates were scored by."""
    candidates: list[CandidateScore]
    """Those that were kept, the best on dev first."""
    tried: list[CandidateScore]
    """All that were scored on train, the best first."""
    steps: list[SearchStep] = []
    ensembles: dict[str, float] = {}
    """The figure on dev of the kept templates together: by the mean of their probabilities, and
    with weights that were learned on train."""
    wording: dict[str, float] = {}
    """Rank correlations of the wording of all that were tried with the figure on train."""
    calls: int
    """How many rows the LM read."""
    budget: int | None = None
    settings: dict[str, Any] = {}
    versions: dict[str, str] = {}


class TokenSteps(Finite):
    """Some steps of a search token by token, and where it is after them."""

    ids: list[int]
    """The tokens at the places that are searched."""
    visited: list[list[int]]
    """Other tokens that stood there, in the order of the steps."""
    steps: list[SearchStep]
    calls: int
    ended: bool = False
    """Whether the budget ended the search."""


class SoftPrompt(Finite):
    """The vectors of a trained soft prompt [P, E]."""

    vectors: list[list[float]]
    calls: int


class Together(Finite):
    """Templates that answer together.

    Attributes:
        weights: those that were learned on train.
    """

    weights: list[float]
    figures: dict[str, float]
    calls: int


class WrittenTemplate(Finite):
    """A template that an LM wrote.

    Attributes:
        log_prob: of what it wrote, summed over the train rows.
    """

    template: str
    log_prob: float


class WrittenTemplates(Finite):
    """Templates of one form that an LM wrote."""

    templates: list[WrittenTemplate]
    calls: int


class Wordings(Finite):
    """What an LM says of templates as texts.

    Attributes:
        log_probs: the mean over the tokens of each text.
    """

    log_probs: list[float]
    calls: int
