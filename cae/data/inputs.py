"""Images to ask a model about, part by part: pictures, folders of them, arrays, standard input.

What cannot be read is reported and left out.
"""

import io
import os
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from cae.config.shapes import format_shape
from cae.data import appearance, arrays, idx
from cae.data.datasets import Scaling
from cae.data.listing import TABLES, is_ignored, is_picture
from cae.data.pictures import Form, decode_ahead
from cae.data.splits import spread_out
from cae.data.stored import GZIP_MAGIC
from cae.errors import DataError, Say, counted, printable

STANDARD_INPUT = "-"
PART = 1024  # images
BYTES = Scaling(0.0, 255.0, "uint8")  # of decoded pictures
UNIT = Scaling(0.0, 1.0, "float32")  # of images that are scaled already
INSPECTED = 2000  # images of an array, to recognize the range of its pixels

OTHERS = (*TABLES, ".npz")  # which training takes
GIVE_IMAGES = "Use its pictures, or its images as .npy, or test it with predict.py evaluate."

T = TypeVar("T")
Picture = str | BinaryIO
Report = Callable[[DataError], object]


class Part(NamedTuple):
    """Some images in their order.

    Attributes:
        names: The file of each, with its index if the file holds several.
        numbers: Their positions among all images, those that could not be read included.
        images: float32 (num_images, height, width, channels) in [0, 1].
    """

    names: list[str]
    numbers: list[int]
    images: np.ndarray

    @property
    def folders(self) -> list[str]:
        """The name of the folder of each file, as training calls classes.

        It takes a tenth of the time that pathlib takes.
        """
        names = [os.path.basename(os.path.dirname(name)) for name in self.names]  # noqa: PTH119, PTH120
        folders = {name: printable(unicodedata.normalize("NFC", name)) for name in set(names)}
        return [folders[name] for name in names]


@dataclass(frozen=True)
class Expected:
    """The images that a model takes.

    Attributes:
        form: What pictures are brought to.
        scaling: Brings the training images to [0, 1].
        looks: How the training images look, from `appearance.describe`; None if not known.
    """

    form: Form
    scaling: Scaling
    looks: dict[str, Any] | None = None


class _Array(NamedTuple):
    name: str
    images: np.ndarray


def read_alike(
    inputs: Iterable[str],
    expected: Expected,
    *,
    invert: str | None = None,
    transpose: bool = False,
    report: Report,
    say: Say,
    warn: Say,
) -> Iterator[Part]:
    """Reads images as `read_parts`, and makes them look like those of training.

    Args:
        inputs: As for `read_parts`.
        expected: What the model takes.
        invert: `always`, or `auto`: if the first images look like inverted training images.
        transpose: Whether to swap the rows and columns of all images.
        report: Receives the error of each file that cannot be used.
        say: Receives a sentence if images are inverted or rescaled.
        warn: Receives a sentence if images look unlike those of training as a whole.

    Raises:
        DataError: There is no picture and no array.
    """
    form = expected.form
    if transpose:
        form = replace(form, height=form.width, width=form.height)
    is_inverted = None
    for part in read_parts(inputs, form, expected.scaling, report, say):
        images = appearance.transpose(part.images) if transpose else part.images
        if is_inverted is None:
            flag = "leave out --transpose" if transpose else "add --transpose"
            remedies = {appearance.INVERTED: "use --invert auto", appearance.TRANSPOSED: flag}
            is_inverted = _choose_inversion(images, expected.looks, invert, remedies, say, warn)
        yield part._replace(images=1 - images if is_inverted else images)


