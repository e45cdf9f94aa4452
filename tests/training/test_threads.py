"""How the cores divide the work: only where it gains, and with the same result."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cae.config.load import validate_config
from cae.records.saved_models import load_model
from cae.training import threads
from cae.training.threads import THREADS_OF_AN_OPERATION, choose_cores, use_cores

ROOT = Path(__file__).parents[2]
SPLIT = {
    "encoder_layers": [["conv", 4, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]]],
    "optimizer": ["adam", 0.01],
    "batch_size": 32,
    "epochs": 2,
    "mixed_precision": True,
}


def choose_on_this_machine():
    """What a program that just started would choose."""
    if (
        not threads.computes_bfloat16()
        or threads._has_gpu()
        or "TF_NUM_INTRAOP_THREADS" in os.environ
    ):
        return 1
    cores = len(os.sched_getaffinity(0))
    return cores if cores * threads.FEWEST_IMAGES <= SPLIT["batch_size"] else 1


def config_with(**changes):
    return validate_config({**SPLIT, **changes}, "split.json", "autoencoder")


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Two cores that compute bfloat16, no GPU, and a TensorFlow that has not started."""
    facts = tmp_path / "cpuinfo"
    facts.write_text("flags : avx512f avx512_bf16\n")
    devices = tmp_path / "dev"
    devices.mkdir()
    monkeypatch.setattr(threads, "CPU_FACTS", facts)
    monkeypatch.setattr(threads, "DEVICES", devices)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.delenv(THREADS_OF_AN_OPERATION, raising=False)
    return tmp_path


def test_reduced_precision_splits_batches(machine):
    """Each core takes at least 8 of the images."""
    assert choose_cores([config_with()]) == 2
    assert choose_cores([config_with(batch_size=16), config_with()]) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"mixed_precision": False},
        {"batch_size": 15},
        {"encoder_layers": [["conv", 4, [3, 3]], ["batchNorm"], ["pool", [2, 2]]]},
    ],
)
def test_one_configuration_can_forbid_it(machine, changes):
    """What is chosen holds for the whole process."""
    assert choose_cores([config_with(), config_with(**changes)]) == 1


def test_configurations_that_are_not_known_yet_forbid_it(machine):
    """The menu asks for them one by one."""
    assert choose_cores([]) == 1


def test_a_classifier_is_not_split(machine):
    """Most of its training is that of a dense head."""
    info = {
        "dense_layers": [["dense", 8]],
        "optimizer": ["adam", 0.01],
        "dense_only_train_epochs": 1,
        "full_train_epochs": 1,
        "batch_size": 32,
        "mixed_precision": True,
    }
    assert choose_cores([validate_config(info, "head.json", "classifier")]) == 1


def test_the_machine_can_forbid_it(machine, monkeypatch):
    """One core, a CPU without bfloat16, a GPU."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert choose_cores([config_with()]) == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    (machine / "cpuinfo").write_text("flags : avx2\n")
    assert choose_cores([config_with()]) == 1
    (machine / "cpuinfo").write_text("flags : amx_bf16\n")
    assert choose_cores([config_with()]) == 2
    (machine / "dev" / "nvidia0").touch()
    assert choose_cores([config_with()]) == 1


def test_what_is_decided_stays(machine, monkeypatch):
    """By the user, or because TensorFlow runs already."""
    monkeypatch.setenv(THREADS_OF_AN_OPERATION, "2")
    assert choose_cores([config_with()]) == 1
    monkeypatch.delenv(THREADS_OF_AN_OPERATION)
    monkeypatch.setitem(sys.modules, "tensorflow", sys)
    assert choose_cores([config_with()]) == 1


def test_use_cores(machine):
    """One core changes nothing."""
    use_cores(1)
    assert THREADS_OF_AN_OPERATION not in os.environ
    use_cores(2)
    assert os.environ.pop(THREADS_OF_AN_OPERATION) == "1"


def train(run, *flags):
    """The program itself, in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "autoencoder.py", *map(str, flags), "--run-dir", str(run), "--no-plots"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.skipif(choose_on_this_machine() < 2, reason="one core, or none with bfloat16")
def test_a_split_training_is_recorded_and_resumed(tmp_path):
    """To the same bits as without an interruption."""
    config = tmp_path / "split.json"
    config.write_text(json.dumps({**SPLIT, "epochs": 40}))
    flags = ("-d", "digits", "-c", config, "--limit", 300)
    with train(tmp_path / "whole", *flags) as process:
        assert (process.communicate()[1], process.returncode)[1] == 0
    with train(tmp_path / "stopped", *flags) as process:
        while ": epoch 2" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 130
    resume = [sys.executable, "autoencoder.py", "--resume", str(tmp_path / "stopped"), "--no-plots"]
    subprocess.run(resume, cwd=ROOT, check=True, capture_output=True)
    whole, stopped = (
        load_model(tmp_path / run / "model.keras")[0].get_weights() for run in ("whole", "stopped")
    )
    assert [weights.tobytes() for weights in whole] == [weights.tobytes() for weights in stopped]
    record = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert record["cores"] == choose_on_this_machine()
