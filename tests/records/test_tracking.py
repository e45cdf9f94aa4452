"""TensorBoard and MLflow show the run folder: every point once, also in resumed runs."""

import json
import os
import signal
from pathlib import Path

import pytest
from conftest import ROOT, read_rows, run_python
from report_folders import make_start, trials_of, write_plan

import autoencoder
from cae.errors import UsageError
from cae.programs.flags import TRACKING, Parser, add
from cae.records import tracking
from cae.records.history import History
from cae.records.run import Run
from cae.training.callbacks import ShowProgress

NEEDS_TENSORBOARD, NEEDS_MLFLOW = (
    pytest.mark.skipif(
        tracking.find_spec(package) is None,
        reason=f"{package} is an extra: pip install -r requirements-tracking.txt",
    )
    for package in ("tensorboard", "mlflow")
)
ROWS = [
    {"epoch": 1, "phase": "dense_only", "learning_rate": 0.1, "loss": 2.0, "val_loss": 3.0},
    {"epoch": 2, "phase": "full", "learning_rate": 0.01, "loss": 1.0, "val_loss": 2.5},
    {"epoch": 3, "phase": "full", "learning_rate": 0.01, "loss": 0.5, "val_loss": 2.25},
]


START = make_start("classifier", "small", {"optimizer": ["adam", 0.01], "batch_size": 8, "seed": 0})


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, "small", tmp_path / "the-run")


@pytest.fixture
def store(tmp_path):
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def open_board(folder):
    """What TensorBoard shows of one of its runs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def read_curves(folder):
    """{tag: [(step, value), ...]}"""
    shown = open_board(folder)
    return {
        tag: [(event.step, event.value) for event in shown.Scalars(tag)]
        for tag in shown.Tags()["scalars"]
    }


def read_runs(store, kind="autoencoders"):
    """MLflow's runs of an experiment, the newest first, and its client."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(kind)
    return client.search_runs([experiment.experiment_id]), client


def read_points(client, run, key):
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]


def read_history(run, key):
    """[(epoch, value), ...] of a run folder."""
    return [(int(row["epoch"]), float(row[key])) for row in read_rows(run / "history.csv")]


def approximately(points):
    """TensorBoard keeps float32."""
    return [(step, pytest.approx(value, rel=1e-6)) for step, value in points]


# --- each tracker alone ---------------------------------------------------------------------


@NEEDS_TENSORBOARD
def test_phases_share_one_axis_of_epochs(tmp_path, run):
    """Training and validation have the same names, so that TensorBoard draws them together."""
    folder = tmp_path / "board/the-run"
    board = tracking.TensorBoard(tmp_path / "board", run, START)
    board.write_epoch(ROWS[0])  # on the disk at once: a training that is killed loses no point
    assert read_curves(folder / "train")["loss"] == [(1, 2.0)]
    for row in ROWS[1:]:
        board.write_epoch(row)
    board.close(tracking.KILLED)
    assert read_curves(folder / "train") == {
        "learning_rate": approximately([(1, 0.1), (2, 0.01), (3, 0.01)]),
        "loss": [(1, 2.0), (2, 1.0), (3, 0.5)],
    }
    assert read_curves(folder / "validation") == {"loss": [(1, 3.0), (2, 2.5), (3, 2.25)]}
    # A resumed run writes its earlier epochs again, and no point is shown twice.
    board = tracking.TensorBoard(tmp_path / "board", run, START)
    for row in ROWS[:2]:
        board.write_epoch(row)
    board.close(tracking.FINISHED)
    assert read_curves(folder / "train")["loss"] == [(1, 2.0), (2, 1.0)]


# Opens a local store and writes to it, with a look at what is asked of the network.
OFFLINE = """
import sys, time

asked = []
sys.addaudithook(
    lambda event, args: event in ("socket.connect", "socket.getaddrinfo") and asked.append(event)
)
from cae.records import tracking

from cae.records.run import Run, Start

folder, store, start = sys.argv[1:]
run = tracking.MLflow(store, Run(folder, "x"), Start.model_validate_json(start))
run.write_epoch({"epoch": 1, "loss": 0.5})
run.close(tracking.FINISHED)
time.sleep(1)  # for threads of MLflow
assert not asked, asked
"""


