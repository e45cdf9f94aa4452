"""Arrays in memory -> shuffled, scaled batches for training.

Images stay in the dtype of their file and become float32 in [0, 1] one batch at a time. Every
random choice (order, augmentation, corruption) is a function of the seed, the epoch and the batch,
so any epoch can be produced again without running those before it.
"""

import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import tensorflow as tf

from cae.config.choices import MAX_SEED
from cae.config.fields import Augmentation
from cae.data.datasets import Scaling
from cae.training import device
from cae.training.augment import augment, fold_in

# Images handed to the device in one execution: enough to hide the overhead of a step, few
# enough that progress and Ctrl-C answer within about half a second.
IMAGES_PER_EXECUTION = 1024
# What is gathered at once stays in the processor's cache until it is used.
GATHERED_BYTES = 2**22
# An epoch of no more steps and bytes is cut from the arrays without `tf.data`, whose start takes
# 20 ms: longer than such an epoch.
SHORT_STEPS = 16
SHORT_BYTES = 2**26
# Sets the random numbers of a second view apart; `augment` uses 1, 2 and 4, a corruption 0.
SECOND_VIEW = 3
# Batches that wait for the step before them to end.
PREPARED_BATCHES = 2
# Batch for everything that needs no gradients; larger ones gained nothing on 2 cores.
INFERENCE_BATCH_SIZE = 256


@dataclass(frozen=True)
class Share:
    """One worker's images of every batch.

    No share is empty: if a batch has fewer images than there are workers, the remaining workers get
    an image too, which `get_counts` excludes.
    """

    index: int = 0  # of the worker
    count: int = 1  # of workers

    def take(self, indices: np.ndarray, batch_size: int) -> np.ndarray:
        """The part of int64 (num_images,) in this share, one batch after the other."""
        batches = [indices[start:] for start in range(0, len(indices), batch_size)]
        return np.concatenate([self._take_of(batch[:batch_size]) for batch in batches])

    def get_size(self, batch_size: int) -> int:
        """How many images of a whole batch are in this share."""
        return len(self._take_of(np.arange(batch_size)))

    def get_counts(self, num_images: int, batch_size: int) -> np.ndarray:
        """float32 (num_batches, 2): images of each batch to count in this share, and in all."""
        sizes = np.array(
            [min(batch_size, num_images - start) for start in range(0, num_images, batch_size)]
        )
        counted = sizes // self.count + (self.index < sizes % self.count)
        return np.stack([counted, sizes], axis=1).astype(np.float32)

    def _take_of(self, batch: np.ndarray) -> np.ndarray:
        part = np.array_split(batch, self.count)[self.index]
        return part if len(part) else batch[:1]


# All images of every batch: the share of a worker that trains alone.
WHOLE = Share()


