"""What a file or the command line may say."""

import pytest

from ptune.errors import ConfigError
from ptune.experiments.options import ProbeConfig
from ptune.pretraining.options import PretrainConfig
from ptune.settings import DecodingConfig, TrainConfig, TrainOverrides
from ptune.tasks.schema import TaskConfig
from ptune.training.methods import METHODS


def test_overrides_replace_only_what_is_given():
    assert set(TrainOverrides.model_fields) == set(TrainConfig.model_fields)
    assert TrainOverrides(epochs=3).model_dump(exclude_none=True) == {"epochs": 3}
    settings = TrainConfig(learning_rate=0.5)
    assert settings.model_copy(
        update=TrainOverrides(epochs=3).model_dump(exclude_none=True)
    ) == TrainConfig(learning_rate=0.5, epochs=3)


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0},
        {"batch_size": 0},
        {"warmup": 1.0},
        {"decay": "cosine"},
        {"learning_rat": 1e-3},
    ],
)
def test_values_that_make_no_sense(values):
    for kind in (TrainConfig, TrainOverrides):
        with pytest.raises(ConfigError):
            kind(**values)


@pytest.mark.parametrize(
    "kind, values",
    [
        *(
            (PretrainConfig, {name: value})
            for name, value in {
                "seed": -1,
                "weights": [float("nan")],
                "hidden_size": 0,
                "layers": 0,
                "heads": 0,
                "learning_rate": float("nan"),
                "weight_decay": -1,
                "clip": -1,
                "save_minutes": float("inf"),
                "mask_share": 0,
                "held_out": -1,
                "warmup": 1,
                "length": 0,
            }.items()
        ),
        (TrainConfig, {"seed": 2**63}),
        (TrainConfig, {"accumulate": 10**9}),
        (TrainConfig, {"learning_rate": float("inf")}),
        (DecodingConfig, {"sample": True, "temperature": float("inf")}),
        (DecodingConfig, {"stop": ("",)}),
        (DecodingConfig, {"banned": ("",)}),
        (DecodingConfig, {"seed": 2**63}),
        (TaskConfig, {"prompts": 10**6}),
        (TaskConfig, {"max_length": 0}),
        (TaskConfig, {"max_length": True}),
        (DecodingConfig, {"max_new_tokens": True}),
        (DecodingConfig, {"temperature": True}),
        (TrainConfig, {"learning_rate": True}),
        (TrainOverrides, {"learning_rate": True}),
    ],
)
def test_values_that_no_run_can_have(kind, values):
    needed = {PretrainConfig: {"texts": ["a"], "out": "b"}, TaskConfig: {"name": "a"}}.get(kind, {})
    kind(**needed)
    with pytest.raises(ConfigError):
        kind(**needed, **values)


@pytest.mark.parametrize("kind", [TrainConfig, ProbeConfig, PretrainConfig])
def test_every_field_has_its_help(kind):
    assert all(field.description for field in kind.model_fields.values())


@pytest.mark.parametrize(
    "values, an_epoch, planned",
    [
        ({}, 3, 60),
        ({"steps": 250}, 3, 250),
        ({"epochs": 25}, 3, 75),
        ({"epochs": 25, "steps": 250}, 3, 75),
        ({"epochs": 25, "steps": 40}, 3, 40),
        ({"epochs": 10, "least_steps": 100}, 3, 100),
        ({"epochs": 10, "least_steps": 100}, 30, 300),
        ({"epochs": 10, "least_steps": 100, "steps": 80}, 3, 80),
    ],
)
def test_how_many_steps_are_planned(values, an_epoch, planned):
    assert TrainConfig(**values).planned_steps(an_epoch) == planned


@pytest.mark.parametrize(
    "values, planned",
    [
        ({"steps": 250}, 250),
        ({"epochs": 5}, 15),
        ({"epochs": 5, "steps": 250}, 15),
        ({"batch_size": 4}, 100),
    ],
)
def test_steps_and_epochs_that_are_given_are_obeyed(values, planned):
    """A preset has 25 epochs, which are 75 steps, and is lengthened to 100 where rows are few."""
    preset = TrainConfig(epochs=25, least_steps=100, patience=6, patience_steps=30)
    assert preset.replaced(TrainOverrides(**values).model_dump()).planned_steps(3) == planned
    assert (
        preset.replaced({"patience": 2}).patience_steps == 0
        and preset.replaced({"steps": 5}).patience_steps == 30
    )


def test_every_preset_counts_in_steps_where_rows_are_few():
    for method in (method for method in METHODS.values() if method.tune != "nothing"):
        assert method.train.steps or method.train.planned_steps(2) >= 100, method.name
        assert not method.train.patience or method.train.patience_steps >= 30, method.name
