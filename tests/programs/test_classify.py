"""`predict.py classify` answers for any images, and says which answers are unsure."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import read_json, read_rows, run_program
from keras import layers
from picture_folders import save_picture

from cae.data import idx
from cae.data.appearance import describe
from cae.data.datasets import Scaling
from cae.data.idx import read_images, read_labels
from cae.data.inputs import Expected
from cae.data.pictures import Form
from cae.programs.classify import Classifier
from cae.programs.classify import ask as ask_classifier
from cae.records.calibration import UNCALIBRATED, Calibration
from cae.records.saved_models import load_model, read_metadata, save_model

BYTES = Scaling(0.0, 255.0, "uint8")


def probabilities_of(rows):
    """The label of each row of predictions.csv, and the probabilities of the classes."""
    return [
        (row["label"], *(float(row[key]) for key in row if key.startswith("p_"))) for row in rows
    ]


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

    def test_one_file_for_both_forms(self, ask, files):
        done, rows = ask(files.test, "--csv", "./answers.json")
        done.refused("--json: ", "--csv", "answers.json")
        assert rows is None

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

    def test_gray_arrays_for_a_model_of_rgb(self, ask, blue_classifier):
        """More of them than are classified at once; one line says what becomes of them."""
        pixels = np.zeros((1500, 2, 2), np.uint8)
        pixels[1::2] = 255
        np.save("x.npy", pixels)
        done, rows = ask("x.npy", model=blue_classifier)
        assert done.exit_code == 0, done.err
        assert [row["prediction"] for row in rows] == ["0", "1"] * 750
        assert done.err.count("x.npy: ") == 1

    def test_nothing_to_classify(self, tmp_path, ask):
        (tmp_path / "empty").mkdir()
        done, rows = ask("empty", "--csv", "answers.csv")
        assert done.exit_code == 2 and "error: empty: must contain an image" in done.err
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
        assert "cannot tell which images are unlike" in done.out

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
    expected, classes = Expected(Form(*model.input_shape[1:]), BYTES), np.arange(2)
    return Classifier(model, expected, classes, ["a", "b"], UNCALIBRATED, None)


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
            asked = replace(classifier, expected=replace(classifier.expected, looks=looks))
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

    def test_auto_needs_to_know_the_training_images(self, ask):
        is_inverted, _, (warning,) = ask(looks=None, invert="auto")
        assert not is_inverted and "always" in warning
        assert ask(looks=None, invert="always") == (True, [], [])
