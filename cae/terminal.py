"""What the programs share: their flags, their exit codes, and how they talk.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 done, 2 a
person's error (one line each on standard error), 130 and 143 stopped by Ctrl-C and SIGTERM.
"""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cae.errors import UserError

# Names and paths are printed as they are: no markup in [brackets], no :emoji:. In notebooks as well
# everything goes to the streams, where the logs of trials take it from.
PLAIN = {
    "highlight": False, "soft_wrap": True, "markup": False, "emoji": False, "force_jupyter": False
}  # fmt: skip
WIDEST_TABLE = 200  # characters, where no terminal is
OUT = Console(**PLAIN)
ERR = Console(**PLAIN, stderr=True)

EXIT_USER_ERROR = 2


def report(error: UserError) -> int:
    """Prints an error, a line for each problem; returns the exit code."""
    ERR.quiet = False
    for line in error.lines:
        ERR.print(Text(f"error: {line}"))
    return EXIT_USER_ERROR


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


def relative(path: str | Path) -> str:
    """A path as short as it can be said from here."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):  # the working directory may have been deleted
        return str(path)
