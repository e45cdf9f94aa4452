"""Files of Keras 2 compute in Keras 3 what they computed there; other formats are named."""

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from cae.errors import ModelFileError
from cae.records.saved_models import load_model, read_metadata
from cae.records.untrusted import LAYERS

FIXTURES = Path(__file__).parents[1] / "fixtures" / "keras2"  # by make_keras2.py beside it
FILES = sorted(path.name for path in FIXTURES.glob("*.[hk]*"))


def get_outputs(name):
    return np.load(FIXTURES / "outputs.npz")[name]


def check_outputs(path, name):
    """The model in a file computes what Keras 2 computed."""
    model, metadata = load_model(path)
    assert metadata == {}
    found = model.predict_on_batch(get_outputs("images"))
    np.testing.assert_allclose(found, get_outputs(name), atol=1e-5)


def find_classes(value):
    """All class names in a configuration."""
    if isinstance(value, dict):
        own = {value["class_name"]} if isinstance(value.get("class_name"), str) else set()
        return own.union(*map(find_classes, value.values()))
    return set().union(*map(find_classes, value)) if isinstance(value, list) else set()


def change_config(path, name, *replacements, change=lambda config: config):
    """Copies an `.h5` fixture with other words in its configuration."""
    shutil.copyfile(FIXTURES / f"{name}.h5", path)
    with h5py.File(path, "r+") as file:
        text = json.dumps(change(json.loads(file.attrs["model_config"])))
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        file.attrs["model_config"] = text
    return path


@pytest.mark.parametrize("file", FILES)
def test_outputs_are_those_of_keras2(file, tmp_path):
    """Archives of 2.12, 2.15 and tf_keras, HDF5 files, and the same as Keras 3 saves them again."""
    name, _, suffix = file.partition(".")
    check_outputs(FIXTURES / file, name)
    if (
        not name.startswith("preprocessing") or suffix == "keras"
    ):  # Keras itself cannot write it as .h5
        load_model(FIXTURES / file)[0].save(tmp_path / file)
        check_outputs(tmp_path / file, name)


@pytest.mark.parametrize("version", ["215", "221"])
def test_every_allowed_layer_is_in_a_file(version):
    """What the list of plain layers lets through is known to load, from Keras 2 and tf_keras."""
    found = set()
    for path in FIXTURES.glob(f"*_{version}.keras"):
        with zipfile.ZipFile(path) as archive:
            found |= find_classes(json.loads(archive.read("config.json")))
    assert found >= LAYERS


class TestOlderVersions:
    """The same models, as the versions before 2.15 wrote them."""

    def test_sequential_as_a_list_without_input_layer(self, tmp_path):
        """Keras before 2.2.3: the first layer alone says what the shape of the input is."""

        def change(config):
            _, *layers = config["config"]["layers"]
            assert layers[0]["config"]["batch_input_shape"] == [None, 8, 8, 2]
            return {"class_name": "Sequential", "config": layers}

        path = change_config(tmp_path / "m.h5", "vectors_215", change=change)
        check_outputs(path, "vectors_215")

    @pytest.mark.parametrize(
        ("name", "replacements"),
        [
            # Before TensorFlow 2.4.
            ("autoencoder_215", [('"Functional"', '"Model"')]),
            # In TensorFlow 1, initializers said their dtype, and BatchNormalization its version.
            (
                "convolutions_215",
                [
                    ('"BatchNormalization"', '"BatchNormalizationV1"'),
                    ('{"seed": null}', '{"seed": null, "dtype": "float32"}'),
                ],
            ),
        ],
    )
    def test_other_words(self, tmp_path, name, replacements):
        check_outputs(change_config(tmp_path / "m.h5", name, *replacements), name)

    def test_layers_that_say_how_they_draw(self, tmp_path):
        """As tf_keras writes it under TensorFlow 2.16 and later."""
        words = '"factor": 0.1', '"factor": 0.1, "rng_type": "stateful"'
        path = change_config(tmp_path / "m.h5", "preprocessing_215", words)
        check_outputs(path, "preprocessing_215")

    def test_a_file_that_does_not_say_its_version(self, tmp_path):
        """Only Keras 2 left it out."""
        shutil.copyfile(FIXTURES / "autoencoder_215.h5", tmp_path / "m.h5")
        with h5py.File(tmp_path / "m.h5", "r+") as file:
            del file.attrs["keras_version"]
        check_outputs(tmp_path / "m.h5", "autoencoder_215")

    def test_a_policy_of_mixed_precision(self, tmp_path):
        """Keras 2 wrote an object where Keras 3 expects a name."""
        policy = '{"class_name": "Policy", "config": {"name": "mixed_bfloat16"}}'
        words = '"dtype": "float32", "filters"', f'"dtype": {policy}, "filters"'
        path = change_config(tmp_path / "m.h5", "merges_215", words)
        model, _ = load_model(path)
        found = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert [layer.compute_dtype for layer in found] == ["bfloat16"]


