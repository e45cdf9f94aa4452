"""Pictures in files, such as PNG and JPEG, to arrays: everything is decoded by Pillow.

All pictures of a data set become uint8 arrays of one form: a size, and gray or RGB. Of an animation
the first frame counts. Transparent pixels become white, 16-bit pixels 8-bit, and a photograph is
turned as its camera says.

They are decoded once, into an array in `data/cache/` that is named by a hash of the form and of
the names, sizes and times of the files: a changed file is decoded again. Parts of large data sets,
and joined or inverted ones, are cached there too. That folder may be deleted.
"""

import hashlib
import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cae import terminal
from cae.config.choices import RESIZE
from cae.config.shapes import format_shape
from cae.data.arrays import growing_npy
from cae.data.idx import MAPPED_BYTES
from cae.data.listing import Listing
from cae.data.splits import spread_out
from cae.data.stored import get_full_remedy, make_data_folder
from cae.errors import DataError, as_sentence
from cae.files import write_json

# Not all that Pillow reads: it starts Ghostscript for EPS, and guesses formats without a signature.
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "AVIF", "GIF", "JPEG2000", "PPM")
MAX_PIXELS = 89_478_485  # as Pillow's own limit: 256 MB of RGB
MAX_SIDE = 64  # pixels, unless a size is asked for
SURVEYED = 200  # pictures, evenly spaced, that decide about size and colour
MAX_UNREADABLE = 0.01  # of the files
FILES_AT_ONCE = 1024
TASK = 32  # pictures that a thread decodes before it takes others: each taking costs as much as one
# Bytes. With two cores, one thread is faster for PNG files of 8 KB, two for those of 27 KB.
SMALL_FILE = 16_000
READ_AT_ONCE = 65536  # bytes; Pillow asks for a few at a time, which costs a tenth of decoding
# Where a picture says, apart from the tags of TIFF, that it lies on its side.
ORIENTED = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
IMAGES_AT_ONCE = 4096
HASH_LETTERS = 32
CACHE = "cache"
MISSING = "no such file"

# Such a picture is an error here, which says more.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

T = TypeVar("T")
File = str | Path | BinaryIO


# --- One picture ----------------------------------------------------------------------------


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


ANY = Form(1, 1, 1)


class UnreadablePicture(DataError):
    """A picture that cannot be read, and the `reason`."""

    def __init__(self, file: File, reason: str):
        name = file if isinstance(file, str | Path) else getattr(file, "name", "standard input")
        remedy = "Check its path." if reason == MISSING else "Replace or remove the file."
        super().__init__(name, "must be a picture", reason, remedy)
        self.reason = reason


def decode(file: File, form: Form) -> np.ndarray:
    """Decodes one picture: uint8 `form.shape`.

    Raises:
        UnreadablePicture: It cannot be read; the message says why.
    """
    try:
        picture = _open(file, least=2 * max(form.height, form.width))
        mode = "L" if form.channels == 1 else "RGB"
        picture = picture if picture.mode == mode else picture.convert(mode)
        # With half of the calls that numpy.asarray makes.
        return np.frombuffer(_resize(picture, form).tobytes(), np.uint8).reshape(form.shape)
    except Exception as error:  # Pillow raises errors of all kinds for damaged files
        raise UnreadablePicture(file, _say_why(file, error)) from error


def _say_why(file: File, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, Image.DecompressionBombError):
        return f"over {MAX_PIXELS:,} pixels"
    if not isinstance(error, UnidentifiedImageError):
        return str(getattr(error, "strerror", None) or error).rstrip(".")
    with suppress(OSError, TypeError):  # not the name of a file
        if os.path.getsize(file) == 0:  # noqa: PTH202
            return "an empty file"
    return f"a file in none of the formats {', '.join(FORMATS)}"


