"""Evaluates the predictions of a classifier, and reads and writes `predictions.csv`."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cae.data.splits import encode_labels
from cae.errors import DataError
from cae.records.calibration import (
    UNCALIBRATED,
    Calibration,
    get_calibration_error,
    get_reliability,
)

FIRST_CLASS = 5  # the first column of predictions.csv that holds the probability of a class


class Interval(NamedTuple):
    """The ends of an interval that holds the true value with a probability of 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class Predictions:
    """The predictions of a classifier for labelled images, as in `predictions.csv`."""

    indices: np.ndarray  # int64 (num_images,), positions of the images in their file
    labels: np.ndarray  # int64 (num_images,), the true labels
    predictions: np.ndarray  # int64 (num_images,), labels
    probabilities: np.ndarray  # float32 (num_images, num_classes)
    classes: np.ndarray  # int64 (num_classes,), the labels that occurred in training, sorted


@dataclass(frozen=True)
class Evaluation(Predictions):
    """Predictions and their scores."""

    targets: np.ndarray  # int32 (num_images,), positions of the labels in `classes`; -1 for others
    class_names: list[str]
    report: dict[str, Any]  # scikit-learn's `classification_report`
    report_text: str  # the same
    calibration: Calibration = UNCALIBRATED

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, in [0, 1]."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def accuracy_interval(self) -> Interval:
        """The 95 % interval of the accuracy (Wilson 1927), if the images are a random sample."""
        from scipy.stats import binomtest

        correct = int(np.sum(self.predictions == self.labels))
        found = binomtest(correct, len(self.labels)).proportion_ci(0.95, method="wilson")
        return Interval(float(found.low), float(found.high))

    @property
    def balanced_accuracy(self) -> float:
        """The mean over the classes of the share of their images classified correctly."""
        is_correct = self.predictions == self.labels
        return float(np.mean([is_correct[self.labels == x].mean() for x in np.unique(self.labels)]))

    @property
    def calibration_error(self) -> float:
        """The expected calibration error of the calibrated probabilities, in [0, 1]."""
        calibrated = self.calibration.apply(self.probabilities)
        return get_calibration_error(get_reliability(calibrated, self.targets))

    @property
    def macro_f1(self) -> float:
        """The mean F1 score of the classes, in [0, 1]."""
        return float(self.report["macro avg"]["f1-score"])

    @property
    def num_unseen(self) -> int:
        """The number of images whose label did not occur in training."""
        return int(np.sum(self.targets < 0))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of `predictions.csv`, one per image, with the probability of every class."""
        columns = [f"p_{label}" for label in self.classes]
        images = zip(self.indices, self.labels, self.predictions, self.probabilities, strict=True)
        return [
            {
                "index": index,
                "label": label,
                "prediction": prediction,
                "correct": int(label == prediction),
                "probability": f"{row.max():.6f}",
                **{key: f"{value:.6f}" for key, value in zip(columns, row, strict=True)},
            }
            for index, label, prediction, row in images
        ]


def read_predictions(path: Path) -> Predictions:
    """Reads a `predictions.csv`; a missing or damaged file is a `DataError`."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        classes = [int(name.removeprefix("p_")) for name in header[FIRST_CLASS:]]
        numbers = np.array([row[:3] for row in rows], np.int64).reshape(len(rows), 3)
        probabilities = np.array([row[FIRST_CLASS:] for row in rows], np.float32)
        if probabilities.shape != (len(rows), len(classes)):
            raise ValueError(f"{len(rows)} rows, which do not fit the header")
    except (OSError, ValueError, csv.Error) as error:
        remedy = "Restore the file and run again."
        raise DataError(path, "must hold one prediction per row", error, remedy) from error
    indices, labels, predictions = numbers.T
    return Predictions(indices, labels, predictions, probabilities, np.array(classes, np.int64))


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: np.ndarray,
    class_names: list[str] | None = None,
    indices: np.ndarray | None = None,
    calibration: Calibration = UNCALIBRATED,
) -> Evaluation:
    """Compares predictions with the true labels.

    The arguments are those of `Predictions`; by default the labels are the names of the classes,
    and the indices count from 0.
    """
    from sklearn.metrics import classification_report

    predictions = classes[probabilities.argmax(axis=1)]
    names = dict(zip(classes.tolist(), class_names or map(str, classes), strict=True))
    present = np.union1d(labels, predictions)
    texts = [names.get(label, f"{label} (unseen)") for label in present.tolist()]
    arguments = {"labels": present, "target_names": texts, "zero_division": 0.0}
    return Evaluation(
        indices=np.arange(len(labels)) if indices is None else indices,
        labels=labels,
        targets=encode_labels(labels, classes),
        predictions=predictions,
        probabilities=probabilities,
        classes=classes,
        class_names=list(names.values()),
        report=classification_report(labels, predictions, output_dict=True, **arguments),
        report_text=classification_report(labels, predictions, digits=4, **arguments),
        calibration=calibration,
    )
