"""What a YAML file or the command line may say. The line under each field is its help."""

import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from ptune.errors import ConfigError, reason

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)

Device = str
Seed = Annotated[int, Field(ge=-(2**31), lt=2**32)]
Lm = Annotated[str, Field(min_length=1)]
Dtype = Literal["auto", "float32", "bfloat16", "float16", "float64"]


class SettingsError(ConfigError, ValueError):
    """Settings that cannot be. As a ValueError it is told by the command line's parser beside the
    option's name."""


class _Checked(ModelMetaclass):
    """Of settings that are made in Python or from the command line, a fault is told in one
    sentence."""

    def __call__(cls, *values: Any, **named: Any) -> Any:
        try:
            return super().__call__(*values, **named)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise SettingsError(f"{f'{key}: ' if key else ''}{reason(first)}.") from error


class Config(BaseModel, metaclass=_Checked):
    """Frozen, and refuses what it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


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
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Of sampling: below 1 keeps closer to the best."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of sampling: only the likeliest tokens that make up this share."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Of sampling: only that many of the likeliest tokens; 0 is all."""
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
                "temperature, top_p and top_k are of sampling: set sample, or leave them out"
            )
        if self.texts > (self.beams if not self.sample else self.texts):
            raise ValueError(f"{self.texts} texts a row need sampling, or as many beams")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError("min_new_tokens is more than max_new_tokens")
        return self

    @property
    def copies(self) -> int:
        """Into how many rows decoding makes each."""
        return self.beams if self.beams > 1 else self.texts


EPOCHS = 20  # of a training for which neither epochs nor steps are given
SIDE = {"save_seconds", "context_mb", "source", "allow_unknown"}  # settings that change no result


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
    """Steps between two looks at dev; 0 is once an epoch."""
    patience: Annotated[int, Field(ge=0)] = 5
    """Looks at dev without a gain before training stops; 0 never stops early."""
    patience_steps: Annotated[int, Field(ge=0)] = 0
    """Steps without a gain that must have gone by too, where rows are so few that the looks are
    soon made."""
    seed: Seed = 0
    """Seed of the order of rows, the initialisation and dropout."""
    save_seconds: Annotated[float, Field(ge=0)] = 60
    """Seconds between two checkpoints."""
    auxiliary: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Weight of telling hidden words of the unlabelled rows beside the task (PET; 1e-4 in its
    code)."""
    recompute: bool = False
    """Gradient checkpointing: compute each layer again in the backward pass, which takes less
    memory and a third more time."""
    context_mb: Annotated[int, Field(ge=0)] = 1024
    """Megabytes for what a frozen causal LM makes of the texts before rows' first soft tokens,
    which is then computed once and not in every step; 0 for none."""

    def planned_steps(self, steps_an_epoch: int) -> int:
        """How many steps a training has, if it does not stop early.

        Args:
            steps_an_epoch: how many a pass over the training rows takes.
        """
        if self.steps and self.epochs is None:
            return self.steps
        by_epochs = max(self.least_steps, steps_an_epoch * (self.epochs or EPOCHS))
        return min(by_epochs, self.steps) if self.steps else by_epochs

    def replaced(self, given: Mapping[str, Any]) -> "TrainConfig":
        """These settings with given ones in their place. What is given is obeyed: where steps are
        given and no epochs, the epochs follow; where epochs or patience are given, they are not
        lengthened because rows are few."""
        given = {name: value for name, value in given.items() if value is not None}
        follows: dict[str, Any] = {"epochs": None} if given.get("steps") else {}
        follows |= {"least_steps": 0} if "epochs" in given or "steps" in given else {}
        follows |= {"patience_steps": 0} if "patience" in given else {}
        return self.model_copy(update=follows | given)


def _overrides(config: type[Config], doc: str) -> Any:
    """The same settings where only some are given: each that is not None replaces another's."""
    fields: dict[str, Any] = {
        name: (field.rebuild_annotation() | None, Field(None, description=field.description))
        for name, field in config.model_fields.items()
    }
    return create_model(
        f"{config.__name__.removesuffix('Config')}Overrides", __base__=Config, __doc__=doc, **fields
    )


