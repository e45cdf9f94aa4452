"""Flags of the programs, and the parser that reads them."""

import argparse
import difflib
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from cae.config.choices import CLUSTER, DATASETS, INPUT_RANGES, MAX_BATCH_SIZE, MAX_EPOCHS, MAX_SEED
from cae.errors import UsageError, parse_whole_number, shown

PROJECT = Path(__file__).parents[2]
MAX_IMAGES = 2**32 - 1  # the limit of the header of an idx file
MAX_DEVICES = 64  # of one machine
# Characters that word processors and PDFs put where a flag's hyphen belongs.
DASHES = "‐‑‒–—―−"  # noqa: RUF001 - that is the point


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest flag for a wrong one."""

    def __init__(self, **arguments: Any):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **arguments
        )
        # What follows a flag may begin with a minus: a number, or a range such as -1..1.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def parse_args(self, args: list[str] | None = None, namespace: Any = None) -> Any:
        """Parses the command line.

        Two attributes are added: `command`, the command line quoted for a shell, and `given`, the
        flags whose value is not their default.

        Raises:
            UsageError: A flag or its value is wrong.
        """
        args = sys.argv[1:] if args is None else args
        self._check_hyphens(args)
        parsed, unknown = self.parse_known_args(args, namespace)
        parsed.command = shlex.join([self.prog, *args])
        parsed.given = [
            action.option_strings[-1]
            for action in self._actions
            if action.dest in parsed and getattr(parsed, action.dest) != action.default
            if action.option_strings
        ]
        if unknown:
            nearest = difflib.get_close_matches(unknown[0].split("=")[0], self._flags(), 1)
            remedy = f"Did you mean {nearest[0]}?" if nearest else f"See {self.prog} --help."
            raise UsageError(
                f"argument {unknown[0]!r}", "must be a flag of this program", None, remedy
            )
        return parsed

    def _check_hyphens(self, args: list[str]) -> None:
        for argument in args:
            if argument and argument[0] in DASHES:
                name = argument.lstrip(DASHES + "-").split("=")[0]
                meant = [flag for flag in self._flags() if flag.lstrip("-") == name]
                raise UsageError(
                    f"argument {argument!r}",
                    "a flag must begin with a hyphen '-'",
                    f"{unicodedata.name(argument[0])} {argument[0]!r}, as copied from a PDF",
                    f"Type {meant[0]}." if meant else f"See {self.prog} --help.",
                )

    def _flags(self) -> list[str]:
        return [flag for action in self.all_actions() for flag in action.option_strings]

    def all_actions(self) -> Iterator[argparse.Action]:
        """The flags and arguments of the program and of its subcommands."""
        for action in self._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.all_actions()

    def error(self, message: str) -> NoReturn:  # noqa: D102
        raise UsageError(self.prog, message, None, f"See {self.prog} --help.")


def add_number(
    group: argparse._ActionsContainer,
    flag: str,
    low: int,
    high: int,
    text: str,
    default: int | None = None,
) -> None:
    """Adds a flag that takes a whole number in [low, high]."""
    group.add_argument(flag, type=whole_number(low, high), default=default, metavar="N", help=text)


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The type of a flag that takes a whole number in [low, high]."""

    def parse(text: str) -> int:
        try:
            return parse_whole_number(text, low, high)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def config_file(text: str) -> str:
    """The type of a flag that names a JSON file; those of `configuration/` are found anywhere."""
    shipped = PROJECT / text
    is_elsewhere = text.startswith("configuration/") and not Path(text).exists()
    return str(shipped) if is_elsewhere and shipped.exists() else text


def which_devices(text: str) -> str | int:
    """The type of --devices."""
    if text in ("all", CLUSTER):
        return text
    try:
        return parse_whole_number(text, 1, MAX_DEVICES)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be all, {CLUSTER} or a whole number from 1 to {MAX_DEVICES}, got {shown(text)}"
        ) from error


def add_model_flags(parser: Parser) -> None:
    """Adds the flags that say how a saved model of another program is to be understood."""
    group = parser.add_argument_group("saved models of other programs")
    group.add_argument(
        "--encoder-until",
        metavar="LAYER",
        help="the encoder of the saved model ends with this layer (default: as its structure says)",
    )
    add_input_range(group)


def add_input_range(group: argparse._ActionsContainer) -> None:
    """Adds --model-input-range."""
    group.add_argument(
        "--model-input-range",
        choices=INPUT_RANGES,
        help="the pixels that the saved model was trained on (default: as its first layers say, "
        f"else {INPUT_RANGES[0]})",
    )


