"""Classes: the results of a classifier, as a report, a confusion matrix and labelled images."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cae.figures import sheets, style
from cae.figures.comparisons import with_comparison
from cae.figures.curves import plot_history
from cae.records.calibration import (
    Calibration,
    get_calibration_error,
    get_reliability,
)
from cae.records.evaluation import count_predictions, get_share_interval
from cae.records.history import History

# Up to so many classes a cell of the confusion matrix has room for the count and the share, or for
# the count alone.
COUNTS_AND_SHARES_CLASSES, COUNTS_CLASSES = 12, 32
GRID_IMAGES = 25


@rc_context(style.STYLE)
def classifier_loss_visualization(
    histories: Sequence[History], reports: Sequence[Mapping[str, Any] | None]
) -> dict[str, Figure]:
    """Draws the training of classifiers, their reports, and how they compare.

    Args:
        histories: One per experiment.
        reports: Per experiment scikit-learn's `classification_report(output_dict=True)`, or `None`.

    Returns:
        ``history`` and, where there is a report, ``report``; for several experiments ``history-1``,
        ``report-1``, ``history-2`` and so on, and ``comparison``.
    """
    figures = []
    for history, report in zip(histories, reports, strict=True):
        drawn = {"history": plot_history(history)}
        if report is not None:
            drawn["report"] = plot_report(report, f"{history.name}: classification report")
        figures.append(drawn)
    return with_comparison(figures, histories)


@rc_context(style.STYLE)
def classifier_prediction_visualization(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    image_names: Sequence[str] | None = None,
    report: Mapping[str, Any] | None = None,
) -> dict[str, Figure]:
    """Draws the predictions of a classifier for images whose classes are known.

    Args:
        images: float (num_images, height, width, channels) in [0, 1].
        labels: int (num_images,), indices into `class_names`, or -1 for a class that training never
            saw, which counts as an error.
        probabilities: float (num_images, num_classes).
        class_names: One per class.
        image_names: One per image; by default `image 0`, `image 1`, …
        report: Of scikit-learn, as a dict; by default one of these predictions, in which the
            classes that training never saw are one.

    Returns:
        ``report``, ``confusion_matrix``, ``correct`` and ``wrong``.
    """
    from sklearn.metrics import classification_report  # takes a second to load

    names = [str(name) for name in class_names]
    predicted = probabilities.argmax(axis=1)
    if report is None:
        occurring = np.union1d(labels, predicted)  # averages leave out the others
        shown = [names[index] if index >= 0 else "unseen" for index in occurring.tolist()]
        how = {"target_names": shown, "output_dict": True, "zero_division": 0}
        report = classification_report(labels, predicted, labels=occurring, **how)
    title = f"Accuracy {np.mean(labels == predicted):.2%} on {len(labels):,} images"
    if num_unseen := np.sum(labels == -1):
        title += f", {num_unseen:,} of them of classes training never saw"
    counts = count_predictions(labels, predicted, len(names))
    return {
        "report": plot_report(report, title),
        "confusion_matrix": plot_confusion_matrix(counts, names, title),
        **_plot_examples(images, labels, probabilities, names, image_names),
    }


# --- Report ----------------------------------------------------------------------------------


@rc_context(style.STYLE)
def plot_report(report: Mapping[str, Any], title: str) -> Figure:
    """Draws scikit-learn's `classification_report(output_dict=True)` as a heat map."""
    rows = {name: values for name, values in report.items() if isinstance(values, Mapping)}
    columns = ("precision", "recall", "f1-score")
    shares = np.array([[values[column] for column in columns] for values in rows.values()])
    row_height = 0.3 if len(rows) <= 20 else 0.21
    figure = Figure(figsize=(6.6, row_height * len(rows) + 1.3))
    ax = style.style_matrix(figure.subplots())
    # Good classifiers differ only above 0.9, so the colours start just below the worst value.
    norm = Normalize(np.floor(10 * min(shares.min(), 0.95)) / 10, 1)
    heat = ax.imshow(shares, cmap="Blues", norm=norm, aspect="auto")
    centered = {"ha": "center", "va": "center", "fontsize": 8}
    for (row, column), share in np.ndenumerate(shares):
        ax.text(column, row, f"{share:.3f}", color=style.ink_on(heat.to_rgba(share)), **centered)
    for row, values in enumerate(rows.values()):
        ax.text(3, row, f"{values['support']:,.0f}", **centered)
    ax.set_xlim(-0.5, 3.5)
    ax.set_xticks(range(4), ("precision", "recall", "F1", "images"))
    ax.set_yticks(range(len(rows)), [style.shorten(name, 24) for name in rows])
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, labelsize=8)
    ax.set_ylabel("class")
    averages = sum(name.endswith(" avg") for name in rows)
    ax.axhline(len(rows) - averages - 0.5, color="white", linewidth=4)
    bar = figure.colorbar(heat, ax=ax, aspect=30, shrink=min(1, 12 / len(rows)), anchor=(0, 1))
    style.style_colorbar(bar, "share (0 to 1)")
    style.set_title(figure, title)
    return figure


