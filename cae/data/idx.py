"""idx files, the format MNIST was published in, to and from NumPy arrays.

A file is a header and the values after it, all big-endian: two zero bytes, one byte for the data
type, one for the rank, an unsigned 32-bit size per dimension, then the values, the last dimension
changing fastest. Files may be raw or gzip-compressed; the content tells which, not the name. A
header is not trusted: nothing is allocated before its sizes have been compared with the file's.

Source: Y. LeCun, C. Cortes and C. Burges, "The MNIST database of handwritten digits",
http://yann.lecun.com/exdb/mnist/, section "File formats for the MNIST database".
"""

import gzip
import itertools
import math
import os
import stat
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import psutil

from cae.data.labels import as_labels, is_one_hot, is_qmnist
from cae.data.stored import (
    GET_AGAIN,
    START_BYTES,
    WRITE_AGAIN,
    check_byte_order,
    describe_content,
    open_content,
)
from cae.errors import DataError, did_you_mean, nearest
from cae.files import CHUNK_BYTES, growing_array, write_bytes

DTYPES = {
    0x08: np.dtype(">u1"),
    0x09: np.dtype(">i1"),
    0x0B: np.dtype(">i2"),
    0x0C: np.dtype(">i4"),
    0x0D: np.dtype(">f4"),
    0x0E: np.dtype(">f8"),
}
CODES = {dtype: code for code, dtype in DTYPES.items()}
DTYPE_NAMES = ", ".join(dtype.name for dtype in CODES)
LABELS_RANKS = (1, 2)  # rank 2: see `as_labels`
IMAGES_RANKS = (3, 4)

# Deflate writes at best 258 bytes for 2 bits (RFC 1951: one length code, one distance code).
DEFLATE_MAX_RATIO = 1032
# Raw data above this stays on the disk. Below, a copy is safer: a process that reads a mapped file
# is killed if the file is truncated.
MAPPED_BYTES = 1 << 28
MEASURED_BYTES = 1 << 26  # of compressed data, to say how many there are
INSPECTED = 64  # items that are enough to tell what a file holds
MAKE_IDX = "Pass an idx file; cae.data.idx.write_idx makes one from a NumPy array."


@dataclass(frozen=True)
class Header:
    """The header of an idx file.

    Attributes:
        dtype: Big-endian type of the values.
        shape: Size of each dimension, the number of items first.
        data_offset: Position of the first value, in bytes of the uncompressed content.
        compressed: Whether the file is gzip-compressed.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    data_offset: int
    compressed: bool

    @property
    def item_bytes(self) -> int:
        """Bytes of one image or one label."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def data_bytes(self) -> int:
        """Bytes of all values, according to the header."""
        return self.shape[0] * self.item_bytes

    def __str__(self) -> str:
        return f"{' x '.join(map(str, self.shape))} {self.dtype.name}"


def read_header(path: str | os.PathLike) -> Header:
    """Reads the header of an idx file and checks it without reading the data.

    Args:
        path: A raw or gzip-compressed idx file of labels (rank 1 or 2) or images (rank 3 or 4).

    Raises:
        DataError: The file cannot be read, is not an idx file, or does not have the size that
            its header implies.
    """
    path = Path(path)
    stored_bytes = _get_stored_bytes(path)
    with open_content(path) as file:
        compressed = isinstance(file, gzip.GzipFile)
        start = file.read(START_BYTES)
    header = _parse_header(path, start, compressed)
    _check_sizes(path, header, stored_bytes)
    return header


def read_images_header(path: str | os.PathLike) -> Header:
    """Like `read_header`, for a file of images: (N, H, W) or (N, H, W, C)."""
    header = read_header(path)
    if len(header.shape) in IMAGES_RANKS:
        check_channels_last(path, header.shape)
        return header
    got = f"labels (rank {len(header.shape)}: {header})"
    remedy = "Pass the file of images here and the labels with their own flag."
    if len(header.shape) == 2:
        rows = _read_items(Path(path), header, np.arange(min(header.shape[0], INSPECTED)))
        if not (rows.shape[1] == 1 or is_one_hot(rows) or is_qmnist(rows)):
            got = f"flattened images without height and width (rank 2: {header})"
            remedy = "Reshape them to (N, H, W) and write them with write_idx."
    raise DataError(path, "must contain images (rank 3 or 4)", got, remedy)


