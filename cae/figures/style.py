"""Style: colours, text that fits, axes and titles."""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from cae.records.history import History

BLUE, VERMILION, GREEN = "#0072B2", "#D55E00", "#009E73"
ORANGE, PURPLE, SKY = "#E69F00", "#CC79A7", "#56B4E9"
INK, GRAY, PALE = "#222222", "#777777", "#E4E4E4"
# Okabe and Ito's colours without their yellow, which vanishes on white.
PALETTE = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK)
# A second cue beside colour. Nine of them, so that 7 colours x 9 markers tell 63 classes apart.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")

STYLE = {
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

LINE = 0.16  # inches: a line of small text
COUNTS_AND_SHARES_CLASSES = 12  # up to here a cell of the confusion matrix has room for both
METRIC_NAMES = {
    "loss": "loss",
    "mse": "mean squared error",
    "accuracy": "accuracy",
    "precision": "macro precision",
    "recall": "macro recall",
    "f1": "macro F1",
}
CLASSIFIER_METRICS = ("loss", "accuracy", "precision", "recall", "f1")
MINIMIZED = frozenset({"loss", "mse"})
GRID_IMAGES = 25


# ---------------------------------------------------------------------------- words and numbers


def describe_architecture(model_info: Mapping[str, Any]) -> str:
    """The layers in words, such as ``conv 32 3×3 → pool 2×2 | upSample 2×2 → conv 1 3×3``.

    Args:
        model_info: Hyperparameters of an autoencoder or a classifier. `encoder_layers` may also be
            the path of a saved model, or missing when the command line gave it.

    Returns:
        Encoder, then decoder or dense layers, separated by ``|``.
    """
    encoder = model_info.get("encoder_layers")
    if isinstance(encoder, str | PurePath):
        parts = [f"encoder of {PurePath(encoder).name}"]
    else:
        parts = [_describe_layers(encoder) if encoder else "encoder"]
    # In a decoder `pool` is the old spelling of `upSample`.
    decoder = [
        ("upSample" if kind == "pool" else kind, *sizes)
        for kind, *sizes in model_info.get("decoder_layers") or ()
    ]
    parts += [_describe_layers(decoder), _describe_layers(model_info.get("dense_layers") or ())]
    return " | ".join(part for part in parts if part)


def _describe_layers(layers: Sequence[Sequence]) -> str:
    return " → ".join(
        " ".join("×".join(map(str, word)) if _is_list(word) else str(word) for word in layer)
        for layer in layers
    )


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def describe_value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {describe_value(item)}" for key, item in value.items())
    if _is_list(value):
        return ", ".join(describe_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def format_number(value: float | None) -> str:
    """Four significant digits, so that numbers below each other compare at a glance."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def shorten(text: str, width: int) -> str:
    """Cuts the middle out: names of variations differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at spaces and after the underscores that names of experiments are full of."""

    wordsep_simple_re = re.compile(r"( +)|(?<=_)")


def wrap_text(text: str, width: int) -> list[str]:
    return _Wrapper(width, break_on_hyphens=False).wrap(text)


def text_inches(text: str, size: float, weight: str = "normal") -> float:
    """How wide a line of text is in the style's font."""
    font = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def fitting_characters(text: str, inches: float, size: float, weight: str = "normal") -> int:
    """How many characters of `text` fit into a line, with a tenth to spare as they differ."""
    return max(1, int(0.9 * inches * len(text) / (text_inches(text, size, weight) or 1)))


def wrap_title(title: str, inches: float) -> list[str]:
    """The title of a figure in at most about three lines."""
    width = fitting_characters(title, inches, 12, "bold")
    return wrap_text(shorten(title, max(3 * width - 20, width)), width)


def as_sentence(text: str) -> str:
    return text[0].upper() + text[1:]  # `capitalize` would write "Macro f1"


def metric_label(metric: str, history: History) -> str:
    """What an axis shows, and in which unit."""
    if metric == "mse":
        return "mean squared error per pixel"
    if metric == "loss" and history.kind == "autoencoder":
        name = str(history.model_info.get("loss", "")).replace("_", " ")
        return f"loss per pixel ({name})" if name else "loss per pixel"
    return "loss per image" if metric == "loss" else f"{METRIC_NAMES[metric]} (0 to 1)"


# ---------------------------------------------------------------------------- the common look


def style_axes(ax: Axes) -> Axes:
    """Sets what matplotlib would read from `rcParams` only later, when it draws the ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRAY)
    ax.tick_params(which="both", labelsize=8, color=GRAY, labelcolor=INK)
    ax.grid(color=PALE, linewidth=0.7)
    ax.set_axisbelow(True)
    return ax


def style_matrix(ax: Axes) -> Axes:
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def style_colorbar(bar: Colorbar, label: str) -> None:
    bar.set_label(label, size=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=GRAY, labelcolor=INK)


def set_title(figure: Figure, title: str) -> None:
    figure.suptitle("\n".join(wrap_title(title, figure.get_figwidth())), x=0.01, ha="left")


def epoch_axis(ax: Axes, num_epochs: int) -> None:
    ax.set_xlabel("epoch")
    margin = max(0.5, 0.02 * num_epochs)
    ax.set_xlim(1 - margin, max(num_epochs, 1) + margin)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def loss_scale(ax: Axes, values: Sequence[float]) -> None:
    """Takes a logarithmic axis where a linear one would flatten all but the first epochs."""
    finite = finite_values(values)
    if finite.size and 0 < finite.min() < finite.max() / 10:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel(f"{ax.get_ylabel()}, log scale")


def finite_values(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def outside_legend(figure: Figure, *axes: Axes) -> None:
    """One legend below all axes, where it covers no data."""
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=4)


def class_color(label: int) -> str:
    return PALETTE[label % len(PALETTE)] if label >= 0 else GRAY


def class_name(label: int, class_names: Sequence[str], width: int) -> str:
    return shorten(str(class_names[label]), width) if label >= 0 else "unseen"


def ink_on(rgba: Sequence[float]) -> str:
    """Dark or white, whichever can be read on that colour (luminance of ITU-R BT.709)."""
    return INK if np.dot(rgba[:3], (0.2126, 0.7152, 0.0722)) > 0.5 else "white"


def numbered_key(key: str, number: int, total: int) -> str:
    return key if total == 1 else f"{key}-{number}"
