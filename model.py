"""Autoencoders and classifiers: building them (`get_*`) and training them (`train_*`).

An autoencoder is `encoder` then `decoder`; a classifier is `encoder` then `fully_connected`.
They are plain Keras models, never compiled themselves: training compiles a second model over
the same layers, so that what is saved loads anywhere.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

import on_device
from batches import (
    IMAGES_PER_EXECUTION,
    TrainingBatches,
    inference_batches,
    steps_per_execution,
)
from callbacks import (
    AcrossFits,
    Interruptible,
    KeepBest,
    Record,
    WatchCollapse,
    schedule_callback,
)
from checkpoints import Checkpoint
from dataset import Scaling, encode_labels, get_classes, get_scaling, split_validation
from distributed import DataParallel, Workers
from errors import ModelFileError, UserError
from features import get_features
from history import DENSE_ONLY, FULL, History
from hyperparameters import (
    OPTIMIZERS,
    ClassifierConfig,
    Config,
    Kind,
    validate_config,
)
from layers import InferenceMode, SplitOverCores, bfloat16_inside, fuse, get_predictor
from memory import batches_in_memory
from model_files import find_encoder, load_model
from shapes import check_shapes, format_shape
from short_epochs import fit_short_epochs, is_worthwhile
from workers import Share

# Keras' 0.99 needs some 500 batches until inference agrees with training; a short training on
# few images has fewer.
BATCH_NORM_MOMENTUM = 0.9
# The frozen phase keeps the encodings of all images in memory up to this size (60,000 MNIST
# images through the small encoder take 0.75 GB) and runs the encoder again every epoch above it.
FEATURE_CACHE_BYTES = 2 * 2**30
# Images of a part, for everything that needs no gradients: half as many or four times as many were
# no faster on 2 cores.
PART_SIZE = 64
# What of a layer's configuration decides what it computes from its weights.
ARCHITECTURE = ("filters", "units", "kernel_size", "pool_size", "size", "padding", "activation")
# The output bias starts where a constant image would have the mean pixel; logit(0) is infinite.
PIXEL_RANGE = (0.01, 0.99)

ModelInfo = dict[str, Any] | Config | str | Path


def get_autoencoder(model_info: ModelInfo, input_shape: Sequence[int]) -> keras.Model:
    """Builds an autoencoder, or loads a saved one when given a path.

    Args:
        model_info: Hyperparameters as in the JSON files, validated or not, or a path.
        input_shape: (height, width, channels) of the images.

    Returns:
        An uncompiled model of images to images, float32 (batch, height, width, channels) in
        [0, 1] both ways, with the sub-models `encoder` and `decoder`.

    Raises:
        ConfigurationError: A hyperparameter is wrong, or the decoder does not give back the size.
        ModelFileError: The saved model cannot be loaded or takes images of another shape.
    """
    if isinstance(model_info, str | Path):
        return _load_for(model_info, input_shape)
    config = _as_config(model_info, "autoencoder")
    check_shapes(config, input_shape, "model_info")
    keras.utils.set_random_seed(config.seed)
    encoder = _stack(config.encoder_layers, input_shape, config.l2, "encoder")
    decoder_layers = [
        *_hidden_layers(config.decoder_layers, config.l2),
        keras.layers.Conv2D(
            input_shape[-1],
            3,
            padding="same",
            activation=config.activation_function.lower(),
            name="output",
        ),
    ]
    decoder = _chain(decoder_layers, encoder.output_shape[1:], "decoder")
    inputs = keras.Input(input_shape, name="images")
    return keras.Model(inputs, decoder(encoder(inputs)), name="autoencoder")


def get_classifier(
    model_info: ModelInfo,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    encoder: keras.Model | str | Path | None = None,
    pretrained: bool = True,
) -> keras.Model:
    """Builds a classifier on an encoder, or loads a saved one when given a path.

    Args:
        model_info: Hyperparameters as in the JSON files, validated or not, or a path.
        input_shape: (height, width, channels) of the images.
        num_classes: At least 1.
        encoder: A model with a sub-model `encoder`, or the path of one; it is copied. Without
            it, `encoder_layers` says which saved model to use or which layers to build.
        pretrained: False takes the encoder's architecture with fresh weights.

    Returns:
        An uncompiled model of images, float32 (batch, height, width, channels) in [0, 1], to
        probabilities, float32 (batch, num_classes), with the sub-models `encoder` and
        `fully_connected`.

    Raises:
        ConfigurationError: A hyperparameter is wrong.
        ModelFileError: A saved model cannot be loaded, has no encoder, or takes images of
            another shape.
    """
    if isinstance(model_info, str | Path):
        return _load_for(model_info, input_shape)
    config = _as_config(model_info, "classifier")
    keras.utils.set_random_seed(config.seed)
    body = _get_encoder(config, input_shape, encoder, pretrained)
    head_layers = [
        keras.layers.Flatten(),
        *_hidden_layers(config.dense_layers, config.l2),
        keras.layers.Dense(num_classes, activation="softmax", name="probabilities"),
    ]
    head = _chain(head_layers, body.output_shape[1:], "fully_connected")
    inputs = keras.Input(input_shape, name="images")
    return keras.Model(inputs, head(body(inputs)), name="classifier")


def _as_config(model_info: ModelInfo, kind: Kind) -> Any:
    if isinstance(model_info, dict):
        return validate_config(model_info, "model_info", kind)
    return model_info


def _get_encoder(
    config: ClassifierConfig,
    input_shape: Sequence[int],
    encoder: keras.Model | str | Path | None,
    pretrained: bool,
) -> keras.Model:
    source = config.encoder_layers if encoder is None else encoder
    if source is None:
        raise UserError(
            "encoder_layers",
            "an encoder is required",
            "none",
            "Give -model MODEL, or encoder_layers in the configuration.",
        )
    if isinstance(source, tuple | list):
        check_shapes(config, input_shape, "model_info")
        return _stack(source, input_shape, config.l2, "encoder")
    where = source if isinstance(source, str | Path) else source.name
    model = load_model(source)[0] if isinstance(source, str | Path) else source
    found = find_encoder(model, where)
    check_input_shape(found, input_shape, where)
    copy = keras.models.clone_model(found)
    copy.name = "encoder"
    if pretrained:
        copy.set_weights(found.get_weights())
    return copy


def _load_for(path: str | Path, input_shape: Sequence[int]) -> keras.Model:
    model, _ = load_model(path)
    check_input_shape(model, input_shape, path)
    return model


def start_from(model: keras.Model, path: str | Path) -> None:
    """Gives a model the weights of a saved one that has the same layers.

    Args:
        model: From `get_autoencoder` or `get_classifier`.
        path: The saved model, with sub-models of the same names.

    Raises:
        ModelFileError: It cannot be loaded, or a layer differs.
    """
    saved = _load_for(path, model.input_shape[1:])
    layers = itertools.zip_longest(
        _describe_layers(model), _describe_layers(saved), fillvalue="no further layer"
    )
    for required, found in layers:
        if required != found:
            raise ModelFileError(
                path,
                f"must have the layers of the configuration, here {required}",
                found,
                "Give the configuration it was trained with, or leave out -c.",
            )
    model.set_weights(saved.get_weights())


def _describe_layers(model: keras.Model) -> Iterator[str]:
    """A line for each layer of each sub-model, without its input."""
    for part in model.layers:
        layers = getattr(part, "layers", [])
        layers = [layer for layer in layers if not isinstance(layer, keras.layers.InputLayer)]
        for number, layer in enumerate(layers, 1):
            config = layer.get_config()
            values = ", ".join(f"{key} {config[key]}" for key in ARCHITECTURE if key in config)
            yield f"{part.name} layer {number}: {type(layer).__name__} {values}".strip()


def check_input_shape(model: keras.Model, input_shape: Sequence[int], where: object) -> None:
    """Raises a ModelFileError unless the model takes images of that (height, width, channels)."""
    expected = model.input_shape[1:]
    if len(expected) != 3 or any(
        size not in (None, given) for size, given in zip(expected, input_shape, strict=True)
    ):
        raise ModelFileError(
            where,
            f"takes images of shape {format_shape(expected)} (height × width × channels)",
            f"images of shape {format_shape(input_shape)}",
            "Give images of that shape, or train an autoencoder on these.",
        )


def _hidden_layers(specification: Iterable[tuple], l2: float) -> list[keras.Layer]:
    """Keras layers for the lists of a configuration; all weights start as He et al. 2015 say.

    He, Zhang, Ren & Sun 2015, "Delving deep into rectifiers". Keras' default (Glorot) makes
    textbook autoencoders collapse to black images more often.
    """
    relu = {
        "activation": "relu",
        "kernel_initializer": "he_normal",
        "kernel_regularizer": keras.regularizers.L2(l2) if l2 else None,
    }
    built = []
    for layer in specification:
        match layer:
            case ("conv", filters, size):
                built.append(keras.layers.Conv2D(filters, size, padding="same", **relu))
            case ("dense", units):
                built.append(keras.layers.Dense(units, **relu))
            case ("pool", size):
                built.append(keras.layers.MaxPooling2D(size))
            case ("upSample", size):
                built.append(keras.layers.UpSampling2D(size))
            case ("batchNorm",):
                built.append(keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM))
            case ("drop", rate):
                built.append(keras.layers.Dropout(rate))
            case _:
                raise ValueError(f"unknown layer {layer!r}")
    return built


def _chain(chain: Sequence[keras.Layer], input_shape: Sequence[int], name: str) -> keras.Model:
    inputs = keras.Input(input_shape)
    outputs = inputs
    for layer in chain:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def _stack(
    specification: Iterable[tuple], input_shape: Sequence[int], l2: float, name: str
) -> keras.Model:
    return _chain(_hidden_layers(specification, l2), input_shape, name)


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
    config = _as_config(model_info, "autoencoder")
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
        _fit(
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
    config = _as_config(model_info, "classifier")
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
                trained, inputs, input_scaling, dropout = _freeze_encoder(
                    model, config, images, scaling
                )
            else:
                trained = keras.Model(model.inputs, model.outputs, name=phase)
                inputs, input_scaling, dropout = images, scaling, 0.0
            if not workers and _stay_on_device(config, inputs):
                trained, inputs = on_device.look_up(trained, inputs, input_scaling)
                input_scaling = None
            _fit(
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


def predict(
    model: keras.Model,
    images: np.ndarray,
    scaling: Scaling,
    indices: np.ndarray | None = None,
) -> np.ndarray:
    """Runs a model on images into one array.

    Args:
        model: An autoencoder, encoder or classifier.
        images: (num_images, height, width, channels) in the file's dtype.
        scaling: Brings them to [0, 1].
        indices: int64 (num_chosen,), which images; all without it.

    Returns:
        float32 (num_chosen, ...): reconstructions, encodings or probabilities.
    """
    indices = np.arange(len(images)) if indices is None else indices
    outputs = np.empty((len(indices), *model.output_shape[1:]), np.float32)
    predictor = get_predictor(model, PART_SIZE)
    parts = max(1, min(IMAGES_PER_EXECUTION // PART_SIZE, math.ceil(len(indices) / PART_SIZE)))
    # Always as many parts, the last ones of zeros: every other number would be compiled anew.
    batch = np.zeros((parts * PART_SIZE, *images.shape[1:]), np.float32)
    done = 0
    for chosen in _chunks(indices, len(batch)):
        batch[: len(chosen)] = scaling.apply(images[chosen])
        predicted = predictor(batch.reshape(parts, PART_SIZE, *images.shape[1:]))
        predicted = predicted.reshape(-1, *predicted.shape[2:])
        outputs[done : done + len(chosen)] = predicted[: len(chosen)]
        done += len(chosen)
    return outputs


def first_filters(model: keras.Model) -> np.ndarray | None:
    """The kernels of the encoder's first convolution, float32 (height, width, in, filters)."""
    for layer in model.get_layer("encoder").layers:
        if isinstance(layer, keras.layers.Conv2D):
            return layer.get_weights()[0]
    return None


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


