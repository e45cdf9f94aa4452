"""One model trained by several workers: the numbers of one, and nobody waits for ever."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, ROOT, Finished, read_json, read_rows, write_json

from cae.config.tf_config import WorkerGroup
from cae.errors import UsageError
from cae.programs import start as start_module
from cae.programs.trainer import shared_stop
from cae.training import data_parallel
from cae.training.batches import Share
from cae.training.data_parallel import Workers, find_slurm_group, meet
from cae.training.layers import synchronized_batch_norm

# Sums of 32-bit numbers in another order, over a few steps of a small learning rate.
ROUNDING = 2e-4
SLOW = ["adam", 0.001]


# --- Slurm ----------------------------------------------------------------------------------------


SLURM = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[01-02]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURMD_NODENAME": "n02",
}


@pytest.fixture
def slurm(monkeypatch):
    """The environment of the last of four tasks on two nodes."""
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_tasks_of_slurm(slurm):
    """Ports depend on the job; no GPU and no nvidia-smi is needed."""
    found = find_slurm_group()
    hosts, ports = zip(*(address.split(":") for address in found.addresses), strict=True)
    assert hosts == ("n01", "n01", "n02", "n02")
    assert ports[0] == ports[2] != ports[1] == ports[3]
    assert found.index == 3
    slurm.setenv("SLURM_JOB_ID", "1234568")
    assert not set(ports) & {a.split(":")[1] for a in find_slurm_group().addresses}


def test_slurm_says_too_little(slurm):
    """E.g. inside salloc without srun."""
    slurm.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(UsageError, match="srun"):
        find_slurm_group()


def test_slurm_numbers_in_another_order(slurm):
    """TensorFlow sorts n2 behind n10: the wrong machine would be called."""
    slurm.setenv("SLURM_STEP_NODELIST", "n[2,10]")
    slurm.setenv("SLURMD_NODENAME", "n10")
    with pytest.raises(UsageError, match="task 3 must run on n2"):
        find_slurm_group()


# --- Meeting --------------------------------------------------------------------------------------


def find_addresses(count):
    return [f"127.0.0.1:{port}" for port in data_parallel.find_ports(count)]


def connect(port):
    """A connection to this machine, as soon as somebody listens."""
    for _ in range(1000):
        with contextlib.suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port))
        time.sleep(0.02)
    raise AssertionError("nobody listens")


def test_all_meet_whoever_comes_first(monkeypatch):
    """Nobody leaves before the last one has come, and strangers do not count."""
    monkeypatch.setattr(data_parallel, "SECONDS_BETWEEN_CALLS", 0.02)
    addresses = find_addresses(3)
    left = []
    threads = [
        threading.Thread(target=lambda i=i: (meet(WorkerGroup(addresses, i), 20), left.append(i)))
        for i in range(3)
    ]
    threads[1].start()
    threads[0].start()
    port = int(addresses[0].split(":")[1])
    with connect(port) as stranger:
        stranger.sendall(b"GET /")
    time.sleep(0.1)
    assert not left
    threads[2].start()
    for thread in threads:
        thread.join(20)
    assert sorted(left) == [0, 1, 2]


@pytest.mark.parametrize("index", [0, 1])
def test_one_that_does_not_come(index):
    """A line with the address, after the time that there is."""
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:\d+"):
        meet(WorkerGroup(find_addresses(2), index), 0.2)


def test_a_taken_port():
    with socket.create_server(("", 0)) as taken:
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}", "127.0.0.1:1"]
        with pytest.raises(UsageError, match="in use"):
            meet(WorkerGroup(addresses, 0), 20)


def test_workers_of_this_machine(tmp_path):
    """Each gets its place; they end with the program, also where it fails."""
    script = tmp_path / "program.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "Path(sys.argv[1]).write_text(os.environ['TF_CONFIG'] + ' '.join(sys.argv[2:]))\n"
        "if '--wait' in sys.argv: time.sleep(600)\n"
    )
    told = tmp_path / "told"
    with data_parallel.started_here([str(script), str(told), "--epochs", "2"], 2) as group:
        assert group.index == 0
    other = WorkerGroup(group.addresses, 1)
    assert told.read_text() == f"{other.to_json()}--epochs 2 --devices workers"
    start = time.monotonic()
    with pytest.raises(KeyError), data_parallel.started_here([str(script), str(told), "--wait"], 2):
        raise KeyError
    assert time.monotonic() - start < 300


# --- The flag -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["0", "some"])
def test_wrong_number_of_devices(autoencode, value):
    autoencode("--devices", value).refused("all, workers or")


def test_more_devices_than_there_are(autoencode):
    """Refused, with nothing written."""
    finished = autoencode("--devices", 2).refused("in this machine, 0, got 2")
    assert not finished.runs


def test_all_devices_of_a_machine_with_one(autoencode):
    """Said, and trained as usual."""
    finished = autoencode("--devices", "all").ok()
    assert "warning: --devices all: " in finished.err
    assert finished.metrics["epochs"] == 1


def test_devices_without_a_configuration(autoencode):
    """Several processes cannot all ask."""
    autoencode("--devices", "all", config=None).refused("Pass one with -c FILE")


# --- Training together ----------------------------------------------------------------------------

BATCH_NORM = {
    "encoder_layers": [["conv", 4, [3, 3]], ["batchNorm"], ["pool", [2, 2]]],
    "batch_size": 7,  # the last batch has one image, fewer than there are workers
    "l2": 0.001,
    "epochs": 2,
    "optimizer": SLOW,
}
# Starts the second worker of one machine without a GPU.
TWO_HERE = """
import sys
import autoencoder
from cae.training import data_parallel
data_parallel.count_devices = lambda devices: devices
raise SystemExit(autoencoder.main(sys.argv[1:]))
"""
DYING_IN_THE_THIRD_EPOCH = """
import os, signal, sys
import autoencoder
from cae.training import batches
iterate = batches.Batches.iterate
def die(self, epoch=0, first_step=0):
    if epoch == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return iterate(self, epoch, first_step)
