"""Where the encoder of another program's model ends, or one line that lists its layers."""

import keras
import numpy as np
import pytest
from foreign_models import (
    IMAGES,
    SAME,
    SHAPE,
    chain,
    check_same,
    conditional,
    conv,
    encode,
    joint,
    pool,
    textbook,
    textbook_layers,
)
from keras import layers

from cae.errors import ModelFileError
from cae.foreign.models import find_encoder, load_encoder

# --- Where the encoder ends: each model, and the name of its encoder's last layer --------------


def back(filters, factor):
    """A transposed convolution that enlarges by this factor."""
    return layers.Conv2DTranspose(filters, factor, strides=factor)


def residual():
    """Branches within the encoder come together before it ends."""
    inputs = keras.Input(SHAPE)
    first = conv(2)(inputs)
    added = layers.Add()([first, conv(2)(first)])
    wide = layers.Concatenate()([added, layers.SeparableConv2D(2, 3, **SAME)(added)])
    outputs = layers.UpSampling2D()(layers.AveragePooling2D(2, name="last")(wide))
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(outputs))


def gated():
    """A gate squeezes the image to a few numbers, and a block has fewer inside than around it."""
    inputs = keras.Input(SHAPE)
    features = pool()(conv(4)(inputs))
    gate = layers.Dense(4)(layers.Dense(1)(layers.GlobalAveragePooling2D()(features)))
    features = layers.Multiply()([features, layers.Reshape((1, 1, 4))(gate)])
    inside = layers.Conv2D(4, 1)(layers.Conv2D(2, 1)(features))
    return keras.Model(inputs, back(1, 4)(pool("last")(layers.Add()([features, inside]))))


STRUCTURES = {
    "textbook": textbook,
    "sequential": lambda: keras.Sequential([keras.Input(SHAPE), *textbook_layers()]),
    # Fewer numbers come out of the first pool than of the second, which is deeper.
    "wide_at_first": lambda: chain(conv(1), pool(), conv(16), pool("last"), back(1, 4)),
    # Noise and padding come before all weights and are narrower than what follows.
    "noisy": lambda: chain(
        *(layers.GaussianNoise(0.3), layers.ZeroPadding2D(), layers.Conv2D(8, 3, strides=2)),
        *(layers.BatchNormalization(), layers.LeakyReLU(name="last")),
        *(layers.SpatialDropout2D(0.2), back(1, 2)),
    ),
    "dense_bottleneck": lambda: chain(
        *(layers.Conv2D(2, 3, strides=2, **SAME), layers.Flatten(), layers.Dense(5)),
        *(layers.ReLU(name="last"), layers.Dense(32), layers.Reshape((4, 4, 2)), back(1, 2)),
    ),
    "dense": lambda: chain(
        *(layers.Flatten(), layers.Dense(16, "relu"), layers.Dense(5, "relu", name="last")),
        *(layers.Dense(16, "relu"), layers.Dense(64), layers.Reshape(SHAPE)),
    ),
    "without_pools": lambda: chain(
        conv(8), conv(2, "last"), conv(8), layers.Conv2D(1, 3, padding="same")
    ),
    "residual": residual,
    "gated": gated,
    "classifier": lambda: chain(
        *(layers.Conv2D(2, 3), pool(), layers.Dropout(0.2, name="last")),
        *(layers.Flatten(), layers.Dense(8), layers.Dense(3, "softmax")),
    ),
    "pooled_classifier": lambda: chain(
        *(layers.DepthwiseConv2D(3), layers.Activation("relu", name="last")),
        *(layers.GlobalAveragePooling2D(), layers.Dense(3)),
    ),
    # Upsampling before all weights does not make a decoder.
    "enlarging_classifier": lambda: chain(
        *(layers.UpSampling2D(), layers.Conv2D(2, 3, name="last")),
        *(layers.GlobalMaxPooling2D(), layers.Dense(3, "softmax")),
    ),
    "alone": lambda: chain(layers.Conv2D(2, 3), pool("last")),
    # 2×2×16 are as many numbers as 8×8×1, but no image.
    "as_many_numbers": lambda: chain(conv(4), pool(), conv(16), pool("last")),
    # All pixels in a row are one.
    "dense_to_a_row": lambda: chain(
        layers.Flatten(), layers.Dense(5, "relu", name="last"), layers.Dense(64, "sigmoid")
    ),
    # Outputs of relu are those of no classifier.
    "dense_alone": lambda: chain(
        layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(4, "relu", name="last")
    ),
    "flat_alone": lambda: chain(
        layers.Conv2D(2, 3, activation="relu"), layers.Flatten(name="last")
    ),
}


