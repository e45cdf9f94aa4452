"""Summarizes label efficiency: means, intervals, a table and conclusions. No Keras."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from rich.table import Table

from cae.errors import DataError
from cae.studies.choices import (
    FINE_TUNED,
    METHODS,
    SCRATCH,
)
from cae.studies.intervals import Estimate, estimate

TABLE_TITLE = "Test error in %, mean and half of the 95 % interval"
REFERENCE_LABELS = 100  # the first sentence is about this number, or the nearest one measured


class Measurement(BaseModel):
    """One trained model, a row of `results.csv`; recorded ones are not measured again.

    Attributes:
        method: A key of `METHODS`.
        per_class: Labels per class, or `all`.
        seed: Of the subset, the split and the training.
        labels: Total number of labels.
        validation_labels: Those that only chose the best epoch or strength.
        steps: Optimizer steps; 0 for methods that take none.
        test_error: Share of the test images with a wrong prediction, in [0, 1].
        seconds: Duration of training and testing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    per_class: str
    seed: int
    labels: int
    validation_labels: int
    steps: int
    test_error: float
    seconds: float

    @property
    def key(self) -> tuple[int, str, str]:
        """What identifies it: seed, labels per class, method."""
        return self.seed, self.per_class, self.method


def read_results(path: Path) -> list[Measurement]:
    """Reads `results.csv`.

    Raises:
        DataError: It cannot be read, or a row is no result.
    """
    remedy = "Delete the row: it is measured again."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return TypeAdapter(list[Measurement]).validate_python(list(csv.DictReader(file)))
    except ValidationError as error:
        raise DataError.from_validation(path, error, list[Measurement], remedy) from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(path, "must hold one result per row", error, remedy) from error


class Effect(NamedTuple):
    """What pretraining changes at one number of labels, as shares in [0, 1].

    Attributes:
        labels: How many.
        scratch: Test error from scratch.
        pretrained: Test error with pretraining.
        difference: Of pretrained and scratch, seed by seed.
    """

    labels: int
    scratch: float
    pretrained: float
    difference: Estimate


def summarize(results: Sequence[Measurement]) -> dict[tuple[str, int], Estimate]:
    """Test errors by method and number of labels."""
    values = defaultdict(list)
    for (method, labels, _), error in _get_errors(results).items():
        values[method, labels].append(error)
    return {key: estimate(errors) for key, errors in values.items()}


def get_curves(
    errors: Mapping[tuple[str, int], Estimate],
) -> dict[str, list[tuple[int, float, float]]]:
    """The curves of `plot_label_efficiency`: for each method (labels, mean error, margin)."""
    return {
        name: sorted((n, e.mean, e.margin) for (key, n), e in errors.items() if key == method)
        for method, name in METHODS.items()
        if any(key == method for key, _ in errors)
    }


def _get_errors(results: Sequence[Measurement]) -> dict[tuple[str, int, int], float]:
    """By method, labels and seed; `all` may be as many labels as another count."""
    return {(r.method, r.labels, r.seed): r.test_error for r in results}


def get_effects(results: Sequence[Measurement]) -> list[Effect]:
    """What fine-tuning a pretrained encoder changes, by number of labels.

    Only seeds that have both are compared; each has the same labels, split and steps in both.
    """
    errors = _get_errors(results)
    pairs = defaultdict(list)
    for (method, labels, seed), error in errors.items():
        if method == SCRATCH and (FINE_TUNED, labels, seed) in errors:
            pairs[labels].append((error, errors[FINE_TUNED, labels, seed]))
    effects = []
    for labels, values in sorted(pairs.items()):
        scratch, pretrained = np.transpose(values)
        difference = estimate(pretrained - scratch)
        effects.append(Effect(labels, float(scratch.mean()), float(pretrained.mean()), difference))
    return effects


def conclude(results: Sequence[Measurement]) -> list[str]:
    """Compares fine-tuning with training from scratch in plain sentences."""
    effects = get_effects(results)
    if not effects:
        return [f"Measure {FINE_TUNED} and {SCRATCH} to see whether pretraining helps."]
    reference = min(effects, key=lambda effect: abs(math.log(effect.labels / REFERENCE_LABELS)))
    sentences = [_describe_effect(reference)]
    if max(effect.difference.seeds for effect in effects) < 2:
        return [*sentences, "One seed does not show how much is chance: repeat with --seeds 5."]
    for direction, sign in (("lowers", -1), ("raises", 1)):
        at = [f"{e.labels:,}" for e in effects if sign * e.difference.mean > e.difference.margin]
        if at:
            numbers = " and ".join(filter(None, [", ".join(at[:-1]), at[-1]]))
            sentences.append(f"It measurably {direction} the error with {numbers} labels.")
    if not any(effect.difference.is_measurable for effect in effects):
        sentences.append("It makes no measurable difference at any number of labels tried.")
    elif not effects[-1].difference.is_measurable:
        last = max(n for n, effect in enumerate(effects) if effect.difference.is_measurable)
        sentences.append(
            f"From {effects[last + 1].labels:,} labels on it makes no measurable difference."
        )
    return sentences


def _describe_effect(effect: Effect) -> str:
    difference, margin, seeds = effect.difference
    before, after = f"{effect.scratch:.2%}", f"{effect.pretrained:.2%}"
    if seeds < 2:
        return f"With {effect.labels:,} labels the test error is {before} from scratch and " + (
            f"{after} with pretraining."
        )
    verb = "lowers" if difference < 0 else "raises"
    if not effect.difference.is_measurable:
        verb = "makes no measurable difference to"
    points = f"{difference * 100:+.2f} percentage points"
    low, high = max(difference - margin, -1), min(difference + margin, 1)  # of shares
    interval = f"{low * 100:+.2f} to {high * 100:+.2f}"
    return (
        f"With {effect.labels:,} labels pretraining {verb} the test error: from {before} to "
        f"{after}, {points} (95 % interval {interval}, {seeds} seeds)."
    )


def get_columns(errors: Mapping[tuple[str, int], Estimate]) -> dict[str, list[str]]:
    """The table of test errors: `labels` and one column per method, one row per label count."""
    counts = sorted({labels for _, labels in errors})
    columns = {"labels": [f"{labels:,}" for labels in counts]}
    for method in METHODS:
        if any(key == method for key, _ in errors):
            columns[method] = [_percent(errors.get((method, labels))) for labels in counts]
    return columns


def get_table(errors: Mapping[tuple[str, int], Estimate]) -> Table:
    """The same table for a terminal of 80 columns."""
    columns = get_columns(errors)
    table = Table(box=None, padding=(0, 1, 0, 0), title=TABLE_TITLE, title_justify="left")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _percent(error: Estimate | None) -> str:
    if error is None:
        return ""
    digits = 1 if error.mean >= 0.1 else 2
    mean = f"{error.mean * 100:.{digits}f}"
    return mean if error.seeds < 2 else f"{mean} ± {error.margin * 100:.{digits}f}"