TrainOverrides: Any = _overrides(TrainConfig, "Training settings that replace the method's own.")
DecodingOverrides: Any = _overrides(
    DecodingConfig, "Settings of writing that replace the task's own."
)


class PretrainConfig(Config):
    """Train a small LM from text files, or go on training one. Documents end at blank lines."""

    texts: Annotated[list[pathlib.Path], Field(min_length=1)]
    """Text files, UTF-8, one paragraph a line."""
    out: pathlib.Path
    """The folder for the LM; a run that was stopped goes on from here with --resume."""
    weights: list[Annotated[float, Field(ge=0)]] = []
    """How many times an epoch takes each text: 8 is eight times, 0.3 a random third. Once each by
    default."""
    objective: Literal["masked", "causal", "span-corruption", "prefix-lm"] = "masked"
    """masked: whole-word masking, as BERT. causal: the next token, as GPT. span-corruption: as T5,
    an encoder-decoder. prefix-lm: the rest of a text from its beginning, the LM adaptation of
    Prompt Tuning."""
    next_sentence: Literal["none", "two-way", "three-way"] = "none"
    """Beside the masked objective: is the second half adjacent or not (BERT), or adjacent, from the
    same document, or from another. Trains a pair head, kept beside the LM."""
    lm: Annotated[Lm | None, tyro.conf.arg(name="from")] = None
    """An LM to go on from: a folder or a name on the hub. An encoder without a vocabulary head gets
    a new one."""
    tokenizer: str | None = None
    """The tokenizer of another LM for a new one; without it a new tokenizer is learned from the
    texts."""
    vocabulary_size: Annotated[int, Field(ge=50)] | None = None
    """Pieces in a new vocabulary (8000 by default). With --from, its WordPiece vocabulary is cut to
    as many."""
    keep_words: pathlib.Path | None = None
    """A file of words, one a line, that stay whole when the vocabulary is cut."""
    hidden_size: Annotated[int, Field(ge=1)] = 256
    """Width of a new LM."""
    layers: Annotated[int, Field(ge=1)] = 4
    """Layers of a new LM (of the encoder and of the decoder, where it has both)."""
    heads: Annotated[int, Field(ge=1)] = 4
    """Attention heads of a new LM."""
    length: Annotated[int, Field(ge=8)] = 128
    """Tokens in a sequence at most, special ones included."""
    steps: Annotated[int, Field(ge=1)] = 10_000
    """Optimizer steps in all."""
    batch_tokens: Annotated[int, Field(ge=8)] = 8192
    """Tokens in a batch, padding included."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Peak learning rate of AdamW."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the rate rises; then it falls to nothing in a straight line."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay, not on biases and norms."""
    clip: Annotated[float, Field(ge=0)] = 1.0
    """Largest norm of the gradient."""
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the words that are masked."""
    held_out: Annotated[float, Field(ge=0, lt=0.5)] = 0.01
    """Share of the sequences kept back for the perplexity."""
    save_minutes: Annotated[float, Field(ge=0)] = 10
    """Minutes between two looks at the held-out text, each with a checkpoint."""
    save_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Number format of the saved weights."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """Number format of the matrix multiplications; the weights stay float32. auto is bfloat16 on a
    GPU."""
    resume: bool = False
    """Go on from the last checkpoint in the out folder."""


class ProbeConfig(Config):
    """Find out what a frozen LM knows: ask it for facts by hand-written prompts and by P-tuning,
    and with --methods all by fine-tuning too, and compare."""

    lm: Lm = "builtin"
    """builtin, a transformers folder, a .gguf file, or a name on the model hub."""
    facts: str = "builtin"
    """builtin, a folder in LAMA's T-REx layout, or a table (.csv, .tsv, .jsonl) with the columns
    subject,object."""
    relations: str = ""
    """Relations to ask for, with commas between; all that have test rows by default."""
    methods: str = "manual,p-tuning"
    """Methods to compare, with commas between; all is the paper's four:
    manual,p-tuning,fine-tune,manual+fine-tune."""
    template: str | None = None
    """Template of the methods that train a prompt: three counts (soft tokens, subject, soft tokens,
    answer, soft tokens), or a template's text; each method's own by default, which is 3,3,3 for
    P-tuning."""
    manual: str | None = None
    """The hand-written prompt for a table, such as "The capital of [X] is [Y] .", or instead of one
    relation's own."""
    encoder: Literal["lstm", "mlp", "table"] | None = None
    """How soft tokens are made while they are trained; the method's own by default, which is lstm
    for P-tuning."""
    init: str | None = None
    """What they start from: random, vocabulary (frequent tokens), labels, or words of yours; the
    method's own by default."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """How often the trained methods run, each time with another seed: --train.seed (0 by default)
    and those after it."""
    vocab: pathlib.Path | None = None
    """The allowed answers: a file of words, or the paper's 29k-vocab.json. By default LAMA's common
    vocabulary where the facts have it, else every whole word of the LM."""
    wordings: bool | None = None
    """Try the manual prompt in other wordings too, on dev and test. By default for the built-in
    facts only."""
    together: Annotated[int, Field(ge=1)] | None = None
    """How many relations' prompts train in one batch; as many as fit into memory by default."""
    out: pathlib.Path = pathlib.Path("probe")
    """The folder for results.json, report.html, the prompts and what is needed to resume."""
    resume: bool = False
    """Go on with the run in the out folder."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the results as JSON instead of a table."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format; auto is float32 on a CPU, bfloat16 on a GPU."""
    train: TrainOverrides = TrainOverrides()
    """Training settings that replace the methods' own."""


