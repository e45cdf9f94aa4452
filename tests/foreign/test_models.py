"""Models of other programs: their encoder, pixels and probabilities, or one line of refusal."""

import warnings

import keras
import numpy as np
import pytest
from conftest import assert_same_weights
from keras import layers

from cae.errors import ModelFileError
from cae.foreign.models import find_autoencoder, find_classifier, find_encoder, load_encoder
from cae.records.saved_models import save_model
from cae.training.build import start_from
from cae.training.predict import sharing_encodings

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


# --- Where the encoder ends: each model, and the name of its encoder's last layer --------------


def conv(filters, name=None):
    return layers.Conv2D(filters, 3, name=name, **SAME)


def pool(name=None):
    return layers.MaxPooling2D(name=name)


def back(filters, factor):
    """A transposed convolution that enlarges by this factor."""
    return layers.Conv2DTranspose(filters, factor, strides=factor)


def textbook_layers():
    """The decoder begins with a convolution that makes the same shape as the encoder."""
    output = layers.Conv2D(1, 3, padding="same", activation="sigmoid")
    encoder = [conv(4), pool(), conv(2), pool("last")]
    return [*encoder, conv(2), layers.UpSampling2D(), conv(4), layers.UpSampling2D(), output]


def textbook():
    return chain(*textbook_layers())


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


def joint():
    """A reconstruction and classes."""
    inputs = keras.Input(SHAPE)
    down = pool("bottom")(conv(2)(inputs))
    classes = layers.Dense(3, activation="softmax")(layers.Flatten()(down))
    return keras.Model(inputs, [layers.Conv2DTranspose(1, 2, strides=2)(down), classes])


def variational():
    """An encoder of mean and variance."""
    inputs = keras.Input(SHAPE)
    features = layers.Flatten()(layers.Conv2D(2, 3)(inputs))
    outputs = [layers.Dense(2, name="bottom")(features), layers.Dense(2)(features)]
    encoder = keras.Model(inputs, outputs, name="encoder")
    decoded = layers.Dense(64)(layers.Add()(encoder(inputs)))
    return keras.Model(inputs, layers.Reshape(SHAPE)(decoded))


def conditional():
    """Image and class go in."""
    inputs, classes = keras.Input(SHAPE), keras.Input((3,), name="classes")
    joined = layers.Concatenate()([layers.Flatten()(inputs), classes])
    return keras.Model([inputs, classes], layers.Dense(4, name="bottom")(joined))


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


