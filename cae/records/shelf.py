"""Finds, shows and removes recorded runs.

python experiments.py list
python experiments.py best -d mnist --kind autoencoder
python experiments.py prune --keep 20
"""

import argparse
import json
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from cae import prompts, terminal
from cae.config.choices import DATASETS
from cae.config.json_text import load_record
from cae.errors import UsageError, UserError, counted, listed
from cae.files import explaining, locked
from cae.records.run import (
    METRICS_FILE,
    MODEL_FILE,
    PARTIAL,
    START_FILE,
    TRIALS_FILE,
    Start,
    get_partial,
    read_start,
)
from cae.records.saved_models import MODEL_SUFFIXES, read_metadata

OFFERED = 9  # models in a dialogue
LATEST = 40  # that are looked at, so that a folder of thousands does not delay a question
# Kind of run -> the metric that ranks it, and whether less of it is better.
RANKING = {
    "autoencoder": ("val_mse", True),
    "classifier": ("val_accuracy", False),
    "test": ("test_accuracy", False),
}
# Without validation images a run shows the first of these that it has, and has no rank.
OTHER_METRICS = ("test_accuracy", "accuracy", "mse")
COMPLETE, INTERRUPTED, RUNNING, DAMAGED = "complete", "interrupted", "running", "damaged"


@dataclass(frozen=True)
class Entry:
    """A run folder."""

    path: Path
    state: str  # COMPLETE, INTERRUPTED (it can be resumed), RUNNING or DAMAGED
    kind: str = ""  # a key of RANKING; empty if its record cannot be read
    name: str = ""
    data: str = ""  # name or path of its training images
    started: str = ""  # UTC, ISO 8601
    metrics: dict[str, Any] | None = None
    start: Start | None = None  # None for a test of a saved classifier

    @property
    def value(self) -> float | None:
        """The metric that ranks it; None where it has none."""
        name, _ = RANKING.get(self.kind, ("", False))
        return (self.metrics or {}).get(name)

    @property
    def shown(self) -> tuple[str, float | None]:
        """The name and value of the metric to show: the one that ranks it, or another it has."""
        ranking, _ = RANKING.get(self.kind, ("", False))
        metrics = self.metrics or {}
        name = next((name for name in (ranking, *OTHER_METRICS) if name in metrics), ranking)
        return name, metrics.get(name)

    @property
    def rank(self) -> tuple[float, str]:
        """Larger is better; of equal runs the latest."""
        _, is_less_better = RANKING[self.kind]
        return (-self.value if is_less_better else self.value), self.started

    @property
    def model(self) -> Path | None:
        """Its saved model, where the run has kept it."""
        path = self.path / MODEL_FILE
        return path if path.exists() else None

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def to_json(self) -> dict[str, Any]:
        """The row of the table as JSON types."""
        metric, value = self.shown
        return {
            "path": terminal.relative(self.path),
            "name": self.name,
            "kind": self.kind,
            "data": self.data,
            "metric": metric,
            "value": value,
            "started": self.started,
            "bytes": self.size,
            "state": self.state,
        }


def list_runs(args: argparse.Namespace) -> int:
    """Prints the runs, the latest first; returns the exit code."""
    entries = sorted(_select(args), key=lambda entry: entry.started, reverse=True)
    if args.json:
        terminal.print_as_is(json.dumps([entry.to_json() for entry in entries], indent=2))
        return 0
    rows = [_get_cells(entry) for entry in entries]
    columns = ("run", "kind", "data", "value", "MB", "state", "when (UTC)")
    width = sum(2 + max(map(cell_len, cells)) for cells in zip(columns, *rows, strict=True))
    if terminal.OUT.is_terminal and width > terminal.OUT.width:  # paths stay whole, to be copied
        for path, *facts, megabytes, state, when in rows:
            terminal.print_as_is(path)
            line = ", ".join(filter(None, (*facts, f"{megabytes} MB", state, when)))
            terminal.print_sentence(terminal.OUT, f"  {line}")
        return 0
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns[3:5]:
        column.justify = "right"
    for row in rows:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    terminal.print_table(table)
    return 0


