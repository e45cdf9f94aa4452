"""Random changes of images: one warp, then noise, then an erased square, then erased patches."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cae.config.fields import Augmentation

PATCHES = 7  # per side of the grid of `mask`


def augment(images: tf.Tensor, augmentation: Augmentation, random_key: tf.Tensor) -> tf.Tensor:
    """Changes every image by its own random amounts.

    Args:
        images: float32 (batch, height, width, channels) in [0, 1].
        augmentation: The largest amounts.
        random_key: int64 (2,), determines all amounts.

    Returns:
        float32 images of the same shape in [0, 1]; what moves in from outside is 0.
    """
    if augmentation.rotation or augmentation.shear or augmentation.shift or augmentation.zoom:
        images = _warp(images, augmentation, random_key)
    if augmentation.noise:
        key = fold_in(random_key, 1)
        grain = tf.random.stateless_normal(tf.shape(images), key, stddev=augmentation.noise)
        images = tf.clip_by_value(images + grain, 0.0, 1.0)
    if augmentation.cutout:
        images *= _keep_outside_square(images, augmentation.cutout, fold_in(random_key, 2))
    if augmentation.mask:
        images *= _keep_patches(images, augmentation.mask, fold_in(random_key, 4))
    return images


def make_views(images: np.ndarray, changes: Sequence[Augmentation], number: int) -> np.ndarray:
    """Applies several changes in turn.

    Args:
        images: float32 (num_images, height, width, channels) in [0, 1].
        changes: In the order in which they are applied.
        number: Determines the random amounts.

    Returns:
        float32 images of the same shape in [0, 1].
    """
    key = tf.constant([number, 0], tf.int64)
    for place, augmentation in enumerate(changes):
        images = augment(tf.constant(images), augmentation, fold_in(key, place))
    return np.asarray(images)


def fold_in(random_key: tf.Tensor, number: int) -> tf.Tensor:
    """Another key, int64 (2,), whose random numbers are independent of those of `random_key`."""
    return tf.random.experimental.stateless_fold_in(random_key, number)


def _warp(images: tf.Tensor, augmentation: Augmentation, random_key: tf.Tensor) -> tf.Tensor:
    """Rotates, shears, shifts and zooms about the centre, all images in one operation."""
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    amounts = tf.random.stateless_uniform((5, count), random_key, -1.0, 1.0)
    angle = amounts[0] * augmentation.rotation * math.pi / 180
    zoom = 1.0 + amounts[1] * augmentation.zoom
    shift_y = amounts[2] * augmentation.shift * height
    shift_x = amounts[3] * augmentation.shift * width
    shear = tf.tan(amounts[4] * augmentation.shear * math.pi / 180)
    # The op maps output to input coordinates: in = A · out + b, A a rotation and a shear over the
    # zoom: ((a, b), (c, d)) = ((cos, -sin), (sin, cos)) · ((1, shear), (0, 1)).
    a, c = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    b, d = a * shear - c, c * shear + a
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    offset_x = centre_x - a * (centre_x + shift_x) - b * (centre_y + shift_y)
    offset_y = centre_y - c * (centre_x + shift_x) - d * (centre_y + shift_y)
    none = tf.zeros_like(a)
    transforms = tf.stack([a, b, offset_x, c, d, offset_y, none, none], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _keep_patches(images: tf.Tensor, share: float, random_key: tf.Tensor) -> tf.Tensor:
    """float32 (batch, height, width, 1): 0 in this share of the patches of a grid, 1 elsewhere."""
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    ranks = tf.argsort(tf.random.stateless_uniform((count, PATCHES**2), random_key))
    is_kept = tf.reshape(ranks >= round(share * PATCHES**2), (count, PATCHES, PATCHES))
    for axis, size in ((1, height), (2, width)):
        is_kept = tf.gather(is_kept, tf.range(size) * PATCHES // size, axis=axis)
    return tf.cast(is_kept[..., tf.newaxis], images.dtype)


def _keep_outside_square(images: tf.Tensor, share: float, random_key: tf.Tensor) -> tf.Tensor:
    """float32 (batch, height, width, 1): 0 in a square about a random pixel, 1 outside.

    Its side is this share of the image's shorter side; a part of it may lie outside the image.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    centres = tf.random.stateless_uniform((2, count, 1), random_key)  # shares of height and width
    half = share * min(height, width) / 2

    def is_inside(centre: tf.Tensor, size: int) -> tf.Tensor:  # (batch, size)
        return tf.abs(tf.range(0.5, size) - centre * size) < half

    rows, columns = is_inside(centres[0], height), is_inside(centres[1], width)
    inside = rows[:, :, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis, :, tf.newaxis]
    return tf.cast(~inside, images.dtype)
