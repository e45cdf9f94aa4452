"""What a run, a study, a chain of studies or label-efficiency came to, as one HTML page. No Keras.

python experiments.py report runs/research
python experiments.py report runs/2026-11-23T12-00-00Z-autoencoder_small --output small.html

Curves, comparisons and confusion matrices are drawn anew from the records. Pictures that take a
model or images (reconstructions, filters, labelled images) are those that lie in `plots/`.
"""

import argparse
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel

from cae import terminal
from cae.config.architecture import describe_architecture
from cae.config.json_text import load_record
from cae.config.load import format_config
from cae.config.shapes import format_shape
from cae.data.named import NAMED_DATASETS
from cae.errors import DataError
from cae.files import FIGURE_DPI
from cae.records.evaluation import read_predictions
from cae.records.history import History
from cae.records.run import PARTIAL, TRIALS_FILE, FileRecord, Start, read_start
from cae.report.pages import (
    Code,
    Facts,
    Folded,
    Gallery,
    Page,
    Picture,
    Section,
    Table,
    Text,
    check_page_path,
    draw,
    embed,
    write_page,
)
from cae.studies.compare import (
    COLUMNS,
    Group,
    best_of,
    draw_comparison,
    group_results,
    influences,
    verdict,
)
from cae.studies.label_results import (
    METHODS,
    TABLE_TITLE,
    Measurement,
    conclude,
    get_columns,
    get_curves,
    read_results,
    summarize,
)
from cae.studies.results import (
    RunResult,
    StudyRecord,
    read_result,
    read_study,
    read_trials,
)

OUTPUT = "report.html"
# What is shown large: key of `metrics.json` -> what it is.
KEY_VALUES = {
    "test_accuracy": "test accuracy",
    "test_macro_f1": "test macro F1",
    "val_accuracy": "validation accuracy",
    "val_mse": "validation mean squared error",
    "val_loss": "validation loss",
    "parameters": "parameters",
    "seconds": "seconds of training",
}
# Of what a run or a study has drawn, what cannot be drawn from its record.
PICTURES = {
    "reconstructions": "Images, their reconstructions, and the difference between the two",
    "worst_reconstructions": "The images that came out worst",
    "filters": "Filters of the first convolution",
    "encodings": "Encodings of images in two dimensions: near each other lies what is alike",
    "wrong": "Images that it classified wrongly, the most confident mistakes first",
    "correct": "Images that it classified correctly",
}
COMPARISONS = {
    "final_values": "What each configuration reached",
    "comparison": "Every run's epochs, and the best one of each",
    "costs": "What better values cost in parameters and time",
}


