"""Batches: every image once an epoch, and every random choice a function of seed and epoch."""

import gc
import weakref
from functools import partial

import numpy as np
import pytest

from cae.config.fields import Augmentation
from cae.data.datasets import Scaling
from cae.training.batches import Batches, Share

BYTES = Scaling(0, 255, "uint8")


@pytest.fixture(autouse=True, params=[0, 16], ids=["tf.data", "NumPy"])
def short_steps(request, monkeypatch):
    """Epochs of so few steps are cut by NumPy; the batches are the same."""
    monkeypatch.setattr("cae.training.batches.SHORT_STEPS", request.param)
    return request.param


def numbered(count):
    """uint8 (count, 2, 2, 1) whose pixels all say the image's number."""
    return np.repeat(np.arange(count, dtype=np.uint8), 4).reshape(count, 2, 2, 1)


def epoch_of(batches, epoch):
    return [tuple(map(np.asarray, batch)) for batch in batches.iterate(epoch)]


def order_of(batches, epoch):
    return [
        round(float(x) * 255) for inputs, _ in epoch_of(batches, epoch) for x in inputs[:, 0, 0, 0]
    ]


def test_an_epoch_holds_every_chosen_image_once():
    """Indices choose; the last batch is the rest."""
    chosen = np.array([1, 3, 4, 7, 8])
    batches = Batches(numbered(10), chosen, 2, seed=1, scaling=BYTES)
    sizes = [len(inputs) for inputs, _ in epoch_of(batches, 0)]
    assert sizes == [2, 2, 1]
    assert batches.steps == 3
    assert sorted(order_of(batches, 0)) == list(chosen)


def test_order_depends_on_seed_and_epoch_alone():
    """Epoch 3 can be produced again without the epochs before it."""
    images, everything = numbered(50), np.arange(50)
    first = Batches(images, everything, 8, seed=1, scaling=BYTES)
    second = Batches(images, everything, 8, seed=1, scaling=BYTES)
    other = Batches(images, everything, 8, seed=2, scaling=BYTES)
    for epoch in range(3):
        order_of(first, epoch)
    assert order_of(first, 3) == order_of(second, 3)
    assert order_of(first, 3) != order_of(first, 4)
    assert order_of(first, 3) != order_of(other, 3)


@pytest.mark.parametrize("step", [0, 1, 4, 6])
def test_an_epoch_can_be_gone_on_with_at_any_batch(monkeypatch, step):
    """Every random choice is that of the whole epoch, gathered two batches at once."""
    monkeypatch.setattr("cae.training.batches.GATHERED_BYTES", 256)
    batches = Batches(
        numbered(50), np.arange(50), 8, seed=1, targets=np.arange(50, dtype=np.int32),
        scaling=BYTES, dropout=0.1, augmentation=Augmentation(rotation=20),
        corruption=Augmentation(noise=0.1),
    )  # fmt: skip
    whole = epoch_of(batches, 3)[step:]
    rest = batches.iterate(3, step)
    for (inputs, targets), (other_inputs, other_targets) in zip(whole, rest, strict=True):
        np.testing.assert_array_equal(inputs, other_inputs)
        np.testing.assert_array_equal(targets, other_targets)


def test_images_become_float_in_unit_range_and_targets_follow():
    images = numbered(6) * 51
    targets = np.arange(6, dtype=np.int32)
    batches = Batches(images, np.arange(6), 4, seed=0, targets=targets, scaling=BYTES)
    for inputs, labels in epoch_of(batches, 0):
        assert inputs.dtype == np.float32
        np.testing.assert_allclose(inputs[:, 0, 0, 0], labels / 5, atol=1e-6)


def test_corruption_is_of_the_input_only():
    """A denoising autoencoder draws the clean image."""
    images = np.full((64, 4, 4, 1), 128, np.uint8)
    batches = Batches(
        images, np.arange(64), 64, seed=0, scaling=BYTES, corruption=Augmentation(noise=0.2)
    )
    ((noisy, clean),) = epoch_of(batches, 0)
    np.testing.assert_array_equal(clean, np.full_like(clean, 128 / 255))
    assert 0.15 < (noisy - clean).std() < 0.25
    ((again, _),) = epoch_of(batches, 0)
    np.testing.assert_array_equal(noisy, again)
    ((next_epoch, _),) = epoch_of(batches, 1)
    assert np.any(noisy != next_epoch)


@pytest.mark.parametrize("rate", [0.5, 0.1])
def test_dropout(rate):
    """Each value by itself, anew for every image and epoch, with an unchanged mean."""
    features = np.random.default_rng(0).uniform(1, 2, (300, 7, 9)).astype(np.float32)
    targets = np.arange(300, dtype=np.int32)
    batches = Batches(features, np.arange(300), 300, 0, targets=targets, dropout=rate)
    ((inputs, labels),) = epoch_of(batches, 0)
    kept = inputs != 0
    np.testing.assert_allclose(inputs[kept], features[labels][kept] / (1 - rate), rtol=1e-6)
    error = 5 * np.sqrt(rate * (1 - rate) / kept[0].size)  # of the share in one image
    np.testing.assert_allclose(kept.mean(axis=(1, 2)), 1 - rate, atol=error)
    np.testing.assert_allclose(
        kept.mean(axis=0), 1 - rate, atol=5 * np.sqrt(rate * (1 - rate) / 300)
    )
    ((again, _),) = epoch_of(batches, 0)
    np.testing.assert_array_equal(inputs, again)
    ((other, other_labels),) = epoch_of(batches, 1)
    changed = (other != 0)[np.argsort(other_labels)] != kept[np.argsort(labels)]
    assert abs(changed.mean() - 2 * rate * (1 - rate)) < 0.02


