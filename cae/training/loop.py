"""The training loop."""

from typing import Any

import keras

from cae.config.fields import OPTIMIZERS
from cae.config.schema import Config
from cae.errors import UserError
from cae.records.history import History
from cae.training import on_device
from cae.training.batches import TrainingBatches, steps_per_execution
from cae.training.callbacks import AcrossFits, Interruptible, Record, schedule_callback
from cae.training.data_parallel import DataParallel, Workers
from cae.training.memory import batches_in_memory
from cae.training.short_epochs import fit_short_epochs, is_worthwhile


def fit_phase(
    trained: keras.Model,
    history: History,
    batches: TrainingBatches,
    validation: Any,
    *,
    phase: str,
    epochs: int,
    rate: float,
    config: Config,
    loss: str,
    metric: keras.metrics.Metric,
    interruptible: Interruptible,
    workers: Workers | None,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    if workers:
        trained = DataParallel(trained, workers)
    speed = on_device.SPEED if on_device.has_gpu() else 1
    trained.compile(
        optimizer=_get_optimizer(config.optimizer.name)(rate),
        loss=loss,
        metrics=[metric],
        steps_per_execution=steps_per_execution(config.batch_size, batches.steps, speed),
    )
    trained.optimizer.build(trained.trainable_variables)
    epoch, step = interruptible.begin_phase(trained, phase, metric)
    callbacks = [
        schedule_callback(config.learning_rate_schedule, rate, epochs),
        Record(history, batches, phase, interruptible),  # first: others look at the last row
        *callbacks,
    ]
    value_bytes = 2 if config.mixed_precision else 4
    with (
        batches_in_memory(trained, batches.batch_size, value_bytes),
        AcrossFits(
            callbacks,
            trained,
            steps=batches.steps,
            epochs=epochs,
            epoch=epoch,
            step=step,
            rows=history.epochs,
        ) as across_fits,
    ):

        def fit(dataset: Any, end: int) -> None:
            trained.fit(
                dataset,
                initial_epoch=epoch,
                epochs=end,
                validation_data=validation,
                shuffle=False,  # the batches come in their epoch's order
                verbose=0,
                callbacks=across_fits,
            )

        if step:
            fit(batches.from_step(step), epoch + 1)
            epoch += 1
        if not trained.stop_training:
            if is_worthwhile(batches, epochs):
                fit_short_epochs(trained, batches, validation, across_fits, epoch, epochs)
            else:
                fit(batches.dataset, epochs)


def _get_optimizer(name: str) -> type[keras.optimizers.Optimizer]:
    optimizer = getattr(keras.optimizers, OPTIMIZERS[name], None)
    if optimizer is None:
        raise UserError(
            f"optimizer {name}",
            "must be one that the installed Keras has",
            f"Keras {keras.__version__}",
            "Choose another, or use Python 3.11 or later with a newer Keras.",
        )
    return optimizer
