"""Settings that are set for a training that would not read them are refused."""

import dataclasses
import re

import pytest

from ptune.errors import ConfigError
from ptune.settings import TrainOverrides
from ptune.tasks.resolved.task_form import TaskForm
from ptune.tasks.resolved.unread import check_asked, check_rates
from ptune.tasks.schema import TaskConfig
from ptune.training.methods import METHODS

LABELS = {"a": "great", "b": "bad"}
FILE = {
    "name": "t",
    "template": "{soft:2} {x} {mask}",
    "patterns": ["{x} is {mask}"],
    "labels": LABELS,
}
OF_LM = ("fine-tune", "manual+fine-tune", "pet", "ipet")
OF_BOTH = ("p-tuning+lm", "head")
UNTRAINED = ("manual", "regression", "next-sentence")
OF_PROMPT = sorted(METHODS.keys() - {*OF_LM, *OF_BOTH, *UNTRAINED})


def check(file=(), **options):
    """Set options over a task's file, and check what is asked."""
    raw = {**FILE, **dict(file)}
    check_asked(TaskConfig.model_validate(raw), TaskConfig.model_validate({**raw, **options}))


@pytest.mark.parametrize(
    ("methods", "name", "message"),
    [
        (OF_LM, "learning_rate", "a prompt or a head, which is not trained by {}.*lm_learning"),
        (OF_PROMPT, "lm_learning_rate", "the LM, which is not trained by {}.*learning_rate"),
        *((UNTRAINED, name, "and {} trains nothing") for name in ("steps", "learning_rate")),
    ],
)
def test_a_setting_of_training_that_the_method_does_not_read_is_refused(methods, name, message):
    for method in methods:
        train = {name: 3}
        with pytest.raises(
            ConfigError, match=rf"train\.{name} is .*{message.format(re.escape(method))}"
        ):
            check(method=method, train=train)
        check(method=method, train={"seed": 3})
        check({"train": train}, method=method)


@pytest.mark.parametrize("name", ["learning_rate", "lm_learning_rate"])
def test_a_rate_that_the_method_reads_is_taken(name):
    methods = OF_LM if name == "lm_learning_rate" else OF_PROMPT
    for method in (*methods, *OF_BOTH):
        check(method=method, train={name: 0.1})


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *(
            ({"method": "fine-tune", "reading": {"by": by}}, "learning_rate")
            for by in ("soft", "prototypes", "head")
        ),
        ({"method": "fine-tune", "tune": "both"}, "learning_rate"),
        ({"method": "p-tuning", "tune": "lm"}, "lm_learning_rate"),
        ({"method": "fine-tune", "tag": "x", "patterns": [], "template": ""}, "learning_rate"),
    ],
)
def test_what_a_task_trains_beside_its_method_has_its_rate(options, name):
    check(**options, train={name: 0.1})


@pytest.mark.parametrize(
    "options",
    [
        {"method": "pet", "pet": {"repetitions": 2, "distil": {"steps": 3}}},
        {"method": "ipet", "pet": {"growth": 3}},
        {"method": "manual", "combine": "vote", "patterns": ["{x} {mask}", "{x}: {mask}"]},
        {"combine": "vote", "prompts": 2},
        {"labels": {}, "patterns": [], "data": {"references": 2}},
        {"method": "head", "reading": {"by": "head"}},
        {"encoder": "mlp", "init": "vocabulary"},
        {"method": "optiprompt", "encoder": "mlp"},
        {"method": "p-tuning-v2", "prefix": {"init": "zeros", "hidden": 4, "gates": True}},
        {"continue_from": "p", "template": "", "patterns": [], "encoder": "mlp"},
        {"continue_from": "p", "template": "", "patterns": [], "combine": "vote", "prompts": 2},
        {"method": "auto", "init": "vocabulary"},  # what auto refuses, it refuses itself
    ],
)
def test_what_a_training_reads_is_taken(options):
    check(**options)


OF_NO_METHOD = [
    {"pet": {"repetitions": 3}},
    {"combine": "vote"},
    {"data": {"references": 2}},
    {"reading": {"by": "soft"}},
    {"encoder": "mlp", "init": "vocabulary"},
    {"prefix": {"init": "zeros", "hidden": 4}},
]


@pytest.mark.parametrize("settings", OF_NO_METHOD)
def test_what_stands_in_the_file_may_stay_and_what_is_set_back_is_not_set(settings):
    check(settings, method="regression")
    as_usual = {name: TaskConfig.model_fields[name].default for name in settings}
    check(settings, method="regression", **as_usual)
    with pytest.raises(ConfigError, match="leave it out"):
        check(method="regression", **settings)


def test_of_several_methods_one_has_to_read_a_setting():
    form = TaskForm(name="t")
    trainings = {name: (form, METHODS[name]) for name in ("manual", "p-tuning", "fine-tune")}
    rates = {"learning_rate": 0.1, "lm_learning_rate": 0.1}
    check_rates(TrainOverrides(**rates), list(trainings.values()))
    with pytest.raises(ConfigError, match="not trained by manual, p-tuning: leave it out"):
        check_rates(TrainOverrides(**rates), [trainings["manual"], trainings["p-tuning"]])
    soft = dataclasses.replace(form, reading=form.reading.model_copy(update={"by": "soft"}))
    check_rates(TrainOverrides(**rates), [(soft, METHODS["fine-tune"])])
    with pytest.raises(ConfigError, match="not trained by baselines"):
        check_rates(TrainOverrides(**rates), [])
    check_rates(TrainOverrides(steps=3), [trainings["manual"]])
