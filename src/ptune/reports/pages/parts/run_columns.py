"""Runs of ptune train gathered into the columns of a table, with their figures as text."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ptune.metrics.intervals import Interval
from ptune.metrics.labels import BASELINES, BASELINES_OF_WORDS, deviation, mean
from ptune.metrics.texts import METRICS
from ptune.metrics.trust import TRUST
from ptune.reports.pages.design import MARK, Score, count, interval, near_best
from ptune.reports.schemas import Run
from ptune.settings import SIDE

TITLES = {
    "cider": "CIDEr",
    "chrf": "chrF",
    "ter": "TER ↓",
    "brier": "Brier score ↓",
    "ece": "calibration error ↓",
}
LOWER_IS_BETTER = ("ter", *TRUST)
# Settings in which the runs of one column may differ.
FREE_SETTINGS = {"seed", "out", "resume", "device", *SIDE}
T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A run, or several that differ in the seed alone."""

    label: str
    runs: Sequence[Run]

    @property
    def rows(self) -> int:
        """How many rows it was trained on."""
        return self.runs[0].rows.get("train", 0)

    @property
    def diverged(self) -> bool:
        """Whether the training of one of its runs diverged."""
        return any(run.diverged or run.lost for run in self.runs)

    def values(self, name: str, part: str = "") -> list[float]:
        """A figure, on all test rows or on a part of them, of each run that has it."""
        figures = [run.parts.get(part, {}) if part else run.figures for run in self.runs]
        return [by_name[name] for by_name in figures if name in by_name]

    def score(self, name: str, part: str = "") -> Score | None:
        """A figure's mean and deviation over seeds, or None where no run has it."""
        return score_of(self.label, self.values(name, part))

    def interval(self, name: str) -> Interval | None:
        """The ends between which a figure on all test rows lies in 95 of 100 redraws of them, as
        means over its runs; None where a run has none."""
        ends = [run.intervals[name] for run in self.runs if name in run.intervals]
        if len(ends) < len(self.runs):
            return None
        return mean([low for low, _ in ends]), mean([high for _, high in ends])


def score_of(label: str, values: Sequence[float]) -> Score | None:
    """The mean and the deviation of the values of several seeds."""
    return Score(label, mean(values), deviation(values), len(values)) if values else None


@dataclass(frozen=True)
class TextCell:
    """A figure as text, whether it is the best or within one deviation of it, and its interval over
    test rows, "" where it has none."""

    text: str
    best: bool
    interval: str = ""


def columns_of(runs: Sequence[Run]) -> list[Column]:
    """Gather the runs that differ in the seed alone, and label the columns."""
    groups = gathered(runs, lambda run: (run.title, _facets(run)), seed_of)
    return [Column(label, group) for label, group in zip(labels_of(groups), groups)]


def seed_of(run: Run) -> int:
    """The seed of a run's training; 0 where none was set."""
    train = run.settings.get("train")
    return train.get("seed") or 0 if isinstance(train, dict) else 0


def gathered(
    items: Sequence[T], same: Callable[[T], Any], apart: Callable[[T], Any]
) -> list[list[T]]:
    """Items that are the same in one thing, in lists in which no two are the same in the other."""
    groups: list[list[T]] = []
    for item in items:
        for group in groups:
            if same(group[0]) == same(item) and apart(item) not in map(apart, group):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _facets(run: Run) -> dict[str, str]:
    """What may tell runs of one title apart, the seed aside: the words for a label, the most
    telling first."""
    facets = {
        "name": run.name,
        "lm": run.lm,
        "rows": f"{run.rows.get('train', 0):,} rows",
        "template": run.template,
    }
    return facets | {key: text for key, text in _settings(run.settings) if key not in facets}


