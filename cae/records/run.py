"""Run directories: what a training leaves behind, complete or not at all.

A run is written to `<UTC time>-<name>.partial/` and renamed when everything is in it, so a
folder without that ending is complete. From its start it holds `run.json`, which says how to go on
with it should it be interrupted, and soon a checkpoint to go on from.
"""

import datetime
import difflib
import os
import platform
import re
import shutil
import subprocess
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from cae.config.json_text import load_record
from cae.config.load import dump_config
from cae.config.schema import Config
from cae.data.datasets import Dataset
from cae.errors import DataError, UsageError
from cae.files import explaining, locked, write_csv, write_figures, write_json, write_text
from cae.records.history import History

PARTIAL = ".partial"
START_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.npz"
MODEL_FILE = "model.keras"
TRIALS_FILE = "trials.json"  # what a study records of itself, beside the runs of its trials
# The files of a run and what they hold, for docs/reference.md.
FILES = {
    "run.json": "what the run began with: flags, configuration, and the SHA-256 of every file that "
    "it depends on",
    "checkpoint.npz": "the state of the training, from which `--resume` continues; deleted when "
    "the run is complete",
    "config.json": "the complete configuration, every default filled in; `-c` takes it to repeat "
    "the run",
    "environment.json": "command, versions, device, git commit, and the data files with their "
    "SHA-256",
    "history.csv": "one row per epoch",
    "metrics.json": "final values: `val_loss`, `val_mse`, `best_epoch`, `seconds`, "
    "`images_per_second`, `parameters`; for classifiers `val_accuracy`, `test_accuracy`, "
    "`test_macro_f1`",
    "model.keras": "the model with the weights of the best epoch: the one with the lowest "
    "validation loss (autoencoder) or the highest validation accuracy (classifier)",
    "plots/": "the figures",
    "classification_report.txt": "classifiers: precision, recall and F1 per class",
    "predictions.csv": "classifiers: one row per test image",
}

# In characters of up to 4 bytes, so that the folder's name stays below the 255 bytes of most disks.
MAX_NAME = 50
RECORDED_PACKAGES = ("tensorflow", "keras", "numpy", "matplotlib", "scikit-learn", "pydantic")


def check_runs_dir(runs_dir: str | Path) -> Path:
    """Makes the folder that holds the runs, and checks that it can be written.

    Raises:
        UsageError: It cannot.
    """
    path = Path(runs_dir)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "--runs-dir", "must be a folder", f"{path}: {error.strerror}", "Give another folder."
        ) from error
    if not os.access(path, os.W_OK):
        raise UsageError("--runs-dir", "must be writable", path, "Give another folder.")
    return path


def check_run_dir(directory: str | Path) -> Path:
    """Checks that a run can be written to exactly this directory.

    Returns:
        Its absolute path.

    Raises:
        UsageError: Something is in it, or an interrupted run belongs there.
    """
    path = Path(os.path.abspath(directory))  # noqa: PTH100 - links stay what they are
    partial = path.with_name(path.name + PARTIAL)
    is_new = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if path.suffix == PARTIAL or partial.exists() or not is_new:
        raise UsageError(
            "--run-dir",
            "must be new or empty",
            directory,
            f"If it is an interrupted run, go on with it: --resume {directory}. Otherwise give "
            "another directory.",
        )
    return path


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class FileRecord(_Strict):
    """A file that a run depends on, as in `Dataset.files`."""

    path: str
    sha256: str
    bytes: int


# Not in the files of runs that have none.
_IfGiven = Annotated[str | None, Field(exclude_if=lambda value: value is None)]


class Arguments(_Strict):
    """The flags that a resumed run takes over; those of one program alone have defaults."""

    dataset: str
    labels: str | None
    limit: PositiveInt | None
    save: str | None
    overwrite: bool
    no_plots: bool
    init_from: str | None
    test: str | None = None
    test_labels: str | None = None
    model: str | None = None
    no_pretrained: bool = False
    tensorboard: _IfGiven = None
    mlflow: _IfGiven = None


