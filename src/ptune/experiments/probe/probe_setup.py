"""What a probe is, before anything is run: its methods, its relations as tasks, what they share a
batch with, and its identity."""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ptune.answers.label_words import Verbalizer, allowed
from ptune.errors import ConfigError, TemplateError
from ptune.experiments.probe.probe_trials import Plan, ProbeTask
from ptune.lm.language_model import LanguageModel
from ptune.lm.source.loading import free_memory
from ptune.prompts import encoders
from ptune.reports.pages import probe_page
from ptune.runs import identity
from ptune.settings import Preset, TrainOverrides
from ptune.tasks.layouts import lama
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.resolved.unread import check_rates
from ptune.template.language import Template
from ptune.training.methods import Method
from ptune.training.paper_settings import preset_method

ALL = "manual,p-tuning,fine-tune,manual+fine-tune"  # P-tuning, section 4.1
MOST_TOGETHER = 64  # prompts in one batch
# A probe trains many prompts at once: where nothing says how long, it waits for a gain half as
# long as other commands do, and not at all once every dev row is right.
PATIENCE = {"patience": 3, "patience_steps": 15, "stopping_threshold": 1.0}
LENGTHS = ("epochs", "steps", "least_steps", *PATIENCE)
PAPER = pathlib.Path("paper")  # of --vocab: the vocabulary of the papers


def listed(text: str) -> list[str]:
    """The parts of a list that is written with commas, without empty ones."""
    return [part.strip() for part in text.split(",") if part.strip()]


def methods_of(
    names: str, preset: Preset | None = None, *, train: TrainOverrides, **prompt: Any
) -> list[Method]:
    """The methods with the command line's settings in place of their own.

    Args:
        names: with commas between, or all.
        prompt: template, encoder and init of the methods that train a prompt, where given.
    """
    chosen = [preset_method(name, preset) for name in listed(ALL if names == "all" else names)]
    if other := next((m.name for m in chosen if m.reader or m.name in ("pet", "ipet")), None):
        raise ConfigError(
            f"{other} tells a task's labels apart, and facts have none: ptune compare runs it."
        )
    if not chosen:
        raise ConfigError(f"No method is named; the default is manual,p-tuning, and all is {ALL}.")
    check_rates(train, [(TaskForm(name="facts"), one) for one in chosen])
    replacements = train.model_dump()
    if not preset and all(replacements[name] is None for name in LENGTHS):
        chosen = [
            replace(m, train=m.train.replaced(PATIENCE)) if m.tune == "prompt" else m
            for m in chosen
        ]
    chosen = [replace(m, train=m.train.replaced(replacements)) for m in chosen]
    overrides = {name: value for name, value in prompt.items() if value is not None}
    if overrides and not any(m.tune == "prompt" for m in chosen):
        raise ConfigError(
            f"--{next(iter(overrides))} is of methods that train a prompt, and none of these does: "
            f"{names}."
        )
    Template.parse(overrides.get("template", ""))
    return [replace(m, **overrides) if m.tune == "prompt" else m for m in chosen]


def problems_of(
    lm: LanguageModel,
    facts: Sequence[lama.Relation],
    words: Sequence[str],
    report: Callable[[str], None],
) -> tuple[list[ProbeTask], list[lama.Relation], Verbalizer]:
    """Relations restricted to the allowed answers, as problems of an experiment.

    Args:
        words: the allowed answers.
    """
    verbalizer, names, _ = allowed(words, lm.tokens, "spaced")
    problems, relations = [], []
    for relation in (lama.restrict(fact_set, names, lm.tokens) for fact_set in facts):
        needed = ("test",) if relation.is_only_asked else lama.SPLITS
        empty = [split for split in needed if not relation.facts[split]]
        if empty:
            report(
                f"{relation.name} is left out: of its answers so few are allowed that no "
                f"{' and no '.join(empty)} row is left."
            )
            continue
        relations.append(relation)
        problems.append(_problem(relation, verbalizer, _manual(relation, lm, report)))
    if not problems:
        raise ConfigError(
            "No relation has rows whose answers are allowed; give another vocabulary with --vocab."
        )
    _report_dropped(relations, len(verbalizer.labels), report)
    return problems, relations, verbalizer


def allowed_words(path: pathlib.Path | None, facts: str, lm: LanguageModel) -> list[str]:
    """The words that may be answers: those of a file, of the facts, or all whole words of the
    LM."""
    common = lama.folder(facts) / "common_vocab_cased.txt"
    if path == PAPER and not path.exists():
        path = lama.folder(facts) / "29k-vocab.json"
        if not path.exists():
            raise ConfigError(
                f"--vocab paper takes the papers' 29k-vocab.json, which {facts} does not "
                "have beside its relations: name its file, or leave --vocab out."
            )
    if path is None and common.exists():
        path = common
    return lama.read_vocabulary(path, lm.tokens) if path else lama.whole_words(lm.tokens)


