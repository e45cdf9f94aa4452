"""A checkpoint is complete or not there, and contains no code."""

import errno
import io
import json
import zipfile

import numpy as np
import pytest
from conftest import fail_with

from cae.errors import DataError, UsageError
from cae.records import checkpoint
from cae.records.checkpoint import Checkpoint, TrainingState
from cae.records.run import check_same

IDENTITY = {"name": "small", "config": {"epochs": 3, "layers": [["conv", 4]]}}


def make_state(**changes):
    values = {"phase": "full", "epoch": 2, "step": 5, "seconds": 1.5, "epoch_start": 1.25}
    values |= {
        "rows": [{"epoch": 1, "phase": "full", "loss": 0.1 + 0.2, "val_loss": float("inf")}],
        "best_epoch": 1,
        "model": [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7, np.int64)],
        "optimizer": [np.array(0.1, np.float32)] * 12,
        "metrics": [],
        "best_weights": [np.float32([np.nan, -0.0])],
    }
    return TrainingState(**{**values, **changes})


@pytest.fixture
def saved(tmp_path):
    """The path of a checkpoint."""
    path = tmp_path / "checkpoint.npz"
    Checkpoint(path, IDENTITY).save(make_state())
    return path


def assert_same_state(first, second):
    for name in TrainingState.model_fields:
        one, other = getattr(first, name), getattr(second, name)
        if name in checkpoint.ARRAYS:
            assert [array.dtype for array in one] == [array.dtype for array in other]
            assert [array.shape for array in one] == [array.shape for array in other]
            assert [array.tobytes() for array in one] == [array.tobytes() for array in other]
        else:
            assert one == other, name


def test_a_state_comes_back_to_the_bit(saved):
    """Order, shapes, types, infinities, and the last digit of every number."""
    assert_same_state(Checkpoint(saved, IDENTITY).state, make_state())


def test_the_last_one_stays_when_the_disk_is_full(saved, monkeypatch):
    """And nothing is left beside it."""
    monkeypatch.setattr("cae.files.os.fsync", fail_with(errno.ENOSPC))
    with pytest.raises(UsageError, match="No space left on device"):
        Checkpoint(saved, IDENTITY).save(make_state(epoch=3))
    assert Checkpoint(saved, IDENTITY).state.epoch == 2
    assert list(saved.parent.iterdir()) == [saved]


def change_an_array(content):
    """Every array lies in the archive with a checksum."""
    place = content.index(np.arange(6, dtype=np.float32).tobytes())
    return content[:place] + b"\1" + content[place + 1 :]


class Canary:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("code ran",))


def archive(compression=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as target:
        for name, array in members.items():
            with target.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array)
    return file.getvalue()


def with_state(**changes):
    state = {**make_state().model_dump(exclude=set(checkpoint.ARRAYS)), **changes}
    text = json.dumps({"identity": IDENTITY, "state": state}).encode()
    return archive(values=np.frombuffer(text, np.uint8))


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content[:-9],
        change_an_array,
        lambda _: archive(values=np.array([Canary()], object)),
        lambda _: archive(zipfile.ZIP_DEFLATED, values=np.zeros(10**7)),  # would fill the memory
        lambda _: with_state(phase="third"),
        lambda _: with_state(epoch=-1),
        lambda _: with_state(rows=[{"loss": [1]}]),
        lambda _: with_state(unknown=1),
    ],
)
def test_damaged_files_are_refused(saved, damage):
    """And no code in them runs."""
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(DataError, match=r"must be a complete checkpoint.*Delete it"):
        Checkpoint(saved, IDENTITY)


def test_another_identity_is_refused(saved):
    """The first key that differs is named, with both values."""
    changed = {**IDENTITY, "config": {"epochs": 4, "layers": [["conv", 4]]}}
    with pytest.raises(DataError, match=r"config.epochs: must be 3, .*got 4"):
        Checkpoint(saved, changed)


@pytest.mark.parametrize(
    ("began", "now", "key"),
    [({"a": 1}, {}, "a"), ({}, {"b": 1}, "b"), ({"a": [1, 2]}, {"a": [1, 3]}, "a")],
)
def test_every_difference_counts(began, now, key):
    with pytest.raises(DataError, match=f"run: {key}: must be"):
        check_same("run", began, now)
    check_same("run", now, json.loads(json.dumps(now)))
