"""Compares finished runs: groups over seeds, tables, which hyperparameters mattered. No Keras.

Runs that differ in their seed alone (same data, configuration, limit and models) form a group. A
difference counts only where the 95 % intervals of the means do not overlap (Student's t over the
seeds).
"""

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from cae import terminal
from cae.config.architecture import describe_variants
from cae.config.choices import TABLE_COLUMNS
from cae.config.study import hyperparameters_of, is_larger_better
from cae.config.study_schema import METRICS, BestEncoder
from cae.data.sources import TEST_SPLIT
from cae.errors import UsageError, printable, shown
from cae.files import new_file, new_folder, write_csv, write_figures
from cae.records.evaluation import estimate
from cae.records.run import MODEL_FILE, TRIALS_FILE, FileRecord
from cae.studies.results import RunResult, read_runs, read_study, read_trials

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INFLUENCE = ("hyperparameter", "value", "configurations", "mean", "sd")
# Flags that the values of a run depend on.
GIVEN = {"limit", "labels_per_class", "no_pretrained", "encoder_until", "model_input_range"}
# Flags that make other data of the same files, and the default of one that may be given.
READ_AS = {"invert", "transpose", "test_split"}
DEFAULT_SPLIT = ("test_split", TEST_SPLIT)
TEXTS = (TABLE_COLUMNS["name"], *INFLUENCE[:2])  # columns that are not numbers


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
        return estimate(self.values, 0, 1 if self.is_larger_better else math.inf)[1:3]

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
    """Groups runs of one kind that differ in their seed alone.

    The best mean comes first, groups without a finite value come last. Their names are those of the
    configurations, without what all begin with.
    """
    members = _split(results, _origin).values()
    names = terminal.drop_common_start([results[0].name for results in members])
    groups = [Group(name, results, metric) for name, results in zip(names, members, strict=True)]
    return sorted(
        groups, key=lambda g: (math.isnan(g.mean), -g.mean if g.is_larger_better else g.mean)
    )


def _split(
    results: Iterable[RunResult], get_key: Callable[[RunResult], Any]
) -> dict[Any, list[RunResult]]:
    parts: dict[Any, list[RunResult]] = {}
    for result in results:
        parts.setdefault(get_key(result), []).append(result)
    return parts


def _origin(result: RunResult) -> str:
    """What the values of a run depend on, apart from its seed, as JSON."""
    given = result.start.arguments
    unlabelled = [file.sha256 for file in result.start.data.get("unlabelled", [])]
    models = result.describe_models() or given.model
    hyperparameters = hyperparameters_of(result.history.model_info)
    flags = given.model_dump(include=GIVEN)
    return json.dumps([_data_key(result), unlabelled, models, flags, hyperparameters])


def _data_key(result: RunResult) -> tuple[tuple[str, Any], ...]:
    files = ((role, file.sha256) for role, file in _labelled_files(result))
    return (*files, *_get_reading(result).items())


def _get_reading(result: RunResult) -> dict[str, Any]:
    """The flags that make other data of the same files, without defaults."""
    given = result.start.arguments.model_dump(include=READ_AS, exclude_none=True)
    return {name: value for name, value in given.items() if (name, value) != DEFAULT_SPLIT}


def _labelled_files(result: RunResult) -> list[tuple[str, FileRecord]]:
    """Role and file: runs with and without unlabelled images are compared."""
    data = result.start.data.items()
    return [(role, file) for role, files in data if role != "unlabelled" for file in files]


# --- Choosing -------------------------------------------------------------------------------


def best_of(groups: list[Group]) -> RunResult | None:
    """The best seed of the best configuration."""
    return groups[0].best if groups else None


def best_paths(results: Iterable[RunResult], metric: str) -> list[Path]:
    """The folder of the best run of each base."""
    bases = _split(results, lambda result: result.base).values()
    best = [best_of(group_results(members, metric)) for members in bases]
    return [result.path for result in best if result]


def get_finalists(folder: Path, count: int) -> set[tuple[str, str]]:
    """The (base, configuration) pairs that are trained in full after a screening.

    Args:
        folder: The folder of the screening, which is a study.
        count: How many of each base; fewer where fewer have a finite value.
    """
    metric = read_trials(folder).metric
    return {
        (base, group.results[0].name)
        for base, members in _split(read_study(folder), lambda result: result.base).items()
        for group in group_results(members, metric)[:count]
        if group.values
    }


def best_model(folder: Path, encoder: BestEncoder) -> Path:
    """The model of the best trial of a base in a finished study.

    Raises:
        UsageError: The study has not run, or has not kept that model.
    """
    if (folder / TRIALS_FILE).exists():
        results = [result for result in read_study(folder) if result.base == encoder.base]
        for path in best_paths(results, read_trials(folder).metric):
            if not (path / MODEL_FILE).exists():
                raise UsageError(
                    path,
                    "must contain the model of the best trial",
                    "none",
                    f"Run the study {encoder.study} again; it retrains that trial.",
                )
            return path / MODEL_FILE
    raise UsageError(
        folder,
        f"must contain a finished study with the base {encoder.base}",
        "none",
        f"Run the study {encoder.study} first with the same --runs-dir, or a chain of both.",
    )


