"""predict.py: what a saved model says."""

import json
import re
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import read_json, read_rows, run_program
from keras import layers
from PIL import Image
from report_folders import Page

from cae.data import idx
from cae.data.appearance import describe
from cae.data.datasets import Scaling
from cae.data.idx import read_images, read_labels
from cae.data.pictures import Form
from cae.errors import UserError
from cae.programs.classify import Classifier
from cae.programs.classify import ask as ask_classifier
from cae.records.calibration import UNCALIBRATED, Calibration, Typical
from cae.records.saved_models import load_model, read_metadata, save_model

BYTES = Scaling(0.0, 255.0, "uint8")


def save_picture(path, image):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0]).save(path)


def assert_same_predictions(run, other):
    assert (run / "predictions.csv").read_bytes() == (other / "predictions.csv").read_bytes()


class TestEvaluate:
    @pytest.fixture
    def evaluate(self, tmp_path, monkeypatch, launch, trained_classifier):
        """Tests the classifier, in an empty folder, by default without figures."""
        monkeypatch.chdir(tmp_path)

        def run(*flags, model=trained_classifier.saved, plots=False):
            return launch("predict", "evaluate", model, *flags, *([] if plots else ["--no-plots"]))

        return run

    def test_repeats_the_test_of_the_training(self, evaluate, files, trained_classifier):
        """Nothing is trained; the run has predictions, report and figures."""
        done = evaluate("-t", files.test, "-tl", files.test_labels, plots=True).ok()
        training = trained_classifier.run
        for name in ("predictions.csv", "classification_report.txt"):
            assert (done.run / name).read_bytes() == (training / name).read_bytes()
        metrics = trained_classifier.metrics
        tested = {key: value for key, value in done.metrics.items() if key.startswith("test_")}
        assert tested == {key: metrics[key] for key in tested}
        assert 0 <= tested["test_accuracy_low"] < tested["test_accuracy_high"] <= 1
        assert done.metrics["model"]["path"] == trained_classifier.saved
        assert (done.run / "plots" / "confusion_matrix.png").exists()
        assert "95 % interval" in done.out
        assert not (done.run / "model.keras").exists()

    def test_images_and_labels_of_any_file(self, evaluate, files):
        done = evaluate(*files.unlabelled_test).ok()
        assert len(read_rows(done.run / "predictions.csv")) == 48
        assert not (done.run / "plots").exists()

    def test_files_that_cannot_be_read_are_named(self, evaluate, files):
        """One of 201 pictures."""
        images = read_images(files.test)
        for number in range(201):
            save_picture(f"test/{number % 2}/{number}.png", images[number % 20])
        Path("test/0/200.png").write_bytes(b"")
        done = evaluate("-t", "test").ok()
        assert "200.png,an empty file" in (done.run / "skipped.csv").read_text()
        assert "Skipped files that are not readable pictures: 1" in done.err

    def test_inverted_and_scaled_images(self, evaluate, files, trained_classifier):
        """A warning names the flag, with which the predictions are those of the plain images."""
        inverted = 255 - read_images(files.test)
        idx.write_idx("bytes", inverted)
        idx.write_idx("floats", (inverted / 255).astype(np.float32))
        done = evaluate("-t", "floats", "-tl", files.test_labels)
        assert done.out.startswith("floats: ") and "0..1" in done.out
        assert "inverted" in done.err and "--invert" in done.err
        done = evaluate("-t", "bytes", "-tl", files.test_labels, "--invert")
        assert "warning" not in done.err
        assert_same_predictions(done.run, trained_classifier.run)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [([], "-d"), (["-d", "digits"], "8×8×1"), (["-t", "{images}"], "labels")],
    )
    def test_wrong_images(self, evaluate, files, flags, words):
        done = evaluate(*(flag.format(images=files.images) for flag in flags)).refused(words)
        assert not done.runs

    def test_not_a_classifier(self, evaluate, files, trained_autoencoder):
        done = evaluate(*files.unlabelled_test, model=trained_autoencoder.saved)
        assert not done.refused("must be a classifier, got autoencoder").runs

    def test_rgb_arrays_for_a_gray_model(self, evaluate, files, trained_classifier):
        """Those whose channels are equal are the gray images; of two channels they are refused.

        The remedy is one for a classifier that is trained already.
        """
        np.save("x.npy", np.repeat(read_images(files.test), 3, axis=3))
        done = evaluate("-t", "x.npy", "-tl", files.test_labels).ok()
        assert done.out.startswith("x.npy: ") and "luminance" in done.out
        assert_same_predictions(done.run, trained_classifier.run)
        np.save("x.npy", np.repeat(read_images(files.test), 2, axis=3))
        done = evaluate("-t", "x.npy", "-tl", files.test_labels).refused("8×8×2")
        assert "autoencoder" not in done.err

    @pytest.mark.parametrize("form", ["x.npy", "x.idx", "x.npz"])
    def test_gray_arrays_for_a_model_of_rgb(self, evaluate, form):
        """The class of the model is whether blue is bright, which gray 255 is."""
        pixels = np.repeat(np.array([0, 255], np.uint8), 10)[:, None, None] * np.ones((2, 2), "u1")
        labels, flags = (pixels[:, 0, 0] > 0).astype(np.uint8), ["-t", form]
        if form == "x.npz":
            np.savez(form, images=pixels, labels=labels)
        else:
            idx.write_idx(form, pixels) if form == "x.idx" else np.save(form, pixels)
            np.save("y.npy", labels)
            flags += ["-tl", "y.npy"]
        done = evaluate(*flags, model=save_blue_classifier("blue.keras")).ok()
        assert done.out.startswith(f"{form}: ") and "gray" in done.out.splitlines()[0]
        assert done.metrics["test_accuracy"] == 1

    @pytest.mark.parametrize(
        ("num_outputs", "labels", "said"),
        [
            (4, [0, 1, 2, 3], None),
            (5, [1, 3, 4, 5], "1 to 5"),  # as EMNIST counts, without images of class 2
            (5, [1, 2, 3, 4], "0 to 4"),
            (3, [2, 5, 61], "2, 5 and 61"),
        ],
    )
    def test_labels_that_a_foreign_classifier_does_not_name(
        self, evaluate, num_outputs, labels, said
    ):
        """The output of a class is large for a bright pixel in its column; a line says what is
        taken for what.
        """
        dense = layers.Dense(num_outputs)
        model = keras.Sequential([keras.Input((2, 8, 1)), layers.Flatten(), dense])
        dense.set_weights([np.eye(16, num_outputs) * 9, np.zeros(num_outputs)])
        model.save("m.keras")
        first = int(said[0]) if said and "to" in said else None
        columns = range(len(labels)) if first is None else [label - first for label in labels]
        images = np.zeros((len(labels), 2, 8), np.uint8)
        images[range(len(labels)), 0, columns] = 255
        idx.write_idx("images", images)
        idx.write_idx("labels", np.array(labels, np.uint8))
        done = evaluate("-t", "images", "-tl", "labels", model="m.keras").ok()
        asked = run_program("predict", "classify", "m.keras", "images", "-tl", "labels").ok()
        assert "Accuracy 100.00%" in done.out and "Accuracy 100.00%" in asked.out
        for text in (done.out, asked.err):
            lines = [line for line in text.splitlines() if "does not name its classes" in line]
            assert len(lines) == bool(said) and all(f"labels {said}," in line for line in lines)