class Batches:
    """Batches of the chosen images: in a new order every epoch, or always in the order given.

    Args:
        images: (num_images, height, width, channels) in the file's dtype, or features of any
            shape and dtype when `scaling` is None.
        indices: int64 (num_chosen,), the images to use.
        batch_size: Images per batch; the last batch of an epoch may be smaller.
        seed: Determines every random choice; None keeps the order of `indices`.
        images_per_epoch: By default all once. Otherwise passes over the images, each in a new
            order, follow one another, and an epoch takes the next so many.
        targets: int32 (num_images,) class indices; None trains images towards themselves.
        scaling: Turns images into float32 in [0, 1]; None leaves them as they are.
        dropout: Share of the values that become 0, in [0, 1), the others divided by 1 - dropout;
            for inputs that have `targets`. Srivastava et al. 2014, "Dropout: a simple way to
            prevent neural networks from overfitting".
        augmentation: Random changes of inputs in [0, 1], or None. Without `targets` these inputs
            are the targets.
        corruption: Further changes of the inputs alone, or None. Vincent et al. 2008, "Extracting
            and composing robust features with denoising autoencoders".
        second_view: Other changes of the same images, or None; batches are then (inputs, the
            second view, targets).
        share: Which images of every batch to produce; several shares draw different random
            numbers, and each batch then ends with its `Share.get_counts`.

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
        seed: int | None = None,
        *,
        images_per_epoch: int | None = None,
        targets: np.ndarray | None = None,
        scaling: Scaling | None = None,
        dropout: float = 0.0,
        augmentation: Augmentation | None = None,
        corruption: Augmentation | None = None,
        second_view: Augmentation | None = None,
        share: Share = WHOLE,
    ):
        size = images_per_epoch or len(indices)
        self.steps = math.ceil(size / batch_size)
        speed = device.GPU_SPEED if device.has_gpu() else 1  # times that of a CPU
        steps_per_execution = speed * IMAGES_PER_EXECUTION // batch_size
        self.steps_per_execution = max(1, min(self.steps, steps_per_execution))
        self.batch_size = share.get_size(min(batch_size, size))
        self._images, self._targets, self._scaling = images, targets, scaling
        self._indices, self._batch_size_of_all, self._seed = indices, batch_size, seed
        self._images_per_epoch = size
        self._dropout, self._augmentation, self._corruption = dropout, augmentation, corruption
        self._second_view = second_view
        self._share = share
        self._counts = share.get_counts(size, batch_size)
        # A load is gathered at once, so that Python is not asked every step.
        image_bytes = math.prod(images.shape[1:]) * 4  # as float32
        at_once = GATHERED_BYTES // (self.batch_size * image_bytes)
        self._batches_per_load = max(1, min(self.steps, at_once))
        self._loads = math.ceil(self.steps / self._batches_per_load)
        self._epoch = tf.Variable(0, dtype=tf.int64)
        self._order: tuple[int, np.ndarray] = (-1, indices)  # an epoch, and its order
        needs_tensorflow = augmentation or corruption or second_view or share.count > 1
        is_small = self.steps <= SHORT_STEPS and size * image_bytes <= SHORT_BYTES
        self._dataset = None if is_small and not needs_tensorflow else self._make_dataset(0)

    def iterate(self, epoch: int = 0, first_step: int = 0) -> Iterator[tuple]:
        """The batches of an epoch, (inputs, targets), as tensors or as NumPy arrays.

        Args:
            epoch: Counted from 0.
            first_step: How many batches to leave out at the start.
        """
        if self._dataset is None:
            return islice(self._cut(epoch), first_step, None)
        return iter(self.get_dataset(epoch, first_step))

    def get_dataset(self, epoch: int = 0, first_step: int = 0) -> tf.data.Dataset:
        """The same as a `tf.data.Dataset`, to be read before the next epoch's."""
        self._epoch.assign(epoch)
        if self._dataset is None or first_step:
            return self._make_dataset(first_step)
        return self._dataset

    def _cut(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All batches of an epoch by NumPy alone."""
        for number in range(self._loads):
            arrays = self._load(epoch, number)
            for start in range(0, len(arrays[0]), self.batch_size):
                inputs, *labels = (array[start : start + self.batch_size] for array in arrays)
                yield inputs, *(labels or [inputs])

    def _make_dataset(self, first_step: int) -> tf.data.Dataset:
        """The same by `tf.data`, which prepares batches while others are trained on."""
        # Gathered in the same loads, wherever it starts: the same memory layout, the same rounding.
        first_load, skipped = divmod(first_step, self._batches_per_load)
        # The tuner would hold up the end of an epoch until its next round, up to a minute later.
        # Measured with TensorFlow 2.21; see docs/performance.md.
        options = tf.data.Options()
        options.autotune.enabled = False
        return (
            tf.data.Dataset.range(first_load, self._loads)
            .map(self._load_tensors)
            .prefetch(1)
            .rebatch(self.batch_size)
            .skip(skipped)
            .enumerate(first_step)
            .map(self._prepare)
            .apply(tf.data.experimental.assert_cardinality(self.steps - first_step))
            .prefetch(PREPARED_BATCHES)
            .with_options(options)
        )

    def _load(self, epoch: int, number: int) -> list[np.ndarray]:
        """The inputs of several batches, and their targets if these are no inputs."""
        chosen = self._choose(epoch, number)
        inputs = self._images[chosen]
        if self._scaling is not None:
            inputs = self._scaling.apply(inputs)
        if self._dropout:
            # From 1: NumPy ignores zeros that end a seed, so 0 would repeat the order's numbers.
            random = np.random.PCG64([self._seed, epoch, number + 1, self._share.index])
            inputs = _drop(inputs, self._dropout, random)
        return [inputs] if self._targets is None else [inputs, self._targets[chosen]]

    def _choose(self, epoch: int, number: int) -> np.ndarray:
        """The images of several batches."""
        known_epoch, order = self._order
        if known_epoch != epoch:
            order = self._share.take(self._draw_order(int(epoch)), self._batch_size_of_all)
            self._order = int(epoch), order
        load_size = self.batch_size * self._batches_per_load
        return order[number * load_size : (number + 1) * load_size]

    def _draw_order(self, epoch: int) -> np.ndarray:
        """The images of an epoch, in their order."""
        if self._seed is None:
            return self._indices
        count, size = len(self._indices), self._images_per_epoch
        start = epoch * size
        first, end = start // count, -(-(start + size) // count)
        passes = [
            np.random.default_rng([self._seed, number]).permutation(self._indices)
            for number in range(first, end)
        ]
        return np.concatenate(passes)[start - first * count :][:size]

    def _load_tensors(self, number: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """The same in a graph.

        TensorFlow keeps what it calls until the program ends, with all that it refers to; by a
        weak reference the arrays are freed with their batches.
        """
        load = weakref.WeakMethod(self._load)
        like = [array[:0] for array in self._load(0, 0)]
        loaded = tf.numpy_function(
            lambda *place: load()(*place), [self._epoch, number], [array.dtype for array in like]
        )
        return tuple(
            tf.ensure_shape(tensor, (None, *array.shape[1:]))
            for tensor, array in zip(loaded, like, strict=True)
        )

    def _prepare(self, step: tf.Tensor, batch: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
        """One batch with everything that is random about it."""
        inputs, *labels = batch
        seed = tf.constant((self._seed or 0) + self._share.index * (MAX_SEED + 1), tf.int64)
        random_key = tf.stack([seed, self._epoch * self.steps + step])
        second = []
        if self._second_view is not None:
            second = [augment(inputs, self._second_view, fold_in(random_key, SECOND_VIEW))]
        if self._augmentation is not None:
            inputs = augment(inputs, self._augmentation, random_key)
        targets = labels[0] if labels else inputs
        if self._corruption is not None:
            inputs = augment(inputs, self._corruption, fold_in(random_key, 0))
        if self._share.count == 1:
            return inputs, *second, targets
        return inputs, *second, targets, tf.constant(self._counts)[step]


def _drop(inputs: np.ndarray, rate: float, random: np.random.BitGenerator) -> np.ndarray:
    """Dropout with 16 random bits per value: a tenth of the time of TensorFlow's on a CPU."""
    bits = random.random_raw(math.ceil(inputs.size / 4)).view(np.uint16)
    kept = bits[: inputs.size].reshape(inputs.shape) >= round(rate * 2**16)
    outputs = inputs * kept
    outputs *= np.float32(1 / (1 - rate))
    return outputs
