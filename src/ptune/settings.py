"""Settings that several packages share: how text is written, how a prompt is trained, how a file
of rows is read. The line under each field is its help."""

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from ptune.errors import ConfigError, first_fault

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

Device = str
Sharding = Literal["none", "fsdp", "tensor"]
Seed = Annotated[int, Field(ge=-(2**31), lt=2**32)]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]
LogName = Literal["jsonl", "tensorboard", "trackio", "wandb"]
EncoderOfOne = Literal["lstm", "mlp", "table"]
EncoderName = Literal[EncoderOfOne, "multitask"]
Preset = Literal["code", "paper"]
ReaderName = Literal[
    "words", "weighted-words", "soft", "prototypes", "head", "linear", "pair", "token-head"
]
PiecesOfWord = Literal["first", "last", "all"]
BUILTIN_LMS = {
    name: pathlib.Path(__file__).parent / "builtin" / folder
    for name, folder in (("builtin", "lm"), ("builtin-causal", "causal-lm"))
}  # the LMs that come with ptune, by their names: one fills masks, one writes


def _check_lm_name(name: str) -> str:
    if not name.strip():
        raise ValueError(
            "An LM has a name: give a folder, a .gguf file, a name on the hub, builtin, or "
            "builtin-causal"
        )
    return name


Lm = Annotated[str, AfterValidator(_check_lm_name)]


class SettingsError(ConfigError, ValueError):
    """Settings with an invalid value.

    It is a ValueError too, so that the parser of the command line shows it beside the option.
    """


class _Checked(ModelMetaclass):
    """Turns pydantic's report on invalid values into one sentence."""

    def __call__(cls, *values: Any, **named: Any) -> Any:
        try:
            return super().__call__(*values, **named)
        except ValidationError as error:
            raise SettingsError(f"{first_fault(error)}.") from error


def refuse_truth(kind: type[BaseModel], value: Any, info: ValidationInfo) -> Any:
    """A value that is not yet checked; true and false, which Python counts as 1 and 0, are refused
    in the place of a number.

    Raises:
        ValueError: it is one of them.
    """
    if not isinstance(value, bool):
        return value
    kinds = set(_kinds_in(kind.model_fields[str(info.field_name)].annotation))
    if kinds & {int, float} and not kinds & {bool, Any}:
        raise ValueError(f"a number is written in figures, and this is {str(value).lower()}")
    return value


def _kinds_in(annotation: Any) -> Iterator[Any]:
    """The types that an annotation is made of."""
    inner = get_args(annotation) if get_origin(annotation) is not Literal else ()
    if not inner:
        yield annotation
    for part in inner:
        yield from _kinds_in(part)


