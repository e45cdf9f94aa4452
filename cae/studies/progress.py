"""The progress of a study on the terminal: a live table, and the time left. No Keras."""

import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cae import terminal
from cae.config.schema import Config
from cae.config.study import Trial
from cae.config.study_schema import Study
from cae.records.history import OnEpoch
from cae.studies.results import DONE, FAILED, STOPPED, WAITING


@dataclass
class Outcome:
    """The current state of a trial."""

    trial: Trial
    status: str = WAITING  # or DONE, FAILED, STOPPED
    reason: str = ""  # why it failed or was stopped, in one line
    value: float = math.nan  # the study's metric, when it is known
    seconds: float = 0.0  # of training, when it is done


class ProgressTable:
    """The progress of a study: a live table on a terminal, one line per trial elsewhere.

    Args:
        console: Standard error.
        study: The study.
        outcomes: Its trials; the table follows their changes.
        total: The final number of trials.

    Attributes:
        parallel: How many trials are trained at the same time.
        seconds_per_epoch: Measured on the running trial; None before its first epoch.
    """

    def __init__(self, console: Console, study: Study, outcomes: Sequence[Outcome], total: int):
        # A console of its own: during a trial the output of the other goes to a log.
        self._console = Console(**terminal.PLAIN, file=console.file)
        self._study = study
        self._outcomes = outcomes
        self._total = total
        self.parallel = 1
        self.seconds_per_epoch: float | None = None
        self._note = ""
        self._start: float | None = None  # of the running trial
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "ProgressTable":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @contextmanager
    def timing(self, outcome: Outcome) -> Iterator[OnEpoch]:
        """Measures the seconds of a trial trained inside; yields what to call with each epoch."""
        self._start, epochs = time.monotonic(), itertools.count(1)

        def on_epoch(row: dict[str, Any]) -> None:
            seconds = (time.monotonic() - self._start) / next(epochs)
            value = row.get(self._study.metric, math.nan)
            self.show_epoch(outcome.trial, row["epoch"], value, seconds)

        try:
            yield on_epoch
        finally:
            outcome.seconds = time.monotonic() - self._start
            self._start = None

    def show_epoch(self, trial: Trial, epoch: int, value: float, seconds: float) -> None:
        """Shows an epoch below the live table; `seconds` is how long one takes."""
        self._note = f"{trial.id}: epoch {epoch}, {value:.4g}"
        self.seconds_per_epoch = seconds

    def announce(self, text: str) -> None:
        """Shows a line below the live table; prints it where there is none."""
        self._note = text
        if not self._console.is_terminal:
            self._console.print(text)

    def show(self, outcome: Outcome) -> None:
        """Prints the result of a trial where there is no live table."""
        if self._console.is_terminal:
            return
        place = self._outcomes.index(outcome) + 1
        result = outcome.reason or f"{self._study.metric} {outcome.value:.4g}"
        self._console.print(
            f"[{place}/{self._total}] {outcome.trial.id}: {outcome.status}, {result}; "
            f"best so far {self._best(self._outcomes)}{self._describe_time_left()}"
        )

    def _best(self, outcomes: Sequence[Outcome], base: str = "") -> str:
        """The best value so far, with what the configuration changes of the base."""
        done = [outcome for outcome in outcomes if outcome.status == DONE]
        choose = max if self._study.is_larger_better else min
        best = choose(done, key=lambda outcome: outcome.value, default=None)
        if not best:
            return "none"
        if best.trial.configuration == base:
            return f"{best.value:.4g} (unchanged)"
        change = best.trial.configuration.removeprefix(f"{base}-")
        return f"{best.value:.4g} ({change if base else best.trial.name})"

    def estimate_seconds_left(self) -> float | None:
        """Seconds until the last trial is done; None before the first epoch of the first trial."""
        left = [outcome.trial for outcome in self._outcomes if outcome.status == WAITING]
        unknown = self._total - len(self._outcomes)  # not suggested yet
        if unknown and not self._outcomes:
            return None
        left += [self._outcomes[0].trial] * unknown if unknown else []
        estimates = [self._estimate_seconds(trial) for trial in left]
        if None in estimates:
            return None
        spent = 0.0 if self._start is None else time.monotonic() - self._start
        return max(0.0, sum(estimates) / self.parallel - spent)

    def _estimate_seconds(self, trial: Trial) -> float | None:
        """By the finished trials, those of the same base if any; before, by the running trial.

        Before, it is None for a trial with `min_steps`, whose epochs follow from its images.
        """
        done = [outcome for outcome in self._outcomes if outcome.status == DONE]
        known = [outcome for outcome in done if outcome.trial.base == trial.base] or done
        rate = None if trial.config.min_steps else self.seconds_per_epoch
        if known:
            epochs = sum(count_epochs(outcome.trial.config) for outcome in known)
            rate = sum(outcome.seconds for outcome in known) / epochs
        return None if rate is None else rate * count_epochs(trial.config)

    def _describe_time_left(self) -> str:
        if sum(outcome.status != WAITING for outcome in self._outcomes) == self._total:
            return "; finished"
        seconds = self.estimate_seconds_left()
        return "" if seconds is None else f"; about {format_duration(seconds)} left"

    def _draw(self) -> Table:
        """One row per base, so that the table fits the screen however many trials there are."""
        counts = Counter(outcome.status for outcome in self._outcomes)
        stopped = [STOPPED] if counts[STOPPED] else []
        table = Table(
            *("base", "done", "failed", *stopped, f"best {self._study.metric} so far"),
            title=f"{self._study.name}: {counts[DONE]} of {self._total} trials done"
            f"{self._describe_time_left()}",
            title_justify="left",
            caption=self._note[: self._console.width],
            caption_justify="left",
        )
        bases = list(dict.fromkeys(outcome.trial.base for outcome in self._outcomes))
        for base, name in zip(bases, terminal.drop_common_start(bases), strict=True):
            members = [outcome for outcome in self._outcomes if outcome.trial.base == base]
            status = Counter(outcome.status for outcome in members)
            numbers = [str(status[name]) for name in (FAILED, *stopped)]
            best = self._best(members, base)
            table.add_row(name, f"{status[DONE]}/{len(members)}", *numbers, best)
        return table


def count_epochs(config: Config) -> int:
    """The epochs of a training; of both phases of a classifier; without what `min_steps` adds."""
    return sum(value for key, value in config.model_dump().items() if key.endswith("epochs"))


def format_duration(seconds: float) -> str:
    """``2 h 5 min``, ``5 min`` or ``40 s``."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
