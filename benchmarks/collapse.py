"""Does any shipped autoencoder collapse? One epoch on 6,000 MNIST images, over several seeds.

    python benchmarks/collapse.py                 ten seeds of every configuration, about an hour
    python benchmarks/collapse.py --textbook -c configuration/autoencoder_small.json

The error is measured on the 1,000 training images after those 6,000, so the test set stays
unused. Drawing the mean image for everything scores 0.067; a collapsed autoencoder, which draws
black, 0.116.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.workers import get_plain_autoencoder  # noqa: E402
from cae import terminal  # noqa: E402
from cae.config.load import load_config, override
from cae.config.schema import AutoencoderConfig  # noqa: E402
from cae.data.datasets import get_scaling, load_dataset  # noqa: E402
from cae.programs import flags, start

if TYPE_CHECKING:
    import keras

LIMIT_MSE = 0.02
TRAINING_IMAGES, HELD_OUT_IMAGES = 6000, 1000


def measure(args: argparse.Namespace) -> int:
    """Prints a line a configuration; exits with 1 if one seed of one is over the limit."""
    images = load_dataset("mnist", limit=TRAINING_IMAGES + HELD_OUT_IMAGES).images
    paths = args.config or sorted((ROOT / "configuration").glob("autoencoder_*.json"))
    results = {}
    pixels = get_scaling(images).apply(images)
    seen, held_out = pixels[:TRAINING_IMAGES], pixels[TRAINING_IMAGES:]
    terminal.say(
        f"for comparison: the mean image {np.square(held_out - seen.mean(axis=0)).mean():.4f}, "
        f"a black one {np.square(held_out).mean():.4f}"
    )
    with terminal.starting_keras():
        import keras

    for path in map(Path, paths):
        errors = []
        for seed in range(args.seeds):
            config = override(
                load_config(path, "autoencoder"), epochs=1, seed=seed, validation_split=0
            )
            train = train_textbook if args.textbook else train_ours
            errors.append(get_error(train(config, images[:TRAINING_IMAGES]), images))
            keras.backend.clear_session()
        results[path.stem] = errors
        verdict = "ok" if max(errors) < LIMIT_MSE else "COLLAPSED OR TOO SLOW"
        terminal.say(
            f"{path.stem:<42} mse {np.mean(errors):.4f} "
            f"({min(errors):.4f} to {max(errors):.4f}, {len(errors)} seeds)  {verdict}"
        )
        if args.output:
            Path(args.output).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return int(any(max(errors) >= LIMIT_MSE for errors in results.values()))


def train_ours(config: AutoencoderConfig, images: np.ndarray) -> "keras.Model":
    from cae.training import build
    from cae.training import train as train_module

    autoencoder = build.get_autoencoder(config, images.shape[1:])
    train_module.train_autoencoder(autoencoder, config, images, warn=lambda _: None)
    return autoencoder


def train_textbook(config: AutoencoderConfig, images: np.ndarray) -> "keras.Model":
    """Keras' own initialisation, a bias of 0, and mean squared error."""
    import keras

    keras.utils.set_random_seed(config.seed)
    autoencoder = get_plain_autoencoder(config, images.shape[1:])
    autoencoder.compile(keras.optimizers.Adam(config.optimizer.learning_rate), "mse")
    pixels = get_scaling(images).apply(images)
    autoencoder.fit(pixels, pixels, batch_size=config.batch_size, verbose=0)
    return autoencoder


def get_error(autoencoder: "keras.Model", images: np.ndarray) -> float:
    """Mean squared error on the held-out images."""
    from cae.training.predict import predict

    scaling, held_out = get_scaling(images), np.arange(TRAINING_IMAGES, len(images))
    drawn = predict(autoencoder, images, scaling, held_out)
    return float(np.square(drawn - scaling.apply(images[held_out])).mean())


def main(argv: list[str] | None = None) -> int:
    parser = flags.Parser(prog="collapse.py", description=__doc__)
    parser.add_argument("-c", "--config", action="append", metavar="FILE")
    parser.add_argument(
        "--textbook", action="store_true", help="train the same layers as textbooks do instead"
    )
    parser.add_argument("--seeds", type=flags.whole_number(1, 1000), default=10, metavar="N")
    parser.add_argument("--output", metavar="FILE", help="also write all errors as JSON")
    return start.run(measure, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
