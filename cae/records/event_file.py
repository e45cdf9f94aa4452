"""TensorBoard's event files, written in step with the training."""

import time
from pathlib import Path
from typing import Any

from PIL import Image


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
        self._write(file_version="brain.Event:2")
        self._write(session_log=SessionLog(status=SessionLog.START))

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), **content)
        self._records.write(event.SerializeToString())
        self._file.flush()

    def add_scalar(self, tag: str, value: float, epoch: int) -> None:
        """Adds a point to a curve."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._write(step=epoch, summary=Summary(value=[Summary.Value(tag=tag, simple_value=value)]))

    def add_hyperparameters(self, values: dict[str, bool | int | float | str]) -> None:
        """Adds a row to the table of hyperparameters."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        self._write(summary=hparams_pb(values))

    def add_figure(self, path: Path) -> None:
        """Adds a PNG file under its name."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        with Image.open(path) as png:
            width, height = png.size
        image = Summary.Image(width=width, height=height, encoded_image_string=path.read_bytes())
        self._write(summary=Summary(value=[Summary.Value(tag=path.stem, image=image)]))

    def add_text(self, tag: str, markdown: str) -> None:
        """Adds a text."""
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._write(summary=text_pb(tag, markdown))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
