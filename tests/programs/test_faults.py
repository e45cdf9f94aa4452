"""Faults around a training: earlier results stay, one line names the fault, and the exit code is 2.

Faults are real wherever a test can make them: full disks, missing rights, folders that vanish,
programs that start together.
"""

import contextlib
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import AUTOENCODER, ROOT, run_program, write_dataset, write_json
from matplotlib.figure import Figure

from cae import prompts
from cae.config.load import validate_config
from cae.data import datasets, idx
from cae.errors import UsageError
from cae.programs import images
from cae.programs.questions import offer_to_save
from cae.records import run as run_module
from cae.records.run import Run
from cae.records.saved_models import load_model, save_model

COMPLETE = {"config.json", "environment.json", "history.csv", "metrics.json", "model.keras"}
NOBODY = 65534  # the user without rights of most systems
PROGRAMS = pytest.mark.parametrize("program", ["autoencoder", "classification"])


@contextlib.contextmanager
def limited_file_size(num_bytes):
    """Makes writing fail where a file would become larger, as on a disk that is full."""
    resource = pytest.importorskip("resource", reason="needs the limits of Unix")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    """A context manager that makes a disk of so many KiB."""

    @contextlib.contextmanager
    def mount(kibibytes):
        disk = tmp_path / "disk"
        disk.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(disk)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"needs the right to mount a disk: {error}")
        try:
            yield disk
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    return mount


def remount_read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


