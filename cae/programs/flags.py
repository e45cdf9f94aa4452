"""Flags of the programs, and the parser that reads them."""

import argparse
import difflib
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn, TypeVar

from cae.config.choices import (
    CHANGED,
    CLASS_WEIGHTS,
    COLORS,
    DATASETS,
    INPUT_RANGES,
    MAX_BATCH_SIZE,
    MAX_EPOCHS,
    MAX_IMAGES,
    MAX_SEED,
    RESIZE,
    VERSION,
    WORKERS,
)
from cae.config.shipped import find_shipped, get_descriptions
from cae.errors import UsageError, parse_number, parse_whole_number, shown

MAX_DEVICES = 64  # of one machine
# Characters that word processors and PDFs put where a flag's hyphen belongs.
DASHES = "‐‑‒–—―−"  # noqa: RUF001 - that is the point

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with the nearest flag for a wrong one."""

    def __init__(self, **arguments: Any):
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **arguments
        )
        if " " not in self.prog:  # not for subcommands
            version = f"{self.prog} {VERSION}"
            self.add_argument("--version", action="version", version=version)
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
            chosen = self._get_chosen(parsed)
            flags = chosen._flags() if unknown[0].startswith("-") else []
            nearest = difflib.get_close_matches(unknown[0].split("=")[0], flags, 1)
            remedy = f"Did you mean {nearest[0]}?" if nearest else f"See {chosen.prog} --help."
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

    def _get_chosen(self, parsed: argparse.Namespace) -> "Parser":
        """The parser of the subcommand on the command line; this one, if there are none."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return action.choices[getattr(parsed, action.dest)]
        return self

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


