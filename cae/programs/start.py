"""One start of a program: exit codes, signals, and errors in one line."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from cae.errors import UserError
from cae.programs.flags import Parser
from cae.terminal import ERR, report, warn


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
