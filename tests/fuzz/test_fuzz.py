"""The fuzzer finds what it looks for, and finds nothing in the readers."""

import itertools
import math
import os
import random
import subprocess
import sys
import time

import fuzz_inputs
import pytest
from fuzz_inputs import fuzz, make_input, read_one

from cae.records.saved_models import read_metadata

INPUTS = int(os.environ.get("FUZZ_INPUTS", "20000"))
HDF5_INPUTS = int(os.environ.get("HDF5_INPUTS", "20"))
INPUTS_A_SEED = 100_000  # half a minute


def explode(path):
    raise KeyError("planted")


def swallow(path):
    """Spends its time where exceptions are caught, as in a reader of damaged files."""
    try:
        time.sleep(5)
    except Exception:
        return


@pytest.mark.parametrize(
    ("read", "found"),
    [
        (explode, "KeyError: 'planted'"),
        (lambda path: time.sleep(5), "more than 0.5 s"),
        (swallow, "more than 0.5 s"),
        (lambda path: path.with_name("forgotten").touch(), "left behind: {'forgotten'}"),
    ],
)
def test_planted_faults_are_found(read, found, tmp_path, monkeypatch):
    """Each kind of failure is counted, with the input that caused it, and cleared away."""
    monkeypatch.setattr(fuzz_inputs, "MAX_SECONDS", 0.5)
    monkeypatch.setattr(fuzz_inputs, "TARGETS", {"x": (1, lambda rng: b"\1\2", read)})
    read_count, _, failures = fuzz(tmp_path, seed=0, inputs=1, seconds=60)
    assert read_count == {"x": 1}
    ((number, name, content, failure),) = failures
    assert (number, name, content) == (0, "x", b"\1\2")
    assert found in failure
    assert list(tmp_path.iterdir()) == []


def test_memory_is_a_fault(tmp_path, monkeypatch):
    """The peak before an input is compared with the peak after it."""
    monkeypatch.setattr(fuzz_inputs, "peak_bytes", itertools.count(0, 2 * 10**8).__next__)
    accepted, failure = read_one(tmp_path, "x", b"", lambda path: None)
    assert accepted and "MB of memory" in failure


def test_inputs_can_be_repeated():
    """The same seed and number make the same bytes, whatever was made before."""
    first = [make_input(7, number) for number in range(200)]
    assert first[150] == make_input(7, 150)
    assert first != [make_input(8, number) for number in range(200)]
    assert {name for name, _ in first} == set(fuzz_inputs.TARGETS)


def test_some_inputs_are_accepted(tmp_path):
    """A fuzzer whose inputs all fail at the first byte tests nothing else."""
    read, accepted, failures = fuzz(tmp_path, seed=1, inputs=1000, seconds=600)
    assert not failures
    assert read.total() == 1000 and 100 < accepted.total() < 900


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(math.ceil(INPUTS / INPUTS_A_SEED)))
def test_fuzz(seed):
    """FUZZ_INPUTS sets the number of inputs."""
    inputs = min(INPUTS, INPUTS_A_SEED)
    command = [sys.executable, fuzz_inputs.__file__, "--inputs", str(inputs), "--seed", str(seed)]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert f"{inputs:,} inputs in " in done.stdout and " 0 failures" in done.stdout


@pytest.mark.slow
def test_damaged_hdf5(tmp_path):
    """The HDF5 library may fail, the program may not; HDF5_INPUTS sets the number of files."""
    rng = random.Random(0)
    for _ in range(HDF5_INPUTS):
        content = fuzz_inputs.mutate_bytes(fuzz_inputs.HDF5_MODEL, rng)
        _, failure = read_one(tmp_path, "model.h5", content, read_metadata)
        assert not failure, content.hex()