class TestInputs:
    """Images of this program are in [0, 1], and reach the layers as these were trained."""

    scaled = staticmethod(lambda *first: chain(*first, layers.Conv2D(2, 3, name="last")))

    def check_range(self, model, factor, offset, expected_range, **options):
        said = []
        encoder = find_encoder(model, "m.h5", say=said.append, **options)
        images = np.float32(factor) * IMAGES + np.float32(offset)
        expected = encode(model, "last", images)
        np.testing.assert_allclose(encoder.predict_on_batch(IMAGES), expected, rtol=1e-5, atol=1e-5)
        assert sum(expected_range in line for line in said) == (0 if options else 1)

    @pytest.mark.parametrize(
        ("scale", "offset", "factor"),
        [(1 / 255, 0, 255), (1 / 127.5, -1, 255), (1 / 256, 0, 255), (2, -1, 1), (255, 0, 1)],
    )
    def test_rescaling(self, scale, offset, factor):
        """After augmentation, which does not count."""
        first = keras.Sequential([layers.RandomFlip()]), layers.Rescaling(scale, offset)
        expected = "0..255" if factor == 255 else "0..1"
        self.check_range(self.scaled(*first), factor, 0, expected)

    @pytest.mark.parametrize(
        ("mean", "variance", "factor", "offset", "expected"),
        [(33.3, 6000, 255, 0, "0..255"), (0.13, 0.09, 1, 0, "0..1"), (-0.74, 0.38, 2, -1, "-1..1")],
    )
    def test_normalization(self, mean, variance, factor, offset, expected):
        """The statistics are those of the pixels that it was made with."""
        given = layers.Normalization(mean=mean, variance=variance)
        self.check_range(self.scaled(given), factor, offset, expected)

    def test_assumed(self):
        """Never in silence: the line names the flag."""
        self.check_range(self.scaled(), 1, 0, "--model-input-range")
        self.check_range(self.scaled(layers.Rescaling(0.1)), 1, 0, "--model-input-range")

    @pytest.mark.parametrize(
        ("given", "factor", "offset"), [("0..1", 1, 0), ("0..255", 255, 0), ("-1..1", 2, -1)]
    )
    def test_given(self, given, factor, offset):
        """The flag goes before what the layers say."""
        model = self.scaled(layers.Rescaling(1 / 255))
        self.check_range(model, factor, offset, given, input_range=given)

    def test_files_of_this_program_are_not_asked(self, tmp_path):
        """Their metadata says how images were scaled, whatever their layers do."""
        model, said = chain(layers.Rescaling(1 / 255), *textbook_layers()), []
        scaling = {"offset": 0.0, "scale": 255.0, "dtype": "uint8"}
        save_model(model, tmp_path / "m.keras", {"scaling": scaling})
        encoder = load_encoder(tmp_path / "m.keras", SHAPE, say=said.append)
        check_same(encoder, encode(model, "last"))
        assert not any("0..255" in line for line in said)

    def test_undefined_sizes(self):
        model = chain(*textbook_layers(), shape=(None, None, 1))
        encoder = find_encoder(model, "m", SHAPE)
        check_same(encoder, encode(model, "last"))
        assert encoder.output_shape == (None, 2, 2, 2)

    def test_images_too_small_for_undefined_sizes(self):
        model = chain(*[layers.Conv2D(2, 3) for _ in range(5)], shape=(None, None, 1))
        with pytest.raises(ModelFileError, match=r"m: .*8×8×1"):
            find_encoder(model, "m", SHAPE)

    @pytest.mark.parametrize("shape", [(8, 8), (64,)])
    def test_no_channel(self, shape):
        """`Flatten(input_shape=(28, 28))` and `Dense(…, input_shape=(784,))`."""
        parts = [layers.Flatten(), layers.Dense(4, name="last"), layers.Dense(64)]
        model = chain(*parts, shape=shape)
        images = IMAGES.reshape(-1, *shape)
        check_same(find_encoder(model, "m", SHAPE), encode(model, "last", images))

    @pytest.mark.parametrize(
        ("shape", "images", "message"),
        [
            ((8, 8, 1), (9, 8, 1), r"8×8×1 .* 9×8×1"),
            ((8, 8, 3), (8, 8, 1), r"8×8×3 .* 8×8×1"),
            ((3, 8, 8), (8, 8, 3), r"3×8×8 \(channels first\).* 8×8×3"),
            ((8, 8), (8, 8, 3), r"8×8, .* 8×8×3"),
            ((10,), (8, 8, 1), r"10, .* 8×8×1"),
        ],
    )
    def test_other_shapes(self, shape, images, message):
        model = chain(layers.Flatten(), layers.Dense(3, name="last"), shape=shape)
        with pytest.raises(ModelFileError, match=message):
            find_encoder(model, "m", images, until="last")


class TestOutputs:
    """Whatever is called a probability lies in [0, 1] and sums to 1."""

    @staticmethod
    def classify(*last, say=None):
        model = chain(layers.Flatten(), *last)
        found = find_classifier(model, "m.h5", SHAPE, input_range="0..1", say=say or (lambda _: 0))
        return model.predict_on_batch(IMAGES), found.predict_on_batch(IMAGES)

    @pytest.mark.parametrize(
        ("last", "expect", "word"),
        [
            # As a layer's activation, as a layer, and before Dropout.
            ([layers.Dense(3, activation="softmax")], lambda x: x, ""),
            ([layers.Dense(3), layers.Softmax()], lambda x: x, ""),
            ([layers.Dense(3), layers.Activation("softmax"), layers.Dropout(0.1)], lambda x: x, ""),
            ([layers.Dense(3, activation="log_softmax")], np.exp, ""),
            # Of a convolution, if it has one place.
            ([layers.Reshape(SHAPE), layers.Conv2D(3, 8, activation="softmax"), layers.Flatten()],
             lambda x: x, ""),
            # Of mixed precision, whose probabilities have three digits.
            ([layers.Dense(30, activation="softmax", dtype="bfloat16")],
             lambda x: np.float32(x) / np.float32(x).sum(axis=1)[:, None], ""),
            ([layers.Dense(1, activation="sigmoid", dtype="bfloat16")],
             lambda x: np.hstack([1 - np.float32(x), np.float32(x)]), "second"),
            ([layers.Dense(3)], lambda x: np.exp(x) / np.exp(x).sum(axis=1)[:, None], "softmax"),
            # One output is the probability of the second class.
            ([layers.Dense(1, activation="sigmoid")], lambda x: np.hstack([1 - x, x]), "second"),
            ([layers.Dense(1)], lambda x: np.hstack([np.exp(-x), x * 0 + 1]) / (1 + np.exp(-x)),
             "second"),
            # The most likely class stays the most likely.
            ([layers.Dense(3, activation="sigmoid")], lambda x: x / x.sum(axis=1)[:, None],
             "sigmoid"),
        ],
    )  # fmt: skip
    def test_probabilities(self, last, expect, word):
        """A line says how outputs are read that are no probabilities."""
        said = []
        outputs, probabilities = self.classify(*last, say=said.append)
        np.testing.assert_allclose(probabilities, expect(outputs), atol=1e-6)
        assert probabilities.min() >= 0 and probabilities.max() <= 1
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
        assert len(said) == bool(word) and all(word in line and "m.h5" in line for line in said)

    @pytest.mark.parametrize(
        ("last", "message"),
        [
            ([layers.Dense(3, activation="relu")], r"dense.* \(Dense, 3\) .*relu"),
            ([layers.Dense(1, activation="tanh")], "tanh"),
            ([layers.Dense(1, activation="softmax")], "softmax"),
            ([layers.Dense(3), layers.BatchNormalization()], "BatchNormalization"),
            ([layers.Reshape(SHAPE), layers.Conv2D(2, 3)], "6×6×2"),
            # Four places, each with a sum of 1.
            ([layers.Reshape(SHAPE), layers.Conv2D(3, 4, strides=4, activation="softmax"),
              layers.Reshape((12,))], r"reshape.* \(Reshape, 12\) .*unknown"),
        ],
    )  # fmt: skip
    def test_unknown_meaning(self, last, message):
        with pytest.raises(ModelFileError, match=f"m.h5: .*{message}"):
            self.classify(*last)

    def test_several_outputs(self):
        with pytest.raises(
            ModelFileError, match=r"one output, got 2 outputs.*bottom \(MaxPooling2D"
        ):
            find_classifier(joint(), "m", SHAPE)