def _choose_inversion(
    images: np.ndarray,
    looks: dict[str, Any] | None,
    invert: str | None,
    remedies: dict[str, str],
    say: Say,
    warn: Say,
) -> bool:
    """Whether to invert all images; judged by the first ones."""
    if invert == "always":
        return True
    if invert == "auto" and looks is None:
        warn(
            "--invert auto: the model does not record how its training images look, so nothing is "
            "inverted. To invert all images, use --invert always."
        )
    causes = appearance.compare(looks, images, UNIT)
    is_inverted = invert == "auto" and causes.pop(appearance.INVERTED, None) is not None
    if is_inverted:
        say("The images are inverted: unlike the training images, they look dark on light.")
    if causes:
        warn(appearance.advise("The images", causes, appearance.REMEDIES | remedies))
    return is_inverted


def read_parts(
    inputs: Iterable[str],
    form: Form,
    scaling: Scaling,
    report: Report,
    say: Say,
) -> Iterator[Part]:
    """Reads images as a model takes them, in order, while the model works on those before.

    Args:
        inputs: Pictures, folders (searched with their subfolders), idx and `.npy` files; `-` is
            standard input, which holds such paths, one per line, or one picture.
        form: What pictures are brought to; arrays must have its height and width.
        scaling: Brings the training images to [0, 1]; arrays of another range are recognized.
        report: Receives the error of each file that cannot be used.
        say: Receives a sentence on arrays of another range, and on other files in a folder.

    Raises:
        DataError: There is no picture and no array.
    """
    numbers, inputs = count(), list(inputs)
    reported: list[DataError] = []

    def note(error: DataError) -> None:
        reported.append(error)
        report(error)

    found = _find(inputs, form, note, say)
    for is_array, alike in groupby(found, lambda x: isinstance(x, _Array)):
        if is_array:
            for array in alike:
                yield from _read_array(array, form, scaling, numbers, note, say)
        else:
            yield from _read_pictures(alike, form, numbers, note)
    if next(numbers) == 0 and not reported:
        remedy = "Use pictures, folders of them, idx or .npy files."
        raise DataError(", ".join(inputs), "must contain an image", "none", remedy)


def find_shape(inputs: Iterable[str]) -> tuple[int, ...] | None:
    """(height, width, channels) of the first images, if an idx or `.npy` file holds them."""
    path = Path(next(iter(inputs)))
    try:
        if path.suffix.lower() == ".npy":
            return _read_npy(path).shape[1:]
        return (*idx.read_images_header(path).shape[1:], 1)[:3] if _is_idx(path) else None
    except DataError:
        return None  # whoever reads the images says why


def _read_array(
    array: _Array, form: Form, scaling: Scaling, numbers: Iterator[int], report: Report, say: Say
) -> Iterator[Part]:
    try:
        own = appearance.match_scaling(
            scaling, spread_out(array.images, INSPECTED), array.name, say
        )
    except DataError as error:
        report(error)
        return
    for start in range(0, len(array.images), PART):
        images = array.images[start : start + PART]
        images = appearance.match_channels(form.channels, images, array.name, say)
        say = _ignore  # once is enough
        names = [f"{array.name}[{start + index}]" for index in range(len(images))]
        yield Part(names, list(islice(numbers, len(images))), own.apply(images))


def _read_pictures(
    pictures: Iterable[Picture], form: Form, numbers: Iterator[int], report: Report
) -> Iterator[Part]:
    pictures = iter(pictures)
    if form.channels not in (1, 3) and (first := next(pictures, None)) is not None:
        required = f"must contain {form.channels} channels, as the model takes"
        name = first if isinstance(first, str) else STANDARD_INPUT
        report(DataError(name, required, "a picture, gray or RGB", "Use a .npy file."))
        return
    decoded = decode_ahead(_divide(pictures), form)
    for part in _divide(zip(decoded, numbers, strict=False)):  # numbers never end
        kept = []
        for (file, image), number in part:
            if isinstance(image, DataError):
                report(image)
            else:
                kept.append((file if isinstance(file, str) else STANDARD_INPUT, number, image))
        if kept:
            names, kept_numbers, images = map(list, zip(*kept, strict=True))
            yield Part(names, kept_numbers, BYTES.apply(np.stack(images)))