# --- What the numbers say -------------------------------------------------------------------


def sort_groups(groups: list[Group], key: str) -> list[Group]:
    """Sorts ranked groups by a column, empty cells last; metrics and accuracies best first."""
    if key == "mean":
        return groups
    known = [group for group in groups if group.cell(key) is not None]
    others = [group for group in groups if group.cell(key) is None]
    kind, metric = groups[0].results[0].history.kind, groups[0].metric if key == "best" else key
    descending = is_larger_better(kind, metric)
    return sorted(known, key=lambda group: group.cell(key), reverse=descending) + others


def verdict(groups: list[Group]) -> str:
    """One sentence: which of the ranked groups is best, or why none can be called best."""
    known = [group for group in groups if group.values]
    if len(known) < 2:
        if not known:
            return "No run has a finite value."
        only = "the only one" + " with a finite value" * (len(groups) > 1)
        return f"Best: {known[0].name}, {only}."
    first, second = known[:2]
    values = f"{first.metric} {first.mean:.4g} and {second.mean:.4g}"
    if first.interval is None or second.interval is None or first.sd == second.sd == 0:
        return (
            f"No winner: the best two, {values}, may differ by chance. Train with more seeds to "
            "see how much is chance."
        )
    lows, highs = zip(first.interval, second.interval, strict=True)
    if min(highs) >= max(lows):
        return f"No winner: the 95 % intervals of the best two means, {values}, overlap."
    return (
        f"Best: {first.name}, ahead of {second.name} ({values}; the 95 % intervals do not overlap)."
    )


def get_differences(groups: Sequence[Group]) -> dict[str, list[str]]:
    """The hyperparameters in which groups differ, each with its value in every group.

    Layers that differ within a base are described by their changes from its most frequent ones,
    such as ``+ drop 0.2``.
    """
    first = [group.results[0] for group in groups]
    given = [
        {"base": result.base}
        | result.start.arguments.model_dump(include={*GIVEN, "unlabelled"})
        | hyperparameters_of(result.history.model_info)
        for result in first
    ]
    for values, result in zip(given, first, strict=True):
        if model := result.start.arguments.model:
            values["encoder_layers"] = model  # as where the configuration names a file
    differing = {}
    for key in dict.fromkeys(key for values in given for key in values):
        values = [values.get(key) for values in given]
        if key.endswith("_layers"):
            values = describe_variants(values, [result.base for result in first])
        texts = [value if isinstance(value, str) else shown(value) for value in values]
        if len(set(texts)) > 1:
            differing[key] = texts
    return differing


def influences(groups: Sequence[Group]) -> list[tuple[str, str, int, float, float]]:
    """How the metric changes with each varied hyperparameter, the largest difference first.

    The means are over configurations that differ in other keys as well: a hint, not a proof. Keys
    that change together share their rows, with the values of the first. Keys with another value in
    every configuration are left out: the ranking says as much.

    Returns:
        The columns `INFLUENCE`: for each value of each hyperparameter how many configurations
        have it, and the mean and the standard deviation of their means (NaN for one).
    """
    known = [group for group in groups if group.values]
    together: dict[tuple[int, ...], list[str]] = {}
    differences = get_differences(known)
    for key, values in differences.items():
        together.setdefault(tuple(map(values.index, values)), []).append(key)
    means: dict[str, dict[str, list[float]]] = {}
    for pattern, keys in together.items():
        if len(set(pattern)) < len(pattern):
            values = means[", ".join(keys)] = {}
            for value, group in zip(differences[keys[0]], known, strict=True):
                values.setdefault(value, []).append(group.mean)

    def difference(key: str) -> float:
        return max(map(fmean, means[key].values())) - min(map(fmean, means[key].values()))

    return [
        (key, value, len(m), fmean(m), stdev(m) if len(m) > 1 else math.nan)
        for key in sorted(means, key=difference, reverse=True)
        for value, m in means[key].items()
    ]


# --- Tables, files and figures --------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Compares runs or studies on the terminal, and in the files that the flags name."""
    results, problems = read_runs(map(Path, args.runs))
    if not results:
        raise UsageError("RUN", "must name finished runs", "none", "Train some first.")
    if args.csv:
        new_file(args.csv)
    if args.figures:
        new_folder("--figures", args.figures)
    for problem in problems:
        terminal.warn(f"Skipped: {problem}")
    tables = _compare_by_kind(args.runs, results)
    _print_tables(tables, args.sort)
    if args.csv:
        write_table(Path(args.csv), [group for _, groups in tables for group in groups])
    if args.figures:
        terminal.announce("Drawing figures")
        folders = [Path(args.figures)]
        if len(tables) > 1:
            folders = [folders[0] / f"data-{number}" for number in range(1, len(tables) + 1)]
        for folder, (_, groups) in zip(folders, tables, strict=True):
            if best_of(groups):
                for path in write_figures(folder, draw_comparison(groups)):
                    terminal.say(f"Figure: {terminal.relative(path)}")
    return 0


