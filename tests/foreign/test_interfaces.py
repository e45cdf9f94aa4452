"""Pixels of [0, 1] go in, and probabilities or such pixels come out; or one line says why not."""

import keras
import numpy as np
import pytest
from foreign_models import (
    IMAGES,
    SHAPE,
    chain,
    check_same,
    conditional,
    encode,
    joint,
    textbook_layers,
)
from keras import layers

from cae.errors import ModelFileError
from cae.foreign.models import find_autoencoder, find_classifier, find_encoder, load_encoder
from cae.records.saved_models import save_model


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
