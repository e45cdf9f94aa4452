"""Configurations of Keras 2 (and of tf_keras), rewritten as Keras 3 would have written them.

Keras 3 reads most files of Keras 2 itself. What it stumbles over is translated here, in place, in
the checked copy of a model file: arguments that Keras 3 has dropped, classes that it keeps in other
modules, models without an input layer, and calls of nested models, which it counts from another
number. Nothing here imports Keras. `tests/fixtures/make_keras2.py` writes a file for every layer.
"""

from itertools import chain
from typing import Any

from cae.errors import ModelFileError

MODELS = frozenset({"Functional", "Model", "Sequential"})
# Where Keras 2.12, 2.13 to 2.15 and tf_keras say that a functional model comes from.
FUNCTIONAL_MODULES = frozenset(
    f"{package}.engine.functional" for package in ("keras", "keras.src", "tf_keras.src")
)
# As TensorFlow 1.14 and 1.15 wrote it.
RENAMED_LAYERS = {f"BatchNormalizationV{n}": "BatchNormalization" for n in (1, 2)}
# Arguments that had no effect in Keras 2.
UNUSED = {
    "SeparableConv2D": ("kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SpatialDropout2D": ("noise_shape", "trainable"),
}
# Layers whose argument `groups` Keras 3 has dropped; only 1 means the same without it.
UNGROUPED = frozenset({"Conv2DTranspose", "DepthwiseConv2D", "SeparableConv2D"})


def translate(where: object, config: dict[str, Any], version: object) -> None:
    """Translates the configuration of a model, checked by `untrusted`, in place.

    Args:
        where: The file, for errors.
        config: The model as `{"class_name": …, "config": …}`.
        version: The `keras_version` of the file; None in the oldest ones.

    Raises:
        ModelFileError: A layer computes what no layer of Keras 3 computes.
    """
    if not str(version).startswith("3"):
        _translate_object(where, config)
        _renumber_calls(config["config"])


def keep_axes(value: Any) -> None:
    """Lets layers of an HDF5 file keep their `axis`, in place.

    Keras 3 drops it unless it is one number: from `Normalization(axis=None)`, for instance. Of
    layers that name their module, it does not.
    """
    if isinstance(value, dict):
        axis = isinstance(value.get("config"), dict) and value["config"].get("axis")
        if "class_name" in value and isinstance(axis, list) and len(axis) != 1:
            value.setdefault("module", "keras.layers")
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            keep_axes(item)


def _translate_object(where: object, value: Any) -> None:
    """Translates an object and all inside it."""
    if isinstance(value, dict):
        if isinstance(value.get("class_name"), str):
            _translate_class(where, value)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _translate_object(where, item)


def _translate_class(where: object, value: dict[str, Any]) -> None:
    name = value["class_name"] = RENAMED_LAYERS.get(value["class_name"], value["class_name"])
    if value.get("module") in FUNCTIONAL_MODULES:
        value["module"] = "keras.src.models.functional"
    if name == "Sequential":
        _translate_sequential(value)
    elif isinstance(value.get("config"), dict):
        _translate_layer(where, name, value["config"])


def _translate_sequential(value: dict[str, Any]) -> None:
    """Gives a Sequential model the name and the input layer that the oldest versions left out."""
    if isinstance(value["config"], list):  # before Keras 2.2.3
        value["config"] = {"name": "sequential", "layers": value["config"]}
    layers = value["config"]["layers"]
    shape = layers and layers[0]["config"].get("batch_input_shape")
    if shape and layers[0]["class_name"] not in {"InputLayer", *MODELS}:
        config = {"batch_input_shape": shape, "dtype": "float32", "name": "input"}
        layers.insert(0, {"class_name": "InputLayer", "config": config})


def _translate_layer(where: object, name: str, config: dict[str, Any]) -> None:
    if name != "InputLayer":
        config.pop("batch_input_shape", None)
    if name == "BatchNormalization" and isinstance(config.get("axis"), list):
        (config["axis"],) = config["axis"]
    if isinstance(config.get("dtype"), dict):  # a policy of mixed precision
        config["dtype"] = config["dtype"]["config"]["name"]
    for key, value in config.items():
        if key.endswith("_initializer") and isinstance(value, dict):
            value["config"].pop("dtype", None)  # before TensorFlow 2.1
    config.pop("rng_type", None)  # of layers with random numbers, where Keras 2 asks for it
    for key in UNUSED.get(name, ()):
        config.pop(key, None)
    groups = config.pop("groups", 1) if name in UNGROUPED else 1
    if groups != 1:
        required = f"must contain layers that Keras 3 has: {name} with groups 1"
        raise ModelFileError(where, required, f"groups {groups}", "Train the model again.")


def _renumber_calls(network: dict[str, Any]) -> None:
    """Lets the calls of nested models count from 0.

    Keras 2 counts the construction of a nested model as its first call, Keras 3 does not and
    finds no input for what follows.
    """
    nested = [layer for layer in network["layers"] if "layers" in layer["config"]]
    names = {layer["config"]["name"] for layer in nested}
    calls = [call for layer in network["layers"] for call in layer.get("inbound_nodes", [])]
    for reference in [*chain(*calls), *network.get("output_layers", [])]:
        name, call, *_ = reference
        if name in names:
            reference[1] = call - 1
    for layer in nested:
        _renumber_calls(layer["config"])