class TestReconstructions:
    """Images in [0, 1] come out, whatever pixels the model takes and makes."""

    @pytest.mark.parametrize(
        ("layers_", "input_range", "expect", "word"),
        [
            # 255 x / 255 = x goes in; the pixels that come out, brought back by hand.
            ([layers.Rescaling(1 / 255), layers.Activation("sigmoid")], None,
             lambda x: 1 / (1 + np.exp(-x)), ""),
            ([layers.Rescaling(1 / 255), layers.Activation("sigmoid"), layers.Flatten()], None,
             lambda x: 1 / (1 + np.exp(-x)), ""),
            ([layers.Rescaling(1 / 255), layers.Activation("linear"), layers.Rescaling(255)], None,
             lambda x: x, "0..255"),
            ([layers.Rescaling(1 / 127.5, -1), layers.Activation("tanh")], None,
             lambda x: (np.tanh(2 * x - 1) + 1) / 2, "-1..1"),
            ([layers.Activation("tanh"), layers.Rescaling(127.5, 127.5)], "-1..1",
             lambda x: (np.tanh(2 * x - 1) + 1) / 2, "0..255"),
            ([layers.Activation("sigmoid"), layers.Rescaling(2, -1)], "0..1",
             lambda x: 1 / (1 + np.exp(-x)), "-1..1"),
            # Nothing at the end says so: what goes in comes out.
            ([layers.ReLU()], "0..255", lambda x: x, "0..255"),
            ([layers.ReLU()], "-1..1", lambda x: (np.maximum(2 * x - 1, 0) + 1) / 2, "-1..1"),
            ([layers.ReLU()], "0..1", lambda x: x, ""),
        ],
    )  # fmt: skip
    def test_range(self, layers_, input_range, expect, word):
        """A line says how the outputs are read that are not in 0..1."""
        said = []
        options = {"input_range": input_range, "say": said.append}
        found = find_autoencoder(chain(*layers_), "m.h5", SHAPE, **options)
        np.testing.assert_allclose(found.predict_on_batch(IMAGES), expect(IMAGES), atol=1e-6)
        lines = [line for line in said if "outputs pixels" in line]
        assert len(lines) == bool(word) and all(f"in {word}," in line for line in lines)

    @pytest.mark.parametrize("shape", [(8, 8), (64,), (8, 8, 1)])
    @pytest.mark.parametrize("to", [(8, 8), (64,), (8, 8, 1)])
    def test_without_channels(self, shape, to):
        """Images come out as they are, whatever shapes the model takes and makes."""
        model = chain(layers.Reshape(to), layers.Activation("linear"), shape=shape)
        check_same(find_autoencoder(model, "m", SHAPE), IMAGES)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (joint, "m: must have one output, got 2 outputs"),
            (conditional, "m: must have one input, got 2 inputs"),
            (lambda: chain(layers.AveragePooling2D(2)), "must be an autoencoder.*8×8×1 to 4×4×1"),
            # As many numbers as the image, but another shape.
            (lambda: chain(layers.Conv2D(4, 2, strides=2)), "must be an autoencoder.* 4×4×4"),
        ],
    )
    def test_refused(self, make, message):
        with pytest.raises(ModelFileError, match=message):
            find_autoencoder(make(), "m", SHAPE)


