"""Checkpoints: the state from which an interrupted training resumes, bit for bit.

The file is a NumPy `.npz` (a zip archive of arrays) without pickles, so loading it runs no code. A
new checkpoint replaces the last one when all of it is on the disk, so one is always complete.
"""

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from cae.errors import DataError
from cae.files import explaining, replace_file
from cae.records.run import check_same

ARRAYS = ("model", "optimizer", "objective", "metrics", "best_weights")


class TrainingState(BaseModel):
    """A training between two of its steps."""

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    phase: Literal["dense_only", "full"]
    epoch: NonNegativeInt  # of the phase, from 0; the number of epochs if none is left
    step: NonNegativeInt  # batches of the epoch that are done
    seconds: NonNegativeFloat  # spent on training so far
    epoch_start: NonNegativeFloat  # the value of `seconds` when the epoch began
    rows: list[dict[str, float | int | str]]  # of the history
    best_epoch: PositiveInt | None
    model: list[np.ndarray]  # all variables, the random states of Dropout layers among them
    optimizer: list[np.ndarray]  # all variables
    objective: list[np.ndarray] = []  # what else training changes, such as a student
    metrics: list[np.ndarray]  # of loss and metric, which accumulate over the epoch
    best_weights: list[np.ndarray]  # of the best epoch; empty before there is one


class Checkpoint:
    """The file that holds the state of one training.

    Args:
        path: The file.
        identity: JSON values that must be the same when training resumes; kept in the file.
        read_only: Whether another process writes the file.

    Attributes:
        state: The content of the file; None if there is none, or once training has resumed.

    Raises:
        DataError: The file is damaged, or holds a different identity.
    """

    def __init__(
        self, path: str | Path, identity: dict[str, Any] | None = None, *, read_only: bool = False
    ):
        self.path = Path(path)
        self._read_only = read_only
        self._identity = identity or {}
        self.state = self._load() if self.path.exists() else None

    def save(self, state: TrainingState) -> None:
        """Writes the state in place of the last one, which stays if it cannot be written."""
        if self._read_only:
            return
        values = {"identity": self._identity, "state": state.model_dump(exclude=set(ARRAYS))}
        text = np.frombuffer(json.dumps(values).encode(), np.uint8)
        arrays = {
            f"{name}.{number}": array
            for name in ARRAYS
            for number, array in enumerate(getattr(state, name))
        }
        with explaining(self.path), replace_file(self.path) as file:
            np.savez(file, values=text, **arrays)

    def _load(self) -> TrainingState:
        try:
            values, arrays = _read(self.path)
            identity = values["identity"]
            state = TrainingState(**values["state"], **arrays)
        except Exception as error:  # A damaged archive raises nearly every type.
            reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
            raise DataError(
                self.path,
                "must be a complete checkpoint",
                f"a damaged file: {reason}",
                "Delete it and resume again; training then restarts from its first epoch.",
            ) from error
        check_same(self.path.parent, identity, self._identity)
        return state


def _read(path: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("it is compressed")  # and may not fit into memory
    with np.load(path, allow_pickle=False) as file:
        values = json.loads(file["values"].tobytes())
        arrays: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
        for key in file.files:  # in the order of writing
            name, _, number = key.partition(".")
            if number:
                arrays[name].append(file[key])
    return values, arrays
