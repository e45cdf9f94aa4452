"""Data and habits that tutorials do not have: tiny, constant, odd-sized or sorted sets."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import CLASSIFIER, read_rows, run_program, write_dataset, write_json

import autoencoder
from cae.config.load import load_config
from cae.data import idx
from cae.data.idx import read_images
from cae.data.splits import draw_sample
from cae.programs.tasks import AutoencoderTask
from cae.records.saved_models import load_model
from cae.training import build


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def test_test_images_of_another_program(classify, files, trained_classifier, tmp_path):
    """Inverted, transposed and in [0, 1]: with two flags the results are those of the originals."""
    images = (1 - read_images(files.test)[..., 0].swapaxes(1, 2) / 255).astype(np.float32)
    idx.write_idx(tmp_path / "other", images)
    data = replace(files, test=tmp_path / "other")
    done = classify("--invert", "test", "--transpose", "test", "--epochs", 4, data=data)
    assert done.exit_code == 0, done.err
    predictions = [(run / "predictions.csv") for run in (done.run, trained_classifier.run)]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()
    start = json.loads((done.run / "run.json").read_text())
    assert (start["arguments"]["invert"], start["arguments"]["transpose"]) == ("test", "test")
    assert start["appearance"] == load_model(done.run / "model.keras")[1]["appearance"]
    assert "--invert --transpose" in done.out  # in the next command


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
    done = autoencode()
    assert done.exit_code == 0, done.err
    assert load_model(done.run / "model.keras")[0].dtype == "float32"


class TestOneImagePerClass:
    def test_trains_without_validation_and_keeps_the_lowest_loss(self, tmp_path, runs):
        """Ten images of ten classes: all are trained on."""
        images = np.random.default_rng(0).integers(0, 256, (10, 8, 8)).astype(np.uint8)
        idx.write_idx(tmp_path / "images", images)
        idx.write_idx(tmp_path / "labels", np.arange(10).astype(np.uint8))
        layers = [["conv", 4, [3, 3]], ["pool", [2, 2]]]
        config = write_json(
            tmp_path / "head.json", CLASSIFIER, encoder_layers=layers, full_train_epochs=4
        )
        flags = ["-d", tmp_path / "images", "-dl", tmp_path / "labels", "-c", config]
        finished = run_program("classification", *flags, "--no-plots", runs_dir=runs)
        assert finished.exit_code == 0
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
        layers = json.loads(Path("configuration/autoencoder_small.json").read_text())
        return write_json(tmp_path / "small.json", layers, batch_size=16, epochs=1)

    def train(self, data, config, runs, *flags):
        flags = [*data.autoencoder, "-c", config, "--no-plots", *flags]
        return run_program("autoencoder", *flags, runs_dir=runs)

    def test_train_save_and_load_in_plain_keras(self, tmp_path, runs, data, shipped):
        saved = tmp_path / "small.keras"
        finished = self.train(data, shipped, runs, "--save", saved)
        assert finished.exit_code == 0, finished.err
        images = read_images(data.images).astype("float32") / 255
        plain = keras.saving.load_model(saved)
        assert plain(images).shape == images.shape
        assert np.square(plain(images) - images).mean() < 0.2
        assert "draws 28×28 and crops it to 27×25" in finished.out

        head = write_json(tmp_path / "head.json", CLASSIFIER)
        flags = [*data.classifier, "-c", head, "-model", saved]
        assert run_program("classification", *flags, runs_dir=runs).exit_code == 0

        again = self.train(data, shipped, runs, "--init-from", saved, "--mixed-precision")
        assert again.exit_code == 0, again.err

    def test_sizes_that_divide_keep_their_layers(self):
        config = load_config("configuration/autoencoder_small.json", "autoencoder")
        model = build.get_autoencoder(config, (28, 28, 1))
        layers = [layer for part in model.layers[1:] for layer in part.layers]
        assert not any(isinstance(layer, keras.layers.Cropping2D) for layer in layers)
        pools = [layer for layer in layers if isinstance(layer, keras.layers.MaxPooling2D)]
        assert [pool.padding for pool in pools] == ["valid", "valid"]

    def test_only_the_pools_that_need_it_round_up(self):
        """50 divides once, 25 does not."""
        config = load_config("configuration/autoencoder_small.json", "autoencoder")
        model = build.get_autoencoder(config, (50, 50, 1))
        encoder, decoder = model.get_layer("encoder"), model.get_layer("decoder")
        pools = [x for x in encoder.layers if isinstance(x, keras.layers.MaxPooling2D)]
        assert [pool.padding for pool in pools] == ["valid", "same"]
        assert encoder.output_shape == (None, 13, 13, 64)
        assert decoder.layers[-1].cropping == ((0, 2), (0, 2))

    def test_a_pool_larger_than_the_image_is_still_an_error(self, tmp_path, runs, shipped):
        data = write_dataset(tmp_path / "row", (1, 30))
        finished = self.train(data, shipped, runs)
        assert finished.exit_code == 2
        assert "encoder_layers[1]" in finished.err and "1×30" in finished.err


class TestMixedPrecision:
    def test_a_cpu_without_bfloat16_computes_in_float32_and_says_so_once(
        self, autoencode, autoencoder_config, report_cpu
    ):
        report_cpu("avx2 fma")
        plain = autoencode()
        mixed = autoencode("-c", autoencoder_config, "--mixed-precision")
        records = [json.loads((run / "environment.json").read_text()) for run in mixed.runs]
        assert [record["compute_dtype"] for record in records] == ["float32", "float32"]
        assert mixed.err.count("float32") == 1 and "warning: " in mixed.err
        assert "float32" not in plain.err
        assert "adam 0.01 in float32" in mixed.out
        paths = [run / "model.keras" for run in (plain.run, mixed.runs[0])]
        assert all(map(np.array_equal, *(load_model(path)[0].get_weights() for path in paths)))

    def test_a_cpu_with_bfloat16_uses_it(self, autoencode, report_cpu):
        report_cpu("amx_bf16")
        mixed = autoencode("--mixed-precision")
        record = json.loads((mixed.run / "environment.json").read_text())
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

    def test_every_class_gives_its_share(self, tmp_path, runs, data):
        layers = [["conv", 4, [3, 3]], ["pool", [2, 2]]]
        config = write_json(tmp_path / "head.json", CLASSIFIER, encoder_layers=layers)
        flags = [*data.unlabelled_test, "-c", config, "--limit", 12, "--seed", 3, "--no-plots"]
        finished = run_program("classification", *flags, runs_dir=runs)
        assert "3, with 4 images each" in finished.out
        labels = idx.read_labels(data.labels)
        chosen = draw_sample(48, 12, 3, labels)
        digest = hashlib.sha256(chosen.astype("<i8").tobytes()).hexdigest()
        sample = json.loads((finished.run / "run.json").read_text())["sample"]
        assert sample == {"seed": 3, "indices_sha256": digest}
        rows = read_rows(finished.run / "predictions.csv")  # of the validation images
        assert rows
        for row in rows:
            assert int(row["index"]) in chosen
            assert int(row["label"]) == labels[int(row["index"])]

    def test_a_resumed_run_uses_the_same_images(self, runs, data, autoencoder_config, monkeypatch):
        used = []
        fit = AutoencoderTask.fit

        def spy(task, *args, **kwargs):
            used.append(task.data.images)
            return fit(task, *args, **kwargs)

        def interrupt(row):
            if row["epoch"] == 1:
                raise RuntimeError

        monkeypatch.setattr(AutoencoderTask, "fit", spy)
        flags = ["-c", autoencoder_config, "--limit", 12, "--seed", 5, "--epochs", 3, "--no-plots"]
        arguments = [*map(str, [*data.autoencoder, *flags]), "--runs-dir", str(runs)]
        with pytest.raises(RuntimeError):
            autoencoder.main(arguments, interrupt)
        (partial,) = runs.iterdir()
        assert autoencoder.main(["--resume", str(partial)]) == 0
        expected = read_images(data.images)[draw_sample(48, 12, 5)]
        for images in used:
            np.testing.assert_array_equal(images, expected)
