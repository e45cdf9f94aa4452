"""idx files: what is written is read back, and each malformed file has an error of its own."""

import gzip
import io
import os
import re
import struct
import tarfile
import tempfile
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from cae.data import idx
from cae.errors import DataError, UsageError

FORMAT_DTYPES = [np.uint8, np.int8, np.int16, np.int32, np.float32, np.float64]
IMAGE = bytes(range(12))


def header(*shape, code=0x08):
    """The bytes of a header, written out independently of the code under test."""
    return b"\0\0" + bytes([code, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


@given(
    array=st.sampled_from(FORMAT_DTYPES).flatmap(
        lambda dtype: npst.arrays(
            dtype,
            st.sampled_from([3, 4]).flatmap(
                lambda rank: npst.array_shapes(min_dims=rank, max_dims=rank, max_side=4)
            ),
            elements=st.integers(0, 100),
        )
    ),
    name=st.sampled_from(["images", "images.gz"]),
)
def test_images_round_trip(array, name):
    with tempfile.TemporaryDirectory() as folder:
        idx.write_idx(Path(folder, name), array)
        images = idx.read_images(Path(folder, name))
    assert images.dtype == array.dtype and images.dtype.isnative
    assert images.ndim == 4
    np.testing.assert_array_equal(images, array.reshape(images.shape))
    assert images.shape[:3] == array.shape[:3]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32])
@pytest.mark.parametrize("name", ["labels", "labels.gz"])
def test_labels_round_trip(tmp_path, dtype, name, capsys):
    """Labels of any integer type come back as int64, the extremes included, without a word."""
    values = np.array([np.iinfo(dtype).min, 0, np.iinfo(dtype).max], dtype)
    idx.write_idx(tmp_path / name, values)
    labels = idx.read_labels(tmp_path / name)
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, values)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("code", "data", "expected"),
    [
        (0x08, "00 ff", [0, 255]),
        (0x09, "7f ff", [127, -1]),
        (0x0B, "01 00 ff fe", [256, -2]),
        (0x0C, "00 01 00 00 ff ff ff fe", [65536, -2]),
        (0x0D, "3f c0 00 00 c0 00 00 00", [1.5, -2]),
        (0x0E, "3f f8 00 00 00 00 00 00 c0 00 00 00 00 00 00 00", [1.5, -2]),
    ],
)
def test_known_bytes(path, code, data, expected):
    """Bytes written by hand, big-endian, mean what the format says, both ways."""
    content = header(2, 1, 1, code=code) + bytes.fromhex(data)
    path.write_bytes(content)
    images = idx.read_images(path)
    assert images.ravel().tolist() == expected
    idx.write_idx(path.with_name("again"), images[..., 0])
    assert path.with_name("again").read_bytes() == content


def test_header_is_read_without_data(path):
    path.write_bytes(header(2, 3, 2) + IMAGE)
    found = idx.read_header(path)
    assert found == idx.Header(np.dtype("u1"), (2, 3, 2), 16, compressed=False)
    assert (found.item_bytes, found.data_bytes) == (6, 12)
    path.write_bytes(gzip.compress(header(12, code=0x09) + IMAGE))
    assert idx.read_header(path) == idx.Header(np.dtype("i1"), (12,), 8, compressed=True)
    path.write_bytes(header(6, code=0x0B) + IMAGE)
    assert idx.read_header(path).dtype.str == ">i2"


@pytest.mark.parametrize("name", ["plain.gz", "compressed"])
def test_content_tells_compression(tmp_path, name):
    """A name that says the opposite of the content does no harm."""
    content = header(2, 3, 2) + IMAGE
    stored = content if name == "plain.gz" else gzip.compress(content)
    (tmp_path / name).write_bytes(stored)
    assert idx.read_images(tmp_path / name).ravel().tolist() == list(IMAGE)


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("chosen", [[0], [1, 3], [0, 1, 2, 3]])
def test_chosen_images(tmp_path, name, chosen):
    images = np.arange(16, dtype=np.int16).reshape(4, 2, 2)
    idx.write_idx(tmp_path / name, images)
    found = idx.read_images(tmp_path / name, np.array(chosen))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found[..., 0], images[chosen])


