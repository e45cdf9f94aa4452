"""Images as the flags change them, and the warning when they look unlike those of training."""

from argparse import Namespace
from dataclasses import replace

import keras
import numpy as np
import pytest

from cae.config.shipped import SHIPPED
from cae.data import idx, pictures, stored
from cae.data.appearance import describe
from cae.data.datasets import Dataset, Scaling
from cae.errors import DataError
from cae.programs.images import (
    READING,
    change_images,
    change_shape,
    check_same_shape,
    get_changes,
    get_reading,
    repeat_reading,
    warn_of_looks,
)
from cae.records.saved_models import save_model

BYTES = Scaling(0.0, 255.0, "uint8")


def flags(invert=None, transpose=None):
    return Namespace(invert=invert, transpose=transpose)


def make_data(images):
    return Dataset("images", images, None, {}, ())


@pytest.fixture
def dark():
    """Bright bars on dark images."""
    images = np.random.default_rng(0).integers(0, 20, (100, 8, 8, 1), np.uint8)
    images[:, 1:5, 3] = 250
    return images


@pytest.fixture
def model(tmp_path, dark):
    """A model that was trained on dark images."""
    layers = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 1)])
    return save_model(layers, tmp_path / "m.keras", {"appearance": describe(dark, BYTES)})


@pytest.mark.parametrize(
    ("given", "inverted", "named", "remedy"),
    [
        (None, {"training", "test"}, "training and test", "use --invert."),
        (None, {"training"}, "training", "use --invert train."),
        (None, {"test"}, "test", "use --invert test."),
        # where the flag has changed images already
        ("test", {"training"}, "training", "use --invert."),
        ("all", {"test"}, "test", "use --invert train."),
        ("all", {"training", "test"}, "training and test", "leave out --invert."),
        ("test", {"test"}, "test", "leave out --invert."),
    ],
)
def test_one_warning_names_the_images_and_the_flag(dark, model, given, inverted, named, remedy):
    datasets = {
        role: make_data(255 - dark if role in inverted else dark) for role in ("training", "test")
    }
    said = []
    warn_of_looks(model, datasets, BYTES, flags(given), said.append)
    assert len(said) == 1
    assert f" {named} images " in said[0] and said[0].endswith(remedy)


def test_without_a_model_the_test_images_are_compared_with_the_training_images(dark):
    said = []
    for test in (dark[:10], 255 - dark[:10]):
        datasets = {"training": make_data(dark), "test": make_data(test)}
        warn_of_looks(None, datasets, BYTES, flags(), said.append)
    assert len(said) == 1 and "--invert test" in said[0]


def test_images_without_labels_change_with_the_training_images(dark, model):
    """If they alone are inverted, or the training images are, no flag mends it."""
    bright = 255 - dark
    for training, unlabelled, named, remedy in (
        (bright, bright, "training and unlabelled images", "use --invert train."),
        (dark, bright, "The unlabelled images", "in their file."),
        (bright, dark, "The training images", "in their file."),
    ):
        said = []
        datasets = {"training": training, "unlabelled": unlabelled, "test": dark}
        datasets = {role: make_data(images) for role, images in datasets.items()}
        warn_of_looks(model, datasets, BYTES, flags(), said.append)
        assert len(said) == 1 and named in said[0] and said[0].endswith(remedy)


def test_a_program_with_one_kind_of_images_names_the_flag_alone(dark, model):
    said = []
    warn_of_looks(model, {"test": make_data(255 - dark)}, BYTES, flags(), said.append)
    assert len(said) == 1 and said[0].endswith("--invert.")


