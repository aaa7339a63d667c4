"""What a file or the command line may say."""
import pytest
from pydantic import ValidationError

from ptune.config import PretrainConfig, ProbeConfig, TrainConfig, TrainOverrides


def test_overrides_replace_only_what_is_given():
    assert set(TrainOverrides.model_fields) == set(TrainConfig.model_fields)
    assert TrainOverrides(epochs=3).model_dump(exclude_none=True) == {"epochs": 3}
    own = TrainConfig(learning_rate=0.5)
    assert own.model_copy(update=TrainOverrides(epochs=3).model_dump(exclude_none=True)) == TrainConfig(learning_rate=0.5, epochs=3)


@pytest.mark.parametrize("values", [{"learning_rate": 0}, {"batch_size": 0}, {"warmup": 1.0}, {"decay": "cosine"}, {"learning_rat": 1e-3}])
def test_values_that_make_no_sense(values):
    for kind in (TrainConfig, TrainOverrides):
        with pytest.raises(ValidationError):
            kind(**values)


@pytest.mark.parametrize("kind", [TrainConfig, ProbeConfig, PretrainConfig])
def test_every_field_has_its_help(kind):
    assert all(field.description for field in kind.model_fields.values())
