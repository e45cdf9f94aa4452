"""Runs that are interrupted, fail or must not change, and studies whose training is pretended."""

import json
import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, read_json, run_program, write_json
from faults import assert_no_half_runs, assert_one_error, snapshot
from report_folders import make_start, write_plan

from cae.config.load import load_config
from cae.records.run import PARTIAL
from cae.records.saved_models import save_model

SHOW_PROGRESS = "cae.training.callbacks.ShowProgress"


@pytest.fixture
def executions_of_16_images(monkeypatch):
    monkeypatch.setattr("cae.training.batches.IMAGES_PER_EXECUTION", 16)


class Programs:
    """Runs both programs in this process, in a folder of their own."""

    def __init__(self, folder, files, configs, encoder):
        self.runs_dir = folder / "runs"
        self._data = {"autoencoder": files.autoencoder, "classification": files.classifier}
        self._config = {
            "autoencoder": ["-c", configs["autoencoder"]],
            "classification": ["-c", configs["classifier"], "-model", encoder],
        }

    def start(self, program, *flags, config=True):
        own = [*self._data[program], *(self._config[program] if config else [])]
        flags = [*own, "--no-plots", "--name", "trial", *flags]
        return run_program(program, *flags, runs_dir=self.runs_dir)

    @staticmethod
    def resume(program, run, *flags):
        return run_program(program, "--resume", run, *flags)


@pytest.fixture(scope="session")
def configs(tmp_path_factory):
    """Two epochs a phase, of one step an execution."""
    folder = tmp_path_factory.mktemp("configs")
    tiny = write_json(folder / "tiny.json", AUTOENCODER, epochs=2)
    head = write_json(folder / "head.json", CLASSIFIER, dense_only_train_epochs=2)
    return {"autoencoder": tiny, "classifier": head}


@pytest.fixture
def programs(tmp_path, files, configs, trained_autoencoder):
    return Programs(tmp_path, files, configs, trained_autoencoder.saved)


def interrupting(execution, number):
    """Progress that sends a signal at an execution, counted from 1 over all epochs."""
    from cae.training import callbacks

    class Interrupted(callbacks.ShowProgress):
        left = execution

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            Interrupted.left -= 1
            if Interrupted.left == 0:
                signal.raise_signal(number)

    return Interrupted


@pytest.fixture
def interrupt(monkeypatch):
    return lambda *when: monkeypatch.setattr(SHOW_PROGRESS, interrupting(*when))


@pytest.fixture(scope="session")
def stopped_once(tmp_path_factory, files, configs, trained_autoencoder):
    folder = tmp_path_factory.mktemp("stopped")
    programs = Programs(folder, files, configs, trained_autoencoder.saved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SHOW_PROGRESS, interrupting(2, signal.SIGTERM))
        done = programs.start("autoencoder")
    assert done.exit_code == 143
    return done.run


@pytest.fixture
def stopped(programs, stopped_once):
    """An interrupted run of autoencoder.py."""
    return Path(shutil.copytree(stopped_once, programs.runs_dir / stopped_once.name))


class EarlierRun:
    def __init__(self, folder, run):
        self._run = folder / "2020-01-01T00-00-00Z-earlier"
        shutil.copytree(run, self._run)
        self._files = snapshot(self._run)

    def check_unchanged(self):
        assert snapshot(self._run) == self._files

    def check(self, done, folder=None):
        """Checks what a fault has left in `folder`."""
        assert_one_error(done, "")
        assert_no_half_runs(folder or self._run.parent)
        self.check_unchanged()


@pytest.fixture
def earlier(tmp_path, trained_autoencoder):
    """An earlier run, which no fault may change."""
    return EarlierRun(tmp_path / "runs", trained_autoencoder.run)


@pytest.fixture
def blue_classifier(tmp_path):
    """A saved classifier of 2×2 RGB images: 1 if the mean of blue is above a half, else 0."""
    import keras
    from keras import layers

    path = tmp_path / "blue.keras"
    dense = layers.Dense(2, "softmax")
    model = keras.Sequential([keras.Input((2, 2, 3)), layers.GlobalAveragePooling2D(), dense])
    dense.set_weights([np.array([[0, 0], [0, 0], [0, 20]], np.float32), np.array([10, 0], "f4")])
    scaling = {"offset": 0.0, "scale": 255.0, "dtype": "uint8"}
    known = {"kind": "classifier", "input_shape": [2, 2, 3], "scaling": scaling, "classes": [0, 1]}
    save_model(model, path, known)
    return path


class Trainer:
    """Stands in for the programs: writes the record of a run whose error is its learning rate."""

    def __init__(self):
        self.calls = []
        self.stop_at = self.fail_at = None
        self.values = {}  # by learning rate and seed, where they differ from that

    def __call__(self, kind, arguments, log, on_epoch):
        self.calls.append(arguments)
        resumed = arguments[0] == "--resume"
        path = Path(arguments[arguments.index("--resume" if resumed else "--run-dir") + 1])
        partial = path.with_name(path.name + PARTIAL)
        if not resumed:
            partial.mkdir()
            config = load_config(arguments[arguments.index("-c") + 1], "autoencoder")
            start = make_start("autoencoder", "x", config.model_dump(mode="json"))
            write_json(partial / "run.json", start.to_json())
            if self.stop_at == len(self.calls):
                return 130
            if self.fail_at == len(self.calls):
                shutil.rmtree(partial)
                log.write("error: the disk must have room, got none.\n")
                return 2
        config = read_json(partial / "run.json")["config"]
        rate, seed = config["optimizer"][1], config["seed"]
        value = self.values.get((rate, seed), rate + seed / 1000)
        metrics = {"val_mse": value, "best_epoch": 1, "seconds": 1.0, "parameters": 9}
        (partial / "metrics.json").write_text(json.dumps(metrics))
        (partial / "history.csv").write_text(f"epoch,phase,loss,val_mse\n1,full,{value},{value}\n")
        (partial / "model.keras").write_text("weights")
        partial.rename(path)
        return 0


@pytest.fixture
def trainer(monkeypatch):
    trainer = Trainer()
    monkeypatch.setattr("cae.studies.trials.run_program", trainer)
    return trainer


@pytest.fixture
def study(tmp_path, files):
    """Three rates of one base; two seeds each."""
    return partial(write_plan, tmp_path, files.images)


@pytest.fixture
def run_study(tmp_path):
    def run(study, *args, runs="runs", plots=False):
        flags = [] if plots else ["--no-plots"]
        return run_program("experiments", "run", study, *flags, *args, runs_dir=tmp_path / runs)

    return run
