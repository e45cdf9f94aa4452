"""Arrays and histories become figures.

A plot that fits one axes takes an `Axes` and returns it; a plot that needs more returns a `Figure`.
Nothing here shows, saves or selects a backend: that is for the calling program. Images are
float (num_images, height, width, channels) in [0, 1]; three channels are drawn as colour, any other
number as the mean of the channels in gray.

Colours: M. Okabe and K. Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colors, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from cae.figures.style import (
    BLUE,
    CLASSIFIER_METRICS,
    GRAY,
    INK,
    LINE,
    MARKERS,
    METRIC_NAMES,
    MINIMIZED,
    PALETTE,
    STYLE,
    as_sentence,
    describe_architecture,
    describe_value,
    epoch_axis,
    finite_values,
    format_number,
    ink_on,
    loss_scale,
    metric_label,
    numbered_key,
    outside_legend,
    set_title,
    shorten,
    style_axes,
    style_colorbar,
    style_matrix,
    wrap_text,
)
from cae.records.history import History

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
    style_axes(ax)
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
    epoch_axis(ax, len(epochs))
    ax.set_ylabel(metric_label(metric, history))
    if metric in MINIMIZED:
        loss_scale(ax, history.column(metric) + history.column(f"val_{metric}"))
    return ax


def _describe_record(history: History, metrics: Sequence[str]) -> list[list[tuple[str, ...]]]:
    """What a reader wants to know beside the curves: sections of rows of cells."""
    # Spaces that do not break keep a layer, and a hyperparameter, on one line.
    architecture = describe_architecture(history.model_info).replace(" ", "\xa0")
    lines = [
        line
        for part in architecture.split("\xa0|\xa0")
        for line in wrap_text(part.replace("→\xa0", "→ "), 62)
    ]
    sections = [[("Architecture",), *((line,) for line in lines)]]
    if history.epochs:
        sections.append(_describe_values(history, metrics))
    measured = [
        (key.replace("_", " "), f"{value:,}" if isinstance(value, int) else format_number(value))
        for key, value in history.metrics.items()
        if isinstance(value, int | float)
        and key not in ("best_epoch", *metrics)
        and not key.startswith("val_")
    ]
    if measured:
        sections.append([("Measured",), *measured])
    settings = " ".join(
        f"{key}: {describe_value(value)};".replace("_", "\xa0").replace(" ", "\xa0")
        for key, value in history.model_info.items()
        if value is not None and not key.endswith("_layers")
    )
    lines = wrap_text(settings.removesuffix(";"), 62)
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
        cells = [format_number(row.get(key)) for row in epochs.values() for key in keys]
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


def plot_autoencoder_history(history: History) -> Figure:
    sections = _describe_record(history, ("loss", "mse"))
    figure = Figure(figsize=(11, max(4.8, LINE * _num_lines(sections) + 1.2)))
    curves, record = figure.subplots(1, 2, width_ratios=(1.15, 1))
    plot_curves(history, "loss", curves)
    curves.set_title("Training of the autoencoder")
    _write_record(record, sections)
    outside_legend(figure, curves)
    set_title(figure, history.name)
    return figure


def _plot_classifier_history(history: History) -> Figure:
    sections = _describe_record(history, CLASSIFIER_METRICS)
    figure = Figure(figsize=(13.5, 2 * max(3.2, LINE * _num_lines(sections) + 0.2) + 1))
    *curves, record = figure.subplots(2, 3, width_ratios=(1, 1, 1.15)).flat
    for ax, metric in zip(curves, CLASSIFIER_METRICS, strict=True):
        plot_curves(history, metric, ax)
        ax.set_title(as_sentence(METRIC_NAMES[metric]))
    _write_record(record, sections)
    outside_legend(figure, *curves)
    set_title(figure, history.name)
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
    finite = [finite_values(history.column(key)) for history in histories]
    return np.array([best(values) if values.size else np.nan for values in finite])


def _rank_styles(ranking: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Colour and marker for the best experiments; the others stay in the background."""
    behind = {"color": "#BDBDBD", "marker": None, "linewidth": 1, "zorder": 1.5}
    styles = dict.fromkeys(ranking, behind)
    for rank, (index, color) in enumerate(zip(ranking, PALETTE, strict=False)):
        styles[index] = {"color": color, "marker": MARKERS[rank], "zorder": 3 - rank / 10}
    return styles


