"""The layers of a configuration in words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import PurePath
from typing import Any

USUAL = "most frequent"  # layers


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


def describe_variants(values: Sequence[Any], bases: Sequence[str]) -> list[str]:
    """Lists of layers in words, or where those of a base differ, as changes.

    Of an encoder in a file, the value is its path.
    """
    words = [
        (value,) if isinstance(value, str) else tuple(map(describe_layer, value or ()))
        for value in values
    ]
    of_base: dict[str, Counter] = {}
    for own, base in zip(words, bases, strict=True):
        of_base.setdefault(base, Counter())[own] += 1
    if all(len(counts) == 1 for counts in of_base.values()):
        return [" → ".join(own) for own in words]
    usual = {base: counts.most_common(1)[0][0] for base, counts in of_base.items()}
    return [_describe_change(usual[base], own) for own, base in zip(words, bases, strict=True)]


def _describe_change(usual: Sequence[str], own: Sequence[str]) -> str:
    changes = []
    for _, start, end, own_start, own_end in SequenceMatcher(None, usual, own, False).get_opcodes():
        if usual[start:end] != own[own_start:own_end]:
            changes += [f"− {layer}" for layer in usual[start:end]]
            changes += [f"+ {layer}" for layer in own[own_start:own_end]]
    counts = Counter(changes)
    listed = [f"{change} ({n}×)" if n > 1 else change for change, n in counts.items()]
    return ", ".join(listed) or USUAL
