"""What people get wrong: each is one line that names the fault and the remedy, and exit code 2."""

import gzip
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, run_program, write_json

from cae import terminal
from cae.data import idx

ROOT = Path(__file__).parents[2]
IMAGES = np.zeros((12, 8, 8), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3
HEADER = struct.pack(">HBB3I", 0, 8, 3, 12, 8, 8)
VALID = HEADER + IMAGES.tobytes()


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


# --- Images and labels ----------------------------------------------------------------------

# The content, and words of what it is or of what is wrong in it.
IMAGE_FILES = {
    "empty": (b"", "empty"),
    "html": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "text": (b"these are no images\n" * 30, "text"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(60), "PNG"),
    "numpy": (b"\x93NUMPY" + bytes(60), ".npy"),
    "two_bytes": (b"\0\0", "2"),
    "header_cut": (HEADER[:9], "16 bytes, got 9"),
    "data_cut": (VALID[:-1], "768 bytes"),
    "trailing": (VALID + b"\0", "trailing"),
    "dtype": (b"\0\0\x07" + VALID[3:], "0x07"),
    "rank_2": (struct.pack(">HBB2I", 0, 8, 2, 3, 4) + bytes(12), "rank 2"),
    "rank_5": (struct.pack(">HBB5I", 0, 8, 5, 1, 1, 1, 1, 1) + b"\0", "rank 5"),
    "zero_size": (struct.pack(">HBB3I", 0, 8, 3, 0, 8, 8), "0"),
    "absurd_size": (struct.pack(">HBB3I", 0, 8, 3, *[2**32 - 1] * 3) + bytes(9), "4294967295"),
    "little_endian": (struct.pack("<HBB3I", 0, 8, 3, 12, 8, 8) + bytes(768), "big-endian"),
    "labels": (struct.pack(">HBBI", 0, 8, 1, 12) + bytes(12), "labels"),
    "gzip_cut": (gzip.compress(VALID)[:-12], "gzip"),
    "gzip_of_text": (gzip.compress(b"no images in here" * 9), "text"),
    "not_finite": (
        struct.pack(">HBB3I", 0, 13, 3, 1, 1, 2) + struct.pack(">2f", 0, float("nan")), "finite"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", IMAGE_FILES)
def test_images(case, tmp_path, refused, too_early_for_tensorflow):
    content, part = IMAGE_FILES[case]
    (tmp_path / "images").write_bytes(content)
    config = write_json(
        tmp_path / "c.json", AUTOENCODER, encoder_layers=[["conv", 2, [1, 1]]], decoder_layers=[]
    )
    line = refused("autoencoder", "-d", "images", "-c", config)
    assert_says(line, "error: images: ", part)


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
    "missing": ("autoencoder", "-d nowhere", "nowhere: "),
    "directory": ("autoencoder", "-d .", "directory", "images"),
    "misspelt_name": ("autoencoder", "-d mnits", "mnits: ", "mnist?"),
    "images_as_labels": ("autoencoder", "-d images -dl images", "images: ", "labels"),
    "missing_labels_file": ("autoencoder", "-d images -dl gone", "gone: "),
    "no_labels": ("classification", "-d images", "-dl: "),
    "no_test_labels": ("classification", "-d images -dl labels -t test", "-tl: "),
    "no_test_images": ("classification", "-d images -dl labels -tl test_labels", "-tl: ", "-t "),
    "test_labels_as_images": (
        "classification", "-d images -dl labels -t test_labels -tl test_labels", "test_labels: "
    ),
    "limit_leaves_one_class": (
        "classification", "-d images -dl labels --limit 1", "only 0 in 1 images", "--limit"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA_FLAGS)
def test_data_flags(case, data, refused, too_early_for_tensorflow):
    program, flags, *parts = DATA_FLAGS[case]
    config = "tiny.json" if program == "autoencoder" else "head.json"
    assert_says(refused(program, *flags.split(), "-c", config), *parts)


DATA_FILES = {
    "fewer_labels": ({"labels": LABELS[:-1]}, "12 labels", "11 labels"),
    "float_labels": ({"labels": LABELS.astype(np.float32)}, "labels: ", "integer"),
    "fewer_test_labels": ({"test_labels": LABELS[:-2]}, "test_labels: ", "10 labels"),
    "other_test_shape": ({"test": np.zeros((12, 8, 9), np.uint8)}, "test: ", "8×8×1", "8×9×1"),
    "float_test_images": ({"test": IMAGES.astype(np.float32)}, "test: ", "uint8", "float32"),
    "one_class": ({"labels": LABELS * 0}, "labels: ", "only 0"),
}


@pytest.mark.parametrize("case", DATA_FILES)
def test_data_files(case, data, refused, too_early_for_tensorflow):
    arrays, *parts = DATA_FILES[case]
    data(**arrays)
    flags = ["-d", "images", "-dl", "labels", "-t", "test", "-tl", "test_labels", "-c", "head.json"]
    assert_says(refused("classification", *flags), *parts)


# --- Configurations -------------------------------------------------------------------------

JSON_TEXTS = {
    "empty": ("", "empty"),
    "cut": ('{"epochs": 1', "brackets"),
    "trailing_comma": ('{"epochs": 1,}', "line 1", "comma"),
    "single_quotes": ("{'epochs': 1}", "line 1", "double quotes"),
    "comment": ('{"epochs": 1} // ten', "line 1"),
    "python": ('{"early_stopping": None}', "line 1", "null"),
    "list": ("[1, 2]", "object", "[1, 2]"),
    "binary": ("\udcff\udcfe\udc80", "UTF-8"),
    "nested": ("[" * 2000 + "]" * 2000, "nested"),
}


@pytest.mark.parametrize("case", JSON_TEXTS)
def test_json_text(case, tmp_path, data, refused, too_early_for_tensorflow):
    text, *parts = JSON_TEXTS[case]
    (tmp_path / "c.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    assert_says(refused("autoencoder", "-d", "images", "-c", "c.json"), "c.json: ", *parts)


CONV, POOL, UP = ["conv", 2, [3, 3]], ["pool", [2, 2]], ["upSample", [2, 2]]
AUTOENCODER_VALUES = {
    "unknown_key": ({"epoch": 3}, "epoch: ", '"epochs"?'),
    "text_for_number": ({"epochs": "3"}, "epochs: ", "without quotes"),
    "truth_for_number": ({"batch_size": True}, "batch_size: ", "true"),
    "fraction": ({"epochs": 2.0}, "epochs: ", "Write 2,"),
    "zero_batch": ({"batch_size": 0}, "batch_size: ", "from 1", "got 0"),
    "negative_rate": ({"optimizer": ["adam", -1]}, "optimizer.learning_rate: ", "-1"),
    "unknown_optimizer": ({"optimizer": ["adams", 0.1]}, "optimizer", '"adam"?'),
    "unknown_layer": (
        {"encoder_layers": [["convo", 2, [3, 3]]]}, "encoder_layers[0]: ", '"conv"?'
    ),
    "layer_of_the_other_kind": (
        {"encoder_layers": [["dense", 9]]}, "encoder_layers[0]: ", "dense_layers"
    ),
    "kernel": (
        {"encoder_layers": [["conv", 2, 3]]}, "encoder_layers[0].kernel_size: ", "[3, 3]"
    ),
    "wrong_loss": (
        {"activation_function": "Relu", "loss": "binary_crossentropy"},
        "loss: ", "binary_crossentropy", "mean_squared_error",
    ),
    "size_not_given_back": (
        {"encoder_layers": [CONV, POOL], "decoder_layers": []},
        "8×8", "4×4", '["upSample", [2, 2]]',
    ),
    "too_many_pools": (
        {"encoder_layers": [POOL] * 4, "decoder_layers": [UP] * 4}, "encoder_layers[3]: "
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", AUTOENCODER_VALUES)
def test_autoencoder_values(case, tmp_path, data, refused, too_early_for_tensorflow):
    changes, *parts = AUTOENCODER_VALUES[case]
    write_json(tmp_path / "c.json", AUTOENCODER, changes)
    assert_says(refused("autoencoder", "-d", "images", "-c", "c.json"), "c.json: ", *parts)


CLASSIFIER_VALUES = {
    "no_epochs": (
        {"dense_only_train_epochs": 0, "full_train_epochs": 0},
        "c.json: full_train_epochs: ",
    ),
    "no_encoder": ({}, "c.json: ", "-model MODEL"),
    "encoder_is_gone": ({"encoder_layers": "gone.keras"}, "error: gone.keras: "),
    "noise": ({"noise": 0.1}, "c.json: noise: "),
    "conv_in_the_head": ({"dense_layers": [CONV]}, "c.json: dense_layers[0]: ", "encoder_layers"),
}


@pytest.mark.parametrize("case", CLASSIFIER_VALUES)
def test_classifier_values(case, tmp_path, data, refused, too_early_for_tensorflow):
    changes, *parts = CLASSIFIER_VALUES[case]
    write_json(tmp_path / "c.json", CLASSIFIER, changes)
    flags = ["-d", "images", "-dl", "labels", "-c", "c.json"]
    assert_says(refused("classification", *flags), *parts)


def test_configuration_of_the_other_program(data, refused, too_early_for_tensorflow):
    line = refused("autoencoder", "-d", "images", "-c", "head.json")
    assert_says(line, "head.json: ", "autoencoder.py", "classification.py")
    line = refused("classification", "-d", "images", "-dl", "labels", "-c", "tiny.json")
    assert_says(line, "tiny.json: ", "classification.py", "autoencoder.py")


def test_missing_key(tmp_path, data, refused, too_early_for_tensorflow):
    values = {key: value for key, value in AUTOENCODER.items() if key != "batch_size"}
    write_json(tmp_path / "c.json", values)
    line = refused("autoencoder", "-d", "images", "-c", "c.json")
    assert_says(line, "c.json: batch_size: ", '"batch_size": 32')


def test_repeated_key(tmp_path, data, refused, too_early_for_tensorflow):
    text = json.dumps(AUTOENCODER)
    (tmp_path / "c.json").write_text(f'{{"epochs": 2, {text[1:]}')
    line = refused("autoencoder", "-d", "images", "-c", "c.json")
    assert_says(line, "c.json: epochs: ")


@pytest.mark.parametrize("path", ["gone.json", "."])
def test_no_configuration_file(path, data, refused, too_early_for_tensorflow):
    assert_says(refused("autoencoder", "-d", "images", "-c", path), f"error: {path}: ")


def test_every_problem_has_its_line(tmp_path, data):
    """A configuration with three problems is put right in one go."""
    config = write_json(tmp_path / "c.json", AUTOENCODER, epochs=0, batch_size="8", sead=1)
    done = run_program(
        "autoencoder", "-d", tmp_path / "images", "-c", config, runs_dir=tmp_path / "runs"
    )
    assert done.exit_code == 2
    found = [line.removeprefix(f"error: {config}: ") for line in done.err.splitlines()]
    assert [line.split(":")[0] for line in found] == ["batch_size", "epochs", "sead"]


# --- Saved models ---------------------------------------------------------------------------


def write_zip(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_", "."), content)


def write_weights_only(path, saved):
    with h5py.File(path, "w") as file:
        file["conv/kernel"] = np.zeros((3, 3))


def write_truncated(path, saved):
    content = Path(saved).read_bytes()
    path.write_bytes(content[: len(content) // 2])


MODEL_FILES = {
    "missing": lambda path, saved: None,
    "directory": lambda path, saved: path.mkdir(),
    "empty": lambda path, saved: path.write_bytes(b""),
    "text": lambda path, saved: path.write_text("a model"),
    "idx": lambda path, saved: path.write_bytes(VALID),
    "truncated_zip": write_truncated,
    "other_zip": lambda path, saved: write_zip(path, readme_txt="hello"),
    "metadata_is_no_json": lambda path, saved: write_zip(path, metadata_json="{"),
    "weights_only": write_weights_only,
    "truncated_hdf5": lambda path, saved: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)),
}


@pytest.mark.parametrize("case", MODEL_FILES)
def test_model_files(
    case, tmp_path, data, refused, classifier_config, trained_autoencoder, too_early_for_tensorflow
):
    MODEL_FILES[case](tmp_path / "model.keras", trained_autoencoder.saved)
    flags = ["-d", "images", "-dl", "labels", "-model", "model.keras"]
    line = refused("classification", *flags, "-c", classifier_config)
    assert_says(line, "error: model.keras: ")


def test_model_for_other_images(
    data, refused, classifier_config, trained_autoencoder, too_early_for_tensorflow
):
    data(images=np.zeros((12, 8, 10), np.uint8))
    flags = ["-d", "images", "-dl", "labels", "-model", trained_autoencoder.saved]
    line = refused("classification", *flags, "-c", classifier_config)
    assert_says(line, trained_autoencoder.saved, "8×8×1", "8×10×1")


def test_keras_model_without_encoder(tmp_path, data, refused, classifier_config):
    """It takes Keras to see this, but no run is begun."""
    import keras

    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Flatten(name="flat")(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "other.keras")
    flags = ["-d", "images", "-dl", "labels", "-model", "other.keras"]
    line = refused("classification", *flags, "-c", classifier_config)
    assert_says(line, "error: other.keras: ", "flat", "--encoder-until")


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
    "em_dash": ("autoencoder", "—epochs 3", "EM DASH '—'", " --epochs."),
    "minus": ("classification", "−model m.keras", "MINUS SIGN '−'", " -model."),
    "hyphen": ("autoencoder", "‐dl labels", "HYPHEN", " -dl."),  # noqa: RUF001
    "dash_with_value": ("autoencoder", "––epochs=3", "EN DASH", " --epochs."),
    "dash_before_nothing_known": ("autoencoder", "–z", "'–z'", "autoencoder.py --help"),
    "dash_inside": ("autoencoder", "-d i --batch–size 3", "--batch-size?"),
    "misspelt": ("autoencoder", "-d i --epoch 3", "'--epoch'", "--epochs?"),
    "misspelt_with_value": ("autoencoder", "-d i --sed=3", "'--sed=3'", "--seed?"),
    "unknown": ("autoencoder", "-d i --zzz", "'--zzz'", "autoencoder.py --help"),
    "positional": ("classification", "-d i images", "'images'", "classification.py --help"),
    "no_dataset": ("autoencoder", "", "-d/--dataset", "--help"),
    "no_value": ("autoencoder", "-d", "-d/--dataset: ", "--help"),
    "no_value_before_flag": ("autoencoder", "-d i --epochs --seed 1", "--epochs: "),
    "zero_epochs": ("autoencoder", "-d i --epochs 0", "--epochs: ", "from 1", '"0"'),
    "negative_epochs": ("autoencoder", "-d i --epochs -5", "--epochs", 'got "-5"'),
    "fraction": ("autoencoder", "-d i --batch-size 1.5", "--batch-size", 'got "1.5"'),
    "word": ("classification", "-d i --limit many", "--limit", 'got "many"'),
    "zero_limit": ("autoencoder", "-d i --limit 0", "--limit", 'got "0"'),
    "negative_seed": ("autoencoder", "-d i --seed -1", "--seed", "from 0 to 4294967295"),
    "many_epochs": ("autoencoder", "-d i --epochs 100001", "--epochs", "to 100000"),
    "many_digits": ("autoencoder", f"-d i --seed {'9' * 5000}", "--seed", "4294967295"),
    "test_images_for_an_autoencoder": ("autoencoder", "-d i -t test", "'-t'", "--help"),
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
    "directory": ("--save folder.keras", "folder.keras: ", "directory"),
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


@pytest.mark.parametrize("program", ["autoencoder", "classification"])
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
    done = subprocess.run(
        [sys.executable, "-c", code, "-d", tmp_path / "images", "-c", config],
        cwd=ROOT,
        env={"PYTHONIOENCODING": "ascii", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"error: {tmp_path}/\\xe4.json: ")
    assert "Traceback" not in done.stderr