def test_augmentation_and_corruption_draw_their_own_amounts():
    """An augmented image is its own target; corruption turns it once more, by other angles."""
    images = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 1), np.uint8)
    turn = Augmentation(rotation=90.0)
    make = partial(Batches, images, np.arange(8), 8, 0, scaling=BYTES)
    ((shown, turned),) = epoch_of(make(augmentation=turn), 0)
    np.testing.assert_array_equal(shown, turned)
    ((inputs, targets),) = epoch_of(make(augmentation=turn, corruption=turn), 0)
    ((corrupted, _),) = epoch_of(make(corruption=turn), 0)
    np.testing.assert_array_equal(targets, turned)
    assert (inputs != targets).any(axis=(1, 2, 3)).all()
    assert (corrupted != turned).any(axis=(1, 2, 3)).all()


def test_without_a_seed_the_order_stays():
    """Nothing is shuffled, dropped or repeated across batches."""
    images = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1)
    batches = Batches(images, np.arange(7), 4)
    inputs = [np.asarray(inputs) for inputs, _ in batches.iterate()]
    assert batches.steps == len(inputs) == 2
    np.testing.assert_array_equal(np.concatenate(inputs), images)


@pytest.mark.parametrize(
    ("batch_size", "steps", "expected"), [(32, 100, 32), (32, 5, 5), (4096, 10, 1), (1, 9999, 1024)]
)
def test_steps_per_execution(batch_size, steps, expected):
    """About a thousand images an execution, and never more steps than an epoch has."""
    count = batch_size * steps
    batches = Batches(np.zeros((count, 1), np.uint8), np.arange(count), batch_size)
    assert batches.steps_per_execution == expected


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [5, 8])
def test_shares_are_a_partition(count, batch_size):
    """Every image of every batch is counted by exactly one worker."""
    indices = np.arange(100, 118)
    shares = [Share(index, count) for index in range(count)]
    counts = np.stack([share.get_counts(len(indices), batch_size) for share in shares])
    seen = []
    for share, (counted, whole) in zip(shares, counts.transpose(0, 2, 1), strict=True):
        assert whole.sum() == len(indices)
        taken = share.take(indices, batch_size)
        for number, images in enumerate(counted.astype(int)):
            start = number * share.get_size(batch_size)
            seen += taken[start : start + images].tolist()
    assert sorted(seen) == indices.tolist()
    assert (counts[:, :, 0].sum(axis=0) == counts[0, :, 1]).all()


def test_a_share_is_never_empty():
    """A last batch of one image: the other worker gets it too, and does not count it."""
    first, second = Share(0, 2), Share(1, 2)
    assert first.take(np.arange(5), 4).tolist() == [0, 1, 4]
    assert second.take(np.arange(5), 4).tolist() == [2, 3, 4]
    assert second.get_counts(5, 4).tolist() == [[2, 4], [0, 1]]


def test_batches_of_a_share():
    """Shares of one epoch's batches make up the batches of one worker, from any step on."""
    images = np.arange(11, dtype=np.float32).reshape(11, 1)

    def read(share, step):
        batches = Batches(images, np.arange(11), 4, seed=3, share=share)
        return [list(map(np.asarray, batch)) for batch in batches.iterate(2, step)]

    for step in (0, 1):
        whole = [inputs for inputs, _ in read(Share(), step)]
        parts = [read(Share(index, 2), step) for index in range(2)]
        for batch, *shares in zip(whole, *parts, strict=True):
            joined = [inputs[: int(counted)] for inputs, _, (counted, _) in shares]
            assert np.concatenate(joined).tolist() == batch.tolist()
            assert all(total == len(batch) for _, _, (_, total) in shares)
    validation = [Batches(images, np.arange(11), 512, share=Share(i, 2)) for i in range(2)]
    joined = [inputs.numpy() for part in validation for inputs, _, _ in part.iterate()]
    assert np.concatenate(joined).tolist() == images.tolist()


def test_shares_draw_different_noise():
    """The same noise in every share would be half as random."""

    def read(share, **random):
        images = np.full((8, 4, 4, 1), 0.5, np.float32)
        batches = Batches(images, np.arange(8), 8, seed=3, share=share, **random)
        return np.asarray(next(batches.iterate(0))[0])

    for random in ({"corruption": Augmentation(noise=0.1)}, {"dropout": 0.5}):
        first, second = (read(Share(index, 2), **random) for index in range(2))
        assert first.shape == second.shape
        assert (first != second).any()
        whole = read(Share(), **random)[:4]
        assert (first == whole).all() or "corruption" not in random


def test_arrays_are_freed_with_their_batches():
    """TensorFlow keeps what it calls from a graph; a study would run out of memory."""
    images = np.zeros((20, 2, 2, 1), np.float32)
    targets = np.zeros(20, np.int32)
    freed = weakref.ref(images)
    batches = Batches(images, np.arange(20), 8, 0, targets=targets, dropout=0.5)
    validation = Batches(images, np.arange(20), 256, targets=targets)
    assert len(list(batches.iterate(0))) == 3 and len(list(validation.iterate())) == 1
    del images, batches, validation
    gc.collect()
    assert freed() is None


@pytest.mark.parametrize("short_steps", [0], indirect=True, ids=["tf.data"])
def test_nothing_is_tuned_meanwhile():
    """TensorFlow's tuner can hold up the end of an epoch, for up to a minute. NumPy has none."""
    batches = Batches(numbered(8), np.arange(8), 2, 0, scaling=BYTES)
    assert batches.get_dataset().options().autotune.enabled is False
