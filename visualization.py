"""Arrays and histories become figures.

A plot that fits one axes takes an `Axes` and returns it; a plot that needs more returns a `Figure`.
Nothing here shows, saves or selects a backend: that is for the calling program. Images are
float (num_images, height, width, channels) in [0, 1]; three channels are drawn as colour, any other
number as the mean of the channels in gray.

Colours: M. Okabe and K. Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colors, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.textpath import text_to_path
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from errors import DataError
from history import History

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
    "figure.max_open_warning": 0,  # 25 experiments make 51 figures, and the caller closes them
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "image.interpolation": "nearest",
    "lines.linewidth": 1.8,
}

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

CELL = 0.95  # inches: the side of one drawn image
GAP = 0.1  # inches between images, and around a sheet of them
LINE = 0.16  # inches: a line of small text
COLUMNS = 10  # images beside each other, the next ones go below
GRID_IMAGES = 25
COUNTS_AND_SHARES_CLASSES = 12  # up to here a cell of the confusion matrix has room for both
COUNTS_CLASSES = 32  # up to here it has room for the count
FEW_IMAGES = 30  # t-SNE needs neighbours: below this the principal components are shown
PCA_DIMENSIONS = 50  # as advised by van der Maaten and Hinton, JMLR 9, 2008


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


def _describe_value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_describe_value(item)}" for key, item in value.items())
    if _is_list(value):
        return ", ".join(_describe_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    """Four significant digits, so that numbers below each other compare at a glance."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.4g}"


def _shorten(text: str, width: int) -> str:
    """Cuts the middle out: names of variations differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


class _Wrapper(textwrap.TextWrapper):
    """Breaks lines at spaces and after the underscores that names of experiments are full of."""

    wordsep_simple_re = re.compile(r"( +)|(?<=_)")


def _wrap(text: str, width: int) -> list[str]:
    return _Wrapper(width, break_on_hyphens=False).wrap(text)


def _inches(text: str, size: float, weight: str = "normal") -> float:
    """How wide a line of text is in the style's font."""
    font = FontProperties(size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _fitting(text: str, inches: float, size: float, weight: str = "normal") -> int:
    """How many characters of `text` fit into a line, with a tenth to spare as they differ."""
    return max(1, int(0.9 * inches * len(text) / (_inches(text, size, weight) or 1)))


def _wrap_title(title: str, inches: float) -> list[str]:
    """The title of a figure in at most about three lines."""
    width = _fitting(title, inches, 12, "bold")
    return _wrap(_shorten(title, max(3 * width - 20, width)), width)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]  # `capitalize` would write "Macro f1"


def _metric_label(metric: str, history: History) -> str:
    """What an axis shows, and in which unit."""
    if metric == "mse":
        return "mean squared error per pixel"
    if metric == "loss" and history.kind == "autoencoder":
        name = str(history.model_info.get("loss", "")).replace("_", " ")
        return f"loss per pixel ({name})" if name else "loss per pixel"
    return "loss per image" if metric == "loss" else f"{METRIC_NAMES[metric]} (0 to 1)"


# ---------------------------------------------------------------------------- the common look


