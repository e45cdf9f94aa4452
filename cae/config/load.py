"""Reads and validates configurations; all problems of a file are reported together."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cae.config.fields import FORM_FIELDS, Augmentation
from cae.config.json_text import fail, key_path, parse_json, read_text
from cae.config.schema import (
    CONFIGS,
    OTHER_NAMES,
    PHASE_KEYS,
    PROGRAMS,
    BaseConfig,
    ClassifierConfig,
    Config,
    Kind,
)
from cae.errors import ConfigurationError, UserError, did_you_mean, nearest, shown

# --- Validation -----------------------------------------------------------------------------


def _tuples(value: Any) -> Any:
    """Lists as tuples, all the way down: pydantic's strict mode takes nothing else for a tuple."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _field_names(location: tuple[str | int, ...]) -> Iterator[str | int]:
    """A location of pydantic's without tags, elements of a form by name instead of number."""
    previous = None
    for part in location:
        if isinstance(part, int) and previous in FORM_FIELDS:
            yield FORM_FIELDS[previous][part]
        elif not str(part).startswith("<"):
            yield part
        previous = part


class _Problem(NamedTuple):
    """A refused value: `path` in the document, and the rest as in `UserError`."""

    path: str
    required: str
    got: str
    remedy: str


def _unknown_key(config: type[BaseConfig], error: ErrorDetails) -> _Problem:
    *parents, key = error["loc"]
    keys = Augmentation.model_fields if parents else config.model_fields
    near = [OTHER_NAMES[key.lower()]] if key.lower() in OTHER_NAMES else nearest(key, keys)
    remedy = did_you_mean(near) or f"Remove it; the keys are {', '.join(keys)}."
    return _Problem(
        key_path(error["loc"]), "is not a key that exists here", shown(error["input"]), remedy
    )


def _problem(config: type[BaseConfig], error: ErrorDetails) -> _Problem:
    """What one of pydantic's errors means to people."""
    if error["type"] == "extra_forbidden":
        return _unknown_key(config, error)
    path = key_path(_field_names(error["loc"]))
    if error["type"] == "missing":
        example = shown(config.model_fields[path].examples[0])
        return _Problem(path, "is required", "nothing", f'Add for example "{path}": {example}.')
    refusal = error["ctx"]  # every other message is one of ours
    return _Problem(path, refusal["required"], shown(error["input"]), refusal["remedy"])


def _check_kind(document: dict[str, Any], where: str, kind: Kind) -> None:
    """Refuses a configuration that is plainly meant for the other program."""
    (other,) = CONFIGS.keys() - {kind}
    own_keys, other_keys = set(CONFIGS[kind].model_fields), set(CONFIGS[other].model_fields)
    if document.keys() & (other_keys - own_keys) and not document.keys() & (own_keys - other_keys):
        fail(
            where,
            f"must be a configuration for {PROGRAMS[kind]}",
            f"one for {PROGRAMS[other]}",
            f"Give it to {PROGRAMS[other]}.",
        )


def _object(value: Any, where: str) -> dict[str, Any]:
    """A JSON object without its ``$schema``."""
    if not isinstance(value, dict):
        fail(where, "must be an object, {...}", shown(value))
    return {key: item for key, item in value.items() if key != "$schema"}


def _unwrap(document: Any, where: str) -> dict[str, Any]:
    """The hyperparameters without ``model_info`` around them."""
    keys = _object(document, where)
    if "model_info" not in keys:
        return keys
    inner = keys.pop("model_info")
    if keys:
        beside = ", ".join(map(shown, keys))
        fail(where, "must have no keys beside model_info", beside, "Move them into model_info.")
    return _object(inner, f"{where}: model_info")


def validate_config(document: dict[str, Any], where: str, kind: Kind) -> Config:
    """Validates hyperparameters given as a dict.

    Args:
        document: As in the JSON file, bare or wrapped; lists may be tuples.
        where: What to call the document in errors, such as the name of its file.
        kind: What it must configure.

    Raises:
        ConfigurationError: With every problem, in the order of the document.
    """
    values = _tuples(_unwrap(document, where))
    _check_kind(values, where, kind)
    config = CONFIGS[kind]
    try:
        return config.model_validate(values)
    except ValidationError as invalid:
        order = {key: position for position, key in enumerate(values)}
        errors = sorted(invalid.errors(), key=lambda error: order.get(error["loc"][0], len(order)))
        problems = [_problem(config, error) for error in errors]
        raise ConfigurationError(
            [UserError(f"{where}: {path}", *words) for path, *words in problems]
        ) from None


def override(config: Config, **changes: int | None) -> Config:
    """A copy of `config` with the values given by flags, validated like those of a file.

    Args:
        config: Stays as it is.
        **changes: New values by key; None means that the flag was not given. `epochs` of a
            classifier are those of both phases.

    Raises:
        ConfigurationError: Naming the flag, such as ``--batch-size``.
    """
    values, flags = {}, {}
    for key, value in changes.items():
        both = isinstance(config, ClassifierConfig) and key == "epochs"
        for field in PHASE_KEYS if both else (key,):
            flags[field] = f"--{key.replace('_', '-')}"
            if value is not None:
                values[field] = value
    try:
        return type(config).model_validate(_tuples(config.model_dump(mode="json") | values))
    except ValidationError as invalid:
        problems = [_problem(type(config), error) for error in invalid.errors()]
        # A dict, because both phases of a classifier can have the same problem.
        words = dict.fromkeys((flags.get(path, path), *rest) for path, *rest in problems)
        raise ConfigurationError([UserError(*problem) for problem in words]) from None


def parse_config(text: str, where: str, kind: Kind) -> Config:
    """Reads a configuration from JSON text.

    Args:
        text: A JSON object, bare or wrapped in ``{"model_info": {...}}``.
        where: What to call the text in errors, such as the name of its file.
        kind: What it must configure.

    Raises:
        ConfigurationError: With every problem of the text.
    """
    document, repeated = parse_json(text, where)
    try:
        config = validate_config(document, where, kind)
    except ConfigurationError as invalid:
        raise ConfigurationError(repeated + invalid.problems) from None
    if repeated:
        raise ConfigurationError(repeated)
    return config


def load_config(path: str | Path, kind: Kind) -> Config:
    """Reads a configuration file, whatever its extension.

    Raises:
        ConfigurationError: With every problem of the file.
    """
    return parse_config(read_text(path), str(path), kind)


def format_config(document: dict[str, Any]) -> str:
    """The JSON text of a configuration as people would write it: a line for each layer."""
    entries = []
    for key, value in document.items():
        text = json.dumps(value, ensure_ascii=False)
        if key.endswith("_layers") and isinstance(value, list | tuple) and value:
            lines = ",\n".join(f"    {json.dumps(layer)}" for layer in value)
            text = f"[\n{lines}\n  ]"
        entries.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def dump_config(config: Config, schema: str | None = None) -> str:
    """The complete configuration as JSON text: `parse_config` gives back an equal one.

    Args:
        config: What to write, every key of it, in the order of the schema.
        schema: Path or URL of the JSON Schema, to be named at the top for editors.
    """
    head = {} if schema is None else {"$schema": schema}
    return format_config(head | config.model_dump(mode="json"))
