"""What the loop calls as it trains: best weights, checkpoints, progress."""

import math
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cae.errors import DataError
from cae.records.checkpoint import Checkpoint, TrainingState
from cae.records.history import History
from cae.training.steps import Objective

# Within long epochs: what a power failure may cost at most.
CHECKPOINT_SECONDS = 120
# Largest share of the training time that checkpoints may take.
CHECKPOINT_SHARE = 0.02
LOG_WIDTH = 80  # columns
NARROW = 100  # columns of a terminal that are too few for the name of a run beside a bar


class BestWeights:
    """Keeps the weights of the best epoch in memory, and decides when to stop early.

    Every decision follows from the history, so an interrupted training decides the same.

    Args:
        model: Whose weights are kept.
        history: Read, and told the `best_epoch`.
        monitor: Metric names in order of importance; later ones break ties. Names with
            `loss` are better when smaller, all others when larger. Without any the last epoch is
            the best.
        patience: Epochs without improvement before training stops, counted anew in each phase;
            None never stops.

    Attributes:
        weights: At the end of the best epoch; empty before there is one.
    """

    def __init__(
        self,
        model: keras.Model,
        history: History,
        monitor: tuple[str, ...],
        patience: int | None = None,
    ):
        self._model = model
        self._history = history
        self._monitor = monitor
        self._patience = patience
        self.weights: list[np.ndarray] = []

    def update(self, results: dict[str, float]) -> bool:
        """Compares the results of the epoch that the history has just recorded with the best one.

        Returns:
            Whether training should continue: all values are finite, and patience has not run out.
        """
        score = self._score(results)
        if not all(map(math.isfinite, [*results.values(), *score])):
            return False  # nothing good comes after NaN
        if not self._history.best or score > self._score(self._history.best) or not score:
            self.weights = _values(self._model.weights)
            self._history.best_epoch = len(self._history.epochs)
            return True
        rows = self._history.epochs
        in_phase = sum(row["phase"] == rows[-1]["phase"] for row in rows)
        without_progress = min(in_phase, len(rows) - self._history.best_epoch)
        return not self._patience or without_progress < self._patience

    def restore(self) -> None:
        """Puts the best weights back into the model."""
        if self.weights:
            self._model.set_weights(self.weights)

    def _score(self, results: dict[str, float]) -> tuple[float, ...]:
        return tuple(-results[key] if "loss" in key else results[key] for key in self._monitor)


class Checkpoints:
    """Saves a training now and then, and restores one that was interrupted, to the same bits.

    What the checkpoint holds is put into the model, its history and its best weights at once, and
    into the rest by `begin_phase`. Without a checkpoint nothing is saved.
    """

    def __init__(
        self,
        model: keras.Model,
        history: History,
        best: BestWeights,
        checkpoint: Checkpoint | None,
    ):
        self._model = model
        self._history = history
        self._best = best
        self._checkpoint = checkpoint
        self._start = self._saved_at = time.perf_counter()
        self._cost = self._epoch_start = 0.0  # seconds
        if state := self._state:
            self._start -= state.seconds
            self._epoch_start = state.epoch_start
            history.epochs[:] = state.rows
            history.best_epoch = state.best_epoch
            best.weights = state.best_weights
            self._assign(model.variables, state.model)

    @property
    def _state(self) -> TrainingState | None:
        """What the file holds and is not restored in whole yet."""
        return self._checkpoint and self._checkpoint.state

    @property
    def phase(self) -> str | None:
        """The phase in which an interrupted training continues; None for a new training."""
        return self._state.phase if self._state else None

    @property
    def seconds(self) -> float:
        """Time spent on the training, without interruptions."""
        return time.perf_counter() - self._start

    @property
    def epoch_seconds(self) -> float:
        """Time spent on the current epoch, without interruptions."""
        return self.seconds - self._epoch_start

    def begin_phase(
        self, phase: str, optimizer: keras.optimizers.Optimizer, objective: Objective
    ) -> tuple[int, int]:
        """Restores the optimizer, which is built, and the metrics if this phase was interrupted.

        Returns:
            The first epoch to train, counted from 0, and how many of its batches are done.
        """
        self._phase, self._optimizer, self._objective = phase, optimizer, objective
        state = self._state
        if state is None:
            return 0, 0
        self._assign(optimizer.variables, state.optimizer)
        self._assign(objective.state, state.objective)
        if state.step:
            self._assign(objective.metric_variables, state.metrics)
        self._checkpoint.state = None
        return state.epoch, state.step

    def begin_epoch(self) -> None:
        """Starts the clock of a new epoch."""
        self._epoch_start = self.seconds

    def is_due(self, *, within_epoch: bool) -> bool:
        """Whether to save: the last checkpoint is old enough, and its cost is small by now."""
        age = time.perf_counter() - self._saved_at
        least = CHECKPOINT_SECONDS if within_epoch else 0.0
        return age >= max(least, self._cost / CHECKPOINT_SHARE)

    def save(self, epoch: int, step: int) -> None:
        """Saves everything: `step` batches of `epoch`, counted from 0, are done."""
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
                model=_values(self._model.variables),
                optimizer=_values(self._optimizer.variables),
                objective=_values(self._objective.state),
                metrics=_values(self._objective.metric_variables) if step else [],
                best_weights=self._best.weights,
            )
        )
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - start

    def _assign(self, variables: Sequence[Any], values: list[np.ndarray]) -> None:
        if [tuple(variable.shape) for variable in variables] != [value.shape for value in values]:
            raise DataError(
                self._checkpoint.path,
                "must fit the model, the optimizer and the version of Keras",
                f"{len(values)} arrays that do not fit {len(variables)} variables",
                "Resume with the version of Keras that environment.json names.",
            )
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    """Copies; of a variable without dimensions too, where Keras' `get_weights` gives a number."""
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


