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
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

import cli
from comparison import DONE, TRIALS_FILE, best_model, read_result
from dataset import NAMED_DATASETS, get_record, load_dataset
from errors import UsageError, UserError
from hyperparameters import dump_config
from idx import replace_file
from model_files import read_metadata
from runs import PARTIAL, START_FILE, check_runs_dir
from studies import Base, Study, StudyFile, Trial, expand

PROGRAMS = {"autoencoder": "autoencoder", "classifier": "classification"}
FAILED, WAITING = "failed", "waiting"


@dataclass
class Outcome:
    """What became of a trial.

    Attributes:
        trial: What was to be trained.
        status: `DONE`, `FAILED` or `WAITING`.
        reason: Why it failed, in a line.
        value: The study's metric; NaN until it is done.
    """

    trial: Trial
    status: str = WAITING
    reason: str = ""
    value: float = math.nan


class Stage:
    """One study while it runs.

    Args:
        file: The study.
        folder: Where its trials are recorded.
        args: The flags.
    """

    def __init__(self, file: StudyFile, folder: Path, args: argparse.Namespace):
        self.study = file.study
        self.folder = folder
        self.args = args
        models = {base.label: self._find_model(file, base) for base in self.study.bases}
        self.outcomes = [
            Outcome(trial) for trial in expand(file, self._identify_data(), models, args.epochs)
        ]
        for outcome in self.outcomes:
            if (folder / outcome.trial.id).exists():
                self._judge(outcome)

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
        with Board(cli.ERR, self.study, self.outcomes) as board:
            for outcome in [o for o in self.outcomes if o.status == WAITING]:
                exit_code = self._run_trial(outcome, board)
                self._write_trials()
                if exit_code > 128:
                    return exit_code
                board.show(outcome)
        failed = [outcome for outcome in self.outcomes if outcome.status == FAILED]
        for outcome in failed:
            cli.ERR.print(f"failed: {outcome.trial.id}: {outcome.reason}")
        return cli.EXIT_USER_ERROR if failed else 0

    def _run_trial(self, outcome: Outcome, board: "Board") -> int:
        """Trains one trial or goes on with it; returns the exit code of its program."""
        log_path = self.folder / "logs" / f"{outcome.trial.id}.txt"
        with (
            log_path.open("a", encoding="utf-8", errors="backslashreplace") as file,
            board.following(Log(file)) as log,
        ):
            exit_code = call(PROGRAMS[self.study.kind], self._arguments(outcome.trial), log)
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
        if history.divergence:
            outcome.reason = str(history.divergence)
        elif not math.isfinite(outcome.value):
            outcome.reason = f"its record has no {self.study.metric}"
        else:
            outcome.status = DONE

    def _arguments(self, trial: Trial) -> list[str]:
        """The command line of a trial: that of an ordinary run, or of going on with one."""
        path = self.folder / trial.id
        partial = path.with_name(path.name + PARTIAL)
        if (partial / START_FILE).exists():
            return ["--resume", str(path), "--no-plots"]
        shutil.rmtree(partial, ignore_errors=True)  # killed before it had begun
        config = self.folder / "configuration" / f"{trial.id}.json"
        write_text(config, dump_config(trial.config))
        data = self.study.data
        flags = {
            "-d": data.dataset,
            "-dl": data.labels,
            "-t": data.test if self.study.kind == "classifier" else None,
            "-tl": data.test_labels if self.study.kind == "classifier" else None,
            "--limit": data.limit,
            "-model": trial.model,
            "-c": config,
            "--name": trial.configuration,
            "--run-dir": path,
        }
        given = [str(part) for item in flags.items() if item[1] is not None for part in item]
        return [*given, "--no-plots"]

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


def call(program: str, arguments: list[str], log: "Log") -> int:
    """Runs a program in this process with its output in `log`; returns its exit code."""
    try:
        with redirect_stdout(log), redirect_stderr(log):
            return importlib.import_module(program).main(arguments)
    except Exception as error:  # a trial that breaks must not end the study
        message = " ".join(f"{type(error).__name__}: {error}".split())
        log.write(f"error: {message[:200]}\n")
        return cli.EXIT_USER_ERROR
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
    """

    def __init__(self, console: Console, study: Study, outcomes: list[Outcome]):
        # A console of its own: the other's output goes to a log while a trial runs.
        self._console = Console(
            file=console.file, highlight=False, soft_wrap=True, markup=False, emoji=False
        )
        self._study = study
        self._outcomes = outcomes
        self._log: Log | None = None
        self._trained_seconds: list[float] = []
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
    def following(self, log: Log) -> Iterator[Log]:
        """Shows the last line of a trial's output while it trains, and takes its time."""
        self._log, start = log, time.monotonic()
        try:
            yield log
        finally:
            self._log = None
            self._trained_seconds.append(time.monotonic() - start)

    def show(self, outcome: Outcome) -> None:
        """Says what became of a trial where there is no live table."""
        if self._console.is_terminal:
            return
        place = self._outcomes.index(outcome) + 1
        said = outcome.reason or f"{self._study.metric} {outcome.value:.4g}"
        self._console.print(
            f"[{place}/{len(self._outcomes)}] {outcome.trial.id}: {outcome.status}, {said}; "
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
        waiting = sum(outcome.status == WAITING for outcome in self._outcomes)
        if not waiting:
            return "finished"
        if not self._trained_seconds:
            return "time left unknown"
        mean = sum(self._trained_seconds) / len(self._trained_seconds)
        minutes, seconds = divmod(round(mean * waiting), 60)
        return f"about {minutes} min {seconds} s left"

    def _draw(self) -> Table:
        """A row for each base, so that the table fits below the prompt whatever it varies."""
        counts = Counter(outcome.status for outcome in self._outcomes)
        table = Table(
            title=f"{self._study.name}: {counts[DONE]} of {len(self._outcomes)} trials done, "
            f"{self._time_left()}",
            title_justify="left",
            caption=self._log.last_line[: self._console.width] if self._log else "",
            caption_justify="left",
        )
        for heading in ("base", "done", "failed", f"best {self._study.metric} so far"):
            table.add_column(heading)
        for base in dict.fromkeys(outcome.trial.base for outcome in self._outcomes):
            members = [outcome for outcome in self._outcomes if outcome.trial.base == base]
            status = Counter(outcome.status for outcome in members)
            done = f"{status[DONE]}/{len(members)}"
            table.add_row(base, done, str(status[FAILED]), self._best(members))
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
