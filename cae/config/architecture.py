"""The layers of a configuration in words."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any


def describe_architecture(model_info: Mapping[str, Any]) -> str:
    """The layers in words, such as ``conv 32 3×3 → pool 2×2 | upSample 2×2 → conv 1 3×3``.

    Args:
        model_info: Hyperparameters of an autoencoder or a classifier. `encoder_layers` may also be
            the path of a saved model, or missing when the command line named the model.

    Returns:
        The encoder, then the decoder or the dense layers, separated by ``|``.
    """
    encoder = model_info.get("encoder_layers")
    if isinstance(encoder, str | PurePath):
        parts = [f"encoder of {PurePath(encoder).name}"]
    else:
        parts = [_describe_layers(encoder) if encoder else "encoder"]
    # In a decoder `pool` is the old spelling of `upSample`.
    decoder = [
        ("upSample" if kind == "pool" else kind, *sizes)
        for kind, *sizes in model_info.get("decoder_layers") or ()
    ]
    parts += [_describe_layers(decoder), _describe_layers(model_info.get("dense_layers") or ())]
    return " | ".join(part for part in parts if part)


def _describe_layers(layers: Sequence[Sequence[Any]]) -> str:
    return " → ".join(" ".join(map(_describe_size, layer)) for layer in layers)


def _describe_size(size: Any) -> str:
    return "×".join(map(str, size)) if isinstance(size, list | tuple) else str(size)
