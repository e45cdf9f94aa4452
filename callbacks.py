"""What happens while a model trains: best weights, the record, progress, and warnings."""

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from batches import TrainingBatches
from history import History

# A reconstruction must beat the mean image by this factor of its error to count as learning.
COLLAPSE_MARGIN = 0.95


class KeepBest(keras.callbacks.Callback):
    """Keeps the best weights in memory, puts them back at the end, and stops without progress.

    Keras' `EarlyStopping` and `ModelCheckpoint` each do half of this, and neither remembers
    across two calls of `fit`.

    Args:
        model: The model whose weights are kept; the one being fitted may be a part of it.
        history: Where `best_epoch` is recorded.
        monitor: Metric names in order of importance; later ones break ties. Names with
            `loss` are better when smaller, all others when larger. `val_` is dropped from a name
            when there is no validation data.
        patience: Epochs without improvement before training stops; None never stops.
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
        self._best_score: tuple[float, ...] | None = None
        self._best_weights: list[np.ndarray] | None = None
        self._epochs_without_progress = 0

    def on_train_begin(self, logs: dict | None = None) -> None:
        """A new phase gets all of its patience."""
        self._epochs_without_progress = 0

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
        if self._best_score is None or score > self._best_score:
            self._best_score = score
            self._best_weights = self._kept_model.get_weights()
            self._history.best_epoch = len(self._history.epochs)
            self._epochs_without_progress = 0
            return
        self._epochs_without_progress += 1
        if self._patience and self._epochs_without_progress >= self._patience:
            self.model.stop_training = True

    def restore(self) -> None:
        """Puts the best weights back into the model."""
        if self._best_weights is not None:
            self._kept_model.set_weights(self._best_weights)

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
    """

    def __init__(self, history: History, batches: TrainingBatches, phase: str):
        super().__init__()
        self._history = history
        self._batches = batches
        self._phase = phase

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock and the epoch's order."""
        self._batches.epoch = epoch
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Writes the row."""
        self._history.epochs.append(
            {
                "epoch": len(self._history.epochs) + 1,
                "phase": self._phase,
                "learning_rate": float(self.model.optimizer.learning_rate),
                "seconds": round(time.perf_counter() - self._start, 3),
                **{name: float(value) for name, value in logs.items()},
            }
        )


class StopOnRequest(keras.callbacks.Callback):
    """Ends training after the current step once `requested` says so."""

    def __init__(self, requested: Callable[[], bool]):
        super().__init__()
        self._requested = requested

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Looks once an execution."""
        if self._requested():
            self.model.stop_training = True


class WatchCollapse(keras.callbacks.Callback):
    """Says loudly when an autoencoder does no better than drawing the mean image.

    Args:
        baseline_mse: Mean squared error of the mean training image, in squared units of [0, 1].
        warn: Receives the sentence, at most once.
    """

    def __init__(self, baseline_mse: float, warn: Callable[[str], None]):
        super().__init__()
        self._baseline_mse = baseline_mse
        self._warn = warn
        self._last_mse = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Remembers the epoch's error."""
        self._last_mse = logs.get("val_mse", logs["mse"])

    def on_train_end(self, logs: dict | None = None) -> None:
        """Judges the last epoch."""
        if self._last_mse >= COLLAPSE_MARGIN * self._baseline_mse:
            self._warn(
                f"The autoencoder has collapsed: its reconstructions have a mean squared error of "
                f"{self._last_mse:.4f}, no better than drawing the mean image for everything "
                f"({self._baseline_mse:.4f}). Use loss binary_crossentropy with "
                f"activation_function Sigmoid, a learning rate ten times smaller, or another seed; "
                f"if the loss was still falling, more epochs."
            )


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
            self._task = self._bar.add_task("", total=total)

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
