"""Encoders, autoencoders and classifiers that other programs saved, found by their structure.

Encoders and classifiers of saved models are found here, whoever saved them; `training/build.py`
loads whole models of this program itself. What is returned takes images (height, width, channels)
in [0, 1] and has one output. Keras is imported by the functions that need it.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cae.config.shapes import format_shape
from cae.errors import ModelFileError, Say
from cae.foreign.interfaces import (
    LINEAR,
    OWN_RANGE,
    adapt_input,
    check_one,
    get_activation,
    get_images,
    get_probabilities,
    is_image,
)
from cae.foreign.unrolled import LayerCall, Unrolled, describe_layers, unroll
from cae.records.saved_models import check_activations, load_model
from cae.records.untrusted import names_of

if TYPE_CHECKING:
    import keras

EXPANDING = frozenset({"UpSampling2D", "Conv2DTranspose"})
POOLING = frozenset({"Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D"})
# Layers that finish the work of the one before them.
FINISHING = names_of(
    """
    Activation BatchNormalization ELU GroupNormalization LayerNormalization LeakyReLU PReLU ReLU
    UnitNormalization
    """
)
# What classifiers end with; other activations make features.
CLASSIFYING = (None, LINEAR, "softmax", "log_softmax", "sigmoid")


def load_encoder(
    path: str | Path, input_shape: Sequence[int], *, input_range: str | None = None, **options: Any
) -> "keras.Model":
    """Loads a saved model and copies its encoder; the arguments are those of `find_encoder`."""
    model, metadata = load_model(path)
    input_range = input_range or get_own_range(metadata)
    return find_encoder(model, path, input_shape, input_range=input_range, **options)


def find_encoder(
    model: "keras.Model",
    where: object,
    input_shape: Sequence[int] | None = None,
    *,
    until: str | None = None,
    input_range: str | None = None,
    with_weights: bool = True,
    say: Say = lambda text: None,
) -> "keras.Model":
    """Copies the encoder of an autoencoder, or of a classifier, or one that was saved alone.

    A model called `encoder` is taken as it is, with what stands before it in the model around it.
    Of other autoencoders it is the layers up to the narrowest output before the first upsampling,
    of classifiers those before Flatten or global pooling.

    Args:
        model: A loaded model.
        where: Its file, for errors.
        input_shape: (height, width, channels) of the images; what the model states without it.
        until: The name of the encoder's last layer, instead of looking for it.
        input_range: The pixels that the model expects; see `adapt_input`.
        with_weights: Whether to copy its weights, or start with fresh ones.
        say: Receives a sentence for each choice that the model does not make itself.

    Returns:
        A functional model named `encoder` without nested models, of float32 (batch, height, width,
        channels) in [0, 1] to encodings.

    Raises:
        ModelFileError: There is no encoder that can be found, or it takes other images.
    """
    import keras

    found = model
    if until is None and not is_encoder_name(model.name):
        found = _find_named(model) or model
    if len(model.inputs) > 1:  # the decoder may take others than images
        model = found
    images, inputs, _ = adapt_input(
        model, where, input_shape or model.inputs[0].shape[1:], input_range, say
    )
    network = _unroll(model, inputs, where, until=found, with_weights=with_weights)
    if until is not None:
        outputs = [_find_output(model, network, until, where)]
    elif is_encoder_name(found.name):
        check_one("output", found, where)
        outputs = network.outputs
    else:
        last, reason = _find_last(model, network, where, images.shape[1:])
        outputs = [last.output]
        say(
            f"The encoder of {where} ends with its layer {last}, {reason}; "
            "--encoder-until LAYER chooses another."
        )
    return keras.Model(images, outputs[0], name="encoder")


def find_classifier(
    model: "keras.Model",
    where: object,
    input_shape: Sequence[int],
    *,
    input_range: str | None = None,
    say: Say = lambda text: None,
) -> "keras.Model":
    """Copies a classifier, with probabilities in place of logits or of a single output.

    The arguments are those of `find_encoder`.

    Returns:
        A model of float32 (batch, height, width, channels) in [0, 1] to probabilities, float32
        (batch, num_classes), whose sum is 1.

    Raises:
        ModelFileError: It is not a classifier, or takes other images.
    """
    import keras

    check_one("output", model, where)
    images, inputs, _ = adapt_input(model, where, input_shape, input_range, say)
    network = _unroll(model, inputs, where)
    return keras.Model(images, get_probabilities(network, where, say), name=model.name)


def find_autoencoder(
    model: "keras.Model",
    where: object,
    input_shape: Sequence[int],
    *,
    input_range: str | None = None,
    say: Say = lambda text: None,
) -> "keras.Model":
    """Copies an autoencoder; the arguments are those of `find_encoder`.

    Returns:
        A model of float32 (batch, height, width, channels) in [0, 1] to such images.

    Raises:
        ModelFileError: It is not an autoencoder, or takes other images.
    """
    import keras

    check_one("output", model, where)
    images, inputs, input_range = adapt_input(model, where, input_shape, input_range, say)
    network = _unroll(model, inputs, where)
    outputs = get_images(network, where, input_shape, input_range, say)
    return keras.Model(images, outputs, name=model.name)


def is_encoder_name(name: str) -> bool:
    """Whether something is called an encoder: `Encoder` or `encoder_1`, but not `autoencoder`."""
    name = name.lower()
    return "encoder" in name and "autoencoder" not in name and "decoder" not in name


def _find_named(model: "keras.Model") -> "keras.Model | None":
    """The first nested model that is called an encoder, one called just so before others."""
    nested = [layer for layer in model.layers if hasattr(layer, "layers")]
    named = [layer for layer in nested if is_encoder_name(layer.name)]
    named.sort(key=lambda layer: layer.name.lower() != "encoder")
    return next(iter([*named, *filter(None, map(_find_named, nested))]), None)


def get_own_range(metadata: dict[str, Any]) -> str | None:
    """The pixels that a model of this program expects; None for files of other programs."""
    return OWN_RANGE if "scaling" in metadata else None


# --- By structure ---------------------------------------------------------------------------


def _find_last(
    model: "keras.Model", network: Unrolled, where: object, input_shape: Sequence[int]
) -> tuple[LayerCall, str]:
    """The encoder's last layer, and what it is there."""
    weighted = [number for number, call in enumerate(network.calls) if call.has_weights]
    if len(model.outputs) > 1:
        _refuse(model, where, f"{len(model.outputs)} outputs")
    if not weighted:
        _refuse(model, where, "no layers with weights")
    first, last = weighted[0], weighted[-1]
    expanding = [i for i in range(first + 1, last + 1) if network.calls[i].kind in EXPANDING]
    if expanding or is_image(network.outputs[0].shape[1:], input_shape):
        found = _find_bottleneck(network, first, expanding, last)
        missing = "an autoencoder with connections around its narrowest layer"
    elif len(network.calls[-1].shape) == 3 or _makes_features(network, where):
        return network.calls[-1], "the last of all"
    else:
        found = _find_features(network, first)
        missing = "a classifier without convolutions before Flatten or global pooling"
    if not found:
        _refuse(model, where, missing)
    return found