class Start(_Strict):
    """What a run began with, as written to `run.json`: all that is needed to go on with it.

    Attributes:
        program: The program that trains it.
        name: What the run is about.
        command: The command line, quoted for a shell.
        started: When, in UTC.
        folder: Where the program was started; paths are relative to it.
        arguments: The flags.
        config: The complete configuration.
        data: The files of the data sets by their role.
        models: The saved models that training starts from.
    """

    program: Literal["autoencoder.py", "classification.py"]
    name: str
    command: str
    started: str
    folder: str
    arguments: Arguments
    config: dict[str, Any]
    data: dict[str, list[FileRecord]]
    models: list[FileRecord]

    def to_json(self) -> dict[str, Any]:
        """The content of `run.json`."""
        return self.model_dump(mode="json")

    def check_files(self, now: "Start") -> None:
        """Compares the files of an interrupted run with those there are now.

        Raises:
            DataError: One has another content.
        """
        for before, after in zip(self._files(), now._files(), strict=False):
            if before.sha256 != after.sha256:
                raise DataError(
                    after.path,
                    f"must be the file that the run began with (SHA-256 {before.sha256[:12]}…)",
                    f"another (SHA-256 {after.sha256[:12]}…)",
                    "Put it back, or start a new run.",
                )

    def _files(self) -> list[FileRecord]:
        return [*(file for files in self.data.values() for file in files), *self.models]


def read_start(path: Path) -> Start:
    """Reads what the run at `path` began with.

    Raises:
        DataError: It does not say, or its `run.json` is damaged.
    """
    return load_record(
        path / START_FILE, Start, "Restore the file and resume again, or start a new run."
    )


def find_interrupted(run: str | Path) -> Path:
    """The directory of an interrupted run, named with or without `.partial`.

    Raises:
        UsageError: There is none of that name, or it is complete.
    """
    path = Path(os.path.abspath(run))  # noqa: PTH100 - links stay what they are
    final = path.with_name(path.name.removesuffix(PARTIAL))
    partial = final.with_name(final.name + PARTIAL)
    if partial.is_dir():
        return partial
    if (final / "metrics.json").exists():
        raise UsageError(
            "--resume",
            "must be an interrupted run",
            f"{run}, which is complete",
            f"Start a new run from its model: --init-from {final / MODEL_FILE}.",
        )
    interrupted = sorted(path.name for path in final.parent.glob(f"*{PARTIAL}"))
    nearest = difflib.get_close_matches(partial.name, interrupted, 1) or interrupted[-1:]
    remedy = f"Did you mean {final.parent / nearest[0]}?" if nearest else "Check its path."
    raise UsageError("--resume", "must be an interrupted run", f"{run}: no such run", remedy)