def _plot_all_curves(histories: Sequence[History], key: str, styles: dict, ax: Axes) -> None:
    style_axes(ax)
    length = max(len(history.epochs) for history in histories)
    for index, history in enumerate(histories):
        ax.plot(
            history.column("epoch"),
            history.column(key),
            **styles[index],
            markersize=5,
            markevery=max(1, length // 10),
        )
    epoch_axis(ax, length)
    ax.set_ylabel(metric_label(key.removeprefix("val_"), histories[0]))
    ax.set_title(f"{as_sentence(_key_words(key))}; colours and markers as in the bars")
    if key.removeprefix("val_") in MINIMIZED:
        loss_scale(ax, [value for history in histories for value in history.column(key)])


def _bar_limits(values: np.ndarray) -> tuple[float, float]:
    """Zero and the maximum, unless the bars then looked alike; with room for the numbers."""
    finite = finite_values(values)
    if not finite.size:
        return 0.0, 1.0
    low, high = finite.min(), finite.max()
    start = low - 0.25 * (high - low) if 0 < high - low < low / 2 else min(0.0, low)
    return start, high + 0.25 * ((high - start) or 1.0)


def _plot_bars(names: Sequence[str], values: np.ndarray, key: str, styles: dict, ax: Axes) -> None:
    """Horizontal bars, the best on top, with the markers of the curves at their ends."""
    style_axes(ax).grid(visible=False, axis="y")
    start, stop = _bar_limits(values)
    height = min(0.62, 0.15 * len(styles))
    for row, (index, style) in enumerate(styles.items()):
        value, color = values[index], style["color"]
        text, end = format_number(value), value
        if np.isnan(value):
            text, end = "no finite value", start
        ax.barh(row, end - start, height, left=start, color=color, alpha=0.55)
        ax.plot(value, row, color=color, marker=style["marker"], markersize=6)
        ax.annotate(text, (end, row), (8, 0), textcoords="offset points", va="center", fontsize=8)
    labels = [f"{index + 1} · {shorten(names[index], 40)}" for index in styles]
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
    figure = Figure(figsize=(13, height))
    grid = figure.add_gridspec(len(curve_metrics), 2, width_ratios=(1, 1))
    for row, metric in enumerate(curve_metrics):
        key = _shared_key(histories, metric)
        _plot_all_curves(histories, key, styles, figure.add_subplot(grid[row, 0]))
    names = [history.name for history in histories]
    _plot_bars(names, values, ranked_key, styles, figure.add_subplot(grid[:, 1]))
    set_title(figure, title)
    return figure


@rc_context(STYLE)
def plot_comparison(histories: Sequence[History]) -> Figure:
    """Draws how several autoencoders, or several classifiers, compare.

    Args:
        histories: Two or more of one kind.

    Returns:
        Every experiment's epochs, and the ranking by the best epoch: of classifiers by accuracy, of
        autoencoders by loss, or by mean squared error where their losses are of several kinds.
    """
    title = f"{len(histories)} {histories[0].kind}s compared"
    if histories[0].kind == "classifier":
        return _plot_comparison(histories, ["loss", "accuracy"], "accuracy", title)
    # The penalty of l2 is part of the loss, so it too makes losses incomparable.
    losses = {(h.model_info.get("loss"), h.model_info.get("l2")) for h in histories}
    if len(losses) == 1:
        return _plot_comparison(histories, ["loss"], "loss", title)
    title += " by mean squared error: their losses are not of one kind"
    return _plot_comparison(histories, ["mse"], "mse", title)


def plot_report(report: Mapping[str, Any], title: str) -> Figure:
    """Precision, recall and F1 of every class as a heat map, with the number of images."""
    rows = {name: values for name, values in report.items() if isinstance(values, Mapping)}
    columns = ("precision", "recall", "f1-score")
    shares = np.array([[values[column] for column in columns] for values in rows.values()])
    row_height = 0.3 if len(rows) <= 20 else 0.21
    figure = Figure(figsize=(6.6, row_height * len(rows) + 1.3))
    ax = style_matrix(figure.subplots())
    # Good classifiers differ above 0.9 only, so the colours start just below the worst value.
    norm = colors.Normalize(np.floor(10 * min(shares.min(), 0.95)) / 10, 1)
    heat = ax.imshow(shares, cmap="Blues", norm=norm, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        ink = ink_on(heat.to_rgba(share))
        ax.text(column, row, f"{share:.3f}", ha="center", va="center", color=ink, fontsize=8)
    for row, values in enumerate(rows.values()):
        ax.text(3, row, f"{values['support']:,.0f}", ha="center", va="center", fontsize=8)
    ax.set_xlim(-0.5, 3.5)
    ax.set_xticks(range(4), ("precision", "recall", "F1", "images"))
    ax.set_yticks(range(len(rows)), [shorten(name, 24) for name in rows])
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=8)
    ax.set_ylabel("class")
    averages = sum(name.endswith(" avg") for name in rows)
    ax.axhline(len(rows) - averages - 0.5, color="white", linewidth=4)
    bar = figure.colorbar(heat, ax=ax, aspect=30, shrink=min(1, 12 / len(rows)), anchor=(0, 1))
    style_colorbar(bar, "share (0 to 1)")
    set_title(figure, title)
    return figure


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
        key = numbered_key("history", number, len(histories))
        figures[key] = _plot_classifier_history(history)
        if report is not None:
            key = numbered_key("report", number, len(histories))
            figures[key] = plot_report(report, f"{history.name}: classification report")
    if len(histories) > 1:
        figures["comparison"] = plot_comparison(histories)
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
        figures["comparison"] = plot_comparison(histories)
    return figures


def _plot_final_values(
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    intervals: Sequence[tuple[float, float] | None],
    metric: str,
) -> Figure:
    """A row for each configuration: a dot for each seed, the mean and its interval."""
    figure = Figure(figsize=(9, 1.6 + 0.3 * len(names)))
    ax = style_axes(figure.subplots())
    for row, (seeds, interval) in enumerate(zip(values, intervals, strict=True)):
        ax.plot(seeds, [row] * len(seeds), "o", color=BLUE, alpha=0.5, markersize=5)
        if interval:
            ax.plot(interval, [row, row], color=INK)
            ax.plot(np.mean(seeds), row, "|", color=INK, markersize=12, markeredgewidth=2)
    ax.set_yticks(range(len(names)), [shorten(name, 60) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    low, high = ax.get_xlim()  # the interval of two seeds can be absurdly wide
    highest = high if metric.removeprefix("val_") in MINIMIZED else 1.02
    ax.set_xlim(max(low, -0.02 * high), min(high, highest))
    ax.set_xlabel(_key_words(metric))
    set_title(figure, "Final values: a dot a seed; of several the mean and its 95 % interval")
    return figure


def _plot_costs(histories: Sequence[History], metric: str) -> Figure:
    """The metric against the number of parameters and against the time of training."""
    figure = Figure(figsize=(11, 4.2))
    axes = figure.subplots(1, 2, sharey=True)
    reached = [history.metrics.get(metric, np.nan) for history in histories]
    for ax, key, label in zip(
        axes, ("parameters", "seconds"), ("parameters", "training time in seconds"), strict=True
    ):
        style_axes(ax)
        costs = [history.metrics.get(key, np.nan) for history in histories]
        ax.plot(costs, reached, "o", color=BLUE, alpha=0.6)
        finite = finite_values(costs)
        if finite.size and 0 < finite.min() < finite.max() / 3:
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter("{x:,.10g}")  # a million in digits
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(label)
    axes[0].set_ylabel(_key_words(metric))
    set_title(figure, f"What it costs: {_key_words(metric)} of {len(histories)} runs")
    return figure


# ---------------------------------------------------------------------------- label efficiency


@rc_context(STYLE)
def label_efficiency_visualization(
    curves: Mapping[str, Sequence[tuple[int, float, float]]],
) -> Figure:
    """The plot of `plot_label_efficiency` as a figure of its own."""
    figure = Figure(figsize=(9, 5.5))
    plot_label_efficiency(curves, figure.subplots())
    return figure


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
    style_axes(ax)
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
    loss_scale(ax, [error for points in curves.values() for _, error, _ in points])
    ax.set_title("Test error by number of labels; bars: 95 % interval of the mean over seeds")
    outside_legend(ax.figure, ax)
    return ax
