"""What happens while a model trains."""

import math
from io import StringIO

import keras
import numpy as np
import pytest
from rich.console import Console

from cae.records.history import DENSE_ONLY, FULL, History
from cae.training.callbacks import (
    AcrossFits,
    KeepBest,
    ShowProgress,
    WatchCollapse,
    learning_rate_at,
)


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])


def run_epochs(keep, model, all_logs, phase=FULL):
    """Feeds epochs to the callback; before epoch i the only weight is i (counted from 1)."""
    keep.set_model(model)
    model.stop_training = False  # as fit does
    for number, logs in enumerate(all_logs, 1):
        model.set_weights([np.array([[float(number)]])])
        keep._history.epochs.append({"epoch": number, "phase": phase, **logs})
        keep.on_epoch_end(number - 1, logs)
        if model.stop_training:
            break


@pytest.mark.parametrize(
    ("monitor", "logs", "best"),
    [
        (("val_loss",), [{"val_loss": 3.0}, {"val_loss": 1.0}, {"val_loss": 2.0}], 2),
        (("val_accuracy",), [{"val_accuracy": 0.5}, {"val_accuracy": 0.4}], 1),
        (
            ("val_accuracy", "val_loss"),
            [
                {"val_accuracy": 0.9, "val_loss": 0.3},
                {"val_accuracy": 0.9, "val_loss": 0.2},
                {"val_accuracy": 0.8, "val_loss": 0.1},
            ],
            2,
        ),
        (("val_loss",), [{"loss": 2.0}, {"loss": 1.0}], 2),
        (("val_loss",), [{"val_loss": 2.0}, {"val_loss": math.nan}], 1),
    ],
    ids=["smaller loss", "larger accuracy", "tie", "no validation", "not a number"],
)
def test_best_weights_come_back(model, monitor, logs, best):
    """However the epochs went, the best one's weights are kept."""
    history = History("x", "autoencoder", {})
    keep = KeepBest(model, history, monitor)
    run_epochs(keep, model, logs)
    keep.restore()
    assert model.get_weights()[0].item() == best
    assert history.best_epoch == best


def test_patience_counts_epochs_without_progress(model):
    """Patience 2: two epochs that are no better stop training; an improvement starts anew."""
    history = History("x", "autoencoder", {})
    losses = [5.0, 6.0, 4.0, 4.5, 4.0, 1.0]
    run_epochs(
        KeepBest(model, history, ("val_loss",), patience=2),
        model,
        [{"val_loss": loss} for loss in losses],
    )
    assert len(history.epochs) == 5
    assert history.best_epoch == 3


def test_a_new_phase_gets_all_of_its_patience(model):
    """The best value is remembered across phases, the count of fruitless epochs is not."""
    history = History("x", "classifier", {})
    keep = KeepBest(model, history, ("val_loss",), patience=2)
    run_epochs(keep, model, [{"val_loss": 1.0}, {"val_loss": 2.0}], DENSE_ONLY)
    run_epochs(keep, model, [{"val_loss": 2.0}])
    assert not model.stop_training
    assert history.best_epoch == 1


def test_a_loss_that_is_not_finite_stops_training(model):
    """Nothing good comes after NaN."""
    history = History("x", "autoencoder", {})
    run_epochs(
        KeepBest(model, history, ("val_loss",)), model, [{"val_loss": math.inf}, {"val_loss": 1.0}]
    )
    assert len(history.epochs) == 1
    assert history.best_epoch is None


