"""The look of all figures: colours, text that fits, axes, legends and titles.

Colours: M. Okabe and K. Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/.
"""

import re
import textwrap
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure, FigureBase
from matplotlib.font_manager import get_font_names
from matplotlib.ticker import LogLocator, NullFormatter

from cae.errors import readable

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, PURPLE, SKY = "#E69F00", "#CC79A7", "#56B4E9"
BROWN, WINE, INDIGO = "#792D06", "#882255", "#332288"
INK, GRAY, PALE = "#222222", "#777777", "#E4E4E4"
BEHIND = "#BDBDBD"  # of what stands behind something in colour
# Okabe and Ito's colours without their yellow, which vanishes on white, and three darker ones.
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK, WINE, INDIGO, BROWN)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
# Matplotlib's own font lacks these alphabets; what is installed of the others fills in.
FONTS = (
    "DejaVu Sans",
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei"),  # Linux
    *("Microsoft YaHei", "Malgun Gothic", "Nirmala UI", "Leelawadee UI"),  # Windows
    "Arial Unicode MS",  # macOS
)

STYLE = {
    "font.family": [name for name in FONTS if name in get_font_names()],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.facecolor": "white",
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "text.parse_math": False,  # an experiment or a class may be called "$x$"
    "figure.titlesize": 12,
    "figure.titleweight": "bold",
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.dpi": 120,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "image.interpolation": "nearest",
    "lines.linewidth": 1.8,
}
LEFT_TO_RIGHT = "\u200e"  # an invisible mark
MOST_LABELLED = 1000  # from the smallest to the largest value on an axis with labels at 2 and 5
LINE = 0.16  # inches: the height of a line of small text


def look(index: int) -> dict[str, str]:
    """A colour and a marker, two cues that tell 90 things apart."""
    return {"color": PALETTE[index % len(PALETTE)], "marker": MARKERS[index % len(MARKERS)]}


@contextmanager
def saving_svg() -> Iterator[None]:
    """A context in which saving the same figure as SVG gives the same bytes, without warnings."""
    with rc_context({"svg.hashsalt": "cae"}), warnings.catch_warnings():
        # A name in an alphabet that the fonts lack is drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        yield


# --- Text ------------------------------------------------------------------------------------


def format_number(value: float | None) -> str:
    """Four significant digits, so that numbers in a column compare at a glance; – for `None`."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def shorten(text: str, width: int) -> str:
    """Cuts out the middle: names of variations differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def name_image(index: int, image_names: Sequence[str] | None, width: int) -> str:
    """The name of an image, by default its index; of a longer one the end, where files differ."""
    name = f"image {index}" if image_names is None else readable(image_names[index])
    most = width * text_inches("x", 1)
    if text_inches(name, 1) > most:
        name = re.sub(r"(?<=.)\.\w{2,5}$", "", name)  # not the index in images.npy[7]
    if text_inches(name, 1) <= most:
        return in_sentence(name)
    while text_inches(f"…{name}", 1) > most:
        name = name[1:]
    return in_sentence(f"…{name}")


def text_inches(text: str, size: float) -> float:
    """About the width of a line of text of `size` points; East Asian letters are square."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return size / 72 * (0.6 * len(text) + 0.5 * wide)


def in_sentence(name: str) -> str:
    """A name among other text, whose order Arabic or Hebrew letters would otherwise reverse."""
    is_leftward = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    return f"{LEFT_TO_RIGHT}{name}{LEFT_TO_RIGHT}" if is_leftward else name


def class_name(label: int, class_names: Sequence[str], width: int, others: str = "unseen") -> str:
    """The name of a class in at most `width` characters; `others` for the label -1."""
    return shorten(str(class_names[label]), width) if label >= 0 else others


def ink_on(rgba: Sequence[float]) -> str:
    """The text colour that is readable on a colour: dark or white, by ITU-R BT.709 luminance."""
    return INK if np.dot(rgba[:3], (0.2126, 0.7152, 0.0722)) > 0.5 else "white"


# --- Axes ------------------------------------------------------------------------------------


def style_axes(ax: Axes) -> Axes:
    """Sets what Matplotlib would read from `rcParams` only when it draws the ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRAY)
    ax.tick_params(which="both", labelsize=8, color=GRAY, labelcolor=INK)
    ax.grid(color=PALE, linewidth=0.7)
    ax.set_axisbelow(True)
    return ax


def style_matrix(ax: Axes) -> Axes:
    """Axes for a heat map: neither frame nor ticks."""
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def style_colorbar(bar: Colorbar, label: str) -> None:
    """A colour bar without a frame, with small text."""
    bar.set_label(label, size=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=GRAY, labelcolor=INK)


def log_ticks(axis: Axis) -> None:
    """Labels a logarithmic axis at 1, 2, 5, 10, 20, …; over many decades at 1, 10, 100, …"""
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1,) if high > MOST_LABELLED * low > 0 else (1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def finite_values(values: Sequence[float]) -> np.ndarray:
    """float (num_finite,): the values without NaN and infinity."""
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def set_title(figure: Figure, title: str) -> None:
    """Writes the title of a figure at its top left, in at most about three lines, with room."""
    width = int(8 * figure.get_figwidth())  # 8 bold characters of 12 points take an inch
    lines = textwrap.wrap(shorten(title, 3 * width - 20), width, break_on_hyphens=False)
    figure.suptitle("\n".join(lines), x=0.01, ha="left")
    figure.set_figheight(figure.get_figheight() + 0.2 * (len(lines) - 1))


def outside_legend(figure: FigureBase, *axes: Axes) -> int:
    """One legend below all axes, where it covers no data; needs the constrained layout.

    Returns:
        Its rows.
    """
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if not handles:
        return 0
    columns = _fit_columns([*handles], figure.bbox.width / figure.dpi)
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=columns)
    return -(-len(handles) // columns)


def _fit_columns(labels: Sequence[str], width: float) -> int:
    """The largest number of columns of a legend that fits into a width in inches."""
    widths = [text_inches(label, STYLE["legend.fontsize"]) + 0.6 for label in labels]
    for columns in range(len(labels), 1, -1):
        # As Matplotlib divides them: of four in three columns, the first holds two.
        if sum(map(max, np.array_split(widths, columns))) <= width:
            return columns
    return 1