def save_blue_classifier(path):
    """Saves a classifier of 2×2 RGB images: 1 if the mean of blue is above a half, else 0."""
    dense = layers.Dense(2, "softmax")
    model = keras.Sequential([keras.Input((2, 2, 3)), layers.GlobalAveragePooling2D(), dense])
    dense.set_weights([np.array([[0, 0], [0, 0], [0, 20]], np.float32), np.array([10, 0], "f4")])
    scaling = {"offset": 0.0, "scale": 255.0, "dtype": "uint8"}
    known = {"kind": "classifier", "input_shape": [2, 2, 3], "scaling": scaling, "classes": [0, 1]}
    save_model(model, path, known)
    return path


class TestClassify:
    @pytest.fixture
    def ask(self, tmp_path, monkeypatch, trained_classifier):
        """Classifies inputs; returns the program, and the rows that it wrote."""
        monkeypatch.chdir(tmp_path)

        def run(*args, model=trained_classifier.saved):
            flags = ["classify", model, *args, "--json", "answers.json"]
            done = run_program("predict", *flags)
            written = Path("answers.json")
            return done, read_json(written) if written.exists() else None

        return run

    def test_answers_of_a_test(self, ask, files, trained_classifier):
        """Predictions and probabilities are those of the training's test."""
        np.save("labels.npy", idx.read_labels(files.test_labels))
        flags = ["-tl", "labels.npy", "--csv", "answers.csv"]
        done, rows = ask(files.test, *flags)
        assert done.exit_code == 0, done.err
        tested = read_rows(trained_classifier.run / "predictions.csv")
        assert [row["prediction"] for row in rows] == [row["prediction"] for row in tested]
        assert [row["correct"] for row in rows] == [row["correct"] == "1" for row in tested]
        calibration = Calibration(**read_metadata(trained_classifier.saved)["calibration"])
        for row, (_, *given) in zip(rows, probabilities_of(tested), strict=True):
            calibrated = sorted(given, reverse=True)
            assert row["probability"] == pytest.approx(calibrated[0], abs=1e-4)
            assert row["runner_up_probability"] == pytest.approx(calibrated[1], abs=1e-4)
            assert row["unsure"] == (row["probability"] < calibration.unsure_below)
            assert row["prediction"] != row["runner_up"] and row["unlike_training"] in (True, False)
        assert f"{trained_classifier.metrics['test_accuracy']:.2%}" in done.out
        csv_rows = read_rows(Path("answers.csv"))
        assert [row["image"] for row in csv_rows] == [f"{files.test}[{i}]" for i in range(24)]

    @pytest.mark.parametrize("limit", [0, 0.9999, 1])
    def test_the_limit_of_unsure_answers_is_chosen(self, ask, files, limit):
        noise = np.random.default_rng(0).integers(0, 256, (24, 8, 8), np.uint8)
        np.save("noise.npy", noise)
        done, rows = ask("noise.npy", "--unsure-below", limit)
        assert done.exit_code == 0, done.err
        unsure = [row["unsure"] for row in rows]
        assert unsure == [row["probability"] < limit for row in rows]
        assert any(unsure) == (limit > 0)

    def test_text_labels_mean_the_classes_of_that_name(self, ask, files, trained_classifier):
        """Whatever number they would have among the words of their file."""
        words = idx.read_labels(files.test_labels)[-7:].astype(str)
        np.save("images.npy", idx.read_images(files.test)[-7:])
        np.save("labels.npy", words)
        done, rows = ask("images.npy", "-tl", "labels.npy")
        assert done.exit_code == 0, done.err
        assert [row["label"] for row in rows] == words.tolist()

    def test_images_without_a_label_or_of_another_class(self, ask, files):
        """An empty label is none; a word that is no class of the model stays as it is."""
        words = idx.read_labels(files.test_labels)[:3].astype(str).astype("<U3")
        words[1:] = "", "fox"
        np.save("images.npy", idx.read_images(files.test)[:3])
        np.save("labels.npy", words)
        done, rows = ask("images.npy", "-tl", "labels.npy")
        assert done.exit_code == 0, done.err
        assert [row["label"] for row in rows] == [words[0], None, "fox"]
        assert [row["correct"] for row in rows][1:] == [None, False]

    def test_more_labels_than_images(self, ask, files):
        np.save("images.npy", idx.read_images(files.test)[:3])
        done, rows = ask("images.npy", "-tl", files.test_labels, "--csv", "answers.csv")
        assert done.exit_code == 2 and "24 labels for 3 images" in done.err
        assert rows is None and not Path("answers.csv").exists()

    def test_pictures_in_folders_of_their_classes(self, tmp_path, ask, files):
        """Errors are written as pictures; one that cannot be read decides the exit code."""
        images, labels = read_images(files.test), read_labels(files.test_labels)
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            enlarged = np.kron(image, np.ones((2, 2, 1), np.uint8))
            folder = f"pictures/{2 if number == 0 else label}"
            save_picture(
                f"{folder}/{number:02}.png", enlarged if label == labels[0] else 255 - enlarged
            )
        Path("pictures", "2", "99.png").write_bytes(b"nothing")
        done, rows = ask("pictures", "--errors", "wrong")
        assert done.exit_code == 2 and "99.png" in done.err
        assert len(rows) == 24 and rows == sorted(rows, key=lambda row: row["image"])
        wrong = [row for row in rows if not row["correct"]]
        assert wrong and all(row["label"] == row["image"].split("/")[1] for row in rows)
        names = sorted(path.name.split("-")[:2] for path in Path("wrong").iterdir())
        assert names == sorted([row["label"], row["prediction"]] for row in wrong)

    def test_gray_arrays_for_a_model_of_rgb(self, tmp_path, ask):
        """More of them than are classified at once; one line says what becomes of them."""
        pixels = np.zeros((1500, 2, 2), np.uint8)
        pixels[1::2] = 255
        np.save("x.npy", pixels)
        done, rows = ask("x.npy", model=save_blue_classifier(tmp_path / "blue.keras"))
        assert done.exit_code == 0, done.err
        assert [row["prediction"] for row in rows] == ["0", "1"] * 750
        assert done.err.count("x.npy: ") == 1

    def test_nothing_to_classify(self, tmp_path, ask):
        (tmp_path / "empty").mkdir()
        done, rows = ask("empty", "--csv", "answers.csv")
        assert done.exit_code == 2 and "error: empty: must hold an image" in done.err
        assert rows is None and not Path("answers.csv").exists()

    def test_a_classifier_of_another_program(self, ask, files):
        """It names neither classes nor typical images."""
        parts = [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3, "softmax")]
        keras.Sequential(parts).save("m.keras")
        done, rows = ask(files.test, model="m.keras")
        assert done.exit_code == 0, done.err
        probabilities = keras.saving.load_model("m.keras")(read_images(files.test) / 255)
        expected = np.asarray(probabilities).argmax(axis=1)
        assert [row["prediction"] for row in rows] == expected.astype(str).tolist()
        assert {row["unlike_training"] for row in rows} == {None}
        assert "not known" in done.out

    @pytest.mark.parametrize("change", [{"mean": [1.0]}, {"deviation": [1.0]}])
    def test_statistics_that_do_not_fit_the_model(self, ask, files, trained_classifier, change):
        model, metadata = load_model(trained_classifier.saved)
        save_model(model, "m.keras", metadata | {"typical": metadata["typical"] | change})
        done, rows = ask(files.test, model="m.keras")
        assert done.exit_code == 2 and rows is None
        assert done.err.splitlines()[-1].startswith("error: m.keras: ")

    def test_nothing_is_overwritten(self, ask, files):
        Path("answers.csv").write_text("mine")
        done, rows = ask(files.test, "--csv", "answers.csv")
        assert done.exit_code == 2 and rows is None
        assert Path("answers.csv").read_text() == "mine"


