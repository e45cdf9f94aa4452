"""Questions at the terminal: ask, explain what is wrong with an answer, ask again.

A parser turns the answer into a value. It refuses one by a `ValueError` that reads ``must be …``,
or by a `UserError`. The end of the input is never a loop: at a terminal, where it is Ctrl-D, it
ends the program, elsewhere it is an error. Lines can be edited and called back with the arrow keys,
and Tab completes names of files. The answers `back`, or Ctrl-C, and `?` are understood everywhere.
"""

import glob
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.prompt import InvalidResponse, PromptBase
from rich.text import Text

from cae.errors import (
    UsageError,
    UserError,
    as_sentence,
    listed,
    parse_number,
    parse_whole_number,
    shown,
)
from cae.terminal import OUT, fill, print_sentence

T = TypeVar("T")
ROOM = 10  # columns for an answer
ENTER_HELP = "Enter accepts the answer in brackets."
HELP = "back returns to the previous question, Ctrl-D ends the program."


class InputEnded(UsageError):
    """Standard input has ended, so asking again is useless."""


class Left(SystemExit):
    """The answer is Ctrl-D at a terminal: the program ends with exit code 0.

    At a menu it is Exit.
    """


class Back(KeyboardInterrupt):
    """The answer is to go back: to the question before, or to the menu.

    Where nobody catches it, it ends the program like any Ctrl-C.

    Attributes:
        is_typed: Whether the answer was `back`, and not Ctrl-C.
    """

    def __init__(self, is_typed: bool):
        super().__init__()
        self.is_typed = is_typed


class _Prompt(PromptBase[Any]):
    def __init__(self, question: str, parse: Callable[[str], Any], default: str, help: str):
        super().__init__(Text(question, style="bold"), console=OUT)
        self._parse = parse
        self._default = default
        self._help = help

    @classmethod
    def get_input(cls, console: Any, prompt: Any, password: bool, stream: Any = None) -> str:
        """Reads a line that readline can edit: it has to know the width of the prompt."""
        if not (sys.stdin and sys.stdin.isatty()):
            return super().get_input(console, prompt, password, stream)
        console.file.flush()
        question = str(prompt)
        indent = len(question) - len(question.lstrip()) + 2
        *above, line = fill(console, question, indent, room=ROOM).splitlines()
        for start in above:
            console.print(Text(start, style="bold"))
        # Between \1 and \2: codes that take no room on the terminal.
        bold, plain = ("", "") if console.is_dumb_terminal else ("\1\x1b[1m\2", "\1\x1b[0m\2")
        try:
            return input(f"{bold}{line} {plain}")
        except KeyboardInterrupt:
            console.print()
            raise Back(is_typed=False) from None

    def process_response(self, value: str) -> Any:
        answer = value.strip()
        if answer == "back":
            raise Back(is_typed=True)
        if answer == "?":
            raise InvalidResponse(self._help)
        try:
            return self._parse(answer or self._default)
        except UserError as error:
            lines = error.lines
        except ValueError as error:
            lines = [f"{as_sentence(str(error))}."]
        raise InvalidResponse("\n".join(lines))

    def on_validate_error(self, value: str, error: InvalidResponse) -> None:
        for line in str(error.message).splitlines():
            print_sentence(OUT, f"  {line}", "" if value.strip() == "?" else "red")


def ask(question: str, parse: Callable[[str], T], default: Any = None, help: str = "") -> T:
    """Asks until `parse` accepts the stripped answer; `?` shows `help`.

    Enter stands for `default`, which is shown in brackets; None requires an answer.

    Raises:
        Back: The answer is `back`, or Ctrl-C at a terminal.
        Left: The answer is Ctrl-D at a terminal.
        InputEnded: The input ended elsewhere.
    """
    if isinstance(default, tuple | list):
        default = ",".join(map(str, default))
    bracketed = "" if default is None else f" [{default}]"
    enter = "" if default is None else ENTER_HELP
    help = "\n".join(filter(None, (help, enter, HELP)))
    _use_readline()
    try:
        return _Prompt(question + bracketed, parse, "" if default is None else str(default), help)()
    except EOFError as error:
        OUT.print()
        if sys.stdin.isatty():
            OUT.print("Program ended.")
            raise Left from None
        raise InputEnded(
            "standard input",
            f"an answer is required to '{question.strip()}'",
            "the end of the input",
            "Answer at a terminal, or give -c FILE to run without questions.",
        ) from error


