"""Finds the pictures of a data set and their classes: in a folder, or named by a table.

A folder holds one subfolder per class, and perhaps `unlabelled`, or pictures without labels; or
`train`, `val` and `test`, each with such content, and perhaps `unlabelled`. A table (CSV or TSV)
has the columns `path`, relative to the table, and `label`, which may be empty.
"""

import csv
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cae.config.choices import MAX_NAME
from cae.data.idx import name_idx_files
from cae.data.labels import NO_LABEL, as_labels
from cae.data.named import Split
from cae.errors import DataError, counted, listed, printable, shown

UNLABELLED = ("unlabelled", "unlabeled")  # folders that are not classes
PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PARTS |= {"training": "train", "testing": "test"}
PARTS |= dict.fromkeys(UNLABELLED, UNLABELLED[0])
TABLES = (".csv", ".tsv")
DELIMITERS = ",;\t"
# What other programs call the columns of a table, in small letters.
ALIASES = dict.fromkeys(("file", "filename", "image"), "path") | {"class": "label"}
IMAGE_SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif",
    ".avif", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm",
    # These are not read: they count as unreadable pictures, not as other files.
    ".heic", ".heif", ".jxl", ".psd", ".svg", ".tga",
}  # fmt: skip
NAME_PICTURES = "Names of pictures end in .png, .jpg and the like."
MOST_COLUMNS = 32  # of a table of pictures; Kaggle's MNIST has one per pixel
# What file managers and archives leave behind; so do names that begin with a dot.
IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}


@dataclass(frozen=True, eq=False)
class Listing:
    """Pictures in a fixed order.

    Attributes:
        root: The folder that holds them.
        files: Their paths from there.
        labels: int64 (num_files,), `NO_LABEL` for pictures without one; None if none has any.
        class_names: The name of each label.
        num_validation: So many of the last files are set aside for validation.
        others: Files that do not have the name of a picture.
    """

    root: Path
    files: list[str]
    labels: np.ndarray | None
    class_names: dict[int, str]
    num_validation: int = 0
    others: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        """The name of the class of every file; empty for a picture without a label."""
        if self.labels is None:
            return [""] * len(self.files)
        return [self.class_names.get(label, "") for label in self.labels.tolist()]


def list_pictures(source: Path, *, labelled: bool = True) -> dict[Split, Listing]:
    """Finds the pictures of a folder or a table: `train`, and `test` if they are set apart.

    Args:
        source: The folder or table.
        labelled: False takes all pictures of a folder, in whatever subfolders, without labels.

    Raises:
        DataError: There are none, or the folder is not laid out as described above.
    """
    if source.suffix.lower() in TABLES:
        return {"train": _list_table(source)}
    folders, files = _scan(source, source)
    list_folder = _list_folder if labelled else _list_all
    parts = {part: name for name in folders if (part := PARTS.get(name.lower()))}
    others = [name for name in folders if name.lower() not in PARTS]
    if "train" in parts and others and _scan(source / parts["train"], source)[0]:
        raise DataError(
            source / others[0],
            f"must not be next to {listed(parts.values(), 'and')}, which contain the images",
            None,
            "Move it out of this folder.",
        )
    if "train" not in parts and parts.keys() & {"test", "val"} and not others:
        for part in parts.values():  # which hold pictures if they are classes
            if _scan(source / part, source)[0]:
                got = listed([f"{name}/" for name in parts.values()], "and")
                remedy = "Add the folder of training images, or use one of these."
                raise DataError(source, "must contain train/", got, remedy)
    if "train" not in parts or len(parts) < len(folders):
        return {"train": list_folder(source, folders, files)}
    found = {}
    for part, name in parts.items():
        list_part = _list_all if part == UNLABELLED[0] else list_folder
        found[part] = list_part(source / name, *_scan(source / name, source))
    listings: dict[Split, Listing] = {"train": _join(source, parts, found)}
    if "test" in found:
        listings["test"] = found["test"]
    return listings


