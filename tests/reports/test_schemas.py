"""results.json: its published schema, and how single results become a method's."""

import math
import pathlib

import pytest
from pydantic import ValidationError

from ptune.reports.schemas import Run, summarise
from ptune.reports.trial_results import FactsResult, Wording

ROOT = pathlib.Path(__file__).parents[2]


def single(method, problem, seed, hits, rows, trained=0, wordings=(), **values):
    return FactsResult(
        method=method,
        problem=problem,
        seed=seed,
        rows=rows,
        template="t",
        trained=trained,
        kept=9,
        wordings=wordings,
        **({"figures": {"p@1": hits}} | values),
    )


def test_macro_micro_and_spread():
    """Relations of 10 and 30 rows: macro counts relations alike, micro rows; the spread is over
    seeds."""
    wordings = [Wording(template="[X] is [Y]", dev=0.5, test=0.4)]
    single_results = [
        single("manual", "A", 0, 0.5, 10, wordings=wordings),
        single("manual", "B", 0, 0.1, 30),
        single("p-tuning", "A", 0, 0.6, 10, 100),
        single("p-tuning", "A", 1, 0.8, 10, 100),
        single("p-tuning", "B", 0, 0.2, 30, 100),
        single("p-tuning", "B", 1, 0.4, 30, 100),
    ]
    results = summarise(
        single_results,
        titles={"manual": "M", "p-tuning": "P", "never-run": "N"},
        tuned=set(),
        majority={"A": 0.1},
        dropped={"A": 2},
        settings={},
        versions={},
    )
    manual, tuned = results.methods["manual"], results.methods["p-tuning"]
    assert tuned.by_seed["p@1"] == pytest.approx([0.4, 0.6])
    assert tuned.relations["A"].by_seed["p@1"] == [0.6, 0.8]
    assert list(results.methods) == ["manual", "p-tuning"]
    assert manual.model_extra["p@1"] == pytest.approx(0.3) and manual.micro["p@1"] == pytest.approx(
        0.2
    )
    assert tuned.model_extra["p@1"] == pytest.approx(0.5) and tuned.micro["p@1"] == pytest.approx(
        0.4
    )
    assert tuned.deviation["p@1"] == pytest.approx(0.1 * 2**0.5) and manual.deviation["p@1"] == 0
    assert tuned.relations["A"].model_extra["p@1"] == pytest.approx(0.7) and tuned.relations[
        "A"
    ].deviation["p@1"] == pytest.approx(0.02**0.5)
    assert (manual.kept_parameters, tuned.trained_parameters, tuned.seeds) == (9, 100, 2)
    assert results.wordings == {"A": wordings}


def lost(method, problem, seed, rows=10):
    return single(method, problem, seed, 0.0, rows, figures={}, diverged=True)


def test_what_diverged_has_no_part_in_a_mean():
    """A relation's mean is over the seeds that have figures; a method's over the seeds in which
    every relation has."""
    single_results = [
        single("m", "A", 0, 0.5, 10),
        single("m", "A", 1, 0.7, 10),
        single("m", "B", 0, 0.1, 30),
        lost("m", "B", 1, 30),
        lost("n", "A", 0),
        lost("n", "B", 0, 30),
        single("k", "A", 0, 0.4, 10, diverged=True),
    ]
    results = summarise(
        single_results,
        titles={"m": "M", "n": "N", "k": "K"},
        tuned=set(),
        majority={},
        dropped={},
        settings={},
        versions={},
    )
    some, none, kept = (results.methods[name] for name in "mnk")
    assert (
        some.model_extra == {"p@1": pytest.approx(0.3)}
        and some.micro == {"p@1": pytest.approx(0.2)}
        and (some.diverged, some.lost) == (1, 1)
    )
    assert some.relations["A"].model_extra["p@1"] == pytest.approx(0.6) and some.relations[
        "B"
    ].model_extra == {"p@1": 0.1}
    assert (some.relations["A"].lost, some.relations["B"].lost) == (0, 1)
    assert none.model_extra == none.micro == none.relations["A"].model_extra == {} and (
        none.diverged,
        none.lost,
    ) == (2, 2)
    assert kept.model_extra == {"p@1": 0.4} and (kept.diverged, kept.lost) == (1, 0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_form_holds_a_number_that_is_not_finite(value):
    with pytest.raises(ValidationError, match="finite"):
        summarise(
            [single("m", "A", 0, value, 10)],
            titles={"m": "M"},
            tuned=set(),
            majority={},
            dropped={},
            settings={},
            versions={},
        )
    with pytest.raises(ValidationError, match="finite"):
        Run(
            name="t",
            method="m",
            title="M",
            template="",
            lm="",
            lm_parameters=1,
            trained_parameters=0,
            kept_parameters=0,
            rows={},
            figures={"accuracy": value},
        )
