"""A folder, table or archive becomes images, labels and names of classes."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
from conftest import fail_with
from PIL import Image

from cae.data import idx, pictures, stored
from cae.data.datasets import check_dataset, divide, load_dataset
from cae.data.labels import NO_LABEL
from cae.data.sources import Reading, has_test
from cae.errors import DataError, UserError

ALL = Reading(test_split=0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache of each test."""
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "data")
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "cache"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "pictures"


def draw(path, value=0, size=(4, 4)):
    """Writes a PNG of one colour: a gray level, or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L" if isinstance(value, int) else "RGB", size, value).save(path)


def fill(root, counts):
    """Class folders with so many pictures, each of another gray."""
    for level, (name, count) in enumerate(counts.items()):
        for number in range(count):
            draw(root / name / f"{number:03}.png", 50 * level + number)


def load(source, split="train", reading=ALL, **arguments):
    return load_dataset(str(source), split=split, reading=reading, **arguments)


class TestFolder:
    def test_subfolders_are_classes(self, root):
        fill(root, {"10": 1, "9": 2, "Ägypten 象": 1})
        data = load(root)
        assert data.images.shape == (4, 4, 4, 1) and data.images.dtype == np.uint8
        assert data.class_names == {0: "9", 1: "10", 2: "Ägypten 象"}
        assert data.labels.tolist() == [1, 0, 0, 2]
        assert data.paths.tolist()[0] == "10/000.png"
        assert data.images[:, 0, 0, 0].tolist() == [0, 50, 51, 100]

    def test_pictures_without_subfolders_have_no_labels(self, root):
        draw(root / "b.png", 1)
        draw(root / "a.png", 2)
        data = load(root, reading=Reading())
        assert data.labels is None
        assert data.images[:, 0, 0, 0].tolist() == [2, 1]
        with pytest.raises(DataError, match="labels"):
            load(root, labels_required=True)

    def test_what_is_not_a_picture(self, root):
        """Files of file managers do not count; others are named; a suffix may be in capitals."""
        fill(root, {"a": 1, "b": 1})
        draw(root / "a" / "x.png")
        (root / "a" / "x.png").rename(root / "a" / "X.PNG")
        for name in (".DS_Store", "Thumbs.db", "a/.hidden.png", "a/desktop.ini", "a/notes.txt"):
            (root / name).write_text("text")
        data = load(root)
        assert len(data.images) == 3
        assert list(data.skipped) == ["a/notes.txt"]

    @pytest.mark.parametrize(
        ("spoil", "named"),
        [
            (lambda root: (root / "empty").mkdir(), "empty: .* got none"),
            (lambda root: draw(root / "a" / "deep" / "1.png"), r"a: .* the folder deep"),
            (lambda root: draw(root / "1.png"), "1 picture beside the folders a and b"),
            (lambda root: (root / "a" / "l.png").symlink_to("/etc/passwd"), r"l\.png: .* a link"),
            (lambda root: (root / "c").symlink_to("/tmp"), "c: .* a link"),
            (lambda root: (root / "a" / "loop").symlink_to("loop"), "a: .* symbolic links"),
        ],
        ids=["empty class", "nested", "loose", "link", "linked folder", "loop"],
    )
    def test_a_layout_that_is_refused(self, root, spoil, named):
        fill(root, {"a": 1, "b": 1})
        spoil(root)
        with pytest.raises(DataError, match=named):
            load(root)

    def test_a_folder_too_high(self, root):
        """The only folder in it holds those of the classes."""
        fill(root / "data", {"a": 1, "b": 1})
        with pytest.raises(DataError, match=f"Use {root / 'data'} "):
            load(root)

    def test_a_folder_beside_those_of_training_and_test(self, root):
        for part in ("train", "test"):
            fill(root / part, {"a": 1, "b": 1})
        (root / "docs").mkdir()
        with pytest.raises(DataError, match=r"docs: .* test and train\b"):
            load(root)

    def test_classes_may_be_called_like_parts(self, root):
        fill(root, {"bus": 1, "test": 1, "train": 1})
        assert load(root).names == {0: "bus", 1: "test", 2: "train"}

    def test_an_empty_path_is_not_the_current_folder(self, root, monkeypatch):
        fill(root, {"a": 1, "b": 1})
        monkeypatch.chdir(root)
        with pytest.raises(DataError):
            load("")

    def test_a_folder_of_other_files(self, root):
        root.mkdir()
        idx.write_idx(root / "images", np.zeros((1, 2, 2), np.uint8))
        with pytest.raises(DataError, match="images"):
            load(root)
        (root / "inner").mkdir()
        (root / "images").rename(root / "inner" / "images")
        with pytest.raises(DataError, match="idx files in it: inner/images"):
            load(root)

    @pytest.mark.parametrize("name", ["unlabelled", "Unlabeled"])
    def test_a_subfolder_without_labels(self, root, name):
        fill(root, {"a": 2, name: 3, "z": 1})
        data = load(root)
        known = data.labels != NO_LABEL
        assert data.names == {0: "a", 1: "z"}
        assert data.labels[known].tolist() == [0, 0, 1]
        assert [path.split("/")[0] for path in data.paths[~known]] == [name] * 3

    def test_only_a_subfolder_without_labels(self, root):
        fill(root, {"unlabelled": 2})
        assert load(root).labels is None

    def test_every_picture_in_whatever_folders(self, root):
        draw(root / "1.png", 1)
        draw(root / "b" / "deep" / "2.png", 2)
        draw(root / "a" / "3.png", 3)
        (root / "a" / "notes.txt").write_text("text")
        data = load(root, reading=Reading(labelled=False))
        assert data.labels is None
        assert data.paths.tolist() == ["1.png", "a/3.png", "b/deep/2.png"]
        assert list(data.skipped) == ["a/notes.txt"]

    def test_pictures_for_tests_are_left_out_of_those_without_labels(self, root):
        fill(root / "train", {"a": 1})
        fill(root / "test", {"a": 1})
        data = load(root, reading=Reading(labelled=False))
        assert data.paths.tolist() == ["train/a/000.png"]

    def test_no_pictures_in_any_folder(self, root):
        (root / "a").mkdir(parents=True)
        with pytest.raises(DataError, match="pictures"):
            load(root, reading=Reading(labelled=False))

    def test_links_within_the_folder_are_followed(self, root):
        fill(root, {"a": 1})
        (root / "a" / "again.png").symlink_to("000.png")
        assert len(load(root).images) == 2


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


class TestTable:
    @pytest.fixture
    def load_table(self, root):
        """Loads a table of this text, beside so many pictures in a folder `x`."""

        def load_table(text, pictures=0, name="t.csv"):
            fill(root, {"x": pictures})
            root.mkdir(exist_ok=True)
            (root / name).write_text(text)
            return load(root / name)

        return load_table

    def test_paths_and_labels(self, load_table):
        data = load_table("﻿path,label\r\nx/001.png,cat\r\nx/000.png,ape\r\n", 2)
        assert data.class_names == {0: "ape", 1: "cat"}
        assert data.labels.tolist() == [1, 0]
        assert data.images[:, 0, 0, 0].tolist() == [1, 0]

    @pytest.mark.parametrize("text", ["path\nx/000.png\n", "path\tlabel\nx/000.png\t\n"])
    def test_tabs_and_no_labels(self, load_table, text):
        assert load_table(text, 1, "t.tsv").labels is None

    @pytest.mark.parametrize(
        "text", [b"path,label\nx/000.png,\xff\n", b'path,label\n"x/000.png,cat\n']
    )
    def test_another_encoding_or_an_open_quote(self, root, text):
        fill(root, {"x": 1})
        (root / "t.csv").write_bytes(text)
        with pytest.raises(DataError, match=r"t\.csv: .*UTF-8"):
            load(root / "t.csv")

    def test_some_labels_are_empty(self, load_table):
        data = load_table("path,label\nx/000.png,\nx/001.png,cat\nx/002.png\n", 3)
        assert data.class_names == {0: "cat"}
        assert data.labels.tolist() == [NO_LABEL, 0, NO_LABEL]

    @pytest.mark.parametrize(
        ("labels", "names"),
        [
            (["3", "-1", "10", ""], {0: "3", 1: "10"}),
            (["1", "-1", ""], {0: "-1", 1: "1"}),
            (["cat", "-1", "ape"], {0: "-1", 1: "ape", 2: "cat"}),
        ],
    )
    def test_minus_one_as_in_files_of_numbers(self, load_table, labels, names):
        rows = (f"x/{number:03}.png,{label}" for number, label in enumerate(labels))
        data = load_table("\n".join(["path,label", *rows]), len(labels))
        assert data.class_names == names
        assert [names.get(label, "") for label in data.labels] == [
            label if label in names.values() else "" for label in labels
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "path;label\r\nx/000.png;a, b\r\nx/001.png;c\r\n",
            'path\tlabel\nx/000.png\t"a, b"\nx/001.png\tc\n',
            '"Path", "Label"\n"x/000.png", "a, b"\n\n"x/001.png", c\n\n',
            ',filename,class\n0,x/000.png,"a, b"\n1,x/001.png,c\n',
            'image,label\nx\\000.png,"a, b"\nx\\001.png,c\n',
        ],
        ids=["semicolons", "tabs", "quotes and spaces", "other names", "backslashes"],
    )
    def test_as_other_programs_write_it(self, load_table, text):
        data = load_table(text, 2)
        assert data.class_names == {0: "a, b", 1: "c"}
        assert data.labels.tolist() == data.images[:, 0, 0, 0].tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("", "path"),
            ("where,label\na,b\n", "where"),
            ("path,label\n,cat\n", "line 2"),
            ("file,image,label\na.png,b.png,cat\n", "file and image"),
            ("path,label\n\na.png,cat\n\n,cat\n", "line 5"),
            (",".join(["label", *map(str, range(784))]) + "\n", "785 columns.*savez"),
        ],
    )
    def test_refused(self, load_table, text, named):
        with pytest.raises(DataError, match=named):
            load_table(text)

    def test_other_names_give_way_to_the_usual_ones(self, root):
        fill(root, {"x": 2})
        (root / "t.csv").write_text("path,label,class\nx/000.png,a,1\nx/001.png,b,1\n")
        assert load(root / "t.csv").class_names == {0: "a", 1: "b"}


class TestArrays:
    IMAGES = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    LABELS = np.array([0, 1, 0, 1, 7, 7])

    def test_keras_archive(self, tmp_path):
        path = tmp_path / "mnist.npz"
        arrays = {"x_train": self.IMAGES, "y_train": self.LABELS[:, np.newaxis]}
        np.savez(path, **arrays, x_test=self.IMAGES[:2], y_test=self.LABELS[:2])
        training, test = load(path, reading=Reading()), load(path, "test", Reading())
        assert training.images.shape == (6, 2, 2, 1)
        assert training.labels.tolist() == self.LABELS.tolist()
        assert test.labels.tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("images", "labels"),
        [("train_images", "train_labels"), ("X", "y"), ("image", "label"), ("arr_0", "arr_1")],
    )
    def test_other_names(self, tmp_path, images, labels):
        """Those of MedMNIST, scikit-learn and numpy.savez(file, images, labels)."""
        path = tmp_path / "ÄÖ 1.NPZ"
        with path.open("wb") as file:
            np.savez(file, **{images: np.asfortranarray(self.IMAGES), labels: self.LABELS})
        data = load(path)
        assert (data.images[..., 0] == self.IMAGES).all()
        assert data.labels.tolist() == self.LABELS.tolist()

    def test_images_and_labels(self, tmp_path):
        path = tmp_path / "own.npz"
        names = np.array(["x", "y", "x", "y", "z", "z"])
        np.savez(path, images=self.IMAGES.astype(np.int64), labels=names)
        data = load(path, reading=Reading(test_split=0.5))
        assert data.images.dtype == np.uint8
        assert list(data.names.values()) == ["x", "y", "z"]
        assert len(data.images) == data.held_out == 3
        test = load(path, split="test", reading=Reading(test_split=0.5))
        for half in (data, test):
            names = half.name_images(np.arange(3))
            assert names == [f"image {position}" for position in half.positions]
            np.testing.assert_array_equal(half.images[..., 0], self.IMAGES[half.positions])
        assert sorted([*data.positions, *test.positions]) == [0, 1, 2, 3, 4, 5]

    def test_npy_files(self, tmp_path):
        np.save(tmp_path / "images.npy", self.IMAGES / 255)
        np.save(tmp_path / "labels.npy", self.LABELS)
        paths = [str(tmp_path / name) for name in ("images.npy", "labels.npy")]
        data = load_dataset(*paths)
        assert data.images.dtype == np.float64 and data.labels.tolist() == self.LABELS.tolist()
        assert load_dataset(*paths, limit=3).images.shape == (3, 2, 2, 1)
        np.save(tmp_path / "labels.npy", np.eye(8)[self.LABELS])
        assert load_dataset(*paths).labels.tolist() == self.LABELS.tolist()
        np.save(tmp_path / "labels.npy", np.array([b"x", b"\xc3\xa4"] * 3))
        assert load_dataset(*paths).labels.tolist() == [0, 1] * 3
        np.save(tmp_path / "images.npy", np.zeros((8, 9, 6), ">u2"))
        with pytest.raises(DataError, match="moveaxis"):
            load_dataset(*paths)
        np.save(tmp_path / "images.npy", self.IMAGES.astype(">u2"))
        assert load_dataset(*paths).images[..., 0].tolist() == self.IMAGES.tolist()
        np.save(tmp_path / "labels.npy", 7)
        with pytest.raises(DataError, match="must hold 6 labels"):
            load_dataset(*paths)

    @pytest.mark.parametrize(
        ("arrays", "named"),
        [
            ({"x": IMAGES}, "got x"),
            ({"images": IMAGES, "labels": LABELS[:3]}, "6 labels"),
            ({"images": np.zeros((8, 9, 6)), "labels": LABELS}, "moveaxis"),
            ({"images": LABELS}, "shape"),
            ({"images": np.zeros((2, 3, 8, 8))}, "channels first"),
            ({"images": IMAGES, "labels": LABELS / 2}, "whole numbers"),
            ({"images": np.array([None])}, "Python objects"),
            ({"images": IMAGES, "labels": np.array(["a"] * 6, object)}, "Python objects.*astype"),
            ({"images": np.full((1, 2, 2), np.nan)}, "finite"),
        ],
    )
    def test_refused(self, tmp_path, arrays, named):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError, match=named):
            load(tmp_path / "a.npz")

    def test_not_an_archive(self, tmp_path):
        (tmp_path / "a.npz").write_bytes(b"PK\3\4")
        with pytest.raises(DataError, match=r"a\.npz"):
            load(tmp_path / "a.npz")
        np.save(tmp_path / "one.npy", self.IMAGES)
        (tmp_path / "one.npy").rename(tmp_path / "a.npz")
        with pytest.raises(DataError, match=r"a\.npz"):
            load(tmp_path / "a.npz")


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
