"""The page of `experiments.py label-efficiency`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cae.config.json_text import load_record
from cae.config.load import format_config
from cae.programs.start import repeat_command
from cae.report.origin import origin_sections, read_environment
from cae.report.pages import Code, Facts, Folded, Page, Picture, Section, Table, Text, draw
from cae.studies.choices import METHODS
from cae.studies.label_results import (
    TABLE_TITLE,
    Measurement,
    conclude,
    get_columns,
    get_curves,
    read_results,
    summarize,
)


class LabelSettings(BaseModel):
    """The `settings.json` of label-efficiency: SHA-256s of the content, and what was trained."""

    model: str
    pretraining: str
    data: str
    test: str
    config: dict[str, Any]
    steps: int
    leakage: list[str]


def describe_label_efficiency(folder: Path) -> Page:
    """The page of a folder of label-efficiency; damaged files are a `DataError`."""
    results = read_results(folder / "results.csv")
    settings = load_record(folder / "settings.json", LabelSettings)
    environment = read_environment(folder)
    errors = summarize(results)
    # A page has room for the methods' full names.
    columns = {METHODS.get(name, name): cells for name, cells in get_columns(errors).items()}
    seeds = len({result.seed for result in results})
    blocks = [
        *(Text(sentence, leads=True) for sentence in conclude(results)),
        _draw(get_curves(errors)),
        Table(TABLE_TITLE, columns, numeric=tuple(columns)),
        Folded("Every model", [_list_models(results)]),
    ]
    return Page(
        "What pretraining is worth",
        f"{len(results)} models on {environment.data.training.name}, {seeds} seeds.",
        [
            Section("Result", blocks),
            Section("Method", _describe_settings(settings)),
            *origin_sections([environment], [], [repeat_command(environment.command)]),
        ],
    )


def _draw(curves: dict[str, list[tuple[int, float, float]]]) -> Picture:
    from cae.figures.comparisons import label_efficiency_visualization

    caption = "Test error of each method by the number of labels"
    description = f"{caption}. The table below has the numbers."
    return draw(label_efficiency_visualization(curves), caption, description)


def _list_models(results: Sequence[Measurement]) -> Table:
    ordered = sorted(results, key=lambda r: (r.labels, r.method, r.seed))
    return Table(
        "Every model: its labels, those of them for validation, steps and test error",
        {key: [getattr(r, key) for r in ordered] for key in Measurement.model_fields},
    )


def _describe_settings(settings: LabelSettings) -> list[Any]:
    hashes = {
        "saved autoencoder": settings.model,
        "images it learned from": settings.pretraining,
        "training images and labels": settings.data,
        "test images and labels": settings.test,
    }
    facts = {
        "optimizer steps": f"{settings.steps:,} for every network",
        "exact duplicates": "; ".join(settings.leakage),
    }
    return [
        Facts(facts),
        Text("Head, optimizer and batch size of the networks:"),
        Code(format_config(settings.config)),
        Table.from_rows(
            "Hashes of the content, which is independent of file formats",
            ("content", "SHA-256"),
            hashes.items(),
        ),
    ]