def _get_cells(entry: Entry) -> tuple[str, ...]:
    """The row of a run in the table."""
    metric, number = entry.shown
    return (
        terminal.relative(entry.path),
        entry.kind,
        entry.data,
        "" if number is None else f"{metric} {number:.4f}",
        f"{entry.size / 1e6:.1f}",
        entry.state,
        entry.started[:16].replace("T", " "),
    )


def print_best(args: argparse.Namespace) -> int:
    """Prints the path of the best saved model, for `$(…)`; returns the exit code."""
    saved = [entry for entry in _select(args) if entry.model and entry.state == COMPLETE]
    entries = [entry for entry in saved if entry.value is not None]
    data = sorted({entry.data for entry in entries})
    if len(data) > 1:
        raise UsageError(
            args.runs_dir,
            "must contain runs of one data set",
            listed(data, "and"),
            "Add -d DATASET.",
        )
    if not entries:
        required = f"must contain a complete {args.kind} with its model"
        required += f" on {args.dataset}" if args.dataset else ""
        if not saved:
            raise UsageError(args.runs_dir, required, "none", "Train one.")
        raise UsageError(
            args.runs_dir,
            f"{required} and a value on validation images",
            f"{len(saved)} without that value",
            "Train with a validation_split above 0, or name a model yourself.",
        )
    terminal.print_as_is(terminal.relative(max(entries, key=lambda entry: entry.rank).model))
    return 0


def show_run(args: argparse.Namespace) -> int:
    """Prints the record of a run; returns the exit code."""
    entry = read_entry(Path(args.run))
    facts = {key: value for key, value in entry.to_json().items() if value not in ("", None)}
    name = facts.pop("name", entry.path.name)
    if start := entry.start:
        facts |= {"command": start.command, "folder": start.folder}
        for role, files in start.data.items():
            facts[role] = ", ".join(f"{file.path} {file.sha256[:12]}…" for file in files)
        for file in start.models:
            facts["model"] = f"{file.path} {file.sha256[:12]}…"
    terminal.show_facts(name, _round(facts))
    if start:
        hyperparameters = {key: json.dumps(value) for key, value in start.config.items()}
        terminal.show_facts("hyperparameters", hyperparameters)
    if entry.metrics:
        terminal.show_facts("results", _round(entry.metrics))
    return 0


def _round(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: f"{x:.6g}" if isinstance(x, float) else x for key, x in facts.items()}


def remove_runs(args: argparse.Namespace) -> int:
    """Removes runs; returns the exit code."""
    entries = {entry.path: entry for entry in (read_entry(Path(path)) for path in args.runs)}
    return _remove(list(entries.values()), args)


def prune_runs(args: argparse.Namespace) -> int:
    """Removes old runs; returns the exit code.

    It keeps the latest, the best, runs that others start from unless these go too, and runs that
    belong together: the trials of a study and the pairs of a recipe.
    """
    every = list(find_entries(Path(args.runs_dir)))
    entries = [entry for entry in every if entry.state == COMPLETE and not _is_part(entry.path)]
    entries.sort(key=lambda entry: entry.started, reverse=True)
    kept = {entry.path for entry in entries[: args.keep]}
    best: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        key = entry.kind, entry.data
        if entry.model and entry.value is not None:
            best[key] = max(entry, best.get(key, entry), key=lambda entry: entry.rank)
    kept |= {entry.path for entry in best.values()}
    old = {entry.path for entry in entries} - kept
    used = {
        Path(entry.start.folder, file.path).resolve().parent
        for entry in every
        if entry.start and entry.path not in old
        for file in entry.start.models
    }
    chosen = [e for e in entries if e.path in old and e.path.resolve() not in used]
    if not chosen:
        terminal.say("Nothing to remove.")
        return 0
    return _remove(chosen, args)


