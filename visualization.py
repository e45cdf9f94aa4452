"""Draws figures from Python: the functions of `cae.figures` under one name.

Functions that draw one plot take and return a Matplotlib `Axes`; the others return figures, alone
or by name. None of them shows or saves a figure.

Example, which continues that of `model`:
    from visualization import autoencoder_visualization

    originals = get_scaling(images).apply(images)
    figures = autoencoder_visualization([history], originals[:10], [reconstructions[:10]])
    figures["loss"].savefig("loss.png")
    figures["reconstructions"].savefig("reconstructions.png")
"""

from cae.figures.classes import (
    classifier_loss_visualization,
    classifier_prediction_visualization,
    plot_confusion_matrix,
)
from cae.figures.comparisons import (
    compare_visualization,
    label_efficiency_visualization,
    plot_comparison,
    plot_label_efficiency,
)
from cae.figures.curves import plot_curves
from cae.figures.encodings import encodings_visualization, plot_encodings, project_encodings
from cae.figures.images import (
    autoencoder_visualization,
    plot_filters,
    plot_views,
    plot_worst_reconstructions,
)

__all__ = [
    "autoencoder_visualization",
    "classifier_loss_visualization",
    "classifier_prediction_visualization",
    "compare_visualization",
    "encodings_visualization",
    "label_efficiency_visualization",
    "plot_comparison",
    "plot_confusion_matrix",
    "plot_curves",
    "plot_encodings",
    "plot_filters",
    "plot_label_efficiency",
    "plot_views",
    "plot_worst_reconstructions",
    "project_encodings",
]