Form = Literal[
    "rows",
    "lines",
    "trec",
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
]


class FileConfig(Config):
    """How a file of rows is read, where that is not to be decided by the file itself."""

    separator: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """What stands between the fields of a table: ";" or another sign. By default what its name, its
    header and its first lines show."""
    quoting: Literal["csv", "none"] | None = None
    """What quotation marks in a table are. csv: they enclose fields, and are doubled within. none:
    plain text, as in GLUE's files. By default what the whole file fits."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a table whose first line is a row already: [label, title, text]."""
    rename: dict[str, str] | None = None
    """Other names for columns or fields: {Review Text: text}."""
    encoding: str | None = None
    """The text's encoding, such as latin-1, gb18030 or utf-16; UTF-8 by default."""
    record_path: str | None = None
    """In a nested JSON file, the names that lead to the list of rows, with dots between:
    data.paragraphs.qas. What stands beside these lists (a title, a context) becomes fields of each
    row."""


class LayoutConfig(FileConfig):
    """How the rows of a task's files are read. It is kept with a saved prompt, which then reads
    other files of that kind."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # labels such as 0 and 1

    form: Form = "rows"
    """rows: CSV, TSV, JSON lines or JSON, packed by gzip or not. lines: each line is a text, the
    field text. trec: lines of "LABEL:fine text", with the fields label, fine and text. e2e, webnlg
    and dart are table-to-text sets in their own layouts; their rows have the fields table and text
    (a list of references). The others are SuperGLUE's tasks in its layout."""
    relabel: dict[
        Literal["train", "dev", "test"], Annotated[dict[str, str], Field(min_length=1)]
    ] = {}
    """Of a file that has other labels: the task's label for each, such as {train: {0: 0, 1: 0, 3:
    1, 4: 1}}; rows of a label that is not listed are left out."""


