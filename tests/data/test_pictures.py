"""Pictures of every kind become arrays of one form."""

import io
import os
import re
import struct
import threading
import zlib

import numpy as np
import pytest
from conftest import ROOT, run_python
from PIL import Image, PngImagePlugin

from cae.data.pictures import Form, decode, encode_png, survey
from cae.errors import DataError

GRAY, RGB = Form(2, 2, 1), Form(2, 2, 3)
RED = (255, 0, 0)


def save(path, pixels, **options):
    """Writes pixels (height, width) or (height, width, channels), or a Pillow image."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def plain(mode, color, size=(2, 2)):
    return Image.new(mode, size, color)


class TestDecode:
    @pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "jp2", "ppm"])
    def test_lossless_formats_keep_gray_pixels(self, tmp_path, suffix):
        pixels = np.array([[0, 50], [200, 255]], np.uint8)
        decoded = decode(save(tmp_path / f"a.{suffix}", pixels), GRAY)
        assert decoded.dtype == np.uint8
        assert decoded[..., 0].tolist() == pixels.tolist()

    @pytest.mark.parametrize("suffix", ["jpg", "webp", "avif"])
    def test_lossy_formats(self, tmp_path, suffix):
        path = save(tmp_path / f"a.{suffix}", plain("RGB", RED, (16, 16)))
        assert np.abs(decode(path, Form(16, 16, 3)).astype(int) - RED).max() <= 5

    @pytest.mark.parametrize(
        ("picture", "expected"),
        [
            (plain("1", 1), 255),
            (plain("L", 7), 7),
            (plain("LA", (0, 0)), 255),
            (plain("RGB", RED).convert("P"), RED),
            (plain("RGBA", (*RED, 255)), RED),
            (plain("RGBA", (*RED, 0)), (255, 255, 255)),
            (Image.fromarray(np.full((2, 2), 257 * 9, np.uint16)), 9),
        ],
        ids=lambda value: getattr(value, "mode", str(value)),
    )
    def test_modes_in_png(self, tmp_path, picture, expected):
        decoded = decode(save(tmp_path / "a.png", picture), RGB)
        assert (decoded == expected).all()

    def test_16_bits_with_a_transparent_value(self, tmp_path):
        """They are brought to 8 bits, not cut at 255."""
        path = tmp_path / "a.png"
        Image.fromarray(np.full((2, 2), 257 * 9, np.uint16)).save(path, transparency=5)
        assert (decode(path, RGB) == 9).all()

    @pytest.mark.parametrize(
        ("picture", "expected"),
        [
            (plain("CMYK", (0, 255, 255, 0)), RED),
            (plain("F", 0.2), (51, 51, 51)),
            (plain("YCbCr", (128, 128, 128)), (128, 128, 128)),
        ],
        ids=lambda value: getattr(value, "mode", str(value)),
    )
    def test_modes_in_tiff(self, tmp_path, picture, expected):
        # Pillow 12 cannot read the YCbCr that it writes without compression.
        decoded = decode(save(tmp_path / "a.tiff", picture, compression="tiff_lzw"), RGB)
        assert np.abs(decoded.astype(int) - expected).max() <= 1

    def test_colour_becomes_gray_by_luminance(self, tmp_path):
        decoded = decode(save(tmp_path / "a.png", plain("RGB", RED)), GRAY)
        assert (decoded == 76).all()  # 0.299 * 255

    def test_first_frame_of_an_animation(self, tmp_path):
        frames = {"save_all": True, "append_images": [plain("L", 200)]}
        path = save(tmp_path / "a.gif", plain("L", 10), **frames)
        assert (decode(path, GRAY) == 10).all()

    def test_a_photograph_is_turned_as_exif_says(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6  # the top is on the right
        path = save(tmp_path / "a.png", np.array([[0, 255]], np.uint8), exif=exif)
        assert decode(path, Form(2, 1, 1))[..., 0].tolist() == [[0], [255]]
        assert survey([path]) == ((2, 1), False)

    @pytest.mark.parametrize("suffix", ["jpg", "tiff", "webp", "png"])
    def test_every_format_that_can_turn_a_photograph_does(self, tmp_path, suffix):
        """Dark above bright, turned to the right."""
        exif = Image.Exif()
        exif[0x0112] = 6
        pixels = np.repeat(np.array([0, 255], np.uint8), 32).reshape(64, 1) * np.ones((1, 64), "u1")
        path = save(tmp_path / f"a.{suffix}", pixels, exif=exif)
        decoded = decode(path, Form(64, 64, 1)).astype(int)
        assert decoded[:, -1].mean() < 10 and decoded[:, 0].mean() > 245

    def test_orientation_in_xmp(self, tmp_path):
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
        path = save(tmp_path / "a.png", np.array([[0, 255]], np.uint8), pnginfo=info)
        assert decode(path, Form(2, 1, 1))[..., 0].tolist() == [[0], [255]]

    def test_files_of_every_length(self, tmp_path):
        """Small ones are read at once, the larger ones in parts, also from a pipe."""
        pixels = np.random.default_rng(0).integers(0, 256, (300, 300), np.uint8)
        for image, form in ((pixels, Form(300, 300, 1)), (pixels[:5, :5], Form(5, 5, 1))):
            path = save(tmp_path / "a.png", image)
            pipe = tmp_path / "pipe"
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
            writer = threading.Thread(target=pipe.write_bytes, args=[path.read_bytes()])
            writer.start()
            for name in (path, str(pipe)):
                assert (decode(name, form)[..., 0] == image).all()
            writer.join()

    def test_from_an_open_file(self):
        file = io.BytesIO()
        plain("L", 3).save(file, "PNG")
        file.seek(0)
        assert (decode(file, GRAY) == 3).all()


class TestResize:
    def test_pad_adds_the_median_of_the_edges(self, tmp_path):
        wide = np.full((2, 4), 90, np.uint8)
        decoded = decode(save(tmp_path / "a.png", wide), Form(4, 4, 1))
        assert (decoded == 90).all()
        color = np.full((2, 4, 3), RED, np.uint8)
        assert (decode(save(tmp_path / "b.png", color), Form(4, 4, 3)) == RED).all()

    def test_pad_keeps_the_ratio(self, tmp_path):
        wide = np.zeros((2, 4), np.uint8)
        wide[:, 1:3] = 200
        decoded = decode(save(tmp_path / "a.png", wide), Form(4, 4, 1))
        assert decoded[..., 0].tolist() == [[0] * 4, [0, 200, 200, 0], [0, 200, 200, 0], [0] * 4]

    def test_crop_keeps_the_middle(self, tmp_path):
        wide = np.array([[0, 50, 60, 0], [0, 50, 60, 0]], np.uint8)
        decoded = decode(save(tmp_path / "a.png", wide), Form(2, 2, 1, "crop"))
        assert decoded[..., 0].tolist() == [[50, 60], [50, 60]]

    def test_stretch_uses_all_pixels(self, tmp_path):
        wide = np.array([[0, 0, 200, 200]], np.uint8)
        decoded = decode(save(tmp_path / "a.png", wide), Form(2, 2, 1, "stretch"))
        left, right = decoded[0, :, 0]
        assert left < 50 < 150 < right


def png_chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_claiming(width, height):
    """A PNG whose header promises more than its few bytes hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = png_chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + pixels + png_chunk(b"IEND", b"")


