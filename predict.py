"""Uses saved models: tests a classifier, and shows what a model is.

python predict.py evaluate models/classifier.keras -d mnist
python predict.py show models/classifier.keras
"""

from typing import Any

from cae.config.choices import DATASETS
from cae.programs import flags, start


def build_parser() -> flags.Parser:
    """The command line of this program."""
    parser = flags.Parser(prog="predict.py", description=__doc__)
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND")
    _add_evaluate(commands)
    _add_show(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    return start.run(start.call_action, build_parser(), argv)


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="test a classifier on images with labels")
    parser.set_defaults(action="cae.programs.answers:evaluate")
    parser.add_argument("model", metavar="MODEL", help="a saved classifier (.keras or .h5)")
    images = f"the test images of {', '.join(DATASETS)}, or an idx file of images"
    flags.add(parser, "--dataset", metavar="DATA", help=images)
    flags.add(parser, "--labels", help="labels of the images of -d")
    flags.add(parser, "--test", help="an idx file of test images, instead of -d")
    flags.add(parser, "--test-labels", *flags.CHANGES)
    flags.add(parser, "--model-input-range", "--runs-dir", "--run-dir", "--no-plots")


def _add_show(commands: Any) -> None:
    parser = commands.add_parser("show", help="show what a saved model is: its card")
    parser.set_defaults(action="cae.report.model_card:show")
    parser.add_argument("model", metavar="MODEL", help="a saved model (.keras or .h5)")
    parser.add_argument("--html", metavar="FILE", help="write the card as an HTML page instead")
    parser.add_argument("--json", action="store_true", help="print the card as JSON instead")


if __name__ == "__main__":
    raise SystemExit(main())
