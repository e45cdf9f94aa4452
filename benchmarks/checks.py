"""Checks that take too long for the tests: collapse, bfloat16, encoders, recipes and their parts.

    python benchmarks/checks.py collapse      every shipped autoencoder, ten seeds, about an hour
    python benchmarks/checks.py collapse --textbook -c configuration/autoencoder_small.json
    python benchmarks/checks.py precision     float32 and bfloat16, five seeds, ten minutes
    python benchmarks/checks.py encodings     autoencoders that undo various changes, 40 minutes
    python benchmarks/checks.py clustering    one that then learns clusters, ten minutes
    python benchmarks/checks.py shares        labels spread to classes of unequal size, five minutes
    python benchmarks/checks.py parts         a recipe for few labels without its parts, an hour
    python benchmarks/checks.py cost          recipes against 45 epochs of the small autoencoder

They print errors on images of MNIST, and seconds, as docs/experiments.md and docs/performance.md
report them.
"""

import argparse
import itertools
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.competitors import Config, get_config, get_plain_autoencoder  # noqa: E402
from cae import terminal  # noqa: E402
from cae.config.fields import LabelSpreading, Unlabelled  # noqa: E402
from cae.config.shipped import get_recipes, read_object  # noqa: E402
from cae.data.datasets import Dataset, get_scaling, load_dataset  # noqa: E402
from cae.data.splits import NO_CLASS, draw_order  # noqa: E402
from cae.programs import flags, start  # noqa: E402

