"""Data and habits that tutorials do not have: tiny, constant, odd-sized or sorted sets."""

import hashlib
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import (
    CLASSIFIER,
    assert_same_weights,
    read_json,
    read_rows,
    write_dataset,
    write_json,
)

from cae.config.load import load_config
from cae.data import idx
from cae.data.idx import read_images
from cae.data.splits import draw_sample
from cae.figures import images as figures
from cae.records.saved_models import load_model
from cae.training import build


def test_test_images_of_another_program(classify, files, trained_classifier, tmp_path):
    """Inverted, transposed and in [0, 1]: with two flags the results are those of the originals."""
    images = (1 - read_images(files.test)[..., 0].swapaxes(1, 2) / 255).astype(np.float32)
    idx.write_idx(tmp_path / "other", images)
    data = replace(files, test=tmp_path / "other")
    done = classify("--invert", "test", "--transpose", "test", "--epochs", 4, data=data).ok()
    predictions = [(run / "predictions.csv") for run in (done.run, trained_classifier.run)]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()
    start = read_json(done.run / "run.json")
    assert (start["arguments"]["invert"], start["arguments"]["transpose"]) == ("test", "test")
    assert start["appearance"] == load_model(done.run / "model.keras")[1]["appearance"]
    assert "--invert --transpose" in done.out  # in the next command


def test_figures_show_every_class_of_sorted_data(autoencode, files, tmp_path, monkeypatch):
    """As folders of classes give them: 200 dark images, then 200 bright ones."""
    idx.write_idx(
        tmp_path / "sorted", np.repeat([10, 240], 200 * 64).astype(np.uint8).reshape(400, 8, 8)
    )
    shown = []
    draw = figures.autoencoder_visualization
    monkeypatch.setattr(
        figures,
        "autoencoder_visualization",
        lambda histories, originals, *rest: (
            shown.append(originals) or draw(histories, originals, *rest)
        ),
    )
    autoencode(data=replace(files, images=tmp_path / "sorted"), plots=True).ok()
    assert set((shown[0][:, 0, 0, 0] * 255).round()) == {10, 240}


@pytest.fixture
def theano_settings():
    """As ~/.keras/keras.json may leave them."""
    keras.config.set_image_data_format("channels_first")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")


@pytest.mark.usefixtures("theano_settings")
def test_settings_of_keras_for_other_programs(autoencode):
    done = autoencode().ok()
    assert load_model(done.run / "model.keras")[0].dtype == "float32"


class TestOneImagePerClass:
    def test_trains_without_validation_and_keeps_the_lowest_loss(self, tmp_path, classify):
        """Ten images of ten classes: all are trained on."""
        images = np.random.default_rng(0).integers(0, 256, (10, 8, 8)).astype(np.uint8)
        idx.write_idx(tmp_path / "images", images)
        idx.write_idx(tmp_path / "labels", np.arange(10).astype(np.uint8))
        layers = [["conv", 4, [3, 3]], ["pool", [2, 2]]]
        config = write_json(
            tmp_path / "head.json", CLASSIFIER, encoder_layers=layers, full_train_epochs=4
        )
        data = ["-d", tmp_path / "images", "-dl", tmp_path / "labels"]
        finished = classify(data=data, config=config, model=None).ok()
        assert "10 for training, 0 for validation" in finished.out
        assert finished.err.count("No validation images") == 1
        rows = read_rows(finished.run / "history.csv")
        losses = [float(row["loss"]) for row in rows]
        assert finished.metrics["best_epoch"] == 1 + int(np.argmin(losses))
        assert not any(key.startswith("val_") for key in rows[0])


