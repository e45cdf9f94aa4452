"""Evaluates predictions, reads and writes `predictions.csv`, and estimates means over seeds."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from cae import terminal
from cae.data.splits import encode_labels
from cae.errors import DataError
from cae.files import read_cell
from cae.records.calibration import (
    UNCALIBRATED,
    Calibration,
    get_calibration_error,
    get_reliability,
)

CONFIDENCE = 0.95
RESAMPLES = 1000  # of the images
LEAST_IMAGES = 10  # of a class, for these
ROUNDING = 1e-9  # an interval that is no wider comes from equal values
CLASS = "p_"  # begins the columns of predictions.csv that hold the probability of a class


class Interval(NamedTuple):
    """The ends of an interval that holds the true value with a probability of 95 %."""

    low: float
    high: float


def get_share_interval(number: int, total: int) -> Interval:
    """The 95 % interval of a share of which `number` of `total` were observed (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(number, total).proportion_ci(CONFIDENCE, method="wilson")
    return Interval(float(found.low), float(found.high))


@dataclass(frozen=True)
class Predictions:
    """The predictions of a classifier for labelled images, as in `predictions.csv`."""

    indices: np.ndarray  # int64 (num_images,), positions of the images in their file
    labels: np.ndarray  # int64 (num_images,), the true labels
    predictions: np.ndarray  # int64 (num_images,), labels
    probabilities: np.ndarray  # float32 (num_images, num_classes)
    classes: np.ndarray  # int64 (num_classes,), the labels that occurred in training, sorted
    names: dict[int, str]  # of `classes`, in that order, then of the other labels


@dataclass(frozen=True)
class Evaluation(Predictions):
    """Predictions and their scores."""

    targets: np.ndarray  # int32 (num_images,), positions of the labels in `classes`; -1 for others
    paths: np.ndarray | None  # (num_images,), the file of every image, if each has its own
    report: dict[str, Any]  # scikit-learn's `classification_report`
    report_text: str  # the same
    calibration: Calibration = UNCALIBRATED

    @property
    def class_names(self) -> list[str]:
        """The names of `classes`."""
        return [self.names[label] for label in self.classes.tolist()]

    @property
    def accuracy(self) -> float:
        """The share of correct predictions, in [0, 1]."""
        return float(np.mean(self.predictions == self.labels))

    @property
    def accuracy_interval(self) -> Interval:
        """The 95 % interval of the accuracy, if the images are a random sample."""
        return get_share_interval(int(np.sum(self.predictions == self.labels)), len(self.labels))

    @property
    def balanced_accuracy(self) -> float:
        """The mean over the classes of the share of their images classified correctly."""
        is_correct = self.predictions == self.labels
        return float(np.mean([is_correct[self.labels == x].mean() for x in np.unique(self.labels)]))

    @cached_property
    def class_intervals(self) -> dict[str, Interval]:
        """The 95 % intervals of `balanced_accuracy` and `macro_f1`; see `estimate_margins`."""
        with terminal.announcing("Estimating intervals"):
            found = estimate_margins(self.labels, self.predictions)
        points = {"balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}
        return {
            name: Interval(max(0.0, points[name] - below), min(1.0, points[name] + above))
            for name, (below, above) in found.items()
        }

    @property
    def calibrated(self) -> np.ndarray:
        """The calibrated probabilities, (num_images, num_classes)."""
        if self.calibration == UNCALIBRATED:
            return self.probabilities
        return self.calibration.apply(self.probabilities)

    @property
    def calibration_error(self) -> float:
        """The expected calibration error of the calibrated probabilities, in [0, 1]."""
        return get_calibration_error(get_reliability(self.calibrated, self.targets))

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
        """The rows of `predictions.csv`, one per image, with calibrated probabilities."""
        columns = [f"{CLASS}{name}" for name in self.class_names]
        files = [{}] * len(self.labels)
        if self.paths is not None:
            files = [{"file": path} for path in self.paths]
        images = zip(
            self.indices, files, self.labels, self.predictions, self.calibrated, strict=True
        )
        return [
            {
                "index": index,
                **file,
                "label": self.names[label],
                "prediction": self.names[prediction],
                "correct": int(label == prediction),
                "probability": f"{row.max():.6f}",
                **{key: f"{value:.6f}" for key, value in zip(columns, row, strict=True)},
            }
            for index, file, label, prediction, row in images
        ]


def estimate_margins(labels: np.ndarray, predictions: np.ndarray) -> dict[str, tuple[float, float]]:
    """How far balanced accuracy and macro F1 may lie below and above what these images give.

    By the scores on as many images drawn from these with replacement, `RESAMPLES` times, relative
    to their mean: the bootstrap (Efron and Tibshirani 1993, "An introduction to the bootstrap",
    chapter 13). The draws are always the same.

    Args:
        labels: int64 (num_images,), the true labels.
        predictions: int64 (num_images,), labels.

    Returns:
        For `balanced_accuracy` and `macro_f1`, how far below and how far above. Empty if a label
        has fewer than `LEAST_IMAGES` images, or if all images or none are classified correctly:
        draws then tell nothing.
    """
    pairs, counts = np.unique(np.stack([labels, predictions]), axis=1, return_counts=True)
    classes, codes = np.unique(pairs, return_inverse=True)
    truth, predicted = codes.reshape(pairs.shape)
    is_hit = truth == predicted
    images = np.bincount(truth, counts, len(classes))
    is_few = len(labels) == 0 or images[images > 0].min() < LEAST_IMAGES
    if is_few or is_hit.all() or not is_hit.any():
        return {}
    random = np.random.default_rng(0)
    scores = np.empty((RESAMPLES, 2))
    for number in range(RESAMPLES):
        draw = random.multinomial(len(labels), counts / len(labels))
        of_class, as_class = (np.bincount(x, draw, len(classes)) for x in (truth, predicted))
        hits = np.bincount(truth, draw * is_hit, len(classes))
        recalls = hits[images > 0] / np.maximum(of_class[images > 0], 1)
        scores[number] = recalls.mean(), np.mean(2 * hits / np.maximum(of_class + as_class, 1))
    ends = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    below, above = scores.mean(axis=0) - ends[0], ends[1] - scores.mean(axis=0)
    margins = zip(below.tolist(), above.tolist(), strict=True)
    return dict(zip(("balanced_accuracy", "macro_f1"), margins, strict=True))


def read_predictions(path: Path) -> Predictions:
    """Reads a `predictions.csv`; a missing or damaged file is a `DataError`.

    Classes are numbered in the order of their columns.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
        start = header.index("probability") + 1
        texts = {key: [read_cell(row[header.index(key)]) for row in rows] for key in header[:start]}
        classes = [name.removeprefix(CLASS) for name in header[start:]]
        probabilities = np.array([row[start:] for row in rows], np.float32)
        if probabilities.shape != (len(rows), len(classes)):
            raise ValueError(f"{len(rows)} rows, which do not fit the header")
        names = list(dict.fromkeys([*classes, *sorted(set(texts["label"]))]))
        number = {name: label for label, name in enumerate(names)}
        labels, predictions = ([number[name] for name in texts[k]] for k in ("label", "prediction"))
        indices = np.array(texts["index"], np.int64)
    except (OSError, ValueError, LookupError, csv.Error) as error:
        remedy = "Restore the file and run again."
        raise DataError(path, "must contain one prediction per row", error, remedy) from error
    return Predictions(
        indices,
        np.array(labels, np.int64),
        np.array(predictions, np.int64),
        probabilities,
        np.arange(len(classes)),
        dict(enumerate(names)),
    )


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: np.ndarray,
    class_names: list[str] | None = None,
    indices: np.ndarray | None = None,
    calibration: Calibration = UNCALIBRATED,
    *,
    paths: np.ndarray | None = None,
    other_names: Mapping[int, str] = MappingProxyType({}),
) -> Evaluation:
    """Compares predictions with the true labels.

    The arguments are those of `Evaluation`, and the names of labels that training never saw; by
    default labels are their own names, and the indices count from 0.
    """
    from sklearn.metrics import classification_report

    predictions = classes[probabilities.argmax(axis=1)]
    names = dict(zip(classes.tolist(), class_names or map(str, classes), strict=True))
    present = np.union1d(labels, predictions)
    others = {x: other_names.get(x, str(x)) for x in present.tolist() if x not in names}
    unseen = {label: f"{name} (unseen)" for label, name in others.items()}
    texts = [(names | unseen)[label] for label in present.tolist()]
    arguments = {"labels": present, "target_names": texts, "zero_division": 0.0}
    return Evaluation(
        indices=np.arange(len(labels)) if indices is None else indices,
        labels=labels,
        targets=encode_labels(labels, classes),
        predictions=predictions,
        probabilities=probabilities,
        classes=classes,
        names=names | others,
        paths=paths,
        report=classification_report(labels, predictions, output_dict=True, **arguments),
        report_text=classification_report(labels, predictions, digits=4, **arguments),
        calibration=calibration,
    )


def count_predictions(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts how often each class was predicted as each.

    Args:
        labels: int (num_images,), true classes; -1 for a class that training never saw.
        predicted: int (num_images,), predicted classes.
        num_classes: How many training saw.

    Returns:
        int (num_classes, num_classes), rows for true classes, columns for predicted ones; with one
        more row for -1 if it occurs.
    """
    counts = np.zeros((num_classes + 1, num_classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)  # -1 is the last row
    return counts if np.any(labels == -1) else counts[:-1]


# --- Over seeds -----------------------------------------------------------------------------


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval, by Student's t; NaN ends with one seed.

    An end beyond what is possible is open: it stands at the limit.
    """

    mean: float
    low: float
    high: float
    seeds: int
    is_low_open: bool = False
    is_high_open: bool = False

    @property
    def is_measurable(self) -> bool:
        """Whether 0 lies outside the interval; equal values leave the chance unknown."""
        return self.high - self.low > ROUNDING and (self.low > 0 or self.high < 0)


def estimate(
    values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf
) -> Estimate:
    """The mean of values, one per seed, that can lie between `lowest` and `highest`."""
    from scipy.stats import t

    mean, count = fmean(values), len(values)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, count)
    margin = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * stdev(values) / math.sqrt(count)
    low, high = mean - margin, mean + margin
    ends = max(low, lowest), min(high, highest)
    return Estimate(mean, *ends, count, low < lowest, high > highest)
