"""Records of runs, compared: tables, spread over seeds, what mattered. No Keras.

Runs of the same configuration that differ in their seed alone make one group. A difference counts
only where the 95 % intervals of the means do not overlap (Student's t over the seeds).
"""

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import BaseModel, TypeAdapter, ValidationError

from cae.config.json_text import load_record
from cae.config.load import validate_config
from cae.config.study import hyperparameters_of, is_larger_better
from cae.config.study_schema import BestEncoder
from cae.config.values import Number
from cae.errors import DataError, UsageError, printable, shown
from cae.records.history import History
from cae.records.run import TRIALS_FILE
from cae.studies.intervals import estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure


DONE = "done"
# Columns of the table beside the metric: key -> heading.
COLUMNS = {
    "name": "configuration",
    "seeds": "seeds",
    "mean": "mean",
    "sd": "sd",
    "best": "best",
    "test_accuracy": "test accuracy",
    "parameters": "parameters",
    "seconds": "seconds",
}


@dataclass(frozen=True)
class Result:
    """The record of one complete run.

    Attributes:
        path: Its directory.
        name: What its configuration is called, whatever the seed.
        base: The name of the configuration that it is a variation of.
        history: Its epochs, hyperparameters and final values.
        encoder: The saved model that its encoder came from; None without.
    """

    path: Path
    name: str
    base: str
    history: History
    encoder: str | None = None

    def value(self, metric: str) -> float:
        """A final value; NaN where the run has none that is finite."""
        value = self.history.metrics.get(metric, math.nan)
        return value if math.isfinite(value) else math.nan


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    name: str
    results: list[Result]
    metric: str

    @property
    def values(self) -> list[float]:
        """The metric of every run that has it."""
        values = [result.value(self.metric) for result in self.results]
        return [value for value in values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Mean of the metric over the seeds; NaN without any."""
        return fmean(self.values) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation of the metric over the seeds; NaN for fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean; None for fewer than two seeds."""
        if len(self.values) < 2:
            return None
        mean, margin, _ = estimate(self.values)
        return mean - margin, mean + margin

    @property
    def best(self) -> Result | None:
        """The run with the best value; None when no run has one."""
        choose = max if is_larger_better(self.results[0].history.kind, self.metric) else min
        known = [result for result in self.results if not math.isnan(result.value(self.metric))]
        return choose(known, key=lambda result: result.value(self.metric), default=None)

    def cell(self, key: str) -> Any:
        """The value of a column of the table; None where there is none."""
        if key in ("name", "mean", "sd"):
            value = getattr(self, key)
        elif key == "seeds":
            value = len(self.results)
        elif key == "best":
            value = self.best.value(self.metric) if self.best else math.nan
        else:
            known = [r.history.metrics[key] for r in self.results if key in r.history.metrics]
            value = fmean(known) if known else math.nan
        return None if isinstance(value, float) and math.isnan(value) else value


def read_result(path: Path, name: str | None = None, base: str | None = None) -> Result:
    """Reads the record of a run.

    Args:
        path: Its directory.
        name: What to call its configuration; by default the name of the run.
        base: What its configuration is a variation of; by default itself.

    Raises:
        DataError: It is no complete run, or its record is damaged.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        kind = "classifier" if "dense_layers" in config else "autoencoder"
        config = validate_config(config, str(path / "config.json"), kind).model_dump(mode="json")
        text = (path / "metrics.json").read_text(encoding="utf-8")
        metrics = TypeAdapter(dict[str, Number]).validate_json(text)
        with (path / "history.csv").open(encoding="utf-8", newline="") as file:
            epochs = [_parse_row(row) for row in csv.DictReader(file)]
        start = json.loads((path / "run.json").read_text(encoding="utf-8"))
        name, base = printable(name or start["name"]), printable(base or name or start["name"])
        title = f"{name}, seed {config['seed']}"
        history = History(title, kind, config, epochs, metrics["best_epoch"], metrics)
        return Result(path, name, base, history, start["arguments"].get("model"))
    except FileNotFoundError as error:
        problem, cause = f"no {Path(error.filename).name} in it", error
    except OSError as error:
        problem, cause = error.strerror, error
    except ValidationError as error:
        raise DataError.from_validation(
            path / "metrics.json", error, dict[str, Number], "Restore the file and run again."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        problem, cause = f"a record that cannot be read ({error})", error
    raise DataError(
        path, "must be a complete run", problem, "Name a folder that holds metrics.json."
    ) from cause


def _parse_row(row: dict[str, str]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for key, text in row.items():
        if text:
            parsed[key] = text if key == "phase" else float(text)
    return parsed | {"epoch": int(row["epoch"])}


class TrialRecord(BaseModel):
    """What a study has recorded of a trial, as far as it is needed here."""

    id: str
    base: str
    configuration: str
    status: str
    reason: str


class StudyRecord(BaseModel):
    """What a study has recorded of itself, as far as it is needed here."""

    name: str
    metric: str
    command: str
    trials: list[TrialRecord]


def read_trials(folder: Path) -> StudyRecord:
    """Reads what a study has recorded of itself.

    Raises:
        DataError: There is no such record, or it is damaged.
    """
    return load_record(folder / TRIALS_FILE, StudyRecord, "Run the study again.")


def read_study(folder: Path) -> list[Result]:
    """The trials of a study that are done."""
    return [
        read_result(folder / trial.id, trial.configuration, trial.base)
        for trial in read_trials(folder).trials
        if trial.status == DONE
    ]


def read_runs(path: Path) -> list[Result]:
    """Reads a run, or all finished trials of a study."""
    return read_study(path) if (path / TRIALS_FILE).exists() else [read_result(path)]


def group_results(results: Iterable[Result], metric: str) -> list[Group]:
    """Puts runs together that differ in their seed alone, the best mean first.

    Args:
        results: Of one kind.
        metric: What to rank them by; runs without a finite value come last.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        key = json.dumps([hyperparameters_of(result.history.model_info), result.encoder])
        groups.setdefault(key, []).append(result)
    unsorted = [Group(members[0].name, members, metric) for members in groups.values()]
    return sorted(unsorted, key=_rank)


def _rank(group: Group) -> tuple[bool, float]:
    sign = -1 if is_larger_better(group.results[0].history.kind, group.metric) else 1
    return (math.isnan(group.mean), sign * group.mean)


def best_of(groups: list[Group]) -> Result | None:
    """The run to go on with: of the best configuration the best seed."""
    return groups[0].best if groups else None


def best_paths(results: list[Result], metric: str) -> list[Path]:
    """The run to keep of each base."""
    bases = dict.fromkeys(result.base for result in results)
    best = [
        best_of(group_results([r for r in results if r.base == base], metric)) for base in bases
    ]
    return [result.path for result in best if result]


def get_finalists(folder: Path, count: int) -> set[tuple[str, str]]:
    """The configurations that go on after a screening.

    Args:
        folder: Of the screening, a study.
        count: How many of each base; fewer where fewer have a finite value.

    Returns:
        Names of bases and of their configurations.
    """
    results, metric = read_study(folder), read_trials(folder).metric
    finalists = set()
    for base in {result.base for result in results}:
        groups = group_results([result for result in results if result.base == base], metric)
        finalists |= {(base, group.name) for group in groups[:count] if group.values}
    return finalists


def best_model(folder: Path, encoder: BestEncoder) -> Path:
    """The model of the best trial of a base in a finished study.

    Raises:
        UsageError: The study has not run, or has not kept that model.
    """
    if (folder / TRIALS_FILE).exists():
        results = [result for result in read_study(folder) if result.base == encoder.base]
        for path in best_paths(results, read_trials(folder).metric):
            if not (path / "model.keras").exists():
                raise UsageError(
                    path,
                    "must hold the model of the best trial",
                    "none",
                    "Run its study again, which trains that one again.",
                )
            return path / "model.keras"
    raise UsageError(
        folder,
        f"must hold a finished study with the base {encoder.base}",
        "none",
        f"Run the study {encoder.study} first, with the same --runs-dir, or a chain of both.",
    )


def sort_groups(groups: list[Group], key: str) -> list[Group]:
    """Sorts by a column, what has no value last; by the metric and accuracies the best first.

    Args:
        groups: From `group_results`.
        key: One of `COLUMNS`.
    """
    if key == "mean":
        return groups
    known = [group for group in groups if group.cell(key) is not None]
    others = [group for group in groups if group.cell(key) is None]
    kind, metric = groups[0].results[0].history.kind, groups[0].metric if key == "best" else key
    descending = is_larger_better(kind, metric)
    return sorted(known, key=lambda group: group.cell(key), reverse=descending) + others


def verdict(groups: list[Group]) -> str:
    """One sentence on which configuration is best, if any can be told from the next.

    Args:
        groups: The best mean first.
    """
    known = [group for group in groups if not math.isnan(group.mean)]
    if len(known) < 2:
        return f"Best: {known[0].name}, the only one." if known else "No run has a finite value."
    first, second = known[:2]
    values = f"{first.metric} {_short(first.mean)} against {_short(second.mean)}"
    if first.interval is None or second.interval is None:
        return (
            f"No winner: {first.name} leads {second.name} ({values}), but one seed does not show "
            "how much is chance. Train with several seeds."
        )
    if min(first.interval[1], second.interval[1]) >= max(first.interval[0], second.interval[0]):
        return (
            f"No winner: {first.name} leads {second.name} ({values}), within the noise: the 95 % "
            "intervals of their means overlap."
        )
    return f"Best: {first.name}, ahead of {second.name} ({values}; 95 % intervals apart)."


@dataclass(frozen=True)
class Influence:
    """What a hyperparameter did to the metric.

    Attributes:
        key: The hyperparameter.
        values: For each of its values: how many configurations have it, and the mean and the
            standard deviation of their means (NaN for one).
    """

    key: str
    values: dict[str, tuple[int, float, float]]

    @property
    def difference(self) -> float:
        """The largest difference between the means of two values."""
        means = [mean for _, mean, _ in self.values.values()]
        return max(means) - min(means)


def influences(groups: Sequence[Group]) -> list[Influence]:
    """What each hyperparameter that varies did to the metric, the largest difference first.

    A mean over configurations that differ in other keys as well: a hint of where to look, no proof.
    """
    known = [group for group in groups if not math.isnan(group.mean)]
    described = [
        {**hyperparameters_of(group.results[0].history.model_info), "base": group.results[0].base}
        for group in known
    ]
    found = []
    for key in dict.fromkeys(key for values in described for key in values):
        means: dict[str, list[float]] = {}
        for group, values in zip(known, described, strict=True):
            means.setdefault(shown(values.get(key)), []).append(group.mean)
        if len(means) > 1:
            found.append(Influence(key, {text: _summary(m) for text, m in means.items()}))
    return sorted(found, key=lambda influence: -influence.difference)


def _summary(means: list[float]) -> tuple[int, float, float]:
    return len(means), fmean(means), stdev(means) if len(means) > 1 else math.nan


def draw_comparison(groups: Sequence[Group]) -> "dict[str, Figure]":
    """The figures of `compare_visualization`, of the runs that have the metric."""
    from cae.figures.comparisons import compare_visualization

    known = [group for group in groups if group.values]
    return compare_visualization(
        [result.history for group in known for result in group.results],
        [group.name for group in known],
        [group.values for group in known],
        [group.interval for group in known],
        known[0].metric,
    )


def write_csv(groups: Sequence[Group]) -> Callable[[TextIO], None]:
    """A function that writes one row a run: its place, hyperparameters and final values."""
    rows = []
    for group in groups:
        for result in group.results:
            info = result.history.model_info
            rows.append(
                {
                    "run": result.path.name,
                    "configuration": group.name,
                    "base": result.base,
                    "seed": info["seed"],
                    **{key: _text(value) for key, value in hyperparameters_of(info).items()},
                    **result.history.metrics,
                }
            )

    def write(file: TextIO) -> None:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(map(_harmless, columns))
        writer.writerows([_harmless(row.get(key, "")) for key in columns] for row in rows)

    return write


def _text(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula: a name can come from a stranger."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if is_formula else value


def _short(value: float) -> str:
    return f"{value:.4g}"
