"""Classes: confusion matrices and labelled images."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colors, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cae.figures.curves import plot_report
from cae.figures.images import CELL, GAP, cell_height, displayable, draw_image, open_sheet
from cae.figures.style import (
    COUNTS_AND_SHARES_CLASSES,
    GREEN,
    GRID_IMAGES,
    LINE,
    PALE,
    STYLE,
    VERMILION,
    class_name,
    fitting_characters,
    ink_on,
    set_title,
    shorten,
    style_colorbar,
    style_matrix,
    text_inches,
    wrap_text,
)

COUNTS_CLASSES = 32  # up to here it has room for the count


# ---------------------------------------------------------------------------- classification


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
    names = [shorten(str(name), 16) for name in class_names]
    row_names = [*names, "unseen"][:num_rows]
    cell = 0.19  # inches
    if num_classes <= COUNTS_AND_SHARES_CLASSES:
        cell = max(0.68, 2.8 / num_classes)
    elif num_classes <= COUNTS_CLASSES:
        cell = 0.36
    figure = Figure(figsize=(1.12 * cell * num_classes + 3, cell * num_rows + 2))
    ax = style_matrix(figure.subplots())
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
    ax.set_title(
        "\n".join(wrap_text(mistakes, fitting_characters(mistakes, cell * num_classes + 1.5, 10)))
    )
    set_title(figure, title)
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
        style_colorbar(bar, f"{name}: share of the true class")
        if num_classes > COUNTS_CLASSES:
            continue
        for row, column in np.argwhere(shown):
            share, text, size = shares[row, column], f"{counts[row, column]:,}", 6.5
            if num_classes <= COUNTS_AND_SHARES_CLASSES:
                text, size = f"{text}\n{share:.1%}", 8
            ink = ink_on(heat.to_rgba(share))
            ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=size)


def _plot_predictions(
    images: np.ndarray, captions: Sequence[str], color: str, title: str
) -> Figure:
    """A grid of images, each below its caption of two lines."""
    if not len(images):
        return open_sheet(5, GAP, title)[0]
    columns = int(np.ceil(np.sqrt(len(images))))
    lines = [line for caption in captions for line in caption.split("\n")]
    pitch = max(CELL, *(text_inches(line, 8) for line in lines)) + 2 * GAP
    caption_height = 2 * LINE + 0.06
    row_height = caption_height + cell_height(images[0]) + GAP
    width = max(5.0, columns * pitch + 2 * GAP)
    figure, ax, top = open_sheet(width, -(-len(images) // columns) * row_height, title)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        row, column = divmod(index, columns)
        left = GAP + column * pitch + (pitch - CELL) / 2
        y = top + row * row_height + caption_height
        place = {"ha": "center", "va": "bottom"}
        ax.text(left + CELL / 2, y - 0.04, caption, **place, fontsize=8, color=color)
        draw_image(ax, displayable(image), left, y, colors.Normalize(0, 1))
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
            f"true {class_name(labels[index], names, 15)}\npredicted "
            f"{class_name(predicted[index], names, 15)} · {confidence[index]:.1%}"
            for index in chosen
        ]
        return _plot_predictions(images[chosen], captions, color, grid_title)

    correct = _spread_over_classes(np.flatnonzero(right), labels, GRID_IMAGES)
    mistakes = np.flatnonzero(~right)
    wrong = mistakes[np.argsort(-confidence[mistakes], kind="stable")][:GRID_IMAGES]
    correct_title = f"Classified correctly: {len(correct)} of {right.sum():,}"
    wrong_title = f"Classified wrongly: the {len(wrong)} most confident of {len(mistakes):,}"
    return {
        "report": plot_report(report, title),
        "confusion_matrix": plot_confusion_matrix(counts[:, : len(names)], names, title),
        "correct": plot(
            correct, GREEN, correct_title if len(correct) else "No image was classified correctly"
        ),
        "wrong": plot(
            wrong, VERMILION, wrong_title if len(wrong) else "No image was classified wrongly"
        ),
    }
