"""Trains the trials of a study side by side with Ray: on this machine, or on many.

python experiments.py run STUDY.json --ray
python experiments.py run STUDY.json --ray HOST:6379

A trial stays the run that it is without Ray, in a folder that all machines share. Ray Tune chooses
where it trains, and starts it again elsewhere when its machine dies: then it goes on from its
checkpoint. Of a search space, the configurations are suggested by Optuna's tree-structured Parzen
estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"), and those that fall
behind are stopped by ASHA (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning",
arXiv:1810.05934).
"""

import argparse
import hashlib
import io
import json
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import ray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from cae import terminal
from cae.config.study import StudyFile, Trial, expand
from cae.config.study_schema import Base, Range, Study, Vary
from cae.errors import UsageError
from cae.files import locked
from cae.programs import start as start_module
from cae.records.history import OnEpoch
from cae.records.run import CHECKPOINT_FILE, PARTIAL, START_FILE, TRIALS_FILE
from cae.studies.progress import Outcome, ProgressTable, count_epochs
from cae.studies.results import DONE, STOPPED, WAITING
from cae.studies.trials import StudyRun, train_trial
from cae.training import frozen

# Threads of a trial: small convolutions gain little from more.
DEFAULT_CPUS = 2
# How often a trial is given to another process when its own has died: machines do die, but one
# that kills every process that trains it must come to an end.
MAX_DEATHS = 3
# How long to wait for a run until the process that had it before has really ended.
LOCK_SECONDS = 120
# ASHA looks at a ninth and at a third of the epochs; a third of the trials go on.
REDUCTION_FACTOR = 3
# What Optuna has suggested, and the values that came of it.
SUGGESTIONS_FILE = "optuna.journal"
# Suggestions at random, for the others to learn from.
MAX_RANDOM = 10
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody is told that Ray is used
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run directory is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report has no epoch
}


@dataclass(frozen=True)
class Resources:
    """What a trial is given.

    Attributes:
        cpus: Cores, and threads of TensorFlow.
        gpus: GPUs; 0.5 puts two trials on one.
        parallel: How many trials fit into the cluster.
    """

    cpus: int
    gpus: float
    parallel: int


@dataclass(frozen=True)
class Job:
    """What one process trains without a break.

    Attributes:
        study: The study.
        folder: Where its trials are recorded.
        start: The folder that the program was started in.
        cpus: Threads of TensorFlow.
        trials: Several where they are the seeds of one suggestion.
        can_stop: Whether the first of them is reported epoch by epoch, to be stopped early.
        tracker_flags: The flags of their trackers.
    """

    study: Study
    folder: Path
    start: Path
    cpus: int
    trials: tuple[Trial, ...]
    can_stop: bool = False
    tracker_flags: tuple[str, ...] = ()


def choose_run(study: Study) -> type[StudyRun]:
    """How to train a study; one that is screened has another way of stopping early."""
    is_searched = study.vary and study.vary.search and not study.screening
    return RaySearchRun if is_searched else RayStudyRun


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Resources]:
    """Starts Ray on this machine, or joins the cluster at `args.ray`, until the end of the context.

    Raises:
        UsageError: There is no such cluster, or no machine of it is large enough for a trial.
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
        raise UsageError(
            "--ray",
            "must be the address of a Ray cluster that this machine belongs to",
            f"{args.ray} ({_first_line(error)})",
            "Start Ray there and here (docs/parallel.md), or leave the address out.",
        ) from error
    try:
        yield _divide(args.cpus_per_trial, args.gpus_per_trial)
    finally:
        ray.shutdown()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what Ray and Optuna print: results alone belong on standard output."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _divide(cpus: int | None, gpus: float | None) -> Resources:
    """How many trials fit into the machines of the cluster, and what each is given."""
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
            f"must fit into one machine of the cluster ({most_cpus:g} cores and {most_gpus:g} GPUs "
            "at most)",
            f"{cpus} and {gpus:g}",
            "Give less.",
        )
    return Resources(cpus, gpus, parallel)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


# --- In a process of any machine ------------------------------------------------------------


def train(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Trains a job, in a thread of a process that Ray has started for it.

    Args:
        config: `job`, the `Job`.

    Returns:
        `errors`, for each of its trials a line, which is empty if there is a record.
    """
    job: Job = config["job"]
    try:
        os.chdir(job.start)
        (job.folder / TRIALS_FILE).stat()
    except OSError as error:
        where = f"{job.start / job.folder} on {platform.node()}"
        missing = UsageError(
            where, "must be the study's folder", error.strerror, "Let all machines share it."
        )
        return {"errors": [str(missing)] * len(job.trials)}
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(job.cpus)
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # several trials can share a GPU
    on_epoch = partial(_report, job.study.metric) if job.can_stop else None
    with frozen.sharing():
        first, *others = job.trials
        errors = [_train_trial(job, first, on_epoch)]
        errors += [_train_trial(job, trial) for trial in others]
    return {"errors": errors}


