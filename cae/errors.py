"""The errors a person can cause.

Every one reads ``where: what is required, got what. Remedy.`` A program's `main` prints it,
one line a problem, on standard error and exits with 2; nobody else catches them.
"""

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any


class UserError(Exception):
    """Something the person at the keyboard can put right.

    Args:
        where: The file, flag, key or prompt at fault.
        required: What is required there, e.g. ``must be an idx file``.
        got: What was found instead, if that helps.
        remedy: One imperative sentence with its full stop: what to do about it.
    """

    def __init__(self, where: object, required: str, got: object = None, remedy: str = ""):
        found = "" if got is None else f", got {got}"
        # A file name may hold a line break; an error is one line.
        message = " ".join(f"{where}: {required}{found}. {remedy}".split())
        # A name in a stranger's file may hold what a terminal obeys.
        super().__init__(
            re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda code: ascii(code[0])[1:-1], message)
        )

    @property
    def lines(self) -> list[str]:
        """The message, one line a problem."""
        return [str(self)]


class UsageError(UserError):
    """A flag, an answer at a prompt, or a destination that cannot be used."""


class DataError(UserError):
    """An idx file or a named data set that cannot be used."""


class ModelFileError(UserError):
    """A saved model that cannot be used."""


class ConfigurationError(UserError):
    """A configuration with one or more problems, all of them reported together."""

    def __init__(self, problems: list[UserError]):
        Exception.__init__(self, "\n".join(str(problem) for problem in problems))
        self.problems = problems

    @property
    def lines(self) -> list[str]:
        """One line for each problem, in the order of the file."""
        return [str(problem) for problem in self.problems]


# --- Words for people -----------------------------------------------------------------------


def shown(value: Any) -> str:
    """A value as it stands in the file, cut to fit one line."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:59] + "…"


def listed(words: Iterable[str], conjunction: str = "or") -> str:
    """``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """The choice most like `word`; failing that, all that contain it or are contained in it."""
    by_lower = {choice.lower(): choice for choice in choices}
    word = word.lower()
    near = difflib.get_close_matches(word, by_lower, n=1)
    if not near and word:
        near = [choice for choice in by_lower if word in choice or choice in word]
    return [by_lower[choice] for choice in near]


def did_you_mean(words: Iterable[str]) -> str:
    """A question that offers the words, if there are any."""
    quoted = [f'"{word}"' for word in words]
    return f"Did you mean {listed(quoted)}?" if quoted else ""
