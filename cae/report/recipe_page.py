"""The page of a recipe: an autoencoder and a classifier on it, with one or several seeds."""

from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from cae.config.load import format_config
from cae.errors import DataError
from cae.programs.start import repeat_command
from cae.records.environment import read_environment
from cae.report.answer import answer_blocks
from cae.report.origin import origin_sections
from cae.report.pages import Code, Lead, Page, Section, Table
from cae.report.run_page import name_layers, run_sections
from cae.studies.results import RunResult, find_recipe_seeds, get_recipe_path, read_result


def describe_recipe(folder: Path) -> Page:
    """The page of the folder of a recipe; an incomplete or damaged record is a `DataError`."""
    seeds = find_recipe_seeds(folder)
    if not seeds:
        required, remedy = "must contain a complete classifier", "Run the recipe's command again."
        raise DataError(folder, required, "only parts of a recipe", remedy)
    pairs = [_read_pair(folder, seed) for seed in seeds]
    results = [result for pair in pairs for result in pair]
    environments = [read_environment(result.path) for result in results]
    classifier = pairs[0][-1]
    environment = environments[results.index(classifier)]
    commands = list(dict.fromkeys(repeat_command(result.start.command) for result in results))
    models = [model for result in results for model in result.start.models]
    shown = "" if len(seeds) == 1 else f" Scores and figures of seed {seeds[0]}."
    return Page(
        f"Recipe {folder.name}",
        f"Trained on {environment.trained_on}, {environment.day}.{shown}",
        [*_compare_seeds(pairs), *answer_blocks(classifier, environment, commands)],
        [
            *(_describe_half(result) for result in reversed(pairs[0])),
            *origin_sections(environments, models, commands),
        ],
    )


def _read_pair(folder: Path, seed: int) -> list[RunResult]:
    """The autoencoder of a seed, if the recipe has one, and the classifier."""
    paths = (get_recipe_path(folder, kind, seed) for kind in ("autoencoder", "classifier"))
    return [read_result(path) for path in paths if path.exists()]


def _compare_seeds(pairs: list[list[RunResult]]) -> list[Any]:
    """The mean test accuracy over several seeds, its spread, and a row per seed."""
    if len(pairs) < 2:
        return []
    metrics = [pair[-1].history.metrics for pair in pairs]
    accuracies = [values["test_accuracy"] for values in metrics if "test_accuracy" in values]
    columns = {
        "seed": [pair[-1].history.model_info["seed"] for pair in pairs],
        "test accuracy, %": [100 * x for x in accuracies],
        "seconds": [sum(r.history.metrics["seconds"] for r in pair) for pair in pairs],
    }
    known = {name: values for name, values in columns.items() if len(values) == len(pairs)}
    table = Table("Each seed, with its own draw of labels", known)
    if len(accuracies) < len(pairs):
        return [table]
    mean, deviation = 100 * fmean(accuracies), 100 * stdev(accuracies)
    lead = f"Test accuracy {mean:.2f} %, the mean of {len(pairs)} seeds"
    return [Lead(f"{lead} (standard deviation {deviation:.2f})."), table]


def _describe_half(result: RunResult) -> Section:
    """The autoencoder or the classifier."""
    configuration = Section("Configuration", [Code(format_config(result.history.model_info))])
    sections = [*run_sections(result, result.path / "plots"), configuration]
    return Section(f"The {result.history.kind}", [f"{name_layers(result)}."], sections)