class DataConfig(LayoutConfig):
    """Files of rows; a path in a YAML file is taken from the file's own folder."""

    train: pathlib.Path | None = None
    """Rows to learn from."""
    dev: pathlib.Path | None = None
    """Rows by which training is stopped and its best state chosen."""
    test: pathlib.Path | None = None
    """Rows that are only scored, after training."""
    halve_dev: bool = False
    """Where there is no file for test: half of dev's rows, whatever the seed the same ones, are
    only scored; the others remain for dev."""
    unlabeled: pathlib.Path | None = None
    """Rows whose label nobody may see: one that the file has is dropped. PET learns from them."""
    take: dict[Literal["train", "dev", "test", "unlabeled"], Annotated[int, Field(ge=1)]] = {}
    """How many rows of a split to take, drawn by the seed: {train: 1000, test: 100}; all by
    default."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """Few-shot learning: how many rows of each label to learn from, and as many others for dev,
    drawn by the seed; from dev's file, or where there is none from the rest of train."""
    seed: Seed = 0
    """Seed of these draws."""
    references: Annotated[int, Field(ge=1)] | None = None
    """How many right texts of a training row to learn from; all by default."""
    source: str | None = None
    """Where the files can be had; it is told where one is missing."""

    @property
    def layout(self) -> LayoutConfig:
        """How the files are read, without which files they are and what is taken of them."""
        return LayoutConfig(**{name: getattr(self, name) for name in LayoutConfig.model_fields})

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.form in ("e2e", "webnlg", "dart") and (
            given := [name for name in ("unlabeled", "shots", "relabel") if getattr(self, name)]
        ):
            raise ValueError(
                f"{given[0]} is of rows with labels, and those of {self.form} have texts"
            )
        if self.halve_dev and (self.dev is None or self.test is not None):
            raise ValueError(
                "halve_dev scores half of dev's rows where there is no file for test: give dev, "
                "and not test"
            )
        if lacking := [
            f"{name} speaks of {split}"
            for name in ("take", "relabel")
            for split in getattr(self, name)
            if getattr(self, split) is None
            and (name, split, self.halve_dev) != ("take", "test", True)
        ]:
            raise ValueError(f"{lacking[0]}, of which no file is given")
        if self.shots is None:
            return self
        if self.train is None:
            raise ValueError("shots draws rows to learn from: give train")
        if self.take.keys() & {"train", "dev"} or self.references is not None:
            raise ValueError(
                "shots says what is taken of train and dev: leave take.train, take.dev and "
                "references out"
            )
        return self


class PrefixConfig(Config):
    """How a deep prefix ({prefix:5} in the template) is made and begins."""

    hidden: Annotated[int, Field(ge=0)] | None = None
    """Width of the MLP that makes it while it is trained; 0 trains it directly. The method's own by
    default."""
    init: str = "random"
    """What it starts from: random, zeros, or words, whose activations in the LM it takes."""
    attentions: tuple[Literal["self", "encoder", "decoder", "cross"], ...] = ()
    """Which attentions of an encoder-decoder it enters: encoder, decoder, cross; all by default."""


Words = dict[str, str | list[str]]


