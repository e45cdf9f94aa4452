"""Custom Keras layers, for training only: saved models contain none of them."""

import keras


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

    def call(self, inputs):
        """The wrapped layer's output in inference mode."""
        return self.wrapped(inputs, training=False)
