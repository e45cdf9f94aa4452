"""An interrupted training goes on to the very bits of one that was never interrupted."""

import time

import keras
import numpy as np
import pytest
from conftest import draw_four_classes
from interruptions import AUTOENCODER, CLASSIFIER

from cae.config.fields import OPTIMIZERS
from cae.errors import DataError
from cae.records.checkpoint import Checkpoint
from cae.training import build, callbacks
from cae.training import train as train_module

# Two steps of 8 images an execution and three executions an epoch, the last of one small batch.
pytestmark = pytest.mark.usefixtures("executions_of_16_images")


@pytest.fixture
def save_always(monkeypatch):
    """A checkpoint after every execution and every epoch, however long that takes."""
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(callbacks, "CHECKPOINT_SHARE", 1e9)


@pytest.fixture(scope="module")
def images():
    return draw_four_classes(44)


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
        encoder = build.get_autoencoder(AUTOENCODER, shape)
        if self._kind == "autoencoder":
            model = build.get_autoencoder(self._info, shape)
            train, given = train_module.train_autoencoder, (self._images,)
            hooks = {"warn": lambda sentence: None, **hooks}
        else:
            model = build.get_classifier(self._info, shape, 4, encoder=encoder)
            train, given = train_module.train_classifier, (self._images, np.arange(44) % 4)
            if "unlabelled" in self._info:
                hooks = {"unlabelled": self._images[:40], **hooks}
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


PLAIN = {"noise": 0, "augmentation": None, "learning_rate_schedule": None}
UNLABELLED = {"batch_size": 12, "label_spreading": {"neighbours": 3}, "pseudo_labels": {}}
CASES = {
    "autoencoder": ("autoencoder", {}),
    "classifier": ("classifier", {}),
    "classifier with unlabelled images": ("classifier", {"unlabelled": UNLABELLED}),
}
SLOW_CASES = {
    "autoencoder without validation": ("autoencoder", {"validation_split": 0}),
    "autoencoder that crops": (
        "autoencoder",
        {"encoder_layers": [["pool", [3, 3]]], "decoder_layers": [["upSample", [3, 3]]]},
    ),
    "autoencoder in bfloat16": ("autoencoder", {"mixed_precision": True}),
    "classifier with augmentation": ("classifier", {"augmentation": {"shift": 0.1}}),
    "classifier in bfloat16": ("classifier", {"mixed_precision": True, "validation_split": 0}),
}
LONG_CASES = {
    name: ("autoencoder", {**PLAIN, "optimizer": [name, 0.01], "epochs": 2}) for name in OPTIMIZERS
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [pytest.param(*case, id=name) for name, case in CASES.items()]
    + [pytest.param(*case, id=name, marks=pytest.mark.slow) for name, case in SLOW_CASES.items()]
    + [pytest.param(*case, id=name, marks=pytest.mark.long) for name, case in LONG_CASES.items()],
)
def test_a_killed_training(tmp_path, images, save_always, report_cpu, kind, changes):
    """In an epoch and again at the end of one; of a classifier at the end of its first phase."""
    report_cpu("avx512_bf16")
    training = Training(kind, images, **changes)
    path = tmp_path / "checkpoint.npz"
    for moment, step in [(2, 4), (6 if kind == "classifier" else 2, 0)]:
        assert training.kill(path, moment)
        assert Checkpoint(path).state.step == step
    assert_same(training.run(Checkpoint(path)), training.run())


def test_a_killed_training_on_unlabelled_images(tmp_path, images, save_always):
    """Inside the first epoch, at its end, and in the second, for which labels were spread anew.

    Student, teacher, spread labels and batches go on together.
    """
    spreading = {"neighbours": 3, "share": 0.5, "refresh": 1, "last_share": 1}
    how = UNLABELLED | {"label_spreading": spreading}
    phases = {"dense_only_train_epochs": 0, "full_train_epochs": 3}
    training = Training("classifier", images, unlabelled=how, **phases)
    path = tmp_path / "checkpoint.npz"
    for moment, step in [(2, 2), (3, 0), (2, 2)]:  # 4 steps an epoch, one an execution
        assert training.kill(path, moment)
        assert Checkpoint(path).state.step == step
    assert_same(training.run(Checkpoint(path)), training.run())


