"""Data sets: images with their labels, and the scaling of their pixels.

A data set is a pair of idx or `.npy` files, a name from `NAMED_DATASETS`, or a source that holds
images and labels together: a folder or table of pictures, or an `.npz` archive. Images stay in the
type of their file until a batch of them is scaled to float32 in [0, 1].
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cae import terminal
from cae.data import arrays, idx, pictures
from cae.data.labels import NO_LABEL, number_like
from cae.data.named import (
    NAMED_DATASETS,
    NamedDataset,
    Role,
    Split,
    find_named_file,
    verify_file,
)
from cae.data.sources import Reading, is_source, read_names, read_source
from cae.data.splits import draw_order, draw_sample, get_classes
from cae.errors import DataError, UsageError, shown
from cae.files import get_record

LABELS_FLAGS = {"train": "-dl", "test": "-tl"}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images, their labels if any, and the files they came from.

    Attributes:
        name: The named data set, or the name of the file of images.
        images: (num_images, height, width, channels) in the type of the file.
        labels: int64 (num_images,), any integers, `NO_LABEL` for an image without one; None if
            there are none at all.
        class_names: Names of the labels, where they have any.
        files: For the record of a run, one dict per file: `path`, `sha256`, `bytes`.
        sample: Which images of the file these are; None for all.
        paths: The file of every image, if each has its own.
        validation: int64, positions of the images that are set aside for validation; None where
            they are drawn.
        held_out: How many images are set apart for testing.
        skipped: Files that could not be read, with the reason.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    class_names: dict[int, str]
    files: tuple[dict[str, Any], ...]
    sample: "Sample | None" = None
    paths: np.ndarray | None = None
    validation: np.ndarray | None = None
    held_out: int = 0
    skipped: Mapping[str, str] = field(default_factory=dict)

    def get_name(self, label: int) -> str:
        """The name of a class; by default the label itself."""
        return self.class_names.get(label, str(label))

    @property
    def names(self) -> dict[int, str]:
        """The labels that occur, and their names."""
        labels = [] if self.labels is None else get_classes(self.labels).tolist()
        return {label: self.get_name(label) for label in labels}

    @property
    def positions(self) -> np.ndarray:
        """int64 (num_images,), the positions of the images in the file, ascending."""
        return self.sample.indices if self.sample else np.arange(len(self.images))

    @property
    def digests(self) -> list[str]:
        """SHA-256 of the files, and of the positions of the images in them."""
        digests = [file["sha256"] for file in self.files]
        return digests + ([self.sample.to_json()["indices_sha256"]] if self.sample else [])

    def take(self, chosen: np.ndarray, seed: int, changes: Sequence[str] = ()) -> "Dataset":
        """Some of the images.

        Args:
            chosen: int64, their positions, ascending.
            seed: That has drawn them.
            changes: What was done to the images since they were loaded.
        """
        if len(chosen) == len(self.images):
            return self
        validation = None
        if self.validation is not None and np.isin(self.validation, chosen).any():
            validation = np.flatnonzero(np.isin(chosen, self.validation))
        return replace(
            self,
            images=pictures.take(self.images, chosen, " ".join([*self.digests, *changes])),
            labels=None if self.labels is None else self.labels[chosen],
            sample=Sample(seed, chosen if self.sample is None else self.sample.indices[chosen]),
            paths=None if self.paths is None else self.paths[chosen],
            validation=validation,
        )

    def name_images(self, chosen: np.ndarray) -> list[str]:
        """The file of each chosen image, or its position in the file that holds all."""
        if self.paths is not None:
            return list(map(str, self.paths[chosen]))
        return [f"image {position}" for position in self.positions[chosen]]

    def numbered_like(self, class_names: Mapping[int, str]) -> "Dataset":
        """The same classes with the labels that they have elsewhere; see `number_like`."""
        if self.labels is None:
            return self
        labels, names = number_like(class_names, self.labels, self.class_names)
        return replace(self, labels=labels, class_names=names)


@dataclass(frozen=True, eq=False)
class Sample:
    """Images that have been chosen from a file: by a seed, or for training or testing.

    Attributes:
        seed: The seed.
        indices: int64 (num_images,), their positions in the file, sorted.
    """

    seed: int
    indices: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """The seed, and the SHA-256 of the indices as little-endian int64."""
        digest = hashlib.sha256(self.indices.astype("<i8").tobytes()).hexdigest()
        return {"seed": self.seed, "indices_sha256": digest}


@dataclass(frozen=True)
class Scaling:
    """The scaling of pixels to float32 in [0, 1]: (pixel - offset) / scale, clipped.

    Attributes:
        offset: Pixel value that is scaled to 0.
        scale: Difference between the pixel values that are scaled to 1 and to 0.
        dtype: Type of the training images, e.g. `uint8`.
    """

    offset: float
    scale: float
    dtype: str

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Scales images of any shape to float32 in [0, 1]."""
        # float32 holds 8 and 16 bit integers exactly; wider types need float64 in between.
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
    reading: Reading = Reading(),  # noqa: B008 - it is immutable
) -> tuple[int, tuple[int, int, int]]:
    """Checks a data set by the headers of its files; downloads or makes a named one first.

    Pictures are decoded, because their number and shape are known only then.

    Args:
        images: Path of an idx or `.npy` file of images or of a source, or a name from
            `NAMED_DATASETS`. A file with such a name can be given as `./mnist`.
        labels: Path of an idx or `.npy` file of labels, or such a name; by default those of a named
            data set or source.
        split: The part of a named data set or source, and of the flags that errors name.
        labels_required: Whether images without labels are an error.
        reading: How a source is read.

    Returns:
        The number of images and their shape (height, width, channels).

    Raises:
        DataError: A file or named data set cannot be used, or images and labels differ in number.
        UsageError: Labels are required but missing.
    """
    if is_source(images):
        _refuse_labels(images, labels)
        contents, rows = read_source(images, split, reading)
        if labels_required and contents.labels is None:
            raise _get_unlabelled_error(images)
        return len(rows), contents.images.shape[1:]
    images_path, labels_path = _find_files(images, labels, split, labels_required)
    header = _reader(images_path).read_images_header(images_path)
    num_images, height, width, *channels = header.shape
    if labels_path is not None:
        num_labels = _reader(labels_path).read_labels_header(labels_path).shape[0]
        if num_labels != num_images:
            raise DataError(
                labels_path,
                f"must contain {num_images} labels, one per image in {images_path}",
                f"{num_labels} labels",
                idx.advise_on_counts(num_labels, header.shape),
            )
    return num_images, (height, width, *(channels or [1]))


