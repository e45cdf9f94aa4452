"""A loss that is not finite, or too little memory: one line names the fault and a remedy."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import AUTOENCODER, ROOT, write_dataset, write_json
from faults import assert_one_error

from cae.programs import images
from cae.records.saved_models import load_model


class TestLossThatIsNotFinite:
    """The best weights are kept, and the error names the epoch and a remedy."""

    def poison(self, model):
        model.set_weights([weights * float("nan") for weights in model.get_weights()])

    def test_after_good_epochs(self, autoencode, at_epoch):
        at_epoch(3, self.poison)
        done = autoencode("--epochs", 9).refused()
        line = done.err.splitlines()[-1]
        assert "got loss nan in epoch 3" in line
        assert f"weights of epoch {done.metrics['best_epoch']}" in line
        assert done.metrics["epochs"] == 3
        assert done.metrics["best_epoch"] < 3

    def test_in_the_first_phase_of_a_classifier(self, classify, at_epoch):
        """Training ends, and the test images are classified with the best weights."""
        at_epoch(2, self.poison)
        done = classify("--epochs", 3).refused("got loss nan in epoch 2. The weights")
        assert done.metrics["epochs"] == 2
        weights = load_model(done.run / "model.keras")[0].get_weights()
        assert all(np.isfinite(array).all() for array in weights)
        assert "test_accuracy" in done.metrics

    def test_in_the_first_epoch_nothing_is_kept(self, autoencode, at_epoch):
        at_epoch(1, self.poison)
        done = autoencode().refused()
        assert done.runs == []
        assert done.err.splitlines()[-1].startswith(
            "error: tiny: the loss must stay finite, got loss nan in epoch 1. Use a learning rate"
        )


class TestMemory:
    def test_runs_out_while_training(self, autoencode, earlier, at_epoch):
        def fail(model):
            raise MemoryError

        at_epoch(1, fail)
        done = autoencode()
        earlier.check(done)
        assert "error: batch_size 16: a training step must fit in memory, got no me" in done.err

    def test_runs_out_elsewhere(self, autoencode, monkeypatch):
        def fail(*args, **kwargs):
            raise MemoryError

        monkeypatch.setattr(images, "load_dataset", fail)
        assert_one_error(autoencode(), "memory: ")

    @pytest.mark.slow
    def test_a_batch_that_does_not_fit(self, tmp_path):
        """With a real limit, where TensorFlow itself would crash with a signal."""
        resource = pytest.importorskip("resource")
        data = write_dataset(tmp_path / "data", (256, 256), count=70)
        layers = [["conv", 512, [3, 3]], ["pool", [2, 2]]]
        config = write_json(tmp_path / "large.json", AUTOENCODER, encoder_layers=layers)
        command = [sys.executable, "autoencoder.py", *data.autoencoder, "-c", config]
        limit = 6 * 2**30  # of which TensorFlow takes 2 for its code and threads
        done = subprocess.run(
            [*command, "--batch-size", "60", "--runs-dir", str(tmp_path / "runs")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        assert done.returncode == 2, done.stderr
        assert "error: batch_size 60: a training step must fit in memory" in done.stderr
        assert list((tmp_path / "runs").iterdir()) == []