def _freeze_encoder(
    model: keras.Model, config: ClassifierConfig, images: np.ndarray, scaling: Scaling
) -> tuple[keras.Model, np.ndarray, Scaling | None, float]:
    """What to train, on what, while the encoder is frozen and in inference mode.

    Then it is a constant function: its output is computed once, unless the images change every
    epoch (augmentation) or the output would not fit in `FEATURE_CACHE_BYTES`. Dropout of that
    output is the last value returned: done with the batches, it costs a CPU a fraction.
    """
    encoder, head = model.get_layer("encoder"), model.get_layer("fully_connected")
    feature_bytes = len(images) * math.prod(encoder.output_shape[1:]) * 4
    if config.augmentation is None and feature_bytes <= FEATURE_CACHE_BYTES:
        depends_on = (encoder.to_json(), *encoder.get_weights(), images, repr(scaling))
        features = get_features(lambda: predict(encoder, images, scaling), depends_on)
        _, flatten, *hidden = head.layers  # the first is its input
        dropout = 0.0
        if isinstance(hidden[0], keras.layers.Dropout) and not on_device.has_gpu():
            dropout = hidden.pop(0).rate
        trained = _chain([flatten, *hidden], encoder.output_shape[1:], DENSE_ONLY)
        return trained, features, None, dropout
    encoder.trainable = False
    frozen = InferenceMode(encoder)(model.inputs[0])
    return keras.Model(model.inputs, head(frozen), name=DENSE_ONLY), images, scaling, 0.0


