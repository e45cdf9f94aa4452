"""What goes wrong around a training: earlier results stay, one line says what, and the exit fails.

Faults are real wherever a test can make them: a full disk, missing rights, folders that vanish,
programs that start together.
"""

import numpy as np
import pytest

import callbacks
from model_files import load_model


@pytest.fixture
def at_epoch(monkeypatch):
    """Does something inside training, as an epoch (counted from 1) begins."""

    def arm(number, action):
        class Interrupted(callbacks.ShowProgress):
            def on_epoch_begin(self, epoch, logs=None):
                super().on_epoch_begin(epoch, logs)
                if epoch + 1 == number:
                    action(self.model)

        monkeypatch.setattr(callbacks, "ShowProgress", Interrupted)

    return arm


class TestLossThatIsNotFinite:
    """The best weights are kept, and the line says which epoch and what to try."""

    def poison(self, model):
        model.set_weights([weights * float("nan") for weights in model.get_weights()])

    def test_after_good_epochs(self, autoencode, at_epoch):
        at_epoch(3, self.poison)
        done = autoencode("--epochs", 9)
        assert done.exit_code == 2
        assert done.err.splitlines()[-1] == (
            "error: tiny: the loss must stay finite, got nan in epoch 3. The weights of epoch "
            f"{done.metrics['best_epoch']} are kept. Use a learning rate ten times smaller, or "
            "batchNorm after the layers."
        )
        assert done.metrics["epochs"] == 3
        assert done.metrics["best_epoch"] < 3

    @pytest.mark.parametrize("phase", ["dense_only", "full"])
    def test_in_either_phase_of_a_classifier(self, classify, at_epoch, phase):
        """Nothing is trained after it, and the test images are classified with what was kept."""
        at_epoch(2, lambda model: model.name == phase and self.poison(model))
        done = classify("--epochs", 3)
        assert done.exit_code == 2
        epochs = 2 if phase == "dense_only" else 5
        assert f"got nan in epoch {epochs}. The weights" in done.err
        assert done.metrics["epochs"] == epochs
        weights = load_model(done.run / "model.keras")[0].get_weights()
        assert all(np.isfinite(array).all() for array in weights)
        assert "test_accuracy" in done.metrics

    def test_in_the_first_epoch_nothing_is_kept(self, autoencode, at_epoch):
        at_epoch(1, self.poison)
        done = autoencode()
        assert done.exit_code == 2
        assert done.runs == []
        assert done.err.splitlines()[-1].startswith(
            "error: tiny: the loss must stay finite, got nan in epoch 1. Use a learning rate"
        )
