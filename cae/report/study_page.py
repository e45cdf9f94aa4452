"""The pages of a study, and of a chain of studies that ran one after another."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cae.config.load import format_config
from cae.config.study import SCREENING
from cae.errors import as_sentence, counted
from cae.programs.start import repeat_command
from cae.records.environment import Environment, read_environment
from cae.records.run import TRIALS_FILE
from cae.report.answer import answer_blocks
from cae.report.origin import origin_sections
from cae.report.pages import Code, Folded, Lead, Page, Section, Table, draw
from cae.report.run_page import name_layers, run_sections
from cae.studies import compare
from cae.studies.results import RunResult, StudyRecord, read_study, read_trials

# Figures of `draw_comparison`: name -> caption.
COMPARISONS = {
    "final_values": "Result of each configuration",
    "comparison": "Learning curves of all runs, with the best epochs",
    "costs": "Result against parameters and training time",
}


class StudyContents(NamedTuple):
    """The record of a study, with the environments of its finished trials."""

    folder: Path
    record: StudyRecord
    results: list[RunResult]
    environments: list[Environment]
    groups: list[compare.Group]


def _read(folder: Path) -> StudyContents:
    results = read_study(folder)
    environments = [read_environment(result.path) for result in results]
    record = read_trials(folder)
    groups = compare.group_results(results, record.metric)
    return StudyContents(folder, record, results, environments, groups)


def describe_study(folder: Path) -> Page:
    """The page of a study; damaged records are a `DataError`."""
    study = _read(folder)
    return Page(
        f"Study {study.record.name}",
        _count_trials(study.record),
        _answer(study, [study]),
        [*_study_sections(study), *_origin([study])],
    )


def describe_chain(folder: Path) -> Page:
    """The page of the studies in a folder, in the order of their starts; the last one answers."""
    studies = sorted(
        (_read(path.parent) for path in folder.glob(f"*/{TRIALS_FILE}")),
        key=lambda study: min((e.started for e in study.environments), default="9"),
    )
    conclusions = {study.folder.name: compare.verdict(study.groups) for study in studies}
    finished = [study for study in studies if study.groups]
    sections = [
        Section(
            as_sentence(study.folder.name),
            [_count_trials(study.record)],
            _study_sections(study),
        )
        for study in studies
    ]
    return Page(
        f"Study {folder.name}",
        f"{len(studies)} studies, one after another: {', '.join(conclusions)}.",
        _answer((finished or studies)[-1], studies),
        [Section("Summary", [conclusions]), *sections, *_origin(studies)],
    )


def _answer(study: StudyContents, studies: Sequence[StudyContents]) -> list[Any]:
    """The verdict and the best run of a study, and the commands that repeat all studies."""
    lead, best = Lead(compare.verdict(study.groups)), compare.best_of(study.groups)
    if best is None:
        return [lead]
    environment = study.environments[study.results.index(best)]
    return [lead, *answer_blocks(best, environment, _repeat_commands(studies))]


def _repeat_commands(studies: Sequence[StudyContents]) -> list[str]:
    return list(dict.fromkeys(repeat_command(study.record.command) for study in studies))


def _count_trials(record: StudyRecord) -> str:
    counts = Counter(trial.status for trial in record.trials)
    listed = ", ".join(f"{count} {status}" for status, count in counts.items())
    return (
        f"{counted(len(record.trials), 'trial')}: {listed or 'none'}. They are ranked by "
        f"{record.metric} on validation images."
    )


def _study_sections(study: StudyContents) -> list[Section]:
    groups = study.groups
    if not groups:
        return _failure_sections(study.record)
    # A screening only chooses what the study after it trains: its figures and its best trial,
    # which are seldom looked at, would take pages.
    is_screening = study.folder.name.endswith(SCREENING)
    sections = [
        Section("Comparison", _comparison_blocks(groups, is_screening)),
        *_difference_sections(groups, is_screening),
        *_failure_sections(study.record),
    ]
    best = compare.best_of(groups)
    if best and not is_screening:
        # Trials draw nothing; the study has drawn the best one.
        parts = run_sections(best, study.folder / "plots")
        intro = f"{best.path.name}: {name_layers(best)}."
        sections.append(Section("The best trial", [intro], parts))
    return sections


def _comparison_blocks(groups: list[compare.Group], is_screening: bool) -> list[Any]:
    metric = groups[0].metric
    caption = f"Configurations by {metric}, the best mean first; sd: standard deviation over seeds"
    blocks: list[Any] = [Table(caption, compare.get_columns(groups), mark="best mean")]
    if compare.best_of(groups):
        leading = f"{groups[0].name} has the best mean, {metric} {groups[0].mean:.4g}."
        for name, figure in compare.draw_comparison(groups).items():
            title = COMPARISONS[name]
            description = f"{title}. {leading} The table above has the numbers."
            picture = draw(figure, title, description)
            is_folded = is_screening or name == "comparison"
            blocks.append(Folded(title, [picture]) if is_folded else picture)
    return [*blocks, Folded("Every trial", [_list_trials(groups)])]


def _list_trials(groups: list[compare.Group]) -> Table:
    pairs = [(group, result) for group in groups for result in group.results]
    metrics = [result.history.metrics for _, result in pairs]
    columns = {
        "trial": [result.path.name for _, result in pairs],
        groups[0].metric: [result.value(groups[0].metric) for _, result in pairs],
        "test accuracy": [values.get("test_accuracy") for values in metrics],
        "seed": [result.history.model_info["seed"] for _, result in pairs],
        "epochs": [values.get("epochs") for values in metrics],
        "best epoch": [values.get("best_epoch") for values in metrics],
        "seconds": [values.get("seconds") for values in metrics],
    }
    known = {key: cells for key, cells in columns.items() if any(c is not None for c in cells)}
    return Table("Every trial, by its configuration", known)


def _difference_sections(groups: list[compare.Group], is_screening: bool) -> list[Section]:
    """The hyperparameters in which the configurations differ, and what each value reached."""
    differences = compare.get_differences(groups)
    if not differences:
        return []
    metric = groups[0].metric
    columns = {
        "configuration": [group.name for group in groups],
        metric: [group.cell("mean") for group in groups],
        **differences,
    }
    title = "The configurations by the hyperparameters that differ"
    table = Table(title, columns)
    blocks: list[Any] = [Folded(title, [table]) if is_screening else table]
    influences = compare.influences(groups)
    if influences:
        caption = f"{metric} by the value of each hyperparameter, the largest effect first"
        note = (
            "Means over configurations that also differ in other hyperparameters: a hint where to "
            "look, not a proof."
        )
        blocks += [Table.from_rows(caption, compare.INFLUENCE, influences), note]
    return [Section("What differs", [*blocks, Folded("All of it as JSON", _list_json(groups))])]


def _list_json(groups: list[compare.Group]) -> list[Any]:
    """What all configurations share, and what each has of its own."""
    configs = {group.name: group.results[0].history.model_info for group in groups}
    first, *others = configs.values()
    shared = {k: v for k, v in first.items() if k != "seed" and all(o[k] == v for o in others)}
    parts = {"all configurations": shared}
    for name, config in configs.items():
        parts[name] = {k: v for k, v in config.items() if k != "seed" and k not in shared}
    return [text for name, part in parts.items() for text in (name, Code(format_config(part)))]


def _failure_sections(record: StudyRecord) -> list[Section]:
    rows = [(trial.id, trial.status, trial.reason) for trial in record.trials if trial.reason]
    if not rows:
        return []
    table = Table.from_rows("Not counted above", ("trial", "status", "reason"), rows)
    return [Section("Trials without a result", [table])]


def _origin(studies: Sequence[StudyContents]) -> list[Section]:
    environments = [environment for study in studies for environment in study.environments]
    models = [m for study in studies for result in study.results for m in result.start.models]
    return origin_sections(environments, models, _repeat_commands(studies))