class TestStructure:
    """The encoder is what plain Keras computes up to its last layer."""

    @pytest.mark.parametrize("name", STRUCTURES)
    def test_the_last_layer_is_found(self, name):
        """With one line that names the layer and how to choose another."""
        model, said = STRUCTURES[name](), []
        encoder = find_encoder(model, "m", SHAPE, say=said.append)
        assert encoder.name == "encoder"
        check_same(encoder, encode(model, "last"))
        (line,) = [line for line in said if "--encoder-until" in line]
        assert " last (" in line

    def test_nested_models_without_names(self):
        """What counts is what the layers make, not how models nest them."""
        front = chain(layers.Conv2D(2, 3, strides=2, **SAME), name="a")
        model = chain(front, chain(back(1, 2), shape=(4, 4, 2), name="b"))
        encoder = find_encoder(model, "m")
        check_same(encoder, front.predict_on_batch(IMAGES))
        assert not any(hasattr(layer, "layers") for layer in encoder.layers)

    @pytest.mark.parametrize("name", ["encoder", "Encoder", "my_encoder_2"])
    def test_nested_models_with_names(self, name):
        """Even where the structure says otherwise."""
        front = chain(layers.Conv2D(2, 3), layers.Conv2D(9, 3), name=name)
        decoder = chain(layers.Conv2DTranspose(1, 5), shape=(4, 4, 9), name="decoder")
        for model in (chain(front, decoder), chain(chain(front, decoder))):
            check_same(find_encoder(model, "m"), front.predict_on_batch(IMAGES))
        check_same(find_encoder(front, "m"), front.predict_on_batch(IMAGES))

    @pytest.mark.parametrize(
        ("first", "expected"),
        [
            (layers.Normalization(mean=0.13, variance=0.09), lambda x: (x - 0.13) / 0.3),
            (layers.Rescaling(1 / 127.5, -1), lambda x: 2 * x - 1),
            (layers.GaussianNoise(0.1), lambda x: x),
        ],
    )
    def test_what_stands_before_a_named_model(self, first, expected):
        """It belongs to the encoder, and what follows does not."""
        front = chain(layers.Conv2D(2, 3), layers.Conv2D(9, 3), name="encoder")
        decoder = chain(layers.Conv2DTranspose(1, 5), shape=(4, 4, 9), name="decoder")
        encoder = find_encoder(chain(chain(first, front, decoder), layers.Rescaling(255)), "m")
        inputs = expected(IMAGES)
        check_same(encoder, front.predict_on_batch(inputs), tolerance=1e-4)
        assert len(encoder.trainable_weights) == 4

    def test_an_encoder_by_the_name_of_its_file(self, tmp_path):
        """Dense layers without activation end classifiers as well."""
        model = chain(layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(4))
        for name, shape in (("encoder.keras", (None, 4)), ("autoencoder.keras", (None, 6, 6, 2))):
            model.save(tmp_path / name)
            assert load_encoder(tmp_path / name, SHAPE).output_shape == shape

    def test_layers_of_one_name_in_two_models(self):
        """Keras allows it when the models are nested, this program's flat encoder does not."""
        parts = [chain(layers.Conv2D(2, 3, name="c"), shape=shape) for shape in (SHAPE, (6, 6, 2))]
        model = chain(*parts, layers.Flatten(), layers.Dense(3))
        check_same(find_encoder(model, "m"), chain(*parts).predict_on_batch(IMAGES))

    def test_a_layer_called_twice_stays_one(self):
        """Its weights are learned together."""
        shared = layers.Conv2D(1, 3, padding="same")
        model = chain(shared, shared, layers.ReLU(name="last"), layers.Flatten(), layers.Dense(2))
        encoder = find_encoder(model, "m")
        assert encoder.count_params() == 3 * 3 + 1
        check_same(encoder, encode(model, "last"))

    def test_the_loaded_model_keeps_its_weights(self):
        model = textbook()
        before = model.get_weights()
        encoder = find_encoder(model, "m")
        encoder.set_weights([array + 1 for array in encoder.get_weights()])
        assert all(map(np.array_equal, before, model.get_weights()))

    def test_fresh_weights(self):
        """Statistics of images are no weights that training would find again."""
        normalization = layers.Normalization()
        normalization.adapt(IMAGES)
        model = chain(normalization, *textbook_layers())
        encoder = find_encoder(model, "m", with_weights=False)
        first, copied = model.layers[2], encoder.layers[2]
        assert not np.array_equal(first.kernel, copied.kernel)
        np.testing.assert_allclose(encoder.layers[1].mean, normalization.mean)


