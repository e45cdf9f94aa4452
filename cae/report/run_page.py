"""The page of a run of `autoencoder.py` or `classification.py`.

Curves and confusion matrices are drawn from the record. Pictures that need the model or the images
(reconstructions, filters, labelled images) are taken from `plots/`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cae import terminal
from cae.config.architecture import describe_architecture
from cae.config.load import format_config
from cae.data.splits import encode_labels
from cae.records.calibration import Calibration
from cae.records.environment import read_environment
from cae.records.evaluation import Predictions, read_predictions
from cae.records.history import History
from cae.records.run import PARTIAL
from cae.report.answer import answer_blocks, describe_scores
from cae.report.origin import origin_sections, training_command
from cae.report.pages import (
    Code,
    Folded,
    Lead,
    Page,
    Picture,
    Section,
    Table,
    draw,
    embed,
)
from cae.studies.results import RunResult, read_result

COSTS = {"parameters": "parameters", "seconds": "seconds of training"}
# Figures in `plots/` that cannot be drawn from the record: name -> caption.
PICTURES = {
    "augmentation": "Images as training changes them, below their originals",
    "reconstructions": "Images, their reconstructions, and the difference between the two",
    "worst_reconstructions": "The images with the largest reconstruction errors",
    "filters": "Filters of the first convolution",
    "encodings": "Encodings of images in two dimensions: similar images lie close together",
    "wrong": "Misclassified images, the most confident mistakes first",
    "correct": "Correctly classified images",
}


def describe_run(folder: Path) -> Page:
    """The page of a run; an incomplete or damaged record is a `DataError`."""
    result, environment = read_result(folder), read_environment(folder)
    history, start = result.history, result.start
    command = training_command(folder, start)
    interrupted = ", interrupted" if folder.name.endswith(PARTIAL) else ""
    return Page(
        f"{history.kind.capitalize()} {result.name}{interrupted}",
        f"{name_layers(result)}. Trained on {environment.trained_on}, "
        f"seed {history.model_info['seed']}, {environment.day}.",
        answer_blocks(result, environment, [command]),
        [
            *run_sections(result, folder / "plots"),
            Section("Configuration", [Code(format_config(history.model_info))]),
            *origin_sections([environment], start.models, [command]),
        ],
    )


def run_sections(result: RunResult, plots: Path) -> list[Section]:
    """The predictions, the pictures (if the folder has any) and the training of a run."""
    sections = []
    if (result.path / "predictions.csv").exists():
        sections.append(Section("Classified images", _prediction_blocks(result)))
    pictures: list[Any] = []
    for name, caption in PICTURES.items():
        path = plots / f"{name}.png"
        if path.exists():
            picture = embed(path, caption)
            pictures.append(Folded(caption, [picture]) if name == "correct" else picture)
    if pictures:
        sections.append(Section("Pictures", pictures))
    history = result.history
    keys = dict.fromkeys(key for row in history.epochs for key in row)
    columns = {key: [row.get(key) for row in history.epochs] for key in keys}
    every_epoch = Folded("Every epoch", [Table("Values recorded after each epoch", columns)])
    facts = {
        "best epoch": f"{history.best_epoch} of {len(history.epochs)}",
        **describe_scores(history.metrics, ("val_loss",)),
        **{
            name: f"{history.metrics[key]:,.0f}"
            for key, name in COSTS.items()
            if key in history.metrics
        },
    }
    curves = [_draw_curves(history)] if history.epochs else []
    return [*sections, Section("Training", [facts, *curves, every_epoch])]


def name_layers(result: RunResult) -> str:
    """The architecture of a run in words, with the saved encoder that it began with."""
    layers = describe_architecture(result.history.model_info)
    if result.start.arguments.model:
        layers += f", with the encoder of {terminal.relative(result.start.arguments.model)}"
    return layers


def _draw_curves(history: History) -> list[Picture]:
    from cae.figures.curves import METRIC_NAMES, curve_figures
    from cae.figures.style import as_sentence

    pictures = []
    for metric, figure in curve_figures(history).items():
        key = f"val_{metric}" if history.has(f"val_{metric}") else metric
        name, values = as_sentence(METRIC_NAMES[metric]), history.column(key)
        where = "validation" if key != metric else "training"
        description = (
            f"{name} on {where} images over {len(values)} epochs: {values[0]:.4g} in the first, "
            f"{values[-1]:.4g} in the last"
        )
        if key in history.best:
            description += f", {history.best[key]:.4g} where the weights were kept"
        pictures.append(draw(figure, name, f"{description}."))
    return pictures


# --- Classified images -----------------------------------------------------------------------


def _prediction_blocks(result: RunResult) -> list[Any]:
    """The accuracy, the values of every class, and the confusion matrix."""
    from cae.figures.classes import count_predictions, plot_confusion_matrix, plot_reliability

    predicted = read_predictions(result.path / "predictions.csv")
    labels, predictions, classes = predicted.labels, predicted.predictions, predicted.classes
    right, total = np.sum(labels == predictions), len(labels)
    images = "test" if "test_accuracy" in result.history.metrics else "validation"
    title = f"{right:,} of {total:,} {images} images classified correctly"
    names = _class_names(predicted)
    targets, outputs = encode_labels(labels, classes), encode_labels(predictions, classes)
    counts = count_predictions(targets, outputs, len(classes))
    figure = plot_confusion_matrix(counts, [names[label] for label in classes.tolist()], title)
    description = f"{title}. Rows are true classes, columns predicted ones."
    calibration = Calibration(result.history.metrics.get("temperature", 1.0))
    reliability = plot_reliability(predicted.probabilities, targets, calibration)
    return [
        Lead(f"{title}, {100 * right / total:.2f} %."),
        describe_scores(result.history.metrics, ("test_macro_f1", "test_ece")),
        _class_table(labels, predictions, names),
        draw(figure, "Confusion matrix", description),
        draw(
            reliability,
            "How often answers of each probability are right",
            "Points below the diagonal are answers that are less often right than their "
            "probability says.",
        ),
    ]


def _class_names(predicted: Predictions) -> dict[int, str]:
    """A name for each label: first those that training saw, then those that it did not."""
    seen = len(predicted.classes)
    return {
        label: name if label < seen else f"{name} (unseen)"
        for label, name in predicted.names.items()
    }


def _class_table(labels: np.ndarray, predictions: np.ndarray, names: dict[int, str]) -> Table:
    from sklearn.metrics import precision_recall_fscore_support

    report = precision_recall_fscore_support(
        labels, predictions, labels=list(names), zero_division=0.0
    )
    headings = ("precision", "recall", "F1", "images")
    values = dict(zip(headings, (column.tolist() for column in report), strict=True))
    return Table("Each class", {"class": list(names.values())} | values)