def _settings(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{before}{key}.")
        elif key not in FREE_SETTINGS:
            yield before + key, f"{key.replace('_', ' ')} {'default' if value is None else value}"


def labels_of(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Titles, and where these are alike, what tells the groups apart."""
    labels = [group[0].title for group in groups]
    facets = [_shared_facets(group) for group in groups]
    for key in dict.fromkeys(key for group_facets in facets for key in group_facets):
        labels = _longer_labels(labels, facets, key)
    return [
        f"{label} ({labels[:number].count(label) + 1})" if label in labels[:number] else label
        for number, label in enumerate(labels)
    ]


def _shared_facets(group: Sequence[Run]) -> dict[str, str]:
    """The facets that all runs of a group have alike."""
    first, *others = [_facets(run) for run in group]
    return {
        key: text
        for key, text in first.items()
        if all(facets.get(key) == text for facets in others)
    }


def _longer_labels(
    labels: Sequence[str], facets: Sequence[Mapping[str, str]], key: str
) -> list[str]:
    """The labels, with one facet added where groups of the same label differ in it."""
    texts_of_label: dict[str, set[str | None]] = {}
    for label, group_facets in zip(labels, facets):
        texts_of_label.setdefault(label, set()).add(group_facets.get(key))
    return [
        f"{label}, {group_facets[key]}"
        if len(texts_of_label[label]) > 1 and key in group_facets
        else label
        for label, group_facets in zip(labels, facets)
    ]


def figures_of(columns: Sequence[Column]) -> dict[str, dict[str, list[TextCell]]]:
    """The figures on all test rows (under "") and on each part: by title, a cell for each
    column."""
    return {
        part: {title_of(name): _cells(columns, name, part) for name in names}
        for part, names in names_of(columns).items()
    }


def names_of(columns: Sequence[Column]) -> dict[str, list[str]]:
    """The names of the figures on all test rows (under "") and on each part."""
    names: dict[str, dict[str, None]] = {"": {}}
    for run in (run for column in columns for run in column.runs):
        for part, figures in {"": run.figures, **run.parts}.items():
            names.setdefault(part, {}).update(dict.fromkeys(figures))
    return {part: list(of_part) for part, of_part in names.items()}


def title_of(name: str) -> str:
    """A figure's name as it is shown."""
    return TITLES.get(name, name.upper() if name in METRICS else name)


def digits_of(name: str) -> int:
    """How many digits behind the point a figure is shown with."""
    return 2 if name in METRICS else 3


def main_figure(columns: Sequence[Column]) -> str:
    """The figure that plots and the first sentence show; "" where there is none."""
    names = names_of(columns)[""]
    return next((name for name in ("bleu", "rouge-l", *names) if name in names), "")


def _cells(columns: Sequence[Column], name: str, part: str) -> list[TextCell]:
    """A figure of each column; within each task the best are marked, where there are several."""
    digits = digits_of(name)
    scores = [column.score(name, part) for column in columns]
    cells = []
    for number, (column, score) in enumerate(zip(columns, scores)):
        text = score.text(digits) if score else "-"
        text += MARK if score and column.diverged else ""
        ends = column.interval(name) if not part else None
        cells.append(
            TextCell(text, _is_best(columns, scores, number, name), interval(ends) if ends else "")
        )
    return cells


def _is_best(
    columns: Sequence[Column], scores: Sequence[Score | None], number: int, name: str
) -> bool:
    """Whether a column is among the best of its task, and not the only one with a score."""
    task = columns[number].runs[0].name
    rivals = [
        score if column.runs[0].name == task else None for column, score in zip(columns, scores)
    ]
    if sum(score is not None for score in rivals) < 2:
        return False
    return near_best(rivals, digits_of(name), name in LOWER_IS_BETTER)[number]


def baselines_of(columns: Sequence[Column]) -> dict[str, list[Score | None]]:
    """What each column's user would get without prompts on the same rows: by the baseline's title,
    the first figure for each column."""
    scores: dict[str, list[Score | None]] = {}
    for name, title in (BASELINES | BASELINES_OF_WORDS).items():
        of_columns = [score_of(title, _baseline_values(column, name)) for column in columns]
        if any(of_columns):
            scores[title] = of_columns
    return scores


def _baseline_values(column: Column, name: str) -> list[float]:
    return [
        run.baselines[name][next(iter(run.figures))]
        for run in column.runs
        if run.figures and run.baselines.get(name)
    ]


def dev_scores_of(columns: Sequence[Column]) -> dict[str, list[Score | None]]:
    """Of runs without figures on test rows the score on dev rows, by its name: the mean over
    prompts of what the state that was kept reached."""
    runs = itertools.chain.from_iterable(column.runs for column in columns)
    names = dict.fromkeys(run.dev_score for run in runs if not run.figures and run.best)
    return {
        name: [score_of(column.label, _dev_values(column, name)) for column in columns]
        for name in names
    }


def _dev_values(column: Column, name: str) -> list[float]:
    values = []
    for run in column.runs:
        scores = [best["dev"] for best in run.best.values() if "dev" in best]
        if scores and not run.figures and run.dev_score == name:
            values.append(mean(scores))
    return values


def shown(score: Score | None, digits: int = 3) -> str:
    """A score as a cell of a table shows it."""
    return score.text(digits) if score else "-"


def sizes_of(columns: Sequence[Column]) -> dict[str, list[str]]:
    """What each column took: seeds (where there are several), parameters, rows, time."""
    sizes: dict[str, list[str]] = {}
    first_runs = [column.runs[0] for column in columns]
    if any(len(column.runs) > 1 for column in columns):
        sizes["seeds"] = [str(len(column.runs)) for column in columns]
    sizes["trained parameters"] = [count(run.trained_parameters) for run in first_runs]
    sizes["kept parameters"] = [count(run.kept_parameters) for run in first_runs]
    sizes["training rows"] = [f"{column.rows:,}" for column in columns]
    test_rows = [run.rows.get("test", 0) for run in first_runs]
    if len(set(test_rows)) > 1:
        sizes["test rows"] = [f"{rows:,}" for rows in test_rows]
    sizes["minutes of training"] = [shown(_minutes(column), 1) for column in columns]
    return sizes


def _minutes(column: Column) -> Score | None:
    """The minutes of training of a column's runs."""
    minutes = [run.seconds["train"] / 60 for run in column.runs if "train" in run.seconds]
    return score_of(column.label, minutes)
