"""Runs where people already look: TensorBoard's event files and MLflow's store. Optional extras.

Whatever is written comes from the history and the run directory, which stay as they are. Keras' own
callback is not used: it begins with epoch 0 again in every phase and after every interruption, and
records the fused model that is fitted instead of the one that is saved.
"""

import argparse
import json
import logging
import os
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cae.config.study import hyperparameters_of
from cae.errors import UsageError
from cae.files import write_json
from cae.records.history import History
from cae.records.run import TRIALS_FILE

FLAGS = ("tensorboard", "mlflow")  # each needs the package of its name
MLFLOW_STORE = "mlflow.db"  # in the working folder, where `mlflow ui` looks
MODEL_FILE = "model.keras"
MLFLOW_FILE = "mlflow.json"  # which run of which store belongs to a directory
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # A server that has gone may hold up training for seconds, not for its default of minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"  # states of runs, as MLflow calls them
EXPERIMENTS = {"autoencoder": "autoencoders", "classifier": "classifiers"}


def check_flags(args: argparse.Namespace) -> None:
    """Checks that what the flags ask for is installed, and makes its place an absolute one.

    Raises:
        UsageError: A package is missing.
    """
    for flag in FLAGS:
        if getattr(args, flag) is not None and find_spec(flag) is None:
            raise UsageError(
                f"--{flag}",
                "needs packages that are installed apart",
                f"no {flag}",
                "Type: pip install -r requirements-tracking.txt",
            )
    if args.tensorboard is not None:
        args.tensorboard = os.path.abspath(args.tensorboard)  # noqa: PTH100 - links stay
    if args.mlflow == "":
        default = f"sqlite:///{Path(MLFLOW_STORE).absolute().as_posix()}"
        args.mlflow = os.environ.get("MLFLOW_TRACKING_URI") or default


def get_trial_flags(args: argparse.Namespace, study: Path) -> list[str]:
    """The flags that the trials of a study pass on to their programs.

    Args:
        args: The flags of the study.
        study: Its folder, relative to that of all runs.
    """
    board = ["--tensorboard", str(Path(args.tensorboard) / study)] if args.tensorboard else []
    return board + (["--mlflow", args.mlflow] if args.mlflow else [])


def prepare(args: argparse.Namespace, kind: str) -> None:
    """Makes the places that the flags name, before trials use them side by side.

    Raises:
        UsageError: One cannot be written.
    """
    if args.tensorboard:
        with _explaining("tensorboard", args.tensorboard):
            Path(args.tensorboard).mkdir(parents=True, exist_ok=True)
    if args.mlflow:
        with _explaining("mlflow", args.mlflow):
            _get_experiment(_connect(args.mlflow), kind)


@contextmanager
def _explaining(flag: str, place: object) -> Iterator[None]:
    """Turns any error of the libraries behind a tracker into a line that names its flag."""
    try:
        yield
    except Exception as error:
        raise UsageError(
            f"--{flag}",
            "must be a place that can be written",
            f"{place} ({_say(error)})",
            f"Give another, or leave out --{flag}.",
        ) from error


@dataclass(frozen=True)
class Subject:
    """What trackers are told of a run before its first epoch.

    Attributes:
        name: That of its directory.
        kind: `autoencoder` or `classifier`.
        folder: Where its files are now.
        values: Its hyperparameters, as of `describe`.
        tags: What else identifies it.
    """

    name: str
    kind: str
    folder: Path
    values: dict[str, bool | int | float | str]
    tags: dict[str, str] = field(default_factory=dict)


def describe(model_info: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """Hyperparameters one by one; what is neither a number nor a text is JSON."""
    values = {**hyperparameters_of(model_info), "seed": model_info["seed"]}
    return {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in values.items()
    }


def _get_numbers(values: dict[str, Any]) -> dict[str, float]:
    """Those that make a point of a curve."""
    return {
        key: float(value)
        for key, value in values.items()
        if key != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)
    }


