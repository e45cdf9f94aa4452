"""The configurations that come with the programs: where they lie, and what each is.

A recipe holds the configurations of a classifier and of the autoencoder that provides its encoder:
`{"labels": 100, "autoencoder": {...}, "classifier": {...}}`. The `description` of a file says what
it is, costs and reaches. It imports little: `--help` answers at once.
"""

import json
import math
import sys
from pathlib import Path

from cae.errors import UsageError, did_you_mean, listed, nearest

PROJECT = Path(__file__).parents[2]
# A checkout, or `pip install .`.
ROOTS = (PROJECT, Path(sys.prefix, "share", "cae"))
FOLDER = "configuration"
# The ones to begin with, which dialogues offer.
SHIPPED = {
    kind: tuple(f"{FOLDER}/{kind}_{name}.json" for name in names.split())
    for kind, names in {
        "autoencoder": "small medium large",
        "classifier": "small_small small_extra_small small_large large_small large_medium",
    }.items()
}
OWN_KEYS = {"autoencoder": "decoder_layers", "classifier": "dense_layers"}


def find_shipped(path: str) -> str:
    """The path of a shipped file, which is found from any folder."""
    if path.startswith(f"{FOLDER}/") and not Path(path).exists():
        for root in ROOTS:
            if (root / path).exists():
                return str(root / path)
    return path


def get_folder() -> Path:
    """The folder of the shipped files."""
    folders = [root / FOLDER for root in ROOTS]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def get_recipes() -> dict[str, Path]:
    """The shipped recipes by their names, those for few labels first."""

    def get_labels(path: Path) -> float:
        labels = read_object(path).get("labels")
        return labels if isinstance(labels, int) else math.inf

    paths = sorted(get_folder().glob("recipes/*.json"))
    return {path.stem: path for path in sorted(paths, key=get_labels)}


def find_recipe(recipe: str) -> Path:
    """The file of a recipe, given by the name of a shipped one or as a path."""
    shipped, path = get_recipes(), Path(find_shipped(recipe))
    if recipe not in shipped and not path.exists():
        raise UsageError(
            f"recipe {recipe}",
            f"must be {listed([*shipped, 'a file'])}",
            "no file of that name",
            did_you_mean(nearest(recipe, shipped)),
        )
    return shipped.get(recipe, path)


def get_descriptions(kind: str) -> dict[str, str]:
    """The shipped files for a kind of model, as `-c` takes them, and what each is.

    Recipes come first, then the ones to begin with, then their variations.
    """
    folder = get_folder()
    found = {}
    for path in [*get_recipes().values(), *sorted(folder.glob("*.json"))]:
        document = read_object(path)
        if document.keys() & {kind, OWN_KEYS[kind]}:
            name = (Path(FOLDER) / path.relative_to(folder)).as_posix()
            found[name] = document.get("description", "")
    first = [name for name in found if "/recipes/" in name]
    first += [name for name in SHIPPED[kind] if name in found]
    return {name: found[name] for name in dict.fromkeys([*first, *found])}


def read_object(path: Path) -> dict[str, object]:
    """The object in a JSON file, without `model_info` around it; {} where there is none."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    document = document.get("model_info", document) if isinstance(document, dict) else {}
    return document if isinstance(document, dict) else {}
