"""Asks for a configuration: the name of a file, or one hyperparameter after another."""

import argparse
from collections.abc import Sequence
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
    Dense,
    Drop,
    Pool,
    UpSample,
)
from cae.config.load import dump_config, validate_config
from cae.config.schema import AutoencoderConfig, ClassifierConfig, Config, Kind
from cae.config.shapes import Shape, check_shapes
from cae.errors import ConfigurationError, UserError
from cae.files import write_text
from cae.programs.flags import config_file
from cae.programs.starting_points import (
    check_layers,
    check_model_shape,
    load_overridden,
    override_by_flags,
)
from cae.terminal import OUT

DEFAULT_FILES = {
    "autoencoder": "configuration/autoencoder_small.json",
    "classifier": "configuration/classifier_small_small.json",
}
# For each value of a layer, by the name of its field, the question and the parser of the answer.
LAYER_QUESTIONS = {
    "filters": ("Filters", prompts.whole_number(1, MAX_FILTERS)),
    "kernel_size": ("Kernel height,width", prompts.pair(1, MAX_KERNEL)),
    "size": ("Height,width", prompts.pair(1, MAX_POOL)),
    "units": ("Units", prompts.whole_number(1, MAX_UNITS)),
    "rate": ("Rate", prompts.number(0, 0.99)),
}


def ask_config(kind: Kind, args: argparse.Namespace, input_shape: Shape) -> tuple[str, Config]:
    """Asks for the hyperparameters that no flag has given, in layers that fit the images.

    Returns:
        The name of the configuration, and the configuration.
    """
    OUT.print(f"Hyperparameters of the {kind}:")
    ways = ["Use an existing configuration file", "Enter the layers one by one"]
    if prompts.choose("Your choice", ways) == 1:
        return _ask_for_file(kind, args, input_shape)
    ask = {"autoencoder": _ask_autoencoder, "classifier": _ask_classifier}[kind]
    config = override_by_flags(ask(args, input_shape), args)
    return offer_to_save(config) or kind, config


def _ask_for_file(kind: Kind, args: argparse.Namespace, input_shape: Shape) -> tuple[str, Config]:
    model = getattr(args, "model", None)

    def needs_encoder(config: Config) -> bool:
        return kind == "classifier" and config.encoder_layers is None and model is None

    def load(path: str) -> tuple[str, Config]:
        config = load_overridden(config_file(path), kind, args)
        if not needs_encoder(config):
            check_layers(config, model, input_shape, path)
        return Path(path).stem, config

    name, config = prompts.ask("File", prompts.file_name(load), DEFAULT_FILES[kind])
    if needs_encoder(config):
        config = config.model_copy(update={"encoder_layers": _ask_encoder(input_shape)})
    return name, config


def _ask_autoencoder(args: argparse.Namespace, input_shape: Shape) -> AutoencoderConfig:
    values = _ask_fitting_layers(input_shape)
    values["epochs"] = args.epochs or _ask_epochs("Epochs", 1)
    values["batch_size"] = args.batch_size or _ask_batch_size(32)
    values["activation_function"] = prompts.ask(
        f"Output activation ({', '.join(ACTIVATIONS)})",
        prompts.one_of(ACTIVATIONS),
        ACTIVATIONS[0],
    )
    values["optimizer"] = _ask_optimizer()
    return validate_config(values, "answers", "autoencoder")


def _ask_fitting_layers(input_shape: Shape) -> dict[str, Any]:
    """Asks for encoder and decoder until the decoder gives back the size of the images."""
    while True:
        OUT.print("Encoder, from the image to the encoding:")
        encoder = _ask_layers([Conv, Pool, BatchNorm, Drop], at_least=1)
        if prompts.confirm("Mirror the encoder in the decoder", True):
            decoder = _mirror(encoder)
        else:
            OUT.print("Decoder, from the encoding back to the image:")
            decoder = _ask_layers([Conv, UpSample, BatchNorm, Drop])
        layers = {"encoder_layers": encoder, "decoder_layers": decoder}
        others = {"optimizer": ["adam", 0.001], "batch_size": 1, "epochs": 1}
        try:
            config = validate_config({**layers, **others}, "answers", "autoencoder")
            check_shapes(config, input_shape, "answers")
        except ConfigurationError as error:
            terminal.report(error)
            OUT.print("Enter the layers again.")
        else:
            return layers


