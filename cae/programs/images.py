"""The images that the flags name: checked by their headers, read, changed and compared."""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cae import terminal
from cae.config.choices import CHANGED, DATASETS
from cae.config.shapes import Shape, format_shape, swap_sides
from cae.config.study_schema import Data
from cae.data.appearance import (
    INVERTED,
    REMEDIES,
    TRANSPOSED,
    advise,
    compare,
    describe,
    invert,
    match_channels,
    match_range,
    match_scaling,
    transpose,
)
from cae.data.datasets import (
    Dataset,
    Scaling,
    check_dataset,
    divide,
    get_scaling,
    join,
    load_dataset,
)
from cae.data.pictures import convert
from cae.data.sources import Reading, explain_no_test, has_test, holds_pictures, is_source
from cae.data.splits import find_overlaps, hash_images
from cae.errors import DataError, Say, UsageError, counted, listed
from cae.files import write_csv
from cae.programs.flags import IMAGES, to_words
from cae.records.run import Arguments
from cae.records.saved_models import read_metadata

# Role of a data set -> its name in flags.
SPLITS = {"training": "train", "unlabelled": "train", "test": "test"}
# What a classifier has, and an autoencoder has not.
LABELLED = ("test", "test_labels", "labels_per_class")
READING = tuple(flag[2:].replace("-", "_") for flag in IMAGES)
PICTURES = ("image_size", "color", "resize")


# --- How they are read ----------------------------------------------------------------------


def get_reading(args: argparse.Namespace | Data, split: str = "train") -> Reading:
    """How the flags say that images are read.

    Pictures fit the saved model that they name, those of `split` after --transpose.
    """
    given = {name: getattr(args, name, None) for name in READING}
    if getattr(args, "test", None):
        given["test_split"] = 0.0
    model = getattr(args, "init_from", None) or getattr(args, "model", None)
    metadata = read_metadata(model) if model else {}
    given["resize"] = given["resize"] or metadata.get("resize")
    reading = Reading(**{key: value for key, value in given.items() if value is not None})
    shape = metadata.get("input_shape")
    return reading.like(shape and change_shape(tuple(shape), args, split))


def check_reading(args: argparse.Namespace | Data) -> None:
    """Refuses flags that say how images are read but change nothing for those that are given.

    Raises:
        UsageError: There are no pictures to decode, or images from which none are set apart.
    """
    roles = ("dataset", "test", "unlabelled", "pretraining")
    names = [name for role in roles if (name := getattr(args, role, None))]
    if not all(name in DATASETS or Path(name).exists() for name in names):
        return  # whoever reads them says so
    useless = {name for name in READING if getattr(args, name, None)}
    useless -= set(name_useful(args.dataset, *names))
    for name in PICTURES:
        if name in useless:
            raise UsageError(
                f"--{name.replace('_', '-')}",
                "requires pictures in a folder or a table",
                listed(names, "and"),
                "Leave it out.",
            )
    if getattr(args, "test_split", None) and getattr(args, "test", None):
        raise UsageError("--test-split", "must be left out with -t", None, "Remove one of the two.")
    if args.dataset and "test_split" in useless:
        raise UsageError(
            "--test-split",
            "requires a folder, a table or an .npz file, to set test images apart",
            args.dataset,
            "Leave it out: there are test images."
            if args.dataset in DATASETS
            else "Pass test images with -t, or save images and labels as one .npz file.",
        )


def name_useful(dataset: str | None, *others: str | None) -> list[str]:
    """The names in `READING` that have an effect on images of these names."""
    pictures = PICTURES if any(holds_pictures(name) for name in (dataset, *others) if name) else ()
    return [*pictures, *(["test_split"] if dataset and is_source(dataset) else []), "class_names"]


