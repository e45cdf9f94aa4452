"""An interrupted training goes on to the very bits of one that was never interrupted."""

import itertools

import keras
import numpy as np
import pytest

import callbacks
import model as models
from checkpoints import Checkpoint
from history import DENSE_ONLY, FULL

# Two steps an execution and three executions an epoch, the last of one small batch.
IMAGES_PER_EXECUTION = 16
BATCH_SIZE = 8
AUTOENCODER = {
    "encoder_layers": [["conv", 3, [3, 3]], ["batchNorm"], ["pool", [2, 2]], ["drop", 0.3]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 3, [3, 3]]],
    "optimizer": ["adam", 0.01],
    "batch_size": BATCH_SIZE,
    "epochs": 3,
    "noise": 0.1,
    "augmentation": {"rotation": 10, "shift": 0.1, "zoom": 0.1},
    "learning_rate_schedule": ["exponential", 0.5],
}
CLASSIFIER = {
    "dense_layers": [["dense", 6], ["batchNorm"], ["drop", 0.3]],
    "optimizer": ["adam", 0.01, 0.002],
    "dense_only_train_epochs": 2,
    "full_train_epochs": 2,
    "batch_size": BATCH_SIZE,
    "learning_rate_schedule": ["cosine"],
}


@pytest.fixture(autouse=True)
def executions_of_two_steps(monkeypatch):
    monkeypatch.setattr("batches.IMAGES_PER_EXECUTION", IMAGES_PER_EXECUTION)


@pytest.fixture
def save_always(monkeypatch):
    """A checkpoint after every execution and every epoch, however long that takes."""
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(callbacks, "CHECKPOINT_SHARE", 1e9)


@pytest.fixture(scope="module")
def images():
    """uint8 (44, 8, 8, 1): a bright bar whose place is the class, on noise."""
    pixels = np.random.default_rng(0).integers(0, 60, (44, 8, 8, 1), np.uint8)
    for number, image in enumerate(pixels):
        image[:, 2 * (number % 4) : 2 * (number % 4) + 2] += 190
    return pixels


class Killed(Exception):
    """The process is gone."""


class KillAt(keras.callbacks.Callback):
    """Ends a training from outside, after so many executions or epochs."""

    def __init__(self, moment):
        super().__init__()
        self._left = moment

    def on_train_batch_end(self, batch, logs=None):
        self._count()

    def on_epoch_end(self, epoch, logs=None):
        self._count()

    def _count(self):
        self._left -= 1
        if self._left == 0:
            raise Killed


class Training:
    """One way to train that can be begun, interrupted and gone on with."""

    def __init__(self, kind, images, **changes):
        self._images = images
        self._kind = kind
        self._info = {**(AUTOENCODER if kind == "autoencoder" else CLASSIFIER), **changes}

    def run(self, checkpoint=None, **hooks):
        """Returns the model and its history."""
        shape = self._images.shape[1:]
        encoder = models.get_autoencoder(AUTOENCODER, shape)
        if self._kind == "autoencoder":
            model = models.get_autoencoder(self._info, shape)
            train, given = models.train_autoencoder, (self._images,)
            hooks = {"warn": lambda sentence: None, **hooks}
        else:
            model = models.get_classifier(self._info, shape, 4, encoder=encoder)
            train, given = models.train_classifier, (self._images, np.arange(44) % 4)
        return model, train(model, self._info, *given, checkpoint=checkpoint, **hooks)

    def kill(self, path, moment):
        """Runs it from its checkpoint, if there is one, until that moment; False if it ended."""
        try:
            self.run(Checkpoint(path), callbacks=[KillAt(moment)])
        except Killed:
            return True
        return False


def assert_same(first, second):
    """Bit-identical weights, and the same history but for its seconds."""
    for one, other in zip(first[0].variables, second[0].variables, strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [[{**row, "seconds": 0} for row in history.epochs] for _, history in (first, second)]
    assert rows[0] == rows[1]
    assert first[1].best_epoch == second[1].best_epoch


CASES = {
    "autoencoder": ("autoencoder", {}),
    "autoencoder without validation": ("autoencoder", {"validation_split": 0}),
    "autoencoder in bfloat16": ("autoencoder", {"mixed_precision": True}),
    "classifier": ("classifier", {}),
    "classifier with augmentation": ("classifier", {"augmentation": {"shift": 0.1}}),
    "classifier in bfloat16": ("classifier", {"mixed_precision": True, "validation_split": 0}),
}


@pytest.mark.parametrize(("kind", "changes"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("moments", [(2, 5), (1, 1, 3, 4)], ids=str)
def test_chains_of_kills(tmp_path, images, save_always, kind, changes, moments):
    """Killed inside epochs and between them, as often as you like."""
    training = Training(kind, images, **changes)
    for moment in moments:
        assert training.kill(tmp_path / "checkpoint.npz", moment)
    assert_same(training.run(Checkpoint(tmp_path / "checkpoint.npz")), training.run())
