"""Encodings in two dimensions: images that the encoder finds similar lie close together."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cae.errors import DataError
from cae.figures import style

FEW_IMAGES = 30  # t-SNE needs neighbours: below this the principal components are shown
PCA_DIMENSIONS = 50  # as advised by van der Maaten and Hinton, JMLR 9, 2008
LEGEND_ROWS = 25


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
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(points)


@rc_context(style.STYLE)
def encodings_visualization(
    encodings: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str]
) -> Figure:
    """Projects encodings to two dimensions and draws them, with room for the legend.

    Args:
        encodings: float (num_images, ...); `project_encodings` refuses those that are not finite.
        labels: As for `plot_encodings`.
        class_names: One per class.
    """
    legend_width = 0.0
    if labels is not None:
        names = [style.class_name(label, class_names, 20) for label in np.unique(labels)]
        columns = -(-len(names) // LEGEND_ROWS)
        legend_width = columns * (max(style.text_inches(name, 8.5) for name in names) + 0.45)
    figure = Figure(figsize=(6.5 + legend_width, 6))
    plot_encodings(project_encodings(encodings), labels, class_names, figure.subplots())
    return figure


@rc_context(style.STYLE)
def plot_encodings(
    points: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str], ax: Axes
) -> Axes:
    """Draws encodings in two dimensions, with a legend of the classes beside the plot.

    Args:
        points: float (num_images, 2), as `project_encodings` gives them.
        labels: int (num_images,), indices into `class_names` or -1 for a class training never saw;
            `None` draws all points alike.
        class_names: One per class.
        ax: Where to draw, and what is returned. The constrained layout makes room for the legend.
    """
    style.style_axes(ax).grid(visible=False)
    ax.set(xticks=[], yticks=[], xlabel="first dimension (no unit)")
    ax.set_ylabel("second dimension (no unit)")
    ax.set_title(f"Encodings of {len(points):,} images in two dimensions")
    look = {"alpha": 0.65, "linewidths": 0}
    if labels is None:
        ax.scatter(*points.T, s=16, color=style.BLUE, **look)
        return ax
    for label in np.unique(labels):
        color, marker, size = style.GRAY, "*", 40
        if label >= 0:
            color, size = style.PALETTE[label % len(style.PALETTE)], 16
            marker = style.MARKERS[label // len(style.PALETTE) % len(style.MARKERS)]
        x, y = points[labels == label].T
        name = style.class_name(label, class_names, 20)
        ax.scatter(x, y, s=size, marker=marker, color=color, label=name, **look)
    ax.legend(
        loc="upper left",
        bbox_to_anchor=(1, 1),
        ncols=-(-len(ax.collections) // LEGEND_ROWS),
        markerscale=1.5,
        handletextpad=0.2,
        columnspacing=1,
    )
    return ax