# --- Confusion matrix ------------------------------------------------------------------------


@rc_context(style.STYLE)
def plot_confusion_matrix(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """Draws how often each class was predicted as each; the mistakes are coloured.

    Args:
        counts: int (num_classes or num_classes + 1, num_classes) from `count_predictions`.
        class_names: One per column.
        title: Of the figure.
    """
    num_rows, num_classes = counts.shape
    names = [style.shorten(str(name), 16) for name in class_names]
    row_names = [*names, "unseen"][:num_rows]
    cell, size = 0.14, 6  # inches, points
    if num_classes <= COUNTS_AND_SHARES_CLASSES:
        cell, size = max(0.56, 2.8 / num_classes), 8
    elif num_classes <= COUNTS_CLASSES:
        cell, size = 0.32, 8
    longest = max(style.text_inches(name, size) for name in row_names)
    rotated = longest > 0.9 * cell
    height = cell * num_rows + 2 + longest * rotated
    figure = Figure(figsize=(1.07 * cell * num_classes + 1.6 + longest, height))
    ax = style.style_matrix(figure.subplots())
    _draw_confusion(ax, counts)
    ax.set_xticks(np.arange(num_classes), names, rotation=90 * rotated)
    ax.set_yticks(np.arange(num_rows), row_names)
    ax.tick_params(labelsize=size)
    ax.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(num_rows + 1) - 0.5, minor=True)
    ax.grid(which="minor", color=style.PALE, linewidth=0.5)
    ax.tick_params(which="minor", length=0)
    ax.set(xlabel="predicted class", ylabel="true class")
    mistakes = describe_mistakes(counts, row_names)
    # The line may continue above the colour bar, which takes 0.8 inches.
    width = (cell * num_classes + 0.8) / style.text_inches("n", 10)
    ax.set_title(textwrap.fill(mistakes, int(width)))
    style.set_title(figure, title)
    return figure


def describe_mistakes(counts: np.ndarray, names: Sequence[str]) -> str:
    """The three most frequent mistakes in words."""
    mistakes = counts * (1 - np.eye(*counts.shape, dtype=counts.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:3]
    pairs = [np.unravel_index(flat, counts.shape) for flat in order if mistakes.flat[flat]]
    # Spaces that do not break keep a pair on one line.
    names = [style.in_sentence(name) for name in names]
    words = [f"{names[true]} → {names[wrong]} ({counts[true, wrong]:,})" for true, wrong in pairs]
    listed = ",  ".join(word.replace(" ", "\xa0") for word in words)
    return f"Most frequent mistakes: {listed}" if pairs else "No mistakes"


def _draw_confusion(ax: Axes, counts: np.ndarray) -> None:
    """Colours the mistakes by their share of the true class, and writes in what has room."""
    num_rows, num_classes = counts.shape
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(num_rows, num_classes, dtype=bool)
    ax.imshow(np.ma.masked_array(diagonal, ~diagonal), cmap="Greys", vmin=0, vmax=5)
    mistaken = ~diagonal & (counts > 0)
    # On a square-root scale rare mistakes still differ from none. The row of unseen classes, all
    # mistakes, must not stretch it.
    largest = shares[:num_classes][mistaken[:num_classes]].max(initial=0) or 1.0
    norm = PowerNorm(0.5, 0, largest, clip=True)
    heat = ax.imshow(np.ma.masked_array(shares, ~mistaken), cmap="Oranges", norm=norm)
    extend = "max" if num_rows > num_classes else "neither"
    bar = ax.figure.colorbar(heat, ax=ax, aspect=35, fraction=0.05, pad=0.02, extend=extend)
    ticks = [tick for tick in MaxNLocator(4).tick_values(0, largest) if tick <= largest]
    bar.set_ticks(ticks, labels=[f"{100 * tick:.3g}%" for tick in ticks])
    style.style_colorbar(bar, "mistakes: share of the true class")
    if num_classes > COUNTS_CLASSES:
        return
    for row, column in np.argwhere(mistaken | diagonal & counts.any(axis=1, keepdims=True)):
        text, size = f"{counts[row, column]:,}", 6.5
        if num_classes <= COUNTS_AND_SHARES_CLASSES:
            text, size = f"{text}\n{shares[row, column]:.1%}", 8
        ink = style.INK if row == column else style.ink_on(heat.to_rgba(shares[row, column]))
        ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)


# --- Reliability -----------------------------------------------------------------------------


