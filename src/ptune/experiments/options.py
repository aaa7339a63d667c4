"""The options of the commands that run experiments or answer rows."""

import os
import pathlib
from typing import Annotated, Literal

import tyro
from pydantic import BeforeValidator, Field

from ptune.settings import (
    Config,
    Coverage,
    DecodingOverrides,
    Device,
    Dtype,
    EncoderOfOne,
    FileConfig,
    Form,
    Lm,
    LogName,
    Sureness,
    TrainOverrides,
)

RowsPlace = Annotated[str, BeforeValidator(lambda place: os.path.expanduser(os.fspath(place)))]
"""A file, a folder, a pattern, or a URL."""


class ProbeConfig(Config):
    """Find out what a frozen LM knows: ask it for facts by hand-written prompts and by P-tuning,
    and with --methods all by fine-tuning too, and compare."""

    lm: Lm = "builtin"
    """builtin, builtin-causal, a transformers folder, a .gguf file, or a name on the model hub."""
    facts: str = "builtin"
    """builtin, a folder in LAMA's T-REx layout, a table (.csv, .tsv, .jsonl) with the columns
    subject,object, or one of LAMA's files whose rows bring their sentence (ConceptNet, Google-RE,
    SQuAD), which --methods manual asks."""
    relations: str = ""
    """Relations to ask for, with commas between; all that have test rows by default."""
    methods: str = "manual,p-tuning"
    """Methods to compare, with commas between; all is the paper's four:
    manual,p-tuning,fine-tune,manual+fine-tune."""
    preset: Literal["paper"] | None = None
    """paper: take the settings of training of the methods' papers (p-tuning, optiprompt,
    prompt-tuning, prefix-tuning), where ours suit small LMs and few rows; what --train says
    replaces them."""
    template: str | None = None
    """Template of the methods that train a prompt: three counts (soft tokens, subject, soft tokens,
    answer, soft tokens), or a template's text; each method's own by default, which is 3,3,3 for
    P-tuning."""
    manual: str | None = None
    """The hand-written prompt for a table, such as "The capital of [X] is [Y] .", or instead of one
    relation's own."""
    encoder: EncoderOfOne | None = None
    """How soft tokens are made while they are trained; the method's own by default, which is lstm
    for P-tuning."""
    init: str | None = None
    """What they start from: random, vocabulary (frequent tokens), labels, or words of yours; the
    method's own by default."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """How often the trained methods run, each time with another seed: --train.seed (0 by default)
    and those after it."""
    vocab: pathlib.Path | None = None
    """The allowed answers: a file of words, or paper, for the 29k-vocab.json of AutoPrompt's and
    P-tuning's papers that stands beside the facts. By default LAMA's common
    vocabulary where the facts have it, else every whole word of the LM."""
    search: str = ""
    """Prompts that a program looks for on train and dev rows, with commas between, each a column of
    the table: mine (templates from sentences, and their ensemble with learned weights),
    paraphrase (the same of other wordings), gradient (AutoPrompt), pez, project; or all."""
    corpus: list[pathlib.Path] = []
    """For --search mine: texts in which subjects and answers stand in one sentence; by default the
    evidence that LAMA's train rows bring along."""
    search_rows: Annotated[int, Field(ge=1)] = 100
    """Train rows, and dev rows, of a relation by which a search scores candidates at most."""
    search_steps: Annotated[int, Field(ge=1)] = 60
    """Steps of --search gradient, pez and project."""
    search_budget: Annotated[int, Field(ge=1)] | None = None
    """How many rows the LM may read at most in a search of a relation (ptune search, --budget)."""
    control: Literal["random-lm"] | None = None
    """random-lm: run all of it on an LM of the same form with random weights, which knows nothing:
    what methods reach there they have learned from the train rows, and not recalled."""
    wordings: bool | None = None
    """Try the manual prompt in other wordings too, on dev and test. By default for the built-in
    facts only."""
    together: Annotated[int, Field(ge=1)] | None = None
    """How many relations' prompts train in one batch; as many as fit into memory by default."""
    allow_unknown: bool = False
    """Ask also where more than a tenth of the subjects is unknown to the LM's vocabulary, or
    empty."""
    out: pathlib.Path = pathlib.Path("probe")
    """The folder for results.json, report.html, the prompts and what is needed to resume."""
    log: tuple[LogName, ...] = ()
    """Where losses, rates and dev scores of the trainings go while they run, one or several: jsonl
    (log.jsonl in out), tensorboard (tensorboard/ in out), trackio, wandb; nowhere by default."""
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


