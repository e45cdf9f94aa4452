"""Curves: the metrics of one training over its epochs, alone or with its record below them."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cae.config.architecture import describe_architecture
from cae.errors import as_sentence
from cae.figures import style
from cae.records.history import History

METRIC_NAMES = {
    "loss": "loss",
    "mse": "mean squared error",
    "accuracy": "accuracy",
    "precision": "macro precision",
    "recall": "macro recall",
    "f1": "macro F1",
}
MINIMIZED = frozenset({"loss", "mse"})
METRICS = {
    "autoencoder": ("loss", "mse"),
    "classifier": ("loss", "accuracy", "precision", "recall", "f1"),
}
NOTICEABLE = 0.02  # difference of macro F1 and accuracy from which both are drawn
RECORD_WIDTH = 62  # characters of a line of the record below the curves
RECORD_LINE = 0.12  # inches


# --- One metric ------------------------------------------------------------------------------


def metric_label(metric: str, history: History) -> str:
    """The label of an axis: the metric and its unit."""
    if metric == "mse":
        return "mean squared error per pixel"
    if metric == "loss" and history.kind == "autoencoder":
        name = str(history.model_info.get("loss", "")).replace("_", " ")
        return f"loss per pixel ({name})" if name else "loss per pixel"
    return "loss per image" if metric == "loss" else f"{METRIC_NAMES[metric]} (0 to 1)"


def epoch_axis(ax: Axes, num_epochs: int) -> None:
    """Labels the x axis with whole epochs, from 1 to the last one."""
    ax.set_xlabel("epoch")
    margin = max(0.5, 0.02 * num_epochs)
    ax.set_xlim(1 - margin, max(num_epochs, 1) + margin)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))


def loss_scale(ax: Axes, values: Sequence[float]) -> None:
    """Makes the y axis logarithmic where a linear one would flatten all but the first epochs."""
    finite = style.finite_values(values)
    if finite.size and 0 < finite.min() < finite.max() / 10:
        ax.set_yscale("log")
        style.log_ticks(ax.yaxis)
        ax.set_ylabel(f"{ax.get_ylabel()}, log scale")


@rc_context(style.STYLE)
def plot_curves(history: History, metric: str, ax: Axes) -> Axes:
    """Draws one metric over the epochs: training dashed, validation solid.

    A ring marks the epoch whose weights were kept, a vertical line the end of the first phase of a
    classifier trained in two. The lines carry labels; the legend is left to the caller, who may
    have several axes to share it.

    Args:
        history: What training recorded.
        metric: A key of its rows without `val_`, such as ``loss`` or ``accuracy``.
        ax: Where to draw.

    Returns:
        `ax`.
    """
    style.style_axes(ax)
    epochs = history.column("epoch")
    # Hollow and filled markers tell the two apart where one epoch leaves no line.
    look = {"color": style.BLUE, "marker": "o" if len(epochs) <= 20 else None, "markersize": 4}
    training = {"linestyle": "--", "linewidth": 1.2, "markerfacecolor": "white"}
    ax.plot(epochs, history.column(metric), **look, **training, label="training")
    kept_on = f"val_{metric}" if history.has(f"val_{metric}") else metric
    if kept_on != metric:
        ax.plot(epochs, history.column(kept_on), **look, label="validation")
    if kept_on in history.best:
        ring = {"linestyle": "none", "marker": "o", "markersize": 10, "markerfacecolor": "none"}
        label = f"weights kept (epoch {history.best_epoch})"
        ax.plot(history.best_epoch, history.best[kept_on], **ring, color=style.INK, label=label)
    if 0 < history.dense_only_epochs < len(epochs):
        label = "left: encoder frozen, right: all layers trained"
        ax.axvline(history.dense_only_epochs + 0.5, color=style.GRAY, linestyle=":", label=label)
    epoch_axis(ax, len(epochs))
    ax.set_ylabel(metric_label(metric, history))
    values = history.column(metric) + history.column(f"val_{metric}")
    if metric in MINIMIZED:
        loss_scale(ax, values)
    if epochs and not style.finite_values(values).size:
        ax.text(0.5, 0.5, "no finite value", transform=ax.transAxes, ha="center")
        ax.set_yticks([])
    return ax


def _shown_metrics(history: History) -> tuple[str, ...]:
    """The loss and what says how good the model is.

    Macro F1 is one of these if it differs from the accuracy in the epoch that was kept, or the
    last.
    """
    if history.kind == "autoencoder":
        return ("loss", "mse")
    ends = [epoch for epoch in (history.best, *history.epochs[-1:]) if epoch]
    differences = [epoch.get("val_accuracy", 0) - epoch.get("val_f1", 0) for epoch in ends]
    differs = np.any(np.abs(np.nan_to_num(differences)) > NOTICEABLE)
    return ("loss", "accuracy", "f1") if differs else ("loss", "accuracy")


@rc_context(style.STYLE)
def curve_figures(history: History) -> dict[str, Figure]:
    """A small figure for each metric that says something of its own, by the metric."""
    figures = {}
    for metric in filter(history.has, _shown_metrics(history)):
        figure = figures[metric] = Figure(figsize=(5, 3.4))
        plot_curves(history, metric, figure.subplots())
        figure.legend(loc="outside lower left", ncols=2)
    return figures


# --- A training with its record --------------------------------------------------------------


@rc_context(style.STYLE)
def plot_history(history: History) -> Figure:
    """Draws the curves of a training; below them its architecture, values and hyperparameters."""
    metrics = _shown_metrics(history)
    records = _describe_record(history, METRICS[history.kind])
    heights = 3.5, RECORD_LINE * max(map(len, records)) + 0.2
    figure = Figure(figsize=(max(8.4, 3.8 * len(metrics)), sum(heights) + 0.4))
    above, below = figure.subfigures(2, height_ratios=heights)
    plots = above.subplots(1, len(metrics))
    for ax, metric in zip(plots, metrics, strict=True):
        plot_curves(history, metric, ax).set_title(as_sentence(METRIC_NAMES[metric]))
    style.outside_legend(above, *plots)
    for ax, lines in zip(below.subplots(1, len(records)), records, strict=True):
        ax.axis("off")
        ax.text(0, 1, "\n".join(lines), va="top", family="monospace", fontsize=7)
    style.set_title(figure, history.name)
    return figure


def _describe_record(history: History, metrics: Sequence[str]) -> tuple[list[str], list[str]]:
    """Lines in two columns: the architecture and the hyperparameters; the values."""
    measured = [
        f"{key.replace('_', ' '):<22} "
        + (f"{value:>9,}" if isinstance(value, int) else f"{style.format_number(value):>9}")
        for key, value in history.metrics.items()
        if isinstance(value, int | float)
        and key not in ("best_epoch", *metrics)
        and not key.startswith("val_")
        and not key.endswith(("_low", "_high"))  # of intervals
    ]
    # Spaces that do not break keep a layer, and a name and its value, on one line.
    no_break = str.maketrans(" _", "\xa0\xa0")
    layers = describe_architecture(history.model_info).replace(" ", "\xa0")
    parts = layers.replace("→\xa0", "→ ").split("\xa0|\xa0")
    settings = " ".join(
        f"{key}: {_describe_value(value)};".translate(no_break).replace(",\xa0", ", ")
        for key, value in history.model_info.items()
        if value is not None and not key.endswith("_layers")
    )
    given = {
        "Architecture": [line for part in parts for line in textwrap.wrap(part, RECORD_WIDTH)],
        "Hyperparameters": textwrap.wrap(settings.removesuffix(";"), RECORD_WIDTH),
    }
    found = {
        "Values": _describe_values(history, metrics) if history.epochs else [],
        "Measured": [
            "  ".join(measured[index : index + 2]) for index in range(0, len(measured), 2)
        ],
    }
    return _list_sections(given), _list_sections(found)


def _list_sections(sections: Mapping[str, Sequence[str]]) -> list[str]:
    return [
        line
        for heading, content in sections.items()
        if content
        for line in (heading, *(f"  {text}" for text in content), "")
    ]


def _describe_value(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_describe_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_describe_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _describe_values(history: History, metrics: Sequence[str]) -> list[str]:
    """The metrics of the epoch whose weights were kept and of the last epoch."""
    last = len(history.epochs)
    epochs = {f"epoch {last} (last)": history.epochs[-1]}
    if history.best_epoch == last:
        epochs = {f"epoch {last} (last, kept)": history.best}
    elif history.best:
        epochs = {f"epoch {history.best_epoch} (kept)": history.best, **epochs}
    lines = [" " * 19 + "".join(f"{title:>22}" for title in epochs)]
    lines.append(" " * 19 + f"{'training':>11}{'validation':>11}" * len(epochs))
    for metric in metrics:
        cells = [row.get(key) for row in epochs.values() for key in (metric, f"val_{metric}")]
        lines.append(
            f"{METRIC_NAMES[metric]:<19}" + "".join(f"{style.format_number(c):>11}" for c in cells)
        )
    return lines
