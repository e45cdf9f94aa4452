"""Reads the files of studies: `trials.json` and the records of finished runs. No Keras."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cae.config.json_text import load_record
from cae.config.load import validate_config
from cae.config.values import Number
from cae.errors import DataError, UsageError, UserError, printable
from cae.records.history import History
from cae.records.run import METRICS_FILE, PARTIAL, START_FILE, TRIALS_FILE, Start, read_start

# The status of a trial in `trials.json`; `STOPPED` means early, because other trials were better.
DONE, FAILED, STOPPED, WAITING = "done", "failed", "stopped", "waiting"


@dataclass(frozen=True)
class RunResult:
    """The record of one complete run."""

    path: Path
    name: str  # of its configuration, the same for every seed
    base: str  # the configuration that it is a variation of
    history: History
    start: Start

    def value(self, metric: str) -> float:
        """A final value; NaN where the run has no finite one."""
        value = self.history.metrics.get(metric, math.nan)
        return value if math.isfinite(value) else math.nan


def read_result(path: Path, name: str | None = None, base: str | None = None) -> RunResult:
    """Reads the record of a run.

    Args:
        path: Its directory.
        name: The name of its configuration; by default the name of the run.
        base: The configuration that it is a variation of; by default itself.

    Raises:
        DataError: The run is incomplete, or its record is damaged.
    """
    required = "must be a complete run"
    remedy = f"Name a directory that contains {METRICS_FILE} and {START_FILE}."
    for needed in (METRICS_FILE, START_FILE):
        if not (path / needed).exists():
            raise DataError(path, required, f"no {needed} in it", remedy)
    start = read_start(path, "Restore the file, or leave the run out.")
    config = validate_config(start.config, str(path / START_FILE), start.kind).model_dump(
        mode="json"
    )
    metrics = load_record(path / METRICS_FILE, dict[str, Number])
    name, base = printable(name or start.name), printable(base or name or start.name)
    title = f"{name}, seed {config['seed']}"
    try:
        with (path / "history.csv").open(encoding="utf-8", newline="") as file:
            epochs = [_parse_row(row) for row in csv.DictReader(file)]
        history = History(title, start.kind, config, epochs, metrics["best_epoch"], metrics)
    except FileNotFoundError as error:
        raise DataError(path, required, "no history.csv in it", remedy) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        damage = f"a record that cannot be read: {error}"
        raise DataError(path, required, damage, remedy) from error
    return RunResult(path, name, base, history, start)


def _parse_row(row: dict[str, str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for key, text in row.items():
        if text:
            parsed[key] = text if key == "phase" else float(text)
    return parsed | {"epoch": int(row["epoch"])}


class TrialRecord(BaseModel):
    """A trial in `trials.json`."""

    id: str
    base: str
    configuration: str
    status: str
    reason: str
    value: float | None = None  # the metric; of a stopped trial, in its last epoch


class StudyRecord(BaseModel):
    """The part of `trials.json` that is read again."""

    name: str
    metric: str
    command: str
    trials: list[TrialRecord]


def read_trials(folder: Path) -> StudyRecord:
    """Reads the `trials.json` of a study.

    Raises:
        DataError: It is missing or damaged.
    """
    return load_record(folder / TRIALS_FILE, StudyRecord, "Run the study again.")


def read_study(folder: Path) -> list[RunResult]:
    """Reads the finished trials of a study."""
    return [
        read_result(folder / trial.id, trial.configuration, trial.base)
        for trial in read_trials(folder).trials
        if trial.status == DONE
    ]


def read_runs(paths: Iterable[Path]) -> tuple[list[RunResult], list[UserError]]:
    """Reads runs, and the finished trials of studies; a run named twice counts once.

    Returns:
        The complete runs, and why each of the other folders is left out.

    Raises:
        UserError: No folder holds a complete run.
    """
    results: dict[Path, RunResult] = {}
    problems: list[UserError] = []
    for path in paths:
        try:
            for result in _read_folder(path):
                results.setdefault(result.path.resolve(), result)
        except UserError as error:
            problems.append(error)
    if problems and not results:
        raise type(problems[0]).joining(problems)
    return list(results.values()), problems


def _read_folder(path: Path) -> list[RunResult]:
    if (path / TRIALS_FILE).exists():
        return read_study(path)
    partial = path if path.suffix == PARTIAL else path.with_name(path.name + PARTIAL)
    if partial.is_dir() and (path == partial or not path.exists()):
        raise UsageError(
            path,
            "must be a complete run",
            "an interrupted one",
            f"Complete it: --resume {partial.with_suffix('')}.",
        )
    return [read_result(path)]
