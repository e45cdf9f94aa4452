"""The main job on real input: MNIST through both programs, and no collapse."""

import json
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

import autoencoder
import classification
from cae.config.load import load_config, override

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "configuration"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (ROOT / "data" / "mnist").is_dir(),
        reason="needs MNIST in data/mnist: run `python autoencoder.py -d mnist` once, "
        "or put the four files there (data/README.md)",
    ),
]


def metrics_of(runs_dir, name):
    (path,) = runs_dir.glob(f"*-{name}/metrics.json")
    return json.loads(path.read_text())


@pytest.mark.parametrize(
    ("limit", "mse", "accuracy"),
    [(6_000, 0.005, 0.95), pytest.param(60_000, 0.002, 0.99, marks=pytest.mark.long)],
)
def test_the_two_programs(tmp_path, limit, mse, accuracy):
    """Three epochs of the small autoencoder, then the shipped classifier on all test digits."""
    saved = str(tmp_path / "small.keras")
    flags = ["-d", "mnist", "--limit", str(limit), "--runs-dir", str(tmp_path / "runs")]
    config = str(CONFIGURATION / "autoencoder_small.json")
    assert autoencoder.main([*flags, "-c", config, "--epochs", "3", "--save", saved]) == 0
    assert metrics_of(tmp_path / "runs", "autoencoder_small")["val_mse"] < mse
    config = str(CONFIGURATION / "classifier_small_small.json")
    assert classification.main([*flags, "-model", saved, "-c", config]) == 0
    metrics = metrics_of(tmp_path / "runs", "classifier_small_small")
    assert metrics["test_images"] == 10_000 and metrics["test_accuracy"] >= accuracy


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("autoencoder_small", marks=pytest.mark.long),
        pytest.param("autoencoder_medium", marks=pytest.mark.long),
        "autoencoder_large",
    ],
)
def test_no_shipped_autoencoder_collapses(name):
    """One epoch on 6,000 images; the mean image would score 0.067, an all-black one 0.116.

    `benchmarks/checks.py collapse` does the same over ten seeds, and with every variation.
    """
    from cae.data.datasets import get_scaling, load_dataset
    from cae.training import build, predict, train

    images = load_dataset("mnist", limit=7000).images
    config = override(
        load_config(CONFIGURATION / f"{name}.json", "autoencoder"), epochs=1, validation_split=0
    )
    model = build.get_autoencoder(config, images.shape[1:])
    train.train_autoencoder(model, config, images[:6000])
    held_out, scaling = np.arange(6000, 7000), get_scaling(images)
    drawn = predict.predict(model, images, scaling, held_out)
    assert np.square(drawn - scaling.apply(images[held_out])).mean() < 0.02


@pytest.mark.long
def test_what_checkpoints_cost(tmp_path, monkeypatch):
    """Of epochs of seconds: the small autoencoder on 6,000 images, saved after each of four."""
    from cae.data.datasets import load_dataset
    from cae.records.checkpoint import Checkpoint
    from cae.training import build, callbacks, train

    seconds, save = [], callbacks.Checkpoints.save

    def timed(*args):
        start = time.perf_counter()
        save(*args)
        seconds.append(time.perf_counter() - start)

    monkeypatch.setattr(callbacks.Checkpoints, "save", timed)
    images = load_dataset("mnist", limit=6000).images
    config = load_config(CONFIGURATION / "autoencoder_small.json", "autoencoder")
    model = build.get_autoencoder(config, images.shape[1:])
    path = tmp_path / "checkpoint.npz"
    history = train.train_autoencoder(
        model, override(config, epochs=4), images, checkpoint=Checkpoint(path)
    )
    assert len(seconds) == 4
    typical = statistics.median(seconds)  # whatever else the machine does now and then
    share = len(seconds) * typical / history.metrics["seconds"]
    assert share < callbacks.CHECKPOINT_SHARE