class Tracker(ABC):
    """Writes one run where another program shows it."""

    name: str

    @abstractmethod
    def write_epoch(self, row: dict[str, Any]) -> None:
        """Adds the points of one epoch; again for one that is there changes nothing."""

    @abstractmethod
    def write_results(self, history: History, folder: Path) -> None:
        """Adds the final values, the figures and the other files that a run has left."""

    @abstractmethod
    def write_model(self, path: Path) -> None:
        """Adds the saved model."""

    @abstractmethod
    def close(self, status: str) -> None:
        """Ends it; `status` is `FINISHED`, `FAILED`, or `KILLED` when it is to be resumed."""


class EventFile:
    """A file of TensorBoard events, each on the disk when it has been written.

    TensorBoard's own `EventFileWriter` writes from a thread, where a full disk is not noticed
    until everything waits for that thread.

    Args:
        folder: Made if need be. Points that older files in it hold are no longer shown.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("wb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        self._write(session_log=SessionLog(status=SessionLog.START))

    def _write(self, step: int = 0, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, **content)
        self._records.write(event.SerializeToString())
        self._file.flush()

    def add(self, summary: Any) -> None:
        """Adds a summary that belongs to no epoch."""
        self._write(summary=summary)

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Adds a point to a curve."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))

    def add_figures(self, folder: Path) -> None:
        """Adds those that a run or a study has drawn."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for path in sorted(folder.glob("plots/*.png")):
            png = path.read_bytes()
            width, height = struct.unpack(">II", png[16:24])  # of the header of every PNG
            image = Summary.Image(width=width, height=height, encoded_image_string=png)
            self.add(Summary(value=[Summary.Value(tag=path.stem, image=image)]))

    def add_text(self, tag: str, markdown: str) -> None:
        """Adds a text."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self.add(text_pb(tag, markdown))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoard(Tracker):
    """A run as TensorBoard shows it: `train` and `validation` share their charts.

    Every start begins with the first epoch: its points are shown instead of those that the files of
    an earlier start hold.

    Args:
        folder: That of the run in the log directory.
        subject: The run.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path, subject: Subject):
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._run, self._train, self._validation = self._files = [
            EventFile(folder / part) for part in ("", "train", "validation")
        ]
        self._run.add(hparams_pb(subject.values))

    def write_epoch(self, row: dict[str, Any]) -> None:
        """See `Tracker`."""
        for key, value in _get_numbers(row).items():
            file = self._validation if key.startswith("val_") else self._train
            file.add_scalar(key.removeprefix("val_"), value, row["epoch"])

    def write_results(self, history: History, folder: Path) -> None:
        """See `Tracker`."""
        for key, value in _get_numbers(history.metrics).items():
            self._run.add_scalar(f"final/{key}", value, len(history.epochs))
        self._run.add_figures(folder)

    def write_model(self, path: Path) -> None:
        """See `Tracker`; TensorBoard holds no models, so a text says where it is."""
        self._run.add_text("model", f"`{path}`")

    def close(self, status: str) -> None:
        """See `Tracker`."""
        for file in self._files:
            file.close()


class MLflow(Tracker):
    """A run in MLflow's store, with the files of its directory as artifacts.

    Args:
        uri: The store.
        subject: The run; `MLFLOW_FILE` in its folder says which of the store it is, if it has been
            there before.
    """

    name = "MLflow"

    def __init__(self, uri: str, subject: Subject):
        self._client = _connect(uri)
        self.id = _read_run_id(subject.folder, uri) or self._create(uri, subject)
        self._client.update_run(self.id, status="RUNNING")
        points = self._client.get_metric_history(self.id, "loss")
        self._last_epoch = max((point.step for point in points), default=0)

    def _create(self, uri: str, subject: Subject) -> str:
        from mlflow.entities import Param, RunTag

        experiment = _get_experiment(self._client, subject.kind)
        run = self._client.create_run(experiment, run_name=subject.name)
        study = subject.folder.parent
        is_trial = (study / TRIALS_FILE).exists()
        tags = subject.tags | ({"study": study.name} if is_trial else {})
        self._client.log_batch(
            run.info.run_id,
            params=[Param(key, str(value)) for key, value in subject.values.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )
        write_json(subject.folder / MLFLOW_FILE, {"uri": uri, "run_id": run.info.run_id})
        return run.info.run_id

    def write_epoch(self, row: dict[str, Any]) -> None:
        """See `Tracker`."""
        if row["epoch"] > self._last_epoch:
            self._log(_get_numbers(row), row["epoch"])
            self._last_epoch = row["epoch"]

    def write_results(self, history: History, folder: Path) -> None:
        """See `Tracker`."""
        final = {f"final/{key}": value for key, value in _get_numbers(history.metrics).items()}
        self._log(final, len(history.epochs))
        self.write_files(folder)

    def write_files(self, folder: Path) -> None:
        """Adds what a directory holds, but no model."""
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in (MODEL_FILE, MLFLOW_FILE):
                self._client.log_artifact(self.id, str(path))
        if (folder / "plots").is_dir():
            self._client.log_artifacts(self.id, str(folder / "plots"), "plots")

    def write_model(self, path: Path) -> None:
        """See `Tracker`."""
        self._client.log_artifact(self.id, str(path))

    def _log(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def close(self, status: str) -> None:
        """See `Tracker`."""
        self._client.set_terminated(self.id, status)


def _connect(uri: str) -> Any:
    """MLflow's client, which writes only to `uri`."""
    for key, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)  # tells how it makes every table
    return MlflowClient(tracking_uri=uri)


def _get_experiment(client: Any, kind: str) -> str:
    """The id of the experiment that holds the runs of a kind."""
    name = EXPERIMENTS[kind]
    experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id if experiment else client.create_experiment(name)


def _read_run_id(folder: Path, uri: str) -> str | None:
    """The run that belongs to a directory; None when this store has none."""
    path = folder / MLFLOW_FILE
    record = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return record["run_id"] if record.get("uri") == uri else None


class Trackers:
    """Trackers of one run or study; one that fails is given up with a warning.

    Args:
        warn: Receives the sentence.
    """

    def __init__(self, warn: Callable[[str], None]):
        self._warn = warn
        self._trackers: list[Any] = []
        self._status = KILLED

    def open(self, flag: str, place: str, get_tracker: Callable[[], Any]) -> None:
        """Adds a tracker.

        Raises:
            UsageError: It cannot write.
        """
        with _explaining(flag, place):
            self._trackers.append(get_tracker())

    def close(self, failed: bool = False) -> None:
        """Ends them all."""
        status = FAILED if failed else self._status
        self._each(lambda tracker: tracker.close(status))

    def _each(self, action: Callable[[Any], None]) -> None:
        for tracker in list(self._trackers):
            try:
                action(tracker)
            except Exception as error:  # a disk or a server that is gone must not cost a training
                self._trackers.remove(tracker)
                self._warn(
                    f"{tracker.name} gets no more of this ({_say(error)}). Training goes on, and "
                    "the run directory will have everything."
                )


class RunTrackers(Trackers):
    """Trackers of a run while it trains."""

    def write_epoch(self, row: dict[str, Any]) -> None:
        """Adds the points of an epoch."""
        self._each(lambda tracker: tracker.write_epoch(row))

    def finish(self, history: History, folder: Path) -> None:
        """Adds what the complete run has left."""
        self._each(lambda tracker: tracker.write_results(history, folder))
        self._each(lambda tracker: tracker.write_model(folder / MODEL_FILE))
        self._status = FINISHED


@contextmanager
def opened_for_run(
    args: argparse.Namespace,
    subject: Subject,
    rows: Sequence[dict[str, Any]],
    warn: Callable[[str], None],
) -> Iterator[RunTrackers]:
    """Opens the trackers that the flags ask for, until the run ends.

    Args:
        args: The flags.
        subject: The run.
        rows: The epochs that it has done before.
        warn: Receives a sentence when a tracker fails.

    Raises:
        UsageError: One cannot write; a run that is resumed goes on without it.
    """
    trackers = RunTrackers(warn)
    board = args.tensorboard and Path(args.tensorboard) / subject.name
    with _closing(trackers):
        try:
            if board:
                trackers.open("tensorboard", board, lambda: TensorBoard(board, subject))
            if args.mlflow:
                trackers.open("mlflow", args.mlflow, lambda: MLflow(args.mlflow, subject))
        except UsageError as error:
            if not args.resume:
                raise
            warn(str(error))
        for row in rows:
            trackers.write_epoch(row)
        yield trackers


@contextmanager
def _closing(trackers: Trackers) -> Iterator[None]:
    try:
        yield
    except BaseException:
        trackers.close(failed=True)
        raise
    trackers.close()


def _say(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
