"""Run folders: the complete record of a training, or a run that can be resumed.

A run is written to `<UTC time>-<name>.partial/` and renamed when everything is in it, so a folder
without that ending is complete. From the start it holds `run.json`, and soon a checkpoint: together
they let a program resume the run.
"""

import datetime
import itertools
import json
import os
import re
import shutil
from contextlib import ExitStack, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from cae.config.choices import PROGRAMS
from cae.config.json_text import load_record
from cae.config.load import add_new_keys, dump_config
from cae.config.schema import Config, Kind
from cae.errors import DataError, UsageError, shown
from cae.files import (
    explaining,
    locked,
    make_folder,
    write_csv,
    write_figures,
    write_json,
    write_text,
)
from cae.records.history import History

PARTIAL = ".partial"
START_FILE = "run.json"
CHECKPOINT_FILE = "checkpoint.npz"
MODEL_FILE = "model.keras"
METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"
TRIALS_FILE = "trials.json"  # the record of a study, in the folder that holds its runs
# The files of a run and what they hold, for docs/reference.md.
FILES = {
    "run.json": "what the run began with: flags, configuration, and the SHA-256 of every file that "
    "it depends on",
    "checkpoint.npz": "the state of the training, from which `--resume` continues; deleted when "
    "the run is complete",
    "config.json": "the complete configuration, every default filled in; `-c` takes it to repeat "
    "the run",
    "skipped.csv": "the files of a folder that could not be read as pictures, if there are any",
    "environment.json": "command, versions, device, git commit, and the data files with their "
    "SHA-256",
    "history.csv": "one row per epoch",
    "metrics.json": "final values: `val_loss`, `val_mse`, `best_epoch`, `seconds`, "
    "`images_per_second`, `parameters`; for classifiers `val_accuracy`, and `test_accuracy`, "
    "`test_balanced_accuracy` and `test_macro_f1` with the ends of their 95 % intervals "
    "(`test_accuracy_low`, …), `temperature` (which calibrates the probabilities) and `test_ece` "
    "(the expected calibration error with it)",
    "model.keras": "the model with the weights of the best epoch: the one with the lowest "
    "validation loss (autoencoder) or the highest validation accuracy or F1 (classifier); without "
    "validation images the lowest training loss; with `best_epoch_by` last, the last one",
    "plots/": "the figures",
    "classification_report.txt": "classifiers: precision, recall and F1 per class",
    "predictions.csv": "classifiers: one row per test image, with calibrated "
    "probabilities, as `predict.py classify` gives them",
}

# Characters of up to 4 bytes each: most file systems limit the name of a folder to 255 bytes.
MAX_FOLDER_NAME = 50


def check_runs_dir(runs_dir: str | Path) -> Path:
    """Creates the folder that holds the runs; raises as `files.make_folder`."""
    return make_folder(runs_dir, "Choose another folder with --runs-dir.")


def get_partial(path: Path) -> Path:
    """The folder of a run until it is complete."""
    return path.with_name(path.name + PARTIAL)


def is_interrupted(path: Path) -> bool:
    """Whether a run had begun and can be resumed."""
    return (get_partial(path) / START_FILE).exists()


def check_run_dir(folder: str | Path) -> Path:
    """Checks that a run can be written to exactly this folder; returns its absolute path.

    Raises:
        UsageError: It is not empty, or an interrupted run has its name.
    """
    path = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links
    partial = get_partial(path)
    is_new = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if path.suffix == PARTIAL or partial.exists() or not is_new:
        remedy = f"Choose another folder, or resume an interrupted run: --resume {folder}."
        raise UsageError("--run-dir", "must be new or empty", folder, remedy)
    return path


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)  # Keys of other versions are ignored.


class FileRecord(_Record):
    """A file that a run depends on, as `files.get_record` describes it."""

    path: str
    sha256: str
    bytes: int


class Arguments(_Record):
    """The flags that a resumed run keeps; flags that only one program has are optional."""

    dataset: str
    labels: str | None
    limit: PositiveInt | None
    save: str | None
    overwrite: bool
    no_plots: bool
    init_from: str | None
    unlabelled: str | None = None
    labels_per_class: PositiveInt | None = None
    test: str | None = None
    test_labels: str | None = None
    model: str | None = None
    no_pretrained: bool = False
    encoder_until: str | None = None
    model_input_range: str | None = None
    invert: str | None = None
    transpose: str | None = None
    image_size: tuple[int, int] | None = None
    color: str | None = None
    resize: str | None = None
    test_split: float | None = None
    class_names: str | None = None
    tensorboard: str | None = None
    mlflow: str | None = None


