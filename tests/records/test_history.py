"""The record of one training."""

import math

from cae.records.history import DENSE_ONLY, FULL, History

ROWS = [
    {"epoch": 1, "phase": DENSE_ONLY, "loss": 2.0},
    {"epoch": 2, "phase": FULL, "loss": 1.0, "val_loss": 1.5},
]


def test_columns_and_phases():
    """Missing values are NaN; the phase boundary lies after the dense-only epochs."""
    history = History("x", "classifier", {}, ROWS, best_epoch=2)
    assert history.column("loss") == [2.0, 1.0]
    assert math.isnan(history.column("val_loss")[0])
    assert history.has("val_loss") and not history.has("val_mse")
    assert history.dense_only_epochs == 1
    assert history.best is ROWS[1]


def test_no_epochs_yet():
    """An empty history has no best row."""
    assert History("x", "autoencoder", {}).best == {}
