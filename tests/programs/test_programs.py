"""Both programs from their flags to what they leave behind, through `main`."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, read_rows, run_program, write_dataset, write_json

from cae.config.load import load_config
from cae.config.shipped import get_recipes
from cae.figures import images as images_module
from cae.programs import task, tasks, trainer
from cae.records.saved_models import load_model, read_metadata
from cae.training import callbacks


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

    def test_configuration_is_complete_and_loads_again(self, trained, kind):
        path = trained.run / "config.json"
        config = load_config(path, kind)
        assert set(json.loads(path.read_text())) >= set(type(config).model_fields)
        assert config.batch_size == 16

    def test_environment(self, trained, files, kind):
        found = json.loads((trained.run / "environment.json").read_text())
        program = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}[kind]
        assert found["command"].startswith(f"{program} -d {files.images}")
        assert {"tensorflow", "keras", "numpy"} <= set(found["versions"])
        assert found["device"].startswith(("CPU", "GPU"))
        assert found["git_commit"] is None or len(found["git_commit"].split("-")[0]) == 40
        assert found["seed"] == 0
        images = found["data"]["training"]["files"][0]
        assert images["sha256"] == hashlib.sha256(files.images.read_bytes()).hexdigest()
        assert set(found["data"]) == {"training"} | ({"test"} if kind == "classifier" else set())

    def test_metadata_of_the_model(self, trained, kind):
        metadata = read_metadata(trained.saved)
        assert metadata == read_metadata(trained.run / "model.keras")
        assert metadata["kind"] == kind
        assert metadata["input_shape"] == [8, 8, 1]
        assert metadata["scaling"] == {"offset": 0.0, "scale": 255.0, "dtype": "uint8"}
        assert metadata["metrics"] == trained.metrics
        assert metadata["model_info"] == json.loads((trained.run / "config.json").read_text())
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


def test_autoencoder_figures(trained_autoencoder):
    plots = sorted((trained_autoencoder.run / "plots").iterdir())
    names = ["encodings", "filters", "loss", "reconstructions", "worst_reconstructions"]
    assert [path.stem for path in plots] == names
    for path in plots:
        assert_is_figure(path)


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


def test_classifier_figures(trained_classifier):
    plots = sorted((trained_classifier.run / "plots").iterdir())
    names = [
        "confusion_matrix",
        "correct",
        "encodings",
        "history",
        "reliability",
        "report",
        "wrong",
    ]
    assert [path.stem for path in plots] == names
    for path in plots:
        assert_is_figure(path)


def test_no_figure_stays_open(trained_autoencoder, trained_classifier):
    assert plt.get_fignums() == []


def test_models_load_in_plain_keras(tmp_path, trained_autoencoder, trained_classifier):
    """Without a line of ours: another folder, and no project on the path."""
    code = (
        "import sys, numpy, keras\n"
        "for path, shape in zip(sys.argv[1:], [(2, 8, 8, 1), (2, 3)]):\n"
        "    model = keras.models.load_model(path)\n"
        "    assert model.predict(numpy.zeros((2, 8, 8, 1)), verbose=0).shape == shape\n"
        "assert 'cae' not in sys.modules\n"
    )
    paths = [trained_autoencoder.saved, trained_classifier.saved]
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *paths], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_colour_images(tmp_path):
    """Of rank 4, with all figures."""
    data = write_dataset(tmp_path / "data", (8, 8, 3))
    config = write_json(tmp_path / "tiny.json", AUTOENCODER)
    head = write_json(tmp_path / "head.json", CLASSIFIER)
    first = run_program("autoencoder", *data.autoencoder, "-c", config, runs_dir=tmp_path / "first")
    saved = first.run / "model.keras"
    second = run_program(
        "classification", *data.classifier, "-model", saved, "-c", head,
        runs_dir=tmp_path / "second",
    )  # fmt: skip
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert load_model(saved)[0].output_shape == (None, 8, 8, 3)
    assert len(read_rows(second.run / "predictions.csv")) == 24
    for path in (tmp_path / "first").rglob("*.png"):
        assert_is_figure(path)


def test_62_classes_numbered_with_gaps(tmp_path):
    classes = tuple(range(1, 125, 2))
    data = write_dataset(tmp_path / "data", classes=classes, count=62 * 4)
    head = write_json(
        tmp_path / "head.json", CLASSIFIER, encoder_layers=AUTOENCODER["encoder_layers"]
    )
    done = run_program("classification", *data.classifier, "-c", head, runs_dir=tmp_path / "runs")
    assert done.exit_code == 0
    assert "62, with 4 images each" in done.out
    columns = [name for name in read_rows(done.run / "predictions.csv")[0] if name.startswith("p_")]
    assert columns == [f"p_{label}" for label in classes]
    for path in (done.run / "plots").iterdir():
        assert_is_figure(path)


def test_classes_of_unequal_size(tmp_path):
    """What is said of them, and a result that does not hide the small class."""
    data = write_dataset(tmp_path / "data", classes=(3, 3, 3, 3, 7), count=50)
    head = write_json(
        tmp_path / "head.json", CLASSIFIER, encoder_layers=AUTOENCODER["encoder_layers"]
    )
    flags = ["-c", head, "--epochs", "1", "--no-plots"]
    done = run_program("classification", *data.classifier, *flags, runs_dir=tmp_path / "runs")
    assert done.exit_code == 0
    assert "2, with 10 to 40 images each" in done.out
    assert "3 has 4.0 times as many images as 7" in done.out
    assert "class_weight none, best epoch by val_f1" in done.out
    value = done.metrics["test_balanced_accuracy"]
    assert f"test_balanced_accuracy {value:.4f}" in " ".join(done.out.split())


class TestSeveralConfigurations:
    def test_are_compared_and_the_best_saved(self, tmp_path, autoencode, autoencoder_config):
        other = write_json(tmp_path / "slow.json", AUTOENCODER, optimizer=["adam", 1e-6])
        saved = tmp_path / "models" / "best.keras"
        done = autoencode("-c", other, "--save", saved, "--name", "trial", plots=True)
        assert done.exit_code == 0
        first, second = done.runs
        assert first.name.endswith("-trial-tiny")
        assert second.name.endswith("-trial-slow")
        assert "tiny" in done.out and "slow" in done.out and "No winner" in done.out
        assert read_metadata(saved)["name"] == "trial-tiny"
        assert_is_figure(second / "plots" / "comparison.png")

    def test_one_that_fails_does_not_cost_the_others(
        self, autoencode, autoencoder_config, first_training_diverges
    ):
        """The first diverges, the second is trained."""
        done = autoencode("-c", autoencoder_config)
        assert done.exit_code == 2
        assert "error: tiny: the loss must stay finite, got nan." in done.err
        assert done.run.name.endswith("-tiny")
        assert "Next: " in done.out


class TestFlags:
    def test_values_in_place_of_the_file_s(self, tmp_path, autoencode):
        saved = tmp_path / "model.keras"
        saved.write_bytes(b"old")
        done = autoencode(
            "--limit", 30, "--epochs", 2, "--batch-size", 5, "--seed", 7, "--name", "my [run]/",
            "--save", saved, "--overwrite",
        )  # fmt: skip
        assert done.exit_code == 0
        assert read_metadata(saved)["kind"] == "autoencoder"
        config = load_config(done.run / "config.json", "autoencoder")
        assert (config.epochs, config.batch_size, config.seed) == (2, 5, 7)
        environment = json.loads((done.run / "environment.json").read_text())
        assert environment["data"]["training"]["shape"] == [30, 8, 8, 1]
        assert environment["command"].endswith(str(done.run.parent))
        assert len(read_rows(done.run / "history.csv")) == 2
        assert done.run.name.endswith("-my-run")
        assert "my [run]/: epoch 2/2" in done.err
        assert not (done.run / "plots").exists()

    @pytest.mark.parametrize("kind", ["autoencoder", "classifier"])
    def test_print_config(self, tmp_path, kind, files, autoencoder_config, classifier_config):
        """Standard output is JSON that loads again, with the flags' values and every default."""
        program, config, flags = {
            "autoencoder": ("autoencoder", autoencoder_config, files.autoencoder),
            "classifier": ("classification", classifier_config, files.classifier),
        }[kind]
        args = [*flags, "-c", config, "--print-config", "--epochs", 9, "--seed", 3]
        done = run_program(program, *args, runs_dir=tmp_path / "runs")
        assert (done.exit_code, done.err) == (0, "")
        (tmp_path / "printed.json").write_text(done.out)
        loaded = load_config(tmp_path / "printed.json", kind)
        assert set(json.loads(done.out)) >= set(type(loaded).model_fields)
        assert loaded.seed == 3
        epochs = {key: value for key, value in loaded if key.endswith("epochs")}
        assert set(epochs.values()) == {9}
        assert not (tmp_path / "runs").exists()

    def test_flags_in_place_of_keys(self, files, classifier_config):
        flags = [
            "--learning-rate",
            0.25,
            "--class-weight",
            "balanced",
            "--set",
            "validation_split=0.5",
        ]
        args = [*files.classifier, "-c", classifier_config, "--print-config", *flags]
        done = run_program("classification", *args, runs_dir=None)
        config = json.loads(done.out)
        assert config["optimizer"][:2] == ["adam", 0.25]
        assert config["class_weight"] == "balanced"
        assert config["validation_split"] == 0.5

    def test_show_augmentation(self, tmp_path, files, autoencoder_config):
        """One figure and nothing else, which the next start must be told to replace."""
        flags = [*files.autoencoder, "-c", autoencoder_config, "--set", "denoise.noise=0.2"]
        for more, exit_code in ([], 0), ([], 2), (["--overwrite"], 0):
            path = tmp_path / "views.png"
            done = run_program(
                "autoencoder", *flags, "--show-augmentation", path, *more, runs_dir=tmp_path / "r"
            )
            assert done.exit_code == exit_code
            assert_is_figure(path)
        assert sorted(tmp_path.iterdir()) == [path]

    def test_a_classifier_without_an_encoder_shows_its_augmentation(self, tmp_path, files):
        """A recipe's views can be seen before its autoencoder is trained."""
        path, recipe = tmp_path / "views.png", get_recipes()["few_labels_100"]
        flags = [*files.classifier, "-c", recipe, "--show-augmentation", path]
        assert run_program("classification", *flags, runs_dir=tmp_path / "r").exit_code == 0
        assert_is_figure(path)

    def test_no_pretrained(self, classify):
        """Fresh weights are worth no frozen phase: all epochs train everything."""
        done = classify("--no-pretrained")
        assert [row["phase"] for row in read_rows(done.run / "history.csv")] == ["full", "full"]
        assert read_metadata(done.run / "model.keras")["pretrained"] is False
        assert "fresh weights" in done.out


