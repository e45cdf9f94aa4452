"""The progress of a study on the terminal: a live table, and the time left. No Keras."""

import math
import time
from collections import Counter
from collections.abc import Iterator
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
from cae.studies.results import DONE, FAILED, STOPPED, WAITING


@dataclass
class Outcome:
    """The current state of a trial.

    Attributes:
        trial: The trial.
        status: `DONE`, `FAILED`, `STOPPED` (early, because others were better) or `WAITING`.
        reason: Why it failed or was stopped, in one line.
        value: The study's metric; NaN until it is known.
        seconds: Its training time; 0 until it is done.
    """

    trial: Trial
    status: str = WAITING
    reason: str = ""
    value: float = math.nan
    seconds: float = 0.0


class ProgressTable:
    """The progress of a study: a live table on a terminal, one line per trial elsewhere.

    Args:
        console: Standard error.
        study: The study.
        outcomes: Its trials; the table follows their changes.
        total: The final number of trials; by default those in `outcomes`.

    Attributes:
        parallel: How many trials are trained at the same time.
        seconds_per_epoch: Measured on the running trial; None before its first epoch.
    """

    def __init__(
        self,
        console: Console,
        study: Study,
        outcomes: list[Outcome],
        total: int | None = None,
    ):
        # A console of its own: during a trial the output of the other goes to a log.
        self._console = Console(**terminal.PLAIN, file=console.file)
        self._study = study
        self._outcomes = outcomes
        self._total = total or len(outcomes)
        self.parallel = 1
        self._note = ""
        self.seconds_per_epoch: float | None = None
        self._start: float | None = None  # of the running trial
        self._epochs = 0
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
    def timing(self, outcome: Outcome) -> Iterator[None]:
        """Measures the seconds of a trial that is trained inside."""
        self._start, self._epochs = time.monotonic(), 0
        try:
            yield
        finally:
            outcome.seconds = time.monotonic() - self._start
            self._start = None

    def count_epoch(self, row: dict[str, Any]) -> None:
        """Counts an epoch of the trial that is being timed."""
        self._epochs += 1
        self.seconds_per_epoch = (time.monotonic() - self._start) / self._epochs

    def set_note(self, text: str) -> None:
        """Sets the line below the live table."""
        self._note = text

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

    def _best(self, outcomes: list[Outcome]) -> str:
        done = [outcome for outcome in outcomes if outcome.status == DONE]
        if not done:
            return "none"
        choose = max if self._study.larger_is_better else min
        best = choose(done, key=lambda outcome: outcome.value)
        return f"{best.value:.4g} ({best.trial.configuration})"

    def estimate_seconds_left(self) -> float | None:
        """Seconds until the last trial is done; None before the first epoch of the first trial."""
        waiting = [outcome for outcome in self._outcomes if outcome.status == WAITING]
        estimates = [self._estimate_seconds(outcome.trial) for outcome in waiting]
        unknown = self._total - len(self._outcomes)  # not suggested yet
        if unknown:
            known = [self._estimate_seconds(outcome.trial) for outcome in self._outcomes[:1]]
            estimates += (known or [None]) * unknown
        if None in estimates:
            return None
        left = sum(estimates) / self.parallel
        if self._start is not None:
            left -= time.monotonic() - self._start
        return max(0.0, left)

    def _estimate_seconds(self, trial: Trial) -> float | None:
        """By the finished trials, those of the same base if any; before, by the running trial."""
        done = [outcome for outcome in self._outcomes if outcome.status == DONE]
        known = [outcome for outcome in done if outcome.trial.base == trial.base] or done
        rate = self.seconds_per_epoch
        if known:
            epochs = sum(count_epochs(outcome.trial.config) for outcome in known)
            rate = sum(outcome.seconds for outcome in known) / epochs
        return None if rate is None else rate * count_epochs(trial.config)

    def _describe_time_left(self) -> str:
        seconds = self.estimate_seconds_left()
        if seconds is None:
            return ""
        is_finished = self._total == len(self._outcomes) and all(
            outcome.status != WAITING for outcome in self._outcomes
        )
        return "; finished" if is_finished else f"; about {format_duration(seconds)} left"

    def _draw(self) -> Table:
        """One row per base, so that the table fits the screen however many trials there are."""
        counts = Counter(outcome.status for outcome in self._outcomes)
        table = Table(
            title=f"{self._study.name}: {counts[DONE]} of {self._total} trials done"
            f"{self._describe_time_left()}",
            title_justify="left",
            caption=self._note[: self._console.width],
            caption_justify="left",
        )
        stopped = [STOPPED] if counts[STOPPED] else []
        for heading in ("base", "done", "failed", *stopped, f"best {self._study.metric} so far"):
            table.add_column(heading)
        for base in dict.fromkeys(outcome.trial.base for outcome in self._outcomes):
            members = [outcome for outcome in self._outcomes if outcome.trial.base == base]
            status = Counter(outcome.status for outcome in members)
            table.add_row(
                base,
                f"{status[DONE]}/{len(members)}",
                str(status[FAILED]),
                *(str(status[name]) for name in stopped),
                self._best(members),
            )
        return table


def count_epochs(config: Config) -> int:
    """The epochs of a training; of a classifier those of both phases."""
    return sum(value for key, value in config.model_dump().items() if key.endswith("epochs"))


def format_duration(seconds: float) -> str:
    """``2 h 5 min``, ``5 min`` or ``40 s``."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
