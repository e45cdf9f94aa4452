"""Both programs from their flags to what they leave behind, through `main`."""

import hashlib
import json
import os
import re
import signal

import matplotlib.image
import numpy as np
import pytest
from conftest import (
    AUTOENCODER,
    CLASSIFIER,
    assert_same_weights,
    read_json,
    read_rows,
    run_python,
    write_dataset,
    write_json,
)

from cae.config.load import load_config
from cae.config.shipped import get_recipes
from cae.figures import images as images_module
from cae.programs import task, tasks, trainer
from cae.records.saved_models import load_model, read_metadata, save_model


def assert_is_figure(path):
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 50, f"{path.name} is only {pixels.shape}"
    assert pixels[..., :3].std() > 0.02, f"{path.name} is blank"


class TestWhatARunLeaves:
    @pytest.fixture(params=["autoencoder", "classifier"])
    def kind(self, request):
        return request.param

    @pytest.fixture
    def trained(self, kind, request):
        return request.getfixturevalue(f"trained_{kind}")

    def test_files(self, trained, kind):
        """Everything is there and nothing is left under a temporary name."""
        assert trained.exit_code == 0
        expected = {"config.json", "environment.json", "history.csv", "metrics.json"}
        expected |= {"model.keras", "plots", "run.json"}
        if kind == "classifier":
            expected |= {"classification_report.txt", "predictions.csv"}
        assert {path.name for path in trained.run.iterdir()} == expected
        assert not list(trained.run.parent.rglob("*.partial"))

    def test_figures(self, trained, kind):
        plots = sorted((trained.run / "plots").iterdir())
        names = {
            "autoencoder": "encodings filters loss reconstructions worst_reconstructions",
            "classifier": "confusion_matrix correct encodings history reliability report wrong",
        }
        assert [path.stem for path in plots] == names[kind].split()
        for path in plots:
            assert_is_figure(path)

    def test_configuration_is_complete_and_loads_again(self, trained, kind):
        path = trained.run / "config.json"
        config = load_config(path, kind)
        assert set(read_json(path)) >= set(type(config).model_fields)
        assert config.batch_size == 16

    def test_environment(self, trained, files, kind):
        found = read_json(trained.run / "environment.json")
        program = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}[kind]
        assert found["command"].startswith(f"{program} -d {files.images}")
        assert {"tensorflow", "keras", "numpy"} <= set(found["versions"])
        assert found["device"].startswith(("CPU", "GPU"))
        assert found["git_commit"] is None or len(found["git_commit"].split("-")[0]) == 40
        assert found["seed"] == 0
        training = found["data"]["training"]
        assert (training["shape"], training["dtype"]) == ([48, 8, 8, 1], "uint8")
        digest = hashlib.sha256(files.images.read_bytes()).hexdigest()
        assert training["files"][0]["sha256"] == digest
        assert set(found["data"]) == {"training"} | ({"test"} if kind == "classifier" else set())

    def test_metadata_of_the_model(self, trained, kind):
        metadata = read_metadata(trained.saved)
        assert metadata == read_metadata(trained.run / "model.keras")
        assert metadata["kind"] == kind
        assert metadata["input_shape"] == [8, 8, 1]
        assert metadata["scaling"] == {"offset": 0.0, "scale": 255.0, "dtype": "uint8"}
        assert metadata["metrics"] == trained.metrics
        assert metadata["model_info"] == read_json(trained.run / "config.json")
        if kind == "classifier":
            assert metadata["classes"] == [2, 5, 61]

    def test_output_says_what_and_where(self, trained, kind):
        """Facts before training, results and the next command after it; progress apart."""
        for fact in ("device", "images", "parameters", "destination", "best epoch", "files"):
            assert f"\n  {fact} " in trained.out
        assert "48 of 8×8×1, uint8" in trained.out
        assert trained.saved in trained.out.splitlines()[-1]
        assert re.search(r"\b3/\d", trained.err)
        assert not re.search(r"\b3/\d", trained.out)
        if kind == "classifier":
            assert "3, with 16 images each" in trained.out


def test_autoencoder_metrics_and_history(trained_autoencoder):
    rows = read_rows(trained_autoencoder.run / "history.csv")
    metrics = trained_autoencoder.metrics
    assert {"val_loss", "val_mse", "best_epoch", "seconds", "images_per_second"} <= set(metrics)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[metrics["best_epoch"] - 1]["val_mse"]) == metrics["val_mse"]
    assert metrics["val_loss"] == min(float(row["val_loss"]) for row in rows)


