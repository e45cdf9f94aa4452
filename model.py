"""Builds and trains models from Python: the functions of `cae.training` under one name.

Example:
    import numpy as np
    from model import get_autoencoder, get_scaling, predict, train_autoencoder

    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
    model_info = {
        "encoder_layers": [["conv", 4, [3, 3]], ["pool", [2, 2]]],
        "decoder_layers": [["upSample", [2, 2]], ["conv", 4, [3, 3]]],
        "optimizer": ["adam", 0.001],
        "batch_size": 32,
        "epochs": 1,
    }
    model = get_autoencoder(model_info, images.shape[1:])
    history = train_autoencoder(model, model_info, images)
    reconstructions = predict(model, images, get_scaling(images))  # float32, in [0, 1]
"""

from cae.data.datasets import get_scaling
from cae.training.build import get_autoencoder, get_classifier
from cae.training.predict import predict
from cae.training.train import train_autoencoder, train_classifier

# The names of the original program.
get_Autoencoder = get_autoencoder
train_Autoencoder = train_autoencoder
get_Classifier = get_classifier
train_Classifier = train_classifier

__all__ = [
    "get_Autoencoder",
    "get_Classifier",
    "get_autoencoder",
    "get_classifier",
    "get_scaling",
    "predict",
    "train_Autoencoder",
    "train_Classifier",
    "train_autoencoder",
    "train_classifier",
]