HELD_OUT = 1000  # images
LABELS_PER_CLASS, DRAWS = 10, 8  # for encodings
# What the autoencoder of the recipe has to undo, and for how many epochs it learns.
GEOMETRIC = {"rotation": 20, "shear": 15, "shift": 0.1, "zoom": 0.15}
BOTH = GEOMETRIC | {"noise": 0.2}
ENCODINGS = {
    "unchanged": (None, 3),
    "noise": ({"noise": 0.3}, 3),
    "mask": ({"mask": 0.5}, 3),
    "geometric": (GEOMETRIC, 3),
    "geometric, noise": (BOTH, 3),
    "geometric, mask": (GEOMETRIC | {"mask": 0.3}, 3),
    "geometric, noise, 10 epochs": (BOTH, 10),
    "geometric, noise, 20 epochs": (BOTH, 20),
}
# Shares of labels among the images to which labels spread.
SHARED_IMAGES = 5000
SHARES = {
    "ten classes, equal": dict.fromkeys(range(10), 1),
    "ten classes, the first 23 times as frequent as the last": {
        i: 2 ** (-i / 2) for i in range(10)
    },
    "4 and 9, equal": {4: 1, 9: 1},
    "4 and 9, one to four": {4: 1, 9: 4},
    "4 and 9, one to nineteen": {4: 1, 9: 19},
}
LABEL_ERRORS = ("logistic regression", "label spreading", "kept")
RECIPE = "few_labels_100"
WHOLE_IMAGES, TIMED_EPOCHS = 60_000, 3  # for the cost
VIEW = ("rotation", "shear", "zoom", "shift", "cutout")
# What the classifier of the recipe has instead, in its key unlabelled.
PARTS = {
    "whole": {},
    "without the autoencoder": {},
    "label spreading on pixels": {"label_spreading": {"on": "pixels"}},
    "labels spread once": {"label_spreading": {"refresh": None, "last_share": None}},
    "pseudo-labels of the teacher as well": {"pseudo_labels": {}},
    "pseudo-labels of the teacher instead": {"label_spreading": None, "pseudo_labels": {}},
    "sharpened pseudo-labels instead": {
        "label_spreading": None,
        "pseudo_labels": {"temperature": 0.5},
    },
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
    """Trains on 12,000 images; ten labels per class label the others."""
    with terminal.starting_keras():
        import model as ours

    dataset = load_dataset("mnist", limit=12_000)
    scaling = get_scaling(dataset.images)
    config = read_object(get_recipes()[RECIPE])["autoencoder"]
    pixels = scaling.apply(dataset.images).reshape(len(dataset.images), -1)
    _report_labels("pixels", [get_label_errors(pixels, dataset.labels)])
    for name in args.only or ENCODINGS:
        denoise, epochs = ENCODINGS[name]
        errors = []
        for seed in range(args.seeds):
            changed = config | {"denoise": denoise, "epochs": epochs, "min_steps": 0, "seed": seed}
            autoencoder = ours.get_autoencoder(changed, dataset.images.shape[1:])
            ours.train_autoencoder(autoencoder, changed, dataset.images, warn=terminal.warn)
            encoder = autoencoder.get_layer("encoder")
            encodings = ours.predict(encoder, dataset.images, scaling)
            errors.append(get_label_errors(encodings, dataset.labels))
        _report_labels(name, errors)
    return 0


def check_clustering(args: argparse.Namespace) -> int:
    """Trains on 12,000 images, then moves their encodings towards ten centres.

    Guo et al. 2017, "Improved deep embedded clustering with local structure preservation", with the
    changed images of Guo et al. 2018, "Deep embedded clustering with data augmentation".
    """
    with terminal.starting_keras():
        import model as ours
    from benchmarks.clustering import cluster, get_cluster_error

    dataset = load_dataset("mnist", limit=12_000)
    scaling, config = get_scaling(dataset.images), read_object(get_recipes()[RECIPE])["autoencoder"]
    found: dict[str, list[np.ndarray]] = {"before": [], "after": []}
    for seed in range(args.seeds):
        changed = config | {"min_steps": 0, "seed": seed}
        autoencoder = ours.get_autoencoder(changed, dataset.images.shape[1:])
        ours.train_autoencoder(autoencoder, changed, dataset.images, warn=terminal.warn)
        encoder = autoencoder.get_layer("encoder")
        before = ours.predict(encoder, dataset.images, scaling)
        cluster(autoencoder, scaling.apply(dataset.images), before, seed)
        after = ours.predict(encoder, dataset.images, scaling)
        for name, encodings in (("before", before), ("after", after)):
            errors = [get_cluster_error(encodings, dataset.labels, seed)]
            errors += get_label_errors(encodings, dataset.labels).tolist()
            found[name].append(np.array(errors))
            _report_labels(name, found[name], ("clusters", *LABEL_ERRORS))
    return 0


def check_shares(args: argparse.Namespace) -> int:
    """Spreads ten labels per class to 5,000 images whose classes have other shares.

    By the encodings of the autoencoders in benchmarks/recipes-mnist, one per seed.
    """
    from cae.records.saved_models import load_model
    from cae.training.unlabelled import spread_labels

    with terminal.starting_keras():
        import model as ours
    dataset = load_dataset("mnist")
    scaling = get_scaling(dataset.images)
    how = read_object(get_recipes()[RECIPE])["classifier"]["unlabelled"]
    how = Unlabelled(**how).label_spreading
    files = sorted((ROOT / "benchmarks" / "recipes-mnist").glob("autoencoder_*.keras"))
    errors: dict[str, list[np.ndarray]] = defaultdict(list)
    for seed, path in enumerate(files[: args.seeds]):
        encoder = load_model(path)[0].get_layer("encoder")
        for name, shares in SHARES.items():
            prior = np.full(len(shares), 1 / len(shares))
            images, targets = _draw_shares(dataset.labels, shares, seed)
            encodings = ours.predict(encoder, dataset.images, scaling, images)
            known = np.full(len(images), NO_CLASS)
            given = np.concatenate(
                [np.flatnonzero(targets == c)[:LABELS_PER_CLASS] for c in range(len(shares))]
            )
            known[given] = targets[given]
            found = []
            for align in ("always", "never", "auto"):
                own = how.model_copy(update={"align": align})
                rows = encodings.reshape(len(images), -1) - encodings.mean(axis=0).ravel()
                spread = spread_labels(rows, known, prior, own).labels.argmax(axis=1)
                found.append((spread != targets)[known == NO_CLASS].mean())
            errors[name].append(np.array(found))
    for name, found in errors.items():
        _report_labels(name, found, ("aligned", "not aligned", "auto"))
    return 0


def _draw_shares(
    labels: np.ndarray, shares: dict[int, float], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The positions of images of some labels, each with its share of all, and their classes."""
    rng = np.random.default_rng(seed)
    images, targets = [], []
    for number, (label, share) in enumerate(shares.items()):
        members = rng.permutation(np.flatnonzero(labels == label))
        count = round(SHARED_IMAGES * share / sum(shares.values()))
        images.append(members[:count])
        targets.append(np.full(count, number))
    return np.concatenate(images), np.concatenate(targets)


def check_parts(args: argparse.Namespace) -> int:
    """Trains on 12,000 images, of which 100 have a label; tests on 10,000 other training images.

    Predictions of the whole recipe are also averaged over an image and its neighbours, each shifted
    by a pixel.
    """
    with terminal.starting_keras():
        import model as ours

    dataset = load_dataset("mnist", limit=22_000)
    images, unseen = np.split(dataset.images, [12_000])
    truth = dataset.labels[len(images) :]
    scaling, shape = get_scaling(images), images.shape[1:]
    recipe = read_object(get_recipes()[RECIPE])
    errors: dict[str, list[float]] = defaultdict(list)

    def report(name: str, found: np.ndarray) -> None:
        errors[name].append(float(np.mean(found.argmax(axis=1) != truth)))
        values = ", ".join(f"{error:.2%}" for error in errors[name])
        terminal.say(f"{name}: {statistics.fmean(errors[name]):.2%} ({values})")

    for seed in range(args.seeds):
        config = recipe["autoencoder"] | {"seed": seed, "min_steps": 0}
        autoencoder = ours.get_autoencoder(config, shape)
        ours.train_autoencoder(autoencoder, config, images, warn=terminal.warn)
        order = draw_order(dataset.labels[: len(images)], seed)
        given, others = np.split(order, [LABELS_PER_CLASS * 10])
        for name in args.only or PARTS:
            how = dict(recipe["classifier"]["unlabelled"])
            for key, change in PARTS[name].items():
                how[key] = None if change is None else (how.get(key) or {}) | change
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
            report(name, ours.predict(model, unseen, scaling))
            if name == "whole":
                shifts = itertools.product((-1, 0, 1), repeat=2)
                views = (np.roll(unseen, shift, axis=(1, 2)) for shift in shifts)
                answers = [ours.predict(model, view, scaling) for view in views]
                report("whole, averaged over 9 shifts", np.mean(answers, axis=0))
    return 0


def check_cost(args: argparse.Namespace) -> int:
    """Times epochs on 12,000 images, and extrapolates to 60,000.

    What a recipe takes, as a share of 45 epochs of the small autoencoder, measured in turns; and
    what it takes without its autoencoder, with at least as many images seen.
    """
    dataset = load_dataset("mnist", limit=12_000)
    small = get_config("autoencoder_small")
    for _ in range(args.seeds):
        limit = 45 * time_epoch(small, dataset)
        for name in (RECIPE, "all_labels"):
            recipe = read_object(get_recipes()[name])
            encoder, classifier = recipe["autoencoder"], recipe["classifier"]
            pretraining = encoder["epochs"] * time_epoch(encoder, dataset)
            costs = {name: pretraining + time_classifier(classifier, dataset, encoder)}
            if classifier.get("unlabelled"):
                longer = time_classifier(classifier, dataset, encoder, encoder["epochs"])
                costs[f"{name} without its autoencoder"] = longer
            for what, seconds in costs.items():
                terminal.say(f"{what}: {seconds:.0f} s, {seconds / limit:.0%} of {limit:.0f} s")
    return 0


def time_classifier(config: Config, dataset: Dataset, encoder: Config, more: int = 0) -> float:
    """Seconds of all epochs of a classifier, and `more`, with spreading labels."""
    epochs, how = config["full_train_epochs"] + more, config.get("unlabelled")
    seconds = epochs * time_epoch(config, dataset, encoder)
    if how:
        spreads = 1 + (epochs - 1) // how["label_spreading"]["refresh"]
        seconds += spreads * time_spreading(how["label_spreading"])
    return seconds


def time_epoch(config: Config, dataset: Dataset, encoder: Config | None = None) -> float:
    """Seconds of an epoch of `WHOLE_IMAGES`, extrapolated from the fastest on these.

    Args:
        config: Of an autoencoder, or with `encoder` of a classifier.
        dataset: The images; 100 of them keep their labels for a classifier that uses others.
        encoder: The autoencoder whose encoder is trained on.
    """
    with terminal.starting_keras():
        import keras

        import model as ours
    moments, shape = [], dataset.images.shape[1:]
    tick = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: moments.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: moments.append(time.perf_counter()),
    )
    options = {"callbacks": [tick], "warn": lambda sentence: None}
    config = config | {"min_steps": 0, "validation_split": 0}
    if encoder is None:
        config |= {"epochs": TIMED_EPOCHS}
        model = ours.get_autoencoder(config, shape)
        ours.train_autoencoder(model, config, dataset.images, **options)
    else:
        config |= {"dense_only_train_epochs": 0, "full_train_epochs": TIMED_EPOCHS}
        given = order = draw_order(dataset.labels, 0)
        if how := config.get("unlabelled"):
            once = how["label_spreading"] | {"refresh": None, "last_share": None}
            config["unlabelled"] = how | {"label_spreading": once}
            given, others = np.split(order, [10 * LABELS_PER_CLASS])
            options["unlabelled"] = dataset.images[others]
        encoder = ours.get_autoencoder(encoder, shape)
        model = ours.get_classifier(config, shape, 10, encoder=encoder)
        ours.train_classifier(
            model, config, dataset.images[given], dataset.labels[given], **options
        )
    fastest = min(end - begin for begin, end in zip(moments[::2], moments[1::2], strict=True))
    return fastest * WHOLE_IMAGES / len(dataset.images)


def time_spreading(how: Config) -> float:
    """Seconds in which 100 labels spread to `WHOLE_IMAGES` encodings."""
    from cae.training.unlabelled import spread_labels

    features = np.random.default_rng(0).normal(size=(WHOLE_IMAGES, 128)).astype(np.float32)
    numbers = np.arange(WHOLE_IMAGES)
    targets = np.where(numbers < 10 * LABELS_PER_CLASS, numbers % 10, NO_CLASS)
    began = time.perf_counter()
    spread_labels(features, targets, np.full(10, 0.1), LabelSpreading(**how))
    return time.perf_counter() - began


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
        spread = spread_labels(features, targets, prior, how).labels
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


def _report_labels(
    name: str, errors: list[np.ndarray], titles: Sequence[str] = LABEL_ERRORS
) -> None:
    means = (
        f"{mean:.2%} ({low:.2%} to {high:.2%})"
        for mean, low, high in zip(
            np.mean(errors, axis=0), np.min(errors, axis=0), np.max(errors, axis=0), strict=True
        )
    )
    terminal.say(f"{name}: " + ", ".join(map(" ".join, zip(titles, means, strict=True))))


def main(argv: list[str] | None = None) -> int:
    parser = flags.Parser(prog="checks.py", description=__doc__)
    commands = parser.add_subparsers(dest="check", required=True)
    collapse = commands.add_parser("collapse", description=check_collapse.__doc__)
    collapse.add_argument("-c", "--config", action="append", metavar="FILE")
    collapse.add_argument("--textbook", action="store_true", help="train as textbooks do instead")
    precision = commands.add_parser("precision", description=check_precision.__doc__)
    encodings = commands.add_parser("encodings", description=check_encodings.__doc__)
    clustering = commands.add_parser("clustering", description=check_clustering.__doc__)
    shares = commands.add_parser("shares", description=check_shares.__doc__)
    parts = commands.add_parser("parts", description=check_parts.__doc__)
    cost = commands.add_parser("cost", description=check_cost.__doc__)
    for command, names in ((encodings, ENCODINGS), (parts, PARTS)):
        command.add_argument("--only", action="append", choices=names, help="repeatable")
    for command, work, seeds in (
        (collapse, check_collapse, 10),
        (precision, check_precision, 5),
        (encodings, check_encodings, 3),
        (clustering, check_clustering, 3),
        (shares, check_shares, 5),
        (parts, check_parts, 3),
        (cost, check_cost, 2),
    ):
        command.add_argument("--seeds", **flags.number(1, 1000, "repetitions", default=seeds))
        command.set_defaults(work=work)
    return start.run(lambda args: args.work(args), parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
