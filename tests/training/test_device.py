"""Images kept on a GPU, which a CPU plays here; memory compared with what a step needs."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import AUTOENCODER, CLASSIFIER, check_same_training, draw_images

from cae.config.load import validate_config
from cae.data.datasets import Scaling
from cae.errors import UserError
from cae.training import build, device, train
from cae.training.batches import Batches
from cae.training.device import Lookup, batches_in_memory, get_step_bytes
from cae.training.layers import fuse

MEMORY_CONFIG = {
    "encoder_layers": [["conv", 3, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 2, [3, 3]]],
    "optimizer": ["adam", 0.01],
    "batch_size": 4,
    "epochs": 1,
}

# --- Images on a GPU ------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch):
    """Turns the CPU into a GPU when plugged in; `gpu.made` are the models that look images up."""

    class Gpu:
        def __init__(self):
            self.made = []

        def plug_in(self):
            monkeypatch.setattr(device, "has_gpu", lambda: True)

    gpu = Gpu()
    look_up = device.look_up

    def looking_up(*args, **options):
        gpu.made.append(look_up(*args, **options))
        return gpu.made[-1]

    monkeypatch.setattr(device, "look_up", looking_up)
    return gpu


@pytest.fixture
def images():
    return draw_images(24, (8, 8, 1), (2, 5), seed=1)


def train_autoencoder(images, **changes):
    config = {**AUTOENCODER, "epochs": 3, "batch_size": 5, **changes}
    network = build.get_autoencoder(config, images.shape[1:])
    history = train.train_autoencoder(network, config, images, warn=lambda _: None)
    return history, network.get_weights()


def train_classifier(images, labels, **changes):
    config = {**CLASSIFIER, "encoder_layers": AUTOENCODER["encoder_layers"], "batch_size": 8}
    config |= {"dense_only_train_epochs": 3, "full_train_epochs": 2, **changes}
    network = build.get_classifier(config, images.shape[1:], 2)
    return train.train_classifier(network, config, images, labels), network.get_weights()


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mean_squared_error"])
@pytest.mark.parametrize("validation_split", [0.0, 0.2])
def test_the_same_autoencoder(images, gpu, loss, validation_split):
    """Trained to draw what it looked up: loss, error, order and weights."""
    expected = train_autoencoder(images[0], loss=loss, validation_split=validation_split)
    assert not gpu.made
    gpu.plug_in()
    check_same_training(
        train_autoencoder(images[0], loss=loss, validation_split=validation_split), expected
    )
    assert len(gpu.made) == 1


def test_the_same_classifier(images, gpu):
    """The first phase looks up encodings, the second one images."""
    expected = train_classifier(*images)
    gpu.plug_in()
    check_same_training(train_classifier(*images), expected)
    encodings, pixels = (model.get_layer("lookup").output.shape[1:] for model, _ in gpu.made)
    assert pixels == (8, 8, 1) != encodings


def test_dropout_of_encodings_is_left_to_the_gpu(images, gpu):
    """NumPy would bring them back over."""
    gpu.plug_in()
    history, _ = train_classifier(*images, dense_layers=[["drop", 0.5], ["dense", 8]])
    model, _ = gpu.made[0]
    head = model.layers[-1]
    assert any(isinstance(layer, keras.layers.Dropout) for layer in head.layers)
    assert np.isfinite(history.metrics["val_loss"])


def test_a_classifier_that_learns_from_unlabelled_images(images, gpu):
    """Its model takes views of them, so no image is looked up once the encoder is trained."""
    gpu.plug_in()
    config = {**CLASSIFIER, "encoder_layers": AUTOENCODER["encoder_layers"], "augmentation": None}
    config |= {"full_train_epochs": 1, "unlabelled": {"pseudo_labels": {}, "batch_size": 8}}
    model = build.get_classifier(config, (8, 8, 1), 2)
    history = train.train_classifier(model, config, *images, unlabelled=images[0][:16])
    assert np.isfinite(history.metrics["loss"])
    assert [
        looks_up.get_layer("lookup").output.shape[1:] == (8, 8, 1) for looks_up, _ in gpu.made
    ] == [False]


@pytest.mark.parametrize(
    "changes", [{"noise": 0.1}, {"augmentation": {"shift": 0.1}}], ids=["noise", "augmentation"]
)
def test_what_changes_in_every_epoch_comes_with_the_batches(images, gpu, changes):
    gpu.plug_in()
    train_autoencoder(images[0], epochs=1, **changes)
    assert not gpu.made


def test_what_fits(monkeypatch, gpu):
    """In memory, and in the numbers that a GPU computes with."""
    images = np.zeros((10, 8, 8, 1), np.uint8)
    assert not device.can_keep(images)
    gpu.plug_in()
    assert device.can_keep(images)
    assert not device.can_keep(images.astype(np.int32))
    monkeypatch.setattr(device, "MOST_BYTES", images.nbytes - 1)
    assert not device.can_keep(images)


def test_many_steps_per_execution(gpu):
    """A GPU is not left waiting for Python."""

    def count():
        return Batches(np.zeros((32000, 1)), np.arange(32000), 32).steps_per_execution

    assert count() == 32
    gpu.plug_in()
    assert count() == 512


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "float32"])
@pytest.mark.parametrize("scaled", [True, False])
def test_lookup_correctness(dtype, scaled):
    """As NumPy gathers and scales them."""
    images = np.arange(24).reshape(6, 2, 2, 1).astype(dtype)
    scaling = Scaling(3, 16, dtype) if scaled else None
    numbers = np.array([4, 0, 4], np.int32)
    found = np.asarray(Lookup(images, scaling)(numbers))
    expected = images[numbers]
    np.testing.assert_allclose(found, scaling.apply(expected) if scaled else expected, rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ("avx512f", "float32"),
        ("avx512_bf16", "bfloat16"),
        ("amx_bf16", "bfloat16"),
        (None, "float32"),
    ],
)
def test_bfloat16(gpu, monkeypatch, tmp_path, facts, found):
    """A CPU that says so computes it, and every GPU; elsewhere than on Linux nobody knows."""
    monkeypatch.setattr(device, "CPU_FACTS", tmp_path / "cpuinfo")
    if facts:
        (tmp_path / "cpuinfo").write_text(f"flags : fpu {facts}\n")
    config = validate_config({**AUTOENCODER, "mixed_precision": True}, "x", "autoencoder")
    assert device.get_compute_dtype(config) == found
    gpu.plug_in()
    assert device.get_compute_dtype(config) == "bfloat16"
    config = validate_config(AUTOENCODER, "x", "autoencoder")
    assert device.get_compute_dtype(config) == "float32"


# --- Memory ---------------------------------------------------------------------------------------


@pytest.fixture
def model():
    return build.get_autoencoder(MEMORY_CONFIG, (8, 8, 1))


def test_step_bytes(model):
    """By hand: conv 8·8·3, pool 4·4·3, up-sampling and conv in one 8·8·2, output 8·8·1."""
    values = 192 + 48 + 128 + 64
    assert get_step_bytes(fuse(model), 5) == values * 5 * 4
    assert get_step_bytes(fuse(model), 5, value_bytes=2) == values * 5 * 2


def test_flattening_takes_no_memory():
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    assert get_step_bytes(keras.Sequential(layers), 2) == 3 * 2 * 4


def test_a_step_that_cannot_fit_is_refused(model, monkeypatch):
    monkeypatch.setattr(device, "get_free_bytes", lambda: 2.0**30)
    with (
        pytest.raises(UserError, match=r"^batch_size 1000000: .* 1\.0 GiB free .* 1\.6 GiB"),
        batches_in_memory(fuse(model), 1_000_000),
    ):
        pytest.fail("nothing may be trained")
    with batches_in_memory(fuse(model), 1000):
        pass


@pytest.mark.parametrize(
    "error", [MemoryError(), tf.errors.ResourceExhaustedError(None, None, "OOM")]
)
def test_memory_that_runs_out_all_the_same(model, error):
    """As on a GPU, whose memory is not asked before."""
    with (
        pytest.raises(UserError, match=r"^batch_size 4: .* no memory left\. Use a smaller --batch"),
        batches_in_memory(model, 4),
    ):
        raise error


@pytest.mark.parametrize("group", ["", "job/step"])
def test_free_in_groups(tmp_path, group):
    """The limit less what is used, of which files kept in memory give way; also of a job above."""
    own, limited = tmp_path / "own", tmp_path / Path(group).parent
    own.write_text(f"1:cpu:/other\n0::/{group}\n")
    (tmp_path / group).mkdir(parents=True, exist_ok=True)
    for name, text in (("max", "1000\n"), ("current", "700\n"), ("stat", "inactive_file 50\n")):
        (limited / f"memory.{name}").write_text(text)
    assert device.get_free_in_groups(tmp_path, own) == 350
    (limited / "memory.max").write_text("max\n")
    assert device.get_free_in_groups(tmp_path, own) == math.inf
    assert device.get_free_in_groups(tmp_path / "none", tmp_path / "none") == math.inf


def test_free_address_space():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = 2**46
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        assert 0 < device.get_free_bytes() <= device.get_free_address_space() < limit
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
