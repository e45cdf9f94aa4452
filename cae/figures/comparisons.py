"""Comparisons: of experiments by their epochs, of the runs of a study, of numbers of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from cae.config.choices import METHODS, RECIPE
from cae.errors import as_sentence
from cae.figures import style
from cae.figures.curves import METRIC_NAMES, MINIMIZED, epoch_axis, loss_scale, metric_label
from cae.records.history import History
from cae.terminal import drop_common_start

WIDTH = 6.4  # inches: legible on a phone too
LEGEND_ROW = 0.22  # inches: the height of an entry in a legend
LONGEST_NAME = 32  # characters beside an axis
# What a configuration costs: key of the metrics -> label of its axis.
COSTS = {"parameters": "parameters", "seconds": "training time in seconds"}
PARETO = "Pareto front: nothing is both cheaper and better"


def _describe_key(key: str) -> str:
    """A metric in words: `val_mse` -> `validation mean squared error`."""
    data = "validation" if key.startswith("val_") else "training"
    return f"{data} {METRIC_NAMES[key.removeprefix('val_')]}"


def _is_minimized(key: str) -> bool:
    return key.removeprefix("val_") in MINIMIZED


# --- Experiments -----------------------------------------------------------------------------


def with_comparison(
    figures: Sequence[dict[str, Figure]], histories: Sequence[History]
) -> dict[str, Figure]:
    """The figures of one experiment; those of several numbered, and their comparison."""
    if len(figures) == 1:
        return figures[0]
    numbered = {
        f"{name}-{number}": figure
        for number, drawn in enumerate(figures, 1)
        for name, figure in drawn.items()
    }
    return {**numbered, "comparison": plot_comparison(histories)}


@rc_context(style.STYLE)
def plot_comparison(histories: Sequence[History]) -> Figure:
    """Draws the epochs of several experiments, and ranks them by their best epochs.

    Classifiers are ranked by accuracy, autoencoders by loss, or by mean squared error if their
    losses differ in kind.

    Args:
        histories: Two or more, all of autoencoders or all of classifiers.
    """
    title = f"{len(histories)} {histories[0].kind}s"
    curves, ranked = ["loss", "accuracy"], "accuracy"
    if histories[0].kind == "autoencoder":
        curves, ranked = ["loss"], "loss"
        # The penalty of l2 is part of the loss, so it too makes losses incomparable.
        if len({(h.model_info.get("loss"), h.model_info.get("l2")) for h in histories}) > 1:
            curves, ranked = ["mse"], "mse"
            title += " by mean squared error (losses differ in kind)"
    key = _shared_key(histories, ranked)
    values = _best_values(histories, key)
    sign = 1 if ranked in MINIMIZED else -1
    styles = _rank_styles(np.argsort(sign * values, kind="stable").tolist())  # NaN comes last
    heights = 3 * len(curves), 0.27 * len(histories) + 0.9
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.4))
    above, below = figure.subfigures(2, height_ratios=heights)
    for ax, metric in zip(above.subplots(len(curves), squeeze=False).flat, curves, strict=True):
        _plot_all_curves(histories, _shared_key(histories, metric), styles, ax)
    names = drop_common_start([history.name for history in histories])
    _plot_ranking(names, values, key, styles, below.subplots())
    style.set_title(figure, title)
    return figure


def _shared_key(histories: Sequence[History], metric: str) -> str:
    """The validation metric, or the training metric if an experiment had no validation data."""
    has_validation = all(history.has(f"val_{metric}") for history in histories if history.epochs)
    return f"val_{metric}" if has_validation else metric


def _best_values(histories: Sequence[History], key: str) -> np.ndarray:
    """(num_histories,): the best value of each; NaN where none is finite."""
    best = min if _is_minimized(key) else max
    finite = [style.finite_values(history.column(key)) for history in histories]
    return np.array([best(values) if values.size else np.nan for values in finite])


def _rank_styles(ranking: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Colours and markers for the best experiments, gray for the others, by index, best first."""
    behind = {"color": style.BEHIND, "marker": None, "linewidth": 1, "zorder": 1.5}
    return {
        index: style.look(rank) | {"zorder": 3 - rank / 10} if rank < len(style.PALETTE) else behind
        for rank, index in enumerate(ranking)
    }