def find_entries(folder: Path) -> Iterator[Entry]:
    """The runs in a folder, which must exist, and in the studies below it."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        required = "must be a folder of runs"
        raise UsageError(folder, required, error.strerror, "Check --runs-dir.") from error
    for path in paths:
        if path.is_symlink() or not path.is_dir():
            continue
        if _is_run(path):
            yield read_entry(path)
        elif path.name != "plots":
            yield from find_entries(path)


def read_entry(path: Path) -> Entry:
    """Reads a run folder, named with or without `.partial`; another is a `UsageError`."""
    path = path.absolute()  # `.` has no name
    partial = get_partial(path)
    if not path.exists() and partial.is_dir():
        path = partial
    if not _is_run(path):
        got = "no record in it" if path.exists() else "no such folder"
        raise UsageError(path, "must be the folder of a run", got, "See experiments.py list.")
    try:
        return _read(path)
    except UserError:
        return Entry(path, DAMAGED)


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (START_FILE, METRICS_FILE))


def _read(path: Path) -> Entry:
    is_partial = path.suffix == PARTIAL
    metrics = None if is_partial else load_record(path / METRICS_FILE, dict[str, Any])
    if not (path / START_FILE).exists():
        return _read_test(path, metrics or {})
    start = read_start(path)
    state = COMPLETE if metrics is not None else INTERRUPTED
    if state == INTERRUPTED and _is_locked(path):
        state = RUNNING
    data = start.arguments.dataset
    return Entry(path, state, start.kind, start.name, data, start.started, metrics, start)


def _read_test(path: Path, metrics: dict[str, Any]) -> Entry:
    """A test of a saved classifier; its record says when only by the time of its file."""
    written = datetime.fromtimestamp((path / METRICS_FILE).stat().st_mtime, UTC)
    model, images, *_ = (
        str(file["path"]) if isinstance(file, dict) and "path" in file else ""
        for file in (metrics.get("model"), *(metrics.get("data") or ()), None)
    )
    folder = Path(images).parent.name
    data = folder if folder in DATASETS else images
    started = written.isoformat(timespec="seconds")
    return Entry(path, COMPLETE, "test", model, data, started, metrics)


def _is_locked(path: Path) -> bool:
    try:
        with locked(path, path / START_FILE):
            return False
    except (UserError, OSError):
        return True


def _select(args: argparse.Namespace) -> Iterable[Entry]:
    """The runs of the kind and data set that the flags name."""

    def same_data(entry: Entry) -> bool:
        if args.dataset in (None, entry.data):
            return True
        if args.dataset in DATASETS or entry.start is None:
            return False
        return Path(args.dataset).resolve() == Path(entry.start.folder, entry.data).resolve()

    return [
        entry
        for entry in find_entries(Path(args.runs_dir))
        if args.kind in (None, entry.kind) and same_data(entry)
    ]


def _is_part(path: Path) -> bool:
    """Whether a run is a trial of a study or belongs to a recipe."""
    is_trial = (path.parent / TRIALS_FILE).exists()
    return is_trial or re.fullmatch(r"(autoencoder|classifier)-seed\d+", path.name) is not None


def _remove(entries: list[Entry], args: argparse.Namespace) -> int:
    total = sum(entry.size for entry in entries) / 1e6
    for entry in entries:
        terminal.print_as_is(terminal.relative(entry.path))
    runs = f"{counted(len(entries), 'run')}, {total:.1f} MB"
    if not args.yes:
        if not (sys.stdin and sys.stdin.isatty()):
            raise UsageError("--yes", "is required without a terminal", None, "Add --yes.")
        if not prompts.confirm(f"Remove {runs}", False):
            return 0
    with ExitStack() as locks:
        for entry in entries:
            if (entry.path / START_FILE).exists():
                locks.enter_context(locked(entry.path, entry.path / START_FILE))
        for entry in entries:
            with explaining(entry.path, "Check its permissions."):
                shutil.rmtree(entry.path)
    terminal.say(f"Removed {runs}.")
    return 0


def find_models(kind: str, runs_dir: str, input_shape: tuple[int, int, int]) -> list[str]:
    """Saved models of a kind that take these images, in `models/` and in the runs; latest first."""

    def fits(path: Path) -> bool:
        try:
            metadata = read_metadata(path)
        except UserError:
            return False
        return metadata.get("kind") == kind and metadata.get("input_shape") == list(input_shape)

    paths = [path for suffix in MODEL_SUFFIXES for path in Path("models").glob(f"*{suffix}")]
    for run in ("*", "*/*"):  # the second is one of a study or of a recipe
        paths += Path(runs_dir).glob(f"{run}/{MODEL_FILE}")
    paths = [path for path in paths if path.exists()]  # a link may lead nowhere
    paths.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [terminal.relative(path) for path in paths[:LATEST] if fits(path)][:OFFERED]
