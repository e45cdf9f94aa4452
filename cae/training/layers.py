"""Layers that exist only while a model trains or predicts; saved models contain none of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from cae.records.saved_models import get_layers

# Layers with one input; a model that has no others, and calls each once, is a chain.
CHAINED = (
    keras.layers.Conv2D,
    keras.layers.Conv2DTranspose,
    keras.layers.MaxPooling2D,
    keras.layers.UpSampling2D,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.Cropping2D,
    keras.layers.Flatten,
    keras.layers.Dense,
    keras.layers.Reshape,
)

# Up to this many filters a matrix product beats oneDNN's convolution: it is twice as fast for one
# filter and 15 % faster for three, forward and backward, with 32 channels on AVX-512.
FEW_FILTERS = 3


class InferenceMode(keras.layers.Layer):
    """Calls a layer or model in inference mode, even within a model that is being trained.

    BatchNorm then uses its moving averages, and Dropout does nothing. A functional model cannot
    express this: Keras 3 passes `training=True` to every layer of the graph, even to one called
    with `training=False` when the graph was built.
    """

    def __init__(self, wrapped: keras.Layer):
        super().__init__(trainable=False)
        self.wrapped = wrapped

    def call(self, inputs: Any) -> Any:
        """The output of the wrapped layer in inference mode."""
        return self.wrapped(inputs, training=False)


class InParts(keras.layers.Layer):
    """Runs a model on the parts of a batch in turn, in inference mode, in one execution.

    Small parts stay in the processor's cache, and Python is involved once for all of them.
    """

    def __init__(self, model: keras.Model):
        super().__init__(trainable=False)
        self.model = model

    def call(self, inputs: Any) -> Any:
        """float (parts, size, ...) -> (parts, size, ...): the outputs of the model."""
        return ops.map(lambda part: self.model(part, training=False), inputs)


class FasterConv2D(keras.layers.Layer):
    """Computes an ordinary convolution in another way, with the weights of that convolution.

    Args:
        convolution: A `Conv2D` with stride 1, padding "same", no dilation and no groups.
    """

    def __init__(self, convolution: keras.layers.Conv2D, **arguments: Any):
        super().__init__(**arguments)
        self.convolution = convolution

    def build(self, input_shape: tuple) -> None:
        """Builds the convolution, unless it has weights already."""
        if not self.convolution.built:
            self.convolution.build(input_shape)

    def _finish(self, outputs: Any) -> Any:
        """Adds the bias and applies the activation."""
        if self.convolution.use_bias:
            outputs = outputs + ops.cast(self.convolution.bias, self.compute_dtype)
        return self.convolution.activation(outputs)


class UpSampleConv2D(FasterConv2D):
    """`UpSampling2D(size)` then a `Conv2D` with padding "same", as one transposed convolution.

    Repeating every pixel s times and then applying a kernel of k weights along an axis adds to
    output s·i + e (i an input position) the sum of the s weights that meet a copy of pixel i.
    Therefore the pair is a transposed convolution of stride s whose kernel has k + s - 1 entries,
    each a sum of at most s neighbours of the ordinary kernel: for k = 3 and s = 2, from (a, b, c),
    the entries (c, b + c, a + b, a). It needs ((k + s - 1) / (k · s))² of the multiplications, 0.44
    in this example.

    The results are equal to rounding.

    Args:
        convolution: As for `FasterConv2D`.
        size: The upsampling factors (height, width).
    """

    def __init__(self, convolution: keras.layers.Conv2D, size: tuple[int, int], **arguments: Any):
        super().__init__(convolution, **arguments)
        self.size = tuple(size)

    def build(self, input_shape: tuple) -> None:
        """Builds the convolution, and the matrix that turns its kernel into the transposed one."""
        super().build(input_shape)
        # Both axes in one matrix: entries of the transposed kernel by weights of the ordinary one.
        self._sums = np.kron(*map(summing_matrix, self.convolution.kernel_size, self.size))

    def call(self, inputs: Any) -> Any:
        """float (batch, height, width, channels) -> (batch, height·s, width·t, filters)."""
        if self.size[0] == 1 and inputs.shape[2] == 1:
            # TensorFlow 2.21 with oneDNN gets the gradient wrong for a stride of (1, s) here.
            return self.convolution(ops.repeat(inputs, self.size[1], axis=2))
        outputs = ops.conv_transpose(inputs, self._get_kernel(), strides=self.size, padding="same")
        return self._finish(outputs)

    def _get_kernel(self) -> Any:
        """(rows, columns, filters, channels) of the transposed convolution."""
        *size, channels, filters = self.convolution.kernel.shape
        rows, columns = (
            (length | 1) + factor - 1 for length, factor in zip(size, self.size, strict=True)
        )
        kernel = ops.transpose(ops.cast(self.convolution.kernel, self.compute_dtype), (0, 1, 3, 2))
        kernel = ops.reshape(kernel, (math.prod(size), filters * channels))
        kernel = ops.matmul(ops.cast(self._sums, self.compute_dtype), kernel)
        return ops.reshape(kernel, (rows, columns, filters, channels))


class FewFiltersConv2D(FasterConv2D):
    """A `Conv2D` with very few filters, as a matrix product and a sum over neighbours.

    oneDNN computes convolutions in blocks of 16 filters, and a convolution to grayscale uses one
    of them. Here a matrix product multiplies every pixel by all weights of all filters; a fixed
    convolution then adds each product to the output to which it belongs.
    """

    def call(self, inputs: Any) -> Any:
        """float (batch, height, width, channels) -> (batch, height, width, filters)."""
        _, height, width, channels = inputs.shape
        kernel = ops.cast(self.convolution.kernel, self.compute_dtype)
        *size, _, filters = kernel.shape
        products = filters * math.prod(size)
        kernel = ops.reshape(ops.transpose(kernel, (2, 3, 0, 1)), (channels, products))
        outputs = ops.matmul(ops.reshape(inputs, (-1, channels)), kernel)
        outputs = ops.reshape(outputs, (-1, height, width, products))
        # Every product belongs to one place in the kernel.
        places = np.einsum("fg,ab->afbg", np.eye(filters), np.eye(math.prod(size)))
        places = ops.cast(places.reshape(*size, products, filters), self.compute_dtype)
        outputs = ops.conv(outputs, places, padding="same")
        return self._finish(outputs)


class FusedBatchNorm(keras.layers.Layer):
    """A `BatchNormalization` of images, with its weights, as one operation of TensorFlow.

    Keras computes it by several, each of which moves all values through memory: on a CPU a training
    step of a small encoder took 91 ms, with this layer 55 ms, and without normalisation 39 ms.

    The results are equal to rounding.

    Args:
        batch_norm: Over the last axis, with scale and offset.
    """

    def __init__(self, batch_norm: keras.layers.BatchNormalization, **arguments: Any):
        super().__init__(**arguments)
        self.batch_norm = batch_norm

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """float (batch, height, width, channels) -> the same shape; updates the averages."""
        norm = self.batch_norm
        if not (training and norm.trainable):
            return norm(inputs, training=False)
        unused = tf.zeros((0,))
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,  # bfloat16 stays: the sums are float32 all the same, and casts take time
            scale=norm.gamma.value,
            offset=norm.beta.value,
            mean=unused,
            variance=unused,
            epsilon=norm.epsilon,
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance *= (count - 1) / count  # it divides by count - 1, Keras by count
        for average, value in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
            average.assign(average * norm.momentum + value * (1 - norm.momentum))
        return outputs


def summing_matrix(kernel_length: int, factor: int) -> np.ndarray:
    """Which weights of an ordinary kernel each entry of the transposed one sums, along one axis.

    An even kernel first gets a leading 0, which makes the transposed convolution symmetric and,
    with padding "same", does not change the result.

    Returns:
        float32 (kernel_length + factor - 1, kernel_length) of zeros and ones, with another row for
        an even kernel.
    """
    odd = kernel_length | 1
    entries, weights = np.mgrid[: odd + factor - 1, :odd]
    first = odd - 1 - entries
    sums = (first <= weights) & (weights < first + factor)
    return sums[:, odd - kernel_length :].astype(np.float32)


def fuse(model: keras.Model, batch_norm: bool = False) -> keras.Model:
    """A faster model with the same weights: each `upSample` and `conv` pair becomes one layer.

    Args:
        model: A chain of sub-models or layers of the types that configurations offer.
        batch_norm: Whether to replace BatchNorm too, which must not be synchronized then, and
            needs TensorFlow.

    Returns:
        A model for training. If there are other layers, or one is called twice, none is fused.
    """
    if not _is_chain(model):
        return keras.Model(model.inputs, model.output)
    layers = list(get_layers(model))
    outputs = model.inputs[0]
    while layers:
        layer = layers.pop(0)
        if layers and _is_pair(layer, layers[0]):
            convolution = layers.pop(0)
            layer = UpSampleConv2D(convolution, layer.size, dtype=convolution.dtype_policy)
        elif batch_norm and _is_fusible(layer):
            layer = FusedBatchNorm(layer, dtype=layer.dtype_policy)
        elif _has_few_filters(layer):
            layer = FewFiltersConv2D(layer, dtype=layer.dtype_policy)
        outputs = layer(outputs)
    return keras.Model(model.inputs, outputs)


@contextmanager
def bfloat16_inside(model: keras.Model) -> Iterator[None]:
    """All layers but the output compute in bfloat16 while this is open; weights stay float32.

    The output layer, which outputs pixels or probabilities, stays exact, and so does what crops
    it, because the loss takes logarithms of the output. Micikevicius et al. 2018, "Mixed precision
    training"; bfloat16 has the range of float32 and needs no scaling of the loss.
    """
    layers = list(get_layers(model))
    del layers[layers.index(get_output(layers)) :]
    try:
        with _changed(layers, "dtype_policy", keras.DTypePolicy("mixed_bfloat16")):
            forget_predictor(model)
            yield
    finally:
        forget_predictor(model)


def synchronized_batch_norm(model: keras.Model) -> AbstractContextManager[None]:
    """BatchNorm uses the statistics of all workers' images while this is open."""
    kind = keras.layers.BatchNormalization
    found = [layer for layer in get_layers(model) if isinstance(layer, kind)]
    return _changed(found, "synchronized", True)


