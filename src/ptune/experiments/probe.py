"""The probe from facts to report: which facts does a frozen LM give away, and to which kind of
prompt?"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ptune.answers.label_words import Verbalizer, allowed
from ptune.base import files, terminal
from ptune.errors import ConfigError, DivergedError, TemplateError
from ptune.experiments import duration, trials
from ptune.experiments.options import ProbeConfig
from ptune.experiments.trials import Plan, ProbeTask, Result
from ptune.lm.language_model import LanguageModel
from ptune.reports import probe_page
from ptune.reports.schemas import Results, summarise, versions
from ptune.runs import identity
from ptune.runs.folder import RunFolder, working_in
from ptune.tasks import lama
from ptune.template.language import Template
from ptune.training.loop import lower_rates
from ptune.training.methods import Method, method

MOST_DIVERGED = 8  # trainings that diverged, told one by one
ALL = "manual,p-tuning,fine-tune,manual+fine-tune"  # P-tuning, section 4.1
BUILTIN_NOTE = (
    "The built-in LM read sentences that state the test facts while it was pretrained, as BERT "
    "read Wikipedia; in other wordings "
    "than those of the prompts. No prompt was trained on a test fact, or on a country of the test "
    "rows."
)


def probe(config: ProbeConfig, report: Callable[[str], None] | None = None) -> Results:
    """Run the probe that the config describes, and write results.json and report.html.

    Raises:
        PtuneError: facts, LM or settings are at fault.
    """
    console = terminal.Console(stderr=config.as_json)
    report = report or partial(console.print, markup=False, highlight=False, soft_wrap=True)
    methods = _methods(config)
    with working_in(config.out, "ptune probe", config.resume) as folder:
        return _probed(config, methods, folder, console, report)


def _probed(
    config: ProbeConfig,
    methods: Sequence[Method],
    folder: RunFolder,
    console: terminal.Console,
    report: Callable[[str], None],
) -> Results:
    """The probe, in a folder that is held."""
    facts = lama.read_facts(config.facts, _listed(config.relations), config.manual, report)
    lm = LanguageModel.load(
        config.lm,
        device=config.device,
        dtype=config.dtype,
        tuned=any(m.tune in ("lm", "both") for m in methods),
    )
    problems, relations, words = _problems(config, lm, facts, report)
    plan = _plan(config, lm, problems, methods)
    whole = _identity(config, plan, words)
    plan = replace(plan, together=folder.claim(whole, {"together": plan.together})["together"])
    report(duration.sentence(duration.seconds_at_most(plan)))
    report(
        f"{lm.source}: {lm.kind} LM, {sum(p.numel() for p in lm.model.parameters()) / 1e6:.1f} M "
        f"parameters, on {lm.device}; "
        f"{len(problems)} relation{'s' * (len(problems) > 1)}, {len(words.labels)} allowed answers"
    )
    single = trials.run(plan, partial(_tell, report))
    results = summarise(
        single,
        {m.name: m.title for m in methods},
        {m.name for m in methods if m.tune in ("lm", "both")},
        {p.name: p.majority for p in problems},
        {r.name: sum(r.dropped.values()) for r in relations},
        {"lm": config.lm, "facts": config.facts, "allowed": len(words.labels), "identity": whole},
        versions(),
    )
    labels = {p.name: p.label for p in problems}
    files.write_json(config.out / "results.json", results.model_dump(mode="json"))
    probe_page.write(
        results,
        single,
        labels,
        [BUILTIN_NOTE] if (config.lm, config.facts) == ("builtin", "builtin") else [],
        config.out,
    )
    if config.as_json:
        print(results.model_dump_json(indent=2))
    else:
        console.print(probe_page.table(results, labels))
        report(probe_page.wordings_line(results))
        if config.lm == "builtin":
            report(BUILTIN_NOTE)
        report(f"Results: {config.out / 'results.json'}   Report: {config.out / 'report.html'}")
    if lost := probe_page.divergences(single):
        report(
            "\n".join(
                [
                    *lost[:MOST_DIVERGED],
                    *(
                        [f"... and {len(lost) - MOST_DIVERGED} more"]
                        if len(lost) > MOST_DIVERGED
                        else []
                    ),
                ]
            )
        )
    if not any(result["figures"] for result in single):
        raise DivergedError(f"Every training diverged, so there are no figures: {_lower(methods)}.")
    return results


def _lower(methods: Sequence[Method]) -> str:
    """What methods that diverge should be given."""
    return "; ".join(
        dict.fromkeys(
            lower_rates(preset.train, preset.tune) for preset in methods if preset.tune != "nothing"
        )
    )


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _methods(config: ProbeConfig) -> list[Method]:
    """The methods with the command line's settings in place of their own."""
    chosen = [method(name) for name in _listed(ALL if config.methods == "all" else config.methods)]
    if other := next((m.name for m in chosen if m.reader or m.name in ("pet", "ipet")), None):
        raise ConfigError(
            f"{other} tells a task's labels apart, and facts have none: ptune compare runs it."
        )
    if not chosen:
        raise ConfigError(f"No method is named; the default is manual,p-tuning, and all is {ALL}.")
    chosen = [replace(m, train=m.train.replaced(config.train.model_dump())) for m in chosen]
    overrides = {
        name: value
        for name in ("template", "encoder", "init")
        if (value := getattr(config, name)) is not None
    }
    if overrides and not any(m.tune == "prompt" for m in chosen):
        raise ConfigError(
            f"--{next(iter(overrides))} is of methods that train a prompt, and none of these does: "
            f"{config.methods}."
        )
    Template.parse(overrides.get("template", ""))
    return [replace(m, **overrides) if m.tune == "prompt" else m for m in chosen]