def _style_axes(ax: Axes) -> Axes:
    """Sets what matplotlib would read from `rcParams` only later, when it draws the ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRAY)
    ax.tick_params(which="both", labelsize=8, color=GRAY, labelcolor=INK)
    ax.grid(color=PALE, linewidth=0.7)
    ax.set_axisbelow(True)
    return ax


def _style_matrix(ax: Axes) -> Axes:
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def _style_colorbar(bar: Colorbar, label: str) -> None:
    bar.set_label(label, size=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8, color=GRAY, labelcolor=INK)


def _set_title(figure: Figure, title: str) -> None:
    figure.suptitle("\n".join(_wrap_title(title, figure.get_figwidth())), x=0.01, ha="left")


def _epoch_axis(ax: Axes, num_epochs: int) -> None:
    ax.set_xlabel("epoch")
    margin = max(0.5, 0.02 * num_epochs)
    ax.set_xlim(1 - margin, max(num_epochs, 1) + margin)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def _loss_scale(ax: Axes, values: Sequence[float]) -> None:
    """Takes a logarithmic axis where a linear one would flatten all but the first epochs."""
    finite = _finite(values)
    if finite.size and 0 < finite.min() < finite.max() / 10:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel(f"{ax.get_ylabel()}, log scale")


def _finite(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return array[np.isfinite(array)]


def _outside_legend(figure: Figure, *axes: Axes) -> None:
    """One legend below all axes, where it covers no data."""
    handles = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=4)


# ---------------------------------------------------------------------------- training curves


@rc_context(STYLE)
def plot_curves(history: History, metric: str, ax: Axes, color: str = BLUE) -> Axes:
    """Draws one metric over the epochs: training dashed, validation solid.

    The epoch whose weights were kept carries a ring. A vertical line marks the first phase's end
    when a classifier was trained in two. The lines carry labels; the legend is left to the caller,
    who may have several axes to share it.

    Args:
        history: What training recorded.
        metric: A key of its rows without `val_`, such as ``loss`` or ``accuracy``.
        ax: Where to draw.
        color: Of both lines.

    Returns:
        `ax`.
    """
    _style_axes(ax)
    epochs = history.column("epoch")
    # Hollow against filled tells the two apart where there is one epoch and no line.
    look = {"color": color, "marker": "o" if len(epochs) <= 20 else None, "markersize": 4}
    training = {"linestyle": "--", "linewidth": 1.2, "markerfacecolor": "white"}
    ax.plot(epochs, history.column(metric), **look, **training, label="training")
    kept_on = metric
    if history.has(f"val_{metric}"):
        kept_on = f"val_{metric}"
        ax.plot(epochs, history.column(kept_on), **look, label="validation")
    if kept_on in history.best:
        ring = {"linestyle": "none", "marker": "o", "markersize": 10, "markerfacecolor": "none"}
        label = f"weights kept (epoch {history.best_epoch})"
        ax.plot(history.best_epoch, history.best[kept_on], **ring, color=INK, label=label)
    if 0 < history.dense_only_epochs < len(epochs):
        label = "left: encoder frozen, right: all layers trained"
        ax.axvline(history.dense_only_epochs + 0.5, color=GRAY, linestyle=":", label=label)
    _epoch_axis(ax, len(epochs))
    ax.set_ylabel(_metric_label(metric, history))
    if metric in MINIMIZED:
        _loss_scale(ax, history.column(metric) + history.column(f"val_{metric}"))
    return ax


def _describe_record(history: History, metrics: Sequence[str]) -> list[list[tuple[str, ...]]]:
    """What a reader wants to know beside the curves: sections of rows of cells."""
    # Spaces that do not break keep a layer, and a hyperparameter, on one line.
    architecture = describe_architecture(history.model_info).replace(" ", "\xa0")
    lines = [
        line
        for part in architecture.split("\xa0|\xa0")
        for line in _wrap(part.replace("→\xa0", "→ "), 62)
    ]
    sections = [[("Architecture",), *((line,) for line in lines)]]
    if history.epochs:
        sections.append(_describe_values(history, metrics))
    measured = [
        (key.replace("_", " "), f"{value:,}" if isinstance(value, int) else _number(value))
        for key, value in history.metrics.items()
        if isinstance(value, int | float)
        and key not in ("best_epoch", *metrics)
        and not key.startswith("val_")
    ]
    if measured:
        sections.append([("Measured",), *measured])
    settings = " ".join(
        f"{key}: {_describe_value(value)};".replace("_", "\xa0").replace(" ", "\xa0")
        for key, value in history.model_info.items()
        if value is not None and not key.endswith("_layers")
    )
    lines = _wrap(settings.removesuffix(";"), 62)
    return [*sections, [("Hyperparameters",), *((line,) for line in lines)]]


def _describe_values(history: History, metrics: Sequence[str]) -> list[tuple[str, ...]]:
    """The metrics of the epoch whose weights were kept and of the last one."""
    last = len(history.epochs)
    epochs = {f"epoch {last} (last)": history.epochs[-1]}
    if history.best_epoch == last:
        epochs = {f"epoch {last} (last, kept)": history.best}
    elif history.best:
        epochs = {f"epoch {history.best_epoch} (kept)": history.best, **epochs}
    heading = [cell for title in epochs for cell in (title, "")]
    rows = [("Values", *heading), ("", *("training", "validation") * len(epochs))]
    for metric in metrics:
        keys = (metric, f"val_{metric}")
        cells = [_number(row.get(key)) for row in epochs.values() for key in keys]
        rows.append((METRIC_NAMES[metric], *cells))
    return rows


def _num_lines(sections: Sequence[Sequence]) -> int:
    return sum(len(rows) + 1 for rows in sections)


def _write_record(ax: Axes, sections: Sequence[Sequence[tuple[str, ...]]]) -> None:
    """Writes the sections of `_describe_record` downwards from the top left corner of `ax`."""
    ax.axis("off")
    line = 0
    for rows in sections:
        for number, row in enumerate(rows):
            for column, cell in enumerate(row):
                ax.annotate(
                    cell,
                    xy=(0.02 + (0.13 + 0.17 * column if column else 0), 1),
                    xycoords="axes fraction",
                    xytext=(0, -72 * LINE * line),
                    textcoords="offset points",
                    va="top",
                    fontsize=8,
                    fontweight="normal" if number or column else "bold",
                    color=GRAY if number and column == 0 and len(row) > 1 else INK,
                )
            line += 1
        line += 1


def _plot_autoencoder_history(history: History) -> Figure:
    sections = _describe_record(history, ("loss", "mse"))
    figure = plt.figure(figsize=(11, max(4.8, LINE * _num_lines(sections) + 1.2)))
    curves, record = figure.subplots(1, 2, width_ratios=(1.15, 1))
    plot_curves(history, "loss", curves)
    curves.set_title("Training of the autoencoder")
    _write_record(record, sections)
    _outside_legend(figure, curves)
    _set_title(figure, history.name)
    return figure


def _plot_classifier_history(history: History) -> Figure:
    sections = _describe_record(history, CLASSIFIER_METRICS)
    figure = plt.figure(figsize=(13.5, 2 * max(3.2, LINE * _num_lines(sections) + 0.2) + 1))
    *curves, record = figure.subplots(2, 3, width_ratios=(1, 1, 1.15)).flat
    for ax, metric in zip(curves, CLASSIFIER_METRICS, strict=True):
        plot_curves(history, metric, ax)
        ax.set_title(_sentence(METRIC_NAMES[metric]))
    _write_record(record, sections)
    _outside_legend(figure, *curves)
    _set_title(figure, history.name)
    return figure


# ---------------------------------------------------------------------------- comparing experiments


def _shared_key(histories: Sequence[History], metric: str) -> str:
    """The validation metric, or the training one when an experiment had no validation data."""
    has_validation = all(history.has(f"val_{metric}") for history in histories if history.epochs)
    return f"val_{metric}" if has_validation else metric


def _key_words(key: str) -> str:
    metric = key.removeprefix("val_")
    return f"{'validation' if metric != key else 'training'} {METRIC_NAMES[metric]}"


def _best_values(histories: Sequence[History], key: str) -> np.ndarray:
    """The best value each experiment reached, NaN for one that never had a finite value."""
    best = min if key.removeprefix("val_") in MINIMIZED else max
    finite = [_finite(history.column(key)) for history in histories]
    return np.array([best(values) if values.size else np.nan for values in finite])


def _rank_styles(ranking: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Colour and marker for the best experiments; the others stay in the background."""
    behind = {"color": "#BDBDBD", "marker": None, "linewidth": 1, "zorder": 1.5}
    styles = dict.fromkeys(ranking, behind)
    for rank, (index, color) in enumerate(zip(ranking, PALETTE, strict=False)):
        styles[index] = {"color": color, "marker": MARKERS[rank], "zorder": 3 - rank / 10}
    return styles


