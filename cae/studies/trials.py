"""The trials of a study: each an ordinary run, started, gone on with and recorded.

A trial is the command line that a person would type, given to `main` of its program in this
process, with its output in a log.
"""

import argparse
import gc
import importlib
import io
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cae import terminal
from cae.config.load import dump_config
from cae.config.study import StudyFile, Trial, expand
from cae.config.study_schema import Base, Study
from cae.data.datasets import check_dataset, load_dataset
from cae.data.named import NAMED_DATASETS
from cae.errors import UsageError, UserError
from cae.files import get_record, replace_file
from cae.records import tracking
from cae.records.run import PARTIAL, START_FILE, TRIALS_FILE, check_runs_dir
from cae.records.saved_models import read_metadata
from cae.studies.compare import DONE, best_model, best_paths, read_result, read_study
from cae.studies.workload import estimate_training, format_duration, get_encoder_layers
from cae.training import frozen

PROGRAMS = {"autoencoder": "autoencoder", "classifier": "classification"}
# The files of a study and what they hold, for docs/reference.md.
FILES = {
    "trials.json": "the study, its command, and every trial with its status",
    "<trial>/": "the run of one trial",
    "configuration/": "the configuration of every trial",
    "logs/": "the output of every trial",
    "results.csv": "one row per configuration: mean, standard deviation and best value over its "
    "seeds",
    "plots/": "the figures of the comparison, and of the best classifier",
    "optuna.journal": "with `--ray` and a search: the state of the search",
    "report.html": "the page that `experiments.py report` writes",
}
FAILED, STOPPED, WAITING = "failed", "stopped", "waiting"


@dataclass
class Outcome:
    """What became of a trial.

    Attributes:
        trial: What was to be trained.
        status: `DONE`, `FAILED`, `STOPPED` (early, because others were better) or `WAITING`.
        reason: Why it failed or was stopped, in a line.
        value: The study's metric; NaN until it is done.
        expected_seconds: What it should take on 2 cores.
        seconds: What it took; 0 until it is done.
    """

    trial: Trial
    status: str = WAITING
    reason: str = ""
    value: float = math.nan
    expected_seconds: float = 0.0
    seconds: float = 0.0


