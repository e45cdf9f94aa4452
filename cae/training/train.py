"""Autoencoders and classifiers: building them (`get_*`) and training them (`train_*`).

An autoencoder is `encoder` then `decoder`; a classifier is `encoder` then `fully_connected`.
They are plain Keras models, never compiled themselves: training compiles a second model over
the same layers, so that what is saved loads anywhere.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from cae.config.schema import ClassifierConfig, Config
from cae.data.datasets import Scaling, get_scaling
from cae.data.splits import encode_labels, get_classes, split_validation
from cae.records.checkpoint import Checkpoint
from cae.records.history import DENSE_ONLY, FULL, History
from cae.training import on_device
from cae.training.batches import TrainingBatches, inference_batches
from cae.training.build import ModelInfo, as_config
from cae.training.callbacks import Interruptible, KeepBest, WatchCollapse
from cae.training.data_parallel import Workers
from cae.training.frozen import freeze_encoder
from cae.training.layers import SplitOverCores, bfloat16_inside, fuse
from cae.training.loop import fit_phase
from cae.training.predict import chunks
from cae.training.workers import Share

# The output bias starts where a constant image would have the mean pixel; logit(0) is infinite.
PIXEL_RANGE = (0.01, 0.99)


def train_autoencoder(
    model: keras.Model,
    model_info: ModelInfo,
    images: np.ndarray,
    *,
    scaling: Scaling | None = None,
    name: str = "autoencoder",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
    cores: int = 1,
    warn: Callable[[str], None] = print,
) -> History:
    """Trains an autoencoder to draw its own input; the best epoch's weights are kept.

    Args:
        model: From `get_autoencoder`.
        model_info: Hyperparameters as in the JSON files, validated or not.
        images: (num_images, height, width, channels) in any dtype; part of them, chosen by
            `validation_split` and `seed`, is only used for validation.
        scaling: Brings them to [0, 1]; found from the images without it.
        name: What the history is called.
        callbacks: Further Keras callbacks.
        should_stop: Asked after every execution; True ends training as if it were complete.
        checkpoint: Where the training is saved now and then, and when it is stopped; one that
            holds a training already is gone on from, to the same result as without interruption.
        workers: Those that train the model together, each with these arguments; the batch size is
            that of all of them. Without them it is trained here alone.
        cores: How many of them compute a part of every batch by themselves; see `threads`.
        warn: Receives a sentence when the reconstruction is no better than the mean image.

    Returns:
        Rows with `loss`, `mse` and their `val_` twins: means over all pixels, scaled to [0, 1].

    Raises:
        UserError: The loss was never finite.
    """
    config = as_config(model_info, "autoencoder")
    scaling = scaling or get_scaling(images)
    training, validation = split_validation(len(images), config.validation_split, config.seed)
    history = History(name, "autoencoder", config.model_dump(mode="json"))
    keep_best = KeepBest(model, history, ("val_loss",), config.early_stopping)
    mean_image = _mean_image(images, training, scaling)
    watched = validation if len(validation) else training
    mean_image_error = _mean_image_error(images, watched, scaling, mean_image)
    _start_output_at(model, mean_image)
    keras.utils.set_random_seed(config.seed)
    interruptible = Interruptible(model, history, keep_best, checkpoint, should_stop)
    share = workers.share if workers else Share()
    if workers:
        workers.vary_random_states(model)
    with bfloat16_inside(model) if config.mixed_precision else nullcontext():
        trained, inputs, input_scaling = fuse(model), images, scaling
        if not workers and not config.noise and _stay_on_device(config, images):
            trained, inputs = on_device.look_up(trained, images, scaling, to_itself=True)
            input_scaling = None
        elif cores > 1:
            trained = SplitOverCores(trained, cores)
        fit_phase(
            trained,
            history,
            TrainingBatches(
                inputs,
                training,
                config.batch_size,
                config.seed,
                scaling=input_scaling,
                noise=config.noise,
                augmentation=config.augmentation,
                share=share,
            ),
            inference_batches(inputs, validation, scaling=input_scaling, share=share)
            if len(validation)
            else None,
            phase=FULL,
            epochs=config.epochs,
            rate=config.optimizer.learning_rate,
            config=config,
            loss=config.loss,
            metric=keras.metrics.MeanSquaredError(name="mse"),
            interruptible=interruptible,
            workers=workers,
            callbacks=[
                keep_best,
                interruptible,
                WatchCollapse(history, mean_image_error, warn),
                *callbacks,
            ],
        )
    _finish(history, keep_best, len(training), interruptible.seconds)
    return history


def train_classifier(
    model: keras.Model,
    model_info: ModelInfo,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: np.ndarray | None = None,
    scaling: Scaling | None = None,
    pretrained: bool = True,
    name: str = "classifier",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    should_stop: Callable[[], bool] = lambda: False,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
) -> History:
    """Trains the dense head on the frozen encoder, then everything; keeps the best weights.

    Args:
        model: From `get_classifier`.
        model_info: Hyperparameters as in the JSON files, validated or not.
        images: (num_images, height, width, channels) in any dtype.
        labels: int64 (num_images,), any integers.
        classes: int64 (num_classes,), sorted; those of `labels` without it.
        scaling: Brings the images to [0, 1]; found from them without it.
        pretrained: False trains everything in all epochs: a random encoder is not worth freezing.
        name: What the history is called.
        callbacks: Further Keras callbacks.
        should_stop: Asked after every execution; True ends training as if it were complete.
        checkpoint: As for `train_autoencoder`.
        workers: As for `train_autoencoder`.

    Returns:
        Rows of both phases in one, with `loss`, `accuracy`, macro `precision`, `recall` and `f1`
        in [0, 1], and their `val_` twins. The best epoch has the highest validation accuracy; of
        equals, the lowest validation loss.

    Raises:
        UserError: The loss was never finite.
    """
    config = as_config(model_info, "classifier")
    scaling = scaling or get_scaling(images)
    classes = get_classes(labels) if classes is None else classes
    targets = encode_labels(labels, classes)
    training, validation = split_validation(
        len(images), config.validation_split, config.seed, labels
    )
    history = History(name, "classifier", config.model_dump(mode="json"))
    keep_best = KeepBest(model, history, ("val_accuracy", "val_loss"), config.early_stopping)
    keras.utils.set_random_seed(config.seed)
    interruptible = Interruptible(model, history, keep_best, checkpoint, should_stop)
    share = workers.share if workers else Share()
    if workers:
        workers.vary_random_states(model)
    with bfloat16_inside(model) if config.mixed_precision else nullcontext():
        for phase, epochs, rate in _phases(config, pretrained):
            if interruptible.phase not in (None, phase):
                continue  # done before an interruption
            if history.divergence or (history.epochs and should_stop()):
                break
            if phase == DENSE_ONLY:
                trained, inputs, input_scaling, dropout = freeze_encoder(
                    model, config, images, scaling
                )
            else:
                trained = keras.Model(model.inputs, model.outputs, name=phase)
                inputs, input_scaling, dropout = images, scaling, 0.0
            if not workers and _stay_on_device(config, inputs):
                trained, inputs = on_device.look_up(trained, inputs, input_scaling)
                input_scaling = None
            fit_phase(
                trained,
                history,
                TrainingBatches(
                    inputs,
                    training,
                    config.batch_size,
                    config.seed,
                    targets=targets,
                    scaling=input_scaling,
                    dropout=dropout,
                    augmentation=config.augmentation,
                    share=share,
                ),
                inference_batches(
                    inputs, validation, targets=targets, scaling=input_scaling, share=share
                )
                if len(validation)
                else None,
                phase=phase,
                epochs=epochs,
                rate=rate,
                config=config,
                loss="sparse_categorical_crossentropy",
                metric=MacroScores(len(classes)),
                interruptible=interruptible,
                workers=workers,
                callbacks=[keep_best, interruptible, *callbacks],
            )
            keep_best.restore()
            model.get_layer("encoder").trainable = True
    _finish(history, keep_best, len(training), interruptible.seconds)
    return history


class MacroScores(keras.metrics.Metric):
    """Accuracy and macro precision, recall and F1, from three counts a class.

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