@NEEDS_MLFLOW
@pytest.mark.slow
def test_a_local_store_needs_no_network(tmp_path, store):
    """MLflow sends no telemetry, also where it cannot detect that this is a test."""
    hidden = ("CI", "PYTEST", "MLFLOW", "DO_NOT_TRACK")
    without = {name: None for name in os.environ if name.startswith(hidden)}
    code = ["-c", OFFLINE, tmp_path, store, START.model_dump_json()]
    done = run_python(*code, cwd=tmp_path, PYTHONPATH=str(ROOT), **without)
    assert done.returncode == 0, done.stderr
    assert read_runs(store, "classifiers")[0][0].data.metrics == {"loss": 0.5}


def test_hyperparameters_are_numbers_texts_or_json():
    """The learning rate is separate from its optimizer, to sort by it."""
    values = tracking.describe(
        {"optimizer": ["adam", 0.01], "seed": 3, "loss": None, "mixed_precision": True}
    )
    assert values == {
        "optimizer": '["adam"]', "learning_rate": 0.01, "seed": 3, "loss": "null",
        "mixed_precision": True,
    }  # fmt: skip


# --- failures -------------------------------------------------------------------------------


class Sound:
    """A tracker that works all the time."""

    name = "Sound"

    def __init__(self):
        self.written = []

    def write_epoch(self, row):
        self.written.append(row)

    def write_results(self, *_):
        self.written.append("results")

    close = write_results


class Broken(Sound):
    """Works for one epoch."""

    name = "Broken"

    def write_epoch(self, row):
        if self.written:
            raise OSError(28, "No space left on device")
        self.written.append(row)


def test_a_tracker_that_fails_is_dropped_with_one_warning(tmp_path):
    """The training and the other trackers continue."""
    warnings, broken, sound = [], Broken(), Sound()
    trackers = tracking.Trackers(warnings.append)
    trackers.add(broken)
    trackers.add(sound)
    for row in ROWS:
        trackers.write_epoch(row)
    trackers.finish(History("x", "autoencoder", {}), tmp_path)
    (warning,) = warnings
    assert "Broken" in warning and "No space left on device" in warning
    assert broken.written == ROWS[:1]
    assert sound.written == [*ROWS, "results", "results"]


@pytest.mark.parametrize("flag", ["--tensorboard", "--mlflow"])
def test_a_missing_package_is_named_before_anything_is_loaded(
    monkeypatch, autoencode, tmp_path, flag
):
    """With the command that installs it."""
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    done = autoencode(flag).refused()
    assert not done.runs
    (line,) = done.err.splitlines()
    assert line.startswith(f"error: {flag}: ")
    assert "pip install -r requirements-tracking.txt" in line


@NEEDS_TENSORBOARD
def test_a_resumed_run_continues_without_a_tracker_that_cannot_write(tmp_path, run):
    """Its training matters more."""
    (tmp_path / "file").write_text("in the way")
    parser = Parser()
    add(parser, *TRACKING)
    args = parser.parse_args(["--tensorboard", str(tmp_path / "file")])
    args.resume, warnings = "run", []
    with tracking.opened(args, run, START, ROWS, warnings.append) as trackers:
        trackers.write_epoch(ROWS[0])
    assert len(warnings) == 1 and "--tensorboard: must be writable" in warnings[0]
    args.resume = None
    opened = tracking.opened(args, run, START, ROWS, warnings.append)
    with pytest.raises(UsageError, match="--tensorboard: must be writable"), opened:
        pass


