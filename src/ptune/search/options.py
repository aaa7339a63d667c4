"""The options of ``ptune search``."""

import pathlib
from typing import Annotated, Literal

import tyro
from pydantic import Field

from ptune.settings import Config, Device, Dtype, Lm, Seed

RERANK_STEPS = 20
By = Literal["mine", "paraphrase", "generate", "label-words", "gradient", "pez", "project"]


class SearchConfig(Config):
    """Let a program look for the prompt, or for the words of the labels. Candidates are scored on
    train and dev rows alone, all those of a step as rows of the same batches; test rows are never
    read.

    The out folder gets best.yaml and kept.yaml, tasks for ptune train and ptune compare;
    results.json; and report.html with all that was tried."""

    task: tyro.conf.Positional[pathlib.Path]
    """A task's YAML file, or the name of one that comes with ptune, such as sst2."""
    by: By
    """mine: templates from sentences of a corpus. paraphrase: templates of a list. generate:
    templates that the LM writes between a row and its right word (LM-BFF). label-words: words for
    the labels, by PETAL's likelihood ratio, LM-BFF's conditional probabilities and
    AutoPrompt's classifier. gradient: AutoPrompt, tokens that are exchanged one by one, by
    gradients. pez: a soft prompt that learns from its nearest words. project: a soft prompt that is
    trained, and then becomes words."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """The most rows that the LM may be asked about, in the whole search: a candidate that is scored
    on 32 rows costs 32, and a row with its gradient costs three. Where several candidates differ by
    the words of their labels alone, a row is read once and counts for each. By default there is
    no limit."""
    keep: Annotated[int, Field(ge=1)] = 10
    """How many of the candidates that are best on train are scored on dev and kept."""
    rerank: Literal["zero-shot", "fine-tune"] = "zero-shot"
    """How those are ranked on dev: as the LM answers (zero-shot); or, for generate and label-words,
    after the LM was fine-tuned with each for some steps on train, from the same LM each time
    (LM-BFF)."""
    rerank_steps: Annotated[int, Field(ge=1)] = RERANK_STEPS
    """rerank fine-tune: how many steps of 16 rows."""
    rows: Annotated[int, Field(ge=1)] = 200
    """Train rows, and dev rows, by which candidates are scored at most, drawn by the seed."""
    lm: Lm | None = None
    """The LM; the task's own by default."""
    shots: Annotated[int, Field(ge=1)] | None = None
    """Rows of each label to learn from, and as many for dev; by default what the task says."""
    seed: Seed = 0
    """Of the draw of rows and of everything random in the search."""
    template: str | None = None
    """generate, gradient, pez, project: a template whose soft tokens are the places that are
    searched, such as "{text} {soft:3} {mask}"; they may begin as words:
    {soft:"the capital of"}. By default the task's own, or its first pattern with three before the
    answer."""
    steps: Annotated[int, Field(ge=1)] = 100
    """gradient: exchanges that are tried. pez: steps of the soft prompt. project: steps of its
    training."""
    candidates: Annotated[int, Field(ge=1)] = 10
    """gradient: tokens that are evaluated exactly at each step. project: near words that are
    compared at each place."""
    beams: Annotated[int, Field(ge=1)] = 20
    """generate: templates that are kept while they are written, token by token."""
    rate: Annotated[float, Field(gt=0)] = 0.1
    """pez: the learning rate."""
    analyse: bool = False
    """Also tell what the wording of all that were tried has to do with their figures on train: rank
    correlations with its perplexity to the LM, its length and its likeness to the hand-written
    one."""
    whole_words: bool = False
    """gradient, pez, project: take words of letters alone, and no pieces of words or signs."""
    corpus: list[pathlib.Path] = []
    """mine: texts in which subjects and answers stand in one sentence: text files, tables with a
    column text, LAMA's rows with their evidence, and folders of these."""
    paraphrases: pathlib.Path | None = None
    """paraphrase: a file with a template in each line, or JSON lines with the key pattern, as
    ParaRel's; [X] is the task's field, [Y] the answer."""
    words: pathlib.Path | None = None
    """label-words: the words that may stand for a label, one a line, of one token or several; by
    default every whole word of the LM."""
    words_per_label: Annotated[int, Field(ge=1)] = 3
    """label-words: words of a label at most; fewer are tried too."""
    out: pathlib.Path = pathlib.Path("search")
    """The folder for what was chosen, results.json, report.html and what is needed to resume."""
    resume: bool = False
    """Go on with the search in the out folder."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print the results as JSON instead of a table."""
    device: Device = "auto"
    """cpu, cuda, ...; auto takes a GPU if there is one."""
    dtype: Dtype = "auto"
    """The LM's number format; auto is float32 on a CPU, bfloat16 on a GPU."""