def without_labels(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flags of a classifier for an autoencoder of the same images, but those of the test."""
    kept = {**given, **dict.fromkeys(LABELLED)}
    is_divided = given.get("test") and is_source(given["dataset"])
    return kept | {"test_split": 0.0} if is_divided else kept


def repeat_reading(args: argparse.Namespace | Arguments | Data, *names: str | None) -> list[str]:
    """The flags that make another program read the same images.

    With the names of what it reads, the training images first, those alone that have an effect.
    """
    useful = name_useful(*names) if names else READING
    return to_words({name: getattr(args, name, None) for name in useful})


# --- Checked --------------------------------------------------------------------------------


def check_images(args: argparse.Namespace) -> Shape:
    """Checks the images of an autoencoder by their headers; returns their shape."""
    check_reading(args)
    _, shape = check_dataset(args.dataset, args.labels, reading=get_reading(args))
    input_shape = change_shape(shape, args, "train")
    _check_unlabelled_shape(args, input_shape)
    return input_shape


def check_labelled_images(args: argparse.Namespace) -> Shape:
    """Checks the training and test data from their headers; returns the images' shape."""
    check_reading(args)
    reading = get_reading(args)
    test = _find_test(args)
    if args.test_labels and not test:
        raise UsageError("-tl", "requires the test images", "no -t", "Add -t TEST, or remove -tl.")
    _, shape = check_dataset(args.dataset, args.labels, labels_required=True, reading=reading)
    input_shape = change_shape(shape, args, "train")
    if test:
        reading = get_reading(args, "test").like(change_shape(input_shape, args, "test"))
        _, shape = check_dataset(
            test, args.test_labels, split="test", labels_required=True, reading=reading
        )
        check_same_shape(test, change_shape(shape, args, "test"), input_shape, "test")
    _check_unlabelled_shape(args, input_shape)
    return input_shape


def _check_unlabelled_shape(args: argparse.Namespace, input_shape: Shape) -> None:
    if getattr(args, "unlabelled", None):
        reading = _get_unlabelled_reading(args, input_shape)
        _, shape = check_dataset(args.unlabelled, reading=reading)
        check_same_shape(args.unlabelled, change_shape(shape, args, "train"), input_shape)


def check_same_shape(name: str, shape: Shape, input_shape: Shape, split: str = "train") -> None:
    """Refuses images of a split that do not have the shape of the training images."""
    if shape != input_shape:
        raise DataError(
            name,
            f"must contain images of the training images' shape {format_shape(input_shape)}",
            format_shape(shape),
            "Add --transpose test, or leave it out if it is there."
            if split == "test" and swap_sides(shape) == input_shape
            else "Use images of that height, width and number of channels.",
        )


# --- Read -----------------------------------------------------------------------------------


def load_images(args: argparse.Namespace, seed: int) -> Dataset:
    """Loads the images of an autoencoder; the seed draws those of --limit."""
    data = load_dataset(
        args.dataset, args.labels, limit=args.limit, seed=seed, reading=get_reading(args)
    )
    data = change_images(data, args, "train")
    if args.unlabelled:
        more = _load_unlabelled(args, data, get_scaling(data.images))
        data = join(data, more, get_changes(args, "train"))
    return data


def load_labelled_images(
    args: argparse.Namespace, seed: int
) -> tuple[Dataset, Dataset | None, Dataset | None]:
    """Loads labelled images of at least two classes, test images, and images without labels.

    The last two may be None. The seed draws the images of --limit and the labels of
    --labels-per-class.
    """
    data = load_dataset(
        args.dataset,
        args.labels,
        limit=args.limit,
        seed=seed,
        labels_required=True,
        reading=get_reading(args),
    )
    if len(data.names) < 2:
        raise DataError(
            args.labels or args.dataset,
            "the training labels must name at least two classes",
            f"only {listed(data.names.values() or ['none'])} among "
            f"{counted(len(data.labels), 'label')}",
            "Use a larger --limit." if args.limit else "Use images of another class too.",
        )
    data = change_images(data, args, "train")
    scaling = get_scaling(data.images)
    changes, per_class = get_changes(args, "train"), getattr(args, "labels_per_class", None)
    data, unlabelled = divide(data, per_class, seed, changes)
    if getattr(args, "unlabelled", None):
        more = _load_unlabelled(args, data, scaling)
        unlabelled = join(unlabelled, more, changes) if unlabelled else more
    test = _load_test(args, data, scaling)
    if test is None and is_source(args.dataset):
        why = explain_no_test(args.dataset, get_reading(args))
        if why:
            terminal.warn(
                f"{args.dataset}: no images can be held out for testing ({why}). Training "
                "uses all of them, and the classifier is not tested. Pass test images with -t, a "
                "larger --test-split, or more images."
            )
    warn_of_shared_images({"training": data, "unlabelled": unlabelled, "test": test})
    return data, test, unlabelled


def _load_unlabelled(args: argparse.Namespace, data: Dataset, scaling: Scaling) -> Dataset:
    reading = _get_unlabelled_reading(args, data.images.shape[1:])
    unlabelled = load_dataset(args.unlabelled, reading=reading)
    unlabelled = replace(unlabelled, labels=None, class_names={}, validation=None)
    return change_images(unlabelled, args, "train", scaling)


def _get_unlabelled_reading(args: argparse.Namespace, input_shape: Shape) -> Reading:
    """How --unlabelled is read: all of it, and pictures as the training images."""
    reading = replace(get_reading(args), test_split=0.0, class_names=None, labelled=False)
    return reading.like(change_shape(input_shape, args, "train"))


def _find_test(args: argparse.Namespace) -> str | None:
    """The path or name of the test images; None when there are none."""
    return args.test or (args.dataset if has_test(args.dataset, get_reading(args)) else None)


def _load_test(args: argparse.Namespace, data: Dataset, scaling: Scaling) -> Dataset | None:
    given = _find_test(args)
    if given is None:
        return None
    test = load_dataset(
        given,
        args.test_labels,
        split="test",
        labels_required=True,
        reading=get_reading(args, "test").like(change_shape(data.images.shape[1:], args, "test")),
    )
    return change_images(test.numbered_like(data.names), args, "test", scaling)


def warn_of_shared_images(datasets: dict[str, Dataset | None]) -> None:
    """Warns of test images that are trained on, with or without labels."""
    if not datasets["test"]:
        return
    hashes = {role: hash_images(data.images) for role, data in datasets.items() if data}
    for overlap in find_overlaps(hashes):
        if overlap.second == "test" and len(overlap.indices):
            overlap = replace(overlap, indices=datasets["test"].positions[overlap.indices])
            terminal.warn(f"{overlap}: test results will look better than they are.")


def report_skipped(datasets: Iterable[Dataset], folder: Path | None = None) -> None:
    """Says how many files could not be read, and names them in `skipped.csv` of a folder."""
    skipped = {file: why for data in datasets for file, why in data.skipped.items()}
    if skipped:
        listing = ""
        if folder:
            rows = [{"file": file, "reason": why} for file, why in skipped.items()]
            write_csv(folder / "skipped.csv", rows)
            listing = "; skipped.csv lists them"
        terminal.warn(f"Skipped files that are not readable pictures: {len(skipped):,}{listing}.")


def choose_scaling(
    model_file: str | None, data: Dataset, unlabelled: Dataset | None = None
) -> Scaling:
    """The scaling that a saved model was trained with; without one that of the training images.

    Raises:
        DataError: The images have another range, and it cannot be told which.
    """
    metadata = read_metadata(model_file) if model_file else {}
    if "scaling" not in metadata:
        return get_scaling(data.images, *([unlabelled.images] if unlabelled else []))
    return match_scaling(Scaling(**metadata["scaling"]), data.images, data.name, terminal.say)


# --- Changed --------------------------------------------------------------------------------


def is_changed(which: str | None, split: str) -> bool:
    """Whether a value of --invert or --transpose includes the images of `train` or `test`."""
    return which in (CHANGED[0], split)


def get_changes(args: argparse.Namespace, split: str) -> list[str]:
    """The flags that change the images of a split, without their values."""
    return [flag for flag in ("--invert", "--transpose") if is_changed(vars(args)[flag[2:]], split)]


def change_shape(shape: Shape, args: argparse.Namespace, split: str) -> Shape:
    """The shape of the images of a split after --transpose."""
    return swap_sides(shape) if is_changed(args.transpose, split) else shape


def change_images(
    data: Dataset,
    args: argparse.Namespace | Data,
    split: str,
    training: Scaling | None = None,
) -> Dataset:
    """The data of a split after --invert and --transpose.

    Args:
        data: As loaded.
        args: The flags, or the data of a study.
        split: `train` or `test`.
        training: The scaling of the training images, to whose range these are converted.

    Raises:
        DataError: The range of the images cannot be told.
    """
    images = data.images
    if training:
        images = match_range(training, images, data.name, terminal.say)
    if is_changed(args.transpose, split):
        images = transpose(images)
    if is_changed(args.invert, split):
        scaling = training or get_scaling(images)
        key = " ".join([*data.digests, str(images.shape), str(scaling), *get_changes(args, split)])
        images = convert(images, lambda some: invert(some, scaling), key)
    return replace(data, images=images)


# --- Compared -------------------------------------------------------------------------------


def match_colour(data: Dataset, model_file: str) -> Dataset:
    """The data with gray images as RGB or vice versa, if the saved model takes such images."""
    expected = read_metadata(model_file).get("input_shape")
    if not expected:
        return data
    images = match_channels(expected[2], data.images, data.name, terminal.say)
    return replace(data, images=images)


def warn_of_looks(
    model_file: str | Path | None,
    datasets: dict[str, Dataset],
    scaling: Scaling,
    args: argparse.Namespace,
    warn: Say,
) -> None:
    """Warns of images that look unlike those that a saved model was trained on.

    Without such a model, or where it does not tell, the test images are compared with the training
    images.

    Args:
        model_file: The saved model.
        datasets: The data by their role, a key of `SPLITS`.
        scaling: Brings all images to [0, 1].
        args: The flags, of which the warning names those that help.
        warn: Receives a sentence for each kind of difference.
    """
    metadata = read_metadata(model_file) if model_file else {}
    looks, compared = metadata.get("appearance"), dict(datasets)
    if looks is None and "training" in datasets:
        looks = describe(compared.pop("training").images, scaling)
    found = {role: compare(looks, data.images, scaling) for role, data in compared.items()}
    found = {role: causes for role, causes in found.items() if causes}
    alike = defaultdict(list)  # causes -> roles, which are mended together
    for role, causes in found.items():
        alike[tuple(causes)].append(role)
    for roles in alike.values():
        remedies = REMEDIES | _get_remedies(roles, datasets, args)
        name = f"The {listed(roles, 'and')} images"
        warn(advise(name, found[roles[0]], remedies))


def _get_remedies(
    roles: list[str], datasets: dict[str, Dataset], args: argparse.Namespace
) -> dict[str, str]:
    """How to invert or transpose the images of some roles, and no others."""
    wrong = {SPLITS[role] for role in roles}
    if any(SPLITS[role] in wrong for role in datasets if role not in roles):
        what = {INVERTED: "dark and bright", TRANSPOSED: "rows and columns"}
        return {cause: f"swap {sides} in their file" for cause, sides in what.items()}
    splits = {SPLITS[role] for role in datasets}
    return {
        INVERTED: _toggle("--invert", args.invert, wrong, splits),
        TRANSPOSED: _toggle("--transpose", args.transpose, wrong, splits),
    }


def _toggle(flag: str, which: str | None, wrong: set[str], splits: set[str]) -> str:
    """How to change a flag so that the images of the splits in `wrong` change, and no others."""
    changed = {split for split in splits if is_changed(which, split)} ^ wrong
    if not changed:
        return f"leave out {flag}"
    return f"use {flag}" if changed == splits else f"use {flag} {changed.pop()}"
