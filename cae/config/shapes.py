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

    def scale(self, size: Size) -> Size:
        """The size after the layer: a pool drops remainders, as with Keras' padding "valid"."""
        match self.layer:
            case Pool(_, (rows, columns)):
                return size[0] // rows, size[1] // columns
            case UpSample(_, (rows, columns)):
                return size[0] * rows, size[1] * columns
        return size


def _steps(config: Config) -> list[_Step]:
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


def _sizes(steps: Iterable[_Step], size: Size) -> list[Size]:
    """`size`, then the size after each step."""
    return list(accumulate(steps, lambda size, step: step.scale(size), initial=size))


def trace_shapes(config: Config, input_shape: Shape) -> list[tuple[str, Shape]]:
    """The shape after each convolutional layer, without building a model.

    The output convolution, which is added to every decoder, is not among the layers.

    Args:
        config: For a classifier that does not list the encoder's layers, only the input is given.
        input_shape: (height, width, channels) of the images.

    Returns:
        ``("input", input_shape)``, then (path of the layer in the file, (height, width, channels))
        for each layer; 0 where a pool is larger than its input.
    """
    *size, channels = input_shape
    steps = _steps(config)
    shapes = [("input", tuple(input_shape))]
    for step, (height, width) in zip(steps, _sizes(steps, tuple(size))[1:], strict=True):
        if isinstance(step.layer, Conv):
            channels = step.layer.filters
        shapes.append((step.path, (height, width, channels)))
    return shapes


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
    steps = [step for step in _steps(config) if isinstance(step.layer, Pool | UpSample)]
    sizes = _sizes(steps, tuple(input_shape[:2]))
    for step, before, after in zip(steps, sizes, sizes[1:], strict=False):
        if 0 in after:
            raise ConfigurationError(
                f"{where}: {step.path}",
                f"must be a pool of at most {format_shape(before)}, its input",
                f"{format_shape(step.layer.size)} ({_join(sizes[: sizes.index(after)])})",
                _suggest_pools(steps, step),
            )
    if config.kind == "autoencoder" and sizes[-1] != sizes[0]:
        culprit, reason = _find_misfit(steps, sizes)
        is_pool = culprit is not None and isinstance(culprit.layer, Pool)
        raise ConfigurationError(
            f"{where}: {culprit.path if culprit else 'decoder_layers'}",
            f"the decoder must give back {format_shape(sizes[0])}",
            f"{format_shape(sizes[-1])}: {reason} ({_join(sizes)})",
            _suggest_pools(steps, culprit) if is_pool else _suggest_upsample(steps, sizes),
        )


def _join(sizes: list[Size]) -> str:
    return " → ".join(map(format_shape, sizes))


def _find_misfit(steps: list[_Step], sizes: list[Size]) -> tuple[_Step | None, str]:
    """The first layer where the size goes wrong, and how; None where a layer is missing."""
    target = sizes[0]
    smallest = sizes[sum(isinstance(step.layer, Pool) for step in steps)]
    can_be_restored = target[0] % smallest[0] == target[1] % smallest[1] == 0
    for step, (height, width), after in zip(steps, sizes, sizes[1:], strict=False):
        rows, columns = step.layer.size
        if isinstance(step.layer, UpSample):
            if after[0] > target[0] or after[1] > target[1]:
                return step, "this upSample makes the image too large"
        elif not can_be_restored and (height % rows or width % columns):
            lost = {"row": height % rows, "column": width % columns}
            parts = [f"{n} {name}{'s' * (n > 1)}" for name, n in lost.items() if n]
            return step, f"this pool drops {' and '.join(parts)} of {format_shape((height, width))}"
    return None, "its upSample layers do not undo the pools"


def _suggest_pools(steps: list[_Step], culprit: _Step) -> str:
    """The remedy for a pool that does not divide its input."""
    pools = [step for step in steps if isinstance(step.layer, Pool)]
    kept = pools.index(culprit)
    height = prod(step.layer.size[0] for step in pools)
    width = prod(step.layer.size[1] for step in pools)
    number = f"only {kept} pool{'s' * (kept > 1)}" if kept else "no pool"
    return (
        f"Use {number} and as many upSample layers, or images whose height is a multiple of "
        f"{height} and width of {width}."
    )


def _suggest_upsample(steps: list[_Step], sizes: list[Size]) -> str:
    """The remedy for upSample layers that do not undo the pools: one to append or to change."""
    target, final = sizes[0], sizes[-1]
    if factor := _get_factor(final, target):
        return f"Append {shown(UpSample('upSample', factor))} to decoder_layers."
    last = steps[-1]
    if isinstance(last.layer, UpSample):
        if factor := _get_factor(sizes[-2], target):
            return f"Change {last.path} to {shown(UpSample('upSample', factor))}."
        if sizes[-2] == target:
            return f"Remove {last.path}."
    return "Use upSample layers whose sizes multiply to those of the pools."


def _get_factor(size: Size, target: Size) -> Size | None:
    """The size of an upSample layer that scales `size` to `target`, if there is one."""
    if size == target or target[0] % size[0] or target[1] % size[1]:
        return None
    factor = target[0] // size[0], target[1] // size[1]
    return factor if max(factor) <= MAX_POOL else None