def _train_trial(job: Job, trial: Trial, on_epoch: OnEpoch | None = None) -> str:
    """Trains one trial, or goes on with it; returns what is wrong if there is no record then."""
    path = job.folder / trial.id
    if path.exists():
        return ""  # by a process that died before it could say so
    _wait_for_lock(path.with_name(path.name + PARTIAL))
    _, error = train_trial(job.study, job.folder, trial, job.tracker_flags, on_epoch=on_epoch)
    return error


def _wait_for_lock(run: Path) -> None:
    """Waits until the process that trained it before is gone; if that lives on, the run says so."""
    end = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < end:
        try:
            with locked(run, run / START_FILE):
                return
        except FileNotFoundError:
            return  # a new one
        except UsageError:
            time.sleep(1)


def _report(metric: str, row: dict[str, Any]) -> None:
    """Tells the scheduler of an epoch, which may end the thread here."""
    if metric in row:
        tune.report({"epoch": row["epoch"], "value": row[metric]})


# --- In the program -------------------------------------------------------------------------


class RayStudyRun(StudyRun):
    """A study whose trials are trained side by side, each in full."""

    def train_waiting(self, board: ProgressTable) -> int:
        """See `Stage`; the exit code is that of a signal, if there was one."""
        with _quiet():
            if not any(self._has_more()):
                return 0
            # In this order: when Ray starts it takes the signals for itself.
            with connected(self.args) as self._resources, start_module.StopSignal() as stop:
                board.parallel = self._resources.parallel
                self._train_jobs(board, stop)
        return stop.exit_code

    def _train_jobs(self, board: ProgressTable, stop: start_module.StopSignal) -> None:
        jobs = [self.get_job([o.trial]) for o in self.outcomes if o.status == WAITING]
        self._tune(board, stop, config={"job": tune.grid_search(jobs)})

    def _has_more(self) -> Iterator[bool]:
        """Whether there is anything to train."""
        return (outcome.status == WAITING for outcome in self.outcomes)

    def get_job(self, trials: Sequence[Trial], can_stop: bool = False) -> Job:
        """A job of some trials."""
        return Job(
            self.study,
            self.folder,
            Path.cwd(),
            self._resources.cpus,
            tuple(trials),
            can_stop,
            tuple(self.tracker_flags),
        )

    def _tune(self, board: ProgressTable, stop: start_module.StopSignal, **settings: Any) -> None:
        """Lets Ray Tune train jobs until there are no more."""
        # What Ray writes down is not needed: the trials have their own records.
        with tempfile.TemporaryDirectory() as scratch:
            tune.run(
                train,
                resources_per_trial={"cpu": self._resources.cpus, "gpu": self._resources.gpus},
                max_failures=MAX_DEATHS,
                raise_on_failed_trial=False,
                reuse_actors=True,  # TensorFlow takes seconds to start
                stop=StopWhenAsked(stop),
                callbacks=[Follow(self, board, stop)],
                storage_path=scratch,
                name="study",
                trial_name_creator=lambda trial: trial.trial_id,
                trial_dirname_creator=lambda trial: trial.trial_id,
                verbose=0,
                **settings,
            )

    def conclude(self, job: Job, errors: list[str] | None) -> list[Outcome]:
        """Takes the results of a job from the records of its trials.

        Args:
            job: The job.
            errors: A line for each trial; None when the job was stopped early.

        Returns:
            The outcomes of its trials.
        """
        concluded = self.get_outcomes(job.trials)
        for place, outcome in enumerate(concluded):
            if errors is None:
                self.give_up(outcome)
            else:
                self.judge(outcome, errors[place])
        self.record()
        return concluded

    def get_outcomes(self, trials: Iterable[Trial]) -> list[Outcome]:
        """What has become of trials."""
        by_id = {outcome.trial.id: outcome for outcome in self.outcomes}
        return [by_id[trial.id] for trial in trials]

    def give_up(self, outcome: Outcome) -> None:
        """Records a trial that was stopped early."""
        outcome.status, outcome.reason = STOPPED, "others were better"
        if self.args.keep == "best":
            run = self.folder / (outcome.trial.id + PARTIAL)
            (run / CHECKPOINT_FILE).unlink(missing_ok=True)


