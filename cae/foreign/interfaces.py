"""Fits what a model takes and returns to this program: images in [0, 1] and probabilities.

Keras is imported by the functions that need it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from cae.config.choices import INPUT_RANGES
from cae.config.shapes import format_shape
from cae.errors import ModelFileError, Say
from cae.foreign.unrolled import Unrolled, describe_layers
from cae.records.calibration import TINY
from cae.records.saved_models import get_layers
from cae.records.untrusted import names_of

if TYPE_CHECKING:
    import keras

OWN_RANGE = "0..1"
# The pixels that a model expects -> the factor and offset that turn pixels in [0, 1] into them.
RESCALINGS = dict(zip(INPUT_RANGES, ((1, 0), (255, 0), (2, -1)), strict=True))
# Layers that leave the meaning of numbers as it is, in front of a model or at its end.
PASSING = names_of(
    """
    CenterCrop Cropping2D Dropout Flatten GaussianDropout GaussianNoise Permute RandomBrightness
    RandomContrast RandomCrop RandomFlip RandomRotation RandomTranslation RandomZoom Reshape
    Resizing SpatialDropout2D ZeroPadding2D
    """
)
LINEAR = "linear"  # no activation
# Activations that show the range of what they make.
RANGES = {"sigmoid": OWN_RANGE, "hard_sigmoid": OWN_RANGE, "tanh": "-1..1", "hard_tanh": "-1..1"}
CHANNELS = (1, 3)  # of pictures
TO_CHANNELS_FIRST = (
    "Put keras.layers.Permute((3, 1, 2)) in front of it, for images of height × width × channels, "
    "and save that."
)


def check_one(what: Literal["input", "output"], model: "keras.Model", where: object) -> None:
    """Raises a ModelFileError unless a model has one input, or one output."""
    tensors = model.inputs if what == "input" else model.outputs
    if len(tensors) == 1:
        return
    names = [tensor.name for tensor in tensors] if what == "input" else model.output_names
    shapes = [format_shape(tensor.shape[1:]) for tensor in tensors]
    listed = ", ".join(map(" ".join, zip(names, shapes, strict=True)))
    got = f"{len(tensors)} {what}s ({listed}), in the layers {describe_layers(model)}"
    remedy = f"Save the part with one {what} as a model of its own."
    raise ModelFileError(where, f"must have one {what}", got, remedy)


# --- Inputs ---------------------------------------------------------------------------------


def check_shape(model: "keras.Model", input_shape: Sequence[int | None], where: object) -> None:
    """Raises a ModelFileError unless a model has one input, of these images, and one output."""
    check_one("input", model, where)
    if not _fits(model.inputs[0].shape[1:], input_shape):
        _refuse_shape(model.inputs[0].shape[1:], input_shape, where)
    check_one("output", model, where)


def adapt_input(
    model: "keras.Model",
    where: object,
    input_shape: Sequence[int | None],
    input_range: str | None,
    say: Say,
) -> tuple[Any, Any, str]:
    """Turns images of this program into what a model takes.

    Args:
        model: A loaded model.
        where: Its file, for errors.
        input_shape: (height, width, channels) of the images.
        input_range: The pixels that the model expects, one of `INPUT_RANGES`; None: as its first
            layers show, or else those of this program.
        say: Receives a sentence on the pixels that were found or assumed.

    Returns:
        Two symbolic tensors: the images (batch, *input_shape) in [0, 1], and the model's input;
        and the pixels that it expects.

    Raises:
        ModelFileError: The model takes other shapes, or has several inputs.
    """
    import keras

    check_one("input", model, where)
    expected = model.inputs[0].shape[1:]
    images = inputs = keras.Input(input_shape, name="images")
    input_range = input_range or _find_range(model, where, say)
    factor, offset = RESCALINGS[input_range]
    if factor != 1:
        inputs = keras.layers.Rescaling(factor, offset, name="to_input_range")(inputs)
    if _is_without_channels(expected, input_shape):
        inputs = keras.layers.Reshape(expected, name="to_input_shape")(inputs)
    elif not _fits(expected, input_shape):
        _refuse_shape(expected, input_shape, where)
    return images, inputs, input_range


def _find_range(model: "keras.Model", where: object, say: Say) -> str:
    """The pixels that the first layer shows to be expected, or else those of this program."""
    first = next((i for i in get_layers(model) if type(i).__name__ not in PASSING), None)
    kind, found = type(first).__name__, None
    if kind == "Rescaling":
        scale = np.asarray(first.scale)
        if scale.min() > 0 and scale.max() <= 1 / 64:  # 1/255 and 1/127.5 are usual
            found = "0..255"
        elif scale.min() >= 0.5:
            found = OWN_RANGE
    elif kind == "Normalization":
        lowest, deviation = np.min(first.mean), np.sqrt(np.asarray(first.variance))
        highest = (np.asarray(first.mean) + 2 * deviation).max()
        if lowest >= 0:
            found = "0..255" if highest > 5 else OWN_RANGE
        elif lowest >= -1 and highest <= 3:
            found = "-1..1"
    if found:
        say(f"{where} expects pixels in {found}, as its layer {first.name} ({kind}) shows.")
    else:
        say(
            f"{where} does not state the range of its pixels: {OWN_RANGE} is assumed. "
            "If it was trained on another one, add --model-input-range 0..255 or -1..1."
        )
    return found or OWN_RANGE


def _fits(expected: Sequence[int | None], input_shape: Sequence[int | None]) -> bool:
    return len(expected) == len(input_shape) and all(
        size in (None, given) for size, given in zip(expected, input_shape, strict=True)
    )


def _is_without_channels(expected: Sequence[int | None], input_shape: Sequence[int | None]) -> bool:
    """Whether a model takes (height, width), or all pixels in a row."""
    *size, channels = input_shape
    if None in input_shape:
        return False
    return tuple(expected) == (np.prod(input_shape),) or (channels == 1 and list(expected) == size)


def check_channels_last(shape: Sequence[int | None], where: object) -> None:
    """Raises a ModelFileError if a model takes channels first, 1 or 3 of them."""
    if shape[0] in CHANNELS and shape[-1] not in CHANNELS:
        required = "must take images of height × width × channels"
        got = f"{format_shape(shape)} (channels first)"
        raise ModelFileError(where, required, got, TO_CHANNELS_FIRST)


def _refuse_shape(
    expected: Sequence[int | None], input_shape: Sequence[int | None], where: object
) -> NoReturn:
    order = " (height × width × channels)" if len(expected) == 3 else ""
    remedy = "Use images of that shape, or train an autoencoder on these images."
    if tuple(expected) == (input_shape[-1], *input_shape[:-1]):
        order = " (channels first)"
        remedy = TO_CHANNELS_FIRST
    required = f"requires images of shape {format_shape(expected)}{order}"
    raise ModelFileError(where, required, f"images of shape {format_shape(input_shape)}", remedy)


# --- Outputs --------------------------------------------------------------------------------


def is_image(shape: Sequence[int | None], input_shape: Sequence[int | None]) -> bool:
    """Whether outputs of a shape are images of `input_shape`, with or without their channels."""
    return tuple(shape) == tuple(input_shape) or _is_without_channels(shape, input_shape)


def get_images(
    network: Unrolled, where: object, input_shape: Sequence[int], input_range: str, say: Say
) -> Any:
    """Turns outputs of an autoencoder into images of this program.

    The arguments are those of `adapt_input`; `input_range` is what that returned.

    Returns:
        A symbolic tensor (batch, *input_shape): in [0, 1] as far as the model keeps to its range.

    Raises:
        ModelFileError: The outputs are not such images.
    """
    import keras

    (outputs,) = network.outputs
    shape = outputs.shape[1:]
    if not is_image(shape, input_shape):
        got = f"a model of {format_shape(input_shape)} to {format_shape(shape)}"
        raise ModelFileError(where, "must be an autoencoder", got, "Choose another model.")
    factor, offset = RESCALINGS[_find_output_range(network, where, input_range, say)]
    if factor != 1:
        from_range = keras.layers.Rescaling(1 / factor, -offset / factor, name="from_output_range")
        outputs = from_range(outputs)
    return keras.layers.Reshape(input_shape, name="to_images")(outputs)


def _find_output_range(network: Unrolled, where: object, input_range: str, say: Say) -> str:
    """The range of the output's pixels, as the last layers show it, or else that of the input."""
    last = next((call for call in reversed(network.calls) if call.kind not in PASSING), None)
    if last and last.kind == "Rescaling":
        is_large = np.max(last.layer.scale) >= 64  # 255 and 127.5 are usual
        centred = "-1..1" if np.min(last.layer.offset) < 0 else OWN_RANGE
        found = "0..255" if is_large else centred
    else:
        found = RANGES.get(get_activation(network))
    if (found or input_range) != OWN_RANGE:
        why = f"as its layer {last} shows" if found else "like its input: no layer shows a range"
        say(f"{where} outputs pixels in {found or input_range}, {why}.")
    return found or input_range


