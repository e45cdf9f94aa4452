"""Does reduced precision cost accuracy? The same trainings in float32 and in bfloat16.

    python benchmarks/precision.py                five seeds, about ten minutes on 2 cores

Trains the small autoencoder on 12,000 MNIST images, of which a tenth validates, and compares the
validation errors of the kept epochs seed by seed.
"""

import argparse
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from cae import terminal  # noqa: E402
from cae.config.load import load_config, override  # noqa: E402
from cae.data.datasets import load_dataset  # noqa: E402
from cae.programs import flags, start

IMAGES = 12_000
EPOCHS = 5
LIMIT = 0.02  # by how much the mean error may differ, as a part of it


def measure(args: argparse.Namespace) -> int:
    """Prints a line a seed; exits with 1 if the mean errors differ by more than the limit."""
    images = load_dataset("mnist", limit=IMAGES).images
    shipped = load_config(args.config, "autoencoder")
    with terminal.starting_keras():
        import keras

        from cae.training import build, train
    errors = {False: [], True: []}
    for seed in range(args.seeds):
        for reduced, found in errors.items():
            config = override(shipped, epochs=args.epochs, seed=seed, mixed_precision=reduced)
            autoencoder = build.get_autoencoder(config, images.shape[1:])
            history = train.train_autoencoder(autoencoder, config, images, warn=terminal.warn)
            found.append(history.metrics["val_mse"])
            keras.backend.clear_session()
        exact, ours = errors[False][-1], errors[True][-1]
        terminal.say(
            f"seed {seed}: float32 {exact:.6f}, bfloat16 {ours:.6f} ({ours / exact - 1:+.1%})"
        )
    means = {reduced: statistics.fmean(found) for reduced, found in errors.items()}
    difference = means[True] / means[False] - 1
    spread = statistics.stdev(errors[False]) / means[False] if args.seeds > 1 else 0
    terminal.say(
        f"validation mse over {args.seeds} seeds: float32 {means[False]:.6f}, bfloat16 "
        f"{means[True]:.6f} ({difference:+.1%}); seeds alone differ by {spread:.1%} (sd)"
    )
    return int(difference > LIMIT)


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    parser = flags.Parser(prog="precision.py", description=__doc__)
    parser.add_argument(
        "-c",
        "--config",
        default=str(ROOT / "configuration" / "autoencoder_small.json"),
        metavar="FILE",
        help="the autoencoder (default: the small one)",
    )
    parser.add_argument("--seeds", type=flags.whole_number(1, 1000), default=5, metavar="N")
    parser.add_argument("--epochs", type=flags.whole_number(1, 1000), default=EPOCHS, metavar="N")
    return start.run(measure, parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
