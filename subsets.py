"""Nested, class-balanced subsets of labelled images, kept in files with their hashes. No Keras.

An order takes one image of every class in turn, so its first 5 × classes images are five of each
class and hold the first 2 × classes.
"""

import hashlib
import json
from pathlib import Path

import numpy as np

from errors import DataError
from idx import replace_file


def draw_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Puts labelled images in a random order, one of every class in turn.

    Args:
        labels: int64 (num_images,), any integers.
        seed: Seed of the draw.

    Returns:
        int64 (num_images,): each position once; classes that run out are left out of later turns.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    _, class_of = np.unique(labels[shuffled], return_inverse=True)
    turn = np.empty(len(labels), np.int64)
    for index in range(class_of.max() + 1):
        members = np.flatnonzero(class_of == index)
        turn[members] = np.arange(len(members))
    return shuffled[np.lexsort((class_of, turn))]


def keep_order(path: Path, labels: np.ndarray, seed: int, data_sha256: str) -> np.ndarray:
    """Reads the order that a file holds, or draws one and writes the file.

    Args:
        path: Where it lies, as JSON.
        labels: As for `draw_order`, like `seed`.
        seed: See there.
        data_sha256: Hash of the images and labels that the order belongs to.

    Raises:
        DataError: The file is damaged, or belongs to other data.
    """
    if not path.exists():
        order = draw_order(labels, seed)
        document = _describe(order, seed, data_sha256) | {"order": order.tolist()}
        with replace_file(path) as file:
            file.write(json.dumps(document).encode())
        return order
    try:
        document = json.loads(path.read_bytes())
        order = np.array(document.pop("order"), np.int64)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        document, order = None, np.empty(0, np.int64)
    if document != _describe(order, seed, data_sha256) or len(order) != len(labels):
        raise DataError(
            path,
            "must hold the order that was drawn from these images and labels",
            "another, or a damaged one",
            "Put it back, or measure anew with another --name.",
        )
    return order


def _describe(order: np.ndarray, seed: int, data_sha256: str) -> dict[str, int | str]:
    digest = hashlib.sha256(order.astype("<i8").tobytes()).hexdigest()
    return {"seed": seed, "data_sha256": data_sha256, "order_sha256": digest}