def get_probabilities(network: Unrolled, where: object, say: Say) -> Any:
    """Turns outputs of a classifier into probabilities.

    `say` receives a sentence if they are not probabilities yet.

    Returns:
        A symbolic tensor (batch, num_classes): in [0, 1], with the sum 1.

    Raises:
        ModelFileError: The model is not a classifier, or the meaning of its outputs is unknown.
    """
    from keras import ops

    (outputs,), shape = network.outputs, network.outputs[0].shape[1:]
    if len(shape) != 1:
        got = f"a model whose output has shape {format_shape(shape)}"
        remedy = "Use one saved by classification.py."
        raise ModelFileError(where, "must be a classifier", got, remedy)
    activation, is_single = get_activation(network), shape == (1,)
    is_rounded = outputs.dtype != "float32"  # of mixed precision: sums may be a hundredth off
    outputs = ops.cast(outputs, "float32") if is_rounded else outputs
    match activation:
        case "sigmoid" | "linear" if is_single:
            say(f"{where} has one output: the probability of the second class.")
            second = outputs if activation == "sigmoid" else ops.sigmoid(outputs)
            return ops.concatenate([1 - second, second], axis=1)
        case "softmax" if not is_single:
            return _divide_by_sum(outputs) if is_rounded else outputs
        case "log_softmax" if not is_single:
            return ops.softmax(outputs) if is_rounded else ops.exp(outputs)
        case "sigmoid" if not is_single:
            say(f"{where} ends with sigmoid: its outputs are divided by their sum.")
            return _divide_by_sum(outputs)
        case "linear" if not is_single:
            say(f"{where} ends without an activation: softmax makes its outputs probabilities.")
            return ops.softmax(outputs)
    required = "must end with softmax over several outputs, or with sigmoid or no activation"
    got = f"{network.calls[-1]} with activation {activation or 'unknown'}"
    remedy = "Use a classifier whose outputs are probabilities or logits."
    raise ModelFileError(where, required, got, remedy)


def _divide_by_sum(outputs: Any) -> Any:
    """Positive outputs (batch, num_classes), with the sum 1."""
    from keras import ops

    return ops.softmax(ops.log(ops.maximum(outputs, TINY)))


def get_activation(network: Unrolled) -> str | None:
    """The activation that produces the outputs.

    None if that is unknown, as for a softmax at each place of an image whose results are combined.
    """
    import keras

    is_of_one_place = True
    for call in reversed(network.calls):
        name = None
        if call.kind == "Softmax":
            name = "softmax"
        elif hasattr(call.layer, "activation"):
            name = keras.activations.serialize(call.layer.activation)
        elif call.kind in PASSING | {"GlobalAveragePooling2D"}:
            is_of_one_place &= call.inputs[0].shape[-1] == call.shape[-1]
            continue
        is_known = isinstance(name, str) and (is_of_one_place or "softmax" not in name)
        return name if is_known else None
    return None
