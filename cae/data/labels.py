"""Labels as whole numbers, whatever form a converter gave them.

QMNIST's columns: C. Yadav and L. Bottou, "Cold case: the lost MNIST digits", arXiv:1905.10498.
"""

import itertools
from collections.abc import Mapping
from functools import cache

import numpy as np

from cae import terminal
from cae.data.stored import check_byte_order
from cae.errors import DataError

NO_LABEL = np.iinfo(np.int64).min  # the label of an image without one
QMNIST_COLUMNS = 8  # class, NIST series, writer, and five more


def as_labels(where: object, values: np.ndarray) -> np.ndarray:
    """Extracts the classes from labels; a line reports a form other than integers (N,), and any -1.

    As in scikit-learn, -1 marks images without a label, but only if it is the only negative label
    beside at least two others: data of the classes -1 and 1 stay as they are.

    Args:
        where: What to call the labels, such as the path of their file.
        values: Integers or whole floats (N,) or (N, 1); one-hot rows or probabilities
            (N, num_classes), of which the largest counts; or QMNIST's integers (N, 8), of which the
            first counts.

    Returns:
        Labels int64 (N,), `NO_LABEL` for images without one.

    Raises:
        DataError: They are none of these.
    """
    if values.ndim == 2:
        values = _take_classes(where, values)
    check_byte_order(where, values)
    if values.dtype.kind == "f":
        _check_whole(where, values)
        _say(f"{where}: {values.dtype.name} labels, all of them whole numbers")
    return _mark_unlabelled(where, values.astype(np.int64))


def number_like(
    class_names: Mapping[int, str], labels: np.ndarray, names: Mapping[int, str]
) -> tuple[np.ndarray, dict[int, str]]:
    """Labels with the numbers that classes have elsewhere, by their names.

    Labels without names stay as they are, unless more of them are names of classes there than
    numbers of such: 7 is then the class "7", whatever its number. So do images without a label.

    Args:
        class_names: The names elsewhere, by their labels there.
        labels: int64 (num_images,).
        names: The names of the labels, if they have any.

    Returns:
        The labels, and their names; a class that is not known elsewhere has a new label.
    """
    if not names:
        names = {label: str(label) for label in np.unique(labels[labels != NO_LABEL]).tolist()}
        by_name = set(names.values()) & set(class_names.values())
        by_number = names.keys() & class_names.keys()
        are_names = len(by_name) == len(names) or len(by_name) > len(by_number)
        if not are_names or names.items() <= class_names.items():
            return labels, {}
        _say(f"The labels {min(names)} to {max(names)} are matched to the classes by name")
    known = {name: label for label, name in class_names.items()}
    new = itertools.count(max(class_names, default=-1) + 1)
    number = {label: known[name] if name in known else next(new) for label, name in names.items()}
    renumbered = [number.get(label, NO_LABEL) for label in labels.tolist()]
    return np.array(renumbered, np.int64), {number[label]: name for label, name in names.items()}


def is_one_hot(rows: np.ndarray) -> bool:
    """Whether every row is one-hot, or probabilities: at least 0, and 1 in all."""
    if rows.shape[1] < 2 or not (rows >= 0).all():
        return False
    return np.allclose(rows.sum(axis=1, dtype=np.float64), 1, atol=1e-3)


def is_qmnist(rows: np.ndarray) -> bool:
    """Whether the rows look like QMNIST's labels."""
    return rows.shape[1] == QMNIST_COLUMNS and rows.dtype.kind == "i" and rows.itemsize == 4


def _take_classes(where: object, rows: np.ndarray) -> np.ndarray:
    """The labels in values of rank 2."""
    shape = f"rank 2, {len(rows)} x {rows.shape[1]} {rows.dtype.name}"
    if rows.shape[1] == 1:
        _say(f"{where}: labels in one column ({shape})")
        return rows[:, 0]
    if is_one_hot(rows):
        _say(f"{where}: one-hot labels ({shape}); the class is the position of the largest number")
        return rows.argmax(axis=1)
    if is_qmnist(rows):
        _say(f"{where}: labels of QMNIST ({shape}); the class is the first number")
        return rows[:, 0]
    raise DataError(
        where,
        "must contain labels: one whole number per image, or a one-hot row that sums to 1",
        f"other rows, as of flattened images ({shape})",
        "Pass the file of labels here and the images with their own flag.",
    )


def _check_whole(where: object, values: np.ndarray) -> None:
    with np.errstate(invalid="ignore"):
        exact = values.astype(np.float64)
        is_whole = exact == np.rint(exact)
    is_whole &= np.abs(exact) < 2**53  # floats are exact up to here; not NaN either
    if not is_whole.all():
        first = int(np.argmin(is_whole))
        raise DataError(
            where,
            "must contain whole numbers as labels",
            f"{values[first]:g} ({values.dtype.name}) for image {first} (counted from 0)",
            "Number the classes and write the labels as integers.",
        )


def _mark_unlabelled(where: object, labels: np.ndarray) -> np.ndarray:
    classes = np.unique(labels)
    if len(classes) < 2 or classes[0] != -1:
        return labels
    if len(classes) == 2:
        _say(f"{where}: -1 is treated as a class, because {classes[1]} is the only other label")
        return labels
    is_marked = labels == -1
    _say(
        f"{where}: {is_marked.sum():,} of {len(labels):,} images have no label (-1); if "
        "-1 is a class, number the classes from 0"
    )
    return np.where(is_marked, NO_LABEL, labels)


@cache  # once, however often the file is read
def _say(sentence: str) -> None:
    terminal.print_sentence(terminal.ERR, f"{sentence}.")
