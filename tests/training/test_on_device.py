"""Images kept on a GPU: the training of those that come with the batches. Here a CPU plays it."""

import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, check_same_training, draw_images

from cae.data.datasets import Scaling


@pytest.fixture
def gpu(monkeypatch):
    """Turns the CPU into a GPU when plugged in; `gpu.made` are the models that look images up."""
    from cae.training import on_device

    class Gpu:
        def __init__(self):
            self.made = []

        def plug_in(self):
            monkeypatch.setattr(on_device, "has_gpu", lambda: True)

    gpu = Gpu()
    look_up = on_device.look_up

    def looking_up(*args, **options):
        gpu.made.append(look_up(*args, **options))
        return gpu.made[-1]

    monkeypatch.setattr(on_device, "look_up", looking_up)
    return gpu


@pytest.fixture
def images():
    return draw_images(24, (8, 8, 1), (2, 5), seed=1)


def train_autoencoder(images, **changes):
    from cae.training import build, train

    config = {**AUTOENCODER, "epochs": 3, "batch_size": 5, **changes}
    network = build.get_autoencoder(config, images.shape[1:])
    history = train.train_autoencoder(network, config, images, warn=lambda _: None)
    return history, network.get_weights()


def train_classifier(images, labels, **changes):
    from cae.training import build, train

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
    import keras

    gpu.plug_in()
    history, _ = train_classifier(*images, dense_layers=[["drop", 0.5], ["dense", 8]])
    model, _ = gpu.made[0]
    head = model.layers[-1]
    assert any(isinstance(layer, keras.layers.Dropout) for layer in head.layers)
    assert np.isfinite(history.metrics["val_loss"])


@pytest.mark.parametrize(
    "changes", [{"noise": 0.1}, {"augmentation": {"shift": 0.1}}], ids=["noise", "augmentation"]
)
def test_what_changes_in_every_epoch_comes_with_the_batches(images, gpu, changes):
    gpu.plug_in()
    train_autoencoder(images[0], epochs=1, **changes)
    assert not gpu.made


def test_what_fits(monkeypatch, gpu):
    """In memory, and in the numbers that a GPU computes with."""
    from cae.training import on_device

    images = np.zeros((10, 8, 8, 1), np.uint8)
    assert not on_device.is_possible(images)
    gpu.plug_in()
    assert on_device.is_possible(images)
    assert not on_device.is_possible(images.astype(np.int32))
    monkeypatch.setattr(on_device, "MOST_BYTES", images.nbytes - 1)
    assert not on_device.is_possible(images)


def test_many_steps_per_execution(gpu):
    """A GPU is not left waiting for Python."""
    from cae.training.batches import get_steps_per_execution

    assert get_steps_per_execution(32, 1000) == 32
    gpu.plug_in()
    assert get_steps_per_execution(32, 1000) == 512


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "float32"])
@pytest.mark.parametrize("scaled", [True, False])
def test_lookup_correctness(dtype, scaled):
    """As NumPy gathers and scales them."""
    from cae.training.on_device import Lookup

    images = np.arange(24).reshape(6, 2, 2, 1).astype(dtype)
    scaling = Scaling(3, 16, dtype) if scaled else None
    numbers = np.array([4, 0, 4], np.int32)
    found = np.asarray(Lookup(images, scaling)(numbers))
    expected = images[numbers]
    np.testing.assert_allclose(found, scaling.apply(expected) if scaled else expected, rtol=1e-6)
    assert found.dtype == np.float32