def test_flags_name_absolute_places(monkeypatch, tmp_path):
    """A run resumed from another folder finds them; MLflow's own variable can name a server."""
    parser = Parser()
    add(parser, *TRACKING)
    monkeypatch.setattr(tracking, "find_spec", lambda name: True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    args = parser.parse_args(["--tensorboard", "--mlflow"])
    tracking.check_flags(args)
    assert args.tensorboard == str(tmp_path / "tensorboard")
    assert args.mlflow == f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    args = parser.parse_args(["--mlflow"])
    tracking.check_flags(args)
    assert args.mlflow == "http://server:5000" and args.tensorboard is None


# --- whole programs -------------------------------------------------------------------------


@NEEDS_TENSORBOARD
@NEEDS_MLFLOW
@pytest.mark.slow
def test_both_show_the_run_folder(classify, tmp_path, store, monkeypatch):
    """Curves over both phases, final values, figures, hyperparameters and the model."""
    monkeypatch.chdir(tmp_path)  # for MLflow's artifacts
    done = classify("--tensorboard", tmp_path / "board", "--mlflow", store, plots=True).ok()
    run = done.run
    board = tmp_path / "board" / run.name
    for key in ("loss", "accuracy", "learning_rate", "f1"):
        assert read_curves(board / "train")[key] == approximately(read_history(run, key))
    assert read_curves(board / "validation")["f1"] == approximately(read_history(run, "val_f1"))
    assert read_curves(board)["final/test_accuracy"] == approximately(
        [(2, done.metrics["test_accuracy"])]
    )
    shown = open_board(board)
    assert set(shown.Tags()["images"]) == {path.stem for path in run.glob("plots/*.png")}
    (image,) = shown.Images("confusion_matrix")
    assert image.encoded_image_string.startswith(b"\x89PNG") and image.width > 100

    (tracked,), client = read_runs(store, "classifiers")
    assert tracked.info.status == "FINISHED"
    for key in ("loss", "val_f1", "learning_rate"):
        assert read_points(client, tracked, key) == read_history(run, key)
    assert tracked.data.metrics["final/test_accuracy"] == done.metrics["test_accuracy"]
    assert tracked.data.params["learning_rate"] == "0.03"
    assert json.loads(tracked.data.params["dense_layers"]) == [["dense", 8]]
    copy = Path(client.download_artifacts(tracked.info.run_id, "", str(tmp_path)))
    for path in ["model.keras", "config.json", "predictions.csv", "plots/confusion_matrix.png"]:
        assert (copy / path).read_bytes() == (run / path).read_bytes()


@NEEDS_TENSORBOARD
@NEEDS_MLFLOW
@pytest.mark.slow
def test_a_resumed_run_continues_in_both(tmp_path, autoencode, store, monkeypatch):
    """In the same MLflow run and TensorBoard folder, with every epoch once."""
    monkeypatch.chdir(tmp_path)

    def stop(self, epoch, logs):
        on_epoch_end(self, epoch, logs)
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)

    on_epoch_end = ShowProgress.on_epoch_end
    with monkeypatch.context() as patch:
        patch.setattr(ShowProgress, "on_epoch_end", stop)
        stopped = autoencode("--epochs", 4, "--tensorboard", tmp_path / "board", "--mlflow", store)
    assert stopped.exit_code == 130
    (tracked,), _ = read_runs(store)
    assert tracked.info.status == "KILLED"
    assert autoencoder.main(["--resume", str(stopped.run)]) == 0
    run = stopped.run.with_suffix("")
    assert len(read_history(run, "loss")) == 4
    curves = read_curves(tmp_path / "board" / run.name / "train")
    assert curves["loss"] == approximately(read_history(run, "loss"))
    (again,), client = read_runs(store)
    assert again.info.run_id == tracked.info.run_id and again.info.status == "FINISHED"
    assert read_points(client, again, "loss") == read_history(run, "loss")


@NEEDS_TENSORBOARD
@NEEDS_MLFLOW
@pytest.mark.slow
def test_trials_of_a_study_are_tracked_as_runs(tmp_path, launch, files, store, monkeypatch):
    """Each once, however often the study is started, and with the name of the study."""
    monkeypatch.chdir(tmp_path)
    rates = {"grid": {"learning_rate": [0.02, 0.01]}}
    study = write_plan(tmp_path, files.images, epochs=1, vary=rates, seeds=1)
    flags = ["--tensorboard", "board", "--mlflow", store]
    for _ in range(2):
        launch("experiments", "run", study, *flags).ok()
    folder = tmp_path / "runs" / "tiny"
    trials = {trial["id"] for trial in trials_of(folder)}
    runs, client = read_runs(store)
    assert len(runs) == 2 and {run.info.run_name for run in runs} == trials
    for run in runs:
        name = run.info.run_name
        assert run.data.tags["study"] == "tiny" and run.info.status == "FINISHED"
        assert read_points(client, run, "val_mse") == read_history(folder / name, "val_mse")
        curves = read_curves(tmp_path / "board/tiny" / name / "train")
        assert curves["mse"] == approximately(read_history(folder / name, "mse"))
