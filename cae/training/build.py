"""Builds autoencoders and classifiers: `get_autoencoder`, `get_classifier`."""

import itertools
import math
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from cae.config.load import validate_config
from cae.config.schema import ClassifierConfig, Config, Kind
from cae.config.shapes import check_shapes, get_rounding
from cae.errors import ModelFileError, Say, UserError
from cae.foreign.interfaces import OWN_RANGE, check_shape
from cae.foreign.models import find_encoder, load_encoder
from cae.records.saved_models import get_layers, load_model

# With Keras' default of 0.99, inference agrees with training after some 500 batches; a short
# training on few images has fewer.
BATCH_NORM_MOMENTUM = 0.9
# The keys of a layer's configuration that say what it computes from its weights, and their shapes.
ARCHITECTURE = (
    *("filters", "units", "kernel_size", "strides", "pool_size", "size", "padding", "cropping"),
    *("target_shape", "activation", "use_bias", "dilation_rate", "groups", "interpolation"),
    *("epsilon", "center", "scale"),
)

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
        ConfigurationError: A hyperparameter is wrong, or the decoder does not restore the size.
        ModelFileError: The saved model cannot be loaded or takes images of another shape.
    """
    if isinstance(model_info, str | Path):
        return _load_for(model_info, input_shape)
    config = as_config(model_info, "autoencoder")
    check_shapes(config, input_shape, "model_info")
    keras.utils.set_random_seed(config.seed)
    rounding = get_rounding(config, input_shape)
    encoder_layers = _encoder_layers(config.encoder_layers, config.l2, rounding.pools)
    encoder = chain_layers(encoder_layers, input_shape, "encoder")
    decoder_layers = [
        *_undo_bottleneck(encoder_layers, config.l2),
        *_hidden_layers(config.decoder_layers, config.l2),
        keras.layers.Conv2D(
            input_shape[-1],
            3,
            padding="same",
            activation=config.activation_function.lower(),
            name="output",
        ),
    ]
    if rounding.pools:
        decoder_layers.append(keras.layers.Cropping2D(rounding.cropping))
    decoder = chain_layers(decoder_layers, encoder.output_shape[1:], "decoder")
    inputs = keras.Input(input_shape, name="images")
    return keras.Model(inputs, decoder(encoder(inputs)), name="autoencoder")


def get_classifier(
    model_info: ModelInfo,
    input_shape: Sequence[int],
    num_classes: int,
    *,
    encoder: keras.Model | str | Path | None = None,
    pretrained: bool = True,
    encoder_until: str | None = None,
    model_input_range: str | None = None,
    say: Say = lambda text: None,
) -> keras.Model:
    """Builds a classifier on an encoder, or loads a saved one when given a path.

    Args:
        model_info: Hyperparameters as in the JSON files, validated or not, or a path.
        input_shape: (height, width, channels) of the images.
        num_classes: At least 1.
        encoder: A model whose encoder can be found, or its path; the encoder is copied. By default
            `encoder_layers` names the saved model to use or lists the layers to build.
        pretrained: False uses the encoder's architecture with fresh weights.
        encoder_until: The encoder's last layer, instead of looking for it.
        model_input_range: The pixels that a file of another program expects; see `find_encoder`.
        say: Receives a sentence on how a file of another program is understood.

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
    config = as_config(model_info, "classifier")
    keras.utils.set_random_seed(config.seed)
    options = {"with_weights": pretrained, "until": encoder_until, "say": say}
    body = _get_encoder(config, input_shape, encoder, input_range=model_input_range, **options)
    head_layers = [
        keras.layers.Flatten(),
        *_hidden_layers(config.dense_layers, config.l2),
        keras.layers.Dense(num_classes, activation="softmax", name="probabilities"),
    ]
    head = chain_layers(head_layers, body.output_shape[1:], "fully_connected")
    inputs = keras.Input(input_shape, name="images")
    return keras.Model(inputs, head(body(inputs)), name="classifier")


def as_config(model_info: ModelInfo, kind: Kind) -> Any:
    """The configuration, validated if it is a dict."""
    if isinstance(model_info, dict):
        return validate_config(model_info, "model_info", kind)
    return model_info


def _get_encoder(
    config: ClassifierConfig,
    input_shape: Sequence[int],
    encoder: keras.Model | str | Path | None,
    input_range: str | None,
    **options: Any,
) -> keras.Model:
    """The encoder that the configuration lists, or that of a saved model by `find_encoder`."""
    source = config.encoder_layers if encoder is None else encoder
    if source is None:
        raise UserError(
            "encoder_layers",
            "an encoder is required",
            "none",
            "Pass -model MODEL, or set encoder_layers in the configuration.",
        )
    if isinstance(source, tuple | list):
        check_shapes(config, input_shape, "model_info")
        return chain_layers(_encoder_layers(source, config.l2), input_shape, "encoder")
    if isinstance(source, keras.Model):
        options["input_range"] = input_range or OWN_RANGE
        return find_encoder(source, source.name, input_shape, **options)
    return load_encoder(source, input_shape, input_range=input_range, **options)


def _load_for(path: str | Path, input_shape: Sequence[int]) -> keras.Model:
    model, _ = load_model(path)
    check_shape(model, input_shape, path)
    return model