def as_type(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The type of a flag that takes what `parse` takes, as the answer to a question."""

    def read(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


probability = as_type(partial(parse_number, low=0, high=1))  # the type of some flags


def which_devices(text: str) -> str | int:
    """The type of --devices."""
    names = {"all": "all", WORKERS: WORKERS, "cluster": WORKERS}  # the last is a former name
    if text in names:
        return names[text]
    try:
        return parse_whole_number(text, 1, MAX_DEVICES)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be all, {WORKERS} or a whole number from 1 to {MAX_DEVICES}, got {shown(text)}"
        ) from error


def image_size(text: str) -> tuple[int, int]:
    """The type of --image-size: (height, width)."""
    found = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", text)
    if not found or not all(map(int, found.groups())):
        raise argparse.ArgumentTypeError(
            f"must be a height and a width such as 28x28, got {shown(text)}"
        )
    return int(found[1]), int(found[2])


def number(low: int, high: int, text: str, **options: Any) -> dict[str, Any]:
    """The arguments of a flag that takes a whole number in [low, high]."""
    return {
        "type": as_type(partial(parse_whole_number, low=low, high=high)),
        "metavar": "N",
        "help": text,
        **options,
    }


class ListShipped(argparse.Action):
    """Lists the shipped configurations for a kind of model (`const`), and ends the program."""

    def __init__(self, **arguments: Any):
        super().__init__(nargs=0, default=argparse.SUPPRESS, **arguments)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:  # noqa: D102
        from cae import terminal  # rich takes longer to load than all else that --help needs

        for path, description in get_descriptions(self.const).items():
            terminal.print_as_is(path)
            terminal.print_sentence(terminal.OUT, f"  {description}")
        parser.exit()


def changing(text: str) -> dict[str, Any]:
    """The arguments of a flag that changes the images of `CHANGED`."""
    which = f"{text}: {', '.join(CHANGED)} (without a value: {CHANGED[0]})"
    return {
        "nargs": "?",
        "const": CHANGED[0],
        "choices": CHANGED,
        "metavar": "WHICH",
        "help": which,
    }


INSTEAD = "instead of the configuration's"
# What several programs have. By the name of each flag: its short form, if any, as `short`, and the
# arguments of `add_argument`.
FLAGS: dict[str, dict[str, Any]] = {
    "--dataset": {
        "short": "-d",
        "metavar": "TRAIN",
        "help": "training images: a folder with one subfolder per class, a table of path,label "
        f"(.csv), .npz, .npy or idx file, or {', '.join(DATASETS)}",
    },
    "--labels": {"short": "-dl", "metavar": "LABELS", "help": "labels of the training images"},
    "--unlabelled": {
        "metavar": "IMAGES",
        "help": "more training images, without labels, in any form that -d takes; subfolders and "
        "labels are ignored",
    },
    "--labels-per-class": number(
        1,
        MAX_IMAGES,
        "use the labels of N training images per class, including those for validation, drawn by "
        "the seed; the other images count as unlabelled",
    ),
    "--test": {"short": "-t", "metavar": "TEST", "help": "test images, in any form that -d takes"},
    "--test-labels": {
        "short": "-tl",
        "metavar": "TEST_LABELS",
        "help": "labels of the test images",
    },
    "--invert": changing("swap dark and bright in the images"),
    "--transpose": changing("swap rows and columns of the images"),
    "--image-size": {
        "type": image_size,
        "metavar": "HxW",
        "help": "bring pictures to this height and width (default: the most frequent size, at most "
        "64 per side)",
    },
    "--color": {
        "choices": COLORS,
        "help": "convert pictures; auto keeps colour if any has it (default: auto)",
    },
    "--resize": {
        "choices": RESIZE,
        "help": "fit other aspect ratios by padding, cropping or stretching (default: pad)",
    },
    "--test-split": {
        "type": as_type(partial(parse_number, low=0, high=0.9)),
        "metavar": "SHARE",
        "help": "share of every class to hold out for testing, if there are no test images "
        "(default: 0.2)",
    },
    "--class-names": {
        "metavar": "NAMES",
        "help": "names of the labels in ascending order: a,b,c or a text file with one per line",
    },
    "--model": {
        "short": "-model",
        "metavar": "MODEL",
        "help": "a saved autoencoder or classifier (.keras or .h5) whose encoder is used; "
        "takes precedence over encoder_layers of the configuration",
    },
    "--encoder-until": {
        "metavar": "LAYER",
        "help": "last layer of the encoder in the saved model (default: found from its structure)",
    },
    "--model-input-range": {
        "choices": INPUT_RANGES,
        "help": "pixel range that the saved model expects (default: inferred from its first "
        f"layers, else {INPUT_RANGES[0]})",
    },
    "--config": {
        "short": "-c",
        "action": "append",
        "type": find_shipped,
        "default": [],
        "metavar": "FILE",
        "help": "train this configuration (--list shows the shipped ones) without asking; repeat "
        "it to train several and compare",
    },
    "--list": {
        "action": ListShipped,
        "help": "list the shipped configurations, with description, cost and accuracy, and exit",
    },
    "--epochs": number(1, MAX_EPOCHS, f"epochs to train, per phase of a classifier, {INSTEAD}"),
    "--batch-size": number(1, MAX_BATCH_SIZE, f"images per training step {INSTEAD}"),
    "--learning-rate": {"type": float, "metavar": "X", "help": f"rate of the optimizer {INSTEAD}"},
    "--seed": number(0, MAX_SEED, f"seed of all random numbers {INSTEAD}"),
    "--set": {
        "action": "append",
        "default": [],
        "metavar": "KEY=VALUE",
        "help": "another key of the configuration, such as l2=1e-5 or augmentation.rotation=10; "
        "repeatable",
    },
    "--class-weight": {
        "choices": CLASS_WEIGHTS,
        "help": f"weight the loss for classes of unequal size, {INSTEAD}",
    },
    "--mixed-precision": {
        "action": "store_const",
        "const": True,
        "help": "compute in bfloat16, whatever the configuration says",
    },
    "--devices": {
        "type": which_devices,
        "metavar": "WHICH",
        "help": "train one model on several devices: all GPUs of this machine, a number of them, "
        f"or {WORKERS} for those that TF_CONFIG or Slurm names; requires -c or --resume",
    },
    "--limit": number(
        1,
        MAX_IMAGES,
        "use only N training images, drawn by the seed; stratified by class if there are labels",
    ),
    "--init-from": {
        "metavar": "MODEL",
        "help": "start from the weights of this saved model, which has the same layers; "
        "without -c its own configuration is used",
    },
    "--runs-dir": {
        "default": "runs",
        "metavar": "DIR",
        "help": "where runs are recorded (default: runs)",
    },
    "--run-dir": {
        "metavar": "DIR",
        "help": "record the run in exactly this new or empty folder",
    },
    "--name": {"metavar": "NAME", "help": "name of the run (default: the configuration's)"},
    "--resume": {
        "metavar": "RUN",
        "help": "continue this interrupted run, to the same result; requires no other flag",
    },
    "--tensorboard": {
        "nargs": "?",
        "const": "tensorboard",
        "metavar": "DIR",
        "help": "also write curves, figures and hyperparameters for TensorBoard into this folder "
        "(without a value: tensorboard)",
    },
    "--mlflow": {
        "nargs": "?",
        "const": "",
        "metavar": "URI",
        "help": "also record in this MLflow store (without a value: MLFLOW_TRACKING_URI, or "
        "mlflow.db here)",
    },
    "--save": {
        "metavar": "PATH",
        "help": "also save the model here, as .keras or .h5; if several are trained, the best",
    },
    "--overwrite": {
        "action": "store_true",
        "help": "let --save and --show-augmentation replace a file",
    },
    "--print-config": {
        "action": "store_true",
        "help": "print the complete configuration as JSON and stop",
    },
    "--show-augmentation": {
        "nargs": "?",
        "const": "augmentation.png",
        "metavar": "PNG",
        "help": "draw what the configuration makes of training images, and stop (without a "
        "value: augmentation.png)",
    },
    "--no-plots": {"action": "store_true", "help": "draw no figures"},
    "--show": {
        "action": "store_true",
        "help": "open the figures in windows at the end, where there is a display",
    },
}
CHANGES = ("--invert", "--transpose")
IMAGES = ("--image-size", "--color", "--resize", "--test-split", "--class-names")
DATA = ("--dataset", "--labels", "--test", "--test-labels", *CHANGES)
FOREIGN = {"saved models of other programs": ("--encoder-until", "--model-input-range")}
FEW_LABELS = ("--unlabelled", "--labels-per-class")
TRACKING = ("--tensorboard", "--mlflow")
# Those of both training programs, by the headings of --help.
TRAINING = {
    "own images": IMAGES,
    "training": (
        *("--config", "--epochs", "--batch-size", "--learning-rate", "--seed", "--set"),
        *("--mixed-precision", "--devices", "--limit", "--init-from"),
    ),
    "runs": ("--runs-dir", "--run-dir", "--name", "--resume"),
    "tracking": TRACKING,
    "output": (
        *("--save", "--overwrite", "--print-config", "--show-augmentation", "--no-plots", "--show"),
    ),
}


def add(group: argparse._ActionsContainer, *names: str, **changes: Any) -> None:
    """Adds some of `FLAGS`, with changed arguments."""
    for name in names:
        options = FLAGS[name] | changes
        short = options.pop("short", None)
        group.add_argument(*([short] if short else []), name, **options)


def to_words(values: Mapping[str, Any]) -> list[str]:
    """The words of a command line that give these values, by their names in parsed flags."""
    words = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        words.append(FLAGS.get(flag, {}).get("short", flag))
        if value is not True:
            words.append("x".join(map(str, value)) if name == "image_size" else str(value))
    return words


def add_groups(parser: Parser, groups: dict[str, tuple[str, ...]]) -> None:
    """Adds some of `FLAGS` below headings."""
    for title, names in groups.items():
        add(parser.add_argument_group(title), *names)
