"""The same seed on the same machine gives the same result, to the last bit.

The programs run twice, each time as processes of their own with another PYTHONHASHSEED: order of
sets, the clock, process ids and what ran before must leave no trace.
"""

import os

import matplotlib.image
import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, read_json, run_python, write_dataset, write_json

from cae.records.saved_models import load_model

RANDOM = {  # everything that draws random numbers in training
    "augmentation": {"rotation": 20, "shift": 0.1, "zoom": 0.1},
    "validation_split": 0.2,
}
ENCODER = [["conv", 4, [3, 3]], ["batchNorm"], ["drop", 0.3], ["pool", [2, 2]]]
MEASURED = {"seconds", "images_per_second"}
TIMED_FIGURES = {"loss", "history"}  # show what was measured beside the curves of history.csv


def train_twice(folder, program, *args):
    """Two runs of a program, each in a process of its own; returns their folders."""
    # As many threads as a person has, not the one that tests are quicker with.
    threads = str(os.cpu_count())
    runs = []
    for hash_seed in ("1", "2"):
        runs_dir = folder / f"{program}-{hash_seed}"
        command = [f"{program}.py", *args, "--runs-dir", runs_dir]
        done = run_python(*command, OMP_NUM_THREADS=threads, PYTHONHASHSEED=hash_seed)
        assert done.returncode == 0, done.stderr
        runs += runs_dir.iterdir()
    return runs


@pytest.fixture(scope="module", params=["autoencoder", "classification"])
def runs(request, tmp_path_factory):
    """Two runs with everything random, on a subset of the images, with figures."""
    folder = tmp_path_factory.mktemp("twice")
    data = write_dataset(folder / "data", count=60)
    config = write_json(
        folder / "autoencoder.json", AUTOENCODER, RANDOM, encoder_layers=ENCODER, noise=0.2
    )
    flags = ["--limit", 50, "--epochs", 3]
    if request.param == "autoencoder":
        return train_twice(folder, "autoencoder", *data.unlabelled_test, "-c", config, *flags)
    layers = {"encoder_layers": ENCODER, "dense_layers": [["dense", 8], ["drop", 0.3]]}
    head = write_json(folder / "head.json", CLASSIFIER, RANDOM, layers)
    return train_twice(folder, "classification", *data.classifier, "-c", head, *flags)


@pytest.mark.slow
class TestSameSeedSameRun:
    """Weights, splits, subsets, augmentation, noise, dropout and figures."""

    def test_weights(self, runs):
        first, again = (load_model(run / "model.keras")[0].get_weights() for run in runs)
        assert all(map(np.array_equal, first, again))

    def test_history(self, runs):
        first, again = (np.genfromtxt(run / "history.csv", str, delimiter=",") for run in runs)
        timed = first[0] == "seconds"
        assert timed.sum() == 1
        assert len(first) > 3
        np.testing.assert_array_equal(first[:, ~timed], again[:, ~timed])

    def test_metrics(self, runs):
        first, again = (read_json(run / "metrics.json") for run in runs)
        assert set(first) > MEASURED
        for key in set(first) - MEASURED:
            assert first[key] == again[key], key

    def test_predictions_and_reports(self, runs):
        """Of classifiers, to the last printed digit."""
        first, again = runs
        for name in ("predictions.csv", "classification_report.txt", "config.json"):
            if (first / name).exists():
                assert (first / name).read_bytes() == (again / name).read_bytes(), name

    def test_figures(self, runs):
        """Chosen images and projections, pixel by pixel."""
        first, again = runs
        figures = [path for path in (first / "plots").iterdir() if path.stem not in TIMED_FIGURES]
        assert len(figures) >= 4 and first / "plots" / "augmentation.png" in figures
        for path in figures:
            other = matplotlib.image.imread(again / "plots" / path.name)
            assert np.array_equal(matplotlib.image.imread(path), other), path.name
