"""The frozen encoder: its encodings are computed once."""

import math

import keras
import numpy as np

from cae.config.schema import ClassifierConfig
from cae.data.datasets import Scaling
from cae.records.history import DENSE_ONLY
from cae.training import on_device
from cae.training.build import chain_layers
from cae.training.features import get_features
from cae.training.layers import InferenceMode
from cae.training.predict import predict

# The frozen phase keeps the encodings of all images in memory up to this size (60,000 MNIST
# images through the small encoder take 0.75 GB) and runs the encoder again every epoch above it.
FEATURE_CACHE_BYTES = 2 * 2**30


def freeze_encoder(
    model: keras.Model, config: ClassifierConfig, images: np.ndarray, scaling: Scaling
) -> tuple[keras.Model, np.ndarray, Scaling | None, float]:
    """What to train, on what, while the encoder is frozen and in inference mode.

    Then it is a constant function: its output is computed once, unless the images change every
    epoch (augmentation) or the output would not fit in `FEATURE_CACHE_BYTES`. Dropout of that
    output is the last value returned: done with the batches, it costs a CPU a fraction.
    """
    encoder, head = model.get_layer("encoder"), model.get_layer("fully_connected")
    feature_bytes = len(images) * math.prod(encoder.output_shape[1:]) * 4
    if config.augmentation is None and feature_bytes <= FEATURE_CACHE_BYTES:
        depends_on = (encoder.to_json(), *encoder.get_weights(), images, repr(scaling))
        features = get_features(lambda: predict(encoder, images, scaling), depends_on)
        _, flatten, *hidden = head.layers  # the first is its input
        dropout = 0.0
        if isinstance(hidden[0], keras.layers.Dropout) and not on_device.has_gpu():
            dropout = hidden.pop(0).rate
        trained = chain_layers([flatten, *hidden], encoder.output_shape[1:], DENSE_ONLY)
        return trained, features, None, dropout
    encoder.trainable = False
    frozen = InferenceMode(encoder)(model.inputs[0])
    return keras.Model(model.inputs, head(frozen), name=DENSE_ONLY), images, scaling, 0.0
