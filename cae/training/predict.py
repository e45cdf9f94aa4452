"""Prediction: runs a model on many images."""

import math

import keras
import numpy as np

from cae.data.datasets import Scaling
from cae.training.batches import IMAGES_PER_EXECUTION
from cae.training.layers import get_predictor

# Images per part. Half as many and four times as many were no faster on 2 cores.
PART_SIZE = 64


def predict(
    model: keras.Model,
    images: np.ndarray,
    scaling: Scaling,
    indices: np.ndarray | None = None,
) -> np.ndarray:
    """Runs a model on images into one array.

    Args:
        model: An autoencoder, encoder or classifier.
        images: (num_images, height, width, channels) in the file's dtype.
        scaling: Brings them to [0, 1].
        indices: int64 (num_chosen,), the images to use; all by default.

    Returns:
        float32 (num_chosen, ...): reconstructions, encodings or probabilities.
    """
    indices = np.arange(len(images)) if indices is None else indices
    outputs = np.empty((len(indices), *model.output_shape[1:]), np.float32)
    predictor = get_predictor(model, PART_SIZE)
    parts = max(1, min(IMAGES_PER_EXECUTION // PART_SIZE, math.ceil(len(indices) / PART_SIZE)))
    # The number of parts never changes, because any other would be compiled anew: zeros fill up.
    batch = np.zeros((parts * PART_SIZE, *images.shape[1:]), np.float32)
    done = 0
    for chosen in chunks(indices, len(batch)):
        batch[: len(chosen)] = scaling.apply(images[chosen])
        predicted = predictor(batch.reshape(parts, PART_SIZE, *images.shape[1:]))
        predicted = predicted.reshape(-1, *predicted.shape[2:])
        outputs[done : done + len(chosen)] = predicted[: len(chosen)]
        done += len(chosen)
    return outputs


def first_filters(model: keras.Model) -> np.ndarray | None:
    """The kernels of the encoder's first convolution, float32 (height, width, in, filters)."""
    for layer in model.get_layer("encoder").layers:
        if isinstance(layer, keras.layers.Conv2D):
            return layer.get_weights()[0]
    return None


def chunks(indices: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    """The indices in parts of at most that size."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]