def _ask_classifier(args: argparse.Namespace, input_shape: Shape) -> ClassifierConfig:
    values: dict[str, Any] = {}
    if args.model is None:
        values["encoder_layers"] = _ask_encoder(input_shape)
    OUT.print("Dense layers, from the encoding to the classes:")
    values["dense_layers"] = _ask_layers([Dense, Drop, BatchNorm])
    head = args.epochs or _ask_epochs("Epochs of the dense layers alone", 0, 5)
    values["dense_only_train_epochs"] = head
    values["full_train_epochs"] = args.epochs or _ask_epochs("Epochs of all layers", int(not head))
    values["batch_size"] = args.batch_size or _ask_batch_size(64)
    values["optimizer"] = _ask_optimizer()
    return validate_config(values, "answers", "classifier")


def _ask_encoder(input_shape: Shape) -> str:
    def encoder_file(name: str) -> str:
        check_model_shape(name, input_shape)
        return name

    return prompts.ask("Saved autoencoder", prompts.file_name(encoder_file))


def _ask_layers(forms: Sequence[type], at_least: int = 0) -> list[list]:
    """Asks for layers of these forms, until there are enough."""
    by_kind = {form.EXAMPLE[0]: form for form in forms}
    layers: list[list] = []
    while True:
        offered = [*by_kind, *(["done"] if len(layers) >= at_least else [])]
        kind = prompts.ask(
            f"  Layer {len(layers) + 1} ({', '.join(offered)})",
            prompts.one_of(offered),
            "done" if "done" in offered else offered[0],
        )
        if kind == "done":
            return layers
        layers.append(_ask_layer(by_kind[kind]))


def _ask_layer(form: type) -> list:
    """Asks for the values of a layer; the defaults are those of its example."""
    kind, *defaults = form.EXAMPLE
    layer = [kind]
    for field, default in zip(form._fields[1:], defaults, strict=True):
        question, parse = LAYER_QUESTIONS[field]
        layer.append(prompts.ask(f"    {question}", parse, default))
    return layer


def _mirror(encoder: list[list]) -> list[list]:
    """The encoder's convolutions and pools backwards, pools turned into upsampling."""
    turned = {"conv": "conv", "pool": "upSample"}
    return [[turned[kind], *rest] for kind, *rest in reversed(encoder) if kind in turned]


def _ask_epochs(question: str, low: int, default: int = 10) -> int:
    return prompts.ask(question, prompts.whole_number(low, MAX_EPOCHS), default)


def _ask_batch_size(default: int) -> int:
    return prompts.ask("Batch size", prompts.whole_number(1, MAX_BATCH_SIZE), default)


def _ask_optimizer() -> list:
    """Asks for the optimizer and its learning rate."""
    name = prompts.ask("Optimizer (adam, sgd, …)", prompts.one_of(list(OPTIMIZERS)), "adam")
    rate = prompts.ask("Learning rate", prompts.number(1e-9, MAX_LEARNING_RATE), 0.001)
    return [name, rate]


def offer_to_save(config: Config) -> str | None:
    """Offers to save the answers as a file; returns its name without suffix if accepted."""
    if not prompts.confirm("Save these hyperparameters as a file", False):
        return None
    path = prompts.ask(
        "File", prompts.file_name(prompts.new_file), f"configuration/my_{config.kind}.json"
    )
    try:
        write_text(path, dump_config(config))
    except UserError as error:
        terminal.warn(f"{error} Training continues without it.")
        return None
    terminal.say(f"Saved {path}")
    return path.stem