def decode_ahead(
    parts: Iterable[Sequence[File]], form: Form
) -> Iterator[tuple[File, np.ndarray | UnreadablePicture]]:
    """Decodes parts of many pictures, each while the one before it is in use.

    Small files keep the interpreter busy, for whose lock threads only wait: one thread decodes
    them, several the larger ones, which Pillow decodes without that lock.

    Yields:
        Each file with its image, or with the error that says why it cannot be read.
    """

    def attempt(files: Sequence[File]) -> list[np.ndarray | UnreadablePicture]:
        images: list[np.ndarray | UnreadablePicture] = []
        for file in files:
            try:
                images.append(decode(file, form))
            except UnreadablePicture as error:
                images.append(error)
        return images

    before: Iterable[tuple[File, np.ndarray | UnreadablePicture]] = ()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(os.cpu_count()) as several:
        for files in parts:
            pool = one if _are_small(files) else several
            tasks = [files[start : start + TASK] for start in range(0, len(files), TASK)]
            decoding = zip(files, chain.from_iterable(pool.map(attempt, tasks)), strict=True)
            yield from before
            before = decoding
        yield from before


def _are_small(files: Sequence[File]) -> bool:
    sizes = []
    for file in spread_out(files, TASK):
        with suppress(OSError, TypeError):  # `decode` says why it cannot be read
            sizes.append(os.path.getsize(file))  # noqa: PTH202 - a third faster
    return not sizes or sum(sizes) / len(sizes) < SMALL_FILE


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


def _open(file: File, least: int) -> Image.Image:
    """Decodes the first frame, upright and opaque, to mode L or RGB.

    A large JPEG may come smaller, with both sides at least `least`.
    """
    if not isinstance(file, str | Path):
        return _load_first(file, least)
    with open(file, "rb", buffering=0) as raw:  # noqa: PTH123 - a tenth of the time of Path.open
        start, more = raw.read(READ_AT_ONCE), raw.read(1)
        if not more:
            return _load_first(io.BytesIO(start), least)
        if raw.seekable():
            return _load_first(io.BufferedReader(raw), least)
        return _load_first(io.BytesIO(start + more + raw.readall()), least)


