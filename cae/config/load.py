"""Reading, validating and writing configurations; all problems of a file come in one error."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from cae.config.choices import ALL, PROGRAMS
from cae.config.json_text import parse_json, read_text
from cae.config.schema import (
    CONFIGS,
    OTHER_NAMES,
    PHASE_KEYS,
    UNUSED,
    AutoencoderConfig,
    ClassifierConfig,
    Config,
    Kind,
    RecipeKeys,
)
from cae.errors import ConfigurationError, UserError, find_problems, shown


def _tuples(value: Any) -> Any:
    """Converts nested lists to tuples: pydantic's strict mode requires them for tuples."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return value


def _check_kind(document: dict[str, Any], where: str, kind: Kind) -> None:
    """Raises an error if a configuration is meant for the other program."""
    (other,) = CONFIGS.keys() - {kind}
    own_keys, other_keys = set(CONFIGS[kind].model_fields), set(CONFIGS[other].model_fields)
    if document.keys() & (other_keys - own_keys) and not document.keys() & (own_keys - other_keys):
        raise ConfigurationError(
            where,
            f"must be a configuration for {PROGRAMS[kind]}",
            f"one for {PROGRAMS[other]}",
            f"Use it with {PROGRAMS[other]}.",
        )


def _validate_recipe_keys(document: dict[str, Any], where: str) -> RecipeKeys:
    try:
        return RecipeKeys.model_validate(document)
    except ValidationError as invalid:
        raise ConfigurationError.from_validation(where, invalid, RecipeKeys) from None


def _unwrap(document: Any, where: str, kind: Kind) -> tuple[dict[str, Any], str]:
    """The hyperparameters without `UNUSED` keys and without `model_info` around them, and `where`.

    Of a recipe, those of one kind, and where in the recipe.
    """
    if not isinstance(document, dict):
        raise ConfigurationError(where, "must be an object, {...}", shown(document))
    keys = {key: value for key, value in document.items() if key not in UNUSED}
    if keys.keys() & CONFIGS.keys():
        half = getattr(_validate_recipe_keys(keys, where), kind)
        if half is None:
            (other,) = CONFIGS.keys() - {kind}
            raise ConfigurationError(
                where,
                f"must contain a configuration for {PROGRAMS[kind]}",
                f"no key {kind}",
                f"Use it with {PROGRAMS[other]}.",
            )
        return _unwrap(half, f"{where}: {kind}", kind)
    if "model_info" not in keys:
        return keys, where
    inner = keys.pop("model_info")
    if keys:
        others = ", ".join(map(shown, keys))
        raise ConfigurationError(
            where, "must have no keys besides model_info", others, "Move them into model_info."
        )
    return _unwrap(inner, f"{where}: model_info", kind)[0], where


def validate_config(document: Any, where: str, kind: Kind) -> Config:
    """Validates hyperparameters given as a dict.

    Args:
        document: As in the JSON file, bare or wrapped in `model_info`; lists may be tuples.
        where: What to call the document in errors, such as the name of its file.
        kind: `autoencoder` or `classifier`.

    Raises:
        ConfigurationError: With every problem, in the order of the document.
    """
    keys, where = _unwrap(document, where, kind)
    values = _tuples(keys)
    _check_kind(values, where, kind)
    config = CONFIGS[kind]
    try:
        return config.model_validate(values)
    except ValidationError as invalid:
        order = {key: position for position, key in enumerate(values)}
        problems = find_problems(invalid, config, OTHER_NAMES)
        problems.sort(key=lambda problem: order.get(problem.location[0], len(order)))
        raise ConfigurationError.joining(problem.at(where) for problem in problems) from None


def add_new_keys(recorded: dict[str, Any], kind: Kind) -> dict[str, Any]:
    """The complete configuration of a record, with the defaults of keys that are newer than it."""
    try:
        return validate_config(recorded, "record", kind).model_dump(mode="json")
    except ConfigurationError:  # it differs in more than that: as it is, for a comparison
        return recorded


def replace_learning_rate(optimizer: Sequence[Any], rate: float) -> list[Any]:
    """An optimizer with another rate; one for the second phase of a classifier stays."""
    name, _, *others = optimizer
    return [name, rate, *others]


def override(config: Config, **changes: float | None) -> Config:
    """A copy of `config` with values given by flags, validated like those of a file.

    Args:
        config: A configuration.
        **changes: Key -> new value; None where the flag was not given. `epochs` of a classifier
            sets both phases, `learning_rate` the optimizer's.

    Raises:
        ConfigurationError: Names the flag, such as ``--batch-size``.
    """
    document, flags = config.model_dump(mode="json"), {}
    for key, value in changes.items():
        both = key == "epochs" and config.kind == "classifier"
        for field in PHASE_KEYS if both else (key,):
            path = "optimizer.learning_rate" if field == "learning_rate" else field
            flags[path] = f"--{key.replace('_', '-')}"
            if value is not None and path == field:
                document[field] = value
            elif value is not None:
                document["optimizer"] = replace_learning_rate(document["optimizer"], value)
    if changes.get("epochs") is not None:
        document["min_steps"] = 0
    try:
        return type(config).model_validate(_tuples(document))
    except ValidationError as invalid:
        lines = [
            str(UserError(flags.get(problem.path, problem.path), *problem[1:]))
            for problem in find_problems(invalid, type(config))
        ]
        # Each once: both phases of a classifier can have the same problem.
        raise ConfigurationError.joining(dict.fromkeys(lines)) from None


