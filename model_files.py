"""Saved models: a plain Keras file that also says what it was trained on.

The metadata lies where Keras ignores it: in `.keras` files (zip archives) as one more key of
`metadata.json`, in `.h5` files as an attribute of the root. It is read without Keras, so that a
program can refuse a model before TensorFlow has started.
"""

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt

from errors import ModelFileError, UsageError

if TYPE_CHECKING:
    import keras

METADATA_KEY = "convolutional_autoencoder"
KERAS_METADATA = "metadata.json"
SUFFIXES = (".keras", ".h5")
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
# Far above any real metadata (62 classes and all hyperparameters take about 4 kB).
MAX_METADATA_BYTES = 1_000_000


class _Scaling(BaseModel):
    """As `dataset.Scaling`, from a file that may come from a stranger."""

    model_config = ConfigDict(strict=True, extra="forbid")

    offset: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]
    dtype: Literal["uint8", "int8", "int16", "int32", "float32", "float64"]


class _Metadata(BaseModel):
    """The part of the metadata that programs rely on; files of other programs have none of it."""

    model_config = ConfigDict(strict=True)

    input_shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] | None = None
    scaling: _Scaling | None = None
    classes: list[int] | None = None
    class_names: list[str] | None = None


def check_destination(path: str | Path, overwrite: bool) -> Path:
    """Checks that a model can be saved at `path`, before hours are spent training it.

    Raises:
        UsageError: The ending is neither .keras nor .h5, the file exists and `overwrite` is
            false, or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UsageError(
            path,
            "a model file must end in .keras or .h5",
            repr(path.suffix) if path.suffix else "no ending",
            f"Use {path.with_suffix('.keras')}.",
        )
    if path.is_dir():
        raise UsageError(path, "must be a file", "a directory", "Give another name.")
    if path.exists() and not overwrite:
        raise UsageError(
            path,
            "must not exist yet",
            "an existing file",
            "Give another name, or --overwrite to replace it.",
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            path.parent, "must be a folder", error.strerror, "Give another."
        ) from error
    if not os.access(path.parent, os.W_OK):
        raise UsageError(path.parent, "must be writable", "no permission", "Choose another folder.")
    return path


def save_model(
    model: "keras.Model", path: str | Path, metadata: dict[str, Any], *, overwrite: bool = False
) -> Path:
    """Writes the model and its metadata, under a temporary name until it is complete.

    Raises:
        UsageError: As for `check_destination`, or the disk is full.
    """
    path = check_destination(path, overwrite)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".saving-") as folder:
        unfinished = Path(folder) / path.name
        try:
            if path.suffix == ".h5":
                _save_h5(model, unfinished, metadata)
            else:
                _save_keras(model, unfinished, metadata)
            unfinished.replace(path)
        except OSError as error:
            raise UsageError(
                path, "must be writable", error.strerror or error, "Nothing was saved."
            ) from error
    return path


def _save_keras(model: "keras.Model", path: Path, metadata: dict[str, Any]) -> None:
    plain = path.with_name("plain.keras")
    model.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            content = source.read(member)
            if member.filename == KERAS_METADATA:
                content = json.dumps({**json.loads(content), METADATA_KEY: metadata}).encode()
            target.writestr(member, content)
    plain.unlink()


def _save_h5(model: "keras.Model", path: Path, metadata: dict[str, Any]) -> None:
    import h5py
    from absl import logging

    # Keras advises against .h5 at every save; whoever typed .h5 has chosen it.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        model.save(path)
    finally:
        logging.set_verbosity(verbosity)
    with h5py.File(path, "a") as file:
        file.attrs[METADATA_KEY] = json.dumps(metadata)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata of a saved model, without loading Keras; `{}` for a file that has none.

    Raises:
        ModelFileError: The file is missing, or is no model.
    """
    path = Path(path)
    kind = _file_kind(path)
    try:
        if kind == "keras":
            with zipfile.ZipFile(path) as archive:
                member = archive.getinfo(KERAS_METADATA)
                if member.file_size > MAX_METADATA_BYTES:
                    raise ValueError(f"{KERAS_METADATA} of {member.file_size} bytes")
                metadata = json.loads(archive.read(member)).get(METADATA_KEY, {})
        else:
            import h5py

            with h5py.File(path, "r") as file:
                if "model_config" not in file.attrs:
                    raise ValueError("an HDF5 file without a model (weights alone, or other data)")
                metadata = json.loads(file.attrs.get(METADATA_KEY, "{}"))
        _Metadata.model_validate(metadata)
    except Exception as error:  # A damaged archive raises nearly every type.
        raise _damaged(path, error) from error
    return metadata


