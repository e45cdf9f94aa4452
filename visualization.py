"""Draws figures from Python: the functions of `cae.figures` under one name.

    from model import train_autoencoder  # returns a history
    from visualization import autoencoder_visualization

    figures = autoencoder_visualization([history], images, [reconstructions])
    figures["loss"].savefig("loss.png")

Functions that draw one plot take and return a Matplotlib `Axes`; the others return figures, by name
or alone. None of them shows or saves anything.
"""

from cae.figures.classes import (
    classifier_loss_visualization,
    classifier_prediction_visualization,
    plot_confusion_matrix,
)
from cae.figures.comparisons import compare_visualization, plot_label_efficiency
from cae.figures.curves import plot_curves
from cae.figures.encodings import plot_encodings, project_encodings
from cae.figures.images import autoencoder_visualization, plot_filters, plot_worst_reconstructions

__all__ = [
    "autoencoder_visualization",
    "classifier_loss_visualization",
    "classifier_prediction_visualization",
    "compare_visualization",
    "plot_confusion_matrix",
    "plot_curves",
    "plot_encodings",
    "plot_filters",
    "plot_label_efficiency",
    "plot_worst_reconstructions",
    "project_encodings",
]
