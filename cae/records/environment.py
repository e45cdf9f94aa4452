"""The environment of a run: what, beyond its configuration, is needed to repeat it."""

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from cae import terminal
from cae.config.json_text import load_record
from cae.config.shipped import PROJECT
from cae.data.datasets import Dataset
from cae.errors import ModelFileError
from cae.records.run import FileRecord

PACKAGES = (
    *("tensorflow", "keras", "numpy", "scipy", "scikit-learn"),
    *("matplotlib", "pillow", "pydantic"),
)


class DataRecord(BaseModel):
    """A data set: its name, the shape and dtype of its images, and its files."""

    name: str
    shape: list[int]
    dtype: str
    files: list[FileRecord]


class Origin(BaseModel):
    """Where a model comes from, as it is saved with the model."""

    started: str
    versions: dict[str, str]
    device: str | None
    git_commit: str | None
    data: dict[str, DataRecord]
    models: list[FileRecord]


def read_origin(path: str | Path, metadata: Mapping[str, Any]) -> Origin | None:
    """Where a saved model comes from; None if its file does not say.

    Raises:
        ModelFileError: The file says it in another form.
    """
    if "origin" not in metadata:
        return None
    try:
        return Origin.model_validate(metadata["origin"])
    except ValidationError as invalid:
        remedy = "Save the model again, or give another one."
        raise ModelFileError.from_validation(path, invalid, Origin, remedy) from invalid


class Environment(BaseModel):
    """The content of `environment.json`."""

    command: str  # quoted for a shell
    started: str  # UTC, ISO 8601
    seed: int | None  # of all random numbers; None if there are several
    device: str | None  # that trains; None if several results have devices of their own
    cores: int | None
    platform: str
    python: str
    versions: dict[str, str]  # of the packages that results depend on
    git_commit: str | None  # with "-dirty" if files have been changed; None without git
    data: dict[str, DataRecord]  # by role, such as "training"

    @property
    def day(self) -> str:
        """The date of the start, in ISO 8601."""
        return self.started.partition("T")[0]

    @property
    def trained_on(self) -> str:
        """The name of the training data."""
        return self.data["training"].name if "training" in self.data else "unknown data"


def read_environment(folder: Path) -> Environment:
    """Reads the `environment.json` of a run; a missing or damaged file is a `DataError`."""
    return load_record(folder / "environment.json", Environment)


def describe_environment(
    command: str, datasets: dict[str, Dataset], device: str | None, seed: int | None
) -> dict[str, Any]:
    """The content of `environment.json` for a start with these data sets; see `Environment`."""
    return Environment(
        command=command,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seed=seed,
        device=device,
        cores=os.cpu_count(),
        platform=platform.platform(),
        python=platform.python_version(),
        versions={
            name: version(name) for name in dict.fromkeys([*PACKAGES, terminal.get_backend()])
        },
        git_commit=_find_commit(),
        data={
            role: DataRecord(
                name=data.name,
                shape=data.images.shape,
                dtype=str(data.images.dtype),
                files=data.files,
            )
            for role, data in datasets.items()
        },
    ).model_dump(mode="json")


def _find_commit() -> str | None:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
