"""Models as other programs make them, and what plain Keras computes with them."""

import keras
import numpy as np
from keras import layers

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).random((4, *SHAPE), dtype=np.float32)
SAME = {"padding": "same", "activation": "relu"}


def chain(*parts, shape=SHAPE, name=None):
    """A functional model of layers in a row."""
    inputs = outputs = keras.Input(shape)
    for layer in parts:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs, name=name)


def encode(model, layer, images=IMAGES):
    """The outputs of a layer, by plain Keras."""
    return keras.Model(model.inputs, model.get_layer(layer).output).predict_on_batch(images)


def check_same(model, expected, tolerance=1e-6):
    """A model takes the images as they are and gives what plain Keras gave."""
    assert model.input_shape == (None, *SHAPE)
    found = model.predict_on_batch(IMAGES)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def conv(filters, name=None):
    return layers.Conv2D(filters, 3, name=name, **SAME)


def pool(name=None):
    return layers.MaxPooling2D(name=name)


def textbook_layers():
    """The decoder begins with a convolution that makes the same shape as the encoder."""
    output = layers.Conv2D(1, 3, padding="same", activation="sigmoid")
    encoder = [conv(4), pool(), conv(2), pool("last")]
    return [*encoder, conv(2), layers.UpSampling2D(), conv(4), layers.UpSampling2D(), output]


def textbook():
    return chain(*textbook_layers())


def joint():
    """A reconstruction and classes."""
    inputs = keras.Input(SHAPE)
    down = pool("bottom")(conv(2)(inputs))
    classes = layers.Dense(3, activation="softmax")(layers.Flatten()(down))
    return keras.Model(inputs, [layers.Conv2DTranspose(1, 2, strides=2)(down), classes])


def conditional():
    """Image and class go in."""
    inputs, classes = keras.Input(SHAPE), keras.Input((3,), name="classes")
    joined = layers.Concatenate()([layers.Flatten()(inputs), classes])
    return keras.Model([inputs, classes], layers.Dense(4, name="bottom")(joined))