class Config(BaseModel, metaclass=_Checked):
    """Frozen, and refuses what it does not know. A path that begins with ~ is the user's home, also
    where no shell has put that in."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        return refuse_truth(cls, value, info)

    @field_validator("*")
    @classmethod
    def _from_home(cls, value: Any) -> Any:
        if isinstance(value, pathlib.Path):
            return pathlib.Path(os.path.expanduser(value))
        if isinstance(value, list | tuple):
            return type(value)(map(cls._from_home, value))
        return value


Part = TypeVar("Part")


def part_of(kind: type[Part], config: Config) -> Part:
    """A small value, of the fields that a configuration has under the same names.

    Args:
        kind: a data class, or a class of settings.
    """
    fields: Any = getattr(kind, "model_fields", None) or getattr(kind, "__dataclass_fields__", {})
    return kind(**{name: getattr(config, name) for name in fields})


class DecodingConfig(Config):
    """How the LM writes text."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 100
    """Tokens in a text at most."""
    min_new_tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens before which a text may not end."""
    beams: Annotated[int, Field(ge=1)] = 1
    """Beams of the search; 1 takes the best token each time (greedy)."""
    length_penalty: float = 1.0
    """Exponent of the length by which a beam's score is divided: above 1 favours longer texts."""
    sample: bool = False
    """Draw tokens by their probability instead of taking the best."""
    temperature: Annotated[float, Field(ge=0.001)] = 1.0
    """Temperature of sampling: below 1 keeps closer to the best tokens. Scores that are divided by
    less than 0.001 may overflow."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample only from the likeliest tokens that together have this probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Sample only from so many of the likeliest tokens; 0 samples from all."""
    texts: Annotated[int, Field(ge=1)] = 1
    """Texts for each row."""
    no_repeat_ngram: Annotated[int, Field(ge=0)] = 0
    """No run of so many tokens comes twice in a text; 0 allows it."""
    banned: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Words that are never written."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Strings before which a text ends."""
    rows: Annotated[int, Field(ge=1)] = 32
    """Rows in a batch."""
    seed: Seed = 0
    """Seed of sampling."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if not self.sample and (self.temperature, self.top_p, self.top_k) != (1.0, 1.0, 0):
            raise ValueError(
                "temperature, top_p and top_k are of sampling: set sample, or leave them out; "
                "where a task or a prompt says them, set them to 1, 1 and 0"
            )
        if self.texts > (self.beams if not self.sample else self.texts):
            raise ValueError(f"{self.texts} texts a row need sampling, or as many beams")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens is more than max_new_tokens")
        return self

    @property
    def copies(self) -> int:
        """The number of copies of a row in a decoding batch."""
        return self.beams if self.beams > 1 else self.texts


EPOCHS = 20  # of a training for which neither epochs nor steps are given
SIDE = {  # they change no result
    "save_seconds",
    "context_mb",
    "source",
    "allow_unknown",
    "log",
    "lm_sharding",
}


class TrainConfig(Config):
    """How a prompt, or an LM, is trained."""

    optimiser: Literal["adam", "adamw", "adafactor"] = "adamw"
    """adam adds the weight decay to the gradient (L2), adamw takes it off the weights; adafactor as
    Prompt Tuning (section 3.1)."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of the prompt."""
    lm_learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate of the LM, where it is tuned."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows of one task in an optimizer step."""
    accumulate: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Parts that a step's rows are run in, one after the other; the result is the same and takes
    less memory."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Passes over the training rows at most; by default as many as the steps take, or 20 where no
    steps are given."""
    steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps at most; 0 leaves it to the epochs."""
    least_steps: Annotated[int, Field(ge=0)] = 0
    """Steps that are planned at least, where rows are so few that the epochs have fewer."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the steps in which the rate rises from nothing."""
    decay: Literal["none", "linear", "exponential"] = "none"
    """How the rate falls after that: linear to nothing, exponential by a fiftieth an epoch (0.98,
    as P-tuning's code)."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of a task's gradient; 0 leaves it as it is."""
    evaluate_every: Annotated[int, Field(ge=0)] = 0
    """Steps between two checks on dev; 0 checks once an epoch."""
    patience: Annotated[int, Field(ge=0)] = 5
    """Checks on dev without improvement before training stops; 0 never stops early."""
    patience_steps: Annotated[int, Field(ge=0)] = 0
    """Steps without improvement that must have passed too before training stops, where rows are so
    few that the checks follow each other quickly."""
    stopping_threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """A dev score at which training stops at once: 1 stops an accuracy that cannot be better. By
    default the dev loss of equal scores decides, and training goes on while it falls."""
    seed: Seed = 0
    """Seed of the order of rows, the initialisation and dropout."""
    save_seconds: Annotated[float, Field(ge=0)] = 60
    """Seconds between two checkpoints."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = None
    """How much a training row of each label counts in the loss. balanced: as scikit-learn's, the
    rows of every label count the same together. Or a weight for each label, 1 where none is given:
    {urgent: 5}; as an option: urgent 5."""
    auxiliary: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight of an auxiliary loss: predicting masked words of the unlabelled rows (PET; 1e-4 in its
    code)."""
    recompute: bool = False
    """Gradient checkpointing: compute each layer again in the backward pass, which takes less
    memory and a third more time."""
    context_mb: Annotated[int, Field(ge=0)] = 1024
    """Megabytes for what a frozen causal LM makes of the texts before rows' first soft tokens,
    which is then computed once and not in every step; 0 for none."""

    def planned_steps(self, steps_an_epoch: int) -> int:
        """The number of optimizer steps of a training that does not stop early.

        Args:
            steps_an_epoch: the number of steps in one pass over the training rows.
        """
        if self.steps and self.epochs is None:
            return self.steps
        by_epochs = max(self.least_steps, steps_an_epoch * (self.epochs or EPOCHS))
        return min(by_epochs, self.steps) if self.steps else by_epochs

    def replaced(self, replacements: Mapping[str, Any]) -> "TrainConfig":
        """These settings with some of them replaced.

        A value that is set explicitly is obeyed: where steps are set and epochs are not, the
        number of epochs follows from the steps; where epochs, steps or patience are set, the
        training is not lengthened because rows are few.

        Args:
            replacements: new values by name; None leaves the value as it is.
        """
        replacements = {name: value for name, value in replacements.items() if value is not None}
        follows: dict[str, Any] = {"epochs": None} if replacements.get("steps") else {}
        follows |= {"least_steps": 0} if "epochs" in replacements or "steps" in replacements else {}
        follows |= {"patience_steps": 0} if "patience" in replacements else {}
        return self.model_copy(update=follows | replacements)