class Stage:
    """One study while it runs.

    Args:
        file: The study.
        folder: Where its trials are recorded.
        args: The flags.
        finalists: Names of the bases and configurations that have come through a screening; all
            without one.
    """

    def __init__(
        self,
        file: StudyFile,
        folder: Path,
        args: argparse.Namespace,
        finalists: set[tuple[str, str]] | None = None,
    ):
        self.study = file.study
        self.folder = folder
        self.args = args
        self.tracker_flags = tracking.get_trial_flags(args, folder.relative_to(args.runs_dir))
        self._file = file
        self._data = self._identify_data()
        self._models = {base.label: self._find_model(file, base) for base in self.study.bases}
        self.outcomes: list[Outcome] = []
        self._add(
            trial
            for trial in self._expand()
            if finalists is None or (trial.base, trial.configuration) in finalists
        )

    def _expand(self) -> list[Trial]:
        """What there is to train."""
        return expand(self._file, self._data, self._models)

    def _add(self, trials: Iterable[Trial]) -> list[Outcome]:
        """Takes up trials, with the results of those that are recorded already."""
        added = [Outcome(trial, expected_seconds=self._estimate(trial)) for trial in trials]
        for outcome in added:
            if (self.folder / outcome.trial.id).exists():
                self._judge(outcome)
        self.outcomes += added
        return added

    def _open_board(self) -> "Board":
        return Board(terminal.ERR, self.study, self.outcomes)

    def _estimate(self, trial: Trial) -> float:
        num_images, shape = check_dataset(self.study.data.dataset, self.study.data.labels)
        used = min(num_images, self.study.data.limit or num_images)
        layers = get_encoder_layers(trial.model) if trial.model else None
        return estimate_training(trial.config, shape, used, layers)

    def _identify_data(self) -> list[Any]:
        """What tells the data from others: its files' SHA-256 and the limit."""
        data, labelled = self.study.data, self.study.kind == "classifier"
        sets = [load_dataset(data.dataset, data.labels, limit=1, labels_required=labelled)]
        if labelled and (data.test or data.dataset in NAMED_DATASETS):
            test = data.test or data.dataset
            sets.append(load_dataset(test, data.test_labels, split="test", limit=1))
        digests = [file["sha256"] for dataset in sets for file in dataset.files]
        return [*digests, data.limit]

    def _find_model(self, file: StudyFile, base: Base) -> tuple[str | None, str | None]:
        """The model a base takes its encoder from, and what tells it from others."""
        if base.encoder:
            path = best_model(self.folder.parent / base.encoder.study, base.encoder)
        elif base.model:
            path = file.resolve(base.model)
            read_metadata(path)
        else:
            return None, None
        return str(path), get_record(path)["sha256"]

    def run(self) -> int:
        """Trains what is not done yet; returns the exit code."""
        for name in ("logs", "configuration"):
            check_runs_dir(self.folder / name)
        self._write_trials()
        with frozen.sharing(), self._open_board() as board:
            exit_code = self._train_waiting(board)
            while exit_code <= 128 and self._has_lost_models():
                exit_code = self._train_waiting(board)
        if exit_code > 128:
            return exit_code
        failed = [outcome for outcome in self.outcomes if outcome.status == FAILED]
        for outcome in failed:
            terminal.ERR.print(f"failed: {outcome.trial.id}: {outcome.reason}")
        return terminal.EXIT_USER_ERROR if failed else 0

    def _train_waiting(self, board: "Board") -> int:
        """Trains one trial after another; returns the exit code of the last one."""
        exit_code = 0
        for outcome in [o for o in self.outcomes if o.status == WAITING]:
            exit_code = self._run_trial(outcome, board)
            self._write_trials()
            if exit_code > 128:
                break
            board.show(outcome)
        return exit_code

    def _has_lost_models(self) -> bool:
        """Makes trials wait again that are now the best of their base, but have lost their models.

        Those of other trials are deleted, and with more seeds another trial may be the best. The
        same seed gives the same weights again.
        """
        best = best_paths(read_study(self.folder), self.study.metric)
        lost = {path for path in best if not (path / "model.keras").exists()}
        for outcome in self.outcomes:
            path = self.folder / outcome.trial.id
            if path in lost:
                shutil.rmtree(path)
                outcome.status, outcome.seconds = WAITING, 0.0
        return bool(lost)

    def _run_trial(self, outcome: Outcome, board: "Board") -> int:
        """Trains one trial or goes on with it; returns the exit code of its program."""
        log_path = self.folder / "logs" / f"{outcome.trial.id}.txt"
        with (
            log_path.open("a", encoding="utf-8", errors="backslashreplace") as file,
            board.following(outcome, Log(file)) as log,
        ):
            arguments = get_arguments(self.study, self.folder, outcome.trial, self.tracker_flags)
            exit_code = call(PROGRAMS[self.study.kind], arguments, log)
        if exit_code <= 128:
            self._judge(outcome, log.error)
        return exit_code

    def _judge(self, outcome: Outcome, reason: str = "") -> None:
        """Takes the result of a trial from its record; `reason` is why there may be none."""
        outcome.status = FAILED
        path = self.folder / outcome.trial.id
        if not path.exists():
            outcome.reason = reason or "it left no record"
            return
        try:
            history = read_result(path).history
        except UserError as error:
            outcome.reason = str(error)
            return
        outcome.value = history.metrics.get(self.study.metric, math.nan)
        # More than was measured now, where an interrupted trial has gone on.
        outcome.seconds = max(outcome.seconds, history.metrics["seconds"])
        if history.divergence:
            outcome.reason = str(history.divergence)
        elif not math.isfinite(outcome.value):
            outcome.reason = f"its record has no {self.study.metric}"
        else:
            outcome.status = DONE

    def _write_trials(self) -> None:
        """Writes `trials.json`: what there is to train, and what became of it."""
        document = {
            "name": self.study.name,
            "kind": self.study.kind,
            "metric": self.study.metric,
            "command": self.args.command,
            "trials": [
                {
                    "id": outcome.trial.id,
                    "base": outcome.trial.base,
                    "configuration": outcome.trial.configuration,
                    "seed": outcome.trial.config.seed,
                    "sha256": outcome.trial.digest,
                    "encoder": outcome.trial.model,
                    "status": outcome.status,
                    "reason": outcome.reason,
                }
                for outcome in self.outcomes
            ],
        }
        write_text(self.folder / TRIALS_FILE, json.dumps(document, indent=2) + "\n")


