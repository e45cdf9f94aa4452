"""Checkpoints: all that an interrupted training needs to go on, in one file of plain arrays.

The file is an `.npz` of NumPy (a zip archive of arrays) without pickles, so no code can run from
it. A new one takes the place of the last when all of it is on the disk: one is always whole.
"""

import json
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveInt

from cae.errors import DataError
from cae.files import explaining, replace_file

ARRAYS = ("model", "optimizer", "metrics", "best_weights")


class TrainingState(BaseModel):
    """A training between two steps.

    Attributes:
        phase: `history.DENSE_ONLY` or `history.FULL`.
        epoch: The epoch of the phase to go on with, counted from 0; `epochs` when none is left.
        step: How many batches of that epoch are done.
        seconds: Time spent on the training so far.
        epoch_start: What `seconds` was when that epoch began.
        rows: The epochs of the history.
        best_epoch: As in the history.
        model: All variables of the model, the random states of its Dropout layers included.
        optimizer: All variables of the optimizer.
        metrics: What the loss and the metric have counted in the epoch so far.
        best_weights: The weights of the best epoch; empty before there is one.
    """

    model_config = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

    phase: Literal["dense_only", "full"]
    epoch: NonNegativeInt
    step: NonNegativeInt
    seconds: NonNegativeFloat
    epoch_start: NonNegativeFloat
    rows: list[dict[str, float | int | str]]
    best_epoch: PositiveInt | None
    model: list[np.ndarray]
    optimizer: list[np.ndarray]
    metrics: list[np.ndarray]
    best_weights: list[np.ndarray]


class Checkpoint:
    """The file of one training's state.

    Args:
        path: Where it is, or will be.
        identity: What must stay the same for the training to go on, as JSON; kept in the file.
        read_only: Whether another process writes it.

    Attributes:
        state: What the file holds at first; None when there is no file, or once the state has
            been taken over by a training.

    Raises:
        DataError: The file is damaged, or belongs to a training with another identity.
    """

    def __init__(
        self, path: str | Path, identity: dict[str, Any] | None = None, *, read_only: bool = False
    ):
        self.path = Path(path)
        self._read_only = read_only
        self._identity = identity or {}
        self.state = self._load() if self.path.exists() else None

    def save(self, state: TrainingState) -> None:
        """Writes the state in place of the last one, unless the file is another's.

        Raises:
            UsageError: The disk is full, or the folder cannot be written; the last one stays.
        """
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
                "must be a whole checkpoint",
                f"one that cannot be read ({reason})",
                "Delete it and resume again, to begin that run anew.",
            ) from error
        check_same(self.path.parent, identity, self._identity)
        return state


def _read(path: Path) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
            raise ValueError("it is compressed")  # ours is not, and would fit into memory
    with np.load(path, allow_pickle=False) as file:
        values = json.loads(file["values"].tobytes())
        arrays: dict[str, list[np.ndarray]] = {name: [] for name in ARRAYS}
        for key in file.files:  # in the order of writing
            name, _, number = key.partition(".")
            if number:
                arrays[name].append(file[key])
    return values, arrays


def check_same(where: object, began: Any, now: Any, key: str = "") -> None:
    """Compares what a run began with and what it would go on with.

    Args:
        where: The run, for the error.
        began: JSON values as they were.
        now: JSON values as they are.
        key: Path of the two values, for the error.

    Raises:
        DataError: With the first key that differs and both values.
    """
    if isinstance(began, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*began, *now]):
            path = f"{key}.{name}" if key else name
            check_same(where, began.get(name), now.get(name), path)
    elif began != now:
        raise DataError(
            f"{where}: {key}",
            f"must be as it was when the run began ({json.dumps(began)})",
            json.dumps(now),
            "Put it back, or start a new run.",
        )