def classifier_of(model):
    """A classifier of bytes, with the classes a and b, of which nothing else is known."""
    form, classes = Form(*model.input_shape[1:]), np.arange(2)
    return Classifier(model, form, BYTES, classes, ["a", "b"], UNCALIBRATED, None, None)


class TestDarkOnLight:
    """Training images are bright spots on black, each in another place; these are the reverse."""

    @pytest.fixture
    def ask(self, tmp_path):
        spots = np.zeros((40, 8, 8, 1), np.uint8)
        spots[np.arange(40), np.arange(40) % 6 + 1, np.arange(40) % 5 + 1] = 255
        np.save(tmp_path / "dark.npy", 255 - spots)
        parts = [keras.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2, "softmax")]
        classifier, looks = classifier_of(keras.Sequential(parts)), describe(spots, BYTES)

        def run(looks=looks, **flags):
            said, warned = [], []
            options = flags | {"say": said.append, "warn": warned.append}
            asked = replace(classifier, looks=looks)
            (found,) = ask_classifier(asked, [str(tmp_path / "dark.npy")], **options)
            return np.array_equal(found.part.images, spots / 255), said, warned

        return run

    def test_is_named(self, ask):
        is_inverted, said, (warning,) = ask()
        assert not is_inverted and not said and "--invert auto" in warning

    def test_is_inverted_on_demand_only(self, ask):
        is_inverted, (said,), warned = ask(invert="auto")
        assert is_inverted and "inverted" in said and not warned

    def test_rows_and_columns_are_swapped_on_demand(self, tmp_path):
        """A model of the sum of the first row, asked about a bright first column."""
        weights = np.zeros((4, 2), np.float32)
        weights[:2, 1] = 5
        dense = layers.Dense(2, "softmax")
        classifier = classifier_of(
            keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), dense])
        )
        dense.set_weights([weights, np.array([7, 0], np.float32)])
        np.save(tmp_path / "column.npy", np.array([[[255, 0], [255, 0]]], np.uint8))
        for transpose, expected in ((False, 0), (True, 1)):
            (found,) = ask_classifier(
                classifier, [str(tmp_path / "column.npy")], transpose=transpose
            )
            assert found.probabilities.argmax() == expected
        with pytest.raises(UserError, match="--transpose"):
            next(ask_classifier(replace(classifier, form=Form(2, 3, 1)), [], transpose=True))

    def test_auto_needs_to_know_the_training_images(self, ask):
        is_inverted, _, (warning,) = ask(looks=None, invert="auto")
        assert not is_inverted and "always" in warning
        assert ask(looks=None, invert="always") == (True, [], [])