class AskedAt:
    """Requests the stop at the given question, counted from 1."""

    def __init__(self, question):
        self._left = question

    def __call__(self):
        self._left -= 1
        return self._left <= 0


@pytest.mark.parametrize("question", [2, 3, 4])
def test_a_training_that_was_asked_to_stop(tmp_path, images, question):
    """Inside an epoch, at its end, and in the next; an epoch cut short is not gone on from."""
    training = Training("autoencoder", images)
    path = tmp_path / "checkpoint.npz"
    _, stopped = training.run(Checkpoint(path), should_stop=AskedAt(question))
    assert len(stopped.epochs) == (1 if question <= 3 else 2)
    assert stopped.best_epoch
    state = Checkpoint(path).state
    assert (state.epoch, state.step) == {2: (0, 4), 3: (1, 0), 4: (1, 2)}[question]
    assert_same(training.run(Checkpoint(path)), training.run())


@pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
def test_patience_is_remembered(tmp_path, images, save_always, kind):
    """Nothing improves at this rate: each phase ends after its third epoch, resumed or not."""
    slow = {"optimizer": ["sgd", 1e-30], "early_stopping": 2, "learning_rate_schedule": None}
    if kind == "classifier":
        slow |= {"dense_only_train_epochs": 9, "dense_layers": [["dense", 6]]}
    else:
        slow |= {"epochs": 9}
    training = Training(kind, images, **slow)
    path = tmp_path / "checkpoint.npz"
    assert training.kill(path, 7)  # in the second epoch
    assert training.kill(path, 6)  # at the end of the third
    assert Checkpoint(path).state.epoch == 9, "the phase is over"
    resumed, whole = training.run(Checkpoint(path)), training.run()
    assert len(whole[1].epochs) == (3 if kind == "autoencoder" else 5)
    assert_same(resumed, whole)


def test_a_training_killed_at_its_very_end(tmp_path, images, save_always):
    """Nothing is left to train, and the best weights, of the first epoch, come back."""
    training = Training("autoencoder", images, optimizer=["sgd", 1e-30])
    path = tmp_path / "checkpoint.npz"
    assert training.kill(path, 12)
    resumed = training.run(Checkpoint(path), callbacks=[KillAt(1)])
    assert resumed[1].best_epoch == 1
    assert_same(resumed, training.run())


class PassTime(keras.callbacks.Callback):
    """Stands in for the module `time`: every execution takes so many seconds, nothing else any."""

    def __init__(self, seconds):
        super().__init__()
        self._seconds = seconds
        self._now = 0.0

    def perf_counter(self):
        return self._now

    def on_train_batch_begin(self, batch, logs=None):
        self._now += self._seconds


@pytest.mark.parametrize(
    ("seconds", "saved_in_epoch"), [(1, []), (39, []), (70, [4]), (121, [2, 4])]
)
def test_a_checkpoint_every_epoch_and_every_two_minutes(
    tmp_path, images, monkeypatch, seconds, saved_in_epoch
):
    """Three executions an epoch: inside it as often as two minutes pass, and always at its end."""
    saved = []
    time_passes = PassTime(seconds)
    monkeypatch.setattr(callbacks, "time", time_passes)
    monkeypatch.setattr(
        Checkpoint, "save", lambda self, state: saved.append((state.epoch, state.step))
    )
    Training("autoencoder", images).run(
        Checkpoint(tmp_path / "checkpoint.npz"), callbacks=[time_passes]
    )
    assert saved == [
        place
        for epoch in range(AUTOENCODER["epochs"])
        for place in [*((epoch, step) for step in saved_in_epoch), (epoch + 1, 0)]
    ]


def test_checkpoints_cost_little(tmp_path, images, monkeypatch):
    """Epochs of milliseconds are not each saved: one waits until the last one has paid off."""
    saved = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: saved.append(time.sleep(0.2)))
    Training("autoencoder", images, epochs=4).run(Checkpoint(tmp_path / "checkpoint.npz"))
    assert len(saved) == 1


def test_other_variables_are_refused(tmp_path, images, save_always):
    """As another version of Keras may have them."""
    path = tmp_path / "checkpoint.npz"
    assert Training("autoencoder", images).kill(path, 1)
    with pytest.raises(DataError, match="must fit the model, the optimizer"):
        Training("autoencoder", images, optimizer=["sgd", 0.01]).run(Checkpoint(path))
