"""How images look: whether later images are like the training images, and what brings them there.

The metadata of a model hold what `describe` says of its training images. Every program that reads
images for a saved model asks:

    scaling = match_scaling(Scaling(**metadata["scaling"]), images, where, say)
    causes = compare(metadata.get("appearance"), images, scaling)
    if causes:
        warn(advise(where, causes))
    if INVERTED in causes:  # or without asking, where a flag says so
        images = invert(images, scaling)

A cause changes features of images, such as their brightness b to 1 - b. Images score -1 where these
are those of the training images, +1 where they are the changed ones, and otherwise by their
position along that line. One class may score high, as leaning digits do for transposition. Images
are therefore reported only if their mean score exceeds that of the highest tenth of the training
images by three standard errors. A class that makes up that tenth is never reported, nor are a few
images that score high by chance. Where a cause would not stand out, as inversion among photographs,
that tenth scores too high for anything to be reported. docs/architecture.md says on what data this
was tried.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cae.data.datasets import Scaling
from cae.errors import DataError, Say, listed

INVERTED = "inverted"
TRANSPOSED = "transposed"
OTHER_RANGE = "scaled from another range"
REMEDIES = {
    INVERTED: "add --invert",
    TRANSPOSED: "add --transpose",
    OTHER_RANGE: "convert them to the same range",
}

# Cause -> the features that show it, and what it makes of their usual values.
CAUSES: dict[str, tuple[tuple[str, ...], Callable[..., tuple[Any, ...]]]] = {
    INVERTED: (
        ("mean", "border", "darkest", "brightest"),
        lambda mean, border, darkest, brightest: (1 - mean, 1 - border, brightest, darkest),
    ),
    TRANSPOSED: (("rows", "columns"), lambda rows, columns: (columns, rows)),
    OTHER_RANGE: (("spread",), lambda spread: (spread / 2,)),
}
EXTREME = 0.1  # of the range: pixels this near to its ends are the darkest and the brightest
MIN_IMAGES = 20  # fewer do not show how training images vary
SAMPLED = 2000  # images, evenly spaced among all
AT_ONCE = 1024  # images to convert
MAX_PIXELS = 2**25  # of all these together
TOP_SHARE = 0.1
MIN_SCORE = 0.5
STANDARD_ERRORS = 3

# Two ranges are told apart if one is this many times as wide: an image may just be dark.
CLEAR_RATIO = 16
# Pixels may leave the range of training by a tenth of its width, and one in a hundred by more.
MARGIN = 0.1
MAX_OUTSIDE = 0.01

LUMINANCE = np.array([0.299, 0.587, 0.114])  # of RGB; ITU-R BT.601, as Pillow

Features = dict[str, np.ndarray]  # name -> float (num_images,) or (num_images, length)


# --- Looks ----------------------------------------------------------------------------------


def describe(images: np.ndarray, scaling: Scaling) -> dict[str, Any] | None:
    """Describes how training images look, in JSON types.

    Args:
        images: (num_images, height, width, channels).
        scaling: Brings them to [0, 1].

    Returns:
        Means over images: `mean`, `spread` (standard deviation) and `border` of the pixels in
        [0, 1], the shares of them that are `darkest` and `brightest`, the means of all `rows` and
        `columns`. Further `scores`, for each cause the mean score of the highest tenth of the
        images, and the standard deviation of all scores. None for fewer than `MIN_IMAGES`.
    """
    if len(images) < MIN_IMAGES:
        return None
    features = _measure(images, scaling)
    looks = {name: values.mean(axis=0).round(4).tolist() for name, values in features.items()}
    looks["scores"] = {}
    for cause in CAUSES:
        scores = _get_scores(cause, features, looks)
        if scores is not None:
            highest = np.sort(scores)[-int(TOP_SHARE * len(scores)) :]
            statistics = [highest.mean(), scores.std()]
            looks["scores"][cause] = [round(float(value), 4) for value in statistics]
    return looks


def compare(
    training: Mapping[str, Any] | None, images: np.ndarray, scaling: Scaling
) -> dict[str, str]:
    """Finds why images look different from those that a model was trained on.

    Args:
        training: What `describe` returned for the training images.
        images: (num_images, height, width, channels), one or more.
        scaling: Brings them to [0, 1]; from `match_scaling`.

    Returns:
        The likely causes, keys of `CAUSES`, with values that show them. Empty if the images look
        alike, or if there is nothing to compare them with.
    """
    if training is None or images.shape[1:3] != (len(training["rows"]), len(training["columns"])):
        return {}
    features = _measure(images, scaling)
    if not features["spread"].any():  # blank images look like none
        return {}
    causes: list[str] = []
    seems_inverted = False
    for cause in CAUSES:
        scores = _get_scores(cause, features, training)
        if scores is None or cause not in training["scores"]:
            continue
        if cause == INVERTED:
            seems_inverted = scores.mean() > 0
        highest, deviation = training["scores"][cause]
        margin = STANDARD_ERRORS * deviation / len(scores) ** 0.5
        if scores.mean() <= max(highest, MIN_SCORE) + margin:
            continue
        if cause == TRANSPOSED and INVERTED not in causes and seems_inverted:
            cause = INVERTED  # which changes the sign of profiles' scores as well
        causes.append(cause)
        if cause == INVERTED:
            features |= {name: 1 - features[name] for name in ("rows", "columns")}
    return {cause: _compare_values(cause, features, training) for cause in causes}


def advise(images: str, causes: Mapping[str, str], remedies: Mapping[str, str] = REMEDIES) -> str:
    """Says in one sentence what `compare` found, and what mends it.

    Args:
        images: What to call the images, in the plural.
        causes: From `compare`; not empty.
        remedies: What to do about each cause.
    """
    looks = [f"{cause} ({values})" if values else cause for cause, values in causes.items()]
    mended = [remedies[cause] for cause in causes]
    return (
        f"{images} look {listed(looks, 'and')}, compared with the training images. "
        f"If they are, {listed(mended, 'and')}."
    )


def _measure(images: np.ndarray, scaling: Scaling) -> Features:
    """The features of a sample of images."""
    count = min(len(images), SAMPLED, max(MIN_IMAGES, MAX_PIXELS // images[0].size))
    sample = images[np.linspace(0, len(images) - 1, count).astype(int)]
    gray = scaling.apply(sample).mean(axis=3)  # (count, height, width)
    border = np.concatenate([gray[:, 0], gray[:, -1], gray[:, :, 0], gray[:, :, -1]], axis=1)
    return {
        "mean": gray.mean(axis=(1, 2)),
        "spread": gray.std(axis=(1, 2)),
        "border": border.mean(axis=1),
        "darkest": (gray < EXTREME).mean(axis=(1, 2)),
        "brightest": (gray > 1 - EXTREME).mean(axis=(1, 2)),
        "rows": gray.mean(axis=2),
        "columns": gray.mean(axis=1),
    }


def _get_scores(cause: str, features: Features, looks: Mapping[str, Any]) -> np.ndarray | None:
    """The score of every image; None where the cause would change nothing."""
    names, change = CAUSES[cause]
    usual = [np.array(looks[name]) for name in names]
    changed, usual = np.hstack(change(*usual)), np.hstack(usual)
    direction, middle = changed - usual, (usual + changed) / 2
    length = direction @ direction / 2
    is_square = len(looks["rows"]) == len(looks["columns"])
    if length == 0 or (cause == TRANSPOSED and not is_square):
        return None
    return (np.column_stack([features[name] for name in names]) - middle) @ direction / length


def _compare_values(cause: str, features: Features, looks: Mapping[str, Any]) -> str:
    """The first feature of a cause, here and in training; profiles are not shown."""
    name = CAUSES[cause][0][0]
    if features[name].ndim > 1:
        return ""
    return f"{name} {features[name].mean():.2f} instead of {looks[name]:.2f}"


# --- Changes --------------------------------------------------------------------------------


def match_scaling(training: Scaling, images: np.ndarray, where: object, say: Say) -> Scaling:
    """Finds the scaling of images whose range may differ from that of the training images.

    Pixels in 0..1 are recognized where training had a wider range that begins at 0, pixels in
    0..255 where it had a much narrower one.

    Args:
        training: The scaling of the training images.
        images: (num_images, height, width, channels).
        where: What to call the images.
        say: Receives a sentence if their range differs.

    Raises:
        DataError: Their range cannot be told.
    """
    low, high = float(images.min()), float(images.max())
    start, width = training.offset, training.scale
    trained = f"{start:g}..{start + width:g}"
    if low >= 0 and 0 < high <= 1 and start == 0 and width >= CLEAR_RATIO:
        own = Scaling(0.0, 1.0, images.dtype.name)
    elif low >= 0 and high <= 255 and high >= CLEAR_RATIO * width:
        own = Scaling(0.0, 255.0, images.dtype.name)
    elif _is_within(training, images, low, high):
        return training
    else:
        known = listed(dict.fromkeys([trained, "0..1", "0..255"]))
        raise DataError(
            where,
            f"must contain pixels in {trained}, as the training images do",
            f"{images.dtype.name} from {low:g} to {high:g}, which is not clearly {known}",
            f"Convert them to {trained}.",
        )
    say(
        f"{where}: its pixels are in 0..{own.scale:g}, those of the training images in {trained}; "
        "they are scaled to match."
    )
    return own


def match_range(training: Scaling, images: np.ndarray, where: object, say: Say) -> np.ndarray:
    """Converts images to the range and type of the training images, where `match_scaling` finds
    another range; its arguments and errors.
    """
    own = match_scaling(training, images, where, say)
    if own == training:
        return images
    pixels = own.apply(images) * training.scale + training.offset
    if np.dtype(training.dtype).kind != "f":
        pixels = np.rint(pixels)
    return pixels.astype(training.dtype)


def match_channels(channels: int, images: np.ndarray, where: object, say: Say) -> np.ndarray:
    """Turns gray images into RGB or vice versa, as for pictures in files.

    Args:
        channels: Those of the training images. Where they are not 1 or 3, or those of the images
            are not, the images stay as they are.
        images: (num_images, height, width, channels).
        where: What to call the images.
        say: Receives a sentence if the channels change.

    Returns:
        Images in their type: gray ones three times, in a read-only view, RGB ones as luminance.
    """
    if {channels, images.shape[3]} != {1, 3}:
        return images
    if channels == 3:
        say(f"{where}: gray images for an RGB model; each channel gets the gray values.")
        return np.broadcast_to(images, (*images.shape[:3], channels))
    say(f"{where}: RGB images for a model of gray images; they are converted to gray by luminance.")
    gray = np.empty((*images.shape[:3], channels), images.dtype)
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE] @ LUMINANCE
        gray[start : start + AT_ONCE, ..., 0] = part if gray.dtype.kind == "f" else np.rint(part)
    return gray


def invert(images: np.ndarray, scaling: Scaling) -> np.ndarray:
    """Swaps dark and bright: what `scaling` brings to x, it then brings to 1 - x."""
    low, high = scaling.offset, scaling.offset + scaling.scale
    exact = np.result_type(images.dtype, np.float32)
    return np.subtract(low + high, images, dtype=exact).clip(low, high).astype(images.dtype)


def transpose(images: np.ndarray) -> np.ndarray:
    """Swaps rows and columns, in a view: (num_images, width, height, channels)."""
    return images.swapaxes(1, 2)


def _is_within(training: Scaling, images: np.ndarray, low: float, high: float) -> bool:
    """Whether images from `low` to `high` plausibly have the range of the training images."""
    start, width = training.offset, training.scale
    # Standardized pixels, about -1 to 3, lie within 0..255 and would all be black.
    is_narrow = width >= CLEAR_RATIO and 0 < high - low < width / CLEAR_RATIO
    if is_narrow and images.dtype.kind == "f":
        return False
    first, last = start - MARGIN * width, start + (1 + MARGIN) * width
    if low >= first and high <= last:
        return True
    return float(((images < first) | (images > last)).mean()) <= MAX_OUTSIDE
