"""Splits and samples keep the shares of the classes, subsets are nested, duplicates are found."""

import json

import numpy as np
import pytest
from conftest import read_json
from hypothesis import given
from hypothesis import strategies as st

from cae.data import splits
from cae.data.datasets import Dataset
from cae.data.splits import (
    Overlap,
    draw_order,
    draw_sample,
    encode_labels,
    find_overlaps,
    find_repeats,
    get_classes,
    hash_images,
    is_imbalanced,
    keep_order,
    split_test,
    split_validation,
)
from cae.errors import DataError
from cae.programs.images import warn_of_shared_images

LABELS = np.array([7, 7, 2, 2, 2, 7, 5, 5, 2, 5, 7, 2])  # five of 2, three of 5, four of 7


@pytest.mark.parametrize("per_class", [1, 2, 3])
def test_the_first_ones_are_as_many_of_each_class(per_class):
    chosen = LABELS[draw_order(LABELS, 0)[: 3 * per_class]]
    assert np.unique(chosen, return_counts=True)[1].tolist() == [per_class] * 3


def test_every_image_comes_once():
    assert sorted(draw_order(LABELS, 3)) == list(range(12))


def test_classes_that_run_out_are_left_out():
    """The fourth turn has no 5 left, the fifth only a 2."""
    assert LABELS[draw_order(LABELS, 0)[9:]].tolist() == [2, 7, 2]


def test_the_seed_decides():
    assert draw_order(LABELS, 1).tolist() == draw_order(LABELS, 1).tolist()
    assert draw_order(LABELS, 1).tolist() != draw_order(LABELS, 2).tolist()


def test_a_second_start_reads_the_first_ones_file(tmp_path):
    path = tmp_path / "order.json"
    order = keep_order(path, LABELS, 0, "abc")
    stored = path.read_bytes()
    assert (keep_order(path, LABELS, 0, "abc") == order).all()
    assert path.read_bytes() == stored
    assert json.loads(stored)["data_sha256"] == "abc"


def swap_two(document):
    order = document["order"]
    order[0], order[1] = order[1], order[0]


