"""Reads damaged and hostile input files, as many as asked for, and counts what goes wrong.

    python tests/fuzz/fuzz_inputs.py --seconds 30
    python tests/fuzz/fuzz_inputs.py --inputs 1000000 --seed 1
    python tests/fuzz/fuzz_inputs.py --seed 1 --only 123456

Every input is a function of the seed and its number, so that a failure can be repeated. An input
may be read or refused by a `UserError`. Any other exception, more than `MAX_SECONDS`, more than
`MAX_BYTES` of memory or a file left behind is a failure, and so the exit code is 1.
"""

import argparse
import copy
import faulthandler
import gzip
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # run as a script, Python looks only beside it

import h5py  # noqa: E402
import numpy as np  # noqa: E402

from cae.config.load import load_config  # noqa: E402
from cae.data import idx  # noqa: E402
from cae.errors import UserError  # noqa: E402
from cae.records.saved_models import read_metadata  # noqa: E402

MAX_SECONDS = float(os.environ.get("FUZZ_SECONDS", "30"))  # 2 on a machine without other work
MAX_BYTES = 100e6
# Bombs unpack to this, which takes less than MAX_SECONDS where it is meant to be read.
BOMB_BYTES = 300_000_000
EXTREMES = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)
ODD_VALUES = (
    *(None, True, False, 0, -1, 1e308, 2**63, -(2**63), 10**400, 0.1, "", " ", "\0", "../x"),
    *(float("nan"), float("inf"), "\ud800", "\u202e", "😀", "İ", "\x1b[2J", "=1+1", "e" * 10_000),
    *([], {}, [[]], {"": ""}, [None] * 1000, {"class_name": "Lambda", "config": {}}),
)
LAYER = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {"name": "dense", "units": 3, "activation": "relu", "kernel_initializer": "zeros"},
    "registered_name": None,
}
MODEL = {"class_name": "Sequential", "config": {"name": "encoder", "layers": [LAYER]}}
METADATA = {
    "keras_version": "3.15.1",
    "convolutional_autoencoder": {
        "input_shape": [8, 8, 1],
        "scaling": {"offset": 0, "scale": 255.0, "dtype": "uint8"},
        "classes": [-3, 0, 61],
        "class_names": ["a", "ü", "日本"],
    },
}


class Hang(BaseException):
    """An input took too long; no `except Exception` may swallow it."""


# --- Valid files ----------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, idx.CODES[array.dtype], array.ndim, *array.shape)
    return header + array.tobytes()


def hdf5_bytes(**attributes: Any) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["model_weights/dense/kernel"] = np.ones((4, 3), "f4")
        file.attrs.update({name: json.dumps(value) for name, value in attributes.items()})
    return content.getvalue()


IMAGES = [
    idx_bytes(np.arange(24).reshape(shape).astype(dtype))
    for dtype in idx.CODES
    for shape in ((2, 3, 4), (2, 3, 2, 2))
]
LABELS = [idx_bytes(np.arange(9).astype(dtype)) for dtype in list(idx.CODES)[:4]]
CONFIGS = {
    kind: [json.loads(path.read_bytes()) for path in sorted(ROOT.glob(f"configuration/{kind}_*"))]
    for kind in ("autoencoder", "classifier")
}
WEIGHTS = hdf5_bytes()
HDF5_MODEL = hdf5_bytes(model_config=MODEL, convolutional_autoencoder=METADATA)


