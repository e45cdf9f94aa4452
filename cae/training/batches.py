"""Arrays in memory -> shuffled, scaled batches for training.

Images stay in the dtype of their file and become float32 in [0, 1] one batch at a time. Every
random choice (order, augmentation, noise) is a function of the seed, the epoch and the batch,
so any epoch can be produced again without running those before it.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from cae.config.choices import MAX_SEED
from cae.config.fields import Augmentation
from cae.data.datasets import Scaling
from cae.training import device
from cae.training.workers import Share

# Images handed to the device in one execution: enough to hide the overhead of a step, few
# enough that progress and Ctrl-C answer within about half a second.
IMAGES_PER_EXECUTION = 1024
# What is gathered at once stays in the processor's cache until it is used.
GATHERED_BYTES = 2**22
# An epoch of no more steps and bytes is cut from the arrays without `tf.data`, whose start takes
# 20 ms: longer than such an epoch.
SHORT_STEPS = 16
SHORT_BYTES = 2**26
# Batches that wait for the step before them to end.
PREPARED_BATCHES = 2
# Batch for everything that needs no gradients; larger ones gained nothing on 2 cores.
INFERENCE_BATCH_SIZE = 256
# All images of every batch: the share of a worker that trains alone.
WHOLE = Share()


class TrainingBatches:
    """Batches of one training set, in a new order every epoch.

    Args:
        images: (num_images, height, width, channels) in the file's dtype, or features of any
            shape and dtype when `scaling` is None.
        indices: int64 (num_training,), the images to train on.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        seed: Determines order, augmentation and noise.
        targets: int32 (num_images,) class indices; None trains images towards themselves.
        scaling: Turns images into float32 in [0, 1]; None leaves them as they are.
        dropout: Share of the values that become 0, in [0, 1), the others divided by 1 - dropout;
            for inputs that have `targets`. Srivastava et al. 2014, "Dropout: a simple way to
            prevent neural networks from overfitting".
        noise: Standard deviation of the Gaussian noise added to inputs in [0, 1] (targets stay
            clean), clipped back to [0, 1]. Vincent et al. 2008, "Extracting and composing robust
            features with denoising autoencoders".
        augmentation: Random rotation, shift and zoom, or None.
        share: Which images of every batch to produce; several shares draw different dropout, noise
            and augmentation, and each batch then ends with its `Share.get_counts`.

    Attributes:
        steps: Batches per epoch.
        steps_per_execution: How many of them to process in one call of the compiled step.
        batch_size: Images in the largest batch of this share.
    """

    def __init__(
        self,
        images: np.ndarray,
        indices: np.ndarray,
        batch_size: int,
        seed: int,
        *,
        targets: np.ndarray | None = None,
        scaling: Scaling | None = None,
        dropout: float = 0.0,
        noise: float = 0.0,
        augmentation: Augmentation | None = None,
        share: Share = WHOLE,
    ):
        self.steps = math.ceil(len(indices) / batch_size)
        self.steps_per_execution = get_steps_per_execution(batch_size, self.steps)
        self.batch_size = share.get_size(min(batch_size, len(indices)))
        self._arrays = _Arrays(images, targets, scaling)
        self._indices, self._batch_size_of_all, self._seed = indices, batch_size, seed
        self._dropout, self._noise, self._augmentation = dropout, noise, augmentation
        self._share = share
        self._add_counts = _get_counter(share, len(indices), batch_size)
        self._batches_at_once = self._arrays.count_at_once(self.batch_size, self.steps)
        self._epoch = tf.Variable(0, dtype=tf.int64)
        self._order: tuple[int, np.ndarray] = (-1, indices)  # an epoch, and its order
        needs_tensorflow = noise or augmentation is not None or share.count > 1
        self._is_short = not needs_tensorflow and self._arrays.is_short(len(indices), self.steps)
        self._dataset = None if self._is_short else self._make_dataset(0)

    def iterate(self, epoch: int, first_step: int = 0) -> Iterator[tuple]:
        """The batches of an epoch, (inputs, targets), as tensors or as NumPy arrays.

        Args:
            epoch: Counted from 0.
            first_step: How many batches to leave out at the start.
        """
        if self._is_short:
            return islice(self._cut(epoch), first_step, None)
        self._epoch.assign(epoch)
        return iter(self._make_dataset(first_step) if first_step else self._dataset)

    def _cut(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All batches of an epoch by NumPy alone."""
        for load in range(math.ceil(self.steps / self._batches_at_once)):
            chosen = self._choose(epoch, load)
            inputs = self._arrays.take(chosen)
            if self._dropout:
                inputs = self._drop(inputs, epoch, load)
            yield from self._arrays.cut(inputs, chosen, self.batch_size)

    def _make_dataset(self, first_step: int) -> tf.data.Dataset:
        """The same by `tf.data`, which prepares batches while others are trained on."""
        # Gathered in the same loads, wherever it starts: the same memory layout, the same rounding.
        first_load, skipped = divmod(first_step, self._batches_at_once)
        return (
            tf.data.Dataset.range(first_load, math.ceil(self.steps / self._batches_at_once))
            .map(self._load)
            .prefetch(1)
            .rebatch(self.batch_size)
            .skip(skipped)
            .enumerate(first_step)
            .map(self._prepare)
            .apply(tf.data.experimental.assert_cardinality(self.steps - first_step))
            .prefetch(PREPARED_BATCHES)
            .with_options(_get_options())
        )

    def _load(self, load: tf.Tensor) -> tuple:
        """Several batches, gathered at once."""
        chosen = _call(self._choose, [self._epoch, load], tf.int64)
        inputs, *labels = self._arrays.gather(tf.ensure_shape(chosen, (None,)))
        if self._dropout:
            dropped = _call(self._drop, [inputs, self._epoch, load], tf.float32)
            inputs = tf.ensure_shape(dropped, inputs.shape)
        return inputs, *labels

    def _prepare(self, step: tf.Tensor, batch: tuple) -> tuple:
        """One batch with everything that is random about it."""
        inputs, *labels = batch
        seed = tf.constant(self._seed + self._share.index * (MAX_SEED + 1), tf.int64)
        random_key = tf.stack([seed, self._epoch * self.steps + step])
        if self._augmentation is not None:
            inputs = augment(inputs, self._augmentation, random_key)
        targets = labels[0] if labels else inputs
        if self._noise:
            grain = tf.random.stateless_normal(tf.shape(inputs), random_key, stddev=self._noise)
            inputs = tf.clip_by_value(inputs + grain, 0.0, 1.0)
        return self._add_counts(step, (inputs, targets))

    def _choose(self, epoch: int, load: int) -> np.ndarray:
        """The images of several batches."""
        known_epoch, order = self._order
        if known_epoch != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(self._indices)
            order = self._share.take(order, self._batch_size_of_all)
            self._order = int(epoch), order
        at_once = self.batch_size * self._batches_at_once
        return order[load * at_once : (load + 1) * at_once]

    def _drop(self, inputs: np.ndarray, epoch: int, load: int) -> np.ndarray:
        # 0 would be the order's own random numbers: a seed's trailing zeros do not count.
        random = np.random.PCG64([self._seed, epoch, load + 1, self._share.index])
        return _drop(inputs, self._dropout, random)


