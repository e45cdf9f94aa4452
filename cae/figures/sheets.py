"""Sheets: many images in one axes, placed by inches."""

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from cae.figures.style import LINE, style_colorbar, wrap_title

CELL = 0.95  # inches: the side of one drawn image
GAP = 0.1  # inches between images, and around a sheet


def displayable(image: np.ndarray) -> np.ndarray:
    """(height, width, 3) stays in colour; any other number of channels becomes its mean."""
    image = np.nan_to_num(np.asarray(image, np.float32))
    return image.clip(0, 1) if image.shape[-1] == 3 else image.mean(axis=-1)


def cell_height(image: np.ndarray) -> float:
    """The inches that an image takes in a cell that is `CELL` wide and at most as high."""
    return CELL * min(1, image.shape[0] / image.shape[1])


class Sheet:
    """A figure with a title and one axes, measured in inches from its top left corner.

    One axes for all images is many times faster than one per image.

    Args:
        width: Inches.
        height: Inches below the title.
        title: Of the figure.

    Attributes:
        figure: The figure.
        top: Where the title ends: inches from the upper edge.
    """

    def __init__(self, width: float, height: float, title: str):
        lines = wrap_title(title, width - 2 * GAP)
        self.top = GAP + 0.21 * len(lines) + GAP
        height += self.top
        self.figure = Figure(figsize=(width, height), layout="none")
        self._ax = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._ax.axis("off")
        self._ax.text(GAP, GAP, "\n".join(lines), va="top", fontsize=12, fontweight="bold")

    def draw_image(
        self, image: np.ndarray, left: float, top: float, norm: Normalize, cmap: str = "gray"
    ) -> AxesImage:
        """Draws an image in the middle of the cell that begins at `left` and `top`."""
        height = cell_height(image)
        width = height * image.shape[1] / image.shape[0]
        left += (CELL - width) / 2
        extent = (left, left + width, top + height, top)
        return self._ax.imshow(image, cmap=cmap, norm=norm, extent=extent)

    def write_caption(self, text: str, left: float, top: float, color: str | None = None) -> None:
        """Writes a caption over the cell that begins at `left` and `top`."""
        place = {"ha": "center", "va": "bottom", "fontsize": 8}
        self._ax.text(left + CELL / 2, top - 0.035, text, color=color, **place)

    def write_row_name(self, text: str, right: float, middle: float) -> None:
        """Writes the name of a row of cells so that it ends at `right`."""
        self._ax.text(right, middle, text, ha="right", va="center")

    def add_colorbar(
        self, mappable: ScalarMappable, left: float, top: float, height: float, label: str
    ) -> None:
        """Draws a colour bar from `top` downwards."""
        page_width, page_height = self.figure.get_size_inches()
        bounds = (left / page_width, 1 - (top + height) / page_height)
        cax = self.figure.add_axes((*bounds, 0.12 / page_width, height / page_height))
        bar = self.figure.colorbar(mappable, cax=cax)
        bar.ax.yaxis.set_major_locator(MaxNLocator(4))
        style_colorbar(bar, label)


def caption_height(caption: str) -> float:
    """The inches that a caption takes above its cell."""
    return LINE * (1 + caption.count("\n")) + 0.06
