"""`predict.py show`: what a saved model is."""

import json
from pathlib import Path

import keras
import pytest
from conftest import run_program
from keras import layers
from report_folders import Page


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

    def test_one_form_at_a_time(self, tmp_path, show, trained_classifier):
        page = tmp_path / "card.html"
        show(trained_classifier.saved, "--html", page, "--json").refused("--html", "--json")
        assert not page.exists()
