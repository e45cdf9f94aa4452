"""`--set KEY=VALUE`: any value of a configuration, checked like a file."""

import pytest

from cae.config.load import override, set_values, validate_config
from cae.errors import ConfigurationError

DOCUMENT = {
    "encoder_layers": [["conv", 8, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]]],
    "optimizer": ["adam", 0.001],
    "batch_size": 32,
    "epochs": 10,
}


@pytest.fixture
def config():
    return validate_config(DOCUMENT, "test", "autoencoder")


def test_values_by_key_by_item_and_in_objects_that_are_null(config):
    changed = set_values(
        config,
        ["l2=1e-5", "loss=mean_squared_error", "encoder_layers.0.1=16", "augmentation.rotation=10"],
    )
    assert changed.l2 == 1e-5
    assert changed.loss == "mean_squared_error"
    assert changed.model_dump(mode="json")["encoder_layers"][0] == ["conv", 16, [3, 3]]
    assert changed.augmentation.rotation == 10
    assert changed.batch_size == 32


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("batch_sise=3", "batch_size"),
        ("batch_size=0", "from 1 to 65536, got 0"),
        ("batch_size", "KEY=VALUE"),
        ("=3", "KEY=VALUE"),
        ("optimizer.2=1", "from 0 to 1"),
        ("l2.x=1", "0.0"),
    ],
)
def test_wrong_assignments_are_named(config, assignment, named):
    with pytest.raises(ConfigurationError, match="--set") as error:
        set_values(config, [assignment])
    assert named in str(error.value)


def test_a_learning_rate_keeps_the_optimizer(config):
    changed = override(config, learning_rate=0.5)
    assert changed.model_dump(mode="json")["optimizer"] == ["adam", 0.5]
    with pytest.raises(ConfigurationError, match=r"--learning-rate: .* got -1"):
        override(config, learning_rate=-1)