def ask_in_turn(questions: Sequence[Callable[[], Any]]) -> list[Any]:
    """The answers to several questions; `back` returns to the one before.

    Raises:
        Back: At the first of them.
    """
    answers: list[Any] = []
    while len(answers) < len(questions):
        try:
            answers.append(questions[len(answers)]())
        except Back:
            if not answers:
                raise
            answers.pop()
    return answers


def _use_readline() -> None:
    """Completes names of files; Python's `input` does the rest once readline is loaded."""
    try:
        import readline
    except ImportError:  # Windows
        return
    readline.set_completer(_complete)
    readline.set_completer_delims("")  # names of files may hold spaces
    is_libedit = "libedit" in (readline.__doc__ or "")  # macOS
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


def _complete(text: str, state: int) -> str | None:
    """The file number `state` whose name begins with `text`; folders end in a slash."""
    found = sorted(glob.glob(glob.escape(os.path.expanduser(text)) + "*"))  # noqa: PTH111, PTH207
    names = [f"{name}/" if os.path.isdir(name) else name for name in found]  # noqa: PTH112
    return names[state] if state < len(names) else None


def choose(question: str, choices: Iterable[str], default: int | None = 1) -> int:
    """Shows a numbered list and asks for one of its numbers, counted from 1."""
    count = 0
    for count, choice in enumerate(choices, 1):
        print_sentence(OUT, f"  {count}  {choice}", indent=5)
    return ask(question, whole_number(1, count), default, "Type a number from the list.")


def ask_file(
    question: str, parse: Callable[[str], T], offered: Sequence[str], default: str | None = None
) -> T:
    """Asks for a file: one of those offered, by its number, or any other by its name.

    Enter stands for `default`, or else for the first one offered.

    Raises:
        Back: The answer is to go back.
    """
    for number, name in enumerate(offered, 1):
        OUT.print(Text(f"  {number}  {name}"))

    def by_number(answer: str) -> T:
        if not offered or not answer.isdecimal():
            return parse(answer)
        if int(answer) > len(offered) and Path(answer).exists():
            return parse(answer)
        return parse(offered[parse_whole_number(answer, 1, len(offered)) - 1])

    help = "Type a number from the list, or the name of a file."
    if default in offered:
        default = str(offered.index(default) + 1)
    return ask(question, file_name(by_number), default or ("1" if offered else None), help)


def confirm(question: str, default: bool) -> bool:
    """Asks a question that is answered by yes or no."""
    answer = ask(f"{question} (y/n)", one_of(["y", "n", "yes", "no"]), "y" if default else "n")
    return answer.startswith("y")


# --- Parsers --------------------------------------------------------------------------------


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Parses an integer in [low, high]."""
    return lambda answer: parse_whole_number(answer, low, high)


def number(low: float, high: float) -> Callable[[str], float]:
    """Parses a decimal number in [low, high]."""
    return lambda answer: parse_number(answer, low, high)


def pair(low: int, high: int) -> Callable[[str], tuple[int, int]]:
    """Parses `3`, `3,3`, `3 3`, `3x3` or `[3,3]` into (height, width)."""

    def parse(answer: str) -> tuple[int, int]:
        parts = re.split(r"[\s,x×]+", answer.strip("[]() ").lower())
        parts *= 2 if len(parts) == 1 else 1
        try:
            height, width = (parse_whole_number(part, low, high) for part in parts)
        except ValueError:
            raise ValueError(
                f"must be height,width from {low} to {high}, such as 3,3, got {shown(answer)}"
            ) from None
        return height, width

    return parse


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Parses one of the names, in any case."""
    by_lower = {name.lower(): name for name in names}

    def parse(answer: str) -> str:
        if answer.lower() not in by_lower:
            raise ValueError(f"must be {listed(names)}, got {shown(answer)}")
        return by_lower[answer.lower()]

    return parse


def file_name(check: Callable[[str], T]) -> Callable[[str], T]:
    """Parses the name of a file with `check`; `~` means home, as in a shell."""

    def parse(answer: str) -> T:
        if not answer:
            raise ValueError("must be the name of a file, got nothing")
        # Path.expanduser raises for a home that does not exist.
        return check(os.path.expanduser(answer))  # noqa: PTH111

    return parse
