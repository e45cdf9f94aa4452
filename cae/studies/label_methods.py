"""The methods that label efficiency compares: networks, recipes with and without their parts.

Every method gets the same labels, those for validation included. Every network takes the same
number of optimizer steps, and a recipe without a part of it as many as the recipe, its autoencoder
included. Each final model classifies the test images once.
"""

import functools
import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cae import terminal
from cae.config import choices
from cae.config.load import Recipe
from cae.config.schema import AutoencoderConfig, ClassifierConfig
from cae.data.splits import split_validation
from cae.records.saved_models import load_model, save_model
from cae.studies.label_baselines import (
    Baselines,
    LabelledData,
    Subset,
    validation_share,
)
from cae.studies.label_results import Measurement

if TYPE_CHECKING:
    import keras

NETWORKS = (choices.FROZEN, choices.FINE_TUNED, choices.SCRATCH)
# What takes the encoder of -model, or without one that of the recipe.
ENCODING = (*NETWORKS, choices.NEIGHBOURS)
FOLLOWING = (choices.RECIPE, choices.WITHOUT_AUTOENCODER, choices.WITHOUT_UNLABELLED)
# What takes the encodings of the recipe's autoencoder.
ON_ENCODINGS = (choices.SPREADING_ENCODINGS, choices.SELF_TRAINING_ENCODINGS)

ShouldStop = Callable[[], bool]


class Interrupted(Exception):
    """An autoencoder was asked to stop before it was trained."""


class Tested(NamedTuple):
    """What a measurement came to."""

    predictions: np.ndarray  # int64 (num_test_images,), labels
    validation_labels: int
    steps: int = 0  # of the optimizer
    images_seen: int = 0


# --- Recipes --------------------------------------------------------------------------------


def has_part(recipe: Recipe, method: str) -> bool:
    """Whether a recipe has the part that a method leaves out."""
    return {
        choices.WITHOUT_AUTOENCODER: recipe.autoencoder is not None,
        choices.WITHOUT_UNLABELLED: recipe.classifier.unlabelled is not None,
    }.get(method, True)


