"""Trains and tests classifiers on a saved autoencoder's encoder; without -c, asks what to train.

python classification.py -d mnist -model models/small.keras
python classification.py -d FOLDER_OF_CLASSES -model models/small.keras
python classification.py -d TRAIN -dl LABELS -t TEST -tl TEST_LABELS -model MODEL
"""

import argparse
from typing import TYPE_CHECKING

from cae.programs import flags, start

if TYPE_CHECKING:
    from cae.records.history import OnEpoch


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="classification.py", description=__doc__)
    flags.add(parser, *flags.DATA)
    flags.add(parser, "--model")
    parser.add_argument(
        "--no-pretrained",
        action="store_true",
        help="start from the encoder's architecture with fresh weights, to compare",
    )
    flags.add(parser, "--class-weight")
    flags.add_groups(parser, {"few labels": flags.FEW_LABELS} | flags.FOREIGN | flags.TRAINING)
    flags.add(parser, "--list", const="classifier")
    return parser


def main(argv: list[str] | None = None, on_epoch: "OnEpoch | None" = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(lambda args: run(args, on_epoch), build_parser(), argv)


def run(args: argparse.Namespace, on_epoch: "OnEpoch | None" = None) -> int:
    """Trains what the flags say, or what the answers say."""
    from cae.programs.starting_points import read_configs

    configs = read_configs(args, "classifier")
    # After a wrong configuration has had its answer.
    from cae.programs import menu, tasks
    from cae.studies import compare

    return menu.run(tasks.ClassifierTask, args, configs, compare.print_runs, on_epoch)


if __name__ == "__main__":
    raise SystemExit(main())
