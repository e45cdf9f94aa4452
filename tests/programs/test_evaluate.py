"""`predict.py evaluate` tests a saved classifier as its training did."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import read_rows, run_program
from keras import layers
from picture_folders import save_picture

from cae.data import idx
from cae.data.idx import read_images

TINY_ENCODER = 'encoder_layers=[["conv", 2, [3, 3]], ["pool", [2, 2]]]'


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

    def test_images_that_it_was_trained_on(self, evaluate, files):
        """Files of images are told by their content; those of labels may belong to others."""
        shutil.copy(files.images, "copy.idx")
        done = evaluate("-t", "copy.idx", "-tl", files.labels).ok()
        assert "was trained on images of" in done.err and str(files.images) in done.err
        assert "was trained on" not in evaluate("-t", files.test, "-tl", files.test_labels).err
        idx.write_idx("others.idx", read_images(files.images)[::-1, ..., 0])
        assert "was trained on" not in evaluate("-t", "others.idx", "-tl", files.labels).err

    def test_images_that_were_held_out(self, evaluate, launch, classifier_config):
        """The part of a folder that training tested on, and another part of it."""
        for number in range(40):
            save_picture(f"all/{number % 2}/{number}.png", np.full((8, 8, 1), 6 * number, np.uint8))
        train = ["-d", "all", "-c", classifier_config, "--save", "own.keras", "--no-plots"]
        launch("classification", *train, "--set", TINY_ENCODER).ok()
        same = evaluate("-d", "all", model="own.keras").ok()
        other = evaluate("-d", "all", "--test-split", "0.5", model="own.keras").ok()
        assert "was trained on" not in same.err and "was trained on" in other.err

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
    def test_gray_arrays_for_a_model_of_rgb(self, evaluate, blue_classifier, form):
        """The class of the model is whether blue is bright, which gray 255 is."""
        pixels = np.repeat(np.array([0, 255], np.uint8), 10)[:, None, None] * np.ones((2, 2), "u1")
        labels, flags = (pixels[:, 0, 0] > 0).astype(np.uint8), ["-t", form]
        if form == "x.npz":
            np.savez(form, images=pixels, labels=labels)
        else:
            idx.write_idx(form, pixels) if form == "x.idx" else np.save(form, pixels)
            np.save("y.npy", labels)
            flags += ["-tl", "y.npy"]
        done = evaluate(*flags, model=blue_classifier).ok()
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
