"""How images look, what is reported, and the changes that mend it."""

import json

import numpy as np
import pytest

from cae.data.appearance import (
    INVERTED,
    OTHER_RANGE,
    TRANSPOSED,
    advise,
    compare,
    describe,
    invert,
    match_range,
    match_scaling,
    transpose,
)
from cae.data.datasets import Scaling, get_scaling
from cae.errors import DataError

BYTES = Scaling(0.0, 255.0, "uint8")
UNIT = Scaling(0.0, 1.0, "float32")
DIGITS = Scaling(0.0, 16.0, "float64")


def draw_bars(count, seed=0):
    """A bright upright bar at a random place of the upper half of dark images: uint8, 8×8."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 20, (count, 8, 8, 1), np.uint8)
    for image, column in zip(images, rng.integers(1, 7, count), strict=True):
        image[1:5, column] = 250
    return images


def test_describe_correctness():
    """Every other image is white, the others have a white left column: 1/4 of 4×4 pixels."""
    images = np.zeros((20, 4, 4, 1), np.uint8)
    images[::2] = 255
    images[1::2, :, 0] = 255
    looks = describe(images, BYTES)
    assert looks["mean"] == (1 + 0.25) / 2
    assert looks["spread"] == pytest.approx((0 + 0.25**0.5 * 0.75**0.5) / 2, abs=1e-4)
    assert looks["border"] == (1 + 6 / 16) / 2  # corners count for two sides
    assert looks["darkest"] == 0.75 / 2
    assert looks["brightest"] == (1 + 0.25) / 2
    assert looks["rows"] == [0.625] * 4
    assert looks["columns"] == [1, 0.5, 0.5, 0.5]
    assert json.loads(json.dumps(looks)) == looks


def test_few_images_show_nothing():
    assert describe(draw_bars(19), BYTES) is None
    assert compare(None, draw_bars(5), BYTES) == {}


@pytest.mark.parametrize("count", [1, 10, 500])
def test_more_of_the_same_look_alike(count):
    assert compare(describe(draw_bars(500), BYTES), draw_bars(count, seed=1), BYTES) == {}


@pytest.mark.parametrize(
    ("change", "causes"),
    [
        (lambda images: 255 - images, [INVERTED]),
        (lambda images: images.swapaxes(1, 2), [TRANSPOSED]),
        (lambda images: 255 - images.swapaxes(1, 2), [INVERTED, TRANSPOSED]),
        (lambda images: images // 3, [OTHER_RANGE]),
        (lambda images: 128 + images // 2, [OTHER_RANGE]),
    ],
)
def test_causes_are_found(change, causes):
    looks = describe(draw_bars(500), BYTES)
    assert list(compare(looks, change(draw_bars(100, seed=1)), BYTES)) == causes


def test_a_class_alone_is_no_transposition():
    """Bars lie in a tenth of the training images, and stand in the others."""
    images = draw_bars(500)
    images[::10] = images[::10].swapaxes(1, 2)
    assert compare(describe(images, BYTES), images[::10], BYTES) == {}


def test_inverted_images_of_any_brightness_are_not_called_transposed():
    """One image in eight is bright, so brightness says little: inversion shows in the profiles."""
    images = draw_bars(500)
    images[::8] = 235 + images[::8] // 20
    looks = describe(images, BYTES)
    assert compare(looks, 255 - images, BYTES).keys() == {INVERTED}


def test_where_a_cause_changes_nothing_none_is_found():
    """Inverted noise is noise; blank images look like none; wide ones cannot be transposed."""
    noise = np.random.default_rng(0).random((100, 8, 8, 1), np.float32)
    looks = describe(noise, UNIT)
    assert compare(looks, 1 - noise, UNIT) == compare(looks, noise.swapaxes(1, 2), UNIT) == {}
    gray = np.full((20, 8, 8, 1), 0.5, np.float32)
    assert compare(describe(gray, UNIT), gray, UNIT) == compare(looks, gray, UNIT) == {}
    wide = draw_bars(100)[:, :4]
    assert compare(describe(wide, BYTES), wide[:10], BYTES) == {}


def test_images_of_another_size_are_not_compared():
    """A model file may state anything; what does not fit the images is left alone."""
    looks = describe(draw_bars(100), BYTES)
    assert compare(looks, 255 - draw_bars(100)[:, :6, :6], BYTES) == {}


def test_advice_names_values_and_flags():
    causes = {INVERTED: "mean 0.87 instead of 0.13", TRANSPOSED: ""}
    sentence = advise("The images", causes)
    assert all(part in sentence for part in ("0.87", "--invert", "--transpose"))
    assert "--" not in advise("The images", {OTHER_RANGE: ""})


@pytest.mark.parametrize(
    ("training", "pixels", "highest"),
    [
        # the range of training, in whatever type
        (BYTES, np.array([0, 255], np.uint8), None),
        (BYTES, np.array([0.0, 254.7], np.float32), None),
        (BYTES, np.array([3, 12], np.uint8), None),  # dark
        (BYTES, np.array([0, 0], np.uint8), None),  # black
        (UNIT, np.array([0, 1], np.uint8), None),
        (Scaling(-0.42, 3.24, "float32"), np.array([-0.45, 2.9]), None),
        # 0..1 for wider ranges
        (BYTES, np.array([0, 1], np.uint8), 1),
        (DIGITS, np.array([0.0, 0.9]), 1),
        # 0..255 for narrower ones
        (UNIT, np.array([0, 255], np.uint8), 255),
        (Scaling(-1.0, 2.0, "float32"), np.array([0, 255], np.uint8), 255),
    ],
)
def test_match_scaling(training, pixels, highest):
    """Another range is recognized and said, the same one is kept in silence."""
    said = []
    scaling = match_scaling(training, pixels.reshape(1, 1, -1, 1), "TEST", said.append)
    if highest is None:
        assert scaling is training and not said
    else:
        assert (scaling.offset, scaling.scale) == (0, highest)
        assert len(said) == 1 and said[0].startswith("TEST: ") and f"0..{highest}" in said[0]


@pytest.mark.parametrize(
    ("training", "pixels"),
    [
        (UNIT, np.array([0, 7], np.uint8)),  # 0..7, or dark bytes
        (BYTES, np.array([-1.0, 1.0], np.float32)),
        (BYTES, np.array([0, 65535], np.int32)),
        (DIGITS, np.array([0, 255], np.uint8)),
    ],
)
def test_ranges_that_cannot_be_told_are_refused(training, pixels):
    with pytest.raises(DataError, match=rf"^TEST: .*{pixels.dtype}.*{pixels.max():g}"):
        match_scaling(training, pixels.reshape(1, 1, -1, 1), "TEST", print)


def test_a_few_pixels_may_leave_the_range():
    pixels = np.zeros((1, 10, 10, 1), np.float32)
    pixels[0, 0, 0], pixels[0, 1:] = 3, 0.5
    assert match_scaling(UNIT, pixels, "TEST", print) is UNIT


@pytest.mark.parametrize(
    ("training", "pixels", "expected"),
    [
        (BYTES, np.array([0, 0.2, 1], np.float32), np.array([0, 51, 255], np.uint8)),
        (BYTES, np.array([0, 1, 1], np.uint8), np.array([0, 255, 255], np.uint8)),
        (UNIT, np.array([0, 51, 255], np.uint8), np.array([0, 0.2, 1], np.float32)),
        (DIGITS, np.array([0, 0.25, 1]), np.array([0.0, 4, 16])),
        (BYTES, np.array([0, 51, 255], np.int32), np.array([0, 51, 255], np.int32)),
    ],
)
def test_match_range(training, pixels, expected):
    matched = match_range(training, pixels.reshape(1, 1, 3, 1), "TEST", lambda sentence: None)
    assert matched.dtype == expected.dtype
    np.testing.assert_array_equal(matched.ravel(), expected)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.array([0, 5, 255], np.uint8), [255, 250, 0]),
        (np.array([0, 1, 1], np.uint8), [1, 0, 0]),
        (np.array([-32768, 0, 32767], np.int16), [32767, -1, -32768]),
        (np.array([-1, 0.5, 1]), [1, -0.5, -1]),
        (np.array([0, 0.25, 1], np.float32), [1, 0.75, 0]),
    ],
)
def test_invert(pixels, expected):
    images = pixels.reshape(1, 1, 3, 1)
    inverted = invert(images, get_scaling(images))
    assert inverted.dtype == pixels.dtype
    assert inverted.ravel().tolist() == expected


def test_transpose():
    images = np.arange(12).reshape(1, 2, 3, 2)
    assert transpose(images).shape == (1, 3, 2, 2)
    assert transpose(images)[0, 2, 1].tolist() == [10, 11]