class TestUnreadable:
    @pytest.mark.parametrize(
        "content",
        [b"", b"text", b"\x89PNG\r\n\x1a\n", png_claiming(30000, 30000), png_claiming(2, 2)],
        ids=["empty", "text", "cut", "bomb", "truncated"],
    )
    def test_is_an_error_that_names_the_file(self, tmp_path, content):
        path = tmp_path / "broken.png"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"broken\.png: must be a picture"):
            decode(path, GRAY)
        assert survey([path]) == (None, False)

    def test_missing(self, tmp_path):
        with pytest.raises(DataError, match=r"no such file\. Check its path\.$"):
            decode(tmp_path / "none.png", GRAY)

    @pytest.mark.parametrize("side", [10_000, 20_000])
    def test_too_many_pixels_in_one_line(self, tmp_path, side):
        """Pillow warns of the first and refuses the second in words of its own."""
        (tmp_path / "huge.png").write_bytes(png_claiming(side, side))
        code = (
            "from cae.data.pictures import *; print(survey(['huge.png'])); decode('huge.png', ANY)"
        )
        done = run_python("-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT))
        assert done.stdout == "(None, False)\n"
        assert "Warning" not in done.stderr
        last = done.stderr.splitlines()[-1]
        assert re.search(r"huge\.png: must be a picture, got .*over 89,478,485[^.]*\. Rep", last)

    def test_pixels_of_an_unknown_range(self, tmp_path):
        with pytest.raises(DataError, match=r"0\.0 to 300\.0 instead of 0 to 1"):
            decode(save(tmp_path / "a.tiff", np.array([[0, 300]], np.float32)), GRAY)


class TestSurvey:
    def test_the_most_frequent_size(self, tmp_path):
        sizes = [(3, 5), (4, 4), (3, 5)]  # height, width
        files = [
            save(tmp_path / f"{i}.png", np.zeros(size, np.uint8)) for i, size in enumerate(sizes)
        ]
        assert survey(files) == ((3, 5), False)

    def test_at_most_64_pixels_a_side(self, tmp_path):
        assert survey([save(tmp_path / "a.png", plain("L", 0, (640, 480)))])[0] == (48, 64)
        assert survey([save(tmp_path / "b.png", plain("L", 0, (1, 1000)))])[0] == (64, 1)

    def test_gray_pictures_stored_in_colour_are_gray(self, tmp_path):
        gray = save(tmp_path / "gray.png", plain("RGB", (9, 9, 9)))
        red = save(tmp_path / "red.png", plain("RGB", RED))
        assert survey([gray])[1] is False
        assert survey([gray, red])[1] is True


def test_images_of_other_channels_become_gray_pictures():
    """Of 5 channels, one is 1: a fifth of 255."""
    image = np.zeros((2, 3, 5))
    image[..., 4] = 1
    picture = Image.open(io.BytesIO(encode_png(image)))
    assert (picture.mode, picture.size) == ("L", (3, 2))
    assert np.unique(np.asarray(picture)).tolist() == [51]
