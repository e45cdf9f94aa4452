"""The page of `experiments.py label-efficiency`."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cae.config.choices import METHODS
from cae.config.json_text import load_record
from cae.config.load import format_config
from cae.config.schema import CONFIGS
from cae.errors import DataError, counted
from cae.programs.start import repeat_command
from cae.records.environment import read_environment
from cae.report.answer import describe_data
from cae.report.origin import origin_sections
from cae.report.pages import Code, Folded, Lead, Page, Section, Table, draw
from cae.studies import label_results


class LabelSettings(BaseModel):
    """The `settings.json` of label-efficiency: SHA-256s of the content, and what was trained."""

    model: str | None
    pretraining: str
    data: str
    test: str
    config: dict[str, Any]
    steps: int
    leakage: list[str]
    recipes: dict[str, dict[str, Any]] = {}  # by labels per class


def describe_label_efficiency(folder: Path) -> Page:
    """The page of a folder of label-efficiency; damaged files are a `DataError`."""
    from cae.figures.comparisons import label_efficiency_visualization

    results = label_results.read_results(folder / "results.csv")
    if not results:
        remedy = "Run label-efficiency again."
        raise DataError(folder / "results.csv", "must contain a result", "none", remedy)
    settings = load_record(folder / "settings.json", LabelSettings)
    environment = read_environment(folder)
    errors = label_results.summarize(results)
    figure = label_efficiency_visualization(label_results.get_curves(errors))
    caption = "Test error of each method by the number of labels"
    # A page has room for the methods' full names.
    columns = label_results.get_columns(errors)
    columns = {METHODS.get(name, name): cells for name, cells in columns.items()}
    ordered = sorted(results, key=lambda result: (result.labels, result.method, result.seed))
    every = Table(
        "Every model: its labels, those of them for validation, steps, images seen and test error",
        {
            key: [getattr(row, key) for row in ordered]
            for key in label_results.Measurement.model_fields
        },
    )
    command = repeat_command(environment.command)
    answer = [
        *map(Lead, label_results.conclude(results)),
        {"data set": describe_data(environment.data), "repeat it": Code(command)},
    ]
    blocks = [
        draw(figure, caption, f"{caption}. The table below has the numbers."),
        Table(label_results.TABLE_TITLE, columns, numeric=tuple(columns)),
        Folded("Every model", [every]),
    ]
    seeds = len({result.seed for result in results})
    return Page(
        "What recipes are worth" if settings.recipes else "What pretraining is worth",
        f"{len(results)} models on {environment.trained_on}, {counted(seeds, 'seed')}.",
        answer,
        [
            Section("Result", blocks),
            Section("Method", _describe_settings(settings)),
            *origin_sections([environment], [], [command]),
        ],
    )


def _describe_settings(settings: LabelSettings) -> list[Any]:
    hashes = {
        **({"saved autoencoder": settings.model} if settings.model else {}),
        "images it learned from": settings.pretraining,
        "training images and labels": settings.data,
        "test images and labels": settings.test,
    }
    title = "Hashes of pixels and labels, the same in every file format"
    return [
        {
            "optimizer steps": f"{settings.steps:,} for every network that follows no recipe",
            **{f"{n} labels per class": f"recipe {x['name']}" for n, x in settings.recipes.items()},
            "exact duplicates": "; ".join(settings.leakage),
        },
        "Head, optimizer and batch size of these networks:",
        Code(format_config(settings.config)),
        *_list_recipes(settings.recipes),
        Table.from_rows(title, ("content", "SHA-256"), hashes.items()),
    ]


def _list_recipes(recipes: dict[str, dict[str, Any]]) -> list[Folded]:
    by_name = {recipe["name"]: recipe for recipe in recipes.values()}
    return [
        Folded(f"Recipe {name}: {kind}", [Code(format_config(recipe[kind]))])
        for name, recipe in by_name.items()
        for kind in CONFIGS
        if recipe[kind]
    ]
