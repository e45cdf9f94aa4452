"""The trials of a study: each is an ordinary run, started, resumed and recorded.

A trial is the command line that a person would type, passed to `main` of its program in this
process, with its output in a log.
"""

import argparse
import gc
import importlib
import math
import shutil
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, TextIO

from cae import terminal
from cae.config.choices import PROGRAMS
from cae.config.load import dump_config
from cae.config.study import StudyFile, Trial, expand
from cae.config.study_schema import Base, Study
from cae.data.datasets import load_dataset
from cae.data.sources import ALL_IMAGES, has_test
from cae.errors import UserError
from cae.files import get_record, locked, write_json, write_text
from cae.programs.flags import to_words
from cae.programs.images import (
    READING,
    get_reading,
    name_useful,
    repeat_reading,
    without_labels,
)
from cae.programs.starting_points import uses_unlabelled
from cae.records import tracking
from cae.records.history import OnEpoch
from cae.records.run import (
    MODEL_FILE,
    START_FILE,
    TRIALS_FILE,
    check_runs_dir,
    get_partial,
    is_interrupted,
)
from cae.records.saved_models import read_metadata
from cae.studies.compare import best_model, best_paths
from cae.studies.progress import Outcome, ProgressTable
from cae.studies.results import DONE, FAILED, WAITING, read_result, read_study
from cae.training.predict import sharing_encodings

REPLACED = ".replaced"  # ends the name of a run whose trial is being trained again
LOCK_SECONDS = 120  # to wait for the process that trained a run before
# The files of a study and what they hold, for docs/reference.md.
FILES = {
    "trials.json": "the study, its command, and every trial with its status",
    "<trial>/": "the run of one trial",
    "configuration/": "the configuration of every trial",
    "logs/": "the output of every trial",
    "results.csv": "one row per run: its configuration, seed and final values",
    "plots/": "the figures of the comparison, and of the best classifier",
    "report.html": "the page that `experiments.py report` writes",
}


