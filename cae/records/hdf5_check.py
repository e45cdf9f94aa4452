"""Checks an HDF5 file in a process of its own: `python -m cae.records.hdf5_check FILE SECONDS`.

The HDF5 library is written in C: a damaged file can make it loop forever, take all memory or crash.
So `untrusted.check_hdf5` starts this module, which limits its own time and memory. It prints what
is wrong with the file and exits with `REFUSED`, or with 1 if the file is damaged.
"""

import math
import sys
from contextlib import suppress
from typing import Any

import h5py
import numpy as np

from cae.records.untrusted import REFUSED, quoted

try:
    import resource
except ImportError:  # Windows, where nothing limits the check
    resource = None

MAX_ITEMS = 20_000  # groups and arrays: 1,000 layers and their optimizer need 15,000
MAX_ATTRIBUTES = 1000  # of one group or array
MAX_MEMORY = 2**31  # bytes


class Refused(Exception):
    """Something in an HDF5 file that no saved model needs."""


def main(argv: list[str]) -> int:
    """Checks a file, prints what is wrong with it, and returns the exit code."""
    path, seconds = argv
    if resource:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        with suppress(ValueError):  # this system has no such limit, or a lower one is set
            resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    try:
        with h5py.File(path, "r") as file:
            _check_items(file)
    except Refused as refused:
        print(refused)
        return REFUSED
    except Exception as error:
        print(error or type(error).__name__)
        return 1
    return 0


def _check_items(file: h5py.File) -> None:
    """Checks every group and array, without following links, and that they fit into the file."""
    groups, seen, num_bytes, num_items = [file], {_address(file)}, 0, 0
    while groups:
        group = groups.pop()
        num_bytes += _check_attributes(group)
        for name in group:
            num_items += 1
            if num_items > MAX_ITEMS:
                raise Refused(f"more than {MAX_ITEMS:,} groups and arrays")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise Refused(f"the link {quoted(name)} instead of an array")
            item = group[name]
            if _address(item) in seen:
                raise Refused(f"{quoted(name)} under two names")
            seen.add(_address(item))
            if isinstance(item, h5py.Group):
                groups.append(item)
            else:
                num_bytes += _check_array(name, item) + _check_attributes(item)
    if num_bytes > file.id.get_filesize():
        raise Refused(f"arrays of {num_bytes:,} bytes in {file.id.get_filesize():,}")


def _address(item: h5py.Group | h5py.Dataset) -> int:
    return h5py.h5o.get_info(item.id).addr


def _check_array(name: str, array: Any) -> int:
    """Checks the description of an array; returns its size in bytes."""
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "fiub":
        raise Refused(f"{quoted(name)}, which is not an array of numbers")
    if array.is_virtual or array.external:
        raise Refused(f"the array {quoted(name)} from other files")
    if array.chunks:  # only such arrays can be compressed
        raise Refused(f"the array {quoted(name)} in chunks or compressed")
    # Not array.nbytes, which can overflow.
    promised = math.prod(array.shape or ()) * array.dtype.itemsize
    stored = array.id.get_storage_size()
    if array.shape is None or stored != promised:
        raise Refused(f"the array {quoted(name)} of {promised:,} bytes, of which {stored:,} exist")
    return promised


def _check_attributes(item: Any) -> int:
    """Reads the attributes, which can make the library loop; returns their size in bytes."""
    num_bytes = 0
    for count, name in enumerate(item.attrs):
        if count >= MAX_ATTRIBUTES:
            raise Refused(f"more than {MAX_ATTRIBUTES:,} attributes")
        attribute = h5py.h5a.open(item.id, name.encode())
        if h5py.check_string_dtype(attribute.dtype) is not None:
            value = item.attrs[name]
            texts = [value] if isinstance(value, str | bytes) else np.ravel(value)
            # The file stores texts elsewhere: a thousand of them can share the same bytes.
            num_bytes += sum(map(len, texts))
        elif attribute.dtype.kind not in "fiub":
            raise Refused(f"the attribute {quoted(name)}, which is neither text nor numbers")
    return num_bytes


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
