"""Training layers compute what the plain ones do."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import AUTOENCODER
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cae.training import build, train
from cae.training.layers import (
    FewFiltersConv2D,
    FusedBatchNorm,
    InferenceMode,
    UpSampleConv2D,
    bfloat16_inside,
    fuse,
    get_predictor,
    summing_matrix,
)

fewer = settings(max_examples=25)


def pair_and_fused(kernel_size, size, filters, **arguments):
    convolution = keras.layers.Conv2D(
        filters, kernel_size, padding="same", bias_initializer="normal", **arguments
    )
    return keras.layers.UpSampling2D(size), convolution, UpSampleConv2D(convolution, size)


def compare(plain, ours, images, convolution):
    """Asserts that outputs and the gradients of images and weights are equal to rounding."""
    outputs, gradients = [], []
    for function in (plain, ours):
        with tf.GradientTape() as tape:
            tape.watch(images)
            output = function(images)
            loss = tf.reduce_mean(tf.sin(3 * output))
        outputs.append(output)
        variables = [variable.value for variable in convolution.trainable_variables]
        gradients.append(tape.gradient(loss, [images, *variables]))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)
    for expected, found in zip(*gradients, strict=True):
        np.testing.assert_allclose(expected, found, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel_length", "factor", "expected"),
    [
        (3, 2, [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]]),
        (1, 3, [[1], [1], [1]]),
        (2, 2, [[0, 1], [1, 1], [1, 0], [0, 0]]),
        (3, 1, [[0, 0, 1], [0, 1, 0], [1, 0, 0]]),
    ],
)
def test_summing_matrix_by_hand(kernel_length, factor, expected):
    """(a, b, c) becomes (c, b + c, a + b, a) for a factor of 2."""
    np.testing.assert_array_equal(summing_matrix(kernel_length, factor), expected)


class TestUpSampleConv2D:
    @fewer
    @example((3, 3), (1, 2), (3, 1, 2), 1, "linear", True)
    @given(
        kernel_size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
        size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        image=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3)),
        filters=st.integers(1, 3),
        activation=st.sampled_from(["relu", "sigmoid", "linear"]),
        use_bias=st.booleans(),
    )
    def test_output_and_gradients_equal_the_pair(
        self, kernel_size, size, image, filters, activation, use_bias
    ):
        """For odd and even kernels, not square, with factors that differ between the axes."""
        upsampling, convolution, fused = pair_and_fused(
            kernel_size, size, filters, activation=activation, use_bias=use_bias
        )
        rng = np.random.default_rng(0)
        images = tf.constant(rng.normal(size=(2, *image)), tf.float32)
        compare(lambda x: convolution(upsampling(x)), fused, images, convolution)


class TestFewFiltersConv2D:
    @fewer
    @given(
        kernel_size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        image=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)),
        filters=st.integers(1, 3),
        use_bias=st.booleans(),
    )
    def test_output_and_gradients_equal_the_convolution(
        self, kernel_size, image, filters, use_bias
    ):
        """For odd and even kernels, larger than the image too."""
        options = {"activation": "sigmoid", "use_bias": use_bias, "bias_initializer": "normal"}
        convolution = keras.layers.Conv2D(filters, kernel_size, padding="same", **options)
        images = tf.constant(np.random.default_rng(0).normal(size=(2, *image)), tf.float32)
        compare(convolution, FewFiltersConv2D(convolution), images, convolution)


class TestFusedBatchNorm:
    """Two images of two pixels and one channel, 1, 2, 3 and 6: mean 3, variance 14 / 4."""

    images = np.array([1, 2, 3, 6], np.float32).reshape(2, 2, 1, 1)

    def build(self, **arguments):
        plain = keras.layers.BatchNormalization(momentum=0.9, **arguments)
        plain.build((None, 2, 1, 1))
        return plain, FusedBatchNorm(plain)

    def test_by_hand(self):
        plain, fused = self.build(epsilon=0)
        outputs = fused(self.images, training=True)
        np.testing.assert_allclose(outputs, (self.images - 3) / np.sqrt(3.5), rtol=1e-5)
        np.testing.assert_allclose(plain.moving_mean, [0.3], rtol=1e-5)
        np.testing.assert_allclose(plain.moving_variance, [0.9 + 0.35], rtol=1e-5)
        outputs = fused(self.images, training=False)
        np.testing.assert_allclose(outputs, (self.images - 0.3) / np.sqrt(1.25), rtol=1e-5)
        plain.trainable = False
        np.testing.assert_allclose(fused(self.images, training=True), outputs, rtol=1e-5)

    def test_bfloat16_images_keep_float32_averages(self):
        """257 ones and a three: bfloat16 has 8 bits, and could not count them."""
        images = np.ones((258, 1, 1, 1), np.float32)
        images[-1] = 3
        plain = keras.layers.BatchNormalization(momentum=0.9, epsilon=0)
        plain.build(images.shape)
        outputs = FusedBatchNorm(plain, dtype="bfloat16")(images, training=True)
        assert outputs.dtype == tf.bfloat16
        mean = 1 + 2 / 258
        np.testing.assert_allclose(plain.moving_mean, [0.1 * mean], rtol=1e-5)
        np.testing.assert_allclose(float(outputs[-1, 0, 0, 0]), 257**0.5, rtol=1e-2)

    @pytest.mark.parametrize("shape", [(16, 7, 5, 3), (1, 1, 1, 2)])
    def test_outputs_gradients_and_averages_equal_keras(self, shape):
        images = tf.random.stateless_normal(shape, (1, 2)) * 3 + 1
        results = []
        for wrap in (lambda plain: plain, FusedBatchNorm):
            plain = keras.layers.BatchNormalization()
            plain.build(shape)
            plain.gamma.assign(np.linspace(0.5, 2, shape[-1]))
            layer = wrap(plain)
            with tf.GradientTape() as tape:
                tape.watch(images)
                outputs = layer(images, training=True)
                loss = tf.reduce_mean(tf.sin(3 * outputs))
            weights = [variable.value for variable in plain.trainable_variables]
            gradients = tape.gradient(loss, [images, *weights])
            results.append([outputs, *gradients, plain.moving_mean, plain.moving_variance])
        for expected, found in zip(*results, strict=True):
            np.testing.assert_allclose(expected, found, atol=1e-5)


def test_predictor_gives_what_the_model_gives():
    """In parts, compiled once, and anew where the layers have changed."""
    model = build.get_autoencoder(INFO, (8, 8, 1))
    images = np.random.default_rng(0).random((3, 2, 8, 8, 1), np.float32)
    predictor = get_predictor(model, 2)
    assert get_predictor(model, 2) is predictor
    expected = np.stack([model(part, training=False) for part in images])
    np.testing.assert_allclose(predictor(images), expected, atol=1e-6)
    with bfloat16_inside(model):
        reduced = get_predictor(model, 2)(images)
    assert 1e-6 < abs(reduced - expected).max() < 0.05
    np.testing.assert_allclose(get_predictor(model, 2)(images), expected, atol=1e-6)


DECODER = [["upSample", [2, 2]], ["conv", 4, [3, 3]], ["conv", 4, [3, 3]]]
INFO = AUTOENCODER | {"decoder_layers": DECODER, "batch_size": 8, "epochs": 3}
BOTTLENECK = {**INFO, "encoder_layers": [*INFO["encoder_layers"], ["batchNorm"], ["dense", 5]]}


def kinds_of(layers):
    return [type(layer).__name__ for layer in layers]


class TestFuse:
    def fuse(self, shape=(8, 8, 1), **changes):
        """The kinds of layers of a fused autoencoder."""
        return kinds_of(fuse(build.get_autoencoder(INFO | changes, shape)).layers)

    def test_every_pair_is_fused_once(self):
        """Also the output convolution right after an upSample, but not a lone `upSample`."""
        up, conv = ["upSample", [2, 2]], ["conv", 9, [3, 3]]
        kinds = self.fuse(decoder_layers=[conv, up])
        assert kinds[1:] == ["Conv2D", "MaxPooling2D", "Conv2D", "UpSampleConv2D"]
        kinds = self.fuse(decoder_layers=[up, ["batchNorm"]])
        assert "UpSampleConv2D" not in kinds and kinds.count("UpSampling2D") == 1
        kinds = self.fuse(decoder_layers=[up, conv])
        assert kinds[-2:] == ["UpSampleConv2D", "FewFiltersConv2D"]

    def test_shares_the_weights(self):
        """Training one trains the other; the model itself keeps the plain pair."""
        model = build.get_autoencoder(INFO, (8, 8, 1))
        fused = fuse(model)
        assert {id(w) for w in fused.trainable_weights} == {id(w) for w in model.trainable_weights}
        kinds = kinds_of(model.get_layer("decoder").layers)
        assert kinds[1:] == ["UpSampling2D", "Conv2D", "Conv2D", "Conv2D"]

    def test_cropping_stays_at_the_end(self):
        """50 → 25 → 13 → 26 → 52 → 50: the pairs fuse as ever."""
        pools, pair = [["pool", [2, 2]]] * 2, [["upSample", [2, 2]], ["conv", 9, [3, 3]]]
        kinds = self.fuse((50, 50, 1), encoder_layers=pools, decoder_layers=pair * 2)
        expected = ["UpSampleConv2D", "UpSampleConv2D", "FewFiltersConv2D", "Cropping2D"]
        assert kinds[-4:] == expected

    def test_a_dense_bottleneck_is_no_obstacle(self):
        kinds = self.fuse(**BOTTLENECK)
        assert kinds[4:9] == ["Flatten", "Dense", "Dense", "Reshape", "UpSampleConv2D"]

    def test_batch_norm_is_fused_on_demand(self):
        layers = [*INFO["encoder_layers"], ["batchNorm"]]
        model = build.get_autoencoder({**INFO, "encoder_layers": layers}, (8, 8, 1))
        for batch_norm, kind in ((False, "BatchNormalization"), (True, "FusedBatchNorm")):
            assert type(fuse(model, batch_norm).layers[3]).__name__ == kind
        assert "BatchNormalization" not in str(fuse(model, True).layers)
        assert len(fuse(model, True).trainable_weights) == len(model.trainable_weights)

    def test_strides_are_no_obstacle(self):
        """They stay; the pair beside them is fused."""
        encoder = [["conv", 4, [3, 3], [2, 2]], ["pool", [2, 2]]]
        decoder = [["upSample", [2, 2]], ["conv", 4, [3, 3]], ["convTranspose", 4, [3, 3], [2, 2]]]
        kinds = self.fuse(encoder_layers=encoder, decoder_layers=decoder)
        assert kinds[1:-1] == ["Conv2D", "MaxPooling2D", "UpSampleConv2D", "Conv2DTranspose"]

    def test_other_models_are_left_alone(self):
        """A layer that may have two inputs could make it more than a chain."""
        inputs = keras.Input((4, 4, 1))
        outputs = keras.layers.Add()([inputs, keras.layers.Conv2D(1, 3, padding="same")(inputs)])
        model = keras.Model(inputs, outputs)
        assert kinds_of(fuse(model).layers) == kinds_of(model.layers)

    @pytest.mark.parametrize("info", [INFO, BOTTLENECK], ids=["plain", "bottleneck"])
    @pytest.mark.parametrize("shape", [(8, 8, 1), (7, 9, 1)])
    def test_three_epochs_equal_the_plain_model(self, monkeypatch, info, shape):
        """The loss curve is the same to rounding, penalties and cropping included."""
        images = np.random.default_rng(0).integers(0, 256, (48, *shape), np.uint8)
        curves = []
        for replacement in (fuse, lambda model, _: keras.Model(model.inputs, model.outputs)):
            monkeypatch.setattr(train, "fuse", replacement)
            info = {**info, "l2": 0.001}
            model = build.get_autoencoder(info, shape)
            history = train.train_autoencoder(model, info, images)
            curves.append([history.column(key) for key in ("loss", "val_loss", "val_mse")])
        np.testing.assert_allclose(curves[0], curves[1], rtol=2e-4)


def test_inference_mode_holds_while_fitting():
    """Dropout passes everything although the model around it is called in training mode."""
    inputs = keras.Input((50,))
    model = keras.Model(inputs, InferenceMode(keras.layers.Dropout(0.5))(inputs))
    ones = np.ones((2, 50), np.float32)
    np.testing.assert_array_equal(model(ones, training=True), ones)
    assert np.any(keras.layers.Dropout(0.5)(ones, training=True) != ones)


def test_a_layer_called_twice_is_not_fused_away():
    """The pool stands between both convolutions and after them: 8 to 4 to 2."""
    pool = keras.layers.MaxPooling2D(2)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *(keras.layers.Conv2D(2, 3, padding="same"), pool),
            *(keras.layers.Conv2D(2, 3, padding="same"), keras.layers.UpSampling2D(2)),
        ]
    )
    repeated = keras.Model(model.inputs, pool(model.outputs[0]))
    images = np.random.default_rng(0).random((3, 8, 8, 1), np.float32)
    np.testing.assert_allclose(fuse(repeated)([images]), repeated([images]), atol=1e-6)
