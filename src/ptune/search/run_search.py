"""``ptune search``: candidates are proposed, scored on train, and the best of them on dev."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ptune.base import files, terminal
from ptune.errors import ConfigError
from ptune.lm.language_model import LanguageModel
from ptune.reports.pages import search_page
from ptune.reports.schemas import versions
from ptune.reports.search_results import CandidateScore, SearchResults
from ptune.runs import identity
from ptune.runs.folder import working_in
from ptune.search.common import reranking, writing
from ptune.search.common.running_search import Budget, RunningSearch, ranked
from ptune.search.common.searched_task import SearchedTask, of_task, read_task
from ptune.search.common.wording import correlations
from ptune.search.options import RERANK_STEPS, SearchConfig
from ptune.search.templates import infilling, mining
from ptune.search.templates import paraphrases as paraphrasing
from ptune.search.templates.corpus import sentences
from ptune.search.templates.together import together
from ptune.search.tokens import autoprompt, pez, projection
from ptune.search.tokens.trigger import template_of
from ptune.search.words import label_words
from ptune.settings import TrainConfig
from ptune.tasks.layouts.lama import read_vocabulary
from ptune.tasks.resolved.task_form import TaskForm

SIDE = ("out", "resume", "as_json", "device", "dtype", "lm", "task")
TEMPLATES = ("mine", "paraphrase", "generate")
TOKENS = ("gradient", "pez", "project")
OF_KIND: Mapping[str, Sequence[str]] = {
    "corpus": ("mine",),
    "paraphrases": ("paraphrase",),
    "template": ("generate", *TOKENS),
    "beams": ("generate",),
    "steps": TOKENS,
    "candidates": ("gradient", "project"),
    "rate": ("pez",),
    "whole_words": TOKENS,
    "words": ("label-words",),
    "words_per_label": ("label-words",),
}
"""The kinds of search that an option is of."""
RERANKED = ("generate", "label-words")
"""The kinds whose candidates the LM may be fine-tuned with."""
Propose = Callable[..., Sequence[CandidateScore]]


def _label_words(
    search: RunningSearch, *, words: pathlib.Path | None, words_per_label: int
) -> Sequence[CandidateScore]:
    listed = read_vocabulary(words, search.task.lm.tokens) if words else None
    return label_words.propose(search, listed, words_per_label)


def _gradient(
    search: RunningSearch, *, template: str | None, steps: int, candidates: int, whole_words: bool
) -> Sequence[CandidateScore]:
    settings = autoprompt.Settings(steps, candidates)
    return autoprompt.propose(search, template_of(search, template), settings, whole_words)


def _pez(
    search: RunningSearch, *, template: str | None, steps: int, rate: float, whole_words: bool
) -> Sequence[CandidateScore]:
    return pez.propose(
        search, template_of(search, template), steps=steps, rate=rate, whole_words=whole_words
    )


def _project(
    search: RunningSearch, *, template: str | None, steps: int, candidates: int, whole_words: bool
) -> Sequence[CandidateScore]:
    source = template_of(search, template)
    return projection.propose(search, source, steps=steps, near=candidates, whole_words=whole_words)


def _mine(search: RunningSearch, *, corpus: Sequence[pathlib.Path]) -> Sequence[CandidateScore]:
    return mining.propose(search, sentences(corpus))


def _paraphrase(search: RunningSearch, *, paraphrases: pathlib.Path) -> Sequence[CandidateScore]:
    return paraphrasing.propose(search, paraphrasing.read(paraphrases))


def _generate(
    search: RunningSearch, *, template: str | None, beams: int
) -> Sequence[CandidateScore]:
    return infilling.propose(search, template_of(search, template), beams)


SEARCHES: Mapping[str, Propose] = {
    "generate": _generate,
    "mine": _mine,
    "paraphrase": _paraphrase,
    "label-words": _label_words,
    "gradient": _gradient,
    "pez": _pez,
    "project": _project,
}
"""What proposes the candidates of each kind of search, with the options of that kind."""


def search(config: SearchConfig, report: Callable[[str], None] | None = None) -> SearchResults:
    """Run the search that the config describes, and write what it chose, results.json and the
    page.

    Args:
        report: gets each line about the progress; by default it is printed.

    Raises:
        PtuneError: the task, its rows, the LM or an option is at fault.
    """
    console = terminal.Console(stderr=config.as_json)
    report = report or partial(console.print, markup=False, highlight=False, soft_wrap=True)
    check_options(config)
    task = read_task(config.task, lm=config.lm, shots=config.shots, seed=config.seed)
    with working_in(config.out, "ptune search", config.resume) as folder:
        is_tuned = config.rerank == "fine-tune"
        lm = LanguageModel.load(
            task.source.name, device=config.device, dtype=config.dtype, tuned=is_tuned
        )
        searched = of_task(
            task.form,
            task.data,
            lm,
            learning=task.learning,
            most_rows=config.rows,
            seed=config.seed,
            report=report,
        )
        whole = {
            "lm": identity.of_lm(lm),
            "task": identity.with_contents(task.deciding),
            "search": identity.of_settings(config, SIDE),
            "rows": {
                "train": identity.of_rows(searched.all_train),
                "dev": identity.of_rows(searched.dev),
            },
        }
        running = RunningSearch(
            by=config.by,
            task=searched,
            keep=config.keep,
            seed=config.seed,
            budget=Budget(config.budget),
            report=report,
            folder=config.out,
            settings=_settings(whole),
            tuning=_tuning(config, searched),
        )
        if folder.begun is None and is_tuned:
            reranking.try_tuning(running)
        folder.claim(whole)
        report(
            f"{lm.source}: {lm.kind} LM; {len(searched.train)} train and {len(searched.dev)} "
            "dev rows"
        )
        kept, tried = ranked(running, SEARCHES[config.by](running, **_options_of_kind(config)))
        if is_tuned:
            kept = reranking.fine_tuned(running, kept)
        ensembles = together(running, kept) if config.by in TEMPLATES else {}
        wording = correlations(running, tried) if config.analyse else {}
        results = _results(running, kept, tried, ensembles)
        shown = config.model_dump(mode="json", exclude={*SIDE}, exclude_none=True)
        results = results.model_copy(update={"wording": wording, "settings": shown})
        _write(task.form, task.written, results, config.out)
    if config.as_json:
        terminal.print_json(results.model_dump_json(indent=2))
    else:
        _show(results, config.out, console, report)
    return results


def check_options(config: SearchConfig) -> None:
    """Refuse options of another kind of search, and a search without what it reads.

    Raises:
        ConfigError: one is given, or one is missing.
    """
    needed = {"mine": "corpus", "paraphrase": "paraphrases"}.get(config.by)
    if needed and not getattr(config, needed):
        raise ConfigError(f"--by {config.by} needs --{needed} FILE.")
    _check_reranking(config)
    for name, kinds in OF_KIND.items():
        given = getattr(config, name) != SearchConfig.model_fields[name].default
        if given and config.by not in kinds:
            raise ConfigError(
                f"--{name.replace('_', '-')} is of {' and '.join(kinds)}, and this search is by "
                f"{config.by}: leave it out."
            )


def _check_reranking(config: SearchConfig) -> None:
    """Refuse fine-tuning for a search that does not rank so, and its steps without it.

    Raises:
        ConfigError: it is so.
    """
    if config.rerank != "fine-tune" and config.rerank_steps != RERANK_STEPS:
        raise ConfigError("--rerank-steps is of --rerank fine-tune: leave it out, or give both.")
    if config.rerank == "fine-tune" and config.by not in RERANKED:
        raise ConfigError(
            f"--rerank fine-tune is of {' and '.join(RERANKED)}, and this search is by "
            f"{config.by}: leave it out."
        )


def _tuning(config: SearchConfig, task: SearchedTask) -> TrainConfig | None:
    """How the LM is fine-tuned with each candidate that is kept, where they are ranked so."""
    if config.rerank != "fine-tune":
        return None
    return reranking.tuning_of(config.rerank_steps, len(task.train), config.seed)


def _options_of_kind(config: SearchConfig) -> dict[str, Any]:
    """The options that the search's kind has to itself."""
    return {name: getattr(config, name) for name, kinds in OF_KIND.items() if config.by in kinds}


