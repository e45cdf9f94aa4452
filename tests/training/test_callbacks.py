"""What happens while a model trains."""

import math
import re
from io import StringIO

import keras
import numpy as np
import pytest
from rich.console import Console

from cae.records.history import DENSE_ONLY, FULL, History
from cae.training.callbacks import BestWeights, ShowProgress


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])


def run_epochs(best, model, history, all_results, phase=FULL):
    """At the end of epoch i the only weight is i, from 1; returns whether training continues."""
    for number, results in enumerate(all_results, 1):
        model.set_weights([np.array([[float(number)]])])
        history.epochs.append({"epoch": number, "phase": phase, **results})
        if not best.update(results):
            return False
    return True


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
        (("val_loss",), [{"val_loss": 2.0}, {"val_loss": math.nan}], 1),
    ],
    ids=["smaller loss", "larger accuracy", "tie", "not a number"],
)
def test_best_weights_come_back(model, monitor, logs, best):
    history = History("x", "autoencoder", {})
    best_weights = BestWeights(model, history, monitor)
    run_epochs(best_weights, model, history, logs)
    best_weights.restore()
    assert model.get_weights()[0].item() == best
    assert history.best_epoch == best


def test_patience_counts_epochs_without_progress(model):
    """Patience 2: two epochs that are no better stop training; an improvement starts anew."""
    history = History("x", "autoencoder", {})
    losses = [5.0, 6.0, 4.0, 4.5, 4.0, 1.0]
    best = BestWeights(model, history, ("val_loss",), patience=2)
    assert not run_epochs(best, model, history, [{"val_loss": loss} for loss in losses])
    assert len(history.epochs) == 5
    assert history.best_epoch == 3


def test_a_new_phase_gets_all_of_its_patience(model):
    """The best value is remembered across phases, the count of fruitless epochs is not."""
    history = History("x", "classifier", {})
    best = BestWeights(model, history, ("val_loss",), patience=2)
    assert run_epochs(best, model, history, [{"val_loss": 1.0}, {"val_loss": 2.0}], DENSE_ONLY)
    assert run_epochs(best, model, history, [{"val_loss": 2.0}])
    assert history.best_epoch == 1


def progress(terminal, width=120):
    output = StringIO()
    console = Console(file=output, force_terminal=terminal, width=width, highlight=False)
    callback = ShowProgress(console, "small", ("loss",), show_phase=True)
    callback.set_params({"steps": 3, "epochs": 2, "phase": "full"})
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)
        callback.on_train_batch_end(1)
        callback.on_train_batch_end(2)
        callback.on_epoch_end(epoch, {"loss": 0.5, "val_loss": 0.25, "other": 1.0})
    callback.on_train_end()
    return output.getvalue()


def test_the_bar_goes_on_after_an_interruption():
    """What was done before counts as done, and not as the speed of this start."""
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=120)
    callback = ShowProgress(console, "small", ("loss",))
    callback.set_params({"steps": 3, "epochs": 2, "done": 4})
    callback.on_train_begin()
    callback.close()
    assert "4/6" in output.getvalue() and "-:--:--" in output.getvalue()


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


@pytest.mark.parametrize(
    ("name", "heading"), [("a", "a, full: epoch 9/10"), ("longer", "full 9/10")]
)
def test_epoch_lines_of_a_log_fit_80_columns(name, heading):
    """With the name of the run if there is room for it."""
    metrics, output = ("loss", "accuracy", "f"), StringIO()
    callback = ShowProgress(Console(file=output, width=80), name, metrics, show_phase=True)
    callback.set_params({"steps": 3, "epochs": 10, "phase": "full"})
    callback.on_epoch_begin(8)
    values = dict.fromkeys(("loss", "accuracy", "f"), 0.25)
    callback.on_epoch_end(8, values | {f"val_{key}": 0.5 for key in values})
    shown = "  loss 0.2500/0.5000  accuracy 0.2500/0.5000  f 0.2500/0.5000"
    explained, line = output.getvalue().splitlines()
    assert "training/validation" in explained
    assert line == f"{heading}{shown}"
    assert len(line) <= 80


def test_the_bar_fits_60_columns():
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", progress(True, width=60)))
    bars = [line for line in lines if "6/6" in line]
    assert bars and all("left" in line and re.search(r"\d:\d\d", line) for line in bars)
    assert all(len(line) <= 60 for line in lines)


@pytest.mark.parametrize(
    ("width", "line"),
    [(40, "full 2/2  loss 0.5000/0.2500\n"), (20, "full 2/2\n  loss 0.5000/0.2500\n")],
)
def test_a_narrow_terminal_gets_short_lines(width, line):
    assert line in progress(terminal=True, width=width).replace("\r", "")