def start_from(model: keras.Model, path: str | Path) -> None:
    """Copies the weights of a saved model with the same layers, however these are nested.

    Args:
        model: From `get_autoencoder` or `get_classifier`.
        path: The saved model.

    Raises:
        ModelFileError: It cannot be loaded, or a layer differs.
    """
    saved, metadata = load_model(path)
    check_shape(saved, model.input_shape[1:], path)
    own = [
        (f"{part.name} layer {number}", layer)
        for part in model.layers
        if isinstance(part, keras.Model)
        for number, layer in enumerate(get_layers(part), 1)
    ]
    for mine, source in itertools.zip_longest(own, get_layers(saved)):
        place, layer = mine or ("after the last layer", None)
        required, found = _describe(layer), _describe(source)
        if required != found:
            raise ModelFileError(
                path,
                f"must have the layers of the configuration, here {place}: {required}",
                f"{place}: {found}",
                "Use the configuration that it was trained with, or leave out -c."
                if "model_info" in metadata
                else "List the layers of the file in the configuration, or give another file.",
            )
    for (_, layer), source in zip(own, get_layers(saved), strict=True):
        layer.set_weights(source.get_weights())


def _describe(layer: keras.Layer | None) -> str:
    """The type of a layer, and what decides what it computes from its weights."""
    if layer is None:
        return "no layer"
    config = layer.get_config()
    values = ", ".join(f"{key} {config[key]}" for key in ARCHITECTURE if key in config)
    return f"{type(layer).__name__} {values}".strip()


def _hidden_layers(
    specification: Iterable[tuple], l2: float, rounded: Collection[int] = ()
) -> list[keras.Layer]:
    """Keras layers for the lists of a configuration, with He initialisation.

    The pools at the indices `rounded` round up.

    He, Zhang, Ren & Sun 2015, "Delving deep into rectifiers". With Keras' default (Glorot) textbook
    autoencoders collapse to black images more often.
    """
    relu = {
        "activation": "relu",
        "kernel_initializer": "he_normal",
        "kernel_regularizer": _get_regularizer(l2),
    }
    built = []
    for index, layer in enumerate(specification):
        match layer:
            case ("conv", filters, size, *strides):
                same = {"strides": strides[0] if strides else 1, "padding": "same"}
                built.append(keras.layers.Conv2D(filters, size, **same, **relu))
            case ("convTranspose", filters, size, strides):
                same = {"strides": strides, "padding": "same"}
                built.append(keras.layers.Conv2DTranspose(filters, size, **same, **relu))
            case ("dense", units):
                built.append(keras.layers.Dense(units, **relu))
            case ("pool", size):
                padding = "same" if index in rounded else "valid"
                built.append(keras.layers.MaxPooling2D(size, padding=padding))
            case ("upSample", size):
                built.append(keras.layers.UpSampling2D(size))
            case ("batchNorm",):
                built.append(keras.layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM))
            case ("drop", rate):
                built.append(keras.layers.Dropout(rate))
            case _:
                raise ValueError(f"unknown layer {layer!r}")
    return built


def _get_regularizer(l2: float) -> keras.regularizers.Regularizer | None:
    return keras.regularizers.L2(l2) if l2 else None


def _encoder_layers(
    specification: tuple, l2: float, rounded: Collection[int] = ()
) -> list[keras.Layer]:
    """Those of `_hidden_layers`, but a dense layer, the bottleneck at the end, is linear."""
    *hidden, last = specification
    if last[0] != "dense":
        return _hidden_layers(specification, l2, rounded)
    bottleneck = keras.layers.Dense(last[1], kernel_regularizer=_get_regularizer(l2))
    return [*_hidden_layers(hidden, l2, rounded), keras.layers.Flatten(), bottleneck]


def _undo_bottleneck(encoder_layers: Sequence[keras.Layer], l2: float) -> list[keras.Layer]:
    """From the numbers of a dense bottleneck to the shape before it; nothing without one."""
    *_, flatten, bottleneck = (None, *encoder_layers)
    if not isinstance(bottleneck, keras.layers.Dense):
        return []
    shape = flatten.input.shape[1:]
    return [*_hidden_layers([("dense", math.prod(shape))], l2), keras.layers.Reshape(shape)]


def chain_layers(
    chain: Sequence[keras.Layer], input_shape: Sequence[int], name: str
) -> keras.Model:
    """A model that calls the layers one after the other; they may belong to other models too."""
    inputs = keras.Input(input_shape)
    outputs = inputs
    for layer in chain:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def with_summary(classifier: keras.Model) -> keras.Model:
    """A classifier that also says how an image is encoded.

    Args:
        classifier: From `get_classifier`.

    Returns:
        A model of images to float32 (batch, num_values + num_classes): the summary of the encoding
        (mean and standard deviation of each channel, or a vector as it is), then the probabilities.
    """
    images = keras.Input(classifier.input_shape[1:])
    encoding = classifier.get_layer("encoder")(images)
    probabilities = classifier.get_layer("fully_connected")(encoding)
    summary = [encoding]
    if places := tuple(range(1, len(encoding.shape) - 1)):
        summary = [ops.mean(encoding, axis=places), ops.std(encoding, axis=places)]
    return keras.Model(images, ops.concatenate([*summary, probabilities], axis=1))


def with_error(autoencoder: keras.Model) -> keras.Model:
    """A model of images to the mean squared errors of their reconstructions, (batch, 1)."""
    images = keras.Input(autoencoder.input_shape[1:])
    errors = ops.mean(ops.square(autoencoder(images) - images), axis=(1, 2, 3))
    return keras.Model(images, ops.expand_dims(errors, 1))
