"""The pages of a study, and of a chain of studies that ran one after another."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cae.config.load import format_config
from cae.programs.start import repeat_command
from cae.records.environment import Environment, read_environment
from cae.records.run import TRIALS_FILE
from cae.report.origin import origin_sections
from cae.report.pages import Code, Folded, Lead, Page, Section, Table, draw
from cae.report.run_page import key_facts, name_layers, run_sections
from cae.studies import compare
from cae.studies.results import RunResult, StudyRecord, read_study, read_trials

# Figures of `draw_comparison`: name -> caption.
COMPARISONS = {
    "final_values": "The values that each configuration reached",
    "comparison": "The epochs of every run, and its best one",
    "costs": "The cost of better values in parameters and time",
}


class RecordedStudy(NamedTuple):
    """The record of a study, with the environments of its finished trials."""

    folder: Path
    record: StudyRecord
    results: list[RunResult]
    environments: list[Environment]


def _read(folder: Path) -> RecordedStudy:
    results = read_study(folder)
    environments = [read_environment(result.path) for result in results]
    return RecordedStudy(folder, read_trials(folder), results, environments)


def describe_study(folder: Path) -> Page:
    """The page of a study; damaged records are a `DataError`."""
    study = _read(folder)
    return Page(
        f"Study {study.record.name}",
        _count_trials(study.record),
        [*_study_sections(study), *_origin([study])],
    )


def describe_chain(folder: Path) -> Page:
    """The page of the studies in a folder, in the order of their starts."""
    studies = sorted(
        (_read(path.parent) for path in folder.glob(f"*/{TRIALS_FILE}")),
        key=lambda study: min((e.started for e in study.environments), default="9"),
    )
    conclusions = {
        study.folder.name: compare.verdict(
            compare.group_results(study.results, study.record.metric)
        )
        for study in studies
    }
    sections = [
        Section(
            study.folder.name.capitalize(),
            [_count_trials(study.record)],
            _study_sections(study),
        )
        for study in studies
    ]
    return Page(
        f"Study {folder.name}",
        f"{len(studies)} studies, one after another: {', '.join(conclusions)}.",
        [Section("Summary", [conclusions]), *sections, *_origin(studies)],
    )


def _count_trials(record: StudyRecord) -> str:
    counts = Counter(trial.status for trial in record.trials)
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    return (
        f"{len(record.trials)} trials: {listed or 'none'}. They are ranked by {record.metric} on "
        "validation images."
    )


def _study_sections(study: RecordedStudy) -> list[Section]:
    metric = study.record.metric
    groups = compare.group_results(study.results, metric)
    best = compare.best_of(groups)
    blocks: list[Any] = [Lead(compare.verdict(groups))]
    if groups:
        caption = f"Configurations by {metric}, the best mean first; sd: standard deviation over "
        columns = compare.get_columns(groups)
        blocks.append(Table(f"{caption}seeds", columns, mark="best mean"))
    if best:
        figures = compare.draw_comparison(groups)
        leading = f"{groups[0].name} leads with {metric} {groups[0].mean:.4g}."
        blocks += [
            draw(figures[name], caption, f"{caption}. {leading} The table above has the numbers.")
            for name, caption in COMPARISONS.items()
            if name in figures
        ]
    sections = [Section("Comparison", blocks)]
    influences = compare.influences(groups)
    if influences:
        note = (
            "Means over configurations that also differ in other hyperparameters: a hint where to "
            "look, not a proof."
        )
        caption = f"{metric} by the value of each hyperparameter, the largest effect first"
        table = Table.from_rows(caption, compare.INFLUENCE, influences)
        sections.append(Section("Which hyperparameters mattered", [note, table]))
    sections += _failure_sections(study.record)
    if best:
        intro = [f"{best.path.name}: {name_layers(best)}.", key_facts(best.history)]
        # Trials draw nothing; the study has drawn the best one.
        plots = run_sections(best, study.folder / "plots")
        sections.append(Section("The best trial", intro, plots))
    if groups:
        sections.append(Section("All trials and configurations", _all_trials(groups)))
    return sections


def _failure_sections(record: StudyRecord) -> list[Section]:
    rows = [(trial.id, trial.status, trial.reason) for trial in record.trials if trial.reason]
    if not rows:
        return []
    table = Table.from_rows("Not counted above", ("trial", "status", "reason"), rows)
    return [Section("Trials without a result", [table])]


def _all_trials(groups: list[compare.Group]) -> list[Any]:
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
    blocks = [
        "Click a title to open it. Only what is open is printed.",
        Folded("Every trial", [Table("Every trial, by its configuration", known)]),
    ]
    for group in groups:
        config = format_config(group.results[0].history.model_info)
        blocks.append(Folded(f"Configuration {group.name}", [Code(config)]))
    return blocks


def _origin(studies: Sequence[RecordedStudy]) -> list[Section]:
    environments = [environment for study in studies for environment in study.environments]
    models = [m for study in studies for result in study.results for m in result.start.models]
    commands = dict.fromkeys(repeat_command(study.record.command) for study in studies)
    return origin_sections(environments, models, list(commands))
