"""What people get wrong: each is one line that names the fault and the remedy, and exit code 2."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, ROOT, run_program, write_json

from cae import terminal
from cae.data import idx

IMAGES = np.zeros((12, 8, 8), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


@pytest.fixture
def too_early_for_tensorflow(monkeypatch):
    """Fails if a program goes on to load TensorFlow."""

    def start():
        raise AssertionError("TensorFlow was started before this was checked")

    monkeypatch.setattr(terminal, "starting_keras", start)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Runs a program in an empty folder and returns its one line of complaint."""
    monkeypatch.chdir(tmp_path)

    def run(program, *args, runs_dir=tmp_path / "runs"):
        done = run_program(program, *args, runs_dir=runs_dir)
        lines = [line for line in done.err.splitlines() if line != "Starting TensorFlow …"]
        assert (done.exit_code, len(lines)) == (2, 1), done
        assert done.runs == []
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def assert_says(line, *parts):
    for part in parts:
        assert part in line


# --- Data -----------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    """Writes idx files into the working folder: what `arrays` say, else valid ones."""

    def write(**arrays):
        valid = {"images": IMAGES, "labels": LABELS, "test": IMAGES, "test_labels": LABELS}
        for name, array in (valid | arrays).items():
            idx.write_idx(tmp_path / name, array)
        write_json(tmp_path / "tiny.json", AUTOENCODER)
        write_json(tmp_path / "head.json", CLASSIFIER, encoder_layers=AUTOENCODER["encoder_layers"])

    write()
    return write


