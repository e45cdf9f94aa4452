"""Full disks, missing rights and files that vanish: earlier results stay, one line names the fault.

Faults are real wherever a test can make them.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import AUTOENCODER, ROOT, run_program, write_dataset
from faults import assert_one_error, snapshot
from matplotlib.figure import Figure

from cae import prompts
from cae.config.load import validate_config
from cae.data import datasets, idx
from cae.errors import UsageError
from cae.programs import images
from cae.programs.questions import offer_to_save
from cae.records.run import Run
from cae.records.saved_models import load_model, save_model

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
