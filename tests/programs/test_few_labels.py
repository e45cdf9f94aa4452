"""Images without labels: given by a flag, left without a label, or bereft of it to try it out."""

import shutil

import numpy as np
import pytest
from conftest import CLASSIFIER, read_json, write_json
from PIL import Image

import autoencoder
import classification
from cae import terminal
from cae.config.load import validate_config
from cae.data import idx, pictures, stored
from cae.data.labels import NO_LABEL
from cae.errors import UserError
from cae.programs.starting_points import get_sample_seed, read_configs
from cae.programs.tasks import AutoencoderTask, ClassifierTask
from cae.records.run import read_start


@pytest.fixture
def load(files):
    """Loads the task of a start on the tiny images with further flags."""

    def load(*flags, data=None):
        data = [*files.classifier] if data is None else data
        args = classification.build_parser().parse_args([*map(str, [*data, *flags])])
        ClassifierTask.check(args)
        return ClassifierTask.load(args, seed=0)

    return load


@pytest.fixture
def partly_labelled(files, tmp_path):
    """Labels of the tiny images; those of the first six are missing."""
    labels = idx.read_labels(files.labels).astype(np.int8)
    labels[:6] = -1
    idx.write_idx(tmp_path / "labels", labels)
    return ["-d", files.images, "-dl", tmp_path / "labels"]


def test_labels_that_are_missing(load, files, partly_labelled):
    task = load(data=partly_labelled)
    images = idx.read_images(files.images)
    np.testing.assert_array_equal(task.data.images, images[6:])
    np.testing.assert_array_equal(task.unlabelled.images, images[:6])
    assert task.classes.tolist() == [2, 5, 61]
    assert task.datasets["unlabelled"].files == task.data.files


def test_all_labels_leave_no_images_without(load):
    assert load().unlabelled is None
    assert list(load().datasets) == ["training", "test"]


@pytest.mark.parametrize("form", ["idx", "npy", "npz", "pictures"])
def test_images_of_a_flag(load, files, tmp_path, monkeypatch, form):
    """Subfolders and labels do not count, and the images are changed like those of training."""
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path)
    images = np.full((5, 8, 8), 30, np.uint8) * np.arange(5, dtype=np.uint8)[:, None, None]
    path = tmp_path / f"more.{form}"
    if form == "idx":
        idx.write_idx(path, images)
    elif form == "npy":
        np.save(path, images)
    elif form == "npz":
        np.savez(path, images=images, labels=np.arange(5))
    else:
        for number, image in enumerate(images):
            folder = path / ("class" if number else ".")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).resize((16, 16)).save(folder / f"{number}.png")
    unlabelled = load("--unlabelled", path, "--invert", "train").unlabelled
    np.testing.assert_array_equal(unlabelled.images[..., 0], 255 - images)
    assert unlabelled.labels is None
    assert [file["path"] for file in unlabelled.files] == [str(path)]


def test_images_of_a_flag_join_those_without_labels(load, files, partly_labelled):
    task = load("--unlabelled", files.test, data=partly_labelled)
    assert len(task.data.images) == 42
    np.testing.assert_array_equal(task.unlabelled.images[6:], idx.read_images(files.test))
    assert len(task.unlabelled.files) == 3


def test_images_of_another_size(load, tmp_path):
    idx.write_idx(tmp_path / "images", np.zeros((3, 8, 9), np.uint8))
    with pytest.raises(UserError, match=r"images: must contain images .* 8×8×1, got 8×9×1"):
        load("--unlabelled", tmp_path / "images")


def test_the_configuration_must_use_them(files, launch, classifier_config):
    flags = [*files.classifier, "-c", classifier_config, "--unlabelled", files.test]
    finished = launch("classification", *flags).refused()
    assert finished.err.startswith("error: --unlabelled: ") and finished.err.count("\n") == 1


