"""Writes results, locks and hashes files.

Only logs of trials, events of TensorBoard and temporary copies are written elsewhere. A file is
written beside its destination under a temporary name, and renamed when all of it is on
the disk. So a reader, or a restart after a power cut, finds the old file or the new one.
"""

import csv
import errno
import hashlib
import io
import itertools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from cae.errors import READABLE, DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CHUNK_BYTES = 1 << 20
FORMULA_STARTS = tuple("=+-@\t\r\n")  # of a cell of a spreadsheet
FIGURE_DPI = 120
SECONDS_BETWEEN_TRIES = 0.5  # to lock
FREE_SPACE = "Free space on the disk, or choose another folder."
CHECK_FOLDER = "Check the folder and its permissions, or choose another one."
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary file that replaces `path` when all of it is on the disk.

    It is removed if anything fails, including by Ctrl-C.

    Raises:
        OSError: The file cannot be written; `path` is unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def explaining(path: Path, remedy: str = FREE_SPACE) -> Iterator[None]:
    """Turns an error of the system while writing `path` into one that a person can correct.

    Raises:
        UsageError: The disk is full, the folder has vanished or may not be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # of standard output, whose reader has left
    except OSError as error:
        if remedy == FREE_SPACE and error.errno not in FULL:
            remedy = CHECK_FOLDER
        raise UsageError(path, "must be writable", error.strerror or error, remedy) from error


def make_folder(path: str | Path, remedy: str) -> Path:
    """Creates a folder if it is missing, with its parents.

    Raises:
        UsageError: It cannot be created or written.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        required = "must be a folder that can be written"
        raise UsageError(path, required, error.strerror, remedy) from error
    return path


def new_file(name: str) -> Path:
    """Checks the name of a file that does not exist yet, in a folder that does."""
    path = Path(name)
    if path.exists():
        kind = "a folder" if path.is_dir() else "an existing file"
        raise UsageError(path, "must be the name of a new file", kind, "Choose another name.")
    if not path.parent.is_dir():
        raise UsageError(
            path.parent, "must be a folder", "no such folder", "Use a name in an existing folder."
        )
    return path


def free_name(path: str | Path) -> Path:
    """The path, or where a file has it, the first of `name-2`, `name-3`, … that is free."""
    path = Path(path)
    names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(other for other in itertools.chain([path], names) if not other.exists())


def shorten_name(text: str, most: int = 100) -> str:
    """The beginning of a text, at most so many of the 255 bytes that a file's name may have."""
    return os.fsencode(text)[:most].decode(errors="ignore")


def new_folder(flag: str, name: str) -> Path:
    """Creates the folder of a flag, unless there is an empty one.

    Raises:
        UsageError: It is not empty, or cannot be created or written.
    """
    path = make_folder(name, "Choose another folder.")
    if any(path.iterdir()):
        raise UsageError(flag, "must be a new or empty folder", path, "Choose another folder.")
    return path


def write_bytes(path: Path, content: bytes, remedy: str = FREE_SPACE) -> None:
    """Writes a file.

    Raises:
        UsageError: It cannot be written; `path` is unchanged.
    """
    with explaining(path, remedy), replace_file(path) as file:
        file.write(content)


def write_text(path: Path, text: str, remedy: str = FREE_SPACE) -> None:
    """Writes a text file in UTF-8; raises as `write_bytes`."""
    write_bytes(path, text.encode("utf-8", READABLE), remedy)