batches.Batches.iterate = die
raise SystemExit(autoencoder.main(sys.argv[1:]))
"""


def start(command, group=None):
    """Starts a worker: a program, or Python code after -c."""
    environment = dict(os.environ)
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # TensorFlow sets it where it was imported first
    if group:
        environment["TF_CONFIG"] = group.to_json()
        command = [*command, "--devices", "workers"]
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(process):
    out, err = process.communicate(timeout=600)
    return Finished(process.returncode, out, err, [])


def run_two(first, second):
    """Runs two workers that find each other by TF_CONFIG."""
    addresses = find_addresses(2)
    started = [
        start(command, WorkerGroup(addresses, index))
        for index, command in enumerate([first, second])
    ]
    return [wait_for(process) for process in started]


def assert_same_training(run, expected):
    """The same rows, to rounding."""
    rows, expected_rows = (read_rows(path / "history.csv") for path in (run, expected))
    assert len(rows) == len(expected_rows)
    for row, other in zip(rows, expected_rows, strict=True):
        assert row.keys() == other.keys()
        for name in row.keys() - {"seconds", "phase"}:
            assert float(row[name]) == pytest.approx(float(other[name]), rel=ROUNDING), name


def assert_same_weights(run, expected):
    """To rounding, which Adam makes larger where a gradient is small."""
    weights, expected_weights = (
        keras.models.load_model(path / "model.keras").get_weights() for path in (run, expected)
    )
    for array, other in zip(weights, expected_weights, strict=True):
        np.testing.assert_allclose(array, other, rtol=0, atol=5 * ROUNDING)


def should_stop(stop, *others):
    """Whether a session stops when other workers have got these signals."""
    together = SimpleNamespace(gather=lambda own: [own, *others])
    return shared_stop(stop, together)()


def test_a_signal_to_one_stops_all():
    """With the exit code that it asks for; without any nobody stops."""
    stop = start_module.StopSignal()
    assert not should_stop(stop, 0)
    assert stop.exit_code == 0
    assert should_stop(stop, 143)
    assert stop.exit_code == 143
    assert shared_stop(stop, None)()


def test_dropout_differs_between_workers():
    """Worker 0 draws what one alone does, and resuming adds the same to a checkpoint's state."""

    def draw(index):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((100,)), keras.layers.Dropout(0.5)])
        Workers.vary_random_states(SimpleNamespace(share=Share(index, 2)), model)
        return keras.ops.convert_to_numpy(model(np.ones((1, 100), np.float32), training=True))

    keras.utils.set_random_seed(1)
    alone = keras.Sequential([keras.Input((100,)), keras.layers.Dropout(0.5)])
    expected = keras.ops.convert_to_numpy(alone(np.ones((1, 100), np.float32), training=True))
    assert (draw(0) == expected).all()
    assert (draw(1) != expected).any()
    assert (draw(1) == draw(1)).all()