def check_channels_last(where: object, shape: tuple[int, ...]) -> None:
    """Raises a DataError for images (N, C, H, W), as of PyTorch.

    Images 1 or 3 pixels high and wider than that, with more than 4 channels, are taken for those.
    """
    _, height, width, *channels = shape
    if channels and height in (1, 3) and width > height and channels[0] > 4:
        raise DataError(
            where,
            "must contain images (N, H, W, C), channels last",
            f"{' x '.join(map(str, shape))}, channels first",
            "Convert the array with numpy.moveaxis(images, 1, -1).",
        )


def advise_on_counts(num_labels: int, shape: tuple[int, ...]) -> str:
    """What to do with images that are as many as their first axis says, and not `num_labels`."""
    if num_labels in shape[2:] and shape.count(num_labels) == 1:
        return "Put the axis of the images first: images = numpy.moveaxis(images, -1, 0)."
    return "Use images and labels that belong together."


def read_labels_header(path: str | os.PathLike) -> Header:
    """Like `read_header`, for a file of labels: one row or number per image."""
    header = read_header(path)
    if len(header.shape) not in LABELS_RANKS:
        raise DataError(
            path,
            "must contain labels (rank 1)",
            f"images (rank {len(header.shape)}: {header})",
            "Pass the file of labels here and the images with their own flag.",
        )
    return header


def read_images(path: str | os.PathLike, chosen: np.ndarray | None = None) -> np.ndarray:
    """Reads images from an idx file.

    Args:
        path: A raw or gzip-compressed idx file of rank 3 (N, H, W) or 4 (N, H, W, C).
        chosen: Sorted positions of the images to read; by default all.

    Returns:
        Images (N, H, W, C) in the file's type; C is 1 for a file of rank 3. A raw file above
        `MAPPED_BYTES`, read whole, stays on the disk: the array is a read-only view of it, in its
        byte order. Other arrays are in memory and in native byte order.

    Raises:
        DataError: The file cannot be used, or holds NaN or infinite pixels.
    """
    images = _read_items(Path(path), read_images_header(path), chosen)
    images = images if images.ndim == 4 else images[..., np.newaxis]
    if images.itemsize > 2:  # 16-bit images may well hold bytes times 256
        check_byte_order(path, images[:INSPECTED])
    if images.dtype.kind == "f":
        check_finite(path, images)
    return images


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Reads labels from an idx file, in any form that `as_labels` takes.

    Returns:
        Labels int64 (N,), any integers.

    Raises:
        DataError: The file cannot be used, or holds no labels.
    """
    return as_labels(path, _read_items(Path(path), read_labels_header(path)))


def write_idx(path: str | os.PathLike, array: np.ndarray) -> None:
    """Writes labels or images as an idx file, replacing `path` only once it is complete.

    Args:
        path: Where to write; with the extension `.gz` the file is gzip-compressed, without a
            timestamp, so that equal arrays make equal files.
        array: Labels (N,) or images (N, H, W) or (N, H, W, C) of one of the format's types:
            uint8, int8, int16, int32, float32 or float64.

    Raises:
        DataError: The format cannot hold the array.
        UsageError: The file cannot be written.
    """
    path, array = Path(path), np.asarray(array)
    dtype = array.dtype.newbyteorder(">")
    if dtype not in CODES:
        raise DataError(
            path,
            f"must be written from an array of {DTYPE_NAMES}",
            array.dtype.name,
            "Convert the array with astype.",
        )
    if array.ndim not in (1, *IMAGES_RANKS) or array.size == 0:
        raise DataError(
            path,
            "must be written from labels (N,) or images (N, H, W) or (N, H, W, C), not empty",
            f"shape {array.shape}",
            "Reshape the array.",
        )
    content = _pack_header(dtype, array.shape) + array.astype(dtype).tobytes()
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def growing_idx(
    path: Path, shape: tuple[int, ...]
) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """Opens an idx file of uint8 images of a shape; see `growing_array`."""
    return growing_array(
        path, lambda file, count: file.write(_pack_header(np.dtype(">u1"), (count, *shape)))
    )


def _pack_header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, CODES[dtype], len(shape), *shape)


def _get_stored_bytes(path: Path) -> int:
    """The size of the file on disk. Opens nothing: opening a pipe would block."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        reason = getattr(error, "strerror", None) or error
        remedy = _name_similar_files(path) or "Check the path."
        if os.path.islink(path):  # noqa: PTH114 - this raises for no name
            reason, remedy = f"a link to {path.readlink()}, which is missing", "Repair the link."
        raise DataError(path, "must be an existing file", reason, remedy) from error
    if stat.S_ISDIR(status.st_mode):
        raise DataError(path, "must be a file", "a folder", name_idx_files(path))
    if not stat.S_ISREG(status.st_mode):
        raise DataError(
            path, "must be a file on disk", "a pipe or device", "Save the data to a file."
        )
    if status.st_size == 0:
        raise DataError(path, "must be an idx file", "an empty file", GET_AGAIN)
    return status.st_size


