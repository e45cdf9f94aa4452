"""Uses saved models: classifies, encodes and reconstructs images, finds anomalies, tests, shows.

python predict.py classify models/classifier.keras picture.png folder --csv answers.csv
python predict.py evaluate models/classifier.keras -d mnist
python predict.py show models/classifier.keras
"""

import argparse
from typing import Any

from cae.config.choices import DATASETS
from cae.programs import flags, start


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="predict.py", description=__doc__)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    _add_classify(commands)
    _add_evaluate(commands)
    _add_show(commands)
    _add_encode(commands)
    _add_reconstruct(commands)
    _add_anomalies(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(start.call_action, build_parser(), argv)


def _add_classify(commands: Any) -> None:
    parser = commands.add_parser("classify", help="classify any images")
    parser.set_defaults(action="cae.programs.classify:classify")
    _add_model_and_inputs(parser, "a saved classifier")
    parser.add_argument("--csv", metavar="FILE", help="write one row per image to this new file")
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write one object per image to this new file, or to standard output",
    )
    flags.add(parser, "--test-labels", help="labels of all images, in their order")
    parser.add_argument(
        "--errors",
        metavar="DIR",
        help="write wrongly classified images to this new folder, named "
        "true-predicted-probability-number.png",
    )
    parser.add_argument(
        "--unsure-below",
        type=flags.probability,
        metavar="P",
        help="call answers below this probability unsure (default: as calibrated in training, "
        "else 0.5)",
    )
    _add_changes(parser)
    flags.add(parser, "--model-input-range")


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--invert",
        choices=("auto", "always"),
        help="swap dark and bright: auto does so if the images look dark on light, unlike the "
        "training images",
    )
    parser.add_argument(
        "--transpose", action="store_true", help="swap rows and columns of the images"
    )


def _add_model_and_inputs(parser: argparse.ArgumentParser, model: str) -> None:
    parser.add_argument("model", metavar="MODEL", help=f"{model} (.keras or .h5)")
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="pictures, folders (searched recursively), idx or .npy files; - reads paths, one per "
        "line, or a single picture from standard input",
    )


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="test a classifier on images with labels")
    parser.set_defaults(action="cae.programs.evaluate:evaluate_classifier")
    parser.add_argument("model", metavar="MODEL", help="a saved classifier (.keras or .h5)")
    names = ", ".join(DATASETS)
    images = f"labelled images as training takes them, or {names}: their test images"
    flags.add(parser, "--dataset", metavar="DATA", help=images)
    flags.add(parser, "--labels", help="labels of the images of -d")
    flags.add(parser, "--test", help="test on all of these images, instead of -d")
    flags.add(parser, "--test-labels", *flags.CHANGES)
    flags.add(parser, "--model-input-range", "--runs-dir", "--run-dir", "--no-plots")
    others = [flag for flag in flags.IMAGES if flag != "--class-names"]  # those of the model
    flags.add_groups(parser, {"own images": others})


def _add_show(commands: Any) -> None:
    parser = commands.add_parser("show", help="show what a saved model is: its card")
    parser.set_defaults(action="cae.report.model_card:show")
    parser.add_argument("model", metavar="MODEL", help="a saved model (.keras or .h5)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--html", metavar="FILE", help="write the card as an HTML page instead")
    form.add_argument("--json", action="store_true", help="print the card as JSON instead")


def _add_encode(commands: Any) -> None:
    parser = commands.add_parser("encode", help="write the encodings of images")
    parser.set_defaults(action="cae.programs.encodings:write_encodings")
    _add_model_and_inputs(parser, "a saved autoencoder or classifier")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help="a new .csv file with the name of each image, or a new .npy file, with the names in a "
        ".txt file beside it",
    )
    _add_changes(parser)
    flags.add(parser, "--encoder-until", "--model-input-range")


def _add_reconstruct(commands: Any) -> None:
    parser = commands.add_parser("reconstruct", help="write reconstructions of images")
    parser.set_defaults(action="cae.programs.encodings:write_reconstructions")
    _add_model_and_inputs(parser, "a saved autoencoder")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="PATH",
        help="a new folder for one PNG file per image, a new .idx file, or a new .png file for a "
        "figure of the worst reconstructions",
    )
    _add_changes(parser)
    flags.add(parser, "--model-input-range")


def _add_anomalies(commands: Any) -> None:
    parser = commands.add_parser("anomalies", help="find images unlike the training images")
    parser.set_defaults(action="cae.programs.encodings:find_anomalies")
    _add_model_and_inputs(parser, "a saved autoencoder or classifier of this program")
    parser.add_argument(
        "--quantile",
        type=flags.probability,
        default=0.99,
        metavar="Q",
        help="call an image an anomaly if it scores higher than this share of normal images "
        "(default: 0.99)",
    )
    parser.add_argument("--csv", metavar="FILE", help="write the score of every image to this file")
    parser.add_argument(
        "--figures", metavar="DIR", help="draw the strangest images into this new folder"
    )
    parser.add_argument(
        "--strange",
        nargs="+",
        metavar="LABEL",
        help="labels or folders known to be anomalies; measures how well scores separate them "
        "(ROC)",
    )
    _add_changes(parser)
    flags.add(parser, "--test-labels", help="labels of all images, in their order")


if __name__ == "__main__":
    raise SystemExit(main())