def test_h5_all_the_way(tmp_path, autoencode, classify):
    """An autoencoder, and a classifier on it, as .h5."""
    first, second = str(tmp_path / "first.h5"), str(tmp_path / "second.h5")
    assert autoencode("--save", first).exit_code == 0
    assert classify("--save", second, model=first).exit_code == 0
    model, metadata = load_model(second)
    assert model.output_shape == (None, 3)
    assert (metadata["encoder"], metadata["pretrained"]) == (first, True)


def test_encoder_named_in_the_configuration(tmp_path, files, trained_classifier):
    """A path in encoder_layers does what -model does; a classifier's encoder serves as well."""
    config = write_json(
        tmp_path / "head.json",
        CLASSIFIER,
        encoder_layers=trained_classifier.saved,
        full_train_epochs=0,
    )
    done = run_program(
        "classification", *files.classifier, "-c", config, "--no-plots", runs_dir=tmp_path / "runs"
    )
    assert done.exit_code == 0
    given = load_model(trained_classifier.saved)[0].get_layer("encoder").get_weights()
    kept = load_model(done.run / "model.keras")[0].get_layer("encoder").get_weights()
    assert all(map(np.array_equal, given, kept)), "only the dense layers were trained"


def test_test_labels_that_training_never_saw(tmp_path, classify):
    data = write_dataset(tmp_path / "data", test_classes=(2, 5, 99))
    done = classify(data=data, plots=True)
    assert done.exit_code == 0
    assert "warning: 8 test images have a label that training never saw" in done.err
    assert done.metrics["test_labels_unseen"] == 8
    assert done.metrics["test_accuracy"] <= 16 / 24
    unseen = [row for row in read_rows(done.run / "predictions.csv") if row["label"] == "99"]
    assert len(unseen) == 8
    assert {row["correct"] for row in unseen} == {"0"}
    assert "99 (unseen)" in (done.run / "classification_report.txt").read_text()


