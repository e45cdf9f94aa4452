"""Runs a model over many images: predictions, and the encodings of a frozen encoder.

Studies import this before Keras, which therefore loads inside the functions.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

import numpy as np

from cae import terminal
from cae.config.schema import ClassifierConfig
from cae.data.datasets import Scaling
from cae.records.history import DENSE_ONLY

if TYPE_CHECKING:
    import keras

# Images per part. Half as many and four times as many were no faster on 2 cores.
PART_SIZE = 64
MOST_PARTS = 16  # in one execution
# The frozen phase keeps the encodings of all images in memory up to this size (60,000 MNIST
# images through the small encoder take 0.75 GB) and runs the encoder again every epoch above it.
ENCODINGS_BYTES = 2 * 2**30
# The encodings kept, by the hash of what they depend on; None where nothing is shared.
_shared: ContextVar[dict[str, np.ndarray] | None] = ContextVar("shared", default=None)


def predict(
    model: "keras.Model",
    images: np.ndarray,
    scaling: Scaling,
    indices: np.ndarray | None = None,
) -> np.ndarray:
    """Runs a model on images, and returns all outputs in one array.

    Args:
        model: An autoencoder, encoder or classifier.
        images: (num_images, height, width, channels) in the file's dtype.
        scaling: Brings them to [0, 1].
        indices: int64 (num_chosen,), the images to use; all by default.

    Returns:
        float32 (num_chosen, ...): reconstructions, encodings or probabilities.
    """
    from cae.training.layers import get_predictor

    indices = np.arange(len(images)) if indices is None else indices
    outputs = np.empty((len(indices), *model.output_shape[1:]), np.float32)
    predictor = get_predictor(model, PART_SIZE)
    parts = max(1, min(MOST_PARTS, math.ceil(len(indices) / PART_SIZE)))
    # The number of parts never changes, because any other would be compiled anew. Zeros or earlier
    # images fill up, and their outputs are dropped.
    batch = np.zeros((parts * PART_SIZE, *images.shape[1:]), np.float32)
    done = 0
    for chosen in chunks(indices, len(batch)):
        batch[: len(chosen)] = scaling.apply(images[chosen])
        predicted = predictor(batch.reshape(parts, PART_SIZE, *images.shape[1:]))
        predicted = predicted.reshape(-1, *predicted.shape[2:])
        outputs[done : done + len(chosen)] = predicted[: len(chosen)]
        done += len(chosen)
    return outputs


def chunks(indices: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    """The indices in parts of at most that size."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def freeze_encoder(
    model: "keras.Model", config: ClassifierConfig, images: np.ndarray, scaling: Scaling
) -> tuple["keras.Model", np.ndarray, Scaling | None, float]:
    """What to train while the encoder is frozen and in inference mode, and on which inputs.

    The frozen encoder is a constant function: its output is computed once, unless the images change
    every epoch (augmentation) or the output would exceed `ENCODINGS_BYTES`.

    Returns:
        The model to train, its inputs, how they are scaled, and a dropout rate for them: on a CPU,
        batches with dropout cost less than a layer.
    """
    import keras

    from cae.training import device
    from cae.training.build import chain_layers
    from cae.training.layers import InferenceMode

    encoder, head = model.get_layer("encoder"), model.get_layer("fully_connected")
    encodings_bytes = len(images) * math.prod(encoder.output_shape[1:]) * 4
    if config.augmentation is not None or encodings_bytes > ENCODINGS_BYTES:
        encoder.trainable = False
        outputs = head(InferenceMode(encoder)(model.inputs[0]))
        return keras.Model(model.inputs, outputs, name=DENSE_ONLY), images, scaling, 0.0
    depends_on = (encoder.to_json(), *map(np.asarray, encoder.get_weights()), images, repr(scaling))
    with terminal.announcing(f"Encoding {len(images):,} images"):
        features = get_encodings(lambda: predict(encoder, images, scaling), depends_on)
    _, flatten, *hidden = head.layers  # the first is its input
    dropout = 0.0
    if isinstance(hidden[0], keras.layers.Dropout) and not device.has_gpu():
        dropout = hidden.pop(0).rate
    trained = chain_layers([flatten, *hidden], encoder.output_shape[1:], DENSE_ONLY)
    return trained, features, None, dropout


@contextmanager
def sharing_encodings() -> Iterator[None]:
    """Keeps the last encodings while it is open, for the next training that needs the same.

    One set at a time, because a set can take gigabytes; none is kept afterwards.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def get_encodings(
    compute: Callable[[], np.ndarray], depends_on: Iterable[np.ndarray | str]
) -> np.ndarray:
    """The encodings that `compute` returns, or those kept from an earlier call.

    `depends_on` is everything that decides the result: weights, layers, images, their scaling.
    """
    shared = _shared.get()
    if shared is None:
        return compute()
    key = _hash(depends_on)
    if key not in shared:
        shared.clear()  # before the next ones need memory
        shared[key] = compute()
    return shared[key]


def _hash(parts: Iterable[np.ndarray | str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part))
        else:
            digest.update(part.encode())
    return digest.hexdigest()
