"""predict.py: what a saved model says."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import run_program

from cae.data import idx


@pytest.fixture
def predict(tmp_path):
    """Runs predict.py with a subcommand and flags."""
    return lambda *args: run_program("predict", *args, runs_dir=tmp_path / "runs")


class TestEvaluate:
    def test_repeats_the_test_of_the_training(self, predict, files, trained_classifier):
        """Nothing is trained; the run has predictions, report and figures."""
        flags = ["-t", files.test, "-tl", files.test_labels]
        done = predict("evaluate", trained_classifier.saved, *flags)
        assert done.exit_code == 0, done.err
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

    def test_images_and_labels_of_any_file(self, predict, files, trained_classifier):
        flags = [*files.unlabelled_test, "--no-plots"]
        done = predict("evaluate", trained_classifier.saved, *flags)
        assert done.exit_code == 0
        with (done.run / "predictions.csv").open() as file:
            assert len(list(csv.reader(file))) == 1 + 48
        assert not (done.run / "plots").exists()

    def test_inverted_and_scaled_images(self, predict, files, trained_classifier, tmp_path):
        """A warning names the flag, with which the predictions are those of the plain images."""
        inverted = 255 - idx.read_images(files.test)
        idx.write_idx(tmp_path / "bytes", inverted)
        idx.write_idx(tmp_path / "floats", (inverted / 255).astype(np.float32))
        flags = ["-tl", files.test_labels, "--no-plots"]
        done = predict("evaluate", trained_classifier.saved, "-t", tmp_path / "floats", *flags)
        assert done.out.startswith("floats: ") and "0..1" in done.out
        assert "inverted" in done.err and "--invert" in done.err
        flags += ["-t", tmp_path / "bytes", "--invert"]
        done = predict("evaluate", trained_classifier.saved, *flags)
        assert "warning" not in done.err
        predictions = [(run / "predictions.csv") for run in (done.run, trained_classifier.run)]
        assert predictions[0].read_bytes() == predictions[1].read_bytes()

    def test_not_a_classifier(self, predict, files, trained_autoencoder):
        done = predict("evaluate", trained_autoencoder.saved, *files.unlabelled_test)
        assert done.exit_code == 2 and not done.runs
        assert "must be a classifier, got autoencoder" in done.err

    @pytest.mark.parametrize(
        ("flags", "words"),
        [([], "-d"), (["-d", "digits"], "8×8×1"), (["-t", "{images}"], "labels")],
    )
    def test_wrong_images(self, predict, files, trained_classifier, flags, words):
        flags = [flag.format(images=files.images) for flag in flags]
        done = predict("evaluate", trained_classifier.saved, *flags)
        assert done.exit_code == 2 and not done.runs
        assert words in done.err


class TestShow:
    @pytest.fixture
    def show(self):
        return lambda *args: run_program("predict", "show", *args, runs_dir=None)

    def test_classifier(self, show, files, trained_autoencoder, trained_classifier):
        done = show(trained_classifier.saved, "--json")
        assert done.exit_code == 0, done.err
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

    def test_a_model_of_another_program(self, tmp_path, show):
        """What it does not say is not known."""
        keras = pytest.importorskip("keras")
        keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()]).save(
            tmp_path / "m.keras"
        )
        done = show(tmp_path / "m.keras")
        assert done.exit_code == 0, done.err
        assert "not known" in done.out and "Flatten" in done.out

    def test_html(self, tmp_path, show, trained_classifier):
        page = tmp_path / "card.html"
        assert show(trained_classifier.saved, "--html", page).exit_code == 0
        assert "probabilities" in page.read_text(encoding="utf-8")