class InferenceBatches:
    """The chosen images in order, unchanged but for the scaling.

    Arguments as for `TrainingBatches`.

    Attributes:
        steps: How many batches there are.
    """

    def __init__(
        self,
        images: np.ndarray,
        indices: np.ndarray,
        *,
        targets: np.ndarray | None = None,
        scaling: Scaling | None = None,
        share: Share = WHOLE,
    ):
        batch_size = INFERENCE_BATCH_SIZE * share.count  # of all shares together
        self.steps = math.ceil(len(indices) / batch_size)
        self._arrays = _Arrays(images, targets, scaling)
        self._chosen = share.take(indices, batch_size)
        self._dataset = None
        if share.count > 1 or not self._arrays.is_short(len(indices), self.steps):
            self._dataset = self._make_dataset(_get_counter(share, len(indices), batch_size))

    def iterate(self) -> Iterator[tuple]:
        """All batches, (inputs, targets), as tensors or as NumPy arrays."""
        if self._dataset is not None:
            return iter(self._dataset)
        inputs = self._arrays.take(self._chosen)
        return self._arrays.cut(inputs, self._chosen, INFERENCE_BATCH_SIZE)

    def _make_dataset(self, add_counts: Callable[[tf.Tensor, tuple], tuple]) -> tf.data.Dataset:
        batches_at_once = self._arrays.count_at_once(INFERENCE_BATCH_SIZE, self.steps)
        at_once = INFERENCE_BATCH_SIZE * batches_at_once
        chosen = tf.constant(self._chosen, tf.int64)

        def load(number: tf.Tensor) -> tuple:
            inputs, *labels = self._arrays.gather(chosen[number * at_once : (number + 1) * at_once])
            return inputs, *(labels or [inputs])

        return (
            tf.data.Dataset.range(math.ceil(len(self._chosen) / at_once))
            .map(load)
            .prefetch(1)
            .rebatch(INFERENCE_BATCH_SIZE)
            .enumerate()
            .map(add_counts)
            .apply(tf.data.experimental.assert_cardinality(self.steps))
            .prefetch(PREPARED_BATCHES)
            .with_options(_get_options())
        )