class TestPrograms:
    """The doors of the programs."""

    def test_a_flat_autoencoder_becomes_a_classifier(self, classify, tmp_path):
        """Training, metrics and figures work; plain Keras loads what is saved without warnings."""
        first = [keras.Input(SHAPE), layers.Rescaling(1 / 255)]
        model = keras.Sequential([*first, *textbook_layers()])
        model.save(tmp_path / "foreign.h5")
        done = classify(model=tmp_path / "foreign.h5").ok()
        assert "last (MaxPooling2D, 2×2×2)" in done.out and "0..255" in done.out
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            saved = keras.models.load_model(done.run / "model.keras")
            assert saved.predict_on_batch(IMAGES).shape == (4, 3)

    def test_a_normalization_is_kept(self, classify, tmp_path):
        """Its mean, variance and count have no dimensions; alone and in a study."""
        first = layers.Normalization(axis=None)
        first.adapt(IMAGES)
        chain(first, *textbook_layers()).save(tmp_path / "foreign.keras")
        done = classify(model=tmp_path / "foreign.keras").ok()
        with sharing_encodings():
            assert classify(model=tmp_path / "foreign.keras").exit_code == 0
        saved = keras.models.load_model(done.run / "model.keras").get_layer("encoder")
        kept = next(layer for layer in saved.layers if isinstance(layer, layers.Normalization))
        np.testing.assert_allclose(kept.mean, IMAGES.mean(), rtol=1e-5)

    def test_flags(self, classify, tmp_path):
        """They choose the layer and the pixels; `-1..1` is no flag."""
        joint().save(tmp_path / "m.keras")
        classify(model=tmp_path / "m.keras").refused("--encoder-until")
        flags = ["--encoder-until", "bottom", "--model-input-range", "-1..1"]
        done = classify(*flags, model=tmp_path / "m.keras").ok()
        saved = keras.models.load_model(done.run / "model.keras")
        assert saved.get_layer("encoder").layers[1].scale == 2
        assert saved.get_layer("encoder").output_shape == (None, 4, 4, 2)

    def test_an_output_that_was_saved_as_a_list(self, classify, tmp_path):
        """As Keras 2 and Keras 3.0 to 3.3 did."""
        inputs = keras.Input(SHAPE)
        encoder = keras.Model(inputs, [layers.MaxPooling2D()(layers.Conv2D(2, 3)(inputs))])
        encoder.save(tmp_path / "encoder.keras")
        done = classify(model=tmp_path / "encoder.keras").ok()
        assert "Warning" not in done.out + done.err

    def test_weights_of_the_original_program(self, autoencode, trained_autoencoder, tmp_path):
        """--init-from compares layers, wherever they are nested: the output stood alone."""
        model = keras.models.load_model(trained_autoencoder.saved)
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        inner = chain(*decoder.layers[1:-1], shape=decoder.input_shape[1:], name="decoder")
        chain(encoder, inner, decoder.layers[-1]).save(tmp_path / "m.h5")
        target = keras.models.clone_model(model)
        start_from(target, tmp_path / "m.h5")
        assert_same_weights(target, model)
        autoencode("--init-from", tmp_path / "m.h5").ok()

    def test_other_layers_than_the_configuration(self, autoencode, tmp_path):
        """The advice does not lead in a circle: a foreign file has no configuration of its own."""
        textbook().save(tmp_path / "m.h5")
        done = autoencode("--init-from", tmp_path / "m.h5").refused("layers of the file")
        assert "leave out -c" not in done.err and "trained with" not in done.err

    def test_several_outputs_are_refused_and_the_menu_continues(
        self, tmp_path, launch, files, classifier_config, trained_autoencoder, typed
    ):
        """Train, test a saved classifier, and exit."""
        joint().save(tmp_path / "foreign.keras")
        typed(1, classifier_config, 3, 2, tmp_path / "foreign.keras", 5)
        flags = [*files.classifier, "-model", trained_autoencoder.saved, "--no-plots"]
        done = launch("classification", *flags).ok()
        assert "2 outputs" in done.err
        assert not any("-test-" in run.name for run in done.runs)