class SweepConfig(Config):
    """Train tasks with many settings: every point of a grid, or of a list, is a run in a folder of
    its own; one table and page at the end. The same command goes on where a run was killed, and may
    be started several times, on machines that share the folder too: no run is done twice.

    The file: {tasks: [task.yaml], grid: {method: [p-tuning, prompt-tuning], train.learning_rate:
    [0.001, 0.01], train.seed: [0, 1, 2]}, list: [{...}, {...}]}. Keys are those of a task's file,
    with dots between; entries of list hold settings that go together, each with the whole grid."""

    file: tyro.conf.Positional[pathlib.Path]
    """The YAML file of the sweep; tasks in it are files beside it, or names of those that come with
    ptune. Other paths in it are taken from its folder too."""
    out: pathlib.Path = pathlib.Path("sweep")
    """The folder for the runs, results.json and report.html."""
    workers: Annotated[int, Field(ge=1)] = 1
    """Processes on this machine that share the work; with --ray, workers on the cluster."""
    ray: str | None = None
    """A Ray cluster whose machines share the folder under one path, and whose workers do the runs:
    its address, auto (that of this machine), or local (one of this machine alone)."""
    ray_cpus: Annotated[int, Field(ge=1)] = 1
    """The CPU cores that a worker on the cluster takes."""
    ray_gpus: Annotated[float, Field(ge=0)] = 0.0
    """The GPUs that a worker on the cluster takes; 0.5 lets two share one."""
    together: Annotated[int, Field(ge=1)] = 8
    """Runs of one LM whose prompts are trained together at most, in the same calls of the LM; each
    ends as it would alone. 1 trains each by itself, which takes the least memory."""
    search: tuple[str, ...] = ()
    """Settings that Optuna chooses by how earlier runs did on dev, in the place of a grid's:
    train.learning_rate=log:1e-5..1e-1 (by its logarithm), train.steps=50..400, encoder=lstm,mlp."""
    trials: Annotated[int, Field(ge=1)] | None = None
    """How often the search tries something, for each task and each entry of the file's grid and
    list; a trial is a run for each of the grid's seeds. May be raised to go on."""
    prune: bool = False
    """With --search: end a trial at a look at dev where the best dev score that its first seed had
    so far is below the median of what finished trials had at that step. Its runs are marked in the
    table, and none of them is taken for the best."""
    dry_run: bool = False
    """Print the commands of the runs, and train nothing."""


class GenerateConfig(FileConfig):
    """Let the LM write, with a saved prompt (or the prompts of many users): rows in, rows out. In
    JSON lines a row comes back with one more field, ptune, which holds its text: {"ptune": {"text":
    "..."}}; in a table with one more column, ptune_text."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt, or of a task with prompt_by."""
    data: RowsPlace | None = None
    """Rows: .jsonl, .csv, .tsv, .parquet, .arrow or .feather; JSON lines from standard input by
    default. With a folder as --out also a folder of such files, a pattern ('rows/*.parquet'), or a
    URL that fsspec reads (s3://...)."""
    form: Form | None = None
    """rows, or the layout of a table-to-text set or of one of SuperGLUE's tasks; by default that of
    the files that the prompt was trained on. Standard input holds rows."""
    out: pathlib.Path | None = None
    """Where the texts go: .jsonl, .csv or .tsv; a folder (a name without an ending), which takes
    any number of rows and gets files of their form; JSON lines to standard output by default."""
    shard_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows of a file in such a folder, 16,384 by default; a run that is killed loses the answers of
    one at most."""
    ray: str | None = None
    """A Ray cluster whose workers answer the pieces of such a folder: its address, auto (that of
    this machine), or local (one of this machine alone)."""
    workers: Annotated[int, Field(ge=1)] = 1
    """With --ray: workers on the cluster, each with the LM."""
    ray_cpus: Annotated[int, Field(ge=1)] = 1
    """The CPU cores that a worker on the cluster takes."""
    ray_gpus: Annotated[float, Field(ge=0)] = 0.0
    """The GPUs that a worker on the cluster takes; 0.5 lets two share one."""
    resume: bool = False
    """Go on behind the answers that a run which was stopped left beside the file of --out
    (.partial), or in its folder."""
    overwrite: bool = False
    """Write the answers in the place of the file that --out names, where there is one."""
    explain: bool = False
    """Mark each row by how many tokens of it were left out, so that it fits (shortened), and by the
    share of its text that the LM does not know (unknown)."""
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
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """What stands between the labels in a cell, where a row may have several; by default as in the
    files that the prompt was trained on."""
    metrics: tuple[str, ...] = ()
    """The figures, as in a task; by default accuracy, or of text those that papers on table-to-text
    report."""
    parts: str | None = None
    """A field of the rows by which they are given apart too."""
    coverage: Coverage | None = None
    """Also score sets of labels that hold the right one with this probability, 0.9 for example: how
    often they do, and how many labels they have."""
    at_least: Sureness | None = None
    """Also score the rows alone whose answer has at least this probability: how many there are, and
    how many of those are right."""
    decoding: DecodingOverrides = DecodingOverrides()
    """How text is written, where not as the task says."""
    lm: Lm | None = None
    """The LM; by default the one that the prompt names."""
    allow_unknown: bool = False
    """Score also where more than a tenth of the texts is unknown to the LM's vocabulary, or
    empty."""
    skip_bad_lines: bool = False
    """Leave bad lines out and report them, instead of stopping at the first."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format."""