class _Arrays:
    """Images or encodings with their targets, gathered by NumPy: nothing is copied whole."""

    def __init__(self, images: np.ndarray, targets: np.ndarray | None, scaling: Scaling | None):
        self._images, self._targets, self._scaling = images, targets, scaling
        self._value_type = images.dtype if scaling is None else np.float32

    def take(self, chosen: np.ndarray) -> np.ndarray:
        """The chosen images; float32 in [0, 1] if they are scaled."""
        images = self._images[chosen]
        return images if self._scaling is None else self._scaling.apply(images)

    def cut(
        self, inputs: np.ndarray, chosen: np.ndarray, batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Batches of inputs that have been taken, with their targets."""
        targets = inputs if self._targets is None else self._targets[chosen]
        for start in range(0, len(chosen), batch_size):
            yield inputs[start : start + batch_size], targets[start : start + batch_size]

    def gather(self, chosen: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The chosen images, and their targets if there are any, in a graph."""
        taken = _call(self.take, [chosen], self._value_type, stateful=False)
        inputs = tf.ensure_shape(taken, (None, *self._images.shape[1:]))
        if self._targets is None:
            return (inputs,)
        return inputs, tf.gather(tf.constant(self._targets), chosen)

    def count_at_once(self, batch_size: int, steps: int) -> int:
        """How many batches to gather at once, so that Python is not asked every step."""
        return max(1, min(steps, GATHERED_BYTES // (batch_size * self._bytes_per_image)))

    def is_short(self, num_images: int, steps: int) -> bool:
        """Whether a pipeline would take longer to start than it would save."""
        return steps <= SHORT_STEPS and num_images * self._bytes_per_image <= SHORT_BYTES

    @property
    def _bytes_per_image(self) -> int:
        return math.prod(self._images.shape[1:]) * 4  # as float32


def get_steps_per_execution(batch_size: int, steps: int) -> int:
    """How many of an epoch's steps one call of the compiled step processes."""
    speed = device.GPU_SPEED if device.has_gpu() else 1  # in CPUs
    return max(1, min(steps, speed * IMAGES_PER_EXECUTION // batch_size))


def _get_options() -> tf.data.Options:
    """Turns the tuning thread off: an epoch could not end before its next round.

    Rounds are up to a minute apart. Measured with TensorFlow 2.21; see docs/performance.md.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _get_counter(
    share: Share, num_images: int, batch_size: int
) -> Callable[[tf.Tensor, tuple], tuple]:
    """A function that adds the counts of the share to a numbered batch, if there are others."""
    counts = tf.constant(share.get_counts(num_images, batch_size))

    def add_counts(batch_number: tf.Tensor, batch: tuple) -> tuple:
        return (*batch, counts[batch_number]) if share.count > 1 else batch

    return add_counts


def _call(method: Callable[..., np.ndarray], *arguments: Any, **options: Any) -> tf.Tensor:
    """Calls a method on arrays from a graph, without keeping its object alive.

    TensorFlow keeps what it is given until the program ends, with all arrays that it refers to.
    """
    reference = weakref.WeakMethod(method)
    return tf.numpy_function(lambda *arrays: reference()(*arrays), *arguments, **options)


def _drop(inputs: np.ndarray, rate: float, random: np.random.BitGenerator) -> np.ndarray:
    """Dropout with 16 random bits per value: a tenth of the time of TensorFlow's on a CPU."""
    bits = random.random_raw(math.ceil(inputs.size / 4)).view(np.uint16)
    kept = bits[: inputs.size].reshape(inputs.shape) >= round(rate * 2**16)
    outputs = inputs * kept
    outputs *= np.float32(1 / (1 - rate))
    return outputs


def augment(images: tf.Tensor, augmentation: Augmentation, random_key: tf.Tensor) -> tf.Tensor:
    """Rotates, shifts and zooms every image about its centre by its own random amounts.

    Args:
        images: float32 (batch, height, width, channels) in [0, 1].
        augmentation: Largest rotation in degrees, shift and zoom as shares of the size.
        random_key: int64 (2,), fixes the amounts.

    Returns:
        float32 images of the same shape; what moves in from outside is 0.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    amounts = tf.random.stateless_uniform((4, count), random_key, -1.0, 1.0)
    angle = amounts[0] * augmentation.rotation * math.pi / 180
    zoom = 1.0 + amounts[1] * augmentation.zoom
    shift_y = amounts[2] * augmentation.shift * height
    shift_x = amounts[3] * augmentation.shift * width
    # The op maps output to input coordinates: in = A · out + b, A a rotation over the zoom.
    cos, sin = tf.cos(angle) / zoom, tf.sin(angle) / zoom
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    offset_x = centre_x - cos * (centre_x + shift_x) + sin * (centre_y + shift_y)
    offset_y = centre_y - sin * (centre_x + shift_x) - cos * (centre_y + shift_y)
    none = tf.zeros_like(cos)
    transforms = tf.stack([cos, -sin, offset_x, sin, cos, offset_y, none, none], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=(height, width),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