def _phases(config: ClassifierConfig, pretrained: bool) -> list[tuple[str, int, float]]:
    """(phase, epochs, learning rate) of each phase that has epochs."""
    first_rate = config.optimizer.learning_rate
    full_rate = config.optimizer.full_learning_rate or first_rate
    dense_only_epochs, full_epochs = config.dense_only_train_epochs, config.full_train_epochs
    if not pretrained:
        return [(FULL, dense_only_epochs + full_epochs, first_rate)]
    phases = [(DENSE_ONLY, dense_only_epochs, first_rate), (FULL, full_epochs, full_rate)]
    return [phase for phase in phases if phase[1]]


def _stay_on_device(config: Config, inputs: np.ndarray) -> bool:
    """Whether a GPU keeps what is trained on; TensorFlow's CPU part augments."""
    return config.augmentation is None and on_device.is_possible(inputs)


def _finish(history: History, keep_best: KeepBest, num_images: int, seconds: float) -> None:
    """Puts the best weights back and the final values into the history."""
    keep_best.restore()
    if history.best_epoch is None:
        raise history.divergence
    bookkeeping = ("epoch", "phase", "learning_rate", "seconds")
    history.metrics = {
        **{key: value for key, value in history.best.items() if key not in bookkeeping},
        "best_epoch": history.best_epoch,
        "epochs": len(history.epochs),
        "seconds": round(seconds, 2),
        "images_per_second": round(num_images * len(history.epochs) / seconds, 1),
    }


def _mean_image(images: np.ndarray, indices: np.ndarray, scaling: Scaling) -> np.ndarray:
    """float64 (height, width, channels) in [0, 1]."""
    total = np.zeros(images.shape[1:])
    for chunk in chunks(indices):
        total += scaling.apply(images[chunk]).sum(axis=0, dtype=np.float64)
    return total / len(indices)


def _mean_image_error(
    images: np.ndarray, indices: np.ndarray, scaling: Scaling, mean_image: np.ndarray
) -> float:
    """Mean squared error of predicting the mean image for every chosen image."""
    total = sum(
        np.square(scaling.apply(images[chunk]) - mean_image).sum() for chunk in chunks(indices)
    )
    return float(total) / (len(indices) * mean_image.size)


def _start_output_at(model: keras.Model, mean_image: np.ndarray) -> None:
    """Lets an untrained decoder begin by drawing the mean pixel of each channel.

    Without it, textbook autoencoders on mostly black images learn to draw black and stay there.
    """
    output = model.get_layer("decoder").layers[-1]
    if not isinstance(output, keras.layers.Conv2D) or np.any(output.bias):
        return  # trained before
    mean_pixel = np.clip(mean_image.mean(axis=(0, 1)), *PIXEL_RANGE)
    if output.activation is keras.activations.sigmoid:
        mean_pixel = np.log(mean_pixel / (1 - mean_pixel))
    output.bias.assign(mean_pixel)
