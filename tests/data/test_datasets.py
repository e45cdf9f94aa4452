"""Data sets: checked by their headers, loaded, sampled and scaled."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python
from hypothesis import given
from hypothesis import strategies as st

from cae.config import choices
from cae.data import datasets, idx, pictures, stored
from cae.data import named as named_module
from cae.data.labels import NO_LABEL
from cae.data.sources import Reading
from cae.data.splits import draw_order
from cae.errors import DataError, UsageError

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([3, 0, 3, 61], np.uint8)


@pytest.fixture
def images_path(tmp_path):
    idx.write_idx(tmp_path / "images", IMAGES)
    return str(tmp_path / "images")


@pytest.fixture
def labels_path(tmp_path):
    idx.write_idx(tmp_path / "labels", LABELS)
    return str(tmp_path / "labels")


class TestFiles:
    def test_load_dataset_basics(self, images_path, labels_path):
        data = datasets.load_dataset(images_path, labels_path)
        assert data.name == "images"
        np.testing.assert_array_equal(data.images, IMAGES[..., np.newaxis])
        assert data.images.dtype == np.uint8
        assert data.labels.tolist() == [3, 0, 3, 61]
        assert data.class_names == {}

    def test_files_are_recorded_as_stored(self, tmp_path, labels_path):
        idx.write_idx(tmp_path / "images.gz", IMAGES)
        stored = (tmp_path / "images.gz").read_bytes()
        data = datasets.load_dataset(str(tmp_path / "images.gz"), labels_path)
        assert data.files[0] == {
            "path": str(tmp_path / "images.gz"),
            "sha256": hashlib.sha256(stored).hexdigest(),
            "bytes": len(stored),
        }
        assert [Path(file["path"]).name for file in data.files] == ["images.gz", "labels"]

    def test_images_alone(self, images_path):
        data = datasets.load_dataset(images_path)
        assert data.labels is None
        assert len(data.files) == 1

    @pytest.mark.parametrize("labelled", [True, False])
    def test_limit_draws_by_the_seed(self, tmp_path, labelled):
        """Of 60 zeros, 30 ones and 10 twos in order, 10 images are 6, 3 and 1."""
        labels = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.uint8)
        images = np.arange(600, dtype=np.int16).reshape(100, 2, 3)
        idx.write_idx(tmp_path / "images", images)
        idx.write_idx(tmp_path / "labels", labels)
        files = [str(tmp_path / "images"), str(tmp_path / "labels")][: 1 + labelled]
        data = datasets.load_dataset(*files, limit=10, seed=4)
        chosen = data.sample.indices
        np.testing.assert_array_equal(data.images[..., 0], images[chosen])
        if labelled:
            assert data.labels.tolist() == [0] * 6 + [1] * 3 + [2]
        again, other = (datasets.load_dataset(*files, limit=10, seed=seed) for seed in (4, 5))
        assert again.sample.to_json() == data.sample.to_json()
        assert other.sample.to_json() != data.sample.to_json()

    def test_a_limit_beyond_the_images_is_none(self, images_path, labels_path):
        data = datasets.load_dataset(images_path, labels_path, limit=4)
        assert data.sample is None and len(data.images) == 4
        with pytest.raises(UsageError, match="--limit: must be at least 1, got 0"):
            datasets.load_dataset(images_path, labels_path, limit=0)

    @pytest.mark.parametrize(
        ("shape", "expected"), [((4, 2, 3), (2, 3, 1)), ((4, 2, 3, 5), (2, 3, 5))]
    )
    def test_check_dataset_gives_the_shape(self, tmp_path, shape, expected):
        idx.write_idx(tmp_path / "images", np.zeros(shape, np.int16))
        assert datasets.check_dataset(str(tmp_path / "images")) == (4, expected)

    def test_check_dataset_reads_headers_only(self, tmp_path):
        """What follows in the compressed file is damaged."""
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 64), np.uint8)
        idx.write_idx(tmp_path / "images.gz", pixels)
        stored = (tmp_path / "images.gz").read_bytes()
        (tmp_path / "images.gz").write_bytes(stored[:-1000])
        assert datasets.check_dataset(str(tmp_path / "images.gz")) == (64, (64, 64, 1))

    @pytest.mark.parametrize("limit", [None, 1])
    def test_different_lengths(self, images_path, tmp_path, limit):
        """Images and labels that do not belong together are refused even where a limit hides it."""
        idx.write_idx(tmp_path / "other", LABELS[:3])
        with pytest.raises(DataError, match=r"must contain 4 labels, .*, got 3 labels"):
            datasets.load_dataset(images_path, str(tmp_path / "other"), limit=limit)

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [("MNIST", "mnist"), ("FashionMNIST", "fashion_mnist"), ("KMINST", "kmnist")],
    )
    def test_near_misses_of_names(self, typed, meant, images_path):
        with pytest.raises(DataError, match=f"^{typed}: .* Did you mean {meant}"):
            datasets.check_dataset(typed)
        with pytest.raises(DataError, match=f"Did you mean {meant}"):
            datasets.check_dataset(images_path, typed)

    def test_a_file_may_be_called_almost_like_a_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        idx.write_idx("minst", IMAGES)
        idx.write_idx("mnist", IMAGES)
        assert datasets.load_dataset("minst").name == "minst"
        assert datasets.load_dataset("./mnist").name == "mnist"


class TestFewLabels:
    """Of ten images the labels are 0 1 0 1 0 1 0 1 0 1."""

    @pytest.fixture
    def data(self):
        images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
        files = ({"path": "i", "sha256": "0", "bytes": 1},)
        return datasets.Dataset("images", images, np.arange(10) % 2, {0: "a", 1: "b"}, files)

    def test_all_labels(self, data):
        assert datasets.divide(data, None, 0) == (data, None)
        assert datasets.divide(data, 5, 0)[1] is None

    def test_missing_labels(self, data):
        data.labels[[0, 3]] = NO_LABEL
        data = dataclasses.replace(data, validation=np.array([3, 8, 9]))
        labelled, unlabelled = datasets.divide(data, None, 0)
        assert labelled.images.ravel().tolist() == [1, 2, 4, 5, 6, 7, 8, 9]
        assert labelled.labels.tolist() == [1, 0, 0, 1, 0, 1, 0, 1]
        assert labelled.validation.tolist() == [6, 7]
        assert labelled.sample.indices.tolist() == [1, 2, 4, 5, 6, 7, 8, 9]
        assert unlabelled.images.ravel().tolist() == [0, 3]
        assert unlabelled.labels is None and unlabelled.validation is None

    def test_labels_per_class(self, data):
        """They are those of label-efficiency, more labels include fewer, and none is lost."""
        data.labels[0] = NO_LABEL
        known = np.arange(1, 10)
        before = set()
        for count in (1, 3, 4):
            labelled, unlabelled = datasets.divide(data, count, 7)
            assert np.bincount(labelled.labels).tolist() == [count, count]
            chosen = labelled.images.ravel().tolist()
            assert chosen == sorted(known[draw_order(data.labels[1:], 7)[: 2 * count]])
            assert before < set(chosen)
            assert sorted(chosen + unlabelled.images.ravel().tolist()) == list(range(10))
            before = set(chosen)
        assert datasets.divide(data, 4, 8)[0].sample.to_json() != labelled.sample.to_json()
        with pytest.raises(
            UsageError, match=r"--labels-per-class: must be at most 4, .* \(a\), got 5"
        ):
            datasets.divide(data, 5, 7)

    def test_positions_are_those_in_the_file(self, data):
        labelled, _ = datasets.divide(data.take(np.arange(4, 10), 0), 1, 0)
        assert labelled.sample.indices.tolist() == labelled.images.ravel().tolist()

    def test_images_on_the_disk_stay_there(self, data, tmp_path, monkeypatch):
        """Each part has its file, and so have changed images."""
        monkeypatch.setattr(stored, "DATA_DIR", tmp_path)
        monkeypatch.setattr(pictures, "MAPPED_BYTES", 1)
        inverted = dataclasses.replace(data, images=255 - data.images)
        for whole, changes in ((data, []), (inverted, ["--invert"])):
            for part in datasets.divide(whole, 2, 0, changes):
                assert isinstance(part.images.base, np.memmap)
                np.testing.assert_array_equal(part.images, whole.images[part.sample.indices])

    def test_test_images_need_labels(self, images_path, tmp_path):
        idx.write_idx(tmp_path / "labels", np.array([0, 1, -1, 0], np.int8))
        labels = str(tmp_path / "labels")
        assert datasets.load_dataset(images_path, labels).labels.tolist() == [0, 1, NO_LABEL, 0]
        with pytest.raises(DataError, match=r"labels: .* got 1 of 4 without"):
            datasets.load_dataset(images_path, labels, split="test")

    def test_names_are_given_to_classes_alone(self, images_path, tmp_path):
        idx.write_idx(tmp_path / "labels", np.array([0, 1, -1, 0], np.int8))
        reading = Reading(class_names="a,b")
        data = datasets.load_dataset(images_path, str(tmp_path / "labels"), reading=reading)
        assert data.names == {0: "a", 1: "b"}


class TestScaling:
    @pytest.mark.parametrize(
        ("images", "expected"),
        [
            (np.array([7, 16], np.uint8), (0, 255, "uint8")),
            (np.array([0, 255], np.int32), (0, 255, "int32")),
            (np.array([0, 256], np.int32), (0, 256, "int32")),
            (np.array([-100, 100], np.int16), (-100, 200, "int16")),
            (np.array([0.25, 0.5], np.float32), (0, 1, "float32")),
            (np.array([-1, 1], np.float64), (-1, 2, "float64")),
            (np.array([300, 300], np.int16), (300, 1, "int16")),
            (np.array([0, 0], np.float32), (0, 1, "float32")),
        ],
    )
    def test_get_scaling(self, images, expected):
        scaling = datasets.get_scaling(images.reshape(1, 1, 2, 1))
        assert dataclasses.astuple(scaling) == expected

    def test_apply_correctness(self):
        images = np.array([-10, 0, 50, 100, 999], np.int16)
        scaled = datasets.Scaling(0, 100, "int16").apply(images)
        assert scaled.dtype == np.float32
        assert scaled.tolist() == [0, 0, 0.5, 1, 1]

    def test_bytes_are_divided_by_255(self):
        """Every byte becomes the float32 nearest to its share of 255."""
        pixels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        scaled = datasets.get_scaling(pixels).apply(pixels)
        np.testing.assert_array_equal(scaled.ravel(), (np.arange(256) / 255).astype(np.float32))

    def test_differences_survive_a_large_offset(self):
        """int32 pixels are not rounded to float32 before their offset is taken away."""
        pixels = np.array([2**30, 2**30 + 1, 2**30 + 2], np.int32)
        assert datasets.get_scaling(pixels).apply(pixels).tolist() == [0, 0.5, 1]

    @given(
        values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=9),
        dtype=st.sampled_from([np.int32, np.float32, np.float64]),
    )
    def test_training_images_fill_the_range(self, values, dtype):
        images = np.array(values, dtype)
        scaled = datasets.get_scaling(images).apply(images)
        assert scaled.dtype == np.float32
        assert scaled.min() >= 0 and scaled.max() <= 1
        order = np.argsort(images, kind="stable")
        assert (np.diff(scaled[order]) >= 0).all()


def test_import_is_light():
    """Importing, and checking files, loads neither Keras nor what only named data sets need."""
    code = (
        "import sys\nfrom cae.data import datasets\n"
        "heavy = {'keras', 'tensorflow', 'sklearn', 'scipy', 'urllib.request'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = run_python("-c", code)
    assert done.stdout == "[]\n", done.stderr


def test_checksums_are_complete():
    for name in ("mnist", "fashion_mnist", "kmnist"):
        named = named_module.NAMED_DATASETS[name]
        known = named.content_sha256 or {
            file_name.removesuffix(".gz"): md5 for file_name, md5 in named.gzip_md5.items()
        }
        assert set(known) == set(named_module.FILE_NAMES.values())
        assert {len(checksum) for checksum in known.values()} == {64 if name == "mnist" else 32}
        assert all(mirror.endswith("/") for mirror in named.mirrors)


@pytest.mark.slow
def test_real_mnist():
    folder = stored.DATA_DIR / "mnist"
    for name in named_module.FILE_NAMES.values():
        if not ((folder / name).exists() or (folder / f"{name}.gz").exists()):
            pytest.skip(
                f'data/mnist/{name} is missing: run `python -c "from cae.data import datasets; '
                "[datasets.load_dataset('mnist', split=s) for s in ('train', 'test')]\"`"
            )
    train = datasets.load_dataset("mnist")
    test = datasets.load_dataset("mnist", split="test")
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # The mean pixel that every MNIST tutorial subtracts.
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)


def test_flags_offer_every_named_data_set():
    assert tuple(named_module.NAMED_DATASETS) == choices.DATASETS


class TestTextLabels:
    @pytest.fixture
    def load(self, tmp_path, images_path):
        def load(name, words, **reading):
            np.save(tmp_path / name, np.array(words))
            path = str(tmp_path / name)
            return datasets.load_dataset(images_path, path, reading=Reading(**reading))

        return load

    @pytest.mark.parametrize(
        ("numbers", "expected"),
        [
            ([1, 2, 10, 1], [0, 1, 2, 0]),
            ([1, 2, 10, 7], [0, 1, 2, 3]),
            ([0, 1, 2, 0], [0, 1, 2, 0]),
            ([1, 9, 1, 1], [1, 9, 1, 1]),
        ],
        ids=["names", "names and an unseen one", "their numbers", "as many of both"],
    )
    def test_numbers_are_the_classes_of_that_name(self, load, numbers, expected):
        """Of folders called 1, 2 and 10, whose numbers are 0, 1 and 2; if more are than not."""
        test = load("test.npy", numbers).numbered_like({0: "1", 1: "2", 2: "10"})
        assert test.labels.tolist() == expected

    def test_have_the_same_number_in_every_file(self, load):
        """Each file numbers its own words, and the names bring them together."""
        training = load("train.npy", ["bird", "cat", "dog", "bird"])
        test = load("test.npy", ["cat", "dog", "ape", "cat"])
        assert training.class_names == {0: "bird", 1: "cat", 2: "dog"}
        assert test.numbered_like(training.class_names).labels.tolist() == [1, 2, 3, 1]

    def test_need_no_other_names(self, load):
        words = ["bird", "cat", "dog", "bird"]
        with pytest.raises(UsageError, match="bird, cat, dog"):
            load("train.npy", words, class_names="a,b,c")

    def test_must_fit_into_a_saved_model(self, load):
        with pytest.raises(DataError, match="at most 200 characters, got 201"):
            load("train.npy", ["x" * 201, "cat", "cat", "cat"])


def test_many_class_names_on_the_command_line(images_path, labels_path):
    """Longer than the name of a file can be."""
    names = [f"the class number {number}, as it is called".replace(",", "") for number in range(3)]
    given = ",".join(name * 5 for name in names)
    assert len(given) > 255
    data = datasets.load_dataset(images_path, labels_path, reading=Reading(class_names=given))
    assert list(data.class_names) == [0, 3, 61]
