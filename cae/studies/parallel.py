"""Trains the trials of a study side by side with Ray: on this machine, or on a Ray cluster.

python experiments.py run STUDY.json --ray
python experiments.py run STUDY.json --ray HOST:6379

A trial is the same run as without Ray, in a folder that all machines share. Ray Tune places it,
and restarts it elsewhere when its machine dies; it then resumes from its checkpoint. For a search
space, Optuna's tree-structured Parzen estimator suggests the values (Bergstra et al. 2011,
"Algorithms for Hyper-Parameter Optimization"), and ASHA stops the trials that fall behind (Li et
al. 2020, "A System for Massively Parallel Hyperparameter Tuning", arXiv:1810.05934).
"""

import argparse
import io
import logging
import math
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import ray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch

from cae.config.study import Trial
from cae.config.study_schema import Range, Study
from cae.errors import UsageError, UserError
from cae.files import locked
from cae.programs.start import StopSignal
from cae.records.run import CHECKPOINT_FILE, PARTIAL, START_FILE, TRIALS_FILE
from cae.studies.progress import Outcome, ProgressTable, count_epochs
from cae.studies.results import STOPPED, WAITING, read_result
from cae.studies.search import SearchRun, Space
from cae.studies.trials import StudyRun, train_trial
from cae.training.predict import sharing_encodings

DEFAULT_CPUS = 2  # threads per trial: small convolutions gain little from more
MAX_FAILURES = 3  # restarts of a trial: it may be what kills its process
LOCK_SECONDS = 120  # to wait for the process that trained a run before
REDUCTION_FACTOR = 3  # ASHA looks at a ninth and at a third of the epochs; a third continue
MAX_RANDOM = 10  # random suggestions before the model of Optuna has enough to learn from
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray sends no statistics
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run directory is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `StopSignal` handles Ctrl-C
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report has no epoch
}


@dataclass(frozen=True)
class Resources:
    """The resources of one trial.

    Attributes:
        cpus: Cores, and threads of TensorFlow.
        gpus: GPUs; 0.5 puts two trials on one.
        parallel: How many trials fit on all machines.
    """

    cpus: int
    gpus: float
    parallel: int


