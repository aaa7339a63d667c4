"""What a task's YAML file may say. The line under each field is its help."""

import pathlib
from typing import Annotated, Any, Literal, Self

import tyro
from pydantic import ConfigDict, Field, model_validator

from ptune.metrics.entities import Scheme
from ptune.metrics.text_words import WordSplit
from ptune.settings import (
    NEIGHBOURS,
    TEXT_FORMS,
    Config,
    DecodingConfig,
    Device,
    Dtype,
    EncoderName,
    LayoutConfig,
    Lm,
    LogName,
    PetConfig,
    PiecesOfWord,
    PrefixConfig,
    Preset,
    ReaderName,
    Seed,
    Sharding,
    TaskTrainOverrides,
    VisibilityRules,
)

AUTO = "auto"  # instead of a method: one is to be chosen
ONE_LABEL_A_ROW = (AUTO, "pet", "ipet", "contrastive", "next-sentence")


class DataConfig(LayoutConfig):
    """Files of rows; a path in a YAML file is taken from the file's own folder."""

    dataset: str | None = None
    """Instead of files: a data set of the hub, or a folder of one; train, dev, test and unlabeled
    are then its splits, such as train[:10%]. columns are those that are read."""
    config: str | None = None
    """Of a data set the configuration, where it has several."""
    revision: str | None = None
    """Of a data set of the hub the commit, branch or tag; the newest by default."""
    split: str | None = None
    """Of a data set the split to learn from, as train."""
    streaming: bool = False
    """Read a data set as it comes, no more of it than is asked for: train[:1000]."""
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
    """Where the files can be had; the message on a missing file says it."""

    @property
    def layout(self) -> LayoutConfig:
        """How the files are read, without which files they are and what is taken of them."""
        return LayoutConfig(**{name: getattr(self, name) for name in LayoutConfig.model_fields})

    def _check_named_splits(self) -> None:
        """Refuse a split in ``take`` or ``relabel`` that has no rows."""
        splits = {split for split in ("train", "dev", "test", "unlabeled") if getattr(self, split)}
        halved = {"test"} if self.halve_dev else set()
        for name, allowed in (("take", splits | halved), ("relabel", splits)):
            for split in getattr(self, name):
                if split not in allowed:
                    raise ValueError(f"{name} speaks of {split}, of which no file is given")

    @model_validator(mode="before")
    @classmethod
    def _split_is_train(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("split") is not None:
            if values.get("train") is not None:
                raise ValueError("split is the split to learn from, as train: give one of them")
            split = values["split"]
            return {**values, "train": split, "split": None}
        return values

    def _check_data_set(self) -> None:
        """Refuse options of a data set where none is named.

        Raises:
            ValueError: it is so.
        """
        given = {"config": self.config, "revision": self.revision, "streaming": self.streaming}
        if self.dataset is None and (stray := [name for name, value in given.items() if value]):
            raise ValueError(f"{stray[0]} is of a data set: name one under dataset")

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        self._check_data_set()
        if self.form in TEXT_FORMS and (
            unfitting := [name for name in ("unlabeled", "shots", "relabel") if getattr(self, name)]
        ):
            raise ValueError(
                f"{unfitting[0]} is of rows with labels, and those of {self.form} have texts"
            )
        if self.halve_dev and (self.dev is None or self.test is not None):
            raise ValueError(
                "halve_dev scores half of dev's rows where there is no file for test: give dev, "
                "and not test"
            )
        self._check_named_splits()
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


Words = dict[str, str | list[str]]


class ReadingConfig(Config):
    """How the LM's answer becomes a label."""

    by: ReaderName = "words"
    """words: the label words. weighted-words: the mean of their logits by weights that are learned
    (KPT). soft: a soft verbalizer, a trained vector for each label that begins as its words.
    prototypes: trained points (ProtoVerb). head: a classification head; a template without {mask}
    is read at its first token, or a causal LM's last. linear: logistic regression. pair: the LM's
    own next-sentence head, zero-shot; the labels' words are then its relations."""
    pooling: Literal["first", "mean"] | None = None
    """What a head or a regression reads of an input without {mask}: its first token (of a causal
    LM the last), or the mean of all its tokens, which suits sentence encoders; the method's own by
    default."""
    layer: Annotated[int, Field(ge=1)] | None = None
    """The layer whose hidden states a head or a regression reads; the last by default. Of small
    encoders the last but one often tells more."""
    aggregate: Literal["probability", "logit", "max", "vote"] = "probability"
    """How several words of a label count: the mean of their probabilities, or of their logits
    (PET); the likeliest word alone (max); or by votes: each way to take one word of every label
    votes for the label of its likeliest word. Weights that are learned: by: weighted-words."""
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
    temperature: Literal["dev", "none"] = "dev"
    """Temperature scaling. dev: after training the labels' probabilities are corrected by one
    number, so that they fit the dev rows best; no answer changes by it. none: they stay as the LM
    gives them."""
    windows: Literal["none", "mean", "max"] = "none"
    """What becomes of a text (the field that is marked by |shorten) that does not fit into the LM.
    none: it is shortened. mean, max: it is read part by part, and each label's probability is the
    mean over the parts, or the largest; training and answers take more time for such rows."""
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    """For a task with multi_label: the probability from which a row has a label. By default the one
    with the best f1-micro on the dev rows, which is saved with the prompt; 0.5 without dev rows."""
    pieces: PiecesOfWord | None = None
    """For a task with tag: at which of a word's tokens the LM is read: the first, the last, or all,
    whose scores are averaged. By default the first, and of a causal LM, which has not seen the word
    before, the last."""
    scheme: Scheme | None = None
    """For a task with tag: how labels make entities. bio: B- begins one and I- continues it (IOB2).
    iob1: I- may begin one too. bioes: E- ends one, S- stands alone. plain: labels have no parts, as
    parts of speech. Rows that break it are refused, and no answer does. By default what the labels
    look like: bio, bioes or plain."""
    longest: Annotated[int, Field(ge=1)] | None = None
    """For a task with extract: the most tokens of an answer; 30 by default."""
    no_answer: bool = False
    """For a task with extract: a text may have no answer, whose target is an empty list (SQuAD
    2.0)."""
    words: pathlib.Path | None = None
    """A word list that extends the labels' words (KPT): a line for each label in the labels' order,
    its words with commas between."""
    refine: bool = False
    """Thin out the words: those that the LM hardly says for the training rows, and those that
    rather speak for another label."""


class CodeConfig(Config):
    """What a paper's released code has otherwise than the paper; with preset: code it stands in the
    place of the task's own."""

    template: str | None = None
    """The template with soft tokens."""
    patterns: tuple[str, ...] | None = None
    """The hand-written templates."""
    choices: tuple[str, ...] | None = None
    """The fields that hold the answers."""


class ChatMessage(Config):
    """A message of a chat."""

    role: str
    """system, user or assistant, as far as the LM's chat template knows them."""
    text: str
    """What is said, in the template language."""


class TaskConfig(Config):
    """A task: its rows, how they are asked, how answers are read, and how the prompt is trained."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # labels such as 0 and 1

    name: str
    """The task's name."""
    title: str | None = None
    """What the run is called in tables; the method's name by default."""
    version: Annotated[int, Field(ge=1)] = 1
    """Version of the wording; raise it when that changes, since figures change with it."""
    template: str = ""
    """Where fields, soft tokens and the answer stand: "{soft:3} {text|shorten} {soft:3} {mask}"."""
    chat: Annotated[tuple[ChatMessage, ...], tyro.conf.Suppress] = ()
    """Instead of template: messages of a role and a text each, as the LM's own chat template writes
    them; the last one is the assistant's and ends with {mask}. The same as a template in which
    {role:user} begins a message."""
    visibility: Annotated[VisibilityRules, tyro.conf.Suppress] = ()
    """Whose tokens do not attend to which others: {hide: premise, from: hypothesis}, {hide: soft,
    from: fields}. The names are those of fields, or fields (all of them), soft, soft@NAME, prefix,
    mask (the answer), words (the template's own text and the special tokens); each side may be a
    list. Every token sees itself."""
    patterns: tuple[str, ...] = ()
    """Hand-written templates. Where there are some, template is P-tuning's alone: manual prompts,
    fine-tuning and PET take the patterns, Prompt Tuning and P-tuning v2 put their tokens before
    them, a head reads the fields of the first. Several are an ensemble."""
    code: Annotated[CodeConfig | None, tyro.conf.Suppress] = None
    """What the paper's released code has otherwise than the paper, for preset: code."""
    preset: Preset | None = None
    """code: take the patterns, the number of soft tokens and iPET's growth of the paper's released
    code, where they differ from the paper; of the tasks that come with ptune those of SuperGLUE
    know them. paper: take the settings of training of the method's paper, where ours suit small LMs
    and few rows (p-tuning, optiprompt, p-tuning+lm, prompt-tuning, prefix-tuning, pet, ipet); what
    stands under train and pet replaces them."""
    labels: Words = {}
    """For each label its word, or several; of a task with tag a list of the labels. Without
    labels, choices and vocabulary, the answer is
    text that the LM writes."""
    verbalizers: Annotated[tuple[Words, ...], tyro.conf.Suppress] = ()
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
    tag: str | None = None
    """Sequence labelling: the field of a row that holds a list of words, each of which has one of
    the labels; the target is then the list of the words' labels. A trained linear head reads the
    words. Without a template the method puts its learned tokens before the words."""
    extract: str | None = None
    """Extractive question answering: the field of a row with the text of which the answer is a
    part; the target is the right answer, a list of them, or SQuAD's text and answer_start. A
    trained linear head reads where it begins and ends; a long text is read in windows."""
    multi_label: bool = False
    """A row may have none, one or several of the labels: its target is a list of them, or a cell
    that data.label_separator splits. Each label is then a decision of its own."""
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
    """With prompt_by: train only the prompts of these values; those that are there go on, new ones
    are added."""
    prompts: Annotated[int, Field(ge=1, le=1000)] = 1
    """Train so many prompts of different seeds together, which then answer as an ensemble."""
    combine: Literal["mean", "vote", "weighted", "confident", "neighbours"] = "mean"
    """How an ensemble answers: by the mean of its members' probabilities, by their vote, by the
    mean of their scores weighted by their accuracy on dev, to each row as the member does that is
    the surest of it (confident), or to each row by the mean of their probabilities, weighted by
    how probable the labels of the nearest train rows are to each (neighbours); of texts, always by
    vote."""
    neighbours: Annotated[int, Field(ge=1)] = NEIGHBOURS
    """For combine: neighbours: how many of the nearest train rows count. A row is as near as its
    tokens are alike (the cosine of TF-IDF), and counts for so much."""
    lm: Lm = "builtin"
    """builtin (it fills masks), builtin-causal (it writes), a transformers folder, a .gguf file, or
    a name on the model hub."""
    continue_from: Annotated[pathlib.Path | None, tyro.conf.arg(name="from")] = None
    """A saved or imported prompt from which training goes on, with its LM, its template and its
    encoder; the new one goes to out."""
    transfer: tuple[pathlib.Path, ...] = ()
    """Saved prompts of other tasks, or the folders of runs, as one of which the new prompt begins,
    under the template, the labels and the encoder of this task (SPoT). Of several it is the one
    that is best on dev after a few steps from each; of more than five, those most like the prompt
    that this task learns in a few steps are tried."""
    method: str = "p-tuning"
    """auto (the best of several, chosen on the labelled rows), manual (nothing is trained),
    fine-tune (the LM), or p-tuning, prefix-tuning, prompt-tuning, prompt-tuning-adamw, p-tuning-v2,
    contrastive (the prompt, each with its own settings); ptune methods lists all."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes that method auto may take to try methods and to train the best one; 2 by default."""
    encoder: EncoderName | None = None
    """How soft tokens are made while they are trained; the method's own by default. multitask: the
    prompts of prompt_by are one table that all of them learn, times a matrix of rank one of each
    (MPT)."""
    init: str | None = None
    """What they start from: random, vocabulary (frequent tokens), labels (the label words), or
    words of yours; the method's own by default."""
    prefix: PrefixConfig = PrefixConfig()
    """How a deep prefix is made."""
    loss: Literal["labels", "vocabulary", "hinge"] = "labels"
    """Compare the right answer with the other labels by cross entropy, or with every token of the
    LM; or hinge: with each other label or choice, until it is ahead by a margin of 1 (as PET with
    words of several tokens, and P-tuning's code for choices)."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing of written answers: the share of each token's target that is spread over the
    vocabulary."""
    target_length: Annotated[int, Field(ge=1)] | None = None
    """Tokens of a right text that are learned from, at most."""
    metrics: tuple[str, ...] = ()
    """The figures on the test rows. Of written answers: bleu, nist, meteor, rouge-1, rouge-2,
    rouge-l, cider, ter, chrf. Of labels: accuracy, f1-macro, f1-weighted, mcc, auc; of one label,
    named behind a colon, f1:good, precision:good, recall:good, auc:good; of SuperGLUE f1a, em,
    record-em, record-f1, gender-parity; of their probabilities brier and ece (expected calibration
    error), of which less is better. With multi_label: f1-micro, f1-macro, f1-samples,
    subset-accuracy, hamming-score, and f1:good, precision:good, recall:good, auc:good. With tag:
    entity-f1, entity-precision, entity-recall, each also of one kind (entity-f1:person), and
    word-accuracy.
    With extract: token-f1, exact-match (SQuAD's). By default accuracy, with multi_label f1-micro,
    with tag or extract all of its own, or those that papers on table-to-text report."""
    metric_words: WordSplit = "auto"
    """How written answers are split into words for bleu, nist, rouge, cider and ter. auto: by the
    script of the right texts, zh for Chinese, ja-mecab for Japanese (char where MeCab is not
    installed), char for Thai, Lao, Khmer and Burmese, 13a for Latin letters, unicode for others."""
    stop_by: str = "loss"
    """For written answers: what decides on dev, the loss, or one of the metrics of what the LM
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
    train: TaskTrainOverrides = TaskTrainOverrides()
    """Training settings that replace the method's own."""
    out: pathlib.Path = pathlib.Path("trained")
    """The folder for the prompt, its figures, and what is needed to resume."""
    log: tuple[LogName, ...] = ()
    """Where losses, rates, dev scores and written samples go while it trains, one or several:
    jsonl (log.jsonl in out), tensorboard (tensorboard/ in out), trackio, wandb; nowhere by
    default."""
    resume: bool = False
    """Go on with the run in the out folder."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format; auto is float32 on a CPU, bfloat16 on a GPU."""
    lm_sharding: Sharding = "none"
    """Of several processes (torchrun) each holds the whole LM (none), a share of each layer's
    weights, gathered when the layer runs (fsdp), or a share of each layer's heads and units, and
    all run the same rows (tensor, where transformers has a plan for the LM)."""

    @model_validator(mode="before")
    @classmethod
    def _name_labels(cls, values: Any) -> Any:
        """Of a task that labels words the labels may be a list."""
        labels = values.get("labels") if isinstance(values, dict) and values.get("tag") else None
        if not isinstance(labels, list | tuple) or not all(isinstance(one, str) for one in labels):
            return values
        if repeated := next((name for name in labels if labels.count(name) > 1), None):
            raise ValueError(f"labels has {repeated!r} twice")
        return {**values, "labels": {label: label for label in labels}}

    @model_validator(mode="after")
    def _check_tokens(self) -> Self:
        """Refuse what does not go together with labels of words or parts of texts, or needs
        those."""
        reading = self.reading
        needs = {
            "pieces": ("tag", reading.pieces is not None),
            "scheme": ("tag", reading.scheme is not None),
            "longest": ("extract", reading.longest is not None),
            "no_answer": ("extract", reading.no_answer),
        }
        for name, (key, is_given) in needs.items():
            if is_given and getattr(self, key) is None:
                what = "label each word" if key == "tag" else "answer with a part of a text"
                raise ValueError(f"reading.{name} is of tasks that {what}: set {key}")
        key = "tag" if self.tag else "extract"
        if getattr(self, key) is None:
            return self
        if self.tag and not self.labels:
            raise ValueError(
                "tag gives each word one of some labels: list them, labels: [O, B-person, I-person]"
            )
        others = {
            "extract": self.tag and self.extract,
            "labels": self.extract and self.labels,
            "data.shots": self.data.shots,
            "data.relabel": self.data.relabel,
            "patterns": self.patterns,
            "verbalizers": self.verbalizers,
            "choices": self.choices,
            "span": self.span,
            "vocabulary": self.vocabulary,
            "multi_label": self.multi_label,
            "parts": self.parts,
            f"combine {self.combine}": self.combine != "mean",
            "train.class_weights": self.train.class_weights,
            f"reading.by {reading.by}": reading.by not in ("words", "token-head"),
            "reading.words": reading.words or reading.refine,
            f"method {self.method}": self.method in ONE_LABEL_A_ROW,
        }
        if unfitting := [name for name, value in others.items() if value]:
            what = "labels each word of a row" if key == "tag" else "reads single tokens of a row"
            raise ValueError(f"{key} {what}, and {unfitting[0]} is of whole rows")
        return self

    @model_validator(mode="after")
    def _check_label_sets(self) -> Self:
        """Refuse what does not go together with rows that have several labels, or needs them."""
        given = {
            "data.label_separator": self.data.label_separator,
            "reading.threshold": self.reading.threshold,
        }
        if not self.multi_label:
            if needless := [name for name, value in given.items() if value is not None]:
                raise ValueError(f"{needless[0]} is of rows with several labels: set multi_label")
            return self
        others = {
            "data.shots": self.data.shots,
            "data.relabel": self.data.relabel,
            "verbalizers": self.verbalizers,
            "prompts": self.prompts > 1,
            f"combine {self.combine}": self.combine != "mean",
            "train.class_weights": self.train.class_weights,
            f"method {self.method}": self.method in ONE_LABEL_A_ROW,
        }
        if unfitting := [name for name, value in others.items() if value]:
            raise ValueError(
                f"multi_label lets a row have several labels, and {unfitting[0]} is of rows with "
                "one label each"
            )
        separator = self.data.label_separator
        if separator and (split := [label for label in self.labels if separator in label]):
            raise ValueError(
                f"data.label_separator is {separator!r}, and the label {split[0]!r} has that in it"
            )
        return self
