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
        """Closes the file."""
        self._file.close()
