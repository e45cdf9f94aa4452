"""Builds autoencoders and classifiers: `get_autoencoder`, `get_classifier`."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from cae.config.load import validate_config
from cae.config.schema import ClassifierConfig, Config, Kind
from cae.config.shapes import check_shapes, format_shape
from cae.errors import ModelFileError, UserError
from cae.records.saved_models import find_encoder, load_model

# With Keras' default of 0.99, inference agrees with training after some 500 batches; a short
# training on few images has fewer.
BATCH_NORM_MOMENTUM = 0.9
# The keys of a layer's configuration that determine what it computes from its weights.
ARCHITECTURE = ("filters", "units", "kernel_size", "pool_size", "size", "padding", "activation")

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
) -> keras.Model:
    """Builds a classifier on an encoder, or loads a saved one when given a path.

    Args:
        model_info: Hyperparameters as in the JSON files, validated or not, or a path.
        input_shape: (height, width, channels) of the images.
        num_classes: At least 1.
        encoder: A model with a sub-model `encoder`, or its path; the encoder is copied. By default
            `encoder_layers` names the saved model to use or lists the layers to build.
        pretrained: False uses the encoder's architecture with fresh weights.

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
    body = _get_encoder(config, input_shape, encoder, pretrained)
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
    pretrained: bool,
) -> keras.Model:
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
    """Copies the weights of a saved model with the same layers into a model.

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
                "Use the configuration that it was trained with, or leave out -c.",
            )
    model.set_weights(saved.get_weights())


def _describe_layers(model: keras.Model) -> Iterator[str]:
    """A line for each layer of each sub-model, without inputs."""
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
            "Use images of that shape, or train an autoencoder on these images.",
        )


def _hidden_layers(specification: Iterable[tuple], l2: float) -> list[keras.Layer]:
    """Keras layers for the lists of a configuration, with He initialisation.

    He, Zhang, Ren & Sun 2015, "Delving deep into rectifiers". With Keras' default (Glorot) textbook
    autoencoders collapse to black images more often.
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


def chain_layers(
    chain: Sequence[keras.Layer], input_shape: Sequence[int], name: str
) -> keras.Model:
    """A model that calls the layers one after the other; they may belong to other models too."""
    inputs = keras.Input(input_shape)
    outputs = inputs
    for layer in chain:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def _stack(
    specification: Iterable[tuple], input_shape: Sequence[int], l2: float, name: str
) -> keras.Model:
    return chain_layers(_hidden_layers(specification, l2), input_shape, name)
