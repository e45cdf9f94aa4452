"""Images that two sets share, which would make a test look better than it is. No Keras.

Images are compared by a hash of their pixel values, so only exact duplicates are found, whatever
integer or float type either file holds them in.
"""

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from cae.errors import DataError

# Of BLAKE2b: among a million images, two different ones have the same 64 bits with a chance of
# 3e-8, and numpy compares integers fast.
HASH_BYTES = 8
IMAGES_AT_ONCE = 1024
SHOWN_INDICES = 5


@dataclass(frozen=True)
class Overlap:
    """Images of one set that occur in another as well.

    Attributes:
        first: What the other set is called.
        second: What this set is called.
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
            where: The file or data set that the second set comes from.
        """
        if len(self.indices):
            raise DataError(
                where,
                f"the {self.second} images must not be among the {self.first} images",
                f"{self._count()} that are, {self._first_indices()}",
                "Take them out, or add --allow-leakage to measure with them.",
            )

    def _count(self) -> str:
        return f"{len(self.indices):,}" if len(self.indices) else "none"

    def _first_indices(self) -> str:
        shown = ", ".join(map(str, self.indices[:SHOWN_INDICES]))
        return f"numbers {shown}" + ", …" * (len(self.indices) > SHOWN_INDICES)


def hash_images(images: np.ndarray) -> np.ndarray:
    """Hashes every image, with memory for `IMAGES_AT_ONCE` of them.

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
    """What each two sets share.

    Args:
        hashes: From `hash_images`, by what the set is called; of two, the later one is `second`.
    """
    return [
        Overlap(first, second, np.flatnonzero(np.isin(hashes[second], hashes[first])))
        for first, second in combinations(hashes, 2)
    ]


def find_repeats(hashes: np.ndarray) -> np.ndarray:
    """int64, ascending: positions of the images that occurred before in the same set."""
    first_occurrences = np.unique(hashes, return_index=True)[1]
    return np.setdiff1d(np.arange(len(hashes)), first_occurrences)
