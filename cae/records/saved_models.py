"""Saved models: plain Keras files with metadata about the data they were trained on.

The metadata is stored where Keras ignores it: as a key of `metadata.json` in `.keras` files (zip
archives), as an attribute of the root in `.h5` files. It is read without Keras, so that a program
can refuse a model before TensorFlow has started. Keras never opens the file that a person names,
only a copy that `untrusted` has checked.
"""

import io
import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PositiveInt,
    ValidationError,
)

from cae.config.choices import MAX_NAME, RESIZE
from cae.errors import ModelFileError, UsageError, UserError
from cae.files import explaining, make_folder, replace_file
from cae.records import keras2, untrusted
from cae.records.untrusted import CONFIG_FILE, METADATA_FILE, WEIGHTS_FILE

if TYPE_CHECKING:
    import keras


METADATA_KEY = "convolutional_autoencoder"
CONFIG_KEY = "model_config"
MODEL_SUFFIXES = (".keras", ".h5")
# Groups of a `.weights.h5` file, of Keras 3 and of Keras 2.12.
WEIGHTS_GROUPS = ("layers", "_layer_checkpoint_dependencies")
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK\x03\x04"
# Values that a layer may compute per image: 1 GiB as float32. A configuration of a few bytes can
# ask for more, and the memory is only taken when the model is used.
MAX_ACTIVATIONS = 2**28


def _check_order(labels: list[int]) -> list[int]:
    if labels != sorted(set(labels)):
        raise ValueError("must ascend")
    return labels


