"""Runs studies: checks all of them, trains their trials, compares these, keeps the best models."""

import argparse
import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import terminal
from cae.config.study import StudyFile, expand, load_stages
from cae.config.study_schema import EPOCH_KEYS, Data, Study
from cae.data.datasets import Scaling, check_dataset, load_dataset
from cae.data.sources import ALL_IMAGES, has_test
from cae.data.splits import encode_labels
from cae.errors import UsageError, listed
from cae.files import locked, write_figures
from cae.programs.images import READING, change_images, change_shape, check_reading, get_reading
from cae.programs.start import find_command, repeat_command
from cae.records import tracking
from cae.records.evaluation import read_predictions
from cae.records.run import MODEL_FILE, PREDICTIONS_FILE, check_runs_dir
from cae.records.saved_models import read_metadata
from cae.studies import compare
from cae.studies.progress import ProgressTable
from cae.studies.results import RunResult, read_study
from cae.studies.search import SearchRun
from cae.studies.trials import StudyRun, train_in_turn

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RAY_PACKAGES = ("ray", "optuna")


def run(args: argparse.Namespace) -> int:
    """Trains a study or a chain of studies, or continues it; returns the exit code.

    An interrupted one ends with the command that continues it.
    """
    try:
        exit_code = _run_file(args)
    except KeyboardInterrupt:  # between two trials
        exit_code = 128 + signal.SIGINT
    if exit_code > 128:
        terminal.ERR.print(f"Stopped. Resume with: {repeat_command(args.command, find_command)}")
    return exit_code


def _run_file(args: argparse.Namespace) -> int:
    tracking.check_flags(args)
    _check_ray(args)
    name, files = load_stages(args.study)
    files = [StudyFile(file.path, _override(file.study, args)) for file in files]
    for file in files:
        _check_study(file)
    folder = check_runs_dir(args.runs_dir)
    if len(files) > 1 or name != files[0].study.name:
        folder = check_runs_dir(folder / name)
    exit_code = 0
    for file in files:
        exit_code = max(exit_code, _run_study(file, folder, args))
        if exit_code > 128:
            break
    return exit_code


def _check_ray(args: argparse.Namespace) -> None:
    """Checks the flags for Ray before anything starts."""
    shares = (args.cpus_per_trial, args.gpus_per_trial)
    if args.ray is None and shares != (None, None):
        raise UsageError(
            "--cpus-per-trial and --gpus-per-trial", "require --ray", None, "Add --ray."
        )
    missing = [name for name in RAY_PACKAGES if args.ray and find_spec(name) is None]
    if missing:
        raise UsageError(
            "--ray",
            "requires optional packages",
            f"no {' and no '.join(missing)}",
            "Type: pip install -r requirements-ray.txt",
        )


def _override(study: Study, args: argparse.Namespace) -> Study:
    """The study with the values that flags give."""
    if args.labels and not args.dataset:
        raise UsageError("-dl", "requires the images that it labels", "no -d", "Add -d DATASET.")
    data = study.data
    if args.dataset:
        kept = data.model_dump(include={"limit", "labels_per_class"})
        data = Data(dataset=args.dataset, labels=args.labels, **kept)
    if args.limit:
        data = data.model_copy(update={"limit": args.limit})
    flags = ("unlabelled", "labels_per_class", "invert", "transpose", *READING)
    given = {key: vars(args)[key] for key in flags if vars(args)[key] is not None}
    data = data.model_copy(update=given)
    changes: dict[str, Any] = {"data": data}
    if args.seed is not None:
        changes["seeds"] = [args.seed]
    if args.epochs:
        varied = study.vary and study.vary.get_keys(EPOCH_KEYS)
        if varied:
            required = f"must be left out where the study varies {listed(varied, 'and')}"
            raise UsageError("--epochs", required, args.epochs, "Change the study instead.")
        changes["epochs"] = args.epochs
    return study.model_copy(update=changes)