@dataclass(frozen=True)
class TrialTrainer:
    """Trains the trials of a study, in this process or on another machine."""

    study: Study
    folder: Path  # that records the trials
    tracker_flags: Sequence[str] = ()  # for TensorBoard or MLflow

    def train(self, trial: Trial, on_epoch: OnEpoch | None = None) -> tuple[int, str]:
        """Trains a trial, or resumes it; `on_epoch` receives the row of each epoch.

        Returns:
            The exit code of its program, and the last error that it printed.
        """
        path = self.folder / "logs" / f"{trial.id}.txt"
        with path.open("a+", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
            start = log.tell()
            arguments = self.get_arguments(trial)
            exit_code = run_program(self.study.kind, arguments, log, on_epoch=on_epoch)
            log.seek(start)
            errors = [line for line in log.read().splitlines() if line.startswith("error: ")]
        return exit_code, errors[-1].removeprefix("error: ") if errors else ""

    def train_seeds(self, trials: Sequence[Trial], on_epoch: OnEpoch) -> tuple[str, float]:
        """Trains trials, after waiting for a process that lost its connection but may still train.

        Args:
            trials: One, or a configuration with several seeds.
            on_epoch: Receives the epochs of the first.

        Returns:
            What failed, and the mean of the study's metric; NaN if a trial has left no record.
        """
        errors = []
        for number, trial in enumerate(trials):
            run = get_partial(self.folder / trial.id)
            with suppress(UserError, OSError), locked(run, run / START_FILE, LOCK_SECONDS):
                pass  # until that process ends; OSError: there is none
            if not (self.folder / trial.id).exists():
                errors.append(self.train(trial, None if number else on_epoch)[1])
        value = math.nan
        with suppress(UserError):
            results = [read_result(self.folder / trial.id) for trial in trials]
            value = fmean(result.value(self.study.metric) for result in results)
        return " ".join(filter(None, errors)), value

    def get_arguments(self, trial: Trial) -> list[str]:
        """The command line that starts a trial, or resumes an interrupted one."""
        path = self.folder / trial.id
        if is_interrupted(path):
            return ["--resume", str(path), "--no-plots"]
        shutil.rmtree(get_partial(path), ignore_errors=True)  # killed before it had begun
        config = self.folder / "configuration" / f"{trial.id}.json"
        write_text(config, dump_config(trial.config))
        (base,) = [base for base in self.study.bases if base.title == trial.base]
        data = _get_data(self.study)
        if not uses_unlabelled(trial.config):
            data["unlabelled"] = None
        useful = name_useful(data["dataset"], data.get("test"), data.get("unlabelled"))
        values = {
            **{key: value for key, value in data.items() if key in useful or key not in READING},
            "model": trial.model,
            "encoder_until": base.encoder_until,
            "model_input_range": base.model_input_range,
            "config": config,
            "name": trial.configuration,
            "run_dir": path,
        }
        return [*to_words(values), *self.tracker_flags, "--no-plots"]


def _get_data(study: Study) -> dict[str, Any]:
    """The flags of a study that name images and labels."""
    data = dict(study.data)
    return data if study.kind == "classifier" else without_labels(data)


def run_program(
    kind: str, arguments: list[str], log: TextIO, on_epoch: OnEpoch | None = None
) -> int:
    """Runs the program that trains a kind of model, in this process; returns its exit code."""
    program = importlib.import_module(Path(PROGRAMS[kind]).stem)
    try:
        with redirect_stdout(log), redirect_stderr(log):
            return program.main(arguments, on_epoch=on_epoch)
    except Exception as error:  # a trial that breaks must not end the study
        message = " ".join(f"{type(error).__name__}: {error}".split())
        log.write(f"error: {message[:200]}\n")
        return terminal.EXIT_USER_ERROR
    finally:
        gc.collect()  # models are cycles, and hold encodings of up to gigabytes


class StudyRun:
    """A study while it runs.

    Args:
        file: The study.
        folder: The folder that records its trials.
        args: The flags.
        finalists: (base, configuration) pairs that a screening has chosen; None: all.

    Attributes:
        outcomes: The trials and their results so far.
    """

    def __init__(
        self,
        file: StudyFile,
        folder: Path,
        args: argparse.Namespace,
        finalists: set[tuple[str, str]] | None = None,
    ):
        self.study = file.study
        self.folder = folder
        self.args = args
        flags = tracking.get_trial_flags(args, folder.relative_to(args.runs_dir))
        self.trainer = TrialTrainer(file.study, folder, flags)
        self.outcomes: list[Outcome] = []
        self._file = file
        self._data = self._identify_data()
        self._models = {base.title: self._find_model(base) for base in self.study.bases}
        self.add(
            trial
            for trial in self.expand()
            if finalists is None or (trial.base, trial.configuration) in finalists
        )

    def expand(self) -> list[Trial]:
        """The trials that are known from the start."""
        return expand(self._file, self._data, self._models)

    def add(self, trials: Iterable[Trial]) -> None:
        """Adds trials, with the results of those that are recorded already."""
        for outcome in map(Outcome, trials):
            self.outcomes.append(outcome)
            _put_back(self.folder / outcome.trial.id)
            if (self.folder / outcome.trial.id).exists():
                self.judge(outcome)

    def _identify_data(self) -> list[Any]:
        """What identifies the data: the SHA-256 of its files, the limit, and what changes it."""
        data, labelled = Namespace(**_get_data(self.study)), self.study.kind == "classifier"
        reading = replace(get_reading(data), class_names=None)  # one image has one class
        options = {"limit": 1, "labels_required": labelled, "reading": reading}
        sets = [load_dataset(data.dataset, data.labels, **options)]
        if labelled and (data.test or has_test(data.dataset, reading)):
            test = data.test or data.dataset
            sets.append(load_dataset(test, data.test_labels, split="test", **options))
        if labelled and data.unlabelled:
            sets.append(load_dataset(data.unlabelled, limit=1, reading=ALL_IMAGES))
        digests = [file["sha256"] for dataset in sets for file in dataset.files]
        few = [data.labels_per_class] if labelled and data.labels_per_class else []
        flags = {"--invert": data.invert, "--transpose": data.transpose}
        changes = [(flag, which) for flag, which in flags.items() if which]
        return [*digests, data.limit, *few, *changes, *repeat_reading(data)]

    def _find_model(self, base: Base) -> tuple[str | None, str | None]:
        """The path and the SHA-256 of the model that provides the encoder, if there is one."""
        if base.encoder:
            path = best_model(self.folder.parent / base.encoder.study, base.encoder)
        elif base.model:
            path = self._file.resolve(base.model)
            read_metadata(path)
        else:
            return None, None
        return str(path), get_record(path)["sha256"]

    @property
    def total(self) -> int:
        """How many trials there will be."""
        return len(self.outcomes)

    def has_work(self) -> bool:
        """Whether there is anything to train."""
        return sum(outcome.status != WAITING for outcome in self.outcomes) < self.total

    def get_outcomes(self, trials: Iterable[Trial]) -> list[Outcome]:
        """The outcomes of some trials."""
        by_id = {outcome.trial.id: outcome for outcome in self.outcomes}
        return [by_id[trial.id] for trial in trials]

    def run(self, train: Callable[["StudyRun", ProgressTable], int]) -> int:
        """Trains what is not done yet.

        Args:
            train: How: `train_in_turn`, or side by side with Ray.

        Returns:
            The exit code.
        """
        for name in ("logs", "configuration"):
            check_runs_dir(self.folder / name)
        self.record()
        progress = ProgressTable(terminal.ERR, self.study, self.outcomes, self.total)
        failed = []
        with sharing_encodings(), progress:
            exit_code = train(self, progress)
            while exit_code <= 128 and (lost := self._find_lost_models()):
                with _set_aside([self.folder / outcome.trial.id for outcome in lost]):
                    for outcome in lost:
                        outcome.status, outcome.seconds = WAITING, 0.0
                    self.record()
                    exit_code = train(self, progress)
                if unfinished := [outcome for outcome in lost if outcome.status != DONE]:
                    failed = self._list_failed()
                    for outcome in unfinished:
                        self.judge(outcome)  # by the record that is back in its place
                    self.record()
                    break
        if exit_code > 128:
            return exit_code
        failed = failed or self._list_failed()
        for line in failed:
            terminal.print_sentence(terminal.ERR, line)
        return terminal.EXIT_USER_ERROR if failed else 0

    def _list_failed(self) -> list[str]:
        failed = (outcome for outcome in self.outcomes if outcome.status == FAILED)
        return [f"failed: {outcome.trial.id}: {outcome.reason}" for outcome in failed]

    def _find_lost_models(self) -> list[Outcome]:
        """The trials that are now the best of their base but have lost their model.

        Only the best models are kept, and with more seeds another trial may become the best. The
        same seed gives the same weights again.
        """
        best = best_paths(read_study(self.folder), self.study.metric)
        lost = {path.name for path in best if not (path / MODEL_FILE).exists()}
        return [outcome for outcome in self.outcomes if outcome.trial.id in lost]

    def judge(self, outcome: Outcome, reason: str = "") -> None:
        """Takes the result of a trial from its record; `reason` says why there may be none."""
        outcome.status, outcome.reason = FAILED, ""
        path = self.folder / outcome.trial.id
        if not path.exists():
            outcome.reason = reason or "no record was written"
            return
        try:
            history = read_result(path).history
        except UserError as error:
            outcome.reason = str(error)
            return
        outcome.value = history.metrics.get(self.study.metric, math.nan)
        # More than was measured now if the trial was interrupted and resumed.
        outcome.seconds = max(outcome.seconds, history.metrics["seconds"])
        if history.divergence:
            outcome.reason = str(history.divergence)
        elif not math.isfinite(outcome.value):
            outcome.reason = f"its record has no {self.study.metric}"
        else:
            outcome.status = DONE

    def record(self) -> None:
        """Writes `trials.json`: the trials and their results."""
        document = {
            "name": self.study.name,
            "kind": self.study.kind,
            "metric": self.study.metric,
            "command": self.args.command,
            "trials": [
                {
                    "id": outcome.trial.id,
                    "base": outcome.trial.base,
                    "configuration": outcome.trial.configuration,
                    "seed": outcome.trial.config.seed,
                    "sha256": outcome.trial.digest,
                    "encoder": outcome.trial.model,
                    "status": outcome.status,
                    "reason": outcome.reason,
                    "value": outcome.value if math.isfinite(outcome.value) else None,
                }
                for outcome in self.outcomes
            ],
        }
        write_json(self.folder / TRIALS_FILE, document)


@contextmanager
def _set_aside(paths: Sequence[Path]) -> Iterator[None]:
    """Renames the runs of trials that are trained again, until each has a new one."""
    for path in paths:
        path.rename(path.with_name(path.name + REPLACED))
    try:
        yield
    finally:
        for path in paths:
            _put_back(path)


def _put_back(path: Path) -> None:
    """Restores the run of a trial that was set aside, unless there is a new one."""
    old = path.with_name(path.name + REPLACED)
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(path)


def train_in_turn(study_run: StudyRun, progress: ProgressTable) -> int:
    """Trains the trials that wait, one after another; returns the exit code of the last one."""
    exit_code = 0
    for outcome in [o for o in study_run.outcomes if o.status == WAITING]:
        with progress.timing(outcome) as on_epoch:
            exit_code, error = study_run.trainer.train(outcome.trial, on_epoch)
        if exit_code > 128:
            break
        study_run.judge(outcome, error)
        study_run.record()
        progress.show(outcome)
    return exit_code