def _problem(relation: lama.Relation, verbalizer: Verbalizer, manual: str | None) -> ProbeTask:
    """A relation as a task, with its hand-written prompt where this kind of LM can read it."""
    numbers = {label: number for number, label in enumerate(verbalizer.labels)}
    return ProbeTask(
        name=relation.name,
        label=relation.label,
        manual=manual,
        wordings=relation.wordings,
        verbalizer=verbalizer,
        target="object",
        train=relation.facts["train"],
        dev=relation.facts["dev"],
        test=relation.facts["test"],
        score=partial(lama.figures, relation, numbers=numbers),
        main=probe_page.MAIN,
        majority=relation.majority,
    )


def _report_dropped(
    relations: Sequence[lama.Relation], words: int, report: Callable[[str], None]
) -> None:
    """Report how many rows are left out, since their answer is not allowed."""
    lost = sum(sum(relation.dropped.values()) for relation in relations)
    kept = sum(len(rows) for relation in relations for rows in relation.facts.values())
    if lost:
        report(
            f"{lost} of {lost + kept} rows are left out, since their answer is not one of the "
            f"{words} allowed words."
        )


def _manual(
    relation: lama.Relation, lm: LanguageModel, report: Callable[[str], None]
) -> str | None:
    """The hand-written prompt, where there is one that this kind of LM can read."""
    try:
        if relation.template:
            Template.parse(relation.template).for_lm(lm.tokens, lm.kind)
    except TemplateError as error:
        report(f"{relation.name} is asked without its manual prompt: {error}")
        return None
    return relation.template


def plan_of(
    lm: LanguageModel,
    problems: Sequence[ProbeTask],
    methods: Sequence[Method],
    *,
    seeds: int,
    out: pathlib.Path,
    together: int | None,
    wordings: bool,
) -> Plan:
    """What is asked, and how many prompts train together: as many as fit, where that is not said.

    Raises:
        ConfigError: the facts have no hand-written prompt, or no rows to learn from, which a method
            needs.
    """
    trained = [method.name for method in methods if method.tune != "nothing"]
    if trained and (asked := next((p.name for p in problems if not p.train), None)):
        raise ConfigError(
            f"The rows of {asked} bring their sentences and are only asked, and "
            f"{', '.join(trained)} would learn from rows: give --methods manual."
        )
    if any(m.template == "manual" for m in methods) and not any(p.manual for p in problems):
        raise ConfigError(
            "These facts have no hand-written prompt that this LM can read: give one with "
            '--manual "The capital of [X] is '
            '[Y] .", or leave the manual methods out of --methods.'
        )
    fitting = [
        how_many_together(
            lm,
            method.encoder,
            length=_longest_prompt(lm, method, problems),
            batch_size=method.train.batch_size,
            problems=len(problems),
        )
        for method in methods
        if method.tune == "prompt"
    ]
    together = together or min(fitting, default=1)
    return Plan(
        lm, problems, methods=methods, seeds=seeds, out=out, together=together, wordings=wordings
    )


def _longest_prompt(lm: LanguageModel, method: Method, problems: Sequence[ProbeTask]) -> int:
    """The pseudo tokens of a method, where it has the most of them."""
    texts = {text for problem in problems if (text := problem.template(method))}
    templates = [Template.parse(text).for_lm(lm.tokens, lm.kind)[0] for text in texts]
    return max(template.prompt_length(lm.tokens) for template in templates)


def identity_of(plan: Plan, words: Verbalizer) -> dict[str, Any]:
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
        "seeds": plan.seeds,
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


def how_many_together(
    lm: LanguageModel, encoder: str, *, length: int, batch_size: int, problems: int
) -> int:
    """How many prompts train together in half of the free memory: an encoder's parameters,
    gradients and two moments, and the LM's activations for a batch of each."""
    with torch.device("meta"):
        encoder_module = encoders.make(encoder, length, lm.width)
    parameters = sum(parameter.numel() for parameter in encoder_module.parameters())
    config = lm.model.config.get_text_config()
    hidden, layers = int(config.hidden_size), int(getattr(config, "num_hidden_layers", 12))
    tokens = 48 * batch_size
    each = (
        16 * parameters
        + 4 * tokens * (40 * hidden * layers)
        + 12 * batch_size * len(lm.tokens.tokenizer)
    )
    free = free_memory(lm.device)
    return max(1, min(problems, MOST_TOGETHER, int(free / 2 / each)))