def _plot_all_curves(histories: Sequence[History], key: str, styles: dict, ax: Axes) -> None:
    _style_axes(ax)
    length = max(len(history.epochs) for history in histories)
    for index, history in enumerate(histories):
        ax.plot(
            history.column("epoch"),
            history.column(key),
            **styles[index],
            markersize=5,
            markevery=max(1, length // 10),
        )
    _epoch_axis(ax, length)
    ax.set_ylabel(_metric_label(key.removeprefix("val_"), histories[0]))
    ax.set_title(f"{_sentence(_key_words(key))}; colours and markers as in the bars")
    if key.removeprefix("val_") in MINIMIZED:
        _loss_scale(ax, [value for history in histories for value in history.column(key)])


def _bar_limits(values: np.ndarray) -> tuple[float, float]:
    """Zero and the maximum, unless the bars then looked alike; with room for the numbers."""
    finite = _finite(values)
    if not finite.size:
        return 0.0, 1.0
    low, high = finite.min(), finite.max()
    start = low - 0.25 * (high - low) if 0 < high - low < low / 2 else min(0.0, low)
    return start, high + 0.25 * ((high - start) or 1.0)


def _plot_bars(names: Sequence[str], values: np.ndarray, key: str, styles: dict, ax: Axes) -> None:
    """Horizontal bars, the best on top, with the markers of the curves at their ends."""
    _style_axes(ax).grid(visible=False, axis="y")
    start, stop = _bar_limits(values)
    height = min(0.62, 0.15 * len(styles))
    for row, (index, style) in enumerate(styles.items()):
        value, color = values[index], style["color"]
        text, end = _number(value), value
        if np.isnan(value):
            text, end = "no finite value", start
        ax.barh(row, end - start, height, left=start, color=color, alpha=0.55)
        ax.plot(value, row, color=color, marker=style["marker"], markersize=6)
        ax.annotate(text, (end, row), (8, 0), textcoords="offset points", va="center", fontsize=8)
    labels = [f"{index + 1} · {_shorten(names[index], 40)}" for index in styles]
    ax.set_yticks(range(len(labels)), labels)
    ax.set(xlim=(start, stop), ylim=(len(labels) - 0.4, -0.6))
    # Room for the numbers is no room for an accuracy above 1.
    highest = stop if key.removeprefix("val_") in MINIMIZED else 1.0
    ticks = MaxNLocator(5).tick_values(start, stop)
    ax.set_xticks(ticks[(ticks >= start) & (ticks <= highest + 1e-9)])
    note = f"  (the axis starts at {start:.4g}, not at 0)" if start else ""
    ax.set_xlabel(f"best {_key_words(key)}{note}")
    colored = f"; the best {len(PALETTE)} in colour" if len(labels) > len(PALETTE) else ""
    ax.set_title(f"Best epoch of each experiment{colored}")


def _plot_comparison(
    histories: Sequence[History], curve_metrics: Sequence[str], ranked_metric: str, title: str
) -> Figure:
    """Curves of all experiments on the left, on the right the ranking by `ranked_metric`."""
    ranked_key = _shared_key(histories, ranked_metric)
    values = _best_values(histories, ranked_key)
    sign = 1 if ranked_metric in MINIMIZED else -1
    styles = _rank_styles(np.argsort(sign * values, kind="stable").tolist())  # NaN comes last
    height = max(2.2 + 2.2 * len(curve_metrics), 0.27 * len(histories) + 1.6)
    figure = plt.figure(figsize=(13, height))
    grid = figure.add_gridspec(len(curve_metrics), 2, width_ratios=(1, 1))
    for row, metric in enumerate(curve_metrics):
        key = _shared_key(histories, metric)
        _plot_all_curves(histories, key, styles, figure.add_subplot(grid[row, 0]))
    names = [history.name for history in histories]
    _plot_bars(names, values, ranked_key, styles, figure.add_subplot(grid[:, 1]))
    _set_title(figure, title)
    return figure


def _compare_autoencoders(histories: Sequence[History]) -> Figure:
    # The penalty of l2 is part of the loss, so it too makes losses incomparable.
    losses = {(h.model_info.get("loss"), h.model_info.get("l2")) for h in histories}
    title = f"{len(histories)} autoencoders compared"
    if len(losses) > 1:
        title += " by mean squared error: their losses are not of one kind"
    metric = "loss" if len(losses) == 1 else "mse"
    return _plot_comparison(histories, [metric], metric, title)


def _numbered(key: str, number: int, total: int) -> str:
    return key if total == 1 else f"{key}-{number}"


# ---------------------------------------------------------------------------- sheets of images


def _open_sheet(width: float, height: float, title: str) -> tuple[Figure, Axes, float]:
    """A figure with one axes that is measured in inches from its top left corner.

    One axes for all images is many times faster than one for each, and leaves nothing to a layout.

    Returns:
        The figure, the axes, and the distance from the top at which the title ends.
    """
    lines = _wrap_title(title, width - 2 * GAP)
    top = GAP + 0.21 * len(lines) + GAP
    height += top
    figure = plt.figure(figsize=(width, height), layout="none")
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    ax.text(GAP, GAP, "\n".join(lines), va="top", fontsize=12, fontweight="bold")
    return figure, ax, top


def _displayable(image: np.ndarray) -> np.ndarray:
    """(height, width, 3) stays colour, any other number of channels becomes its mean."""
    image = np.nan_to_num(np.asarray(image, np.float32))
    return image.clip(0, 1) if image.shape[-1] == 3 else image.mean(axis=-1)


def _cell_height(image: np.ndarray) -> float:
    """Inches that an image takes in a cell `CELL` wide and at most as high."""
    return CELL * min(1, image.shape[0] / image.shape[1])


def _draw_image(
    ax: Axes, image: np.ndarray, left: float, top: float, norm: colors.Normalize, cmap: str = "gray"
) -> AxesImage:
    """Draws an image into the cell whose corner lies at (`left`, `top`) inches."""
    height = _cell_height(image)
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
    _style_colorbar(bar, label)


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
    cell_height, label_width = _cell_height(images[0]), 1.15  # inches
    caption_height = LINE * (1 + captions[0].count("\n")) + 0.05
    block_height = caption_height + len(rows) * (cell_height + GAP) + GAP
    bar_left = label_width + columns * (CELL + GAP)
    figure, ax, top = _open_sheet(max(bar_left + 0.7, 5), blocks * block_height, title)

    unit = colors.Normalize(0, 1)
    # Differences are small: black is none, the brightest is the largest one here.
    errors = colors.Normalize(0, max(float(np.nan_to_num(differences).max()), 0.01))
    for index, caption in enumerate(captions):
        block, column = divmod(index, COLUMNS)
        left = label_width + column * (CELL + GAP)
        first, second, third = (
            top + block * block_height + caption_height + row * (cell_height + GAP)
            for row in range(len(rows))
        )
        ax.text(left + CELL / 2, first - 0.03, caption, ha="center", va="bottom", fontsize=8)
        _draw_image(ax, _displayable(images[index]), left, first, unit)
        _draw_image(ax, _displayable(reconstructions[index]), left, second, unit)
        drawn = _draw_image(ax, differences[index], left, third, errors, "magma")
        if column == 0:
            for label, y in zip(rows, (first, second, third), strict=True):
                ax.text(label_width - GAP, y + cell_height / 2, label, ha="right", va="center")
    _add_colorbar(figure, drawn, bar_left, third, cell_height, "pixel value")
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
        captions = [f"MSE {_number(error)}" for error in errors]
        title = f"{history.name}: reconstructions, mean squared error {_number(errors.mean())}"
        loss_key, images_key = (
            _numbered(key, number, len(histories)) for key in ("loss", "reconstructions")
        )
        figures[loss_key] = _plot_autoencoder_history(history)
        figures[images_key] = _plot_reconstructions(images, output, captions, title)
    if len(histories) > 1:
        figures["comparison"] = _compare_autoencoders(histories)
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
    captions = [f"image {indices[index]}\nMSE {_number(errors[index])}" for index in worst]
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
    pitch, row_pitch = CELL + GAP, _cell_height(shown[0]) + GAP
    height = -(-len(shown) // columns) * row_pitch
    title = f"{len(shown)} filters of the first convolution"
    if in_color:
        title += f" (gray: 0, full colour: ±{limit:.2g})"
        shown = 0.5 + shown / (2 * limit)
    bar_left = GAP + columns * pitch
    figure, ax, top = _open_sheet(bar_left + (0 if in_color else 0.75), height, title)
    norm = colors.Normalize(-limit, limit)
    for index, kernel in enumerate(shown):
        row, column = divmod(index, columns)
        drawn = _draw_image(ax, kernel, GAP + column * pitch, top + row * row_pitch, norm, "RdBu_r")
    if not in_color:
        _add_colorbar(figure, drawn, bar_left, top, min(height - GAP, 3), "weight")
    return figure


# ---------------------------------------------------------------------------- encodings


def project_encodings(encodings: np.ndarray, seed: int = 0) -> np.ndarray:
    """Brings encodings to two dimensions, the same every time.

    Principal components first (at most 50), then t-SNE; for fewer than 30 images, too few to speak
    of neighbourhoods, the first two principal components.

    Args:
        encodings: float (num_images, ...).
        seed: Of the random numbers used.

    Returns:
        float32 (num_images, 2), without a unit.

    Raises:
        DataError: If an encoding is not finite.

    Source: L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    """
    from sklearn.decomposition import PCA  # scikit-learn takes a second to load
    from sklearn.manifold import TSNE

    flat = np.asarray(encodings, np.float32).reshape(len(encodings), -1)
    if not np.isfinite(flat).all():
        required, remedy = "must be finite numbers", "Train again with a smaller learning rate."
        raise DataError("encodings", required, "NaN or infinity", remedy)
    if np.all(flat == flat[:1]):  # one image, or a collapsed encoder
        return np.zeros((len(flat), 2), np.float32)
    dimensions = min(PCA_DIMENSIONS, *flat.shape)
    points = PCA(dimensions, random_state=seed).fit_transform(flat)
    if dimensions == 1:
        points = np.pad(points, ((0, 0), (0, 1)))
    if len(points) < FEW_IMAGES:
        return points[:, :2].astype(np.float32)
    perplexity = min(30.0, (len(points) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points)


@rc_context(STYLE)
def plot_encodings(
    points: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    ax: Axes,
) -> Axes:
    """Draws encodings in two dimensions, with the name of each class in its middle.

    The names are placed for the size that `ax` has now.

    Args:
        points: float (num_images, 2), as `project_encodings` gives them.
        labels: int (num_images,), indices into `class_names` or -1 for a class training never saw;
            `None` draws all points alike.
        class_names: One for each class.
        ax: Where to draw.

    Returns:
        `ax`.
    """
    _style_axes(ax).grid(visible=False)
    ax.set(xticks=[], yticks=[], xlabel="first dimension (no unit)")
    ax.set_ylabel("second dimension (no unit)")
    ax.set_title(f"Encodings of {len(points):,} images in two dimensions")
    look = {"alpha": 0.65, "linewidths": 0}
    if labels is None:
        ax.scatter(*points.T, s=16, color=BLUE, **look)
        return ax
    for label in np.unique(labels):
        seen = label >= 0
        marker = MARKERS[label // len(PALETTE) % len(MARKERS)] if seen else "*"
        x, y = points[labels == label].T
        ax.scatter(x, y, s=16 if seen else 40, marker=marker, color=_class_color(label), **look)
    _name_clusters(points, labels, class_names, ax)
    return ax


def _class_color(label: int) -> str:
    return PALETTE[label % len(PALETTE)] if label >= 0 else GRAY


def _name_clusters(
    points: np.ndarray, labels: np.ndarray, class_names: Sequence[str], ax: Axes
) -> None:
    """Writes each class's name on its cluster, moved aside where names would overlap.

    A frame in the class's colour tells which points are meant where clusters mix.
    """
    size = 10 if len(class_names) <= COUNTS_AND_SHARES_CLASSES else 8  # points
    classes = np.unique(labels)
    anchors = []
    for label in classes:
        members = points[labels == label]
        # The median may fall between two clusters; the point nearest to it lies in one.
        distances = np.linalg.norm(members - np.median(members, axis=0), axis=1)
        anchors.append(members[distances.argmin()])
    names = [_class_name(label, class_names, 20) for label in classes]
    frame = 0.7 * size  # points: padding, border and distance of both sides together
    boxes = np.array([(72 * _inches(name, size, "bold") + frame, size + frame) for name in names])
    ax.get_figure(root=True).draw_without_rendering()  # settles the layout, which is measured now
    unit = 72 / ax.figure.dpi  # points in a pixel
    centers = ax.transData.transform(anchors) * unit
    offsets = _place_apart(centers, boxes, ax.bbox.get_points() * unit) - centers
    for label, name, anchor, offset in zip(classes, names, anchors, offsets, strict=True):
        ax.annotate(
            name,
            anchor,
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size,
            fontweight="bold",
            bbox={
                "boxstyle": "round,pad=0.15",
                "facecolor": "white",
                "edgecolor": _class_color(label),
            },
            arrowprops={"arrowstyle": "-", "color": INK, "linewidth": 0.6},
        )


def _place_apart(anchors: np.ndarray, sizes: np.ndarray, page: np.ndarray) -> np.ndarray:
    """Centres of boxes that do not overlap, each as near to its anchor as those before it allow.

    Args:
        anchors: float (num_boxes, 2).
        sizes: float (num_boxes, 2), widths and heights in points.
        page: float (2, 2), the lowest and the highest corner of what the boxes must not leave.

    Returns:
        float (num_boxes, 2); where there is no room left, the anchor.
    """
    # A sunflower's spiral covers the disc around an anchor evenly, from the inside outwards.
    steps = np.arange(5000)[:, None]
    angles = steps * np.pi * (3 - np.sqrt(5))
    spiral = 4 * np.sqrt(steps) * np.hstack((np.cos(angles), np.sin(angles)))  # points
    centers = np.empty_like(anchors)
    for index, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        candidates = np.clip(anchor + spiral, page[0] + size / 2, page[1] - size / 2)
        distances = np.abs(candidates[:, None] - centers[:index])  # (candidates, placed, 2)
        free = (distances >= (size + sizes[:index]) / 2).any(axis=-1).all(axis=-1)
        centers[index] = candidates[free.argmax()]  # the first, also if none is free
    return centers


# ---------------------------------------------------------------------------- classification


def _class_name(label: int, class_names: Sequence[str], width: int) -> str:
    return _shorten(str(class_names[label]), width) if label >= 0 else "unseen"


def _ink_on(rgba: Sequence[float]) -> str:
    """Dark or white, whichever can be read on that colour (luminance of ITU-R BT.709)."""
    return INK if np.dot(rgba[:3], (0.2126, 0.7152, 0.0722)) > 0.5 else "white"


def _plot_report(report: Mapping[str, Any], title: str) -> Figure:
    """Precision, recall and F1 of every class as a heat map, with the number of images."""
    rows = {name: values for name, values in report.items() if isinstance(values, Mapping)}
    columns = ("precision", "recall", "f1-score")
    shares = np.array([[values[column] for column in columns] for values in rows.values()])
    row_height = 0.3 if len(rows) <= 20 else 0.21
    figure = plt.figure(figsize=(6.6, row_height * len(rows) + 1.3))
    ax = _style_matrix(figure.subplots())
    # Good classifiers differ above 0.9 only, so the colours start just below the worst value.
    norm = colors.Normalize(np.floor(10 * min(shares.min(), 0.95)) / 10, 1)
    heat = ax.imshow(shares, cmap="Blues", norm=norm, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        ink = _ink_on(heat.to_rgba(share))
        ax.text(column, row, f"{share:.3f}", ha="center", va="center", color=ink, fontsize=8)
    for row, values in enumerate(rows.values()):
        ax.text(3, row, f"{values['support']:,.0f}", ha="center", va="center", fontsize=8)
    ax.set_xlim(-0.5, 3.5)
    ax.set_xticks(range(4), ("precision", "recall", "F1", "images"))
    ax.set_yticks(range(len(rows)), [_shorten(name, 24) for name in rows])
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=8)
    ax.set_ylabel("class")
    averages = sum(name.endswith(" avg") for name in rows)
    ax.axhline(len(rows) - averages - 0.5, color="white", linewidth=4)
    bar = figure.colorbar(heat, ax=ax, aspect=30, shrink=min(1, 12 / len(rows)), anchor=(0, 1))
    _style_colorbar(bar, "share (0 to 1)")
    _set_title(figure, title)
    return figure


def _compare_classifiers(histories: Sequence[History]) -> Figure:
    title = f"{len(histories)} classifiers compared"
    return _plot_comparison(histories, ["loss", "accuracy"], "accuracy", title)


@rc_context(STYLE)
def classifier_loss_visualization(
    histories: Sequence[History], reports: Sequence[Mapping[str, Any] | None]
) -> dict[str, Figure]:
    """Draws what training classifiers gave: curves, reports, and how they compare.

    Args:
        histories: One for each experiment.
        reports: For each experiment scikit-learn's `classification_report(output_dict=True)`, or
            `None`.

    Returns:
        ``history`` and, where there is a report, ``report``; for several experiments ``history-1``,
        ``report-1``, ``history-2`` and so on, and ``comparison``.
    """
    figures = {}
    for number, (history, report) in enumerate(zip(histories, reports, strict=True), 1):
        key = _numbered("history", number, len(histories))
        figures[key] = _plot_classifier_history(history)
        if report is not None:
            key = _numbered("report", number, len(histories))
            figures[key] = _plot_report(report, f"{history.name}: classification report")
    if len(histories) > 1:
        figures["comparison"] = _compare_classifiers(histories)
    return figures


@rc_context(STYLE)
def compare_visualization(
    histories: Sequence[History],
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    intervals: Sequence[tuple[float, float] | None],
    metric: str,
) -> dict[str, Figure]:
    """Draws how runs of one kind compare, and what the better ones cost.

    Args:
        histories: One for each run; `parameters` and `seconds` in their metrics are the costs.
        names: One for each configuration, the best first.
        values: For each configuration the metric of its seeds.
        intervals: For each configuration the 95 % interval of the mean, if it has several seeds.
        metric: The key that ranks them, e.g. `val_accuracy`.

    Returns:
        ``final_values``, ``costs``, and for several runs ``comparison``.
    """
    figures = {
        "final_values": _plot_final_values(names, values, intervals, metric),
        "costs": _plot_costs(histories, metric),
    }
    if len(histories) > 1:
        compare = {"autoencoder": _compare_autoencoders, "classifier": _compare_classifiers}
        figures["comparison"] = compare[histories[0].kind](histories)
    return figures


def _plot_final_values(
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    intervals: Sequence[tuple[float, float] | None],
    metric: str,
) -> Figure:
    """A row for each configuration: a dot for each seed, the mean and its interval."""
    figure, ax = plt.subplots(figsize=(9, 1.6 + 0.3 * len(names)))
    _style_axes(ax)
    for row, (seeds, interval) in enumerate(zip(values, intervals, strict=True)):
        ax.plot(seeds, [row] * len(seeds), "o", color=BLUE, alpha=0.5, markersize=5)
        if interval:
            ax.plot(interval, [row, row], color=INK)
            ax.plot(np.mean(seeds), row, "|", color=INK, markersize=12, markeredgewidth=2)
    ax.set_yticks(range(len(names)), [_shorten(name, 60) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    low, high = ax.get_xlim()  # the interval of two seeds can be absurdly wide
    highest = high if metric.removeprefix("val_") in MINIMIZED else 1.02
    ax.set_xlim(max(low, -0.02 * high), min(high, highest))
    ax.set_xlabel(_key_words(metric))
    _set_title(figure, "Final values: a dot a seed; of several the mean and its 95 % interval")
    return figure


def _plot_costs(histories: Sequence[History], metric: str) -> Figure:
    """The metric against the number of parameters and against the time of training."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True)
    reached = [history.metrics.get(metric, np.nan) for history in histories]
    for ax, key, label in zip(
        axes, ("parameters", "seconds"), ("parameters", "training time in seconds"), strict=True
    ):
        _style_axes(ax)
        costs = [history.metrics.get(key, np.nan) for history in histories]
        ax.plot(costs, reached, "o", color=BLUE, alpha=0.6)
        finite = _finite(costs)
        if finite.size and 0 < finite.min() < finite.max() / 3:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:,.10g}")  # a million in digits
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(label)
    axes[0].set_ylabel(_key_words(metric))
    _set_title(figure, f"What it costs: {_key_words(metric)} of {len(histories)} runs")
    return figure


def _frequent_mistakes(counts: np.ndarray, names: Sequence[str]) -> str:
    """The three most frequent mistakes in words."""
    mistakes = counts * (1 - np.eye(*counts.shape, dtype=counts.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:3]
    pairs = [np.unravel_index(flat, counts.shape) for flat in order if mistakes.flat[flat]]
    words = (f"{names[true]} → {names[wrong]} ({counts[true, wrong]:,})" for true, wrong in pairs)
    return "Most frequent mistakes: " + ",  ".join(words) if pairs else "No mistakes"


@rc_context(STYLE)
def plot_confusion_matrix(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Rows are true classes, columns predicted ones; mistakes have a colour scale of their own.

    Args:
        counts: int (num_classes, num_classes), or with one more row for the classes training never
            saw.
        class_names: One for each column.
        title: Of the figure.
    """
    num_rows, num_classes = counts.shape
    names = [_shorten(str(name), 16) for name in class_names]
    row_names = [*names, "unseen"][:num_rows]
    cell = 0.19  # inches
    if num_classes <= COUNTS_AND_SHARES_CLASSES:
        cell = max(0.68, 2.8 / num_classes)
    elif num_classes <= COUNTS_CLASSES:
        cell = 0.36
    figure = plt.figure(figsize=(1.12 * cell * num_classes + 3, cell * num_rows + 2))
    ax = _style_matrix(figure.subplots())
    _draw_confusion(ax, counts)
    ax.set_xticks(np.arange(num_classes), names, rotation=0 if max(map(len, names)) <= 2 else 90)
    ax.set_yticks(np.arange(num_rows), row_names)
    ax.tick_params(labelsize=8 if num_classes <= COUNTS_CLASSES else 7)
    ax.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(num_rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=PALE, linewidth=0.5)
    ax.tick_params(which="minor", length=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    mistakes = _frequent_mistakes(counts, row_names)
    # The line may run on above the colour bars, which take 1.5 inches.
    ax.set_title("\n".join(_wrap(mistakes, _fitting(mistakes, cell * num_classes + 1.5, 10))))
    _set_title(figure, title)
    return figure


def _draw_confusion(ax: Axes, counts: np.ndarray) -> None:
    """Colours the cells by their share of the true class, and writes in what has room."""
    num_rows, num_classes = counts.shape
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(num_rows, num_classes, dtype=bool)
    correct = diagonal & (counts.sum(axis=1, keepdims=True) > 0)  # a class may have no image
    mistaken = ~diagonal & (counts > 0)
    # The diagonal would drown the mistakes, so theirs is a scale of its own: a root, on which the
    # rare ones too differ from none. What is unseen is always mistaken and must not stretch it.
    largest = shares[:num_classes][mistaken[:num_classes]].max(initial=0) or 1.0
    beyond = "max" if num_rows > num_classes else "neither"
    scales = (
        ("correct", correct, "Blues", colors.Normalize(0, 1), "neither"),
        ("mistaken", mistaken, "Oranges", colors.PowerNorm(0.5, 0, largest, clip=True), beyond),
    )
    for name, shown, cmap, norm, extend in scales:
        if not shown.any():
            continue
        heat = ax.imshow(np.ma.masked_array(shares, ~shown), cmap=cmap, norm=norm)
        bar = ax.figure.colorbar(heat, ax=ax, aspect=35, fraction=0.05, pad=0.02, extend=extend)
        levels = norm.inverse(np.linspace(0, 1, 5))
        bar.set_ticks(levels, labels=[f"{100 * level:.3g}%" for level in levels])
        _style_colorbar(bar, f"{name}: share of the true class")
        if num_classes > COUNTS_CLASSES:
            continue
        for row, column in np.argwhere(shown):
            share, text, size = shares[row, column], f"{counts[row, column]:,}", 6.5
            if num_classes <= COUNTS_AND_SHARES_CLASSES:
                text, size = f"{text}\n{share:.1%}", 8
            ink = _ink_on(heat.to_rgba(share))
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)


def _plot_predictions(
    images: np.ndarray, captions: Sequence[str], color: str, title: str
) -> Figure:
    """A grid of images, each below its caption of two lines."""
    if not len(images):
        return _open_sheet(5, GAP, title)[0]
    columns = int(np.ceil(np.sqrt(len(images))))
    lines = [line for caption in captions for line in caption.split("\n")]
    pitch = max(CELL, *(_inches(line, 8) for line in lines)) + 2 * GAP
    caption_height = 2 * LINE + 0.06
    row_height = caption_height + _cell_height(images[0]) + GAP
    width = max(5.0, columns * pitch + 2 * GAP)
    figure, ax, top = _open_sheet(width, -(-len(images) // columns) * row_height, title)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        left = GAP + column * pitch + (pitch - CELL) / 2
        y = top + row * row_height + caption_height
        place = {"ha": "center", "va": "bottom"}
        ax.text(left + CELL / 2, y - 0.04, caption, **place, fontsize=8, color=color)
        _draw_image(ax, _displayable(image), left, y, colors.Normalize(0, 1))
    return figure


def _spread_over_classes(indices: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `indices`, ordered by class and taken evenly from all of them."""
    ordered = indices[np.argsort(labels[indices], kind="stable")]
    classes, starts, sizes = np.unique(labels[ordered], return_index=True, return_counts=True)
    if not len(classes):
        return ordered
    within = np.arange(len(ordered)) - np.repeat(starts, sizes)  # 0, 1, … inside each class
    enough = np.sort(within)[min(count, len(ordered)) - 1]  # images a class, to reach `count`
    candidates = ordered[within <= enough]
    places = np.linspace(0, len(candidates) - 1, min(count, len(candidates)))
    return candidates[places.round().astype(int)]


@rc_context(STYLE)
def classifier_prediction_visualization(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> dict[str, Figure]:
    """Draws how a classifier did on images whose classes are known.

    Args:
        images: float (num_images, height, width, channels) in [0, 1].
        labels: int (num_images,), indices into `class_names`, or -1 for a class that training never
            saw, which counts as an error.
        probabilities: float (num_images, num_classes).
        class_names: One for each class.

    Returns:
        ``report``, ``confusion_matrix``, ``correct`` and ``wrong``.
    """
    from sklearn.metrics import classification_report, confusion_matrix  # a second to load

    names = [str(name) for name in class_names]
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    report = classification_report(
        labels,
        predicted,
        labels=range(len(names)),
        target_names=names,
        output_dict=True,
        zero_division=0,
    )
    # Nothing is ever predicted as unseen: that row may be needed, that column never.
    unseen = [-1] if (labels == -1).any() else []
    counts = confusion_matrix(labels, predicted, labels=[*range(len(names)), *unseen])
    right = labels == predicted
    title = f"Accuracy {right.mean():.2%} on {len(labels):,} images"
    if unseen:
        title += f", {(labels == -1).sum():,} of them of classes training never saw"

    def plot(chosen: np.ndarray, color: str, grid_title: str) -> Figure:
        captions = [
            f"true {_class_name(labels[index], names, 15)}\npredicted "
            f"{_class_name(predicted[index], names, 15)} · {confidence[index]:.1%}"
            for index in chosen
        ]
        return _plot_predictions(images[chosen], captions, color, grid_title)

    correct = _spread_over_classes(np.flatnonzero(right), labels, GRID_IMAGES)
    mistakes = np.flatnonzero(~right)
    wrong = mistakes[np.argsort(-confidence[mistakes], kind="stable")][:GRID_IMAGES]
    correct_title = f"Classified correctly: {len(correct)} of {right.sum():,}"
    wrong_title = f"Classified wrongly: the {len(wrong)} most confident of {len(mistakes):,}"
    return {
        "report": _plot_report(report, title),
        "confusion_matrix": plot_confusion_matrix(counts[:, : len(names)], names, title),
        "correct": plot(
            correct, GREEN, correct_title if len(correct) else "No image was classified correctly"
        ),
        "wrong": plot(
            wrong, VERMILION, wrong_title if len(wrong) else "No image was classified wrongly"
        ),
    }


# ---------------------------------------------------------------------------- label efficiency


@rc_context(STYLE)
def plot_label_efficiency(
    curves: Mapping[str, Sequence[tuple[int, float, float]]], ax: Axes
) -> Axes:
    """Draws test errors over the number of labels, which has a logarithmic axis.

    So do the errors, if they differ by a factor of ten and none is 0.

    Args:
        curves: By method, (labels, error, margin) in order of labels: the mean error, a share in
            [0, 1], and half the width of its 95 % interval, infinite where there is none.
        ax: Where to draw.

    Returns:
        `ax`.
    """
    _style_axes(ax)
    bars = {"capsize": 2, "elinewidth": 1}
    for index, (name, points) in enumerate(curves.items()):
        labels, errors, margins = np.transpose(points)
        errors = 100 * errors
        margins = np.where(np.isfinite(margins), 100 * margins, 0)
        # A bar that reached 0 would have no end on this axis.
        bounds = np.stack([np.minimum(margins, 0.9 * errors), margins])
        # Moved apart by 2 % each, so that bars do not cover each other.
        apart = 1.02 ** (index - (len(curves) - 1) / 2)
        style = {"color": PALETTE[index], "marker": MARKERS[index], "markersize": 5}
        ax.errorbar(labels * apart, errors, bounds, **style, **bars, label=name)
    ax.set_xscale("log")
    ticks = sorted({labels for points in curves.values() for labels, _, _ in points})
    ax.set_xticks(ticks, [f"{labels:,}" for labels in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("labels in all, log scale")
    ax.set_ylabel("test error in %")
    _loss_scale(ax, [error for points in curves.values() for _, error, _ in points])
    ax.set_title("Test error by number of labels; bars: 95 % interval of the mean over seeds")
    _outside_legend(ax.figure, ax)
    return ax
