"""The schema of ``prompt.json``, and reading it: format 3."""

import pathlib
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from ptune.answers.bound_verbalizer import Aggregate, Length, Order
from ptune.answers.confidence import Confidence
from ptune.answers.ensemble import Combine
from ptune.answers.extraction import LONGEST
from ptune.base import files
from ptune.errors import StoreError, first_fault
from ptune.lm.identity.fingerprint import LMRecord
from ptune.metrics.entities import Scheme
from ptune.metrics.label_sets import MIDDLE
from ptune.metrics.text_words import WordSplit
from ptune.model.task import Pooling, Windows
from ptune.settings import (
    NEIGHBOURS,
    DecodingConfig,
    LayoutConfig,
    PiecesOfWord,
    ReaderName,
    VisibilityRules,
)

FORMAT = 3


class SavedLM(BaseModel):
    """The LM that a prompt was trained for: its name, and where it lies on this machine, as a path
    from the prompt's folder (``relative``) and from the root (``absolute``), or the ``commit`` of
    the hub's repository from which it was loaded; its number format, and whether its matrix
    multiplications alone were in that (``mixed``). ``record`` covers all its weights;
    ``fingerprint`` and ``sample`` are all that older prompts know of it: its shape, and
    some values of its embeddings."""

    source: str
    relative: str | None = None
    absolute: str | None = None
    commit: str | None = None
    dtype: str = "auto"
    mixed: bool = False
    fingerprint: str
    sample: list[float]
    kind: str
    width: int
    record: LMRecord | None = None


class SavedPrefix(BaseModel):
    """A deep prefix: ``length`` vectors of ``width`` values for the layers, by which route and into
    which attentions they enter, and how the encoder was made; the ``gates`` by which it was
    multiplied in each attention, where it learned some, or "row" where its gates, which stand
    beside the vectors, read each row."""

    length: int
    width: int
    route: Literal["attention", "layer inputs"]
    attentions: list[str]
    hidden: int
    init: str
    gates: list[FiniteFloat] | Literal["row"] | None = None


class SavedReading(BaseModel):
    """How labels are read, beside their words; see ``Task``, ``Verbalizer`` and ``BoundTask``."""

    model_config = ConfigDict(extra="forbid")

    choices: list[str] | None = None
    span: str | None = None
    reader: ReaderName = "words"
    pooling: Pooling = "first"
    layer: PositiveInt | None = None
    windows: Windows = "none"
    aggregate: Aggregate = "probability"
    order: Order | None = None
    length: Length = "sum"  # prompts of before there was a choice
    swap: tuple[str, str] | None = None
    domain: str | None = None
    offset: list[FiniteFloat] | None = None
    weight: FiniteFloat = 1.0
    multi_label: bool = False
    threshold: FiniteFloat | None = None
    chosen_threshold: FiniteFloat = MIDDLE
    tag: str | None = None
    pieces: PiecesOfWord | None = None
    scheme: Scheme | None = None
    extract: str | None = None
    longest: PositiveInt = LONGEST
    no_answer: bool = False


class SavedPrompt(BaseModel):
    """What stands in ``prompt.json``. ``words`` is None where every label is its own word;
    ``labels`` where the answer is text, one of the row's own choices, or a span of the row.
    ``chat`` is a hash of what the LM's chat template wrote around the messages of a template with
    roles."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[3]
    ptune: str
    name: str
    template: str
    chat: str | None = None
    visibility: VisibilityRules = ()
    labels: Annotated[list[str], Field(min_length=1)] | None
    words: list[list[str]] | None
    target: str
    loss: Literal["labels", "vocabulary", "hinge"]
    encoder: str
    init: str
    seed: int
    length: NonNegativeInt
    lm: SavedLM
    prefix: SavedPrefix | None = None
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_length: PositiveInt | None = None
    decoding: DecodingConfig = DecodingConfig()
    combine: Combine = "mean"
    neighbours: PositiveInt = NEIGHBOURS
    temperature: PositiveFloat = 1.0
    max_length: PositiveInt | None = None
    layout: LayoutConfig = LayoutConfig()
    scored_by: list[str] = []
    metric_words: WordSplit = "auto"
    parts: str | None = None
    reading: SavedReading = SavedReading()
    by: tuple[str, str] | None = None
    metrics: dict[str, float] = {}
    confidence: Confidence | None = None


def no_prompt(path: pathlib.Path) -> StoreError:
    """What to say of a place that holds no saved prompt."""
    if path.is_dir():
        return StoreError(f"The folder {path} holds no saved prompt (prompt.json).")
    if not path.exists():
        return StoreError(f"There is no folder {path}, which should hold a saved prompt.")
    if path.suffix in (".yaml", ".yml"):
        return StoreError(
            f"{path} is a task: train it (ptune train {path}), and then name the folder of its "
            "--out."
        )
    return StoreError(f"{path} is a file, and a saved prompt is a folder with a prompt.json.")


def read_saved_prompt(path: pathlib.Path) -> SavedPrompt:
    """Read and check the ``prompt.json`` of a prompt folder.

    Raises:
        StoreError: the folder or the file is missing, of another format, or damaged.
    """
    if not (path / "prompt.json").exists():
        raise no_prompt(path)
    raw: Any = files.read_json(path / "prompt.json")
    number = raw.get("format") if isinstance(raw, dict) else None
    if isinstance(number, int) and number != FORMAT:
        is_newer = number > FORMAT
        age, advice = ("a newer", "update ptune") if is_newer else ("an older", "train it again")
        raise StoreError(
            f"{path} was saved by {age} ptune (format {number}, this one reads {FORMAT}): {advice}."
        )
    try:
        note = SavedPrompt.model_validate(raw)
    except ValidationError as error:
        is_unknown = error.errors()[0]["type"] in ("literal_error", "enum", "extra_forbidden")
        later = " If a later version of ptune saved it, update ptune." if is_unknown else ""
        raise StoreError(
            f"{path / 'prompt.json'} is damaged: {first_fault(error)}.{later}"
        ) from error
    if note.words is not None and len(note.words) != len(note.labels or ()):
        raise StoreError(
            f"{path / 'prompt.json'} is damaged: {len(note.labels or ())} labels and words for "
            f"{len(note.words)}."
        )
    if len(set(note.labels or ())) != len(note.labels or ()):
        raise StoreError(f"{path / 'prompt.json'} is damaged: a label stands in it twice.")
    for label, words in zip(
        note.labels or (), note.words or [[label] for label in note.labels or ()]
    ):
        if not words or not all(word.strip() for word in words):
            raise StoreError(
                f"{path / 'prompt.json'} is damaged: the label {label!r} has no word, or an empty "
                "one."
            )
    return note
