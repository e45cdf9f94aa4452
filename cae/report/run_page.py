"""The page of a run of `autoencoder.py` or `classification.py`."""

from pathlib import Path

from cae import terminal
from cae.config.architecture import describe_architecture
from cae.config.load import format_config
from cae.errors import as_sentence
from cae.records.environment import read_environment
from cae.records.history import History
from cae.records.run import PARTIAL
from cae.report.answer import answer_blocks, describe_scores
from cae.report.evaluation_page import prediction_sections
from cae.report.origin import origin_sections, training_command
from cae.report.pages import (
    Code,
    Folded,
    Page,
    Picture,
    Section,
    Table,
    draw,
)
from cae.studies.results import RunResult, read_result


def describe_run(folder: Path) -> Page:
    """The page of a run; an incomplete or damaged record is a `DataError`."""
    result, environment = read_result(folder), read_environment(folder)
    history, start = result.history, result.start
    command = training_command(folder, start)
    interrupted = ", interrupted" if folder.name.endswith(PARTIAL) else ""
    return Page(
        f"{history.kind.capitalize()} {result.name}{interrupted}",
        f"{name_layers(result)}. Trained on {environment.trained_on}, "
        f"seed {history.model_info['seed']}, {environment.day}.",
        answer_blocks(result, environment, [command]),
        [
            *run_sections(result, folder / "plots"),
            Section("Configuration", [Code(format_config(history.model_info))]),
            *origin_sections([environment], start.models, [command]),
        ],
    )


def run_sections(result: RunResult, plots: Path) -> list[Section]:
    """The predictions, the pictures (if the folder has any) and the training of a run."""
    history = result.history
    keys = dict.fromkeys(key for row in history.epochs for key in row)
    columns = {
        key: [row.get(key) for row in history.epochs]
        for key in keys
        if not key.endswith(("precision", "recall"))  # as good as the F1, and too wide for paper
    }
    every_epoch = Folded("Every epoch", [Table("Values recorded after each epoch", columns)])
    facts = {
        "best epoch": f"{history.best_epoch} of {len(history.epochs)}",
        **describe_scores(history.metrics, ("val_loss",)),
        **{
            key: f"{history.metrics[key]:,.0f}"
            for key in ("parameters", "seconds")
            if key in history.metrics
        },
    }
    curves = [_draw_curves(history)] if history.epochs else []
    training = Section("Training", [facts, *curves, every_epoch])
    return [*prediction_sections(result.path, plots, history.metrics), training]


def name_layers(result: RunResult) -> str:
    """The architecture of a run in words, with the saved encoder that it began with."""
    layers = describe_architecture(result.history.model_info)
    if result.start.arguments.model:
        layers += f", with the encoder of {terminal.relative(result.start.arguments.model)}"
    return layers


def _draw_curves(history: History) -> list[Picture]:
    from cae.figures.curves import METRIC_NAMES, curve_figures

    pictures = []
    for metric, figure in curve_figures(history).items():
        key = f"val_{metric}" if history.has(f"val_{metric}") else metric
        name, values = as_sentence(METRIC_NAMES[metric]), history.column(key)
        where = "validation" if key != metric else "training"
        description = (
            f"{name} on {where} images over {len(values)} epochs: {values[0]:.4g} in the first, "
            f"{values[-1]:.4g} in the last"
        )
        if key in history.best:
            description += f", {history.best[key]:.4g} where the weights were kept"
        pictures.append(draw(figure, name, f"{description}."))
    return pictures
