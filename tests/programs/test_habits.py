"""Data and habits that tutorials do not have: tiny, constant, odd-sized or sorted sets."""

import csv

import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, run_program, write_json

from cae.data import idx


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


class TestConstantImages:
    def warnings(self, tmp_path, runs, images):
        idx.write_idx(tmp_path / "images", images)
        config = write_json(tmp_path / "tiny.json", AUTOENCODER)
        flags = ["-d", tmp_path / "images", "-c", config, "--no-plots"]
        finished = run_program("autoencoder", *flags, runs_dir=runs)
        assert finished.exit_code == 0
        return [line for line in finished.err.splitlines() if line.startswith("warning: ")]

    @pytest.mark.parametrize("pixel", [0, 7, 255])
    def test_nothing_to_learn_is_not_a_collapse(self, tmp_path, runs, pixel):
        (warning,) = self.warnings(tmp_path, runs, np.full((20, 8, 8), pixel, np.uint8))
        assert "Nothing to learn" in warning and "collapse" not in warning

    def test_constant_images_of_different_grays_are_something_to_learn(self, tmp_path, runs):
        images = np.full((20, 8, 8), 0, np.uint8) + np.arange(0, 200, 10)[:, None, None]
        warnings = self.warnings(tmp_path, runs, images.astype(np.uint8))
        assert not any("Nothing to learn" in warning for warning in warnings)


class TestOneImagePerClass:
    def test_trains_without_validation_and_keeps_the_lowest_loss(self, tmp_path, runs):
        """Ten images of ten classes: all are trained on."""
        images = np.random.default_rng(0).integers(0, 256, (10, 8, 8)).astype(np.uint8)
        idx.write_idx(tmp_path / "images", images)
        idx.write_idx(tmp_path / "labels", np.arange(10).astype(np.uint8))
        layers = [["conv", 4, [3, 3]], ["pool", [2, 2]]]
        config = write_json(
            tmp_path / "head.json", CLASSIFIER, encoder_layers=layers, full_train_epochs=4
        )
        flags = ["-d", tmp_path / "images", "-dl", tmp_path / "labels", "-c", config]
        finished = run_program("classification", *flags, "--no-plots", runs_dir=runs)
        assert finished.exit_code == 0
        assert "10 for training, 0 for validation" in finished.out
        assert finished.err.count("No validation images") == 1
        rows = read_rows(finished.run / "history.csv")
        losses = [float(row["loss"]) for row in rows]
        assert finished.metrics["best_epoch"] == 1 + int(np.argmin(losses))
        assert not any(key.startswith("val_") for key in rows[0])

    def test_a_single_image(self, tmp_path, runs):
        """An autoencoder learns it by heart; nothing is left to validate on."""
        image = np.random.default_rng(0).integers(0, 256, (1, 8, 8)).astype(np.uint8)
        idx.write_idx(tmp_path / "images", image)
        config = write_json(tmp_path / "tiny.json", AUTOENCODER)
        flags = ["-d", tmp_path / "images", "-c", config]
        finished = run_program("autoencoder", *flags, runs_dir=runs)
        assert finished.exit_code == 0
        assert "No validation images" in finished.err
        assert "Nothing to learn" in finished.err
