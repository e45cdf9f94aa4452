"""The training loop: what callbacks see and may change, short epochs, both backends."""

import math

import keras
import pytest
from conftest import (
    AUTOENCODER,
    CLASSIFIER,
    assert_same_weights,
    check_same_training,
    draw_images,
    read_json,
    read_rows,
    run_python,
    write_dataset,
    write_json,
)

from cae.training import batches, build, train
from cae.training.loop import learning_rate_at


@pytest.fixture
def images():
    return draw_images(40, (8, 8, 1), (2, 5), seed=1)


def train_autoencoder(images, callbacks=(), **changes):
    config = {**AUTOENCODER, "batch_size": 8, **changes}
    model = build.get_autoencoder(config, images.shape[1:])
    history = train.train_autoencoder(
        model, config, images, callbacks=callbacks, warn=lambda sentence: None
    )
    return model, history


def train_classifier(images, labels, callbacks=(), **changes):
    config = {**CLASSIFIER, "encoder_layers": AUTOENCODER["encoder_layers"], "batch_size": 8}
    config |= {"dense_layers": [["drop", 0.5], ["dense", 8], ["drop", 0.25]], **changes}
    model = build.get_classifier(config, images.shape[1:], 2)
    return model, train.train_classifier(model, config, images, labels, callbacks=callbacks)


class TestCallbacksOfUsers:
    def test_are_called_in_order(self, images, monkeypatch):
        """36 images in batches of 8, two at a time: executions end with batches 1, 3 and 4."""
        monkeypatch.setattr(batches, "IMAGES_PER_EXECUTION", 16)
        told = []

        class Note(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                told.append(("begin", self.params["steps"], self.params["epochs"]))

            def on_epoch_begin(self, epoch, logs=None):
                told.append(epoch)

            def on_train_batch_end(self, batch, logs):
                told.append((batch, sorted(logs)))

            def on_epoch_end(self, epoch, logs):
                told.append(sorted(logs))

            def on_train_end(self, logs=None):
                told.append("end")

        train_autoencoder(images[0], [Note()], epochs=2)
        epoch = [(batch, ["loss", "mse"]) for batch in (1, 3, 4)]
        epoch.append(["loss", "mse", "val_loss", "val_mse"])
        assert told == [("begin", 5, 2), 0, *epoch, 1, *epoch, "end"]

    def test_an_epoch_cut_short_is_not_told(self, images, monkeypatch):
        """The second is stopped after 16 of 36 images; a resumed training tells all of it."""
        monkeypatch.setattr(batches, "IMAGES_PER_EXECUTION", 16)
        config, told, executions = {**AUTOENCODER, "batch_size": 8, "epochs": 3}, [], []
        train.train_autoencoder(
            build.get_autoencoder(config, images[0].shape[1:]),
            config,
            images[0],
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_train_batch_end=lambda batch, logs: executions.append(batch)
                )
            ],
            should_stop=lambda: len(executions) == 4,
            on_epoch=lambda row: told.append(row["epoch"]),
        )
        assert told == [1]

    def test_can_stop_a_phase(self, images):
        """The next one is trained all the same."""
        stop = keras.callbacks.EarlyStopping("val_loss", patience=1)
        _, history = train_classifier(
            *images, [stop], dense_only_train_epochs=9, full_train_epochs=1,
            optimizer=["sgd", 1e-30],
        )  # fmt: skip
        assert history.column("phase") == ["dense_only", "dense_only", "full"]

    @pytest.mark.parametrize("moment", ["train", "epoch", "train_batch"])
    def test_can_stop_before_the_first_execution(self, images, monkeypatch, moment):
        """As in Keras one is trained all the same: 16 of 36 images."""
        monkeypatch.setattr(batches, "IMAGES_PER_EXECUTION", 16)
        ended = []
        stop = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: ended.append(batch)
        )
        setattr(
            stop, f"on_{moment}_begin", lambda *_, **__: setattr(stop.model, "stop_training", True)
        )
        _, history = train_autoencoder(images[0], [stop], epochs=3)
        assert ended == [1] and len(history.epochs) == 1
        assert history.epochs[0]["val_mse"] > 0

    def test_can_change_the_learning_rate(self, images):
        """Halved after every epoch without progress, which is each but the first."""
        halve = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=9)
        _, history = train_autoencoder(images[0], [halve], epochs=4)
        assert history.column("learning_rate") == pytest.approx([0.01, 0.01, 0.005, 0.0025])

    def test_a_schedule_of_the_user_overrides_the_configuration(self, images):
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.1 / (epoch + 1))
        _, history = train_autoencoder(
            images[0], [schedule], epochs=2, learning_rate_schedule=["cosine"]
        )
        assert history.column("learning_rate") == pytest.approx([0.1, 0.05])

    @pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
    def test_saved_models_are_plain(self, images, tmp_path, name):
        """No optimizer and no layer of ours: they load in any program that has Keras."""
        path = tmp_path / name
        save = keras.callbacks.ModelCheckpoint(path, save_weights_only=name.endswith("h5"))
        model, _ = train_autoencoder(images[0], [save], epochs=1)
        if name.endswith("h5"):
            loaded = build.get_autoencoder({**AUTOENCODER, "seed": 9}, (8, 8, 1))
            loaded.load_weights(path)
        else:
            loaded = keras.saving.load_model(path)
            assert not loaded.compiled
            assert [layer.name for layer in loaded.layers[1:]] == ["encoder", "decoder"]
        assert_same_weights(loaded, model)

    def test_see_the_model_that_is_kept(self, images, tmp_path):
        """Its weights at the end of an epoch; a log of Keras holds the history's values."""
        means = []
        look = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: means.append(look.model.get_weights()[0].mean())
        )
        log = keras.callbacks.CSVLogger(tmp_path / "log.csv")
        model, history = train_autoencoder(images[0], [look, log], epochs=3)
        assert means[history.best_epoch - 1] == model.get_weights()[0].mean()
        assert len(set(means)) == 3
        logged = [float(row["val_mse"]) for row in read_rows(tmp_path / "log.csv")]
        assert logged == pytest.approx(history.column("val_mse"))


