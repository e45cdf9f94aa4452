"""An archive or file of arrays becomes images, labels and names of classes."""

import numpy as np
import pytest
from picture_folders import load

from cae.data.datasets import load_dataset
from cae.data.sources import Reading
from cae.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


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
        np.save(tmp_path / "images.npy", np.zeros((8, 6, 6), ">u2"))
        with pytest.raises(DataError, match="belong together"):
            load_dataset(*paths)
        np.save(tmp_path / "images.npy", self.IMAGES.astype(">u2"))
        assert load_dataset(*paths).images[..., 0].tolist() == self.IMAGES.tolist()
        np.save(tmp_path / "labels.npy", 7)
        with pytest.raises(DataError, match="must contain 6 labels"):
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
