"""Named data sets: found however they were unpacked, made, downloaded and verified."""

import contextlib
import errno
import gzip
import hashlib
import os
import signal
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from conftest import fail_with

from cae.data import datasets, idx, named, stored
from cae.data.sources import Reading
from cae.errors import DataError, UsageError, UserError

IMAGES = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
LABELS = np.array([3, 0, 3, 61], np.uint8)
IMAGES_NAME = "train-images-idx3-ubyte"
LABELS_NAME = "train-labels-idx1-ubyte"


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    """An empty `data` folder in place of the real one."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(stored, "DATA_DIR", folder)
    return folder


def encode(array):
    """The bytes of an idx file of uint8."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_named(folder, images=IMAGES, labels=LABELS, suffix=""):
    """Puts the four files of a named data set into a folder."""
    folder.mkdir()
    for (_, role), name in named.FILE_NAMES.items():
        idx.write_idx(folder / f"{name}{suffix}", images if role == "images" else labels)


def know_content(monkeypatch, name, mirrors=()):
    """Makes the small arrays above the published content of a named data set.

    Returns the two gzip files that its mirrors should have, by role.
    """
    contents = {"images": encode(IMAGES), "labels": encode(LABELS)}
    checksums = {
        file_name: hashlib.sha256(contents[role]).hexdigest()
        for (_, role), file_name in named.FILE_NAMES.items()
    }
    known = named.NamedDataset(mirrors=tuple(mirrors), content_sha256=checksums)
    monkeypatch.setitem(named.NAMED_DATASETS, name, known)
    return {role: gzip.compress(content) for role, content in contents.items()}


def pack(content, times):
    return pack(gzip.compress(content), times - 1) if times else content