def load_model(path: str | Path) -> tuple["keras.Model", dict[str, Any]]:
    """Loads a model saved by this program or by Keras 2 or 3, and its metadata.

    Raises:
        ModelFileError: The file is missing, is no model, is damaged, or holds code (a Lambda
            layer) or layers that plain Keras does not know.
    """
    metadata = read_metadata(path)
    import warnings

    import keras

    try:
        with warnings.catch_warnings():
            # Keras 2 files name arguments that Keras 3 has renamed; it maps them itself.
            warnings.simplefilter("ignore")
            with _readable_by_keras_3(Path(path)) as readable:
                return keras.models.load_model(readable, compile=False, safe_mode=True), metadata
    except Exception as error:  # Keras raises nearly every type for a damaged file.
        raise _damaged(Path(path), error) from error


@contextmanager
def _readable_by_keras_3(path: Path) -> Iterator[Path]:
    """The file itself, or for an `.h5` file of Keras 2 a translated copy for the time being.

    Keras 2 counts the construction of a nested model as its first call, Keras 3 does not and
    finds no input for what follows the encoder.
    """
    if _file_kind(path) != "h5":
        yield path
        return
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        # Keras goes by the ending, which a downloaded file may have lost.
        copy = Path(folder) / "model.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            if str(file.attrs.get("keras_version", "")).startswith("2"):
                _renumber_calls(config["config"])
                file.attrs["model_config"] = json.dumps(config)
        yield copy


def _renumber_calls(network: dict[str, Any]) -> None:
    """Lets the calls of nested models in a Keras 2 config count from 0, in place."""
    nested = [layer for layer in network["layers"] if "layers" in layer["config"]]
    names = {layer["config"]["name"] for layer in nested}
    calls = [call for layer in network["layers"] for call in layer.get("inbound_nodes", [])]
    for reference in [*chain(*calls), *network.get("output_layers", [])]:
        name, call, *_ = reference
        if name in names:
            reference[1] = call - 1
    for layer in nested:
        _renumber_calls(layer["config"])


def find_encoder(model: "keras.Model", where: object) -> "keras.Model":
    """The sub-model named `encoder` of an autoencoder or a classifier.

    Raises:
        ModelFileError: There is none.
    """
    for layer in model.layers:
        if layer.name == "encoder" and hasattr(layer, "layers"):
            return layer
    names = ", ".join(layer.name for layer in model.layers[:6])
    raise ModelFileError(
        where,
        "must contain a sub-model named 'encoder', as the models of this program do",
        f"layers {names}",
        "Train and save an autoencoder with autoencoder.py.",
    )


def _file_kind(path: Path) -> str:
    if path.is_dir():
        raise ModelFileError(
            path,
            "must be a .keras or .h5 file",
            "a directory",
            "Name the file in it, for a run its model.keras.",
        )
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except FileNotFoundError as error:
        raise ModelFileError(
            path,
            "must be a saved model",
            "no such file",
            "Train one: python autoencoder.py -d mnist --save models/small.keras.",
        ) from error
    except OSError as error:
        raise ModelFileError(path, "must be readable", error.strerror, "Check it.") from error
    if start.startswith(ZIP_SIGNATURE):
        return "keras"
    if start == HDF5_SIGNATURE:
        return "h5"
    raise ModelFileError(
        path,
        "must be a .keras or .h5 file",
        "an empty file" if not start else f"one that begins with {start!r}",
        "Give the file that --save or a run wrote.",
    )


def _damaged(path: Path, error: Exception) -> ModelFileError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if len(reason) > 200:
        reason = reason[:200] + "…"
    return ModelFileError(
        path,
        "must be a complete model of plain Keras layers",
        f"one that cannot be read ({reason})",
        "Save it again, or give another model.",
    )
