"""Splits: validation images, class-balanced subsets, labels as class indices, exact duplicates.

Images are compared by a hash of their pixel values, so their type does not matter: 1 equals 1.0.
"""

import hashlib
import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeVar

import numpy as np

from cae import terminal
from cae.data.labels import NO_LABEL
from cae.errors import DataError
from cae.files import write_text

Items = TypeVar("Items")  # a sequence or an array

NO_CLASS = -1  # the class index of an image without a label, or of an unknown one
IMBALANCE = 3
# Length of a BLAKE2b hash: 64 bits are integers that NumPy compares fast. That any two of a million
# different images collide has a probability of 3e-8.
HASH_BYTES = 8
IMAGES_AT_ONCE = 1024
SHOWN_INDICES = 5


def split_validation(
    num_images: int,
    share: float,
    seed: int,
    labels: np.ndarray | None = None,
    given: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits the training images into images to train on and images to validate on.

    With labels the split is stratified: every class gives its share, rounded so that the total is
    as close to `share * num_images` as possible. Every class keeps an image to train on. Where no
    class has a second image, there are none to validate on.

    Args:
        num_images: Number of training images.
        share: Share of them to validate on, in [0, 1).
        seed: Seed of the draw.
        labels: int64 (num_images,), for a stratified split.
        given: Indices to validate on, instead of a draw.

    Returns:
        Indices to train on and to validate on: int64, sorted, disjoint, together all images.
    """
    if given is not None:
        return np.setdiff1d(np.arange(num_images), given), given
    classes = np.zeros(num_images, np.int64) if labels is None else labels
    _, class_of, counts = np.unique(classes, return_inverse=True, return_counts=True)
    quotas = share * counts
    most = np.minimum(np.ceil(quotas), counts - 1)
    total = min(max(round(quotas.sum()), 1), most.sum())
    validation = _draw(class_of, _round(quotas, total, 0, most), seed)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def split_test(hashes: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Sets test images apart, of every class its share; equal images stay together.

    The hashes decide, so that an autoencoder and all its classifiers, whatever their seeds, leave
    the same images for the test. Every class keeps an image to train on.

    Args:
        hashes: uint64 (num_images,) from `hash_images`.
        labels: int64 (num_images,).
        share: Of every class, in [0, 1).

    Returns:
        bool (num_images,), True for test images.
    """
    # Groups of equal images, in the order of their hashes; each belongs to the class of its first.
    _, first, group_of, sizes = np.unique(
        hashes, return_index=True, return_inverse=True, return_counts=True
    )
    class_of = labels[first]
    is_test = np.zeros(len(first), bool)
    for label in np.unique(class_of):
        groups = np.flatnonzero(class_of == label)
        so_far = np.cumsum(sizes[groups])
        most = round(share * so_far[-1])
        is_test[groups[:-1]] = so_far[:-1] <= most
    return is_test[group_of]


def draw_sample(
    num_images: int, count: int, seed: int, labels: np.ndarray | None = None
) -> np.ndarray:
    """Draws images at random; with labels every class gives its share, at least one if possible.

    Args:
        num_images: How many there are.
        count: How many to draw, from 1 to `num_images`.
        seed: Seed of the draw.
        labels: int64 (num_images,), for a stratified sample.

    Returns:
        Their indices: int64 (count,), sorted.
    """
    classes = np.zeros(num_images, np.int64) if labels is None else labels
    _, class_of, counts = np.unique(classes, return_inverse=True, return_counts=True)
    least = int(count >= len(counts))
    taken = _round(count * counts / num_images, count, least, counts)
    return np.flatnonzero(_draw(class_of, taken, seed))


def spread_out(items: Items, most: int) -> Items:
    """At most so many of the items, evenly spaced: data may be sorted."""
    return items[:: max(1, -(-len(items) // most))]


def get_classes(labels: np.ndarray) -> np.ndarray:
    """The classes among training labels: int64, sorted, each once."""
    classes = np.unique(labels).astype(np.int64)
    return classes[classes != NO_LABEL]


def is_imbalanced(labels: np.ndarray) -> bool:
    """Whether the largest class has more than `IMBALANCE` times the images of the smallest."""
    _, counts = np.unique(labels, return_counts=True)
    return bool(counts.max() > IMBALANCE * counts.min())


def encode_labels(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Converts labels to indices of classes.

    Args:
        labels: Integers (num_images,).
        classes: The classes of the training labels, from `get_classes`.

    Returns:
        int32 (num_images,): positions in `classes`; `NO_CLASS` for a label that is not among them.
    """
    indices = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    return np.where(classes[indices] == labels, indices, NO_CLASS).astype(np.int32)


def _round(quotas: np.ndarray, total: int, low: int, high: np.ndarray) -> np.ndarray:
    """Whole numbers in [low, high] that sum to `total`, by the method of largest remainders."""
    rounded = np.clip(np.floor(quotas), low, high).astype(np.int64)
    while step := np.sign(total - rounded.sum()):
        allowed = rounded < high if step > 0 else rounded > low
        rounded[np.where(allowed, step * (quotas - rounded), -np.inf).argmax()] += step
    return rounded


def _draw(class_of: np.ndarray, counts: np.ndarray, seed: int) -> np.ndarray:
    """Draws images, `counts` of each class: bool (num_images,)."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros(len(class_of), bool)
    for index, count in enumerate(counts):
        drawn[rng.permutation(np.flatnonzero(class_of == index))[:count]] = True
    return drawn


def draw_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Puts labelled images in a random order, one of every class in turn.

    Args:
        labels: int64 (num_images,), any integers.
        seed: Seed of the draw.

    Returns:
        int64 (num_images,): every position once; a class without images left skips its turn.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, class_of = np.unique(labels[shuffled], return_inverse=True)
    turn = np.empty(len(labels), np.int64)
    for index in range(class_of.max() + 1):
        members = np.flatnonzero(class_of == index)
        turn[members] = np.arange(len(members))
    return shuffled[np.lexsort((class_of, turn))]


def keep_order(path: Path, labels: np.ndarray, seed: int, data_sha256: str) -> np.ndarray:
    """Reads an order from a file, or draws one and writes the file.

    Args:
        path: JSON file of the order.
        labels: As for `draw_order`.
        seed: As for `draw_order`.
        data_sha256: Hash of the images and labels that the order belongs to.

    Raises:
        DataError: The file is damaged, or belongs to other data.
        UsageError: The file cannot be written.
    """
    if not path.exists():
        order = draw_order(labels, seed)
        document = _describe(order, seed, data_sha256) | {"order": order.tolist()}
        write_text(path, json.dumps(document))
        return order
    try:
        document = json.loads(path.read_bytes())
        order = np.array(document.pop("order"), np.int64)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        document, order = None, np.empty(0, np.int64)
    if document != _describe(order, seed, data_sha256) or len(order) != len(labels):
        raise DataError(
            path,
            f"must contain the order drawn from these images and labels with seed {seed}",
            "a damaged file" if document is None else "the order of other data",
            "Restore the file, or start again with another --name.",
        )
    return order


def _describe(order: np.ndarray, seed: int, data_sha256: str) -> dict[str, int | str]:
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    return {"seed": seed, "data_sha256": data_sha256, "order_sha256": digest}


# --- Exact duplicates ----------------------------------------------------------------------


@dataclass(frozen=True)
class Overlap:
    """Images of one set that also occur in another.

    Attributes:
        first: Name of the other set.
        second: Name of this set.
        indices: int64, positions of the shared images in the second set, ascending.
    """

    first: str
    second: str
    indices: np.ndarray

    def __str__(self) -> str:
        return (
            f"{self._count()} of the {self.second} images {self._is_or_are()} also among the "
            f"{self.first} images" + f" ({self._first_indices()})" * bool(len(self.indices))
        )

    def refuse(self, where: object) -> None:
        """Raises a DataError if there are shared images.

        Args:
            where: File or data set of the second set.
        """
        if len(self.indices):
            raise DataError(
                where,
                f"the {self.second} images must not be among the {self.first} images",
                f"{self._count()} of them, {self._first_indices()}",
                "Remove them, or add --allow-leakage to measure anyway.",
            )

    def _is_or_are(self) -> str:
        return "is" if len(self.indices) == 1 else "are"

    def _count(self) -> str:
        return f"{len(self.indices):,}" if len(self.indices) else "none"

    def _first_indices(self) -> str:
        shown = ", ".join(map(str, self.indices[:SHOWN_INDICES]))
        more = ", …" * (len(self.indices) > SHOWN_INDICES)
        return f"number{'s' * (len(self.indices) > 1)} {shown}{more}"


def hash_images(images: np.ndarray) -> np.ndarray:
    """Hashes every image; memory is needed for `IMAGES_AT_ONCE` of them.

    Args:
        images: (num_images, height, width, channels) in any dtype.

    Returns:
        uint64 (num_images,): equal for images with equal pixel values.
    """
    hashes = np.empty(len(images), np.uint64)
    with terminal.announcing(f"Comparing {len(images):,} images"):
        for start in range(0, len(images), IMAGES_AT_ONCE):
            chunk = np.asarray(images[start : start + IMAGES_AT_ONCE], np.float64)
            rows = (chunk + 0.0).reshape(len(chunk), -1)  # -0.0 and 0.0 are the same black
            digests = (hashlib.blake2b(row, digest_size=HASH_BYTES).digest() for row in rows)
            hashes[start : start + len(chunk)] = np.frombuffer(b"".join(digests), np.uint64)
    return hashes


def find_overlaps(hashes: dict[str, np.ndarray]) -> list[Overlap]:
    """The images that each pair of sets shares.

    Args:
        hashes: Name of a set -> its hashes; the later set of a pair is the `second`.
    """
    return [
        Overlap(first, second, np.flatnonzero(np.isin(hashes[second], hashes[first])))
        for first, second in combinations(hashes, 2)
    ]


def find_repeats(hashes: np.ndarray) -> np.ndarray:
    """Positions of the images that occurred before in the same set: int64, ascending."""
    first_occurrences = np.unique(hashes, return_index=True)[1]
    return np.setdiff1d(np.arange(len(hashes)), first_occurrences)
