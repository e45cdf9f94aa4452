"""Trains autoencoders and classifiers: two tasks for one loop.

An autoencoder is `encoder` then `decoder`; a classifier is `encoder` then `fully_connected`.
They are plain Keras models that are never compiled. The loop trains other models over the same
layers, so what is saved loads anywhere.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from cae import terminal
from cae.config.fields import Augmentation
from cae.config.schema import ClassifierConfig, Config
from cae.data.datasets import Scaling, get_scaling
from cae.data.labels import NO_LABEL
from cae.data.splits import encode_labels, get_classes, is_imbalanced, split_validation
from cae.errors import Say, UserError
from cae.records.history import DENSE_ONLY, FULL, History
from cae.training import device
from cae.training.batches import INFERENCE_BATCH_SIZE, WHOLE, Batches
from cae.training.build import ModelInfo, as_config
from cae.training.layers import bfloat16_inside, fuse, get_output
from cae.training.loop import Loop, Phase
from cae.training.predict import chunks, freeze_encoder
from cae.training.steps import Objective
from cae.training.unlabelled import plan_unlabelled

# The output bias starts where a constant image would have the mean pixel; logit(0) is infinite.
PIXEL_RANGE = (0.01, 0.99)
# A reconstruction must beat the mean image by this factor of its error to count as learning.
COLLAPSE_MARGIN = 0.95
# Mean squared error of the mean image below which all images are the same: differences of one gray
# level in 255 come to 1.5e-5.
SAME_IMAGES = 1e-8


def train_autoencoder(
    model: keras.Model,
    model_info: ModelInfo,
    images: np.ndarray,
    *,
    scaling: Scaling | None = None,
    validation: np.ndarray | None = None,
    name: str = "autoencoder",
    warn: Say = print,
    **options: Any,
) -> History:
    """Trains an autoencoder to reconstruct its input; the best epoch's weights are kept.

    With `denoise` it draws the unchanged image from a changed one. This is also what validation
    measures, with changes that depend on nothing but the image's place, and the same every epoch.

    Args:
        model: From `get_autoencoder`.
        model_info: Hyperparameters as in the JSON files, validated or not.
        images: (num_images, height, width, channels) in any dtype; `validation_split` of them,
            chosen by `seed`, are only used for validation.
        scaling: Brings the images to [0, 1]; derived from them by default.
        validation: int64, positions of the images to validate on, instead of that draw.
        name: Of the history.
        warn: Receives a sentence if there are no images to validate on, if the CPU cannot compute
            in bfloat16, if all images are the same, or if the reconstructions are no better than
            the mean image.
        options: Those of `Loop`: callbacks, should_stop, checkpoint, on_epoch, workers.

    Returns:
        Rows with `loss`, `mse` and their `val_` twins: means over all pixels, scaled to [0, 1].

    Raises:
        UserError: The loss was never finite.
    """
    config = as_config(model_info, "autoencoder")
    scaling = scaling or get_scaling(images)
    split = _split(images, config, warn, given=validation)
    config = config.lengthened(config.count_steps(len(split[0])))
    with terminal.announcing("Measuring the mean image"):
        mean_image, mean_image_error = _measure_mean_image(images, split, scaling)
    _start_output_at(model, mean_image)
    loop = Loop(model, config, name, ("val_loss" if len(split[1]) else "loss",), **options)
    with _precision(model, config, warn):
        trained, *batches = _prepare(
            loop, _fuse(model, loop), images, scaling, split=split, corruption=config.corruption
        )
        metric = keras.metrics.MeanSquaredError(name="mse")
        phase = Phase(FULL, config.epochs, config.optimizer.learning_rate)
        loop.run(phase, Objective(trained, config.loss, metric), *batches)
    history = loop.finish({FULL: len(split[0])})
    if len(images) == 1:
        warn("Nothing to learn: there is only one image. Use more images.")
    elif not loop.is_stopped:
        _warn_if_collapsed(history, config.loss, mean_image_error, warn)
    return history


def train_classifier(
    model: keras.Model,
    model_info: ModelInfo,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    scaling: Scaling | None = None,
    validation: np.ndarray | None = None,
    unlabelled: np.ndarray | None = None,
    pretrained: bool = True,
    name: str = "classifier",
    warn: Say = print,
    **options: Any,
) -> History:
    """Trains the dense head on the frozen encoder, then everything; keeps the best weights.

    Other arguments, and errors, are those of `train_autoencoder`.

    Args:
        model: From `get_classifier`.
        labels: int64 (num_images,), any integers.
        classes: int64 (num_classes,), sorted; those of `labels` by default.
        unlabelled: (num_unlabelled, height, width, channels), for the key `unlabelled`.
        pretrained: False trains everything in all epochs: a random encoder is not worth freezing.

    Returns:
        Rows of both phases, with `loss`, `accuracy`, macro `precision`, `recall` and `f1` in
        [0, 1], and their `val_` twins. `ClassifierConfig.get_monitor` says which epoch is the
        best.
    """
    config = as_config(model_info, "classifier")
    scaling = scaling or get_scaling(images, *([] if unlabelled is None else [unlabelled]))
    classes = get_classes(labels) if classes is None else classes
    targets = encode_labels(labels, classes)
    split = _split(images, config, warn, labels, validation)
    num_unlabelled = 0 if unlabelled is None else len(unlabelled)
    config = config.lengthened(config.count_steps(len(split[0]), num_unlabelled))
    loss = _get_loss(config, np.bincount(targets[split[0]], minlength=len(classes)))
    plan = plan_unlabelled(model, config, (images, targets, split[0]), unlabelled, scaling, warn)
    monitor = config.get_monitor(len(split[1]) > 0, is_imbalanced(labels))
    loop = Loop(model, config, name, monitor, **options)
    with _precision(model, config, warn):
        for phase in loop.get_remaining(_get_phases(config, pretrained)):
            is_joint = plan is not None and phase.name == FULL
            if phase.name == DENSE_ONLY:
                source = freeze_encoder(model, config, images, scaling)
            else:
                source = _fuse_encoder(model, loop), images, scaling
            kept = {"split": split, "targets": targets, "may_move": not is_joint}
            trained, batches, *rest = _prepare(loop, *source, **kept)
            metric = MacroScores(len(classes))
            objective = Objective(trained, loss, metric)
            if is_joint:
                objective = plan.teach(trained, _copy(model, loop), metric, loss, phase.epochs)
                batches = plan.get_batches()
            loop.run(phase, objective, batches, *rest)
            model.get_layer("encoder").trainable = True
    full = config.count_images(len(split[0]), num_unlabelled)
    return loop.finish({DENSE_ONLY: len(split[0]), FULL: full})


def _get_loss(config: ClassifierConfig, counts: np.ndarray) -> Callable[[Any, Any], Any]:
    """The loss of class indices (batch,) and probabilities (batch, num_classes).

    With class weights all classes count the same, and an image 1 on average.

    Args:
        config: Of the classifier.
        counts: int (num_classes,), the training images of each class.
    """
    loss = keras.losses.get("sparse_categorical_crossentropy")
    if config.class_weight is None:
        return loss
    weights = (counts.sum() / (np.count_nonzero(counts) * counts.clip(min=1))).astype(np.float32)

    def weighted(y_true: Any, y_pred: Any) -> Any:
        classes = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        return loss(y_true, y_pred) * ops.take(ops.convert_to_tensor(weights), classes)

    return weighted


class MacroScores(keras.metrics.Metric):
    """Accuracy and macro precision, recall and F1, from three counts per class.

    The mean runs over the classes that occur among labels or predictions, and 0/0 counts as 0:
    as scikit-learn's `precision_recall_fscore_support(average="macro", zero_division=0)`.

    Args:
        num_classes: How many classes there are.
    """

    def __init__(self, num_classes: int, name: str = "scores"):
        super().__init__(name=name)
        self._counts = [
            self.add_weight(shape=(num_classes,), initializer="zeros", name=count)
            for count in ("hits", "labels", "predictions")
        ]
        self._num_classes = num_classes

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch: class indices (batch,) against probabilities (batch, num_classes)."""
        truth = ops.one_hot(ops.reshape(y_true, (-1,)), self._num_classes)
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), self._num_classes)
        for count, occurrences in zip(
            self._counts, (truth * predicted, truth, predicted), strict=True
        ):
            count.assign_add(ops.sum(occurrences, axis=0))

    def result(self) -> dict[str, Any]:
        """The four scores over everything counted since the last reset, each in [0, 1]."""
        hits, labels, predictions = (count.value for count in self._counts)
        occurring = ops.cast(labels + predictions > 0, "float32")

        def macro(scores: Any) -> Any:
            return ops.sum(scores) / ops.maximum(ops.sum(occurring), 1.0)

        return {
            "accuracy": ops.sum(hits) / ops.maximum(ops.sum(labels), 1.0),
            "precision": macro(hits / ops.maximum(predictions, 1.0)),
            "recall": macro(hits / ops.maximum(labels, 1.0)),
            "f1": macro(2 * hits / ops.maximum(labels + predictions, 1.0)),
        }


