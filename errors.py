"""The errors a person can cause.

Every one reads ``where: what is required, got what. Remedy.`` A program's `main` prints it,
one line a problem, on standard error and exits with 2; nobody else catches them.
"""

import re


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