@pytest.fixture
def public_folder():
    """A folder that other users can enter, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextlib.contextmanager
def without_privileges():
    """Drops the privileges of root, for whom permissions do not count."""
    if not hasattr(os, "setresuid"):
        pytest.skip("needs the users of Unix")
    if os.getuid() != 0:
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def snapshot(folder):
    """Every file with its content."""
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def assert_one_error(done, text):
    """One line says what is wrong, and the exit code says that something is."""
    assert done.exit_code == 2, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert text in line


def assert_no_half_runs(folder):
    """Runs with their final name are complete; all others can be resumed."""
    for run in folder.iterdir():
        assert run.name.endswith(".partial") or {path.name for path in run.iterdir()} >= COMPLETE
        unfinished = [path for path in run.rglob("*") if path.name.startswith(".")]
        assert not unfinished


@pytest.fixture
def earlier(tmp_path, trained_autoencoder):
    """An earlier run, which no fault may change."""
    return EarlierRun(tmp_path / "runs", trained_autoencoder.run)


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


class StoppedClock:
    """Stands where `now` says."""

    def __init__(self, monkeypatch):
        self.now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
        clock = self

        class Frozen(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return clock.now

        monkeypatch.setattr(run_module.datetime, "datetime", Frozen)


def vanish_after(function, path):
    """The function, which deletes the file after each call."""

    def wrapped(*args, **kwargs):
        result = function(*args, **kwargs)
        path.unlink(missing_ok=True)
        return result

    return wrapped


@pytest.fixture
def train(tmp_path, files, autoencoder_config, classifier_config, trained_autoencoder):
    """Runs a program on the tiny images, with its runs in any folder."""
    head = ["-c", classifier_config, "-model", trained_autoencoder.saved]
    flags = {
        "autoencoder": [*files.autoencoder, "-c", autoencoder_config],
        "classification": [*files.classifier, *head],
    }

    def run(program, *args, runs_dir=tmp_path / "runs"):
        return run_program(program, *flags[program], *args, runs_dir=runs_dir)

    return run


class TestLossThatIsNotFinite:
    """The best weights are kept, and the error names the epoch and a remedy."""

    def poison(self, model):
        model.set_weights([weights * float("nan") for weights in model.get_weights()])

    def test_after_good_epochs(self, autoencode, at_epoch):
        at_epoch(3, self.poison)
        done = autoencode("--epochs", 9).refused()
        line = done.err.splitlines()[-1]
        assert "got loss nan in epoch 3" in line
        assert f"weights of epoch {done.metrics['best_epoch']}" in line
        assert done.metrics["epochs"] == 3
        assert done.metrics["best_epoch"] < 3

    def test_in_the_first_phase_of_a_classifier(self, classify, at_epoch):
        """Training ends, and the test images are classified with the best weights."""
        at_epoch(2, self.poison)
        done = classify("--epochs", 3).refused("got loss nan in epoch 2. The weights")
        assert done.metrics["epochs"] == 2
        weights = load_model(done.run / "model.keras")[0].get_weights()
        assert all(np.isfinite(array).all() for array in weights)
        assert "test_accuracy" in done.metrics

    def test_in_the_first_epoch_nothing_is_kept(self, autoencode, at_epoch):
        at_epoch(1, self.poison)
        done = autoencode().refused()
        assert done.runs == []
        assert done.err.splitlines()[-1].startswith(
            "error: tiny: the loss must stay finite, got loss nan in epoch 1. Use a learning rate"
        )


class TestFullDisk:
    """No incomplete file has its final name, and earlier files stay."""

    @pytest.mark.parametrize(
        ("program", "largest_file"), [("autoencoder", 100), ("classification", 20_000)]
    )
    def test_a_file_cannot_grow(self, train, earlier, program, largest_file):
        """At the first file that a run writes, and at its model."""
        with limited_file_size(largest_file):
            done = train(program, "--no-plots")
        earlier.check(done)

    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_a_model_that_was_saved_before_stays(self, tmp_path, trained_autoencoder, suffix):
        model, metadata = load_model(trained_autoencoder.saved)
        path = tmp_path / f"model{suffix}"
        path.write_bytes(b"precious")
        for largest_file in (0, 1000, 10_000, 20_000):
            with (
                limited_file_size(largest_file),
                pytest.raises(UsageError, match="must be writable"),
            ):
                save_model(model, path, metadata, overwrite=True)
        assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"precious"]

    def test_a_figure_is_whole_or_not_there(self, tmp_path):
        figure = Figure()
        with (
            Run(tmp_path, "small") as run,
            limited_file_size(1000),
            pytest.raises(UsageError, match=r"loss.png: must be writable"),
        ):
            run.save_figures({"loss": figure})
        assert list((run.final_path / "plots").iterdir()) == []

    def test_typed_hyperparameters_are_whole_or_not_there(self, tmp_path, monkeypatch, capsys):
        """Training continues without the file."""
        path = tmp_path / "mine.json"
        monkeypatch.setattr(prompts, "confirm", lambda *args: True)
        monkeypatch.setattr(prompts, "ask", lambda *args: path)
        config = validate_config(AUTOENCODER, "test", "autoencoder")
        with limited_file_size(50):
            assert offer_to_save(config) is None
        assert f"{path}: must be writable, got File too large" in capsys.readouterr().err
        assert not path.exists()

    @pytest.mark.slow
    @PROGRAMS
    def test_disks_of_any_size(self, train, small_disk, earlier, program):
        """From a disk without space to one with enough; DISK_STEP sets the steps in KiB."""
        filled = 0
        for kibibytes in range(4, 2000, int(os.environ.get("DISK_STEP", "80"))):
            with small_disk(kibibytes) as disk:
                done = train(program, runs_dir=disk / "runs")
                if done.exit_code == 0:
                    break
                earlier.check(done, disk / "runs")
            filled += 1
        assert filled >= 3

    @pytest.mark.slow
    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    def test_a_copy_of_the_model_does_not_fit(self, train, small_disk, suffix):
        """--save fails, and the run has the model."""
        filled = 0
        for kibibytes in range(4, 200, 12):
            with small_disk(kibibytes) as disk:
                done = train("autoencoder", "--no-plots", "--save", disk / f"model{suffix}")
                assert (done.run / "model.keras").exists()
                if done.exit_code == 0:
                    break
                assert done.exit_code == 2
                assert "No space left on device. Free space" in done.err.splitlines()[-1]
                assert list(disk.iterdir()) == []
            filled += 1
        assert filled >= 2

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
    def test_full_disk_behind_standard_output(self):
        """As in `autoencoder.py ... > log`: one line, no complaint from Python at its exit."""
        code = (
            "import sys\nfrom cae import terminal\nfrom cae.programs import flags, start\n"
            "sys.exit(start.run(lambda _: terminal.say('a result'), flags.Parser(), []))\n"
        )
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE
            )
        assert done.returncode == 2
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith("error: the working folder, the output or a temporary file: must ")
        assert "No space left on device" in line


class TestFolders:
    """Folders that vanish, are read-only, or belong to another user."""

    def test_runs_vanish_while_training(self, tmp_path, autoencode, at_epoch):
        at_epoch(1, lambda model: shutil.rmtree(tmp_path / "runs"))
        assert_one_error(autoencode(), "No such file or directory")

    def test_working_folder_vanishes_while_training(
        self, tmp_path, autoencode, at_epoch, monkeypatch
    ):
        """A run that writes elsewhere finishes; a new one cannot start there."""
        vanishing = tmp_path / "vanishing"
        vanishing.mkdir()
        monkeypatch.chdir(vanishing)
        at_epoch(1, lambda model: vanishing.rmdir())
        assert autoencode().exit_code == 0
        assert_one_error(autoencode(), "the working folder, the output or a temporary file: must")

    @pytest.mark.slow
    def test_disk_becomes_read_only(self, train, small_disk, at_epoch):
        """As Linux does when a disk fails."""
        with small_disk(4000) as disk:
            first = train("autoencoder", runs_dir=disk)
            before = snapshot(disk)
            at_epoch(1, lambda model: remount_read_only(disk))
            assert_one_error(train("autoencoder", runs_dir=disk), "Read-only file system")
            assert first.exit_code == 0
            assert before.items() <= snapshot(disk).items()
            done = train("autoencoder", runs_dir=disk)
            assert_one_error(done, "must be a folder that can be written")

    @pytest.mark.parametrize(
        ("forbidden", "error"),
        [
            ("runs", "must be a folder that can be written"),
            ("images", "images: must be readable, got Permission denied"),
            ("tiny.json", "Permission denied"),
            ("models", "must be a folder that can be written, got Permission denied"),
        ],
    )
    def test_no_permission(self, public_folder, files, autoencoder_config, forbidden, error):
        shutil.copy(files.images, public_folder / "images")
        shutil.copy(autoencoder_config, public_folder / "tiny.json")
        for name in ("runs", "models"):
            (public_folder / name).mkdir(mode=0o777)
            (public_folder / name).chmod(0o777)
        is_folder = (public_folder / forbidden).is_dir()
        (public_folder / forbidden).chmod(0o555 if is_folder else 0o000)
        args = ["-d", public_folder / "images", "-c", public_folder / "tiny.json"]
        before = snapshot(public_folder)
        with without_privileges():
            done = run_program(
                "autoencoder", *args, "--save", public_folder / "models" / "x.keras",
                runs_dir=public_folder / "runs",
            )  # fmt: skip
        assert_one_error(done, error)
        assert snapshot(public_folder) == before


class TestFilesThatVanish:
    """Between the check of a file and its use."""

    @pytest.mark.parametrize("name", ["images", "test_labels"])
    def test_data_after_the_check(self, tmp_path, classify, monkeypatch, name):
        data = write_dataset(tmp_path / "data")
        vanishing = getattr(data, name)
        check = vanish_after(datasets.check_dataset, vanishing)
        monkeypatch.setattr(datasets, "check_dataset", check)
        done = classify(data=data)
        assert_one_error(done, str(vanishing))
        assert done.runs == []

    def test_data_while_their_digest_is_taken(self, tmp_path, autoencode, monkeypatch):
        data = write_dataset(tmp_path / "data")
        monkeypatch.setattr(idx, "read_images", vanish_after(idx.read_images, data.images))
        assert_one_error(autoencode(data=data), f"{data.images}: must be readable")

    def test_encoder_after_the_check(self, tmp_path, classify, trained_autoencoder, monkeypatch):
        model = tmp_path / "encoder.keras"
        shutil.copy(trained_autoencoder.saved, model)
        monkeypatch.setattr(images, "load_dataset", vanish_after(images.load_dataset, model))
        done = classify(model=model)
        assert_one_error(done, str(model))
        assert done.runs == []

    def test_large_data_while_training(self, tmp_path, autoencode, at_epoch, monkeypatch):
        """A file that is mapped stays readable for as long as it is used."""
        data = write_dataset(tmp_path / "data")
        monkeypatch.setattr(idx, "MAPPED_BYTES", 0)
        at_epoch(2, lambda model: data.images.unlink())
        assert autoencode("--epochs", 3, data=data).exit_code == 0


class TestMemory:
    def test_runs_out_while_training(self, autoencode, earlier, at_epoch):
        def fail(model):
            raise MemoryError

        at_epoch(1, fail)
        done = autoencode()
        earlier.check(done)
        assert "error: batch_size 16: a training step must fit in memory, got no me" in done.err

    def test_runs_out_elsewhere(self, autoencode, monkeypatch):
        def fail(*args, **kwargs):
            raise MemoryError

        monkeypatch.setattr(images, "load_dataset", fail)
        assert_one_error(autoencode(), "memory: must be enough")

    @pytest.mark.slow
    def test_a_batch_that_does_not_fit(self, tmp_path):
        """With a real limit, where TensorFlow itself would crash with a signal."""
        resource = pytest.importorskip("resource")
        data = write_dataset(tmp_path / "data", (256, 256), count=70)
        layers = [["conv", 512, [3, 3]], ["pool", [2, 2]]]
        config = write_json(tmp_path / "large.json", AUTOENCODER, encoder_layers=layers)
        command = [sys.executable, "autoencoder.py", *data.autoencoder, "-c", config]
        limit = 6 * 2**30  # of which TensorFlow takes 2 for its code and threads
        done = subprocess.run(
            [*command, "--batch-size", "60", "--runs-dir", str(tmp_path / "runs")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )
        assert done.returncode == 2, done.stderr
        assert "error: batch_size 60: a training step must fit in memory" in done.stderr
        assert list((tmp_path / "runs").iterdir()) == []


class TestSameNameAtOnce:
    def test_directories(self, tmp_path):
        """Of runs that start in the same second."""
        with ThreadPoolExecutor(16) as threads:
            runs = list(threads.map(lambda _: Run(tmp_path, "same"), range(64)))
        assert len({run.path for run in runs}) == 64
        with ThreadPoolExecutor(16) as threads:
            finished = set(threads.map(lambda run: run.finish(), runs))
        assert len(finished) == 64
        assert set(tmp_path.iterdir()) == finished

    def test_a_name_that_was_finished_a_moment_ago(self, tmp_path, monkeypatch):
        """Between the look at the names and the making of the folder."""
        StoppedClock(monkeypatch)
        other = Run(tmp_path, "same")
        make = Path.mkdir

        def finish_first(path, *args, **kwargs):
            if path == other.path:
                other.finish()
            make(path, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", finish_first)
        with Run(tmp_path, "same"):
            pass
        assert {path.name for path in tmp_path.iterdir()} == {
            other.final_path.name,
            f"{other.final_path.name}-2",
        }

    @pytest.mark.slow
    def test_programs(self, tmp_path, files, autoencoder_config):
        """Each trains a run of its own, to the same result; --save is kept by the first."""
        saved = tmp_path / "saved.keras"
        command = [sys.executable, "autoencoder.py", *files.autoencoder, "-c", autoencoder_config]
        command += ["--name", "same", "--no-plots", "--save", str(saved)]
        command += ["--runs-dir", str(tmp_path / "runs")]
        programs = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        errors = [program.communicate()[1].decode() for program in programs]
        exit_codes = [program.returncode for program in programs]
        assert sorted(set(exit_codes)) in ([0], [0, 2]), errors
        for exit_code, error in zip(exit_codes, errors, strict=True):
            assert ("must not exist yet" in error) == (exit_code == 2)
        assert_no_half_runs(tmp_path / "runs")
        runs = list((tmp_path / "runs").iterdir())
        models = [load_model(run / "model.keras")[0].get_weights() for run in runs]
        assert len(models) == 2
        for weights in (*models, load_model(saved)[0].get_weights()):
            assert all(map(np.array_equal, models[0], weights))


class TestClock:
    def test_moved_back(self, tmp_path, monkeypatch):
        """By an hour, to a second in which a run began: every run is there, under its own name."""
        clock = StoppedClock(monkeypatch)

        def record():
            with Run(tmp_path, "same") as run:
                pass
            return run.final_path

        first = record()
        clock.now -= datetime.timedelta(hours=1)
        second = record()
        clock.now += datetime.timedelta(hours=1)
        third = record()
        assert third.name == f"{first.name}-2"
        assert second.name < first.name
        assert set(tmp_path.iterdir()) == {first, second, third}