def probabilities_of(rows):
    """The label of each row of predictions.csv, and the probabilities of the classes."""
    return [
        (row["label"], *(float(row[key]) for key in row if key.startswith("p_"))) for row in rows
    ]


class TestEncodings:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def start(command, *args):
            return run_program("predict", command, *args)

        return start

    @pytest.fixture
    def images(self, files):
        return read_images(files.test).astype(np.float32) / 255

    def test_encodings_are_those_of_the_encoder(self, run, files, images, trained_classifier):
        model, _ = load_model(trained_classifier.saved)
        expected = np.asarray(model.get_layer("encoder")(images))
        for name in ("e.npy", "e.csv"):
            run("encode", trained_classifier.saved, files.test, "-o", name).ok()
        np.testing.assert_allclose(np.load("e.npy"), expected, atol=1e-6)
        rows = read_rows(Path("e.csv"))
        names = [row["image"] for row in rows]
        assert names == Path("e.txt").read_text().splitlines()
        values = [[float(row[key]) for key in row if key != "image"] for row in rows]
        np.testing.assert_allclose(values, expected.reshape(len(rows), -1), atol=1e-6)

    def test_a_line_break_in_a_name_shifts_no_other(self, run, files, trained_classifier):
        for name in ("a\nb.png", "c.png"):
            save_picture(name, read_images(files.test)[0])
        run("encode", trained_classifier.saved, "a\nb.png", "c.png", "-o", "e.npy").ok()
        assert Path("e.txt").read_text() == "a b.png\nc.png\n"

    def test_reconstructions(self, run, files, images, trained_autoencoder):
        model, _ = load_model(trained_autoencoder.saved)
        expected = np.asarray(model(images))
        for output in ("drawn", "drawn.idx", "drawn.png"):
            run("reconstruct", trained_autoencoder.saved, files.test, "-o", output).ok()
        np.testing.assert_allclose(read_images(Path("drawn.idx")) / 255, expected, atol=0.003)
        written = sorted(Path("drawn").iterdir())
        assert len(written) == len(images)
        np.testing.assert_array_equal(
            Image.open(written[3]), read_images(Path("drawn.idx"))[3, ..., 0]
        )
        with Image.open("drawn.png") as figure:  # of many images, so larger than one, in grays
            assert min(figure.size) > 100
            assert len(figure.convert("L").getcolors()) > 20

    def test_reconstructions_of_another_program(self, run, files, images):
        """They are those of plain Keras, which takes bytes, as the first layer shows."""
        parts = [keras.Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Conv2D(1, 1)]
        model = keras.Sequential([*parts, layers.Activation("sigmoid")])
        model.save("m.keras")
        expected = model.predict_on_batch(255 * images)
        done = run("reconstruct", "m.keras", files.test, "-o", "r.idx").ok()
        assert "0..255" in done.out
        np.testing.assert_allclose(read_images(Path("r.idx")) / 255, expected, atol=0.003)
        flags = ["--model-input-range", "0..1", "-o", "s.idx"]
        assert run("reconstruct", "m.keras", files.test, *flags).exit_code == 0
        expected = model.predict_on_batch(images)
        np.testing.assert_allclose(read_images(Path("s.idx")) / 255, expected, atol=0.003)

    @pytest.mark.parametrize("shape", [(None, None, 1), (64,)])
    @pytest.mark.parametrize("name", ["images.idx", "images.npy"])
    def test_a_model_that_does_not_state_the_size(self, run, files, images, shape, name):
        """An array of images says it; pictures do not."""
        inner = layers.Conv2D(1, 1) if len(shape) == 3 else layers.Dense(64)
        model = keras.Sequential([keras.Input(shape), inner])
        model.save("m.keras")
        pixels = read_images(files.test)
        idx.write_idx(name, pixels) if name == "images.idx" else np.save(name, pixels)
        flags = ["--model-input-range", "0..1"]
        run("encode", "m.keras", name, "-o", "e.npy", "--encoder-until", inner.name, *flags).ok()
        given = images if len(shape) == 3 else images.reshape(-1, 64)
        expected = model.predict_on_batch(given)
        np.testing.assert_allclose(np.load("e.npy"), expected, atol=1e-5)
        assert run("reconstruct", "m.keras", name, "-o", "r.idx", *flags).exit_code == 0
        assert read_images(Path("r.idx")).shape == pixels.shape
        save_picture("1.png", pixels[0])
        refused = run("encode", "m.keras", "1.png", "-o", "f.npy").refused(".npy")
        assert refused.err.count("error") == 1 and not Path("f.npy").exists()

    def test_a_model_of_channels_first(self, run, files):
        """The model is what does not fit, and the layer that the error names mends it."""
        parts = [layers.Permute((2, 3, 1)), layers.Flatten(), layers.Dense(3, "softmax")]
        model = keras.Sequential([keras.Input((1, 8, 8)), *parts])
        model.save("m.keras")
        save_picture("1.png", read_images(files.test)[0])
        for given in ("1.png", files.test):
            refused = run("classify", "m.keras", given).refused(
                "channels first", "Permute((3, 1, 2))"
            )
            assert refused.err.count("error") == 1
        keras.Sequential([keras.Input((8, 8, 1)), layers.Permute((3, 1, 2)), model]).save("n.keras")
        assert run("classify", "n.keras", "1.png", files.test).exit_code == 0

    def test_scores_of_an_autoencoder(self, run, files, images, trained_autoencoder):
        """They are mean squared errors."""
        model, metadata = load_model(trained_autoencoder.saved)
        expected = np.square(np.asarray(model(images)) - images).mean(axis=(1, 2, 3))
        run("anomalies", trained_autoencoder.saved, files.test, "--csv", "a.csv").ok()
        rows = read_rows(Path("a.csv"))
        np.testing.assert_allclose([float(row["score"]) for row in rows], expected, rtol=1e-4)
        threshold = Typical(**metadata["typical"]).get_threshold(0.99)
        found = [row["anomaly"] == "1" for row in rows]
        np.testing.assert_array_equal(found, expected > threshold)

    def test_the_share_of_normal_images_is_chosen(self, run, files, trained_autoencoder):
        """A lower quantile gives a lower threshold."""
        typical = Typical(**read_metadata(trained_autoencoder.saved)["typical"])
        for quantile in (0.5, 0.9):
            flags = ["--quantile", quantile, "--csv", f"{quantile}.csv"]
            done = run("anomalies", trained_autoencoder.saved, files.test, *flags).ok()
            threshold = typical.get_threshold(quantile)
            rows = read_rows(Path(f"{quantile}.csv"))
            is_above = [float(row["score"]) > threshold for row in rows]
            assert [row["anomaly"] == "1" for row in rows] == is_above
            assert f"{threshold:.4g}" in done.out and f"{1 - quantile:.2%}" in done.out
        assert typical.get_threshold(0.5) < typical.get_threshold(0.9)

    def test_a_model_that_does_not_know_what_is_typical(self, run, files, trained_autoencoder):
        model, metadata = load_model(trained_autoencoder.saved)
        del metadata["typical"]
        save_model(model, "m.keras", metadata)
        done = run("anomalies", "m.keras", files.test, "--csv", "a.csv").refused(
            "m.keras: must record the scores"
        )
        assert not done.out and not Path("a.csv").exists()

    def test_noise_is_unlike_the_training_data(self, run, files, trained_classifier):
        """Labels say how well scores find it."""
        images = read_images(files.test)
        noise = np.random.default_rng(0).integers(0, 256, images.shape).astype(np.uint8)
        np.save("all.npy", np.concatenate([images, noise]))
        idx.write_idx("labels.idx", np.repeat([0, 1], len(images)).astype(np.uint8))
        flags = ["--figures", "plots", "-tl", "labels.idx", "--strange", "1"]
        done = run("anomalies", trained_classifier.saved, "all.npy", *flags).ok()
        assert {path.name for path in Path("plots").iterdir()} == {"strangest.png", "roc.png"}
        assert float(re.search(r"ROC curve: ([\d.]+)", done.out)[1]) > 0.9
        np.save("labels.npy", np.repeat([0, 1], len(images)))
        flags = ["-tl", "labels.npy", "--strange", "1"]
        again = run("anomalies", trained_classifier.saved, "all.npy", *flags)
        assert again.out.splitlines()[-1] in done.out
        flags = ["-tl", "all.npy", "--strange", "1"]
        refused = run("anomalies", trained_classifier.saved, "all.npy", *flags).refused()
        assert refused.err.startswith("error: all.npy: ")
        assert not refused.out
        # Images without a label do not count: of the others some must be strange, some normal.
        for unknown, succeeds in ((slice(1, -1), True), (slice(0, -1), False)):
            words = np.array(["normal"] * len(images) + ["noise"] * len(images))
            words[unknown] = ""
            np.save("words.npy", words)
            flags = ["-tl", "words.npy", "--strange", "noise"]
            done = run("anomalies", trained_classifier.saved, "all.npy", *flags)
            assert ("ROC curve" in done.out) == succeeds
            assert done.exit_code == (0 if succeeds else 2) and "Traceback" not in done.err
        np.save("labels.npy", np.repeat([0, 1, 0], len(images)))
        many = run(
            "anomalies", trained_classifier.saved, "all.npy", *flags[:1], "labels.npy", *flags[2:]
        )
        many.refused("-tl: ", f"{3 * len(images)} labels for {2 * len(images)} images")
        useless = run("anomalies", trained_classifier.saved, "all.npy", "-tl", "labels.npy")
        assert useless.exit_code == 2 and "--strange" in useless.err

    def test_labels_count_images_that_cannot_be_read(self, run, files, trained_classifier):
        """As for `classify`: the second of three has a label, which nobody uses."""
        noise = np.random.default_rng(0).integers(0, 256, (8, 8, 1)).astype(np.uint8)
        for name, image in (("1.png", read_images(files.test)[0]), ("3.png", noise)):
            save_picture(name, image)
        Path("2.png").write_text("no picture")
        idx.write_idx("labels.idx", np.array([0, 7, 1], np.uint8))
        idx.write_idx("few.idx", np.array([0, 7], np.uint8))
        flags = ["1.png", "2.png", "3.png", "--strange", "1", "-tl"]
        done = run("anomalies", trained_classifier.saved, *flags, "labels.idx").refused("2.png")
        assert "ROC curve: 1.0000" in done.out
        done = run(
            "anomalies", trained_classifier.saved, *flags, "few.idx", "--csv", "a.csv"
        ).refused("-tl: ")
        assert "score" not in done.out
        assert not Path("a.csv").exists()

    @pytest.mark.parametrize(
        ("command", "flags", "words"),
        [
            ("encode", ["-o", "e.txt"], ".npy or .csv"),
            ("reconstruct", ["-o", "e.idx"], "must be an autoencoder"),
            ("anomalies", ["--strange", "9"], "--strange"),
        ],
    )
    def test_what_cannot_be(self, run, files, trained_classifier, command, flags, words):
        run(command, trained_classifier.saved, files.test, *flags).refused(words)
        assert not list(Path().glob("e.*"))