class TestSizesThatPoolsDoNotDivide:
    """The shipped layers, with two pools of 2×2, on sizes that are not multiples of 4."""

    @pytest.fixture
    def data(self, tmp_path):
        return write_dataset(tmp_path / "data", (27, 25))

    @pytest.fixture
    def shipped(self, tmp_path):
        layers = read_json(Path("configuration/autoencoder_small.json"))
        return write_json(tmp_path / "small.json", layers, batch_size=16, epochs=1)

    def test_train_save_and_load_in_plain_keras(
        self, tmp_path, data, shipped, autoencode, classify
    ):
        saved = tmp_path / "small.keras"
        finished = autoencode("--save", saved, data=data, config=shipped).ok()
        images = read_images(data.images).astype("float32") / 255
        plain = keras.saving.load_model(saved)
        assert plain(images).shape == images.shape
        assert np.square(plain(images) - images).mean() < 0.2
        assert "28×28, cropped to 27×25" in finished.out
        classify(data=data, model=saved).ok()
        autoencode("--init-from", saved, "--mixed-precision", data=data, config=shipped).ok()

    def test_only_the_pools_that_need_it_round_up(self):
        """50 divides once, 25 does not."""
        config = load_config("configuration/autoencoder_small.json", "autoencoder")
        model = build.get_autoencoder(config, (50, 50, 1))
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        pools = [x for x in encoder.layers if isinstance(x, keras.layers.MaxPooling2D)]
        assert [pool.padding for pool in pools] == ["valid", "same"]
        assert encoder.output_shape == (None, 13, 13, 64)
        assert decoder.layers[-1].cropping == ((0, 2), (0, 2))

    def test_a_pool_larger_than_the_image_is_still_an_error(self, tmp_path, shipped, autoencode):
        data = write_dataset(tmp_path / "row", (1, 30))
        autoencode(data=data, config=shipped).refused("encoder_layers[1]", "1×30")


class TestMixedPrecision:
    def test_a_cpu_without_bfloat16_computes_in_float32_and_says_so_once(
        self, autoencode, autoencoder_config, report_cpu
    ):
        report_cpu("avx2 fma")
        plain = autoencode()
        mixed = autoencode("-c", autoencoder_config, "--mixed-precision")
        records = [read_json(run / "environment.json") for run in mixed.runs]
        assert [record["compute_dtype"] for record in records] == ["float32", "float32"]
        assert mixed.err.count("float32") == 1 and "warning: " in mixed.err
        assert "float32" not in plain.err
        assert "adam 0.01 in float32" in mixed.out
        runs = plain.run, mixed.runs[0]
        assert_same_weights(*(load_model(run / "model.keras")[0] for run in runs))

    def test_a_cpu_with_bfloat16_uses_it(self, autoencode, report_cpu):
        report_cpu("amx_bf16")
        mixed = autoencode("--mixed-precision")
        record = read_json(mixed.run / "environment.json")
        assert record["compute_dtype"] == "bfloat16"
        assert "float32" not in mixed.err
        assert "adam 0.01 in bfloat16" in mixed.out


class TestLimitOnSortedData:
    """48 images sorted by class: the first 12 are of one class, a sample of 12 holds 4 of each."""

    @pytest.fixture
    def data(self, tmp_path):
        files = write_dataset(tmp_path / "data")
        images, labels = read_images(files.images)[..., 0], idx.read_labels(files.labels)
        order = np.argsort(labels, kind="stable")
        idx.write_idx(files.images, images[order])
        idx.write_idx(files.labels, labels[order].astype(np.uint8))
        return files

    def test_every_class_gives_its_share(self, tmp_path, data, classify):
        layers = [["conv", 4, [3, 3]], ["pool", [2, 2]]]
        config = write_json(tmp_path / "head.json", CLASSIFIER, encoder_layers=layers)
        flags = ["--limit", 12, "--seed", 3]
        finished = classify(*flags, data=data.unlabelled_test, config=config, model=None)
        assert "3, with 4 images each" in finished.out
        labels = idx.read_labels(data.labels)
        chosen = draw_sample(48, 12, 3, labels)
        digest = hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest()
        sample = read_json(finished.run / "run.json")["sample"]
        assert sample == {"seed": 3, "indices_sha256": digest}
        rows = read_rows(finished.run / "predictions.csv")  # of the validation images
        assert rows
        for row in rows:
            assert int(row["index"]) in chosen
            assert int(row["label"]) == labels[int(row["index"])]
