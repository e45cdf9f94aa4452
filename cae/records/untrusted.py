"""Checks untrusted model files before Keras opens them.

Keras builds whatever a file names: functions, layers that run code, other files. This module lists
what image models need and refuses everything else, so that it also stops attacks that are not known
yet. It does not need Keras.

Sources: the published advisories against Keras (docs/reliability.md), on layers and functions
(CVE-2025-1550, -8747, -9905, -9906), files behind HDF5 links (CVE-2026-1669, -12480), archives
(CVE-2026-12479) and sizes (CVE-2026-0897).
"""

import io
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cae.errors import ModelFileError
from cae.records import keras2

METADATA_FILE = "metadata.json"
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.weights.h5"
MEMBERS = (METADATA_FILE, CONFIG_FILE, WEIGHTS_FILE)

# The configuration of 1,000 layers takes about 700 kB.
MAX_JSON_BYTES = 1_000_000
MAX_MODEL_LAYERS = 1000
# Trained weights hardly compress, and Keras does not compress archives at all.
MAX_EXPANSION = 10
# Seconds of the processor that the check of an HDF5 file may take; it needs a quarter of one.
HDF5_SECONDS = 5
REFUSED = 3  # exit code of that check
ROOT = Path(__file__).parents[2]


def names_of(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


# Layers of images and of vectors that consist of numbers; none takes a function or a file.
LAYERS = names_of(
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
INITIALIZERS = names_of(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones
    Orthogonal OrthogonalInitializer RandomNormal RandomUniform TruncatedNormal VarianceScaling
    Zeros
    """
)
REGULARIZERS = frozenset({"L1", "L2", "L1L2", "OrthogonalRegularizer"})
CONSTRAINTS = frozenset({"MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm"})
POLICIES = frozenset({"DTypePolicy", "FloatDTypePolicy", "Policy"})
ACTIVATIONS = names_of(
    """
    celu elu exponential gelu glu hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear
    log_sigmoid log_softmax mish relu relu6 selu sigmoid silu softmax softplus softsign swish tanh
    """
)
# The modules that Keras 2 and 3 write for each of them; older files have none.
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
# Classes that stand for values: an input of a layer, and tuples.
VALUES = frozenset({"__keras_tensor__", "__tuple__", "TensorShape"})
# Endings of keys whose values name a function, such as "he_normal" or "HeNormal".
NAMED_FUNCTIONS = {
    "activation": ACTIVATIONS,
    "_initializer": INITIALIZERS | {"zero", "one", "normal", "uniform"},
    "_regularizer": REGULARIZERS,
    "_constraint": CONSTRAINTS,
}
# Keras turns names into paths.
SAFE_NAME = re.compile(r"(?!.*\.\.)[^/\\\x00-\x1f\x7f]{1,200}")


SAVE_AGAIN = "Save it again with Keras, or give another model."
BUILD_AGAIN = (
    "Rebuild it from keras.layers alone (no Lambda, operations, or classes and functions of your "
    "own), copy the weights into it and save it; or give another model."
)


def _refuse(where: object, got: str, remedy: str = SAVE_AGAIN) -> NoReturn:
    required = "must contain plain Keras layers, their weights and nothing else"
    raise ModelFileError(where, required, got, remedy)


# --- Archives -------------------------------------------------------------------------------


class _SmallReads(io.FileIO):
    """A file that refuses large reads: `zipfile` reads the whole list of members at once."""

    def read(self, size: int = -1) -> bytes:
        remaining = os.fstat(self.fileno()).st_size - self.tell()
        wanted = remaining if size is None or size < 0 else min(size, remaining)
        if wanted > MAX_JSON_BYTES:
            raise zipfile.BadZipFile(f"a list of members of {wanted:,} bytes")
        return super().read(wanted)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a `.keras` file, which has three members and does not unpack to many times its size.

    Raises:
        ModelFileError: It holds other members or links, or unpacks to far more than its size.
        KeyError: A member is missing.
        zipfile.BadZipFile: It is damaged.
    """
    with _SmallReads(path) as file, zipfile.ZipFile(file) as archive:
        for name in MEMBERS:
            archive.getinfo(name)
        members = archive.infolist()
        names = [member.filename for member in members]
        if unknown := [name for name in names if name not in MEMBERS]:
            _refuse(path, f"a member called {quoted(unknown[0])}")
        if len(names) > len(MEMBERS):
            _refuse(path, "two members with the same name")
        for member in members:
            _check_member(path, member)
        unpacked, packed = sum(member.file_size for member in members), path.stat().st_size
        if unpacked > MAX_EXPANSION * packed:
            _refuse(path, f"{unpacked:,} bytes packed into {packed:,}")
        yield archive


def _check_member(path: Path, member: zipfile.ZipInfo) -> None:
    mode = member.external_attr >> 16  # of Unix; 0 in archives of other systems
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        _refuse(path, f"{member.filename} as a link")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _refuse(path, f"{member.filename} in compression method {member.compress_type}")
    if member.filename != WEIGHTS_FILE and member.file_size > MAX_JSON_BYTES:
        _refuse(path, f"{member.filename} of {member.file_size:,} bytes")


# --- Configurations -------------------------------------------------------------------------


def parse_config(where: object, text: str | bytes) -> dict[str, Any]:
    """Checks the JSON configuration of a model and returns it without `compile_config`.

    Raises:
        ModelFileError: It names anything but plain Keras layers and their parts.
        ValueError: It is not JSON.
    """
    if len(text) > MAX_JSON_BYTES:
        _refuse(where, f"a configuration of {len(text):,} bytes")
    try:
        config = json.loads(text, object_hook=_without_training)
        num_layers = _check_value(where, config)
    except RecursionError:
        _refuse(where, "a configuration nested too deeply")
    if not isinstance(config, dict) or config.get("class_name") not in MODELS:
        _refuse(where, "a configuration that is not a model's")
    if num_layers > MAX_MODEL_LAYERS:
        _refuse(where, f"{num_layers:,} layers, more than {MAX_MODEL_LAYERS:,}")
    return config


def _without_training(value: dict[str, Any]) -> dict[str, Any]:
    """Removes `compile_config`, as using a model needs no optimizer and no loss."""
    return {key: item for key, item in value.items() if key != "compile_config"}


def _check_value(where: object, value: Any, key: str = "") -> int:
    """Checks a value of a configuration and everything in it; returns its number of layers."""
    if isinstance(value, str):
        _check_text(where, key, value)
    if isinstance(value, list):
        return sum(_check_value(where, item) for item in value)
    if not isinstance(value, dict):
        return 0
    if value.get("class_name") == "function":
        _check_function(where, value)
        return 0
    if value.keys() & {"class_name", "module", "registered_name"}:
        _check_object(where, value)
    inside = sum(_check_value(where, item, inner) for inner, item in value.items())
    return inside + (value.get("class_name") in LAYERS or value.get("class_name") in MODELS)


def _check_object(where: object, value: dict[str, Any]) -> None:
    name, module = value.get("class_name"), value.get("module")
    if not isinstance(name, str) or not isinstance(module, str | None):
        _refuse(where, f"an object of the class {quoted(name)} in {quoted(module)}")
    if name in VALUES and module is None:
        return
    if name not in (CLASSES if module is None else MODULES.get(module, ())):
        origin = "" if module in (None, "keras.layers") else f" of {quoted(module)}"
        _refuse(where, f"{quoted(name)}{origin}, which is not a plain layer", BUILD_AGAIN)
    if value.get("registered_name") not in (None, name):
        _refuse(where, f"the custom object {quoted(value['registered_name'])}", BUILD_AGAIN)


def _check_function(where: object, value: dict[str, Any]) -> None:
    """Checks a function as Keras 3 writes it: an activation."""
    name = value.get("config")
    known = isinstance(name, str) and name in ACTIVATIONS
    registered = value.get("registered_name") in (None, "function", name)
    if value.get("module") != "builtins" or not known or not registered:
        _refuse(where, f"the function {quoted(name)} of {quoted(value.get('module'))}", BUILD_AGAIN)


def _check_text(where: object, key: str, text: str) -> None:
    if key == "name" and not SAFE_NAME.fullmatch(text):
        _refuse(where, f"a layer named {quoted(text)}")
    for ending, known in NAMED_FUNCTIONS.items():
        if key.endswith(ending) and _plain(text) not in map(_plain, known):
            _refuse(where, f"the {key} {quoted(text)}", BUILD_AGAIN)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def quoted(value: Any) -> str:
    """An untrusted value in ASCII, cut to fit one line."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


# --- Weights --------------------------------------------------------------------------------


def check_hdf5(where: object, path: Path) -> None:
    """Checks that an HDF5 file holds plain arrays of numbers, each once and in the file itself.

    A process of its own does so, `hdf5_check`. It starts in the repository, so that it does not
    import modules from the working folder. `where` names the file in errors.

    Raises:
        ModelFileError: It holds links, compressed or virtual arrays, types other than numbers, or
            promises more than its size.
        ValueError: It is damaged.
    """
    child = subprocess.run(
        [sys.executable, "-m", "cae.records.hdf5_check", path.absolute(), str(HDF5_SECONDS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"},
    )
    found = child.stdout.strip()
    if child.returncode == REFUSED:
        _refuse(where, found)
    if child.returncode:
        raise ValueError(found or "the HDF5 library cannot read it to its end")
