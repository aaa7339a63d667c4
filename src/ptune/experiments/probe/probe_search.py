"""Prompts of facts that a program looks for: mined and listed templates and their ensembles,
AutoPrompt, PEZ, and soft prompts that become words. They are chosen on train and dev rows, and
tested like the others."""

import itertools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ptune.base.file_names import file_name
from ptune.errors import ConfigError, nearest
from ptune.experiments.options import ProbeConfig
from ptune.experiments.probe.probe_trials import Plan, ProbeTask, Searches, answers, judged
from ptune.lm.language_model import LanguageModel
from ptune.model.prompt_model import PromptModel, Task
from ptune.reports.search_results import CandidateScore
from ptune.reports.trial_results import FactsResult
from ptune.runs import identity
from ptune.runs.trials import Trial
from ptune.search.common.running_search import Budget, RunningSearch, ranked
from ptune.search.common.searched_task import SearchedTask, few
from ptune.search.templates import ensembles, mining, paraphrases
from ptune.search.templates.corpus import sentences
from ptune.search.tokens import autoprompt, pez, projection
from ptune.tasks.layouts import lama
from ptune.template.language import Template
from ptune.training.methods import Method

TEMPLATE = "{subject} {soft:5} {mask} ."  # AutoPrompt's for facts: subject, trigger tokens, answer
CANDIDATES = 10  # tokens that are evaluated exactly at a step
RATE = 0.1  # of PEZ
KEPT = 10  # templates that are kept of a search, and answer together
COLUMNS = {
    "mine": {"mined": "Mined", "mined-ensemble": "Mined, ensemble"},
    "paraphrase": {
        "paraphrased": "Para- phrased",
        "paraphrased-ensemble": "Para- phrases, ensemble",
    },
    "gradient": {"autoprompt": "Auto- Prompt"},
    "pez": {"pez": "PEZ"},
    "project": {"projected": "Soft, as words"},
}
"""For each kind of search its columns: their names and titles."""
TEXTS = ("mine", "paraphrase")  # searches that begin with a hand-written prompt


def searches_of(
    names: Sequence[str],
    *,
    text: str,
    corpus: Sequence[pathlib.Path],
    facts: str,
    rows: int,
    steps: int,
    budget: int | None,
) -> Searches | None:
    """The searches of a probe; None where there are none.

    Args:
        names: of the relations.
        text: the kinds of search, with commas between, or "all".
        corpus: texts to mine; the evidence that the facts bring along without any.
        rows, steps, budget: of each search.

    Raises:
        ConfigError: a kind of search is unknown, there is nothing to mine from, or a setting of
            searches stands without one.
    """
    text = ",".join(COLUMNS) if text == "all" else text
    kinds = [part.strip() for part in text.split(",") if part.strip()]
    if unknown := next((kind for kind in kinds if kind not in COLUMNS), None):
        raise ConfigError(f"There is no search {unknown!r}. {nearest(unknown, COLUMNS)}")
    if not kinds:
        if corpus:
            raise ConfigError("--corpus is of --search mine: name that too, or leave it out.")
        for name, value in {"rows": rows, "steps": steps, "budget": budget}.items():
            if value != ProbeConfig.model_fields[f"search_{name}"].default:
                raise ConfigError(
                    f"--search-{name} is of a search: name one by --search, or leave it out."
                )
        return None
    columns = {
        kind: [Method(name, title, "", "nothing") for name, title in COLUMNS[kind].items()]
        for kind in kinds
    }
    files = {name: list(corpus) or [_evidence(facts, name)] for name in names}
    all_files = itertools.chain.from_iterable(files.values())
    lacking = next((file for file in all_files if not file.exists()), None)
    if "mine" in kinds and lacking is not None:
        raise ConfigError(
            f"--search mine reads sentences, and there is no {lacking}: name texts with --corpus."
        )
    return Searches(
        columns=columns,
        rows=rows,
        steps=steps,
        budget=budget,
        corpus=corpus,
        sentences=lambda name: sentences(files[name]),
    )


def _evidence(facts: str, name: str) -> pathlib.Path:
    """LAMA's train rows of a relation, which have sentences."""
    return lama.folder(facts) / "original" / name / "train.jsonl"


def identity_of(searches: Searches) -> dict[str, Any]:
    """All that decides what the searches choose."""
    return {
        "kinds": list(searches.columns),
        "corpus": [identity.of_file(file) for file in searches.corpus],
        "rows": searches.rows,
        "steps": searches.steps,
        "budget": searches.budget,
    }


def trials_of(plan: Plan) -> list[Trial]:
    """Every search of every relation: the columns of a search share a bank."""
    if plan.searches is None:
        return []
    trials = []
    for kind, methods in plan.searches.columns.items():
        problems = [problem for problem in plan.problems if problem.manual or kind not in TEXTS]
        trials += [
            _trial(plan, method, problem, kind) for problem in problems for method in methods
        ]
    return trials