def _overrides(config: type[Config], doc: str) -> Any:
    """A copy of a class of settings in which every value is None by default.

    Values that are not None replace those of other settings.
    """
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation() | None, Field(None, description=field.description))
        for name, field in config.model_fields.items()
    }
    return create_model(
        f"{config.__name__.removesuffix('Config')}Overrides", __base__=Config, __doc__=doc, **fields
    )


TrainOverrides: Any = _overrides(TrainConfig, "Training settings that replace the method's own.")
_RATE_OR_AUTO: Any = (
    Annotated[float, Field(gt=0)] | Literal["auto"] | None,
    Field(
        None,
        description="Peak learning rate of the prompt. auto: the prompt is tried at five rates "
        "around the method's own, in one batch for a few steps, and the one that is best on "
        "dev trains it from the beginning.",
    ),
)
_SIZE_OR_AUTO: Any = (
    Annotated[int, Field(ge=1)] | Literal["auto"] | None,
    Field(
        None,
        description="Rows of one task in an optimizer step. auto: the largest power of two, at "
        "most as many as there are training rows, whose memory fits in 80 % of what is free "
        "when the training begins.",
    ),
)
TaskTrainOverrides: Any = create_model(
    "TaskTrainOverrides",
    __base__=TrainOverrides,
    __doc__="Training settings of a task that replace the method's own.",
    learning_rate=_RATE_OR_AUTO,
    batch_size=_SIZE_OR_AUTO,
)
DecodingOverrides: Any = _overrides(
    DecodingConfig, "Settings of writing that replace the task's own."
)


Form = Literal[
    "rows",
    "lines",
    "trec",
    "conll",
    "e2e",
    "webnlg",
    "dart",
    "boolq",
    "cb",
    "copa",
    "multirc",
    "record",
    "rte",
    "wic",
    "wsc",
    "ax-b",
    "ax-g",
]


NEIGHBOURS = 16  # labelled rows by which an ensemble is weighed for a row near them
TEXT_FORMS: tuple[Form, ...] = ("e2e", "webnlg", "dart")  # whose answers are texts, not labels


Coverage = Annotated[float, Field(gt=0, lt=1)]
Sureness = Annotated[float, Field(gt=0, le=1)]


class TrustConfig(Config):
    """How sure answers are to be, in commands and in Python."""

    coverage: Coverage | None = None
    """The probability with which sets of labels are to hold the right one."""
    at_least: Sureness | None = None
    """The probability below which a label is no answer."""


class FileConfig(Config):
    """How a file of rows is read, where that is not to be decided by the file itself."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands between the fields of a table: ";" or another sign. By default what its name, its
    header and its first lines show."""
    quoting: Literal["csv", "none", "backslash", "single", "spaced"] | None = None
    """What quotation marks in a table are. csv: they enclose fields, and are doubled within. none:
    plain text, as in GLUE's files. backslash: they enclose fields, and stand behind a backslash
    within, as Spark writes them. single: single ones enclose fields. spaced: as csv, with a space
    before them. By default what the whole file fits."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a table whose first line is a row already: [label, title, text]; or
    of the columns of a CoNLL file: [words, pos, chunk, label]."""
    skip_lines: Annotated[int, Field(ge=1)] | None = None
    """How many lines stand before the one that names a table's columns, such as a title or
    comments."""
    rename: dict[str, str] | None = None
    """Other names for columns or fields: {Review Text: text}."""
    encoding: str | None = None
    """The text's encoding, such as latin-1, gb18030 or utf-16; UTF-8 by default."""
    record_path: str | None = None
    """In a nested JSON file, the names that lead to the list of rows, with dots between:
    data.paragraphs.qas. What stands beside these lists (a title, a context) becomes fields of each
    row."""
    language: str | None = None
    """The language of WebNLG's texts (form webnlg), by the abbreviations of its XML files: ru, br,
    cy, ga, mt; en by default."""


