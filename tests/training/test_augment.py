"""Random changes of images: each within its bounds, each image by its own amounts."""

import numpy as np
import pytest
import tensorflow as tf

from cae.config.fields import Augmentation
from cae.training.augment import augment

KEY = tf.constant([3, 4], tf.int64)
IMAGES = tf.random.stateless_uniform((16, 9, 9, 2), (1, 2))


def test_nothing_asked_changes_nothing():
    np.testing.assert_array_equal(augment(IMAGES, Augmentation(), KEY), IMAGES)


def test_rotation_keeps_the_centre():
    """The middle pixel of an odd size is the axis; the rest moves."""
    rotated = augment(IMAGES, Augmentation(rotation=180.0), KEY).numpy()
    np.testing.assert_allclose(rotated[:, 4, 4], IMAGES[:, 4, 4], atol=1e-5)
    assert np.abs(rotated - IMAGES).mean() > 0.1


def test_shift_moves_by_at_most_its_share():
    """A dot in the middle of 21 pixels moves at most 0.2 · 21 = 4.2 of them, both ways."""
    dots = np.zeros((200, 21, 21, 1), np.float32)
    dots[:, 10, 10] = 1
    moved = augment(tf.constant(dots), Augmentation(shift=0.2), KEY).numpy()[..., 0]
    rows = (moved.sum(axis=2) @ np.arange(21)) / moved.sum(axis=(1, 2))
    assert np.abs(rows - 10).max() <= 4.2 + 1e-4
    assert rows.min() < 7 and rows.max() > 13


def test_zoom_changes_the_size():
    """The area of a disc spreads by the square of the zoom."""
    rows, columns = np.mgrid[:41, :41] - 20
    disc = np.repeat((rows**2 + columns**2 <= 64)[None, ..., None], 100, 0)
    zoomed = augment(tf.constant(disc.astype(np.float32)), Augmentation(zoom=0.5), KEY)
    areas = zoomed.numpy().sum(axis=(1, 2, 3)) / disc[0].sum()
    assert 0.2 < areas.min() < 0.5 and 1.6 < areas.max() < 2.4


def test_every_image_gets_its_own_amounts():
    same = tf.repeat(IMAGES[:1], 5, axis=0)
    out = augment(same, Augmentation(rotation=40.0), KEY).numpy()
    assert all(np.any(out[0] != other) for other in out[1:])


@pytest.mark.parametrize("degrees", [30.0, 60.0])
def test_shear_slants_vertical_lines(degrees):
    """The end of a line 10 pixels from the centre moves sideways by at most 10 · tan(degrees)."""
    lines = np.zeros((200, 21, 61, 1), np.float32)
    lines[:, :, 30] = 1
    sheared = augment(tf.constant(lines), Augmentation(shear=degrees), KEY).numpy()[..., 0]
    columns = (sheared @ np.arange(61)) / sheared.sum(axis=2) - 30  # of each row's mean
    bound = 10 * np.tan(np.radians(degrees))
    np.testing.assert_allclose(columns[:, 10], 0, atol=1e-4)
    np.testing.assert_allclose(columns[:, 0], -columns[:, -1], atol=1e-3)
    assert 0.9 * bound < np.abs(columns[:, 0]).max() <= bound + 1e-3
    assert columns[:, 0].min() < 0 < columns[:, 0].max()


def test_noise_has_its_standard_deviation():
    gray = tf.fill((64, 8, 8, 1), 0.5)
    noisy = augment(gray, Augmentation(noise=0.1), KEY).numpy()
    assert abs(noisy.std() - 0.1) < 0.005 and abs(noisy.mean() - 0.5) < 0.005
    noisy = augment(gray, Augmentation(noise=1.0), KEY).numpy()
    assert noisy.min() == 0 and noisy.max() == 1


def test_cutout_erases_one_square():
    """0.5 of the shorter side, 8, are 4 pixels per side, fewer where the image ends."""
    white = tf.ones((300, 8, 12, 2))
    erased = augment(white, Augmentation(cutout=0.5), KEY).numpy() == 0
    assert (erased[..., 0] == erased[..., 1]).all()
    rows, columns = erased.any(axis=(2, 3)), erased.any(axis=(1, 3))
    assert (erased[..., 0] == rows[:, :, None] & columns[:, None]).all()
    for side in (rows.sum(axis=1), columns.sum(axis=1)):
        assert side.min() == 2 and side.max() == 4
    assert erased.any(axis=0).all()


def test_mask_erases_patches():
    """Half of the 49 patches, of 2×3 pixels here, are 24; every patch is erased in some image."""
    white = tf.ones((50, 14, 21, 2))
    erased = augment(white, Augmentation(mask=0.5), KEY).numpy() == 0
    patches = erased.reshape(50, 7, 2, 7, 3, 2)
    whole = patches.all(axis=(2, 4, 5))
    assert (whole == patches.any(axis=(2, 4, 5))).all()
    assert (whole.sum(axis=(1, 2)) == 24).all()
    assert whole.any(axis=0).all() and not whole.all(axis=0).any()


def test_the_key_determines_everything():
    changes = {"rotation": 20, "shear": 10, "shift": 0.1, "zoom": 0.2, "noise": 0.1}
    everything = Augmentation(**changes, cutout=0.3, mask=0.2)
    first, again, other = (
        augment(IMAGES, everything, tf.constant([3, step], tf.int64)).numpy() for step in (4, 4, 5)
    )
    assert (first == again).all() and (first != other).any(axis=(1, 2, 3)).all()
