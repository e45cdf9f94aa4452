"""Checks that take too long for the tests: collapse, bfloat16, encoders, the parts of a recipe.

    python benchmarks/checks.py collapse      every shipped autoencoder, ten seeds, about an hour
    python benchmarks/checks.py collapse --textbook -c configuration/autoencoder_small.json
    python benchmarks/checks.py precision     float32 and bfloat16, five seeds, ten minutes
    python benchmarks/checks.py encodings     autoencoders that undo various changes, ten minutes
    python benchmarks/checks.py parts         a recipe for few labels without its parts, 40 minutes

They print errors on images of MNIST, as docs/experiments.md and docs/performance.md report them.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.competitors import Config, get_config, get_plain_autoencoder  # noqa: E402
from cae import terminal  # noqa: E402
from cae.config.fields import LabelSpreading  # noqa: E402
from cae.config.shipped import get_recipes, read_object  # noqa: E402
from cae.data.datasets import get_scaling, load_dataset  # noqa: E402
from cae.data.splits import NO_CLASS, draw_order  # noqa: E402
from cae.programs import flags, start  # noqa: E402

HELD_OUT = 1000  # images
LABELS_PER_CLASS, DRAWS = 10, 8  # for encodings
# What the autoencoder of the recipe has to undo.
GEOMETRIC = {"rotation": 20, "shear": 15, "shift": 0.1, "zoom": 0.15}
DENOISE = {
    "unchanged": None,
    "noise": {"noise": 0.3},
    "geometric": GEOMETRIC,
    "geometric, noise": GEOMETRIC | {"noise": 0.2},
}
VIEW = ("rotation", "shear", "zoom", "shift", "cutout")
# What the classifier of the recipe has instead, in its key unlabelled.
PARTS = {
    "whole": {},
    "without the autoencoder": {},
    "label spreading on pixels": {"label_spreading": {"on": "pixels"}},
    "labels spread once": {"label_spreading": {"refresh": None, "last_share": None}},
    "pseudo-labels of the teacher as well": {"pseudo_labels": {}},
    "pseudo-labels of the teacher instead": {"label_spreading": None, "pseudo_labels": {}},
    "without cutout": {"strong": {"cutout": 0}},
    "without strong views": {"strong": dict.fromkeys(VIEW, 0)},
}


def check_collapse(args: argparse.Namespace) -> int:
    """Trains for one epoch on 6,000 images; the mean image scores 0.067, a black one 0.116."""
    images = load_dataset("mnist", limit=6000 + HELD_OUT).images
    for path in args.config or sorted((ROOT / "configuration").glob("autoencoder_*.json")):
        shipped = json.loads(Path(path).read_text(encoding="utf-8"))
        configs = [{**shipped, "epochs": 1, "seed": seed} for seed in range(args.seeds)]
        _report(Path(path).stem, [get_error(config, images, args.textbook) for config in configs])
    return 0


def check_precision(args: argparse.Namespace) -> int:
    """Trains the small autoencoder in both precisions for five epochs on 12,000 images."""
    images = load_dataset("mnist", limit=12_000 + HELD_OUT).images
    for name, reduced in (("float32", False), ("bfloat16", True)):
        config = {**get_config("autoencoder_small"), "epochs": 5, "mixed_precision": reduced}
        _report(name, [get_error({**config, "seed": n}, images) for n in range(args.seeds)])
    return 0


def check_encodings(args: argparse.Namespace) -> int:
    """Trains for three epochs on 12,000 images; ten labels per class label the others."""
    with terminal.starting_keras():
        import model as ours

    dataset = load_dataset("mnist", limit=12_000)
    scaling = get_scaling(dataset.images)
    config = read_object(get_recipes()["few_labels_100"])["autoencoder"]
    config |= {"epochs": 3, "min_steps": 0}
    pixels = scaling.apply(dataset.images).reshape(len(dataset.images), -1)
    _report_labels("pixels", [get_label_errors(pixels, dataset.labels)])
    for name, denoise in DENOISE.items():
        errors = []
        for seed in range(args.seeds):
            changed = config | {"denoise": denoise, "seed": seed}
            autoencoder = ours.get_autoencoder(changed, dataset.images.shape[1:])
            ours.train_autoencoder(autoencoder, changed, dataset.images, warn=terminal.warn)
            encoder = autoencoder.get_layer("encoder")
            encodings = ours.predict(encoder, dataset.images, scaling)
            errors.append(get_label_errors(encodings, dataset.labels))
        _report_labels(name, errors)
    return 0


def check_parts(args: argparse.Namespace) -> int:
    """Trains on 12,000 images, of which 100 have a label; tests on 10,000 other training images."""
    with terminal.starting_keras():
        import model as ours

    dataset = load_dataset("mnist", limit=22_000)
    images, unseen = np.split(dataset.images, [12_000])
    scaling, shape = get_scaling(images), images.shape[1:]
    recipe = read_object(get_recipes()["few_labels_100"])
    errors = {name: [] for name in PARTS}
    for seed in range(args.seeds):
        config = recipe["autoencoder"] | {"seed": seed, "min_steps": 0}
        autoencoder = ours.get_autoencoder(config, shape)
        ours.train_autoencoder(autoencoder, config, images, warn=terminal.warn)
        order = draw_order(dataset.labels[: len(images)], seed)
        given, others = np.split(order, [LABELS_PER_CLASS * 10])
        for name, changes in PARTS.items():
            how = dict(recipe["classifier"]["unlabelled"])
            for key, change in changes.items():
                how[key] = change and how[key] | change
            config = recipe["classifier"] | {"seed": seed, "min_steps": 0, "unlabelled": how}
            pretrained = name != "without the autoencoder"
            model = ours.get_classifier(
                config, shape, 10, encoder=autoencoder, pretrained=pretrained
            )
            ours.train_classifier(
                model,
                config,
                images[given],
                dataset.labels[given],
                unlabelled=images[np.sort(others)],
                scaling=scaling,
                warn=terminal.warn,
            )
            found = ours.predict(model, unseen, scaling).argmax(axis=1)
            errors[name].append(np.mean(found != dataset.labels[len(images) :]))
            values = ", ".join(f"{error:.2%}" for error in errors[name])
            terminal.say(f"{name}: {np.mean(errors[name]):.2%} ({values})")
    return 0


def get_label_errors(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 (3,), shares of wrong labels of all images: the mean over draws of the given ones.

    By logistic regression, by label spreading, and by the spread labels that training keeps.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from cae.training.unlabelled import keep_confident, spread_labels

    how, prior = LabelSpreading(), np.full(10, 0.1)
    features = features - features.mean(axis=0)
    standardized = StandardScaler().fit_transform(features)
    errors = []
    for draw in range(DRAWS):
        given = draw_order(labels, draw)[: LABELS_PER_CLASS * len(prior)]
        regression = LogisticRegression(max_iter=1000).fit(standardized[given], labels[given])
        targets = np.full(len(labels), NO_CLASS)
        targets[given] = labels[given]
        spread = spread_labels(features, targets, prior, how)
        kept = keep_confident(spread, how.share)
        wrong = kept[kept != NO_CLASS] != labels[kept != NO_CLASS]
        found = regression.predict(standardized), spread.argmax(axis=1)
        errors.append([*(np.mean(one != labels) for one in found), wrong.mean()])
    return np.mean(errors, axis=0)


def get_error(config: Config, images: np.ndarray, textbook: bool = False) -> float:
    """Mean squared error on the last images after training on those before them."""
    with terminal.starting_keras():
        import keras

        import model as ours
    keras.backend.clear_session()
    scaling, held_out = get_scaling(images), np.arange(len(images) - HELD_OUT, len(images))
    if textbook:  # Keras' own initialisation, an output bias of 0, and mean squared error
        keras.utils.set_random_seed(config["seed"])
        autoencoder = get_plain_autoencoder(config, images.shape[1:])
        autoencoder.compile(keras.optimizers.Adam(config["optimizer"][1]), "mse")
        pixels = scaling.apply(images[:-HELD_OUT])
        autoencoder.fit(pixels, pixels, batch_size=config["batch_size"], verbose=0)
    else:
        config = {**config, "validation_split": 0}
        autoencoder = ours.get_autoencoder(config, images.shape[1:])
        ours.train_autoencoder(autoencoder, config, images[:-HELD_OUT], warn=terminal.warn)
    drawn = ours.predict(autoencoder, images, scaling, held_out)
    return float(np.square(drawn - scaling.apply(images[held_out])).mean())


def _report(name: str, errors: list[float]) -> None:
    deviation = statistics.stdev(errors) if len(errors) > 1 else 0
    terminal.say(
        f"{name}: mse {statistics.fmean(errors):.6f} ({min(errors):.4f} to {max(errors):.4f}; "
        f"standard deviation {deviation:.6f})"
    )


def _report_labels(name: str, errors: list[np.ndarray]) -> None:
    means = (
        f"{mean:.2%} ({low:.2%} to {high:.2%})"
        for mean, low, high in zip(
            np.mean(errors, axis=0), np.min(errors, axis=0), np.max(errors, axis=0), strict=True
        )
    )
    titles = ("logistic regression", "label spreading", "kept")
    terminal.say(f"{name}: " + ", ".join(map(" ".join, zip(titles, means, strict=True))))


def main(argv: list[str] | None = None) -> int:
    parser = flags.Parser(prog="checks.py", description=__doc__)
    commands = parser.add_subparsers(dest="check", required=True)
    collapse = commands.add_parser("collapse", description=check_collapse.__doc__)
    collapse.add_argument("-c", "--config", action="append", metavar="FILE")
    collapse.add_argument("--textbook", action="store_true", help="train as textbooks do instead")
    precision = commands.add_parser("precision", description=check_precision.__doc__)
    encodings = commands.add_parser("encodings", description=check_encodings.__doc__)
    parts = commands.add_parser("parts", description=check_parts.__doc__)
    for command, work, seeds in (
        (collapse, check_collapse, 10),
        (precision, check_precision, 5),
        (encodings, check_encodings, 3),
        (parts, check_parts, 3),
    ):
        command.add_argument("--seeds", **flags.number(1, 1000, "repetitions", default=seeds))
        command.set_defaults(work=work)
    return start.run(lambda args: args.work(args), parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