@contextmanager
def _changed(layers: Sequence[keras.Layer], attribute: str, value: Any) -> Iterator[None]:
    """The layers' attribute has this value while this is open."""
    before = [getattr(layer, attribute) for layer in layers]
    try:
        for layer in layers:
            setattr(layer, attribute, value)
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            setattr(layer, attribute, old)


def get_predictor(model: keras.Model, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """The compiled function of `InParts` of `size` images, built once and kept with the model."""
    if getattr(model, "predictor", None) is None:
        inputs = keras.Input((size, *model.input_shape[1:]))
        # The method, not the model: Keras would save a model as a part of this one.
        model.predictor = keras.Model(inputs, InParts(model)(inputs)).predict_on_batch
    return model.predictor


def forget_predictor(model: keras.Model) -> None:
    """Forgets the compiled functions of a model and its sub-models after a change of layers."""
    for part in (model, *model.layers):
        part.predictor = None


def _is_chain(model: keras.Model) -> bool:
    calls = [len(layer.get("inbound_nodes", ())) for layer in model.get_config()["layers"]]
    return max(calls) <= 1 and all(
        _is_chain(layer) if isinstance(layer, keras.Model) else type(layer) in CHAINED
        for layer in model.layers
        if not isinstance(layer, keras.layers.InputLayer)
    )


def first_filters(model: keras.Model) -> np.ndarray | None:
    """The kernels of the encoder's first convolution, float32 (height, width, in, filters)."""
    for layer in model.get_layer("encoder").layers:
        if isinstance(layer, keras.layers.Conv2D):
            return layer.get_weights()[0]
    return None


def get_output(layers: Sequence[keras.Layer]) -> keras.Layer:
    """The last layer that computes something: what follows it only crops."""
    return next(layer for layer in reversed(layers) if type(layer) is not keras.layers.Cropping2D)


def _is_pair(upsampling: keras.Layer, convolution: keras.Layer) -> bool:
    return (
        isinstance(upsampling, keras.layers.UpSampling2D)
        and upsampling.interpolation == "nearest"
        and _keeps_size(convolution)
    )


def _is_fusible(layer: keras.Layer) -> bool:
    if not isinstance(layer, keras.layers.BatchNormalization) or len(layer.output.shape) != 4:
        return False
    return layer.axis in (-1, 3) and layer.scale and layer.center and not layer.renorm


def _has_few_filters(layer: keras.Layer) -> bool:
    if not _keeps_size(layer):
        return False
    *size, channels, filters = layer.kernel.shape
    return filters <= FEW_FILTERS and filters * math.prod(size) <= channels


def _keeps_size(layer: keras.Layer) -> bool:
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.padding == "same"
        and layer.strides == layer.dilation_rate == (1, 1)
        and layer.groups == 1
    )
