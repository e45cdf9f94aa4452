"""A source becomes images of one form, parts, and names of classes; pictures are decoded once."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
from conftest import fail_with
from picture_folders import ALL, draw, fill, load
from PIL import Image

from cae.data import idx, pictures, stored
from cae.data.datasets import check_dataset, divide, load_dataset
from cae.data.labels import NO_LABEL
from cae.data.sources import Reading, has_test
from cae.errors import DataError, UserError

pytestmark = pytest.mark.usefixtures("cache")


class TestForm:
    def test_most_frequent_size_and_colour(self, root):
        draw(root / "1.png", 0, (6, 3))
        draw(root / "2.png", (255, 0, 0), (6, 3))
        draw(root / "3.png", 0, (9, 9))
        assert load(root).images.shape[1:] == (3, 6, 3)

    def test_as_asked_for(self, root):
        draw(root / "1.png", (255, 0, 0), (6, 3))
        reading = Reading(image_size=(2, 5), color="gray")
        assert check_dataset(str(root), reading=reading) == (1, (2, 5, 1))

    def test_test_images_get_the_form_of_the_training_images(self, root):
        fill(root / "train", {"a": 2, "b": 2})
        draw(root / "test" / "a" / "1.png", (255, 0, 0), (9, 5))
        training = load(root)
        test = load(root, "test", ALL.like(training.images.shape[1:]))
        assert test.images.shape == (1, 4, 4, 1)


class TestUnreadable:
    def test_few_are_skipped_and_named(self, root):
        fill(root, {"a": 60, "b": 60})
        (root / "a" / "000.png").write_bytes(b"")
        data = load(root)
        assert len(data.images) == len(data.labels) == len(data.paths) == 119
        assert data.labels.sum() == 60
        assert data.skipped == {"a/000.png": "an empty file"}

    def test_pictures_in_other_formats_count(self, root):
        """As photographs of telephones: they are pictures, not other files."""
        fill(root, {"a": 5, "b": 5})
        (root / "a" / "000.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        with pytest.raises(DataError, match=rf"{root}: .*1 of 11.*a/000\.HEIC \(a file in none"):
            load(root)

    def test_many_are_an_error(self, root, cache):
        """As empty files of notMNIST; so are all."""
        fill(root, {"a": 5, "b": 5})
        for count, number in enumerate(["a/000", "a/001", "b/003", "b/004"], 1):
            (root / f"{number}.png").write_bytes(b"")
            with pytest.raises(DataError, match=rf"{root}: .*{count} of 10.*a/000\.png \(an empty"):
                load(root)
        for path in root.glob("*/*.png"):
            path.write_bytes(b"")
        with pytest.raises(DataError, match=rf"{root}: .*10 of 10.*a/000\.png \(an empty"):
            load(root)
        assert not list(cache.glob("*.npy"))


class TestCache:
    def test_used_again(self, root, cache, monkeypatch):
        fill(root, {"a": 2, "b": 2})
        first = load(root).images
        monkeypatch.setattr(pictures, "decode", None)
        assert (load(root).images == first).all()
        assert len(list(cache.glob("*.npy"))) == 1

    def test_a_changed_file_is_read_again(self, root):
        fill(root, {"a": 2})
        before = load(root)
        draw(root / "a" / "000.png", 200)
        os.utime(root / "a" / "000.png", (1, 1))
        after = load(root)
        assert after.images[0, 0, 0, 0] == 200
        assert before.files[0]["sha256"] != after.files[0]["sha256"]

    def test_two_folders_that_look_alike(self, root, tmp_path):
        """Names, sizes and times are equal, as those of unpacked bitmaps can be."""
        for folder, value in ((root, 10), (tmp_path / "other", 200)):
            path = folder / "a" / "000.bmp"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)
            os.utime(path, (1, 1))
            assert load(folder).images[0, 0, 0, 0] == value

    def test_a_damaged_cache_is_made_again(self, root, cache):
        fill(root, {"a": 2})
        load(root)
        (file,) = cache.glob("*.npy")
        file.write_bytes(file.read_bytes()[:-20])
        assert load(root).images[1, 0, 0, 0] == 1

    def test_a_table_that_names_an_unreadable_picture_twice(self, root):
        """It is one file, and two images less, in this start and the next."""
        fill(root, {"a": 1, "b": 1})
        rows = ["path,label", *["a/000.png,a"] * 200, *["none.png,a"] * 2, "b/000.png,b"]
        (root / "table.csv").write_text("\n".join(rows))
        for _ in range(2):
            data = load(root / "table.csv")
            assert len(data.images) == len(data.labels) == 201
            assert list(data.skipped) == ["none.png"]
            assert data.images[-1, 0, 0, 0] == 50

    def test_full_disk(self, root, cache, monkeypatch):
        fill(root, {"a": 2})
        monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
        with pytest.raises(UserError, match=f"{cache}.*No space left"):
            load(root)
        assert not list(cache.iterdir())

    def test_full_disk_of_the_user(self, root, tmp_path, monkeypatch):
        """The variable that chooses another folder is named."""
        fill(root, {"a": 2})
        monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "none")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
        monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
        with pytest.raises(UserError, match=r"No space left.* set XDG_CACHE_HOME"):
            load(root)

    def test_large_arrays_stay_on_the_disk(self, root, monkeypatch):
        fill(root, {"a": 10, "b": 10})
        in_memory = load(root, reading=Reading(test_split=0.5))
        monkeypatch.setattr(pictures, "MAPPED_BYTES", 100)
        mapped = load(root, reading=Reading(test_split=0.5))
        assert isinstance(mapped.images.base, np.memmap)
        assert (mapped.images == in_memory.images).all()


class TestParts:
    def test_of_the_folder(self, root):
        fill(root / "train", {"a": 3, "b": 3})
        fill(root / "val", {"b": 2})
        fill(root / "test", {"b": 1, "c": 1})
        training, test = load(root, reading=Reading()), load(root, "test", Reading())
        assert len(training.images) == 8
        assert training.validation.tolist() == [6, 7]
        assert training.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
        assert test.numbered_like(training.names).labels.tolist() == [1, 2]

    def test_other_names_of_parts(self, root):
        fill(root / "Training", {"a": 1, "b": 1})
        fill(root / "Testing", {"b": 3})
        assert len(load(root, reading=Reading()).images) == 2
        assert len(load(root, "test", Reading()).images) == 3

    @pytest.mark.parametrize("labelled", [True, False])
    def test_a_part_without_labels(self, root, labelled):
        """Whatever folders it holds; pictures to validate on may lack a label as well."""
        fill(root / "train", {"a": 2, "b": 1})
        fill(root / "unlabelled", {"x": 2})
        draw(root / "unlabelled" / "1.png")
        fill(root / "val", {"a": 1, "unlabelled": 1})
        fill(root / "test", {"a": 1})
        data = load(root, reading=replace(ALL, labelled=labelled))
        assert len(data.images) == 8
        assert data.validation.tolist() == [6, 7]
        if labelled:
            expected = [0, 0, 1, *[NO_LABEL] * 3, 0, NO_LABEL]
            assert data.labels.tolist() == expected
            known, others = divide(data, None, 0)
            assert known.validation.tolist() == [3] and len(others.images) == 4

    def test_validation_images_need_a_known_class(self, root):
        fill(root / "train", {"a": 1, "b": 1})
        fill(root / "val", {"c": 1})
        with pytest.raises(DataError, match=r"val: .* got c"):
            load(root)

    def test_a_share_of_every_class_is_set_apart(self, root):
        fill(root, {"a": 10, "b": 20})
        reading = Reading(test_split=0.3)
        training, test = (load(root, split, reading) for split in ("train", "test"))
        assert np.bincount(test.labels).tolist() == [3, 6]
        assert set(training.paths) | set(test.paths) == set(load(root).paths)
        assert not set(training.paths) & set(test.paths)
        assert training.held_out == 9
        assert training.sample.to_json() != test.sample.to_json()
        assert load(root, reading=reading, seed=5).paths.tolist() == training.paths.tolist()

    def test_images_without_labels_are_not_for_tests(self, root):
        """Not even as copies of a test image: these are left out."""
        fill(root, {"a": 10, "b": 10})
        for number in range(10):
            draw(root / "unlabelled" / f"{number}.png", number)  # as a/000.png to a/009.png
        training, test = (load(root, split, Reading()) for split in ("train", "test"))
        assert np.bincount(test.labels).tolist() == [2, 2]
        assert (training.labels == NO_LABEL).sum() == 8
        assert not set(training.images[:, 0, 0, 0]) & set(test.images[:, 0, 0, 0])

    def test_limit_draws_from_the_training_images(self, root):
        fill(root, {"a": 10, "b": 10})
        training, test = load(root, reading=Reading(), limit=4), load(root, "test", Reading())
        assert np.bincount(training.labels).tolist() == [2, 2]
        assert not set(training.paths) & set(test.paths)

    def test_too_few_images_to_set_apart(self, root):
        """All are for training; who needs a test hears how many differ."""
        fill(root, {"a": 2, "b": 2})
        draw(root / "b" / "copy.png", 50)
        assert len(load(root, reading=Reading()).images) == 5
        assert not has_test(str(root), Reading())
        assert has_test(str(root), Reading(test_split=0.5))
        with pytest.raises(UserError, match=r"--test-split.* 5 images, 4 of them different"):
            load(root, "test", reading=Reading())

    def test_many_images_are_not_read_to_see_whether_there_is_a_test(self, root):
        """None of these could be: each file is empty."""
        for name in ("a", "b"):
            (root / name).mkdir(parents=True)
            for number in range(501):
                (root / name / f"{number}.png").touch()
        assert has_test(str(root), Reading())
        assert not has_test(str(root), Reading(test_split=0.0))


class TestClassNames:
    @pytest.fixture
    def files(self, tmp_path):
        idx.write_idx(tmp_path / "images", np.zeros((3, 2, 2), np.uint8))
        idx.write_idx(tmp_path / "labels", np.array([5, 1, 5], np.uint8))
        return str(tmp_path / "images"), str(tmp_path / "labels")

    def test_in_the_order_of_the_labels(self, files, tmp_path):
        (tmp_path / "names.txt").write_text("one\nfive\n")
        for given in ("one,five", str(tmp_path / "names.txt")):
            data = load_dataset(*files, reading=Reading(class_names=given))
            assert data.class_names == {1: "one", 5: "five"}

    @pytest.mark.parametrize(("given", "named"), [("one", "2 classes"), ("a,a", "twice")])
    def test_refused(self, files, given, named):
        with pytest.raises(UserError, match=named):
            load_dataset(*files, reading=Reading(class_names=given))