class PredictConfig(FileConfig):
    """Answer rows with a saved prompt: rows in, rows out. In JSON lines a row comes back with one
    more field, ptune, which holds its answer: {"ptune": {"prediction": "good", "scores": {"good":
    0.9, "bad": 0.1}}}; in a table with two more columns, ptune_prediction and ptune_probability."""

    prompt: tyro.conf.Positional[pathlib.Path]
    """The folder of a saved prompt."""
    data: RowsPlace | None = None
    """Rows: .jsonl, .csv, .tsv, .parquet, .arrow or .feather; JSON lines from standard input by
    default. With a folder as --out also a folder of such files, a pattern ('rows/*.parquet'), or a
    URL that fsspec reads (s3://...)."""
    form: Form | None = None
    """rows, or the layout of a table-to-text set or of one of SuperGLUE's tasks; by default that of
    the files that the prompt was trained on. Standard input holds rows."""
    out: pathlib.Path | None = None
    """Where the answers go: .jsonl, .csv or .tsv; .conll for words with labels, the lines of --data
    with one more column; a folder (a name without an ending), which takes any number of rows and
    gets files of their form; JSON lines to standard output by default."""
    shard_rows: Annotated[int, Field(ge=1)] | None = None
    """Rows of a file in such a folder, 16,384 by default; a run that is killed loses the answers of
    one at most."""
    ray: str | None = None
    """A Ray cluster whose workers answer the pieces of such a folder: its address, auto (that of
    this machine), or local (one of this machine alone)."""
    workers: Annotated[int, Field(ge=1)] = 1
    """With --ray: workers on the cluster, each with the LM."""
    ray_cpus: Annotated[int, Field(ge=1)] = 1
    """The CPU cores that a worker on the cluster takes."""
    ray_gpus: Annotated[float, Field(ge=0)] = 0.0
    """The GPUs that a worker on the cluster takes; 0.5 lets two share one."""
    resume: bool = False
    """Go on behind the answers that a run which was stopped left beside the file of --out
    (.partial), or in its folder."""
    overwrite: bool = False
    """Write the answers in the place of the files that --out and --submission name, where they are
    there."""
    explain: bool = False
    """Mark each row by how many tokens of it were left out, so that it fits (shortened), and by the
    share of its text that the LM does not know (unknown)."""
    lm: Lm | None = None
    """The LM; by default the one that the prompt names."""
    submission: pathlib.Path | None = None
    """Write the answers to SuperGLUE's official test rows, and to its diagnostics (--form ax-b,
    ax-g), into this file too, in the form of its leaderboard: BoolQ.jsonl."""
    top: Annotated[int, Field(ge=1)] | None = None
    """Only the best labels' scores, where there are many."""
    coverage: Coverage | None = None
    """Add the set of labels that holds the right one with this probability, 0.9 for example, as dev
    rows of the prompt's training say: more labels where it is less sure (field "set")."""
    at_least: Sureness | None = None
    """Give no answer where the best label has a smaller probability, such as 0.8: prediction is
    then null (in a table empty), and the scores are there as ever."""
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
    contrastive, regression, optiprompt, p-tuning-v2+head, prompt-tuning, prefix-tuning,
    next-sentence. What a user would get without prompts (majority, tf-idf, linear-probe) always
    stands beside them."""
    preset: Literal["code"] | None = None
    """code: take the patterns, the number of soft tokens and iPET's growth of the papers' released
    code, where they differ from the papers; the tasks of SuperGLUE know them."""
    lm: Lm | None = None
    """The LM, as for ptune train; each task's own by default."""
    shots: str = ""
    """Rows of each label to learn from, and as many for dev, with commas between: 16,32. By default
    what the task says; tasks without data.shots, such as FewGLUE's with their own files, are taken
    as they are."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """How often, each time with other rows drawn and another start: with the task's data.seed (0 by
    default) and the seeds after it."""
    steps: Annotated[int, Field(ge=1)] = 250
    """Optimizer steps at most of each training; of PET's classifier as the task says under
    pet.distil, where it does."""
    looks: Annotated[int, Field(ge=1)] = 10
    """Checks on dev during a training; the best state is kept."""
    test: Annotated[int, Field(ge=1)] | None = None
    """Test rows of each task at most, the same for all seeds (drawn by seed 0); as the task says by
    default."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """Tokens of an input at most; what is longer is shortened where its template allows it. As the
    task says by default."""
    select: Literal["first", "zero-shot", "splits"] = "zero-shot"
    """Which pattern and verbalizer a method takes, where it takes one: the first; the best of the
    untrained LM on the few labelled rows; or the best on average over --splits random halves of
    them, trained on one half and scored on the other (FewNLU)."""
    splits: Annotated[int, Field(ge=2)] = 4
    """How many halves."""
    demonstrations: Annotated[int, Field(ge=1)] | None = None
    """Write so many train rows of each label, with their right words, before each row, for the
    methods that ask by a pattern as it stands (manual, manual+fine-tune): drawn from the half of
    the label's train rows that is most like the row (LM-BFF). What does not fit is cut."""
    grid: bool = False
    """Train every pattern with every verbalizer, and show how far their figures are apart."""
    allow_unknown: bool = False
    """Compare also where more than a tenth of the texts is unknown to the LM's vocabulary, or
    empty."""
    out: pathlib.Path = pathlib.Path("compare")
    """The folder for results.json, report.html and what is needed to resume."""
    log: tuple[LogName, ...] = ()
    """Where losses, rates and dev scores of the trainings go while they run, one or several: jsonl
    (log.jsonl in out), tensorboard (tensorboard/ in out), trackio, wandb; nowhere by default."""
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