def _plot_all_curves(histories: Sequence[History], key: str, styles: dict, ax: Axes) -> None:
    style.style_axes(ax)
    length = max(len(history.epochs) for history in histories)
    spacing = {"markersize": 5, "markevery": max(1, length // 10)}
    for index, history in enumerate(histories):
        ax.plot(history.column("epoch"), history.column(key), **styles[index], **spacing)
    epoch_axis(ax, length)
    ax.set_ylabel(metric_label(key.removeprefix("val_"), histories[0]))
    ax.set_title(f"{as_sentence(_describe_key(key))} (colours: see below)")
    if _is_minimized(key):
        loss_scale(ax, [value for history in histories for value in history.column(key)])


def _plot_ranking(
    names: Sequence[str], values: np.ndarray, key: str, styles: dict, ax: Axes
) -> None:
    """One row per experiment, the best on top: its value, with the marker of its curve."""
    style.style_axes(ax)
    note = {"xytext": (8, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
    for row, (index, look) in enumerate(styles.items()):
        value, marker = values[index], look["marker"] or "o"
        ax.plot(value, row, color=look["color"], marker=marker, markersize=7)
        if np.isnan(value):
            ax.annotate("no finite value", (0, row), xycoords=("axes fraction", "data"), **note)
        else:
            ax.annotate(style.format_number(value), (value, row), **note)
    labels = [f"{index + 1} · {style.shorten(names[index], LONGEST_NAME)}" for index in styles]
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlabel(f"best {_describe_key(key)}")
    colored = (
        f"; the best {len(style.PALETTE)} in colour" if len(labels) > len(style.PALETTE) else ""
    )
    ax.set_title(f"Best epoch of each experiment{colored}")


# --- Studies ---------------------------------------------------------------------------------


@rc_context(style.STYLE)
def compare_visualization(
    histories: Sequence[Sequence[History]],
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    intervals: Sequence[tuple[float, float] | None],
    metric: str,
) -> dict[str, Figure]:
    """Draws how the configurations of a study compare, and what better values cost.

    Args:
        histories: Per configuration those of its seeds; `parameters` and `seconds` in their metrics
            are the costs.
        names: One per configuration, the best first.
        values: Per configuration the metric of its seeds.
        intervals: Per configuration the 95 % interval of the mean, if it has several seeds; an end
            at the limit of what is possible is open.
        metric: The key that ranks them, such as `val_accuracy`.

    Returns:
        ``final_values``, ``costs``, and for several runs ``comparison``.
    """
    figures = {
        "final_values": _plot_final_values(names, values, intervals, metric),
        "costs": _plot_costs(histories, names, values, metric),
    }
    runs = [history for seeds in histories for history in seeds]
    if len(runs) > 1:
        figures["comparison"] = plot_comparison(runs)
    return figures


def _plot_final_values(
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    intervals: Sequence[tuple[float, float] | None],
    metric: str,
) -> Figure:
    """One row per configuration: a dot per seed, the mean and its interval."""
    figure = Figure(figsize=(WIDTH, 1.6 + 0.3 * len(names)))
    ax = style.style_axes(figure.subplots())
    limits = (0, np.inf if _is_minimized(metric) else 1)
    for row, (seeds, interval) in enumerate(zip(values, intervals, strict=True)):
        ax.plot(seeds, [row] * len(seeds), "o", color=style.BLUE, alpha=0.5, markersize=5)
        if interval:
            ax.plot(interval, [row, row], color=style.INK, linewidth=1)
            for end, limit, arrow in zip(interval, limits, "<>", strict=True):
                ax.plot(end, row, arrow if end == limit else "|", color=style.INK, markersize=5)
            ax.plot(np.mean(seeds), row, "|", color=style.INK, markersize=12, markeredgewidth=2)
    ax.set_yticks(range(len(names)), [style.shorten(name, LONGEST_NAME) for name in names])
    ax.set_ylim(len(names) - 0.4, -0.6)
    low, high = ax.get_xlim()  # the interval of two seeds can be absurdly wide
    highest = high if _is_minimized(metric) else 1.02
    ax.set_xlim(max(low, -0.02 * high), min(high, highest))
    ax.set_xlabel(_describe_key(metric))
    explanations = ["dot: a seed"]
    if any(intervals):
        explanations += ["line: mean and 95 % interval"]
        ends = {end for interval in intervals if interval for end in interval}
        if ends & set(limits):
            explanations += ["arrow: the limit of what is possible"]
    ax.set_title("\n".join(("; ".join(explanations[:2]), *explanations[2:])))
    style.set_title(figure, "Final values")
    return figure


def _plot_costs(
    histories: Sequence[Sequence[History]],
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    metric: str,
) -> Figure:
    """The mean of each configuration against its number of parameters and its time of training."""
    means = np.array([np.mean(seeds) for seeds in values])
    costs = [_mean_costs(histories, key) for key in COSTS]
    fronts = [_pareto_front(cost, means, _is_minimized(metric)) for cost in costs]
    named = sorted({*range(min(len(names), len(style.PALETTE))), *fronts[0], *fronts[1]})
    behind = {"color": style.BEHIND, "marker": "o", "zorder": 1.5}
    looks: dict[int, dict[str, Any]] = dict.fromkeys(range(len(names)), behind)
    for rank, index in enumerate(named):
        label = f"{index + 1} · {style.shorten(names[index], 40)}"
        looks[index] = style.look(rank) | {"label": label, "zorder": 3 - rank / 100}
    if others := [index for index in looks if index not in named]:
        looks[others[0]] = behind | {"label": f"{len(others)} others"}
    figure = Figure(figsize=(WIDTH, 6.2))  # and the legend below
    axes = figure.subplots(2, 1)
    for ax, cost, front, label in zip(axes, costs, fronts, COSTS.values(), strict=True):
        style.style_axes(ax)
        line = {"color": style.GRAY, "linewidth": 1.2, "drawstyle": "steps-post", "zorder": 1}
        ax.plot(cost[front], means[front], **line, label=PARETO)
        for index, look in looks.items():
            edge = {"markeredgecolor": "black", "markeredgewidth": 1.5} if index in front else {}
            ax.plot(cost[index], means[index], **look, **edge, linestyle="none")
        finite = style.finite_values(cost)
        if finite.size and 0 < finite.min() < finite.max() / 3:
            ax.set_xscale("log")
            style.log_ticks(ax.xaxis)
            label += ", log scale"
        ax.xaxis.set_major_formatter("{x:,.10g}")  # a million in digits
        ax.set_xlabel(label)
        ax.set_ylabel(_describe_key(metric))
        if _is_minimized(metric):
            loss_scale(ax, means)
    rows = style.outside_legend(figure, *axes)
    figure.set_figheight(figure.get_figheight() + LEGEND_ROW * rows)
    style.set_title(figure, "What it costs: means over the seeds")
    return figure


def _mean_costs(histories: Sequence[Sequence[History]], key: str) -> np.ndarray:
    """(num_configurations,): the mean over the seeds; NaN where none is recorded."""
    known = [[h.metrics[key] for h in seeds if key in h.metrics] for seeds in histories]
    return np.array([np.mean(costs) if costs else np.nan for costs in known])


def _pareto_front(costs: np.ndarray, values: np.ndarray, minimized: bool) -> list[int]:
    """The indices, in order of cost, of what nothing else beats in both cost and value."""
    losses = values if minimized else -values
    front: list[int] = []
    for index in np.lexsort((losses, costs)).tolist():
        if np.isfinite(costs[index]) and (not front or losses[index] < losses[front[-1]]):
            front.append(index)
    return front


# --- Label efficiency ------------------------------------------------------------------------

LabelCurves = Mapping[str, Sequence[tuple[int, float, float, float]]]


@rc_context(style.STYLE)
def label_efficiency_visualization(curves: LabelCurves) -> Figure:
    """Draws what `plot_label_efficiency` draws, as a figure narrow enough for a phone."""
    figure = Figure(figsize=(6, 4 + style.LINE * len(curves) / 2))
    plot_label_efficiency(curves, figure.subplots())
    return figure


@rc_context(style.STYLE)
def plot_label_efficiency(curves: LabelCurves, ax: Axes) -> Axes:
    """Draws test errors over the number of labels, which has a logarithmic axis.

    The recipe stands out, if it is among the methods.

    The errors have one too if they differ by a factor of ten and none is 0. The figure must have
    the constrained layout, which makes room for the legend.

    Args:
        curves: By method, (labels, error, low, high) in order of labels: the mean error, a share in
            [0, 1], and the ends of its 95 % interval, NaN where there is none. An end at 0 or 1 is
            open: an arrow takes the place of its cap.
        ax: Where to draw, and what is returned.
    """
    style.style_axes(ax)
    ax.set_ylabel("test error in %")
    points = 100 * np.array([point[1:] for points in curves.values() for point in points])
    loss_scale(ax, points[:, 0])
    # On a logarithmic axis intervals that reach 0 end below every other value.
    lowest = points[points > 0].min() / 2 if ax.get_yscale() == "log" else 0
    recipe = METHODS[RECIPE]
    for index, (name, points) in enumerate(curves.items()):
        labels, *shares = np.transpose(points)
        errors, low, high = (np.clip(100 * share, lowest, None) for share in shares)
        # Moved apart by 2 % each, so that bars do not cover each other.
        x = labels * 1.02 ** (index - (len(curves) - 1) / 2)
        look = _method_look(index, 0 if recipe not in curves else 1 if name == recipe else -1)
        bars = np.stack([errors - low, high - errors])
        ax.errorbar(x, errors, bars, **look, elinewidth=1, label=name)
        has_width = low != high  # there is an interval, and seeds differ
        caps = {"color": look["color"], "markersize": 4, "clip_on": False, "zorder": look["zorder"]}
        for ends, limit, arrow in ((low, lowest, "v"), (high, 100, "^")):
            for marker, chosen in ((arrow, has_width & (ends == limit)), ("_", ends != limit)):
                if chosen.any():  # the layout takes an empty line for one at the figure's corner
                    ax.plot(x[chosen], ends[chosen], marker, **caps)
    ax.set_xscale("log")
    ticks = sorted({labels for points in curves.values() for labels, *_ in points})
    ax.set_xticks(ticks, [f"{labels:,}" for labels in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("number of labels, log scale")
    ax.set_title(_describe_intervals(curves))
    style.outside_legend(ax.figure, ax)
    return ax


def _describe_intervals(curves: LabelCurves) -> str:
    """The title: what bars and arrows mean, where there are any."""
    bounds = [(low, high) for points in curves.values() for _, _, low, high in points]
    bounds = [(low, high) for low, high in bounds if low < high]  # neither NaN nor all seeds equal
    if not bounds:
        return "Test error"
    is_open = any(low == 0 or high == 1 for low, high in bounds)
    arrows = ";\narrow: it reaches 0 or 100 %" if is_open else ""
    return f"Test error: mean and 95 % interval over seeds{arrows}"


def _method_look(index: int, emphasis: int) -> dict[str, Any]:
    """The look of a curve: 1 stands out, -1 stands back; after ten colours the lines are dashed."""
    return style.look(index) | {
        "linestyle": "-" if index < len(style.PALETTE) else "--",
        "linewidth": 1.8 + 0.8 * emphasis,
        "markersize": 5 + 2 * max(0, emphasis),
        "zorder": 2 + emphasis,
    }