@pytest.mark.parametrize("which", [None, "all", "train", "test"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_change_images(which, split):
    """Rows become columns, and x becomes 255 - x, in the images that are named."""
    images = np.array([[0, 100], [200, 255]], np.uint8).reshape(1, 2, 2, 1)
    changed = change_images(make_data(images), flags(which, which), split).images
    expected = [255, 55, 155, 0] if which in ("all", split) else images.ravel().tolist()
    assert changed.ravel().tolist() == expected


def test_many_inverted_images_stay_on_the_disk(dark, tmp_path, monkeypatch):
    """Each data set, and each change of it, in a file of its own."""
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path)
    monkeypatch.setattr(pictures, "MAPPED_BYTES", dark.nbytes - 1)
    for sha256, shown in (("a", dark), ("b", dark // 2)):
        data = replace(make_data(shown), files=({"sha256": sha256},))
        for transpose in (None, "all"):
            changed = change_images(data, flags("all", transpose), "train").images
            assert isinstance(changed.base, np.memmap)
            turned = shown.swapaxes(1, 2) if transpose else shown
            np.testing.assert_array_equal(changed, 255 - turned)


def test_transposed_shapes():
    assert change_shape((8, 6, 1), flags(), "test") == (8, 6, 1)
    assert change_shape((8, 6, 1), flags(transpose="test"), "test") == (6, 8, 1)
    with pytest.raises(DataError, match="--transpose test"):
        check_same_shape("TEST", (8, 6, 1), (6, 8, 1), "test")
    assert get_changes(flags("train", "all"), "test") == ["--transpose"]


def test_pictures_fit_a_model_of_transposed_ones(tmp_path):
    """A model of 6×4 images was trained on pictures of 4×6, which are transposed after reading."""
    import keras

    from cae.records.saved_models import save_model

    layers = keras.Sequential([keras.Input((6, 4, 1)), keras.layers.Conv2D(1, 1)])
    path = str(save_model(layers, tmp_path / "m.keras", {"input_shape": [6, 4, 1]}))
    given = Namespace(model=path, **vars(flags(transpose="train")), **dict.fromkeys(READING))
    assert get_reading(given).image_size == (4, 6)
    assert get_reading(given, "test").image_size == (6, 4)


@pytest.fixture
def arrays(tmp_path, files):
    """Flags that name the tiny images and labels as `.npy`."""
    np.save(tmp_path / "x.npy", idx.read_images(files.images))
    np.save(tmp_path / "y.npy", idx.read_labels(files.labels))
    return ["-d", tmp_path / "x.npy", "-dl", tmp_path / "y.npy"]


class TestFlagsWithoutEffect:
    @pytest.mark.parametrize(
        ("flag", "value"), [("--image-size", "4x4"), ("--color", "rgb"), ("--resize", "crop")]
    )
    def test_of_pictures_where_there_are_none(self, arrays, autoencode, classify, flag, value):
        shipped = SHIPPED["autoencoder"][0]
        for data in (arrays, ["-d", "digits"]):
            for done in (
                classify(flag, value, data=data, model=None),
                autoencode(flag, value, data=data, config=shipped),
            ):
                assert done.refused().err.startswith(f"error: {flag}: requires pictures")
                assert not done.runs and len(done.err.splitlines()) == 1

    def test_a_share_of_arrays_in_files(self, arrays, classify):
        done = classify("--test-split", "0.2", data=arrays, model=None).refused("-t")
        assert not done.runs
        assert done.err.startswith("error: --test-split: ")

    def test_a_share_beside_test_images(self, files, classify):
        done = classify("--test-split", "0.2", data=[*files.classifier], model=None).refused("-t")
        assert not done.runs and done.err.startswith("error: --test-split: ")

    def test_a_missing_file_is_the_first_thing_to_say(self, tmp_path, classify):
        data = ["-d", tmp_path / "none"]
        done = classify("--image-size", "4x4", data=data, model=None).refused()
        assert done.err.startswith(f"error: {tmp_path / 'none'}: ")
        assert "no such file" in done.err.lower()

    def test_a_next_command_leaves_them_out(self, tmp_path, files):
        given = Namespace(image_size=(8, 8), color=None, test_split=0.25, class_names="a,b")
        (tmp_path / "folder").mkdir()
        assert repeat_reading(given, str(files.images)) == ["--class-names", "a,b"]
        assert repeat_reading(given, str(tmp_path / "folder")) == [
            "--image-size", "8x8", "--test-split", "0.25", "--class-names", "a,b",
        ]  # fmt: skip
