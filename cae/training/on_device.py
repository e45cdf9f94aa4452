"""Images that stay on a GPU: batches hold their numbers, and the model looks the images up there.

A step then waits for a few bytes per image instead of all its pixels as float32.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from cae.data.datasets import Scaling
from cae.training.steps import Batch, Objective

# Of images or encodings; the rest of a small GPU's memory is for training.
MOST_BYTES = 2 * 2**30
# How many times as many images as on a CPU go into one execution.
SPEED = 16


def is_possible(images: np.ndarray) -> bool:
    """Whether there is a GPU that can hold the images, and scale them as NumPy does.

    Args:
        images: (num_images, ...) in the file's dtype.
    """
    fits = images.nbytes <= MOST_BYTES
    is_exact = np.result_type(images.dtype, np.float32) == np.float32  # JAX has no float64
    return has_gpu() and fits and is_exact


def has_gpu() -> bool:
    """Whether Keras computes on anything but a CPU."""
    # Asked for GPUs alone, JAX fails where there are none.
    return not any("cpu" in device.lower() for device in keras.distribution.list_devices())


def look_up(
    model: keras.Model, images: np.ndarray, scaling: Scaling | None, *, to_itself: bool = False
) -> tuple[keras.Model, np.ndarray]:
    """A model that finds the images by their numbers, with the images on its device.

    Args:
        model: A functional model of images.
        images: (num_images, ...) in the file's dtype.
        scaling: Brings them to [0, 1]; None leaves them as they are.
        to_itself: Whether the images are an output as well, as `AgainstItself` needs them.

    Returns:
        The model, and the numbers of all images, int32 (num_images,).
    """
    numbers = keras.Input((), dtype="int32", name="numbers")
    found = Lookup(images, scaling)(numbers)
    outputs = (model(found), found) if to_itself else model(found)
    return keras.Model(numbers, outputs), np.arange(len(images), dtype=np.int32)


class Lookup(keras.layers.Layer):
    """Numbers of images -> these images.

    Args:
        images: (num_images, ...) in any dtype; kept on the device, and not trained.
        scaling: Brings them to [0, 1]; None leaves them as they are.
    """

    def __init__(self, images: np.ndarray, scaling: Scaling | None):
        super().__init__(name="lookup", dtype="float32")
        self._scaling = scaling
        self._images = self.add_weight(
            shape=images.shape,
            dtype=images.dtype.name,
            initializer=lambda shape, dtype: ops.convert_to_tensor(images, dtype),
            trainable=False,
            autocast=False,
        )

    def call(self, numbers: Any) -> Any:
        """int32 (batch,) -> float32 (batch, ...)."""
        found = ops.cast(ops.take(self._images, numbers, axis=0), "float32")
        if self._scaling is None:
            return found
        return ops.clip((found - self._scaling.offset) / self._scaling.scale, 0.0, 1.0)


class AgainstItself(Objective):
    """The objective of an autoencoder that looks images up: its second output is the target."""

    def forward(self, batch: Batch, training: bool) -> tuple[Any, Any]:
        """The reconstructions and the images, for (numbers, numbers)."""
        numbers, _ = batch
        return self.model(numbers, training=training)