def _name_similar_files(path: Path) -> str:
    """Asks whether another file was meant, such as ``train-images.idx3-ubyte``."""
    home = os.path.expanduser(path)  # noqa: PTH111 - this does not raise without a home
    if os.path.exists(home):  # noqa: PTH110
        return did_you_mean([home])
    try:
        beside = [file.name for file in itertools.islice(path.parent.iterdir(), 1000)]
    except (OSError, ValueError):
        return ""
    return did_you_mean(str(path.with_name(name)) for name in nearest(path.name, beside))


def name_idx_files(
    folder: Path, otherwise: str = "It holds no idx file: give the path of one."
) -> str:
    """Names the idx files in a folder and in the folders in it, among the first 100 entries."""

    def is_idx(path: Path) -> bool:
        try:
            return path.is_file() and bool(read_header(path))
        except DataError:
            return False

    try:
        paths = itertools.chain(folder.glob("*"), folder.glob("*/*"))
        found = [path for path in itertools.islice(paths, 100) if is_idx(path)]
        names = [str(path.relative_to(folder)) for path in found]
    except OSError:
        names = []
    if not names:
        return otherwise
    return f"Use one of the idx files in it: {', '.join(sorted(names))}."


def _parse_header(path: Path, start: bytes, compressed: bool) -> Header:
    """Reads a header from the first bytes of the uncompressed content."""
    if not start:
        raise DataError(path, "must be an idx file", "an empty gzip file", GET_AGAIN)
    if start[2:4] == b"\0\0" and start[1] in DTYPES:
        raise DataError(
            path, "must be big-endian", "a byte-swapped (little-endian) idx header", WRITE_AGAIN
        )
    if any(start[:2]):
        found = describe_content(start)
        remedy = "Unpack it and pass its contents." if " archive" in found else MAKE_IDX
        remedy = "Pass the folder of pictures." if found.endswith("picture") else remedy
        raise DataError(path, "must be an idx file", found, remedy)
    if len(start) < 4:
        raise DataError(
            path, "must begin with a header of 4 bytes or more", f"{len(start)} in all", GET_AGAIN
        )
    code, rank = start[2], start[3]
    if code not in DTYPES:
        codes = ", ".join(f"0x{code:02x} ({dtype.name})" for code, dtype in DTYPES.items())
        raise DataError(
            path, f"must have one of the data type codes {codes}", f"0x{code:02x}", MAKE_IDX
        )
    if rank not in (*LABELS_RANKS, *IMAGES_RANKS):
        raise DataError(
            path, "must have rank 1 (labels), 3 or 4 (images)", f"rank {rank}", MAKE_IDX
        )
    data_offset = 4 + 4 * rank
    if len(start) < data_offset:
        raise DataError(
            path, f"must begin with a header of {data_offset} bytes", len(start), GET_AGAIN
        )
    shape = struct.unpack_from(f">{rank}I", start, 4)
    return Header(DTYPES[code], shape, data_offset, compressed)


def _check_sizes(path: Path, header: Header, stored_bytes: int) -> None:
    """Compares the sizes in the header with the bytes of the file."""
    if header.data_bytes == 0:
        raise DataError(path, "must have sizes of at least 1", header, GET_AGAIN)
    most = stored_bytes * DEFLATE_MAX_RATIO if header.compressed else stored_bytes

    def fits(shape: tuple[int, ...]) -> bool:
        promised = header.data_offset + math.prod(shape) * header.dtype.itemsize
        return promised <= most if header.compressed else promised == stored_bytes

    if fits(header.shape):
        return
    swapped = tuple(np.array(header.shape, np.uint32).byteswap().tolist())
    if fits(swapped):
        raise DataError(
            path,
            "must have big-endian sizes",
            f"{header}, or {' x '.join(map(str, swapped))} with swapped bytes",
            WRITE_AGAIN,
        )
    if header.compressed:
        raise DataError(
            path,
            f"must contain {header.data_bytes} bytes of data ({header})",
            f"{stored_bytes} compressed bytes, which hold at most {most}",
            GET_AGAIN,
        )
    _check_data_bytes(path, header, stored_bytes - header.data_offset)