def dump_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe for a JSON file."""
    halves = {"autoencoder": recipe.autoencoder, "classifier": recipe.classifier}
    documents = {kind: half and half.model_dump(mode="json") for kind, half in halves.items()}
    return {"name": recipe.name, **documents}


def plan_recipe(
    recipe: Recipe, method: str, num_training: int, num_unlabelled: int, num_pretraining: int
) -> tuple[ClassifierConfig, int]:
    """How to train the classifier of a recipe, or the same network without a part of the recipe.

    Args:
        recipe: What is followed.
        method: One of `FOLLOWING`. Without the autoencoder, label spreading is on pixels, and
            as many epochs are added as show the network at least what the autoencoder sees.
            Without unlabelled images, it takes as many steps of labelled ones as that.
        num_training: Labelled images to train on.
        num_unlabelled: Images without a label.
        num_pretraining: Images in an epoch of the autoencoder.

    Returns:
        The configuration, and how often each labelled image is in an epoch.
    """
    if method == choices.RECIPE:
        return recipe.classifier, 1
    steps, repeats = recipe.classifier.count_steps(num_training, num_unlabelled), 1
    config = recipe.classifier.lengthened(steps)
    how = config.unlabelled
    dense_only = 0 if how else config.dense_only_train_epochs
    epochs = config.full_train_epochs + dense_only
    if autoencoder := recipe.autoencoder:
        autoencoder = autoencoder.lengthened(autoencoder.count_steps(num_pretraining))
        seen = autoencoder.epochs * num_pretraining
        epochs += math.ceil(seen / (num_unlabelled if how else num_training))
    if method == choices.WITHOUT_UNLABELLED:
        repeats = max(1, round(steps * config.batch_size / num_training))
        epochs *= steps / math.ceil(repeats * num_training / config.batch_size)
        how = None
    elif how and how.label_spreading:
        on_pixels = how.label_spreading.model_copy(update={"on": "pixels"})
        how = how.model_copy(update={"label_spreading": on_pixels})
    changes = {"dense_only_train_epochs": 0, "full_train_epochs": max(1, round(epochs))}
    return config.model_copy(update=changes | {"min_steps": 0, "unlabelled": how}), repeats


class Pretrained(NamedTuple):
    """An autoencoder of a recipe, and what its training took."""

    model: "keras.Model"
    seconds: float
    steps: int
    images_seen: int

    @property
    def encoder(self) -> "keras.Model":
        """Its front half."""
        return self.model.get_layer("encoder")


@dataclass
class Autoencoders:
    """Those of recipes, one per seed: trained when first needed, and kept as files."""

    folder: Path
    data: LabelledData
    _latest: dict[Path, Pretrained] = field(default_factory=dict)

    def get_path(self, config: AutoencoderConfig, seed: int) -> Path:
        """The file; recipes with equal autoencoders share it."""
        text = config.model_copy(update={"seed": 0}).model_dump_json()
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return self.folder / f"autoencoder_{digest}_{seed}.keras"

    def get(self, recipe: Recipe, seed: int, should_stop: ShouldStop) -> Pretrained:
        """The autoencoder of a recipe; `Interrupted` if its training was."""
        path = self.get_path(recipe.autoencoder, seed)
        if path not in self._latest:
            self._latest.clear()
            if not path.exists():
                self._train(recipe, seed, path, should_stop)
            with terminal.starting_keras():
                model, metadata = load_model(path)
            metrics = metadata["metrics"]
            costs = (metrics[key] for key in ("seconds", "steps", "images_seen"))
            self._latest[path] = Pretrained(model, *costs)
        return self._latest[path]

    def _train(self, recipe: Recipe, seed: int, path: Path, should_stop: ShouldStop) -> None:
        with terminal.starting_keras():
            from cae.training.build import get_autoencoder
            from cae.training.train import train_autoencoder

        config = recipe.autoencoder.model_copy(update={"seed": seed})
        terminal.announce(f"Training the autoencoder of {recipe.name}, seed {seed}")
        images = self.data.get_unlabelled(np.empty(0, np.int64))
        model = get_autoencoder(config, images.shape[1:])
        history = train_autoencoder(
            model,
            config,
            images,
            scaling=self.data.scaling,
            name=recipe.name,
            warn=terminal.warn,
            should_stop=should_stop,
        )
        if should_stop():
            raise Interrupted
        training, _ = split_validation(len(images), config.validation_split, seed)
        epochs = history.metrics["epochs"]
        steps = epochs * config.count_steps(len(training))
        metadata = {
            "kind": "autoencoder",
            "name": recipe.name,
            "input_shape": list(images.shape[1:]),
            "data": self.data.training.name,
            "scaling": asdict(self.data.scaling),
            "model_info": history.model_info,
            "metrics": history.metrics | {"steps": steps, "images_seen": epochs * len(training)},
        }
        save_model(model, path, metadata)


# --- Measuring ------------------------------------------------------------------------------


@dataclass
class Methods:
    """Trains each method on a subset of the labels, and tests it."""

    data: LabelledData
    config: ClassifierConfig  # head, optimizer and batch size of the networks
    # Called once, and only if a method uses it; None without -model.
    load_encoder: Callable[[], "keras.Model"] | None
    steps: int  # of the optimizer, for each network
    orders: Sequence[np.ndarray]  # by seed int64 (num_images,), from which subsets are taken
    recipes: Mapping[str, Recipe]  # by labels per class
    autoencoders: Autoencoders

    def __post_init__(self) -> None:
        self._baselines = Baselines(self.data)
        self._warn = functools.cache(terminal.warn)  # each sentence once

    def applies(self, count: str, method: str) -> bool:
        """Whether a method can be measured, and does not repeat another."""
        recipe = self.recipes.get(count)
        if method in FOLLOWING:
            return recipe is not None and has_part(recipe, method)
        has_autoencoder = recipe is not None and recipe.autoencoder is not None
        if method in choices.FROM_ALL:
            is_possible = has_autoencoder or method not in ON_ENCODINGS
            return is_possible and self.data.has_unlabelled(count)
        return method not in ENCODING or bool(self.load_encoder) or has_autoencoder

    @cached_property
    def given_encoder(self) -> "keras.Model | None":
        """The encoder of -model; loading it starts Keras."""
        if self.load_encoder is None:
            return None
        with terminal.starting_keras():
            return self.load_encoder()

    def measure(self, seed: int, count: str, method: str, should_stop: ShouldStop) -> Measurement:
        """Trains one method and tests it.

        Args:
            seed: Of the subset, the split and the training.
            count: Labels per class, or `all`.
            method: A key of `METHODS`.
            should_stop: Ends the training of a network early; the measurement is then of no use.

        Raises:
            Interrupted: An autoencoder was needed, and `should_stop` ended its training.
        """
        size = self.data.get_size(count)
        subset = Subset(seed, count, self.orders[seed][:size])
        pretrained = self._pretrain(subset, method, should_stop)
        start = time.perf_counter()
        if method in FOLLOWING:
            outcome = self._follow(subset, method, pretrained, should_stop)
        elif method in NETWORKS:
            outcome = self._train(subset, method, pretrained, should_stop)
        else:
            given = self.given_encoder if method in ENCODING else None
            encoder = pretrained.encoder if pretrained else given
            outcome = Tested(*self._baselines.classify(subset, method, encoder))
        return Measurement(
            method=method,
            per_class=count,
            seed=seed,
            labels=size,
            validation_labels=outcome.validation_labels,
            steps=outcome.steps + (pretrained.steps if pretrained else 0),
            images_seen=outcome.images_seen + (pretrained.images_seen if pretrained else 0),
            test_error=round(float(np.mean(outcome.predictions != self.data.test.labels)), 6),
            seconds=round(time.perf_counter() - start, 2),
            autoencoder_seconds=pretrained.seconds if pretrained else 0,
        )

    def _pretrain(self, subset: Subset, method: str, should_stop: ShouldStop) -> Pretrained | None:
        """The autoencoder of the recipe, if the method uses its weights."""
        recipe = self.recipes.get(subset.count)
        if recipe is None or recipe.autoencoder is None:
            return None
        using = [choices.RECIPE, *ON_ENCODINGS]
        if self.load_encoder is None:
            using += [choices.FROZEN, choices.FINE_TUNED, choices.NEIGHBOURS]
        return self.autoencoders.get(recipe, subset.seed, should_stop) if method in using else None

    # --- Networks ---

    def _follow(
        self, subset: Subset, method: str, pretrained: Pretrained | None, should_stop: ShouldStop
    ) -> Tested:
        """Trains the classifier of the recipe, or the same network without a part of it."""
        # In the order of the file, as `experiments.py recipe` trains on them.
        recipe, chosen = self.recipes[subset.count], np.sort(subset.chosen)
        share, labels = recipe.classifier.validation_split, self.data.training.labels[chosen]
        training, validation = split_validation(len(chosen), share, subset.seed, labels)
        unlabelled = self.data.get_unlabelled(chosen)
        num_pretraining = 0
        if recipe.autoencoder:
            count, share = len(chosen) + len(unlabelled), recipe.autoencoder.validation_split
            num_pretraining = len(split_validation(count, share, subset.seed)[0])
        config, repeats = plan_recipe(
            recipe, method, len(training), len(unlabelled), num_pretraining
        )
        config = config.model_copy(update={"seed": subset.seed})
        chosen = np.concatenate([chosen, np.tile(chosen[training], repeats - 1)])
        encoder = pretrained.model if pretrained else self._build_autoencoder(subset)
        options = {
            "unlabelled": unlabelled if config.unlabelled else None,
            "pretrained": pretrained is not None,
            "should_stop": should_stop,
        }
        return self._fit(config, encoder, chosen, validation, **options)

    def _train(
        self, subset: Subset, method: str, pretrained: Pretrained | None, should_stop: ShouldStop
    ) -> Tested:
        """Trains a network with the head of -c."""
        chosen, share = subset.chosen, validation_share(subset.count)
        labels = self.data.training.labels[chosen]
        training, validation = split_validation(len(chosen), share, subset.seed, labels)
        plan = plan_training(self.config, method, len(training), self.steps)
        plan = plan.model_copy(update={"validation_split": share, "seed": subset.seed})
        encoder = pretrained.model if pretrained else self.given_encoder
        if encoder is None:
            encoder = self._build_autoencoder(subset)
        options = {"pretrained": method != choices.SCRATCH, "should_stop": should_stop}
        return self._fit(plan, encoder, chosen, validation, **options)

    def _fit(
        self,
        config: ClassifierConfig,
        encoder: "keras.Model | None",
        chosen: np.ndarray,
        validation: np.ndarray,
        *,
        pretrained: bool,
        unlabelled: np.ndarray | None = None,
        **options: Any,
    ) -> Tested:
        """Trains a classifier on the chosen images, and tests it."""
        with terminal.starting_keras():
            from cae.training.build import get_classifier
            from cae.training.predict import predict
            from cae.training.train import train_classifier

        data = self.data
        images, labels = data.training.images[chosen], data.training.labels[chosen]
        shape, num_classes = images.shape[1:], len(data.classes)
        model = get_classifier(config, shape, num_classes, encoder=encoder, pretrained=pretrained)
        history = train_classifier(
            model,
            config,
            images,
            labels,
            classes=data.classes,
            scaling=data.scaling,
            validation=validation,
            unlabelled=unlabelled,
            pretrained=pretrained,
            warn=self._warn,
            **options,
        )
        dense_only = history.dense_only_epochs
        full, num_training = len(history.epochs) - dense_only, len(chosen) - len(validation)
        num_unlabelled = 0 if unlabelled is None else len(unlabelled)
        steps = config.count_steps(num_training, num_unlabelled)
        seen = config.count_images(num_training, num_unlabelled)
        per_epoch = math.ceil(num_training / config.batch_size)
        probabilities = predict(model, data.test.images, data.scaling)
        return Tested(
            data.classes[probabilities.argmax(axis=1)],
            len(validation),
            full * steps + dense_only * per_epoch,
            full * seen + dense_only * num_training,
        )

    def _build_autoencoder(self, subset: Subset) -> "keras.Model | None":
        """That of the recipe with fresh weights; None if the recipe has none."""
        config = self.recipes[subset.count].autoencoder
        if config is None:
            return None
        with terminal.starting_keras():
            from cae.training.build import get_autoencoder
        shape = self.data.training.images.shape[1:]
        return get_autoencoder(config.model_copy(update={"seed": subset.seed}), shape)


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
    dense_only = {
        choices.FROZEN: epochs,
        choices.FINE_TUNED: round(epochs * head / (head + full)),
        choices.SCRATCH: 0,
    }[method]
    return config.model_copy(
        update={
            "dense_only_train_epochs": dense_only,
            "full_train_epochs": epochs - dense_only,
            "min_steps": 0,
            "early_stopping": None,
            "encoder_layers": None,
        }
    )
