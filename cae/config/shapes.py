"""The sizes of images along the layers of a configuration, without building a model."""

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, NamedTuple

from cae.config.fields import MAX_POOL, ConvTranspose, Pool, StridedConv, UpSample
from cae.config.schema import AutoencoderConfig, Config
from cae.errors import ConfigurationError, shown

TIMES = "\N{MULTIPLICATION SIGN}"

Shape = tuple[int, int, int]  # height, width, channels
Size = tuple[int, int]  # height, width


def format_shape(shape: Iterable[int | None]) -> str:
    """``28×28×1``; a variable size is ``any``."""
    return TIMES.join("any" if size is None else str(size) for size in shape)


def swap_sides(shape: Shape) -> Shape:
    """The shape of transposed images."""
    height, width, channels = shape
    return width, height, channels


def follow(layer: Sequence[Any], shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The shape of a layer's output, where pools round up; None if that of its input is unknown.

    The shape behind a dense layer is its number of units alone.
    """
    kind, *values = layer
    if kind == "dense":
        return shape and (values[0],)
    if shape is None or kind in ("batchNorm", "drop"):
        return shape
    height, width, channels = shape
    if kind in ("conv", "convTranspose"):
        channels = values[0]
    rows, columns = (1, 1) if len(values) == 2 else values[-1]  # a convolution without strides
    if kind in ("conv", "pool"):
        return -(-height // rows), -(-width // columns), channels
    return height * rows, width * columns, channels


def get_largest_factors(encoder: Iterable[Sequence[Any]], size: Size) -> Size:
    """By how much a decoder may enlarge height and width at most, whether pools round up or down.

    Args:
        encoder: Layers that fit.
        size: (height, width) of the images.
    """
    factors = []
    for axis, side in enumerate(size):
        pooled, left = 1, side
        for kind, *values in encoder:
            if kind == "pool" or (kind == "conv" and len(values) > 2):
                factor = values[-1][axis]
                pooled *= factor
                left = -(-left // factor) if kind == "conv" else max(left // factor, 1)
        factors.append(max(pooled, side // left))
    return factors[0], factors[1]


class Rounding(NamedTuple):
    """How an autoencoder fits images that its pools and strides do not divide."""

    pools: tuple[int, ...]  # indices in `encoder_layers` of those that round up
    size: Size  # before the decoder crops
    cropping: tuple[tuple[int, int], tuple[int, int]]  # rows (top, bottom), columns (left, right)


class _Resizing(NamedTuple):
    """The layers that change the size of images: index in their list -> factors.

    Strides count as pools, and those of transposed convolutions as upsampling. `sizes` holds the
    size of the images, then that after each of these layers.
    """

    pools: dict[int, Size]
    upsamples: dict[int, Size]
    sizes: list[Size]
    rounds_up: bool


def _get_resizing(config: Config, size: Size) -> _Resizing:
    """Pools round up in an autoencoder whose decoder would otherwise miss the images' size."""
    encoder = config.encoder_layers if isinstance(config.encoder_layers, tuple) else ()
    decoder = config.decoder_layers if config.kind == "autoencoder" else ()
    kinds = (Pool, StridedConv, UpSample, ConvTranspose)  # the factors are their last values
    pools = {index: x[-1] for index, x in enumerate(encoder) if isinstance(x, kinds)}
    upsamples = {index: x[-1] for index, x in enumerate(decoder) if isinstance(x, kinds)}

    def get_sizes(round_up: bool) -> list[Size]:
        sizes = [size]
        for index, (rows, columns) in pools.items():
            height, width = sizes[-1]
            if round_up or isinstance(encoder[index], StridedConv):  # Keras' padding "same"
                sizes.append((-(-height // rows), -(-width // columns)))
            else:  # Keras' padding "valid"
                sizes.append((height // rows, width // columns))
        for rows, columns in upsamples.values():
            sizes.append((sizes[-1][0] * rows, sizes[-1][1] * columns))
        return sizes

    sizes = get_sizes(round_up=False)
    rounds_up = config.kind == "autoencoder" and sizes[-1] != size
    return _Resizing(pools, upsamples, get_sizes(True) if rounds_up else sizes, rounds_up)


def get_rounding(config: AutoencoderConfig, input_shape: Shape) -> Rounding:
    """Which pools and strides round up, and what the decoder crops, after `check_shapes`.

    Padding "same" adds half of what a pool lacks before the image, rounded down, and the rest after
    it; the decoder crops the same, so that every pixel stays in its place, or near it with strides.
    """
    resizing, target = _get_resizing(config, tuple(input_shape[:2])), input_shape[:2]
    rounded, before, scale = [], [0, 0], [1, 1]
    for (index, factors), size in zip(resizing.pools.items(), resizing.sizes, strict=False):
        missing = [-side % f * resizing.rounds_up for side, f in zip(size, factors, strict=True)]
        if any(missing):
            rounded.append(index)
        before = [b + m // 2 * s for b, m, s in zip(before, missing, scale, strict=True)]
        scale = [s * factor for s, factor in zip(scale, factors, strict=True)]
    cropping = tuple(
        (first, got - wanted - first)
        for first, got, wanted in zip(before, resizing.sizes[-1], target, strict=True)
    )
    return Rounding(tuple(rounded), resizing.sizes[-1], cropping)


def check_shapes(config: Config, input_shape: Shape, where: str) -> None:
    """Checks that the layers fit images of a given size, before any model is built.

    The decoder of an autoencoder must give back their size; of a classifier the pools are checked.

    Raises:
        ConfigurationError: Names the sizes along the layers and a change to try.
    """
    pools, upsamples, sizes, rounds_up = _get_resizing(config, tuple(input_shape[:2]))
    for kept, (index, factors) in enumerate(pools.items()):
        if factors[0] > sizes[kept][0] or factors[1] > sizes[kept][1]:
            kind = "pool" if isinstance(config.encoder_layers[index], Pool) else "stride"
            number = f"only {kept} {kind}{'s' * (kept > 1)}" if kept else f"no {kind}"
            decoder = " and as many upSample layers" * (config.kind == "autoencoder")
            raise ConfigurationError(
                f"{where}: encoder_layers[{index}]",
                f"must have a {kind} of at most {format_shape(sizes[kept])}, its input",
                f"{format_shape(factors)} ({_join(sizes[: kept + 1])})",
                f"Use {number}{decoder}, or larger images.",
            )
    pooled, upsampled = _multiply(pools.values()), _multiply(upsamples.values())
    if rounds_up and pooled != upsampled:
        missing = tuple(p // u if p % u == 0 else 0 for p, u in zip(pooled, upsampled, strict=True))
        if all(0 < factor <= MAX_POOL for factor in missing):
            remedy = f"Append {shown(UpSample('upSample', missing))} to decoder_layers."
        else:
            remedy = f"Use upSample layers whose sizes multiply to {format_shape(pooled)}."
        raise ConfigurationError(
            f"{where}: decoder_layers",
            f"must give back images of {format_shape(sizes[0])}",
            f"{format_shape(sizes[-1])} ({_join(sizes)})",
            remedy,
        )


def _join(sizes: Iterable[Size]) -> str:
    return " → ".join(map(format_shape, sizes))


def _multiply(sizes: Iterable[Size]) -> Size:
    """The factors of several layers together, for height and width."""
    rows, columns = zip((1, 1), *sizes, strict=True)
    return prod(rows), prod(columns)
