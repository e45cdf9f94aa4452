"""Asks for a configuration: the name of a file, or one hyperparameter after another."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cae import prompts, terminal
from cae.config.choices import MAX_BATCH_SIZE, MAX_EPOCHS
from cae.config.fields import (
    ACTIVATIONS,
    MAX_FILTERS,
    MAX_KERNEL,
    MAX_LEARNING_RATE,
    MAX_POOL,
    MAX_UNITS,
    OPTIMIZERS,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Drop,
    Pool,
    StridedConv,
    UpSample,
)
from cae.config.load import dump_config, validate_config
from cae.config.schema import PHASE_KEYS, Config, Kind
from cae.config.shapes import (
    Shape,
    Size,
    check_shapes,
    follow,
    format_shape,
    get_largest_factors,
)
from cae.config.shipped import FOLDER, OWN_KEYS, SHIPPED, find_shipped, get_folder, read_object
from cae.errors import ConfigurationError, UserError, listed, shown
from cae.files import free_name, new_file, write_text
from cae.programs.starting_points import (
    check_layers,
    check_model_shape,
    load_overridden,
    override_by_flags,
)
from cae.records.shelf import find_models
from cae.terminal import OUT

# For each value of a layer, by the name of its field, the question and the parser of the answer.
LAYER_QUESTIONS = {
    "filters": ("Filters", prompts.whole_number(1, MAX_FILTERS)),
    "kernel_size": ("Kernel height,width", prompts.pair(1, MAX_KERNEL)),
    "size": ("Height,width", prompts.pair(1, MAX_POOL)),
    "strides": ("Strides height,width", prompts.pair(1, MAX_POOL)),
    "units": ("Units", prompts.whole_number(1, MAX_UNITS)),
    "rate": ("Rate", prompts.number(0, 0.99)),
}
ENLARGING = {"upSample": "size", "convTranspose": "strides"}  # the value that does
OFFERED = 9  # configurations
LAYER_HELP = {
    "conv": "a convolution with this many filters of this height and width.",
    "convTranspose": "a transposed convolution: images become larger by its strides.",
    "pool": "keeps the largest value of every height × width area: images become smaller.",
    "upSample": "repeats every value over an area of height × width: images become larger.",
    "dense": "this many units, each connected to all values before it.",
    "batchNorm": "batch normalisation.",
    "drop": "dropout: sets this share of the values to 0 while training.",
}


@dataclass
class Latest:
    """The latest answers: the defaults when the same questions are asked again.

    Attributes:
        way: 1 for an existing file, 2 for one layer after another.
        file: The configuration file.
        encoder: The saved autoencoder that was asked for.
        config: The configuration that came of it.
    """

    way: int = 1
    file: str | None = None
    encoder: str | None = None
    config: Config | None = None


def ask_config(
    kind: Kind,
    args: argparse.Namespace,
    input_shape: Shape,
    latest: Latest,
    *,
    has_menu: bool = True,
) -> tuple[str, Config]:
    """Asks for the hyperparameters that no flag has given, in layers that fit the images.

    Args:
        kind: Of the model.
        args: The flags.
        input_shape: (height, width, channels) of the images.
        latest: The defaults, which are replaced by the answers.
        has_menu: Whether there is a menu to go back to.

    Returns:
        The name of the configuration, and the configuration.

    Raises:
        Back: At the first question.
    """
    terminal.say(f"Hyperparameters of the {kind} (? explains, back returns to the last question):")
    questions = _Questions(kind, args, input_shape, latest)
    ways = ["Use an existing configuration file", "Enter the layers one by one"]
    while True:
        try:
            way = prompts.choose("Your choice", ways, latest.way)
        except prompts.Back as back:
            if back.is_typed and not has_menu:
                continue
            raise
        try:
            if way == 1:
                name, config = _ask_for_file(kind, args, input_shape, latest)
            else:
                name, config = questions.ask()
        except prompts.Back:
            continue
        latest.way, latest.config = way, config
        return name, config


def _ask_for_file(
    kind: Kind, args: argparse.Namespace, input_shape: Shape, latest: Latest
) -> tuple[str, Config]:
    model = getattr(args, "model", None)

    def needs_encoder(config: Config) -> bool:
        return kind == "classifier" and config.encoder_layers is None and model is None

    def load(path: str) -> tuple[str, Config]:
        config = load_overridden(find_shipped(path), kind, args)
        if not needs_encoder(config):
            check_layers(config, model, input_shape, path)
        latest.file = path
        return Path(path).stem, config

    name, config = prompts.ask_file("File", load, find_configs(kind), latest.file)
    if needs_encoder(config):
        encoder = _ask_encoder(args, input_shape, latest)
        config = config.model_copy(update={"encoder_layers": encoder})
    return name, config


def find_configs(kind: Kind) -> list[str]:
    """One's own configurations, the latest first, then shipped ones."""
    shipped = {path.name for path in get_folder().glob("*.json")}
    own = [
        path
        for folder in (Path(FOLDER), Path())
        for path in folder.glob("*.json")
        if path.name not in shipped and OWN_KEYS[kind] in read_object(path)
    ]
    own.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    names = [*map(str, own), *SHIPPED[kind]]
    return names[:OFFERED]


