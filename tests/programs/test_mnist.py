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
AUTOENCODERS = ("autoencoder_small", "autoencoder_medium", "autoencoder_large")

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


def test_the_two_programs(tmp_path):
    """Three epochs of the small autoencoder, then the shipped classifier: 99 % of test digits."""
    saved, runs = str(tmp_path / "small.keras"), ["--runs-dir", str(tmp_path / "runs")]
    config = str(CONFIGURATION / "autoencoder_small.json")
    flags = ["-d", "mnist", "-c", config, "--epochs", "3", "--save", saved, *runs]
    assert autoencoder.main(flags) == 0
    assert metrics_of(tmp_path / "runs", "autoencoder_small")["val_mse"] < 0.002
    config = str(CONFIGURATION / "classifier_small_small.json")
    assert classification.main(["-d", "mnist", "-model", saved, "-c", config, *runs]) == 0
    metrics = metrics_of(tmp_path / "runs", "classifier_small_small")
    assert metrics["test_accuracy"] >= 0.99
    assert metrics["val_accuracy"] >= 0.985


@pytest.mark.parametrize("name", AUTOENCODERS)
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