def _trial(plan: Plan, method: Method, problem: ProbeTask, kind: str) -> Trial:
    whole = plan.identity
    settings = {
        "lm": identity.hashed(whole.get("lm", {})),
        "allowed answers": whole.get("allowed answers"),
        "search": whole.get("searches"),
        "facts": whole.get("facts of", {}).get(problem.name),
    }
    return Trial(
        method=method.name,
        task=problem.name,
        seed=0,
        shots=0,
        settings=settings,
        file=f"results/{file_name(method.name)}/{file_name(problem.name, 0)}.json",
        scratch=f"searches/{file_name(kind, problem.name)}",
        bank=("search", kind, problem.name),
    )


def is_search(trial: Trial) -> bool:
    """Whether a trial is a column of a search."""
    return isinstance(trial.bank, tuple) and trial.bank[0] == "search"


@dataclass(frozen=True)
class SearchRunner:
    """Runs the searches of a probe, and tests what they choose."""

    plan: Plan
    report: Callable[[str], None]

    def run(self, trials: Sequence[Trial], scratch: pathlib.Path | None) -> Iterator[FactsResult]:
        """Search the prompts of a relation, and test each column on its test rows."""
        assert isinstance(trials[0].bank, tuple)
        kind, plan = trials[0].bank[1], self.plan
        problem = plan.problem(trials[0])
        task = searched_task(plan.lm, problem, self._searches.rows)
        running = RunningSearch(
            by=kind,
            task=task,
            keep=KEPT,
            seed=0,
            budget=Budget(self._searches.budget),
            report=lambda line: self.report(f"  {problem.name}, {kind}: {line}"),
            folder=scratch,
            settings=trials[0].settings,
        )
        kept, _ = ranked(running, self._proposed(kind, problem, running))
        yield _tested(plan.lm, problem, trials[0], kept[0])
        if len(trials) > 1:
            yield _tested_together(problem, trials[1], task, kept)

    @property
    def _searches(self) -> Searches:
        assert self.plan.searches is not None
        return self.plan.searches

    def _proposed(
        self, kind: str, problem: ProbeTask, running: RunningSearch
    ) -> Sequence[CandidateScore]:
        """The candidates of one kind of search for a relation."""
        steps = self._searches.steps
        try:
            if kind == "mine":
                return mining.propose(running, self._searches.sentences(problem.name))
            if kind == "paraphrase":
                return paraphrases.propose(running, problem.wordings)
        except ConfigError as error:
            running.report(f"{error} The hand-written prompt stands in its place.")
            return [CandidateScore(template=text, source="manual") for text in task_texts(problem)]
        if kind == "gradient":
            settings = autoprompt.Settings(steps, CANDIDATES)
            return autoprompt.propose(running, TEMPLATE, settings, whole_words=False)
        if kind == "pez":
            return pez.propose(running, TEMPLATE, steps=steps, rate=RATE, whole_words=False)
        return projection.propose(
            running, TEMPLATE, steps=steps, near=CANDIDATES, whole_words=False
        )


def task_texts(problem: ProbeTask) -> list[str]:
    """The hand-written prompt of a relation in the template language, where there is one."""
    if problem.manual is None:
        return []
    return [problem.manual.replace("[X]", "{subject}").replace("[Y]", "{mask}")]


def searched_task(lm: LanguageModel, problem: ProbeTask, rows: int) -> SearchedTask:
    """A relation as a search takes it: without its test rows."""

    def asked(candidate: CandidateScore) -> Task:
        template = Template.parse(candidate.template)
        verbalizer, target = problem.verbalizer, problem.target
        return Task(problem.name, template, verbalizer, target, loss=problem.loss)

    return SearchedTask(
        name=problem.name,
        lm=lm,
        patterns=task_texts(problem),
        template=TEMPLATE,
        words={},
        target=problem.target,
        train=few(problem.train, rows, 0, "train"),
        dev=few(problem.dev, rows, 0, "dev"),
        metric=problem.main,
        asked=asked,
        figure=lambda scores, examples: problem.score(scores, examples)[problem.main],
        field="subject",
        all_train=problem.train,
    )


def _tested(
    lm: LanguageModel, problem: ProbeTask, trial: Trial, best: CandidateScore
) -> FactsResult:
    """The figures of one template on the test rows."""
    model = PromptModel(lm)
    number = model.add(
        Task(
            problem.name,
            Template.parse(best.template),
            problem.verbalizer,
            problem.target,
            loss=problem.loss,
        )
    )
    return FactsResult(
        method=trial.method,
        problem=trial.task,
        seed=trial.seed,
        template=best.template,
        dropped=model.tasks[number].dropped,
        rows=len(problem.test),
        **answers(model, problem, number),
    )


def _tested_together(
    problem: ProbeTask, trial: Trial, task: SearchedTask, kept: Sequence[CandidateScore]
) -> FactsResult:
    """The figures of the kept templates with weights that are learned on train rows."""
    train = ensembles.answers_of(task, kept, task.train)
    weights = ensembles.learned_weights(train.log_probs, train.right)
    scores, examples = ensembles.answered(task, kept, problem.test, weights)
    order = weights.argsort(descending=True).tolist()
    listed = ", ".join(f"{weights[n]:.2f} {kept[n].template!r}" for n in order[:3])
    return FactsResult(
        method=trial.method,
        problem=trial.task,
        seed=trial.seed,
        template=f"{len(kept)} templates: {listed}{', ...' if len(kept) > 3 else ''}",
        rows=len(problem.test),
        **judged(problem, scores, examples),
    )
