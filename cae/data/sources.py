"""Data sets that are one folder or file, with the labels in it: pictures, and `.npz` archives.

Test images are those of the source; if it has none, a share of every class is set apart.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from cae import terminal
from cae.config.choices import COLORS, RESIZE
from cae.data.arrays import read_npz
from cae.data.labels import NO_LABEL
from cae.data.listing import TABLES, Listing, check_names, list_pictures
from cae.data.named import NAMED_DATASETS, Split
from cae.data.pictures import decode_listing
from cae.data.splits import hash_images, split_test
from cae.errors import UsageError, printable, shown
from cae.files import get_record

CHANNELS = {"gray": 1, "rgb": 3}
TEST_SPLIT = 0.2
# Up to so many images, or bytes of an archive, are read to see whether some can be set apart.
FEW, FEW_BYTES = 1000, 1_000_000


@dataclass(frozen=True)
class Reading:
    """How images are read, as flags of these names say.

    Attributes:
        image_size: (height, width) of pictures; by default the most frequent.
        color: One of `COLORS`.
        resize: One of `RESIZE`.
        test_split: Share of every class that is set apart for testing where a source has no test
            images of its own; 0 uses all images, for training as for testing.
        class_names: Names for the labels in ascending order, separated by commas, or a text file
            with one per line.
        labelled: False reads the pictures of a folder whatever subfolders they lie in.
    """

    image_size: tuple[int, int] | None = None
    color: str = COLORS[0]
    resize: str = RESIZE[0]
    test_split: float = TEST_SPLIT
    class_names: str | None = None
    labelled: bool = True

    def like(self, shape: tuple[int, ...] | None) -> "Reading":
        """The same for pictures of (height, width, channels), unless flags say otherwise."""
        if shape is None:
            return self
        color = "gray" if shape[2] == 1 else "rgb"
        return replace(
            self,
            image_size=self.image_size or tuple(shape[:2]),
            color=self.color if self.color in CHANNELS else color,
        )


ALL_IMAGES = Reading(test_split=0.0, labelled=False)


class Contents(NamedTuple):
    """What a source holds.

    Attributes:
        images: (num_images, height, width, channels).
        labels: int64 (num_images,), `NO_LABEL` for images without one; or None.
        class_names: Names of the labels.
        record: As from `files.get_record`, of the images and labels.
        paths: The file of every image, if each has its own.
        num_validation: So many of the last images are for validation.
        skipped: Files that could not be read, with the reason.
    """

    images: np.ndarray
    labels: np.ndarray | None
    class_names: dict[int, str]
    record: dict[str, Any]
    paths: np.ndarray | None = None
    num_validation: int = 0
    skipped: Mapping[str, str] = MappingProxyType({})


def is_source(name: str) -> bool:
    """Whether this is the path of a folder, table or archive."""
    path = Path(name)
    if name in NAMED_DATASETS:
        return False
    return (bool(name) and path.is_dir()) or path.suffix.lower() in (*TABLES, ".npz")


def holds_pictures(name: str) -> bool:
    """Whether this is the path of a folder or table, whose images are decoded."""
    return is_source(name) and Path(name).suffix.lower() != ".npz"


def read_names(given: str) -> list[str]:
    """The names that --class-names gives, in a file or separated by commas.

    Raises:
        UsageError: The file cannot be read, or two names are equal.
    """
    try:
        is_file = os.path.isfile(given)  # noqa: PTH113 - False for what is too long for a name
        text = Path(given).read_text("utf-8-sig") if is_file else given.replace(",", "\n")
    except (OSError, ValueError) as error:
        raise UsageError("--class-names", "must be a text file in UTF-8", error, "") from error
    names = [printable(name.strip()) for name in text.splitlines() if name.strip()]
    check_names("--class-names", names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError("--class-names", "must differ", f"{shown(twice)} twice", "Rename one.")
    return names


def has_test(name: str, reading: Reading = Reading()) -> bool:
    """Whether a data set comes with test images, or some are set apart.

    Of more than a few images some are assumed to be, because a look would take long; `read_source`
    says why if none are.
    """
    path = Path(name)
    if not is_source(name):
        return name in NAMED_DATASETS
    if reading.test_split and not _holds_few(path, reading):
        return True
    is_archive = path.suffix.lower() == ".npz"
    parts = read_npz(path) if is_archive else list_pictures(path, labelled=reading.labelled)
    if "test" in parts or not reading.test_split:
        return "test" in parts
    contents, _ = _read(path, "train", reading)
    return bool(_choose_test(contents, reading.test_split).any())


def _holds_few(path: Path, reading: Reading) -> bool:
    if path.suffix.lower() == ".npz":
        return path.is_file() and path.stat().st_size <= FEW_BYTES
    return len(list_pictures(path, labelled=reading.labelled)["train"].files) <= FEW


def explain_no_test(name: str, reading: Reading) -> str:
    """Says why no images of a source can be set apart; empty where none were asked for."""
    contents, _ = _read(Path(name), "train", reading)
    if contents.labels is None or not reading.test_split:
        return ""
    return _describe_too_few(contents, reading.test_split)


def read_source(name: str, split: Split, reading: Reading) -> tuple[Contents, np.ndarray]:
    """Reads the images of a source.

    Returns:
        The contents, and the positions of the images that belong to `split`: int64, sorted.

    Raises:
        UserError: The source cannot be used.
    """
    contents, has_own = _read(Path(name), split, reading)
    rows = np.arange(len(contents.images))
    if has_own or not reading.test_split or contents.labels is None:
        return contents, rows
    is_test = _choose_test(contents, reading.test_split)
    if split == "train":
        return contents, rows[~is_test]
    if not is_test.any():
        raise UsageError(
            "--test-split",
            "must set at least one image apart",
            _describe_too_few(contents, reading.test_split),
            "Use a larger --test-split, pass test images with -t, or add images.",
        )
    return contents, rows[is_test & (contents.labels != NO_LABEL)]


def _read(path: Path, split: Split, reading: Reading) -> tuple[Contents, bool]:
    """What a part of a source holds, all of it if it has no parts; whether it has test images."""
    is_archive = path.suffix.lower() == ".npz"
    with terminal.announcing(f"Reading {path}"):
        parts = read_npz(path) if is_archive else list_pictures(path, labelled=reading.labelled)
        record = get_record(path) if is_archive else {}
    part = parts[split if split in parts else "train"]
    contents = Contents(*part, record) if is_archive else _decode(path, part, reading)
    return contents, "test" in parts


# Images that were set apart, by what decides about them: hashing many images takes seconds.
_chosen: dict[tuple[str, int, float], np.ndarray] = {}


def _choose_test(contents: Contents, share: float) -> np.ndarray:
    """bool (num_images,), the images that are set apart for testing: none if they are too few."""
    is_test = np.zeros(len(contents.images), bool)
    if contents.labels is None or not share:
        return is_test
    key = contents.record["sha256"], contents.num_validation, share
    if key not in _chosen:
        _chosen[key] = _compute_test(contents, share)
    return _chosen[key]


def _compute_test(contents: Contents, share: float) -> np.ndarray:
    is_test = np.zeros(len(contents.images), bool)
    count = len(is_test) - contents.num_validation
    hashes, labels = hash_images(contents.images[:count]), contents.labels[:count]
    is_labelled = labels != NO_LABEL
    chosen = split_test(hashes[is_labelled], labels[is_labelled], share)
    # And their copies without a label.
    is_test[:count] = np.isin(hashes, hashes[is_labelled][chosen])
    return is_test


def _describe_too_few(contents: Contents, share: float) -> str:
    count = len(contents.images) - contents.num_validation
    different = len(np.unique(hash_images(contents.images[:count])))
    found = f"{count:,} images, {different:,} of them different"
    return f"{share:.0%} of each class rounds to zero when equal images stay together: {found}"


def _decode(path: Path, listing: Listing, reading: Reading) -> Contents:
    channels = CHANNELS.get(reading.color)
    images, kept, skipped = decode_listing(listing, reading.image_size, channels, reading.resize)
    labels = None if listing.labels is None else listing.labels[kept]
    validation = kept[len(kept) - listing.num_validation :]
    with terminal.announcing(f"Reading the decoded images of {path}"):
        digest = hashlib.sha256(np.ascontiguousarray(images).data)
    digest.update(json.dumps([listing.class_names, listing.num_validation]).encode())
    digest.update(b"" if labels is None else labels.astype("<i8").tobytes())
    return Contents(
        images,
        labels,
        listing.class_names,
        {"path": str(path), "sha256": digest.hexdigest(), "bytes": images.nbytes},
        np.array(listing.files, object)[kept],
        int(validation.sum()),
        skipped | dict.fromkeys(listing.others, "not the name of a picture"),
    )
