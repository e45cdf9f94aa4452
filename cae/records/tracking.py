"""Shows runs in TensorBoard and MLflow, which are optional extras.

Everything that is shown comes from the history and the run folder. Keras' own TensorBoard
callback restarts at epoch 0 in every phase and after every interruption, and records the fused
model that is trained instead of the one that is saved; so it is not used.
"""

import argparse
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from cae.config.study import hyperparameters_of
from cae.errors import Say, UsageError, readable
from cae.files import write_json
from cae.records.history import History
from cae.records.run import MODEL_FILE, TRIALS_FILE, Run, Start

MLFLOW_STORE = "mlflow.db"  # in the working folder, where `mlflow ui` looks
MLFLOW_FILE = "mlflow.json"  # in a run folder: the store and the id of its MLflow run
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    # A server that is down may delay training by seconds, not by MLflow's default of minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
FINISHED, KILLED, FAILED = "FINISHED", "KILLED", "FAILED"  # MLflow's names for how a run ends


def check_flags(args: argparse.Namespace) -> None:
    """Checks that the packages are installed, and makes the places that the flags name absolute."""
    for flag in TRACKERS:
        if getattr(args, flag) is not None and find_spec(flag) is None:
            remedy = "Install them: pip install -r requirements-tracking.txt"
            raise UsageError(f"--{flag}", "requires optional packages", f"no {flag}", remedy)
    if args.tensorboard is not None:
        args.tensorboard = os.path.abspath(args.tensorboard)  # noqa: PTH100 - keeps links
    if args.mlflow == "":
        default = f"sqlite:///{Path(MLFLOW_STORE).absolute().as_posix()}"
        args.mlflow = os.environ.get("MLFLOW_TRACKING_URI") or default


def prepare(args: argparse.Namespace, kind: str) -> None:
    """Creates the places that the flags name, before several trials use them at the same time."""
    if args.tensorboard:
        with _naming("tensorboard", args.tensorboard):
            Path(args.tensorboard).mkdir(parents=True, exist_ok=True)
    if args.mlflow:
        with _naming("mlflow", args.mlflow):
            _get_experiment(_connect(args.mlflow), kind)


def get_trial_flags(args: argparse.Namespace, study: Path) -> list[str]:
    """The flags that the trials of the study in the folder `study` pass on to their programs."""
    board = ["--tensorboard", str(Path(args.tensorboard) / study)] if args.tensorboard else []
    return board + (["--mlflow", args.mlflow] if args.mlflow else [])


@contextmanager
def _naming(flag: str, place: object) -> Iterator[None]:
    """Turns any error of a tracker's libraries into one that names the flag."""
    try:
        yield
    except Exception as error:
        got = f"{place} ({_describe(error)})"
        remedy = f"Choose another place, or leave out --{flag}."
        raise UsageError(f"--{flag}", "must be writable", got, remedy) from error


def _describe(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def describe(config: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """Hyperparameters by name; a value that is neither a number nor a text becomes JSON."""
    values = {**hyperparameters_of(config), "seed": config["seed"]}
    return {
        key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
        for key, value in values.items()
    }


def _get_final(history: History) -> dict[str, float]:
    return {f"final/{key}": value for key, value in _get_numbers(history.metrics).items()}


def _get_numbers(values: dict[str, Any]) -> dict[str, float]:
    """The values that can be drawn as points of a curve."""
    return {
        key: float(value)
        for key, value in values.items()
        if key != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)
    }


class EventFile:
    """A file of events, each of which is on the disk when it has been written.

    TensorBoard's own `EventFileWriter` writes from a thread. Observed with version 2.21 on a full
    disk: `add_event` raises and nothing hangs, but the thread prints a traceback for every event of
    more than 4 KiB, such as a figure. It also loads TensorFlow.

    Args:
        folder: Created if it is missing. TensorBoard stops showing the points in its older files.
    """

    def __init__(self, folder: Path):
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        self._file = (folder / f"events.out.tfevents.{time.time_ns()}").open("wb")
        self._records = RecordWriter(self._file)
        self.write(file_version="brain.Event:2")
        self.write(session_log=SessionLog(status=SessionLog.START))

    def write(self, **content: Any) -> None:
        """Writes an event: a `summary`, which `step` places on a curve."""
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())
        self._file.flush()

    def write_scalars(self, values: dict[str, float], epoch: int) -> None:
        """Writes a point of each curve."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self.write(step=epoch, summary=Summary(value=points))

    def write_figure(self, path: Path) -> None:
        """Writes a PNG file under its name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as png:
            width, height = png.size
        image = Summary.Image(width=width, height=height, encoded_image_string=path.read_bytes())
        self.write(summary=Summary(value=[Summary.Value(tag=path.stem, image=image)]))

    def close(self) -> None:
        """Writes what is still in memory; no event may follow."""
        self._file.close()


