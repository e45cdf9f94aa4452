"""One start of a program: exit codes, signals, and errors in one line."""

import importlib
import io
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cae.config.shipped import PROJECT
from cae.errors import READABLE, UserError
from cae.programs.flags import Parser

# Installed by pyproject.toml.
COMMANDS = {
    "autoencoder.py": "cae-autoencoder",
    "classification.py": "cae-classify",
    "predict.py": "cae-predict",
    "experiments.py": "cae-experiments",
}


def run(program: Callable[[Any], int], parser: Parser, argv: list[str] | None) -> int:
    """Runs a program; errors that a person can cause become one line each and an exit code."""
    # Names of files need not be UTF-8, and some terminals and logs cannot show every character.
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, READABLE),
        (sys.stderr, READABLE),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    try:
        return program(parser.parse_args(argv))
    except UserError as error:
        return _report(error)
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return stop.args[0] if isinstance(stop, SecondSignal) else 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of the output has gone; Python must not complain of it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, MemoryError) as error:
        return _report(_explain_system_error(error))


def call_action(args: Any) -> int:
    """Calls the `module:function` of a command, which loads only now."""
    module, _, function = args.action.partition(":")
    return getattr(importlib.import_module(module), function)(args)


def _report(error: UserError) -> int:
    from cae.terminal import report  # rich takes longer to load than all else that --help needs

    return report(error)


def _explain_system_error(error: OSError | MemoryError) -> UserError:
    """Explains a fault of the machine that no other code expects."""
    if isinstance(error, MemoryError):
        remedy = "Use fewer images (in training: --limit) or a smaller --batch-size."
        return UserError("memory", "must be large enough for images and a batch", None, remedy)
    try:
        sys.stdout.flush()
    except OSError:
        # Python must not complain at exit of what could not be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return UserError(
        error.filename or "the working folder, the output or a temporary file",
        "must be readable and writable",
        error.strerror or error,
        "Check the disk, the folder and its permissions.",
    )


def name_command(program: str) -> list[str]:
    """How to call a program: by its installed command if this start was called so."""
    is_installed = Path(sys.argv[0]).name in COMMANDS.values()
    return [COMMANDS.get(program, program)] if is_installed else ["python", program]


def find_command(program: str) -> list[str]:
    """How to call a program from the current folder."""
    from cae.terminal import relative

    *python, name = name_command(program)
    return [*python, relative(PROJECT / name) if python else name]


def repeat_command(command: str, name: Callable[[str], list[str]] = name_command) -> str:
    """How to type a recorded command line, such as `experiments.py run x.json`, again."""
    program, space, arguments = command.partition(" ")
    return f"{shlex.join(name(program))}{space}{arguments}"


class SecondSignal(KeyboardInterrupt):
    """A second signal, with the exit code of the first, which has not ended the program yet."""


class StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a request, and the second into `SecondSignal`.

    Use as a context manager around training and saving. In a thread it does nothing: signals reach
    the main thread of a process only.

    Attributes:
        exit_code: 0, or 130 or 143 once a signal has come.
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
        from cae.terminal import warn

        warn("Stopping after this step; the run can be resumed. Press Ctrl-C again to quit now.")
