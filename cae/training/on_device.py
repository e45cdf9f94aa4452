"""Images that stay on a GPU: batches bring their numbers, and the model looks them up there.

A step then waits for a few bytes an image, instead of all its pixels as float32.
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from cae.data.datasets import Scaling

# Of images or encodings; the rest of a small GPU's memory is for training.
MOST_BYTES = 2 * 2**30
# Of a GPU, in CPUs: so many times as many images go into one execution.
SPEED = 16


def is_possible(images: np.ndarray) -> bool:
    """Whether there is a GPU, and whether it can hold the images and scale them as NumPy does.

    Args:
        images: (num_images, ...) in the file's dtype.
    """
    fits = images.nbytes <= MOST_BYTES
    is_exact = np.result_type(images.dtype, np.float32) == np.float32  # JAX has no float64
    return has_gpu() and fits and is_exact


def has_gpu() -> bool:
    """Whether Keras computes on something else than a CPU."""
    # Asked for GPUs alone, JAX fails where there are none.
    return not any("cpu" in device.lower() for device in keras.distribution.list_devices())


def look_up(
    model: keras.Model, images: np.ndarray, scaling: Scaling | None, *, to_itself: bool = False
) -> tuple[keras.Model, np.ndarray]:
    """The same model of numbers of images, with the images on its device.

    Args:
        model: A functional model of images.
        images: (num_images, ...) in the file's dtype.
        scaling: Brings them to [0, 1]; None leaves them as they are.
        to_itself: Whether the images are also the targets, whatever targets `fit` is given.

    Returns:
        The model for training, and the numbers of all images, int32 (num_images,).
    """
    numbers = np.arange(len(images), dtype=np.int32)
    inputs = keras.Input((), dtype="int32", name="numbers")
    found = Lookup(images, scaling)(inputs)
    if to_itself:
        return AgainstItself(inputs, (model(found), found), name=model.name), numbers
    return keras.Model(inputs, model(found), name=model.name), numbers


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


class AgainstItself(keras.Model):
    """A model of two outputs, of which the first is trained to be the second."""

    def compute_loss(
        self, x: Any, y: Any, y_pred: tuple, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """As of `keras.Model`, whatever the targets `y`."""
        outputs, images = y_pred
        return super().compute_loss(x, images, outputs, sample_weight, training)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: tuple, sample_weight: Any = None
    ) -> dict[str, Any]:
        """As of `keras.Model`, whatever the targets `y`."""
        outputs, images = y_pred
        return super().compute_metrics(x, images, outputs, sample_weight)
