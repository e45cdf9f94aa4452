"""Encodings in two dimensions: images that the encoder finds similar lie close together."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cae.errors import DataError
from cae.figures import style

FEW_IMAGES = 30  # t-SNE needs neighbours: below this the principal components are shown
PCA_DIMENSIONS = 50  # as advised by van der Maaten and Hinton, JMLR 9, 2008
LEGEND_ROWS = 25
GRID_PANELS = 64  # of small multiples, at most


def name_projection(num_images: int) -> str:
    """The projection that `project_encodings` uses for a number of images, in words."""
    return "Principal components" if num_images < FEW_IMAGES else "t-SNE"


def project_encodings(encodings: np.ndarray) -> np.ndarray:
    """Projects encodings to two dimensions, reproducibly.

    Principal components first (at most 50), then t-SNE; fewer than 30 images, too few to speak of
    neighbourhoods, are shown by their first two principal components.

    Args:
        encodings: float (num_images, ...).

    Returns:
        float32 (num_images, 2), without a unit.

    Raises:
        DataError: An encoding is not finite.

    Source: L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008.
    """
    from sklearn.decomposition import PCA  # takes a second to load
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    flat = np.asarray(encodings, np.float32).reshape(len(encodings), -1)
    if not np.isfinite(flat).all():
        required, remedy = "must be finite numbers", "Train again with a smaller learning rate."
        raise DataError("encodings", required, "NaN or infinity", remedy)
    if np.all(flat == flat[:1]):  # one image, or a collapsed encoder
        return np.zeros((len(flat), 2), np.float32)
    dimensions = min(PCA_DIMENSIONS, *flat.shape)
    points = PCA(dimensions, random_state=0).fit_transform(flat)
    if dimensions == 1:
        points = np.pad(points, ((0, 0), (0, 1)))
    if len(points) < FEW_IMAGES:
        return points[:, :2].astype(np.float32)
    perplexity = min(30.0, (len(points) - 1) / 3)
    # More threads only wait for each other: on 2 busy cores they take six times the work.
    with threadpool_limits(1, user_api="openmp"):
        return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points)


@rc_context(style.STYLE)
def encodings_visualization(
    encodings: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    others: str = "unseen",
) -> Figure:
    """Projects encodings to two dimensions and draws them, with room for the legend.

    More than ten classes get a small plot each.

    Args:
        encodings: float (num_images, ...); `project_encodings` refuses those that are not finite.
        labels: As for `plot_encodings`.
        class_names: As for `plot_encodings`.
        others: As for `plot_encodings`.
    """
    points = project_encodings(encodings)
    present = [] if labels is None else np.unique(labels)
    if sum(label >= 0 for label in present) > len(style.PALETTE):
        return _plot_multiples(points, labels, class_names)
    names = [style.class_name(label, class_names, 20, others) for label in present]
    legend = max((style.text_inches(name, 8.5) + 0.45 for name in names), default=0)
    figure = Figure(figsize=(5.4 + legend, 5.2))
    plot_encodings(points, labels, class_names, figure.subplots(), others)
    return figure


def _plot_multiples(points: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> Figure:
    """One small plot per class, the most frequent ones: its images in colour, the others gray."""
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    chosen = np.sort(classes[np.argsort(-counts, kind="stable")[:GRID_PANELS]])
    columns = int(np.ceil(np.sqrt(len(chosen))))
    rows, size = -(-len(chosen) // columns), 8.4 / columns
    figure = Figure(figsize=(8.4, (size + style.LINE) * rows + 0.5))
    panels = figure.subplots(rows, columns, sharex=True, sharey=True).flat
    for ax, label in zip_longest(panels, chosen):
        ax.set_axis_off()
        if label is None:
            continue
        mine = labels == label
        ax.plot(*points[~mine].T, ",", color=style.BEHIND)
        ax.plot(*points[mine].T, "o", color=style.BLUE, markersize=2.5, markeredgewidth=0)
        name = style.class_name(label, class_names, int(size / style.text_inches("n", 8)) - 1)
        ax.set_title(name, loc="center", fontsize=8, pad=2)
    shown = f", {len(chosen)} of {len(classes)} classes" * (len(chosen) < len(classes))
    style.set_title(figure, f"{_describe(points)}{shown}: one class in blue")
    return figure


def _describe(points: np.ndarray) -> str:
    return f"{name_projection(len(points))} of the encodings of {len(points):,} images"


@rc_context(style.STYLE)
def plot_encodings(
    points: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str],
    ax: Axes,
    others: str = "unseen",
) -> Axes:
    """Draws encodings in two dimensions, with a legend of the classes beside the plot.

    Args:
        points: float (num_images, 2), as `project_encodings` gives them.
        labels: int (num_images,), indices into `class_names` or -1 for images of no known class,
            which are gray; `None` draws all points alike.
        class_names: One per class.
        ax: Where to draw, and what is returned. The constrained layout makes room for the legend.
        others: The name of the images with -1.
    """
    style.style_axes(ax).grid(visible=False)
    ax.set(xticks=[], yticks=[], xlabel="first dimension (no unit)")
    ax.set_ylabel("second dimension (no unit)")
    ax.set_title(_describe(points))
    look = {"alpha": 0.65, "linewidths": 0}
    if labels is None:
        ax.scatter(*points.T, s=16, color=style.BLUE, **look)
        return ax
    for label in np.unique(labels):
        mark = style.look(label) if label >= 0 else {"color": style.GRAY, "marker": "."}
        name = style.class_name(label, class_names, 20, others)
        ax.scatter(*points[labels == label].T, s=16, label=name, **mark, **look)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(1, 1),
        ncols=-(-len(ax.collections) // LEGEND_ROWS),
        markerscale=1.5,
        handletextpad=0.2,
        columnspacing=1,
    )
    return ax
