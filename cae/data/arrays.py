"""NumPy files: `.npy` with images or labels, and `.npz` with both, as those of Keras."""

import zipfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cae.data import idx
from cae.data.labels import as_labels
from cae.data.listing import name_classes
from cae.data.named import Split
from cae.errors import DataError
from cae.files import FREE_SPACE, growing_array

# Names of images and labels in an archive: as numpy.savez gives them, scikit-learn, MedMNIST and
# keras.datasets. Of several pairs the last counts.
KEYS: dict[Split, tuple[tuple[str, str], ...]] = {
    "train": (
        *(("arr_0", "arr_1"), ("X", "y"), ("data", "label"), ("image", "label")),
        *(("train_images", "train_labels"), ("x_train", "y_train"), ("images", "labels")),
    ),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
INTEGERS = (np.uint8, np.int16, np.int32)


def read_npz(path: Path) -> dict[Split, tuple[np.ndarray, np.ndarray | None, dict[int, str]]]:
    """Reads images, labels and names of labels from an archive, in the types of idx files.

    Raises:
        DataError: It cannot be read, or holds other arrays.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = set(archive.files)
            arrays = {
                split: [np.atleast_1d(archive[key]) if key in found else None for key in keys]
                for split, pairs in KEYS.items()
                for keys in pairs
                if keys[0] in found
            }
    except _UNREADABLE as error:
        raise _get_unreadable_error(path, error) from error
    if "train" not in arrays:
        raise DataError(
            path,
            "must contain x_train, y_train, x_test and y_test, or images and labels",
            ", ".join(sorted(found)) or "nothing",
            "Write it with numpy.savez(FILE, images=..., labels=...).",
        )
    return {split: _check_pair(path, *pair) for split, pair in arrays.items()}


def read_images_header(path: Path) -> np.ndarray:
    """The images of a `.npy` file, not read yet: (N, H, W, C)."""
    return as_images(path, open_array(path), check=False)


def read_labels_header(path: Path) -> np.ndarray:
    """The labels of a `.npy` file, not read yet: one or one row per image."""
    return open_array(path)


def read_images(path: Path, chosen: np.ndarray | None = None) -> np.ndarray:
    """Images from a `.npy` file, like `idx.read_images`."""
    images = open_array(path)
    if chosen is not None:
        images = images[chosen]
    elif images.nbytes <= idx.MAPPED_BYTES:
        images = np.array(images)
    return as_images(path, images)


def read_labels(path: Path) -> tuple[np.ndarray, dict[int, str]]:
    """Labels from a `.npy` file, int64 (num_images,), and their names where they are texts."""
    return _as_labels(path, open_array(path))


def growing_npy(
    path: Path, shape: tuple[int, ...], dtype: type, remedy: str = FREE_SPACE
) -> AbstractContextManager[Callable[[np.ndarray], None]]:
    """Opens a `.npy` file of items of a shape and type; see `growing_array`."""

    def write_header(file: BinaryIO, count: int) -> None:
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, *shape), dtype))
        # NumPy pads headers, so that one for any number of items has the same length.
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *shape)})

    return growing_array(path, write_header, remedy)


_UNREADABLE = (  # what NumPy and zipfile raise for damaged, encrypted and renamed files
    *(OSError, ValueError, TypeError, EOFError, KeyError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def open_array(path: Path) -> np.ndarray:
    """The array in a `.npy` file, not read yet, of at least one dimension."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive, which is called .npz")
        return np.atleast_1d(np.asarray(array))
    except _UNREADABLE as error:
        raise _get_unreadable_error(path, error) from error


def _get_unreadable_error(path: Path, error: BaseException) -> DataError:
    reason = getattr(error, "strerror", None) or error
    remedy = f"Write it with numpy.save{'z' if path.suffix.lower() == '.npz' else ''}"
    if "allow_pickle" in str(error) or "Python objects" in str(error):
        reason = "Python objects, which are not read"
        remedy += ", labels after astype(str) or astype(int), images of one size"
    return DataError(path, "must be a NumPy file of numbers", reason, f"{remedy}.")


def _check_pair(
    path: Path, images: np.ndarray, labels: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None, dict[int, str]]:
    images = as_images(path, images)
    if labels is None:
        return images, None, {}
    if len(labels) != len(images):
        required = f"must contain {len(images)} labels, one per image"
        remedy = idx.advise_on_counts(len(labels), images.shape)
        raise DataError(path, required, len(labels), remedy)
    return images, *_as_labels(path, labels)


def as_images(path: Path, array: np.ndarray, check: bool = True) -> np.ndarray:
    """Images (N, H, W, C) in a type of idx files, from an array of such or of (N, H, W)."""
    if array.ndim not in idx.IMAGES_RANKS or array.size == 0 or array.dtype.kind not in "biuf":
        raise DataError(
            path,
            "must contain images, numbers of shape (N, H, W) or (N, H, W, C)",
            f"{array.dtype.name} of shape {array.shape}",
            "Reshape the array.",
        )
    idx.check_channels_last(path, array.shape)
    images = array if array.ndim == 4 else array[..., np.newaxis]
    if not check:
        return images
    if images.dtype.kind == "f":
        idx.check_finite(path, images)
        return images.astype(np.float64 if images.itemsize > 4 else np.float32, copy=False)
    if images.dtype.newbyteorder(">") in idx.CODES:
        return images
    low, high = images.min(), images.max()
    for dtype in map(np.dtype, INTEGERS):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return images.astype(dtype)
    raise DataError(path, "must contain pixels of at most 32 bits", high, "Scale the pixels.")


def _as_labels(path: Path, array: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Labels int64 (N,), and their names where they are texts."""
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind == "U" and array.size == len(array):
        return name_classes(array.ravel().tolist())
    if array.ndim not in idx.LABELS_RANKS or array.dtype.kind not in "biuf":
        raise DataError(
            path,
            "must contain one integer label per image",
            f"{array.dtype.name} of shape {array.shape}",
            "Number the classes.",
        )
    return as_labels(path, array), {}