class LayoutConfig(FileConfig):
    """How the rows of a task's files are read. It is kept with a saved prompt, which then reads
    other files of that kind."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # labels such as 0 and 1

    form: Form = "rows"
    """rows: CSV, TSV, JSON lines or JSON, packed by gzip or not. lines: each line is a text, the
    field text. conll: a word on each line with its label in the last column, and an empty line
    behind each sentence; the fields words and label are lists (columns names others). trec: lines
    of "LABEL:fine text", with the fields label, fine and text. e2e, webnlg and dart are
    table-to-text sets in their own layouts; their rows have the fields table and text (a list of
    references). The others are SuperGLUE's tasks in its layout."""
    relabel: dict[
        Literal["train", "dev", "test"], Annotated[dict[str, str], Field(min_length=1)]
    ] = {}
    """For a file that has other labels: the task's label for each, such as {train: {0: 0, 1: 0, 3:
    1, 4: 1}}; rows of a label that is not listed are left out."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """For a task with multi_label: what stands between the labels in a cell of a table, such as ";"
    in "noise; heating". A list in JSON needs none."""


def _truth_or_word(value: Any) -> Any:
    """A text that says yes or no, as a truth; another value as it is."""
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        return value


class PrefixConfig(Config):
    """How a deep prefix ({prefix:5} in the template) is made and begins."""

    hidden: Annotated[int, Field(ge=0)] | None = None
    """Width of the MLP that makes it while it is trained; 0 trains it directly. The method's own by
    default."""
    init: str | None = None
    """What it starts from: random, zeros, or words, whose activations in the LM it takes; the
    method's own by default."""
    attentions: tuple[Literal["self", "encoder", "decoder", "cross"], ...] = ()
    """Which attentions of an encoder-decoder it enters: encoder, decoder, cross; all by default."""
    gates: Annotated[Literal[False, True, "row"], BeforeValidator(_truth_or_word)] = False
    """true: train a gate for each attention, a number between 0 and 2 by which its keys and values
    are multiplied; prompt.json shows them. row: train gates that read each row, so that a prefix
    may speak louder in some rows than in others. All begin at 1."""


def _listed(value: Any) -> Any:
    """One name as a list of names."""
    return [value] if isinstance(value, str) else value


PartNames = Annotated[
    tuple[str, ...],
    Field(min_length=1),
    BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...]),
]


class VisibilityRule(Config):
    """Tokens that others do not attend to. Both sides are names, or lists of names: fields of the
    template; fields (the text of all of them); soft (all soft tokens), soft@NAME (those of a name);
    prefix; mask (the answer); words (the template's own text, its separators and the special
    tokens)."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    hide: PartNames
    """What is hidden."""
    from_: Annotated[PartNames, Field(alias="from")]
    """Whose tokens do not attend to it; in Python the argument is from_."""


VisibilityRules = Annotated[tuple[VisibilityRule, ...], Field(max_length=60)]


class PetConfig(Config):
    """PET (method pet): an ensemble of patterns labels unlabelled rows, from which one classifier
    learns."""

    repetitions: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often each pattern is trained, each time with another seed (3 in the paper)."""
    generations: Annotated[int, Field(ge=0, le=1000)] = 0
    """iPET: so many times the members learn again from rows that the others labelled (3 in the
    paper)."""
    growth: Annotated[float, Field(gt=1)] = 5
    """iPET: by how much the labelled rows grow with each generation."""
    fractions: Literal["round", "cut"] = "round"
    """iPET: how a label's new rows become a whole number. cut, as the paper's code does, cuts the
    fraction off, and without labelled rows gives those left over to the first labels."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """iPET: the share of the other members that label a member's new rows."""
    temperature: Annotated[float, Field(gt=0)] = 2
    """Temperature of the label shares that the classifier learns from."""
    held_out: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The share of the unlabelled rows that the classifier does not learn from: it learns until it
    comes no nearer to the members' answers to those. Of fewer than 100 rows none is held out, and
    the labelled rows for dev take their place."""
    distil: TrainOverrides = TrainOverrides(
        learning_rate=1e-3,
        lm_learning_rate=5e-5,
        batch_size=16,
        steps=2000,
        evaluate_every=100,
        patience=3,
    )
    """How the classifier is trained."""
