"""Summarizes label efficiency: means, intervals, a table and conclusions. No Keras."""

import csv
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from rich.table import Table

from cae.config.choices import (
    FINE_TUNED,
    FROM_ALL,
    METHODS,
    RECIPE,
    SCRATCH,
    WITHOUT_AUTOENCODER,
    WITHOUT_UNLABELLED,
)
from cae.errors import DataError, listed
from cae.records.evaluation import Estimate, estimate

TABLE_TITLE = "Test error in %: mean ± half of the 95 % interval; ≤, ≥: one end is open"
METHODS_ABREAST = 6  # in a table for terminals
WIDEST_HEADING = 11  # characters; longer ones break after a dash
REFERENCE_LABELS = 100  # sentences are about this number, or the nearest one measured

# Empty in files of earlier versions.
_Count = Annotated[int | None, BeforeValidator(lambda value: None if value == "" else value)]
Errors = Mapping[str, Mapping[int, Estimate]]  # by method and number of labels


class Measurement(BaseModel):
    """One trained model, a row of `results.csv`; recorded ones are not measured again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str  # a key of METHODS
    per_class: str  # labels, or "all"
    seed: int  # of the subset, the split and the training
    labels: int  # in all
    validation_labels: int  # that only chose the best epoch or strength
    # Optimizer steps, those of a recipe's autoencoder included; 0 for methods that take none.
    steps: int
    images_seen: _Count = None  # in these steps; unknown in files of earlier versions
    test_error: float  # share of the test images with a wrong prediction, in [0, 1]
    seconds: float  # of training and testing
    # Training the recipe's autoencoder, which all numbers of labels share.
    autoencoder_seconds: float = 0.0

    @property
    def key(self) -> tuple[int, str, str]:
        """What identifies it: seed, labels per class, method."""
        return self.seed, self.per_class, self.method


def read_results(path: Path) -> list[Measurement]:
    """Reads `results.csv`; an unreadable file or row is a `DataError`."""
    remedy = "Delete the row: it is measured again."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return TypeAdapter(list[Measurement]).validate_python(list(csv.DictReader(file)))
    except ValidationError as error:
        raise DataError.from_validation(path, error, list[Measurement], remedy) from error
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(path, "must contain one result per row", error, remedy) from error


def _get_errors(results: Sequence[Measurement]) -> dict[str, dict[int, dict[int, float]]]:
    """By method, labels and seed; `all` may be as many labels as another count."""
    errors = defaultdict(lambda: defaultdict(dict))
    for result in sorted(results, key=lambda result: result.labels):
        errors[result.method][result.labels][result.seed] = result.test_error
    return {method: errors[method] for method in METHODS if method in errors}


def summarize(results: Sequence[Measurement]) -> Errors:
    """Test errors, shares in [0, 1], with their intervals."""
    return {
        method: {n: estimate(list(seeds.values()), 0, 1) for n, seeds in by_labels.items()}
        for method, by_labels in _get_errors(results).items()
    }


def get_curves(errors: Errors) -> dict[str, list[tuple[int, float, float, float]]]:
    """The curves of `plot_label_efficiency`: for each method (labels, mean error, low, high)."""
    return {
        METHODS[method]: [(labels, e.mean, e.low, e.high) for labels, e in points.items()]
        for method, points in errors.items()
    }


# --- Conclusions ----------------------------------------------------------------------------


class Comparison(NamedTuple):
    """Two methods, and what sentences call the difference and each of them."""

    before: str
    after: str
    difference: str
    name_before: str
    name_after: str


COMPARISONS = (
    Comparison(SCRATCH, FINE_TUNED, "pretraining", "from scratch", "with pretraining"),
    Comparison(
        WITHOUT_UNLABELLED,
        RECIPE,
        "the recipe, compared with the same network without unlabelled images,",
        "with the same network without unlabelled images",
        "with the recipe",
    ),
    Comparison(
        WITHOUT_AUTOENCODER,
        RECIPE,
        "the autoencoder of the recipe, compared with fresh weights and at least as many images,",
        "without the autoencoder of the recipe",
        "with it",
    ),
)


class Effect(NamedTuple):
    """What a comparison comes to at one number of labels, seed by seed."""

    labels: int
    before: float
    after: float
    difference: Estimate


def _get_effects(results: Sequence[Measurement], comparison: Comparison) -> list[Effect]:
    """By number of labels, over the seeds that have both with the same labels and split."""
    errors = _get_errors(results)
    effects = []
    for labels, before in errors.get(comparison.before, {}).items():
        after = errors.get(comparison.after, {}).get(labels, {})
        pairs = [(error, after[seed]) for seed, error in before.items() if seed in after]
        if pairs:
            difference = estimate([after - before for before, after in pairs], -1, 1)
            effects.append(Effect(labels, *map(fmean, zip(*pairs, strict=True)), difference))
    return effects


def conclude(results: Sequence[Measurement]) -> list[str]:
    """What pretraining, a recipe and its autoencoder change, in plain sentences."""
    sentences = []
    for comparison in COMPARISONS:
        sentences += _conclude(comparison, _get_effects(results, comparison))
    sentences += _name_best(summarize(results))
    if not sentences:
        return [_name_missing(results)]
    if max(len(seeds) for points in _get_errors(results).values() for seeds in points.values()) < 2:
        sentences.append("One seed cannot separate effects from chance: repeat with --seeds 5.")
    return sentences


def _name_missing(results: Sequence[Measurement]) -> str:
    """What to measure where there is nothing to compare."""
    if any(result.method == RECIPE for result in results):
        others = f"{WITHOUT_AUTOENCODER} and {WITHOUT_UNLABELLED}"
        return f"Measure {others} to see what the parts of a recipe are worth."
    return f"Measure {FINE_TUNED} and {SCRATCH} to see whether pretraining helps."


def _name_best(errors: Errors) -> list[str]:
    """The best of scikit-learn's methods that learn from unlabelled images."""
    points = [
        (_distance(labels), error.mean, labels, method)
        for method in FROM_ALL
        for labels, error in errors.get(method, {}).items()
    ]
    if not points:
        return []
    _, error, labels, method = min(points)
    return [
        f"With {labels:,} labels the best of scikit-learn's methods for labelled and unlabelled "
        f"images, {METHODS[method]}, has a test error of {error:.2%}."
    ]


