"""Reading JSON: files that people write, with helpful errors, and records of the programs."""

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cae.errors import ConfigurationError, DataError, UserError, key_path, listed, shown

T = TypeVar("T")
MAX_FILE_BYTES = 1_000_000
MAX_NESTING = 20  # brackets within brackets; a configuration needs 5
# A byte of a file's name that is not UTF-8, which pydantic's own parser refuses.
HALF = re.compile(rb"(?<!\\ud[89ab][0-9a-f]{2})\\udc[89a-f][0-9a-f]")


class _Object(dict):
    """A JSON object that knows which of its keys are repeated."""

    def __init__(self, pairs: list[tuple[str, Any]]):
        super().__init__(pairs)
        self.repeated = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]


def _repeated_keys(value: Any, location: tuple[str | int, ...] = ()) -> Iterator[str]:
    """The paths of all keys that are repeated in an object."""
    if len(location) > MAX_NESTING:
        raise RecursionError
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, _Object):
        yield from (key_path([*location, key]) for key in value.repeated)
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from _repeated_keys(item, (*location, key))


def _parse_int(digits: str) -> int | float:
    # int() raises on thousands of digits; infinity is refused like any number that is too large.
    return int(digits) if len(digits) <= sys.float_info.max_10_exp else float(digits)


def _syntax_remedy(error: json.JSONDecodeError) -> str:
    """The most likely correction of a syntax error."""
    before, after = error.doc[: error.pos].rstrip(), error.doc[error.pos :].lstrip()
    # Python 3.13 points at the trailing comma, earlier versions at the bracket after it.
    if re.match(r",\s*[]}]", after) or (before.endswith(",") and after[:1] in ("]", "}")):
        return "Remove the comma before the closing bracket."
    if not after:
        return "The file ends too early: close all its brackets."
    if after.startswith("'"):
        return "Use double quotes."
    if after.startswith(("//", "/*", "#")):
        return "Remove the comment: JSON has none."
    if re.match("True|False|None", after):
        return "Write true, false or null."
    if error.msg.startswith("Invalid \\"):
        return 'Write backslashes twice, or "/" in paths.'
    if error.msg == "Extra data":
        return "Remove what follows the object."
    return "Look for a missing comma, quote or bracket here."


def parse_json(text: str, where: object, validate: Callable[[Any], T]) -> T:
    """Reads JSON text, and returns what `validate` makes of the document.

    Raises:
        ConfigurationError: It is not JSON; or with a line per repeated key and those of `validate`.
    """
    if not text.strip():
        raise ConfigurationError(
            where, "must be a JSON object", "an empty file", "Copy one from configuration/."
        )
    try:
        document = json.loads(text, object_pairs_hook=_Object, parse_int=_parse_int)
        problems: list[UserError] = [
            UserError(
                f"{where}: {path}", "must occur once in its object", "the key twice", "Remove one."
            )
            for path in _repeated_keys(document)
        ]
        json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        escape = f"\\u{ord(error.object[error.start]):x}, which is half a character"
        raise ConfigurationError(
            where, "must be valid Unicode", escape, "Write the character itself."
        ) from error
    except json.JSONDecodeError as error:
        place = f"{where}: line {error.lineno}, column {error.colno}"
        found = text[error.pos :].partition("\n")[0]
        got = shown(found) if found else "the end of the line"
        raise ConfigurationError(place, "must be JSON", got, _syntax_remedy(error)) from error
    except RecursionError as error:
        required = f"must be nested at most {MAX_NESTING} deep"
        raise ConfigurationError(where, required, "deeper brackets", "Remove brackets.") from error
    try:
        result = validate(document)
    except ConfigurationError as error:
        problems.append(error)
    if problems:
        raise ConfigurationError.joining(problems)
    return result


def read_text(path: str | Path) -> str:
    """Reads a file of JSON that a person wrote; a `ConfigurationError` says why it cannot."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)  # not all of it: it may be /dev/zero
    except OSError as error:
        got = "a folder" if path.is_dir() else error.strerror
        raise ConfigurationError(
            path, "must be a configuration file", got, _suggest_file(path)
        ) from error
    except ValueError as error:  # a null character in the name
        raise ConfigurationError(shown(str(path)), "must be the name of a file", error) from error
    if len(data) > MAX_FILE_BYTES:
        size = max(len(data), path.stat().st_size)  # that of a device is 0
        required, got = f"must be at most {MAX_FILE_BYTES} bytes", f"at least {size}"
        raise ConfigurationError(path, required, got, "Name another file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ConfigurationError(
            path, "must be text in UTF-8", byte, "Save it as UTF-8."
        ) from error


def _suggest_file(path: Path) -> str:
    if path.is_dir():
        return "Name a file in it."
    if not path.parent.is_dir():
        return f"Check the path: there is no folder {path.parent}."
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:  # a folder that may be entered but not listed
        names = []
    near = [str(path.parent / name) for name in get_close_matches(path.name, names)]
    return f"Did you mean {listed(near)}?" if near else "Check the path."


def load_record(path: Path, schema: type[T], remedy: str = "Restore the file and run again.") -> T:
    """Reads a JSON file that one of the programs wrote.

    Args:
        path: The file.
        schema: A type that pydantic can validate.
        remedy: What to do about a file that is missing or damaged.

    Raises:
        DataError: With every problem of the file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, "must be readable", error.strerror, remedy) from error
    try:
        if HALF.search(content):
            with suppress(ValueError, RecursionError):
                return TypeAdapter(schema).validate_python(json.loads(content), strict=False)
        return TypeAdapter(schema).validate_json(content)
    except ValidationError as error:
        raise DataError.from_validation(path, error, schema, remedy) from error