class TestStored:
    """Files in the folder are used, and nothing is downloaded."""

    @pytest.mark.parametrize("times", [0, 1, 2])
    @pytest.mark.parametrize(
        "where",
        ["{0}", "{0}.gz", "{1}", "{1}.gz", "{0}/{0}", "{0}/{1}", "{1}/{1}.gz", "raw/{0}.gz"],
    )
    def test_as_archives_unpack_them(self, data_dir, monkeypatch, where, times):
        """Compressed or not, whatever the name; in a folder; with a dot for a dash."""
        know_content(monkeypatch, "mnist")
        for (_, role), name in named.FILE_NAMES.items():
            content = encode(IMAGES if role == "images" else LABELS)
            path = data_dir / "mnist" / where.format(name, name.replace("-idx", ".idx"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack(content, times))
        for split in ("train", "test"):
            data = datasets.load_dataset("mnist", split=split, labels_required=True)
            np.testing.assert_array_equal(data.images[..., 0], IMAGES)
            assert data.labels.tolist() == LABELS.tolist()

    @pytest.mark.parametrize("name", named.NAMED_DATASETS)
    def test_raw_file_first(self, data_dir, monkeypatch, name):
        know_content(monkeypatch, name)
        write_named(data_dir / name)
        for path in list((data_dir / name).iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(b"a download that broke off")
        data = datasets.load_dataset(name, split="test")
        assert data.name == name
        assert data.files[0]["path"].endswith("t10k-images-idx3-ubyte")

    def test_labels_given_beside_a_name(self, data_dir, tmp_path):
        write_named(data_dir / "digits", labels=LABELS[::-1])
        idx.write_idx(tmp_path / "labels", LABELS)
        data = datasets.load_dataset("digits", str(tmp_path / "labels"))
        assert data.labels.tolist() == LABELS.tolist()

    def test_name_given_for_labels(self, data_dir, tmp_path):
        write_named(data_dir / "digits")
        idx.write_idx(tmp_path / "images", IMAGES)
        data = datasets.load_dataset(str(tmp_path / "images"), "digits")
        assert (data.name, data.labels.tolist()) == ("images", LABELS.tolist())

    def test_class_names_follow_the_labels(self, data_dir, tmp_path):
        write_named(data_dir / "fashion_mnist")
        idx.write_idx(tmp_path / "labels", LABELS)
        names = datasets.load_dataset("fashion_mnist").class_names
        assert (len(names), names[0], names[9]) == (10, "T-shirt/top", "Ankle boot")
        assert not datasets.load_dataset("fashion_mnist", str(tmp_path / "labels")).class_names
        letters = Reading(class_names="a,b,c,d,e,f,g,h,i,j")
        with pytest.raises(UsageError, match=r"--class-names: .*T-shirt/top"):
            datasets.load_dataset("fashion_mnist", reading=letters)
        assert named.NAMED_DATASETS["kmnist"].class_names[3] == "tsu"


class TestWrongContent:
    @pytest.mark.parametrize("suffix", ["", ".gz"])
    def test_the_file_of_another_data_set(self, data_dir, monkeypatch, suffix):
        """Fashion-MNIST's files are called like MNIST's."""
        know_content(monkeypatch, "mnist")
        write_named(data_dir / "fashion_mnist", suffix=suffix)
        with pytest.raises(
            DataError,
            match=rf"{IMAGES_NAME}{suffix}: .* published file of fashion_mnist, got that of mnist",
        ):
            datasets.load_dataset("fashion_mnist")

    def test_images_and_labels_of_different_data_sets(self, tmp_path, monkeypatch):
        """By their names they belong together."""
        know_content(monkeypatch, "mnist")
        other = {LABELS_NAME: hashlib.sha256(encode(LABELS[::-1])).hexdigest()}
        monkeypatch.setitem(named.NAMED_DATASETS, "kmnist", named.NamedDataset((), other))
        write_named(tmp_path / "mine", labels=LABELS[::-1])
        files = [str(tmp_path / "mine" / name) for name in (IMAGES_NAME, LABELS_NAME)]
        with pytest.raises(DataError, match=rf"{LABELS_NAME}: .*labels of mnist.*got .*of kmnist"):
            datasets.load_dataset(*files)
        (tmp_path / "mine" / LABELS_NAME).write_bytes(encode(LABELS))
        assert datasets.load_dataset(*files).labels.tolist() == LABELS.tolist()

    @pytest.mark.parametrize(
        ("name", "suffix"), [("mnist", ""), ("mnist", ".gz"), ("kmnist", ".gz")]
    )
    def test_an_unknown_file(self, data_dir, name, suffix):
        """Of kmnist, only the checksums of the compressed files were published."""
        write_named(data_dir / name, suffix=suffix)
        with pytest.raises(
            DataError, match=f"{IMAGES_NAME}{suffix}: must be the published file of {name}"
        ):
            datasets.load_dataset(name)

    def test_wrong_labels(self, data_dir, monkeypatch):
        know_content(monkeypatch, "mnist")
        write_named(data_dir / "mnist", labels=LABELS[::-1])
        with pytest.raises(DataError, match=f"{LABELS_NAME}: must be the published file of mnist"):
            datasets.load_dataset("mnist")

    @pytest.mark.parametrize(
        "content",
        [b"<html>403</html>", b"", gzip.compress(b"\0\0\x08")],
        ids=["web page", "empty", "too short"],
    )
    def test_no_idx_file(self, data_dir, content):
        """A web page saved in place of the file is found out from the header alone."""
        write_named(data_dir / "mnist", suffix=".gz")
        (data_dir / "mnist" / f"{IMAGES_NAME}.gz").write_bytes(content)
        with pytest.raises(DataError, match="must be the published file of mnist"):
            datasets.check_dataset("mnist")

    def test_damaged_gzip(self, data_dir, monkeypatch):
        stored = know_content(monkeypatch, "mnist")["images"]
        write_named(data_dir / "mnist", suffix=".gz")
        (data_dir / "mnist" / f"{IMAGES_NAME}.gz").write_bytes(stored[:-8] + bytes(8))
        with pytest.raises(DataError, match="must be the published file of mnist"):
            datasets.load_dataset("mnist")

    def test_folder_that_is_a_file(self, data_dir):
        (data_dir / "digits").write_text("in the way")
        with pytest.raises(UserError, match="digits: must be a folder"):
            datasets.check_dataset("digits")


class TestReadOnlyCheckout:
    """Or none, after `pip install .`."""

    @pytest.fixture(autouse=True)
    def no_checkout(self, tmp_path, monkeypatch):
        monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "none")
        (tmp_path / "file").touch()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))

    @pytest.mark.parametrize(
        ("xdg", "home", "folder"),
        [
            ("{0}/user", "{0}/home", "user/cae"),
            ("", "{0}/home", "home/.cache/cae"),
            ("", "{0}/file", "scratch/cae-cache"),
            ("relative", "{0}/home", "scratch/cae-cache"),
        ],
    )
    def test_files_lie_in_the_cache_of_the_user(
        self, tmp_path, monkeypatch, capsys, xdg, home, folder
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", xdg.format(tmp_path))
        monkeypatch.setenv("HOME", home.format(tmp_path))
        assert datasets.check_dataset("digits", labels_required=True)[0] == 1442
        names = {path.name for path in (tmp_path / folder / "digits").iterdir()}
        assert names == {IMAGES_NAME, LABELS_NAME}
        (line,) = capsys.readouterr().err.replace("\n", "").split("kept in ")[1:]
        assert f"{folder}/digits" in line

    def test_files_of_the_checkout_are_used(self, tmp_path):
        (tmp_path / "none").mkdir()
        write_named(tmp_path / "none" / "digits")
        (tmp_path / "none").chmod(0o555)
        assert len(datasets.load_dataset("digits").images) == len(IMAGES)

    def test_nowhere(self, monkeypatch, tmp_path):
        for name in ("XDG_CACHE_HOME", "HOME"):
            monkeypatch.setenv(name, str(tmp_path / "file"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
        with pytest.raises(UserError, match="TMPDIR"):
            datasets.check_dataset("digits")


class TestDigits:
    def test_basics(self, data_dir):
        train = datasets.load_dataset("digits")
        test = datasets.load_dataset("digits", split="test")
        assert (train.images.shape, test.images.shape) == ((1442, 28, 28, 1), (355, 28, 28, 1))
        assert train.images.dtype == np.uint8
        assert set(train.labels) == set(test.labels) == set(range(10))
        assert sorted(path.name for path in (data_dir / "digits").iterdir()) == sorted(
            named.FILE_NAMES.values()
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


OTHER = "not the published file"
BAD_ANSWERS = {
    "html": (lambda handler: send(handler, b"<html>Forbidden</html>"), OTHER),
    "other": (lambda handler: send(handler, gzip.compress(b"\0\0\x08\x03")), OTHER),
    "damaged gzip": (lambda x: send(x, gzip.compress(IMAGES.tobytes())[:-9]), OTHER),
    "cut off": (lambda x: send(x, b"\x1f\x8b", length=1000), f"{OTHER}|IncompleteRead"),
    "not http": (lambda handler: handler.wfile.write(b"rubbish\r\n\r\n"), "rubbish"),
    "no answer": (lambda handler: None, "closed connection"),
    "status 503": (lambda handler: send(handler, b"", status=503), "HTTP Error 503"),
    "silence": (lambda handler: handler.rfile.read(1), "timed out"),  # until nobody listens
}


class TestDownload:
    @pytest.fixture(autouse=True)
    def no_proxy(self, monkeypatch):
        monkeypatch.setenv("no_proxy", "*")

    @pytest.mark.parametrize("is_length_announced", [True, False])
    def test_from_the_first_mirror_that_serves_it(
        self, data_dir, monkeypatch, capsys, is_length_announced
    ):
        """The files that are needed lie in the folder, and are not downloaded again."""
        stored = know_content(monkeypatch, "mnist")
        asked = []

        def answer(handler):
            asked.append(handler.path)
            content = stored["images" if "images" in handler.path else "labels"]
            if handler.path.startswith("/first/"):
                handler.send_error(404)
            elif is_length_announced:
                send(handler, content)
            else:
                handler.send_response(200)
                handler.end_headers()
                handler.wfile.write(content)

        names = [f"{IMAGES_NAME}.gz", f"{LABELS_NAME}.gz"]
        with serve(answer) as address:
            know_content(monkeypatch, "mnist", [f"{address}first/", address])
            data = datasets.load_dataset("mnist")
        np.testing.assert_array_equal(data.images[..., 0], IMAGES)
        assert data.labels.tolist() == LABELS.tolist()
        assert asked == [f"/{folder}{name}" for name in names for folder in ("first/", "")]
        assert sorted(path.name for path in (data_dir / "mnist").iterdir()) == names
        output = capsys.readouterr()
        assert output.out == ""
        assert IMAGES_NAME in output.err

    @pytest.mark.parametrize("is_right", [True, False])
    def test_published_md5(self, data_dir, monkeypatch, is_right):
        stored = gzip.compress(encode(IMAGES))
        md5 = hashlib.md5(stored if is_right else b"").hexdigest()
        idx.write_idx(data_dir / "labels", LABELS)
        with serve(lambda handler: send(handler, stored)) as address:
            known = named.NamedDataset((address,), gzip_md5={f"{IMAGES_NAME}.gz": md5})
            monkeypatch.setitem(named.NAMED_DATASETS, "kmnist", known)
            refused = pytest.raises(DataError, match=OTHER)
            with contextlib.nullcontext() if is_right else refused:
                datasets.check_dataset("kmnist", str(data_dir / "labels"))

    @pytest.mark.parametrize("case", BAD_ANSWERS)
    def test_bad_answers(self, data_dir, monkeypatch, case):
        """Whatever a mirror does, there is one line and nothing left behind."""
        answer, reason = BAD_ANSWERS[case]
        if case == "silence":
            monkeypatch.setattr(named, "DOWNLOAD_TIMEOUT", 0.5)
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
        parts, is_interrupted = [], threading.Event()

        def answer(handler):
            send(handler, b"\x1f\x8b", length=1000)
            while not parts:
                parts.extend(data_dir.rglob("*.part"))
                time.sleep(0.01)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            is_interrupted.wait(60)  # the connection stays open until then

        # In the background of a shell, Ctrl-C is ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with serve(answer) as address:
                know_content(monkeypatch, "mnist", [address])
                with pytest.raises(KeyboardInterrupt):
                    datasets.check_dataset("mnist")
                is_interrupted.set()
        finally:
            signal.signal(signal.SIGINT, before)
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

    def test_full_disk(self, data_dir, monkeypatch):
        """It is the disk, not the mirrors, that the error names."""
        gz = know_content(monkeypatch, "mnist")["images"]
        monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
        with serve(lambda handler: send(handler, gz)) as address:
            know_content(monkeypatch, "mnist", [address])
            with pytest.raises(DataError, match=rf"{data_dir / 'mnist'}: .*No space left"):
                datasets.check_dataset("mnist")
        assert list(data_dir.iterdir()) == []