def _problems(
    config: ProbeConfig,
    lm: LanguageModel,
    facts: Sequence[lama.Relation],
    report: Callable[[str], None],
) -> tuple[list[ProbeTask], list[lama.Relation], Verbalizer]:
    """Relations restricted to the allowed answers, as problems of an experiment."""
    path = config.vocab
    if path is None and (common := lama.folder(config.facts) / "common_vocab_cased.txt").exists():
        path = common
    words = lama.read_vocabulary(path, lm.tokens) if path else lama.whole_words(lm.tokens)
    verbalizer, names, _ = allowed(words, lm.tokens, "spaced")
    numbers = {label: number for number, label in enumerate(verbalizer.labels)}
    problems, relations = [], []
    for relation in (lama.restrict(fact_set, names, lm.tokens) for fact_set in facts):
        rows = {split: len(facts_of_split) for split, facts_of_split in relation.facts.items()}
        if not all(rows.values()):
            report(
                f"{relation.name} is left out: of its answers so few are allowed that no "
                f"{' and no '.join(s for s, n in rows.items() if not n)} row is left."
            )
            continue
        relations.append(relation)
        problems.append(
            ProbeTask(
                relation.name,
                relation.label,
                _manual(relation, lm, report),
                relation.wordings,
                verbalizer,
                "object",
                relation.facts["train"],
                relation.facts["dev"],
                relation.facts["test"],
                partial(lama.figures, relation, numbers=numbers),
                probe_page.MAIN,
                relation.majority,
            )
        )
    if not problems:
        raise ConfigError(
            "No relation has rows whose answers are allowed; give another vocabulary with --vocab."
        )
    if lost := sum(sum(relation.dropped.values()) for relation in relations):
        kept = sum(
            len(facts_of_split)
            for relation in relations
            for facts_of_split in relation.facts.values()
        )
        report(
            f"{lost} of {lost + kept} rows are left out, since their answer is not one of the "
            f"{len(verbalizer.labels)} allowed words."
        )
    return problems, relations, verbalizer


def _manual(
    relation: lama.Relation, lm: LanguageModel, report: Callable[[str], None]
) -> str | None:
    """The hand-written prompt, where there is one that this kind of LM can read."""
    try:
        if relation.template:
            Template.parse(relation.template).for_kind(lm.kind)
    except TemplateError as error:
        report(f"{relation.name} is asked without its manual prompt: {error}")
        return None
    return relation.template


def _plan(
    config: ProbeConfig, lm: LanguageModel, problems: Sequence[ProbeTask], methods: Sequence[Method]
) -> Plan:
    if any(m.template == "manual" for m in methods) and not any(p.manual for p in problems):
        raise ConfigError(
            "These facts have no hand-written prompt that this LM can read: give one with "
            '--manual "The capital of [X] is '
            '[Y] .", or leave the manual methods out of --methods.'
        )
    prompts = [
        (m, Template.parse(m.template).for_kind(lm.kind)[0].prompt_length(lm.tokens))
        for m in methods
        if m.tune == "prompt"
    ]
    fitting = [
        trials.how_many_together(lm, m.encoder, length, m.train.batch_size, len(problems))
        for m, length in prompts
    ]
    together = config.together or min(fitting, default=1)
    wordings = config.facts == "builtin" if config.wordings is None else config.wordings
    return Plan(lm, problems, methods, config.seeds, config.out, together, wordings)


def _identity(config: ProbeConfig, plan: Plan, words: Verbalizer) -> dict[str, Any]:
    """All that the results hang on."""
    methods = {
        m.name: {
            "template": m.template,
            "encoder": m.encoder,
            "init": m.init,
            "tune": m.tune,
            "hidden": m.hidden,
            **identity.of_settings(m.train),
        }
        for m in plan.methods
    }
    return {
        "lm": identity.of_lm(plan.lm),
        "allowed answers": identity.of_value(words.labels),
        "seeds": config.seeds,
        "methods": methods,
        "facts of": {p.name: _identity_of(p) for p in plan.problems},
        "wordings": plan.wordings,
    }


def _identity_of(problem: ProbeTask) -> dict[str, Any]:
    rows = {
        f"{split} rows": identity.of_rows(getattr(problem, split))
        for split in ("train", "dev", "test")
    }
    return {
        "manual prompt": problem.manual,
        "wordings": identity.of_value(problem.wordings),
        "loss": problem.loss,
        **rows,
    }


def _tell(report: Callable[[str], None], result: Result) -> None:
    """A line as soon as a result is known."""
    epochs = f", best after {result['best']['epoch']:.0f} epochs" if result["best"] else ""
    dropped = (
        f" (without {result['dropped']!r}, which this LM cannot see)" if result["dropped"] else ""
    )
    figure = (
        f"P@1 {result['figures'][probe_page.MAIN]:.3f}"
        if result["figures"]
        else "diverged, no figures"
    )
    report(f"{result['method']:17} {result['problem']:17} {figure}{epochs}{dropped}")
    for sentence in result["account"]:
        report(f"  {sentence}")
