"""The errors a person can cause, and the words that name them.

Every one reads ``where: what is required, got what. Remedy.`` A program's `main` prints it on
standard error, one line per problem, and exits with status 2; menus print it and ask again.
"""

import codecs
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

if TYPE_CHECKING:
    from typing import Self

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails


MOST_NEAR = 3  # names that a question offers


class UserError(Exception):
    """Something that the person at the keyboard can correct.

    Args:
        where: The file, flag, key or prompt at fault.
        required: What is required there, e.g. ``must be an idx file``.
        got: What was found instead, if that helps.
        remedy: One imperative sentence with its full stop: what to do about it.
    """

    def __init__(self, where: object, required: str, got: object = None, remedy: str = ""):
        found = "" if got is None else f", got {got}"
        # A file name may hold a line break; an error is one line.
        message = " ".join(readable(f"{where}: {required}{found}. {remedy}").split())
        # A name in an untrusted file may hold control characters, which a terminal would obey.
        super().__init__(
            re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda code: ascii(code[0])[1:-1], message)
        )

    @classmethod
    def joining(cls, problems: Iterable[object]) -> "Self":
        """One error for several problems: their messages, or errors of one line each."""
        error = cls.__new__(cls)
        Exception.__init__(error, "\n".join(map(str, problems)))
        return error

    @classmethod
    def from_validation(
        cls, where: object, invalid: "ValidationError", schema: Any, remedy: str = ""
    ) -> "Self":
        """One error for all that pydantic refuses in the document `where`.

        Args:
            where: What to call the document, such as the name of its file.
            invalid: As raised by pydantic.
            schema: The type that the document was to have.
            remedy: Said after the last problem.
        """
        *problems, last = find_problems(invalid, schema)
        return cls.joining([*(problem.at(where) for problem in problems), last.at(where, remedy)])

    @property
    def lines(self) -> list[str]:
        """The message, one line per problem."""
        return str(self).split("\n")


class UsageError(UserError):
    """A flag, an answer at a prompt, or a destination that cannot be used."""


class DataError(UserError):
    """An image file, a data set or a record that cannot be used."""


class ModelFileError(UserError):
    """A saved model that cannot be used."""


class ConfigurationError(UserError):
    """A configuration that cannot be used."""


# --- Words for people -----------------------------------------------------------------------

Say = Callable[[str], None]  # receives a sentence, to print it or to keep it


def shown(value: Any) -> str:
    """A value as it stands in the file, cut to fit one line."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else text[:59] + "…"


def listed(words: Iterable[str], conjunction: str = "or") -> str:
    """``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def as_sentence(text: str) -> str:
    """The text with a capital first letter; `str.capitalize` would write "Macro f1"."""
    return text[:1].upper() + text[1:]


def counted(number: int, noun: str) -> str:
    """``1 image``, ``2 images``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def nearest(word: str, choices: Iterable[str]) -> list[str]:
    """The choice most like `word`; failing that, some that contain it or are contained in it."""
    by_lower = {choice.lower(): choice for choice in choices}
    word = word.lower()
    near = difflib.get_close_matches(word, by_lower, n=1)
    if not near and word:
        near = [choice for choice in by_lower if word in choice or choice in word][:MOST_NEAR]
    return [by_lower[choice] for choice in near]


def did_you_mean(words: Iterable[str]) -> str:
    """A question that offers the words, if there are any."""
    quoted = [f'"{word}"' for word in words]
    return f"Did you mean {listed(quoted)}?" if quoted else ""


def key_path(location: Iterable[str | int]) -> str:
    """``encoder_layers[2].filters`` for ("encoder_layers", 2, "filters")."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part if part.isidentifier() else shown(part)}"
    return path.removeprefix(".")


def readable(text: str) -> str:
    r"""The text with `\xf6` in place of a byte of a file's name that is not UTF-8.

    Python holds such a byte as half a character, which can be neither written nor drawn.
    """
    return re.sub(r"[\udc80-\udcff]", lambda half: f"\\x{ord(half[0]) - 0xDC00:02x}", text)


def _encode_readable(error: UnicodeError) -> tuple[str, int]:
    letter = error.object[error.start]
    return readable(letter).encode("ascii", "backslashreplace").decode(), error.start + 1


READABLE = "readable"  # of what an encoding cannot hold: as `readable`, or by its number
codecs.register_error(READABLE, _encode_readable)


