"""Data sets: found, made, downloaded and verified; scaled, split and numbered as promised."""

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cae.config import choices
from cae.data import datasets, idx
from cae.data import named as named_module
from cae.errors import DataError, UsageError

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([3, 0, 3, 61], np.uint8)
IMAGES_NAME = "train-images-idx3-ubyte"
LABELS_NAME = "train-labels-idx1-ubyte"


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """An empty `data` folder in place of the real one."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(named_module, "DATA_DIR", folder)
    return folder


@pytest.fixture
def images_path(tmp_path):
    idx.write_idx(tmp_path / "images", IMAGES)
    return str(tmp_path / "images")


@pytest.fixture
def labels_path(tmp_path):
    idx.write_idx(tmp_path / "labels", LABELS)
    return str(tmp_path / "labels")


def write_named(folder, images=IMAGES, labels=LABELS, suffix=""):
    """Puts the four files of a named data set into a folder."""
    folder.mkdir()
    for (_, role), name in named_module.FILE_NAMES.items():
        idx.write_idx(folder / f"{name}{suffix}", images if role == "images" else labels)


def know_content(monkeypatch, name, mirrors=()):
    """Makes the small arrays above the published content of a named data set.

    Returns the two gzip files that its mirrors should have, by role.
    """
    contents = {}
    for role, array in (("images", IMAGES), ("labels", LABELS)):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        contents[role] = header + array.tobytes()
    checksums = {
        file_name: hashlib.sha256(contents[role]).hexdigest()
        for (_, role), file_name in named_module.FILE_NAMES.items()
    }
    named = named_module.NamedDataset(mirrors=tuple(mirrors), content_sha256=checksums)
    monkeypatch.setitem(named_module.NAMED_DATASETS, name, named)
    return {role: gzip.compress(content) for role, content in contents.items()}


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

    def test_check_dataset_reads_headers_only(self, images_path, labels_path, monkeypatch):
        monkeypatch.delattr(idx, "_read_items")
        assert datasets.check_dataset(images_path, labels_path) == (4, (2, 3, 1))

    @pytest.mark.parametrize("limit", [None, 1])
    def test_different_lengths(self, images_path, tmp_path, limit):
        """Images and labels that do not belong together are refused even where a limit hides it."""
        idx.write_idx(tmp_path / "other", LABELS[:3])
        with pytest.raises(DataError, match=r"must hold 4 labels, .*, got 3 labels"):
            datasets.load_dataset(images_path, str(tmp_path / "other"), limit=limit)

    def test_swapped_files(self, images_path, labels_path):
        with pytest.raises(DataError, match=r"labels: must hold images .* got labels"):
            datasets.check_dataset(labels_path, images_path)
        with pytest.raises(DataError, match=r"images: must hold labels .* got images"):
            datasets.check_dataset(images_path, images_path)

    @pytest.mark.parametrize(("split", "flag"), [("train", "-dl"), ("test", "-tl")])
    def test_labels_required(self, images_path, split, flag):
        with pytest.raises(UsageError, match=f"^{flag}: must give the labels .* Add {flag} FILE"):
            datasets.load_dataset(images_path, split=split, labels_required=True)

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("minst", "mnist"),
            ("MNIST", "mnist"),
            ("fashion-mnist", "fashion_mnist"),
            ("FashionMNIST", "fashion_mnist"),
            ("KMINST", "kmnist"),
            ("digit", "digits"),
        ],
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

    def test_no_near_miss(self, tmp_path):
        with pytest.raises(DataError, match="must be an existing file"):
            datasets.check_dataset(str(tmp_path / "train-images"))


class TestNamed:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("name", named_module.NAMED_DATASETS)
    def test_files_found(self, data_dir, monkeypatch, name, suffix):
        """Files in the folder are used, raw or compressed, and nothing is downloaded."""
        know_content(monkeypatch, name)
        write_named(data_dir / name, suffix=suffix)
        data = datasets.load_dataset(name, split="test", labels_required=True)
        assert data.name == name
        np.testing.assert_array_equal(data.images[..., 0], IMAGES)
        assert data.labels.tolist() == LABELS.tolist()
        assert data.files[0]["path"].endswith(f"t10k-images-idx3-ubyte{suffix}")

    def test_labels_given_beside_a_name(self, data_dir, labels_path):
        write_named(data_dir / "digits", labels=LABELS[::-1])
        assert datasets.load_dataset("digits", labels_path).labels.tolist() == LABELS.tolist()

    def test_name_given_for_labels(self, data_dir, images_path):
        write_named(data_dir / "digits")
        data = datasets.load_dataset(images_path, "digits")
        assert data.name == "images"
        assert data.labels.tolist() == LABELS.tolist()

    def test_class_names_follow_the_labels(self, data_dir, labels_path):
        write_named(data_dir / "fashion_mnist")
        names = datasets.load_dataset("fashion_mnist").class_names
        assert (len(names), names[0], names[9]) == (10, "T-shirt/top", "Ankle boot")
        assert datasets.load_dataset("fashion_mnist", labels_path).class_names == {}
        assert named_module.NAMED_DATASETS["kmnist"].class_names[3] == "tsu"

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_wrong_content(self, data_dir, suffix):
        """A whole idx file that is not MNIST's is not taken for it."""
        write_named(data_dir / "mnist", suffix=suffix)
        with pytest.raises(
            DataError, match=f"{IMAGES_NAME}{suffix}: must be the published file of mnist"
        ):
            datasets.load_dataset("mnist")

    def test_wrong_labels(self, data_dir, monkeypatch):
        know_content(monkeypatch, "mnist")
        write_named(data_dir / "mnist", labels=LABELS[::-1])
        with pytest.raises(DataError, match=f"{LABELS_NAME}: must be the published file of mnist"):
            datasets.load_dataset("mnist")

    def test_wrong_published_gzip(self, data_dir):
        """Where only the MD5 of the published file is known, that is compared."""
        write_named(data_dir / "kmnist", suffix=".gz")
        with pytest.raises(DataError, match="of kmnist, got a damaged or different"):
            datasets.load_dataset("kmnist")

    @pytest.mark.parametrize(
        "content",
        [b"<html>403</html>", b"", gzip.compress(b"\0\0\x08")],
        ids=["web page", "empty", "too short"],
    )
    def test_no_idx_file(self, data_dir, content):
        """A web page saved in place of the file is found out from the header alone."""
        write_named(data_dir / "mnist", suffix=".gz")
        (data_dir / "mnist" / f"{IMAGES_NAME}.gz").write_bytes(content)
        with pytest.raises(DataError, match="Delete it to download"):
            datasets.check_dataset("mnist")

    def test_damaged_gzip(self, data_dir, monkeypatch):
        stored = know_content(monkeypatch, "mnist")["images"]
        write_named(data_dir / "mnist", suffix=".gz")
        (data_dir / "mnist" / f"{IMAGES_NAME}.gz").write_bytes(stored[:-8] + bytes(8))
        with pytest.raises(DataError, match="Delete it"):
            datasets.load_dataset("mnist")

    def test_folder_that_is_a_file(self, data_dir):
        (data_dir / "digits").write_text("in the way")
        with pytest.raises(DataError, match="digits: must be readable and writ"):
            datasets.check_dataset("digits")