@pytest.mark.parametrize(
    "damage",
    [
        swap_two,
        lambda document: document["order"].pop(),
        lambda document: document.pop("order"),
        lambda document: document.update(order="twelve"),
        lambda document: document.update(order=[2**70]),
        lambda document: document.update(seed=1),
        lambda document: document.update(data_sha256="other data"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, damage):
    path = tmp_path / "order.json"
    keep_order(path, LABELS, 0, "abc")
    document = read_json(path)
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match="must contain the order drawn"):
        keep_order(path, LABELS, 0, "abc")


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\xff\xfe"])
def test_something_else_is_refused(tmp_path, content):
    path = tmp_path / "order.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="must contain the order"):
        keep_order(path, LABELS, 0, "abc")


class TestSplitValidation:
    @given(
        labels=st.lists(st.integers(-3, 61), min_size=1, max_size=200),
        share=st.floats(0.001, 0.99),
        seed=st.integers(0, 2**32),
        stratified=st.booleans(),
    )
    def test_properties(self, labels, share, seed, stratified):
        labels = np.array(labels) if stratified else np.zeros(len(labels), np.int64)
        train, validation = split_validation(
            len(labels), share, seed, labels if stratified else None
        )
        assert train.dtype == validation.dtype == np.int64
        assert sorted([*train, *validation]) == list(range(len(labels)))
        assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()
        classes, counts = np.unique(labels, return_counts=True)
        assert (len(validation) >= 1) == (counts.max() > 1)
        assert set(labels[train]) == set(classes)
        for label, count in zip(classes, counts, strict=True):
            taken = np.sum(labels[validation] == label)
            assert taken < share * count + 1
            assert taken > share * count - 1 or taken == count - 1
        if all(share * counts <= counts - 1):
            assert abs(len(validation) - share * len(labels)) <= 0.5 or len(validation) == 1

    @pytest.mark.parametrize(
        ("counts", "share", "taken"),
        [
            ([19, 11], 0.1, [2, 1]),  # 1.9 and 1.1
            ([15] * 10, 0.1, [2] * 5 + [1] * 5),  # 1.5 each; of equals the first give one more
            ([4, 1], 0.5, [2, 0]),  # every class keeps an image to train on
            ([1, 1, 1], 0.5, [0, 0, 0]),
            ([3, 3], 0.0, [0, 0]),
        ],
    )
    def test_every_class_gives_its_share(self, counts, share, taken):
        labels = np.repeat(np.arange(len(counts)), counts)
        _, validation = split_validation(len(labels), share, 0, labels)
        assert np.bincount(labels[validation], minlength=len(counts)).tolist() == taken

    def test_seed_decides(self):
        first, again, other = (split_validation(100, 0.2, seed)[1] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert first.tolist() != other.tolist()

    def test_it_is_a_draw(self):
        """Files are often sorted by writer, so that the last images would be no fair sample."""
        _, validation = split_validation(1000, 0.1, 0)
        assert validation.min() < 100 and validation.max() >= 900


class TestDrawSample:
    @pytest.mark.parametrize(
        ("counts", "total", "taken"),
        [
            ([60, 30, 10], 10, [6, 3, 1]),
            ([5, 5, 5], 4, [2, 1, 1]),  # 1.33 each; of equals the first gives one more
            ([96, 2, 2], 10, [8, 1, 1]),  # 9.6, 0.2 and 0.2, but no class is left out
            ([97, 1, 1, 1], 4, [1, 1, 1, 1]),
            ([50, 49, 1], 2, [1, 1, 0]),  # fewer images than classes
        ],
    )
    def test_every_class_gives_its_share(self, counts, total, taken):
        labels = np.repeat(np.arange(len(counts)), counts)
        drawn = draw_sample(len(labels), total, 0, labels)
        assert np.bincount(labels[drawn], minlength=len(counts)).tolist() == taken

    @given(
        labels=st.lists(st.integers(-3, 9), min_size=1, max_size=80),
        seed=st.integers(0, 2**32 - 1),
        share=st.floats(0.01, 1),
    )
    def test_properties(self, labels, seed, share):
        labels = np.array(labels)
        count = max(1, int(share * len(labels)))
        drawn = draw_sample(len(labels), count, seed, labels)
        assert drawn.dtype == np.int64 and len(drawn) == count
        assert (np.diff(drawn) > 0).all()
        if count >= len(set(labels)):
            assert set(labels[drawn]) == set(labels)

    def test_without_labels_it_is_a_draw_from_all(self):
        drawn = draw_sample(1000, 100, 0)
        assert drawn.min() < 100 and drawn.max() >= 900


class TestClasses:
    def test_encode_labels(self):
        """Gaps close up, and labels that training never saw are -1 wherever they lie."""
        indices = encode_labels(np.array([3, -1, 61, 4, -2, 62]), np.array([-1, 3, 61]))
        assert indices.dtype == np.int32
        assert indices.tolist() == [1, 0, 2, -1, -1, -1]

    @given(st.lists(st.integers(-(2**62), 2**62), min_size=1))
    def test_encoding_is_undone_by_the_classes(self, labels):
        labels = np.array(labels, np.int64)
        classes = get_classes(labels)
        assert classes.dtype == np.int64
        np.testing.assert_array_equal(classes[encode_labels(labels, classes)], labels)


class TestTest:
    def test_equal_images_stay_together(self):
        """Five images of one class, three of them equal: at most two can leave."""
        hashes, labels = np.array([9, 9, 9, 4, 7], np.uint64), np.zeros(5, int)
        is_test = split_test(hashes, labels, 0.4)
        assert is_test.tolist() == [False, False, False, True, True]
        assert split_test(hashes, labels, 0.2).tolist() == [False, False, False, True, False]

    def test_every_class_keeps_an_image(self):
        is_test = split_test(np.arange(3, dtype=np.uint64), np.array([0, 1, 1]), 0.9)
        assert is_test.tolist() == [False, True, False]


@pytest.mark.parametrize(("counts", "expected"), [([1, 3], False), ([1, 4], True), ([5], False)])
def test_imbalance(counts, expected):
    assert is_imbalanced(np.repeat(range(len(counts)), counts)) is expected


# --- Exact duplicates ------------------------------------------------------------------------


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
    """How many, and the numbers of the first five."""
    assert str(Overlap("training", "test", np.arange(0))).startswith("none of the test images")
    many = str(Overlap("training", "test", np.arange(3, 1203)))
    assert "1,200 of the test images" in many and "(numbers 3, 4, 5, 6, 7, …)" in many


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