class Run:
    """One run directory; as a context manager it is complete at the end, to be resumed, or gone.

    Args:
        runs_dir: The folder that holds the runs.
        name: What the run is about; other characters than letters, digits, `.`, `_` and `-` are
            replaced.
        directory: Exactly where to write it, instead of a new name in `runs_dir`.

    Attributes:
        path: Where its files are now.
        final_path: Where they will be.
        interrupted: Set it when training has stopped before its end.
    """

    def __init__(self, runs_dir: str | Path, name: str, directory: str | Path | None = None):
        if directory is None:
            self._take(_make_new_directory(check_runs_dir(runs_dir), name))
        else:
            final = check_run_dir(directory)
            self._take(final.with_name(final.name + PARTIAL))
            try:
                self.path.mkdir(parents=True)
            except OSError as error:
                raise UsageError(
                    "--run-dir", "must be writable", error.strerror, "Give another directory."
                ) from error

    @classmethod
    def reopen(cls, run: str | Path) -> "Run":
        """An interrupted run, to go on with it.

        Raises:
            UsageError: See `find_interrupted`; or another program is going on with it.
            DataError: It does not say what it began with.
        """
        reopened = cls.__new__(cls)
        reopened._take(find_interrupted(run))
        reopened._is_worth_keeping = True
        reopened._lock()
        reopened._remove_temporary()
        return reopened

    def _take(self, path: Path) -> None:
        self.path = path
        self.final_path = path.with_name(path.name.removesuffix(PARTIAL))
        self.interrupted = False
        self._is_worth_keeping = False
        self._locks = ExitStack()

    def begin(self, start: Start) -> None:
        """Writes `run.json`, which lets others resume the run when this program has ended."""
        write_json(self.path / START_FILE, start.to_json())
        self._lock()

    def _lock(self) -> None:
        """Keeps other programs away until this one is done with the run."""
        file = self.path / START_FILE
        if file.exists():  # otherwise `read_start` says so
            with explaining(file):
                self._locks.enter_context(locked(self.path, file))

    def _remove_temporary(self) -> None:
        """Removes what a killed program was writing."""
        for path in self.path.glob(".*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    @property
    def checkpoint_path(self) -> Path:
        """Where the state of its training is saved."""
        return self.path / CHECKPOINT_FILE

    @property
    def can_resume(self) -> bool:
        """Whether the run is unfinished, and worth going on with."""
        if self.path == self.final_path:
            return False
        return self._is_worth_keeping or self.interrupted or self.checkpoint_path.exists()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Completes the run, or deletes it when something went wrong before a checkpoint."""
        if kind is None and not self.interrupted:
            self.finish()
        elif not self.can_resume:
            self.discard()
        self._locks.close()

    def write_record(self, config: Config, environment: dict[str, Any], history: History) -> None:
        """Writes `config.json`, `environment.json`, `history.csv` and `metrics.json`."""
        write_text(self.path / "config.json", dump_config(config))
        write_json(self.path / "environment.json", environment)
        write_csv(self.path / "history.csv", history.epochs)
        write_json(self.path / "metrics.json", history.metrics)

    def save_figures(self, figures: dict[str, Any]) -> list[Path]:
        """Saves figures as `plots/<name>.png` and returns where they will be."""
        write_figures(self.path / "plots", figures)
        return [self.final_path / "plots" / f"{name}.png" for name in figures]

    def finish(self) -> Path:
        """Gives the complete directory its name, and removes what only served to resume it."""
        with explaining(self.path):
            if self.final_path.is_dir() and self.path != self.final_path:
                self.final_path.rmdir()  # it was empty when the run began
            self.path.rename(self.final_path)
        self.path = self.final_path
        self.checkpoint_path.unlink(missing_ok=True)
        return self.final_path

    def discard(self) -> None:
        """Deletes what was written, unless the run is complete."""
        if self.path != self.final_path:
            shutil.rmtree(self.path, ignore_errors=True)


def _make_new_directory(folder: Path, name: str) -> Path:
    """Makes `<UTC time>-<name>.partial`, with a number where that is taken."""
    name = re.sub(r"[^\w.-]+", "-", name)[:MAX_NAME].strip("-.") or "run"
    now = datetime.datetime.now(datetime.timezone.utc)
    stem = f"{now:%Y-%m-%dT%H-%M-%SZ}-{name}"
    number = 1
    while True:
        unique = stem if number == 1 else f"{stem}-{number}"
        path = folder / (unique + PARTIAL)
        try:
            path.mkdir()
        except FileExistsError:
            pass  # another program started in the same second
        else:
            if not (folder / unique).exists():
                return path
            path.rmdir()  # one of that second is complete
        number += 1


def describe_environment(
    command: str, datasets: dict[str, Dataset], device: str | None, seed: int | None
) -> dict[str, Any]:
    """What is needed to repeat a run, as written to `environment.json`.

    Args:
        command: The command line, quoted for a shell.
        datasets: The data by their role, e.g. `{"training": …, "test": …}`.
        device: What TensorFlow computes on; None where each result may have its own.
        seed: The seed of everything random; None for several.
    """
    return {
        "command": command,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "seed": seed,
        "device": device,
        "cores": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in RECORDED_PACKAGES},
        "git_commit": _git_commit(),
        "data": {
            role: {
                "name": data.name,
                "shape": list(data.images.shape),
                "dtype": str(data.images.dtype),
                "files": list(data.files),
            }
            for role, data in datasets.items()
        },
    }


def _git_commit() -> str | None:
    """The commit of this program, with `-dirty` when files differ from it; None without git."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
