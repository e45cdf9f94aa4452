"""The layers of a configuration in words."""

from collections.abc import Iterable, Mapping, Sequence
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
    encoder, *others = (
        model_info.get(f"{part}_layers") or () for part in ("encoder", "decoder", "dense")
    )
    if isinstance(encoder, str | PurePath):
        first = f"encoder of {PurePath(encoder).name}"
    else:
        first = _describe_layers(encoder) or "encoder"
    # In a decoder `pool` is the old spelling of `upSample`.
    parts = [_describe_layers(layers).replace("pool", "upSample") for layers in others]
    return " | ".join(part for part in [first, *parts] if part)


def _describe_layers(layers: Iterable[Sequence[Any]]) -> str:
    return " → ".join(map(describe_layer, layers))


def describe_layer(layer: Sequence[Any]) -> str:
    """A layer in words: `["conv", 32, [3, 3], [2, 2]]` is ``conv 32 3×3 stride 2×2``."""
    strides = [f"stride {_describe_size(stride)}" for stride in layer[3:]]
    return " ".join([*map(_describe_size, layer[:3]), *strides])


def _describe_size(size: Any) -> str:
    return "×".join(map(str, size)) if isinstance(size, list | tuple) else str(size)
