"""Data sets: named ones and files, pixel scaling, the validation split, and classes.

Images stay in the type of their file until a batch of them is scaled to float32 in [0, 1]. A named
data set lives under `data/` in the four files that MNIST was published in; what is missing there is
made (`digits`) or downloaded and verified by checksum. Nothing here imports Keras.

Sources: MNIST, Y. LeCun, C. Cortes and C. Burges, http://yann.lecun.com/exdb/mnist/.
Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747. Kuzushiji-MNIST, T. Clanuwat
et al., arXiv:1812.01718. Digits, E. Alpaydin and C. Kaynak, doi:10.24432/C50P49.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cae.data import idx
from cae.data.named import NAMED_DATASETS, Role, Split, find_named_file, verify_named_file
from cae.errors import DataError, UsageError
from cae.files import get_record

LABELS_FLAGS = {"train": "-dl", "test": "-tl"}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, if any, and where they came from.

    Attributes:
        name: The named data set, or the name of the file of images.
        images: (num_images, height, width, channels) in the type of the file.
        labels: int64 (num_images,), any integers; None without labels.
        class_names: Names of the labels, for named data sets whose labels are no digits.
        files: For the record of a run, one dict a file: `path`, `sha256` of the file as stored,
            and `bytes`.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    class_names: dict[int, str]
    files: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Scaling:
    """How pixels become float32 in [0, 1]: (pixel - offset) / scale, clipped.

    Attributes:
        offset: Pixel value that becomes 0.
        scale: Difference between the pixel values that become 1 and 0.
        dtype: Type of the training images, e.g. `uint8`.
    """

    offset: float
    scale: float
    dtype: str

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Scales images of any shape to float32 in [0, 1]."""
        # float32 holds 8 and 16 bit integers exactly; wider types need float64 on the way.
        exact = np.result_type(images.dtype, np.float32)
        scaled = np.subtract(images, self.offset, dtype=exact)
        scaled /= self.scale
        return scaled.clip(0, 1, out=scaled).astype(np.float32, copy=False)


def check_dataset(
    images: str,
    labels: str | None = None,
    *,
    split: Split = "train",
    labels_required: bool = False,
) -> tuple[int, tuple[int, int, int]]:
    """Checks a data set from the headers of its files; makes or downloads a named one first.

    Args:
        images: Path of an idx file of images, or a name from `NAMED_DATASETS`. A file that has
            such a name can be given as `./mnist`.
        labels: Path of an idx file of labels, or such a name; by default those of a named data set.
        split: Which part of a named data set, and which flags an error names.
        labels_required: Whether images without labels are an error.

    Returns:
        The number of images and their shape (height, width, channels).

    Raises:
        DataError: A file or named data set cannot be used, or images and labels differ in number.
        UsageError: Labels are required and there are none.
    """
    images_path, labels_path = _find_files(images, labels, split, labels_required)
    header = idx.read_images_header(images_path)
    num_images, height, width, *channels = header.shape
    if labels_path is not None:
        (num_labels,) = idx.read_labels_header(labels_path).shape
        if num_labels != num_images:
            raise DataError(
                labels_path,
                f"must hold one label for each of the {num_images} images in {images_path}",
                f"{num_labels} labels",
                "Give images and labels that belong together.",
            )
    return num_images, (height, width, *(channels or [1]))


def load_dataset(
    images: str,
    labels: str | None = None,
    *,
    split: Split = "train",
    limit: int | None = None,
    labels_required: bool = False,
) -> Dataset:
    """Loads images and labels, checked and, for a named data set, verified.

    Args:
        images: As for `check_dataset`, like `labels`, `split` and `labels_required`.
        labels: See there.
        split: See there.
        limit: Load only the first `limit` images and labels.
        labels_required: See there.

    Raises:
        DataError: As for `check_dataset`, or the values of a file cannot be used.
        UsageError: As for `check_dataset`, or `limit` is less than 1.
    """
    check_dataset(images, labels, split=split, labels_required=labels_required)
    images_path, labels_path = _find_files(images, labels, split, labels_required)
    verify_named_file(images, images_path)
    if labels_path is not None:
        verify_named_file(labels or images, labels_path)
    named = NAMED_DATASETS.get(labels or images)
    return Dataset(
        name=images if images in NAMED_DATASETS else images_path.name,
        images=idx.read_images(images_path, limit),
        labels=None if labels_path is None else idx.read_labels(labels_path, limit),
        class_names=dict(enumerate(named.class_names)) if named else {},
        files=tuple(get_record(path) for path in (images_path, labels_path) if path is not None),
    )


def get_scaling(images: np.ndarray) -> Scaling:
    """Chooses the scaling from the training images, by their type and range.

    Floats within [0, 1] and images of 0 and 1 alone are left as they are, bytes and other integers
    within 0 to 255 are divided by 255, and anything else is brought from its own minimum and
    maximum to [0, 1].
    """
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif images.dtype.kind != "f" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    return Scaling(offset=low, scale=high - low or 1.0, dtype=images.dtype.name)


def check_same_kind(scaling: Scaling, images: np.ndarray, where: object) -> None:
    """Raises a DataError if `images` are floats where the training images were not, or reverse."""
    if (images.dtype.kind == "f") != (np.dtype(scaling.dtype).kind == "f"):
        raise DataError(
            where,
            f"must hold pixels of the kind the model was trained on ({scaling.dtype})",
            images.dtype.name,
            "Convert the images to that type and range.",
        )


def _find_files(
    images: str, labels: str | None, split: Split, labels_required: bool
) -> tuple[Path, Path | None]:
    """Paths of the images and of the labels, if there are any."""
    if labels is None and images in NAMED_DATASETS:
        labels = images
    if labels is None and labels_required:
        raise UsageError(
            LABELS_FLAGS[split],
            f"must give the labels of the images in {images}",
            "nothing",
            f"Add {LABELS_FLAGS[split]} FILE, or name a data set: {', '.join(NAMED_DATASETS)}.",
        )
    images_path = _find_file(images, split, "images")
    return images_path, None if labels is None else _find_file(labels, split, "labels")


def _find_file(source: str, split: Split, role: Role) -> Path:
    """The path that `source` is, or the file of the named data set that it names."""
    if source in NAMED_DATASETS:
        return find_named_file(source, split, role)
    path = Path(source)
    nearest = difflib.get_close_matches(str(source).lower(), NAMED_DATASETS, n=1)
    if nearest and not path.exists():
        raise DataError(
            source,
            f"must be a file or one of {', '.join(NAMED_DATASETS)}",
            "neither",
            f"Did you mean {nearest[0]}?",
        )
    return path