def _makes_features(network: Unrolled, where: object) -> bool:
    """Whether the last outputs, which are vectors, are not those of a classifier."""
    is_called_so = isinstance(where, str | Path) and is_encoder_name(Path(where).stem)
    return is_called_so or get_activation(network) not in CLASSIFYING


def _find_bottleneck(
    network: Unrolled, start: int, expanding: Sequence[int], last: int
) -> tuple[LayerCall, str] | None:
    """Finds the bottleneck of an autoencoder whose weights are in the calls from `start` to `last`.

    None if connections lead around what its decoder begins with, as in a U-Net. Around other layers
    they may: an encoder may have residual blocks and gates.
    """
    calls = network.calls

    def width(number: int) -> tuple[int, int]:
        return calls[number].positions, calls[number].size

    end = min([*expanding, last])
    cuts = [number for number in network.find_cuts() if start <= number < end]
    made = {id(calls[number].output): number for number in range(end)}
    inner = [made[id(tensor)] for tensor in calls[end].inputs if id(tensor) in made]
    narrowest = min(inner if expanding else range(start, end), key=width, default=None)
    number = min(cuts, key=width, default=None)
    if number is None or narrowest is None or width(number) > width(narrowest):
        return None
    while number + 1 in cuts and calls[number + 1].kind in FINISHING:
        number += 1
    return calls[number], "the narrowest before the decoder"


def _find_features(network: Unrolled, start: int) -> tuple[LayerCall, str] | None:
    """Finds the features of a classifier whose first weights are in call `start`."""
    for before, number in pairwise(network.find_cuts()):
        if network.calls[number].kind in POOLING and before >= start:
            return network.calls[before], f"the one before {network.calls[number].layer.name}"
    return None


def _find_output(model: "keras.Model", network: Unrolled, name: str, where: object) -> Any:
    """The output of the layer called `name`."""
    for call in network.calls:
        if call.layer.name == name:
            return call.output
    raise ModelFileError(
        where,
        "must have the layer that --encoder-until names",
        f"no {name} among {describe_layers(model)}",
        "Use the name of one of these layers.",
    )


def _refuse(model: "keras.Model", where: object, got: str) -> NoReturn:
    required = "must have a layer that can be recognised as the encoder's last"
    remedy = "Name the encoder's last layer with --encoder-until LAYER."
    raise ModelFileError(where, required, f"{got}, in the layers {describe_layers(model)}", remedy)


def _unroll(model: "keras.Model", inputs: object, where: object, **options: Any) -> Unrolled:
    """Unrolls a model within the limits of memory."""
    try:
        network = unroll(model, [inputs], **options)
    except Exception as error:  # Keras raises nearly every type
        required = f"must compute with images of shape {format_shape(inputs.shape[1:])}"
        got = " ".join(str(error).split())[-200:]
        remedy = "Use images of another size, or another model."
        raise ModelFileError(where, required, got, remedy) from error
    if network.calls:
        largest = max(network.calls, key=lambda call: call.size)
        check_activations(where, largest.size, largest)
    return network