def test_batch_norm_is_as_before():
    """A saved model must not ask for other workers."""
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((2,)), layer])
    with pytest.raises(KeyError), synchronized_batch_norm(model):
        assert layer.synchronized
        raise KeyError
    assert not layer.synchronized


@pytest.mark.slow
def test_two_devices_are_as_good_as_one(autoencode, tmp_path):
    """--devices 2 gives the numbers of one device, with BatchNorm and a last batch of one."""
    config = write_json(tmp_path / "norm.json", AUTOENCODER, BATCH_NORM)
    alone = autoencode(config=config).ok()
    run = tmp_path / "two"
    command = read_json(alone.run / "environment.json")["command"]
    flags = shlex.split(command)[1:]
    ended = wait_for(start(["-c", TWO_HERE, *flags, "--run-dir", run, "--devices", 2])).ok()
    assert "Starting TensorFlow" not in ended.err  # loaded before; the second worker is silent
    assert ended.out.count("2 workers") == 1
    assert_same_training(run, alone.run)


@pytest.mark.slow
def test_two_workers_train_a_classifier(classify, tmp_path, files, trained_autoencoder):
    """Both phases, on two machines: the first keeps the record, the second writes nothing."""
    config = write_json(tmp_path / "head.json", CLASSIFIER, batch_size=7, optimizer=SLOW)
    alone = classify(config=config)
    command = [
        ROOT / "classification.py", *files.classifier, "-model", trained_autoencoder.saved,
        "-c", config, "--no-plots",
    ]  # fmt: skip
    run, other = tmp_path / "run", tmp_path / "other"
    first, second = run_two(
        [*command, "--run-dir", run], [*command, "--run-dir", other, "--save", other / "m.keras"]
    )
    assert (first.exit_code, second.exit_code) == (0, 0), first.err + second.err
    assert (second.out, second.err) == ("", "")
    assert not other.exists()
    assert_same_training(run, alone.run)
    assert_same_weights(run, alone.run)
    metrics = read_json(run / "metrics.json")
    assert metrics["test_accuracy"] == alone.metrics["test_accuracy"]


@pytest.mark.slow
def test_a_lost_worker_ends_the_others_and_both_go_on(autoencode, tmp_path, files):
    """A line within seconds, exit code 2, and --resume to the numbers of one worker."""
    config = write_json(tmp_path / "long.json", AUTOENCODER, epochs=4, optimizer=SLOW)
    alone = autoencode(config=config)
    flags = [*files.autoencoder, "-c", config, "--no-plots"]
    run = tmp_path / "run"
    addresses = find_addresses(2)
    survivor = start([ROOT / "autoencoder.py", *flags, "--run-dir", run], WorkerGroup(addresses, 0))
    victim = wait_for(start(["-c", DYING_IN_THE_THIRD_EPOCH, *flags], WorkerGroup(addresses, 1)))
    died = time.monotonic()
    first = wait_for(survivor)
    assert time.monotonic() - died < 300
    assert (victim.exit_code, first.exit_code) == (-signal.SIGKILL, 2)
    *_, resume, error = first.err.splitlines()
    assert error.startswith("error: workers: ") and "no answer from worker 1" in error
    assert resume.endswith("run.partial --devices workers")
    command = [ROOT / "autoencoder.py", "--resume", run, "--no-plots"]
    resumed = run_two(command, command)
    assert [ended.exit_code for ended in resumed] == [0, 0], resumed
    assert_same_training(run, alone.run)
    assert_same_weights(run, alone.run)


@pytest.mark.slow
def test_workers_with_different_data(tmp_path, files, autoencoder_config):
    """Refused by both before anything is trained."""
    flags = ["-c", autoencoder_config, "--no-plots", "--runs-dir", tmp_path / "runs"]
    for ended in run_two(
        [ROOT / "autoencoder.py", "-d", files.images, *flags],
        [ROOT / "autoencoder.py", "-d", files.test, *flags],
    ):
        assert ended.exit_code == 2
        assert "error: worker 1: must have the data of worker 0" in ended.err
    assert not list((tmp_path / "runs").iterdir())