class TestDigits:
    def test_basics(self, data_dir):
        train = datasets.load_dataset("digits")
        test = datasets.load_dataset("digits", split="test")
        assert (train.images.shape, test.images.shape) == ((1442, 28, 28, 1), (355, 28, 28, 1))
        assert train.images.dtype == np.uint8
        assert set(train.labels) == set(test.labels) == set(range(10))
        assert sorted(path.name for path in (data_dir / "digits").iterdir()) == sorted(
            named_module.FILE_NAMES.values()
        )

    @pytest.mark.usefixtures("data_dir")
    def test_look(self):
        """Each image is its 8 x 8 original, enlarged and centred in an empty margin."""
        from sklearn.datasets import load_digits

        images = datasets.load_dataset("digits").images[:20, ..., 0] / 255
        assert images.max() == 1 and images[:, 6:22, 6:22].mean() > 0.2
        inner = np.zeros((28, 28), bool)
        inner[4:24, 4:24] = True
        assert not images[:, ~inner].any()
        for image, original in zip(images, load_digits().images[:20], strict=True):
            # A pixel of the original is 2.5 wide: sample the enlarged one at its centres.
            centres = np.floor(4 + 2.5 * (np.arange(8) + 0.5)).astype(int)
            sampled = image[np.ix_(centres, centres)]
            assert np.corrcoef(sampled.ravel(), original.ravel())[0, 1] > 0.95

    @pytest.mark.usefixtures("data_dir")
    def test_split_is_by_class_and_order(self):
        """The last fifth of each class is the test set, and no image is in both."""
        from sklearn.datasets import load_digits

        target = load_digits().target
        train, test = (
            datasets.load_dataset("digits", split=name).labels for name in ("train", "test")
        )
        for digit in range(10):
            count = int(np.sum(target == digit))
            assert np.sum(test == digit) == count // 5
            assert np.sum(train == digit) == count - count // 5
        assert train[:20].tolist() == target[:20].tolist()
        assert test[-20:].tolist() == target[-20:].tolist()

    def test_not_written_again(self, data_dir):
        datasets.check_dataset("digits")
        path = data_dir / "digits" / IMAGES_NAME
        idx.write_idx(path, np.zeros((1442, 5, 5), np.uint8))
        assert datasets.check_dataset("digits") == (1442, (5, 5, 1))

    def test_interrupted(self, data_dir, monkeypatch):
        """Ctrl-C while writing leaves neither a file nor the new folder."""

        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            datasets.check_dataset("digits")
        assert list(data_dir.iterdir()) == []