class ShowProgress(keras.callbacks.Callback):
    """A bar with the time left on a terminal, and a line per epoch.

    Args:
        console: Where to draw; standard error leaves standard output to results.
        name: What is being trained, e.g. `autoencoder_small`.
        metrics: What the line of an epoch shows, each followed by its `val_` value.
        show_phase: Whether to name the phase.
    """

    def __init__(
        self, console: Console, name: str, metrics: tuple[str, ...], show_phase: bool = False
    ):
        super().__init__()
        self._console = console
        self._name = name
        self._metrics = metrics
        self._show_phase = show_phase
        self._bar: Progress | None = None
        self._explained = False  # what the slash means

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Opens the bar."""
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=40 if self._console.width > NARROW else 10),
                MofNCompleteColumn(),
                TextColumn("batches, left" if self._console.width > NARROW else "left"),
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
            is_narrow = self._console.width <= NARROW
            heading = self._short_heading if is_narrow else self._heading
            self._bar.update(self._task, description=heading)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Moves the bar."""
        if self._bar:
            done = self._epoch * self.params["steps"] + batch + 1
            self._bar.update(self._task, completed=done)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Prints the epoch's line, above the bar where there is one.

        Where the terminal, or 80 columns of a log, are too narrow, training and validation values
        stand as `loss 0.31/0.28`, then without the name, on several lines if they must.
        """
        pairs = [
            (metric, {key: logs[key] for key in (metric, f"val_{metric}") if key in logs})
            for metric in self._metrics
        ]
        each = [f"  {key} {value:.4f}" for _, values in pairs for key, value in values.items()]
        short = [
            f"  {metric} {'/'.join(f'{value:.4f}' for value in values.values())}"
            for metric, values in pairs
        ]
        room = self._console.width if self._console.is_terminal else LOG_WIDTH
        for parts in (each, short):
            line = "".join([self._heading, *parts])
            if len(line) <= room:
                break
        else:
            line = self._short_heading
            for part in short:
                is_full = len(line.splitlines()[-1] + part) > room
                line += f"\n{part}" if is_full else part
        if not line.endswith(each[-1]) and not self._explained:
            self._console.print("Each epoch, training/validation:")
            self._explained = True
        self._console.print(line)

    def close(self) -> None:
        """Removes the bar, also after an exception."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, logs: dict | None = None) -> None:  # noqa: D102
        self.close()

    @property
    def _heading(self) -> str:
        phase = f", {self.params['phase']}" if self._show_phase else ""
        return f"{self._name}{phase}: epoch {self._epoch + 1}/{self.params['epochs']}"

    @property
    def _short_heading(self) -> str:
        phase = self.params["phase"] if self._show_phase else "epoch"
        return f"{phase} {self._epoch + 1}/{self.params['epochs']}"