def _check_data_bytes(path: Path, header: Header, found: int) -> None:
    """Compares the number of bytes after the header with what the header says."""
    if found == header.data_bytes:
        return
    width, rest = divmod(found, math.prod(header.shape))
    items, part = divmod(found, header.item_bytes)
    got, remedy = f"{found}: the file is truncated", GET_AGAIN
    is_other_width = width in (1, 2, 4, 8) and not rest
    if header.compressed and found > max(8 * header.data_bytes, MEASURED_BYTES):
        got = f"{found} or more: trailing bytes"
    elif items and not part:
        got = f"{found}: {items} items, not {header.shape[0]}"
        got += f", or {8 * width}-bit values" * is_other_width
        remedy = f"{GET_AGAIN[:-1]}; if its converter counted wrongly, write it with write_idx."
    elif is_other_width:
        got, remedy = f"{found}, as of {8 * width}-bit values", WRITE_AGAIN
    elif found > header.data_bytes:
        got = f"{found}: trailing bytes"
    raise DataError(path, f"must contain {header.data_bytes} bytes of data ({header})", got, remedy)


def _read_items(path: Path, header: Header, chosen: np.ndarray | None = None) -> np.ndarray:
    """Reads the items at some positions; or all, and checks that nothing follows."""
    num_items = header.shape[0] if chosen is None else len(chosen)
    num_bytes = num_items * header.item_bytes
    _check_memory(path, header, num_bytes)
    if chosen is None and num_bytes > MAPPED_BYTES and not header.compressed:
        return np.asarray(np.memmap(path, header.dtype, "r", header.data_offset, header.shape))
    # Reading past the end also makes gzip verify its checksum.
    starts, size = ([0], num_bytes + 1) if chosen is None else (chosen.tolist(), header.item_bytes)
    content = bytearray()
    try:
        with open_content(path) as file:
            for start in starts:
                file.seek(header.data_offset + start * header.item_bytes)
                content += _read_bytes(file, size)
            if len(content) != num_bytes:
                # Only the first part of a compressed file: it may be a bomb.
                most = header.data_offset + max(8 * header.data_bytes, MEASURED_BYTES) + 1
                end = file.seek(most) if header.compressed else file.seek(0, os.SEEK_END)
                _check_data_bytes(path, header, end - header.data_offset)
        items = np.frombuffer(content, header.dtype).reshape(num_items, *header.shape[1:])
        return items.astype(header.dtype.newbyteorder("="), copy=False)
    except MemoryError as error:
        raise DataError(
            path, "must fit in memory", str(header), "Read fewer items with --limit."
        ) from error


def _check_memory(path: Path, header: Header, num_bytes: int) -> None:
    """Refuses compressed data that exceed the memory; raw data can stay on the disk."""
    memory = psutil.virtual_memory().total
    if header.compressed and num_bytes > memory:
        raise DataError(
            path,
            f"must fit in {memory} bytes of memory when decompressed",
            f"{num_bytes} bytes ({header})",
            "Read fewer items with --limit, or decompress the file: raw data stay on the disk.",
        )


def _read_bytes(file: BinaryIO, num_bytes: int) -> bytearray:
    """Reads up to `num_bytes` in chunks: memory grows with the file, not with its header."""
    content = bytearray()
    while chunk := file.read(min(CHUNK_BYTES, num_bytes - len(content))):
        content += chunk
    return content


def check_finite(path: str | os.PathLike, images: np.ndarray) -> None:
    """Raises a DataError for NaN or infinite pixels."""
    # In parts: a mask of all pixels would take a quarter of the images' memory.
    starts = range(0, len(images), 4096)
    parts = [np.isfinite(images[start : start + 4096]).all(axis=(1, 2, 3)) for start in starts]
    finite = np.concatenate(parts)
    if not finite.all():
        raise DataError(
            path,
            "must contain finite pixels",
            f"NaN or infinity in {np.sum(~finite)} of {len(images)} images, "
            f"first in image {np.argmin(finite)} (counted from 0)",
            "Replace those pixels, or remove the images.",
        )
