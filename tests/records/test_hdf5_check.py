"""Untrusted arrays and weights are refused with a reason before any of their content acts.

Every file is loaded with the armed trap that `test_untrusted.py` describes.
"""

import io
import shutil
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from model_files import BOMB, assert_refused, members_of, nothing_happens, pack

from cae.records import hdf5_check, untrusted
from cae.records.saved_models import read_metadata
from cae.records.untrusted import WEIGHTS_FILE

FIXTURES = Path(__file__).parents[1] / "fixtures"


def some_array(file):
    """The name of the first array in a file of weights."""
    names = []
    file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
    return names[0]


def replacing(make):
    """Replaces an array by what `make(file, name)` creates."""

    def change(file):
        name = some_array(file)
        del file[name]
        make(file, name)

    return change


def virtual(file, name):
    layout = h5py.VirtualLayout((100,), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (100,))
    file.create_virtual_dataset(name, layout)


def two_names(file):
    for number in range(20):
        file[f"copy{number}"] = file[some_array(file)]


def many_groups(file):
    for number in range(hdf5_check.MAX_ITEMS):
        file.create_group(f"many/{number}")


# What stands in place of an array, as arguments of `create_dataset`. An array takes no space before
# something is written to it.
ARRAYS = {
    "external_storage": (((100,), "f4"), {"external": [("secret", 0, 400)]}, "from other files"),
    "bomb": (((BOMB,), "u1"), {"chunks": (10**6,), "compression": "gzip"}, "chunks or compressed"),
    "promises_terabytes": (((10**6, 10**6), "f4"), {}, "of which 0 exist"),
    "promises_overflow": (((2**62, 2**62), "f4"), {}, "of which 0 exist|could not be read"),
    "pickled": (((1,), h5py.vlen_dtype(np.uint8)), {}, "not an array of numbers"),
    "objects": (((1,), h5py.ref_dtype), {}, "not an array of numbers"),
    "text": ((), {"data": "code"}, "not an array of numbers"),
}
WEIGHTS = {
    name: (
        replacing(lambda f, n, args=args, options=options: f.create_dataset(n, *args, **options)),
        match,
    )
    for name, (args, options, match) in ARRAYS.items()
} | {
    "soft_link": (replacing(lambda f, n: f.__setitem__(n, h5py.SoftLink("/x"))), "the link"),
    "external_link": (
        replacing(lambda f, n: f.__setitem__(n, h5py.ExternalLink("/etc/passwd", "/"))),
        "the link",
    ),
    "virtual": (replacing(virtual), "from other files"),
    "empty": (replacing(lambda f, n: f.__setitem__(n, h5py.Empty("f4"))), "exist"),
    "cycle": (lambda file: file.__setitem__("again", file["/"]), "under two names"),
    "two_names": (two_names, "under two names"),
    "attribute": (
        lambda file: file.attrs.create("x", file.ref, dtype=h5py.ref_dtype),
        "neither text nor numbers",
    ),
    "many_attributes": (
        lambda file: file.attrs.update(dict.fromkeys(map(str, range(1001)), "x")),
        "more than 1,000 attributes",
    ),
    "many_groups": (many_groups, "more than 20,000 groups and arrays"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights(case, plain, tmp_path, trap, monkeypatch):
    change, match = WEIGHTS[case]
    shutil.copy(plain.with_suffix(".h5"), tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+", libver="latest") as file:
        change(file)
    assert_refused(tmp_path / "m.h5", match, trap, monkeypatch)


def test_weights_in_an_archive(plain, tmp_path, trap, monkeypatch):
    members = members_of(plain.with_suffix(".keras"))
    content = io.BytesIO(members[WEIGHTS_FILE])
    with h5py.File(content, "r+") as file:
        two_names(file)
    pack(tmp_path / "m.keras", members | {WEIGHTS_FILE: content.getvalue()})
    assert_refused(tmp_path / "m.keras", "under two names", trap, monkeypatch)


def test_one_text_as_a_thousand_names(plain, tmp_path, trap, monkeypatch):
    """Each name is a reference of 16 bytes; here all refer to the same text."""
    path, text = tmp_path / "m.h5", "N" * 1_000_000
    shutil.copy(plain.with_suffix(".h5"), path)
    with h5py.File(path, "r+", libver="latest") as file:
        file.create_group("x").attrs.create("names", [text, *["y"] * 2000])
    content = path.read_bytes()
    at = content.index(struct.pack("<I", len(text)))  # the first name, and after it the others
    place = content[at : at + 16]
    path.write_bytes(content[:at] + place * 2001 + content[at + 16 * 2001 :])
    assert_refused(path, "could not be read|bytes in", trap, monkeypatch)


def test_a_file_that_makes_hdf5_loop(trap, tmp_path, monkeypatch):
    """Found by the fuzzer: in HDF5 1.14, neither an exception nor Ctrl-C ends the loop."""
    shutil.copy(FIXTURES / "hdf5_endless.h5", tmp_path / "m.h5")
    monkeypatch.setattr(untrusted, "HDF5_SECONDS", 1)
    assert_refused(tmp_path / "m.h5", "could not be read", trap, monkeypatch)


def test_modules_in_the_working_folder_are_not_imported(plain, tmp_path, trap, monkeypatch):
    """By the process that checks HDF5 files, which needs h5py, NumPy and this program."""
    for name in ("h5py", "numpy", "cae", "json", "untrusted"):
        shutil.copy(tmp_path / "modules" / "spy.py", tmp_path / f"{name}.py")
    shutil.copy(plain.with_suffix(".h5"), tmp_path / "m.h5")
    monkeypatch.chdir(tmp_path)
    with nothing_happens(tmp_path, trap, monkeypatch):
        read_metadata("m.h5")