def get_arguments(
    study: Study, folder: Path, trial: Trial, tracker_flags: Sequence[str] = ()
) -> list[str]:
    """The command line of a trial: that of an ordinary run, or of going on with one.

    Args:
        study: The study.
        folder: Where its trials are recorded.
        trial: One of them.
        tracker_flags: The flags of its trackers.
    """
    path = folder / trial.id
    partial = path.with_name(path.name + PARTIAL)
    if (partial / START_FILE).exists():
        return ["--resume", str(path), "--no-plots"]
    shutil.rmtree(partial, ignore_errors=True)  # killed before it had begun
    config = folder / "configuration" / f"{trial.id}.json"
    write_text(config, dump_config(trial.config))
    data = study.data
    flags = {
        "-d": data.dataset,
        "-dl": data.labels,
        "-t": data.test if study.kind == "classifier" else None,
        "-tl": data.test_labels if study.kind == "classifier" else None,
        "--limit": data.limit,
        "-model": trial.model,
        "-c": config,
        "--name": trial.configuration,
        "--run-dir": path,
    }
    given = [str(part) for item in flags.items() if item[1] is not None for part in item]
    return [*given, *tracker_flags, "--no-plots"]


def call(program: str, arguments: list[str], log: "Log", **hooks: Any) -> int:
    """Runs a program in this process with its output in `log`; returns its exit code."""
    try:
        with redirect_stdout(log), redirect_stderr(log):
            return importlib.import_module(program).main(arguments, **hooks)
    except Exception as error:  # a trial that breaks must not end the study
        message = " ".join(f"{type(error).__name__}: {error}".split())
        log.write(f"error: {message[:200]}\n")
        return terminal.EXIT_USER_ERROR
    finally:
        gc.collect()  # models are cycles, and hold encodings of up to gigabytes


class Log(io.TextIOBase):
    """The file that the output of a trial goes to; remembers its last line.

    Attributes:
        last_line: What was said last.
        error: The last error, without the word.
    """

    def __init__(self, file: TextIO):
        self._file = file
        self.last_line = ""
        self.error = ""

    def write(self, text: str) -> int:
        """Writes to the file at once, so that one can follow it."""
        self._file.write(text)
        self._file.flush()
        for line in filter(str.strip, text.splitlines()):
            self.last_line = line.strip()
            if line.startswith("error: "):
                self.error = line.removeprefix("error: ")
        return len(text)


