"""The data of label efficiency, and the methods that train no network: those of scikit-learn."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cae.config import choices
from cae.data.datasets import Dataset, Scaling
from cae.data.splits import get_classes, split_validation

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
        """How many labels so many per class, or `all`, are."""
        return len(self.training.labels) if count == choices.ALL else int(count) * len(self.classes)

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
        self._encoder: Any = None
        self._encodings: dict[str, np.ndarray] = {}  # by it, and what follows from them alone

    def classify(
        self, subset: Subset, method: str, encoder: "keras.Model | None"
    ) -> tuple[np.ndarray, int]:
        """Labels the test images.

        Args:
            subset: The labels to learn from.
            method: `PIXELS`, `PCA` or `NEIGHBOURS`.
            encoder: For methods on encodings.

        Returns:
            int64 (num_test_images,), and how many labels only chose a strength.
        """
        if method == choices.NEIGHBOURS:
            self._use(encoder)
            return self._vote(subset), 0
        chosen, labels = subset.chosen, self._data.training.labels[subset.chosen]
        share = validation_share(subset.count)
        _, validation = split_validation(len(chosen), share, subset.seed, labels)
        inputs, test = self._pixels(self._data.training.images[chosen]), self._test_pixels
        if method == choices.PCA:
            inputs, test = map(self._components.transform, (inputs, test))
        return fit_logistic(inputs, labels, validation).predict(test), len(validation)

    def _use(self, encoder: "keras.Model") -> None:
        """Forgets what another encoder made of the images."""
        if encoder is not self._encoder:
            self._encoder, self._encodings = encoder, {}

    def _vote(self, subset: Subset) -> np.ndarray:
        """Labels of the nearest encodings."""
        is_all, kept = subset.count == choices.ALL, self._encodings
        # All labels vote the same whatever the seed; with 60,000 it takes a minute.
        if is_all and "votes" in kept:
            return kept["votes"]
        if "test" not in kept:
            kept["test"] = self._encode(self._data.test)
        # The order of the images decides between equal distances.
        chosen = np.sort(subset.chosen) if is_all else subset.chosen
        inputs = self._encode(self._data.training, chosen)
        votes = vote(inputs, self._data.training.labels[chosen], kept["test"])
        if is_all:
            kept["votes"] = votes
        return votes

    def _encode(self, dataset: Dataset, chosen: np.ndarray | None = None) -> np.ndarray:
        """float32 (num_images, size): the encodings of images, by default of all."""
        from cae.training.predict import predict

        encodings = predict(self._encoder, dataset.images, self._data.scaling, chosen)
        return encodings.reshape(len(encodings), -1)

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        return self._data.scaling.apply(images).reshape(len(images), -1)

    @cached_property
    def _test_pixels(self) -> np.ndarray:
        return self._pixels(self._data.test.images)

    @cached_property
    def _components(self) -> Any:
        """Principal components of the images that the autoencoder was trained on."""
        from sklearn.decomposition import PCA

        images = self._data.pretraining
        chosen = np.random.default_rng(0).permutation(len(images))[:PCA_IMAGES]
        pixels = self._pixels(images[np.sort(chosen)])
        return PCA(min(PCA_COMPONENTS, *pixels.shape), random_state=0).fit(pixels)


def validation_share(count: str) -> float:
    """The share of the labels that chooses the best epoch: a fifth, at least one per class.

    With one label per class there is none to spare: the epoch with the best training accuracy is
    kept, of equals the one with the lowest training loss.
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