def _find(
    inputs: Iterable[str], form: Form, report: Report, say: Say
) -> Iterator[Picture | _Array]:
    for given in inputs:
        try:
            if given == STANDARD_INPUT:
                yield from _read_standard_input(form, report, say)
            elif os.path.isdir(given):  # noqa: PTH112 - as below, where there are many files
                yield from _find_pictures(Path(given), report, say)
            elif is_picture(given):  # of which there may be many: pathlib only shortens names
                yield str(Path(given)) if "./" in given or "//" in given else given
            elif given.lower().endswith(".npy"):
                yield _Array(given, _check_size(given, _read_npy(Path(given), form), form))
            elif _is_idx(Path(given)):
                yield _Array(given, _check_size(given, idx.read_images(given), form))
            elif given.lower().endswith(OTHERS):
                required = "must be a picture, a folder of them, an idx or a .npy file"
                report(DataError(given, required, "a table or an archive", GIVE_IMAGES))
            else:
                yield given
        except DataError as error:
            report(error)


def _read_standard_input(form: Form, report: Report, say: Say) -> Iterator[Picture | _Array]:
    file = sys.stdin.buffer
    start = file.peek(PART)
    if b"\0" in start or re.match(rb"P[1-6]\s", start):  # in every picture, in no path
        yield io.BytesIO(file.read())
        return
    lines = (os.fsdecode(line.strip()) for line in file)
    yield from _find(filter(None, lines), form, report, say)


def _find_pictures(folder: Path, report: Report, say: Say) -> Iterator[str]:
    """The files in a folder that have the name of a picture, as in training; links are followed."""

    def skip(error: OSError) -> None:
        remedy = "Check its permissions."
        report(DataError(error.filename, "must be a readable folder", error.strerror, remedy))

    others = 0
    searched = {os.path.realpath(folder)}  # a link may lead back
    for parent, folders, files in os.walk(folder, onerror=skip, followlinks=True):
        real = {name: os.path.realpath(Path(parent, name)) for name in folders}
        folders[:] = sorted(n for n in folders if not is_ignored(n) and real[n] not in searched)
        searched.update(real[name] for name in folders)
        names = [name for name in sorted(files) if not is_ignored(name)]
        start = "" if parent == os.curdir else f"{Path(parent)}{os.sep}"
        yield from (f"{start}{name}" for name in names if is_picture(name))
        others += sum(not is_picture(name) for name in names)
    if others:
        say(f"{folder}: skipped {counted(others, 'other file')}, not named like pictures.")


def _read_npy(path: Path, form: Form | None = None) -> np.ndarray:
    """(num_images, height, width, channels); an array of fewer dimensions may be one image."""
    images = arrays.open_array(path)
    if images.ndim == 2 or (form and images.shape == form.shape):
        images = images[np.newaxis]
    return arrays.as_images(path, images)


def _is_idx(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError:
        return False  # `decode` says why
    return start.startswith(GZIP_MAGIC) or (start[:2] == b"\0\0" and start[2:3] >= b"\x08")


def _check_size(name: str, images: np.ndarray, form: Form) -> np.ndarray:
    channels = {images.shape[3], form.channels}
    if images.shape[1:3] != form.shape[:2] or (len(channels) > 1 and channels != {1, 3}):
        idx.check_channels_last(name, images.shape)
        raise DataError(
            name,
            f"must contain images of shape {format_shape(form.shape)}, as the model takes",
            format_shape(images.shape[1:]),
            "Add --transpose, or leave it out if it is there."
            if images.shape[2:0:-1] == form.shape[:2]
            else "Use images of that size, or pictures in files, which are resized.",
        )
    return images


def _ignore(_: str) -> None:
    """Says nothing."""


def _divide(items: Iterable[T]) -> Iterator[list[T]]:
    """Parts of at most `PART` items."""
    items = iter(items)
    return iter(lambda: list(islice(items, PART)), [])
