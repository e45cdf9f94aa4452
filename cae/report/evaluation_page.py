"""How a classifier did on labelled images: in a run, or tested by `predict.py evaluate`.

Confusion matrices are drawn from the record. Pictures that need the model or the images
(reconstructions, filters, labelled images) are taken from `plots/`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from cae import terminal
from cae.config.json_text import load_record
from cae.data.splits import encode_labels
from cae.records.calibration import Calibration
from cae.records.evaluation import Predictions, count_predictions, read_predictions
from cae.records.run import METRICS_FILE, PREDICTIONS_FILE, FileRecord
from cae.report.answer import FIRST, describe_scores, use_command
from cae.report.pages import Code, Folded, KeyFacts, Lead, Page, Section, Table, draw, embed

# Figures in `plots/` that cannot be drawn from the record: name -> caption.
PICTURES = {
    "reconstructions": "Images, their reconstructions, and the difference between the two",
    "worst_reconstructions": "The largest reconstruction errors among up to 1,000 images",
    "wrong": "Misclassified images, the most confident mistakes first",
    "encodings": "Encodings of images in two dimensions: similar images lie close together",
    "filters": "Filters of the first convolution",
    "augmentation": "Images as training changes them, below their originals",
    "correct": "Correctly classified images",
}


class Test(BaseModel):
    """What the `metrics.json` of `predict.py evaluate` says of files."""

    model: FileRecord
    data: list[FileRecord]


def describe_evaluation(folder: Path) -> Page:
    """The page of a test by `predict.py evaluate`; damaged files are a `DataError`."""
    test = load_record(folder / METRICS_FILE, Test)
    metrics = load_record(folder / METRICS_FILE, dict[str, Any])
    model = terminal.relative(test.model.path)
    files = [("model", test.model), *(("test", file) for file in test.data)]
    rows = [(role, terminal.relative(f.path), f.bytes, f.sha256) for role, f in files]
    facts = {
        "data set": ", ".join(terminal.relative(file.path) for file in test.data),
        "model": model,
        "use it": Code(use_command("classifier", model)),
    }
    return Page(
        f"Test of {Path(model).stem}",
        folder.name,
        [KeyFacts(describe_scores(metrics, FIRST)), facts],
        [
            *prediction_sections(folder, folder / "plots", metrics),
            Section("Data", [Table.from_rows("Files", ("role", "file", "bytes", "SHA-256"), rows)]),
        ],
    )


def prediction_sections(folder: Path, plots: Path, metrics: Mapping[str, Any]) -> list[Section]:
    """The classified images of a folder, and its pictures, if it has any."""
    sections, predictions = [], folder / PREDICTIONS_FILE
    if predictions.exists():
        sections.append(Section("Classified images", _prediction_blocks(predictions, metrics)))
    pictures: list[Any] = []
    for name, caption in PICTURES.items():
        path = plots / f"{name}.png"
        if path.exists():
            picture = embed(path, caption)
            pictures.append(Folded(caption, [picture]) if name == "correct" else picture)
    return [*sections, *[Section("Pictures", pictures)] * bool(pictures)]


def _prediction_blocks(path: Path, metrics: Mapping[str, Any]) -> list[Any]:
    """The accuracy, the values of every class, and the confusion matrix."""
    from cae.figures.classes import (
        describe_mistakes,
        plot_confusion_matrix,
        plot_reliability,
    )

    predicted = read_predictions(path)
    labels, predictions, classes = predicted.labels, predicted.predictions, predicted.classes
    right, total = np.sum(labels == predictions), len(labels)
    images = "test" if "test_accuracy" in metrics else "validation"
    title = f"{right:,} of {total:,} {images} images classified correctly"
    names = _class_names(predicted)
    targets, outputs = encode_labels(labels, classes), encode_labels(predictions, classes)
    counts = count_predictions(targets, outputs, len(classes))
    shown = [names[label] for label in classes.tolist()]
    figure = plot_confusion_matrix(counts, shown, title)
    mistakes = describe_mistakes(counts, [*shown, "unseen"])
    description = f"{title}. Rows are true classes, columns predicted ones. {mistakes}."
    calibration = Calibration(metrics.get("temperature", 1.0))
    # The file holds calibrated probabilities.
    raw = Calibration(1 / calibration.temperature).apply(predicted.probabilities)
    reliability = plot_reliability(raw, targets, calibration)
    return [
        Lead(f"{title}, {100 * right / total:.2f} %."),
        describe_scores(metrics, ("test_macro_f1", "test_ece", "val_ece")),
        _class_table(labels, predictions, names),
        draw(figure, "Confusion matrix", description),
        draw(
            reliability,
            "Reliability diagram: accuracy at each confidence",
            "Points below the diagonal are overconfident answers, unless their bar, the 95 % "
            "interval, reaches the diagonal.",
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