class TensorBoard:
    """A run in TensorBoard, whose charts show `train` and `validation` together.

    A resumed run writes all epochs again, from the first; TensorBoard shows these instead of the
    points in the files of earlier starts.
    """

    name = "TensorBoard"

    def __init__(self, place: str, run: Run, start: Start):
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        folder = Path(place) / run.final_path.name
        self._run, self._train, self._validation = self._files = [
            EventFile(folder / part) for part in ("", "train", "validation")
        ]
        self._run.write(summary=hparams_pb(describe(start.config)))

    def write_epoch(self, row: dict[str, Any]) -> None:
        """Adds the points of one epoch."""
        points = _get_numbers(row)
        validation = {key[4:]: points.pop(key) for key in list(points) if key.startswith("val_")}
        self._train.write_scalars(points, row["epoch"])
        self._validation.write_scalars(validation, row["epoch"])

    def write_results(self, history: History, folder: Path) -> None:
        """Adds the final values and the figures of the complete run in `folder`."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._run.write_scalars(_get_final(history), len(history.epochs))
        for path in sorted(folder.glob("plots/*.png")):
            self._run.write_figure(path)
        # TensorBoard holds no models; a text says where this one is.
        self._run.write(summary=text_pb("model", f"`{folder / MODEL_FILE}`"))

    def close(self, status: str) -> None:
        """Ends the run."""
        for file in self._files:
            file.close()


class MLflow:
    """A run in an MLflow store, with the files of its folder as artifacts.

    `MLFLOW_FILE` in the folder says whether the store already has it.
    """

    name = "MLflow"

    def __init__(self, uri: str, run: Run, start: Start):
        self._client = _connect(uri)
        file = run.path / MLFLOW_FILE
        record = json.loads(file.read_bytes()) if file.exists() else {}
        if record.get("uri") != uri:
            record = {"uri": uri, "run_id": self._create(run.final_path, start)}
            write_json(file, record)
        self._id = record["run_id"]
        self._client.update_run(self._id, status="RUNNING")
        points = self._client.get_metric_history(self._id, "loss")
        self._last_epoch = max((point.step for point in points), default=0)

    def _create(self, path: Path, start: Start) -> str:
        from mlflow.entities import Param, RunTag

        experiment = _get_experiment(self._client, start.kind)
        run_id = self._client.create_run(experiment, run_name=path.name).info.run_id
        tags = {"command": start.command, "data": start.arguments.dataset, "run": str(path)}
        if (path.parent / TRIALS_FILE).exists():
            tags["study"] = path.parent.name
        self._client.log_batch(
            run_id,
            params=[Param(key, str(value)) for key, value in describe(start.config).items()],
            tags=[RunTag(key, readable(value)) for key, value in tags.items()],
        )
        return run_id

    def write_epoch(self, row: dict[str, Any]) -> None:
        """Adds the points of one epoch, unless the store has them."""
        if row["epoch"] > self._last_epoch:
            self._log(_get_numbers(row), row["epoch"])
            self._last_epoch = row["epoch"]

    def write_results(self, history: History, folder: Path) -> None:
        """Adds the final values, and the files of the complete run in `folder`."""
        self._log(_get_final(history), len(history.epochs))
        self._client.log_artifacts(self._id, str(folder))

    def _log(self, values: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, status: str) -> None:
        """Ends the run as `FINISHED`, `FAILED`, or `KILLED` if it can be resumed."""
        self._client.set_terminated(self._id, status)


def _connect(uri: str) -> Any:
    """An MLflow client that writes only to `uri`."""
    for key, value in MLFLOW_SETTINGS.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)  # it reports every table it creates
    return MlflowClient(tracking_uri=uri)


def _get_experiment(client: Any, kind: str) -> str:
    """The id of the experiment that holds the runs of a kind of model."""
    name = f"{kind}s"
    experiment = client.get_experiment_by_name(name)
    return experiment.experiment_id if experiment else client.create_experiment(name)


TRACKERS = {"tensorboard": TensorBoard, "mlflow": MLflow}  # by flag, and package


class Trackers:
    """The trackers of one run; one that fails is dropped, and `warn` receives a sentence on it."""

    def __init__(self, warn: Say):
        self._warn = warn
        self._trackers: list[TensorBoard | MLflow] = []

    def add(self, tracker: TensorBoard | MLflow) -> None:
        """Adds a tracker."""
        self._trackers.append(tracker)

    def write_epoch(self, row: dict[str, Any]) -> None:
        """Shows an epoch in all."""
        self._each(lambda tracker: tracker.write_epoch(row))

    def finish(self, history: History, folder: Path) -> None:
        """Shows the results of the complete run in all, and ends it there."""
        self._each(lambda tracker: tracker.write_results(history, folder))
        self.close(FINISHED)

    def close(self, status: str) -> None:
        """Ends the run in all that are still open."""
        self._each(lambda tracker: tracker.close(status))
        self._trackers.clear()

    def _each(self, action: Callable[[Any], None]) -> None:
        for tracker in list(self._trackers):
            try:
                action(tracker)
            except Exception as error:  # a disk or a server that fails must not cost a training
                self._trackers.remove(tracker)
                self._warn(
                    f"{tracker.name} failed and receives nothing more ({_describe(error)}). "
                    "Training continues; the run folder will be complete."
                )


@contextmanager
def opened(
    args: argparse.Namespace,
    run: Run,
    start: Start,
    rows: Sequence[dict[str, Any]],
    warn: Say,
) -> Iterator[Trackers]:
    """Opens the trackers that the flags ask for, and closes them when training ends.

    `rows` are the epochs before an interruption; `warn` receives a sentence if a tracker fails.

    Raises:
        UsageError: A tracker cannot write; a resumed run continues without it.
    """
    trackers = Trackers(warn)
    try:
        for flag, tracker_class in TRACKERS.items():
            if place := getattr(args, flag):
                try:
                    with _naming(flag, place):
                        trackers.add(tracker_class(place, run, start))
                except UsageError as error:
                    if not args.resume:
                        raise
                    warn(str(error))
        for row in rows:
            trackers.write_epoch(row)
        yield trackers
    except Exception:
        trackers.close(FAILED)
        raise
    finally:
        trackers.close(KILLED)  # a run that did not finish can be resumed
