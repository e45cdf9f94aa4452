"""The methods that label efficiency compares: three ways to train one network, and baselines.

Every method gets the same labels, those for validation included, and every network the same number
of optimizer steps; each final model classifies the test images once.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import terminal
from cae.config.schema import ClassifierConfig
from cae.data.datasets import Dataset, Scaling
from cae.data.splits import get_classes, split_validation
from cae.studies import choices
from cae.studies.label_results import Measurement

if TYPE_CHECKING:
    import keras
    from sklearn.base import ClassifierMixin

NETWORKS = (choices.FROZEN, choices.FINE_TUNED, choices.SCRATCH)
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


@dataclass
class Methods:
    """Trains each method on a subset of the labels, and tests it."""

    data: LabelledData
    config: ClassifierConfig  # head, optimizer and batch size of the networks
    load_encoder: Callable[[], "keras.Model"]  # called once, and only if a method uses it
    steps: int  # of the optimizer, for each network
    orders: Sequence[np.ndarray]  # by seed int64 (num_images,), from which subsets are taken

    @cached_property
    def encoder(self) -> "keras.Model":
        """The encoder of the saved autoencoder; loading it starts Keras."""
        with terminal.starting_keras():
            return self.load_encoder()

    def measure(
        self, seed: int, count: str, method: str, should_stop: Callable[[], bool]
    ) -> Measurement:
        """Trains one method and tests it.

        Args:
            seed: Of the subset, the split and the training.
            count: Labels per class, or `all`.
            method: A key of `METHODS`.
            should_stop: Ends the training of a network early; the measurement is then of no use.
        """
        start = time.perf_counter()
        labels = self.data.training.labels
        size = len(labels) if count == choices.ALL else int(count) * len(self.data.classes)
        chosen, share = self.orders[seed][:size], validation_share(count)
        training, validation = split_validation(size, share, seed, labels[chosen])
        steps = 0
        if method in NETWORKS:
            plan = plan_training(self.config, method, len(training), self.steps)
            plan = plan.model_copy(update={"validation_split": share, "seed": seed})
            predictions, epochs = self._train(plan, chosen, method, should_stop)
            steps = epochs * math.ceil(len(training) / plan.batch_size)
        elif method == choices.NEIGHBOURS:
            predictions = self._votes_of_all if count == choices.ALL else self._vote(chosen)
        else:
            predictions = self._regress(chosen, validation, method)
        return Measurement(
            method=method,
            per_class=count,
            seed=seed,
            labels=size,
            validation_labels=len(validation),
            steps=steps,
            test_error=round(float(np.mean(predictions != self.data.test.labels)), 6),
            seconds=round(time.perf_counter() - start, 2),
        )

    def _train(
        self,
        config: ClassifierConfig,
        chosen: np.ndarray,
        method: str,
        should_stop: Callable[[], bool],
    ) -> tuple[np.ndarray, int]:
        """Labels by a network, and the epochs trained."""
        from cae.training.build import get_classifier
        from cae.training.predict import predict
        from cae.training.train import train_classifier

        data, pretrained = self.data, method != choices.SCRATCH
        images, labels = data.training.images[chosen], data.training.labels[chosen]
        shape, classes = images.shape[1:], data.classes
        model = get_classifier(
            config, shape, len(classes), encoder=self.encoder, pretrained=pretrained
        )
        history = train_classifier(
            model,
            config,
            images,
            labels,
            classes=classes,
            scaling=data.scaling,
            pretrained=pretrained,
            name=choices.METHODS[method],
            should_stop=should_stop,
        )
        probabilities = predict(model, data.test.images, data.scaling)
        return classes[probabilities.argmax(axis=1)], len(history.epochs)

    def _vote(self, chosen: np.ndarray) -> np.ndarray:
        """Labels of the nearest encodings, nearer ones counting more; nothing is tuned."""
        from sklearn.neighbors import KNeighborsClassifier

        neighbours = min(NUM_NEIGHBOURS, max(1, len(chosen) // len(self.data.classes)))
        voters = KNeighborsClassifier(neighbours, weights="distance", algorithm="brute")
        voters.fit(self._encode(self.data.training, chosen), self.data.training.labels[chosen])
        return voters.predict(self._test_encodings)

    @cached_property
    def _votes_of_all(self) -> np.ndarray:
        """All labels vote the same whatever the seed; with 60,000 it takes a minute."""
        return self._vote(np.arange(len(self.data.training.labels)))

    def _encode(self, dataset: Dataset, chosen: np.ndarray | None = None) -> np.ndarray:
        """float32 (num_images, size): the encodings of images, by default of all."""
        from cae.training.predict import predict

        encodings = predict(self.encoder, dataset.images, self.data.scaling, chosen)
        return encodings.reshape(len(encodings), -1)

    @cached_property
    def _test_encodings(self) -> np.ndarray:
        return self._encode(self.data.test)

    def _regress(self, chosen: np.ndarray, validation: np.ndarray, method: str) -> np.ndarray:
        """Labels by logistic regression on pixels, or on their principal components."""
        inputs = self._pixels(self.data.training.images[chosen])
        test_inputs = self._test_pixels
        if method == choices.PCA:
            inputs = self._components.transform(inputs)
            test_inputs = self._components.transform(test_inputs)
        labels = self.data.training.labels[chosen]
        return fit_logistic(inputs, labels, validation).predict(test_inputs)

    def _pixels(self, images: np.ndarray) -> np.ndarray:
        return self.data.scaling.apply(images).reshape(len(images), -1)

    @cached_property
    def _test_pixels(self) -> np.ndarray:
        return self._pixels(self.data.test.images)

    @cached_property
    def _components(self) -> Any:
        """Principal components of the images that the autoencoder was trained on."""
        from sklearn import decomposition

        images = self.data.pretraining
        chosen = np.random.default_rng(0).permutation(len(images))[:PCA_IMAGES]
        pixels = self._pixels(images[np.sort(chosen)])
        components = decomposition.PCA(min(PCA_COMPONENTS, *pixels.shape), random_state=0)
        return components.fit(pixels)


def needs_keras(method: str) -> bool:
    """Whether a method uses the autoencoder."""
    return method not in (choices.PIXELS, choices.PCA)


def validation_share(count: str) -> float:
    """The share of the labels that chooses the best epoch: a fifth, at least one per class.

    With one label per class there is none to spare: the epoch with the best training accuracy is
    kept, of equals the one with the lowest training loss.
    """
    if count == choices.ALL:
        return VALIDATION_SHARE
    return 0.0 if int(count) == 1 else max(VALIDATION_SHARE, 1 / int(count))


def plan_training(
    config: ClassifierConfig, method: str, num_training: int, steps: int
) -> ClassifierConfig:
    """The configuration with epochs for a number of optimizer steps, the same for every network.

    Args:
        config: Its two numbers of epochs say how fine-tuning divides the steps.
        method: One of `NETWORKS`.
        num_training: Images to train on.
        steps: Rounded to whole epochs, 1 to `MOST_EPOCHS` of them.
    """
    steps_per_epoch = math.ceil(num_training / config.batch_size)
    epochs = min(choices.MOST_EPOCHS, max(1, round(steps / steps_per_epoch)))
    head, full = config.dense_only_train_epochs, config.full_train_epochs
    head_only = {
        choices.FROZEN: epochs,
        choices.FINE_TUNED: round(epochs * head / (head + full)),
        choices.SCRATCH: 0,
    }[method]
    return config.model_copy(
        update={
            "dense_only_train_epochs": head_only,
            "full_train_epochs": epochs - head_only,
            "early_stopping": None,
            "encoder_layers": None,
        }
    )


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
