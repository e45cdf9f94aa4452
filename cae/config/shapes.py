"""The sizes of images along the layers of a configuration, without building a model."""

from collections.abc import Iterable
from itertools import accumulate
from math import prod
from typing import NamedTuple

from cae.config.fields import MAX_POOL, Conv, Pool, UpSample
from cae.config.schema import AutoencoderConfig, Config
from cae.errors import ConfigurationError, shown

TIMES = "\N{MULTIPLICATION SIGN}"

Shape = tuple[int, int, int]  # height, width, channels
Size = tuple[int, int]  # height, width


def format_shape(shape: Iterable[int | None]) -> str:
    """``28×28×1``; a variable size is ``any``."""
    return TIMES.join("any" if size is None else str(size) for size in shape)


class _Step(NamedTuple):
    """A convolutional layer, and its path in the file."""

    path: str
    layer: NamedTuple

    def scale(self, size: Size, round_up: bool) -> Size:
        """The size after the layer: a pool drops what remains, or rounds up."""
        match self.layer:
            case Pool(_, (rows, columns)) if round_up:  # as with Keras' padding "same"
                return -(-size[0] // rows), -(-size[1] // columns)
            case Pool(_, (rows, columns)):  # as with Keras' padding "valid"
                return size[0] // rows, size[1] // columns
            case UpSample(_, (rows, columns)):
                return size[0] * rows, size[1] * columns
        return size


class Rounding(NamedTuple):
    """How an autoencoder fits images that its pools do not divide.

    Attributes:
        pools: Indices in `encoder_layers` of the pools that round up; none where the decoder gives
            back the size as it is.
        size: (height, width) before the decoder crops.
        cropping: Rows (top, bottom) and columns (left, right) that the decoder crops.
    """

    pools: tuple[int, ...]
    size: Size
    cropping: tuple[tuple[int, int], tuple[int, int]]


def _get_steps(config: Config) -> list[_Step]:
    """The convolutional layers in the order of the data."""
    lists = {"encoder_layers": config.encoder_layers}
    if isinstance(config, AutoencoderConfig):
        lists["decoder_layers"] = config.decoder_layers
    return [
        _Step(f"{key}[{index}]", layer)
        for key, layers in lists.items()
        if isinstance(layers, tuple)
        for index, layer in enumerate(layers)
    ]


def _get_sizes(config: Config, steps: Iterable[_Step], size: Size) -> tuple[list[Size], bool]:
    """`size`, then the size after each step; and whether pools round up.

    They do so in an autoencoder whose decoder would miss the size of the images otherwise.
    """

    def get(round_up: bool) -> list[Size]:
        return list(accumulate(steps, lambda size, step: step.scale(size, round_up), initial=size))

    dropping = get(round_up=False)
    if config.kind != "autoencoder" or dropping[-1] == size:
        return dropping, False
    return get(round_up=True), True


def trace_shapes(config: Config, input_shape: Shape) -> list[tuple[str, Shape]]:
    """The shape after each convolutional layer, without building a model.

    The output convolution, which is added to every decoder, is not among the layers, nor is the
    cropping that may follow it.

    Args:
        config: For a classifier that does not list the encoder's layers, only the input is given.
        input_shape: (height, width, channels) of the images.

    Returns:
        ``("input", input_shape)``, then (path of the layer in the file, (height, width, channels))
        for each layer; 0 where a pool of a classifier is larger than its input.
    """
    *size, channels = input_shape
    steps = _get_steps(config)
    sizes, _ = _get_sizes(config, steps, tuple(size))
    shapes = [("input", tuple(input_shape))]
    for step, (height, width) in zip(steps, sizes[1:], strict=True):
        if isinstance(step.layer, Conv):
            channels = step.layer.filters
        shapes.append((step.path, (height, width, channels)))
    return shapes


def get_rounding(config: AutoencoderConfig, input_shape: Shape) -> Rounding:
    """Which pools round up, and what the decoder crops, after `check_shapes`.

    Padding "same" adds half of what a pool lacks before the image, rounded down, and the rest after
    it; the decoder crops the same, so that every pixel stays in its place.

    Args:
        config: Hyperparameters of an autoencoder.
        input_shape: (height, width, channels) of the images.
    """
    target = tuple(input_shape[:2])
    sizes, round_up = _get_sizes(config, _get_steps(config), target)
    pools, before, scale = [], [0, 0], [1, 1]
    for index, (layer, size) in enumerate(zip(config.encoder_layers, sizes, strict=False)):
        if not round_up or not isinstance(layer, Pool):
            continue
        missing = [-side % factor for side, factor in zip(size, layer.size, strict=True)]
        if any(missing):
            pools.append(index)
        before = [b + m // 2 * s for b, m, s in zip(before, missing, scale, strict=True)]
        scale = [s * factor for s, factor in zip(scale, layer.size, strict=True)]
    cropping = tuple(
        (first, got - wanted - first)
        for first, got, wanted in zip(before, sizes[-1], target, strict=True)
    )
    return Rounding(tuple(pools), sizes[-1], cropping)


def check_shapes(config: Config, input_shape: Shape, where: str) -> None:
    """Checks that the layers fit images of a given size, before any model is built.

    Args:
        config: Of an autoencoder, whose decoder must give back the size of the images, or of a
            classifier, whose pools alone are checked.
        input_shape: (height, width, channels) of the images.
        where: What to call the configuration in errors, such as the name of its file.

    Raises:
        ConfigurationError: Names the layer where the size goes wrong, the sizes along the layers
            and a change to try.
    """
    steps = [step for step in _get_steps(config) if isinstance(step.layer, Pool | UpSample)]
    sizes, rounds_up = _get_sizes(config, steps, tuple(input_shape[:2]))
    pools = [step for step in steps if isinstance(step.layer, Pool)]
    for index, (step, before) in enumerate(zip(pools, sizes, strict=False)):
        if step.layer.size[0] > before[0] or step.layer.size[1] > before[1]:
            raise ConfigurationError(
                f"{where}: {step.path}",
                f"must be a pool of at most {format_shape(before)}, its input",
                f"{format_shape(step.layer.size)} ({_join(sizes[: index + 1])})",
                _suggest_pools(config, index),
            )
    upsamples = steps[len(pools) :]
    if rounds_up and _multiply(pools) != _multiply(upsamples):
        culprit, reason = _find_misfit(pools, upsamples)
        raise ConfigurationError(
            f"{where}: {culprit}",
            f"the decoder must give back {format_shape(sizes[0])}",
            f"{format_shape(sizes[-1])}: {reason} ({_join(sizes)})",
            _suggest_upsample(pools, upsamples),
        )


def _join(sizes: list[Size]) -> str:
    return " → ".join(map(format_shape, sizes))


def _multiply(steps: Iterable[_Step]) -> Size:
    """The factors by which pools divide, or upSample layers multiply, height and width."""
    sizes = [step.layer.size for step in steps]
    return prod(rows for rows, _ in sizes), prod(columns for _, columns in sizes)


def _divide(size: Size, divisor: Size) -> Size | None:
    """The factors that make `size` of `divisor`, if they are whole numbers."""
    if size[0] % divisor[0] or size[1] % divisor[1]:
        return None
    return size[0] // divisor[0], size[1] // divisor[1]


def _find_misfit(pools: list[_Step], upsamples: list[_Step]) -> tuple[str, str]:
    """The path of the layers that do not undo the pools, and what is wrong with them."""
    height, width = _multiply(pools)
    for index, step in enumerate(upsamples, 1):
        rows, columns = _multiply(upsamples[:index])
        if rows > height or columns > width:
            return step.path, "this upSample makes the image too large"
    return "decoder_layers", "its upSample layers do not undo the pools"


def _suggest_pools(config: Config, kept: int) -> str:
    """The remedy for a pool larger than its input, which follows `kept` others."""
    number = f"only {kept} pool{'s' * (kept > 1)}" if kept else "no pool"
    decoder = " and as many upSample layers" * (config.kind == "autoencoder")
    return f"Use {number}{decoder}, or larger images."


def _suggest_upsample(pools: list[_Step], upsamples: list[_Step]) -> str:
    """The remedy for upSample layers that do not undo the pools: one to append or to change."""
    wanted = _multiply(pools)
    factor = _divide(wanted, _multiply(upsamples))
    if factor and max(factor) <= MAX_POOL:
        return f"Append {shown(UpSample('upSample', factor))} to decoder_layers."
    if upsamples:
        *others, last = upsamples
        factor = _divide(wanted, _multiply(others))
        if factor == (1, 1):
            return f"Remove {last.path}."
        if factor and max(factor) <= MAX_POOL:
            return f"Change {last.path} to {shown(UpSample('upSample', factor))}."
    return "Use upSample layers whose sizes multiply to those of the pools."
