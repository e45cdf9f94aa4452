"""Files as they lie on the disk: where they are kept, opened if compressed, recognised by content.

What is downloaded, made or decoded is kept in `data/` of a checkout; if there is none that can be
written, in the user's cache, as the XDG Base Directory Specification places it.
"""

import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cae import terminal
from cae.errors import DataError, UsageError
from cae.files import make_folder

DATA_DIR = Path(__file__).resolve().parents[2] / "data"  # `pip install .` copies none
GZIP_MAGIC = b"\x1f\x8b"
MOST_LAYERS = 2  # of compression: a browser may compress a .gz file again
# Enough to recognise a file: the signature of a tar archive is at byte 257.
START_BYTES = 512

SIGNATURES = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"PK\x03\x04", "a zip archive (.zip, .npz or .keras)"),
    (b"\x93NUMPY", "a NumPy .npy array"),
    (b"\x89HDF", "an HDF5 file (.h5)"),
    (GZIP_MAGIC, "a gzip file inside gzip files"),
    (b"BZh", "a bzip2 archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"MATLAB", "a MATLAB file (.mat)"),
    (b"PAR1", "a Parquet table"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"Rar!", "a RAR archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"(\xb5/\xfd", "a zstandard archive"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
)

GET_AGAIN = "Download or copy the file again."
WRITE_AGAIN = "Write the file again with cae.data.idx.write_idx."


def get_data_root() -> Path:
    """The first folder that can be written: of a checkout, of the user, for temporary files.

    Raises:
        UsageError: There is none.
    """
    if os.access(DATA_DIR, os.W_OK):
        return DATA_DIR
    # Unlike Path.expanduser, this does not raise without a home.
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111
    try:
        if user.is_absolute():
            return make_folder(user / "cae", "")
    except UsageError:
        pass
    remedy = "Set XDG_CACHE_HOME or TMPDIR to a folder that can be written."
    return make_folder(Path(tempfile.gettempdir()) / "cae-cache", remedy)


def get_full_remedy() -> str:
    """What to do where `get_data_root` is full."""
    if os.access(DATA_DIR, os.W_OK):
        return "Free space on the disk, or make data/cache a link to a folder on another one."
    return "Free space on the disk, or set XDG_CACHE_HOME to a folder on another one."


def make_data_folder(name: str) -> Path:
    """Makes a folder in `get_data_root`; if that is not in a checkout, a line says where it is.

    Raises:
        UsageError: It cannot be created or written.
    """
    folder = get_data_root() / name
    is_new = not folder.exists()
    make_folder(folder, "Change its permissions, or move it away.")
    if is_new and DATA_DIR not in folder.parents:
        terminal.print_sentence(terminal.ERR, f"Downloaded and decoded files are kept in {folder}")
    return folder


@contextmanager
def open_content(path: Path) -> Iterator[BinaryIO]:
    """Opens a file for reading and decompresses it if it is a gzip file, or one inside another.

    Raises:
        DataError: The file cannot be opened or read, or the gzip file is damaged.
    """
    try:
        with ExitStack() as layers:
            file = layers.enter_context(path.open("rb"))
            for _ in range(MOST_LAYERS):
                is_compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
                file.seek(0)
                if not is_compressed:
                    break
                file = layers.enter_context(gzip.GzipFile(mode="rb", fileobj=file))
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        # Its first bytes are those of a gzip file, or it would not have been opened as one.
        is_followed = str(error).startswith("Not a gzipped file")
        reason = "bytes after its end" if is_followed else error
        raise DataError(path, "must be a complete gzip file", reason, GET_AGAIN) from error
    except OSError as error:
        raise DataError(
            path, "must be readable", error.strerror, "Check its permissions."
        ) from error


def describe_content(start: bytes) -> str:
    """What a file is, by its first `START_BYTES`."""
    for signature, description in SIGNATURES:
        if start.startswith(signature):
            return description
    if start[257:262] == b"ustar":
        return "a tar archive"
    text = start.decode("utf-8-sig", errors="replace")
    if text.lstrip().lower().startswith(("<!doctype", "<html", "<?xml")):
        return "a web page (HTML or XML)"
    # START_BYTES may have cut the last character in two.
    if "\N{REPLACEMENT CHARACTER}" not in text[:-1] and "".join(text.split()).isprintable():
        return "text"
    return f"a file that begins with 0x{start[:4].hex()}"


def check_byte_order(where: object, values: np.ndarray) -> None:
    """Raises a DataError for values that make sense only with their bytes in the other order.

    These are integers whose lower bytes are all 0, and floats of absurd size.
    """
    if values.itemsize == 1 or not values.any():
        return
    if values.dtype.kind == "f":
        is_swapped = not _are_common(values) and _are_common(values.byteswap())
    else:
        is_swapped = not (values % 256 ** (values.itemsize - 1)).any()
    if is_swapped:
        raise DataError(where, "must contain big-endian values", "little-endian ones", WRITE_AGAIN)


def _are_common(floats: np.ndarray) -> bool:
    with np.errstate(invalid="ignore"):
        sizes = np.abs(floats[floats != 0])
        return bool(((sizes > 1e-30) & (sizes < 1e30)).all())
