"""Many epochs of few steps: the training of `fit`, without the start of its input pipeline."""

import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, check_same_training, draw_images

from cae.data.datasets import Scaling

EPOCHS = 4  # so few that rounding has not grown


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    from cae.training import short_epochs

    monkeypatch.setattr(short_epochs, "FEWEST_EPOCHS", EPOCHS)


@pytest.fixture
def images():
    return draw_images(24, (8, 8, 1), (2, 5), seed=1)


@pytest.fixture
def starts(monkeypatch):
    """Counts how often `fit` starts; with `starts.off` set it always does."""
    import keras

    from cae.training import train

    class Starts:
        count = 0

        def turn_off(self):
            monkeypatch.setattr(train, "is_worthwhile", lambda batches, epochs: False)

    starts = Starts()
    fit = keras.Model.fit

    def counting(self, *args, **kwargs):
        starts.count += 1
        return fit(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "fit", counting)
    return starts


def train_classifier(images, labels, **changes):
    from cae.training import build, train

    config = {**CLASSIFIER, "dense_layers": [["drop", 0.5], ["dense", 8], ["drop", 0.25]]}
    config |= {"encoder_layers": AUTOENCODER["encoder_layers"], "batch_size": 8}
    config |= {"dense_only_train_epochs": EPOCHS, "full_train_epochs": EPOCHS, **changes}
    network = build.get_classifier(config, images.shape[1:], 2)
    history = train.train_classifier(network, config, images, labels)
    return history, network.get_weights()


@pytest.mark.parametrize("validation_split", [0.0, 0.2])
def test_the_same_training(images, starts, validation_split):
    """Order, dropout and learning rates of both phases are those of `fit`; rounding differs."""
    training = train_classifier(*images, validation_split=validation_split)
    assert starts.count == 0
    starts.turn_off()
    other = train_classifier(*images, validation_split=validation_split)
    assert starts.count == 2
    check_same_training(training, other)


def train_autoencoder(images, **changes):
    from cae.training import build, train

    config = {**AUTOENCODER, **changes}
    network = build.get_autoencoder(config, images.shape[1:])
    return train.train_autoencoder(network, config, images, warn=lambda _: None)


def test_autoencoders_and_early_stopping(images, starts):
    """Their targets are their inputs; patience ends them as it ends `fit`."""
    changes = {"epochs": 9, "early_stopping": 1, "optimizer": ["adam", 0.5]}
    rows = train_autoencoder(images[0], **changes).epochs
    assert starts.count == 0
    starts.turn_off()
    other = train_autoencoder(images[0], **changes).epochs
    assert starts.count == 1
    assert len(rows) == len(other) < 9
    assert rows[0]["val_mse"] == pytest.approx(other[0]["val_mse"], rel=1e-3)


def test_others_are_left_to_fit(images):
    """Few epochs, many steps, or batches that TensorFlow computes."""
    from cae.training.batches import TrainingBatches
    from cae.training.short_epochs import is_worthwhile

    def prepare(batch_size=2, **options):
        scaling = Scaling(0, 255, "uint8")
        return TrainingBatches(images[0], np.arange(24), batch_size, 0, scaling=scaling, **options)

    assert is_worthwhile(prepare(), EPOCHS)
    assert not is_worthwhile(prepare(), EPOCHS - 1)
    assert not is_worthwhile(prepare(batch_size=1), EPOCHS)
    assert not is_worthwhile(prepare(noise=0.1), EPOCHS)


def test_a_loss_that_is_not_finite_ends_training(images, starts):
    """Each step multiplies the weights by 1 - 2 x 10."""
    history = train_autoencoder(images[0], epochs=90, optimizer=["sgd", 10], l2=1)
    assert starts.count == 0
    assert history.divergence is not None
    assert len(history.epochs) < 90