def write_json(path: Path, content: Any, remedy: str = FREE_SPACE) -> None:
    """Writes a JSON file, indented by 2; raises as `write_bytes`."""
    write_text(path, json.dumps(content, indent=2) + "\n", remedy)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a CSV file with a header; raises as `write_bytes`.

    Columns keep the order of their first appearance; where a row has no value, the field is empty.
    """
    text = io.StringIO(newline="")
    columns = dict.fromkeys(column for row in rows for column in row)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(plain_cell, columns))
    writer.writerows([plain_cell(row.get(column, "")) for column in columns] for row in rows)
    write_text(path, text.getvalue())


def plain_cell(value: Any) -> Any:
    """A value that no spreadsheet reads as a formula: names may come from an untrusted source."""
    if not (isinstance(value, str) and value.startswith(FORMULA_STARTS)):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def read_cell(text: str) -> str:
    """The text that `plain_cell` has written."""
    return text[1:] if text.startswith("'") and text[1:].startswith(FORMULA_STARTS) else text


@contextmanager
def growing_text(path: Path) -> Iterator[TextIO]:
    """Opens a text file to write part by part; it appears when it is complete.

    Raises:
        UsageError: It cannot be written; nothing is left.
    """
    with explaining(path), replace_file(path) as file:
        text = io.TextIOWrapper(file, "utf-8", errors=READABLE, newline="")
        yield text
        text.detach()


@contextmanager
def growing_array(
    path: Path, write_header: Callable[[BinaryIO, int], object], remedy: str = FREE_SPACE
) -> Iterator[Callable[["np.ndarray"], None]]:
    """Opens a file of items behind a header, to write part by part; it appears when complete.

    Args:
        path: The file.
        write_header: Writes the header for a number of items, as long for any number.
        remedy: What to do if it cannot be written.

    Yields:
        What adds items (num_items, ...) to the file.

    Raises:
        UsageError: It cannot be written; nothing is left.
    """
    count = 0

    def write(items: "np.ndarray") -> None:
        nonlocal count
        file.write(items.tobytes())
        count += len(items)

    with explaining(path, remedy), replace_file(path) as file:
        write_header(file, 0)
        yield write
        file.seek(0)
        write_header(file, count)


def write_figure(path: Path, figure: "Figure") -> None:
    """Writes a figure as PNG; raises as `write_bytes`."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        # A name in an alphabet that the font lacks is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(content, dpi=FIGURE_DPI, format="png")
    write_bytes(path, content.getvalue())


def write_figures(folder: Path, figures: Mapping[str, "Figure"]) -> list[Path]:
    """Writes each figure as `<name>.png` and returns the files; raises as `write_bytes`.

    The folder is created if there are any figures; its parent must exist.
    """
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        with explaining(folder):
            folder.mkdir(exist_ok=True)
        write_figure(path, figure)
    return paths


def get_digest(file: BinaryIO, algorithm: str) -> str:
    """The hexadecimal digest of the rest of an open file."""
    return hashlib.file_digest(
        file, lambda: hashlib.new(algorithm, usedforsecurity=False)
    ).hexdigest()


def get_record(path: str | Path) -> dict[str, Any]:
    """The path, SHA-256 and size in bytes of a file, to record what a result depends on.

    Raises:
        DataError: It cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            digest = get_digest(file, "sha256")
        return {"path": str(path), "sha256": digest, "bytes": path.stat().st_size}
    except OSError as error:
        raise DataError(
            path, "must be readable", error.strerror, "Restore the file and run again."
        ) from error


@contextmanager
def locked(folder: Path, file: Path | None = None, seconds: float = 0) -> Iterator[None]:
    """Keeps other processes out of a folder, at most until this process ends.

    The lock is on `file`, or on the folder itself.

    Raises:
        UsageError: Another process still holds the lock after so many seconds.
        OSError: It cannot be opened.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(file or folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            _lock(descriptor, folder, time.monotonic() + seconds)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, end: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= end:
                raise UsageError(
                    folder,
                    "must not be in use",
                    f"a lock held by {_find_holder(descriptor)}",
                    "Wait until that process ends, or stop it.",
                ) from error
        time.sleep(SECONDS_BETWEEN_TRIES)


def _find_holder(descriptor: int) -> str:
    """Names the process that has locked a file, which Linux lists in /proc/locks."""
    status = os.fstat(descriptor)
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            fields = line.split()
            if fields[-3] == wanted and fields[1] == "FLOCK" and int(fields[-4]) > 0:
                return f"process {fields[-4]}"
    return "another process"