def skipping():
    """A U-Net: the image itself is needed at the end."""
    inputs = keras.Input(SHAPE)
    down = pool("bottom")(conv(2)(inputs))
    joined = layers.Concatenate()([inputs, layers.UpSampling2D()(down)])
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(joined))


def skipping_inside():
    """A U-Net: the first convolution, at full size, is needed at the end."""
    inputs = keras.Input(SHAPE)
    first = conv(2)(inputs)
    bottom = conv(4)(pool("bottom")(first))
    joined = layers.Concatenate()([first, layers.UpSampling2D()(bottom)])
    return keras.Model(inputs, layers.Conv2D(1, 3, padding="same")(joined))


def skipping_dense():
    """Without convolutions."""
    inputs = keras.Input(SHAPE)
    first = layers.Dense(8)(layers.Flatten()(inputs))
    up = layers.Dense(8)(layers.Dense(3, name="bottom")(first))
    outputs = layers.Dense(64)(layers.Add()([first, up]))
    return keras.Model(inputs, layers.Reshape(SHAPE)(outputs))


UNETS = [skipping, skipping_inside, skipping_dense]


def variational():
    """An encoder of mean and variance."""
    inputs = keras.Input(SHAPE)
    features = layers.Flatten()(layers.Conv2D(2, 3)(inputs))
    outputs = [layers.Dense(2, name="bottom")(features), layers.Dense(2)(features)]
    encoder = keras.Model(inputs, outputs, name="encoder")
    decoded = layers.Dense(64)(layers.Add()(encoder(inputs)))
    return keras.Model(inputs, layers.Reshape(SHAPE)(decoded))


def perceptron():
    return chain(layers.Flatten(), layers.Dense(4, "relu", name="bottom"), layers.Dense(3))


class TestNoStructure:
    """One line with all layers, their types and shapes, and what to do."""

    @pytest.mark.parametrize("make", [*UNETS, joint, perceptron])
    def test_layers_are_listed(self, make):
        with pytest.raises(ModelFileError, match=r"m\.h5: .*--encoder-until") as caught:
            find_encoder(make(), "m.h5")
        for layer in make().layers[1:]:
            assert type(layer).__name__ in str(caught.value)
        assert "bottom (" in str(caught.value)

    @pytest.mark.parametrize("make", [*UNETS, joint, perceptron, textbook])
    def test_the_layer_can_be_named(self, make):
        """Also where the structure would say another one."""
        model = make()
        name = model.layers[2].name
        check_same(find_encoder(model, "m", until=name), encode(model, name))

    def test_the_layer_can_be_named_inside_a_nested_model(self):
        model = variational()
        expected = encode(model.get_layer("encoder"), "bottom")
        check_same(find_encoder(model, "m", until="bottom"), expected)

    @pytest.mark.parametrize(
        ("make", "until", "message"),
        [
            (textbook, "nowhere", r"no nowhere among .*last \(MaxPooling2D, 2×2×2"),
            (variational, None, r"one output, got 2 outputs \(bottom 2, .*Conv2D, 6×6×2"),
            (conditional, None, r"one input, got 2 inputs \(.*8×8×1, classes 3\).*bottom \(Dense"),
            (lambda: chain(layers.MaxPooling2D()), None, "no layers with weights"),
        ],
    )
    def test_refused(self, make, until, message):
        with pytest.raises(ModelFileError, match=message):
            find_encoder(make(), "m", until=until)
