"""Arrays in memory -> shuffled, scaled batches for training, by `tf.data`.

Images stay in the dtype of their file and become float32 in [0, 1] one batch at a time. Every
random choice (order, augmentation, noise) is a function of the seed, the epoch and the batch,
so any epoch can be produced again without running those before it.
"""

import functools
import math
import os
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from cae.config.fields import MAX_SEED, Augmentation
from cae.data.datasets import Scaling
from cae.training import threads
from cae.training.workers import Share

# Images handed to the device in one execution: enough to hide the overhead of a step, few
# enough that progress and Ctrl-C answer within about half a second.
IMAGES_PER_EXECUTION = 1024
# What is gathered in one go stays in the processor's cache until it is used.
GATHERED_BYTES = 2**22
# Batches that wait for the step before them to end.
PREPARED_BATCHES = 2
# Batch for everything that needs no gradients; larger ones gained nothing on 2 cores.
INFERENCE_BATCH_SIZE = 256
# All images of every batch: the share of a worker that is alone.
WHOLE = Share()
# What is raised when memory runs out.
OUT_OF_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)


def steps_per_execution(batch_size: int, steps: int, speed: int = 1) -> int:
    """How many batches one call of the compiled function processes; `speed` is in CPUs."""
    return max(1, min(steps, speed * IMAGES_PER_EXECUTION // batch_size))


class TrainingBatches:
    """Batches of one training set, in a new order every epoch.

    Args:
        images: (num_images, height, width, channels) in the file's dtype, or features of any
            shape and dtype when `scaling` is None.
        indices: int64 (num_training,), the images to train on.
        batch_size: Images a batch; the last batch of an epoch may be smaller.
        seed: Fixes order, augmentation and noise.
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
        dataset: The `tf.data.Dataset`; an iteration over it is the epoch numbered `epoch`.
        steps: Batches an epoch.
        batch_size: Images in the largest of them.
        get_arrays: Iterates over the same batches as NumPy arrays, which starts in less time; None
            where TensorFlow computes what is random.
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
        self.batch_size = share.get_size(min(batch_size, len(indices)))
        self._epoch = tf.Variable(0, dtype=tf.int64)
        batches_at_once = _batches_at_once(images, self.batch_size, self.steps)
        at_once = self.batch_size * batches_at_once
        add_counts = _get_counter(share, len(indices), batch_size)
        take, shape, dtype = _get_source(images, scaling)

        @functools.lru_cache(maxsize=1)
        def get_order(epoch: int) -> np.ndarray:
            return share.take(np.random.default_rng([seed, epoch]).permutation(indices), batch_size)

        def choose(epoch: np.int64, execution: np.int64) -> np.ndarray:
            return get_order(int(epoch))[execution * at_once : (execution + 1) * at_once]

        def load(execution: tf.Tensor) -> tuple:
            chosen = _call(choose, [self._epoch, execution], tf.int64)
            chosen = tf.ensure_shape(chosen, (None,))
            inputs, *labels = _gather(take, chosen, shape, dtype, targets)
            if dropout:
                dropped = _call(drop, [inputs, self._epoch, execution], tf.float32)
                inputs = tf.ensure_shape(dropped, inputs.shape)
            return inputs, *labels

        def drop(inputs: np.ndarray, epoch: np.int64, execution: np.int64) -> np.ndarray:
            # 0 would be the order's own random numbers: a seed's trailing zeros do not count.
            return _drop(
                inputs, dropout, np.random.PCG64([seed, epoch, execution + 1, share.index])
            )

        def prepare(batch_number: tf.Tensor, batch: tuple) -> tuple:
            inputs, *labels = batch
            random_key = tf.stack(
                [
                    tf.constant(seed + share.index * (MAX_SEED + 1), tf.int64),
                    self._epoch * self.steps + batch_number,
                ]
            )
            if augmentation is not None:
                inputs = augment(inputs, augmentation, random_key)
            outputs = labels[0] if labels else inputs
            if noise:
                grain = tf.random.stateless_normal(tf.shape(inputs), random_key, stddev=noise)
                inputs = tf.clip_by_value(inputs + grain, 0.0, 1.0)
            return add_counts(batch_number, (inputs, outputs))

        def make_dataset(first_step: int) -> tf.data.Dataset:
            # Gathered where they would be without it: the same memory layout, the same rounding.
            first_load, skipped = divmod(first_step, batches_at_once)
            return (
                tf.data.Dataset.range(first_load, math.ceil(self.steps / batches_at_once))
                .map(load)
                .prefetch(1)
                .rebatch(self.batch_size)
                .skip(skipped)
                .enumerate(first_step)
                .map(prepare)
                .apply(tf.data.experimental.assert_cardinality(self.steps - first_step))
                .prefetch(PREPARED_BATCHES)
                .with_options(_get_options())
            )

        def make_arrays() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for execution in range(math.ceil(self.steps / batches_at_once)):
                chosen = choose(self.epoch, execution)
                inputs = take(chosen)
                if dropout:
                    inputs = drop(inputs, self.epoch, execution)
                outputs = inputs if targets is None else targets[chosen]
                for start in range(0, len(chosen), batch_size):
                    part = slice(start, start + batch_size)
                    yield inputs[part], outputs[part]

        self._make_dataset = make_dataset
        self.dataset = make_dataset(0)
        needs_tensorflow = noise or augmentation is not None or share.count > 1
        self.get_arrays = None if needs_tensorflow else make_arrays

    def from_step(self, step: int) -> tf.data.Dataset:
        """The epoch without its first `step` batches."""
        return self._make_dataset(step)

    @property
    def epoch(self) -> int:
        """Which epoch the next iteration produces, counted from 0; set it before each."""
        return int(self._epoch)

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch.assign(epoch)


def device_name() -> str:
    """What TensorFlow computes on, in words."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"CPU, {os.cpu_count()} cores"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return ", ".join(f"GPU {name or 'of unknown name'}" for name in names)


def computes_bfloat16() -> bool:
    """Whether the device has instructions for bfloat16; without them it is slower than float32."""
    return bool(tf.config.list_physical_devices("GPU")) or threads.computes_bfloat16()


def inference_batches(
    images: np.ndarray,
    indices: np.ndarray,
    *,
    targets: np.ndarray | None = None,
    scaling: Scaling | None = None,
    share: Share = WHOLE,
) -> tf.data.Dataset:
    """The chosen images in order, unchanged but for the scaling, as (inputs, targets) batches.

    Arguments as for `TrainingBatches`; without `targets` the inputs are their own targets.
    """
    batch_size = INFERENCE_BATCH_SIZE * share.count  # of all shares together

    def load(execution: tf.Tensor) -> tuple:
        part = chosen[execution * at_once : (execution + 1) * at_once]
        inputs, *labels = _gather(take, part, shape, dtype, targets)
        return inputs, *(labels or [inputs])

    take, shape, dtype = _get_source(images, scaling)
    chosen = tf.constant(share.take(indices, batch_size), tf.int64)
    steps = math.ceil(len(indices) / batch_size)
    at_once = INFERENCE_BATCH_SIZE * _batches_at_once(images, INFERENCE_BATCH_SIZE, steps)
    return (
        tf.data.Dataset.range(math.ceil(len(chosen) / at_once))
        .map(load)
        .prefetch(1)
        .rebatch(INFERENCE_BATCH_SIZE)
        .enumerate()
        .map(_get_counter(share, len(indices), batch_size))
        .apply(tf.data.experimental.assert_cardinality(steps))
        .prefetch(PREPARED_BATCHES)
        .with_options(_get_options())
    )


def _get_options() -> tf.data.Options:
    """Without the thread that tunes: now and then the end of an epoch waited for its next round.

    Rounds are up to a minute apart. Measured with TensorFlow 2.21, see docs/performance.md.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def _get_counter(
    share: Share, num_images: int, batch_size: int
) -> Callable[[tf.Tensor, tuple], tuple]:
    """What adds the counts of its share to a numbered batch; nothing to the only share."""
    counts = tf.constant(share.get_counts(num_images, batch_size))

    def add_counts(batch_number: tf.Tensor, batch: tuple) -> tuple:
        return (*batch, counts[batch_number]) if share.count > 1 else batch

    return add_counts


def _batches_at_once(images: np.ndarray, batch_size: int, steps: int) -> int:
    """How many batches are gathered in one go, so that Python is not asked every step."""
    fitting = GATHERED_BYTES // (batch_size * math.prod(images.shape[1:]) * 4)
    return max(1, min(steps, fitting))


def _get_source(
    images: np.ndarray, scaling: Scaling | None
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[int | None, ...], Any]:
    """What takes chosen images, as float32 in [0, 1] if they are scaled, their shape and dtype.

    numpy gathers, so that nothing is copied whole.
    """

    def take(chosen: np.ndarray) -> np.ndarray:
        return images[chosen] if scaling is None else scaling.apply(images[chosen])

    return take, (None, *images.shape[1:]), images.dtype if scaling is None else np.float32


def _gather(
    take: Callable[[np.ndarray], np.ndarray],
    chosen: tf.Tensor,
    shape: tuple[int | None, ...],
    dtype: Any,
    targets: np.ndarray | None,
) -> tuple[tf.Tensor, ...]:
    """The chosen images with a known shape, and their targets if there are any."""
    batch = tf.ensure_shape(_call(take, [chosen], dtype, stateful=False), shape)
    return (batch,) if targets is None else (batch, tf.gather(tf.constant(targets), chosen))


def _call(function: Callable[..., np.ndarray], *arguments: Any, **options: Any) -> tf.Tensor:
    """Calls a function of arrays from a graph, as long as somebody else keeps that function.

    TensorFlow keeps what it is given until the program ends, with all arrays that it refers to.
    """
    reference = weakref.ref(function)
    return tf.numpy_function(lambda *arrays: reference()(*arrays), *arguments, **options)


def _drop(inputs: np.ndarray, rate: float, random: np.random.BitGenerator) -> np.ndarray:
    """Dropout with 16 random bits a value: a tenth of the time of TensorFlow's on a CPU."""
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
