"""Builders and trainers: shapes, phases, equalities, and what keeps from collapse."""

import keras
import numpy as np
import pytest
from conftest import assert_same_weights, draw_four_classes
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from cae.config.fields import OPTIMIZERS
from cae.data.datasets import Scaling
from cae.data.splits import split_validation
from cae.errors import ModelFileError
from cae.records.history import DENSE_ONLY, FULL
from cae.records.saved_models import save_model
from cae.training import build as build_module
from cae.training import predict
from cae.training import train as train_module
from cae.training.layers import first_filters

BYTES = Scaling(0, 255, "uint8")
SMALL = {
    "encoder_layers": [["conv", 3, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 3, [3, 3]]],
    "optimizer": ["adam", 0.01],
    "batch_size": 8,
    "epochs": 2,
}
# An encoder whose output depends on training or inference mode.
MOODY = {
    **SMALL,
    "encoder_layers": [["conv", 3, [3, 3]], ["batchNorm"], ["pool", [2, 2]], ["drop", 0.4]],
}
HEAD = {
    "dense_layers": [["dense", 8], ["drop", 0.2]],
    "optimizer": ["adam", 0.01, 0.002],
    "dense_only_train_epochs": 2,
    "full_train_epochs": 1,
    "batch_size": 8,
}


@pytest.fixture
def images():
    return draw_four_classes(40)


@pytest.fixture
def labels():
    """Four classes with gaps between their numbers, matching `images`."""
    return np.array([-3, 0, 7, 61])[np.arange(40) % 4]


def train(model_info, images, **changes):
    model_info = {**model_info, **changes}
    model = build_module.get_autoencoder(model_info, images.shape[1:])
    return model, train_module.train_autoencoder(model, model_info, images)


