"""An interrupted training goes on to the very bits of one that was never interrupted."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest
import keras
import numpy as np
import pytest
from conftest import (
    assert_same_weights,
    draw_four_classes,
    edit_json,
    read_json,
    read_rows,
    run_program,
    write_dataset,
    write_json,
)

import autoencoder
from cae.config.fields import OPTIMIZERS
from cae.errors import DataError
from cae.records.checkpoint import Checkpoint
from cae.records.run import Run, read_start
from cae.records.saved_models import load_model, read_metadata, save_model
from cae.training import build, callbacks
from cae.training import train as train_module

# Two steps an execution and three executions an epoch, the last of one small batch.
IMAGES_PER_EXECUTION = 16
BATCH_SIZE = 8
AUTOENCODER = {
    "encoder_layers": [["conv", 3, [3, 3]], ["batchNorm"], ["pool", [2, 2]], ["drop", 0.3]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 3, [3, 3]]],
    "optimizer": ["adam", 0.01],
    "batch_size": BATCH_SIZE,
    "epochs": 3,
    "noise": 0.1,
    "augmentation": {"rotation": 10, "shift": 0.1, "zoom": 0.1},
    "learning_rate_schedule": ["exponential", 0.5],
}
CLASSIFIER = {
    "dense_layers": [["dense", 6], ["batchNorm"], ["drop", 0.3]],
    "optimizer": ["adam", 0.01, 0.002],
    "dense_only_train_epochs": 2,
    "full_train_epochs": 2,
    "batch_size": BATCH_SIZE,
    "learning_rate_schedule": ["cosine"],
}


@pytest.fixture(autouse=True)
def executions_of_two_steps(monkeypatch):
    monkeypatch.setattr("cae.training.batches.IMAGES_PER_EXECUTION", IMAGES_PER_EXECUTION)


@pytest.fixture
def save_always(monkeypatch):
    """A checkpoint after every execution and every epoch, however long that takes."""
    monkeypatch.setattr(callbacks, "CHECKPOINT_SECONDS", 0)
    monkeypatch.setattr(callbacks, "CHECKPOINT_SHARE", 1e9)


@pytest.fixture(scope="module")
def images():
    return draw_four_classes(44)


class Killed(Exception):
    """The process is gone."""


class KillAt(keras.callbacks.Callback):
    """Ends a training from outside, after so many executions or epochs."""

    def __init__(self, moment):
        super().__init__()
        self._left = moment

    def on_train_batch_end(self, batch, logs=None):
        self._count()

    def on_epoch_end(self, epoch, logs=None):
        self._count()

    def _count(self):
        self._left -= 1
        if self._left == 0:
            raise Killed


class Training:
    """One way to train that can be begun, interrupted and gone on with."""

    def __init__(self, kind, images, **changes):
        self._images = images
        self._kind = kind
        self._info = {**(AUTOENCODER if kind == "autoencoder" else CLASSIFIER), **changes}

    def run(self, checkpoint=None, **hooks):
        """Returns the model and its history."""
        shape = self._images.shape[1:]
        encoder = build.get_autoencoder(AUTOENCODER, shape)
        if self._kind == "autoencoder":
            model = build.get_autoencoder(self._info, shape)
            train, given = train_module.train_autoencoder, (self._images,)
            hooks = {"warn": lambda sentence: None, **hooks}
        else:
            model = build.get_classifier(self._info, shape, 4, encoder=encoder)
            train, given = train_module.train_classifier, (self._images, np.arange(44) % 4)
            if "unlabelled" in self._info:
                hooks = {"unlabelled": self._images[:40], **hooks}
        return model, train(model, self._info, *given, checkpoint=checkpoint, **hooks)

    def kill(self, path, moment):
        """Runs it from its checkpoint, if there is one, until that moment; False if it ended."""
        try:
            self.run(Checkpoint(path), callbacks=[KillAt(moment)])
        except Killed:
            return True
        return False


def assert_same(first, second):
    """Bit-identical weights, and the same history but for its seconds."""
    for one, other in zip(first[0].variables, second[0].variables, strict=True):
        np.testing.assert_array_equal(one, other)
    rows = [[{**row, "seconds": 0} for row in history.epochs] for _, history in (first, second)]
    assert rows[0] == rows[1]
    assert first[1].best_epoch == second[1].best_epoch


PLAIN = {"noise": 0, "augmentation": None, "learning_rate_schedule": None}
UNLABELLED = {"batch_size": 12, "label_spreading": {"neighbours": 3}, "pseudo_labels": {}}
CASES = {
    "autoencoder": ("autoencoder", {}),
    "classifier": ("classifier", {}),
    "classifier with unlabelled images": ("classifier", {"unlabelled": UNLABELLED}),
}
SLOW_CASES = {
    "autoencoder without validation": ("autoencoder", {"validation_split": 0}),
    "autoencoder that crops": (
        "autoencoder",
        {"encoder_layers": [["pool", [3, 3]]], "decoder_layers": [["upSample", [3, 3]]]},
    ),
    "autoencoder in bfloat16": ("autoencoder", {"mixed_precision": True}),
    "classifier with augmentation": ("classifier", {"augmentation": {"shift": 0.1}}),
    "classifier in bfloat16": ("classifier", {"mixed_precision": True, "validation_split": 0}),
}
LONG_CASES = {
    name: ("autoencoder", {**PLAIN, "optimizer": [name, 0.01], "epochs": 2}) for name in OPTIMIZERS
}


@pytest.mark.parametrize(
    ("kind", "changes"),
    [pytest.param(*case, id=name) for name, case in CASES.items()]
    + [pytest.param(*case, id=name, marks=pytest.mark.slow) for name, case in SLOW_CASES.items()]
    + [pytest.param(*case, id=name, marks=pytest.mark.long) for name, case in LONG_CASES.items()],
)
def test_a_killed_training(tmp_path, images, save_always, report_cpu, kind, changes):
    """In an epoch and again at the end of one; of a classifier at the end of its first phase."""
    report_cpu("avx512_bf16")
    training = Training(kind, images, **changes)
    path = tmp_path / "checkpoint.npz"
    for moment, step in [(2, 4), (6 if kind == "classifier" else 2, 0)]:
        assert training.kill(path, moment)
        assert Checkpoint(path).state.step == step
    assert_same(training.run(Checkpoint(path)), training.run())


def test_a_killed_training_on_unlabelled_images(tmp_path, images, save_always):
    """Inside the first epoch, at its end, and in the second, for which labels were spread anew.

    Student, teacher, spread labels and batches go on together.
    """
    spreading = {"neighbours": 3, "share": 0.5, "refresh": 1, "last_share": 1}
    how = UNLABELLED | {"label_spreading": spreading}
    phases = {"dense_only_train_epochs": 0, "full_train_epochs": 3}
    training = Training("classifier", images, unlabelled=how, **phases)
    path = tmp_path / "checkpoint.npz"
    for moment, step in [(2, 2), (3, 0), (2, 2)]:  # 4 steps an epoch, one an execution
        assert training.kill(path, moment)
        assert Checkpoint(path).state.step == step
    assert_same(training.run(Checkpoint(path)), training.run())


class AskedAt:
    """Requests the stop at the given question, counted from 1."""

    def __init__(self, question):
        self._left = question

    def __call__(self):
        self._left -= 1
        return self._left <= 0


@pytest.mark.parametrize("question", [2, 3, 4])
def test_a_training_that_was_asked_to_stop(tmp_path, images, question):
    """Inside an epoch, at its end, and in the next; an epoch cut short is not gone on from."""
    training = Training("autoencoder", images)
    path = tmp_path / "checkpoint.npz"
    _, stopped = training.run(Checkpoint(path), should_stop=AskedAt(question))
    assert len(stopped.epochs) == (1 if question <= 3 else 2)
    assert stopped.best_epoch
    state = Checkpoint(path).state
    assert (state.epoch, state.step) == {2: (0, 4), 3: (1, 0), 4: (1, 2)}[question]
    assert_same(training.run(Checkpoint(path)), training.run())


@pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
def test_patience_is_remembered(tmp_path, images, save_always, kind):
    """Nothing improves at this rate: each phase ends after its third epoch, resumed or not."""
    slow = {"optimizer": ["sgd", 1e-30], "early_stopping": 2, "learning_rate_schedule": None}
    if kind == "classifier":
        slow |= {"dense_only_train_epochs": 9, "dense_layers": [["dense", 6]]}
    else:
        slow |= {"epochs": 9}
    training = Training(kind, images, **slow)
    path = tmp_path / "checkpoint.npz"
    assert training.kill(path, 7)  # in the second epoch
    assert training.kill(path, 6)  # at the end of the third
    assert Checkpoint(path).state.epoch == 9, "the phase is over"
    resumed, whole = training.run(Checkpoint(path)), training.run()
    assert len(whole[1].epochs) == (3 if kind == "autoencoder" else 5)
    assert_same(resumed, whole)


def test_a_training_killed_at_its_very_end(tmp_path, images, save_always):
    """Nothing is left to train, and the best weights, of the first epoch, come back."""
    training = Training("autoencoder", images, optimizer=["sgd", 1e-30])
    path = tmp_path / "checkpoint.npz"
    assert training.kill(path, 12)
    resumed = training.run(Checkpoint(path), callbacks=[KillAt(1)])
    assert resumed[1].best_epoch == 1
    assert_same(resumed, training.run())


class PassTime(keras.callbacks.Callback):
    """Stands in for the module `time`: every execution takes so many seconds, nothing else any."""

    def __init__(self, seconds):
        super().__init__()
        self._seconds = seconds
        self._now = 0.0

    def perf_counter(self):
        return self._now

    def on_train_batch_begin(self, batch, logs=None):
        self._now += self._seconds


@pytest.mark.parametrize(
    ("seconds", "saved_in_epoch"), [(1, []), (39, []), (70, [4]), (121, [2, 4])]
)
def test_a_checkpoint_every_epoch_and_every_two_minutes(
    tmp_path, images, monkeypatch, seconds, saved_in_epoch
):
    """Three executions an epoch: inside it as often as two minutes pass, and always at its end."""
    saved = []
    time_passes = PassTime(seconds)
    monkeypatch.setattr(callbacks, "time", time_passes)
    monkeypatch.setattr(
        Checkpoint, "save", lambda self, state: saved.append((state.epoch, state.step))
    )
    Training("autoencoder", images).run(
        Checkpoint(tmp_path / "checkpoint.npz"), callbacks=[time_passes]
    )
    assert saved == [
        place
        for epoch in range(AUTOENCODER["epochs"])
        for place in [*((epoch, step) for step in saved_in_epoch), (epoch + 1, 0)]
    ]


def test_checkpoints_cost_little(tmp_path, images, monkeypatch):
    """Epochs of milliseconds are not each saved: one waits until the last one has paid off."""
    saved = []
    monkeypatch.setattr(Checkpoint, "save", lambda self, state: saved.append(time.sleep(0.2)))
    Training("autoencoder", images, epochs=4).run(Checkpoint(tmp_path / "checkpoint.npz"))
    assert len(saved) == 1


def test_other_variables_are_refused(tmp_path, images, save_always):
    """As another version of Keras may have them."""
    path = tmp_path / "checkpoint.npz"
    assert Training("autoencoder", images).kill(path, 1)
    with pytest.raises(DataError, match="must fit the model, the optimizer"):
        Training("autoencoder", images, optimizer=["sgd", 0.01]).run(Checkpoint(path))


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


@pytest.fixture(scope="module")
def configs(tmp_path_factory):
    """Two epochs a phase, of one step an execution."""
    folder = tmp_path_factory.mktemp("configs")
    tiny = write_json(folder / "tiny.json", conftest.AUTOENCODER, epochs=2)
    head = write_json(folder / "head.json", conftest.CLASSIFIER, dense_only_train_epochs=2)
    return {"autoencoder": tiny, "classifier": head}


@pytest.fixture
def programs(tmp_path, files, configs, trained_autoencoder):
    return Programs(tmp_path, files, configs, trained_autoencoder.saved)


def interrupting(execution, number):
    """Progress that sends a signal at an execution, counted from 1 over all epochs."""

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
    return lambda *when: monkeypatch.setattr(callbacks, "ShowProgress", interrupting(*when))


def read_record(run):
    """What must be the same in two runs, however often they were interrupted."""
    rows = [{**row, "seconds": ""} for row in read_rows(run / "history.csv")]
    metrics = read_json(run / "metrics.json")
    for name in ("seconds", "images_per_second"):
        del metrics[name]
    weights = load_model(run / "model.keras")[0].get_weights()
    return rows, metrics, [weight.tobytes() for weight in weights]


@pytest.mark.parametrize(("program", "execution"), [("autoencoder", 4), ("classification", 7)])
def test_a_run_is_resumed_in_its_folder(tmp_path, programs, interrupt, program, execution):
    """After Ctrl-C in an epoch; a run that nobody interrupted has the same weights and history."""
    whole = programs.start(program)
    saved = tmp_path / "saved.keras"
    interrupt(execution, signal.SIGINT)
    stopped = programs.start(program, "--save", saved)
    assert stopped.exit_code == 130
    assert not saved.exists()
    left = "checkpoint.npz config.json environment.json history.csv metrics.json model.keras"
    assert sorted(path.name for path in stopped.run.iterdir()) == [*left.split(), "run.json"]
    assert f"Resume with: python {program}.py --resume {stopped.run}" in stopped.err
    finished = programs.resume(program, stopped.run).ok()
    assert "resumed" in finished.out and " batches, " in finished.out
    if program == "autoencoder":  # epochs are counted as if nothing had happened
        assert "epoch 2/2" in finished.err and "epoch 1/1" not in finished.err
    run = stopped.run.with_suffix("")
    assert {*programs.runs_dir.iterdir()} == {whole.run, run}
    assert read_record(run) == read_record(whole.run)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.run.iterdir()}
    assert read_metadata(saved)["name"] == "trial"
    environment = read_json(run / "environment.json")
    assert environment["command"].endswith(f"--save {saved} --runs-dir {programs.runs_dir}")


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory, files, configs, trained_autoencoder):
    folder = tmp_path_factory.mktemp("stopped")
    programs = Programs(folder, files, configs, trained_autoencoder.saved)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "ShowProgress", interrupting(2, signal.SIGTERM))
        done = programs.start("autoencoder")
    assert done.exit_code == 143
    return done.run


@pytest.fixture
def stopped(programs, stopped_once):
    """An interrupted run of autoencoder.py."""
    return Path(shutil.copytree(stopped_once, programs.runs_dir / stopped_once.name))


def edit_arguments(run, **changes):
    edit_json(run / "run.json", "arguments", **changes)


def damage_checkpoint(run):
    (run / "checkpoint.npz").write_bytes(b"PK")


REFUSED = {
    "an edited configuration": (
        lambda run: edit_json(run / "config.json", batch_size=17),
        r"config\.json: batch_size: must be 16, .*got 17\.",
    ),
    "an edited flag": (
        lambda run: edit_arguments(run, limit=9),
        r"--limit: must draw the images that the run began with, null, got .*sha256",
    ),
    "a flag of another type": (
        lambda run: edit_arguments(run, limit="many"),
        r'run\.json: arguments\.limit: must be an integer, got "many"',
    ),
    "no run.json": (
        lambda run: (run / "run.json").unlink(),
        r"run\.json: must be readable, got No such file",
    ),
    "a damaged checkpoint": (damage_checkpoint, r"checkpoint\.npz: must be a complete checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_a_changed_run_is_refused(programs, stopped, change, words):
    """With one line, and it stays as it is."""
    change(stopped)
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    done = programs.resume("autoencoder", stopped).refused()
    (line,) = done.err.splitlines()
    assert re.search(words, line), line
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def test_other_data_are_refused(tmp_path, programs, stopped, monkeypatch):
    """The file is named; with the one of the beginning the run goes on, from another folder too."""
    start = (stopped / "run.json").read_bytes()
    other = write_dataset(tmp_path / "other", count=50)
    edit_arguments(stopped, dataset=str(other.images))
    programs.resume("autoencoder", stopped).refused(f"error: {other.images}: must have the content")
    (stopped / "run.json").write_bytes(start)
    monkeypatch.chdir(tmp_path)
    assert programs.resume("autoencoder", stopped).exit_code == 0


def test_an_encoder_that_changed_is_refused(tmp_path, programs, interrupt, trained_autoencoder):
    encoder = tmp_path / "encoder.keras"
    shutil.copy(trained_autoencoder.saved, encoder)
    interrupt(2, signal.SIGINT)
    run = programs.start("classification", "-model", encoder).run
    model, metadata = load_model(encoder)
    save_model(model, encoder, {**metadata, "name": "another"}, overwrite=True)
    done = programs.resume("classification", run).refused()
    assert re.search(r"encoder\.keras: must have the content", done.err)


class TestWhatCannotBeResumed:
    def test_no_such_run(self, programs, stopped):
        """The nearest name of an interrupted one is suggested."""
        done = programs.resume("autoencoder", stopped.with_name("no-trial"))
        done.refused("no-trial", f"Did you mean {stopped}?")

    def test_a_complete_run(self, programs, stopped):
        """Its model can be begun with."""
        run = stopped.with_suffix("")
        assert programs.resume("autoencoder", run).exit_code == 0, "named without .partial"
        programs.resume("autoencoder", run).refused("complete", f"--init-from {run}")

    def test_a_run_of_the_other_program(self, programs, stopped):
        done = programs.resume("classification", stopped)
        done.refused(f"Type: python autoencoder.py --resume {stopped}")

    def test_with_other_flags(self, programs, stopped):
        done = programs.resume("autoencoder", stopped, "--epochs", 3, "-d", "mnist", "--show")
        done.refused("got --dataset, --epochs.")

    def test_a_run_in_use(self, programs, stopped):
        """The second of two programs is refused, and the first one's run is left alone."""
        before = {path.name for path in stopped.iterdir()}
        with Run.reopen(stopped) as run:
            run.interrupted = True
            programs.resume("autoencoder", stopped).refused(f"process {os.getpid()}")
        assert {path.name for path in stopped.iterdir()} == before
        assert programs.resume("autoencoder", stopped).exit_code == 0


