"""The sizes of images along the layers of a configuration, found before any model is built."""

from collections.abc import Iterable, Iterator
from itertools import accumulate, product, starmap
from math import prod
from typing import NamedTuple

from cae.config.fields import MAX_POOL, Conv, Pool, UpSample
from cae.config.schema import AutoencoderConfig, Config
from cae.errors import ConfigurationError, listed, shown

TIMES = "\N{MULTIPLICATION SIGN}"

Shape = tuple[int, int, int]  # height, width, channels
Size = tuple[int, int]  # height, width


def format_shape(shape: Iterable[int | None]) -> str:
    """``28×28×1``; a size that may vary is ``any``."""
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

    The output convolution that `model` adds to a decoder is not among the layers.

    Args:
        config: A classifier without layers of its own for the encoder gives the input only.
        input_shape: (height, width, channels) of the images.

    Returns:
        ``("input", input_shape)``, then (path of the layer in the file, (height, width, channels))
        for each layer; 0 where a pool is larger than what it gets.
    """
    *size, channels = input_shape
    steps = _steps(config)
    shapes = [("input", tuple(input_shape))]
    for step, (height, width) in zip(steps, _sizes(steps, tuple(size))[1:], strict=True):
        if isinstance(step.layer, Conv):
            channels = step.layer.filters
        shapes.append((step.path, (height, width, channels)))
    return shapes


def _way(sizes: list[Size]) -> str:
    return " → ".join(map(format_shape, sizes))


def check_shapes(config: Config, input_shape: Shape, where: str) -> None:
    """Refuses layers that do not fit images of a given size, before any model is built.

    Args:
        config: A classifier is only checked for pools, and if it lists the encoder's layers.
        input_shape: (height, width, channels) of the images.
        where: What to call the configuration in errors, such as the name of its file.

    Raises:
        ConfigurationError: Naming the layer where the size goes wrong, the sizes along the way
            and a change that makes them fit.
    """
    steps = [step for step in _steps(config) if isinstance(step.layer, Pool | UpSample)]
    target = tuple(input_shape[:2])
    sizes = _sizes(steps, target)
    for index, step in enumerate(steps):
        if 0 in sizes[index + 1]:
            raise ConfigurationError(
                f"{where}: {step.path}",
                f"a pool must not be larger than the {format_shape(sizes[index])} that it gets",
                f"{format_shape(step.layer.size)} ({_way(sizes[: index + 1])})",
                _repair(steps, target, step) if config.kind == "autoencoder" else "Remove it.",
            )
    if config.kind == "autoencoder" and sizes[-1] != target:
        culprit, reason = _misfit(steps, sizes)
        raise ConfigurationError(
            f"{where}: {culprit.path if culprit else 'decoder_layers'}",
            f"the decoder must give back {format_shape(target)}",
            f"{format_shape(sizes[-1])}: {reason} ({_way(sizes)})",
            _repair(steps, target, culprit),
        )


def _misfit(steps: list[_Step], sizes: list[Size]) -> tuple[_Step | None, str]:
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
    return None, "its upSample layers do not make up for the pools"


def _repair(steps: list[_Step], target: Size, culprit: _Step | None) -> str:
    """The first simple change after which the decoder gives back `target`, in words."""
    for words, changed in _changes(steps, target, culprit):
        sizes = _sizes(changed, target)
        if sizes[-1] == target and all(map(all, sizes)):
            return words
    pools = [step.layer.size for step in steps if isinstance(step.layer, Pool)]
    height, width = prod(rows for rows, _ in pools), prod(columns for _, columns in pools)
    return (
        f"Use images whose height is a multiple of {height} and width of {width}, "
        "or pools that divide evenly, and upSample layers that undo the pools."
    )


def _changes(
    steps: list[_Step], target: Size, culprit: _Step | None
) -> Iterator[tuple[str, list[_Step]]]:
    """Changes that may help, simplest first: in words, and the steps after the change."""
    # The layer to blame goes first, then the innermost pool, the likeliest not to fit.
    pools = [step for step in reversed(steps) if isinstance(step.layer, Pool)]
    pools.sort(key=lambda step: step != culprit)
    upsamples = [step for step in steps if isinstance(step.layer, UpSample)]
    upsamples.sort(key=lambda step: step != culprit)

    def without(*removed: _Step) -> tuple[str, list[_Step]]:
        words = f"Remove {listed([step.path for step in removed], 'and')}."
        return words, [step for step in steps if step not in removed]

    final = _sizes(steps, target)[-1]
    if factor := _factor(final, target):
        added = UpSample("upSample", factor)
        yield f"Append {shown(added)} to decoder_layers.", [*steps, _Step("", added)]
    for count in range(1, len(upsamples) + 1):
        yield without(*upsamples[:count])
    for step in upsamples:
        height, width = step.layer.size
        if factor := _factor((final[0] // height, final[1] // width), target):
            layer = UpSample("upSample", factor)
            changed = [other._replace(layer=layer) if other == step else other for other in steps]
            yield f"Change {step.path} to {shown(layer)}.", changed
    yield from starmap(without, product(pools, upsamples))
    for count in range(2, len(pools)):
        yield without(*pools[:count], *upsamples[:count])
    for count in range(1, len(pools) + 1):
        yield without(*pools[:count])


def _factor(size: Size, target: Size) -> Size | None:
    """The size of an upSample layer that makes `target` of `size`, if there is one."""
    if 0 in size or target[0] % size[0] or target[1] % size[1]:
        return None
    factor = target[0] // size[0], target[1] // size[1]
    return factor if max(factor) <= MAX_POOL else None