def _ask_encoder(args: argparse.Namespace, input_shape: Shape, latest: Latest) -> str:
    def encoder_file(name: str) -> str:
        check_model_shape(name, input_shape)
        return name

    found = find_models("autoencoder", args.runs_dir, input_shape)
    latest.encoder = prompts.ask_file("Saved autoencoder", encoder_file, found, latest.encoder)
    return latest.encoder


class _Questions:
    """The questions for one hyperparameter after another; flags answer some of them.

    Args:
        kind: Of the model.
        args: The flags.
        input_shape: (height, width, channels) of the images.
        latest: The defaults.
    """

    def __init__(self, kind: Kind, args: argparse.Namespace, input_shape: Shape, latest: Latest):
        self._kind = kind
        self._args = args
        self._shape = input_shape
        self._latest = latest
        config = latest.config
        self._last = config.model_dump(mode="json") if config else {}  # the defaults
        self._answers: dict[str, Any] = {}

    def ask(self) -> tuple[str, Config]:
        """Asks for all values of a configuration, in order; `back` returns to the one before.

        Whoever goes back finds the answers so far as defaults.
        """
        if self._kind == "autoencoder":
            questions = [self._ask_fitting_layers, self._ask_epochs, self._ask_batch_size]
            questions.append(self._ask_activation)
        else:
            questions = [self._ask_classifier, self._ask_phases, self._ask_batch_size]
        questions += [self._ask_optimizer]
        *_, named = prompts.ask_in_turn(
            [*(partial(self._remember, question) for question in questions), self._ask_to_save]
        )
        return named

    def _remember(self, question: Callable[[], dict[str, Any]]) -> None:
        answer = question()
        self._answers |= answer
        self._last |= answer

    def _ask_to_save(self) -> tuple[str, Config]:
        config = validate_config(self._answers, "answers", self._kind)
        config = override_by_flags(config, self._args)
        return offer_to_save(config) or self._kind, config

    def _ask_fitting_layers(self) -> dict[str, Any]:
        """Asks for encoder and decoder until the decoder gives back the size of the images."""
        encoder, decoder = self._last.get("encoder_layers"), self._last.get("decoder_layers")
        is_mirror = encoder is None or decoder == _mirror(encoder)
        while True:
            OUT.print(f"Encoder, from the image ({format_shape(self._shape)}) to the encoding:")
            encoder, shape = _ask_layers(
                [Conv, Pool, BatchNorm, Drop, Dense],
                encoder,
                self._shape,
                1,
            )
            try:
                is_mirror = prompts.confirm("Mirror the encoder in the decoder", is_mirror)
                decoder = (
                    _mirror(encoder) if is_mirror else self._ask_decoder(decoder, shape, encoder)
                )
            except prompts.Back:
                continue
            layers = {"encoder_layers": encoder, "decoder_layers": decoder}
            others = {"optimizer": ["adam", 0.001], "batch_size": 1, "epochs": 1}
            try:
                config = validate_config({**layers, **others}, "answers", "autoencoder")
                check_shapes(config, self._shape, "answers")
            except ConfigurationError as error:
                terminal.report(error)
                OUT.print("Enter the layers again.")
            else:
                return layers

    def _ask_decoder(
        self, last: list[list] | None, shape: Shape, encoder: list[list]
    ) -> list[list]:
        OUT.print("Decoder, from the encoding back to the image:")
        largest = get_largest_factors(encoder, self._shape[:2])
        forms = [Conv, UpSample, ConvTranspose, BatchNorm, Drop]
        return _ask_layers(forms, last, shape, largest=largest)[0]

    def _ask_classifier(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self._args.model is None:
            values["encoder_layers"] = _ask_encoder(self._args, self._shape, self._latest)
        OUT.print("Dense layers, from the encoding to the classes:")
        last = self._last.get("dense_layers")
        values["dense_layers"] = _ask_layers([Dense, Drop, BatchNorm], last)[0]
        return values

    def _ask_epochs(self) -> dict[str, Any]:
        return {"epochs": self._args.epochs or self._ask_number("epochs", "Epochs", 1, 10)}

    def _ask_phases(self) -> dict[str, Any]:
        if self._args.epochs:
            return dict.fromkeys(PHASE_KEYS, self._args.epochs)
        head, full = PHASE_KEYS
        dense = self._ask_number(head, "Epochs of the dense layers alone", 0, 5)
        low = int(not dense)
        return {head: dense, full: self._ask_number(full, "Epochs of all layers", low, 10)}

    def _ask_number(self, key: str, question: str, low: int, default: int) -> int:
        default = max(low, self._last.get(key, default))
        return prompts.ask(question, prompts.whole_number(low, MAX_EPOCHS), default)

    def _ask_batch_size(self) -> dict[str, Any]:
        default = self._last.get("batch_size", 32 if self._kind == "autoencoder" else 64)
        parse = prompts.whole_number(1, MAX_BATCH_SIZE)
        return {"batch_size": self._args.batch_size or prompts.ask("Batch size", parse, default)}

    def _ask_activation(self) -> dict[str, Any]:
        question = f"Output activation ({', '.join(ACTIVATIONS)})"
        default = self._last.get("activation_function", ACTIVATIONS[0])
        return {"activation_function": prompts.ask(question, prompts.one_of(ACTIVATIONS), default)}

    def _ask_optimizer(self) -> dict[str, Any]:
        """Asks for the optimizer and its learning rate."""
        name, rate, *others = self._last.get("optimizer", ["adam", 0.001])
        optimizers = prompts.one_of(list(OPTIMIZERS))
        question = "Optimizer (adam, sgd, …)"
        answers = prompts.ask_in_turn(
            [
                lambda: prompts.ask(question, optimizers, name, listed(list(OPTIMIZERS))),
                lambda: prompts.ask("Learning rate", prompts.number(1e-9, MAX_LEARNING_RATE), rate),
            ]
        )
        return {"optimizer": [*answers, *others]}


def _ask_layers(
    forms: Sequence[type],
    last: list[list] | None,
    shape: Shape | None = None,
    at_least: int = 0,
    largest: Size | None = None,
) -> tuple[list[list], Shape | None]:
    """Asks for layers of these forms, until there are enough; `back` removes the last one.

    Args:
        forms: What is offered.
        last: Layers whose kinds and values are the defaults.
        shape: (height, width, channels) of the input, to follow it along the layers.
        at_least: How many layers there must be.
        largest: By how much all layers together may enlarge height and width.

    Returns:
        The layers, and the shape of the output, or of the input of a dense layer at the end.
    """
    by_kind = {form.EXAMPLE[0]: form for form in forms}
    layers: list[list] = []
    shapes = [shape]
    help = "\n".join(f"{kind}: {LAYER_HELP[kind]}" for kind in by_kind)
    while True:
        number = len(layers)
        is_over = shape is not None and number > 0 and layers[-1][0] == "dense"  # a bottleneck
        kinds = [] if is_over else by_kind
        offered = [*kinds, *(["done"] if number >= at_least else [])]
        meant = last[number][0] if last and number < len(last) else "done"
        default = meant if meant in offered else offered[0]
        try:
            kind = prompts.ask(
                f"  Layer {number + 1} ({', '.join(offered)})",
                prompts.one_of(offered),
                default,
                help,
            )
        except prompts.Back:
            if not layers:
                raise
            layers.pop()
            shapes.pop()
            continue
        if kind == "done":
            return layers, shapes[-2 if is_over else -1]
        try:
            form = by_kind[kind]
            values = last[number] if meant == kind else form.EXAMPLE
            if len(values) > len(form._fields):  # its other form, with strides
                form = StridedConv
            left = largest and _divide(largest, layers)
            layer = _ask_layer(form, values[1:], shapes[-1], left)
        except prompts.Back:
            continue
        layers.append(layer)
        shapes.append(follow(layer, shapes[-1]))
        size = shapes[-1] or _get_units(layers)
        if size:
            OUT.print(f"    gives {format_shape(size)}")


def _get_units(layers: list[list]) -> Shape | None:
    """The units of the last dense layer; None before the first."""
    return next(((layer[1],) for layer in reversed(layers) if layer[0] == "dense"), None)


def _divide(largest: Size, layers: Sequence[list]) -> Size:
    """What is left of the largest factors after these layers of a decoder."""
    for kind, *values in layers:
        if kind in ENLARGING:
            largest = largest[0] // values[-1][0], largest[1] // values[-1][1]
    return largest


def _ask_layer(
    form: type, defaults: Sequence[Any], shape: Shape | None, largest: Size | None
) -> list:
    """Asks for the values of a layer that fits its input, and enlarges it at most by `largest`."""
    kind = form.EXAMPLE[0]

    def ask(field: str, default: Any) -> Any:
        question, parse = LAYER_QUESTIONS[field]

        def parse_fitting(answer: str) -> Any:
            value = parse(answer)
            shrinks = (kind, field) in (("pool", "size"), ("conv", "strides"))
            if shrinks and shape and (value[0] > shape[0] or value[1] > shape[1]):
                size = format_shape(shape[:2])
                raise ValueError(f"must be at most {size}, the size so far, got {shown(answer)}")
            enlarges = largest and ENLARGING.get(kind) == field
            if enlarges and (value[0] > largest[0] or value[1] > largest[1]):
                required = f"must be at most {format_shape(largest)}, or images would be too large"
                raise ValueError(f"{required}, got {shown(answer)}")
            return value

        return prompts.ask(f"    {question}", parse_fitting, default)

    fields = zip(form._fields[1:], defaults, strict=True)
    return [kind, *prompts.ask_in_turn([partial(ask, *field) for field in fields])]


def _mirror(encoder: list[list]) -> list[list]:
    """The encoder's convolutions and pools backwards, each turned into what undoes it."""
    turned = {("conv", 3): "conv", ("conv", 4): "convTranspose", ("pool", 2): "upSample"}
    kinds = [(turned.get((layer[0], len(layer))), layer) for layer in reversed(encoder)]
    return [[kind, *layer[1:]] for kind, layer in kinds if kind]


def offer_to_save(config: Config) -> str | None:
    """Offers to save the answers as a file; returns its name without suffix if accepted."""
    if not prompts.confirm("Save these hyperparameters as a file", False):
        return None
    folder = Path(FOLDER) if Path(FOLDER).is_dir() else Path()
    free = free_name(folder / f"my_{config.kind}.json")
    path = prompts.ask("File", prompts.file_name(new_file), free)
    try:
        write_text(path, dump_config(config))
    except UserError as error:
        terminal.warn(f"{error} Training continues without it.")
        return None
    terminal.say(f"Saved {path}")
    return path.stem
