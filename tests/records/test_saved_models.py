"""Saved models are plain Keras files with metadata; others are refused with a reason."""

import json
import math
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import assert_same_weights

from cae.errors import ModelFileError, UsageError
from cae.foreign.models import find_encoder
from cae.records.saved_models import load_model, read_metadata, save_model

# Written by Keras 2 (tf_keras 2.21), with an optimizer, as programs of 2020 wrote them: a Conv2D,
# BatchNormalization and MaxPooling2D in `encoder`, its mirror or a dense head behind it.
FIXTURES = Path(__file__).parents[1] / "fixtures"
LOOKS = {
    **dict.fromkeys(("mean", "spread", "border", "darkest", "brightest"), 0.5),
    **{"rows": [0.5], "columns": [0.5], "scores": {"inverted": [1.0, 0.5]}},
}
METADATA = {
    "kind": "autoencoder",
    "input_shape": [8, 8, 1],
    "scaling": {"offset": 0, "scale": 255.0, "dtype": "uint8"},
    "classes": [-3, 0, 61],
    "class_names": ["a", "ü", "日本"],
}


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((8, 8, 1))
    encoder = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()],
        name="encoder",
    )
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(encoder(inputs)))
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
class TestRoundTrip:
    def test_weights_and_metadata(self, model, tmp_path, suffix):
        path = save_model(model, tmp_path / f"m{suffix}", METADATA)
        loaded, metadata = load_model(path)
        assert metadata == read_metadata(path) == METADATA
        assert_same_weights(model, loaded)
        assert find_encoder(loaded, path).name == "encoder"
        assert list(tmp_path.iterdir()) == [path]

    def test_never_overwritten_unasked(self, model, tmp_path, suffix):
        path = tmp_path / f"m{suffix}"
        path.write_text("precious")
        with pytest.raises(UsageError, match=r"must not exist yet.*--overwrite"):
            save_model(model, path, METADATA)
        assert path.read_text() == "precious"
        save_model(model, path, METADATA, overwrite=True)
        assert read_metadata(path) == METADATA


@pytest.mark.parametrize("axis", [None, (1, 3), -1])
@pytest.mark.parametrize("is_nested", [False, True])
def test_axes_and_statistics_in_hdf5_files(tmp_path, axis, is_nested):
    """Keras itself loses all axes but a single one, and the statistics within nested models."""
    images = np.random.default_rng(0).random((3, 8, 8, 2), dtype=np.float32)
    first = keras.layers.Normalization(axis=axis)
    first.adapt(9 * images)
    parts = [keras.Input((8, 8, 2)), first, keras.layers.UnitNormalization(axis=[1, 2])]
    model = keras.Sequential(parts)
    model = keras.Sequential([parts[0], model]) if is_nested else model
    model.save(tmp_path / "m.h5")
    loaded, _ = load_model(tmp_path / "m.h5")
    expected = model.predict_on_batch(images)
    np.testing.assert_allclose(loaded.predict_on_batch(images), expected, atol=1e-6)


def test_nested_models_of_keras2():
    """Files of 2020: outputs are what Keras 2 computed, and the encoder is found."""
    images = np.arange(64, dtype="float32").reshape(1, 8, 8, 1) / 64
    outputs = np.loadtxt(FIXTURES / "keras2_outputs.csv", delimiter=",")
    for name, expected in (("autoencoder", outputs[:64]), ("classifier", outputs[64:])):
        model, metadata = load_model(FIXTURES / f"keras2_{name}.h5")
        assert metadata == {}
        np.testing.assert_allclose(model.predict_on_batch(images).ravel(), expected, atol=1e-5)
        assert find_encoder(model, "x").output_shape == (None, 4, 4, 3)


def lambda_model(path):
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(path)


def weights_only(path):
    weights = path.with_suffix(".weights.h5")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save_weights(weights)
    weights.rename(path)


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("letter.txt", "hello")


def with_metadata_file(content):
    def write(path):
        members = {
            "metadata.json": content,
            "config.json": '{"class_name": "Sequential", "config": {}}',
            "model.weights.h5": "",
        }
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in members.items():
                archive.writestr(name, text)

    return write


def with_metadata(metadata):
    return with_metadata_file(
        json.dumps({"keras_version": "3.15.1", "convolutional_autoencoder": metadata})
    )


def cut_short(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("m.keras", lambda path: None, "got no such file"),
        ("m.keras", Path.mkdir, "got a folder"),
        ("m.keras", Path.touch, "got an empty file"),
        ("m.keras", lambda path: path.write_text("<html>"), "begins with b'<html>'"),
        ("m.keras", other_zip, "must be a complete model"),
        ("m.keras", cut_short, "must be a complete model"),
        ("m.keras", with_metadata_file(" " * 2_000_000), "metadata.json of 2,000,000 bytes"),
        ("m.keras", with_metadata([1]), "must be an object"),
        ("m.keras", with_metadata({"input_shape": 3}), "input_shape"),
        ("m.keras", with_metadata({"scaling": {"offset": 0}}), "scaling.scale"),
        ("m.keras", with_metadata({"scaling": METADATA["scaling"] | {"dtype": "O"}}), "dtype"),
        ("m.keras", with_metadata({"scaling": None}), "scaling"),
        ("m.keras", with_metadata({"appearance": LOOKS | {"mean": math.nan}}), "appearance.mean"),
        ("m.keras", with_metadata({"classes": ["=cmd"]}), "classes"),
        ("m.keras", with_metadata({"classes": [10**30]}), "classes.0"),
        ("m.keras", with_metadata({"classes": [2, 1]}), "classes: must ascend"),
        ("m.keras", with_metadata({"class_names": ["\x1b[2J"]}), r"class_names\[0\]: must"),
        ("m.keras", lambda_model, "Lambda.*no Lambda"),
        ("m.h5", weights_only, "weights alone"),
        ("m.h5", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "complete model"),
    ],
)
def test_refused_with_a_reason(tmp_path, name, make, message):
    path = tmp_path / name
    make(path)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_metadata(path)
    assert all(line.startswith(str(path)) for line in caught.value.lines)
    assert len(str(caught.value)) < 500