class ReadingConfig(Config):
    """How the LM's answer becomes a label."""

    by: Literal["words", "soft", "prototypes", "head", "pair"] = "words"
    """words: the label words. soft: a soft verbalizer, a trained vector for each label that begins
    as its words. prototypes: trained points (ProtoVerb). head: a classification head; a template
    without {mask} is read at its first token, or a causal LM's last.
    pair: the LM's own next-sentence head, zero-shot; the labels' words are then its relations."""
    aggregate: Literal["probability", "logit"] = "probability"
    """Of several words of a label: the mean of their probabilities, or of their logits (PET)."""
    order: Literal["parallel", "left-to-right", "most-probable-first"] | None = None
    """How a masked LM scores words of several tokens: all masks at once, from left to right, or the
    likeliest token first (PET)."""
    length: Literal["closed", "sum", "token", "character"] = "closed"
    """How words of unlike length compare. closed: by their log probability; a word that begins
    another label's (1 and 10) counts where the LM does not go on as that one. sum: the log
    probability alone, which never prefers such a longer word. token, character: its mean over the
    word's tokens or characters, which favours long words."""
    calibration: Literal["none", "contextual", "prior"] = "none"
    """What is taken off the words' scores: nothing; what they get for rows that say nothing; or on
    average over the training rows."""
    domain: str | None = None
    """A template whose scores are taken off, such as the question without the row's text (PMI)."""
    swap: tuple[str, str] | None = None
    """Two fields of a symmetric pair: both orders are run, and their scores averaged (or, before a
    trained reader, the vectors added)."""
    words: pathlib.Path | None = None
    """A word list that extends the labels' words (KPT): a line for each label in the labels' order,
    its words with commas between."""
    refine: bool = False
    """Thin out the words: those that the LM hardly says for the training rows, and those that
    rather speak for another label."""


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
    share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """iPET: the share of the other members that label a member's new rows."""
    temperature: Annotated[float, Field(gt=0)] = 2
    """Of the shares that the classifier learns from."""
    distil: TrainOverrides = TrainOverrides(
        learning_rate=1e-3, lm_learning_rate=5e-5, batch_size=16, steps=250, patience=0
    )
    """How the classifier is trained."""


class TaskConfig(Config):
    """A task: its rows, how they are asked, how answers are read, and how the prompt is trained."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # labels such as 0 and 1

    name: str
    """The task's name."""
    title: str | None = None
    """What the run is called in tables; the method's name by default."""
    version: Annotated[int, Field(ge=1)] = 1
    """Of the task's words: raised when they change, since figures change with them."""
    template: str = ""
    """Where fields, soft tokens and the answer stand: "{soft:3} {text|shorten} {soft:3} {mask}"."""
    patterns: tuple[str, ...] = ()
    """Hand-written templates. Where there are some, template is P-tuning's alone: manual prompts,
    fine-tuning and PET take the patterns, Prompt Tuning and P-tuning v2 put their tokens before
    them, a head reads the fields of the first. Several are an ensemble."""
    labels: Words = {}
    """For each label its word, or several. Without labels, choices and vocabulary, the answer is
    text that the LM writes."""
    verbalizers: Annotated[tuple[Words, ...], tyro.conf.Fixed] = ()
    """Other words for the same labels; each makes a member of its own in an ensemble."""
    relations: Words = {}
    """For a pair task: for each label the relations of a next-sentence head that stand for it:
    adjacent, not adjacent; same document, another document."""
    choices: tuple[str, ...] = ()
    """Instead of labels: fields of the row that hold an answer each, or one that holds a list of
    them; the target is the number of the right one, from 0."""
    span: str | None = None
    """Instead of labels: a field of the row with the text that the answer should spell; the label
    says whether it is right, true or false."""
    reading: ReadingConfig = ReadingConfig()
    """How the LM's answer becomes a label."""
    vocabulary: pathlib.Path | None = None
    """Instead of labels: a file of allowed answers, one a line."""
    data: DataConfig = DataConfig()
    """Where the rows are."""
    target: str = "label"
    """The field of a row that holds the right label, the right text, or a list of right texts."""
    prompt_by: str | None = None
    """A field of the rows, such as user: each of its values has a prompt of its own, all trained
    together."""
    only: tuple[str, ...] = ()
    """Of prompt_by: train only the prompts of these values; those that are there go on, new ones
    are added."""
    prompts: Annotated[int, Field(ge=1, le=1000)] = 1
    """Train so many prompts of different seeds together, which then answer as an ensemble."""
    combine: Literal["mean", "vote", "weighted"] = "mean"
    """How an ensemble answers: by the mean of its members' probabilities, by their vote, or by the
    mean of their scores weighted by their accuracy on dev; of texts, always by vote."""
    lm: Lm = "builtin"
    """builtin, a transformers folder, a .gguf file, or a name on the model hub."""
    continue_from: Annotated[pathlib.Path | None, tyro.conf.arg(name="from")] = None
    """A saved or imported prompt from which training goes on, with its LM, its template and its
    encoder; the new one goes to out."""
    method: str = "p-tuning"
    """manual (nothing is trained), fine-tune (the LM), or p-tuning, prefix-tuning, prompt-tuning,
    prompt-tuning-adamw, p-tuning-v2 (the prompt, each with its own settings)."""
    encoder: Literal["lstm", "mlp", "table"] | None = None
    """How soft tokens are made while they are trained; the method's own by default."""
    init: str | None = None
    """What they start from: random, vocabulary (frequent tokens), labels (the label words), or
    words of yours; the method's own by default."""
    prefix: PrefixConfig = PrefixConfig()
    """How a deep prefix is made."""
    loss: Literal["labels", "vocabulary"] = "labels"
    """Compare the right answer with the other labels, or with every token of the LM."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing of written answers: the share of each token's target that is spread over the
    vocabulary."""
    target_length: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a right text that are learned from, at most."""
    metrics: tuple[str, ...] = ()
    """The figures on the test rows. Of written answers: bleu, nist, meteor, rouge-1, rouge-2,
    rouge-l, cider, ter, chrf. Of labels: accuracy, f1-macro, f1-weighted, mcc, auc; of one label,
    named behind a colon, f1:good, precision:good, recall:good, auc:good; of SuperGLUE f1a, em,
    record-em, record-f1. By default accuracy, or those that papers on table-to-text report."""
    stop_by: str = "loss"
    """Of written answers: what is looked at on dev, the loss, or one of the metrics of what the LM
    writes."""
    parts: str | None = None
    """A field of the test rows by which the figures are given apart too, such as part (WebNLG's
    seen and unseen)."""
    decoding: DecodingConfig = DecodingConfig()
    """How the LM writes."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Tokens in an input at most; the LM's own limit by default."""
    allow_unknown: bool = False
    """Train also where more than a tenth of the texts is unknown to the LM's vocabulary, or
    empty."""
    tune: Literal["prompt", "head", "lm", "both", "nothing"] | None = None
    """What is trained: the prompt, the LM's vocabulary head alone, the LM, or prompt and LM; the
    method's own by default."""
    pet: PetConfig = PetConfig()
    """How PET goes about it."""
    train: TrainOverrides = TrainOverrides()
    """Training settings that replace the method's own."""
    out: pathlib.Path = pathlib.Path("trained")
    """The folder for the prompt, its figures, and what is needed to resume."""
    resume: bool = False
    """Go on with the run in the out folder."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format; auto is float32 on a CPU, bfloat16 on a GPU."""


