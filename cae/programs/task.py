"""What differs between training autoencoders and classifiers; their programs fill it in."""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from cae import terminal
from cae.config.choices import PROGRAMS
from cae.config.schema import Config, Kind
from cae.config.shapes import Shape
from cae.data.datasets import Dataset, Scaling
from cae.data.labels import NO_LABEL
from cae.data.splits import encode_labels, get_classes
from cae.programs.images import choose_scaling
from cae.records.evaluation import Evaluation
from cae.records.history import History
from cae.records.run import Run
from cae.records.saved_models import save_model

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

# Figures of single images and of encodings show this many images, not all of them.
INSPECTED_IMAGES = 1000
# The figure of augmentation shows so many images, each several times.
VIEWED_IMAGES, VIEWS = 10, 3


@dataclass
class Experiment:
    """A trained model, and what is needed to evaluate, draw and save it."""

    config: Config
    model: "keras.Model"  # with its best weights
    history: History
    scaling: Scaling
    run: Run
    split: tuple[np.ndarray, np.ndarray]  # indices of the images for training and for validation
    metadata: dict[str, Any] = field(default_factory=dict)  # what is saved with the model
    evaluation: Evaluation | None = None  # of a classifier, on the test or the validation images

    @property
    def name(self) -> str:
        """Its name in figures and menus."""
        return self.history.name

    @property
    def score(self) -> float:
        """Ranks experiments; larger is better.

        That of autoencoders is the squared error, because losses of different kinds do not compare.
        """
        metrics = self.history.metrics
        if self.config.kind == "autoencoder":
            return -metrics.get("val_mse", metrics["mse"])
        return metrics.get("val_accuracy", metrics["accuracy"])

    @property
    def result(self) -> str:
        """Its most important final values, on one line."""
        shown = ["loss", "val_loss", "mse", "val_mse"]
        if self.history.kind == "classifier":
            shown = ["accuracy", "val_accuracy", "val_f1", "test_accuracy"]
            shown += ["test_balanced_accuracy", "test_macro_f1"]
        values = self.history.metrics
        return ", ".join(f"{key} {values[key]:.4f}" for key in shown if key in values)

    def save(self, path: str | Path, *, overwrite: bool) -> Path:
        """Writes the model with its metadata."""
        return save_model(self.model, path, self.metadata, overwrite=overwrite)


class Task(ABC):
    """The part of training that differs between autoencoders and classifiers.

    Attributes:
        data: The training images; of a classifier those with labels.
        test: The test images, if there are any.
        unlabelled: Of a classifier, the training images without labels, if there are any.
        classes: int64 (num_classes,), the distinct labels, sorted; None without labels.
    """

    kind: ClassVar[Kind]
    shown_metrics: ClassVar[tuple[str, ...]]  # in the line of each epoch

    def __init__(
        self,
        args: argparse.Namespace,
        data: Dataset,
        test: Dataset | None = None,
        unlabelled: Dataset | None = None,
    ):
        self.args = args
        self.data = data
        self.test = test
        self.unlabelled = unlabelled
        self.classes = None if data.labels is None else get_classes(data.labels)
        self.class_names = list(data.names.values())

    @classmethod
    @abstractmethod
    def check(cls, args: argparse.Namespace) -> tuple[Shape, str | None]:
        """Checks, before Keras loads, the data and the saved model that the flags name.

        Returns:
            (height, width, channels) of the images, and the saved model of the encoder, if any.
        """

    @classmethod
    @abstractmethod
    def load(cls, args: argparse.Namespace, seed: int) -> "Task":
        """The task with its data; the seed draws the images of --limit."""

    @property
    def program(self) -> str:
        """The program that trains models of this kind, such as `autoencoder.py`."""
        return PROGRAMS[self.kind]

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the images."""
        return self.data.images.shape[1:]

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The data by their role."""
        given = {"training": self.data, "unlabelled": self.unlabelled, "test": self.test}
        return {role: data for role, data in given.items() if data}

    def get_model_file(self, config: Config) -> str | None:
        """The saved model that training starts from, if any."""
        return self.args.init_from

    def get_scaling(self, config: Config) -> Scaling:
        """Brings the images to [0, 1] as the saved model expects that training starts from."""
        return choose_scaling(self.get_model_file(config), self.data, self.unlabelled)

    def check_config(self, config: Config) -> None:  # noqa: B027 - classifiers do
        """Refuses a configuration that does not fit the data or the flags."""

    @abstractmethod
    def build(self, config: Config) -> "keras.Model":
        """An untrained model for the images."""

    @abstractmethod
    def fit(self, model: "keras.Model", config: Config, **arguments: Any) -> History:
        """Trains the model; `arguments` are those that all `train_*` functions have."""

    @abstractmethod
    def describe(self, config: Config) -> dict[str, Any]:
        """Facts to print before training that only this kind of model has."""

    def get_metadata(self, config: Config) -> dict[str, Any]:
        """What is saved with this kind of model only."""
        return {}

    def evaluate(self, experiment: Experiment) -> None:  # noqa: B027 - classifiers do
        """Measures a trained model on images that it has not seen."""

    @abstractmethod
    def draw(self, experiment: Experiment) -> dict[str, "Figure"]:
        """The figures of one experiment."""

    def save_figures(self, experiment: Experiment) -> list[Path]:
        """Draws the figures of one experiment into its run."""
        terminal.announce("Drawing figures")
        return experiment.run.save_figures(self.draw(experiment))

    @abstractmethod
    def draw_all(self, experiments: Sequence[Experiment]) -> Iterator["Figure"]:
        """The figures of several experiments, with one that compares them; drawn on demand."""

    @abstractmethod
    def next_command(self, saved: Path) -> list[str]:
        """The command line to run next, given the file of the best model."""

    def draw_views(self, config: Config, scaling: Scaling) -> dict[str, "Figure"]:
        """What training makes of some images, if it changes them: `augmentation`."""
        if not config.views:
            return {}
        from cae.figures.images import plot_views
        from cae.training.augment import make_views

        chosen = np.linspace(0, len(self.data.images) - 1, VIEWED_IMAGES).astype(int)
        originals = scaling.apply(self.data.images[np.unique(chosen)])
        rows = [("original", originals)]
        for name, changes in config.views.items():
            count = VIEWS if any(any(dict(change).values()) for change in changes) else 1
            rows += [(name, make_views(originals, changes, number)) for number in range(count)]
        amounts = (f"{name}: {changes[-1]}" for name, changes in config.views.items())
        title = f"Images in training, each row at random ({'; '.join(amounts)})"
        return {"augmentation": plot_views(rows, title)}

    def draw_encodings(self, experiment: Experiment, data: Dataset, chosen: np.ndarray) -> "Figure":
        """The encodings of the chosen images in two dimensions, coloured by class if known."""
        from cae.figures.encodings import encodings_visualization
        from cae.training.predict import predict

        encoder = experiment.model.get_layer("encoder")
        encodings = predict(encoder, data.images, experiment.scaling, chosen)
        if data.labels is None:
            return encodings_visualization(encodings, None, [])
        labels = data.labels[chosen]
        others = "no label" if NO_LABEL in labels else "unseen"
        codes = encode_labels(labels, self.classes)
        return encodings_visualization(encodings, codes, self.class_names, others)
