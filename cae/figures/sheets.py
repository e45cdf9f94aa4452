"""Sheets: many images in one axes, which is many times faster than one axes per image."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from cae.figures.style import LINE, STYLE, set_title, style_colorbar, text_inches

# An image stands in a cell, which is one unit of its sheet wide. A unit is about an inch.
IMAGE_WIDTH = 0.9


def displayable(image: np.ndarray) -> np.ndarray:
    """(height, width, 3) stays in colour; any other number of channels becomes its mean."""
    image = np.nan_to_num(np.asarray(image, np.float32))
    return image.clip(0, 1) if image.shape[-1] == 3 else image.mean(axis=-1)


def cell_height(image: np.ndarray) -> float:
    """The height of a cell: an image is at most as high as wide."""
    return IMAGE_WIDTH * min(1, image.shape[0] / image.shape[1]) + (1 - IMAGE_WIDTH)


def caption_height(caption: str) -> float:
    """The height that a caption takes above its cell."""
    return LINE * (1 + caption.count("\n"))


def make_sheet(width: float, height: float, title: str) -> Axes:
    """An empty sheet in a figure with a title; its y axis points downwards."""
    figure = Figure(figsize=(max(width, 5) + 0.2, height + 0.5))
    set_title(figure, title)
    ax = figure.subplots()
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal", anchor="NW")
    ax.axis("off")
    return ax


def draw_image(
    ax: Axes, image: np.ndarray, left: float, top: float, norm: Normalize, cmap: str = "gray"
) -> AxesImage:
    """Draws an image in the middle of the cell that begins at `left` and `top`."""
    height = cell_height(image) - (1 - IMAGE_WIDTH)
    width = height * image.shape[1] / image.shape[0]
    left += (1 - width) / 2
    return ax.imshow(image, cmap=cmap, norm=norm, extent=(left, left + width, top + height, top))


def write_caption(ax: Axes, text: str, left: float, top: float, color: str | None = None) -> None:
    """Writes a caption over the cell that begins at `left` and `top`."""
    ax.text(left + 0.5, top - 0.04, text, color=color, ha="center", va="bottom", fontsize=8)


@rc_context(STYLE)
def plot_captioned(
    images: np.ndarray, captions: Sequence[str], title: str, color: str | None = None
) -> Figure:
    """Draws images in a grid, each below its caption.

    Args:
        images: float (num_images, height, width, channels) in [0, 1]; without any, the title alone.
        captions: One per image, all of the same number of lines.
        title: What they are.
        color: Of the captions.
    """
    lines = [line for caption in captions for line in caption.split("\n")]
    width = max([1.0, *(text_inches(line, 8) for line in lines)])
    columns = int(np.clip(np.ceil(np.sqrt(len(images))), 1, 8.4 // width))
    above = caption_height(captions[0]) if captions else 0
    row_height = above + cell_height(images[0]) if captions else 0.1
    ax = make_sheet(columns * width, max(1, -(-len(images) // columns)) * row_height, title)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        left, top = (column + 0.5) * width - 0.5, row * row_height + above
        write_caption(ax, caption, left, top, color)
        draw_image(ax, displayable(image), left, top, Normalize(0, 1))
    return ax.figure


def add_colorbar(ax: Axes, drawn: AxesImage, left: float, label: str, height: float) -> None:
    """Draws the colour bar of an image at `left`, as far up as it ends, `height` high."""
    width, total_height = ax.get_xlim()[1], ax.get_ylim()[0]
    bottom = 1 - (drawn.get_extent()[3] + height) / total_height
    cax = ax.inset_axes((left / width, bottom, 0.12 / width, height / total_height))
    bar = ax.figure.colorbar(drawn, cax=cax)
    bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    style_colorbar(bar, label)