@pytest.mark.parametrize(("loss", "stops"), [(0.5, False), (math.nan, True), (math.inf, True)])
def test_an_epoch_whose_loss_is_not_finite_ends_at_once(model, loss, stops):
    """It may have hours to go."""
    keep = KeepBest(model, History("x", "autoencoder", {}), ("val_loss",))
    keep.set_model(model)
    model.stop_training = False
    keep.on_train_batch_end(0, {"loss": loss})
    assert model.stop_training is stops


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (None, [0.1, 0.1, 0.1, 0.1]),
        (("cosine",), [0.1, 0.1 * (0.5 + math.sqrt(0.125)), 0.05, 0.1 * (0.5 - math.sqrt(0.125))]),
        (("exponential", 0.5), [0.1, 0.05, 0.025, 0.0125]),
        (("step", 2, 0.1), [0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_learning_rate_schedules(schedule, rates):
    """Worked by hand for four epochs from 0.1."""
    assert [learning_rate_at(schedule, 0.1, epoch, 4) for epoch in range(4)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("mse", "warned"), [(0.067, True), (0.0651, True), (0.06, False), (0.01, False)]
)
def test_collapse_is_said_once(mse, warned):
    """No better than the mean image (0.067 on MNIST), give or take 5 %: say what to change."""
    said = []
    rows = [{"mse": 0.5, "val_mse": 0.5}, {"mse": 0.5, "val_mse": mse}]
    WatchCollapse(History("x", "autoencoder", {}, rows), 0.067, said.append).on_train_end()
    assert len(said) == warned
    if warned:
        assert "collapsed" in said[0] and "binary_crossentropy" in said[0]


def progress(terminal):
    output = StringIO()
    console = Console(file=output, force_terminal=terminal, width=120, highlight=False)
    callback = ShowProgress(console, "small", ("loss",), show_phase=True)
    callback.set_model(keras.Sequential(name="full"))
    callback.set_params({"steps": 3, "epochs": 2})
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        callback.on_train_batch_end(1)
        callback.on_train_batch_end(3)  # executions of two steps overshoot three
        callback.on_epoch_end(epoch, {"loss": 0.5, "val_loss": 0.25, "other": 1.0})
    callback.on_train_end()
    return output.getvalue()


def test_the_bar_goes_on_after_an_interruption():
    """What was done before counts as done, and not as the speed of this start."""
    callback = ShowProgress(Console(file=StringIO(), force_terminal=True), "small", ("loss",))
    callback.set_params({"steps": 3, "epochs": 2, "done": 4})
    callback.on_train_begin()
    (task,) = callback._bar.tasks
    callback.close()
    assert (task.completed, task.total, task.speed) == (4, 6, None)


class Note(keras.callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self):
        super().__init__()
        self.told = []

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_train_batch_end(self, batch, logs=None):
        self.told.append(batch)

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(f"epoch {epoch} of {self.params['epochs']}")

    def on_train_end(self, logs=None):
        self.told.append("end")


def test_callbacks_see_one_training_across_fits(model):
    """The rest of an epoch and a whole one: batches count from the start of their epoch."""
    note = Note()
    model.compile(loss="mse")
    images = np.zeros((3, 1))
    fit = {"batch_size": 1, "shuffle": False, "verbose": 0}
    with AcrossFits([note], model, steps=3, epochs=2, epoch=0, step=2, rows=[]) as across:
        model.fit(images[2:], images[2:], epochs=1, callbacks=across, **fit)
        model.fit(images, images, initial_epoch=1, epochs=2, callbacks=across, **fit)
    assert note.told == ["begin", 2, "epoch 0 of 2", 0, 1, 2, "epoch 1 of 2", "end"]


def test_a_line_an_epoch_where_there_is_no_terminal():
    """Logs get no control characters."""
    assert progress(terminal=False).splitlines() == [
        "small, full: epoch 1/2  loss 0.5000  val_loss 0.2500",
        "small, full: epoch 2/2  loss 0.5000  val_loss 0.2500",
    ]


def test_a_bar_with_the_time_left_on_a_terminal():
    """The bar counts the batches of all epochs and is gone at the end."""
    text = progress(terminal=True)
    assert "6/6" in text and "7/6" not in text
    assert "left" in text
    assert "small, full: epoch 2/2  loss 0.5000" in text