def add_data_flags(parser: argparse.ArgumentParser, model: str, *, required: bool = False) -> None:
    """Adds the flags of labelled training and test images, and of a saved model.

    Args:
        parser: Of the program.
        model: What the saved model is.
        required: Whether the images and the model must be given.
    """
    data = f"an idx file, or {', '.join(DATASETS)} (with their labels and test images)"
    for *names, metavar, text in (
        ("-d", "--dataset", "TRAIN", f"training images: {data}"),
        ("-dl", "--labels", "LABELS", "labels of the training images"),
        ("-t", "--test", "TEST", "an idx file of test images"),
        ("-tl", "--test-labels", "TEST_LABELS", "labels of the test images"),
        ("-model", "--model", "MODEL", model),
    ):
        needed = required and names[0] in ("-d", "-model")
        parser.add_argument(*names, metavar=metavar, required=needed, help=text)


def add_limit(group: argparse._ActionsContainer) -> None:
    """Adds --limit."""
    text = "use only N training images, drawn by the seed; with labels every class gives its share"
    add_number(group, "--limit", 1, MAX_IMAGES, text)


def add_runs_dir(group: argparse._ActionsContainer) -> None:
    """Adds --runs-dir."""
    group.add_argument(
        "--runs-dir", default="runs", metavar="DIR", help="where runs are recorded (default: runs)"
    )


def add_run_dir(group: argparse._ActionsContainer) -> None:
    """Adds --run-dir."""
    group.add_argument(
        "--run-dir", metavar="DIR", help="record the run in exactly this new or empty directory"
    )


def add_no_plots(group: argparse._ActionsContainer) -> None:
    """Adds --no-plots."""
    group.add_argument("--no-plots", action="store_true", help="draw no figures")


def add_shared_flags(parser: Parser) -> None:
    """Adds the flags that both training programs have."""
    _add_training_flags(parser.add_argument_group("training"))
    _add_run_flags(parser.add_argument_group("runs"))
    add_tracking_flags(parser.add_argument_group("tracking"))
    _add_output_flags(parser.add_argument_group("output"))


def _add_training_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "-c",
        "--config",
        action="append",
        type=config_file,
        default=[],
        metavar="FILE",
        help="train this configuration without asking; repeat it to train several and compare",
    )
    instead = "instead of the configuration's"
    add_number(group, "--epochs", 1, MAX_EPOCHS, instead)
    add_number(group, "--batch-size", 1, MAX_BATCH_SIZE, instead)
    add_number(group, "--seed", 0, MAX_SEED, instead)
    group.add_argument(
        "--mixed-precision",
        action="store_const",
        const=True,
        help="compute in bfloat16, whatever the configuration says",
    )
    group.add_argument(
        "--devices",
        type=which_devices,
        metavar="WHICH",
        help="train one model on several devices: all GPUs of this machine, a number of them, or "
        f"{CLUSTER} for the workers that TF_CONFIG or Slurm names; requires -c or --resume",
    )
    add_limit(group)
    group.add_argument(
        "--init-from",
        metavar="MODEL",
        help="start from the weights of this saved model, which has the same layers; "
        "without -c its own configuration is used",
    )


def _add_run_flags(group: argparse._ActionsContainer) -> None:
    add_runs_dir(group)
    add_run_dir(group)
    group.add_argument(
        "--name", metavar="NAME", help="name of the run (default: the configuration's)"
    )
    group.add_argument(
        "--resume",
        metavar="RUN",
        help="continue this interrupted run, to the same result; requires no other flag",
    )


def add_tracking_flags(group: argparse._ActionsContainer) -> None:
    """Adds the flags that show runs in other programs as well."""
    group.add_argument(
        "--tensorboard",
        nargs="?",
        const="tensorboard",
        metavar="DIR",
        help="also write curves, figures and hyperparameters for TensorBoard into this folder "
        "(default: tensorboard)",
    )
    group.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="URI",
        help="also record in this MLflow store (default: MLFLOW_TRACKING_URI, or mlflow.db here)",
    )


def _add_output_flags(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--save",
        metavar="PATH",
        help="also save the model here, as .keras or .h5; of several configurations the best",
    )
    group.add_argument("--overwrite", action="store_true", help="let --save replace a file")
    group.add_argument(
        "--print-config",
        action="store_true",
        help="print the complete configuration as JSON and stop",
    )
    add_no_plots(group)
    group.add_argument(
        "--show",
        action="store_true",
        help="open the figures in windows at the end, where there is a display",
    )
