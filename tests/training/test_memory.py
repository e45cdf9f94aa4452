"""Memory is compared with what a step needs before the step, and every limit counts."""

import math

import keras
import pytest
import tensorflow as tf

from cae.errors import UserError
from cae.training import build, memory
from cae.training.layers import fuse
from cae.training.memory import batches_in_memory, get_step_bytes

CONFIG = {
    "encoder_layers": [["conv", 3, [3, 3]], ["pool", [2, 2]]],
    "decoder_layers": [["upSample", [2, 2]], ["conv", 2, [3, 3]]],
    "optimizer": ["adam", 0.01],
    "batch_size": 4,
    "epochs": 1,
}


@pytest.fixture
def model():
    return build.get_autoencoder(CONFIG, (8, 8, 1))


def test_step_bytes(model):
    """By hand: conv 8·8·3, pool 4·4·3, up-sampling and conv in one 8·8·2, output 8·8·1."""
    values = 192 + 48 + 128 + 64
    assert get_step_bytes(fuse(model), 5) == values * 5 * 4
    assert get_step_bytes(fuse(model), 5, value_bytes=2) == values * 5 * 2


def test_flattening_takes_no_memory():
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(3)]
    assert get_step_bytes(keras.Sequential(layers), 2) == 3 * 2 * 4


def test_a_step_that_cannot_fit_is_refused(model, monkeypatch):
    monkeypatch.setattr(memory, "get_free_bytes", lambda: 2.0**30)
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


def test_free_in_container(tmp_path):
    """The limit less what is used, of which files kept in memory give way."""
    for name, text in (("max", "1000\n"), ("current", "700\n"), ("stat", "inactive_file 50\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert memory._get_free_in_container(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._get_free_in_container(tmp_path) == math.inf


def test_no_container(tmp_path):
    """As on macOS and Windows."""
    assert memory._get_free_in_container(tmp_path / "none") == math.inf


def test_free_address_space():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = 2**46
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        assert 0 < memory._get_free_address_space() < limit
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_here():
    """Some memory is free, and less than any machine has."""
    assert 2**20 < memory.get_free_bytes() < 2**50