# The flags that name files or data, and those on which no weight depends.
PATHS = {"dataset", "labels", "unlabelled", "test", "test_labels", "model", "init_from", "save"}
OUTPUT_FLAGS = {"overwrite", "no_plots", "tensorboard", "mlflow"}


class Start(_Record):
    """The content of `run.json`: everything that is needed to start a run again."""

    program: Literal["autoencoder.py", "classification.py"]
    name: str  # in figures and menus
    command: str  # quoted for a shell
    started: str  # UTC, ISO 8601
    folder: str  # to which all paths are relative
    arguments: Arguments
    config: dict[str, Any]  # complete
    data: dict[str, list[FileRecord]]  # by role, such as "training"
    models: list[FileRecord]  # that training starts from
    sample: dict[str, Any] | None = None  # which images of the files are trained on; None for all
    appearance: dict[str, Any] | None = None  # of the training images

    @property
    def kind(self) -> Kind:
        """What the program trains."""
        return next(kind for kind, program in PROGRAMS.items() if program == self.program)

    def to_json(self) -> dict[str, Any]:
        """The values as JSON types."""
        return self.model_dump(mode="json")

    def check_same(self, where: object, now: "Start", remedy: str) -> None:
        """Raises a DataError if the run (`where`) would now begin with something else."""
        check_same(where, self._given, now._given, remedy=remedy)
        check_same(where, add_new_keys(self.config, self.kind), now.config, remedy=remedy)
        self.check_files(now)

    @property
    def _given(self) -> dict[str, Any]:
        """The flags that training depends on, but not the paths of files that may have moved."""
        flags = self.arguments.model_dump(mode="json", exclude=PATHS | OUTPUT_FLAGS)
        return flags | {f"files of {role}": len(files) for role, files in self.data.items()}

    def check_files(self, now: "Start") -> None:
        """Raises a DataError if a file or the sample has changed since the run began."""
        for before, after in zip(self._files(), now._files(), strict=False):
            if before.sha256 != after.sha256:
                raise DataError(
                    after.path,
                    f"must be unchanged since the run began ({before.sha256[:12]}…)",
                    f"SHA-256 {after.sha256[:12]}…",
                    "Restore the file and resume again, or start a new run.",
                )
        if self.sample != now.sample:
            raise DataError(
                "--limit" if self.arguments.labels_per_class is None else "--labels-per-class",
                f"must select the same images as when the run began, {shown(self.sample)}",
                shown(now.sample),
                "Resume with the versions of this program and NumPy that began it, or start a new "
                "run.",
            )

    def _files(self) -> list[FileRecord]:
        return [*(file for files in self.data.values() for file in files), *self.models]


def read_start(
    path: Path, remedy: str = "Restore the file and resume again, or start a new run."
) -> Start:
    """Reads the `run.json` in a run folder; a missing or damaged file is a `DataError`."""
    return load_record(path / START_FILE, Start, remedy)


def find_interrupted(run: str | Path) -> Path:
    """Finds the folder of an interrupted run, named with or without `.partial`.

    Raises:
        UsageError: It does not exist, or the run is complete.
    """
    path = Path(os.path.abspath(run))  # noqa: PTH100 - keeps links
    final = path.with_name(path.name.removesuffix(PARTIAL))
    partial = get_partial(final)
    if partial.is_dir():
        return partial
    required = "must be an interrupted run"
    if (final / METRICS_FILE).exists():
        remedy = f"Start a new run from its model: --init-from {final / MODEL_FILE}."
        raise UsageError("--resume", required, f"the complete run {run}", remedy)
    interrupted = sorted(path.name for path in final.parent.glob(f"*{PARTIAL}"))
    nearest = get_close_matches(partial.name, interrupted, 1) or interrupted[-1:]
    remedy = f"Did you mean {final.parent / nearest[0]}?" if nearest else "Check its path."
    got = f"{run}, which {'holds no run' if final.exists() else 'is missing'}"
    raise UsageError("--resume", required, got, remedy)


