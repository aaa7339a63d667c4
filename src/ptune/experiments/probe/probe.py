"""The probe from facts to report: which facts does a frozen LM give away, and to which kind of
prompt?"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ptune.base import files, terminal
from ptune.base.ranks import ALONE, Ranks, check_gpus
from ptune.errors import DivergedError
from ptune.experiments.options import ProbeConfig
from ptune.experiments.probe import duration, probe_checks, probe_search, probe_setup
from ptune.experiments.probe.probe_trials import Plan, original_weights, run_bank, trials_of
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import choose_device
from ptune.lm.source.random_weights import with_random_weights
from ptune.reports.pages import probe_page
from ptune.reports.schemas import Results, summarise, versions
from ptune.reports.trial_results import FactsResult, divergences
from ptune.runs.folder import RunFolder, working_in
from ptune.runs.logs.open_logs import check_logs, opened_logs
from ptune.runs.trials import JsonResults, Trial, run_trials, unfinished
from ptune.runs.trials import assist as assist_trials
from ptune.settings import BUILTIN_LMS
from ptune.tasks.layouts import lama
from ptune.training.loop import lower_rates
from ptune.training.methods import Method

MOST_DIVERGED = 8  # trainings that diverged, told one by one
BUILTIN_NOTE = (
    "The built-in LM read sentences that state the test facts while it was pretrained, as BERT "
    "read Wikipedia; in other wordings "
    "than those of the prompts. No prompt was trained on a test fact, or on a country of the test "
    "rows."
)


@dataclass(frozen=True)
class _Probe:
    """A probe that was set up: what it asks, and what is said of it beside the results.

    Attributes:
        dropped: for each relation how many rows were left out, since their answer is not allowed.
        allowed: how many answers are allowed.
        out: the folder.
        lm, facts: their names, as the command has them.
        shown_lm: what the LM is called in the results.
    """

    plan: Plan
    dropped: dict[str, int]
    allowed: int
    out: pathlib.Path
    lm: str
    facts: str
    shown_lm: str

    @property
    def labels(self) -> dict[str, str]:
        """For each relation the name that is shown."""
        return {problem.name: problem.label for problem in self.plan.problems}


def probe(
    config: ProbeConfig, report: Callable[[str], None] | None = None, ranks: Ranks = ALONE
) -> Results:
    """Run the probe that the config describes, and write results.json and report.html.

    Args:
        ranks: the processes that train prompts together, of which this is the first; the others
            call ``assist``.

    Raises:
        PtuneError: facts, LM or settings are at fault.
    """
    console = terminal.Console(stderr=config.as_json)
    report = report or partial(console.print, markup=False, highlight=False, soft_wrap=True)
    methods = _methods(config, ranks)
    check_logs(config.log)
    settings = config.model_dump(mode="json")
    with (
        working_in(config.out, "ptune probe", config.resume) as folder,
        opened_logs(config.log, config.out, settings) as logs,
    ):
        asked = _set_up(config, methods, folder, report)
        asked = replace(asked, plan=replace(asked.plan, logs=logs, ranks=ranks))
        single = _run(asked, report)
        results = _summarise(asked, single)
        if config.as_json:
            terminal.print_json(results.model_dump_json(indent=2))
        else:
            _show(asked, results, console, report)
        _report_divergences(single, methods, report)
    return results


def assist(config: ProbeConfig, ranks: Ranks) -> None:
    """Train, beside the first process that calls ``probe``, the prompts of the probe.

    Raises:
        PtuneError: as ``probe``.
    """
    asked = _planned(config, _methods(config, ranks), terminal.print_nothing)
    if ranks.begin():
        together = ranks.from_first(lambda: None)
        plan = replace(asked.plan, together=together, ranks=ranks)
        trials = [trial for trial in trials_of(plan) if plan.method(trial).tune == "prompt"]
        assist_trials(trials, partial(run_bank, plan, None), ranks)


def _methods(config: ProbeConfig, ranks: Ranks) -> list[Method]:
    """The methods with the settings of the command.

    Raises:
        PtuneError: a method, a setting or the device is at fault.
    """
    check_gpus(config.device, ranks)
    choose_device(config.device)
    return probe_setup.methods_of(
        config.methods,
        config.preset,
        template=config.template,
        encoder=config.encoder,
        init=config.init,
        train=config.train,
    )


def _set_up(
    config: ProbeConfig,
    methods: Sequence[Method],
    folder: RunFolder,
    report: Callable[[str], None],
) -> _Probe:
    """Plan the probe, check that facts and LM fit together, and claim the folder."""
    asked = _planned(config, methods, report)
    plan = asked.plan
    if folder.begun is None:
        probe_checks.check_subjects(plan, config.allow_unknown, report)
        probe_checks.check_rows(plan, report)
        probe_checks.rehearse(plan)
    kept = folder.claim(plan.identity, {"together": plan.together})
    return replace(asked, plan=replace(plan, together=kept["together"]))


def _planned(
    config: ProbeConfig, methods: Sequence[Method], report: Callable[[str], None]
) -> _Probe:
    """Read the facts, then the LM."""
    relations = probe_setup.listed(config.relations)
    facts = lama.read_facts(config.facts, relations, config.manual, report)
    tuned = any(method.tune in ("lm", "both") for method in methods)
    lm = LanguageModel.load(config.lm, device=config.device, dtype=config.dtype, tuned=tuned)
    if config.control == "random-lm":
        lm = with_random_weights(lm)
    allowed = probe_setup.allowed_words(config.vocab, config.facts, lm)
    problems, kept_relations, words = probe_setup.problems_of(lm, facts, allowed, report)
    is_builtin = config.facts == "builtin"
    plan = probe_setup.plan_of(
        lm,
        problems,
        methods,
        seeds=config.seeds,
        out=config.out,
        together=config.together,
        wordings=is_builtin if config.wordings is None else config.wordings,
    )
    searches = probe_search.searches_of(
        [problem.name for problem in problems],
        text=config.search,
        corpus=config.corpus,
        facts=config.facts,
        rows=config.search_rows,
        steps=config.search_steps,
        budget=config.search_budget,
    )
    whole = probe_setup.identity_of(plan, words)
    if searches is not None:
        whole["searches"] = probe_search.identity_of(searches)
    plan = replace(plan, searches=searches, identity=whole)
    dropped = {relation.name: sum(relation.dropped.values()) for relation in kept_relations}
    return _Probe(
        plan=plan,
        dropped=dropped,
        allowed=len(words.labels),
        out=config.out,
        lm=config.lm,
        facts=config.facts,
        shown_lm=lm.source if config.control else config.lm,
    )


def _run(asked: _Probe, report: Callable[[str], None]) -> list[FactsResult]:
    """Run the trials that have no results yet; return the results of all."""
    plan, out = asked.plan, asked.out
    trials = trials_of(plan)
    searched = probe_search.trials_of(plan)
    report(duration.sentence(duration.seconds_at_most(plan, unfinished(trials, out))))
    size = sum(parameter.numel() for parameter in plan.lm.model.parameters())
    number = len(plan.problems)
    report(
        f"{plan.lm.source}: {plan.lm.kind} LM, {size / 1e6:.1f} M parameters, on "
        f"{plan.lm.device}; {number} relation{'s' * (number > 1)}, {asked.allowed} allowed answers"
    )
    train = partial(run_bank, plan, original_weights(plan))
    look_for = probe_search.SearchRunner(plan, report).run

    def run(group: Sequence[Trial], scratch: pathlib.Path | None) -> Iterator[FactsResult]:
        return (look_for if probe_search.is_search(group[0]) else train)(group, scratch)

    on_result = partial(_report_result, report)
    plan.ranks.begin()
    plan.ranks.from_first(lambda: plan.together)
    return run_trials(
        [*trials, *searched],
        out,
        run=run,
        results=JsonResults(FactsResult),
        on_result=on_result,
        ranks=plan.ranks,
    )


def _summarise(asked: _Probe, single: Sequence[FactsResult]) -> Results:
    """Write results.json and the page from the results of single trials."""
    plan = asked.plan
    results = summarise(
        single,
        titles={method.name: method.title for method in _columns(plan)},
        tuned={method.name for method in plan.methods if method.tune in ("lm", "both")},
        majority={problem.name: problem.majority for problem in plan.problems},
        dropped=asked.dropped,
        settings={
            "lm": asked.shown_lm,
            "facts": asked.facts,
            "allowed": asked.allowed,
            "identity": plan.identity,
        },
        versions=versions(),
    )
    notes = [BUILTIN_NOTE] if asked.lm in BUILTIN_LMS and asked.facts == "builtin" else []
    files.write_json(asked.out / "results.json", results.model_dump(mode="json"))
    probe_page.write(results, single=single, labels=asked.labels, notes=notes, folder=asked.out)
    return results


def _columns(plan: Plan) -> list[Method]:
    """The columns of the table: the methods, and what searches chose."""
    return [*plan.methods, *(plan.searches.methods if plan.searches else ())]


def _show(
    asked: _Probe, results: Results, console: terminal.Console, report: Callable[[str], None]
) -> None:
    """Print the results as a table with the names of the files that hold them."""
    console.print(probe_page.table(results, asked.labels))
    report(probe_page.wordings_line(results))
    if asked.lm in BUILTIN_LMS:
        report(BUILTIN_NOTE)
    report(f"Results: {asked.out / 'results.json'}   Report: {asked.out / 'report.html'}")


def _report_divergences(
    single: Sequence[FactsResult], methods: Sequence[Method], report: Callable[[str], None]
) -> None:
    """Report the trainings that diverged.

    Raises:
        DivergedError: all of them did, so that there are no figures.
    """
    if lost := divergences(single):
        others = len(lost) - MOST_DIVERGED
        more = [f"... and {others} more"] if others > 0 else []
        report("\n".join([*lost[:MOST_DIVERGED], *more]))
    if not any(result.figures for result in single):
        trained = [method for method in methods if method.tune != "nothing"]
        advice = dict.fromkeys(lower_rates(method.train, method.tune) for method in trained)
        raise DivergedError(
            f"Every training diverged, so there are no figures: {'; '.join(advice)}."
        )


def _report_result(report: Callable[[str], None], result: FactsResult) -> None:
    """A line as soon as a result is known, and one for each sentence about its training."""
    epochs = f", best after {result.best.epoch:.0f} epochs" if result.best else ""
    dropped = f" (without {result.dropped!r}, which this LM cannot see)" if result.dropped else ""
    figure = "diverged, no figures"
    if result.figures:
        figure = f"P@1 {result.figures[probe_page.MAIN]:.3f}"
    report(f"{result.method:17} {result.problem:17} {figure}{epochs}{dropped}")
    for sentence in result.account:
        report(f"  {sentence}")
