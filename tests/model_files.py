"""Model files that tests write as no program would, and the trap that none of them may spring."""

import re
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path

import keras
import pytest

from cae.errors import ModelFileError
from cae.records.saved_models import load_model

MAX_GROWTH = 100e6  # bytes; the bombs here unpack to 1 GB and more
BOMB = 10**9
TRAP = "untrusted>Trap"


class Trap(keras.layers.Layer):
    """A layer that leaves a mark when it is created."""

    mark: Path

    def __init__(self, **config):
        super().__init__(**config)
        self.mark.touch()

    def call(self, inputs):
        return inputs


def peak_bytes():
    """The peak memory of this process, which only Linux can reset."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


@contextmanager
def nothing_happens(folder, mark, monkeypatch):
    """Checks that no code ran, no file was written, and memory did not grow beyond a model's."""
    scratch = folder / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = sorted(folder.rglob("*"))
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    peak = peak_bytes()
    yield
    grown = peak_bytes() - peak
    assert not mark.exists()
    assert sorted(folder.rglob("*")) == before
    assert grown < MAX_GROWTH, f"{grown / 1e6:.0f} MB"


def assert_refused(path, match, mark, monkeypatch):
    with (
        nothing_happens(path.parent, mark, monkeypatch),
        pytest.raises(ModelFileError, match=match) as caught,
    ):
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: must ")
    assert message.isprintable() and len(message) < 600


def members_of(source):
    with zipfile.ZipFile(source) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path, *members, compression=zipfile.ZIP_STORED):
    """Writes an archive of dicts of members, or of pairs."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for pairs in members:
            for name, content in pairs.items() if isinstance(pairs, dict) else [pairs]:
                archive.writestr(name, content)
