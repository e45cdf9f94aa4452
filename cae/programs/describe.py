"""Facts about data, models and results, in words."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cae import terminal
from cae.config.load import dump_config
from cae.config.schema import Config
from cae.config.shapes import format_shape
from cae.errors import UsageError
from cae.records.checkpoint import TrainingState
from cae.records.history import History

if TYPE_CHECKING:
    import keras
    import numpy as np


def describe_training(
    images: "np.ndarray",
    split: tuple["np.ndarray", "np.ndarray"],
    model: "keras.Model",
    config: Config,
    compute_dtype: str,
) -> dict[str, str]:
    """What is about to be trained, on which images, and how."""
    count, *shape = images.shape
    training, validation = split
    parts = [f"{part.name} {part.count_params():,}" for part in model.layers if part.weights]
    values = config.model_dump(mode="json")
    optimizer = " ".join(map(str, values["optimizer"]))
    optimizer += f" in {compute_dtype}" if config.mixed_precision else ""
    listed = [key for key in values if key.endswith("epochs")] + ["batch_size", "seed", "loss"]
    return {
        "images": f"{count:,} of {format_shape(shape)}, {images.dtype}: {len(training):,} for "
        f"training, {len(validation):,} for validation",
        "parameters": f"{model.count_params():,} ({', '.join(parts)})",
        "hyperparameters": ", ".join(
            [optimizer, *(f"{key} {values[key]}" for key in listed if key in values)]
        ),
    }


def describe_result(history: History) -> str:
    """The most important final values, on one line."""
    shown = ["loss", "val_loss", "mse", "val_mse"]
    if history.kind == "classifier":
        shown = ["accuracy", "val_accuracy", "val_f1", "test_accuracy", "test_macro_f1"]
    values = history.metrics
    return ", ".join(f"{key} {values[key]:.4f}" for key in shown if key in values)


def describe_progress(state: TrainingState | None) -> dict[str, str]:
    """Where an interrupted training continues."""
    if state is None:
        return {}
    batches = f" and {state.step} batches" if state.step else ""
    return {"resumed": f"after {len(state.rows)} epochs{batches}, {state.seconds:.1f} s"}


def describe_run(history: History, folder: Path, figures: list[Path]) -> dict[str, str]:
    """The results of a complete run, and the files in its folder."""
    metrics = history.metrics
    best_epoch = f"{metrics['best_epoch']} of {metrics['epochs']}"
    if history.dense_only_epochs:
        best_epoch += f" ({history.best['phase']})"
    facts = {
        "best epoch": best_epoch,
        "values": describe_result(history),
        "time": f"{metrics['seconds']:.1f} s, {metrics['images_per_second']:.0f} images/s",
        "run": terminal.relative(folder),
        "files": ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file())),
    }
    if figures:
        facts["figures"] = ", ".join(f"plots/{path.name}" for path in figures)
    return facts


def print_configs(configs: list[tuple[str, Config]]) -> int:
    """Prints complete configurations as JSON; returns the exit code."""
    if not configs:
        raise UsageError(
            "--print-config", "requires a configuration", "none", "Give one with -c FILE."
        )
    for _, config in configs:
        sys.stdout.write(dump_config(config))
    return 0
