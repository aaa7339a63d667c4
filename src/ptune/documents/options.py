"""The options of ``ptune distil`` and ``ptune ask``."""

import pathlib
from typing import Annotated, Literal

import tyro
from pydantic import Field, model_validator

from ptune.settings import (
    Config,
    DecodingOverrides,
    Device,
    Dtype,
    Lm,
    LogName,
    Seed,
    TrainConfig,
    TrainOverrides,
)

Start = Literal["first", "spaced", "attended", "random"]
TEMPLATE = "\nQuestion: {question}\nAnswer: {mask}"
# Adam at 5e-3 on 8 slices a step; a document of 800 tokens was still learning after 300 steps.
TRAINING = TrainConfig(
    optimiser="adam",
    learning_rate=5e-3,
    batch_size=8,
    steps=300,
    evaluate_every=25,
    patience=4,
)


class DistilConfig(Config):
    """Read documents once, and ask them for ever: for each a short prefix (keys and values at every
    layer) is trained, with which the frozen LM answers nearly as it does with the whole document
    in its context, for a fraction of the memory and time.

    The out folder holds a saved prompt for each document, which `ptune ask`, `ptune generate` and
    `ptune serve` take; study.jsonl, what was learned from; and a page."""

    documents: Annotated[tyro.conf.Positional[list[pathlib.Path]], Field(min_length=1)]
    """Documents: .txt, .md, .html, .json (its fields as text), tables with a document in each row
    (.csv, .tsv, .jsonl), and folders of these. A document is asked by the name of its file, or by
    that in its row."""
    lm: Lm
    """The causal LM: a transformers folder, a .gguf file, or a name on the model hub."""
    out: pathlib.Path = pathlib.Path("documents")
    """The folder for the prompts, results.json, report.html and what is needed to resume."""
    log: tuple[LogName, ...] = ()
    """Where losses, rates and dev scores of the trainings go while they run, one or several: jsonl
    (log.jsonl in out), tensorboard (tensorboard/ in out), trackio, wandb; nowhere by default."""
    length: Annotated[int, Field(ge=1)] | None = None
    """Vectors in the prefix of every document; by default --ratio decides."""
    ratio: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The share of a document's tokens that its prefix has vectors."""
    text: str = "text"
    """The column of a table that holds the documents' texts."""
    name: str | None = None
    """The column of a table that holds their names; by default name, title or id."""
    template: str = TEMPLATE
    """How a question stands behind the document: with the field {question}, and {mask} where the
    answer is written."""
    study: pathlib.Path | None = None
    """Rows to learn from beside slices of the documents: a question and its answer each, or a text;
    and document, where there are several. They may be more or less than what a page says: what is
    learned is how the LM answers with the document before it."""
    study_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """The share of what is learned from that they make up, repeated as often as that takes."""
    written: Annotated[int, Field(ge=0)] = 0
    """How many texts the LM writes of each document and learns from too: questions with answers,
    summaries, outlines and uses of a slice in turn. Those that are no such text are left out."""
    written_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """The share of what is learned from that these make up."""
    cover: Annotated[float, Field(gt=0)] = 32
    """In how many slices each token of a document stands, on average."""
    slice_tokens: Annotated[int, Field(ge=2)] = 40
    """Tokens of a slice."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The share of slices and rows that is not learned from. Training ends when what the prefix
    says of these gets no nearer to what the LM says with the document, and the best state is
    kept."""
    start: Start = "attended"
    """What a prefix begins as: in each head the keys and values of the tokens that the document's
    own words attend to most, read again behind it (attended); those of its first tokens, or of
    tokens spaced evenly over it, as if they alone were a text (first, spaced); or random values of
    their scale."""
    previous: pathlib.Path | None = None
    """The out folder of an earlier run with the same LM. A document that has changed since begins
    as its prefix there: of more vectors than now the last are left out, to fewer those of --start
    are added. One that has not changed, nor its study text and settings, keeps its prompt."""
    anchored: bool = False
    """Leave a prefix's first vector as it began, as an anchor of attention."""
    top: Annotated[int, Field(ge=1)] = 20
    """How many of the likeliest tokens are compared with the LM's, beside all others together."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Above 1 the less likely tokens count more."""
    window: Annotated[int, Field(ge=16)] = 2048
    """Tokens of a document that the LM has before it at once while it teaches. A longer one is
    taught by stretches that overlap, each under its heading."""
    together: Annotated[int, Field(ge=1)] = 8
    """How many documents are trained in one batch."""
    judge: pathlib.Path | None = None
    """Questions with answers, in rows as those of --study: how likely the answers are with the
    prefix is told beside no document, the whole document, its first tokens, a summary that the LM
    writes, and what retrieval finds. They decide nothing, and may be given with --resume when the
    training is over."""
    beside: list[pathlib.Path] = []
    """With --judge: out folders of other runs that were judged, such as with other --ratio. Their
    prefixes stand in the page's curve too."""
    seed: Seed = 0
    """Seed of the slices, of what is held out, and of a random start."""
    allow_unknown: bool = False
    """Take also documents of which more than a tenth is unknown to the LM's vocabulary."""
    resume: bool = False
    """Go on with the run in the out folder."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format; auto is float32 on a CPU, bfloat16 on a GPU."""
    train: TrainOverrides = TrainOverrides()
    """Training settings that replace the usual ones (300 steps of 8 rows a document)."""

    @model_validator(mode="after")
    def _leave_room_for_slices(self) -> "DistilConfig":
        if self.study and self.written and self.study_share + self.written_share >= 1:
            raise ValueError(
                f"study_share ({self.study_share:g}) and written_share ({self.written_share:g}) "
                "leave nothing for slices of the documents: they are less than 1 together"
            )
        return self


class AskConfig(Config):
    """Ask documents that ptune distil has read."""

    folder: tyro.conf.Positional[pathlib.Path]
    """The out folder of ptune distil."""
    question: tyro.conf.Positional[str]
    """The question."""
    document: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["-d"])] = ()
    """The documents to ask, by name; the prefixes of several stand together before the question.
    Each keeps the positions that it was trained at, so their order changes nothing but the last
    digits. By default it is the document whose words are nearest to the question's (TF-IDF)."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the question, the documents and the answer as JSON."""
    lm: Lm | None = None
    """The LM; by default the one that the prompts name."""
    decoding: DecodingOverrides = DecodingOverrides()
    """How the LM writes, where not as the prompts say."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format."""