@dataclass(frozen=True)
class Job:
    """Trials that one process trains in turn, such as the seeds of one suggestion.

    Attributes:
        study: The study.
        folder: The directory that records its trials.
        working_dir: The folder that the program was started in.
        cpus: Threads of TensorFlow.
        tracker_flags: Flags that record the trials for TensorBoard or MLflow.
        trials: The trials; the first reports its epochs.
    """

    study: Study
    folder: Path
    working_dir: Path
    cpus: int
    tracker_flags: tuple[str, ...]
    trials: Sequence[Trial]


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Resources]:
    """Starts Ray on this machine, or joins the Ray cluster at `args.ray`, until the context ends.

    Raises:
        UsageError: There is no such cluster, or none of its machines is large enough for a trial.
    """
    os.environ.update(SETTINGS)
    try:
        ray.init(
            address=args.ray,
            include_dashboard=False if args.ray == "local" else None,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UsageError(
            "--ray",
            "must be the address of a Ray cluster that this machine belongs to",
            f"{args.ray} ({reason})",
            "Start Ray there and here (docs/parallel.md), or omit the address.",
        ) from error
    try:
        yield _choose_resources(args.cpus_per_trial, args.gpus_per_trial)
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses what Ray and Optuna print: standard output is for results."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _choose_resources(cpus: int | None, gpus: float | None) -> Resources:
    """The resources per trial by the flags, or by what the machines have."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_cpus, most_gpus = (
        max(machine.get(kind, 0) for machine in machines) for kind in ("CPU", "GPU")
    )
    cpus = cpus or max(1, min(DEFAULT_CPUS, int(most_cpus)))
    gpus = min(1, most_gpus) if gpus is None else gpus
    needed = {"CPU": cpus, "GPU": gpus}
    parallel = sum(
        min(int(machine.get(kind, 0) / needs) for kind, needs in needed.items() if needs)
        for machine in machines
    )
    if not parallel:
        raise UsageError(
            "--cpus-per-trial and --gpus-per-trial",
            f"must fit on one machine (the largest has {most_cpus:g} cores and {most_gpus:g} GPUs)",
            f"{cpus} and {gpus:g}",
            "Request fewer cores or GPUs per trial.",
        )
    return Resources(cpus, gpus, parallel)


# --- In a process on any machine ------------------------------------------------------------


def train(config: Mapping[str, Any]) -> dict[str, Any]:
    """Trains a job, in a thread of a process that Ray has started for it.

    Args:
        config: The `Job` as `job`.

    Returns:
        `errors`, one line per trial, empty if it has left a record; `value`, their mean metric.
    """
    job: Job = config["job"]
    try:
        os.chdir(job.working_dir)
        (job.folder / TRIALS_FILE).stat()
    except OSError as error:
        where = f"{job.working_dir / job.folder} on {platform.node()}"
        missing = UsageError(
            where, "must be the study's folder", error.strerror, "Share it between all machines."
        )
        return {"errors": [str(missing)] * len(job.trials)}
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(job.cpus)
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # several trials can share a GPU

    def report(row: dict[str, Any]) -> None:
        if job.study.metric in row:  # Ray may end the thread here
            tune.report({"epoch": row["epoch"], "value": row[job.study.metric]})

    with sharing_encodings():
        first, *others = job.trials
        errors = [_train_trial(job, first, on_epoch=report)]
        errors += [_train_trial(job, trial) for trial in others]
    with suppress(UserError):  # a trial has left no record
        value = fmean(read_result(job.folder / t.id).value(job.study.metric) for t in job.trials)
        if math.isfinite(value):
            return {"errors": errors, "value": value}
    return {"errors": errors}


def _train_trial(job: Job, trial: Trial, **hooks: Any) -> str:
    """Trains or resumes one trial; returns the error if it has left no record."""
    path = job.folder / trial.id
    if path.exists():
        return ""  # by a process that died before it could say so
    _wait_for_lock(path.with_name(path.name + PARTIAL))
    _, error = train_trial(job.study, job.folder, trial, job.tracker_flags, **hooks)
    return error


def _wait_for_lock(run: Path) -> None:
    """Waits for the end of the process that trained the run before, but not for ever."""
    end = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < end:
        try:
            with locked(run, run / START_FILE):
                return
        except FileNotFoundError:
            return  # a new run
        except UsageError:
            time.sleep(1)


# --- In the program -------------------------------------------------------------------------


def train_side_by_side(study_run: StudyRun, progress: ProgressTable) -> int:
    """Trains the trials of a study with Ray; returns the exit code of a signal, or 0."""
    if not study_run.has_work():
        return 0
    # In this order: Ray handles signals itself once it has started.
    with _quiet(), connected(study_run.args) as resources, StopSignal() as stop:
        progress.parallel = resources.parallel
        tuning = partial(_tune, resources, StopWhenAsked(stop), Recorder(study_run, progress, stop))
        flags = tuple(study_run.tracker_flags)
        get_job = partial(Job, study_run.study, study_run.folder, Path.cwd(), resources.cpus, flags)
        if not isinstance(study_run, SearchRun):
            waiting = [o.trial for o in study_run.outcomes if o.status == WAITING]
            tuning(config={"job": tune.grid_search([get_job((trial,)) for trial in waiting])})
            return stop.exit_code
        for space in study_run.spaces:
            suggestions = Suggestions(study_run, space, get_job)
            if suggestions.num_left and not stop.requested():
                scheduler = _get_scheduler(study_run, space)
                samples = suggestions.num_left
                tuning(search_alg=suggestions, scheduler=scheduler, num_samples=samples)
    return stop.exit_code


def _tune(
    resources: Resources, stopper: tune.Stopper, recorder: tune.Callback, **settings: Any
) -> None:
    """Lets Ray Tune train jobs until there are no more."""
    # The trials have records of their own; those of Ray are deleted.
    with tempfile.TemporaryDirectory() as scratch:
        tune.run(
            train,
            resources_per_trial={"cpu": resources.cpus, "gpu": resources.gpus},
            max_failures=MAX_FAILURES,
            raise_on_failed_trial=False,
            reuse_actors=True,  # TensorFlow takes seconds to start
            stop=stopper,
            callbacks=[recorder],
            storage_path=scratch,
            name="study",
            trial_name_creator=lambda trial: trial.trial_id,
            trial_dirname_creator=lambda trial: trial.trial_id,
            verbose=0,
            **settings,
        )


def _get_scheduler(study_run: SearchRun, space: Space) -> TrialScheduler:
    """ASHA, which stops trials from a ninth of the epochs on."""
    epochs = count_epochs(study_run.get_trials(space, {})[0].config)
    if epochs == 1:
        return FIFOScheduler()
    first = max(1, epochs // REDUCTION_FACTOR**2)
    return ASHAScheduler(
        time_attr="epoch",
        metric="value",
        mode="max" if study_run.study.larger_is_better else "min",
        grace_period=first,
        max_t=max(first, epochs // REDUCTION_FACTOR),
        reduction_factor=REDUCTION_FACTOR,
        stop_last_trials=False,  # `max_t` is the last look, not the last epoch
    )


class StopWhenAsked(tune.Stopper):
    """Ends all training after a signal; interrupted trials resume in the next start."""

    def __init__(self, stop: StopSignal):
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never ends a single trial."""
        return False

    def stop_all(self) -> bool:
        """Whether a signal has come."""
        return self._stop.requested()


class Recorder(tune.Callback):
    """Records and shows the results of jobs."""

    def __init__(self, study_run: StudyRun, progress: ProgressTable, stop: StopSignal):
        self._run = study_run
        self._progress = progress
        self._stop = stop

    def on_trial_result(self, trial: TuneTrial, result: dict[str, Any], **_: Any) -> None:
        """Shows an epoch."""
        if "epoch" in result:
            name = trial.config["job"].trials[0].id
            self._progress.set_note(f"{name}: epoch {result['epoch']}, {result['value']:.4g}")
            seconds = result["time_total_s"] / result["training_iteration"]
            self._progress.seconds_per_epoch = seconds

    def on_trial_complete(self, trial: TuneTrial, **_: Any) -> None:
        """Records a job that has finished, or that was stopped because others were better."""
        errors = trial.last_result.get("errors")
        if errors is not None:
            self._conclude(trial, errors)
        elif not self._stop.requested():
            outcomes = self._run.get_outcomes(trial.config["job"].trials)
            for outcome in outcomes:
                outcome.status, outcome.reason = STOPPED, "others were better"
                if self._run.args.keep == "best":
                    run = self._run.folder / (outcome.trial.id + PARTIAL)
                    (run / CHECKPOINT_FILE).unlink(missing_ok=True)
            outcomes[0].value = trial.last_result["value"]
            self._show(outcomes)

    def on_trial_recover(self, trial: TuneTrial, **_: Any) -> None:
        """Announces that a process has died."""
        name = trial.config["job"].trials[0].id
        self._progress.announce(f"{name}: its process died, another one resumes it")

    def on_trial_error(self, trial: TuneTrial, **_: Any) -> None:
        """Records a job whose process has died too often."""
        reason = " ".join(str(trial.get_error()).split())[-200:]
        self._conclude(trial, [reason] * len(trial.config["job"].trials))

    def _conclude(self, trial: TuneTrial, errors: list[str]) -> None:
        outcomes = self._run.get_outcomes(trial.config["job"].trials)
        for outcome, error in zip(outcomes, errors, strict=True):
            self._run.judge(outcome, error)
        self._show(outcomes)

    def _show(self, outcomes: list[Outcome]) -> None:
        self._run.record()
        for outcome in outcomes:
            self._progress.show(outcome)


class Suggestions(OptunaSearch):
    """Optuna's suggestions in one search space; those of earlier starts come first.

    Args:
        study_run: The study.
        space: The search space.
        get_job: Makes a job of the trials of a suggestion.

    Attributes:
        num_left: How many jobs there are to train.
    """

    def __init__(
        self, study_run: SearchRun, space: Space, get_job: Callable[[Sequence[Trial]], Job]
    ):
        waiting, finished = [], []
        for values, trials in space.suggestions:
            is_waiting = any(o.status == WAITING for o in study_run.get_outcomes(trials))
            (waiting if is_waiting else finished).append((values, trials))
        vary = study_run.study.vary
        # With the same seed in every start, the sampler would repeat its first draws.
        seed = np.random.SeedSequence([vary.seed, len(space.suggestions)])
        super().__init__(
            {key: _get_distribution(drawn) for key, drawn in vary.search.items()},
            metric="value",
            mode="max" if study_run.study.larger_is_better else "min",
            sampler=optuna.samplers.TPESampler(
                seed=int(seed.generate_state(1)[0]),
                n_startup_trials=min(MAX_RANDOM, vary.samples // REDUCTION_FACTOR),
                constant_liar=True,  # keeps away from what is being trained
            ),
            points_to_evaluate=[values for values, _ in waiting],
        )
        for values, trials in finished:
            value = study_run.get_value(trials)
            self.add_evaluated_point(values, value, pruned=value is None)
        self.num_left = max(vary.samples, len(space.suggestions)) - len(finished)
        self._take_up = partial(study_run.take_up, space)
        self._get_job = get_job

    def suggest(self, trial_id: str) -> dict[str, Job]:
        """The next job."""
        return {"job": self._get_job(self._take_up(super().suggest(trial_id)))}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Ignores epochs: ASHA follows them, Optuna learns from the value at the end."""

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the next start reads the trials."""


def _get_distribution(drawn: Range) -> BaseDistribution:
    is_whole = isinstance(drawn.low, int) and isinstance(drawn.high, int)
    distribution = IntDistribution if is_whole else FloatDistribution
    return distribution(drawn.low, drawn.high, log=drawn.scale == "log")