class CheckConfig(FileConfig):
    """Look at files of rows before anything is trained: how they are written, what their columns
    hold, how long their texts are, what stands twice, within a file and between files, and what
    else is odd; and print the YAML of a task that reads them.

    Several files are train, dev and test, by their names or in that order. A task's YAML file, or
    the name of a task that comes with ptune, checks the files that it names. The exit code is 2
    where lines cannot be read, which training would refuse too."""

    files: tyro.conf.Positional[list[pathlib.Path]]
    """Files of rows (.csv, .tsv, .jsonl, .json, .txt; packed by gzip or not), or one task."""
    text: str | None = None
    """The column with the text; by default a pair or one of a usual name, or the longest."""
    label: str | None = None
    """The column with the label; by default one of a usual name, or that with the fewest values."""
    form: Form | None = None
    """How a set in a layout of its own is read, such as boolq or e2e; by default as its content
    shows."""
    lm: Lm | None = None
    """Also count lengths in this LM's tokens, what would be cut, and pieces that it does not know:
    builtin, builtin-causal, a transformers folder, a .gguf file, or a name on the model hub."""
    sample: Annotated[int, Field(ge=0)] = 20_000
    """With --lm: so many rows of a file, evenly spread, are tokenised; 0 for all."""
    max_length: Annotated[int, Field(ge=1)] | None = None
    """With --lm: tokens in an input at most; the LM's own limit by default."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print all of it as one JSON object."""
