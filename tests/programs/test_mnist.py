"""The main job on real input: MNIST through both programs, and no collapse."""

import statistics
import time

import numpy as np
import pytest
from conftest import ROOT, read_json, write_json

import autoencoder
import classification
import experiments
from cae.config.choices import RECIPE, WITHOUT_UNLABELLED
from cae.config.load import load_config, override
from cae.studies.label_results import read_results

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
    return read_json(path)


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


def test_a_recipe_learns_from_images_without_labels(tmp_path):
    """With 100 labels of 6,000 digits it errs a third less often than without the other 5,900.

    To take a minute, the shipped recipe gets three convolutions instead of five, half the filters,
    and 3 and 16 epochs.
    """
    recipe = read_json(CONFIGURATION / "recipes" / "few_labels_100.json")
    autoencoder_half, classifier_half = recipe["autoencoder"], recipe["classifier"]
    autoencoder_half |= {"epochs": 3, "min_steps": 0, "batch_size": 64}
    encoder_layers = autoencoder_half["encoder_layers"]
    del encoder_layers[10:12], encoder_layers[5:7]  # the second of two with a batchNorm each
    for layer in encoder_layers + autoencoder_half["decoder_layers"]:
        if layer[0] == "conv":
            layer[1] //= 2
    classifier_half |= {"full_train_epochs": 16, "min_steps": 0}
    path = write_json(tmp_path / "recipe.json", recipe)
    command = ["label-efficiency", "-d", "mnist", "--limit", "6000", "--counts", "10"]
    command += ["--seeds", "1", "--recipes", path, "--methods", RECIPE, WITHOUT_UNLABELLED]
    assert experiments.main([*command, "--name", "few", "--runs-dir", str(tmp_path)]) == 0
    results = read_results(tmp_path / "few" / "results.csv")
    error = {result.method: result.test_error for result in results}
    assert error[RECIPE] < error[WITHOUT_UNLABELLED] * 2 / 3


LONG = [pytest.param(f"autoencoder_{size}", marks=pytest.mark.long) for size in ("small", "medium")]


@pytest.mark.parametrize("name", [*LONG, "autoencoder_large"])
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