@rc_context(style.STYLE)
def plot_reliability(
    probabilities: np.ndarray, targets: np.ndarray, calibration: Calibration
) -> Figure:
    """Draws how often answers of each confidence are right, before and after calibration.

    Bars are 95 % intervals: long where few answers have that confidence.

    Args:
        probabilities: float (num_images, num_classes), as the classifier gives them.
        targets: int (num_images,), the true classes, or -1 for one that training never saw.
        calibration: Of the classifier.
    """
    figure = Figure(figsize=(4.6, 4.4))
    ax = style.style_axes(figure.subplots())
    ax.plot(
        (0, 1), (0, 1), color=style.GRAY, linewidth=1, linestyle="--", label="perfect calibration"
    )
    curves = [("uncalibrated", probabilities, style.VERMILION, "o--")]
    if calibration.temperature != 1:
        name = f"temperature {calibration.temperature:.3g}"
        curves.append((name, calibration.apply(probabilities), style.BLUE, "o-"))
    for name, values, color, line in curves:
        reliability = get_reliability(values, targets)
        error = get_calibration_error(reliability)
        label = f"{name}: expected calibration error {error:.2%}"
        ax.plot(reliability[:, 0], reliability[:, 1], line, color=color, markersize=4, label=label)
    for confidence, accuracy, share in reliability:  # of the last curve
        number = round(share * len(targets))
        interval = get_share_interval(round(accuracy * number), number)
        ax.plot([confidence] * 2, interval, color=color, alpha=0.4, linewidth=3)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence")
    ax.set_ylabel("accuracy (bars: 95 % intervals)")
    style.outside_legend(figure, ax)
    style.set_title(figure, f"Reliability on {len(targets):,} images")
    return figure


@rc_context(style.STYLE)
def plot_roc(is_positive: np.ndarray, scores: np.ndarray) -> tuple[Figure, float]:
    """Draws how many positives are found at each share of false alarms.

    Args:
        is_positive: bool (num_images,), some true and some false.
        scores: float (num_images,), larger for images that are thought positive.

    Returns:
        The figure, and the area under the curve: 1 is perfect, 0.5 is chance.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    false_alarms, found, _ = roc_curve(is_positive, scores)
    area = float(roc_auc_score(is_positive, scores))
    figure = Figure(figsize=(4.6, 4.2))
    ax = style.style_axes(figure.subplots())
    ax.plot((0, 1), (0, 1), color=style.GRAY, linewidth=1, linestyle="--", label="chance")
    ax.plot(false_alarms, found, color=style.BLUE, label=f"area {area:.4f}")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="false positive rate")
    ax.set_ylabel("true positive rate (anomalies found)")
    style.outside_legend(figure, ax)
    style.set_title(figure, f"{np.sum(is_positive):,} strange images among {len(scores):,} images")
    return figure, area


# --- Labelled images -------------------------------------------------------------------------


def _plot_examples(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    names: Sequence[str],
    image_names: Sequence[str] | None,
) -> dict[str, Figure]:
    """Correct predictions of all classes, and the most confident mistakes."""
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right, mistakes = np.flatnonzero(labels == predicted), np.flatnonzero(labels != predicted)
    correct = _spread_over_classes(right, labels, GRID_IMAGES)
    wrong = mistakes[np.argsort(-confidence[mistakes], kind="stable")][:GRID_IMAGES]

    def plot(chosen: np.ndarray, color: str, title: str) -> Figure:
        captions = [
            f"{style.name_image(index, image_names, 24)}\n"
            f"true {style.class_name(labels[index], names, 12)}\n"
            f"predicted {style.in_sentence(style.class_name(predicted[index], names, 12))} · "
            f"{confidence[index]:.1%}"
            for index in chosen
        ]
        return sheets.plot_captioned(images[chosen], captions, title, color)

    correct_title, wrong_title = "No image was classified correctly", "No image was misclassified"
    if len(correct):
        correct_title = f"Classified correctly: {len(correct)} of {len(right):,}"
    if len(wrong):
        wrong_title = f"Misclassified: the {len(wrong)} most confident of {len(mistakes):,}"
    return {
        "correct": plot(correct, style.GREEN, correct_title),
        "wrong": plot(wrong, style.VERMILION, wrong_title),
    }


def _spread_over_classes(indices: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of `indices`, ordered by class and taken evenly from all of them."""
    ordered = indices[np.argsort(labels[indices], kind="stable")]
    classes, starts, sizes = np.unique(labels[ordered], return_index=True, return_counts=True)
    if not len(classes):
        return ordered
    within = np.arange(len(ordered)) - np.repeat(starts, sizes)  # 0, 1, … inside each class
    enough = np.sort(within)[min(count, len(ordered)) - 1]  # images per class, to reach `count`
    candidates = ordered[within <= enough]
    places = np.linspace(0, len(candidates) - 1, min(count, len(candidates)))
    return candidates[places.round().astype(int)]