def test_without_test_images_the_validation_images_are_evaluated(
    tmp_path, files, classifier_config, trained_autoencoder
):
    done = run_program(
        "classification", *files.unlabelled_test, "-c", classifier_config,
        "-model", trained_autoencoder.saved, "--no-plots", runs_dir=tmp_path / "runs",
    )  # fmt: skip
    assert done.exit_code == 0
    rows = read_rows(done.run / "predictions.csv")
    assert len(rows) == 10
    accuracy = np.mean([row["correct"] == "1" for row in rows])
    assert accuracy == pytest.approx(done.metrics["val_accuracy"])
    assert "test_accuracy" not in done.metrics


def test_digits_by_name(tmp_path):
    layers = [["conv", 2, [3, 3]], ["pool", [4, 4]]]
    config = write_json(tmp_path / "head.json", CLASSIFIER, encoder_layers=layers)
    args = ["-d", "digits", "--limit", 60, "-c", config, "--no-plots"]
    done = run_program("classification", *args, runs_dir=tmp_path / "runs")
    assert done.exit_code == 0
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
    @pytest.fixture
    def signal_in_training(self, monkeypatch):
        """Sends signals as the second epoch begins."""

        def arm(*numbers):
            class Interrupted(callbacks.ShowProgress):
                def on_epoch_begin(self, epoch, logs=None):
                    super().on_epoch_begin(epoch, logs)
                    for number in numbers if epoch == 1 else ():
                        signal.raise_signal(number)

            monkeypatch.setattr(callbacks, "ShowProgress", Interrupted)

        return arm

    def test_the_first_keeps_the_run_so_far(
        self, tmp_path, autoencode, autoencoder_config, signal_in_training
    ):
        """Training ends after the step, the record is written, no other configuration starts."""
        signal_in_training(signal.SIGTERM)
        saved = tmp_path / "kept.keras"
        done = autoencode("-c", autoencoder_config, "--epochs", 50, "--save", saved)
        assert done.exit_code == 143
        assert done.metrics["epochs"] == len(read_rows(done.run / "history.csv")) == 2
        assert f"Resume with: python autoencoder.py --resume {done.run}" in done.err
        assert done.run.suffix == ".partial"
        assert read_metadata(done.run / "model.keras")["name"] == "tiny"
        assert not saved.exists(), "for the resumed run to save"

    def test_the_second_leaves_the_last_checkpoint(self, autoencode, signal_in_training):
        signal_in_training(signal.SIGTERM, signal.SIGINT)
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
