"""Compares finished runs: groups over seeds, tables, which hyperparameters mattered. No Keras.

Runs that differ in their seed alone (same data, configuration, limit and models) form a group. A
difference counts only where the 95 % intervals of the means do not overlap (Student's t over the
seeds).
"""

import argparse
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from rich.table import Table

from cae import terminal
from cae.config.study import hyperparameters_of, is_larger_better
from cae.config.study_schema import METRICS, BestEncoder
from cae.errors import UsageError, shown
from cae.files import explaining, write_csv, write_figures
from cae.records.run import TRIALS_FILE
from cae.studies.choices import COLUMNS
from cae.studies.intervals import estimate
from cae.studies.results import RunResult, read_runs, read_study, read_trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    name: str
    results: list[RunResult]
    metric: str

    @property
    def values(self) -> list[float]:
        """The metric of every run that has a finite one."""
        values = [result.value(self.metric) for result in self.results]
        return [value for value in values if not math.isnan(value)]

    @property
    def mean(self) -> float:
        """Mean of the metric over the seeds; NaN without values."""
        return fmean(self.values) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation of the metric over the seeds; NaN for fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean, within what is possible; None for fewer than two seeds."""
        if len(self.values) < 2:
            return None
        _, low, high, *_ = estimate(self.values, 0, 1 if self.is_larger_better else math.inf)
        return low, high

    @property
    def is_larger_better(self) -> bool:
        """The direction of the metric."""
        return is_larger_better(self.results[0].history.kind, self.metric)

    @property
    def best(self) -> RunResult | None:
        """The run with the best value; None when no run has a finite one."""
        choose = max if self.is_larger_better else min
        known = [result for result in self.results if not math.isnan(result.value(self.metric))]
        return choose(known, key=lambda result: result.value(self.metric), default=None)

    def cell(self, key: str) -> Any:
        """The value in the column `key` of the table; None for an empty cell."""
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


def group_results(results: Iterable[RunResult], metric: str) -> list[Group]:
    """Groups runs that differ in their seed alone, the best mean first.

    Args:
        results: Runs of one kind.
        metric: The value to rank by; groups without a finite value come last.
    """
    groups: dict[str, list[RunResult]] = {}
    for result in results:
        key = json.dumps(_origin(result))
        groups.setdefault(key, []).append(result)
    unsorted = [Group(members[0].name, members, metric) for members in groups.values()]
    return sorted(unsorted, key=_rank)


def _origin(result: RunResult) -> list[Any]:
    """What the values of a run depend on, apart from its seed."""
    hyperparameters = hyperparameters_of(result.history.model_info)
    return [_data_key(result), hyperparameters, result.limit, result.models or result.encoder]


def _data_key(result: RunResult) -> tuple[tuple[str, str], ...]:
    return tuple((role, digest) for role, _, digest in result.data)


def _latest_of_seeds(results: Iterable[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """Keeps the latest of the runs that have everything in common, the seed too.

    Returns:
        The runs that count, and the earlier ones.
    """
    latest: dict[str, RunResult] = {}
    earlier = []
    for result in results:
        key = json.dumps([_origin(result), result.history.model_info["seed"]])
        other = latest.get(key)
        if other and other.started > result.started:
            earlier.append(result)
            continue
        if other:
            earlier.append(other)
        latest[key] = result
    return list(latest.values()), earlier


def _split_by_data(results: Iterable[RunResult]) -> list[list[RunResult]]:
    """The runs on each data set."""
    sets: dict[Any, list[RunResult]] = {}
    for result in results:
        sets.setdefault(_data_key(result), []).append(result)
    return list(sets.values())


def _describe_data(result: RunResult) -> str:
    files = [f"{name} ({digest[:8]})" for _, name, digest in result.data]
    return ", ".join(files) or "unknown data"


def _with_distinct_names(groups: list[Group]) -> list[Group]:
    """Adds the directory of a run to the names that several groups have."""
    names = [group.name for group in groups]
    return [
        replace(group, name=f"{group.name} ({group.results[0].path.name})")
        if names.count(group.name) > 1
        else group
        for group in groups
    ]


def _rank(group: Group) -> tuple[bool, float]:
    return math.isnan(group.mean), -group.mean if group.is_larger_better else group.mean


# --- Choosing -------------------------------------------------------------------------------


def best_of(groups: list[Group]) -> RunResult | None:
    """The best seed of the best configuration."""
    return groups[0].best if groups else None


def best_paths(results: list[RunResult], metric: str) -> list[Path]:
    """The directory of the best run of each base."""
    bases = dict.fromkeys(result.base for result in results)
    best = [
        best_of(group_results([r for r in results if r.base == base], metric)) for base in bases
    ]
    return [result.path for result in best if result]


def get_finalists(folder: Path, count: int) -> set[tuple[str, str]]:
    """The configurations that are trained in full after a screening.

    Args:
        folder: The directory of the screening, which is a study.
        count: How many of each base; fewer where fewer have a finite value.

    Returns:
        (base, configuration) pairs of names.
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
                    "must contain the model of the best trial",
                    "none",
                    f"Run the study {encoder.study} again; it retrains that trial.",
                )
            return path / "model.keras"
    raise UsageError(
        folder,
        f"must contain a finished study with the base {encoder.base}",
        "none",
        f"Run the study {encoder.study} first with the same --runs-dir, or a chain of both.",
    )