class TestShow:
    @pytest.fixture
    def show(self):
        return lambda *args: run_program("predict", "show", *args)

    def test_classifier(self, show, files, trained_autoencoder, trained_classifier):
        done = show(trained_classifier.saved, "--json").ok()
        card = json.loads(done.out)
        assert card["classes"] == {"2": "2", "5": "5", "61": "61"}
        assert card["parameters"] == sum(layer["parameters"] for layer in card["layers"])
        assert card["layers"][0]["output"] == "8×8×4"
        assert card["scores"]["test_accuracy"] == trained_classifier.metrics["test_accuracy"]
        (encoder,) = card["encoders"]
        assert (encoder["path"], encoder["state"]) == (trained_autoencoder.saved, "unchanged")
        paths = [file["path"] for file in card["origin"]["data"]["training"]["files"]]
        assert paths == [str(files.images), str(files.labels)]

    def test_a_changed_encoder_is_noticed(
        self, tmp_path, show, classify, trained_autoencoder, autoencode
    ):
        encoder, saved = tmp_path / "encoder.keras", tmp_path / "classifier.keras"
        encoder.write_bytes(Path(trained_autoencoder.saved).read_bytes())
        assert classify("--save", saved, model=encoder).exit_code == 0
        with encoder.open("ab") as file:
            file.write(b" ")
        assert "changed since" in show(saved).out
        encoder.unlink()
        assert "missing" in show(saved).out

    def test_the_encoder_is_found_from_any_folder(
        self, tmp_path, show, classify, trained_autoencoder, monkeypatch
    ):
        """Its path was typed in the folder that holds both."""
        project = tmp_path / "project"
        (project / "models").mkdir(parents=True)
        encoder = project / "models" / "encoder.keras"
        encoder.write_bytes(Path(trained_autoencoder.saved).read_bytes())
        monkeypatch.chdir(project)
        saved = project / "models" / "classifier.keras"
        assert classify("--save", saved, model="models/encoder.keras").exit_code == 0
        monkeypatch.chdir(tmp_path)
        assert "models/encoder.keras (unchanged)" in show("project/models/classifier.keras").out

    def test_a_model_of_another_program(self, tmp_path, show):
        """What it does not say is not known."""
        keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten()]).save(tmp_path / "m.keras")
        done = show(tmp_path / "m.keras").ok()
        assert "not known" in done.out and "Flatten" in done.out

    def test_html(self, tmp_path, show, trained_classifier):
        page = tmp_path / "card.html"
        assert show(trained_classifier.saved, "--html", page).exit_code == 0
        text = Page(page).text
        assert f"test accuracy{100 * trained_classifier.metrics['test_accuracy']:.2f} %" in text
        assert "2, 5, 61" in text and "probabilities" in text
