"""Writes the shipped configurations, their JSON Schema and docs/reference.md.

    python make_configs.py            writes configuration/*.json and docs/reference.md
    python make_configs.py --check    lists the files that are not up to date, and wrong recipes

Three autoencoders for 28 by 28 images, each with the variations of the original research, and
five classifiers. Change the tables here rather than the files.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import autoencoder
import classification
import experiments
import predict
from cae.config.choices import PROGRAMS
from cae.errors import UserError
from cae.files import make_folder, write_bytes
from cae.programs import flags, start

CONFIGURATION = Path(__file__).parent / "configuration"
REFERENCE = Path(__file__).parent / "docs" / "reference.md"
SCHEMA = "schema.json"

AUTOENCODER = {
    "optimizer": ["adam", 0.001],
    "batch_size": 32,
    "epochs": 10,
    "activation_function": "Sigmoid",
    # Mean squared error with a sigmoid output can collapse to all-black images.
    "loss": "binary_crossentropy",
}
# Size -> encoder: the filters of its 3x3 convolutions, and "pool" for 2x2 pooling. Two pools at
# most: 28 halves twice. The decoder is the reverse.
ENCODERS = {
    "small": (32, "pool", 64, "pool"),
    "medium": (32, "pool", 64, "pool", 128),
    "large": (32, "pool", 64, "pool", 128, 256),
}
# Variation -> the keys it changes.
VARIATIONS = {
    "learning_rate_low": {"optimizer": ["adam", 0.0005]},
    "learning_rate_high": {"optimizer": ["adam", 0.002]},
    "batch_size_16": {"batch_size": 16},
    "batch_size_64": {"batch_size": 64},
    "regularization": {"l2": 1e-5},
}
# Variation -> the layer it inserts, and after which kinds of layer.
LAYER_VARIATIONS = {
    "dropout": (["drop", 0.2], ("pool", "upSample")),
    "batch_normalization": (["batchNorm"], ("conv",)),
}

CLASSIFIER = {
    "optimizer": ["adam", 0.001],
    "dense_only_train_epochs": 5,
    "full_train_epochs": 10,
    "batch_size": 64,
    "learning_rate_schedule": ["cosine"],
}
# Without it a classifier learns its training images by heart: validation accuracy on MNIST is
# 98.8 % instead of 99.1 %.
ENCODING_DROP = 0.5
# Encoder it is meant for, and size -> units of the dense layers, share dropped after each.
CLASSIFIERS = {
    "small_extra_small": ((16, 16), 0),
    "small_small": ((64, 32), 0),
    "small_large": ((512, 128), 0.25),
    "large_small": ((64, 32), 0),
    "large_medium": ((128,), 0.25),
}

# What they reach on MNIST (28 by 28 images, 10 classes), from docs/experiments.md. Autoencoders:
# smallest and largest MSE of ten seeds after one epoch on 6,000 images (benchmarks/checks.py
# collapse). Classifiers: validation accuracy in full training, mean and standard deviation of three
# seeds with the best learning rate (make research).
MSE = {
    "large": (0.0046, 0.0063),
    "large_batch_normalization": (0.0039, 0.0067),
    "large_batch_size_16": (0.0038, 0.0044),
    "large_batch_size_64": (0.0067, 0.0105),
    "large_dropout": (0.0077, 0.0139),
    "large_learning_rate_high": (0.0059, 0.0077),
    "large_learning_rate_low": (0.0047, 0.0063),
    "large_regularization": (0.0046, 0.0063),
    "medium": (0.0042, 0.0051),
    "medium_batch_normalization": (0.0036, 0.0063),
    "medium_batch_size_16": (0.0034, 0.0038),
    "medium_batch_size_64": (0.0055, 0.0079),
    "medium_dropout": (0.0070, 0.0108),
    "medium_learning_rate_high": (0.0043, 0.0065),
    "medium_learning_rate_low": (0.0048, 0.0056),
    "medium_regularization": (0.0041, 0.0050),
    "small": (0.0042, 0.0051),
    "small_batch_normalization": (0.0037, 0.0052),
    "small_batch_size_16": (0.0032, 0.0038),
    "small_batch_size_64": (0.0057, 0.0075),
    "small_dropout": (0.0075, 0.0113),
    "small_learning_rate_high": (0.0039, 0.0049),
    "small_learning_rate_low": (0.0050, 0.0065),
    "small_regularization": (0.0042, 0.0052),
}
ACCURACY = {
    "small_extra_small": (0.9832, 0.0029, 0.002),
    "small_small": (0.9906, 0.0008, 0.002),
    "small_large": (0.9906, 0.0017, 0.002),
    "large_small": (0.9915, 0.0016, 0.001),
    "large_medium": (0.9914, 0.0015, 0.002),
}
IMAGES, NUM_CLASSES = (28, 28, 1), 10

Document = dict[str, Any]


def make_autoencoder(encoder: Sequence[int | str]) -> Document:
    """The configuration of an autoencoder whose decoder is the reverse of its encoder."""

    def layers(parts: Sequence[int | str], scaling: str) -> list:
        return [[scaling, [2, 2]] if part == "pool" else ["conv", part, [3, 3]] for part in parts]

    return {
        "encoder_layers": layers(encoder, "pool"),
        "decoder_layers": layers(encoder[::-1], "upSample"),
        **AUTOENCODER,
    }


def insert_layer(config: Document, inserted: list, after: Sequence[str]) -> Document:
    """A copy of `config` with a layer inserted after every layer of certain kinds."""

    def insert(layers: list) -> list:
        pairs = ([layer, inserted] if layer[0] in after else [layer] for layer in layers)
        return list(chain.from_iterable(pairs))

    return config | {key: insert(config[key]) for key in ("encoder_layers", "decoder_layers")}


def make_classifier(units: Sequence[int], drop: float) -> Document:
    """The configuration of a classifier; the command line gives the encoder."""
    drops = [["drop", drop]] * bool(drop)
    dense_layers = chain.from_iterable([["dense", count], *drops] for count in units)
    return {"dense_layers": [["drop", ENCODING_DROP], *dense_layers], **CLASSIFIER}


def configurations() -> dict[str, Document]:
    """Every shipped configuration by its name without the extension."""
    configs = {}
    for size, encoder in ENCODERS.items():
        name = f"autoencoder_{size}"
        base = configs[name] = make_autoencoder(encoder)
        for variation, changes in VARIATIONS.items():
            configs[f"{name}_{variation}"] = base | changes
        for variation, (layer, after) in LAYER_VARIATIONS.items():
            configs[f"{name}_{variation}"] = insert_layer(base, layer, after)
    for name, (units, drop) in CLASSIFIERS.items():
        configs[f"classifier_{name}"] = make_classifier(units, drop)
    return configs


def describe(name: str, config: Document) -> str:
    """What a configuration is, costs and reaches, in one line."""
    kind, _, rest = name.partition("_")
    size, _, variation = rest.partition("_")
    if kind == "autoencoder":
        base = make_autoencoder(ENCODERS[size])
        changed = {key: config[key] for key in config if config[key] != base.get(key)}
        if variation in LAYER_VARIATIONS:
            layer, after = LAYER_VARIATIONS[variation]
            changed = {json.dumps(layer): f"after each {' and '.join(after)}"}
        changes = "".join(f", {key} {json.dumps(x).strip(chr(34))}" for key, x in changed.items())
        output = ["conv", IMAGES[2], [3, 3]]
        layers = [*config["encoder_layers"], *config["decoder_layers"], output]
        _, parameters, work = measure(layers)
        low, high = MSE[rest]
        return (
            f"{size.capitalize()} autoencoder{changes}. {parameters:,} parameters, "
            f"{work / 1e6:.0f} million multiplications per image. "
            f"MSE {low:.4f} to {high:.4f} after one epoch on 6,000 images of MNIST."
        )
    count, parameters, _ = measure(make_autoencoder(ENCODERS[size])["encoder_layers"])
    for units in [*CLASSIFIERS[rest][0], NUM_CLASSES]:
        parameters, count = parameters + (count + 1) * units, units
    mean, deviation, rate = ACCURACY[rest]
    units = CLASSIFIERS[rest][0]
    layers = "Dense layers" if len(units) > 1 else "A dense layer"
    return (
        f"{layers} of {', '.join(map(str, units))} units on the encoder of the {size} autoencoder: "
        f"{parameters:,} parameters in total. Validation accuracy on MNIST, with learning rate "
        f"{rate} and 5 epochs of each phase, {100 * mean:.2f} % (standard deviation "
        f"{100 * deviation:.2f} %, three seeds)."
    )


def measure(layers: Sequence[Sequence[Any]]) -> tuple[int, int, int]:
    """The values that layers make of an image, their parameters and multiplications."""
    from cae.config.shapes import follow

    shape, parameters, work = IMAGES, 0, 0
    for layer in layers:
        if layer[0] == "batchNorm":
            parameters += 4 * shape[2]
        before, shape = shape, follow(layer, shape)
        if layer[0] == "conv":
            weights = prod(layer[2]) * before[2] * layer[1]
            parameters += weights + layer[1]
            work += weights * shape[0] * shape[1]
    return prod(shape), parameters, work


def shipped_files() -> dict[str, bytes]:
    """The content of every file in configuration/ by its name."""
    from cae.config.load import format_config
    from cae.config.schema import json_schema

    texts = {SCHEMA: json.dumps(json_schema(), indent=2) + "\n"}
    for name, config in configurations().items():
        head = {"$schema": SCHEMA, "description": describe(name, config)}
        texts[f"{name}.json"] = format_config(head | config)
    return {name: text.encode() for name, text in texts.items()}


def get_reference() -> bytes:
    """The content of docs/reference.md."""
    from cae.report.reference import build_reference

    programs = (autoencoder, classification, predict, experiments)
    parsers = [*(program.build_parser() for program in programs), build_parser()]
    return build_reference({parser.prog: parser for parser in parsers}).encode()


def write_or_check(args: argparse.Namespace) -> int:
    """Writes or checks the files; returns the exit code."""
    folder = args.folder or CONFIGURATION
    files = {folder / name: content for name, content in shipped_files().items()}
    if args.folder is None:
        files[REFERENCE] = get_reference()
    if args.check:
        outdated = find_outdated(files, folder).items()
        problems = [f"{path}: {problem}" for path, problem in outdated]
        problems += find_invalid_recipes(folder)
        print(*problems, sep="\n", end="\n" * bool(problems))
        return 1 if problems else 0
    remedy = "Name another place with --folder."
    make_folder(folder, remedy)
    for path, content in files.items():
        write_bytes(path, content, remedy)
    print(f"{len(files)} files written to {folder}")
    return 0


def find_outdated(files: dict[Path, bytes], folder: Path) -> dict[Path, str]:
    """The problems of files: missing, different, or in `folder` but not shipped."""
    problems = {
        path: "differs" if path.exists() else "missing"
        for path, content in files.items()
        if not path.exists() or path.read_bytes() != content
    }
    strays = (path for kind in PROGRAMS for path in sorted(folder.glob(f"{kind}_*")))
    return problems | {
        path: "not shipped: rename or remove it" for path in strays if path not in files
    }


def find_invalid_recipes(folder: Path) -> list[str]:
    """The problems of the recipes in `folder`, one per line."""
    from cae.config.load import load_recipe

    problems = []
    for path in sorted(folder.glob("recipes/*.json")):
        try:
            if load_recipe(path).labels is None:
                problems.append(f"{path}: labels: is required in a shipped recipe")
        except UserError as error:
            problems += error.lines
    return problems


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="make_configs.py", description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; list files that are missing, differ or are not shipped, and what is "
        "wrong in recipes, and exit with 1 if there is any",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="write the configurations here and no reference (default: configuration beside this "
        "program)",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the program; 0 when all is well, 1 when --check finds a difference, 2 for an error."""
    return start.run(write_or_check, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
