"""What the programs print: results on standard output, progress and problems on standard error.

Exit codes: 0 done, 2 an error of the user (one line each on standard error), 130 and 143 stopped
by Ctrl-C and SIGTERM.
"""

import logging
import os
import re
import sys
import tempfile
import textwrap
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cae.errors import UserError, listed, printable

# Names and paths are printed as they are: no markup in [brackets], no :emoji:. Notebooks, too, get
# plain streams, which the logs of trials capture.
PLAIN = {
    "highlight": False, "soft_wrap": True, "markup": False, "emoji": False, "force_jupyter": False
}  # fmt: skip
WIDEST_TABLE = 200  # characters, where no terminal is
LEAST_FOLDED = 12  # characters of a text in a column of a table
PATIENCE = 1  # seconds of silence
OUT = Console(**PLAIN)
ERR = Console(**PLAIN, stderr=True)
BACKENDS = ("tensorflow", "jax")  # of Keras

EXIT_USER_ERROR = 2


def report(error: UserError) -> int:
    """Prints an error, one line per problem; returns the exit code."""
    ERR.quiet = False
    for line in error.lines:
        print_sentence(ERR, f"error: {line}")
    return EXIT_USER_ERROR


def keep_silent() -> None:
    """Prints only errors from here on: another worker prints the rest."""
    OUT.quiet = ERR.quiet = True


def warn(sentence: str) -> None:
    """Prints a warning on standard error."""
    print_sentence(ERR, f"warning: {sentence}", "bold yellow")


def announce(step: str) -> None:
    """Names on standard error a step that is about to take more than a second."""
    ERR.print(Text(f"{printable(step)} …"))


@contextmanager
def announcing(step: str) -> Iterator[None]:
    """Names on standard error what takes longer than a second, once it does."""
    lock, is_over = threading.Lock(), False

    def tell() -> None:
        with lock:
            if not is_over:
                announce(step)

    timer = threading.Timer(PATIENCE, tell)
    timer.daemon = True
    try:
        timer.start()
        yield
    finally:
        timer.cancel()
        with lock:
            is_over = True


def say(sentence: str) -> None:
    """Prints a sentence of the result, with line breaks between words at a terminal."""
    print_sentence(OUT, sentence)


def print_as_is(text: str) -> None:
    """Prints a text of the result without further line breaks: a report, or what can be copied."""
    OUT.print(Text(text))


def print_sentence(console: Console, sentence: str, style: str = "", indent: int = 2) -> None:
    """Prints a sentence, with line breaks between words at a terminal."""
    console.print(Text(fill(console, sentence, indent), style=style))


def fill(console: Console, text: str, indent: int = 2, room: int = 0) -> str:
    """Breaks lines between words where a terminal would break them anywhere; words stay whole.

    Args:
        console: The terminal.
        text: Of one line, indented or not.
        indent: Of all lines but the first.
        room: Columns that stay free.
    """
    words = text.lstrip()
    return textwrap.fill(
        words,
        console.width - room if console.is_terminal else sys.maxsize,
        initial_indent=text[: len(text) - len(words)],
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def print_table(table: Table) -> None:
    """Fits a table to the terminal; in a file it may be wider."""
    console = OUT
    if not console.is_terminal:
        console = Console(**PLAIN, file=console.file, width=WIDEST_TABLE)
    console.print(table, soft_wrap=False)


def print_rows(
    title: str, rows: Sequence[Mapping[str, str]], numeric: Collection[str] = ()
) -> None:
    """Prints rows with the same keys as a table, with the columns `numeric` aligned to the right.

    At a terminal too narrow for it, each row is printed as names with their values.
    """
    if OUT.is_terminal and _get_least_width(rows, numeric) > OUT.width:
        print_sentence(OUT, title, "italic")
        for row in rows:
            (heading, first), *others = ((key, printable(value)) for key, value in row.items())
            show_facts(f"{heading} {first}", dict(others))
        return
    table = Table(title=title, title_justify="left")
    for heading in rows[0] if rows else ():
        look = {"justify": "right", "no_wrap": True} if heading in numeric else {"overflow": "fold"}
        table.add_column(heading, **look)
    for row in rows:
        table.add_row(*map(printable, row.values()))
    print_table(table)


def _get_least_width(rows: Sequence[Mapping[str, str]], numeric: Collection[str]) -> int:
    """The columns of a terminal that a table takes with its numbers whole and texts folded."""
    width = 1
    for heading in rows[0] if rows else ():
        longest = max(map(cell_len, [heading, *(row[heading] for row in rows)]))
        width += 3 + (longest if heading in numeric else min(longest, LEAST_FOLDED))
    return width


def show_facts(title: str, facts: dict[str, Any]) -> None:
    """Prints a title, and names with their values below it."""
    OUT.print(Text(title, style="bold"))
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        longest = max(map(len, str(value).split()), default=0)
        if OUT.is_terminal and width + 4 + longest > OUT.width:  # beside its name it would be cut
            OUT.print(Text(f"  {name}"))
            print_sentence(OUT, f"    {value}", indent=4)
        else:
            print_sentence(OUT, f"  {name:<{width}}  {value}", indent=width + 4)


def get_backend() -> str:
    """The backend of Keras, whether it has been loaded or not."""
    if keras := sys.modules.get("keras"):
        return keras.config.backend()
    return os.environ.get("KERAS_BACKEND") or BACKENDS[0]


@contextmanager
def starting_keras() -> Iterator[None]:
    """Wraps the import of Keras: says that it takes seconds, and hides messages from C++.

    These are written to file descriptor 2 directly, and shown after all if the import fails. The
    settings in `~/.keras/keras.json` do not count: they are those of other programs.

    Raises:
        UserError: KERAS_BACKEND names a backend that is not installed or not supported.
    """
    backend = os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or BACKENDS[0]
    if backend not in BACKENDS or find_spec(backend) is None:
        got = backend if backend not in BACKENDS else f"{backend}, which is not installed"
        raise UserError("KERAS_BACKEND", f"must be {listed(BACKENDS)}", got, "Unset it.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # every machine without CUDA logs errors
    if "keras" not in sys.modules:
        announce("Starting TensorFlow")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
            # TensorFlow warns when one process compiles a function for each of several models.
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
            if keras := sys.modules.get("keras"):
                keras.config.set_floatx("float32")
                keras.config.set_image_data_format("channels_last")
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def drop_common_start(names: Sequence[str]) -> list[str]:
    """Removes the words with which all names begin: what differs is what matters.

    `autoencoder_small` and `autoencoder_large` become `small` and `large`. A number keeps the word
    before it, and a value its key.
    """
    if len(set(names)) < 2:
        return list(names)
    words = [re.split(r"(?<=-)(?!\d)|(?<=_)(?!\d|[^-]*=)", name) for name in names]
    count = min(len(parts) for parts in words) - 1
    while len({tuple(parts[:count]) for parts in words}) > 1:
        count -= 1
    return ["".join(parts[count:]) for parts in words]


def relative(path: str | Path) -> str:
    """A path from the current folder where it lies below it."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (OSError, ValueError):  # the current folder may have been deleted
        return str(path)