def test_what_follows_the_chosen_images_is_not_read(path):
    """Damage further on in the compressed data is not even met."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 64), np.uint8)
    idx.write_idx(path.with_suffix(".gz"), pixels)
    path.write_bytes(path.with_suffix(".gz").read_bytes()[:-1000])
    np.testing.assert_array_equal(idx.read_images(path, np.arange(2))[..., 0], pixels[:2])
    for chosen in (None, np.array([63])):
        with pytest.raises(DataError, match="complete gzip file"):
            idx.read_images(path, chosen)


def test_a_chosen_image_is_missing(path):
    path.write_bytes(gzip.compress(header(3, 2, 2) + IMAGE[:7]))
    with pytest.raises(DataError, match=r"12 bytes of data .*, got 7: the file is truncated"):
        idx.read_images(path, np.array([1]))


def test_images_can_be_written_to(path):
    idx.write_idx(path, np.zeros((1, 2, 2), np.uint8))
    images = idx.read_images(path)
    images[0, 0, 0, 0] = 7
    assert images.sum() == 7


@pytest.mark.parametrize(
    "stored",
    [
        gzip.compress(header(12)) + gzip.compress(IMAGE),
        gzip.compress(gzip.compress(header(12) + IMAGE)),
    ],
    ids=["in parts", "twice"],
)
def test_gzip_in_parts_or_twice(path, stored):
    """Files that were appended to each other, or that a browser has compressed again."""
    path.write_bytes(stored)
    assert idx.read_labels(path).tolist() == list(IMAGE)


def make_tar():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("mnist"))
    return stream.getvalue()


def make_npy():
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


RAW = header(3, 2, 2) + IMAGE
GZIP = gzip.compress(RAW, mtime=0)
BAD_CHECKSUM = GZIP[:-8] + bytes(4) + GZIP[-4:]
MALFORMED = {
    "empty": (b"", "must be an idx file, got an empty file"),
    "empty_gzip": (gzip.compress(b""), "got an empty gzip file"),
    "three_bytes": (RAW[:3], "header of 4 bytes or more, got 3 in all"),
    "header_cut_off": (RAW[:10], "header of 16 bytes, got 10"),
    "gzip_header_cut_off": (gzip.compress(RAW[:15]), "header of 16 bytes, got 15"),
    "labels_header_cut_off": (header(3)[:6], "header of 8 bytes, got 6"),
    "html": (b"\n<!DOCTYPE html><html>403</html>", r"got a web page \(HTML"),
    "html_without_doctype": (b"<HTML><body>no</body></HTML>", "got a web page"),
    "gzip_html": (gzip.compress(b"<html></html>"), "got a web page"),
    "csv": (b"label,pixel\n7,0.5\n", "got text"),
    "utf8_text": ("\ufeffZahlen, größer als 0\n".encode(), "got text"),
    "utf8_text_cut_in_a_character": (b"a" + "ä".encode() * 300, "got text"),
    "git_lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(20), "got a PNG picture. Pass the folder"),
    "zip": (b"PK\x03\x04" + bytes(20), "got a zip archive .* Unpack it"),
    "pickle": (b"\x80\x04\x95" + bytes(20), "got a Python pickle"),
    "npy": (make_npy(), r"got a NumPy \.npy array"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "got an HDF5 file"),
    "tar": (make_tar(), "got a tar archive"),
    "tar_gz": (gzip.compress(make_tar()), "got a tar archive"),
    "bzip2": (b"BZh91AY" + bytes(20), "got a bzip2 archive"),
    "three_times_gzip": (gzip.compress(gzip.compress(GZIP)), "got a gzip file inside gzip files"),
    "other_bytes": (b"\x01\x02\x03\x04\x05", "got a file that begins with 0x01020304"),
    "one_other_byte": (b"\x03", "got a file that begins with 0x03"),
    "swapped_header": (RAW[3::-1] + RAW[4:], r"byte-swapped \(little-endian\) idx header"),
    "swapped_sizes": (
        RAW[:4] + struct.pack("<3I", 3, 2, 2) + IMAGE,
        "big-endian sizes, got .* or 3 x 2 x 2 with swapped bytes",
    ),
    "gzip_swapped_sizes": (
        gzip.compress(RAW[:4] + struct.pack("<3I", 3, 2, 2) + IMAGE),
        "or 3 x 2 x 2 with swapped bytes",
    ),
    "code_0": (header(3, 2, 2, code=0) + IMAGE, r"data type codes 0x08 \(uint8\).*got 0x00"),
    "code_0a": (header(3, 2, 2, code=0x0A) + IMAGE, "got 0x0a"),
    "rank_0": (header() + IMAGE, "got rank 0"),
    "flattened": (header(3, 4) + IMAGE, r"got flattened images .*\(rank 2: 3 x 4 uint8\)"),
    "column_of_labels": (header(12, 1) + IMAGE, r"got labels \(rank 2: 12 x 1 uint8\)"),
    "one_hot_labels": (header(2, 3) + b"\0\1\0\1\0\0", r"got labels \(rank 2: 2 x 3 uint8\)"),
    "qmnist_labels": (
        header(1, 8, code=0x0C) + struct.pack(">8i", 5, 4, 170, 3, 24, 48, 0, 0),
        r"got labels \(rank 2: 1 x 8 int32\)",
    ),
    "channels_first_gray": (header(1, 1, 28, 28) + bytes(784), "1 x 1 x 28 x 28, channels first"),
    "channels_first_rgb": (header(1, 3, 4, 5) + bytes(60), "1 x 3 x 4 x 5, channels first"),
    "rank_5": (header(1, 1, 3, 2, 2) + IMAGE, "got rank 5"),
    "rank_255": (b"\0\0\x08\xff" + IMAGE, "got rank 255"),
    "no_items": (header(0, 2, 2), "sizes of at least 1, got 0 x 2 x 2 uint8"),
    "no_labels": (header(0), "sizes of at least 1, got 0 uint8"),
    "no_height": (header(3, 0, 2), "got 3 x 0 x 2"),
    "no_channels": (header(3, 2, 2, 0), "got 3 x 2 x 2 x 0"),
    "no_data": (header(3, 2, 2), r"12 bytes of data \(3 x 2 x 2 uint8\), got 0: .*truncated"),
    "one_byte_short": (RAW[:-1], "12 bytes of data .*, got 11: the file is truncated"),
    "one_byte_more": (RAW + b"\0", "12 bytes of data .*, got 13: trailing bytes"),
    "gzip_one_byte_short": (gzip.compress(RAW[:-1]), "12 bytes of data .*, got 11"),
    "gzip_one_byte_more": (gzip.compress(RAW + b"\0"), "got 13: trailing bytes"),
    "one_image_short": (RAW[:-4], "got 8: 2 items, not 3"),
    "one_image_more": (RAW + bytes(4), "got 16: 4 items, not 3"),
    "gzip_two_images_more": (gzip.compress(RAW + bytes(8)), "got 20: 5 items, not 3"),
    "narrower_values": (header(3, 2, 2, code=0x0C) + IMAGE, "48 bytes .*, got 12, as of 8-bit"),
    "wider_values_or_more": (header(3, 2, 2) + bytes(96), "got 96: 24 items, not 3, or 64-bit"),
    "gzip_wider_values_or_more": (
        gzip.compress(header(3, 2, 2) + bytes(48)),
        "got 48: 12 items, not 3, or 32-bit values",
    ),
    "gzip_many_images_more": (
        gzip.compress(header(10, 2, 2) + bytes(800)),
        r"40 bytes .*, got 800: 200 items, not 10\.",
    ),
    "swapped_int32": (
        header(1, 1, 2, code=0x0C) + struct.pack("<2i", 7, 255),
        "big-endian values, got little-endian",
    ),
    "swapped_float32": (
        header(1, 1, 4, code=0x0D) + struct.pack("<4f", 0, 0.3, 0.5, 1),
        "big-endian values, got little-endian",
    ),
    "absurd_sizes": (header(*[2**32 - 1] * 4), "must contain 340282366604025813516997721"),
    "gzip_absurd_sizes": (
        gzip.compress(header(*[2**32 - 1] * 3) + IMAGE),
        "compressed bytes, which hold at most",
    ),
    "gzip_more_than_deflate_can": (
        gzip.compress(header(1000, 28, 28) + IMAGE),
        "784000 bytes .*compressed bytes, which hold at most",
    ),
    "gzip_cut_off": (GZIP[:-10], "complete gzip file, got Compressed file ended"),
    "gzip_magic_only": (GZIP[:2], "complete gzip file"),
    "gzip_bad_checksum": (BAD_CHECKSUM, "complete gzip file, got CRC check failed"),
    "gzip_bad_method": (
        GZIP[:2] + b"\x07" + GZIP[3:],
        "complete gzip file, got Unknown compression",
    ),
    "gzip_bad_data": (GZIP[:10] + b"\xff" * 10 + GZIP[20:], "complete gzip file, got Error -3"),
    "gzip_then_garbage": (GZIP + b"garbage", "complete gzip file, got bytes after its end"),
    "nan": (
        header(2, 1, 2, code=0x0D) + struct.pack(">4f", 0, 1, 0, np.nan),
        r"finite pixels, got NaN or infinity in 1 of 2 images, first in image 1",
    ),
    "infinity": (
        header(2, 1, 1, 1, code=0x0E) + struct.pack(">2d", -np.inf, np.inf),
        "finite pixels, got NaN or infinity in 2 of 2 images, first in image 0",
    ),
    "labels_for_images": (header(12) + IMAGE, r"images \(rank 3 or 4\), got labels \(rank 1: 12"),
}


@pytest.mark.parametrize(("content", "message"), MALFORMED.values(), ids=MALFORMED)
def test_malformed_images(path, content, message):
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        idx.read_images(path)
    assert error.value.lines[0].startswith(f"{path}: must ")
    assert "\n" not in error.value.lines[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (RAW, r"labels \(rank 1\), got images \(rank 3: 3 x 2 x 2 uint8\)"),
        (header(1, 3, 2, 2) + IMAGE, r"labels \(rank 1\), got images \(rank 4"),
        (header(13) + IMAGE, "13 bytes of data .*, got 12: 12 items, not 13"),
        (header(3) + bytes(24), "3 bytes of data .*, got 24: 24 items, not 3, or 64-bit values"),
        (
            header(3, code=0x0C) + bytes(24),
            "12 bytes of data .*, got 24: 6 items, not 3, or 64-bit values",
        ),
    ],
)
def test_malformed_labels(path, content, message):
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        idx.read_labels(path)


@given(content=st.binary(max_size=40), compressed=st.booleans())
def test_any_bytes_give_an_array_or_a_data_error(content, compressed):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        for start in (b"", b"\0\0\x08\x03", b"\x1f\x8b\x08\0"):
            whole = start + content
            path.write_bytes(gzip.compress(whole) if compressed else whole)
            try:
                assert idx.read_images(path).size > 0
            except DataError as error:
                assert len(str(error).splitlines()) == 1


def test_a_gzip_file_is_not_unpacked_to_its_end(path, monkeypatch):
    """It may be a bomb: what follows the data is counted up to a limit."""
    monkeypatch.setattr(idx, "MEASURED_BYTES", 1000)
    path.write_bytes(gzip.compress(header(3, 2, 2) + bytes(5000)))
    with pytest.raises(DataError, match=r"12 bytes .*, got 1001 or more: trailing bytes"):
        idx.read_images(path)


@pytest.fixture
def asked(monkeypatch):
    """The sizes that are asked of gzip."""
    asked, read = [], gzip.GzipFile.read
    monkeypatch.setattr(
        gzip.GzipFile, "read", lambda self, size: asked.append(size) or read(self, size)
    )
    return asked


def test_absurd_sizes_allocate_nothing(path, monkeypatch, asked):
    """A promise is believed only as far as bytes arrive, however well they compress."""
    monkeypatch.setattr(idx, "CHUNK_BYTES", 1000)
    promised = 10**6
    path.write_bytes(gzip.compress(header(promised) + bytes(promised - 5000)))
    with pytest.raises(DataError, match="got 995000: 995000 items"):
        idx.read_labels(path)
    assert max(asked) == 1000


def test_deflate_never_beats_the_ratio():
    """The bound that refuses absurd promises holds for the most compressible data there is."""
    for size in (10**4, 10**7):
        assert size / len(zlib.compress(bytes(size), 9)) < idx.DEFLATE_MAX_RATIO


def test_missing_file(path):
    with pytest.raises(DataError, match="file: must be an existing file, got No such file"):
        idx.read_images(path)
    with pytest.raises(DataError, match=r"must be an existing file, got .*embedded null"):
        idx.read_images("a\0b")
    with pytest.raises(DataError, match="must be an existing file, got File name too long"):
        idx.read_images("a" * 300)


def test_missing_file_in_the_home_or_behind_a_link(path, monkeypatch):
    """A tilde in quotes reaches the program, and a link may lead nowhere."""
    monkeypatch.setenv("HOME", str(path.parent))
    path.with_name("own.idx").write_bytes(RAW)
    with pytest.raises(DataError, match=f'Did you mean "{path.parent}/own.idx"'):
        idx.read_images("~/own.idx")
    path.symlink_to("moved.idx")
    with pytest.raises(DataError, match=r"a link to moved\.idx"):
        idx.read_images(path)


def test_missing_file_beside_one_of_a_similar_name(path):
    path.with_name("train-images.idx3-ubyte").write_bytes(RAW)
    with pytest.raises(DataError, match=r'Did you mean ".*/train-images\.idx3-ubyte"'):
        idx.read_images(path.with_name("train-images-idx3-ubyte"))


def test_folder_names_its_idx_files(tmp_path):
    with pytest.raises(DataError, match=r"got a folder"):
        idx.read_images(tmp_path)
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "b.gz").write_bytes(GZIP)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a").write_bytes(RAW)
    with pytest.raises(DataError, match=r"Use one of the idx files in it: a/a, b\.gz\.$"):
        idx.read_images(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe(path):
    """A pipe is refused at once; opening it would wait for a writer."""
    os.mkfifo(path)
    with pytest.raises(DataError, match="must be a file on disk, got a pipe or device"):
        idx.read_images(path)


def test_no_permission(path, monkeypatch):
    """Tests may run as root, who may read everything; so the refusal is played."""
    path.write_bytes(RAW)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"got Permission denied"):
        idx.read_images(path)


def test_too_large_for_memory(path, monkeypatch):
    path.write_bytes(RAW)

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(np, "frombuffer", fail)
    with pytest.raises(DataError, match=r"must fit in memory, got 3 x 2 x 2 uint8.*--limit"):
        idx.read_images(path)


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint16, np.float16, np.complex64, object])
def test_write_refuses_types_the_format_lacks(path, dtype):
    name = np.dtype(dtype).name
    with pytest.raises(DataError, match=f"uint8, int8, .*, got {name}. Convert"):
        idx.write_idx(path, np.zeros((1, 2, 2), dtype))
    assert not path.exists()


@pytest.mark.parametrize("shape", [(), (2, 2), (1, 1, 1, 1, 1), (0,), (1, 0, 2)])
def test_write_refuses_shapes_that_could_not_be_read(path, shape):
    with pytest.raises(DataError, match=f"got shape {re.escape(str(shape))}"):
        idx.write_idx(path, np.zeros(shape, np.uint8))
    assert not path.exists()


def test_write_takes_any_memory_layout(path):
    """Foreign byte order and strides are no reason for wrong bytes."""
    array = np.arange(24, dtype="<i4").reshape(2, 3, 4).transpose(2, 1, 0)
    for variant in (array, array.astype(">i4"), np.asfortranarray(array)):
        idx.write_idx(path, variant)
        np.testing.assert_array_equal(idx.read_images(path)[..., 0], array)


def test_write_is_deterministic(tmp_path):
    """A compressed file holds neither the time nor its own name."""
    for name in ("a.gz", "b.gz"):
        idx.write_idx(tmp_path / name, np.zeros(3, np.uint8))
    content = (tmp_path / "a.gz").read_bytes()
    assert content[4:8] == bytes(4)
    assert content == (tmp_path / "b.gz").read_bytes()


def test_write_to_an_impossible_place(tmp_path):
    with pytest.raises(UsageError, match="got No such file or directory"):
        idx.write_idx(tmp_path / "none" / "file", np.zeros(3, np.uint8))
    with pytest.raises(UsageError, match="got Is a directory"):
        idx.write_idx(tmp_path, np.zeros(3, np.uint8))
    assert list(tmp_path.parent.glob(".*.part")) == []


class TestLargeFiles:
    """Raw files above `MAPPED_BYTES` are views of the file."""

    @pytest.fixture(autouse=True)
    def everything_is_large(self, monkeypatch):
        monkeypatch.setattr(idx, "MAPPED_BYTES", 0)

    @pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
    def test_same_pixels(self, tmp_path, dtype):
        images = np.arange(2 * 3 * 4 * 5).reshape(5, 3, 4, 2).astype(dtype)
        idx.write_idx(tmp_path / "images", images)
        found = idx.read_images(tmp_path / "images")
        np.testing.assert_array_equal(found, images)
        assert not found.flags.writeable

    def test_not_finite(self, tmp_path):
        images = np.zeros((3, 2, 2), np.float32)
        images[1, 0, 1] = np.nan
        idx.write_idx(tmp_path / "images", images)
        with pytest.raises(DataError, match="in 1 of 3 images, first in image 1"):
            idx.read_images(tmp_path / "images")


def test_gzip_of_more_than_memory(path, monkeypatch, asked):
    """A bomb that promises what it holds is refused before it is unpacked."""
    path.write_bytes(gzip.compress(header(1, 1000, 1000) + bytes(1_000_000)))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=40960))
    with pytest.raises(DataError, match=r"40960 bytes of memory.*, got 1000000 bytes .*--limit"):
        idx.read_images(path)
    assert max(asked) < 1000
