"""What happens while a model trains: best weights, the record, checkpoints, progress, warnings."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cae.errors import DataError
from cae.records.checkpoint import Checkpoint, TrainingState
from cae.records.history import History
from cae.training.batches import TrainingBatches

# A reconstruction must beat the mean image by this factor of its error to count as learning.
COLLAPSE_MARGIN = 0.95
# Inside long epochs, as much as may be lost when the power fails.
CHECKPOINT_SECONDS = 120
# Most of the training time that checkpoints may take.
CHECKPOINT_SHARE = 0.02


class KeepBest(keras.callbacks.Callback):
    """Keeps the best weights in memory, puts them back at the end, and stops without progress.

    Keras' `EarlyStopping` and `ModelCheckpoint` each do half of this, and neither remembers
    across two calls of `fit`. All that it goes by stands in the history.

    Args:
        model: The model whose weights are kept; the one being fitted may be a part of it.
        history: Where `best_epoch` is recorded.
        monitor: Metric names in order of importance; later ones break ties. Names with
            `loss` are better when smaller, all others when larger. `val_` is dropped from a name
            when there is no validation data.
        patience: Epochs without improvement before training stops, in each phase anew; None never
            stops.

    Attributes:
        best_weights: As of `get_weights`, at the end of the best epoch; empty before there is one.
    """

    def __init__(
        self,
        model: keras.Model,
        history: History,
        monitor: tuple[str, ...],
        patience: int | None = None,
    ):
        super().__init__()
        self._kept_model = model
        self._history = history
        self._monitor = monitor
        self._patience = patience
        self.best_weights: list[np.ndarray] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Ends an epoch whose loss, a mean since its start, cannot become finite again."""
        if not math.isfinite(logs["loss"]):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Compares the epoch just recorded in the history."""
        score = self._score(logs)
        if not all(map(math.isfinite, [*logs.values(), *score])):
            self.model.stop_training = True  # nothing good comes after NaN
            return
        if not self._history.best or score > self._score(self._history.best):
            self.best_weights = self._kept_model.get_weights()
            self._history.best_epoch = len(self._history.epochs)
        elif self._patience and self._epochs_without_progress() >= self._patience:
            self.model.stop_training = True

    def restore(self) -> None:
        """Puts the best weights back into the model."""
        if self.best_weights:
            self._kept_model.set_weights(self.best_weights)

    def _epochs_without_progress(self) -> int:
        """Those of the running phase."""
        rows = self._history.epochs
        in_phase = sum(row["phase"] == rows[-1]["phase"] for row in rows)
        return min(in_phase, len(rows) - self._history.best_epoch)

    def _score(self, logs: dict[str, float]) -> tuple[float, ...]:
        values = []
        for name in self._monitor:
            value = logs.get(name, logs.get(name.removeprefix("val_"), math.nan))
            values.append(-value if "loss" in name else value)
        return tuple(values)


class Record(keras.callbacks.Callback):
    """Adds a row an epoch to the history and tells the batches which epoch it is.

    Args:
        history: Receives the rows.
        batches: The training batches.
        phase: `history.DENSE_ONLY` or `history.FULL`.
        interruptible: Knows how long an epoch took, parts before an interruption included.
    """

    def __init__(
        self,
        history: History,
        batches: TrainingBatches,
        phase: str,
        interruptible: "Interruptible",
    ):
        super().__init__()
        self._history = history
        self._batches = batches
        self._phase = phase
        self._interruptible = interruptible

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Chooses the epoch's order."""
        self._batches.epoch = epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Writes the row."""
        self._history.epochs.append(
            {
                "epoch": len(self._history.epochs) + 1,
                "phase": self._phase,
                "learning_rate": float(self.model.optimizer.learning_rate),
                "seconds": round(self._interruptible.epoch_seconds, 3),
                **{name: float(value) for name, value in logs.items()},
            }
        )


class Interruptible(keras.callbacks.Callback):
    """Stops a training on request, and saves checkpoints so that it can go on as if it had not.

    Comes after `Record` and `KeepBest`, whose work at the end of an epoch belongs to what is saved.

    Args:
        model: The model that is trained; the one being fitted may be a part of it.
        history: Its record.
        keep_best: Its best weights.
        checkpoint: Where to save. If it holds a state, that is put into the other three at once,
            and into what is fitted by `begin_phase`.
        should_stop: Asked after every execution and every epoch.
    """

    def __init__(
        self,
        model: keras.Model,
        history: History,
        keep_best: KeepBest,
        checkpoint: Checkpoint | None,
        should_stop: Callable[[], bool],
    ):
        super().__init__()
        self._trained_model = model
        self._history = history
        self._keep_best = keep_best
        self._checkpoint = checkpoint
        self._should_stop = should_stop
        self._start = self._saved_at = time.perf_counter()
        self._cost = self._epoch_start = 0.0  # seconds
        self._metrics: list[np.ndarray] = []
        if state := self._state:
            self._start -= state.seconds
            self._epoch_start = state.epoch_start
            history.epochs[:] = state.rows
            history.best_epoch = state.best_epoch
            keep_best.best_weights = state.best_weights
            self._assign(model.variables, state.model)

    @property
    def _state(self) -> TrainingState | None:
        """What the checkpoint holds that is still to be put somewhere."""
        return self._checkpoint and self._checkpoint.state

    @property
    def phase(self) -> str | None:
        """The phase to go on with; None at the start of a training."""
        return self._state.phase if self._state else None

    @property
    def seconds(self) -> float:
        """Time spent on the training so far."""
        return time.perf_counter() - self._start

    @property
    def epoch_seconds(self) -> float:
        """Time spent on the epoch so far."""
        return self.seconds - self._epoch_start

    def begin_phase(
        self, fitted: keras.Model, phase: str, metric: keras.metrics.Metric
    ) -> tuple[int, int]:
        """Gives a compiled model the state in which its phase was left.

        Args:
            fitted: What is going to be fitted.
            phase: `history.DENSE_ONLY` or `history.FULL`.
            metric: The one that it is compiled with.

        Returns:
            The epoch to go on with, counted from 0, and how many of its batches are done.
        """
        loss, *_ = fitted.metrics  # the metric is among them only after the first batch
        self._counters = [*loss.variables, *metric.variables]
        self._phase = phase
        state = self._state
        if state is None:
            return 0, 0
        self._assign(fitted.optimizer.variables, state.optimizer)
        self._metrics = state.metrics
        self._checkpoint.state = None
        return state.epoch, state.step

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Goes on counting, after Keras has reset its metrics, or begins to."""
        self._epoch, self._step = epoch, 0
        if self._metrics:
            self._assign(self._counters, self._metrics)
            self._metrics = []
        else:
            self._epoch_start = self.seconds

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Saves and stops between two executions; the last one of an epoch is left to its end."""
        self._step = min(batch + 1, self.params["steps"])
        if self._step == self.params["steps"] or self.model.stop_training:
            return
        self.model.stop_training = self._should_stop()
        if self.model.stop_training or self._is_due(CHECKPOINT_SECONDS):
            self._save(self._epoch, self._step)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Saves and stops after a whole epoch; one cut short is evaluated, but not gone on from."""
        if self._step < self.params["steps"]:
            return
        phase_is_over = self.model.stop_training
        requested = self._should_stop()
        if self._history.best_epoch and (requested or self._is_due(0)):
            self._save(self.params["epochs"] if phase_is_over else epoch + 1, 0)
        self.model.stop_training = phase_is_over or requested

    def _is_due(self, seconds: float) -> bool:
        """Whether the last checkpoint is that old, and its cost long earned."""
        age = time.perf_counter() - self._saved_at
        return age >= max(seconds, self._cost / CHECKPOINT_SHARE)

    def _save(self, epoch: int, step: int) -> None:
        if self._checkpoint is None:
            return
        start = time.perf_counter()
        self._checkpoint.save(
            TrainingState(
                phase=self._phase,
                epoch=epoch,
                step=step,
                seconds=self.seconds,
                epoch_start=self._epoch_start,
                rows=self._history.epochs,
                best_epoch=self._history.best_epoch,
                model=_values(self._trained_model.variables),
                optimizer=_values(self.model.optimizer.variables),
                metrics=_values(self._counters) if step else [],
                best_weights=self._keep_best.best_weights,
            )
        )
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - start

    def _assign(self, variables: Sequence[Any], values: list[np.ndarray]) -> None:
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise DataError(
                self._checkpoint.path,
                "must fit the model, the optimizer and the version of Keras",
                f"{len(values)} arrays, of which some do not fit {len(variables)} variables",
                "Resume with the Keras that the run began with (environment.json names it).",
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


class AcrossFits(keras.callbacks.CallbackList):
    """Lets callbacks see one training of whole epochs where `fit` is called for parts of it.

    Args:
        callbacks: The callbacks.
        model: The model that is fitted.
        steps: Batches of a whole epoch.
        epochs: Epochs of the whole training.
        epoch: The one to begin with, counted from 0.
        step: How many of its batches are not going to be fitted.
        rows: Those of the history, for callbacks that look at `params`.
    """

    def __init__(
        self,
        callbacks: Sequence[keras.callbacks.Callback],
        model: keras.Model,
        *,
        steps: int,
        epochs: int,
        epoch: int,
        step: int,
        rows: list[dict[str, Any]],
    ):
        super().__init__(
            list(callbacks),
            add_history=True,
            model=model,
            steps=steps,
            epochs=epochs,
            done=epoch * steps + step,
            rows=rows,
        )
        self.first_step = step

    def __enter__(self) -> "AcrossFits":
        super().on_train_begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            super().on_train_end()

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Happens once, on entering."""

    def on_train_end(self, logs: dict | None = None) -> None:
        """Happens once, on leaving."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Counts from the start of the epoch."""
        super().on_train_batch_end(self.first_step + batch, logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Whatever follows the first epoch is whole."""
        super().on_epoch_end(epoch, logs)
        self.first_step = 0


class WatchCollapse(keras.callbacks.Callback):
    """Says loudly when an autoencoder does no better than drawing the mean image.

    Args:
        history: Its last row is judged.
        baseline_mse: Mean squared error of the mean training image, in squared units of [0, 1].
        warn: Receives the sentence, at most once.
    """

    def __init__(self, history: History, baseline_mse: float, warn: Callable[[str], None]):
        super().__init__()
        self._history = history
        self._baseline_mse = baseline_mse
        self._warn = warn

    def on_train_end(self, logs: dict | None = None) -> None:
        """Judges the last epoch."""
        last = self._history.epochs[-1]
        mse = last.get("val_mse", last["mse"])
        if mse >= COLLAPSE_MARGIN * self._baseline_mse:
            self._warn(
                f"The autoencoder has collapsed: its reconstructions have a mean squared error of "
                f"{mse:.4f}, no better than drawing the mean image for everything "
                f"({self._baseline_mse:.4f}). Use loss binary_crossentropy with "
                f"activation_function Sigmoid, a learning rate ten times smaller, or another seed; "
                f"if the loss was still falling, more epochs."
            )


class TellEpochs(keras.callbacks.Callback):
    """Tells a function of every epoch, for which `AcrossFits` knows the rows.

    Args:
        on_epoch: Receives the history's row.
    """

    def __init__(self, on_epoch: Callable[[dict[str, Any]], None]):
        super().__init__()
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Tells it."""
        self._on_epoch(self.params["rows"][-1])


class ShowProgress(keras.callbacks.Callback):
    """A bar with the time left on a terminal, a line an epoch elsewhere.

    Args:
        console: Where to draw; standard error, so that results stay alone on standard output.
        label: What is being trained, e.g. `autoencoder_small`.
        metrics: Which values the line of an epoch shows; their `val_` twins follow them.
        show_phase: Whether to name the phase, which is the name of the fitted model.
    """

    # Only reads counters, so Keras need not wait for the device after every execution.
    async_safe = True

    def __init__(
        self, console: Console, label: str, metrics: tuple[str, ...], show_phase: bool = False
    ):
        super().__init__()
        self._console = console
        self._label = label
        self._metrics = metrics
        self._show_phase = show_phase
        self._bar: Progress | None = None

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the bar."""
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("batches, left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            total = self.params["steps"] * self.params["epochs"]
            done = self.params.get("done", 0)  # before an interruption
            self._task = self._bar.add_task("", total=total, completed=done)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Names the epoch."""
        self._epoch = epoch
        if self._bar:
            self._bar.update(self._task, description=self._heading)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar; an execution may be cut short by the end of the epoch."""
        if self._bar:
            steps = self.params["steps"]
            done = self._epoch * steps + min(batch + 1, steps)
            self._bar.update(self._task, completed=done)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Prints the epoch's line, above the bar where there is one."""
        keys = [key for metric in self._metrics for key in (metric, f"val_{metric}")]
        values = "  ".join(f"{key} {logs[key]:.4f}" for key in keys if key in logs)
        self._console.print(f"{self._heading}  {values}")

    def on_train_end(self, logs: dict | None = None) -> None:
        """Removes the bar."""
        self.close()

    def close(self) -> None:
        """Gives the terminal back, however training ended."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    @property
    def _heading(self) -> str:
        phase = f", {self.model.name}" if self._show_phase else ""
        return f"{self._label}{phase}: epoch {self._epoch + 1}/{self.params['epochs']}"


def learning_rate_at(schedule: tuple | None, rate: float, epoch: int, epochs: int) -> float:
    """The learning rate of one epoch.

    Args:
        schedule: None (constant), `("cosine",)` (half a cosine to 0 after the last epoch;
            Loshchilov & Hutter 2017, "SGDR"), `("exponential", factor)` a factor an epoch, or
            `("step", every, factor)` a factor every so many epochs.
        rate: The first epoch's rate.
        epoch: Counted from 0 within its phase.
        epochs: Epochs of the phase.
    """
    match schedule:
        case None:
            return rate
        case ("cosine",):
            return rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        case ("exponential", factor):
            return rate * factor**epoch
        case ("step", every, factor):
            return rate * factor ** (epoch // every)
    raise ValueError(f"unknown learning_rate_schedule {schedule!r}")


def schedule_callback(schedule: Any, rate: float, epochs: int) -> keras.callbacks.Callback:
    """Sets the rate of `learning_rate_at` at the start of every epoch."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch, _: learning_rate_at(schedule, rate, epoch, epochs)
    )