def name_classes(names: list[str]) -> tuple[np.ndarray | None, dict[int, str]]:
    """Numbers classes in the order of their names, numbers by value.

    Args:
        names: The class of every image; empty for an image without a label.

    Returns:
        Labels int64 (num_images,) from 0 or `NO_LABEL`, and the name of each; None if there are
        no classes.
    """
    # macOS writes ü as two characters, others as one.
    names = [printable(unicodedata.normalize("NFC", name)) for name in names]
    class_names = dict(enumerate(sorted(set(names) - {""}, key=_by_number)))
    if not class_names:
        return None, {}
    check_names("class", class_names.values())
    label_of = {"": NO_LABEL} | {name: label for label, name in class_names.items()}
    return np.array([label_of[name] for name in names], np.int64), class_names


def check_names(where: str, names: Iterable[str]) -> None:
    """Raises a DataError if the name of a class is too long for saved models."""
    longest = max(names, key=len, default="")
    if len(longest) > MAX_NAME:
        required = f"must have a name of at most {MAX_NAME} characters"
        raise DataError(where, required, f"{len(longest)}: {shown(longest)}", "Rename it.")


def _by_number(name: str) -> tuple[float, str]:
    return (float(name) if _is_number(name) else float("inf")), name


def _is_number(name: str) -> bool:
    return re.fullmatch(r"-?[0-9]{1,15}", name) is not None


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name holds no pictures."""
    return name.startswith(".") or name.lower() in IGNORED


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a third faster


def _scan(folder: Path, root: Path) -> tuple[list[str], list[str]]:
    """The names of the folders and files in a folder, sorted, without those to ignore."""
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                if entry.is_symlink():
                    _check_link(Path(entry.path), root)
                (folders if entry.is_dir() else files).append(entry.name)
    except OSError as error:
        raise DataError(
            folder, "must be readable", error.strerror, "Check its permissions."
        ) from error
    return sorted(folders), sorted(files)


def _check_link(link: Path, root: Path) -> None:
    target = Path(os.path.realpath(link))  # Path.resolve raises for a link to itself
    if not target.is_relative_to(os.path.realpath(root)):
        raise DataError(
            link,
            f"must be inside {root}",
            f"a link to {target}",
            "Replace the link with a copy, or remove it.",
        )


def _list_folder(folder: Path, folders: list[str], files: list[str]) -> Listing:
    pictures, others = _divide(files)
    if not folders:
        if not pictures:
            raise DataError(
                folder,
                "must contain pictures, or one subfolder of pictures per class",
                counted(len(files), "other file"),
                name_idx_files(folder, NAME_PICTURES),
            )
        return Listing(folder, pictures, None, {}, others=tuple(others))
    if pictures:
        raise DataError(
            folder,
            "must contain either pictures or one subfolder per class",
            f"{counted(len(pictures), 'picture')} beside the folders {listed(folders[:3], 'and')}",
            f"Move the pictures into the folder of their class, or {UNLABELLED[0]}/.",
        )
    paths, classes = [], []
    for name in folders:
        inner, inner_files = _scan(folder / name, folder)
        pictures, inner_others = _divide(inner_files)
        if inner or not pictures:
            got, remedy = "none", "Add some, or move the folder elsewhere."
            if inner:
                got = f"the folder {inner[0]}"
                remedy = f"Move its pictures into {folder / name}."
                if len(folders) == 1:
                    remedy = f"Use {folder / name} if its folders are the classes."
            elif inner_files:
                got, remedy = (
                    counted(len(inner_files), "other file"),
                    name_idx_files(folder, remedy),
                )
            raise DataError(folder / name, "must contain the pictures of one class", got, remedy)
        paths += [f"{name}/{file}" for file in pictures]
        others += [f"{name}/{file}" for file in inner_others]
        classes += ["" if name.lower() in UNLABELLED else name] * len(pictures)
    return Listing(folder, paths, *name_classes(classes), others=tuple(others))


def _list_all(folder: Path, folders: list[str], files: list[str]) -> Listing:
    """The pictures of a folder and of all its subfolders, without labels."""
    pictures, others = _divide(files)
    waiting = list(reversed(folders))
    while waiting:
        name = waiting.pop()
        inner, inner_files = _scan(folder / name, folder)
        waiting += [f"{name}/{deeper}" for deeper in reversed(inner)]
        for found, new in zip((pictures, others), _divide(inner_files), strict=True):
            found += [f"{name}/{file}" for file in new]
    if not pictures:
        raise DataError(
            folder,
            "must contain pictures",
            counted(len(others), "other file"),
            name_idx_files(folder, NAME_PICTURES),
        )
    return Listing(folder, pictures, None, {}, others=tuple(others))


def _divide(files: list[str]) -> tuple[list[str], list[str]]:
    """Names of pictures, and of other files."""
    pictures, others = [], []
    for name in files:
        (pictures if is_picture(name) else others).append(name)
    return pictures, others


def _join(root: Path, parts: dict[str, str], found: dict[str, Listing]) -> Listing:
    """The training pictures, those without labels, then those to validate on."""
    training, validation = found["train"], found.get("val")
    joined = [
        (parts[part], found[part]) for part in ("train", UNLABELLED[0], "val") if part in found
    ]
    if validation:
        known = set(training.class_names.values())
        unknown = sorted(set(validation.class_names.values()) - known)
        if unknown or (validation.labels is None) != (training.labels is None):
            raise DataError(
                validation.root,
                f"must contain the classes of {training.root}",
                listed(unknown[:3], "and") if unknown else "pictures without classes",
                "Give both folders the same subfolders.",
            )
    files = [f"{folder}/{file}" for folder, listing in joined for file in listing.files]
    others = tuple(f"{folder}/{file}" for folder, listing in joined for file in listing.others)
    names = [name for _, listing in joined for name in listing.classes]
    count = len(validation.files) if validation else 0
    return Listing(root, files, *name_classes(names), count, others)


def _name_columns(path: Path, columns: list[str]) -> list[str]:
    """The names of the columns of a table, other names for path and label replaced."""
    named = [x if ALIASES.get(x) in columns else ALIASES.get(x, x) for x in columns]
    for column in set(ALIASES.values()):
        found = [old for old, new in zip(columns, named, strict=True) if new == column]
        if len(found) > 1:
            raise DataError(
                path, f'must have one column "{column}"', listed(found, "and"), "Rename the other."
            )
    return named


def _list_table(path: Path) -> Listing:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = max(DELIMITERS, key=file.readline().count)
            file.seek(0)
            table = csv.DictReader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
            columns = [name.strip() for name in table.fieldnames or ()]
            table.fieldnames = _name_columns(path, [name.lower() for name in columns])
            lines, rows = [], []
            for row in table:  # which leaves out empty lines
                lines.append(table.line_num)
                rows.append(row)
    except (OSError, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "Save it as a table in UTF-8."
        raise DataError(path, "must be a readable table in UTF-8", reason, remedy) from error
    if not rows or "path" not in rows[0]:
        got, remedy = shown(columns), "Add the columns."
        if len(columns) > MOST_COLUMNS:
            got = f"{len(columns)} columns, as if of pixels"
            remedy = "Reshape the pixels and save them with numpy.savez (data/README.md)."
        raise DataError(
            path,
            'must have the columns "path" and "label" in its first line, and pictures below',
            got,
            remedy,
        )
    for number, row in zip(lines, rows, strict=True):
        if not row["path"].strip():
            raise DataError(f"{path}: line {number}", "must name a picture", shown(row), "Add it.")
    names = [(row.get("label") or "").strip() for row in rows]
    if "-1" in names and all(_is_number(name) for name in names if name):
        labels = as_labels(path, np.array([int(name) for name in names if name]))
        if NO_LABEL in labels:
            names = ["" if name == "-1" else name for name in names]
    files = [row["path"].strip().replace("\\", "/") for row in rows]  # as Windows writes them
    return Listing(path.parent, files, *name_classes(names))
