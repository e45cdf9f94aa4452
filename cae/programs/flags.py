"""Flags of the programs, and the parser that reads them."""

import argparse
import difflib
import re
import reprlib
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from cae.config.fields import MAX_BATCH_SIZE, MAX_EPOCHS, MAX_SEED
from cae.errors import UsageError
from cae.training.workers import CLUSTER

MAX_IMAGES = 2**32 - 1  # what the header of an idx file can say
MAX_DEVICES = 64  # of one machine
# Characters that word processors and PDFs put where a flag's hyphen belongs.
DASHES = "‐‑‒–—―−"  # noqa: RUF001 - that is the point


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest flag for a wrong one."""

    def __init__(self, **arguments: Any):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **arguments
        )

    def parse_args(self, args: list[str] | None = None, namespace: Any = None) -> Any:
        """Parses the command line, and keeps it as the attribute `command`.

        The attribute `given` lists the flags whose value is not their default.

        Raises:
            UsageError: A flag or its value is wrong.
        """
        args = sys.argv[1:] if args is None else args
        flags = [flag for action in self.all_actions() for flag in action.option_strings]
        for argument in args:
            if argument and argument[0] in DASHES:
                name = argument.lstrip(DASHES + "-").split("=")[0]
                meant = [flag for flag in flags if flag.lstrip("-") == name]
                raise UsageError(
                    f"argument {argument!r}",
                    "a flag must begin with a hyphen '-'",
                    f"{unicodedata.name(argument[0])} {argument[0]!r}, as copied from a PDF",
                    f"Type {meant[0]}." if meant else f"See {self.prog} --help.",
                )
        parsed, unknown = self.parse_known_args(args, namespace)
        parsed.command = shlex.join([self.prog, *args])
        parsed.given = [
            action.option_strings[-1]
            for action in self._actions
            if action.dest in parsed and getattr(parsed, action.dest) != action.default
            if action.option_strings
        ]
        if unknown:
            nearest = difflib.get_close_matches(unknown[0].split("=")[0], flags, 1)
            remedy = f"Did you mean {nearest[0]}?" if nearest else f"See {self.prog} --help."
            raise UsageError(
                f"argument {unknown[0]!r}", "must be a flag of this program", None, remedy
            )
        return parsed

    def all_actions(self) -> Iterator[argparse.Action]:
        """The flags and arguments of the program and of its subcommands."""
        for action in self._actions:
            yield action
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    yield from parser.all_actions()

    def error(self, message: str) -> NoReturn:
        """Turns argparse's own errors into ours."""
        raise UsageError(self.prog, message, None, f"See {self.prog} --help.")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """The type of a flag that takes an integer from `low` to `high`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"[+-]?\d{1,18}", text.strip()) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {low} to {high}, got {reprlib.repr(text)}"
            )
        return int(text)

    return parse


def which_devices(text: str) -> str | int:
    """The type of --devices."""
    if text in ("all", CLUSTER):
        return text
    try:
        return whole_number(1, MAX_DEVICES)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or be all or {CLUSTER}") from error


def add_shared_flags(parser: Parser) -> None:
    """Adds the flags that both training programs have."""
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help="train this configuration without asking; repeat it to train several and compare",
    )
    for flag, low, high in (
        ("--epochs", 1, MAX_EPOCHS),
        ("--batch-size", 1, MAX_BATCH_SIZE),
        ("--seed", 0, MAX_SEED),
    ):
        parser.add_argument(
            flag, type=whole_number(low, high), metavar="N", help="instead of the configuration's"
        )
    parser.add_argument(
        "--mixed-precision",
        action="store_const",
        const=True,
        help="compute in bfloat16, whatever the configuration says",
    )
    parser.add_argument(
        "--devices",
        type=which_devices,
        metavar="WHICH",
        help="train one model on several devices: all GPUs of this machine, a number of them, or "
        "cluster for the workers that TF_CONFIG or Slurm names; needs -c or --resume",
    )
    parser.add_argument(
        "--limit",
        type=whole_number(1, MAX_IMAGES),
        metavar="N",
        help="use only the first N training images",
    )
    parser.add_argument(
        "--save",
        metavar="PATH",
        help="also save the model here, as .keras or .h5; of several configurations the best",
    )
    parser.add_argument(
        "--runs-dir", default="runs", metavar="DIR", help="where runs are recorded (default: runs)"
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", help="record the run in exactly this new or empty directory"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="name of the run (default: the configuration's)"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with this interrupted run, to the same result; needs no other flag",
    )
    parser.add_argument(
        "--init-from",
        metavar="MODEL",
        help="start a new run from the weights of this saved model of the same layers; "
        "without -c its own configuration is used",
    )
    add_tracking_flags(parser)
    parser.add_argument("--overwrite", action="store_true", help="let --save replace a file")
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print the complete configuration as JSON and stop",
    )
    parser.add_argument("--no-plots", action="store_true", help="draw no figures")
    parser.add_argument(
        "--show",
        action="store_true",
        help="open the figures in windows at the end, where there is a display",
    )


def add_tracking_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that show runs in other programs as well."""
    parser.add_argument(
        "--tensorboard",
        nargs="?",
        const="tensorboard",
        metavar="DIR",
        help="also write curves, figures and hyperparameters for TensorBoard into this folder "
        "(default: tensorboard)",
    )
    parser.add_argument(
        "--mlflow",
        nargs="?",
        const="",
        metavar="URI",
        help="also record in this MLflow store (default: MLFLOW_TRACKING_URI, or mlflow.db here)",
    )
