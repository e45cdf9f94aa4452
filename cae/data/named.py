"""Named data sets: finding, downloading, making and verifying their files.

A named data set is stored in `data/<name>/` in four idx files named like those of MNIST, whose
names many others share: checksums tell whose they are.

Sources: MNIST, Y. LeCun, C. Cortes and C. Burges, http://yann.lecun.com/exdb/mnist/.
Fashion-MNIST, H. Xiao, K. Rasul and R. Vollgraf, arXiv:1708.07747. Kuzushiji-MNIST, T. Clanuwat
et al., arXiv:1812.01718. Digits, E. Alpaydin and C. Kaynak, doi:10.24432/C50P49.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from cae import terminal
from cae.data import idx, stored
from cae.data.stored import get_data_root, make_data_folder, open_content
from cae.errors import DataError
from cae.files import get_digest, replace_file

Split = Literal["train", "test"]
Role = Literal["images", "labels"]

FILE_NAMES: dict[tuple[Split, Role], str] = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}
DOWNLOAD_TIMEOUT = 30  # seconds without data after which the next mirror is tried


@dataclass(frozen=True)
class NamedDataset:
    """Where a named data set comes from, and how to recognise it.

    Attributes:
        mirrors: URLs to which the name of a gzip-compressed file is appended, tried in order;
            empty for a data set that is made here.
        content_sha256: File name -> SHA-256 of the uncompressed content.
        gzip_md5: File name -> MD5 of the published gzip file, where only that is known.
        class_names: Names of the labels 0, 1, ..., unless they are digits.
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


def find_named_file(name: str, split: Split, role: Role) -> Path:
    """The file of a named data set, made or downloaded if it is missing."""
    file_name = FILE_NAMES[split, role]
    folder = stored.DATA_DIR / name
    try:
        found = _find_stored(folder, file_name)
        if not found:
            folder = get_data_root() / name
            found = _find_stored(folder, file_name)
        if not found:
            with _new_folder(name) as folder:
                return _make(name, folder / file_name, split, role)
    except OSError as error:
        raise DataError(
            folder,
            "must be readable and writable",
            error.strerror,
            "Free space, change its permissions, or give the paths of other files.",
        ) from error
    try:
        idx.read_header(found)
    except DataError as error:
        raise _get_wrong_file_error(name, found) from error
    return found


def _find_stored(folder: Path, file_name: str) -> Path | None:
    """The file as archives unpack it: in a folder, with a dot for a dash, compressed or not."""
    near = (*folder.glob("*"), *folder.glob("*/*"))
    found = (file for file in near if file.is_file() and _get_standard_name(file) == file_name)
    return min(found, default=None)


def _get_standard_name(path: Path) -> str:
    """The name in `FILE_NAMES` of a file such as ``train-images.idx3-ubyte.gz``."""
    return path.name.replace(".idx", "-idx").removesuffix(".gz")


def verify_file(given: str, path: Path) -> str | None:
    """Compares a file with the checksums of the named data sets, all of which use the same names.

    Args:
        given: The named data set that the file must be of, or its own path.
        path: The file.

    Returns:
        The named data set that it is of, if it is a published file.

    Raises:
        DataError: It is not of the named data set.
    """
    file_name = _get_standard_name(path)
    owner = _find_owner(file_name, path) if file_name in FILE_NAMES.values() else None
    named = NAMED_DATASETS.get(given, NamedDataset())
    is_known = file_name in named.content_sha256
    is_known |= path.suffix == ".gz" and f"{file_name}.gz" in named.gzip_md5
    if given in NAMED_DATASETS and owner != given and (owner or is_known):
        raise _get_wrong_file_error(given, path, owner)
    return owner


def _get_wrong_file_error(name: str, path: Path, owner: str | None = None) -> DataError:
    return DataError(
        path,
        f"must be the published file of {name}",
        f"that of {owner}" if owner else "a damaged, recompressed or different file",
        f"Move it out of the folder {name} to download or make it again, or give its path instead "
        "of the name.",
    )


def _find_owner(file_name: str, path: Path) -> str | None:
    """The named data set whose published file this is, by its checksum."""
    with path.open("rb") as file:
        digests = {get_digest(file, "md5")}
    with suppress(DataError), open_content(path) as file:  # a damaged gzip file
        digests.add(get_digest(file, "sha256"))
    for name, named in NAMED_DATASETS.items():
        known = {named.content_sha256.get(file_name), named.gzip_md5.get(f"{file_name}.gz")}
        if digests & known:
            return name
    return None


@contextmanager
def _new_folder(name: str) -> Iterator[Path]:
    """Makes the folder of a data set; removes it again if an error leaves it empty."""
    folder = make_data_folder(name)
    try:
        yield folder
    except BaseException:
        with suppress(OSError):
            folder.rmdir()
        raise


def _make(name: str, path: Path, split: Split, role: Role) -> Path:
    """Makes or downloads the file of a data set that is called `path` when it is unpacked."""
    if not NAMED_DATASETS[name].mirrors:
        _make_digits(path, split, role)
        return path
    compressed = path.with_name(f"{path.name}.gz")
    _download(name, compressed)
    return compressed


def _download(name: str, path: Path) -> None:
    """Downloads a file from the first mirror that serves it complete.

    Raises:
        DataError: None does.
        OSError: The disk is full.
    """
    from http.client import HTTPException

    mirrors, failures = NAMED_DATASETS[name].mirrors, []
    for mirror in mirrors:
        try:
            with replace_file(path) as file:
                _fetch(mirror + path.name, file)
                file.flush()
                if _find_owner(_get_standard_name(path), Path(file.name)) != name:
                    raise ValueError("not the published file")
            return
        except (OSError, HTTPException, ValueError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                raise
            failures.append(f"{error} ({mirror})")
    names = ", ".join(f"{file_name}.gz" for file_name in FILE_NAMES.values())
    raise DataError(
        path,
        "must be downloadable",
        "; ".join(failures),
        f"Put the files {names} from {mirrors[0]} into {path.parent}, as they are or unpacked, "
        "each in its own folder if you like; or use digits, which needs no network.",
    )


def _fetch(url: str, file: BinaryIO) -> None:
    """Copies the content of a URL into `file`, with a progress bar on standard error."""
    from urllib.request import urlopen

    from rich.progress import wrap_file

    with (
        urlopen(url, timeout=DOWNLOAD_TIMEOUT) as response,
        wrap_file(
            response,
            total=response.length or 0,  # a server may not send the length
            description=url.rpartition("/")[2],
            console=terminal.ERR,
        ) as body,
    ):
        shutil.copyfileobj(body, file)


def _make_digits(path: Path, split: Split, role: Role) -> None:
    """Writes a file of `digits`: scikit-learn's 8 x 8 digits in the layout of MNIST.

    The digits fill 20 x 20 pixels in the middle of 28 x 28. The last fifth of each class is for
    testing: the original order is by writer, so that few writers appear in both parts.
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
    # grid_mode: pixels are areas, which keeps the digit in the middle.
    images = zoom(
        digits.images[chosen], (1, 2.5, 2.5), order=3, mode="grid-constant", grid_mode=True
    )
    images = np.rint(images.clip(0, 16) * (255 / 16)).astype(np.uint8)
    idx.write_idx(path, np.pad(images, ((0, 0), (4, 4), (4, 4))))
