"""What a page says first: how good a model is, on which data, where it is, and how to use it."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cae import terminal
from cae.config.shapes import format_shape
from cae.errors import listed
from cae.programs.start import name_command
from cae.records.environment import DataRecord, Environment
from cae.records.run import MODEL_FILE
from cae.report.pages import Code, KeyFacts
from cae.studies.results import RunResult

SCORES = {
    "test_accuracy": "test accuracy",
    "test_accuracy_low": "95 % interval",
    "test_balanced_accuracy": "balanced test accuracy",
    "test_balanced_accuracy_low": "95 % interval of balanced accuracy",
    "test_macro_f1": "test macro F1",
    "test_macro_f1_low": "95 % interval of macro F1",
    "test_ece": "expected calibration error",
    "val_ece": "expected calibration error on the images that fitted it",
    "val_accuracy": "validation accuracy",
    "val_mse": "validation mean squared error",
    "val_loss": "validation loss",
}
FIRST = ("test_accuracy", "test_accuracy_low", "test_balanced_accuracy", "val_accuracy", "val_mse")
# What to do with a model: program, arguments before the model, arguments after it.
USES = {
    "classifier": ("predict.py", ("classify",), ("INPUT",)),
    "autoencoder": ("classification.py", ("-d", "DATASET", "-model"), ()),
}


def answer_blocks(
    result: RunResult, environment: Environment, commands: Iterable[str]
) -> list[Any]:
    """The scores of a run, its data and model, and the commands that use and repeat it."""
    history, model = result.history, result.path / MODEL_FILE
    scores = describe_scores(history.metrics, FIRST)
    facts = {"data set": describe_data(environment.data)}
    if model.exists():
        facts["model"] = terminal.relative(model)
        facts["use it"] = Code(use_command(history.kind, model))
    return [KeyFacts(scores), facts | {"repeat it": Code("\n".join(commands))}]


def describe_scores(metrics: Mapping[str, Any], keys: Iterable[str] = SCORES) -> dict[str, str]:
    """Those of `SCORES` that `metrics.json` or a model file has, by their names."""
    scores = {}
    for key in keys:
        name, value = SCORES[key], metrics.get(key)
        if not isinstance(value, int | float):
            continue
        text = _format(key, value)
        if key.endswith("_low"):
            high = metrics.get(key.replace("_low", "_high"))
            if not isinstance(high, int | float):
                continue
            text = f"{text.removesuffix(' %')} to {_format(key, high)}"
            if key == "test_accuracy_low" and isinstance(metrics.get("test_images"), int):
                name += f", {metrics['test_images']:,} images"
        scores[name] = text
    return scores


def _format(key: str, value: float) -> str:
    if "accuracy" in key or key.endswith("_ece"):
        return f"{100 * value:.2f} %"
    return f"{value:.4f}" if "f1" in key else f"{value:.4g}"


def describe_data(data: Mapping[str, DataRecord]) -> str:
    """The images by their roles: `digits: 1,442 training and 355 test images of 8×8×1`."""
    if not data:
        return "not known"
    names = listed(dict.fromkeys(record.name for record in data.values()), "and")
    counts = listed([f"{record.shape[0]:,} {role}" for role, record in data.items()], "and")
    sizes = dict.fromkeys(format_shape(record.shape[1:]) for record in data.values())
    return f"{names}: {counts} images of {listed(sizes, 'and')}"


def use_command(kind: str, model: str | Path) -> str:
    """The command line that uses a saved model."""
    program, before, after = USES[kind]
    return shlex.join([*name_command(program), *before, terminal.relative(model), *after])
