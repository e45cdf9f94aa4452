"""A run that is killed at random moments and resumed ends with the bits of an undisturbed one."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import write_json
from interruptions import AUTOENCODER, CLASSIFIER, read_record

import autoencoder
from cae.records.checkpoint import Checkpoint
from cae.records.run import read_start

# Runs a program with a checkpoint after every execution.
LAUNCHER = """
import sys
from cae.training import batches, callbacks
batches.IMAGES_PER_EXECUTION = 16
callbacks.CHECKPOINT_SECONDS, callbacks.CHECKPOINT_SHARE = 0, 1e9
program = __import__(sys.argv[1])
raise SystemExit(program.main(sys.argv[2:]))
"""
KILLS = int(os.environ.get("KILLS", "3"))
EPOCHS_A_KILL = 12


class Process:
    """A program in a process of its own."""

    def __init__(self, program, *flags):
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, program, *map(str, flags)],
            cwd=Path(autoencoder.__file__).parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_after(self, epochs, seconds, run=None):
        """Sends SIGKILL that long after so many epochs; with `run`, in the next write there."""
        with self._process:
            shown = 0
            while shown < epochs:
                line = self._process.stderr.readline()
                assert line, "the program ended before it could be killed"
                shown += re.search(r"\d+/\d+  loss ", line) is not None
            time.sleep(seconds)
            while run and not any(run.glob(".checkpoint.npz.*.part")):
                assert self._process.poll() is None
            self._process.kill()

    def finish(self):
        _, err = self._process.communicate(timeout=600)
        assert self._process.returncode == 0, err


def kill_and_resume(program, flags, run, kills, rng):
    """Starts a run, kills it that often, and lets it finish; returns where it was killed."""
    moments = []
    process = Process(program, *flags, "--run-dir", run)
    partial = run.with_name(run.name + ".partial")
    done = 0
    for number in range(kills):
        in_write = number % 2 == 1
        target = EPOCHS_A_KILL * number + int(rng.integers(1, EPOCHS_A_KILL // 2))
        process.kill_after(max(1, target - done), rng.uniform(0, 0.1), in_write and partial)
        state = Checkpoint(partial / "checkpoint.npz", read_start(partial).to_json()).state
        done = len(state.rows)
        moments.append((state.phase, done, state.step, in_write))
        process = Process(program, "--resume", run)
    process.finish()
    return moments


@pytest.mark.slow
@pytest.mark.parametrize("program", ["autoencoder", "classification"])
def test_kill_9(tmp_path, files, trained_autoencoder, program):
    """At random moments, every second one during a checkpoint's write; KILLS sets their number."""
    kills = {"autoencoder": KILLS // 2, "classification": KILLS - KILLS // 2}[program]
    epochs = EPOCHS_A_KILL * kills
    changes = {"early_stopping": None, "augmentation": {"shift": 0.1}, "batch_size": 8}
    if program == "autoencoder":
        config = write_json(
            tmp_path / "tiny.json", AUTOENCODER, changes, epochs=epochs, validation_split=0.2
        )
        flags = [*files.autoencoder, "-c", config]
        phases = {"full"}
    else:
        phases = {"dense_only": "dense_only_train_epochs", "full": "full_train_epochs"}
        changes |= dict.fromkeys(phases.values(), epochs // 2)
        config = write_json(tmp_path / "head.json", CLASSIFIER, changes)
        flags = [*files.classifier, "-model", trained_autoencoder.saved, "-c", config]
    Process(program, *flags, "--no-plots", "--run-dir", tmp_path / "whole").finish()
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"{program}: seed {seed}")
    moments = kill_and_resume(
        program, [*flags, "--no-plots"], tmp_path / "killed", kills, np.random.default_rng(seed)
    )
    print(f"{program}: killed {kills} times at (phase, epochs, step, in a write) {moments}")
    assert {phase for phase, *_ in moments} == set(phases)
    assert read_record(tmp_path / "killed") == read_record(tmp_path / "whole")
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}