class Run:
    """One run folder, and a context manager that completes, keeps or deletes it.

    At the end of the context the run is complete; if training was interrupted it stays to be
    resumed; if anything failed before there was a checkpoint it is deleted.

    Args:
        runs_dir: The folder that holds the runs.
        name: What to call the run; characters other than letters, digits, `.`, `_` and `-` are
            replaced.
        folder: The exact folder to write to, instead of a new one in `runs_dir`.

    Attributes:
        path: Where its files are now.
        final_path: Where they are when the run is complete.
        interrupted: Whether training has stopped before its end; set by the caller.
    """

    def __init__(self, runs_dir: str | Path, name: str, folder: str | Path | None = None):
        if folder is None:
            self._set_path(_make_new_folder(check_runs_dir(runs_dir), name))
        else:
            final = check_run_dir(folder)
            self._set_path(get_partial(final))
            make_folder(self.path, "Choose another folder with --run-dir.")

    @classmethod
    def reopen(cls, run: str | Path) -> "Run":
        """Opens an interrupted run; raises as `find_interrupted` and `files.locked`."""
        reopened = cls.__new__(cls)
        reopened._set_path(find_interrupted(run))
        reopened._was_reopened = True
        reopened._lock()
        for path in reopened.path.glob(".*"):  # what a killed process was writing
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return reopened

    def _set_path(self, path: Path) -> None:
        self.path = path
        self.final_path = path.with_name(path.name.removesuffix(PARTIAL))
        self.interrupted = False
        self._was_reopened = False
        self._locks = ExitStack()

    def begin(self, start: Start) -> None:
        """Writes `run.json`, with which the run can be resumed, and locks the run."""
        write_json(self.path / START_FILE, start.to_json())
        self._lock()

    def _lock(self) -> None:
        """Keeps other processes out until this one closes the run."""
        file = self.path / START_FILE
        if file.exists():  # otherwise `read_start` reports it
            with explaining(file):
                self._locks.enter_context(locked(self.path, file))

    @property
    def checkpoint_path(self) -> Path:
        """The file that holds the state of its training."""
        return self.path / CHECKPOINT_FILE

    @property
    def can_resume(self) -> bool:
        """Whether the run is incomplete and worth resuming."""
        if self.path == self.final_path:
            return False
        return self._was_reopened or self.interrupted or self.checkpoint_path.exists()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
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
        write_json(self.path / METRICS_FILE, history.metrics)

    def save_figures(self, figures: dict[str, Any]) -> list[Path]:
        """Writes figures as `plots/<name>.png`; returns their paths in the complete run."""
        write_figures(self.path / "plots", figures)
        return [self.final_path / "plots" / f"{name}.png" for name in figures]

    def finish(self) -> Path:
        """Gives the complete run its final name, deletes the checkpoint, and returns the path."""
        with explaining(self.path):
            if self.final_path.is_dir() and self.path != self.final_path:
                self.final_path.rmdir()  # it was empty when the run began
            self.path.rename(self.final_path)
        self.path = self.final_path
        self.checkpoint_path.unlink(missing_ok=True)
        return self.final_path

    def discard(self) -> None:
        """Deletes the run, unless it is complete."""
        if self.path != self.final_path:
            shutil.rmtree(self.path, ignore_errors=True)


def _make_new_folder(folder: Path, name: str) -> Path:
    """Creates `<UTC time>-<name>.partial`, with a number if that name is taken."""
    name = re.sub(r"[^\w.-]+", "-", name)[:MAX_FOLDER_NAME].strip("-.") or "run"
    now = datetime.datetime.now(datetime.UTC)
    stem = f"{now:%Y-%m-%dT%H-%M-%SZ}-{name}"
    for number in itertools.count(1):
        path = folder / (stem + f"-{number}" * (number > 1) + PARTIAL)
        with suppress(FileExistsError):  # of a program that started in the same second
            path.mkdir()
            if not path.with_suffix("").exists():
                return path
            path.rmdir()  # a run of the same second is complete


def check_same(
    where: object,
    began: Any,
    now: Any,
    key: str = "",
    remedy: str = "Restore it and resume again, or start a new run.",
) -> None:
    """Compares the JSON values that a run began with and those that it would resume with.

    Raises:
        DataError: Two values differ; names the run (`where`) and the path of the first of them.
    """
    if isinstance(began, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*began, *now]):
            path = f"{key}.{name}" if key else name
            check_same(where, began.get(name), now.get(name), path, remedy)
    elif began != now:
        required = f"must be {json.dumps(began)}, as when the run began"
        raise DataError(f"{where}: {key}", required, json.dumps(now), remedy)