class Board:
    """How far a study is: a live table on a terminal, a line a trial elsewhere.

    Args:
        console: Standard error.
        study: What runs.
        outcomes: Its trials, which change as it goes on.
        total: How many trials there will be; those there are without it.

    Attributes:
        parallel: How many of them are trained at the same time.
    """

    def __init__(
        self,
        console: Console,
        study: Study,
        outcomes: list[Outcome],
        total: int | None = None,
    ):
        # A console of its own: the other's output goes to a log while a trial runs.
        self._console = Console(**terminal.PLAIN, file=console.file)
        self._study = study
        self._outcomes = outcomes
        self._total = total or len(outcomes)
        self.parallel = 1
        self._note = ""
        self._log: Log | None = None
        self._start = 0.0  # of the trial that runs
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "Board":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    @contextmanager
    def following(self, outcome: Outcome, log: Log) -> Iterator[Log]:
        """Shows the last line of a trial's output while it trains, and takes its time."""
        self._log, self._start = log, time.monotonic()
        try:
            yield log
        finally:
            self._log = None
            outcome.seconds = time.monotonic() - self._start

    def note(self, text: str, is_news: bool = False) -> None:
        """Shows a line below the live table, until the next one; elsewhere only what is news."""
        self._note = text
        if is_news and not self._console.is_terminal:
            self._console.print(text)

    def show(self, outcome: Outcome) -> None:
        """Says what became of a trial where there is no live table."""
        if self._console.is_terminal:
            return
        place = self._outcomes.index(outcome) + 1
        said = outcome.reason or f"{self._study.metric} {outcome.value:.4g}"
        self._console.print(
            f"[{place}/{self._total}] {outcome.trial.id}: {outcome.status}, {said}; "
            f"best so far {self._best(self._outcomes)}; {self._time_left()}"
        )

    def _best(self, outcomes: list[Outcome]) -> str:
        done = [outcome for outcome in outcomes if outcome.status == DONE]
        if not done:
            return "none"
        choose = max if self._study.larger_is_better else min
        best = choose(done, key=lambda outcome: outcome.value)
        return f"{best.value:.4g} ({best.trial.configuration})"

    def _time_left(self) -> str:
        waiting = [outcome for outcome in self._outcomes if outcome.status == WAITING]
        unknown = self._total - len(self._outcomes)
        if not waiting and not unknown:
            return "finished"
        left = sum(o.expected_seconds * self._get_slowness(o.trial.base) for o in waiting)
        left = (left + unknown * self._mean_seconds()) / self.parallel
        if self._log:
            left -= time.monotonic() - self._start
        return f"about {format_duration(max(left, 0))} left"

    def _mean_seconds(self) -> float:
        """What a trial of which nothing is known should take."""
        known = [o.expected_seconds * self._get_slowness(o.trial.base) for o in self._outcomes]
        return sum(known) / len(known) if known else 0.0

    def _get_slowness(self, base: str) -> float:
        """How many times the expected seconds trials have taken, those of the base if any."""
        done = [outcome for outcome in self._outcomes if outcome.status == DONE]
        known = [outcome for outcome in done if outcome.trial.base == base] or done
        expected = sum(outcome.expected_seconds for outcome in known)
        return sum(outcome.seconds for outcome in known) / expected if expected else 1.0

    def _draw(self) -> Table:
        """A row for each base, so that the table fits below the prompt whatever it varies."""
        counts = Counter(outcome.status for outcome in self._outcomes)
        table = Table(
            title=f"{self._study.name}: {counts[DONE]} of {self._total} trials done, "
            f"{self._time_left()}",
            title_justify="left",
            caption=(self._log.last_line if self._log else self._note)[: self._console.width],
            caption_justify="left",
        )
        stopped = [STOPPED] if counts[STOPPED] else []
        for heading in ("base", "done", "failed", *stopped, f"best {self._study.metric} so far"):
            table.add_column(heading)
        for base in dict.fromkeys(outcome.trial.base for outcome in self._outcomes):
            members = [outcome for outcome in self._outcomes if outcome.trial.base == base]
            status = Counter(outcome.status for outcome in members)
            done = f"{status[DONE]}/{len(members)}"
            table.add_row(
                base,
                done,
                str(status[FAILED]),
                *(str(status[name]) for name in stopped),
                self._best(members),
            )
        return table


def write_text(path: Path, text: str) -> None:
    """Writes a file of a study, in place of the one of an earlier start.

    Raises:
        UsageError: The disk is full, or the folder cannot be written.
    """
    try:
        with replace_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise UsageError(path, "must be writable", error.strerror, "Free space.") from error