OTHER_FLAGS = dict.fromkeys(("learning_rate", "lr"), "--learning-rate")


def set_values(config: Config, assignments: Iterable[str]) -> Config:
    """A copy of `config` with the values of `KEY=VALUE`, validated like those of a file.

    A key may be dotted: `augmentation.rotation=10`, and `optimizer.1=0.002` for an item of a list.
    A value is JSON, or else a text.

    Raises:
        ConfigurationError: Names the assignment, or the keys that are wrong after all of them.
    """
    document = config.model_dump(mode="json")
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        where = f"--set {shown(assignment)}"
        if not equals or not key:
            raise ConfigurationError(
                where, "must be KEY=VALUE", None, "For example: --set batch_size=64."
            )
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        if flag := OTHER_FLAGS.get(key.lower()):
            required = "must name a key of the configuration"
            raise ConfigurationError(where, required, shown(key), f"Use {flag} {text}.")
        _set(document, key.split("."), value, where)
    return validate_config(document, "--set", config.kind)


def _set(document: Any, parts: list[str], value: Any, where: str) -> None:
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        key: str | int = part
        if isinstance(document, list):
            if not (part.isdecimal() and int(part) < len(document)):
                last = len(document) - 1
                required = f"must name an item from 0 to {last}" if document else "list is empty"
                raise ConfigurationError(where, required, shown(part))
            key = int(part)
        elif not isinstance(document, dict):
            raise ConfigurationError(where, f"{part} must be in a list or an object", document)
        if following is None:
            document[key] = value
        elif isinstance(document, dict) and document.get(key) is None:
            document[key] = {}
        document = document[key]


def parse_config(text: str, where: str, kind: Kind) -> Config:
    """Reads a configuration from JSON text; raises as `validate_config` and `parse_json`."""
    return parse_json(text, where, lambda document: validate_config(document, where, kind))


def load_config(path: str | Path, kind: Kind) -> Config:
    """Reads a configuration file, whatever its extension; raises as `parse_config`."""
    return parse_config(read_text(path), str(path), kind)


# --- Recipes --------------------------------------------------------------------------------


class Recipe(NamedTuple):
    """A classifier, and the autoencoder whose encoder it begins with, if there is one."""

    name: str
    labels: int | str | None  # how many it is for, or ALL
    autoencoder: AutoencoderConfig | None
    classifier: ClassifierConfig


def load_recipe(path: str | Path) -> Recipe:
    """Reads a recipe; raises as `parse_config`."""

    def validate(document: Any) -> Recipe:
        configs = _validate_halves(document, str(path))
        return Recipe(
            Path(path).stem,
            document.get("labels"),
            configs.get("autoencoder"),
            configs["classifier"],
        )

    return parse_json(read_text(path), str(path), validate)


def _validate_halves(document: Any, where: str) -> dict[str, Config]:
    """The configurations of a recipe, with a classifier that has an encoder."""
    if not isinstance(document, dict) or not document.keys() & CONFIGS.keys():
        raise ConfigurationError(
            where, 'must be a recipe, {"autoencoder": {...}, "classifier": {...}}', shown(document)
        )
    configs, problems = {}, []
    for kind in CONFIGS:
        if kind == "classifier" or document.get(kind) is not None:
            try:
                configs[kind] = validate_config(document, where, kind)
            except ConfigurationError as error:
                problems += error.lines
    if problems:
        raise ConfigurationError.joining(dict.fromkeys(problems))
    if "autoencoder" not in configs and configs["classifier"].encoder_layers is None:
        raise ConfigurationError(
            f"{where}: classifier: encoder_layers",
            "is required in a recipe without autoencoder",
            "nothing",
            'Add for example "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]]].',
        )
    return configs


def choose_recipe(recipes: Iterable[Recipe], labels: int, has_unlabelled: bool) -> Recipe | None:
    """The recipe for the most labels that are there, or if there are fewer, for the fewest.

    Args:
        recipes: To choose among.
        labels: How many images have a label.
        has_unlabelled: Whether there are images without one. If not, the recipe is for `ALL`.
    """
    by_labels = {recipe.labels: recipe for recipe in recipes}
    every = by_labels.pop(ALL, None)
    if not has_unlabelled:
        return every
    counts = [count for count in by_labels if count is not None]
    most = max((count for count in counts if count <= labels), default=min(counts, default=None))
    return by_labels[most] if counts else None


def format_config(document: dict[str, Any]) -> str:
    """The JSON text of a configuration as a person would write it.

    The layers come first, one per line.
    """
    entries = []
    for key in sorted(document, key=lambda key: key not in UNUSED and not key.endswith("_layers")):
        value = document[key]
        text = json.dumps(value, ensure_ascii=False)
        if key.endswith("_layers") and isinstance(value, list | tuple) and value:
            lines = ",\n".join(f"    {json.dumps(layer)}" for layer in value)
            text = f"[\n{lines}\n  ]"
        entries.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


def dump_config(config: Config) -> str:
    """The complete configuration as JSON text, which `parse_config` reads back."""
    return format_config(config.model_dump(mode="json"))