class TestGetAutoencoder:
    @pytest.mark.parametrize("shape", [(8, 8, 1), (16, 20, 3)])
    def test_output_has_the_shape_of_the_images(self, shape):
        model = build_module.get_autoencoder(SMALL, shape)
        assert model.output_shape == (None, *shape)
        assert [layer.name for layer in model.layers[1:]] == ["encoder", "decoder"]
        encoding = (shape[0] // 2, shape[1] // 2, 3)
        assert model.get_layer("encoder").output_shape == (None, *encoding)

    def test_layers_are_those_of_the_configuration(self):
        """In order, with their sizes; the output convolution is added."""
        info = {
            **SMALL,
            "encoder_layers": [["conv", 5, [3, 1]], ["batchNorm"], ["drop", 0.1], ["pool", [4, 2]]],
            "decoder_layers": [["pool", [4, 2]], ["conv", 4, [5, 5]]],
            "activation_function": "linear",
            "l2": 0.01,
        }
        model = build_module.get_autoencoder(info, (8, 8, 2))
        encoder, decoder = model.get_layer("encoder").layers, model.get_layer("decoder").layers
        kinds = [type(layer).__name__ for layer in (*encoder[1:], *decoder[1:])]
        assert kinds[:4] == ["Conv2D", "BatchNormalization", "Dropout", "MaxPooling2D"]
        assert kinds[4:] == ["UpSampling2D", "Conv2D", "Conv2D"]
        assert encoder[1].kernel_size == (3, 1) and encoder[1].filters == 5
        assert encoder[4].pool_size == (4, 2) and decoder[1].size == (4, 2)
        assert float(encoder[1].kernel_regularizer.l2) == pytest.approx(0.01)
        assert decoder[-1].activation is keras.activations.linear
        assert decoder[-1].filters == 2

    def test_strides(self):
        """9×7 is 5×4, then 3×2; the transposed convolutions make 12×8 of it, cropped to 9×7."""
        strided = [["conv", 3, [3, 3], [2, 2]], ["conv", 4, [5, 5], [2, 2]]]
        wider = [["convTranspose", 4, [3, 3], [4, 4]]]
        info = {**SMALL, "encoder_layers": strided, "decoder_layers": wider}
        model = build_module.get_autoencoder(info, (9, 7, 1))
        encoder, decoder = model.get_layer("encoder").layers, model.get_layer("decoder").layers
        shapes = [layer.output.shape[1:] for layer in (*encoder[1:], *decoder[1:])]
        assert shapes == [(5, 4, 3), (3, 2, 4), (12, 8, 4), (12, 8, 1), (9, 7, 1)]
        assert decoder[1].activation is encoder[1].activation is keras.activations.relu

    def test_a_dense_bottleneck(self):
        """9×7 is 5×4 after the pool, and again in the decoder, which crops 10×8 to 9×7."""
        layers = [["conv", 3, [3, 3]], ["pool", [2, 2]], ["dense", 6]]
        model = build_module.get_autoencoder({**SMALL, "encoder_layers": layers}, (9, 7, 1))
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        assert encoder.output_shape == decoder.input_shape == (None, 6)
        assert encoder.layers[-1].activation is keras.activations.linear
        widened, reshaped = decoder.layers[1:3]
        assert widened.units == 5 * 4 * 3 and widened.activation is keras.activations.relu
        assert reshaped.target_shape == (5, 4, 3) and model.output_shape == (None, 9, 7, 1)

    def test_a_path_loads_a_saved_model(self, tmp_path):
        """The same weights come back; images of another shape are refused."""
        model = build_module.get_autoencoder(SMALL, (8, 8, 1))
        path = save_model(model, tmp_path / "m.keras", {})
        loaded = build_module.get_autoencoder(path, (8, 8, 1))
        assert_same_weights(model, loaded)
        with pytest.raises(ModelFileError, match=r"8×8×1.*16×16×1"):
            build_module.get_autoencoder(str(path), (16, 16, 1))


class TestTrainAutoencoder:
    def test_learns_and_keeps_the_best_epoch(self, images):
        """The model ends with the weights whose validation loss is the record's smallest."""
        model, history = train(SMALL, images, epochs=6, optimizer=["adam", 0.05])
        assert history.column("mse")[-1] < history.column("mse")[0] / 2
        best = min(history.column("val_loss"))
        assert history.best["val_loss"] == history.metrics["val_loss"] == best
        assert history.model_info["validation_split"] == 0.1
        _, validation = split_validation(len(images), 0.1, 0)
        drawn = predict.predict(model, images, BYTES, validation)
        mse = np.square(drawn - BYTES.apply(images[validation])).mean()
        assert mse == pytest.approx(history.best["val_mse"], rel=1e-5)

    def test_same_seed_same_weights(self, images):
        """Dropout, noise, augmentation and order included; another seed gives others."""
        extra = {"noise": 0.1, "augmentation": {"rotation": 10, "shift": 0.1, "zoom": 0.1}}
        first, _ = train(MOODY, images, **extra)
        second, _ = train(MOODY, images, **extra)
        other, _ = train(MOODY, images, seed=1, **extra)
        assert_same_weights(first, second)
        assert np.any(first.get_weights()[0] != other.get_weights()[0])

    def test_denoising_is_validated_as_it_is_trained(self, images):
        """On corrupted images, by the same amounts in every epoch: nothing learned, no change."""
        still = {"optimizer": ["sgd", 1e-9], "epochs": 2}
        first, second = train(SMALL, images, denoise={"shift": 0.5}, **still)[1].column("val_loss")
        assert first == pytest.approx(second, rel=1e-5)
        _, clean = train(SMALL, images, **still)
        assert abs(clean.metrics["val_loss"] - first) > 1e-3
        _, noisy = train(SMALL, images, noise=0.5, **still)
        _, same = train(SMALL, images, denoise={"noise": 0.5}, **still)
        assert noisy.column("val_loss") == same.column("val_loss")

    def test_output_starts_at_the_mean_pixel(self, images):
        """An untrained decoder would draw mid-gray; trained weights are left alone."""
        still = {**SMALL, "optimizer": ["sgd", 1e-9], "epochs": 1, "validation_split": 0}
        model = build_module.get_autoencoder(still, (8, 8, 1))
        for shown in (images, images // 2):
            train_module.train_autoencoder(model, still, shown, scaling=BYTES)
            bias = np.asarray(model.get_layer("decoder").layers[-1].bias)
            assert 1 / (1 + np.exp(-bias)) == pytest.approx(images.mean() / 255, abs=1e-5)

    @pytest.mark.parametrize("loss", ["mean_squared_error", "binary_crossentropy"])
    def test_collapse_is_said(self, images, loss):
        """A dead network draws the mean gray, and a loss is advised that is not in use."""
        model = build_module.get_autoencoder(SMALL, (8, 8, 1))
        model.set_weights([0 * weight for weight in model.get_weights()])
        said = []
        info = {**SMALL, "optimizer": ["sgd", 1e-9], "epochs": 1, "validation_split": 0}
        info["loss"] = loss
        train_module.train_autoencoder(model, info, images, warn=said.append)
        assert len(said) == 1 and "collapsed" in said[0]
        assert ("binary_crossentropy" in said[0]) == (loss == "mean_squared_error")

    def test_the_epoch_that_is_kept_is_judged(self, images):
        """The last epoch destroys what the first has learned, and the first one is kept."""

        class Destroy(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 1:
                    self.model.set_weights([0 * weight for weight in self.model.get_weights()])

        info = {**SMALL, "optimizer": ["adam", 1e-9], "epochs": 2, "validation_split": 0}
        model = build_module.get_autoencoder({**SMALL, "epochs": 40}, (8, 8, 1))
        train_module.train_autoencoder(model, {**SMALL, "epochs": 40}, images)
        said = []
        history = train_module.train_autoencoder(
            model, info, images, warn=said.append, callbacks=[Destroy()]
        )
        assert history.best_epoch == 1 and history.epochs[1]["mse"] > history.epochs[0]["mse"]
        assert said == []

    def test_constant_images_are_no_collapse(self):
        """Nothing can be learnt from one gray; from several something can."""
        for grays, warnings in ([7] * 20, 1), (range(0, 200, 10), 0):
            images = np.repeat(np.array(grays, np.uint8), 64).reshape(20, 8, 8, 1)
            said = []
            model = build_module.get_autoencoder(SMALL, (8, 8, 1))
            train_module.train_autoencoder(model, SMALL, images, warn=said.append)
            assert sum("Nothing to learn" in sentence for sentence in said) == warnings
            assert not any("collapse" in sentence for sentence in said) or not warnings

    def test_a_single_image(self, images):
        """It is trained on, and nothing is left to validate on, nor the same as others."""
        said = []
        model = build_module.get_autoencoder(SMALL, (8, 8, 1))
        train_module.train_autoencoder(model, SMALL, images[:1], warn=said.append)
        assert ["No validation images" in said[0], "one image" in said[1]] == [True, True]
        assert "the same" not in said[1]

    def test_no_validation(self, images):
        """validation_split 0 trains on everything and judges by the training loss."""
        _, history = train(SMALL, images, validation_split=0)
        assert not history.has("val_loss")
        assert history.metrics["loss"] == min(history.column("loss"))

    def test_schedule_sets_the_rate_of_every_epoch(self, images):
        _, history = train(SMALL, images, learning_rate_schedule=["exponential", 0.5])
        assert history.column("learning_rate") == pytest.approx([0.01, 0.005])

    def test_l2_is_part_of_the_loss(self, images):
        """The same first step costs more with a penalty; the error itself is reported beside it."""
        plain = train(SMALL, images, epochs=1, optimizer=["sgd", 1e-9])[1].epochs[0]
        penalised = train(SMALL, images, epochs=1, optimizer=["sgd", 1e-9], l2=0.1)[1].epochs[0]
        assert penalised["loss"] > plain["loss"] + 0.1
        assert penalised["mse"] == pytest.approx(plain["mse"], rel=1e-5)

    def test_mixed_precision_leaves_a_float32_model(self, images, tmp_path, report_cpu):
        """It learns as float32 does to bfloat16's three digits, and saves nothing of it."""
        report_cpu("avx512_bf16")
        _, exact = train(SMALL, images, epochs=4)
        model, mixed = train(SMALL, images, epochs=4, mixed_precision=True)
        assert mixed.column("val_mse") != exact.column("val_mse")
        np.testing.assert_allclose(mixed.column("val_mse"), exact.column("val_mse"), rtol=0.05)
        assert {weight.dtype for weight in model.weights} == {"float32"}
        model.save(tmp_path / "m.keras")
        assert "bfloat16" not in keras.saving.load_model(tmp_path / "m.keras").to_json()
        assert predict.predict(model, images, BYTES).dtype == np.float32

    @pytest.mark.slow
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_every_optimizer_trains(self, images, name):
        untrained = build_module.get_autoencoder(SMALL, (8, 8, 1)).get_weights()
        model, history = train(SMALL, images, optimizer=[name, 0.01])
        assert np.isfinite(history.column("loss")).all()
        weights = zip(untrained, model.get_weights(), strict=True)
        assert all(np.any(before != after) for before, after in weights)


class TestClassifier:
    def build(self, images, info=HEAD, source=MOODY, classes=4):
        encoder = build_module.get_autoencoder(source, images.shape[1:])
        return build_module.get_classifier(info, images.shape[1:], classes, encoder=encoder)

    def test_parts(self, images):
        model = self.build(images)
        assert [layer.name for layer in model.layers[1:]] == ["encoder", "fully_connected"]
        probabilities = predict.predict(model, images, BYTES)
        assert probabilities.shape == (40, 4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)

    def test_encoder_is_a_copy(self, images, labels):
        autoencoder = build_module.get_autoencoder(MOODY, (8, 8, 1))
        before = autoencoder.get_weights()
        classifier = build_module.get_classifier(HEAD, (8, 8, 1), 4, encoder=autoencoder)
        assert_same_weights(classifier.get_layer("encoder"), autoencoder.get_layer("encoder"))
        train_module.train_classifier(classifier, HEAD, images, labels)
        assert all(map(np.array_equal, before, autoencoder.get_weights()))

    @pytest.mark.parametrize(
        ("dense_only", "full", "changes"), [(2, 0, False), (0, 1, True), (1, 1, True)]
    )
    def test_only_full_training_changes_the_encoder(
        self, images, labels, dense_only, full, changes
    ):
        """Design: `trainable` only counts when the model is compiled after it was set."""
        info = HEAD | {"dense_only_train_epochs": dense_only, "full_train_epochs": full}
        info["optimizer"] = ["adam", 1e-9, 0.02]  # so that the best epoch is one of full training
        model = self.build(images, info)
        before = model.get_layer("encoder").get_weights()
        train_module.train_classifier(model, info, images, labels)
        weights = zip(before, model.get_layer("encoder").get_weights(), strict=True)
        assert any(np.any(old != new) for old, new in weights) == changes

    def test_one_history_of_both_phases(self, images, labels):
        """Epochs are numbered through, with the phase and the rate of each."""
        history = train_module.train_classifier(self.build(images), HEAD, images, labels)
        assert history.column("epoch") == [1, 2, 3]
        assert history.column("phase") == [DENSE_ONLY, DENSE_ONLY, FULL]
        assert history.column("learning_rate") == pytest.approx([0.01, 0.01, 0.002])
        assert history.dense_only_epochs == 2
        for key in ("loss", "accuracy", "precision", "recall", "f1"):
            assert history.has(key) and history.has(f"val_{key}")

    def test_balanced_classes_count_the_same(self, images):
        """With ten images of one class and two of another, the loss is the mean of both means."""
        images, labels = images[[*range(0, 40, 4), 1, 5]], np.repeat([3, 8], [10, 2])
        info = HEAD | {"dense_layers": [["dense", 8]], "optimizer": ["sgd", 1e-9]}
        info |= {"dense_only_train_epochs": 0, "validation_split": 0, "batch_size": 12}
        info["class_weight"] = "balanced"
        model = self.build(images, info, SMALL, classes=2)
        losses = -np.log(predict.predict(model, images, BYTES)[range(12), [0] * 10 + [1] * 2])
        history = train_module.train_classifier(model, info, images, labels)
        expected = (losses[:10].mean() + losses[10:].mean()) / 2
        assert history.metrics["loss"] == pytest.approx(expected, rel=1e-4)

    @pytest.mark.parametrize(
        ("by", "largest", "epoch"),
        [("auto", 16, 2), ("auto", 15, 1), ("accuracy", 30, 1), ("f1", 15, 2)],
    )
    def test_what_chooses_the_best_epoch(self, by, largest, epoch):
        """Accuracy, but the f1 score if a class has over three times the images of another.

        In the first epoch class 0 is the answer to all images: the accuracy is 9/13, F1 0.27. In
        the second it is so for a third of its images alone, and all others are right: 7/13, 0.63.
        """
        labels = np.repeat([1, 2, 0], [5, 5, largest])
        bright = np.where(labels > 0, labels, np.arange(len(labels)) % 3 > 0)
        images = np.zeros((len(labels), 2, 2, 1), np.uint8)
        images[range(len(labels)), 0, 0, 0] = 255 * (bright == 1)
        images[range(len(labels)), 0, 1, 0] = 255 * (bright == 2)
        encoder = keras.Sequential([keras.Input((2, 2, 1)), keras.layers.Flatten()], name="encoder")
        dense = keras.layers.Dense(3, "softmax")
        head = keras.Sequential([keras.Input((4,)), dense], name="fully_connected")
        model = keras.Sequential([encoder, head])

        class Answer(keras.callbacks.Callback):
            def on_epoch_begin(self, number, logs=None):
                kernel = np.zeros((4, 3), np.float32)
                kernel[[0, 1], [1, 2]] = 9 * number
                dense.set_weights([kernel, np.array([1, 0, 0], np.float32)])

        info = HEAD | {"dense_only_train_epochs": 0, "full_train_epochs": 2, "best_epoch_by": by}
        info["optimizer"] = ["sgd", 1e-9]
        validation = np.array([0, 1, 5, 6, *range(10, 19)])
        history = train_module.train_classifier(
            model, info, images, labels, validation=validation, callbacks=[Answer()]
        )
        assert history.column("val_accuracy") == pytest.approx([9 / 13, 7 / 13])
        assert history.column("val_f1") == pytest.approx([0.2727, 0.6333], abs=1e-4)
        assert history.best_epoch == epoch

    @pytest.mark.parametrize(("by", "is_named"), [("auto", True), ("last", False)])
    def test_one_image_per_class(self, images, by, is_named):
        """The epoch with the lowest loss is kept, unless it is to be the last one."""
        said = []
        info = {**HEAD, "full_train_epochs": 1, "best_epoch_by": by}
        model = self.build(images, info, classes=2)
        train_module.train_classifier(model, info, images[:2], np.arange(2), warn=said.append)
        assert [("loss" in sentence) for sentence in said] == [is_named]

    def test_cached_features_give_the_slow_way_s_result(self, images, labels, monkeypatch):
        """With BatchNorm and Dropout in the encoder: both are in inference mode when frozen."""
        info = {**HEAD, "full_train_epochs": 0, "dense_only_train_epochs": 3}
        results = []
        for budget in (predict.ENCODINGS_BYTES, 0):
            monkeypatch.setattr(predict, "ENCODINGS_BYTES", budget)
            model = self.build(images, info)
            history = train_module.train_classifier(model, info, images, labels)
            results.append((history.column("loss"), history.column("val_loss"), model))
        (loss, val_loss, cached), (slow_loss, slow_val_loss, slow) = results
        np.testing.assert_allclose(loss, slow_loss, rtol=1e-4)
        np.testing.assert_allclose(val_loss, slow_val_loss, rtol=1e-4)
        for a, b in zip(cached.get_weights(), slow.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)

    def test_dropout_of_cached_features(self, images, labels):
        """A head that starts with Dropout gets it with its batches, and only while it trains."""
        info = {**HEAD, "full_train_epochs": 0, "optimizer": ["sgd", 1e-9]}  # weights stay
        weights, losses = None, []
        for layers in ([["drop", 0.9]], []):
            model = self.build(images, {**info, "dense_layers": layers})
            weights = weights or model.get_weights()
            model.set_weights(weights)
            history = train_module.train_classifier(model, info, images, labels)
            losses.append((history.column("loss"), history.column("val_loss")))
        (dropped, val_dropped), (whole, val_whole) = losses
        np.testing.assert_allclose(val_dropped, val_whole, rtol=1e-4)
        assert abs(dropped[0] - whole[0]) > 1e-3
        assert dropped[0] != dropped[1]

    def test_augmentation_is_not_cached(self, images, labels, monkeypatch):
        """Features of changing images are not constant: the encoder must run every epoch."""
        info = {**HEAD, "full_train_epochs": 0, "augmentation": {"shift": 0.2}}
        model = self.build(images, info)
        monkeypatch.setattr(predict, "predict", None)  # calling it would fail
        history = train_module.train_classifier(model, info, images, labels)
        assert len(history.epochs) == 2

    def test_without_pretraining_nothing_is_frozen(self, images, labels):
        """All epochs train everything, from fresh weights, at the first rate."""
        autoencoder = build_module.get_autoencoder(MOODY, (8, 8, 1))
        autoencoder.set_weights([weight + 1 for weight in autoencoder.get_weights()])
        model = build_module.get_classifier(
            HEAD, (8, 8, 1), 4, encoder=autoencoder, pretrained=False
        )
        kernel = model.get_layer("encoder").get_weights()[0]
        assert np.abs(kernel - autoencoder.get_weights()[0]).mean() > 0.5
        history = train_module.train_classifier(model, HEAD, images, labels, pretrained=False)
        assert history.column("phase") == [FULL] * 3
        assert history.column("learning_rate") == pytest.approx([0.01] * 3)

    def test_listed_layers_build_an_encoder(self):
        """A configuration can bring its own, untrained."""
        layers = [["conv", 2, [3, 3]], ["pool", [2, 2]]]
        for more, encoding in (([], (4, 4, 2)), ([["dense", 6]], (6,))):
            info = {**HEAD, "encoder_layers": [*layers, *more]}
            model = build_module.get_classifier(info, (8, 8, 3), 5)
            assert model.get_layer("encoder").output_shape == (None, *encoding)
            assert model.output_shape == (None, 5)

    def test_both_phases_on_a_dense_bottleneck(self, images, labels):
        """Its linear numbers are the encoding, cached while it is frozen."""
        source = {**MOODY, "encoder_layers": [*MOODY["encoder_layers"], ["dense", 6]]}
        encoder = build_module.get_autoencoder(source, (8, 8, 1))
        keras.utils.clear_session()  # as in another start: the head's layers get the same names
        model = build_module.get_classifier(HEAD, (8, 8, 1), 4, encoder=encoder)
        history = train_module.train_classifier(model, HEAD, images, labels)
        assert history.column("phase") == [DENSE_ONLY, DENSE_ONLY, FULL]
        encodings = predict.predict(model.get_layer("encoder"), images, BYTES)
        assert encodings.shape == (40, 6) and encodings.min() < 0
        summary = predict.predict(build_module.with_summary(model), images, BYTES)
        np.testing.assert_allclose(summary[:, :6], encodings, atol=1e-5)

    def test_the_summary_of_rows_of_numbers(self, images):
        """An encoding (rows, channels) is summed up as an image is: 2 channels, 4 values."""
        encoder = keras.Sequential(
            [keras.Input((8, 8, 1)), keras.layers.Reshape((32, 2))], name="encoder"
        )
        model = build_module.get_classifier(HEAD, (8, 8, 1), 3, encoder=encoder)
        summary = predict.predict(build_module.with_summary(model), images, BYTES)
        rows = images.reshape(-1, 32, 2) / 255
        assert summary.shape == (len(images), 4 + 3)
        np.testing.assert_allclose(summary[:, :2], rows.mean(axis=1), atol=1e-5)
        np.testing.assert_allclose(summary[:, 2:4], rows.std(axis=1), atol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_macro_scores_equal_scikit_learn(num_classes):
    """Over several batches, with a class that occurs neither as label nor as prediction."""
    rng = np.random.default_rng(num_classes)
    labels = rng.integers(0, num_classes, 90)
    probabilities = rng.random((90, num_classes + 1)).astype(np.float32)
    probabilities[:, -1] = 0
    scores = train_module.MacroScores(num_classes + 1)
    for batch in np.split(np.arange(90), 3):
        scores.update_state(labels[batch], probabilities[batch])
    predictions = probabilities.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predictions, average="macro", zero_division=0
    )
    expected = {"accuracy": accuracy_score(labels, predictions)}
    expected |= {"precision": precision, "recall": recall, "f1": f1}
    found = {key: float(value) for key, value in scores.result().items()}
    assert found == pytest.approx(expected, abs=1e-6)


def test_first_filters():
    """The kernels of the first convolution, wherever it stands."""
    info = {**SMALL, "encoder_layers": [["drop", 0.1], ["conv", 3, [5, 3]], ["pool", [2, 2]]]}
    kernels = first_filters(build_module.get_autoencoder(info, (8, 8, 2)))
    assert kernels.shape == (5, 3, 2, 3)
    info["encoder_layers"] = [["pool", [2, 2]]]
    assert first_filters(build_module.get_autoencoder(info, (8, 8, 2))) is None
