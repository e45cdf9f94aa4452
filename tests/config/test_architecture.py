"""Layers in words."""

import pytest
from artists import AUTOENCODER

from cae.config.architecture import describe_architecture


def test_an_autoencoder():
    assert describe_architecture(AUTOENCODER) == (
        "conv 32 3×3 → pool 2×2 → conv 64 3×3 | conv 64 3×3 → upSample 2×2 → conv 32 3×3"
    )


def test_pool_in_a_decoder_is_upsampling():
    info = {"encoder_layers": [["pool", [2, 2]]], "decoder_layers": [["pool", [2, 2]]]}
    assert describe_architecture(info) == "pool 2×2 | upSample 2×2"


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("saved/small.keras", "encoder of small.keras"),
        (None, "encoder"),
        ([["batchNorm"], ["drop", 0.25]], "batchNorm → drop 0.25"),
        ([["conv", 8, [3, 3], [2, 1]], ["dense", 4]], "conv 8 3×3 stride 2×1 → dense 4"),
    ],
)
def test_a_classifier(encoder, words):
    info = {"encoder_layers": encoder, "dense_layers": [["dense", 64], ["drop", 0.5]]}
    assert describe_architecture(info) == f"{words} | dense 64 → drop 0.5"
    assert describe_architecture({**info, "dense_layers": []}) == words