DATA_FLAGS = {
    "no_images": ("autoencoder", "-d tiny.json", "tiny.json: "),
    "labels_of_an_autoencoder": ("autoencoder", "-d images -dl images", "images: ", "labels"),
    "no_labels": ("classification", "-d images", "-dl: "),
    "no_test_labels": ("classification", "-d images -dl labels -t test", "-tl: "),
    "no_test_images": ("classification", "-d images -dl labels -tl test_labels", "-tl: ", "-t "),
    "test_labels_as_images": (
        "classification", "-d images -dl labels -t test_labels -tl test_labels", "test_labels: "
    ),
    "limit_leaves_one_class": (
        "classification", "-d images -dl labels --limit 1", "only 0 among 1 label", "--limit"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA_FLAGS)
def test_data_flags(case, data, refused, too_early_for_tensorflow):
    program, flags, *parts = DATA_FLAGS[case]
    config = "tiny.json" if program == "autoencoder" else "head.json"
    assert_says(refused(program, *flags.split(), "-c", config), *parts)


DATA_FILES = {
    "fewer_test_labels": ({"test_labels": LABELS[:-2]}, "test_labels: ", "10 labels"),
    "other_test_shape": ({"test": np.zeros((12, 8, 9), np.uint8)}, "test: ", "8×8×1", "8×9×1"),
    "standardized_test_images": (
        {"test": np.linspace(-1, 2, IMAGES.size, dtype=np.float32).reshape(IMAGES.shape)},
        "test: ",
        "float32 from -1 to 2",
    ),
    "one_class": ({"labels": LABELS * 0}, "labels: ", "only 0", "of another class too."),
}


@pytest.mark.parametrize("case", DATA_FILES)
def test_data_files(case, data, refused, too_early_for_tensorflow):
    arrays, *parts = DATA_FILES[case]
    data(**arrays)
    flags = ["-d", "images", "-dl", "labels", "-t", "test", "-tl", "test_labels", "-c", "head.json"]
    assert_says(refused("classification", *flags), *parts)


# --- Configurations -------------------------------------------------------------------------

CLASSIFIER_VALUES = {
    "no_encoder": ({}, "c.json: ", "-model MODEL"),
    "encoder_is_gone": ({"encoder_layers": "gone.keras"}, "error: gone.keras: "),
    "decoder": ({"decoder_layers": []}, "c.json: decoder_layers: "),
}


@pytest.mark.parametrize("case", CLASSIFIER_VALUES)
def test_classifier_values(case, tmp_path, data, refused, too_early_for_tensorflow):
    changes, *parts = CLASSIFIER_VALUES[case]
    write_json(tmp_path / "c.json", CLASSIFIER, changes)
    flags = ["-d", "images", "-dl", "labels", "-c", "c.json"]
    assert_says(refused("classification", *flags), *parts)


def test_layers_that_do_not_fit(tmp_path, data, refused, too_early_for_tensorflow):
    write_json(tmp_path / "c.json", AUTOENCODER, decoder_layers=[])
    line = refused("autoencoder", "-d", "images", "-c", "c.json")
    assert_says(line, "c.json: ", "8×8", "4×4", '["upSample", [2, 2]]')


def test_every_problem_has_its_line(tmp_path, launch, data):
    """A configuration with three problems is put right in one go."""
    config = write_json(tmp_path / "c.json", AUTOENCODER, epochs=0, batch_size="8", sead=1)
    done = launch("autoencoder", "-d", tmp_path / "images", "-c", config).refused()
    found = [line.removeprefix(f"error: {config}: ") for line in done.err.splitlines()]
    assert [line.split(":")[0] for line in found] == ["batch_size", "epochs", "sead"]


# --- Saved models ---------------------------------------------------------------------------


def test_a_file_that_is_no_model(data, refused, classifier_config, too_early_for_tensorflow):
    flags = ["-d", "images", "-dl", "labels", "-model", "images"]
    line = refused("classification", *flags, "-c", classifier_config)
    assert_says(line, "error: images: ")


def test_model_for_other_images(
    data, refused, classifier_config, trained_autoencoder, too_early_for_tensorflow
):
    data(images=np.zeros((12, 8, 10), np.uint8))
    flags = ["-d", "images", "-dl", "labels", "-model", trained_autoencoder.saved]
    line = refused("classification", *flags, "-c", classifier_config)
    assert_says(line, trained_autoencoder.saved, "8×8×1", "8×10×1")


def test_model_with_damaged_weights(
    tmp_path, data, refused, classifier_config, trained_autoencoder
):
    with (
        zipfile.ZipFile(trained_autoencoder.saved) as whole,
        zipfile.ZipFile(tmp_path / "model.keras", "w") as damaged,
    ):
        for name in whole.namelist():
            content = whole.read(name)
            damaged.writestr(name, content[:500] if name.endswith(".h5") else content)
    flags = ["-d", "images", "-dl", "labels", "-model", "model.keras"]
    line = refused("classification", *flags, "-c", classifier_config)
    assert_says(line, "error: model.keras: ")


# --- Flags ----------------------------------------------------------------------------------

FLAGS = {
    "en_dash": ("autoencoder", "–d images", "EN DASH '–'", " -d."),
    "dash_with_value": ("autoencoder", "––epochs=3", "EN DASH", " --epochs."),
    "dash_before_nothing_known": ("autoencoder", "–z", "'–z'", "autoencoder.py --help"),
    "dash_inside": ("autoencoder", "-d i --batch–size 3", "--batch-size?"),
    "misspelt": ("autoencoder", "-d i --epoch 3", "'--epoch'", "--epochs?"),
    "unknown": ("autoencoder", "-d i --zzz", "'--zzz'", "autoencoder.py --help"),
    "positional": ("classification", "-d i images", "'images'", "classification.py --help"),
    "no_dataset": ("autoencoder", "", "-d/--dataset", "--help"),
    "no_value": ("autoencoder", "-d", "-d/--dataset: ", "--help"),
    "zero_epochs": ("autoencoder", "-d i --epochs 0", "--epochs: ", "from 1", '"0"'),
    "fraction": ("autoencoder", "-d i --batch-size 1.5", "--batch-size", 'got "1.5"'),
    "negative_seed": ("autoencoder", "-d i --seed -1", "--seed", "from 0 to 4294967295"),
    "many_digits": ("autoencoder", f"-d i --seed {'9' * 5000}", "--seed", "4294967295"),
    "test_images_for_an_autoencoder": ("autoencoder", "-d i -t test", "'-t'", "--help"),
    "no_picture": ("autoencoder", "-d i --show-augmentation x.pdf", "must end in .png"),
    "no_augmentation": ("autoencoder", "-d i --show-augmentation", "-c FILE that has augmentation"),
    "nothing_to_print": ("autoencoder", "-d i --print-config", "-c FILE"),
}  # fmt: skip


@pytest.mark.parametrize("case", FLAGS)
def test_flags(case, refused, too_early_for_tensorflow):
    program, flags, *parts = FLAGS[case]
    assert_says(refused(program, *flags.split()), *parts)


# --- Destinations ---------------------------------------------------------------------------

DESTINATIONS = {
    "ending": ("--save model.pt", "model.pt: ", "model.keras"),
    "no_ending": ("--save model", "model: ", "model.keras"),
    "folder": ("--save folder.keras", "folder.keras: ", "folder"),
    "exists": ("--save old.keras", "old.keras: ", "--overwrite"),
    "folder_is_a_file": ("--save images/m.keras", "images: "),
    "below_a_file": ("--save images/a/m.h5", "images/a: "),
}


@pytest.mark.parametrize("case", DESTINATIONS)
def test_destinations(case, tmp_path, data, refused, too_early_for_tensorflow):
    flags, *parts = DESTINATIONS[case]
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "old.keras").write_bytes(b"precious")
    line = refused("autoencoder", "-d", "images", "-c", "tiny.json", *flags.split())
    assert_says(line, *parts)
    assert (tmp_path / "old.keras").read_bytes() == b"precious"


@pytest.mark.parametrize("below", ["", "runs"])
def test_runs_dir_that_is_a_file(below, tmp_path, data, refused, too_early_for_tensorflow):
    runs_dir = tmp_path / "images" / below
    line = refused("autoencoder", "-d", "images", "-c", "tiny.json", runs_dir=runs_dir)
    assert_says(line, "--runs-dir", str(runs_dir))


# --- In a process of its own ----------------------------------------------------------------


@pytest.mark.parametrize("program", ["autoencoder", "classification", "experiments"])
def test_bad_configuration_answers_before_anything_computes(tmp_path, program):
    """Even where the terminal can only show ASCII."""
    config = write_json(tmp_path / "ä.json", AUTOENCODER | CLASSIFIER, epochs=0)
    idx.write_idx(tmp_path / "images", IMAGES)
    code = (
        f"import sys, {program}\n"
        f"exit_code = {program}.main(sys.argv[1:])\n"
        "assert not {'numpy', 'tensorflow', 'keras', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(exit_code)\n"
    )
    images = ["-d", tmp_path / "images"]
    flags = ["run", config, *images] if program == "experiments" else [*images, "-c", config]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {tmp_path}/\\xe4.json: ")
    assert "Traceback" not in done.stderr