class TestInitFrom:
    @pytest.mark.parametrize("program", ["autoencoder", "classification"])
    def test_starts_from_the_weights(self, request, programs, program, tmp_path):
        """At a rate of nearly nothing they stay what they were."""
        kind = {"autoencoder": "autoencoder", "classification": "classifier"}[program]
        trained = request.getfixturevalue(f"trained_{kind}")
        config = read_json(trained.run / "config.json")
        tiny = write_json(tmp_path / "rate.json", config, optimizer=["sgd", 1e-30])
        done = programs.start(program, "-c", tiny, "--init-from", trained.saved, config=False).ok()
        assert_same_weights(
            *(load_model(path)[0] for path in (trained.saved, done.run / "model.keras"))
        )
        assert read_metadata(done.run / "model.keras")["init_from"] == trained.saved

    def test_takes_the_configuration_of_the_model(self, programs, trained_autoencoder):
        flags = ["--init-from", trained_autoencoder.saved, "--epochs", 1]
        done = programs.start("autoencoder", *flags, config=False).ok()
        config = read_json(trained_autoencoder.run / "config.json")
        assert read_json(done.run / "config.json") == config | {"epochs": 1}

    def test_other_layers_are_refused(self, tmp_path, programs, trained_autoencoder):
        """The first layer that differs is named, with both."""
        decoder = [["upSample", [2, 2]], ["conv", 5, [3, 3]]]
        path = tmp_path / "other.json"
        other = write_json(path, conftest.AUTOENCODER, decoder_layers=decoder)
        flags = ["-c", other, "--init-from", trained_autoencoder.saved]
        programs.start("autoencoder", *flags, config=False).refused(
            "here decoder layer 2: Conv2D filters 5", "got decoder layer 2: Conv2D filters 4"
        )

    @pytest.mark.parametrize(
        ("program", "flags", "words"),
        [
            ("autoencoder", ["--init-from", "{classifier}"], "must be a saved autoencoder"),
            ("classification", ["--init-from", "{classifier}", "-model", "x"], "x as well"),
            ("autoencoder", ["--init-from", "gone.keras"], "no such file"),
        ],
    )
    def test_wrong_models(self, programs, trained_classifier, program, flags, words):
        flags = [flag.format(classifier=trained_classifier.saved) for flag in flags]
        programs.start(program, *flags, config=False).refused(words)


class TestRunDir:
    def test_is_exactly_that(self, tmp_path, programs):
        """New or empty; nothing is written to --runs-dir."""
        (tmp_path / "mine").mkdir()
        programs.start("autoencoder", "--run-dir", tmp_path / "mine").ok()
        assert (tmp_path / "mine" / "model.keras").exists()
        assert not programs.runs_dir.exists()

    def test_is_never_added_to(self, tmp_path, programs, stopped):
        """Both ways out are printed; before an interrupted run is resumed, its place is taken."""
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").touch()
        for folder in (tmp_path / "mine", stopped, stopped.with_suffix("")):
            programs.start("autoencoder", "--run-dir", folder).refused(f"--resume {folder}.")

    def test_holds_one_run(self, tmp_path, programs, configs):
        programs.start(
            "autoencoder", "-c", configs["autoencoder"], "--run-dir", tmp_path / "mine"
        ).refused("--run-dir", "got 2")


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