def _stay_on_device(config: Config, inputs: np.ndarray) -> bool:
    """Whether a GPU keeps what is trained on; TensorFlow's CPU part augments."""
    return config.augmentation is None and on_device.is_possible(inputs)


def _fit(
    trained: keras.Model,
    history: History,
    batches: TrainingBatches,
    validation: Any,
    *,
    phase: str,
    epochs: int,
    rate: float,
    config: Config,
    loss: str,
    metric: keras.metrics.Metric,
    interruptible: Interruptible,
    workers: Workers | None,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    if workers:
        trained = DataParallel(trained, workers)
    speed = on_device.SPEED if on_device.has_gpu() else 1
    trained.compile(
        optimizer=_get_optimizer(config.optimizer.name)(rate),
        loss=loss,
        metrics=[metric],
        steps_per_execution=steps_per_execution(config.batch_size, batches.steps, speed),
    )
    trained.optimizer.build(trained.trainable_variables)
    epoch, step = interruptible.begin_phase(trained, phase, metric)
    callbacks = [
        schedule_callback(config.learning_rate_schedule, rate, epochs),
        Record(history, batches, phase, interruptible),  # first: others look at the last row
        *callbacks,
    ]
    value_bytes = 2 if config.mixed_precision else 4
    with (
        batches_in_memory(trained, batches.batch_size, value_bytes),
        AcrossFits(
            callbacks,
            trained,
            steps=batches.steps,
            epochs=epochs,
            epoch=epoch,
            step=step,
            rows=history.epochs,
        ) as across_fits,
    ):

        def fit(dataset: Any, end: int) -> None:
            trained.fit(
                dataset,
                initial_epoch=epoch,
                epochs=end,
                validation_data=validation,
                shuffle=False,  # the batches come in their epoch's order
                verbose=0,
                callbacks=across_fits,
            )

        if step:
            fit(batches.from_step(step), epoch + 1)
            epoch += 1
        if not trained.stop_training:
            if is_worthwhile(batches, epochs):
                fit_short_epochs(trained, batches, validation, across_fits, epoch, epochs)
            else:
                fit(batches.dataset, epochs)


def _get_optimizer(name: str) -> type[keras.optimizers.Optimizer]:
    optimizer = getattr(keras.optimizers, OPTIMIZERS[name], None)
    if optimizer is None:
        raise UserError(
            f"optimizer {name}",
            "must be one that the installed Keras has",
            f"Keras {keras.__version__}",
            "Choose another, or use Python 3.11 or later with a newer Keras.",
        )
    return optimizer


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
    for chunk in _chunks(indices):
        total += scaling.apply(images[chunk]).sum(axis=0, dtype=np.float64)
    return total / len(indices)


def _mean_image_error(
    images: np.ndarray, indices: np.ndarray, scaling: Scaling, mean_image: np.ndarray
) -> float:
    """Mean squared error of predicting the mean image for every chosen image."""
    total = sum(
        np.square(scaling.apply(images[chunk]) - mean_image).sum() for chunk in _chunks(indices)
    )
    return float(total) / (len(indices) * mean_image.size)


def _chunks(indices: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


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


# The names of the original program.
get_Autoencoder = get_autoencoder
train_Autoencoder = train_autoencoder
get_Classifier = get_classifier
train_Classifier = train_classifier
