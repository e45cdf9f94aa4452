"""What a saved model from a stranger may hold, checked before Keras sees it.

Keras builds whatever a file names: functions, layers that run code, other files. Here is the list
of what models of images need; everything else is refused, so that a way of attack need not be
known to be shut. Nothing here needs Keras.

Sources: the published advisories against Keras (docs/reliability.md), which found layers and
functions (CVE-2025-1550, -8747, -9905, -9906), files behind HDF5 links (CVE-2026-1669, -12480),
archives (CVE-2026-12479) and sizes (CVE-2026-0897) at fault.
"""

import io
import json
import math
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from cae.errors import ModelFileError
from cae.records import keras2

if TYPE_CHECKING:
    import h5py


METADATA_FILE = "metadata.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"
MEMBERS = (METADATA_FILE, CONFIG_FILE, WEIGHTS_FILE)

# The configuration of 1,000 layers takes about 700 kB.
MAX_JSON_BYTES = 1_000_000
MAX_LAYERS = 1000
# Groups and arrays of an HDF5 file: 1,000 layers and their optimizer need 15,000.
MAX_HDF5_ITEMS = 20_000
# What the HDF5 library may take to look through a file; it needs a quarter of a second.
HDF5_SECONDS = 5  # of computing
HDF5_BYTES = 2**31
STRANGE = 3  # exit code
# The program of the child process; its first line replaces the working folder, where anybody may
# have put a module.
ROOT = Path(__file__).parents[2]
CHILD = """
import sys; sys.path[0] = sys.argv[1]
from cae.records.untrusted import check_in_child
sys.exit(check_in_child(*sys.argv[2:]))
"""
# Trained weights hardly compress; only archives that somebody packed again are compressed at all.
MAX_EXPANSION = 10


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Layers of images and of vectors that hold nothing but numbers; none takes a function or a file.
LAYERS = _names(
    """
    Activation ActivityRegularization Add AlphaDropout Average AveragePooling2D BatchNormalization
    CenterCrop Concatenate Conv2D Conv2DTranspose Cropping2D Dense DepthwiseConv2D Dot Dropout ELU
    Flatten GaussianDropout GaussianNoise GlobalAveragePooling2D GlobalMaxPooling2D
    GroupNormalization InputLayer LayerNormalization LeakyReLU MaxPooling2D Maximum Minimum Multiply
    Normalization PReLU Permute RandomBrightness RandomContrast RandomCrop RandomFlip
    RandomRotation RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing
    SeparableConv2D Softmax SpatialDropout2D Subtract UnitNormalization UpSampling2D ZeroPadding2D
    """
)
MODELS = keras2.MODELS
INITIALIZERS = _names(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling
    Zeros
    """
)
REGULARIZERS = frozenset({"L1", "L2", "L1L2", "OrthogonalRegularizer"})
CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
POLICIES = frozenset({"DTypePolicy", "FloatDTypePolicy", "Policy"})
ACTIVATIONS = _names(
    """
    celu elu exponential gelu glu hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu softmax softplus softsign swish tanh
    """
)
# Where Keras 2 and 3 say that each of them comes from; older files do not say.
MODULES = {
    "keras": MODELS | POLICIES,
    "keras.constraints": CONSTRAINTS,
    "keras.dtype_policies": POLICIES,
    "keras.initializers": INITIALIZERS,
    "keras.layers": LAYERS,
    "keras.mixed_precision": POLICIES,
    "keras.models": MODELS,
    "keras.regularizers": REGULARIZERS,
    "keras.src.models.functional": MODELS,
    "keras.src.models.sequential": MODELS,
    **dict.fromkeys(keras2.FUNCTIONAL_MODULES, MODELS),
}
CLASSES = frozenset(keras2.RENAMED_LAYERS).union(*MODULES.values())
# Not objects but ways to write values: an input of a layer, and tuples.
VALUES = frozenset({"__keras_tensor__", "__tuple__", "TensorShape"})
# A key that ends so takes a function by its name: "he_normal" as well as "HeNormal".
NAMED_FUNCTIONS = {
    "activation": ACTIVATIONS,
    "_initializer": INITIALIZERS | {"zero", "one", "normal", "uniform"},
    "_regularizer": REGULARIZERS,
    "_constraint": CONSTRAINTS,
}
# Keras makes paths of names.
SAFE_NAME = re.compile(r"(?!.*\.\.)[^/\\\x00-\x1f\x7f]{1,200}")


def _refuse(where: object, got: str) -> NoReturn:
    raise ModelFileError(
        where,
        "must hold plain Keras layers, their weights and nothing else",
        got,
        "Save it again with Keras, or give another model.",
    )


# --- Archives -------------------------------------------------------------------------------


class _SmallReads(io.FileIO):
    """A file that gives little at a time: `zipfile` reads the list of members whole."""

    def read(self, size: int = -1) -> bytes:
        left = os.fstat(self.fileno()).st_size - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > MAX_JSON_BYTES:
            raise zipfile.BadZipFile(f"a list of members of {wanted:,} bytes")
        return super().read(wanted)


@contextmanager
def open_archive(where: object, path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a `.keras` file of three members that unpack to what their file can hold.

    Raises:
        ModelFileError: It holds other members, links, or far more than its size.
        KeyError: A member is missing.
        zipfile.BadZipFile: It is damaged.
    """
    with _SmallReads(path) as file, zipfile.ZipFile(file) as archive:
        for name in MEMBERS:
            archive.getinfo(name)
        members = archive.infolist()
        names = [member.filename for member in members]
        if strange := [name for name in names if name not in MEMBERS]:
            _refuse(where, f"a member called {_shown(strange[0])}")
        if len(names) > len(MEMBERS):
            _refuse(where, "a member of the same name twice")
        for member in members:
            _check_member(where, member)
        unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
        if unpacked > MAX_EXPANSION * packed:
            _refuse(where, f"{unpacked:,} bytes packed into {packed:,}")
        yield archive


def _check_member(where: object, member: zipfile.ZipInfo) -> None:
    mode = member.external_attr >> 16  # as Unix writes it; 0 where another system did
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        _refuse(where, f"{member.filename} as a link, not as a file")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _refuse(where, f"{member.filename} in compression method {member.compress_type}")
    if member.filename != WEIGHTS_FILE and member.file_size > MAX_JSON_BYTES:
        _refuse(where, f"{member.filename} of {member.file_size:,} bytes")


# --- Configurations -------------------------------------------------------------------------


def parse_config(where: object, text: str | bytes) -> dict[str, Any]:
    """The configuration of a model, without what only training needs.

    Args:
        where: The file, for errors.
        text: JSON, as `config.json` or the attribute `model_config` holds it.

    Raises:
        ModelFileError: It names anything but plain layers of Keras and what they are made of.
        ValueError: It is no JSON.
    """
    if len(text) > MAX_JSON_BYTES:
        _refuse(where, f"a configuration of {len(text):,} bytes")
    try:
        config = _without_training(json.loads(text))
        num_layers = _check_value(where, config)
    except RecursionError:
        _refuse(where, "a configuration nested too deeply")
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        _refuse(where, "a configuration of something that is no model")
    if num_layers > MAX_LAYERS:
        _refuse(where, f"{num_layers:,} layers, more than {MAX_LAYERS:,}")
    return config


def _without_training(value: Any) -> Any:
    """Leaves out `compile_config`: nobody goes on with a stranger's optimizer and losses."""
    if isinstance(value, list):
        return [_without_training(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _without_training(item) for key, item in value.items() if key != "compile_config"
        }
    return value


def _check_value(where: object, value: Any, key: str = "") -> int:
    """Checks a value of a configuration and all inside it; returns how many layers they are."""
    if isinstance(value, str):
        _check_text(where, key, value)
    if isinstance(value, list):
        return sum(_check_value(where, item) for item in value)
    if not isinstance(value, dict):
        return 0
    if value.get("class_name") == "function":
        return _check_function(where, value)
    if value.keys() & {"class_name", "module", "registered_name"}:
        _check_object(where, value)
    inside = sum(_check_value(where, item, inner) for inner, item in value.items())
    return inside + (value.get("class_name") in LAYERS or value.get("class_name") in MODELS)


def _check_object(where: object, value: dict[str, Any]) -> None:
    name, module = value.get("class_name"), value.get("module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        _refuse(where, f"an object of the class {_shown(name)} in {_shown(module)}")
    if name in VALUES and module is None:
        return
    if name not in (CLASSES if module is None else MODULES.get(module, ())):
        origin = "" if module in (None, "keras.layers") else f" of {_shown(module)}"
        _refuse(where, f"{_shown(name)}{origin}, which is not on the list of plain layers")
    if value.get("registered_name") not in (None, name):
        _refuse(where, f"the custom object {_shown(value['registered_name'])}")


def _check_function(where: object, value: dict[str, Any]) -> None:
    """Checks an activation as Keras 3 writes a function; returns how many layers it is: none."""
    name = value.get("config")
    known = isinstance(name, str) and name in ACTIVATIONS
    registered = value.get("registered_name") in (None, "function", name)
    if value.get("module") != "builtins" or not known or not registered:
        _refuse(where, f"the function {_shown(name)} of {_shown(value.get('module'))}")
    return 0


def _check_text(where: object, key: str, text: str) -> None:
    if key == "name" and not SAFE_NAME.fullmatch(text):
        _refuse(where, f"a layer named {_shown(text)}")
    for ending, known in NAMED_FUNCTIONS.items():
        if key.endswith(ending) and _plain(text) not in map(_plain, known):
            _refuse(where, f"the {key} {_shown(text)}")


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _shown(value: Any) -> str:
    """A value of a stranger, cut to fit a line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


# --- Weights --------------------------------------------------------------------------------


class _Strange(Exception):
    """What was found in an HDF5 file that is no model's."""


def check_hdf5(where: object, path: Path) -> None:
    """Checks that a file holds plain arrays of numbers, each once and in the file itself.

    In a process of its own: the HDF5 library is C, and a damaged file can send it round in
    circles, make it take all memory or end it.

    Args:
        where: The file, for errors.
        path: Where it is.

    Raises:
        ModelFileError: It holds links, compressed or virtual arrays, other types than numbers, or
            promises more than its size.
        ValueError: It is damaged.
    """
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(ROOT), str(path), str(HDF5_SECONDS)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"},
    )
    found = child.stdout.strip()
    if child.returncode == STRANGE:
        _refuse(where, found)
    if child.returncode:
        raise ValueError(found or "the HDF5 library does not get through it")


def check_in_child(path: str, seconds: str) -> int:
    """What `check_hdf5` starts; prints what is wrong and returns the exit code."""
    import resource

    import h5py

    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
    with suppress(ValueError):  # a system that knows no such limit, or has a lower one
        resource.setrlimit(resource.RLIMIT_AS, (HDF5_BYTES, HDF5_BYTES))
    try:
        with h5py.File(path, "r") as file:
            _check_items(file)
    except _Strange as strange:
        print(strange)
        return STRANGE
    except Exception as error:
        print(error or type(error).__name__)
        return 1
    return 0


def _check_items(file: "h5py.File") -> None:
    """Checks all groups and arrays, following no links, and that they fit into the file."""
    import h5py

    groups, seen, num_bytes, num_items = [file], {_address(file)}, 0, 0
    while groups:
        group = groups.pop()
        num_bytes += _check_attributes(group)
        for name in group:
            num_items += 1
            if num_items > MAX_HDF5_ITEMS:
                raise _Strange(f"more than {MAX_HDF5_ITEMS:,} groups and arrays")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise _Strange(f"the link {_shown(name)} instead of an array")
            item = group[name]
            if _address(item) in seen:
                raise _Strange(f"{_shown(name)} under two names")
            seen.add(_address(item))
            if isinstance(item, h5py.Group):
                groups.append(item)
            else:
                num_bytes += _check_array(name, item) + _check_attributes(item)
    if num_bytes > file.id.get_filesize():
        raise _Strange(f"arrays of {num_bytes:,} bytes in {file.id.get_filesize():,}")


def _address(item: "h5py.Group | h5py.Dataset") -> int:
    import h5py

    return h5py.h5o.get_info(item.id).addr


def _check_array(name: str, array: Any) -> int:
    """Checks what HDF5 says of an array; returns its bytes."""
    import h5py

    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in "fiub":
        raise _Strange(f"{_shown(name)}, which is no array of numbers")
    if array.is_virtual or array.external:
        raise _Strange(f"the array {_shown(name)} from other files")
    if array.chunks:  # only such arrays can be compressed
        raise _Strange(f"the array {_shown(name)} in pieces or compressed")
    # Not array.nbytes, which overflows.
    promised = math.prod(array.shape or ()) * array.dtype.itemsize
    stored = array.id.get_storage_size()
    if array.shape is None or stored != promised:
        raise _Strange(
            f"the array {_shown(name)} of {promised:,} bytes of which {stored:,} are there"
        )
    return promised


def _check_attributes(item: Any) -> int:
    """Checks and reads the attributes, which can send the library astray; returns their bytes."""
    import h5py

    num_bytes = 0
    for count, name in enumerate(item.attrs):
        if count >= MAX_LAYERS:
            raise _Strange(f"more than {MAX_LAYERS:,} attributes at once")
        attribute = h5py.h5a.open(item.id, name.encode())
        if h5py.check_string_dtype(attribute.dtype) is not None:
            value = item.attrs[name]
            texts = [value] if isinstance(value, str | bytes) else np.ravel(value)
            # The texts lie elsewhere in the file; a thousand names can be one and the same.
            num_bytes += sum(map(len, texts))
        elif attribute.dtype.kind not in "fiub":
            raise _Strange(f"the attribute {_shown(name)}, which is neither text nor numbers")
    return num_bytes
