"""How long trainings will take, by hand for tiny ones."""

import pytest
from conftest import AUTOENCODER, CLASSIFIER, write_json

from cae.config.load import load_config, validate_config
from cae.config.study import load_stages
from cae.studies import workload

SHAPE = (8, 8, 1)


@pytest.fixture
def plain_seconds(monkeypatch):
    """A second a multiplication, and nothing beside."""
    monkeypatch.setattr(workload, "MULTIPLICATIONS_PER_SECOND", 1)
    monkeypatch.setattr(workload, "BESIDE_CONVOLUTIONS", 0)
    monkeypatch.setattr(workload, "IN_HEAD_ALONE", 1)
    monkeypatch.setattr(workload, "START_SECONDS", 0)


def test_multiplications_of_an_autoencoder():
    """Each output value takes kernel height x kernel width x channels of them.

    The convolution after upSample becomes one of 4x4 values for 2x2 pixels: 16 instead of 36.
    """
    config = validate_config(AUTOENCODER, "tiny", "autoencoder")
    encoder = 8 * 8 * 4 * (3 * 3 * 1)
    decoder = 8 * 8 * 4 * (3 * 3 * 4) * 16 / 36
    output = 8 * 8 * 1 * (3 * 3 * 4)
    assert workload.count_multiplications(config, SHAPE) == encoder + decoder + output


@pytest.mark.parametrize(
    ("size", "images_per_second"), [("small", 2751), ("medium", 1781), ("large", 799)]
)
def test_the_measured_speeds(size, images_per_second):
    """Those of docs/performance.md."""
    config = load_config(f"configuration/autoencoder_{size}.json", "autoencoder")
    seconds = workload.estimate_training(config, (28, 28, 1), 60_000) - workload.START_SECONDS
    assert 54_000 * 10 / seconds == pytest.approx(images_per_second, rel=0.05)


def test_the_phases_of_a_classifier(plain_seconds):
    """The encoder is trained in the second alone; 80 % of the images are trained on."""
    config = validate_config(
        {**CLASSIFIER, "dense_only_train_epochs": 3, "full_train_epochs": 2}, "head", "classifier"
    )
    encoder = validate_config(AUTOENCODER, "tiny", "autoencoder").encoder_layers
    seconds = workload.estimate_training(config, SHAPE, 10, encoder)
    assert seconds == 8 * (3 * 1 + 2 * (8 * 8 * 4 * 9))


def test_a_chain_with_a_screening(plain_seconds, tmp_path):
    """Of two configurations one goes on; classifiers count the encoders trained before."""
    write_json(tmp_path / "base.json", AUTOENCODER, epochs=10, validation_split=0)
    write_json(tmp_path / "other.json", AUTOENCODER, epochs=10, validation_split=0, batch_size=8)
    write_json(tmp_path / "head.json", CLASSIFIER, validation_split=0, dense_only_train_epochs=0)
    write_json(
        tmp_path / "encoders.json",
        name="encoders",
        kind="autoencoder",
        data={"dataset": "digits"},
        bases=[{"configuration": "base.json", "variations": ["other.json"]}],
        metric="val_mse",
        seeds=3,
        screening={"finalists": 1, "limit": 10, "epochs": 2},
    )
    write_json(
        tmp_path / "heads.json",
        name="heads",
        kind="classifier",
        data={"dataset": "digits"},
        bases=[{"configuration": "head.json", "encoder": {"study": "encoders", "base": "base"}}],
        metric="val_accuracy",
    )
    chain = {"name": "all", "kind": "chain", "stages": ["encoders.json", "heads.json"]}
    _, (encoders, heads) = load_stages(write_json(tmp_path / "chain.json", chain))
    config = load_config(tmp_path / "base.json", "autoencoder")
    each = workload.count_multiplications(config, SHAPE)
    screening, finals = 2 * 10 * 2 * each, 3 * 100 * 10 * each
    assert workload.estimate_study(encoders, SHAPE, 100) == pytest.approx(screening + finals)
    encoder = 8 * 8 * 4 * 9
    assert workload.estimate_study(heads, SHAPE, 100, [encoders, heads]) == 100 * encoder
    assert workload.estimate_study(heads, SHAPE, 100) == 0  # an encoder that is not known


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(40, "40 s"), (89, "89 s"), (100, "2 min"), (3599, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert workload.format_duration(seconds) == text