def test_what_keras3_cannot_compute_is_refused(tmp_path):
    """Groups of a transposed convolution: dropping them would change the results."""
    path = change_config(tmp_path / "m.h5", "autoencoder_215", ('"groups": 1', '"groups": 2'))
    with pytest.raises(ModelFileError, match=r"Conv2DTranspose.*groups 2"):
        load_model(path)


def write_saved_model(folder):
    """What TensorFlow 2 wrote by default."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")
    (folder / "variables" / "variables.index").touch()
    (folder / "keras_metadata.pb").touch()
    return folder


def small_model():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])


class TestOtherFormats:
    """The error names the format and what to save instead."""

    @pytest.mark.parametrize(
        "name",
        ["", "saved_model.pb", "keras_metadata.pb", "variables", "variables/variables.index"],
    )
    def test_saved_model(self, tmp_path, name):
        """The folder, or a file in it."""
        path = write_saved_model(tmp_path / "model") / name
        with pytest.raises(ModelFileError, match=r"TensorFlow SavedModel.*\.h5"):
            read_metadata(path)

    def test_checkpoint(self, tmp_path):
        """`save_weights` of TensorFlow wrote three files, none of which holds the layers."""
        names = ("checkpoint", "m.index", "m.data-00000-of-00001")
        for name in names:
            (tmp_path / name).write_bytes(b"\x00\x01")
        for name in (*names, "m", ""):  # as `load_weights` takes it, and their folder
            with pytest.raises(ModelFileError, match=r"TensorFlow checkpoint.* weights"):
                read_metadata(tmp_path / name)

    def test_weights_of_keras3(self, tmp_path):
        """`save_weights`."""
        small_model().save_weights(tmp_path / "m.weights.h5")
        with pytest.raises(ModelFileError, match=r"weights.*model\.save"):
            read_metadata(tmp_path / "m.weights.h5")

    def test_weights_of_keras2(self, tmp_path):
        """The same file as `save` writes, less the configuration."""
        shutil.copyfile(FIXTURES / "vectors_215.h5", tmp_path / "m.h5")
        with h5py.File(tmp_path / "m.h5", "r+") as file:
            for name in ("layer_names", "backend"):
                file.attrs[name] = file["model_weights"].attrs[name]
            del file.attrs["model_config"]
        with pytest.raises(ModelFileError, match=r"weights.*model\.save"):
            read_metadata(tmp_path / "m.h5")


def test_errors_of_keras_are_shown_by_their_end(tmp_path):
    """Keras prints a whole configuration before it says what is wrong with it."""
    words = '"filters": 2', '"filters": 2, "colour": "red"'
    path = change_config(tmp_path / "m.h5", "autoencoder_215", words)
    with pytest.raises(ModelFileError, match="colour") as caught:
        load_model(path)
    assert len(str(caught.value)) < 500
