"""Reads `trials.json` of studies, folders of recipes and the records of finished runs. No Keras."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cae.config.json_text import load_record
from cae.config.load import add_new_keys, validate_config
from cae.config.values import Number
from cae.errors import DataError, UsageError, UserError, printable
from cae.records.history import History
from cae.records.run import (
    METRICS_FILE,
    PARTIAL,
    START_FILE,
    TRIALS_FILE,
    Start,
    get_partial,
    read_start,
)

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

    def describe_models(self) -> list[Any]:
        """The saved models that it began with: the SHA-256 of each.

        The autoencoder of a recipe is identified by its hyperparameters: each seed has its own.
        """
        seed = self.history.model_info["seed"]
        own = get_recipe_path(self.path.parent, "autoencoder", seed)
        described: list[Any] = []
        for file in self.start.models:
            is_own = Path(file.path).parent.name == own.name and (own / START_FILE).exists()
            config = add_new_keys(read_start(own).config, "autoencoder") if is_own else {}
            described.append({**config, "seed": None} if is_own else file.sha256)
        return described


def read_result(path: Path, name: str | None = None, base: str | None = None) -> RunResult:
    """Reads the record of a run.

    Args:
        path: Its folder.
        name: The name of its configuration; by default the name of the run.
        base: The configuration that it is a variation of; by default itself.

    Raises:
        DataError: The run is incomplete, or its record is damaged.
    """
    required = "must be a complete run"
    remedy = f"Name a folder that contains {METRICS_FILE} and {START_FILE}."
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


def get_recipe_path(folder: Path, kind: str, seed: int) -> Path:
    """The folder of a run of a recipe, in the folder of all its runs."""
    return folder / f"{kind}-seed{seed}"


def find_recipe_seeds(folder: Path) -> list[int]:
    """The seeds with which the classifier of a recipe has been trained completely."""
    names = (path.parent.name for path in folder.glob(f"classifier-seed*/{START_FILE}"))
    seeds = (name.rpartition("seed")[2] for name in names)
    return sorted(int(seed) for seed in seeds if seed.isdecimal())


def read_runs(paths: Iterable[Path]) -> tuple[list[RunResult], list[UserError]]:
    """Reads runs, and those in a folder, as of a recipe or a study; one named twice counts once.

    Returns:
        The complete runs, and why each of the other folders is left out.

    Raises:
        UserError: No folder holds a complete run.
    """
    results: dict[Path, RunResult] = {}
    problems: list[UserError] = []
    for path in chain.from_iterable(map(_list_runs, paths)):
        try:
            for result in _read_folder(path):
                results.setdefault(result.path.resolve(), result)
        except UserError as error:
            problems.append(error)
    if problems and not results:
        raise type(problems[0]).joining(problems)
    return list(results.values()), problems


def _list_runs(path: Path) -> list[Path]:
    """The runs in a folder, as of a recipe; otherwise the path itself."""
    if any((path / name).exists() for name in (TRIALS_FILE, START_FILE, METRICS_FILE)):
        return [path]
    return sorted(file.parent for file in path.glob(f"*/{START_FILE}")) or [path]


def _read_folder(path: Path) -> list[RunResult]:
    if (path / TRIALS_FILE).exists():
        return read_study(path)
    path = path.absolute()  # `.` has no name
    partial = path if path.suffix == PARTIAL else get_partial(path)
    if partial.is_dir() and (path == partial or not path.exists()):
        raise UsageError(
            path,
            "must be a complete run",
            "an interrupted one",
            f"Complete it: --resume {partial.with_suffix('')}.",
        )
    return [read_result(path)]