class StopWhenAsked(tune.Stopper):
    """Ends all training after Ctrl-C; what has begun goes on from its checkpoint another time."""

    def __init__(self, stop: start_module.StopSignal):
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to end one trial."""
        return False

    def stop_all(self) -> bool:
        """Whether to end all of them."""
        return self._stop.requested()


class Follow(tune.Callback):
    """Records what becomes of the jobs, and shows it."""

    def __init__(self, stage: RayStudyRun, board: ProgressTable, stop: start_module.StopSignal):
        self._stage = stage
        self._board = board
        self._stop = stop

    def on_trial_result(self, trial: TuneTrial, result: dict[str, Any], **_: Any) -> None:
        """Shows the epoch."""
        if "epoch" in result:
            name = trial.config["job"].trials[0].id
            self._board.set_note(f"{name}: epoch {result['epoch']}, {result['value']:.4g}")

    def on_trial_complete(self, trial: TuneTrial, **_: Any) -> None:
        """Records a job that has ended, by itself or early."""
        errors = trial.last_result.get("errors")
        if errors is not None or not self._stop.requested():
            self._conclude(trial, errors)

    def on_trial_recover(self, trial: TuneTrial, **_: Any) -> None:
        """Says that a process has died."""
        name = trial.config["job"].trials[0].id
        self._board.announce(f"{name}: its process died, another one goes on with it")

    def on_trial_error(self, trial: TuneTrial, **_: Any) -> None:
        """Records a job whose process has died too often."""
        reason = " ".join(str(trial.get_error()).split())[-200:]
        self._conclude(trial, [reason] * len(trial.config["job"].trials))

    def _conclude(self, trial: TuneTrial, errors: list[str] | None) -> None:
        for outcome in self._stage.conclude(trial.config["job"], errors):
            self._board.show(outcome)


# --- Search spaces --------------------------------------------------------------------------


class RaySearchRun(RayStudyRun):
    """A study of a search space: suggested by Optuna, stopped early by ASHA."""

    def __init__(self, *args: Any, **settings: Any):
        super().__init__(*args, **settings)
        for search in self._searches:
            search.recall()

    def expand(self) -> list[Trial]:
        """What has been suggested in earlier starts."""
        self._searches = [
            Search(self, base, path)
            for base in self.study.bases
            for path in [base.configuration, *base.variations]
        ]
        # Two suggestions of few whole numbers may be the same.
        return list({t.id: t for search in self._searches for t in search.trials}.values())

    def open_progress(self) -> ProgressTable:
        total = len(self._searches) * self.study.vary.samples * len(self.study.seeds)
        total = max(total, len(self.outcomes))
        return ProgressTable(terminal.ERR, self.study, self.outcomes, total)

    def _train_jobs(self, board: ProgressTable, stop: start_module.StopSignal) -> None:
        for search in self._searches:
            search.begin()
            if search.has_more and not stop.requested():
                scheduler = search.get_scheduler()
                self._tune(board, stop, search_alg=search, scheduler=scheduler, num_samples=-1)

    def _has_more(self) -> Iterator[bool]:
        for search in self._searches:
            search.begin()
            yield search.has_more

    def expand_suggestion(self, base: Base, path: str, changes: dict[str, Any]) -> list[Trial]:
        """The trials of one configuration with other values: one for each seed."""
        # As if it were all there is.
        alone = {"name": base.label_of(path), "configuration": path, "variations": []}
        grid = {key: [value] for key, value in changes.items()}
        study = {
            "bases": [base.model_copy(update=alone)],
            "vary": Vary(grid=grid) if grid else None,
        }
        file = StudyFile(self._file.path, self.study.model_copy(update=study))
        trials = expand(file, self._data, {alone["name"]: self._models[base.label]})
        return [trial._replace(base=base.label) for trial in trials]

    def take_up(self, trials: list[Trial], can_stop: bool) -> Job:
        """A job of what has just been suggested, or was in an earlier start."""
        known = {outcome.trial.id for outcome in self.outcomes}
        self.add(trial for trial in trials if trial.id not in known)
        self.record()
        return self.get_job(trials, can_stop)

    def conclude(self, job: Job, errors: list[str] | None) -> list[Outcome]:
        """See `RayStudyRun`; Optuna is told."""
        concluded = super().conclude(job, errors)
        for search in self._searches:
            search.tell()
        return concluded


class Search(Searcher):
    """The suggestions for one configuration: what Ray Tune asks for the next job.

    They are kept in a journal of Optuna, from which the next start goes on. Each is drawn with a
    seed of its own, so that it depends on nothing but the seed of the search, its number, and the
    values that are known by then.

    Args:
        stage: The study.
        base: What the configuration belongs to.
        path: The configuration, as it is named in the study's file.
    """

    def __init__(self, stage: RaySearchRun, base: Base, path: str):
        study = stage.study
        super().__init__(metric="value", mode="max" if study.larger_is_better else "min")
        self._vary = study.vary
        self._space = {key: _get_distribution(drawn) for key, drawn in study.vary.search.items()}
        self._stage = stage
        self._expand = partial(stage.expand_suggestion, base, path)
        unchanged, *_ = self._expand({})
        self._epochs = count_epochs(unchanged.config)
        identity = [unchanged.digest, self._vary.model_dump(exclude={"samples"}), study.metric]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(stage.folder / SUGGESTIONS_FILE))),
            study_name=f"{unchanged.configuration}-{digest[:8]}",
            direction="maximize" if study.larger_is_better else "minimize",
            load_if_exists=True,
        )
        self._suggestions: dict[int, list[Trial]] = {}  # the trials of each by its number
        self._begun: list[int] = []
        self._read_suggestions()

    def get_scheduler(self) -> TrialScheduler:
        """What stops suggestions that fall behind, from a ninth of the epochs on."""
        if self._epochs == 1:
            return FIFOScheduler()
        first = max(1, self._epochs // REDUCTION_FACTOR**2)
        return ASHAScheduler(
            time_attr="epoch",
            metric=self.metric,
            mode=self.mode,
            grace_period=first,
            max_t=max(first, self._epochs // REDUCTION_FACTOR),
            reduction_factor=REDUCTION_FACTOR,
            stop_last_trials=False,  # the last look is not the last epoch
        )

    def begin(self) -> None:
        """Begins with what was suggested in earlier starts and is not finished."""
        self._begun = [
            number
            for number in self._suggestions
            if any(outcome.status == WAITING for outcome in self._get_outcomes(number))
        ]

    @property
    def has_more(self) -> bool:
        """Whether there is anything left to suggest."""
        return bool(self._begun) or len(self._suggestions) < self._vary.samples

    def suggest(self, trial_id: str) -> dict[str, Job] | str:
        """See `Searcher`: the next job, or that there are no more."""
        if self._begun:
            number = self._begun.pop(0)
        elif len(self._suggestions) < self._vary.samples:
            number = self._ask()
        else:
            return Searcher.FINISHED
        return {"job": self._stage.take_up(self._suggestions[number], self._epochs > 1)}

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """See `Searcher`: the stage tells it, once it has read the record."""

    def save(self, checkpoint_path: str) -> None:
        """See `Searcher`: everything is in the journal."""

    def restore(self, checkpoint_path: str) -> None:
        """See `Searcher`: everything is in the journal."""

    def _ask(self) -> int:
        """The number of a new suggestion."""
        seed = np.random.SeedSequence([self._vary.seed, len(self._study.trials)])
        self._study.sampler = optuna.samplers.TPESampler(
            seed=int(seed.generate_state(1)[0]),
            n_startup_trials=min(MAX_RANDOM, self._vary.samples // REDUCTION_FACTOR),
            constant_liar=True,  # keeps away from what is being trained
        )
        number = self._study.ask(self._space).number
        self._read_suggestions()
        return number

    def _read_suggestions(self) -> None:
        for suggestion in self._study.get_trials(deepcopy=False):
            values = suggestion.params
            if values.keys() != self._space.keys():
                continue  # the program was killed while it was written
            if suggestion.number not in self._suggestions:
                # Digits that people can read and type again.
                changes = {
                    key: float(f"{value:.4g}") if isinstance(value, float) else value
                    for key, value in values.items()
                }
                self._suggestions[suggestion.number] = self._expand(changes)

    @property
    def trials(self) -> list[Trial]:
        """Those of all suggestions so far."""
        return [trial for trials in self._suggestions.values() for trial in trials]

    def tell(self) -> None:
        """Tells Optuna what has become of its suggestions: the mean over the seeds, or no value."""
        for suggestion in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            outcomes = self._get_outcomes(suggestion.number)
            if outcomes and all(outcome.status == DONE for outcome in outcomes):
                self._study.tell(suggestion.number, fmean(outcome.value for outcome in outcomes))
            elif any(outcome.status == STOPPED for outcome in outcomes):
                self._study.tell(suggestion.number, state=TrialState.PRUNED)

    def recall(self) -> None:
        """Takes over from the journal what was stopped early, and tells it what it has missed."""
        for suggestion in self._study.get_trials(deepcopy=False, states=[TrialState.PRUNED]):
            for outcome in self._get_outcomes(suggestion.number):
                if outcome.status == WAITING:
                    self._stage.give_up(outcome)
        self.tell()

    def _get_outcomes(self, number: int) -> list[Outcome]:
        return self._stage.get_outcomes(self._suggestions.get(number, []))


def _get_distribution(drawn_from: Range) -> BaseDistribution:
    low, high = drawn_from.low, drawn_from.high
    is_whole = isinstance(low, int) and isinstance(high, int)
    distribution = IntDistribution if is_whole else FloatDistribution
    return distribution(low, high, log=drawn_from.scale == "log")
