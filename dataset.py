"""Data sets: named ones and files, pixel scaling, the validation split, and classes.

Images stay in the type of their file until a batch of them is scaled to float32 in [0, 1]. A named
data set lives under `data/` in the four files that MNIST was published in; what is missing there is
made (`digits`) or downloaded and verified by checksum. Nothing here imports Keras.

Sources: MNIST, Y. LeCun, C. Cortes and C. Burges, http://yann.lecun.com/exdb/mnist/.
Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747. Kuzushiji-MNIST, T. Clanuwat
et al., arXiv:1812.01718. Digits, E. Alpaydin and C. Kaynak, doi:10.24432/C50P49.
"""

import difflib
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

import idx
from errors import DataError, UsageError

Split = Literal["train", "test"]
Role = Literal["images", "labels"]

DATA_DIR = Path(__file__).resolve().parent / "data"
FILE_NAMES: dict[tuple[Split, Role], str] = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
LABELS_FLAGS = {"train": "-dl", "test": "-tl"}
DOWNLOAD_TIMEOUT = 30  # seconds of silence before a mirror is given up


@dataclass(frozen=True)
class NamedDataset:
    """What is known of a named data set before any of its files is there.

    Attributes:
        mirrors: Addresses that the names of the gzip-compressed files are appended to, tried in
            order; empty for a data set that is made here.
        content_sha256: SHA-256 of the uncompressed content by file name, whatever compressed it.
        gzip_md5: MD5 of the published gzip files by name, where only that is known.
        class_names: What the labels 0, 1, ... stand for, if they are no digits.
    """

    mirrors: tuple[str, ...] = ()
    content_sha256: dict[str, str] = field(default_factory=dict)
    gzip_md5: dict[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


NAMED_DATASETS = {
    "digits": NamedDataset(),
    "mnist": NamedDataset(
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        content_sha256={
            "train-images-idx3-ubyte": (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            "train-labels-idx1-ubyte": (
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
            ),
            "t10k-images-idx3-ubyte": (
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
            ),
            "t10k-labels-idx1-ubyte": (
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
            ),
        },
    ),
    "fashion_mnist": NamedDataset(
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        gzip_md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        class_names=(
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "kmnist": NamedDataset(
        mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        gzip_md5={
            "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
            "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
            "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
            "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
        },
        class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with their labels, if any, and where they came from.

    Attributes:
        name: The named data set, or the name of the file of images.
        images: (num_images, height, width, channels) in the type of the file.
        labels: int64 (num_images,), any integers; None without labels.
        class_names: Names of the labels, for named data sets whose labels are no digits.
        files: For the record of a run, one dict a file: `path`, `sha256` of the file as stored,
            and `bytes`.
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    class_names: dict[int, str]
    files: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Scaling:
    """How pixels become float32 in [0, 1]: (pixel - offset) / scale, clipped.

    Attributes:
        offset: Pixel value that becomes 0.
        scale: Difference between the pixel values that become 1 and 0.
        dtype: Type of the training images, e.g. `uint8`.
    """

    offset: float
    scale: float
    dtype: str

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Scales images of any shape to float32 in [0, 1]."""
        # float32 holds 8 and 16 bit integers exactly; wider types need float64 on the way.
        exact = np.result_type(images.dtype, np.float32)
        scaled = np.subtract(images, self.offset, dtype=exact)
        scaled /= self.scale
        return scaled.clip(0, 1, out=scaled).astype(np.float32, copy=False)


def check_dataset(
    images: str,
    labels: str | None = None,
    *,
    split: Split = "train",
    labels_required: bool = False,
) -> tuple[int, tuple[int, int, int]]:
    """Checks a data set from the headers of its files; makes or downloads a named one first.

    Args:
        images: Path of an idx file of images, or a name from `NAMED_DATASETS`. A file that has
            such a name can be given as `./mnist`.
        labels: Path of an idx file of labels, or such a name; by default those of a named data set.
        split: Which part of a named data set, and which flags an error names.
        labels_required: Whether images without labels are an error.

    Returns:
        The number of images and their shape (height, width, channels).

    Raises:
        DataError: A file or named data set cannot be used, or images and labels differ in number.
        UsageError: Labels are required and there are none.
    """
    images_path, labels_path = _find_files(images, labels, split, labels_required)
    header = idx.read_images_header(images_path)
    num_images, height, width, *channels = header.shape
    if labels_path is not None:
        (num_labels,) = idx.read_labels_header(labels_path).shape
        if num_labels != num_images:
            raise DataError(
                labels_path,
                f"must hold one label for each of the {num_images} images in {images_path}",
                f"{num_labels} labels",
                "Give images and labels that belong together.",
            )
    return num_images, (height, width, *(channels or [1]))


def load_dataset(
    images: str,
    labels: str | None = None,
    *,
    split: Split = "train",
    limit: int | None = None,
    labels_required: bool = False,
) -> Dataset:
    """Loads images and labels, checked and, for a named data set, verified.

    Args:
        images: As for `check_dataset`, like `labels`, `split` and `labels_required`.
        labels: See there.
        split: See there.
        limit: Load only the first `limit` images and labels.
        labels_required: See there.

    Raises:
        DataError: As for `check_dataset`, or the values of a file cannot be used.
        UsageError: As for `check_dataset`, or `limit` is less than 1.
    """
    check_dataset(images, labels, split=split, labels_required=labels_required)
    images_path, labels_path = _find_files(images, labels, split, labels_required)
    _verify_named_file(images, images_path)
    if labels_path is not None:
        _verify_named_file(labels or images, labels_path)
    named = NAMED_DATASETS.get(labels or images)
    return Dataset(
        name=images if images in NAMED_DATASETS else images_path.name,
        images=idx.read_images(images_path, limit),
        labels=None if labels_path is None else idx.read_labels(labels_path, limit),
        class_names=dict(enumerate(named.class_names)) if named else {},
        files=tuple(get_record(path) for path in (images_path, labels_path) if path is not None),
    )


def get_scaling(images: np.ndarray) -> Scaling:
    """Chooses the scaling from the training images, by their type and range.

    Floats within [0, 1] and images of 0 and 1 alone are left as they are, bytes and other integers
    within 0 to 255 are divided by 255, and anything else is brought from its own minimum and
    maximum to [0, 1].
    """
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif images.dtype.kind != "f" and low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    return Scaling(offset=low, scale=high - low or 1.0, dtype=images.dtype.name)


def check_same_kind(scaling: Scaling, images: np.ndarray, where: object) -> None:
    """Raises a DataError if `images` are floats where the training images were not, or reverse."""
    if (images.dtype.kind == "f") != (np.dtype(scaling.dtype).kind == "f"):
        raise DataError(
            where,
            f"must hold pixels of the kind the model was trained on ({scaling.dtype})",
            images.dtype.name,
            "Convert the images to that type and range.",
        )


def split_validation(
    num_images: int, share: float, seed: int, labels: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the training images into those to train on and those to validate on.

    With labels every class gives its share, rounded down or up so that the total comes as near to
    `share * num_images` as that allows; every class keeps an image to train on.

    Args:
        num_images: How many training images there are.
        share: Part of them to validate on, in [0, 1).
        seed: Seed of the draw.
        labels: int64 (num_images,), to draw from each class alike.

    Returns:
        Indices to train on and to validate on: int64, sorted, disjoint, together all images.

    Raises:
        DataError: `share` is above 0 and there are too few images for both.
    """
    classes = np.zeros(num_images, np.int64) if labels is None else labels
    _, class_of, counts = np.unique(classes, return_inverse=True, return_counts=True)
    taken = _share_out(counts, share) if share > 0 else np.zeros_like(counts)
    if share > 0 and not taken.any():
        raise DataError(
            "validation_split",
            "needs two images or more, and two of some class when there are labels",
            f"{num_images} in {len(counts)} classes" if labels is not None else num_images,
            "Give more images, or set validation_split to 0.",
        )
    rng = np.random.default_rng(seed)
    validation = np.zeros(num_images, bool)
    for index, count in enumerate(taken):
        validation[rng.permutation(np.flatnonzero(class_of == index))[:count]] = True
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def get_classes(labels: np.ndarray) -> np.ndarray:
    """The classes among training labels: int64, sorted, each once."""
    return np.unique(labels).astype(np.int64)


def encode_labels(labels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Turns labels into indices of classes.

    Args:
        labels: Integers (num_images,).
        classes: The classes seen in training, from `get_classes`.

    Returns:
        int32 (num_images,): positions in `classes`, -1 for a label that training never saw.
    """
    indices = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    return np.where(classes[indices] == labels, indices, -1).astype(np.int32)


def _share_out(counts: np.ndarray, share: float) -> np.ndarray:
    """How many images of each class to validate on: the method of largest remainders."""
    quotas = share * counts
    taken = np.minimum(np.floor(quotas).astype(int), counts - 1)
    spare = np.maximum(round(quotas.sum()), 1) - taken.sum()
    can_round_up = (quotas > taken) & (taken < counts - 1)
    by_remainder = np.argsort(taken - quotas, kind="stable")
    taken[by_remainder[can_round_up[by_remainder]][:spare]] += 1
    return taken


def _find_files(
    images: str, labels: str | None, split: Split, labels_required: bool
) -> tuple[Path, Path | None]:
    """Paths of the images and of the labels, if there are any."""
    if labels is None and images in NAMED_DATASETS:
        labels = images
    if labels is None and labels_required:
        raise UsageError(
            LABELS_FLAGS[split],
            f"must give the labels of the images in {images}",
            "nothing",
            f"Add {LABELS_FLAGS[split]} FILE, or name a data set: {', '.join(NAMED_DATASETS)}.",
        )
    images_path = _find_file(images, split, "images")
    return images_path, None if labels is None else _find_file(labels, split, "labels")


def _find_file(source: str, split: Split, role: Role) -> Path:
    """The path that `source` is, or the file of the named data set that it names."""
    if source in NAMED_DATASETS:
        return _find_named_file(source, split, role)
    path = Path(source)
    nearest = difflib.get_close_matches(str(source).lower(), NAMED_DATASETS, n=1)
    if nearest and not path.exists():
        raise DataError(
            source,
            f"must be a file or one of {', '.join(NAMED_DATASETS)}",
            "neither",
            f"Did you mean {nearest[0]}?",
        )
    return path


def _find_named_file(name: str, split: Split, role: Role) -> Path:
    """The file of a named data set, made or downloaded if it is not there."""
    raw = DATA_DIR / name / FILE_NAMES[split, role]
    compressed = raw.with_name(f"{raw.name}.gz")
    try:
        for path in (raw, compressed):
            if path.exists():
                _check_named_header(name, path)
                return path
        with _new_folder(raw.parent):
            if NAMED_DATASETS[name].mirrors:
                _download(name, compressed)
                return compressed
            _make_digits(raw, split, role)
            return raw
    except OSError as error:
        raise DataError(
            raw.parent,
            "must be a folder that can be read and written",
            error.strerror,
            "Change that, or give the paths of your own files.",
        ) from error


def _check_named_header(name: str, path: Path) -> None:
    try:
        idx.read_header(path)
    except DataError as error:
        raise _get_wrong_file_error(name, path) from error


def _verify_named_file(name: str, path: Path) -> None:
    """Compares a file of a named data set with its checksum; any other file is as good as it is."""
    if name in NAMED_DATASETS and not _has_known_content(name, path.name, path):
        raise _get_wrong_file_error(name, path)


def _get_wrong_file_error(name: str, path: Path) -> DataError:
    return DataError(
        path,
        f"must be the file that belongs to {name}",
        "a damaged or different one",
        "Delete it to have it made or downloaded again, or give its path instead of the name.",
    )


def _has_known_content(name: str, file_name: str, path: Path) -> bool:
    """Whether the content of `path` is that of a published file; True where none is known."""
    named = NAMED_DATASETS[name]
    content_name = file_name.removesuffix(".gz")
    try:
        if content_name in named.content_sha256:
            with idx.open_content(path) as file:
                return _get_digest(file, "sha256") == named.content_sha256[content_name]
        if file_name in named.gzip_md5:
            with path.open("rb") as file:
                return _get_digest(file, "md5") == named.gzip_md5[file_name]
    except DataError:  # not even a whole gzip file
        return False
    return True


def _get_digest(file: BinaryIO, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while chunk := file.read(idx.CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def get_record(path: str | Path) -> dict[str, Any]:
    """What tells a file from another, as in `Dataset.files`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            digest = _get_digest(file, "sha256")
        return {"path": str(path), "sha256": digest, "bytes": path.stat().st_size}
    except OSError as error:
        raise DataError(
            path, "must stay where it is", error.strerror, "Put it back and start again."
        ) from error


@contextmanager
def _new_folder(folder: Path) -> Iterator[None]:
    """Makes a folder, and removes it again if it is new and nothing got into it."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _download(name: str, path: Path) -> None:
    """Downloads one published file from the first mirror that has it whole."""
    from http.client import HTTPException

    mirrors, failures = NAMED_DATASETS[name].mirrors, []
    for mirror in mirrors:
        try:
            with idx.replace_file(path) as file:
                _fetch(mirror + path.name, file)
                file.flush()
                if not _has_known_content(name, path.name, Path(file.name)):
                    raise ValueError("not the published file")
            return
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{error} ({mirror})")
    names = ", ".join(f"{file_name}.gz" for file_name in FILE_NAMES.values())
    raise DataError(
        path,
        "must be downloaded first",
        "; ".join(failures),
        f"Put the gzip-compressed idx files {names} from {mirrors[0]} into {path.parent} by "
        "hand, or use digits, which needs no network.",
    )


def _fetch(url: str, file: BinaryIO) -> None:
    """Copies what an address sends into `file`, with a progress bar on standard error."""
    from urllib.request import urlopen

    from rich.console import Console
    from rich.progress import wrap_file

    with (
        urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response,
        wrap_file(
            response,
            total=response.length or 0,  # a server need not say how much it will send
            description=url.rpartition("/")[2],
            console=Console(stderr=True),
        ) as body,
    ):
        shutil.copyfileobj(body, file)


def _make_digits(path: Path, split: Split, role: Role) -> None:
    """Writes one file of `digits`: scikit-learn's 8 x 8 digits, laid out like MNIST's.

    The digits fill 20 x 20 pixels in the middle of 28 x 28. The last fifth of each class is for
    testing; the original order goes by writer, so that hardly any wrote in both parts.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    is_test = np.zeros(len(digits.target), bool)
    for digit in range(10):
        members = np.flatnonzero(digits.target == digit)
        is_test[members[-(len(members) // 5) :]] = True
    chosen = is_test if split == "test" else ~is_test
    if role == "labels":
        idx.write_idx(path, digits.target[chosen].astype(np.uint8))
        return
    # grid_mode: pixels are areas, so that the digit stays in the middle.
    images = zoom(
        digits.images[chosen], (1, 2.5, 2.5), order=3, mode="grid-constant", grid_mode=True
    )
    images = np.rint(images.clip(0, 16) * (255 / 16)).astype(np.uint8)
    idx.write_idx(path, np.pad(images, ((0, 0), (4, 4), (4, 4))))
