"""Pictures in files, such as PNG and JPEG, to arrays: everything is decoded by Pillow.

All pictures of a data set become uint8 arrays of one form: a size, and gray or RGB. Of an animation
the first frame counts. Transparent pixels become white, 16-bit pixels 8-bit, and a photograph is
turned as its camera says.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from cae.config.choices import RESIZE
from cae.errors import DataError

# Not all that Pillow reads: it starts Ghostscript for EPS, and guesses formats without a signature.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
MAX_PIXELS = 89_478_485  # as Pillow's own limit: 256 MB of RGB
MAX_SIDE = 64  # pixels, unless a size is asked for


@dataclass(frozen=True)
class Form:
    """What pictures are brought to.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: 1 for gray, 3 for RGB.
        resize: How another ratio of the sides fits: `pad` adds borders in the median colour of the
            picture's edges, `crop` cuts off what is too much, `stretch` distorts.
    """

    height: int
    width: int
    channels: int
    resize: str = RESIZE[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels


def decode(file: str | Path | BinaryIO, form: Form) -> np.ndarray:
    """Decodes one picture: uint8 `form.shape`.

    Raises:
        DataError: It cannot be read; the message says why.
    """
    try:
        picture = _open(file, least=2 * max(form.height, form.width))
        picture = picture.convert("L" if form.channels == 1 else "RGB")
        return np.asarray(_resize(picture, form)).reshape(form.shape)
    except Exception as error:  # Pillow raises errors of all kinds for damaged files
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            getattr(file, "name", file), "must be a picture", reason, "Replace or remove the file."
        ) from error


def survey(files: Iterable[str | Path]) -> tuple[tuple[int, int] | None, bool]:
    """Looks at pictures to choose a form for them; those that cannot be read do not count.

    Returns:
        The most frequent (height, width), reduced to `MAX_SIDE` with its ratio kept; None if no
        picture can be read. And whether any of them has colour.
    """
    sizes: Counter[tuple[int, int]] = Counter()
    is_coloured = False
    for file in files:
        try:
            with Image.open(file, formats=FORMATS) as header:
                width, height = header.size
            picture = _open(file, least=MAX_SIDE)
        except Exception:  # as in `decode`, which will name the file
            continue
        if (width > height) != (picture.width > picture.height):  # turned
            width, height = height, width
        sizes[height, width] += 1
        is_coloured = is_coloured or _has_colour(picture)
    if not sizes:
        return None, False
    ((height, width), _) = sizes.most_common(1)[0]
    scale = min(MAX_SIDE / max(height, width), 1)
    return (max(round(height * scale), 1), max(round(width * scale), 1)), is_coloured


def _open(file: str | Path | BinaryIO, least: int) -> Image.Image:
    """Decodes the first frame, upright and opaque, to mode L or RGB.

    A large JPEG may come smaller, with both sides at least `least`.
    """
    picture = Image.open(file, formats=FORMATS)
    with picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels, over {MAX_PIXELS:,}")
        picture.draft(None, (least, least))  # JPEG only: decodes a half, quarter or eighth
        picture.load()
        picture = ImageOps.exif_transpose(picture)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    elif picture.mode[0] in "IF":
        picture = _reduce_depth(picture)
    return picture if picture.mode == "L" else picture.convert("RGB")


def _has_colour(picture: Image.Image) -> bool:
    pixels = np.asarray(picture)
    return pixels.ndim == 3 and bool((pixels != pixels[..., :1]).any())


def _reduce_depth(picture: Image.Image) -> Image.Image:
    """Pixels of 16 bits, or floating point in [0, 1], to 8 bits."""
    pixels = np.asarray(picture)
    most = 1 if picture.mode == "F" else 65535
    low, high = pixels.min(), pixels.max()
    if not (low >= 0 and high <= most):
        raise ValueError(f"pixels from {low} to {high} instead of 0 to {most}")
    return Image.fromarray(np.rint(pixels * (255 / most)).astype(np.uint8))


def _resize(picture: Image.Image, form: Form) -> Image.Image:
    size = form.width, form.height
    if picture.size == size:
        return picture
    if form.resize == "stretch":
        return picture.resize(size)
    if form.resize == "crop":
        return ImageOps.fit(picture, size)
    pixels = np.asarray(picture)
    edges = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    color = np.median(edges, axis=0).astype(int)
    return ImageOps.pad(picture, size, color=tuple(color.tolist()) if color.ndim else int(color))
