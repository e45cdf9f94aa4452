"""Encodings in two dimensions."""

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cae.errors import DataError
from cae.figures.style import (
    BLUE,
    COUNTS_AND_SHARES_CLASSES,
    INK,
    MARKERS,
    PALETTE,
    STYLE,
    class_color,
    class_name,
    style_axes,
    text_inches,
)

FEW_IMAGES = 30  # t-SNE needs neighbours: below this the principal components are shown
PCA_DIMENSIONS = 50  # as advised by van der Maaten and Hinton, JMLR 9, 2008


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
def encodings_visualization(
    encodings: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str]
) -> Figure:
    """Projects encodings to two dimensions and draws them in a figure of their own.

    Args:
        encodings: float (num_images, ...).
        labels: See `plot_encodings`.
        class_names: One for each class.

    Raises:
        DataError: If an encoding is not finite.
    """
    points = project_encodings(encodings)
    figure = Figure(figsize=(7, 6))
    plot_encodings(points, labels, class_names, figure.subplots())
    return figure


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
    style_axes(ax).grid(visible=False)
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
        ax.scatter(x, y, s=16 if seen else 40, marker=marker, color=class_color(label), **look)
    _name_clusters(points, labels, class_names, ax)
    return ax


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
    names = [class_name(label, class_names, 20) for label in classes]
    frame = 0.7 * size  # points: padding, border and distance of both sides together
    boxes = np.array(
        [(72 * text_inches(name, size, "bold") + frame, size + frame) for name in names]
    )
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
                "edgecolor": class_color(label),
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