# --- What the numbers say -------------------------------------------------------------------


def sort_groups(groups: list[Group], key: str) -> list[Group]:
    """Sorts by a column, empty cells last; metrics and accuracies with the best first.

    Args:
        groups: From `group_results`.
        key: A key of `COLUMNS`.
    """
    if key == "mean":
        return groups
    known = [group for group in groups if group.cell(key) is not None]
    others = [group for group in groups if group.cell(key) is None]
    kind, metric = groups[0].results[0].history.kind, groups[0].metric if key == "best" else key
    descending = is_larger_better(kind, metric)
    return sorted(known, key=lambda group: group.cell(key), reverse=descending) + others


def verdict(groups: list[Group]) -> str:
    """One sentence: which configuration is best, or why none can be called best.

    Args:
        groups: The best mean first.
    """
    known = [group for group in groups if not math.isnan(group.mean)]
    if len(known) < 2:
        return f"Best: {known[0].name}, the only one." if known else "No run has a finite value."
    first, second = known[:2]
    values = f"{first.metric} {first.mean:.4g} against {second.mean:.4g}"
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
    return (
        f"Best: {first.name}, ahead of {second.name} ({values}; the 95 % intervals do not overlap)."
    )


@dataclass(frozen=True)
class Influence:
    """How the metric changes with one hyperparameter.

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
    """How the metric changes with each varied hyperparameter, the largest difference first.

    The means are over configurations that differ in other keys as well: a hint, not a proof.
    """
    known = [group for group in groups if not math.isnan(group.mean)]
    described = [
        {
            **hyperparameters_of(group.results[0].history.model_info),
            "base": group.results[0].base,
            "limit": group.results[0].limit,
        }
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


# --- Tables, files and figures --------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Compares runs or studies on the terminal, and in the files that the flags name."""
    found, problems = read_runs(map(Path, args.runs))
    results, earlier = _latest_of_seeds(found)
    kinds = {result.history.kind for result in results}
    if len(kinds) != 1:
        kinds_found = " and ".join(sorted(f"{kind}s" for kind in kinds)) or "no finished run"
        raise UsageError(
            "RUN", "must name runs of one kind", kinds_found, "Compare one kind at a time."
        )
    for flag, path in (("--csv", args.csv), ("--figures", args.figures)):
        if path and Path(path).exists():
            raise UsageError(flag, "must not exist yet", path, "Choose another name.")
    for problem in problems:
        terminal.warn(f"Left out: {problem}")
    for result in earlier:
        terminal.warn(f"Left out: {result.path}: a later run has the same seed.")
    metric = _choose_metric(args.runs, kinds.pop())
    tables = [
        _with_distinct_names(group_results(members, metric)) for members in _split_by_data(results)
    ]
    for groups in tables:
        data = f" on {_describe_data(groups[0].results[0])}" if len(tables) > 1 else ""
        title = f"Comparison{data}"
        print_comparison(title, groups, sort_groups(groups, args.sort))
    if args.csv:
        write_table(Path(args.csv), [group for groups in tables for group in groups])
    if args.figures:
        _write_comparisons(Path(args.figures), tables)
    return 0


