"""A loaded model as a flat sequence of calls of layers, whatever models it nests.

The layers are copies with weights of their own: cutting the sequence, or putting something in front
of it, leaves the loaded model as it is. Keras is imported by the functions that need it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cae.config.shapes import format_shape
from cae.records.saved_models import get_layers

if TYPE_CHECKING:
    import keras

# Statistics of the images, which no training changes.
STATISTICS = "Normalization"
MAX_LISTED = 40  # layers in an error


@dataclass(frozen=True, eq=False)
class LayerCall:
    """One call of a layer."""

    layer: "keras.Layer"  # the copy that was called
    inputs: tuple[Any, ...]  # symbolic tensors
    output: Any

    @property
    def kind(self) -> str:
        """The class of the layer."""
        return type(self.layer).__name__

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Values in the output for one image."""
        return self.output.shape[1:]

    @property
    def size(self) -> int:
        """How many numbers it makes of one image."""
        return math.prod(size or 1 for size in self.shape)

    @property
    def positions(self) -> int:
        """At how many places of the image; 1 for a vector."""
        return math.prod(size or 1 for size in self.shape[:-1])

    @property
    def has_weights(self) -> bool:
        """Whether it computes with weights that training changes."""
        return bool(self.layer.weights) and self.kind != STATISTICS

    def __str__(self) -> str:
        return _describe(self.layer, self.shape)


@dataclass(frozen=True, eq=False)
class Unrolled:
    """A model as a sequence of calls, each of which follows those it depends on."""

    inputs: tuple[Any, ...]
    calls: tuple[LayerCall, ...]
    outputs: tuple[Any, ...]

    def find_cuts(self) -> list[int]:
        """The calls through which everything passes: nothing later uses what came before them."""
        last_use = {id(tensor): -1 for tensor in self.inputs}
        for number, call in enumerate(self.calls):
            last_use[id(call.output)] = number
            last_use |= {id(tensor): number for tensor in call.inputs}
        last_use |= {id(tensor): len(self.calls) for tensor in self.outputs}
        needed, cuts = set(map(id, self.inputs)), []
        for number, call in enumerate(self.calls):
            needed = {tensor for tensor in needed | {id(call.output)} if last_use[tensor] > number}
            if needed == {id(call.output)}:
                cuts.append(number)
        return cuts


class _Reached(Exception):
    """Ends the calls: its argument, the outputs, is all that was wanted."""


def unroll(
    model: "keras.Model",
    inputs: Sequence[Any],
    *,
    until: "keras.Model | None" = None,
    with_weights: bool = True,
) -> Unrolled:
    """Calls copies of all layers of a model, and of the models in it, on symbolic tensors.

    Args:
        model: A Sequential or functional model.
        inputs: A symbolic tensor for each of its inputs.
        until: A nested model; the sequence ends with the outputs of its first call.
        with_weights: Whether the copies get the weights, or fresh ones.

    Raises:
        Exception: A layer cannot be called with such inputs; Keras raises nearly every type.
    """
    import keras

    calls: list[LayerCall] = []
    copies: dict[int, keras.Layer] = {}
    names: set[str] = set()

    def call(layer: "keras.Layer", *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, keras.Model):
            results = _run_model(layer, keras.tree.flatten(args[0]), call)
            if layer is until:
                raise _Reached(results)
            return results[0] if len(results) == 1 else results
        is_new = id(layer) not in copies
        if is_new:
            copies[id(layer)] = _copy_layer(layer, names)
        copy = copies[id(layer)]
        output = copy(*args, **kwargs)
        if is_new and (with_weights or type(layer).__name__ == STATISTICS):
            variables: dict[str, Any] = {}
            layer.save_own_variables(variables)
            copy.load_own_variables(variables)
        tensors = keras.tree.flatten((args, kwargs))
        used = tuple(tensor for tensor in tensors if isinstance(tensor, keras.KerasTensor))
        calls.append(LayerCall(copy, used, output))
        return output

    try:
        outputs = _run_model(model, inputs, call)
    except _Reached as reached:
        (outputs,) = reached.args
    return Unrolled(tuple(inputs), tuple(calls), tuple(outputs))


def describe_layers(model: "keras.Model") -> str:
    """The layers with their types and the shapes of what they make of one image, in a line."""
    layers = list(get_layers(model))
    listed = [_describe(layer, layer.output.shape[1:]) for layer in layers[:MAX_LISTED]]
    more = [f"{len(layers) - MAX_LISTED} more"] if len(layers) > MAX_LISTED else []
    return ", ".join([*listed, *more])


def _describe(layer: "keras.Layer", shape: Sequence[int | None]) -> str:
    return f"{layer.name} ({type(layer).__name__}, {format_shape(shape)})"


def _run_model(model: "keras.Model", inputs: Sequence[Any], call: Callable[..., Any]) -> list[Any]:
    """Runs a model on symbolic tensors, with `call(layer, *args)` for each of its layers."""
    import keras

    if isinstance(model, keras.Sequential):
        (output,) = inputs
        for layer in model.layers:
            output = call(layer, output)
        return [output]
    calls: list[tuple[Any, ...]] = []

    def note(layer: "keras.Layer", *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        calls.append((layer, args, kwargs, outputs))
        return outputs

    # Keras shows the order of the calls only while it copies a model.
    copy = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=note)
    values = dict(zip(map(id, copy.inputs), inputs, strict=True))

    def value(tensor: Any) -> Any:
        return values.get(id(tensor), tensor)

    for layer, args, kwargs, outputs in calls:
        arguments, named = keras.tree.map_structure(value, (args, kwargs))
        results = call(layer, *arguments, **named)
        values |= zip(
            map(id, keras.tree.flatten(outputs)), keras.tree.flatten(results), strict=True
        )
    return [value(tensor) for tensor in copy.outputs]


def _copy_layer(layer: "keras.Layer", names: set[str]) -> "keras.Layer":
    """A layer of the same configuration, under a name that none of `names` has."""
    name, number = layer.name, 1
    while name in names:
        number += 1
        name = f"{layer.name}_{number}"
    names.add(name)
    return type(layer).from_config({**layer.get_config(), "name": name})
