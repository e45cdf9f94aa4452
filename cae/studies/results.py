"""Reads the files of studies: `trials.json` and the records of finished runs. No Keras."""

import csv
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from cae.config.json_text import load_record
from cae.config.load import validate_config
from cae.config.values import Number
from cae.errors import DataError, UsageError, UserError, printable
from cae.records.history import History
from cae.records.run import PARTIAL, TRIALS_FILE

# The status of a trial in `trials.json`; `STOPPED` means early, because others were better.
DONE, FAILED, STOPPED, WAITING = "done", "failed", "stopped", "waiting"


@dataclass(frozen=True)
class RunResult:
    """The record of one complete run.

    Attributes:
        path: Its directory.
        name: The name of its configuration, the same for every seed.
        base: The name of the configuration that it is a variation of.
        history: Its epochs, hyperparameters and final values.
        encoder: The saved model that its encoder comes from; None without one.
        data: The data files, as (role, name, SHA-256).
        models: The SHA-256 of the saved models that training started from.
        limit: How many training images were used; None for all.
        started: When it began, in UTC as ISO text.
    """

    path: Path
    name: str
    base: str
    history: History
    encoder: str | None = None
    data: tuple[tuple[str, str, str], ...] = ()
    models: tuple[str, ...] = ()
    limit: int | None = None
    started: str = ""

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
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = "classifier" if "dense_layers" in config else "autoencoder"
        config = validate_config(config, str(path / "config.json"), kind).model_dump(mode="json")
        text = (path / "metrics.json").read_text(encoding="utf-8")
        metrics = TypeAdapter(dict[str, Number]).validate_json(text)
        with (path / "history.csv").open(encoding="utf-8", newline="") as file:
            epochs = [_parse_row(row) for row in csv.DictReader(file)]
        start = json.loads((path / "run.json").read_text(encoding="utf-8"))
        name, base = printable(name or start["name"]), printable(base or name or start["name"])
        title = f"{name}, seed {config['seed']}"
        history = History(title, kind, config, epochs, metrics["best_epoch"], metrics)
        return RunResult(path, name, base, history, **_read_origin(start))
    except FileNotFoundError as error:
        problem, cause = f"no {Path(error.filename).name} in it", error
    except OSError as error:
        problem, cause = error.strerror, error
    except ValidationError as error:
        raise DataError.from_validation(
            path / "metrics.json", error, dict[str, Number], "Restore the file and run again."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem, cause = f"a record that cannot be read: {error}", error
    raise DataError(
        path, "must be a complete run", problem, "Name a directory that contains metrics.json."
    ) from cause


def _read_origin(start: dict[str, Any]) -> dict[str, Any]:
    """What else the result depends on, of the content of `run.json`."""
    return {
        "encoder": start["arguments"].get("model"),
        "data": tuple(
            (role, printable(Path(file["path"]).name), file["sha256"])
            for role, files in start.get("data", {}).items()
            for file in files
        ),
        "models": tuple(file["sha256"] for file in start.get("models", [])),
        "limit": start["arguments"].get("limit"),
        "started": start.get("started", ""),
    }


def _parse_row(row: dict[str, str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for key, text in row.items():
        if text:
            parsed[key] = text if key == "phase" else float(text)
    return parsed | {"epoch": int(row["epoch"])}


class TrialRecord(BaseModel):
    """A trial in `trials.json`.

    Attributes:
        value: The metric; of a stopped trial, its value in the last epoch.
    """

    id: str
    base: str
    configuration: str
    status: str
    reason: str
    value: float | None = None


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