def test_short_epochs_are_those_of_tensorflow(images, monkeypatch):
    """Batches cut by NumPy have the same order and dropout, and give the same results."""

    def run():
        model, history = train_classifier(*images, dense_only_train_epochs=3)
        return history, model.get_weights()

    short = run()
    monkeypatch.setattr(batches, "SHORT_STEPS", 0)
    check_same_training(short, run())


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (("cosine",), [0.1, 0.1 * (0.5 + math.sqrt(0.125)), 0.05, 0.1 * (0.5 - math.sqrt(0.125))]),
        (("exponential", 0.5), [0.1, 0.05, 0.025, 0.0125]),
        (("step", 2, 0.1), [0.1, 0.1, 0.01, 0.01]),
    ],
)
def test_learning_rate_schedules(schedule, rates):
    """Worked by hand for four epochs from 0.1."""
    assert [learning_rate_at(schedule, 0.1, epoch, 4) for epoch in range(4)] == pytest.approx(rates)


@pytest.mark.slow
def test_both_programs_train_with_jax(tmp_path):
    """3 steps in each of 60 epochs, on the frozen encoder and on everything, of cropped images."""
    files, jax = write_dataset(tmp_path / "data", (7, 9)), {"KERAS_BACKEND": "jax"}
    encoder = tmp_path / "autoencoder.keras"
    config = write_json(tmp_path / "tiny.json", AUTOENCODER, epochs=60, validation_split=0)
    ended = run_python(
        "autoencoder.py", *files.autoencoder, "-c", config,
        "--no-plots", "--save", encoder, "--run-dir", tmp_path / "autoencoder", **jax,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    metrics = read_json(tmp_path / "autoencoder" / "metrics.json")
    assert metrics["epochs"] == 60
    assert metrics["mse"] < 0.04  # the mean image has 0.09
    refused = run_python(
        "autoencoder.py", *files.autoencoder, "-c", config, "--devices", "all", **jax
    )
    assert refused.returncode == 2
    assert "jax" in refused.stderr.splitlines()[-1]
    config = write_json(
        tmp_path / "head.json", CLASSIFIER, dense_only_train_epochs=30, full_train_epochs=30,
        dense_layers=[["drop", 0.2], ["dense", 8], ["batchNorm"]],
    )  # fmt: skip
    ended = run_python(
        "classification.py", *files.classifier, "-c", config, "-model", encoder,
        "--no-plots", "--run-dir", tmp_path / "classifier", **jax,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    metrics = read_json(tmp_path / "classifier" / "metrics.json")
    assert metrics["epochs"] == 60
    assert metrics["test_accuracy"] > 0.9