class NewConfig(FileConfig):
    """Make a task's YAML file from a table of texts and labels: columns found, label words
    proposed, rows split."""

    data: tyro.conf.Positional[pathlib.Path]
    """The table: .csv, .tsv or .jsonl."""
    text: str | None = None
    """The column with the text; found by its name or its length by default."""
    label: str | None = None
    """The column with the label; found by its name or its few values by default."""
    out: pathlib.Path = pathlib.Path("task.yaml")
    """The YAML file; the rows to learn from, for dev and for test go beside it."""
    lm: str = "builtin"
    """The LM, whose tokenizer must have the label words whole."""
    method: str = "p-tuning"
    """The method that the file names; ptune methods lists them."""
    dev_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """The share of the rows by which the best state is chosen."""
    test_share: Annotated[float, Field(ge=0, lt=0.5)] = 0.2
    """The share of the rows that are only scored."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the split."""


class GenerateConfig(FileConfig):
    """Let the LM write, with a saved prompt (or the prompts of many users): rows in, rows out. In
    JSON lines a row comes back with one more field, ptune, which holds its text: {"ptune": {"text":
    "..."}}; in a table with one more column, ptune_text."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt, or of a task with prompt_by."""
    data: pathlib.Path | None = None
    """Rows: .jsonl, .csv or .tsv; JSON lines from standard input by default."""
    form: Form | None = None
    """rows, or the layout of a table-to-text set or of one of SuperGLUE's tasks; by default that of
    the files that the prompt was trained on. Standard input holds rows."""
    out: pathlib.Path | None = None
    """Where the texts go: .jsonl, .csv or .tsv; JSON lines to standard output by default."""
    explain: bool = False
    """Mark each row by how many tokens of it were left out, so that it fits (shortened)."""
    lm: Lm | None = None
    """The LM; by default the one that the prompt names."""
    decoding: DecodingOverrides = DecodingOverrides()
    """How the LM writes, where not as the task says."""
    skip_bad_lines: bool = False
    """Leave bad lines out and report them, instead of stopping at the first."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format."""


