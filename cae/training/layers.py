"""Custom Keras layers, for training only: saved models contain none of them."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

# Layers with one input: a model of nothing else is a chain.
CHAINED = (
    keras.layers.Conv2D,
    keras.layers.MaxPooling2D,
    keras.layers.UpSampling2D,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
)

# Up to as many filters a matrix product beats oneDNN's convolution: twice as fast for one, 15 %
# for three, forward and back, at 32 channels on AVX-512.
FEW_FILTERS = 3


class InferenceMode(keras.layers.Layer):
    """Calls a layer or model as in inference, also while it is part of a model being fitted.

    BatchNorm then uses its moving averages and Dropout passes everything. A functional model
    cannot say so itself: in Keras 3, `fit` passes `training=True` to every layer of its graph,
    over a `training=False` given when the graph was built.

    Args:
        wrapped: The layer or model.
    """

    def __init__(self, wrapped: keras.Layer):
        super().__init__(trainable=False)
        self.wrapped = wrapped

    def call(self, inputs: Any) -> Any:
        """The wrapped layer's output in inference mode."""
        return self.wrapped(inputs, training=False)


class InParts(keras.layers.Layer):
    """Runs a model over a batch in parts, in inference mode, within one execution.

    Small parts stay in the processor's cache, and Python is asked once for all of them.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model):
        super().__init__(trainable=False)
        self.model = model

    def call(self, inputs: Any) -> Any:
        """float (parts, size, ...) -> (parts, size, ...), the model's output of every part."""
        return ops.map(lambda part: self.model(part, training=False), inputs)


class FasterConv2D(keras.layers.Layer):
    """Another way to compute an ordinary convolution, which keeps the weights.

    Args:
        convolution: A `Conv2D` with stride 1, padding "same", no dilation and no groups.
    """

    def __init__(self, convolution: keras.layers.Conv2D, **arguments: Any):
        super().__init__(**arguments)
        self.convolution = convolution

    def build(self, input_shape: tuple) -> None:
        """Builds the convolution, unless it has its weights already."""
        if not self.convolution.built:
            self.convolution.build(input_shape)

    def _finish(self, outputs: Any) -> Any:
        """Adds the bias and applies the activation."""
        if self.convolution.use_bias:
            outputs = outputs + ops.cast(self.convolution.bias, self.compute_dtype)
        return self.convolution.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        """The convolution's configuration."""
        convolution = keras.saving.serialize_keras_object(self.convolution)
        return {**super().get_config(), "convolution": convolution}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "FasterConv2D":
        """Rebuilds the layer and its convolution."""
        convolution = keras.saving.deserialize_keras_object(config.pop("convolution"))
        return cls(convolution, **config)


class UpSampleConv2D(FasterConv2D):
    """`UpSampling2D(size)` then a `Conv2D` with padding "same", as one transposed convolution.

    Repeating every pixel s times and then applying a kernel of k weights along an axis adds to
    output s·i + e (i an input position) the sum of the s weights that meet a copy of pixel i. So
    the pair is a transposed convolution of stride s whose kernel has k + s - 1 entries, each a sum
    of at most s neighbours of the ordinary kernel: for k = 3 and s = 2, from (a, b, c), the entries
    (c, b + c, a + b, a). It needs ((k + s - 1) / (k · s))² of the multiplications, 0.44 for those.

    Both compute the same to rounding.

    Args:
        convolution: As for `FasterConv2D`.
        size: The upsampling factors (height, width).
    """

    def __init__(self, convolution: keras.layers.Conv2D, size: tuple[int, int], **arguments: Any):
        super().__init__(convolution, **arguments)
        self.size = tuple(size)

    def build(self, input_shape: tuple) -> None:
        """Builds the convolution and what makes its kernel that of a transposed one."""
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

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """(batch, height·s, width·t, filters)."""
        batch, *size, _ = input_shape
        larger = [side and side * factor for side, factor in zip(size, self.size, strict=True)]
        return (batch, *larger, self.convolution.filters)

    def get_config(self) -> dict[str, Any]:
        """The convolution's configuration and the factors."""
        return {**super().get_config(), "size": self.size}


