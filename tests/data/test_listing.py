"""A folder or a table names pictures and their classes."""

import numpy as np
import pytest
from picture_folders import draw, fill, load

from cae.data import idx
from cae.data.labels import NO_LABEL
from cae.data.sources import Reading
from cae.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


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

    def test_parts_without_training_images(self, root):
        fill(root / "test", {"a": 1, "b": 1})
        fill(root / "val", {"a": 1, "b": 1})
        with pytest.raises(DataError, match=r"train/.*test/ and val/"):
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