class ReportConfig(Config):
    """Put the runs of ptune train side by side: a table, and a page with curves and outputs beside
    references."""

    runs: tyro.conf.Positional[list[pathlib.Path]]
    """The out folders of the runs."""
    out: pathlib.Path = pathlib.Path("report")
    """The folder for report.html."""


class ExportConfig(Config):
    """Write a saved prompt in another library's form, where that can say the same."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt."""
    out: tyro.conf.Positional[pathlib.Path]
    """Where it goes: a folder for PEFT, a .npy file for Google's form."""
    to: Literal["peft", "google"] = "peft"
    """peft: an adapter folder (soft tokens in front, or a decoder's prefix). google: the soft
    tokens as an array."""
    lm: Lm | None = None
    """The LM; by default the one that the prompt names."""


class ImportConfig(Config):
    """Make a prompt folder of PEFT's adapter folder, or of a .npy file of Google's Prompt
    Tuning."""

    source: tyro.conf.Positional[pathlib.Path]
    """The adapter folder or the .npy file."""
    out: tyro.conf.Positional[pathlib.Path]
    """The folder for the prompt."""
    lm: Lm
    """The LM that it was trained for."""
    template: str
    """The template behind the learned tokens, which stand in front: " {table} = {mask}"; an
    encoder-decoder's needs no {mask}."""
    name: str = "imported"
    """The task's name."""
    target: str = "text"
    """The field of a row that holds the right text."""


class EvaluateConfig(FileConfig):
    """Score a saved prompt on rows with right answers."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt."""
    data: pathlib.Path
    """Rows: .jsonl, .csv or .tsv."""
    form: Form | None = None
    """rows, lines, trec, or the layout of a table-to-text set or of one of SuperGLUE's tasks; by
    default that of the files that the prompt was trained on."""
    split: Literal["train", "dev", "test", "none"] = "test"
    """As which split the file's labels are renamed, where data.relabel did so in training; none
    takes them as they are."""
    metrics: tuple[str, ...] = ()
    """The figures, as in a task; by default accuracy, or of text those that papers on table-to-text
    report."""
    parts: str | None = None
    """A field of the rows by which they are given apart too."""
    decoding: DecodingOverrides = DecodingOverrides()
    """How text is written, where not as the task says."""
    lm: Lm | None = None
    """The LM; by default the one that the prompt names."""
    skip_bad_lines: bool = False
    """Leave bad lines out and report them, instead of stopping at the first."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format."""


class PredictConfig(FileConfig):
    """Answer rows with a saved prompt: rows in, rows out. In JSON lines a row comes back with one
    more field, ptune, which holds its
    answer: {"ptune": {"prediction": "good", "scores": {"good": 0.9, "bad": 0.1}}}; in a table with
        two more columns,
    ptune_prediction and ptune_probability."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt."""
    data: pathlib.Path | None = None
    """Rows: .jsonl, .csv or .tsv; JSON lines from standard input by default."""
    form: Form | None = None
    """rows, or the layout of a table-to-text set or of one of SuperGLUE's tasks; by default that of
    the files that the prompt was trained on. Standard input holds rows."""
    out: pathlib.Path | None = None
    """Where the answers go: .jsonl, .csv or .tsv; JSON lines to standard output by default."""
    explain: bool = False
    """Mark each row by how many tokens of it were left out, so that it fits (shortened)."""
    lm: Lm | None = None
    """The LM; by default the one that the prompt names."""
    top: Annotated[int, Field(ge=1)] | None = None
    """Only the best labels' scores, where there are many."""
    skip_bad_lines: bool = False
    """Leave bad lines out and report them, instead of stopping at the first."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format."""


