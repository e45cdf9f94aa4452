"""Images: reconstructions of an autoencoder, and the filters of its first convolution."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cae.figures import sheets
from cae.figures.comparisons import with_comparison
from cae.figures.curves import plot_history
from cae.figures.style import STYLE, format_number, name_image
from cae.records.history import History

IMAGES_PER_ROW = 6  # images side by side; further ones continue below
ROWS = ("original", "reconstruction", "absolute\ndifference")


def _mse(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """(num_images,): the mean squared error of each."""
    squares = np.square(np.subtract(images, reconstructions, dtype=np.float32))
    return squares.mean(axis=tuple(range(1, squares.ndim)))


def _plot_reconstructions(
    images: np.ndarray, reconstructions: np.ndarray, captions: Sequence[str], title: str
) -> Figure:
    """Originals, below them their reconstructions, below them the absolute differences."""
    differences = np.abs(np.subtract(images, reconstructions, dtype=np.float32)).mean(axis=-1)
    columns = min(len(images), IMAGES_PER_ROW)
    above, row_height = sheets.caption_height(captions[0]), sheets.cell_height(images[0])
    block_height = above + len(ROWS) * row_height
    ax = sheets.make_sheet(columns + 2, -(-len(images) // IMAGES_PER_ROW) * block_height, title)
    # Differences are small: black is 0, the brightest colour is the largest of this figure.
    errors = Normalize(0, max(float(np.nan_to_num(differences).max()), 0.01))
    for index, caption in enumerate(captions):
        block, column = divmod(index, IMAGES_PER_ROW)
        left, top = 1.2 + column, block * block_height + above
        sheets.write_caption(ax, caption, left, top)
        for image in (images[index], reconstructions[index]):
            sheets.draw_image(ax, sheets.displayable(image), left, top, Normalize(0, 1))
            top += row_height
        drawn = sheets.draw_image(ax, differences[index], left, top, errors, "magma")
        for row, name in enumerate(ROWS if column == 0 else ()):
            middle = top + (row - 1.5) * row_height
            ax.text(1.1, middle, name, ha="right", va="center")
    sheets.add_colorbar(ax, drawn, 1.25 + columns, "difference", row_height - 0.1)
    return ax.figure


@rc_context(STYLE)
def autoencoder_visualization(
    histories: Sequence[History],
    images: np.ndarray,
    reconstructions: Sequence[np.ndarray],
) -> dict[str, Figure]:
    """Draws the training of autoencoders, their reconstructions, and how they compare.

    Args:
        histories: One per experiment.
        images: float (num_images, height, width, channels) in [0, 1], all of them drawn.
        reconstructions: Per experiment the output of its autoencoder for `images`.

    Returns:
        ``loss`` and ``reconstructions``; for several experiments ``loss-1``, ``reconstructions-1``,
        ``loss-2`` and so on, and ``comparison``.
    """
    figures = []
    for history, output in zip(histories, reconstructions, strict=True):
        errors = _mse(images, output)
        captions = [f"MSE {format_number(error)}" for error in errors]
        mean = format_number(errors.mean())
        title = f"{history.name}: {len(images)} reconstructions, their mean squared error {mean}"
        drawn = _plot_reconstructions(images, output, captions, title)
        figures.append({"loss": plot_history(history), "reconstructions": drawn})
    return with_comparison(figures, histories)


@rc_context(STYLE)
def plot_worst_reconstructions(
    images: np.ndarray,
    reconstructions: np.ndarray,
    count: int = 12,
    image_names: Sequence[str] | None = None,
    *,
    total: int | None = None,
) -> Figure:
    """Draws the images with the largest mean squared errors, the largest first.

    Args:
        images: float (num_images, height, width, channels) in [0, 1].
        reconstructions: Like `images`.
        count: The most images to draw.
        image_names: One per image; by default `image 0`, `image 1`, …
        total: Of how many images these are; by default as many.
    """
    errors = _mse(images, reconstructions)
    worst = np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")[:count]
    captions = [
        f"{name_image(index, image_names, 14)}\nMSE {format_number(errors[index])}"
        for index in worst
    ]
    title = f"Worst reconstructions: {len(worst)} of {total or len(images):,}"
    return _plot_reconstructions(images[worst], reconstructions[worst], captions, title)


@rc_context(STYLE)
def plot_views(rows: Sequence[tuple[str, np.ndarray]], title: str) -> Figure:
    """Draws images below each other: the originals, then what training makes of them.

    Args:
        rows: The name of each row, and its images: float (num_images, height, width, channels) in
            [0, 1].
    """
    _, originals = rows[0]
    row_height = sheets.cell_height(originals[0])
    ax = sheets.make_sheet(len(originals) + 1.2, len(rows) * row_height, title)
    for number, (name, images) in enumerate(rows):
        top = number * row_height
        ax.text(1.1, top + row_height / 2, name, ha="right", va="center")
        for column, image in enumerate(images):
            sheets.draw_image(ax, sheets.displayable(image), 1.2 + column, top, Normalize(0, 1))
    return ax.figure


@rc_context(STYLE)
def plot_filters(kernels: np.ndarray) -> Figure:
    """Draws the kernels of a first convolution.

    Kernels over three channels are drawn in colour, others as the mean over their inputs.

    Args:
        kernels: float (height, width, in_channels, out_channels).
    """
    kernels = np.nan_to_num(np.moveaxis(kernels, -1, 0))  # (out_channels, height, width, in)
    in_color = kernels.shape[-1] == 3
    shown = kernels if in_color else kernels.mean(axis=-1)
    limit = max(float(np.abs(shown).max()), 0.01)
    columns = int(np.clip(np.ceil(np.sqrt(2 * len(shown))), 4, 16))
    title = f"{len(shown)} filters of the first convolution"
    if in_color:
        title += f" (gray: 0, full colour: ±{limit:.2g})"
        shown = 0.5 + shown / (2 * limit)
    row_height = sheets.cell_height(shown[0])
    height = -(-len(shown) // columns) * row_height
    ax = sheets.make_sheet(columns + (0 if in_color else 0.8), height, title)
    for index, kernel in enumerate(shown):
        row, column = divmod(index, columns)
        norm = Normalize(-limit, limit)
        drawn = sheets.draw_image(ax, kernel, column, row * row_height, norm, "RdBu_r")
        if index == 0 and not in_color:
            sheets.add_colorbar(ax, drawn, columns + 0.1, "weight", min(height - 0.1, 3))
    return ax.figure