def bombs() -> Iterator[bytes]:
    """gzip files of BOMB_BYTES whose headers promise little, the truth, and terabytes."""
    for shape in [(1, 1, 1), (BOMB_BYTES // 10**4, 100, 100), (2**32 - 1, 1000, 1000)]:
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1, mtime=0) as file:
            file.write(struct.pack(">HBB3I", 0, 8, 3, *shape))
            for _ in range(BOMB_BYTES // 10**6):
                file.write(bytes(10**6))
        yield packed.getvalue()


# --- Mutations ------------------------------------------------------------------------------


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """One to four of the usual damages."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        end = min(at + rng.choice((1, 2, 4, 16, 256)), len(data))
        match rng.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                del data[at:]
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * rng.choice((1, 2, 100))
            case 5:
                data[at:at] = rng.randbytes(rng.choice((1, 4, 100)))
            case 6:
                number = rng.choice(EXTREMES)
                data[at : at + 4] = number.to_bytes(4, rng.choice(("big", "little")))
            case _:
                data[at:end] = bytes(end - at)
    return bytes(data)


def mutate_header(content: bytes, rng: random.Random) -> bytes:
    """Other sizes, types and ranks in front of the same values."""
    data = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        at = 4 + 4 * rng.randrange(4)
        data[at : at + 4] = rng.choice((*EXTREMES, rng.randrange(30))).to_bytes(4, "big")
    if rng.random() < 0.3:
        data[2] = rng.choice((*range(7, 16), rng.randrange(256)))
    if rng.random() < 0.3:
        data[3] = rng.choice((0, 1, 2, 3, 4, 5, 255))
    return bytes(data)


def mutate_tree(tree: Any, rng: random.Random) -> Any:
    """Puts odd values in, takes values out, and copies one part over another."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 5))):
        places = list(_places(tree))
        container, key = rng.choice(places)
        match rng.randrange(6):
            case 0 | 1:
                container[key] = copy.deepcopy(rng.choice(ODD_VALUES))
            case 2:
                del container[key]
            case 3:
                other, other_key = rng.choice(places)
                container[key] = copy.deepcopy(other[other_key]) if other_key in _keys(other) else 0
            case 4 if isinstance(container, dict):
                container[rng.choice(("epochs", "", "Epochs", "name", "module", "\x7f"))] = 1
            case _:
                container[key] = [container[key]] * rng.choice((1, 2, 300))
                return tree
        if not tree:
            return tree
    return tree


def _keys(container: Any) -> Any:
    return container if isinstance(container, dict) else range(len(container))


def _places(tree: Any) -> Any:
    for key in list(_keys(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def mutate_json(tree: Any, rng: random.Random) -> bytes:
    """JSON text of a mutated tree, itself mutated now and then."""
    text = json.dumps(mutate_tree(tree, rng), ensure_ascii=rng.random() < 0.5)
    depth = rng.choice((10, 1000, 100_000))
    match rng.randrange(12):
        case 0:
            text = text.replace("{", '{"epochs": 1, "epochs": 2, ', 1)
        case 1:
            text = text.replace("1", "1" * rng.choice((20, 400, 5000)), 1)
        case 2:
            text = text.replace(":", f": {'[' * depth}{']' * depth} ,", 1)
        case 3:
            text = text.replace(":", ": " + '{"a":' * depth, 1)
        case 4:
            text = text.replace('"', rng.choice(("'", "“", "\\u", "\\ud800", "\n")), 1)
        case 5:
            return text.encode(rng.choice(("utf-16", "utf-8-sig", "cp037")), "replace")
        case 6 | 7:
            return mutate_bytes(text.encode("utf-8", "surrogatepass"), rng)
    return text.encode("utf-8", "surrogatepass")


def make_config(kind: str, rng: random.Random) -> bytes:
    return mutate_json(rng.choice(CONFIGS[kind]), rng)


def read_config(path: Path) -> object:
    return load_config(path, path.stem)


def make_idx(valid: list[bytes], rng: random.Random) -> bytes:
    content = rng.choice(valid)
    return (mutate_header if rng.random() < 0.5 else mutate_bytes)(content, rng)


def make_gzip(valid: list[bytes], rng: random.Random) -> bytes:
    """Damaged before compression, after it, or in both; sometimes of several members."""
    content = rng.choice(valid)
    if rng.random() < 0.6:
        content = make_idx([content], rng)
    packed = gzip.compress(content, 1, mtime=0)
    if rng.random() < 0.1:
        packed += gzip.compress(rng.randbytes(rng.randrange(20)), 1, mtime=0)
    return mutate_bytes(packed, rng) if rng.random() < 0.6 else packed


def make_archive(rng: random.Random) -> bytes:
    """A `.keras` file with damage in its JSON, its members or its bytes."""
    members = {
        "metadata.json": json.dumps(METADATA).encode(),
        "config.json": json.dumps(MODEL).encode(),
        "model.weights.h5": WEIGHTS,
    }
    match rng.randrange(4):
        case 0:
            members["config.json"] = mutate_json(MODEL, rng)
        case 1:
            members["metadata.json"] = mutate_json(METADATA, rng)
        case 2:
            name = rng.choice(list(members))
            members[rng.choice(("../x", "x", "/", "a" * 60_000))] = members.pop(name)
    content = io.BytesIO()
    compression = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return mutate_bytes(content.getvalue(), rng) if rng.random() < 0.6 else content.getvalue()


# What is read: how often, the bytes of an input, and the reader. HDF5 files are left out: each is
# read in a process of its own, and test_fuzz.py reads a few.
Maker = Callable[[random.Random], bytes]
Reader = Callable[[Path], object]
TARGETS: dict[str, tuple[int, Maker, Reader]] = {
    "images": (30, lambda rng: make_idx(IMAGES, rng), idx.read_images),
    "labels": (10, lambda rng: make_idx(LABELS, rng), idx.read_labels),
    "images.gz": (20, lambda rng: make_gzip(IMAGES, rng), idx.read_images),
    "labels.gz": (5, lambda rng: make_gzip(LABELS, rng), idx.read_labels),
    "autoencoder.json": (15, partial(make_config, "autoencoder"), read_config),
    "classifier.json": (10, partial(make_config, "classifier"), read_config),
    "model.keras": (6, make_archive, read_metadata),
}


# --- Running --------------------------------------------------------------------------------


@contextmanager
def alarm(seconds: float):
    """Raises `Hang` in what takes longer; ends the process where even that is not heard."""

    def ring(*_):
        raise Hang(f"more than {seconds} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read_one(folder: Path, name: str, content: bytes, read: Reader) -> tuple[bool, str]:
    """Reads one input; returns whether it was accepted, and what was wrong, if anything."""
    path = folder / name
    path.write_bytes(content)
    peak, accepted, failure = peak_bytes(), True, ""
    try:
        with alarm(MAX_SECONDS):
            read(path)
    except UserError:
        accepted = False
    except (Exception, Hang):
        failure = traceback.format_exc()
    if peak_bytes() - peak > MAX_BYTES:
        failure += f"{(peak_bytes() - peak) / 1e6:.0f} MB of memory"
    left = set(os.listdir(folder)) - {name}  # noqa: PTH208 - a microsecond instead of many
    if left:
        failure += f"left behind: {left}"
        for other in left:
            (folder / other).unlink()
    path.unlink()
    return accepted, failure


def make_input(seed: int, number: int) -> tuple[str, bytes]:
    """The name and the bytes of an input."""
    rng = random.Random(f"{seed}-{number}")
    names = list(TARGETS)
    (name,) = rng.choices(names, [TARGETS[name][0] for name in names])
    return name, TARGETS[name][1](rng)


def fuzz(folder: Path, seed: int, inputs: int, seconds: float) -> tuple[Counter, Counter, list]:
    """Reads inputs 0, 1, ... until one of the limits; returns counts by name, and failures."""
    read, accepted, failures = Counter(), Counter(), []
    end = time.monotonic() + seconds
    for number in range(inputs):
        if time.monotonic() > end:
            break
        name, content = make_input(seed, number)
        ok, failure = read_one(folder, name, content, TARGETS[name][2])
        read[name] += 1
        accepted[name] += ok
        if failure:
            failures.append((number, name, content, failure))
    return read, accepted, failures


def fuzz_bombs(folder: Path) -> list:
    """Reads the bombs: only the truthful one may take what it promises."""
    readers = [idx.read_images, idx.read_images_header, idx.read_images]
    failures = [
        (number, "bomb", content, read_one(folder, "bomb.gz", content, read)[1])
        for number, (content, read) in enumerate(zip(bombs(), readers, strict=True))
    ]
    return [failure for failure in failures if failure[-1]]


def limit_memory(extra_bytes: int = 2**30) -> None:
    """Refuses this process more memory than it has and `extra_bytes`, for the machine's sake."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="repeat one input and show it")
    args = parser.parse_args()
    faulthandler.enable()
    limit_memory()
    start, peak = time.monotonic(), peak_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.only is not None:
            name, content = make_input(args.seed, args.only)
            print(name, content.hex(), *read_one(folder, name, content, TARGETS[name][2]))
            return 0
        failures = fuzz_bombs(folder)
        read, accepted, found = fuzz(folder, args.seed, args.inputs, args.seconds)
    failures += found
    for number, name, content, failure in failures[:20]:
        print(f"--seed {args.seed} --only {number} ({name}): {content[:100].hex()}\n{failure}")
    for name in read:
        print(f"{name}: {read[name]:,} inputs, {accepted[name]:,} of them accepted")
    elapsed = time.monotonic() - start
    print(
        f"{read.total():,} inputs in {elapsed:.0f} s, {len(failures)} failures, "
        f"{(peak_bytes() - peak) / 1e6:.0f} MB more memory than at the start"
    )
    return int(bool(failures))


if __name__ == "__main__":
    raise SystemExit(main())
