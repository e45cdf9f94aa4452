"""Images to ask a model about: what is found, in which order, and what is reported."""

import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from picture_folders import load
from PIL import Image

from cae.data import idx
from cae.data.datasets import Scaling
from cae.data.inputs import read_parts
from cae.data.pictures import Form
from cae.errors import DataError

FORM = Form(2, 2, 1)
BYTES = Scaling(0.0, 255.0, "uint8")


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads inputs in an empty folder: names, numbers, first pixels, and what was reported."""
    monkeypatch.chdir(tmp_path)

    def run(*inputs, form=FORM):
        errors, said = [], []
        parts = list(read_parts(inputs, form, BYTES, errors.append, said.append))
        assert all(part.images.dtype == np.float32 for part in parts)
        names = [name for part in parts for name in part.names]
        numbers = [number for part in parts for number in part.numbers]
        pixels = [image[0, 0].tolist() for part in parts for image in part.images]
        return names, numbers, pixels, errors, said

    return run


def draw(path, value=255):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((2, 2), value, np.uint8)).save(path)


def test_folders_are_searched_in_the_order_of_names(tmp_path, read):
    """Hidden files and what file managers leave behind do not count."""
    for name in ("b/2.png", "b/10.png", "a/x/1.png", ".hidden.png", ".git/3.png"):
        draw(tmp_path / name)
    (tmp_path / "Thumbs.db").write_bytes(b"1")
    names, *_, errors, _ = read(".")
    assert names == ["a/x/1.png", "b/10.png", "b/2.png"]
    assert not errors


def test_folders_are_called_as_training_calls_them(tmp_path):
    """macOS writes ü as two characters."""
    draw(tmp_path / "u\u0308" / "1.png")
    (part,) = read_parts([str(tmp_path)], FORM, BYTES, print, print)
    assert part.folders == ["\u00fc"]
    draw(Path(os.fsdecode(os.fsencode(tmp_path) + b"/other/\xff")) / "1.png")
    (part,) = read_parts([str(tmp_path / "other")], FORM, BYTES, print, print)
    assert part.folders == list(load(tmp_path / "other").class_names.values())


def test_other_files_in_a_folder_are_counted_and_skipped(tmp_path, read):
    """As in training; a file that is named itself must be a picture."""
    draw(tmp_path / "a" / "1.png")
    for name in ("a/notes.txt", "a/b/labels.csv", "a/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    names, _, _, errors, said = read("a")
    assert (names, errors) == (["a/1.png"], [])
    assert len(said) == 1 and said[0].startswith("a: ") and "2 other files" in said[0]
    names, _, _, errors, _ = read("a/1.png", "a/notes.txt")
    assert names == ["a/1.png"] and len(errors) == 1


def test_links_are_followed_as_in_training(tmp_path, read):
    draw(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "back").symlink_to(tmp_path / "a")
    assert read("a")[0] == ["a/there/1.png"]


def test_names_are_shown_short(tmp_path, read):
    """As given, without what adds nothing, whether a folder or each file is given."""
    draw(tmp_path / "a" / "b" / "1.png")
    for given in ("./a", "a//b/", "a/./b/1.png", "./a/b/1.png", "a/b/1.png"):
        assert read(given)[0] == ["a/b/1.png"]
    whole = str(tmp_path / "a")
    assert read(whole)[0] == [f"{whole}/b/1.png"]


def test_a_folder_that_is_called_like_a_picture(tmp_path, read):
    draw(tmp_path / "a.png" / "1.png")
    assert read("a.png")[0] == ["a.png/1.png"]


def test_nothing_to_read(tmp_path, read):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^empty: must contain an image"):
        read("empty")
    (tmp_path / "empty" / "notes.txt").write_text("text")
    with pytest.raises(DataError, match=r"^empty: must contain an image"):
        read("empty")


def test_files_that_cannot_be_read_are_reported_and_the_others_go_on(tmp_path, read):
    draw(tmp_path / "1.png", 0)
    (tmp_path / "2.png").write_bytes(b"no picture")
    draw(tmp_path / "4.png", 51)
    idx.write_idx(tmp_path / "5.idx", np.zeros((1, 3, 3), np.uint8))
    names, numbers, pixels, errors, _ = read("1.png", "2.png", "3.png", "4.png", "5.idx")
    assert (names, numbers) == (["1.png", "4.png"], [0, 3])
    assert pixels == [[0.0], [pytest.approx(0.2)]]
    assert sorted(str(error).split(":")[0] for error in errors) == ["2.png", "3.png", "5.idx"]


def test_channels_first_as_of_pytorch(tmp_path, read):
    np.save(tmp_path / "first.npy", np.zeros((2, 1, 8, 8), np.uint8))
    *_, errors, _ = read("first.npy")
    assert "2 x 1 x 8 x 8, channels first" in str(errors[0])


def test_arrays_keep_their_place_among_pictures(tmp_path, read):
    idx.write_idx(tmp_path / "a.idx", np.full((2, 2, 2), 255, np.uint8))
    np.save(tmp_path / "b.npy", np.full((1, 2, 2), 0.5))
    draw(tmp_path / "c.png", 0)
    names, numbers, pixels, errors, said = read("c.png", "a.idx", "b.npy", "c.png")
    assert names == ["c.png", "a.idx[0]", "a.idx[1]", "b.npy[0]", "c.png"]
    assert numbers == [0, 1, 2, 3, 4] and not errors
    assert pixels == [[0.0], [1.0], [1.0], [0.5], [0.0]]
    assert "b.npy" in said[0], "its pixels are in 0..1"


@pytest.mark.parametrize(("channels", "pixel"), [(3, [1.0, 1.0, 1.0]), (1, [1.0])])
def test_channels_become_those_of_the_model(tmp_path, read, channels, pixel):
    np.save(tmp_path / "gray.npy", np.full((1, 2, 2), 255, np.uint8))
    np.save(tmp_path / "rgb.npy", np.full((1, 2, 2, 3), 255, np.uint8))
    _, _, pixels, errors, said = read("gray.npy", "rgb.npy", form=Form(2, 2, channels))
    assert not errors
    np.testing.assert_allclose(pixels, [pixel, pixel], atol=1e-6)
    assert [line.split(":")[0] for line in said] == ["gray.npy" if channels == 3 else "rgb.npy"]


def test_arrays_become_gray_as_pictures_do(tmp_path, read):
    """Red has a luminance of 0.299, in bytes 76."""
    red = np.zeros((1, 2, 2, 3), np.uint8)
    red[..., 0] = 255
    np.save(tmp_path / "red.npy", red)
    Image.fromarray(red[0]).save(tmp_path / "red.png")
    _, _, pixels, *_ = read("red.npy", "red.png")
    np.testing.assert_allclose(pixels, [[76 / 255], [76 / 255]], atol=1e-6)


class TestStandardInput:
    @pytest.fixture
    def give(self, monkeypatch):
        def replace(content):
            file = io.TextIOWrapper(io.BufferedReader(io.BytesIO(content)))
            monkeypatch.setattr("sys.stdin", file)

        return replace

    def test_paths_one_per_line(self, tmp_path, read, give):
        draw(tmp_path / "folder" / "with space.png")
        draw(tmp_path / "é.png")
        give("é.png\r\n\nfolder\n".encode())
        assert read("-")[0] == ["é.png", "folder/with space.png"]

    @pytest.mark.parametrize("name", ["1.png", "1.ppm", "plain.ppm"])
    def test_one_picture(self, tmp_path, read, give, name):
        draw(tmp_path / "1.png", 0)
        draw(tmp_path / "1.ppm", 7)
        (tmp_path / "plain.ppm").write_text("P2 2 2 255\n7 7\n7 7\n")
        give((tmp_path / name).read_bytes())
        names, _, pixels, *_ = read("-")
        level = 0 if name == "1.png" else 7
        assert names == ["-"] and pixels == [[pytest.approx(level / 255)]]


@pytest.mark.parametrize("dtype", [np.float16, np.bool_, np.int64], ids=str)
def test_arrays_of_the_types_that_training_reads(tmp_path, read, dtype):
    """The sum of 70,000 halves has no float16."""
    np.save(tmp_path / "images.npy", np.ones((70_000, 2, 2), dtype))
    names, *_, errors, _ = read("images.npy")
    assert len(names) == 70_000 and not errors


@pytest.mark.parametrize(
    ("content", "words"),
    [(np.zeros((0, 2, 2), np.uint8), r"\(0, 2, 2\)"), (np.array(["a"]), "str")],
    ids=["empty", "text"],
)
def test_arrays_without_images_are_reported(tmp_path, read, content, words):
    np.save(tmp_path / "images.npy", content)
    *_, errors, _ = read("images.npy")
    assert re.search(words, str(errors[0]))


@pytest.mark.parametrize("name", ["data.npz", "data.csv"])
def test_what_only_training_takes_is_named(tmp_path, read, name):
    draw(tmp_path / "a.png")
    (tmp_path / name).write_text("path,label\na.png,1\n")
    names, *_, errors, _ = read("a.png", name)
    assert names == ["a.png"]
    assert "predict.py evaluate" in str(errors[0])
