"""What is tried of a probe before its first training: that the LM can read the subjects, that every
row fits, and each method on two rows."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ptune.experiments.probe.probe_trials import (
    Plan,
    ProbeTask,
    add_problem,
    original_weights,
    run_bank,
    trials_of,
)
from ptune.model.prompt_model import PromptModel
from ptune.model.rows.examples import Shortening
from ptune.reports.trial_results import FactsResult
from ptune.runs.trials import JsonResults, run_trials
from ptune.runs.without_trace import without_trace
from ptune.survey.text_checks import unknown_text
from ptune.training import rehearsal
from ptune.training.methods import Method

TRAINED_SPLITS, SCORED_SPLITS = ("train", "dev", "test"), ("test",)


def check_subjects(plan: Plan, allow: bool, report: Callable[[str], None]) -> None:
    """Report how much of the subjects the LM cannot read.

    Args:
        allow: whether they are asked for whatever the share is.

    Raises:
        DataError: it is more than a tenth, which is not allowed.
    """
    subjects = [
        (
            f"The subjects of the {split} rows",
            [str(row["subject"]) for problem in plan.problems for row in getattr(problem, split)],
        )
        for split in TRAINED_SPLITS
    ]
    for sentence in unknown_text.check(subjects, plan.lm.tokens, allow):
        report(sentence)


def check_rows(plan: Plan, report: Callable[[str], None]) -> None:
    """Tokenise every row of every relation as each method asks it, so that a row that does not fit
    is refused before the first training. What is shortened is reported once for each split.

    Raises:
        PtuneError: a row does not fit.
    """
    reported: set[str] = set()
    for method in plan.methods:
        splits = TRAINED_SPLITS if method.tune != "nothing" else SCORED_SPLITS
        counts = {split: Shortening() for split in splits}
        limits = [_try_rows(plan, method, problem, counts) for problem in _asked(plan, method)]
        for split, shortening in counts.items():
            sentence = shortening.sentence(f"{split} rows", min(filter(None, limits), default=None))
            if sentence and split not in reported:
                reported.add(split)
                report(sentence)


def _try_rows(
    plan: Plan, method: Method, problem: ProbeTask, counts: dict[str, Shortening]
) -> int | None:
    """Tokenise a relation's rows, and count those that are shortened; return how many tokens an
    input may have."""
    model = PromptModel(plan.lm)
    task = add_problem(model, replace(method, init="random"), problem, method.train.seed)
    for split, shortening in counts.items():
        rehearsal.try_rows(model, task, getattr(problem, split), shortening=shortening)
    return model.limit(task)


def _asked(plan: Plan, method: Method) -> Sequence[ProbeTask]:
    """The relations that a method asks."""
    return [problem for problem in plan.problems if problem.template(method)]


def rehearse(plan: Plan) -> None:
    """Run each method on two rows and for one step, by the very code that runs the trials, and keep
    nothing: prompts together for the first relations, the LM for the first one.

    Raises:
        PtuneError: something does not fit together.
    """
    for method in plan.methods:
        most = rehearsal.MOST_TASKS if method.tune == "prompt" else 1
        brief = replace(
            plan,
            methods=[replace(method, train=rehearsal.short(method.train))],
            problems=[_brief(problem) for problem in _asked(plan, method)[:most]],
            seeds=1,
            out=None,
        )
        original = original_weights(brief)
        with without_trace(plan.lm, tuned=False):
            run_trials(
                trials_of(brief),
                None,
                run=partial(run_bank, brief, original),
                results=JsonResults(FactsResult),
            )


def _brief(problem: ProbeTask) -> ProbeTask:
    """A relation with two rows in each split."""
    rows = {split: getattr(problem, split)[: rehearsal.ROWS] for split in TRAINED_SPLITS}
    return replace(problem, **rows)