@contextlib.contextmanager
def serve(answer):
    """A server on this machine; `answer(handler)` answers each request. Gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def send(handler, content, length=None, status=200):
    handler.send_response(status)
    handler.send_header("Content-Length", str(length or len(content)))
    handler.end_headers()
    handler.wfile.write(content)


class TestDownload:
    @pytest.fixture(autouse=True)
    def no_proxy(self, monkeypatch):
        monkeypatch.setenv("no_proxy", "*")

    def send_right(self, stored):
        return lambda handler: send(
            handler, stored["images" if "images" in handler.path else "labels"]
        )

    def test_good(self, data_dir, monkeypatch, capsys):
        """The files lie in the folder under their names, and only those that were asked for."""
        stored = know_content(monkeypatch, "mnist")
        with serve(self.send_right(stored)) as address:
            know_content(monkeypatch, "mnist", [address])
            data = datasets.load_dataset("mnist")
        np.testing.assert_array_equal(data.images[..., 0], IMAGES)
        assert data.labels.tolist() == LABELS.tolist()
        names = sorted(path.name for path in (data_dir / "mnist").iterdir())
        assert names == [f"{IMAGES_NAME}.gz", f"{LABELS_NAME}.gz"]
        output = capsys.readouterr()
        assert output.out == ""
        assert IMAGES_NAME in output.err

    @pytest.mark.usefixtures("data_dir")
    def test_once(self, monkeypatch):
        """What is there is not downloaded again."""
        stored = know_content(monkeypatch, "mnist")
        with serve(self.send_right(stored)) as address:
            know_content(monkeypatch, "mnist", [address])
            datasets.check_dataset("mnist")
        assert datasets.load_dataset("mnist").labels.tolist() == LABELS.tolist()

    @pytest.mark.usefixtures("data_dir")
    def test_length_not_announced(self, monkeypatch):
        stored = know_content(monkeypatch, "mnist")

        def answer(handler):
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(stored["images" if "images" in handler.path else "labels"])

        with serve(answer) as address:
            know_content(monkeypatch, "mnist", [address])
            assert datasets.check_dataset("mnist") == (4, (2, 3, 1))

    @pytest.mark.usefixtures("data_dir")
    def test_second_mirror(self, monkeypatch):
        stored = know_content(monkeypatch, "mnist")
        asked = []

        def answer(handler):
            asked.append(handler.path)
            if handler.path.startswith("/first/"):
                handler.send_error(404)
            else:
                self.send_right(stored)(handler)

        with serve(answer) as address:
            know_content(monkeypatch, "mnist", [f"{address}first/", f"{address}second/"])
            datasets.check_dataset("mnist")
        assert asked[:2] == [f"/first/{IMAGES_NAME}.gz", f"/second/{IMAGES_NAME}.gz"]

    def test_published_md5(self, data_dir, monkeypatch):
        """Where the MD5 of the published file is known, a download is compared with that."""
        stored = know_content(monkeypatch, "mnist")["images"]
        right = {f"{IMAGES_NAME}.gz": hashlib.md5(stored).hexdigest()}
        with serve(lambda handler: send(handler, stored)) as address:
            for md5, outcome in (
                ({f"{IMAGES_NAME}.gz": "0" * 32}, pytest.raises(DataError, match="not the publ")),
                (right, contextlib.nullcontext()),
            ):
                named = named_module.NamedDataset(mirrors=(address,), gzip_md5=md5)
                monkeypatch.setitem(named_module.NAMED_DATASETS, "kmnist", named)
                (data_dir / "labels").write_bytes(
                    bytes([0, 0, 8, 1, 0, 0, 0, 4]) + LABELS.tobytes()
                )
                with outcome:
                    datasets.check_dataset("kmnist", str(data_dir / "labels"))

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            pytest.param(
                lambda handler: send(handler, b"<html>Forbidden</html>"),
                "not the published file",
                id="html",
            ),
            pytest.param(
                lambda handler: send(handler, gzip.compress(b"\0\0\x08\x03")),
                "not the published file",
                id="other",
            ),
            pytest.param(
                lambda handler: send(handler, gzip.compress(IMAGES.tobytes())[:-9]),
                "not the published file",
                id="damaged_gzip",
            ),
            pytest.param(
                lambda handler: send(handler, b"\x1f\x8b", length=1000),
                "not the published file|IncompleteRead",
                id="cut_connection",
            ),
            pytest.param(
                lambda handler: handler.wfile.write(b"rubbish\r\n\r\n"), "rubbish", id="not_http"
            ),
            pytest.param(lambda handler: None, "closed connection", id="no_answer"),
            pytest.param(
                lambda handler: send(handler, b"", status=503), "HTTP Error 503", id="status_503"
            ),
            pytest.param(lambda handler: time.sleep(1), "timed out", id="silence"),
        ],
    )
    def test_bad_answers(self, data_dir, monkeypatch, answer, reason):
        """Whatever a mirror does, there is one line and nothing left behind."""
        monkeypatch.setattr(named_module, "DOWNLOAD_TIMEOUT", 0.5)
        with serve(answer) as address:
            know_content(monkeypatch, "mnist", [address])
            with pytest.raises(DataError, match=reason) as error:
                datasets.check_dataset("mnist")
        assert len(error.value.lines) == 1
        assert list(data_dir.iterdir()) == []

    def test_offline(self, data_dir, monkeypatch):
        """The one line tells the manual way: which files, from where, to where."""
        with serve(send) as address:
            pass  # the port is closed from here on
        know_content(monkeypatch, "mnist", [address, f"{address}second/"])
        with pytest.raises(DataError, match=r"must be downloadable, got .*refused") as error:
            datasets.load_dataset("mnist")
        (line,) = error.value.lines
        assert f"({address})" in line and f"({address}second/)" in line
        assert f"{IMAGES_NAME}.gz, {LABELS_NAME}.gz, t10k" in line
        assert f"from {address} into {data_dir / 'mnist'}" in line
        assert list(data_dir.iterdir()) == []

    @pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
    def test_interrupted(self, data_dir, monkeypatch):
        """Ctrl-C in the middle of a download leaves neither a part of a file nor the folder."""
        parts = []

        def answer(handler):
            send(handler, b"\x1f\x8b", length=1000)
            while not parts:
                parts.extend(data_dir.rglob("*.part"))
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        with serve(answer) as address:
            know_content(monkeypatch, "mnist", [address])
            with pytest.raises(KeyboardInterrupt):
                datasets.check_dataset("mnist")
        assert len(parts) == 1
        assert list(data_dir.iterdir()) == []

    def test_failure_keeps_what_was_there(self, data_dir, monkeypatch):
        stored = know_content(monkeypatch, "mnist")

        def answer(handler):
            send(handler, stored["images"] if "images" in handler.path else b"none")

        with serve(answer) as address:
            know_content(monkeypatch, "mnist", [address])
            with pytest.raises(DataError, match=f"{LABELS_NAME}.gz: must be downloadable"):
                datasets.check_dataset("mnist")
        assert [path.name for path in (data_dir / "mnist").iterdir()] == [f"{IMAGES_NAME}.gz"]


class TestScaling:
    @pytest.mark.parametrize(
        ("images", "expected"),
        [
            (np.array([7, 16], np.uint8), (0, 255, "uint8")),
            (np.array([0, 255], np.int32), (0, 255, "int32")),
            (np.array([0, 256], np.int32), (0, 256, "int32")),
            (np.array([-100, 100], np.int16), (-100, 200, "int16")),
            (np.array([-128, 127], np.int8), (-128, 255, "int8")),
            (np.array([0.25, 0.5], np.float32), (0, 1, "float32")),
            (np.array([0, 255], np.float64), (0, 255, "float64")),
            (np.array([-1, 1], np.float64), (-1, 2, "float64")),
            (np.array([300, 300], np.int16), (300, 1, "int16")),
            (np.array([0, 0], np.float32), (0, 1, "float32")),
            (np.array([0, 1], np.uint8), (0, 1, "uint8")),
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

    def test_json_round_trip(self):
        scaling = datasets.get_scaling(np.array([-3, 4], np.int16))
        assert datasets.Scaling(**json.loads(json.dumps(dataclasses.asdict(scaling)))) == scaling

    def test_check_same_kind(self):
        scaling = datasets.Scaling(0, 255, "uint8")
        datasets.check_same_kind(scaling, np.zeros(1, np.int32), "-t")
        with pytest.raises(DataError, match=r"^-t: .* trained on \(uint8\), got float32"):
            datasets.check_same_kind(scaling, np.zeros(1, np.float32), "-t")
        floats = datasets.Scaling(0, 1, "float32")
        datasets.check_same_kind(floats, np.zeros(1, np.float64), "-t")
        with pytest.raises(DataError, match=r"trained on \(float32\), got uint8"):
            datasets.check_same_kind(floats, np.zeros(1, np.uint8), "-t")


def test_import_is_light():
    """Importing, and checking files, loads neither Keras nor what only named data sets need."""
    code = (
        "import sys\nfrom cae.data import datasets\n"
        "heavy = {'keras', 'tensorflow', 'sklearn', 'scipy', 'rich', 'urllib.request'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert output.stdout == "[]\n"


def test_checksums_are_complete():
    """Every file of every downloaded data set has a checksum of the right length."""
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
    folder = named_module.DATA_DIR / "mnist"
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