class FewFiltersConv2D(FasterConv2D):
    """A `Conv2D` with very few filters, as a matrix product and a sum over neighbours.

    oneDNN computes convolutions in blocks of 16 filters, of which an output convolution to
    grayscale fills one. Here every pixel meets all weights of all filters in one matrix product;
    a fixed convolution then adds each of these few numbers to the output it belongs to.
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
        # Every product belongs to one place of the kernel: a fixed convolution adds them up.
        places = np.einsum("fg,ab->afbg", np.eye(filters), np.eye(math.prod(size)))
        places = ops.cast(places.reshape(*size, products, filters), self.compute_dtype)
        outputs = ops.conv(outputs, places, padding="same")
        return self._finish(outputs)


def summing_matrix(kernel_length: int, factor: int) -> np.ndarray:
    """Which weights of an ordinary kernel each entry of the transposed one sums, along one axis.

    An even kernel is first given a leading 0: with padding "same" that leaves its result as it is
    and makes the transposed convolution symmetric.

    Returns:
        float32 (kernel_length + factor - 1, kernel_length), one row more for an even kernel, of
        zeros and ones.
    """
    odd = kernel_length | 1
    entries, weights = np.mgrid[: odd + factor - 1, :odd]
    first = odd - 1 - entries
    sums = (first <= weights) & (weights < first + factor)
    return sums[:, odd - kernel_length :].astype(np.float32)


def fuse(model: keras.Model) -> keras.Model:
    """The same computation over the same weights, every `upSample` and `conv` pair in one layer.

    Args:
        model: A chain of sub-models, or of layers, of the kinds that configurations have.

    Returns:
        A model for training; with other layers, which may not form a chain, nothing is fused.
    """
    layers = list(_flatten(model))
    if any(type(layer) not in CHAINED for layer in layers):
        return keras.Model(model.inputs, model.outputs)
    outputs = model.inputs[0]
    while layers:
        layer = layers.pop(0)
        if layers and _is_pair(layer, layers[0]):
            convolution = layers.pop(0)
            layer = UpSampleConv2D(convolution, layer.size, dtype=convolution.dtype_policy)
        elif _has_few_filters(layer):
            layer = FewFiltersConv2D(layer, dtype=layer.dtype_policy)
        outputs = layer(outputs)
    return keras.Model(model.inputs, outputs)


@contextmanager
def bfloat16_inside(model: keras.Model) -> Iterator[None]:
    """Lets all layers but the last compute in bfloat16 for the time being; weights stay float32.

    The last one, which makes pixels or probabilities, stays exact because the loss takes
    logarithms of its output. Micikevicius et al. 2018, "Mixed precision training"; bfloat16 has
    the range of float32 and needs no scaling of the loss.
    """
    *layers, _ = _flatten(model)
    policies = [layer.dtype_policy for layer in layers]
    try:
        for layer in layers:
            layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
        forget_predictor(model)
        yield
    finally:
        for layer, policy in zip(layers, policies, strict=True):
            layer.dtype_policy = policy
        forget_predictor(model)


@contextmanager
def synchronized_batch_norm(model: keras.Model) -> Iterator[None]:
    """Lets BatchNorm use the statistics of all workers' images for the time being."""
    found = [
        layer for layer in _flatten(model) if isinstance(layer, keras.layers.BatchNormalization)
    ]
    try:
        for layer in found:
            layer.synchronized = True
        yield
    finally:
        for layer in found:
            layer.synchronized = False


def get_predictor(model: keras.Model, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """The model as a compiled function of parts, `InParts`; made once and kept with the model.

    Args:
        model: Any model.
        size: Images a part.
    """
    if getattr(model, "predictor", None) is None:
        inputs = keras.Input((size, *model.input_shape[1:]))
        # The method and not the model: Keras would save a model as a part of this one.
        model.predictor = keras.Model(inputs, InParts(model)(inputs)).predict_on_batch
    return model.predictor


def forget_predictor(model: keras.Model) -> None:
    """Has the model, and its sub-models, compiled again after a change of its layers."""
    for part in (model, *model.layers):
        part.predictor = None


def _flatten(model: keras.Model) -> Iterator[keras.Layer]:
    """The layers of a model and its sub-models in order, without the inputs."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flatten(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def _is_pair(upsampling: keras.Layer, convolution: keras.Layer) -> bool:
    return (
        isinstance(upsampling, keras.layers.UpSampling2D)
        and upsampling.interpolation == "nearest"
        and _keeps_size(convolution)
    )


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
