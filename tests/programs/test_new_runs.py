"""New runs begin with saved weights, and take the folder that is named for them."""

import conftest
import pytest
from conftest import assert_same_weights, read_json, write_json

from cae.records.saved_models import load_model, read_metadata


class TestInitFrom:
    @pytest.mark.parametrize("program", ["autoencoder", "classification"])
    def test_starts_from_the_weights(self, request, programs, program, tmp_path):
        """At a rate of nearly nothing they stay what they were."""
        kind = {"autoencoder": "autoencoder", "classification": "classifier"}[program]
        trained = request.getfixturevalue(f"trained_{kind}")
        config = read_json(trained.run / "config.json")
        tiny = write_json(tmp_path / "rate.json", config, optimizer=["sgd", 1e-30])
        done = programs.start(program, "-c", tiny, "--init-from", trained.saved, config=False).ok()
        assert_same_weights(
            *(load_model(path)[0] for path in (trained.saved, done.run / "model.keras"))
        )
        assert read_metadata(done.run / "model.keras")["init_from"] == trained.saved

    def test_takes_the_configuration_of_the_model(self, programs, trained_autoencoder):
        flags = ["--init-from", trained_autoencoder.saved, "--epochs", 1]
        done = programs.start("autoencoder", *flags, config=False).ok()
        config = read_json(trained_autoencoder.run / "config.json")
        assert read_json(done.run / "config.json") == config | {"epochs": 1}

    def test_other_layers_are_refused(self, tmp_path, programs, trained_autoencoder):
        """The first layer that differs is named, with both."""
        decoder = [["upSample", [2, 2]], ["conv", 5, [3, 3]]]
        path = tmp_path / "other.json"
        other = write_json(path, conftest.AUTOENCODER, decoder_layers=decoder)
        flags = ["-c", other, "--init-from", trained_autoencoder.saved]
        programs.start("autoencoder", *flags, config=False).refused(
            "here decoder layer 2: Conv2D filters 5", "got decoder layer 2: Conv2D filters 4"
        )

    @pytest.mark.parametrize(
        ("program", "flags", "words"),
        [
            ("autoencoder", ["--init-from", "{classifier}"], "must be a saved autoencoder"),
            ("classification", ["--init-from", "{classifier}", "-model", "x"], "x as well"),
            ("autoencoder", ["--init-from", "gone.keras"], "no such file"),
        ],
    )
    def test_wrong_models(self, programs, trained_classifier, program, flags, words):
        flags = [flag.format(classifier=trained_classifier.saved) for flag in flags]
        programs.start(program, *flags, config=False).refused(words)


class TestRunDir:
    def test_is_exactly_that(self, tmp_path, programs):
        """New or empty; nothing is written to --runs-dir."""
        (tmp_path / "mine").mkdir()
        programs.start("autoencoder", "--run-dir", tmp_path / "mine").ok()
        assert (tmp_path / "mine" / "model.keras").exists()
        assert not programs.runs_dir.exists()

    def test_is_never_added_to(self, tmp_path, programs, stopped):
        """Both ways out are printed; before an interrupted run is resumed, its place is taken."""
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").touch()
        for folder in (tmp_path / "mine", stopped, stopped.with_suffix("")):
            programs.start("autoencoder", "--run-dir", folder).refused(f"--resume {folder}.")

    def test_holds_one_run(self, tmp_path, programs, configs):
        programs.start(
            "autoencoder", "-c", configs["autoencoder"], "--run-dir", tmp_path / "mine"
        ).refused("--run-dir", "got 2")
