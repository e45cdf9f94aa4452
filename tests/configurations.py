"""Configurations of both programs, how tests read them, and what is said of wrong ones."""

import json

import pytest

from cae.config.load import parse_config
from cae.errors import ConfigurationError

AUTOENCODER = {
    "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 32, [3, 3]]],
    "optimizer": ["adam", 0.001],
    "batch_size": 32,
    "epochs": 10,
    "activation_function": "Sigmoid",
}
CLASSIFIER = {
    "dense_layers": [["dense", 64]],
    "optimizer": ["adam", 0.001, 0.0005],
    "dense_only_train_epochs": 5,
    "full_train_epochs": 10,
    "batch_size": 64,
}
DOCUMENTS = {"autoencoder": AUTOENCODER, "classifier": CLASSIFIER}


def parse(document, kind="autoencoder"):
    return parse_config(json.dumps(document), "my.json", kind)


def autoencoder(**changes):
    return parse(AUTOENCODER | changes)


def lines(document, kind="autoencoder"):
    """The error lines of a document, or of JSON text."""
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, "my.json", kind)
    return caught.value.lines