def test_classifier_metrics_and_history(trained_classifier):
    """Both phases lie in one history, and --epochs is the number of each."""
    rows = read_rows(trained_classifier.run / "history.csv")
    metrics = trained_classifier.metrics
    required = {"val_accuracy", "test_accuracy", "test_macro_f1", "best_epoch", "seconds"}
    assert required <= set(metrics)
    assert [row["phase"] for row in rows] == ["dense_only"] * 4 + ["full"] * 4
    assert {"precision", "recall", "f1", "val_precision", "val_recall", "val_f1"} <= set(rows[0])
    assert metrics["test_accuracy"] > 0.9, "the patterns are easy"


def test_classifier_predictions(trained_classifier):
    rows = read_rows(trained_classifier.run / "predictions.csv")
    assert len(rows) == 24
    accuracy = np.mean([row["label"] == row["prediction"] for row in rows])
    assert accuracy == pytest.approx(trained_classifier.metrics["test_accuracy"])
    for row in rows:
        probabilities = [float(row[f"p_{label}"]) for label in (2, 5, 61)]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert max(probabilities) == float(row["probability"])
    report = (trained_classifier.run / "classification_report.txt").read_text()
    assert [line.split()[0] for line in report.splitlines()[2:5]] == ["2", "5", "61"]
    assert "macro avg" in report