# A terminal would obey control characters.
_Printable = Annotated[str, Field(max_length=MAX_NAME, pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$")]


class _Untrusted(BaseModel):
    """A part of the metadata, which anyone may have written."""

    model_config = ConfigDict(strict=True, extra="forbid")


class _Scaling(_Untrusted):
    """The values of a `datasets.Scaling`."""

    offset: FiniteFloat
    scale: Annotated[FiniteFloat, Field(gt=0)]
    dtype: Literal["uint8", "int8", "int16", "int32", "float32", "float64"]


class _Appearance(_Untrusted):
    """What `appearance.describe` returns."""

    mean: FiniteFloat
    spread: FiniteFloat
    border: FiniteFloat
    darkest: FiniteFloat
    brightest: FiniteFloat
    rows: list[FiniteFloat]
    columns: list[FiniteFloat]
    scores: dict[str, Annotated[list[FiniteFloat], Field(min_length=2, max_length=2)]]


class _Calibration(_Untrusted):
    """The values of a `calibration.Calibration`."""

    temperature: Annotated[FiniteFloat, Field(gt=0)]
    unsure_below: Annotated[FiniteFloat, Field(ge=0, le=1)]


class _Typical(_Untrusted):
    """The values of a `calibration.Typical`."""

    quantiles: Annotated[list[FiniteFloat], Field(min_length=201, max_length=201)]
    mean: list[FiniteFloat]
    deviation: list[Annotated[FiniteFloat, Field(gt=0)]]


class _Metadata(BaseModel):
    """The metadata that programs rely on. Every key may be missing; none may be null."""

    model_config = ConfigDict(strict=True)

    kind: str = None
    name: str = None
    data: str = None
    metrics: dict[str, Any] = None
    model_info: dict[str, Any] = None
    input_shape: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] = None
    scaling: _Scaling = None
    resize: Literal[RESIZE] = None
    appearance: _Appearance = None
    calibration: _Calibration = None
    typical: _Typical = None
    # int64, as labels are.
    classes: Annotated[
        list[Annotated[int, Field(ge=-(2**63), lt=2**63)]], AfterValidator(_check_order)
    ] = None
    class_names: list[_Printable] = None


def check_destination(path: str | Path, overwrite: bool) -> Path:
    """Checks that a model can be saved at `path`, before it is trained for hours.

    Raises:
        UsageError: The suffix is neither .keras nor .h5, the file exists and `overwrite` is
            false, or the folder cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(path, "must be a file", "a folder", "Choose another name.")
    if path.suffix not in MODEL_SUFFIXES:
        got = repr(path.suffix) if path.suffix else "no suffix"
        remedy = f"Use {path.with_suffix('.keras')}."
        raise UsageError(path, "must end in .keras or .h5", got, remedy)
    if path.exists() and not overwrite:
        remedy = "Choose another name, or --overwrite to replace it."
        raise UsageError(path, "must not exist yet", "an existing file", remedy)
    make_folder(path.parent, "Choose another folder.")
    return path


def save_model(
    model: "keras.Model", path: str | Path, metadata: dict[str, Any], *, overwrite: bool = False
) -> Path:
    """Writes a model and its metadata, completely or not at all; raises as `check_destination`."""
    path = check_destination(path, overwrite)
    write = _write_h5 if path.suffix == ".h5" else _write_keras
    with explaining(path), replace_file(path) as file:
        write(model, file, metadata)
    return path


def _write_keras(model: "keras.Model", file: BinaryIO, metadata: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory(dir=Path(file.name).parent, prefix=".saving-") as folder:
        plain = Path(folder) / "plain.keras"
        model.save(plain)
        with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w") as target:
            for member in source.infolist():
                content = source.read(member)
                if member.filename == METADATA_FILE:
                    content = json.dumps({**json.loads(content), METADATA_KEY: metadata}).encode()
                target.writestr(member, content)


def _write_h5(model: "keras.Model", file: BinaryIO, metadata: dict[str, Any]) -> None:
    import h5py
    from keras.src.legacy.saving.legacy_h5_format import save_model_to_hdf5

    # In memory first: on a full disk, the HDF5 library crashes the process.
    content = io.BytesIO()
    with h5py.File(content, "w") as h5:
        save_model_to_hdf5(model, h5)
        h5.attrs[METADATA_KEY] = json.dumps(metadata)
    file.write(content.getbuffer())


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Reads the metadata of a saved model without Keras; `{}` if the file has none.

    Raises:
        ModelFileError: It is missing, is not a model, or has layers that `load_model` refuses.
    """
    return _read(Path(path))[0]


def load_model(path: str | Path) -> tuple["keras.Model", dict[str, Any]]:
    """Loads a model that this program, Keras 2 or Keras 3 saved, and its metadata.

    No code in the file runs, only a temporary copy is written, and memory is taken only for weights
    that the file holds.

    Raises:
        ModelFileError: The file is missing, damaged, or holds anything but plain Keras layers and
            their weights.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory() as folder:
        metadata, copy = _read(path, Path(folder))
        import warnings

        import keras

        def load() -> keras.Model:
            return keras.models.load_model(copy, compile=False, safe_mode=True)

        with _errors_of(path), warnings.catch_warnings():
            # About arguments that Keras 3 has renamed, and maps itself.
            warnings.simplefilter("ignore")
            _rehearse(path, load)
            model = load()
            for layer in get_layers(model):
                if isinstance(layer, keras.layers.Normalization):
                    layer.finalize_state()  # which Keras forgets in nested models of HDF5 files
            return model, metadata


def _read(path: Path, folder: Path | None = None) -> tuple[dict[str, Any], Path]:
    """Checks a file, and leaves a copy in `folder`, if it is given, that Keras may open.

    The checks apply to the copy, because the file itself could change after them.

    Returns:
        The metadata; and the copy: an `.h5` file, or the folder of an unpacked `.keras` file.
    """
    read = {"keras": _read_keras, "h5": _read_h5}[_file_kind(path)]
    with _errors_of(path):
        metadata, copy = read(path, folder)
    try:
        _Metadata.model_validate(metadata)
    except ValidationError as invalid:
        remedy = "Save the model again, or give another one."
        raise ModelFileError.from_validation(path, invalid, _Metadata, remedy) from invalid
    return metadata, copy


def _read_keras(path: Path, folder: Path | None) -> tuple[dict[str, Any], Path]:
    with untrusted.open_archive(path) as archive:
        metadata = json.loads(archive.read(METADATA_FILE))
        version = metadata.get("keras_version")
        config = _parse_config(path, archive.read(CONFIG_FILE), version)
        if folder:
            (folder / CONFIG_FILE).write_text(json.dumps(config))
            weights = folder / WEIGHTS_FILE
            with archive.open(WEIGHTS_FILE) as packed, weights.open("wb") as file:
                shutil.copyfileobj(packed, file)
            untrusted.check_hdf5(path, weights)
    return metadata.get(METADATA_KEY, {}), folder or path


def _read_h5(path: Path, folder: Path | None) -> tuple[dict[str, Any], Path]:
    import h5py

    copy = path
    if folder:  # Keras needs the suffix, which a downloaded file may have lost.
        copy = shutil.copyfile(path, folder / "model.h5")
    untrusted.check_hdf5(path, copy)
    with h5py.File(copy, "r+" if folder else "r") as file:
        if CONFIG_KEY not in file.attrs:
            if "layer_names" in file.attrs or file.keys() & set(WEIGHTS_GROUPS):
                _refuse_weights(path, "weights alone, as model.save_weights writes them")
            raise ValueError("an HDF5 file without a model")
        config = _parse_config(path, file.attrs[CONFIG_KEY], file.attrs.get("keras_version"))
        if folder:
            keras2.keep_axes(config)
            file.attrs[CONFIG_KEY] = json.dumps(config)
        return json.loads(file.attrs.get(METADATA_KEY, "{}")), copy


def _parse_config(where: Path, text: str | bytes, version: object) -> dict[str, Any]:
    """A checked configuration, as Keras 3 would have written it."""
    config = untrusted.parse_config(where, text)
    keras2.translate(where, config, version)
    return config


def _rehearse(where: Path, load: Callable[[], "keras.Model"]) -> None:
    """Loads a model without allocating variables, and checks its sizes.

    A configuration of a few bytes can ask for terabytes of weights, which Keras would allocate
    before it reads the weights from the file.
    """
    import keras

    largest_variable = untrusted.MAX_EXPANSION * where.stat().st_size

    class WithoutMemory(keras.StatelessScope):
        """Initializes a variable only if its value is read, and refuses a large one."""

        def get_current_value(self, variable: keras.Variable) -> Any:
            value = super().get_current_value(variable)
            if value is None and math.prod(variable.shape) > largest_variable:
                raise ValueError(f"no weights for {variable.path}")
            return value

    def check() -> None:
        with WithoutMemory(initialize_variables=False) as scope:
            model = load()
            missing = [v.path for v in model.weights if scope.get_current_value(v) is None]
        if missing:
            raise ValueError(f"no weights for {missing[0]}")
        outputs = [model.inputs, *(layer.output for layer in get_layers(model))]
        sizes = (x.shape[1:] for x in keras.tree.flatten(outputs))
        largest = max(math.prod(size or 1 for size in shape) for shape in sizes)
        check_activations(where, largest, "a layer")

    # Keras lists the variables to initialize later per thread; the list ends with this thread.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(check).result()


def check_activations(where: object, largest: int, place: object) -> None:
    """Refuses a model that takes too much memory: `largest` values per image, at `place`."""
    if largest > MAX_ACTIVATIONS:
        required = f"must compute at most {MAX_ACTIVATIONS:,} values per image and layer"
        raise ModelFileError(where, required, f"{largest:,} in {place}", "Choose another model.")


def get_layers(model: "keras.Model") -> Iterator["keras.Layer"]:
    """The layers of a model and of the models in it, in order, without inputs."""
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from get_layers(layer)
        elif type(layer).__name__ != "InputLayer":
            yield layer


def _file_kind(path: Path) -> str:
    required = "must be a .keras or .h5 file"
    # TensorFlow's own formats: folders, files in them, and names of checkpoints without an ending.
    is_inside = path.suffix == ".pb" or path.name == "variables"
    folders = [path, *[path.parent] * is_inside]
    folders += [path.parent.parent] * (path.parent.name == "variables")
    if any((folder / "saved_model.pb").exists() for folder in folders):
        raise ModelFileError(
            path,
            required,
            "a TensorFlow SavedModel, which Keras 3 cannot open",
            "Save the model with model.save('model.h5') in the program that made it. A "
            "SavedModel of Keras 2 also opens with tf.keras.models.load_model (TensorFlow 2.15 or "
            "older, or tf_keras); one exported by Keras 3 does not.",
        )
    is_prefix = not path.exists() and Path(f"{path}.index").exists()
    is_file = path.name == "checkpoint" or path.suffix == ".index" or ".data-0" in path.suffix
    if is_file or is_prefix or (path.is_dir() and any(path.glob("*.index"))):
        _refuse_weights(path, "a TensorFlow checkpoint, which holds weights alone")
    if path.is_dir():
        remedy = "Name the file in it, for a run its model.keras."
        raise ModelFileError(path, required, "a folder", remedy)
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except (OSError, ValueError) as error:  # a name may hold a null character
        got = error.strerror if path.exists() else "no such file"
        remedy = "Check its path. autoencoder.py and classification.py save one with --save MODEL."
        raise ModelFileError(path, required, got, remedy) from error
    if start.startswith(ZIP_SIGNATURE):
        return "keras"
    if start == HDF5_SIGNATURE:
        return "h5"
    got = f"one that begins with {start!r}" if start else "an empty file"
    raise ModelFileError(path, required, got, "Pass the file that --save or a run wrote.")


def _refuse_weights(path: Path, got: str) -> NoReturn:
    raise ModelFileError(
        path,
        "must contain the model's layers and their weights",
        got,
        "Build the model in the version of Keras that saved them, load the weights into it with "
        "model.load_weights, and save both with model.save('model.keras').",
    )


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Turns any error into one that names the file: damaged models raise nearly every type."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        if len(reason) > 200:
            reason = f"…{reason[-200:]}"  # Keras shows the configuration first and the cause last
        raise ModelFileError(
            path,
            "must be a complete model of plain Keras layers",
            f"a file that could not be read: {reason}",
            "Save it again, or give another model.",
        ) from error
