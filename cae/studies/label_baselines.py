"""The data of label efficiency, and the methods that train no network: those of scikit-learn."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cae.config import choices
from cae.data.datasets import Dataset, Scaling
from cae.data.splits import NO_CLASS, encode_labels, get_classes, split_validation

if TYPE_CHECKING:
    import keras
    from sklearn.base import ClassifierMixin

VALIDATION_SHARE = 0.2
LOGISTIC_C = (0.1, 1.0, 10.0)  # inverse strengths of L2; without validation labels the second
LOGISTIC_ITERATIONS = 200
MANY_VALUES = 10**7  # of a matrix whose products are worth several threads
PCA_COMPONENTS = 50
PCA_IMAGES = 10_000  # from which the components are computed
NUM_NEIGHBOURS = 5
MOST_FEATURES = 128  # more values of an image are reduced to principal components
GRAPH_NEIGHBOURS = 10
GRAPH_ALPHA = 0.99  # how far labels travel; with scikit-learn's 0.2 more are wrong
GRAPH_ROUNDS = 100
CONFIDENT = 0.9  # probability from which self-training believes itself


@dataclass(frozen=True)
class LabelledData:
    """The images of a comparison."""

    training: Dataset  # of which methods get some labels
    test: Dataset
    pretraining: np.ndarray  # (num_images, height, width, channels), that the encoder has seen
    scaling: Scaling  # of all of them
    unlabelled: Dataset | None = None  # training images that have no label at all

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The data by their role."""
        given = {"training": self.training, "unlabelled": self.unlabelled, "test": self.test}
        return {role: data for role, data in given.items() if data}

    @cached_property
    def classes(self) -> np.ndarray:
        """The classes of the training images: int64, ascending."""
        return get_classes(self.training.labels)

    def get_size(self, count: str) -> int:
        """How many labels there are in all with `count` per class, or with `all`."""
        return len(self.training.labels) if count == choices.ALL else int(count) * len(self.classes)

    def has_unlabelled(self, count: str) -> bool:
        """Whether `count` labels per class leave images without a label."""
        return bool(self.unlabelled) or self.get_size(count) < len(self.training.labels)

    def get_unlabelled(self, chosen: np.ndarray) -> np.ndarray:
        """All images to train on but the chosen ones, in the dtype of their file."""
        images = np.delete(self.training.images, chosen, axis=0)
        return np.concatenate([images, self.unlabelled.images]) if self.unlabelled else images


@dataclass(frozen=True)
class Subset:
    """The labels that a measurement gets."""

    seed: int  # of the draw, the split and the training
    count: str  # per class, or `all`
    chosen: np.ndarray  # int64, positions of the training images


