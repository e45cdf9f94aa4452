"""Questions at the terminal: ask, explain a wrong answer, ask again.

A parser turns what was typed into a value, or raises `ValueError` with one sentence that says
what is allowed, or a `UserError`. The end of the input is an error, never a loop.
"""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from cae.errors import UsageError, UserError

T = TypeVar("T")


class InputEnded(UsageError):
    """There is nobody left to ask, so no question can be asked again."""


def ask(console: Console, question: str, parse: Callable[[str], T], default: Any = None) -> T:
    """Asks until `parse` accepts the answer.

    Args:
        console: Where to ask.
        question: Without a colon, which is added.
        parse: Turns the stripped answer into a value, or raises ValueError or UserError.
        default: What Enter alone means; shown in brackets. None makes an answer necessary.

    Raises:
        InputEnded: The input ended.
    """
    shown = "" if default is None else f" [{default}]"
    while True:
        try:
            answer = console.input(Text(f"{question}{shown}: ", style="bold")).strip()
            if not answer and default is not None:
                answer = str(default)
            return parse(answer)
        except EOFError as error:
            console.print()
            raise InputEnded(
                "standard input",
                f"an answer is required to '{question.strip()}'",
                "the end of the input",
                "Answer at a terminal, or give -c FILE to run without questions.",
            ) from error
        except (ValueError, UserError) as error:  # ValueError also of input that is not UTF-8
            for line in error.lines if isinstance(error, UserError) else [error]:
                console.print(Text(f"  {line}", style="red"))


def choose(console: Console, question: str, choices: Sequence[str], default: int | None = 1) -> int:
    """Shows a numbered list and asks for one of its numbers, counted from 1."""
    for number, choice in enumerate(choices, 1):
        console.print(Text(f"  {number}  {choice}"))
    return ask(console, question, whole_number(1, len(choices)), default)


def confirm(console: Console, question: str, default: bool) -> bool:
    """Asks a question with the answers yes and no."""
    return ask(console, f"{question} (y/n)", yes_or_no, "y" if default else "n")


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """Parses an integer from `low` to `high`."""

    def parse(answer: str) -> int:
        try:
            value = int(answer)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise ValueError(f"Give a whole number from {low} to {high}, not {answer!r}.")
        return value

    return parse


def number(low: float, high: float) -> Callable[[str], float]:
    """Parses a decimal number greater than or equal to `low` and at most `high`."""

    def parse(answer: str) -> float:
        try:
            value = float(answer)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ValueError(f"Give a number from {low:g} to {high:g}, not {answer!r}.")
        return value

    return parse


def pair(low: int, high: int) -> Callable[[str], tuple[int, int]]:
    """Parses `3`, `3,3`, `3 3`, `3x3` or `[3,3]` into (height, width)."""

    def parse(answer: str) -> tuple[int, int]:
        parts = re.split(r"[\s,x×]+", answer.strip("[]() ").lower())
        try:
            values = [int(part) for part in parts]
        except ValueError:
            values = []
        if len(values) not in (1, 2) or not all(low <= value <= high for value in values):
            raise ValueError(
                f"Give height and width from {low} to {high}, for example 3,3, not {answer!r}."
            )
        return values[0], values[-1]

    return parse


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Parses one of the names, in any case."""

    def parse(answer: str) -> str:
        for name in names:
            if answer.lower() == name.lower():
                return name
        raise ValueError(f"Give one of {', '.join(names)}, not {answer!r}.")

    return parse


def yes_or_no(answer: str) -> bool:
    """Parses y, yes, n or no, in any case."""
    if answer.lower() in ("y", "yes"):
        return True
    if answer.lower() in ("n", "no"):
        return False
    raise ValueError(f"Answer y or n, not {answer!r}.")


def file_name(check: Callable[[str], T]) -> Callable[[str], T]:
    """Parses the name of a file with `check`; `~` means home, as in a shell."""

    def parse(answer: str) -> T:
        if not answer:
            raise ValueError("Give the name of a file.")
        # Path.expanduser raises for a home that does not exist.
        return check(os.path.expanduser(answer))  # noqa: PTH111

    return parse


def new_file(name: str) -> Path:
    """Checks the name of a file that does not exist yet, in a folder that does."""
    path = Path(name)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file.")
    if path.exists():
        raise ValueError(f"{path} exists and is not replaced; give another name.")
    if not path.parent.is_dir():
        raise ValueError(f"There is no folder {path.parent}; give a name in one that exists.")
    return path