def printable(text: str) -> str:
    """The text with a question mark in place of every character that a terminal could obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in readable(text))


def parse_whole_number(text: str, low: int, high: int) -> int:
    """Reads a whole number that a person typed, as a flag or an answer.

    Raises:
        ValueError: It is not a whole number in [low, high]; the message says so.
    """
    # Not int() alone: it accepts "1_000", and raises an error of its own on thousands of digits.
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text.strip()) and low <= int(text) <= high:
        return int(text)
    raise ValueError(f"must be a whole number from {low} to {high}, got {shown(text)}")


def parse_number(text: str, low: float, high: float) -> float:
    """Reads a decimal number, as `parse_whole_number` reads a whole one."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if low <= value <= high:
        return value
    raise ValueError(f"must be a number from {low:g} to {high:g}, got {shown(text)}")


# --- Errors of pydantic ---------------------------------------------------------------------

REFUSED = "refused"  # the type of pydantic errors that carry words of ours: required, remedy


class Problem(NamedTuple):
    """A value that a schema refuses; the words are those of a `UserError`."""

    location: tuple[str | int, ...]  # the keys and indices that lead to it; () is the document
    required: str
    got: str
    remedy: str  # may be empty

    @property
    def path(self) -> str:
        """Where the value stands, such as ``encoder_layers[2].filters``."""
        return key_path(self.location)

    def at(self, where: object, remedy: str = "") -> UserError:
        """The problem as an error of the document `where`."""
        place = f"{where}: {self.path}" if self.location else where
        return UserError(place, self.required, self.got, f"{self.remedy} {remedy}")


def find_problems(
    invalid: "ValidationError", schema: Any, other_names: Mapping[str, str] | None = None
) -> list[Problem]:
    """Says in the words of this program what pydantic refuses, in pydantic's order.

    `other_names` are keys that people look for under another name, in lower case -> the name.
    """
    return [_explain(error, schema, other_names or {}) for error in invalid.errors()]


def _explain(error: "ErrorDetails", schema: Any, other_names: Mapping[str, str]) -> Problem:
    *parents, key = error["loc"] or ("",)
    got, context = shown(error["input"]), error.get("ctx", {})
    if error["type"] == "extra_forbidden":
        keys = _fields_at(schema, parents)
        other = other_names.get(key.lower())
        remedy = did_you_mean([other] if other else nearest(key, keys))
        remedy = remedy or f"Remove it; the keys are {', '.join(keys)}."
        return Problem((*_by_name(schema, parents), key), "is not a known key", got, remedy)
    location = tuple(_by_name(schema, error["loc"]))
    if error["type"] == "missing":
        examples = _fields_at(schema, parents)[key].examples
        remedy = f'Add for example "{key}": {shown(examples[0])}.' if examples else ""
        return Problem(location, "is required", "nothing", remedy)
    if error["type"] == REFUSED:
        return Problem(location, context["required"], got, context["remedy"])
    if error["type"] == "json_invalid":
        return Problem(location, "must be JSON", context["error"], "")
    if error["type"] in ("model_type", "dict_type"):
        return Problem(location, "must be an object, {...}", got, "")
    # Pydantic's words begin with what they speak of: "Input should be a valid string".
    words = re.sub(r"^(Value error, |\w+ should )", "", error["msg"])
    words = re.split(" after |, unable ", words)[0].replace("a valid ", "a ").replace("'", '"')
    words = re.sub(r"\ba (?=[aeio])", "an ", words)  # "a valid integer"
    return Problem(location, words if words.startswith("must") else f"must {words}", got, "")


def _by_name(schema: Any, location: Sequence[str | int]) -> Iterator[str | int]:
    """A location of pydantic's with the elements of named tuples by name instead of by number.

    A part in angle brackets is the tag of a union's member; one such as ``<conv:kind,filters>``
    names the elements of the list that follows.
    """
    names: Sequence[str] = ()
    for index, part in enumerate(location):
        if isinstance(part, str) and part.startswith("<"):
            _, colon, fields = part[1:-1].partition(":")
            names = fields.split(",") if colon else ()
        elif names and isinstance(part, int):
            yield names[part]
            names = ()
        else:
            yield part
            field = _fields_at(schema, location[:index]).get(part)
            names = getattr(field.annotation, "_fields", ()) if field else ()


def _fields_at(schema: Any, location: Iterable[str | int]) -> dict[str, "FieldInfo"]:
    """The keys allowed at a location, with their fields."""
    models = _models_in(schema)
    for part in location:
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        if fields:  # otherwise the part is an index, a key of a dict or a tag
            models = [model for field in fields for model in _models_in(field.annotation)]
    return {key: field for model in models for key, field in model.model_fields.items()}


def _models_in(annotation: Any) -> list[Any]:
    """The pydantic models in a type, whatever lists, dicts and unions hold them."""
    if hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]
