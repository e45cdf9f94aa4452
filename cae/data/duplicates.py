"""Exact duplicates: images that two sets share, or that one set repeats.

Images are compared by a hash of their pixel values, so their type does not matter: 1 equals 1.0.
"""

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cae.errors import DataError

# Of BLAKE2b. 64 bits are integers that NumPy compares fast; that any two of a million different
# images collide has a probability of 3e-8.
HASH_BYTES = 8
IMAGES_AT_ONCE = 1024
SHOWN_INDICES = 5


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
            f"{self._count()} of the {self.second} images also among the {self.first} images"
            + f" ({self._first_indices()})" * bool(len(self.indices))
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
                "Remove them, or add --allow-leakage to measure nevertheless.",
            )

    def _count(self) -> str:
        return f"{len(self.indices):,}" if len(self.indices) else "none"

    def _first_indices(self) -> str:
        shown = ", ".join(map(str, self.indices[:SHOWN_INDICES]))
        return f"numbers {shown}" + ", …" * (len(self.indices) > SHOWN_INDICES)


def hash_images(images: np.ndarray) -> np.ndarray:
    """Hashes every image; memory is needed for `IMAGES_AT_ONCE` of them.

    Args:
        images: (num_images, height, width, channels) in any dtype.

    Returns:
        uint64 (num_images,): equal for images with equal pixel values.
    """
    hashes = np.empty(len(images), np.uint64)
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
