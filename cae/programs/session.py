"""One start of a program: trains its configurations, compares them and saves the best."""

import itertools
import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cae import terminal
from cae.config.choices import CLUSTER
from cae.config.schema import Config
from cae.config.shipped import PROJECT
from cae.errors import UserError, readable
from cae.programs.task import Experiment, Task
from cae.programs.trainer import Trainer
from cae.records.history import OnEpoch
from cae.records.run import MODEL_FILE

# Prints the table that compares complete runs, given their directories.
Compare = Callable[[Sequence[Path]], object]


class Session:
    """The experiments of one start.

    Attributes:
        experiments: Those that were trained, in order.
        last_config: The configuration of the latest.
    """

    def __init__(self, task: Task, compare: Compare, on_epoch: OnEpoch | None = None):
        self.task = task
        self._compare = compare
        self.experiments: list[Experiment] = []
        self._args = task.args
        self._trainer = Trainer(task, on_epoch)
        self._exit_code = 0
        self.last_config: Config | None = None
        self._interrupted: Experiment | None = None

    @property
    def is_stopped(self) -> bool:
        """Whether a signal asked for the end."""
        return self._trainer.stop.requested()

    @property
    def exit_code(self) -> int:
        """0, 2 when a configuration could not be trained, or 128 plus the signal that came."""
        return self._trainer.stop.exit_code or self._exit_code

    def run(self, configs: list[tuple[str, Config]]) -> int:
        """Trains the configurations and concludes; returns the exit code."""
        with self._joined_workers():
            for name, config in configs:
                try:
                    self.train(name, config)
                except UserError as error:
                    if self._trainer.workers:
                        raise  # the others may not have failed
                    self._exit_code = terminal.report(error)
                if self.is_stopped:
                    break
            self.conclude()
        return self.exit_code

    def train(self, name: str, config: Config) -> None:
        """Trains one configuration under a name that none of the others has."""
        self.last_config = config
        experiment = self._trainer.train(self._full_name(name), config)
        if experiment is None:
            return
        if experiment.run.interrupted:
            self._interrupted = experiment
        else:
            self.experiments.append(experiment)
        if experiment.history.divergence and not self.is_stopped:
            self._exit_code = terminal.report(experiment.history.divergence)

    def keep_interrupted(self) -> None:
        """Keeps the model so far of a training that Ctrl-C ended, and continues the dialogue."""
        if self._interrupted and self._trainer.stop.exit_code == 128 + signal.SIGINT:
            self._trainer.stop.exit_code = 0
            self.experiments.append(self._interrupted)
            self._interrupted = None

    def conclude(self) -> None:
        """Compares the experiments, saves the best on demand, and prints the next command."""
        complete = [one for one in self.experiments if not one.run.interrupted]
        if not complete or self._interrupted:
            return
        best = max(complete, key=lambda experiment: experiment.score)
        if len(complete) > 1:
            self._compare([experiment.run.path for experiment in complete])
            if not self._args.no_plots:
                self.save_comparison()
        saved = best.run.path / MODEL_FILE
        if self._args.save:
            saved = best.save(self._args.save, overwrite=self._args.overwrite)
            first = ", the first of the table," if len(complete) > 1 else ""
            terminal.say(f"Saved {best.name}{first} as {terminal.relative(saved)}")
        terminal.print_as_is(f"Next: {shlex.join(self.task.next_command(saved))}")
        if self._args.show and not self.is_stopped:
            self.show_windows()

    def save_comparison(self) -> None:
        """Saves a figure that compares the experiments in the directory of the latest."""
        if len(self.experiments) < 2:
            return
        from cae.figures.comparisons import plot_comparison

        histories = [experiment.history for experiment in self.experiments]
        names = terminal.drop_common_start([history.name for history in histories])
        figure = plot_comparison(
            [replace(h, name=name) for h, name in zip(histories, names, strict=True)]
        )
        (path,) = self.experiments[-1].run.save_figures({"comparison": figure})
        terminal.say(f"Comparison: {terminal.relative(path)}")

    def show_windows(self) -> None:
        """Opens the figures of all experiments where there is a display."""
        from cae.figures.windows import show_windows

        show_windows(self.task.draw_all(self.experiments))

    def _full_name(self, name: str) -> str:
        """The name of a run: --name, made distinct where it would name several."""
        if self._args.name:
            name = self._args.name if len(self._args.config) < 2 else f"{self._args.name}-{name}"
        name = readable(name)  # figures show it
        taken = {experiment.name for experiment in self.experiments}
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([name], numbered) if name not in taken)

    @contextmanager
    def _joined_workers(self) -> Iterator[None]:
        """Joins the workers that --devices names, which train every model together."""
        if self._args.devices is None:
            yield
            return
        with terminal.starting_keras():
            from cae.training import data_parallel
        if self._args.devices == CLUSTER:
            terminal.announce("Waiting for the other workers")
        _, *flags = shlex.split(self._args.command)
        command = [str(PROJECT / self.task.program), *flags]
        with data_parallel.joined(self._args.devices, command) as workers:
            if workers is None:
                terminal.warn(
                    f"--devices {self._args.devices}: found one device; training on it alone."
                )
            self._trainer.workers = workers
            yield