def print_runs(paths: Sequence[Path]) -> None:
    """Prints the table of complete runs, given their folders."""
    results, _ = read_runs(paths)
    _print_tables(_compare_by_kind(paths, results))


def _print_tables(tables: list[tuple[str, list[Group]]], sort: str = "mean") -> None:
    for title, groups in tables:
        print_comparison(title, groups, sort_groups(groups, sort))


def _choose_metric(paths: Sequence[str | Path], results: Sequence[RunResult]) -> str:
    """The metric of the studies if they agree on one, otherwise the first of the kind.

    Where no run has validation images, it is the same metric on the training images.
    """
    known = METRICS[results[0].history.kind]
    folders = [Path(path) for path in paths if (Path(path) / TRIALS_FILE).exists()]
    metrics = {read_trials(folder).metric for folder in folders} & known.keys()
    metric = metrics.pop() if len(metrics) == 1 else next(iter(known))
    is_known = any(metric in result.history.metrics for result in results)
    return metric if is_known else metric.removeprefix("val_")


def _compare_by_kind(
    paths: Sequence[str | Path], results: Sequence[RunResult]
) -> list[tuple[str, list[Group]]]:
    """For each kind and data set a title and the groups."""
    by_kind = _split(results, lambda result: result.history.kind)
    tables = []
    for kind, members in by_kind.items():
        title = f"Comparison of {kind}s" if len(by_kind) > 1 else "Comparison"
        tables += _compare_by_data(members, _choose_metric(paths, members), title)
    return tables


def _compare_by_data(
    results: list[RunResult], metric: str, title: str
) -> list[tuple[str, list[Group]]]:
    """For each data set a title and the groups, of which no two have the same name.

    Of runs that are equal in everything, the seed included, only the latest is used.
    """

    def get_key(result: RunResult) -> tuple[str, int]:
        return _origin(result), result.history.model_info["seed"]

    latest = {get_key(result): result for result in sorted(results, key=lambda r: r.start.started)}
    for result in results:
        if latest[get_key(result)] is not result:
            terminal.warn(f"Left out: {result.path}: a later run has the same seed.")
    tables = []
    sets = _split(filter(lambda r: latest[get_key(r)] is r, results), _data_key).values()
    for members in sets:
        groups = group_results(members, metric)
        names = [group.name for group in groups]
        for number, group in enumerate(groups):
            if names.count(group.name) > 1:
                name = f"{group.name} ({group.results[0].path.name})"
                groups[number] = replace(group, name=name)
        data = f" on {_describe_data(members[0])}" if len(sets) > 1 else ""
        tables.append((f"{title}{data}", groups))
    return tables


def _describe_data(result: RunResult) -> str:
    files = (file for _, file in _labelled_files(result))
    names = [f"{printable(Path(file.path).name)} ({file.sha256[:8]})" for file in files]
    names += [f"{name.replace('_', ' ')} {value}" for name, value in _get_reading(result).items()]
    return ", ".join(names) or "unknown data"


def get_columns(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """The table of groups: its columns by their headings, without empty ones."""
    columns = {TABLE_COLUMNS[key]: [group.cell(key) for group in groups] for key in TABLE_COLUMNS}
    return {name: cells for name, cells in columns.items() if any(c is not None for c in cells)}


def print_comparison(title: str, ranked: list[Group], rows: list[Group]) -> None:
    """Prints the table, the influence of each hyperparameter, and the verdict.

    Args:
        title: Of the table.
        ranked: The groups, the best mean first.
        rows: The same groups in the order of the table.
    """
    metric, columns = ranked[0].metric, get_columns(rows)
    _print_rows(f"{title}: {metric}", columns, zip(*columns.values(), strict=True))
    found = influences(ranked)
    if found:
        _print_rows(f"Which hyperparameters mattered for {metric}", INFLUENCE, found)
    terminal.say(verdict(ranked))


def _print_rows(title: str, headings: Iterable[str], rows: Iterable[Sequence[Any]]) -> None:
    shown_rows = [dict(zip(headings, map(_format, row), strict=True)) for row in rows]
    terminal.print_rows(title, shown_rows, set(headings) - {*TEXTS})


def _format(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def write_table(path: Path, groups: Sequence[Group]) -> None:
    """Writes one CSV row per run: its names, hyperparameters and final values."""
    rows = [_describe_run(group, result) for group in groups for result in group.results]
    write_csv(path, rows)


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
        **result.start.arguments.model_dump(include=GIVEN),
        **hyperparameters,
        **result.history.metrics,
    }


def draw_comparison(groups: Sequence[Group]) -> "dict[str, Figure]":
    """The figures of `compare_visualization` for the groups with a finite value."""
    from cae.figures.comparisons import compare_visualization

    known = [group for group in groups if group.values]
    return compare_visualization(
        [[result.history for result in group.results] for group in known],
        [group.name for group in known],
        [group.values for group in known],
        [group.interval for group in known],
        known[0].metric,
    )
