"""Tiny data sets, configurations and trained models that several test modules share."""

import os

# Set in the processes of pytest-xdist; it would override the size of terminals that tests open.
os.environ.pop("COLUMNS", None)

import csv
import importlib
import io
import json
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from rich.console import Console

from cae import terminal
from cae.data import idx
from cae.errors import UserError

# Tiny models train faster without threads waiting for each other, and tests run in parallel.
for threads in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(threads, "1")
# No test depends on time: machines are slow, and busy with others.
settings.register_profile(
    "slow machines", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("slow machines")

ROOT = Path(__file__).parents[1]
CLASSES = (2, 5, 61)  # gaps in the numbering
AUTOENCODER = {
    "encoder_layers": [["conv", 4, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 4, [3, 3]]],
    "optimizer": ["adam", 0.01],
    "batch_size": 16,
    "epochs": 1,
}
CLASSIFIER = {
    "dense_layers": [["dense", 8]],
    "optimizer": ["adam", 0.03],
    "dense_only_train_epochs": 1,
    "full_train_epochs": 1,
    "batch_size": 16,
    "validation_split": 0.2,
}


@dataclass(frozen=True)
class Files:
    """The four idx files of a data set, and the flags that name them."""

    images: Path
    labels: Path
    test: Path
    test_labels: Path

    @property
    def autoencoder(self):
        return ["-d", str(self.images)]

    @property
    def unlabelled_test(self):
        return ["-d", str(self.images), "-dl", str(self.labels)]

    @property
    def classifier(self):
        return [*self.unlabelled_test, "-t", str(self.test), "-tl", str(self.test_labels)]


@dataclass(frozen=True)
class Finished:
    """How a program ended, and what it wrote."""

    exit_code: int
    out: str
    err: str
    runs: list[Path]

    @property
    def run(self):
        """The only run that it left."""
        (run,) = self.runs
        return run

    @property
    def metrics(self):
        return read_json(self.run / "metrics.json")

    def ok(self):
        """Itself, if it succeeded."""
        assert self.exit_code == 0, self.err
        return self

    def refused(self, *words):
        """Itself, if it ended with exit code 2 and an error that has these words."""
        assert self.exit_code == 2, self
        assert all(word in self.err for word in words), self.err
        return self


def check_same_training(one, other):
    """Two pairs of a history and the best weights are the same to rounding, epoch by epoch."""
    (history, weights), (other_history, other_weights) = one, other
    assert history.best_epoch == other_history.best_epoch
    for row, other_row in zip(history.epochs, other_history.epochs, strict=True):
        assert row.keys() == other_row.keys()
        for key in row.keys() - {"phase", "seconds"}:
            assert row[key] == pytest.approx(other_row[key], rel=1e-3, abs=1e-5)
    for array, other_array in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(array, other_array, rtol=1e-2, atol=1e-4)


def draw_images(count, shape, classes, seed):
    """Noisy images of a pattern for each class, uint8 (count, *shape), and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.array([classes[index % len(classes)] for index in range(count)])
    patterns = {label: np.random.default_rng(label).random(shape) > 0.6 for label in classes}
    images = np.stack([patterns[label] * 200 for label in labels])
    images += rng.integers(0, 50, images.shape)
    return images.astype(np.uint8), labels.astype(np.uint8)


def draw_four_classes(count):
    """uint8 (count, 8, 8, 1): a bright bar whose place, 0 to 3, is the class, on noise."""
    pixels = np.random.default_rng(0).integers(0, 60, (count, 8, 8, 1), np.uint8)
    for number, image in enumerate(pixels):
        image[:, 2 * (number % 4) : 2 * (number % 4) + 2] += 190
    return pixels


def write_dataset(folder, shape=(8, 8), classes=CLASSES, count=48, test_classes=None):
    """Writes a data set and returns its files; images of shape (height, width[, channels])."""
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(*(folder / name for name in ("images", "labels", "test", "test_labels")))
    images, labels = draw_images(count, shape, classes, seed=1)
    test, test_labels = draw_images(count // 2, shape, test_classes or classes, seed=2)
    for path, array in zip(
        (files.images, files.labels, files.test, files.test_labels),
        (images, labels, test, test_labels),
        strict=True,
    ):
        idx.write_idx(path, array)
    return files


def write_json(path, *dicts, **changes):
    """Writes the union of dicts as JSON and returns the path as a string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    merged = {key: value for part in (*dicts, changes) for key, value in part.items()}
    path.write_text(json.dumps(merged))
    return str(path)


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def edit_json(path, *keys, **changes):
    """Changes keys of an object in a JSON file, which these keys lead to; None removes one."""
    document = part = read_json(path)
    for key in keys:
        part = part[key]
    part |= changes
    for key in [key for key, value in changes.items() if value is None]:
        del part[key]
    Path(path).write_text(json.dumps(document))


def read_rows(path):
    """The rows of a CSV file, one dict each."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def run_python(*arguments, cwd=ROOT, **environment):
    """Runs Python in a process of its own; None takes a variable out of its environment."""
    variables = os.environ | environment
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={name: value for name, value in variables.items() if value is not None},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
    )


def wait_for(happened, process):
    """Until it has happened; the process must not end before."""
    while not happened():
        assert process.poll() is None
        time.sleep(0.01)


def assert_same_weights(one, other):
    """Two models have the same weights to the bit."""
    for array, other_array in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(array, other_array)


def fail_with(code):
    """A function that raises the OSError of this number, whatever its arguments."""

    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def run_program(program, *args, runs_dir=None):
    """Runs `main` of a program in this process, with its runs, if it leaves any, in `runs_dir`."""
    main = importlib.import_module(program).main
    known = set(runs_dir.glob("*")) if runs_dir else set()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        exit_code = main([*map(str, args), *(["--runs-dir", str(runs_dir)] if runs_dir else [])])
    runs = sorted(set(runs_dir.glob("*")) - known) if runs_dir else []
    return Finished(exit_code, out.getvalue(), err.getvalue(), runs)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder for what is made once."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def files(shared):
    """8×8 images of three classes."""
    return write_dataset(shared / "data")


@pytest.fixture(scope="session")
def autoencoder_config(shared):
    return write_json(shared / "tiny.json", AUTOENCODER)


@pytest.fixture(scope="session")
def classifier_config(shared):
    return write_json(shared / "head.json", CLASSIFIER)


@pytest.fixture
def report_cpu(monkeypatch, tmp_path):
    """Makes the CPU report the instructions that are given."""
    from cae.training import device

    def report(instructions):
        (tmp_path / "cpuinfo").write_text(f"flags : fpu {instructions}\n")
        monkeypatch.setattr(device, "CPU_FACTS", tmp_path / "cpuinfo")

    return report


@pytest.fixture
def launch(tmp_path):
    """Runs a program, with its runs in `tmp_path / "runs"`."""
    return partial(run_program, runs_dir=tmp_path / "runs")


@pytest.fixture
def screen(monkeypatch):
    """Opens a terminal of so many columns; returns what standard output shows there."""

    def show(columns):
        options = {"width": columns, "force_terminal": True, "color_system": None}
        console = Console(**terminal.PLAIN, file=io.StringIO(), **options)
        monkeypatch.setattr(terminal, "OUT", console)
        return console.file

    return show


@pytest.fixture
def typed(monkeypatch):
    """Gives lines to standard input."""

    def give(*lines):
        text = "".join(f"{line}\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))

    return give


@pytest.fixture
def autoencode(launch, files, autoencoder_config):
    """Runs autoencoder.py on the tiny images, without figures, with further flags.

    `data` are files or the flags that name some.
    """

    def run(*args, config=autoencoder_config, data=files, plots=False):
        flags = [*(data if isinstance(data, list) else data.autoencoder)]
        flags += ["-c", config] if config else []
        return launch("autoencoder", *flags, *([] if plots else ["--no-plots"]), *args)

    return run


@pytest.fixture
def classify(launch, files, classifier_config, trained_autoencoder):
    """Runs classification.py on the tiny images, without figures, with further flags.

    `data` are files or the flags that name some; without a `model` the layers are listed.
    """

    saved = trained_autoencoder.saved

    def run(*args, config=classifier_config, data=files, model=saved, plots=False):
        flags = [*(data if isinstance(data, list) else data.classifier), "-c", config]
        flags += ["-model", model] if model else []
        return launch("classification", *flags, *([] if plots else ["--no-plots"]), *args)

    return run


@dataclass(frozen=True)
class Trained(Finished):
    """A program that saved a model."""

    saved: str


def train(program, *args, folder):
    saved = str(folder / f"{program}.keras")
    finished = run_program(program, *args, "--save", saved, runs_dir=folder / f"{program}-runs")
    return Trained(**vars(finished), saved=saved)


@pytest.fixture(scope="session")
def trained_autoencoder(shared, files, autoencoder_config):
    """autoencoder.py with everything that it draws."""
    flags = [*files.autoencoder, "-dl", files.labels, "-c", autoencoder_config, "--epochs", 3]
    return train("autoencoder", *flags, folder=shared)


@pytest.fixture(scope="session")
def trained_classifier(shared, files, classifier_config, trained_autoencoder):
    """classification.py on it, with everything that it draws."""
    flags = [*files.classifier, "-c", classifier_config, "--epochs", 4]
    return train("classification", *flags, "-model", trained_autoencoder.saved, folder=shared)


@pytest.fixture
def first_training_diverges(monkeypatch):
    """The first autoencoder fails as one does whose loss is not finite; later ones train."""
    from cae.training import train as train_module

    outcomes = [UserError("tiny", "the loss must stay finite", "nan", "Use a smaller rate.")]
    train = train_module.train_autoencoder

    def train_or_diverge(*args, **kwargs):
        if outcomes:
            raise outcomes.pop()
        return train(*args, **kwargs)

    monkeypatch.setattr(train_module, "train_autoencoder", train_or_diverge)


@pytest.fixture
def at_epoch(monkeypatch):
    """Acts on the model within training, at the start of an epoch (from 1)."""
    from cae.training import callbacks

    def arm(number, action):
        class Interrupted(callbacks.ShowProgress):
            def on_epoch_begin(self, epoch, logs=None):
                super().on_epoch_begin(epoch, logs)
                if epoch + 1 == number:
                    action(self.model)

        monkeypatch.setattr(callbacks, "ShowProgress", Interrupted)

    return arm