def _check_study(file: StudyFile) -> None:
    """Checks the configurations, data and models of a study, before any study is trained."""
    expand(file, None, {})
    data = file.study.data
    check_reading(data)
    source = {"labels_required": file.study.kind == "classifier", "reading": get_reading(data)}
    check_dataset(data.dataset, data.labels, **source)
    if data.test:
        check_dataset(data.test, data.test_labels, split="test", **source)
    if data.unlabelled:
        check_dataset(data.unlabelled, reading=ALL_IMAGES)
    for base in file.study.bases:
        if base.model:
            read_metadata(file.resolve(base.model))


def _run_study(file: StudyFile, folder: Path, args: argparse.Namespace) -> int:
    """Trains a study, after its screening if it has one; returns the exit code."""
    exit_code, finalists = 0, None
    tracking.prepare(args, file.study.kind)
    study_class, train = _choose_training(file.study, args)
    for part in file.rounds:
        part_folder = check_runs_dir(folder / part.study.name)
        with locked(part_folder):
            exit_code = max(exit_code, study_class(part, part_folder, args, finalists).run(train))
            if exit_code > 128:
                break
            _conclude(part.study, part_folder, args)
        if part.study.name != file.study.name:  # a screening
            finalists = compare.get_finalists(part_folder, file.study.screening.finalists)
    return exit_code


def _choose_training(
    study: Study, args: argparse.Namespace
) -> tuple[type[StudyRun], Callable[[StudyRun, ProgressTable], int]]:
    """How trials are trained: one after another, or side by side with Ray.

    With Ray, searches are suggested and stopped early, unless a screening does that.
    """
    if args.ray is None:
        return StudyRun, train_in_turn
    from cae.studies.parallel import train_side_by_side

    is_searched = study.vary and study.vary.search and not study.screening
    return SearchRun if is_searched else StudyRun, train_side_by_side


def _conclude(study: Study, folder: Path, args: argparse.Namespace) -> None:
    """Compares the trials, keeps the best models, and draws the figures."""
    results = read_study(folder)
    if not results:
        return
    groups = compare.group_results(results, study.metric)
    compare.write_table(folder / "results.csv", groups)
    compare.print_comparison(study.name, groups, groups)
    best = compare.best_of(groups)
    if args.keep == "best":
        kept = compare.best_paths(results, study.metric)
        for result in results:
            if result.path not in kept:
                (result.path / MODEL_FILE).unlink(missing_ok=True)  # the record stays
    if best and not args.no_plots:
        terminal.announce("Drawing figures")
        write_figures(folder / "plots", compare.draw_comparison(groups))
        if study.kind == "classifier":
            write_figures(folder / "plots", _draw_best(best, study.data))
    if best:
        terminal.say(f"Best trial: {terminal.relative(best.path)}")
        report = best.path / "classification_report.txt"
        if report.exists():
            terminal.print_as_is(report.read_text(encoding="utf-8"))
    terminal.say(f"Table, figures and trials: {terminal.relative(folder)}")


def _draw_best(best: RunResult, data: Data) -> "dict[str, Figure]":
    """The best classifier's curves, confusion matrix and labelled images, from its record."""
    from cae.figures import classes

    figures = classes.classifier_loss_visualization([best.history], [None])
    predictions, model = best.path / PREDICTIONS_FILE, best.path / MODEL_FILE
    if not (predictions.exists() and model.exists()):
        return figures  # there were no images to predict, or another trial was the best before
    metadata = read_metadata(model)
    reading = get_reading(data)
    test = data.test or (data.dataset if has_test(data.dataset, reading) else None)
    split = "test" if test else "train"
    reading = reading.like(change_shape(tuple(metadata["input_shape"]), data, split))
    if test:
        dataset = load_dataset(test, data.test_labels, split="test", reading=reading)
    else:
        dataset = load_dataset(data.dataset, data.labels, reading=reading)
    scaling = Scaling(**metadata["scaling"])
    dataset = change_images(dataset, data, split, scaling)
    predicted = read_predictions(predictions)
    chosen = np.searchsorted(dataset.positions, predicted.indices)
    return figures | classes.classifier_prediction_visualization(
        scaling.apply(dataset.images[chosen]),
        encode_labels(predicted.labels, predicted.classes),
        predicted.probabilities,
        metadata["class_names"],
        dataset.name_images(chosen),
    )