def _settings(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a search in the records of its parts."""
    return {name: identity.of_value(value) for name, value in whole.items()}


def _results(
    running: RunningSearch,
    kept: list[CandidateScore],
    tried: list[CandidateScore],
    ensembles: dict[str, float],
) -> SearchResults:
    task = running.task
    return SearchResults(
        task=task.name,
        by=running.by,
        metric=task.metric,
        lm=task.lm.source,
        rows={"train": len(task.train), "dev": len(task.dev)},
        candidates=kept,
        tried=tried,
        steps=running.steps,
        ensembles=ensembles,
        calls=running.budget.spent,
        budget=running.budget.limit,
        settings={},
        versions=versions(),
    )


def _write(
    form: TaskForm, written: Mapping[str, Any], results: SearchResults, folder: pathlib.Path
) -> None:
    """Write the tasks of what was chosen, results.json and the page."""
    writing.write(form, written, results.candidates, folder)
    files.write_json(folder / "results.json", results.model_dump(mode="json"))
    search_page.write(results, folder)


def _show(
    results: SearchResults,
    folder: pathlib.Path,
    console: terminal.Console,
    report: Callable[[str], None],
) -> None:
    """Print the results as a table with the names of the files that hold them."""
    console.print(search_page.table(results))
    for name, value in results.wording.items():
        report(f"Rank correlation of {name} with {results.metric} on train: {value:+.2f}")
    report(f"The LM was asked about {results.calls:,} rows. Chosen on dev: {folder / 'best.yaml'}")
    report(f"Results: {folder / 'results.json'}   Report: {folder / 'report.html'}")
