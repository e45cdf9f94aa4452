"""Run directories: what a training leaves behind, complete or not at all.

A run is written to `<UTC time>-<name>.partial/` and renamed when everything is in it, so a
folder without that ending is complete.
"""

import datetime
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from dataset import Dataset
from errors import UsageError
from history import History
from hyperparameters import Config, dump_config

PARTIAL = ".partial"
FIGURE_DPI = 120
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


class Run:
    """One run directory; as a context manager it is complete at the end, or gone.

    Args:
        runs_dir: The folder that holds the runs.
        name: What the run is about; other characters than letters, digits, `.`, `_` and `-` are
            replaced.

    Attributes:
        path: Where its files are now.
        final_path: Where they will be.
    """

    def __init__(self, runs_dir: str | Path, name: str):
        folder = check_runs_dir(runs_dir)
        name = re.sub(r"[^\w.-]+", "-", name)[:MAX_NAME].strip("-.") or "run"
        now = datetime.datetime.now(datetime.timezone.utc)
        stem = f"{now:%Y-%m-%dT%H-%M-%SZ}-{name}"
        number = 1
        while True:
            unique = stem if number == 1 else f"{stem}-{number}"
            self.final_path = folder / unique
            self.path = folder / (unique + PARTIAL)
            if not self.final_path.exists():
                try:
                    self.path.mkdir()
                    break
                except FileExistsError:
                    pass  # another program started in the same second
            number += 1

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Completes the run, or deletes it when something went wrong."""
        if kind is None:
            self.finish()
        else:
            self.discard()

    def write(self, name: str, content: str | Callable[[TextIO], None]) -> None:
        """Writes one text file.

        Raises:
            UsageError: The disk is full or the folder has vanished.
        """
        try:
            with (self.path / name).open("w", encoding="utf-8", newline="\n") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
        except OSError as error:
            raise self._cannot_write(name, error) from error

    def write_json(self, name: str, content: Any) -> None:
        """Writes one JSON file, indented, with a final line break."""
        self.write(name, json.dumps(content, indent=2) + "\n")

    def write_record(self, config: Config, environment: dict[str, Any], history: History) -> None:
        """Writes `config.json`, `environment.json`, `history.csv` and `metrics.json`."""
        self.write("config.json", dump_config(config))
        self.write_json("environment.json", environment)
        self.write("history.csv", history.write_csv)
        self.write_json("metrics.json", history.metrics)

    def save_figures(self, figures: dict[str, Any]) -> list[Path]:
        """Saves figures as `plots/<name>.png` and returns where they will be."""
        plots = self.path / "plots"
        try:
            for name, figure in figures.items():
                plots.mkdir(exist_ok=True)
                figure.savefig(plots / f"{name}.png", dpi=FIGURE_DPI)
        except OSError as error:
            raise self._cannot_write("plots", error) from error
        return [self.final_path / "plots" / f"{name}.png" for name in figures]

    def finish(self) -> Path:
        """Gives the complete directory its name."""
        self.path.rename(self.final_path)
        self.path = self.final_path
        return self.final_path

    def discard(self) -> None:
        """Deletes what was written, unless the run is complete."""
        if self.path != self.final_path:
            shutil.rmtree(self.path, ignore_errors=True)

    def _cannot_write(self, name: str, error: OSError) -> UsageError:
        reason = error.strerror or str(error)
        return UsageError(
            self.path / name, "must be writable", reason, "Free space, or give --runs-dir."
        )


def describe_environment(
    command: str, datasets: dict[str, Dataset], device: str, seed: int
) -> dict[str, Any]:
    """What is needed to repeat a run, as written to `environment.json`.

    Args:
        command: The command line, quoted for a shell.
        datasets: The data by their role, e.g. `{"training": …, "test": …}`.
        device: What TensorFlow computes on.
        seed: The seed of everything random.
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
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