def test_models_load_in_plain_keras(tmp_path, trained_autoencoder, trained_classifier):
    """In both formats, without a line of ours: another folder, and no project on the path."""
    model, metadata = load_model(trained_classifier.saved)
    hdf5 = save_model(model, tmp_path / "m.h5", metadata)
    code = (
        "import sys, json, numpy, keras\n"
        "images = numpy.linspace(0, 1, 128).reshape(2, 8, 8, 1)\n"
        "models = [keras.models.load_model(path) for path in sys.argv[1:]]\n"
        "assert 'cae' not in sys.modules\n"
        "print(json.dumps([model.predict(images, verbose=0).tolist() for model in models]))\n"
    )
    paths = [trained_autoencoder.saved, trained_classifier.saved, hdf5]
    done = run_python("-I", "-c", code, *paths, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = np.linspace(0, 1, 128).reshape(2, 8, 8, 1)
    for outputs, path in zip(json.loads(done.stdout.splitlines()[-1]), paths, strict=True):
        expected = load_model(path)[0].predict_on_batch(images)
        np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_colour_images(tmp_path, autoencode, classify):
    data = write_dataset(tmp_path / "data", (8, 8, 3))
    first = autoencode(data=data, plots=True).ok()
    second = classify(data=data, model=first.run / "model.keras").ok()
    assert load_model(first.run / "model.keras")[0].output_shape == (None, 8, 8, 3)
    assert len(read_rows(second.run / "predictions.csv")) == 24
    for path in first.run.rglob("*.png"):
        assert_is_figure(path)


@pytest.fixture
def head(tmp_path):
    """A classifier with an encoder of its own."""
    return write_json(
        tmp_path / "head.json", CLASSIFIER, encoder_layers=AUTOENCODER["encoder_layers"]
    )


def test_62_classes_numbered_with_gaps(tmp_path, classify, head):
    classes = tuple(range(1, 125, 2))
    data = write_dataset(tmp_path / "data", classes=classes, count=62 * 4)
    done = classify(data=data, config=head, model=None, plots=True).ok()
    assert "62, with 4 images each" in done.out
    columns = [name for name in read_rows(done.run / "predictions.csv")[0] if name.startswith("p_")]
    assert columns == [f"p_{label}" for label in classes]
    for path in (done.run / "plots").iterdir():
        assert_is_figure(path)


def test_classes_of_unequal_size(tmp_path, classify, head):
    """What is said of them, and a result that does not hide the small class."""
    data = write_dataset(tmp_path / "data", classes=(3, 3, 3, 3, 7), count=50)
    done = classify("--epochs", 1, data=data, config=head, model=None).ok()
    assert "2, with 10 to 40 images each" in done.out
    assert "3 has 4.0 times as many images as 7" in done.out
    assert "class_weight none, best epoch by val_f1" in done.out
    value = done.metrics["test_balanced_accuracy"]
    assert f"test_balanced_accuracy {value:.4f}" in " ".join(done.out.split())


class TestSeveralConfigurations:
    def test_are_compared_and_the_best_saved(self, tmp_path, autoencode, autoencoder_config):
        other = write_json(tmp_path / "slow.json", AUTOENCODER, optimizer=["adam", 1e-6])
        saved = tmp_path / "models" / "best.keras"
        done = autoencode("-c", other, "--save", saved, "--name", "trial", plots=True).ok()
        first, second = done.runs
        assert first.name.endswith("-trial-tiny")
        assert second.name.endswith("-trial-slow")
        assert "tiny" in done.out and "slow" in done.out and "No winner" in done.out
        assert read_metadata(saved)["name"] == "trial-tiny"
        assert_is_figure(second / "plots" / "comparison.png")

    def test_one_that_fails_does_not_cost_the_others(
        self, autoencode, autoencoder_config, first_training_diverges
    ):
        done = autoencode("-c", autoencoder_config).refused(
            "error: tiny: the loss must stay finite, got nan."
        )
        assert done.run.name.endswith("-tiny")
        assert "Next: " in done.out


class TestFlags:
    def test_values_in_place_of_the_file_s(self, tmp_path, autoencode):
        saved = tmp_path / "model.keras"
        saved.write_bytes(b"old")
        done = autoencode(
            "--limit", 30, "--epochs", 2, "--batch-size", 5, "--seed", 7, "--name", "my [run]/",
            "--save", saved, "--overwrite",
        ).ok()  # fmt: skip
        assert read_metadata(saved)["kind"] == "autoencoder"
        config = load_config(done.run / "config.json", "autoencoder")
        assert (config.epochs, config.batch_size, config.seed) == (2, 5, 7)
        environment = read_json(done.run / "environment.json")
        assert environment["data"]["training"]["shape"] == [30, 8, 8, 1]
        assert environment["command"].endswith(str(done.run.parent))
        assert len(read_rows(done.run / "history.csv")) == 2
        assert done.run.name.endswith("-my-run")
        assert "my [run]/: epoch 2/2" in done.err
        assert not (done.run / "plots").exists()

    @pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
    def test_print_config(self, tmp_path, kind, autoencode, classify):
        """Standard output is JSON that loads again, with the flags' values and every default."""
        run = {"autoencoder": autoencode, "classifier": classify}[kind]
        done = run("--print-config", "--epochs", 9, "--seed", 3)
        assert (done.exit_code, done.err) == (0, "")
        (tmp_path / "printed.json").write_text(done.out)
        loaded = load_config(tmp_path / "printed.json", kind)
        assert set(json.loads(done.out)) >= set(type(loaded).model_fields)
        assert loaded.seed == 3
        epochs = {key: value for key, value in loaded if key.endswith("epochs")}
        assert set(epochs.values()) == {9}
        assert not (tmp_path / "runs").exists()

    def test_flags_in_place_of_keys(self, classify):
        flags = ["--learning-rate", 0.25, "--class-weight", "balanced"]
        done = classify(*flags, "--set", "validation_split=0.5", "--print-config", model=None)
        config = json.loads(done.out)
        assert config["optimizer"][:2] == ["adam", 0.25]
        assert config["class_weight"] == "balanced"
        assert config["validation_split"] == 0.5
        refused = classify(*flags, "--set", "class_weight=null", "--print-config", model=None)
        assert refused.exit_code == 2 and "--class-weight" in refused.err

    def test_show_augmentation(self, tmp_path, autoencode):
        """One figure and nothing else, which the next start must be told to replace."""
        path = tmp_path / "views.png"
        flags = ["--set", "denoise.noise=0.2", "--show-augmentation", path]
        for more, exit_code in ([], 0), ([], 2), (["--overwrite"], 0):
            assert autoencode(*flags, *more).exit_code == exit_code
            assert_is_figure(path)
        assert sorted(tmp_path.iterdir()) == [path]

    def test_a_classifier_without_an_encoder_shows_its_augmentation(self, tmp_path, classify):
        """A recipe's views can be seen before its autoencoder is trained."""
        path, recipe = tmp_path / "views.png", get_recipes()["few_labels_100"]
        classify("--show-augmentation", path, config=recipe, model=None).ok()
        assert_is_figure(path)

    def test_no_pretrained(self, classify):
        """Fresh weights are worth no frozen phase: all epochs train everything."""
        done = classify("--no-pretrained")
        assert [row["phase"] for row in read_rows(done.run / "history.csv")] == ["full", "full"]
        assert read_metadata(done.run / "model.keras")["pretrained"] is False
        assert "fresh weights" in done.out


def test_h5_all_the_way(tmp_path, autoencode, classify):
    first, second = str(tmp_path / "first.h5"), str(tmp_path / "second.h5")
    assert autoencode("--save", first).exit_code == 0
    assert classify("--save", second, model=first).exit_code == 0
    model, metadata = load_model(second)
    assert model.output_shape == (None, 3)
    assert (metadata["encoder"], metadata["pretrained"]) == (first, True)


def test_encoder_named_in_the_configuration(tmp_path, classify, trained_classifier):
    """A path in encoder_layers does what -model does; a classifier's encoder serves as well."""
    named = {"encoder_layers": trained_classifier.saved, "full_train_epochs": 0}
    config = write_json(tmp_path / "head.json", CLASSIFIER, named)
    done = classify(config=config, model=None).ok()
    given, kept = (
        load_model(path)[0].get_layer("encoder")
        for path in (trained_classifier.saved, done.run / "model.keras")
    )
    assert_same_weights(given, kept)  # only the dense layers were trained


def test_test_labels_that_training_never_saw(tmp_path, classify):
    data = write_dataset(tmp_path / "data", test_classes=(2, 5, 99))
    done = classify(data=data, plots=True).ok()
    assert "warning: 8 test images have a label that training never saw" in done.err
    assert done.metrics["test_labels_unseen"] == 8
    assert done.metrics["test_accuracy"] <= 16 / 24
    unseen = [row for row in read_rows(done.run / "predictions.csv") if row["label"] == "99"]
    assert len(unseen) == 8
    assert {row["correct"] for row in unseen} == {"0"}
    assert "99 (unseen)" in (done.run / "classification_report.txt").read_text()


def test_without_test_images_the_validation_images_are_evaluated(files, classify):
    done = classify(data=files.unlabelled_test).ok()
    rows = read_rows(done.run / "predictions.csv")
    assert len(rows) == 10
    accuracy = np.mean([row["correct"] == "1" for row in rows])
    assert accuracy == pytest.approx(done.metrics["val_accuracy"])
    assert "test_accuracy" not in done.metrics


def test_digits_by_name(tmp_path, classify):
    layers = [["conv", 2, [3, 3]], ["pool", [4, 4]]]
    config = write_json(tmp_path / "head.json", CLASSIFIER, encoder_layers=layers)
    done = classify("--limit", 60, data=["-d", "digits"], config=config, model=None).ok()
    assert "60 of 28×28×1" in done.out
    assert "-d digits" in done.out.splitlines()[-1]
    assert done.metrics["test_images"] > 300


@pytest.mark.parametrize(
    ("module", "failing", "left"), [(trainer, "Checkpoint", 0), (task, "save_model", 1)]
)
def test_a_failure_costs_no_training(tmp_path, autoencode, monkeypatch, module, failing, left):
    """Before the first checkpoint there is nothing to keep; after it the run can be resumed."""

    def fail(*args, **kwargs):
        raise RuntimeError("a defect")

    monkeypatch.setattr(module, failing, fail)
    with pytest.raises(RuntimeError, match="a defect"):
        autoencode()
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == left
    assert all((run / "checkpoint.npz").exists() for run in runs)


def test_a_figure_that_fails_costs_no_training(tmp_path, autoencode, monkeypatch):
    """The model and the record are complete before anything is drawn."""

    def fail(*args, **kwargs):
        raise RuntimeError("a defect")

    monkeypatch.setattr(images_module, "plot_filters", fail)
    with pytest.raises(RuntimeError, match="a defect"):
        autoencode(plots=True)
    (run,) = (tmp_path / "runs").iterdir()
    assert {"config.json", "history.csv", "metrics.json", "model.keras"} <= {
        path.name for path in run.iterdir()
    }


class TestSignals:
    def test_the_first_keeps_the_run_so_far(
        self, tmp_path, autoencode, autoencoder_config, at_epoch
    ):
        """Training ends after the step, the record is written, no other configuration starts."""
        at_epoch(2, lambda model: signal.raise_signal(signal.SIGTERM))
        saved = tmp_path / "kept.keras"
        done = autoencode("-c", autoencoder_config, "--epochs", 50, "--save", saved)
        assert done.exit_code == 143
        assert done.metrics["epochs"] == len(read_rows(done.run / "history.csv")) == 2
        assert f"Resume with: python autoencoder.py --resume {done.run}" in done.err
        assert done.run.suffix == ".partial"
        assert read_metadata(done.run / "model.keras")["name"] == "tiny"
        assert not saved.exists(), "for the resumed run to save"

    def test_the_second_leaves_the_last_checkpoint(self, autoencode, at_epoch):
        at_epoch(2, lambda model: [*map(signal.raise_signal, (signal.SIGTERM, signal.SIGINT))])
        done = autoencode("--epochs", 50)
        assert done.exit_code == 143
        assert "Resume with: " in done.err
        assert done.err.splitlines()[-1] == "stopped"
        assert {path.name for path in done.run.iterdir()} == {"run.json", "checkpoint.npz"}

    def test_while_figures_are_drawn(self, autoencode, monkeypatch):
        """What was trained is not lost because somebody was impatient at its end."""

        def draw(self, experiment):
            os.kill(os.getpid(), signal.SIGINT)
            return {}

        monkeypatch.setattr(tasks.AutoencoderTask, "draw", draw)
        done = autoencode(plots=True)
        assert done.exit_code == 130
        assert (done.run / "model.keras").exists()
