"""How far answers can be believed: calibrated probabilities, and images unlike those of training.

Guo et al. 2017, "On calibration of modern neural networks". To answer only above a confidence is
the idea of Geifman & El-Yaniv 2017, "Selective classification for deep neural networks", whose
bound for other images is left out.
"""

import warnings
from dataclasses import dataclass

import numpy as np

BINS = 15  # of the expected calibration error, as in Guo et al.
TINY = 1e-30  # a positive float32: its logarithm is finite
TEMPERATURES = (0.05, 20.0)
# Answers are unsure below the probability at or above which this share of the validation images
# is classified correctly, and in any case below one half: more likely wrong than right.
RELIABLE_SHARE = 0.99
UNSURE_BELOW = 0.5
# The quantiles of the scores of images like those of training, by which others are judged.
QUANTILES = np.linspace(0, 1, 201)
UNLIKE_QUANTILE = 0.99


@dataclass(frozen=True)
class Calibration:
    """How the probabilities of a classifier are to be read.

    Attributes:
        temperature: Divides their logarithms: above 1 the classifier is too confident.
        unsure_below: Calibrated probability below which an answer is unsure.
    """

    temperature: float = 1.0
    unsure_below: float = UNSURE_BELOW

    @classmethod
    def fit(cls, probabilities: np.ndarray, targets: np.ndarray) -> "Calibration":
        """The temperature with the highest likelihood on validation images, and the threshold.

        Args:
            probabilities: float (num_images, num_classes).
            targets: int (num_images,), the true classes. If all answers are right, the temperature
                remains 1: no mistake says how confident mistakes are.
        """
        is_correct = probabilities.argmax(axis=1) == targets
        temperature = 1.0 if is_correct.all() else _fit_temperature(probabilities, targets)
        confidence = cls(temperature).apply(probabilities).max(axis=1)
        order = np.argsort(-confidence, kind="stable")
        shares = np.cumsum(is_correct[order]) / np.arange(1, len(order) + 1)
        reliable = np.flatnonzero(shares >= RELIABLE_SHARE)
        threshold = float(confidence[order[reliable[-1]]]) if len(reliable) else 1.0
        return cls(temperature, max(UNSURE_BELOW, threshold))

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (num_images, num_classes), whose sum is 1."""
        logits = _take_logarithms(probabilities) / self.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


UNCALIBRATED = Calibration()


def _fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """By scikit-learn, which sees a linear classifier whose decisions are the logarithms."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression

    num_images, num_classes = probabilities.shape
    identity = LogisticRegression()
    identity.classes_ = np.arange(num_classes)
    identity.coef_, identity.intercept_ = np.eye(num_classes), np.zeros(num_classes)
    every = np.arange(num_images)
    # One fold that holds every image: nothing is trained that would need images of its own.
    search = CalibratedClassifierCV(
        FrozenEstimator(identity), method="temperature", cv=[(every, every)], ensemble=True
    )
    with warnings.catch_warnings():
        # Few images of many classes look like a regression to scikit-learn.
        warnings.filterwarnings("ignore", "The number of unique classes is greater")
        search.fit(_take_logarithms(probabilities), targets)
    (calibrator,) = search.calibrated_classifiers_[0].calibrators
    return float(np.clip(1 / calibrator.beta_, *TEMPERATURES))


def _take_logarithms(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(probabilities, TINY, dtype=np.float64))


def get_reliability(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Confidence and accuracy of equally wide intervals of confidence.

    Args:
        probabilities: float (num_images, num_classes).
        targets: int (num_images,), the true classes; -1 for a class that training never saw.

    Returns:
        float (num_bins, 3): mean confidence, share of correct answers, and share of the images, of
        the intervals that hold any image.
    """
    confidence, is_correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    interval = np.minimum((confidence * BINS).astype(int), BINS - 1)
    members = [interval == number for number in np.unique(interval)]
    return np.array([[confidence[m].mean(), is_correct[m].mean(), m.mean()] for m in members])


def get_calibration_error(reliability: np.ndarray) -> float:
    """The expected calibration error, in [0, 1], from `get_reliability`."""
    confidence, accuracy, share = reliability.T
    return float(np.sum(share * np.abs(confidence - accuracy)))


@dataclass(frozen=True)
class Typical:
    """What images like those of training look like to a model.

    The score of an image is the reconstruction error of an autoencoder; for a classifier it is the
    mean squared distance of the summary of its encoding from the mean, in standard deviations.

    Attributes:
        quantiles: The scores at `QUANTILES`, of validation images where there are any.
        mean: Of the summaries of training images; empty for autoencoders.
        deviation: Their standard deviations.
    """

    quantiles: list[float]
    mean: list[float]
    deviation: list[float]

    @classmethod
    def fit(
        cls, training: np.ndarray, validation: np.ndarray, *, of_errors: bool = False
    ) -> "Typical":
        """From float (num_images, num_values): summaries, or `of_errors` as one value.

        Images that give mean and deviation are closer to them than others. So without validation
        images one half of the training images gives these, the other half the quantiles.
        """
        mean, deviation = np.empty(0), np.empty(0)
        if not of_errors:
            if not len(validation) and len(training) > 1:
                training, validation = training[::2], training[1::2]
            mean = training.mean(axis=0, dtype=np.float64)
            deviation = np.sqrt(training.var(axis=0, dtype=np.float64) + 1e-6)
        fitted = cls([], _round(mean), _round(deviation))
        held_out = validation if len(validation) else training
        quantiles = np.quantile(fitted.get_scores(held_out), QUANTILES)
        return cls(_round(quantiles), fitted.mean, fitted.deviation)

    def get_scores(self, values: np.ndarray) -> np.ndarray:
        """The scores, float64 (num_images,), of summaries or errors (num_images, num_values)."""
        if not self.mean:
            return values[:, 0].astype(np.float64)
        return np.square((values - np.array(self.mean)) / np.array(self.deviation)).mean(axis=1)

    def get_threshold(self, quantile: float = UNLIKE_QUANTILE) -> float:
        """The score that this share of images like those of training does not exceed."""
        return float(np.interp(quantile, QUANTILES, self.quantiles))


def _round(values: np.ndarray) -> list[float]:
    """Five digits are enough, and keep the metadata of a model small."""
    return [float(f"{value:.5g}") for value in values]