def _load_first(content: BinaryIO, least: int) -> Image.Image:
    picture = Image.open(content, formats=FORMATS)
    with picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} pixels, over {MAX_PIXELS:,}")
        picture.draft(None, (least, least))  # JPEG only: decodes a half, quarter or eighth
        picture.load()
        if picture.format == "TIFF" or not ORIENTED.isdisjoint(picture.info):
            ImageOps.exif_transpose(picture, in_place=True)
    if picture.mode[0] in "IF":  # before transparency: Pillow would cut the pixels at 255
        picture = _reduce_depth(picture)
    elif picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture if picture.mode in ("L", "RGB") else picture.convert("RGB")


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


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1] as uint8, without the axis of a single channel."""
    pixels = (255 * images.clip(0, 1)).round().astype(np.uint8)
    return pixels.squeeze(axis=-1) if pixels.shape[-1] == 1 else pixels


def encode_png(image: np.ndarray) -> bytes:
    """The PNG file of an image (height, width, channels) in [0, 1]."""
    if image.shape[-1] not in (1, 3):
        image = image.mean(axis=-1, keepdims=True)  # as in figures
    content = io.BytesIO()
    Image.fromarray(to_bytes(image)).save(content, "PNG")
    return content.getvalue()


# --- The pictures of a data set ---------------------------------------------------------------


class Decoded(NamedTuple):
    """Decoded pictures.

    Attributes:
        images: uint8 (num_images, height, width, channels); on the disk if they are large.
        kept: bool (num_files,), which files of the listing they are.
        skipped: The other files, with the reason.
    """

    images: np.ndarray
    kept: np.ndarray
    skipped: dict[str, str]


def decode_listing(
    listing: Listing, size: tuple[int, int] | None, channels: int | None, resize: str
) -> Decoded:
    """Decodes all pictures, or reads them from the cache.

    Args:
        listing: The pictures.
        size: Height and width; None to choose them by the pictures.
        channels: 1 or 3; None to choose them by the pictures.
        resize: How other ratios are fitted, one of `RESIZE`.

    Raises:
        DataError: More than `MAX_UNREADABLE` of the files cannot be read.
        UsageError: The cache cannot be written.
    """
    folder = make_data_folder(CACHE)
    with terminal.announcing(f"Looking at the files of {listing.root}"):
        key = _hash(listing)
    if size and channels:
        form = Form(*size, channels, resize)
    else:
        form = _choose_form(listing, size, channels, resize, folder / f"{key}.json")
    name = hashlib.sha256(f"{key} {astuple(form)}".encode()).hexdigest()[:HASH_LETTERS]
    path = folder / f"{name}.npy"
    skipped_path = path.with_suffix(".json")
    try:
        skipped = json.loads(skipped_path.read_bytes())
        images = _load(path)
        kept = np.array([file not in skipped for file in listing.files])
        if images.shape != (kept.sum(), *form.shape):
            raise ValueError("a damaged cache")
    except (OSError, ValueError, TypeError):
        skipped = _fill(path, listing, form)
        write_json(skipped_path, skipped, get_full_remedy())
        images = _load(path)
        kept = np.array([file not in skipped for file in listing.files])
    return Decoded(images, kept, skipped)


def take(images: np.ndarray, indices: np.ndarray, key: str) -> np.ndarray:
    """Some of the images: in memory, or in a file of the cache if they are many.

    Args:
        images: (num_images, height, width, channels).
        indices: Their positions.
        key: Identifies the images, such as their SHA-256.
    """
    if len(indices) == len(images):
        return images
    if len(indices) * images[0].nbytes <= MAPPED_BYTES or images.dtype != np.uint8:
        return images[indices]
    parts = (images[some] for some in _chunk(indices))
    return _keep(parts, (len(indices), *images.shape[1:]), key.encode() + indices.tobytes())


def join(first: np.ndarray, second: np.ndarray, key: str) -> np.ndarray:
    """The images of two arrays of the same shape: in memory, or in a file of the cache.

    Args:
        first: (num_images, height, width, channels).
        second: The same of any number of images.
        key: Identifies both.
    """
    are_bytes = first.dtype == second.dtype == np.uint8
    if first.nbytes + second.nbytes <= MAPPED_BYTES or not are_bytes:
        return np.concatenate([first, second])
    parts = (images[some] for images in (first, second) for some in _chunk(range(len(images))))
    return _keep(parts, (len(first) + len(second), *first.shape[1:]), key.encode())


def convert(images: np.ndarray, change: Callable[[np.ndarray], np.ndarray], key: str) -> np.ndarray:
    """Changed images of the same shape: in memory, or in a file of the cache if they are many.

    Args:
        images: (num_images, height, width, channels).
        change: What is done to some of them; their type stays.
        key: Identifies the images and the change.
    """
    if images.nbytes <= MAPPED_BYTES or images.dtype != np.uint8:
        return change(images)
    parts = (change(images[some]) for some in _chunk(range(len(images))))
    return _keep(parts, images.shape, key.encode())


def _chunk(indices: Sequence[int]) -> Iterator[Sequence[int]]:
    starts = range(0, len(indices), IMAGES_AT_ONCE)
    return (indices[start : start + IMAGES_AT_ONCE] for start in starts)


def _keep(parts: Iterable[np.ndarray], shape: tuple[int, ...], key: bytes) -> np.ndarray:
    """An array of that shape in the cache; its parts are only needed if it is not there yet."""
    path = make_data_folder(CACHE) / f"{hashlib.sha256(key).hexdigest()[:HASH_LETTERS]}.npy"
    if not path.exists():
        with (
            terminal.announcing(f"Writing {path}"),
            growing_npy(path, shape[1:], np.uint8, get_full_remedy()) as write,
        ):
            for part in parts:
                write(part)
    return _load(path)


def _hash(listing: Listing) -> str:
    digest = hashlib.sha256(" ".join(FORMATS).encode())
    digest.update(str(listing.root.resolve()).encode(errors="surrogateescape"))
    for file in listing.files:
        try:
            status = os.stat(listing.root / file)  # noqa: PTH116 - a third faster
            line = f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        except OSError as error:
            line = f"{file}\0{error.errno}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:HASH_LETTERS]


def _choose_form(
    listing: Listing,
    size: tuple[int, int] | None,
    channels: int | None,
    resize: str,
    record: Path,
) -> Form:
    """What is left open is looked up in the pictures, once."""
    try:
        frequent, is_coloured = json.loads(record.read_bytes())
    except (OSError, ValueError, TypeError):
        some = replace(listing, files=spread_out(listing.files, SURVEYED))
        looked_at = [listing.root / file for file in some.files]
        message = f"Looking at {len(looked_at):,} pictures"
        frequent, is_coloured = survey(_track(looked_at, message))
        if frequent is None:
            decoded = _decode_all(some, ANY)
            unreadable = {x: why for x, why in decoded if isinstance(why, UnreadablePicture)}
            raise _get_unreadable_error(listing.root, unreadable, len(looked_at)) from None
        write_json(record, [frequent, is_coloured], get_full_remedy())
        found = []
        if not size:
            most = f"at most {MAX_SIDE} pixels per side"
            found.append(f"the most frequent size, {most}, is {format_shape(frequent)}")
        if not channels:
            found.append(f"the pictures are {'in colour' if is_coloured else 'gray'}")
        sentence = f"{as_sentence('; '.join(found))}. Choose others with --image-size and --color."
        terminal.print_sentence(terminal.ERR, sentence)
    return Form(*(size or frequent), channels or (3 if is_coloured else 1), resize)


def _fill(path: Path, listing: Listing, form: Form) -> dict[str, str]:
    """Decodes the pictures into a `.npy` file; returns those that cannot be read."""
    unreadable: dict[str, UnreadablePicture] = {}
    with growing_npy(path, form.shape, np.uint8, get_full_remedy()) as write:
        for name, pixels in _decode_all(listing, form):
            if isinstance(pixels, np.ndarray):
                write(pixels[np.newaxis])
            else:
                unreadable[name] = pixels
        count = len(listing.files)
        if len(unreadable) > MAX_UNREADABLE * count:
            raise _get_unreadable_error(listing.root, unreadable, count)
    return {name: error.reason for name, error in unreadable.items()}


def _get_unreadable_error(
    root: Path, unreadable: Mapping[str, UnreadablePicture], count: int
) -> DataError:
    first = islice(unreadable.items(), 3)
    named = ", ".join(f"{name} ({error.reason})" for name, error in first)
    return DataError(
        root,
        f"must contain at most {MAX_UNREADABLE:.0%} unreadable pictures",
        f"{len(unreadable):,} of {count:,}: {named}" + ", …" * (len(unreadable) > 3),
        "Replace or remove these files.",
    )


def _decode_all(
    listing: Listing, form: Form
) -> Iterator[tuple[str, np.ndarray | UnreadablePicture]]:
    files = listing.files
    starts = _track(range(0, len(files), FILES_AT_ONCE), f"Decoding {len(files):,} pictures")
    parts = ([listing.root / x for x in files[start : start + FILES_AT_ONCE]] for start in starts)
    for name, (_, image) in zip(files, decode_ahead(parts, form), strict=True):
        yield name, image


def _track(items: Sequence[T], description: str) -> Iterable[T]:
    """The items, with a progress bar on standard error."""
    from rich.progress import track  # takes a while to load

    return track(items, description, console=terminal.ERR)


def _load(path: Path) -> np.ndarray:
    is_large = path.stat().st_size > MAPPED_BYTES
    return np.asarray(np.load(path, mmap_mode="r" if is_large else None))