def load_dataset(
    images: str,
    labels: str | None = None,
    *,
    split: Split = "train",
    limit: int | None = None,
    seed: int = 0,
    labels_required: bool = False,
    reading: Reading = Reading(),  # noqa: B008 - it is immutable
) -> Dataset:
    """Loads images and labels, and verifies the checksums of a named data set.

    Args:
        images: As for `check_dataset`.
        labels: As for `check_dataset`.
        split: As for `check_dataset`.
        limit: Load only so many images, drawn by `draw_sample`; all if there are no more.
        seed: Seed of the draw.
        labels_required: As for `check_dataset`.
        reading: As for `check_dataset`.

    Raises:
        DataError: As for `check_dataset`, or the values of a file cannot be used, or a test image
            has no label.
        UsageError: As for `check_dataset`, or `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise UsageError("--limit", "must be at least 1", limit, "Leave it out to read everything.")
    check_dataset(images, labels, split=split, labels_required=labels_required, reading=reading)
    if is_source(images):
        data = _load_source(images, split, limit, seed, reading)
    else:
        data = _load_files(images, labels, split, limit, seed, reading)
    missing = 0 if data.labels is None else np.sum(data.labels == NO_LABEL)
    if split == "test" and missing:
        raise DataError(
            labels or images,
            "must contain the labels of all test images",
            f"{missing:,} of {len(data.labels):,} without one",
            "Label these images, or leave them out.",
        )
    return data


def _load_files(
    images: str, labels: str | None, split: Split, limit: int | None, seed: int, reading: Reading
) -> Dataset:
    images_path, labels_path = _find_files(images, labels, split, labels_required=False)
    owner = verify_file(images, images_path)
    if labels_path is not None:
        other = verify_file(labels or images, labels_path)
        if owner and other and owner != other:
            raise DataError(
                labels_path,
                f"must contain the labels of {owner}, to which the images belong",
                f"those of {other}",
                "Use images and labels that belong together.",
            )
    values, names = (None, {}) if labels_path is None else read_labels(labels_path)
    class_names = _name_classes(names, values, NAMED_DATASETS.get(labels or images), split, reading)
    num_images = _reader(images_path).read_images_header(images_path).shape[0]
    sample = None
    if limit and limit < num_images:
        sample = Sample(seed, draw_sample(num_images, limit, seed, values))
        values = None if values is None else values[sample.indices]
    with terminal.announcing(f"Reading {images_path}"):
        return Dataset(
            name=images if images in NAMED_DATASETS else images_path.name,
            images=_reader(images_path).read_images(images_path, sample and sample.indices),
            labels=values,
            class_names=class_names,
            files=tuple(get_record(path) for path in (images_path, labels_path) if path),
            sample=sample,
        )


def _load_source(
    name: str, split: Split, limit: int | None, seed: int, reading: Reading
) -> Dataset:
    contents, rows = read_source(name, split, reading)
    num_images, num_validation = len(contents.images), contents.num_validation
    held_out = num_images - len(rows) if split == "train" else 0
    labels = None if contents.labels is None else contents.labels[rows]
    if limit and limit < len(rows):
        rows = rows[draw_sample(len(rows), limit, seed, labels)]
    return Dataset(
        name=Path(name).resolve().name,
        images=contents.images,
        labels=contents.labels,
        class_names=_name_classes(contents.class_names, labels, None, split, reading),
        files=(contents.record,),
        paths=contents.paths,
        validation=np.arange(num_images)[-num_validation:] if num_validation else None,
        held_out=held_out,
        skipped=contents.skipped,
    ).take(rows, seed)


def divide(
    data: Dataset, labels_per_class: int | None, seed: int, changes: Sequence[str] = ()
) -> tuple[Dataset, Dataset | None]:
    """Divides images into those whose labels are used and the others, if there are any.

    Args:
        data: With labels.
        labels_per_class: Use the labels of so many images of each class, the first in `draw_order`;
            None: of all. Those for validation are drawn among them.
        seed: Of the draw.
        changes: As for `Dataset.take`.

    Raises:
        UsageError: A class has fewer labels.
    """
    known = np.flatnonzero(data.labels != NO_LABEL)
    if labels_per_class:
        labels = data.labels[known]
        classes, counts = np.unique(labels, return_counts=True)
        if labels_per_class > counts.min():
            raise UsageError(
                "--labels-per-class",
                f"must be at most {counts.min()}, the number of labels of the smallest class "
                f"({data.get_name(classes[counts.argmin()])})",
                labels_per_class,
                "Use fewer.",
            )
        order = draw_order(labels, seed)
        known = np.sort(known[order[: labels_per_class * len(classes)]])
        data = replace(data, validation=None)
    others = np.setdiff1d(np.arange(len(data.images)), known)
    if not len(others):
        return data, None
    unlabelled = replace(data, labels=None, class_names={}, validation=None)
    return data.take(known, seed, changes), unlabelled.take(others, seed, changes)


def join(first: Dataset, unlabelled: Dataset, changes: Sequence[str]) -> Dataset:
    """The images of two sets of the same shape; those of the second have no labels.

    `changes` are those of `Dataset.take`.
    """
    labels = first.labels
    if labels is not None:
        labels = np.append(labels, np.full(len(unlabelled.images), NO_LABEL))
    key = " ".join([*first.digests, *unlabelled.digests, *changes])
    names, more = (one.name_images(np.arange(len(one.images))) for one in (first, unlabelled))
    return replace(
        first,
        images=pictures.join(first.images, unlabelled.images, key),
        labels=labels,
        files=(*first.files, *unlabelled.files),
        paths=np.array([*names, *(f"{unlabelled.name}: {name}" for name in more)], object),
        skipped={**first.skipped, **unlabelled.skipped},
    )


def _reader(path: Path) -> ModuleType:
    return arrays if path.suffix.lower() == ".npy" else idx


def read_labels(path: str | Path) -> tuple[np.ndarray, dict[int, str]]:
    """The labels in an idx or `.npy` file, int64 (num_images,), and the names of text labels."""
    path = Path(path)
    return arrays.read_labels(path) if _reader(path) is arrays else (idx.read_labels(path), {})


def _name_classes(
    own: dict[int, str],
    labels: np.ndarray | None,
    named: NamedDataset | None,
    split: Split,
    reading: Reading,
) -> dict[int, str]:
    """The names of labels: their own, those of --class-names, or those of a named data set.

    --class-names names those of the training images.

    Raises:
        UsageError: --class-names is given for classes that have names, or names too few or many.
    """
    own = own or (dict(enumerate(named.class_names)) if named else {})
    if reading.class_names is None or labels is None or split == "test":
        return own
    if own:
        required = "requires labels that are numbers, as in idx and NumPy files"
        found = f"classes with names: {shown(', '.join(own.values()))}"
        raise UsageError("--class-names", required, found, "Leave it out.")
    classes = get_classes(labels).tolist()
    names = read_names(reading.class_names)
    if len(names) != len(classes):
        raise UsageError(
            "--class-names",
            f"must name {len(classes)} classes, in ascending order of their labels",
            f"{len(names)} names",
            "Pass as many names as there are classes.",
        )
    return dict(zip(classes, names, strict=True))


def _refuse_labels(images: str, labels: str | None) -> None:
    if labels is not None:
        raise UsageError(
            labels, "must be left out", None, f"The labels of these images are in {images}."
        )


def _get_unlabelled_error(images: str) -> DataError:
    return DataError(
        images,
        "must contain images with labels",
        "images without",
        "Use a folder with one subfolder per class, or a table with the columns path and label.",
    )


def get_scaling(*parts: np.ndarray) -> Scaling:
    """Chooses the scaling by the type of the first part and the range of all training images.

    Pixels within [0, 1] stay as they are, integers from 0 to 255 are divided by 255, and anything
    else is scaled from its own minimum and maximum to [0, 1].
    """
    dtype = parts[0].dtype
    low, high = float(min(map(np.min, parts))), float(max(map(np.max, parts)))
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif dtype.kind != "f" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    return Scaling(offset=low, scale=high - low or 1.0, dtype=dtype.name)


def _find_files(
    images: str, labels: str | None, split: Split, labels_required: bool
) -> tuple[Path, Path | None]:
    """The paths of the images and of the labels, if any."""
    if labels is None and images in NAMED_DATASETS:
        labels = images
    images_path = _find_file(images, split, "images")
    if labels is None and labels_required:
        _reader(images_path).read_images_header(images_path)  # a missing file is said first
        raise UsageError(
            LABELS_FLAGS[split],
            f"must give the labels of the images in {images}",
            "nothing",
            f"Add {LABELS_FLAGS[split]} FILE, or use a data set: {', '.join(NAMED_DATASETS)}.",
        )
    return images_path, None if labels is None else _find_file(labels, split, "labels")


def _find_file(given: str, split: Split, role: Role) -> Path:
    """The path that is given, or the file of the named data set."""
    if given in NAMED_DATASETS:
        return find_named_file(given, split, role)
    path = Path(given)
    nearest = difflib.get_close_matches(str(given).lower(), NAMED_DATASETS, n=1)
    if nearest and not path.exists():
        raise DataError(
            given,
            f"must be a file or one of {', '.join(NAMED_DATASETS)}",
            "no file of that name",
            f"Did you mean {nearest[0]}?",
        )
    return path