def test_labels_per_class(classify, tmp_path):
    """A complete run says what it has used, and what it has not, and records both."""
    finished = classify("--labels-per-class", 5, "--seed", 3).ok()
    text = " ".join(finished.out.split())
    assert "15 of 8×8×1" in text and "33 other images without labels, not used" in text
    begun = read_json(finished.run / "run.json")
    assert begun["arguments"]["labels_per_class"] == 5
    assert begun["data"]["unlabelled"] == begun["data"]["training"]

    shutil.copytree(finished.run, tmp_path / "again.partial")
    args = classification.build_parser().parse_args(["--resume", str(tmp_path / "again")])
    seed = get_sample_seed(args, read_configs(args, "classifier"))
    assert ClassifierTask.load(args, seed).data.sample.to_json() == begun["sample"]

    start = read_start(finished.run)
    other = start.data["unlabelled"][0].model_copy(update={"sha256": "0"})
    for changes, named in (
        ({"sample": None}, "--labels-per-class"),
        ({"data": start.data | {"unlabelled": [other]}}, other.path),
    ):
        with pytest.raises(UserError, match=f"^{named}: "):
            start.check_files(start.model_copy(update=changes))


def test_an_autoencoder_learns_from_all_images(autoencode, partly_labelled, files):
    more = ["--unlabelled", files.test]
    finished = autoencode(*partly_labelled[2:], *more, plots=True).ok()
    assert "72 of 8×8×1" in finished.out

    flags = [*partly_labelled, *more, "--limit", 40]
    data = AutoencoderTask.load(autoencoder.build_parser().parse_args([*map(str, flags)]), 0).data
    np.testing.assert_array_equal(data.images[40:], idx.read_images(files.test))
    assert (data.labels[40:] == NO_LABEL).all() and (data.labels[:40] != NO_LABEL).any()
    assert data.name_images(np.array([39, 40])) == ["image 47", "test: image 0"]


@pytest.mark.parametrize(
    ("count", "backend", "named"),
    [(0, "tensorflow", "got none"), (0, "tensorflow", "--unlabelled"), (1, "jax", "got jax")],
)
def test_where_images_without_labels_cannot_be_used(monkeypatch, count, backend, named):
    config = validate_config(CLASSIFIER | {"unlabelled": {"pseudo_labels": {}}}, "", "classifier")
    monkeypatch.setattr(terminal, "get_backend", lambda: backend)
    with pytest.raises(UserError, match=r"^unlabelled: ") as error:
        config.check_unlabelled(count)
    assert named in str(error.value)


def test_several_devices_are_refused(load, partly_labelled):
    task = load("--devices", 2, data=partly_labelled)
    config = validate_config(CLASSIFIER | {"unlabelled": {"pseudo_labels": {}}}, "", "classifier")
    with pytest.raises(UserError, match="--devices: must be left out with the key unlabelled"):
        task.check_config(config)


def test_many_joined_images_stay_on_the_disk(load, files, partly_labelled, tmp_path, monkeypatch):
    """In one file of the cache, which the next start uses again."""
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path)
    expected = load("--unlabelled", files.test, data=partly_labelled).unlabelled.images
    monkeypatch.setattr(pictures, "MAPPED_BYTES", 8 * 8 * 20)
    written = []
    for _ in range(2):
        joined = load("--unlabelled", files.test, data=partly_labelled).unlabelled.images
        assert isinstance(joined.base, np.memmap)
        np.testing.assert_array_equal(joined, expected)
        written.append({file: file.stat().st_mtime_ns for file in tmp_path.glob("cache/*")})
    assert written[0] == written[1]


def test_a_recipe_on_images_of_a_flag(autoencode, classify, files, tmp_path):
    """Both programs take their half of one file; the views of teacher and student are drawn."""
    layers = {"encoder_layers": [["conv", 2, [3, 3]], ["pool", [2, 2]], ["dense", 4]]}
    common = {"optimizer": ["adam", 0.01], "batch_size": 8}
    autoencoder = {**layers, "decoder_layers": [["upSample", [2, 2]]], "epochs": 1, **common}
    head = {"dense_layers": [], "dense_only_train_epochs": 0, "full_train_epochs": 1, **common}
    head["unlabelled"] = {"batch_size": 8, "label_spreading": {}, "pseudo_labels": {}}
    recipe = {"description": "A tiny one.", "autoencoder": autoencoder, "classifier": head}
    path = write_json(tmp_path / "recipe.json", recipe)
    first = autoencode(config=path).ok()
    images = ["--unlabelled", files.test]
    done = classify(*images, config=path, model=first.run / "model.keras", plots=True).ok()
    assert "24 other images without labels" in " ".join(done.out.split())
    assert (done.run / "plots" / "augmentation.png").exists()
    assert read_json(done.run / "config.json")["unlabelled"]["batch_size"] == 8
