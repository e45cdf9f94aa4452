"""Exact duplicates are found by their pixel values, counted, and refused in a line."""

import numpy as np
import pytest

from cae.data import splits
from cae.data.datasets import Dataset
from cae.data.splits import Overlap, find_overlaps, find_repeats, hash_images
from cae.errors import DataError
from cae.programs.images import warn_of_shared_images


@pytest.fixture
def images():
    """Five different 2×3 images."""
    return np.random.default_rng(0).integers(0, 256, (5, 2, 3, 1), np.uint8)


def test_equal_pixels_have_equal_hashes(images):
    hashes = hash_images(images)
    assert hashes.dtype == np.uint64
    assert len(set(hashes.tolist())) == 5
    assert (hash_images(images[::-1]) == hashes[::-1]).all()


@pytest.mark.parametrize("dtype", [np.int32, np.float32, ">f8"])
def test_the_type_of_the_file_does_not_matter(images, dtype):
    """A byte 7 and a float 7.0 are the same pixel."""
    assert (hash_images(images.astype(dtype)) == hash_images(images)).all()


def test_minus_zero_is_black():
    black = np.zeros((1, 2, 2, 1))
    assert hash_images(-black) == hash_images(black)


def test_a_single_pixel_tells_images_apart(images):
    changed = images.copy()
    changed[2, 1, 2, 0] ^= 1
    assert np.flatnonzero(hash_images(changed) != hash_images(images)).tolist() == [2]


def test_hashes_do_not_depend_on_how_many_are_read_at_once(images, monkeypatch):
    together = hash_images(images)
    monkeypatch.setattr(splits, "IMAGES_AT_ONCE", 2)
    assert (hash_images(images) == together).all()


def test_overlaps_of_each_two_sets(images):
    hashes = hash_images(images)
    sets = {"pretraining": hashes[:4], "labelled": hashes[3:], "test": hashes[[4, 0, 3]]}
    found = {(o.first, o.second): o.indices.tolist() for o in find_overlaps(sets)}
    assert found == {
        ("pretraining", "labelled"): [0],
        ("pretraining", "test"): [1, 2],
        ("labelled", "test"): [0, 2],
    }


def test_repeats_are_the_later_ones(images):
    hashes = hash_images(images[[0, 1, 0, 2, 1, 0]])
    assert find_repeats(hashes).tolist() == [2, 4, 5]


def test_an_overlap_in_words():
    assert str(Overlap("training", "test", np.arange(0))) == (
        "none of the test images are also among the training images"
    )
    assert str(Overlap("training", "test", np.arange(3, 1203))) == (
        "1,200 of the test images are also among the training images (numbers 3, 4, 5, 6, 7, …)"
    )


def test_shared_images_are_refused():
    Overlap("pretraining", "test", np.arange(0)).refuse("t10k")
    message = (
        r"t10k: the test images must not be among the pretraining images, got 2 of them, "
        r"numbers 4, 9\. .*--allow-leakage"
    )
    with pytest.raises(DataError, match=message):
        Overlap("pretraining", "test", np.array([4, 9])).refuse("t10k")


def test_classification_warns_of_test_images_that_it_trains_on(capsys):
    """It goes on: a person may have reasons."""
    images = np.arange(24, dtype=np.uint8).reshape(3, 2, 4, 1)
    training, test, other = (
        Dataset("images", array, None, {}, ()) for array in (images, images[1:2], images + 99)
    )
    warn_of_shared_images({"training": training, "unlabelled": training, "test": other})
    warn_of_shared_images({"training": training, "unlabelled": training, "test": None})
    assert capsys.readouterr().err == ""
    for role, roles in (
        ("training", {"training": training, "unlabelled": None, "test": test}),
        ("unlabelled", {"training": other, "unlabelled": training, "test": test}),
    ):
        warn_of_shared_images(roles)
        (line,) = capsys.readouterr().err.splitlines()
        assert f"1 of the test images is also among the {role} images (number 0)" in line