def _split(
    images: np.ndarray,
    config: Config,
    warn: Say,
    labels: np.ndarray | None = None,
    given: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to train on and to validate on; says so where there are too few."""
    if labels is not None and NO_LABEL in labels:
        got = f"{np.sum(labels == NO_LABEL):,} images without a label"
        raise UserError("labels", "must be classes", got, "Pass these images as unlabelled.")
    split = split_validation(len(images), config.validation_split, config.seed, labels, given)
    if config.validation_split and not len(split[1]):
        reason = "there is only one image" if labels is None else "no class has two images"
        is_last = config.kind == "classifier" and config.best_epoch_by == "last"
        kept = ", and the weights of the epoch with the lowest training loss are kept" * (
            not is_last
        )
        warn(f"No validation images, because {reason}: all images are trained on{kept}.")
    return split


def _fuse(model: keras.Model, loop: Loop) -> keras.Model:
    """The model with the layers that are fastest here."""
    is_tensorflow = keras.backend.backend() == "tensorflow"
    return fuse(model, is_tensorflow and not loop.workers and not device.has_gpu())


def _fuse_encoder(classifier: keras.Model, loop: Loop) -> keras.Model:
    """The classifier with the fastest layers in its encoder; names may repeat in the head."""
    encoder, head = classifier.get_layer("encoder"), classifier.get_layer("fully_connected")
    return keras.Model(classifier.inputs, head(_fuse(encoder, loop)(classifier.inputs[0])))


def _copy(classifier: keras.Model, loop: Loop) -> keras.Model:
    """Another classifier with the same weights, with the fastest layers."""
    copy = keras.models.clone_model(classifier)
    copy.set_weights(classifier.get_weights())
    return _fuse_encoder(copy, loop)


def _prepare(
    loop: Loop,
    model: keras.Model,
    inputs: np.ndarray,
    scaling: Scaling | None,
    dropout: float = 0.0,
    *,
    split: tuple[np.ndarray, np.ndarray],
    targets: np.ndarray | None = None,
    corruption: Augmentation | None = None,
    may_move: bool = True,
) -> tuple[keras.Model, Batches, Batches | None]:
    """What to train, and its batches for training and, if there are images for it, validation.

    If there is a GPU, inputs that do not change every epoch stay on it, unless the model must
    still take images itself. Validation measures what is trained, so `corruption` changes its
    inputs too.
    """
    config, workers = loop.config, loop.workers
    is_constant = config.augmentation is None and corruption is None
    if may_move and is_constant and not workers and device.can_keep(inputs):
        model, inputs = device.look_up(model, inputs, scaling, to_itself=targets is None)
        scaling = None
    share = workers.share if workers else WHOLE
    common = {"targets": targets, "scaling": scaling, "corruption": corruption, "share": share}
    training, validation = split
    batches = Batches(
        inputs,
        training,
        config.batch_size,
        config.seed,
        dropout=dropout,
        augmentation=config.augmentation,
        **common,
    )
    if not len(validation):
        return model, batches, None
    return model, batches, Batches(inputs, validation, INFERENCE_BATCH_SIZE * share.count, **common)


def _get_phases(config: ClassifierConfig, pretrained: bool) -> list[Phase]:
    """The phases that have epochs."""
    first_rate = config.optimizer.learning_rate
    full_rate = config.optimizer.full_learning_rate or first_rate
    dense_only_epochs, full_epochs = config.dense_only_train_epochs, config.full_train_epochs
    if not pretrained:
        return [Phase(FULL, dense_only_epochs + full_epochs, first_rate)]
    phases = [Phase(DENSE_ONLY, dense_only_epochs, first_rate), Phase(FULL, full_epochs, full_rate)]
    return [phase for phase in phases if phase.epochs]


def _precision(model: keras.Model, config: Config, warn: Say) -> AbstractContextManager[None]:
    if device.get_compute_dtype(config) == "bfloat16":
        return bfloat16_inside(model)
    if config.mixed_precision:
        warn("This CPU reports no bfloat16 instructions: mixed precision computes in float32.")
    return nullcontext()


def _measure_mean_image(
    images: np.ndarray, split: tuple[np.ndarray, np.ndarray], scaling: Scaling
) -> tuple[np.ndarray, float]:
    """The mean training image, float64 (height, width, channels) in [0, 1].

    Also its mean squared error on the validation images, or on the training images without any.
    """

    def add_up(function: Callable[[np.ndarray], np.ndarray], indices: np.ndarray) -> Any:
        return sum(function(scaling.apply(images[chunk])) for chunk in chunks(indices))

    training, validation = split
    mean = add_up(lambda part: part.sum(axis=0, dtype=np.float64), training) / len(training)
    measured = validation if len(validation) else training
    error = add_up(lambda part: np.square(part - mean).sum(), measured)
    return mean, float(error) / (len(measured) * mean.size)


def _start_output_at(model: keras.Model, mean_image: np.ndarray) -> None:
    """Sets an untrained decoder's output to the mean pixel of each channel.

    Otherwise textbook autoencoders on mostly black images learn to draw black and stay there.
    """
    output = get_output(model.get_layer("decoder").layers)
    if not isinstance(output, keras.layers.Conv2D) or np.any(output.bias):
        return  # trained before
    mean_pixel = np.clip(mean_image.mean(axis=(0, 1)), *PIXEL_RANGE)
    if output.activation is keras.activations.sigmoid:
        mean_pixel = np.log(mean_pixel / (1 - mean_pixel))
    output.bias.assign(mean_pixel)


def _warn_if_collapsed(history: History, loss: str, mean_image_error: float, warn: Say) -> None:
    """Warns if there was nothing to learn, or the reconstructions are no better than the mean."""
    if mean_image_error < SAME_IMAGES:
        warn("Nothing to learn: all images are the same. Check the images.")
        return
    mse = history.metrics.get("val_mse", history.metrics["mse"])
    if mse >= COLLAPSE_MARGIN * mean_image_error:
        other_loss = "the loss binary_crossentropy with activation_function Sigmoid, "
        warn(
            f"The autoencoder has collapsed: the mean squared error of its reconstructions is "
            f"{mse:.4f}, no better than the mean image ({mean_image_error:.4f}). "
            f"Use {other_loss * (loss != 'binary_crossentropy')}a learning rate ten times smaller, "
            f"or another seed. If the loss was still falling, use more epochs."
        )