class Baselines:
    """Labels the test images by pixels or encodings, which it keeps for the next time.

    Args:
        data: The images.
    """

    def __init__(self, data: LabelledData):
        self._data = data
        self._encoder: Any = None  # the latest
        self._kept: dict[str, Any] = {}  # what it made of the images

    def classify(
        self, subset: Subset, method: str, encoder: "keras.Model | None"
    ) -> tuple[np.ndarray, int]:
        """Labels the test images.

        Args:
            subset: The labels to learn from.
            method: One that trains no network.
            encoder: For methods on encodings; None for the others.

        Returns:
            int64 (num_test_images,), and how many labels only chose a strength.
        """
        if encoder is not None and encoder is not self._encoder:
            self._encoder, self._kept = encoder, {}
        if method == choices.NEIGHBOURS:
            return self._vote(subset), 0
        if method in choices.FROM_ALL:
            return self._learn_from_all(subset, method, encoder is not None), 0
        return self._regress(subset, method)

    def _regress(self, subset: Subset, method: str) -> tuple[np.ndarray, int]:
        """Labels by logistic regression on pixels, or on their principal components."""
        chosen, labels = subset.chosen, self._data.training.labels[subset.chosen]
        share = validation_share(subset.count)
        _, validation = split_validation(len(chosen), share, subset.seed, labels)
        inputs, test = self._pixels(self._data.training.images[chosen]), self._test_pixels
        if method == choices.PCA:
            inputs, test = map(self._components.transform, (inputs, test))
        return fit_logistic(inputs, labels, validation).predict(test), len(validation)

    def _vote(self, subset: Subset) -> np.ndarray:
        """Labels of the nearest encodings."""
        is_all, kept = subset.count == choices.ALL, self._kept
        # All labels vote the same whatever the seed; with 60,000 it takes a minute.
        if is_all and "votes" in kept:
            return kept["votes"]
        if "test" not in kept:
            kept["test"] = self._encode(self._data.test.images)
        # The order of the images decides between equal distances.
        chosen = np.sort(subset.chosen) if is_all else subset.chosen
        inputs = self._encode(self._data.training.images, chosen)
        votes = vote(inputs, self._data.training.labels[chosen], kept["test"])
        if is_all:
            kept["votes"] = votes
        return votes

    def _learn_from_all(self, subset: Subset, method: str, on_encodings: bool) -> np.ndarray:
        """Labels by a method that also learns from the images without a label."""
        inputs, test = self._get_encodings() if on_encodings else self._pixel_features
        targets = np.full(len(inputs), NO_CLASS)
        labels = self._data.training.labels[subset.chosen]
        targets[subset.chosen] = encode_labels(labels, self._data.classes)
        spreading = (choices.SPREADING, choices.SPREADING_ENCODINGS)
        fit = fit_label_spreading if method in spreading else fit_self_training
        return self._data.classes[fit(inputs, targets).predict(test)]

    def _get_encodings(self) -> tuple[np.ndarray, np.ndarray]:
        if "features" not in self._kept:
            self._kept["features"] = self._get_features(self._encode)
        return self._kept["features"]

    @cached_property
    def _pixel_features(self) -> tuple[np.ndarray, np.ndarray]:
        return self._get_features(self._pixels)

    def _get_features(
        self, represent: Callable[[np.ndarray], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Few values of the images to train on, those with labels first, and of the test images."""
        images = self._data.get_unlabelled(np.empty(0, np.int64)), self._data.test.images
        training, test = map(represent, images)
        if training.shape[1] > MOST_FEATURES:
            training, test = map(fit_components(training).transform, (training, test))
        deviation = training.std() or 1  # 0 if all images are the same
        return training / deviation, test / deviation

    def _encode(self, images: np.ndarray, chosen: np.ndarray | None = None) -> np.ndarray:
        """float32 (num_images, size): the encodings of images, by default of all."""
        from cae.training.predict import predict

        encodings = predict(self._encoder, images, self._data.scaling, chosen)
        return encodings.reshape(len(encodings), -1)

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        return self._data.scaling.apply(images).reshape(len(images), -1)

    @cached_property
    def _test_pixels(self) -> np.ndarray:
        return self._pixels(self._data.test.images)

    @cached_property
    def _components(self) -> Any:
        """Principal components of the images that the autoencoder was trained on."""
        return fit_components(self._pixels(self._data.pretraining))


def validation_share(count: str) -> float:
    """The share of the labels that chooses the best epoch: a fifth, at least one per class.

    With one label per class there is none to spare: the epoch with the lowest training loss is
    kept.
    """
    if count == choices.ALL:
        return VALIDATION_SHARE
    return 0.0 if int(count) == 1 else max(VALIDATION_SHARE, 1 / int(count))


def fit_logistic(
    inputs: np.ndarray, labels: np.ndarray, validation: np.ndarray
) -> "ClassifierMixin":
    """Fits a logistic regression; validation labels choose its strength of L2.

    Args:
        inputs: float32 (num_images, num_features).
        labels: int64 (num_images,), validation labels included.
        validation: Positions of those; without any the default strength is used.

    Returns:
        scikit-learn's classifier, fitted to all labels with the chosen strength.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=LOGISTIC_C[1], max_iter=LOGISTIC_ITERATIONS)
    if len(validation):
        fold = np.full(len(labels), -1)  # always trained on
        fold[validation] = 0
        model = GridSearchCV(model, {"C": LOGISTIC_C}, cv=PredefinedSplit(fold))
    # On small products several threads wait for each other: 1 s became 26 on a busy machine.
    threads = None if inputs.size >= MANY_VALUES else 1
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the iterations are a budget
        return model.fit(inputs, labels)


def fit_components(rows: np.ndarray) -> Any:
    """scikit-learn's principal components of some of the rows, float32 (num_images, num_values)."""
    from sklearn.decomposition import PCA

    chosen = np.random.default_rng(0).permutation(len(rows))[:PCA_IMAGES]
    rows = rows[np.sort(chosen)]
    return PCA(min(PCA_COMPONENTS, *rows.shape), random_state=0).fit(rows)


def vote(inputs: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Labels by the nearest inputs, nearer ones counting more; nothing is tuned.

    Args:
        inputs: float32 (num_images, num_features).
        labels: int64 (num_images,).
        test: float32 (num_test_images, num_features).
    """
    from sklearn.neighbors import KNeighborsClassifier

    neighbours = min(NUM_NEIGHBOURS, max(1, len(labels) // len(np.unique(labels))))
    voters = KNeighborsClassifier(neighbours, weights="distance", algorithm="brute")
    return voters.fit(inputs, labels).predict(test)


def fit_label_spreading(inputs: np.ndarray, targets: np.ndarray) -> "ClassifierMixin":
    """Label spreading on a graph of nearest neighbours, which also classifies test images.

    Args:
        inputs: float32 (num_images, num_features).
        targets: int64 (num_images,), classes, or NO_CLASS.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.semi_supervised import LabelSpreading

    neighbours = min(GRAPH_NEIGHBOURS, len(inputs) - 1)
    graph = {"kernel": "knn", "n_neighbors": neighbours}
    model = LabelSpreading(**graph, alpha=GRAPH_ALPHA, max_iter=GRAPH_ROUNDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the rounds are a budget
        return model.fit(inputs, targets)


def fit_self_training(inputs: np.ndarray, targets: np.ndarray) -> "ClassifierMixin":
    """A logistic regression that learns from its own confident answers, with more each time.

    The arguments are those of `fit_label_spreading`.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.semi_supervised import SelfTrainingClassifier
    from threadpoolctl import threadpool_limits

    model = SelfTrainingClassifier(
        LogisticRegression(max_iter=LOGISTIC_ITERATIONS), threshold=CONFIDENT
    )
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(inputs, targets)
