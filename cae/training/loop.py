"""The training loop: epochs, executions of several steps, validation, callbacks, checkpoints."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from cae.config.fields import OPTIMIZERS
from cae.config.schema import Config
from cae.errors import UserError
from cae.records.checkpoint import Checkpoint
from cae.records.history import History, OnEpoch
from cae.training.batches import Batches
from cae.training.callbacks import BestWeights, Checkpoints
from cae.training.data_parallel import Workers
from cae.training.device import batches_in_memory, get_compute_dtype
from cae.training.steps import Objective, Steps, compile_steps


@dataclass(frozen=True)
class Phase:
    """Epochs in which the same layers are trained."""

    name: str  # `history.DENSE_ONLY` or `history.FULL`
    epochs: int  # the most there can be
    learning_rate: float  # of the first epoch


class Loop:
    """Trains a model in one phase or several, each from the best weights so far.

    Args:
        model: What is trained and kept; a phase may train another model over the same layers.
        config: Its hyperparameters.
        name: Of the history.
        monitor: The metrics by which epochs are compared; see `BestWeights`.
        callbacks: Keras callbacks. Their `model` is the one above; during a phase it has the
            `optimizer` of that phase, and `stop_training = True` ends it.
        should_stop: Asked after every execution and every epoch; True ends the training as if it
            were complete.
        checkpoint: Where the training is saved. One that was interrupted continues from there, to
            the same result as without the interruption.
        on_epoch: Called with the history's row of every whole epoch, and of one that diverged.
        workers: The processes that train the model together, each with the same arguments; None
            for this one alone.
    """

    def __init__(
        self,
        model: keras.Model,
        config: Config,
        name: str,
        monitor: tuple[str, ...],
        *,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        should_stop: Callable[[], bool] = lambda: False,
        checkpoint: Checkpoint | None = None,
        on_epoch: OnEpoch = lambda row: None,
        workers: Workers | None = None,
    ):
        self.config = config
        self.workers = workers
        self._model = model
        self._callbacks = callbacks
        self._should_stop = should_stop
        self._on_epoch = on_epoch
        self._history = History(name, config.kind, config.model_dump(mode="json"))
        keras.utils.set_random_seed(config.seed)
        self._best = BestWeights(model, self._history, monitor, config.early_stopping)
        self._checkpoints = Checkpoints(model, self._history, self._best, checkpoint)
        if workers:
            workers.vary_random_states(model)

    def get_remaining(self, phases: Sequence[Phase]) -> Iterator[Phase]:
        """The phases to train; none are left once training diverges or is asked to stop."""
        for phase in phases:
            if self._checkpoints.phase not in (None, phase.name):
                continue  # completed before an interruption
            if self._history.divergence or (self._history.epochs and self._should_stop()):
                return
            yield phase

    def run(
        self,
        phase: Phase,
        objective: Objective,
        batches: Batches,
        validation: Batches | None,
    ) -> None:
        """Trains the remaining epochs of a phase, then puts the best weights into the model."""
        optimizer = _get_optimizer(self.config.optimizer.name)(phase.learning_rate)
        optimizer.build(objective.model.trainable_variables)
        steps = compile_steps(objective, optimizer, self.workers)
        first_epoch, step = self._checkpoints.begin_phase(phase.name, optimizer, objective)
        done = first_epoch * batches.steps + step
        schedule = self.config.learning_rate_schedule
        value_bytes = 2 if get_compute_dtype(self.config) == "bfloat16" else 4
        with (
            batches_in_memory(objective.model, batches.batch_size, value_bytes),
            self._calling_back(phase, optimizer, steps=batches.steps, done=done) as callbacks,
        ):
            for epoch in range(first_epoch, phase.epochs):
                if schedule:  # without one a callback may change the rate
                    optimizer.learning_rate = learning_rate_at(
                        schedule, phase.learning_rate, epoch, phase.epochs
                    )
                if step == 0:
                    self._checkpoints.begin_epoch()
                    objective.reset_metrics()
                    objective.begin_epoch(epoch)
                callbacks.on_epoch_begin(epoch)
                step, results = self._train_epoch(steps, batches, epoch, step, callbacks)
                if validation:
                    objective.reset_metrics()
                    results |= _evaluate(steps, validation, callbacks)
                self._record(phase, optimizer, results)
                if step == batches.steps:  # an epoch cut short is repeated from its checkpoint
                    self._end_epoch(phase, epoch)
                callbacks.on_epoch_end(epoch, dict(results))
                if step == batches.steps or self._history.divergence:
                    self._on_epoch(self._history.epochs[-1])
                if self._model.stop_training:
                    break
                step = 0
        self._best.restore()

    @property
    def is_stopped(self) -> bool:
        """Whether the training was asked to stop, by Ctrl-C for example."""
        return bool(self._should_stop())

    def finish(self, images_per_epoch: Mapping[str, int]) -> History:
        """The history with its final values, those of the best epoch.

        Args:
            images_per_epoch: Images trained on in an epoch of each phase.

        Raises:
            UserError: The loss was never finite.
        """
        self._best.restore()
        history, seconds = self._history, self._checkpoints.seconds
        if history.best_epoch is None:
            raise history.divergence
        images = sum(images_per_epoch[row["phase"]] for row in history.epochs)
        bookkeeping = ("epoch", "phase", "learning_rate", "seconds")
        history.metrics = {
            **{key: value for key, value in history.best.items() if key not in bookkeeping},
            "best_epoch": history.best_epoch,
            "epochs": len(history.epochs),
            "seconds": round(seconds, 2),
            "images_per_second": round(images / seconds, 1),
        }
        return history

    @contextmanager
    def _calling_back(
        self, phase: Phase, optimizer: keras.optimizers.Optimizer, **params: Any
    ) -> Iterator[keras.callbacks.CallbackList]:
        """Lets callbacks begin, and end unless an exception ends the training."""
        own_optimizer = getattr(self._model, "optimizer", None)  # if the user has compiled it
        self._model.optimizer = optimizer
        self._model.stop_training = False
        callbacks = keras.callbacks.CallbackList(
            list(self._callbacks),
            model=self._model,
            phase=phase.name,
            epochs=phase.epochs,
            verbose=1,  # which ProgbarLogger reads
            **params,
        )
        try:
            callbacks.on_train_begin()
            yield callbacks
            callbacks.on_train_end()
        finally:
            if own_optimizer is None:
                del self._model.optimizer  # Keras would save it
            else:
                self._model.optimizer = own_optimizer

    def _train_epoch(
        self,
        steps: Steps,
        batches: Batches,
        epoch: int,
        step: int,
        callbacks: keras.callbacks.CallbackList,
    ) -> tuple[int, dict[str, float]]:
        """Trains on the batches of an epoch from number `step` on.

        Returns:
            How many batches are done, all of them unless training is to stop, and the results.
        """
        iterator = batches.iterate(epoch, step)
        results = {}
        while True:  # at least once, as in Keras, if a callback has asked to stop before
            callbacks.on_train_batch_begin(step)
            count = min(batches.steps_per_execution, batches.steps - step)
            steps.train(iterator, count)
            step += count
            results = _get_results(steps)
            if not math.isfinite(results["loss"]):  # a mean since the start of the epoch
                self._model.stop_training = True
            elif step < batches.steps:
                self._pause(epoch, step)
            callbacks.on_train_batch_end(step - 1, dict(results))
            if step == batches.steps or self._model.stop_training:
                return step, results

    def _pause(self, epoch: int, step: int) -> None:
        """Saves and stops, if need be, between two executions of an epoch."""
        requested = self._should_stop()
        if requested or self._checkpoints.is_due(within_epoch=True):
            self._checkpoints.save(epoch, step)
        self._model.stop_training |= requested  # or by a callback

    def _record(
        self, phase: Phase, optimizer: keras.optimizers.Optimizer, results: dict[str, float]
    ) -> None:
        """Adds the row of an epoch to the history."""
        rows = self._history.epochs
        rows.append(
            {
                "epoch": len(rows) + 1,
                "phase": phase.name,
                "learning_rate": float(optimizer.learning_rate),
                "seconds": round(self._checkpoints.epoch_seconds, 3),
                **results,
            }
        )
        if not self._best.update(results):
            self._model.stop_training = True

    def _end_epoch(self, phase: Phase, epoch: int) -> None:
        """Saves and stops, if need be, after a whole epoch."""
        is_over, requested = self._model.stop_training, self._should_stop()
        if self._history.best_epoch and (requested or self._checkpoints.is_due(within_epoch=False)):
            self._checkpoints.save(phase.epochs if is_over else epoch + 1, 0)
        self._model.stop_training = is_over or requested


def _evaluate(
    steps: Steps, validation: Batches, callbacks: keras.callbacks.CallbackList
) -> dict[str, float]:
    """The `val_` results of the current weights."""
    callbacks.on_test_begin()
    steps.evaluate(validation.iterate(), validation.steps)
    results = _get_results(steps)
    callbacks.on_test_end(dict(results))
    return {f"val_{name}": value for name, value in results.items()}


def _get_results(steps: Steps) -> dict[str, float]:
    return {name: float(value) for name, value in steps.get_results().items()}


def learning_rate_at(schedule: tuple, rate: float, epoch: int, epochs: int) -> float:
    """The learning rate of one epoch.

    Args:
        schedule: `("cosine",)` (half a cosine to 0 after the last epoch;
            Loshchilov & Hutter 2017, "SGDR"), `("exponential", factor)` per epoch, or
            `("step", every, factor)` per `every` epochs.
        rate: The first epoch's rate.
        epoch: Counted from 0 within its phase.
        epochs: Epochs of the phase.
    """
    match schedule:
        case ("cosine",):
            return rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        case ("exponential", factor):
            return rate * factor**epoch
        case ("step", every, factor):
            return rate * factor ** (epoch // every)
    raise ValueError(f"unknown learning_rate_schedule {schedule!r}")


def _get_optimizer(name: str) -> type[keras.optimizers.Optimizer]:
    optimizer = getattr(keras.optimizers, OPTIMIZERS[name], None)
    if optimizer is None:
        raise UserError(
            f"optimizer {name}",
            "must exist in the installed Keras",
            f"Keras {keras.__version__}",
            "Choose another optimizer, or install the Keras of requirements.txt.",
        )
    return optimizer