def _distance(labels: int) -> float:
    """From the number of labels that sentences are about, on a logarithmic scale."""
    return abs(math.log(labels / REFERENCE_LABELS))


def _conclude(comparison: Comparison, effects: list[Effect]) -> list[str]:
    if not effects:
        return []
    reference = min(effects, key=lambda effect: _distance(effect.labels))
    sentences = [_describe_effect(comparison, reference)]
    effects = [effect for effect in effects if effect.difference.seeds > 1]
    if not effects:
        return sentences
    measurable = [effect for effect in effects if effect.difference.is_measurable]
    for verb, sign in (("lowers", -1), ("raises", 1)):
        at = [f"{e.labels:,}" for e in measurable if sign * e.difference.mean > 0]
        if at:
            sentences.append(f"It measurably {verb} the error with {listed(at, 'and')} labels.")
    if not measurable:
        sentences.append("It makes no measurable difference at any number of labels tried.")
    elif measurable[-1] is not effects[-1]:
        first = effects[effects.index(measurable[-1]) + 1]
        sentences.append(f"From {first.labels:,} labels on it makes no measurable difference.")
    return sentences


def _describe_effect(comparison: Comparison, effect: Effect) -> str:
    _, _, subject, name_before, name_after = comparison
    difference = effect.difference
    before, after = f"{effect.before:.2%}", f"{effect.after:.2%}"
    start = f"With {effect.labels:,} labels"
    if difference.seeds < 2:
        return f"{start} the test error is {before} {name_before} and {after} {name_after}."
    verb = "lowers" if difference.mean < 0 else "raises"
    if not difference.is_measurable:
        verb = "makes no measurable difference to"
    low = f"{'≤ ' * difference.is_low_open}{difference.low * 100:+.2f}"
    high = f"{'≥ ' * difference.is_high_open}{difference.high * 100:+.2f}"
    return (
        f"{start} {subject} {verb} the test error: from {before} to {after}, "
        f"{difference.mean * 100:+.2f} percentage points "
        f"(95 % interval {low} to {high}, {difference.seeds} seeds)."
    )


# --- Tables ---------------------------------------------------------------------------------


def get_columns(errors: Errors) -> dict[str, list[str]]:
    """The table of test errors: `labels` and one column per method, one row per label count."""
    counts = sorted({labels for points in errors.values() for labels in points})
    cells = {
        method: [_percent(points[labels]) if labels in points else "" for labels in counts]
        for method, points in errors.items()
    }
    return {"labels": [f"{labels:,}" for labels in counts], **cells}


def get_tables(errors: Errors) -> list[Table]:
    """The same in tables of a few methods each, for a terminal of 80 columns."""
    labels, *columns = get_columns(errors).items()
    tables = []
    for start in range(0, len(columns), METHODS_ABREAST):
        table = Table(box=None, padding=(0, 1, 0, 0))
        shown = [labels, *columns[start : start + METHODS_ABREAST]]
        for name, _ in shown:
            heading = name.replace("-", "-\n") if len(name) > WIDEST_HEADING else name
            table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
        for row in zip(*(cells for _, cells in shown), strict=True):
            table.add_row(*row)
        tables.append(table)
    return tables


def _percent(error: Estimate) -> str:
    """``19.6 ± 1.2``; ``19.6 ≤78.7`` where the interval goes down to 0, ``≥`` up to 100."""
    digits = 1 if error.mean >= 0.1 else 2
    mean, low, high, margin = (
        f"{100 * share:.{digits}f}" for share in (*error[:3], error.high - error.mean)
    )
    if error.seeds < 2:
        return mean
    if error.is_low_open:
        return f"{mean} ≤{high}"
    return f"{mean} ≥{low}" if error.is_high_open else f"{mean} ± {margin}"