def run(args: argparse.Namespace) -> int:
    """Writes the page of a directory; returns the exit code."""
    folder = Path(args.folder)
    describe = _find_kind(folder)
    path = Path(args.output) if args.output else folder / OUTPUT
    check_page_path(path)
    write_page(path, describe(folder))
    terminal.say(f"Report: {terminal.relative(path)}, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _find_kind(folder: Path) -> Callable[[Path], Page]:
    """What describes a directory, judged by the files in it.

    Raises:
        DataError: It holds nothing to report on.
    """
    if (folder / TRIALS_FILE).exists():
        return describe_study
    if (folder / "settings.json").exists() and (folder / "results.csv").exists():
        return describe_label_efficiency
    if (folder / "config.json").exists():
        return describe_run
    if any(folder.glob(f"*/{TRIALS_FILE}")):
        return describe_chain
    raise DataError(
        folder,
        "must be the directory of a finished run or of a study",
        "none of their files in it" if folder.is_dir() else "no directory",
        "Name one in runs.",
    )


# --- What a directory holds -----------------------------------------------------------------


class DataRecord(BaseModel):
    """What a run has recorded of a data set."""

    name: str
    shape: list[int]
    dtype: str
    files: list[FileRecord]


class DataRecords(BaseModel):
    """The data sets of a run by their role."""

    training: DataRecord
    test: DataRecord | None = None


class Environment(BaseModel):
    """What a run has recorded of its surroundings, as far as it is needed here."""

    command: str
    started: str
    seed: int | None
    device: str | None
    cores: int | None
    platform: str
    python: str
    versions: dict[str, str]
    git_commit: str | None
    data: DataRecords


class LabelSettings(BaseModel):
    """What label-efficiency was measured with: SHA-256s, and what was trained."""

    model: str
    pretraining: str
    data: str
    test: str
    config: dict[str, Any]
    steps: int
    leakage: list[str]


def _read_environment(folder: Path) -> Environment:
    return load_record(folder / "environment.json", Environment)


class Stage(NamedTuple):
    """A study as it was recorded, with the surroundings of its finished trials."""

    folder: Path
    record: StudyRecord
    results: list[RunResult]
    environments: list[Environment]


def _read_stage(folder: Path) -> Stage:
    results = read_study(folder)
    environments = [_read_environment(result.path) for result in results]
    return Stage(folder, read_trials(folder), results, environments)


# --- Pages ----------------------------------------------------------------------------------


def describe_run(folder: Path) -> Page:
    """The page of a run of `autoencoder.py` or `classification.py`.

    Raises:
        DataError: It is not complete, or its record is damaged.
    """
    result, environment, start = read_result(folder), _read_environment(folder), read_start(folder)
    history = result.history
    again = [_repeat_command(folder, start)]
    interrupted = ", interrupted" if folder.name.endswith(PARTIAL) else ""
    return Page(
        f"{history.kind.capitalize()} {result.name}{interrupted}",
        f"{_describe_architecture(result)}. Trained on {environment.data.training.name}, "
        f"seed {history.model_info['seed']}, {_date(environment.started)}.",
        [
            Section("Result", [_key_facts(history)]),
            *_run_sections(result, folder / "plots"),
            *_origin_sections([environment], start.models, again),
        ],
    )


def describe_study(folder: Path) -> Page:
    """The page of a study.

    Raises:
        DataError: Its record, or that of a trial, is damaged.
    """
    stage = _read_stage(folder)
    return Page(
        f"Study {stage.record.name}",
        _describe_trials(stage.record),
        [*_study_sections(stage), *_origin_sections_of([stage])],
    )


def describe_chain(folder: Path) -> Page:
    """The page of studies that ran one after another, in the order in which they began.

    Raises:
        DataError: The record of one, or that of a trial, is damaged.
    """
    stages = sorted(
        (_read_stage(path.parent) for path in folder.glob(f"*/{TRIALS_FILE}")),
        key=lambda stage: min((e.started for e in stage.environments), default="9"),
    )
    conclusions = {
        stage.folder.name: verdict(group_results(stage.results, stage.record.metric))
        for stage in stages
    }
    return Page(
        f"Study {folder.name}",
        f"{len(stages)} studies, one after another: {', '.join(conclusions)}.",
        [
            Section("In short", [Facts(conclusions)]),
            *(
                Section(
                    stage.folder.name.capitalize(),
                    [Text(_describe_trials(stage.record))],
                    _study_sections(stage),
                )
                for stage in stages
            ),
            *_origin_sections_of(stages),
        ],
    )


def describe_label_efficiency(folder: Path) -> Page:
    """The page of what pretraining is worth.

    Raises:
        DataError: A file of it is damaged.
    """
    results = read_results(folder / "results.csv")
    settings = load_record(folder / "settings.json", LabelSettings)
    environment = _read_environment(folder)
    errors = summarize(results)
    # A page has room for the methods' full names.
    columns = {METHODS.get(name, name): cells for name, cells in get_columns(errors).items()}
    seeds = len({result.seed for result in results})
    return Page(
        "What pretraining is worth",
        f"{len(results)} models on {environment.data.training.name}, {seeds} seeds.",
        [
            Section(
                "Result",
                [
                    *(Text(sentence, leads=True) for sentence in conclude(results)),
                    _draw_label_efficiency(get_curves(errors)),
                    Table(TABLE_TITLE, columns, numeric=tuple(columns)),
                    Folded("Every model", [_label_table(results)]),
                ],
            ),
            Section("How it was measured", _settings_blocks(settings)),
            *_origin_sections([environment], [], [f"python {environment.command}"]),
        ],
    )


# --- Studies --------------------------------------------------------------------------------


def _describe_trials(record: StudyRecord) -> str:
    """How many trials there are, and what became of them."""
    counts = Counter(trial.status for trial in record.trials)
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    return (
        f"{len(record.trials)} trials: {listed or 'none'}. What decides is {record.metric}, on "
        "validation images."
    )


def _study_sections(stage: Stage) -> list[Section]:
    groups = group_results(stage.results, stage.record.metric)
    best = best_of(groups)
    blocks: list[Any] = [Text(verdict(groups), leads=True)]
    if groups:
        blocks.append(_group_table(groups, stage.record.metric))
    if best:
        blocks += _draw_comparisons(groups)
    return [
        Section("Comparison", blocks),
        *_mattered_sections(groups),
        *_failed_sections(stage.record),
        *_best_sections(stage, best),
        *([Section("All trials and configurations", _all_trials(groups))] if groups else []),
    ]


def _group_table(groups: list[Group], metric: str) -> Table:
    keys = [key for key in COLUMNS if any(group.cell(key) is not None for group in groups)]
    return Table(
        f"Configurations by {metric}, the best mean first; sd: standard deviation over seeds",
        {COLUMNS[key]: [group.cell(key) for group in groups] for key in keys},
        mark="best mean",
    )


def _draw_comparisons(groups: list[Group]) -> list[Picture]:
    figures = draw_comparison(groups)
    leading = f"{groups[0].name} leads with {groups[0].metric} {groups[0].mean:.4g}."
    return [
        draw(figures[name], caption, f"{caption}. {leading} The table above has the numbers.")
        for name, caption in COMPARISONS.items()
        if name in figures
    ]


def _mattered_sections(groups: list[Group]) -> list[Section]:
    rows = [
        (influence.key, value, count, mean, sd)
        for influence in influences(groups)
        for value, (count, mean, sd) in influence.values.items()
    ]
    if not rows:
        return []
    explanation = Text(
        "Means over configurations that differ in other hyperparameters as well: a hint of where "
        "to look, no proof."
    )
    caption = f"{groups[0].metric} by the value of what varied, the largest difference first"
    headings = ("hyperparameter", "value", "configurations", "mean", "sd")
    table = _table(caption, headings, rows)
    return [Section("Which hyperparameters mattered", [explanation, table])]


def _failed_sections(record: StudyRecord) -> list[Section]:
    rows = [(trial.id, trial.status, trial.reason) for trial in record.trials if trial.reason]
    if not rows:
        return []
    table = _table("They count nowhere above", ("trial", "what became of it", "reason"), rows)
    return [Section("Trials without a result", [table])]


def _best_sections(stage: Stage, best: RunResult | None) -> list[Section]:
    if best is None:
        return []
    intro = [Text(f"{best.path.name}: {_describe_architecture(best)}.")]
    # Trials draw nothing themselves; the study has drawn the best one.
    sections = _run_sections(best, stage.folder / "plots")
    return [Section("The best trial", [*intro, _key_facts(best.history)], sections)]


def _all_trials(groups: list[Group]) -> list[Any]:
    pairs = [(group, result) for group in groups for result in group.results]
    metrics = [result.history.metrics for _, result in pairs]
    columns = {
        "trial": [result.path.name for _, result in pairs],
        "seed": [result.history.model_info["seed"] for _, result in pairs],
        groups[0].metric: [result.value(groups[0].metric) for _, result in pairs],
        "test accuracy": [values.get("test_accuracy") for values in metrics],
        "epochs": [values.get("epochs") for values in metrics],
        "best epoch": [values.get("best_epoch") for values in metrics],
        "seconds": [values.get("seconds") for values in metrics],
    }
    known = {key: cells for key, cells in columns.items() if any(c is not None for c in cells)}
    return [
        Text("A click opens them. What is open is also printed."),
        Folded("Every trial", [Table("Every trial, by its configuration", known)]),
        *(
            Folded(f"Configuration {group.name}", [_config(group.results[0].history)])
            for group in groups
        ),
    ]


# --- Runs -----------------------------------------------------------------------------------


def _run_sections(result: RunResult, plots: Path) -> list[Section]:
    """What there is to see of a run.

    Args:
        result: Its record.
        plots: Where its pictures lie, if anywhere.
    """
    predictions = result.path / "predictions.csv"
    training = [_draw_curves(result.history)] if result.history.epochs else []
    pictures = [
        embed(plots / f"{name}.png", FIGURE_DPI, caption, f"{caption}.")
        for name, caption in PICTURES.items()
        if (plots / f"{name}.png").exists()
    ]
    return [
        Section("Training", [*training, Folded("Every epoch", [_epoch_table(result.history)])]),
        *([Section("Classified images", _test_blocks(result))] if predictions.exists() else []),
        *([Section("Pictures", pictures)] if pictures else []),
        Section("Configuration", [_config(result.history)]),
    ]


def _key_facts(history: History) -> Facts:
    facts = {
        name: _format_metric(key, history.metrics[key])
        for key, name in KEY_VALUES.items()
        if isinstance(history.metrics.get(key), int | float)
    }
    return Facts(facts | {"best epoch": f"{history.best_epoch} of {len(history.epochs)}"}, True)


def _format_metric(key: str, value: float) -> str:
    if "accuracy" in key:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if key == "parameters" or value >= 1000 else f"{value:.4g}"


def _describe_architecture(result: RunResult) -> str:
    layers = describe_architecture(result.history.model_info)
    if result.encoder:
        layers += f", with the encoder of {terminal.relative(result.encoder)}"
    return layers


def _config(history: History) -> Code:
    return Code(format_config(history.model_info))


def _draw_curves(history: History) -> Gallery:
    from cae.figures.curves import METRIC_NAMES, curve_figures
    from cae.figures.style import as_sentence

    pictures = []
    for metric, figure in curve_figures(history).items():
        caption = as_sentence(METRIC_NAMES[metric])
        pictures.append(draw(figure, caption, _describe_curve(history, metric, caption)))
    return Gallery(pictures)


def _describe_curve(history: History, metric: str, name: str) -> str:
    """What a curve shows, in words."""
    key = f"val_{metric}" if history.has(f"val_{metric}") else metric
    values = history.column(key)
    where = "validation" if key != metric else "training"
    kept = f", {history.best[key]:.4g} where the weights were kept" if key in history.best else ""
    return (
        f"{name} on {where} images over {len(values)} epochs: {values[0]:.4g} in the first, "
        f"{values[-1]:.4g} in the last{kept}."
    )


def _epoch_table(history: History) -> Table:
    keys = dict.fromkeys(key for row in history.epochs for key in row)
    columns = {key: [row.get(key) for row in history.epochs] for key in keys}
    return Table("What was recorded after each epoch", columns)


# --- Classified images ----------------------------------------------------------------------


def _test_blocks(result: RunResult) -> list[Any]:
    """The report and the confusion matrix of a classifier, from its predictions."""
    predicted = read_predictions(result.path / "predictions.csv")
    labels, predictions, classes = (
        values.tolist() for values in (predicted.labels, predicted.predictions, predicted.classes)
    )
    names = _class_names(result, classes, labels)
    right = sum(np.equal(labels, predictions))
    whose = "test" if "test_accuracy" in result.history.metrics else "validation"
    title = f"{right:,} of {len(labels):,} {whose} images classified correctly"
    return [
        Text(f"{title}, {100 * right / len(labels):.2f} %.", leads=True),
        _class_table(labels, predictions, names),
        _draw_confusion(labels, predictions, classes, names, title),
    ]


def _class_names(result: RunResult, classes: list[int], labels: list[int]) -> dict[int, str]:
    """A name for each label: first those that training saw, then those that it did not."""
    data = _read_environment(result.path).data.training.name
    known = NAMED_DATASETS[data].class_names if data in NAMED_DATASETS else ()
    texts = {label: str(label) for label in labels + classes} | dict(enumerate(known))
    unseen = sorted(set(labels) - set(classes))
    return {label: texts[label] for label in classes} | {
        label: f"{texts[label]} (unseen)" for label in unseen
    }


def _class_table(labels: list[int], predictions: list[int], names: dict[int, str]) -> Table:
    from sklearn.metrics import precision_recall_fscore_support

    report = precision_recall_fscore_support(
        labels, predictions, labels=list(names), zero_division=0.0
    )
    headings = ("precision", "recall", "F1", "images")
    values = dict(zip(headings, (column.tolist() for column in report), strict=True))
    return Table("Each class by itself", {"class": list(names.values())} | values)


def _draw_confusion(
    labels: list[int],
    predictions: list[int],
    classes: list[int],
    names: dict[int, str],
    title: str,
) -> Picture:
    from sklearn.metrics import confusion_matrix

    from cae.figures.classes import plot_confusion_matrix

    count = len(classes)
    counts = confusion_matrix(labels, predictions, labels=list(names))[:, :count]
    if len(names) > count:  # the figure has one row for all that training never saw
        counts = np.vstack([counts[:count], counts[count:].sum(axis=0)])
    figure = plot_confusion_matrix(counts, [names[label] for label in classes], title)
    description = f"{title}. Rows are true classes, columns predicted ones."
    return draw(figure, "Confusion matrix", description)


# --- Label efficiency -----------------------------------------------------------------------


def _draw_label_efficiency(curves: dict[str, list[tuple[int, float, float]]]) -> Picture:
    from cae.figures.comparisons import label_efficiency_visualization

    caption = "Test error of each method by the number of labels"
    description = f"{caption}. The table below has the numbers."
    return draw(label_efficiency_visualization(curves), caption, description)


def _settings_blocks(settings: LabelSettings) -> list[Any]:
    hashes = {
        "saved autoencoder": settings.model,
        "images it learned from": settings.pretraining,
        "training images and labels": settings.data,
        "test images and labels": settings.test,
    }
    facts = {
        "optimizer steps": f"{settings.steps:,} of every network",
        "exact duplicates": "; ".join(settings.leakage),
    }
    return [
        Facts(facts),
        Text("Head, optimizer and batch size of the networks:"),
        Code(format_config(settings.config)),
        _table("Content, whatever the files", ("what", "SHA-256"), hashes.items()),
    ]


def _label_table(results: Sequence[Measurement]) -> Table:
    ordered = sorted(results, key=lambda r: (r.labels, r.method, r.seed))
    return Table(
        "Every model: labels in all and those for validation, steps, test error",
        {key: [getattr(r, key) for r in ordered] for key in Measurement.model_fields},
    )


# --- Where it comes from, and how to repeat it ----------------------------------------------


def _origin_sections_of(stages: Sequence[Stage]) -> list[Section]:
    environments = [environment for stage in stages for environment in stage.environments]
    starts = [read_start(result.path) for stage in stages for result in stage.results]
    commands = dict.fromkeys(stage.record.command for stage in stages)
    models = [model for start in starts for model in start.models]
    return _origin_sections(environments, models, [f"python {command}" for command in commands])


def _origin_sections(
    environments: Sequence[Environment], models: Sequence[FileRecord], commands: Sequence[str]
) -> list[Section]:
    """Machine, versions, data, and the commands that repeat it."""
    if not environments:
        return [Section("How to repeat it", [Code("\n".join(commands))])]
    return [
        Section("Environment", [_environment_facts(environments)]),
        Section("Data", _data_tables(environments, models)),
        Section("How to repeat it", _repeat_blocks(environments, commands)),
    ]


def _environment_facts(environments: Sequence[Environment]) -> Facts:
    started = sorted(e.started for e in environments)
    days = dict.fromkeys((_date(started[0]), _date(started[-1])))
    seeds = sorted({e.seed for e in environments if e.seed is not None})
    facts = {
        "trained": " to ".join(days),
        "machine": _distinct(f"{e.platform}, {e.cores} cores" for e in environments),
        "computed on": _distinct(e.device for e in environments),
        "Python": _distinct(e.python for e in environments),
        "packages": _distinct(
            ", ".join(f"{name} {version}" for name, version in e.versions.items())
            for e in environments
        ),
        "program": _distinct(e.git_commit for e in environments),
        "seeds": ", ".join(map(str, seeds)),
    }
    return Facts({name: value for name, value in facts.items() if value})


def _distinct(values: Iterable[str | None]) -> str:
    """What all runs have in common, or everything that differs."""
    return "; ".join(dict.fromkeys(filter(None, values)))


def _data_tables(environments: Sequence[Environment], models: Sequence[FileRecord]) -> list[Table]:
    used = [(role, data) for e in environments for role, data in e.data if data]
    sets = dict.fromkeys(
        (role, data.name, data.shape[0], format_shape(data.shape[1:]), data.dtype)
        for role, data in used
    )
    read = [(role, file) for role, data in used for file in data.files]
    files = dict.fromkeys(
        (role, terminal.relative(file.path), file.bytes, file.sha256)
        for role, file in [*read, *(("model", model) for model in models)]
    )
    return [
        _table("Images", ("role", "data set", "images", "size", "pixels"), sets),
        _table("Files", ("role", "file", "bytes", "SHA-256"), files),
    ]


def _table(caption: str, headings: Sequence[str], rows: Iterable[tuple]) -> Table:
    rows = list(rows)
    return Table(caption, {name: [row[n] for row in rows] for n, name in enumerate(headings)})


def _repeat_blocks(environments: Sequence[Environment], commands: Sequence[str]) -> list[Any]:
    latest = max(environments, key=lambda e: e.started)
    packages = [f"{name}=={version}" for name, version in latest.versions.items()]
    commit, _, dirty = (latest.git_commit or "").partition("-")
    lines = [f"git checkout {commit}"] * bool(commit)
    lines += [shlex.join(["python", "-m", "pip", "install", *packages]), *commands]
    blocks: list[Any] = [
        Text(
            "In the folder of the program, with the same data. The same versions on the same kind "
            "of machine give the same numbers."
        ),
        Code("\n".join(lines)),
    ]
    if dirty:
        blocks.insert(1, Text("The program had changes that were not committed."))
    return blocks


def _repeat_command(folder: Path, start: Start) -> str:
    """The command line that trains the configuration of a run again."""
    given = start.arguments
    flags = {
        "-d": given.dataset,
        "-dl": given.labels,
        "-t": given.test,
        "-tl": given.test_labels,
        "--limit": given.limit,
        "-model": given.model,
        "--init-from": given.init_from,
        "-c": terminal.relative(folder / "config.json"),
    }
    words = [str(word) for flag in flags.items() if flag[1] is not None for word in flag]
    words += ["--no-pretrained"] * given.no_pretrained
    return shlex.join(["python", start.program, *words])


def _date(started: str) -> str:
    """The day of a time in ISO 8601."""
    return started.partition("T")[0]