class CompareConfig(Config):
    """Compare methods on tasks with labels: few shots, several seeds, one table."""

    tasks: Annotated[tyro.conf.Positional[list[str]], Field(min_length=1)]
    """YAML files of tasks, or names of those that come with ptune: sst2, sst5, mr, trec, agnews,
    rte-full, cb-full; boolq, cb, copa, multirc, record, rte, wic, wsc (SuperGLUE, from FewGLUE's
    folders)."""
    methods: str = (
        "majority,manual,head,manual+fine-tune,p-tuning,p-tuning+lm,prompt-tuning-adamw,p-tuning-v2"
    )
    """Methods, with commas between. Beside those named: pet and ipet (tasks with unlabelled rows),
    p-tuning-v2+head, prompt-tuning, prefix-tuning, next-sentence. What a user would get without
    prompts (majority, tf-idf, linear-probe) always stands beside them."""
    lm: Lm | None = None
    """The LM, as for ptune train; each task's own by default."""
    shots: str = ""
    """Rows of each label to learn from, and as many for dev, with commas between: 16,32. By default
    what the task says; tasks with their own few-shot files, such as FewGLUE's, are taken as they
    are."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """How often, each time with other rows drawn and another start."""
    steps: Annotated[int, Field(ge=1)] = 250
    """Optimizer steps at most of each training."""
    looks: Annotated[int, Field(ge=1)] = 10
    """How often dev is looked at on the way; the best state is kept."""
    test: Annotated[int, Field(ge=1)] | None = None
    """Test rows of each task at most, drawn by the first seed; as the task says by default."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Tokens of an input at most; what is longer is shortened where its template allows it. As the
    task says by default."""
    select: Literal["first", "zero-shot", "splits"] = "zero-shot"
    """Which pattern and verbalizer a method takes, where it takes one: the first; the best of the
    untrained LM on the few labelled rows; or the best on average over --splits random halves of
    them, trained on one half and scored on the other (FewNLU)."""
    splits: Annotated[int, Field(ge=2)] = 4
    """How many halves."""
    grid: bool = False
    """Train every pattern with every verbalizer, and show how far their figures are apart."""
    out: pathlib.Path = pathlib.Path("compare")
    """The folder for results.json, report.html and what is needed to resume."""
    resume: bool = False
    """Go on with the run in the out folder."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the results as JSON instead of a table."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """Number format of the matrix multiplications; auto is float32 on a CPU, bfloat16 on a GPU."""
    train: TrainOverrides = TrainOverrides()
    """Training settings that replace the methods' own."""


class DoctorConfig(Config):
    """Show versions, the device and optional packages, and what an LM can do with prompts."""

    lm: tyro.conf.Positional[str | None] = None
    """builtin, a transformers folder, a .gguf file, or a name on the model hub; none by default."""
    device: Device = "auto"
    """auto (a GPU if there is one), cpu, cuda, ..."""
    dtype: Dtype = "auto"
    """auto: float32 on a CPU, bfloat16 on a GPU."""


class InspectConfig(Config):
    """Draw a template as the LM sees it, or show what a saved prompt has learned."""

    what: tyro.conf.Positional[str]
    """A template's text, a task's YAML file, or the folder of a saved prompt."""
    row: str | None = None
    """A row as JSON to fill the template with; the fields' names by default."""
    lm: Lm | None = None
    """The LM; builtin, or the one that the task or prompt names."""
    words: Annotated[int, Field(ge=1)] = 8
    """How many nearest words to show for each learned token."""
    device: Device = "cpu"
    """cpu, cuda, ..."""
