"""Many epochs of a few steps, without the input pipeline whose start takes longer than they do.

To begin an epoch and its validation, `fit` takes 40 ms on 2 cores: most of the time of a training
with 100 labels. Here batches are cut from memory and come in the same order.
"""

from collections.abc import Iterable

import keras

from cae.training.batches import TrainingBatches

# With more steps, or fewer epochs, there is less than two seconds to gain.
MOST_STEPS = 16
FEWEST_EPOCHS = 50


def is_worthwhile(batches: TrainingBatches, epochs: int) -> bool:
    """Whether a training has so many epochs of so few steps, and batches that NumPy can cut."""
    is_short = batches.steps <= MOST_STEPS and epochs >= FEWEST_EPOCHS
    return is_short and batches.get_arrays is not None


def fit_short_epochs(
    model: keras.Model,
    batches: TrainingBatches,
    validation: Iterable[tuple] | None,
    callbacks: keras.callbacks.CallbackList,
    epoch: int,
    epochs: int,
) -> None:
    """Does what `fit` does, with the same result to rounding.

    Args:
        model: Compiled.
        batches: What to train on.
        validation: Batches of inputs and targets, the same in every epoch; kept in memory.
        callbacks: Called as by `fit`, with every epoch as one execution.
        epoch: The epoch to begin with, counted from 0.
        epochs: Where to end.
    """
    validation = list(validation or [])
    model.make_train_function()
    model.make_test_function()
    for number in range(epoch, epochs):
        model.reset_metrics()
        callbacks.on_epoch_begin(number)
        callbacks.on_train_batch_begin(0)
        for batch in batches.get_arrays():
            logs = model.train_function(iter([batch]))
        logs = _flatten(logs)
        callbacks.on_train_batch_end(batches.steps - 1, logs)
        if validation:
            model.reset_metrics()
            for batch in validation:
                val_logs = model.test_function(iter([batch]))
            logs |= {f"val_{name}": value for name, value in _flatten(val_logs).items()}
        callbacks.on_epoch_end(number, logs)
        if model.stop_training:
            return


def _flatten(logs: dict) -> dict[str, float]:
    """Numbers by their names, as `fit` gives them to callbacks."""
    flat: dict[str, float] = {}
    for name, value in logs.items():
        flat |= _flatten(value) if isinstance(value, dict) else {name: float(value)}
    return flat
