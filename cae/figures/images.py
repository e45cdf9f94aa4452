"""Images: reconstructions, filters and sheets of images."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colors, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from cae.figures.curves import plot_autoencoder_history, plot_comparison
from cae.figures.style import LINE, STYLE, format_number, numbered_key, style_colorbar, wrap_title
from cae.records.history import History

CELL = 0.95  # inches: the side of one drawn image
GAP = 0.1  # inches between images, and around a sheet of them
COLUMNS = 10  # images beside each other, the next ones go below


# ---------------------------------------------------------------------------- sheets of images


def open_sheet(width: float, height: float, title: str) -> tuple[Figure, Axes, float]:
    """A figure with one axes that is measured in inches from its top left corner.

    One axes for all images is many times faster than one for each, and leaves nothing to a layout.

    Returns:
        The figure, the axes, and the distance from the top at which the title ends.
    """
    lines = wrap_title(title, width - 2 * GAP)
    top = GAP + 0.21 * len(lines) + GAP
    height += top
    figure = Figure(figsize=(width, height), layout="none")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    ax.text(GAP, GAP, "\n".join(lines), va="top", fontsize=12, fontweight="bold")
    return figure, ax, top


def displayable(image: np.ndarray) -> np.ndarray:
    """(height, width, 3) stays colour, any other number of channels becomes its mean."""
    image = np.nan_to_num(np.asarray(image, np.float32))
    return image.clip(0, 1) if image.shape[-1] == 3 else image.mean(axis=-1)


def cell_height(image: np.ndarray) -> float:
    """Inches that an image takes in a cell `CELL` wide and at most as high."""
    return CELL * min(1, image.shape[0] / image.shape[1])


def draw_image(
    ax: Axes, image: np.ndarray, left: float, top: float, norm: colors.Normalize, cmap: str = "gray"
) -> AxesImage:
    """Draws an image into the cell whose corner lies at (`left`, `top`) inches."""
    height = cell_height(image)
    width = height * image.shape[1] / image.shape[0]
    left += (CELL - width) / 2
    extent = (left, left + width, top + height, top)
    return ax.imshow(image, cmap=cmap, norm=norm, extent=extent)


def _add_colorbar(
    figure: Figure, mappable: ScalarMappable, left: float, top: float, height: float, label: str
) -> None:
    """A colour bar at a place given in inches."""
    page_width, page_height = figure.get_size_inches()
    bounds = (left / page_width, 1 - (top + height) / page_height)
    cax = figure.add_axes((*bounds, 0.12 / page_width, height / page_height))
    bar = figure.colorbar(mappable, cax=cax)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    style_colorbar(bar, label)


def _mse(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """(num_images,): the mean squared error of each."""
    squares = np.square(np.subtract(images, reconstructions, dtype=np.float32))
    return squares.mean(axis=tuple(range(1, squares.ndim)))


def _plot_reconstructions(
    images: np.ndarray, reconstructions: np.ndarray, captions: Sequence[str], title: str
) -> Figure:
    """Originals, below them the reconstructions, below them what lies between the two."""
    differences = np.abs(np.subtract(images, reconstructions, dtype=np.float32)).mean(axis=-1)
    rows = ("original", "reconstruction", "absolute\ndifference")
    columns, blocks = min(len(images), COLUMNS), -(-len(images) // COLUMNS)
    drawn_height, label_width = cell_height(images[0]), 1.15  # inches
    caption_height = LINE * (1 + captions[0].count("\n")) + 0.05
    block_height = caption_height + len(rows) * (drawn_height + GAP) + GAP
    bar_left = label_width + columns * (CELL + GAP)
    figure, ax, top = open_sheet(max(bar_left + 0.7, 5), blocks * block_height, title)

    unit = colors.Normalize(0, 1)
    # Differences are small: black is none, the brightest is the largest one here.
    errors = colors.Normalize(0, max(float(np.nan_to_num(differences).max()), 0.01))
    for index, caption in enumerate(captions):
        block, column = divmod(index, COLUMNS)
        left = label_width + column * (CELL + GAP)
        first, second, third = (
            top + block * block_height + caption_height + row * (drawn_height + GAP)
            for row in range(len(rows))
        )
        ax.text(left + CELL / 2, first - 0.03, caption, ha="center", va="bottom", fontsize=8)
        draw_image(ax, displayable(images[index]), left, first, unit)
        draw_image(ax, displayable(reconstructions[index]), left, second, unit)
        drawn = draw_image(ax, differences[index], left, third, errors, "magma")
        if column == 0:
            for label, y in zip(rows, (first, second, third), strict=True):
                ax.text(label_width - GAP, y + drawn_height / 2, label, ha="right", va="center")
    _add_colorbar(figure, drawn, bar_left, third, drawn_height, "pixel value")
    return figure


@rc_context(STYLE)
def autoencoder_visualization(
    histories: Sequence[History],
    images: np.ndarray,
    reconstructions: Sequence[np.ndarray],
) -> dict[str, Figure]:
    """Draws what training autoencoders gave: curves, reconstructions, and how they compare.

    Args:
        histories: One for each experiment.
        images: float (num_images, height, width, channels) in [0, 1], all of them drawn.
        reconstructions: For each experiment what its autoencoder made of `images`.

    Returns:
        ``loss`` and ``reconstructions``; for several experiments ``loss-1``, ``reconstructions-1``,
        ``loss-2`` and so on, and ``comparison``.
    """
    figures = {}
    for number, (history, output) in enumerate(zip(histories, reconstructions, strict=True), 1):
        errors = _mse(images, output)
        captions = [f"MSE {format_number(error)}" for error in errors]
        title = (
            f"{history.name}: reconstructions, mean squared error {format_number(errors.mean())}"
        )
        loss_key, images_key = (
            numbered_key(key, number, len(histories)) for key in ("loss", "reconstructions")
        )
        figures[loss_key] = plot_autoencoder_history(history)
        figures[images_key] = _plot_reconstructions(images, output, captions, title)
    if len(histories) > 1:
        figures["comparison"] = plot_comparison(histories)
    return figures


@rc_context(STYLE)
def plot_worst_reconstructions(
    images: np.ndarray,
    reconstructions: np.ndarray,
    count: int = 10,
    indices: np.ndarray | None = None,
) -> Figure:
    """Draws the images that came out worst, by mean squared error, the worst first.

    Args:
        images: float (num_images, height, width, channels) in [0, 1].
        reconstructions: Like `images`.
        count: How many to draw, at most.
        indices: int (num_images,), positions of the images in their file; all of it without.
    """
    errors = _mse(images, reconstructions)
    indices = np.arange(len(images)) if indices is None else indices
    worst = np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")[:count]
    captions = [f"image {indices[index]}\nMSE {format_number(errors[index])}" for index in worst]
    title = f"Worst reconstructions: {len(worst)} of {len(images):,}"
    return _plot_reconstructions(images[worst], reconstructions[worst], captions, title)


@rc_context(STYLE)
def plot_filters(kernels: np.ndarray) -> Figure:
    """Draws the kernels of a first convolution.

    Kernels over three channels are drawn as colour, any others as the mean over their inputs.

    Args:
        kernels: float (height, width, in_channels, out_channels).
    """
    kernels = np.nan_to_num(np.moveaxis(kernels, -1, 0))  # (out_channels, height, width, in)
    in_color = kernels.shape[-1] == 3
    shown = kernels if in_color else kernels.mean(axis=-1)
    limit = max(float(np.abs(shown).max()), 0.01)
    columns = int(np.clip(np.ceil(np.sqrt(2 * len(shown))), 4, 16))
    pitch, row_pitch = CELL + GAP, cell_height(shown[0]) + GAP
    height = -(-len(shown) // columns) * row_pitch
    title = f"{len(shown)} filters of the first convolution"
    if in_color:
        title += f" (gray: 0, full colour: ±{limit:.2g})"
        shown = 0.5 + shown / (2 * limit)
    bar_left = GAP + columns * pitch
    figure, ax, top = open_sheet(bar_left + (0 if in_color else 0.75), height, title)
    norm = colors.Normalize(-limit, limit)
    for index, kernel in enumerate(shown):
        row, column = divmod(index, columns)
        drawn = draw_image(ax, kernel, GAP + column * pitch, top + row * row_pitch, norm, "RdBu_r")
    if not in_color:
        _add_colorbar(figure, drawn, bar_left, top, min(height - GAP, 3), "weight")
    return figure