def _write_comparisons(folder: Path, tables: list[list[Group]]) -> None:
    """Draws the figures of each data set; those of several in numbered folders."""
    for number, groups in enumerate(tables, 1):
        if not best_of(groups):
            continue
        target = folder if len(tables) == 1 else folder / f"data-{number}"
        with explaining(target):
            target.mkdir(parents=True)
        for path in write_figures(target, draw_comparison(groups)):
            terminal.say(f"Figure: {terminal.relative(path)}")


def _choose_metric(paths: list[str], kind: str) -> str:
    """The metric of the studies if they agree on one, otherwise the first of the kind."""
    folders = [Path(path) for path in paths if (Path(path) / TRIALS_FILE).exists()]
    metrics = {read_trials(folder).metric for folder in folders}
    return metrics.pop() if len(metrics) == 1 else next(iter(METRICS[kind]))


def print_comparison(title: str, ranked: list[Group], rows: list[Group]) -> None:
    """Prints the table, the influence of each hyperparameter, and the verdict.

    Args:
        title: Of the table.
        ranked: The groups, the best mean first.
        rows: The same groups in the order of the table.
    """
    keys = [key for key in COLUMNS if any(group.cell(key) is not None for group in rows)]
    metric = ranked[0].metric
    table = Table(title=f"{title}: {metric}", title_justify="left")
    for key in keys:
        if key == "name":
            table.add_column(COLUMNS[key], overflow="fold", min_width=12)
        else:
            table.add_column(COLUMNS[key], justify="right", no_wrap=True)
    for group in rows:
        table.add_row(*(_format(group.cell(key)) for key in keys))
    terminal.print_table(table)
    found = influences(ranked)
    if found:
        mattered = Table(title=f"Which hyperparameters mattered for {metric}", title_justify="left")
        mattered.add_column("hyperparameter")
        mattered.add_column("mean (sd; configurations) of each value")
        for influence in found:
            mattered.add_row(influence.key, "\n".join(_describe_values(influence.values)))
        terminal.print_table(mattered)
    terminal.say(verdict(ranked))


def _describe_values(values: dict[str, tuple[int, float, float]]) -> Iterator[str]:
    for text, (count, mean, sd) in values.items():
        yield f"{text}: {mean:.4g} ({'–' if math.isnan(sd) else f'{sd:.2g}'}; {count})"


def _format(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def write_table(path: Path, groups: Sequence[Group]) -> None:
    """Writes one CSV row per run: its names, hyperparameters and final values."""
    rows = [_describe_run(group, result) for group in groups for result in group.results]
    write_csv(
        path, [{_harmless(key): _harmless(value) for key, value in row.items()} for row in rows]
    )


def _describe_run(group: Group, result: RunResult) -> dict[str, Any]:
    info = result.history.model_info
    hyperparameters = {
        key: json.dumps(value) if isinstance(value, list | dict) else value
        for key, value in hyperparameters_of(info).items()
    }
    return {
        "run": result.path.name,
        "configuration": group.name,
        "base": result.base,
        "seed": info["seed"],
        "data": _describe_data(result),
        "limit": result.limit,
        **hyperparameters,
        **result.history.metrics,
    }


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet reads as a formula: names may come from an untrusted source."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    return f"'{value}" if is_formula else value


def draw_comparison(groups: Sequence[Group]) -> "dict[str, Figure]":
    """The figures of `compare_visualization` for the groups with a finite value."""
    from cae.figures.comparisons import compare_visualization

    known = [group for group in groups if group.values]
    return compare_visualization(
        [result.history for group in known for result in group.results],
        [group.name for group in known],
        [group.values for group in known],
        [group.interval for group in known],
        known[0].metric,
    )
