"""Images: reconstructions of an autoencoder, and the filters of its first convolution."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from cae.figures.comparisons import with_comparison
from cae.figures.curves import plot_history
from cae.figures.sheets import CELL, GAP, Sheet, caption_height, cell_height, displayable
from cae.figures.style import STYLE, format_number
from cae.records.history import History

COLUMNS = 10  # images side by side; further ones continue below
ROWS = ("original", "reconstruction", "absolute\ndifference")
NAMES_WIDTH = 1.15  # inches for the names of the rows


def _mse(images: np.ndarray, reconstructions: np.ndarray) -> np.ndarray:
    """(num_images,): the mean squared error of each."""
    squares = np.square(np.subtract(images, reconstructions, dtype=np.float32))
    return squares.mean(axis=tuple(range(1, squares.ndim)))


def _plot_reconstructions(
    images: np.ndarray, reconstructions: np.ndarray, captions: Sequence[str], title: str
) -> Figure:
    """Originals, below them their reconstructions, below them the absolute differences."""
    differences = np.abs(np.subtract(images, reconstructions, dtype=np.float32)).mean(axis=-1)
    columns, blocks = min(len(images), COLUMNS), -(-len(images) // COLUMNS)
    pitch, row_pitch = CELL + GAP, cell_height(images[0]) + GAP
    above = caption_height(captions[0])
    block_height = above + len(ROWS) * row_pitch + GAP
    bar_left = NAMES_WIDTH + columns * pitch
    sheet = Sheet(max(bar_left + 0.7, 5), blocks * block_height, title)
    unit = Normalize(0, 1)
    # Differences are small: black is 0, the brightest colour is the largest of this figure.
    errors = Normalize(0, max(float(np.nan_to_num(differences).max()), 0.01))
    for index, caption in enumerate(captions):
        block, column = divmod(index, COLUMNS)
        left, top = NAMES_WIDTH + column * pitch, sheet.top + block * block_height + above
        tops = [top + row * row_pitch for row in range(len(ROWS))]
        sheet.write_caption(caption, left, top)
        sheet.draw_image(displayable(images[index]), left, tops[0], unit)
        sheet.draw_image(displayable(reconstructions[index]), left, tops[1], unit)
        drawn = sheet.draw_image(differences[index], left, tops[2], errors, "magma")
        if column == 0:
            for name, row_top in zip(ROWS, tops, strict=True):
                sheet.write_row_name(name, NAMES_WIDTH - GAP, row_top + (row_pitch - GAP) / 2)
    sheet.add_colorbar(drawn, bar_left, tops[2], row_pitch - GAP, "pixel value")
    return sheet.figure


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
        title = f"{history.name}: reconstructions, mean squared error {mean}"
        drawn = _plot_reconstructions(images, output, captions, title)
        figures.append({"loss": plot_history(history), "reconstructions": drawn})
    return with_comparison(figures, histories)


@rc_context(STYLE)
def plot_worst_reconstructions(
    images: np.ndarray,
    reconstructions: np.ndarray,
    count: int = 10,
    indices: np.ndarray | None = None,
) -> Figure:
    """Draws the images with the largest mean squared errors, the largest first.

    Args:
        images: float (num_images, height, width, channels) in [0, 1].
        reconstructions: Like `images`.
        count: The most images to draw.
        indices: int (num_images,), positions of the images in their file; by default 0, 1, 2, …
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

    Kernels over three channels are drawn in colour, others as the mean over their inputs.

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
    sheet = Sheet(bar_left + (0 if in_color else 0.75), height, title)
    norm = Normalize(-limit, limit)
    for index, kernel in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = GAP + column * pitch, sheet.top + row * row_pitch
        drawn = sheet.draw_image(kernel, left, top, norm, "RdBu_r")
    if not in_color:
        sheet.add_colorbar(drawn, bar_left, sheet.top, min(height - GAP, 3), "weight")
    return sheet.figure
