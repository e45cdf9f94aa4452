"""Layers in words."""

import pytest
from artists import AUTOENCODER

from cae.config.architecture import describe_architecture

HEAD = {"dense_layers": [["dense", 64], ["drop", 0.5]]}


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (AUTOENCODER, "conv 32 3×3 → pool 2×2 → conv 64 3×3 | "
         "conv 64 3×3 → upSample 2×2 → conv 32 3×3"),
        ({"encoder_layers": [["batchNorm"]], "decoder_layers": [["pool", [2, 2]]]},
         "batchNorm | upSample 2×2"),
        (HEAD | {"encoder_layers": "saved/small.keras"},
         "encoder of small.keras | dense 64 → drop 0.5"),
        (HEAD | {"encoder_layers": [["conv", 8, [3, 3], [2, 1]], ["dense", 4]]},
         "conv 8 3×3 stride 2×1 → dense 4 | dense 64 → drop 0.5"),
        ({"encoder_layers": None, "dense_layers": []}, "encoder"),
    ],
)  # fmt: skip
def test_layers_in_words(info, words):
    assert describe_architecture(info) == words
