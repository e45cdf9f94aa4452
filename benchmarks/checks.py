"""Checks that take too long for the tests: collapse, and what bfloat16 costs.

    python benchmarks/checks.py collapse      every shipped autoencoder, ten seeds, about an hour
    python benchmarks/checks.py collapse --textbook -c configuration/autoencoder_small.json
    python benchmarks/checks.py precision     float32 and bfloat16, five seeds, ten minutes

The exit code is 1 if a limit is exceeded. docs/experiments.md and docs/performance.md report the
results.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.competitors import Config, get_config, get_plain_autoencoder  # noqa: E402
from cae import terminal  # noqa: E402
from cae.data.datasets import get_scaling, load_dataset  # noqa: E402
from cae.programs import flags, start  # noqa: E402

if TYPE_CHECKING:
    import keras

COLLAPSE_LIMIT = 0.02  # MSE; the mean image scores 0.067, a black one 0.116
TRAINING_IMAGES, HELD_OUT_IMAGES = 6000, 1000
PRECISION_IMAGES, PRECISION_EPOCHS = 12_000, 5
PRECISION_LIMIT = 0.02  # relative difference of the mean errors


def check_collapse(args: argparse.Namespace) -> int:
    """Trains for one epoch on 6,000 MNIST images; the error is that of the next 1,000."""
    with terminal.starting_keras():
        import keras
    images = load_dataset("mnist", limit=TRAINING_IMAGES + HELD_OUT_IMAGES).images
    paths = args.config or sorted((ROOT / "configuration").glob("autoencoder_*.json"))
    worst = 0.0
    for path in map(Path, paths):
        shipped = json.loads(path.read_text(encoding="utf-8"))
        errors = []
        for seed in range(args.seeds):
            config = {**shipped, "epochs": 1, "seed": seed, "validation_split": 0}
            train = _train_textbook if args.textbook else _train_ours
            errors.append(_get_error(train(config, images[:TRAINING_IMAGES]), images))
            keras.backend.clear_session()
        terminal.say(
            f"{path.stem:<42} mse {np.mean(errors):.4f} ({min(errors):.4f} to {max(errors):.4f})"
        )
        worst = max(worst, *errors)
    return int(worst >= COLLAPSE_LIMIT)


def _train_ours(config: Config, images: np.ndarray) -> "keras.Model":
    from model import get_autoencoder, train_autoencoder

    autoencoder = get_autoencoder(config, images.shape[1:])
    train_autoencoder(autoencoder, config, images, warn=lambda sentence: None)
    return autoencoder


def _train_textbook(config: Config, images: np.ndarray) -> "keras.Model":
    """Keras' own initialisation, an output bias of 0, and mean squared error."""
    import keras

    keras.utils.set_random_seed(config["seed"])
    autoencoder = get_plain_autoencoder(config, images.shape[1:])
    autoencoder.compile(keras.optimizers.Adam(config["optimizer"][1]), "mse")
    pixels = get_scaling(images).apply(images)
    autoencoder.fit(pixels, pixels, batch_size=config["batch_size"], verbose=0)
    return autoencoder


def _get_error(autoencoder: "keras.Model", images: np.ndarray) -> float:
    from model import predict

    scaling, held_out = get_scaling(images), np.arange(TRAINING_IMAGES, len(images))
    drawn = predict(autoencoder, images, scaling, held_out)
    return float(np.square(drawn - scaling.apply(images[held_out])).mean())


def check_precision(args: argparse.Namespace) -> int:
    """Trains the small autoencoder in both precisions; compares validation errors by seed."""
    with terminal.starting_keras():
        import keras

        from model import get_autoencoder, train_autoencoder
    images = load_dataset("mnist", limit=PRECISION_IMAGES).images
    errors: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(args.seeds):
        for reduced, found in errors.items():
            config = {**get_config("autoencoder_small"), "epochs": PRECISION_EPOCHS, "seed": seed}
            config["mixed_precision"] = reduced
            autoencoder = get_autoencoder(config, images.shape[1:])
            history = train_autoencoder(autoencoder, config, images, warn=terminal.warn)
            found.append(history.metrics["val_mse"])
            keras.backend.clear_session()
        terminal.say(f"seed {seed}: float32 {errors[False][-1]:.6f}, bfloat16 {found[-1]:.6f}")
    exact, ours = (statistics.fmean(found) for found in errors.values())
    spread = statistics.stdev(errors[False]) / exact if args.seeds > 1 else 0
    terminal.say(
        f"validation mse over {args.seeds} seeds: float32 {exact:.6f}, bfloat16 {ours:.6f} "
        f"({ours / exact - 1:+.1%}); seeds alone differ by {spread:.1%} (standard deviation)"
    )
    return int(ours / exact - 1 > PRECISION_LIMIT)


def main(argv: list[str] | None = None) -> int:
    parser = flags.Parser(prog="checks.py", description=__doc__)
    commands = parser.add_subparsers(dest="check", required=True)
    collapse = commands.add_parser("collapse", description=check_collapse.__doc__)
    collapse.add_argument("-c", "--config", action="append", default=[], metavar="FILE")
    collapse.add_argument("--textbook", action="store_true", help="train as textbooks do instead")
    collapse.add_argument("--seeds", type=flags.whole_number(1, 1000), default=10, metavar="N")
    collapse.set_defaults(work=check_collapse)
    precision = commands.add_parser("precision", description=check_precision.__doc__)
    precision.add_argument("--seeds", type=flags.whole_number(1, 1000), default=5, metavar="N")
    precision.set_defaults(work=check_precision)
    return start.run(lambda args: args.work(args), parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
