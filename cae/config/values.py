"""Types of the values in JSON files, each of which says in plain words what it accepts."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from cae.config.choices import MAX_SEED
from cae.errors import REFUSED, did_you_mean, listed, nearest


def refusal(required: str, remedy: str = "") -> PydanticCustomError:
    """The error of a validator: what is required, and what to do about it."""
    return PydanticCustomError(REFUSED, REFUSED, {"required": required, "remedy": remedy})


def worded(required: str, remedy: Callable[[Any], str] = lambda _: "") -> WrapValidator:
    """Replaces whatever pydantic says about a refused value by one message."""

    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise refusal(required, remedy(value)) from None

    return WrapValidator(validate)


def check(test: Callable[[Any], bool], required: str, remedy: str = "") -> BeforeValidator:
    """Refuses a value as a whole, before pydantic looks at its parts."""

    def validate(value: Any) -> Any:
        if not test(value):
            raise refusal(required, remedy)
        return value

    return BeforeValidator(validate)


def suggest_number(value: Any) -> str:
    """The remedy for a value that is not a number."""
    if isinstance(value, bool):
        return "true and false are not numbers: write a number."
    return "Write a number, without quotes." if isinstance(value, str) else ""


def suggest_integer(value: Any) -> str:
    """The remedy for a value that is not a whole number."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SEED:
        return f"Write {int(value)}, without the decimal point."
    return suggest_number(value)


def integer_type(low: int, high: int) -> Any:
    """The type of a whole number in [low, high]."""
    required = f"must be a whole number from {low} to {high}"
    return Annotated[int, Field(ge=low, le=high), worded(required, suggest_integer)]


def number_type(words: str, **bounds: float) -> Any:
    """The type of a finite number within `bounds`, which `words` describe."""
    field = Field(allow_inf_nan=False, **bounds)
    return Annotated[float, field, worded(f"must be a number {words}", suggest_number)]


# A number that stays what it is in JSON, whole or not.
Number = Annotated[int | float, worded("must be a number", suggest_number)]


def size_type(high: int) -> Any:
    """The type of ``[height, width]`` in pixels, each in [1, high]."""

    def suggest(value: Any) -> str:
        return f"Write [{value}, {value}]." if type(value) is int else ""

    side = Annotated[int, Field(ge=1, le=high)]
    required = f"must be [height, width], two whole numbers from 1 to {high}"
    return Annotated[tuple[side, side], worded(required, suggest)]


def choice_type(names: Iterable[str]) -> Any:
    """The type of one of `names`, accepted in any case and kept as spelled here."""
    names = tuple(names)
    by_lower = {name.lower(): name for name in names}

    def canonical(value: Any) -> str:
        text = value if isinstance(value, str) else ""
        if text.lower() in by_lower:
            return by_lower[text.lower()]
        quoted = [f'"{name}"' for name in names]
        raise refusal(f"must be {listed(quoted)}", did_you_mean(nearest(text, names)))

    # JSON Schema knows "any case" only as a pattern; editors complete from the list.
    letters = (
        "".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in name) for name in by_lower
    )
    schema = {
        "type": "string",
        "anyOf": [{"enum": list(names)}, {"pattern": f"^({'|'.join(letters)})$"}],
    }
    return Annotated[Literal[names], BeforeValidator(canonical), WithJsonSchema(schema)]
