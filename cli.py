"""What the programs share: their flags, their exit codes, and how they talk.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 done, 2 a
person's error (one line each on standard error), 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import argparse
import difflib
import io
import logging
import os
import re
import reprlib
import shlex
import signal
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from errors import UsageError, UserError
from history import History
from hyperparameters import MAX_BATCH_SIZE, MAX_EPOCHS, MAX_SEED, Config, dump_config
from shapes import format_shape
from workers import CLUSTER

if TYPE_CHECKING:
    import keras
    import numpy as np

# Names and paths are printed as they are: no markup in [brackets], no :emoji:. In notebooks as well
# everything goes to the streams, where the logs of trials take it from.
PLAIN = {
    "highlight": False, "soft_wrap": True, "markup": False, "emoji": False, "force_jupyter": False
}  # fmt: skip
WIDEST_TABLE = 200  # characters, where no terminal is
OUT = Console(**PLAIN)
ERR = Console(**PLAIN, stderr=True)

EXIT_USER_ERROR = 2
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


def run(program: Callable[[Any], int], parser: Parser, argv: list[str] | None) -> int:
    """Runs a program and turns what a person can cause into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not every terminal or log file can hold every character of a file's name.
            stream.reconfigure(errors="backslashreplace")
    try:
        return program(parser.parse_args(argv))
    except UserError as error:
        return report(error)
    except KeyboardInterrupt as stop:
        ERR.print("stopped")
        return stop.exit_code if isinstance(stop, SecondSignal) else 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output has gone; do not complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, MemoryError) as error:
        return report(_explain_system_error(error))


def _explain_system_error(error: OSError | MemoryError) -> UserError:
    """What to say of a fault of the machine that nothing else has foreseen."""
    if isinstance(error, MemoryError):
        return UserError(
            "memory", "must hold the images and a batch", "none left", "Use --limit, or more of it."
        )
    try:
        sys.stdout.flush()
    except OSError:
        # Do not complain again at exit of what could not be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UserError(
        error.filename or "the working folder, the output or a temporary file",
        "must be readable and writable",
        error.strerror or error,
        "Check the disk, the folder and its permissions.",
    )


def report(error: UserError) -> int:
    """Prints an error, a line for each problem; returns the exit code."""
    ERR.quiet = False
    for line in error.lines:
        ERR.print(Text(f"error: {line}"))
    return EXIT_USER_ERROR


class SecondSignal(KeyboardInterrupt):
    """A signal while the first one is being answered.

    Args:
        exit_code: What the first one asked for.
    """

    def __init__(self, exit_code: int):
        super().__init__()
        self.exit_code = exit_code


class StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a request, the second into a stop.

    Use as a context manager around training and saving. In a thread it does nothing: signals are
    for the main thread of a process.

    Attributes:
        exit_code: 0, or 130 or 143 once a signal came.
    """

    def __init__(self) -> None:
        self.exit_code = 0

    def requested(self) -> bool:
        """Whether training should end after the current step."""
        return self.exit_code != 0

    def __enter__(self) -> "StopSignal":
        is_main = threading.current_thread() is threading.main_thread()
        self._previous = {
            number: signal.signal(number, self._handle)
            for number in ((signal.SIGINT, signal.SIGTERM) if is_main else ())
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: Any) -> None:
        if self.requested():
            raise SecondSignal(self.exit_code)
        self.exit_code = 128 + number
        warn("Stopping after this step to be resumed later; Ctrl-C again to stop at once.")


def keep_silent() -> None:
    """Prints nothing from here on but errors: another worker says the rest."""
    OUT.quiet = ERR.quiet = True


def warn(sentence: str) -> None:
    """Says on standard error what deserves attention."""
    ERR.print(Text(f"warning: {sentence}", style="bold yellow"))


def say(sentence: str) -> None:
    """Prints a plain line of the result."""
    OUT.print(Text(sentence))


def print_table(table: Table) -> None:
    """Fits a table to the terminal; in a file it may be as wide as it is."""
    console = OUT
    if not console.is_terminal:
        console = Console(**PLAIN, file=console.file, width=WIDEST_TABLE)
    console.print(table, soft_wrap=False)


def show_facts(title: str, facts: dict[str, Any]) -> None:
    """Prints names and values below a title, one a line; values are never wrapped or cut."""
    OUT.print(Text(title, style="bold"))
    width = max(map(len, facts))
    for name, value in facts.items():
        OUT.print(Text(f"  {name:<{width}}  {value}"))


@contextmanager
def starting_keras() -> Iterator[None]:
    """Wraps the import of Keras: says that it takes seconds, and hides C++ start-up messages.

    They are written straight to file descriptor 2, and shown after all if the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # every machine without CUDA logs errors
    if "keras" not in sys.modules:
        ERR.print("Starting TensorFlow …")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            # One process trains several models, each with functions of its own; it warns of that.
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def describe_images(images: "np.ndarray", training: "np.ndarray", validation: "np.ndarray") -> str:
    """Number, shape and dtype of the images, and how they are divided."""
    count, *shape = images.shape
    return (
        f"{count:,} of {format_shape(shape)}, {images.dtype}: "
        f"{len(training):,} for training, {len(validation):,} for validation"
    )


def describe_parameters(model: "keras.Model") -> str:
    """Parameters of a model and of its parts."""
    parts = [f"{part.name} {part.count_params():,}" for part in model.layers if part.weights]
    return f"{model.count_params():,} ({', '.join(parts)})"


def describe_hyperparameters(config: Config) -> str:
    """How a model will be trained, in a line."""
    values = config.model_dump(mode="json")
    optimizer = " ".join(map(str, values["optimizer"]))
    epochs = {key: value for key, value in values.items() if key.endswith("epochs")}
    listed = {**epochs, "batch_size": values["batch_size"], "seed": values["seed"]}
    if "loss" in values:
        listed["loss"] = values["loss"]
    if config.mixed_precision:
        optimizer += " in bfloat16"
    return f"{optimizer}, " + ", ".join(f"{key} {value}" for key, value in listed.items())


def describe_result(history: History) -> str:
    """The final values that matter most, in a line."""
    shown = ["loss", "val_loss", "mse", "val_mse"]
    if history.kind == "classifier":
        shown = ["accuracy", "val_accuracy", "val_f1", "test_accuracy", "test_macro_f1"]
    values = history.metrics
    return ", ".join(f"{key} {values[key]:.4f}" for key in shown if key in values)


def print_configs(configs: list[tuple[str, Config]]) -> int:
    """Prints complete configurations as JSON; returns the exit code."""
    if not configs:
        raise UsageError(
            "--print-config", "needs a configuration", "none", "Give one with -c FILE."
        )
    for _, config in configs:
        sys.stdout.write(dump_config(config))
    return 0


def show_windows(figures: Iterable[Any]) -> None:
    """Opens the figures in windows where there is a display, and waits until they are closed."""
    import matplotlib.pyplot as plt
    from matplotlib.backends import BackendFilter, backend_registry

    interactive = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    if plt.get_backend().lower() in (name.lower() for name in interactive):
        say("Close the windows to go on.")
        plt.show()
    close(figures)


def close(figures: Iterable[Any]) -> None:
    """Frees the memory of figures."""
    import matplotlib.pyplot as plt

    for figure in figures:
        plt.close(figure)


def relative(path: str | Path) -> str:
    """A path as short as it can be said from here."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):  # the working directory may have been deleted
        return str(path)
