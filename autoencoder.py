"""Trains convolutional autoencoders: asks for the hyperparameters, or takes them from JSON files.

python autoencoder.py -d mnist
python autoencoder.py -d FOLDER_OF_PICTURES -c configuration/autoencoder_small.json
python autoencoder.py -d mnist -c configuration/autoencoder_small.json --save models/small.keras
"""

import argparse
from typing import TYPE_CHECKING

from cae.config.choices import DATASETS
from cae.programs import flags, start

if TYPE_CHECKING:
    from cae.records.history import OnEpoch


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="autoencoder.py", description=__doc__)
    data = (
        "a folder of pictures, with or without one subfolder per class, a table of path,label "
        f"(.csv), an .npz, .npy or idx file, or {', '.join(DATASETS)}"
    )
    flags.add(parser, "--dataset", metavar="DATASET", help=data)
    labels = "labels of the images; they only colour the figure of the encodings"
    flags.add(parser, "--labels", metavar="FILE", help=labels)
    flags.add(
        parser,
        "--unlabelled",
        help="more training images, in any form that -d takes; labels are ignored",
    )
    flags.add(parser, *flags.CHANGES)
    flags.add_groups(parser, flags.TRAINING)
    flags.add(parser, "--list", const="autoencoder")
    return parser


def main(argv: list[str] | None = None, on_epoch: "OnEpoch | None" = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(lambda args: run(args, on_epoch), build_parser(), argv)


def run(args: argparse.Namespace, on_epoch: "OnEpoch | None" = None) -> int:
    """Trains what the flags say, or what the answers say."""
    from cae.programs.starting_points import read_configs

    configs = read_configs(args, "autoencoder")
    # After a wrong configuration has had its answer.
    from cae.programs import menu, tasks
    from cae.studies import compare

    return menu.run(tasks.AutoencoderTask, args, configs, compare.print_runs, on_epoch)


if __name__ == "__main__":
    raise SystemExit(main())
