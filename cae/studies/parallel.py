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
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import ray
from optuna.distributions import FloatDistribution, IntDistribution
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.tune.stopper import NoopStopper
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cae.config.study import Trial
from cae.errors import UsageError
from cae.programs.start import StopSignal
from cae.studies.progress import ProgressTable, count_epochs
from cae.studies.results import WAITING
from cae.studies.search import SearchRun, Space
from cae.studies.trials import StudyRun, TrialTrainer
from cae.training.predict import sharing_encodings

DEFAULT_CPUS = 2  # threads per trial: small convolutions gain little from more
MAX_FAILURES = 3  # restarts of a trial: it may be what kills its process
SECONDS_TO_STOP = 120  # that a stopped trial may take
REDUCTION_FACTOR = 3  # ASHA looks at a ninth and at a third of the epochs; a third continue
MAX_RANDOM = 10  # random suggestions before the model of Optuna has enough to learn from
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray sends no statistics
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the run folder is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `StopSignal` handles Ctrl-C
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # the last report has no epoch
}


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[dict[str, float]]:
    """Starts Ray on this machine, or joins the Ray cluster at `args.ray`, until the context ends.

    Yields the resources of a trial.

    Raises:
        UsageError: There is no such cluster, or none of its machines is large enough for a trial.
    """
    os.environ.update(SETTINGS)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # it is for results
        warnings.simplefilter("ignore")
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


def _choose_resources(cpus: int | None, gpus: float | None) -> dict[str, float]:
    """Those of the flags, or by what the machines have."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most_cpus, most_gpus = (max(m.get(kind, 0) for m in machines) for kind in ("CPU", "GPU"))
    cpus = cpus or max(1, min(DEFAULT_CPUS, int(most_cpus)))
    gpus = min(1, most_gpus) if gpus is None else gpus
    if not any(m.get("CPU", 0) >= cpus and m.get("GPU", 0) >= gpus for m in machines):
        raise UsageError(
            "--cpus-per-trial and --gpus-per-trial",
            f"must fit on one machine (the largest have {most_cpus:g} cores, {most_gpus:g} GPUs)",
            f"{cpus} and {gpus:g}",
            "Request fewer cores or GPUs per trial.",
        )
    return {"cpu": cpus, "gpu": gpus}


def check_shared(folder: Path) -> None:
    """Raises a UsageError if a machine of the Ray cluster does not see a folder."""

    @ray.remote(num_cpus=0)
    def is_seen() -> bool:
        return folder.is_dir()

    machines = [node for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in machines]
    seen = ray.get([is_seen.options(scheduling_strategy=place).remote() for place in places])
    if not all(seen):
        raise UsageError(
            folder,
            "must be on all machines of the Ray cluster",
            f"nothing on {machines[seen.index(False)]['NodeManagerHostname']}",
            "Name a shared folder with --runs-dir (docs/parallel.md).",
        )


# --- In a process on any machine ------------------------------------------------------------


def train(
    config: Mapping[str, Any], trainer: TrialTrainer, cpus: int, working_dir: Path
) -> dict[str, Any]:
    """Trains trials in turn, in a thread of a process that Ray has started for them.

    Args:
        config: As `trials`, one trial, or the seeds of a suggestion; the first reports its epochs.
        trainer: Trains them.
        cpus: Threads of TensorFlow.
        working_dir: In which the program was started.

    Returns:
        `error`, empty without one, and `value`, the mean metric, if it is finite.
    """
    os.chdir(working_dir)
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(cpus)
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"  # several trials can share a GPU
    # Ray gives up the next trial of this process, without a word, if this one ends too slowly.
    os.environ["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = str(SECONDS_TO_STOP)

    def report(row: dict[str, Any]) -> None:
        if trainer.study.metric in row:  # Ray may end the thread here
            tune.report({"epoch": row["epoch"], "value": row[trainer.study.metric]})

    with sharing_encodings():
        error, value = trainer.train_seeds(config["trials"], report)
    return {"error": error, **({"value": value} if math.isfinite(value) else {})}


# --- In the program -------------------------------------------------------------------------


def train_side_by_side(study_run: StudyRun, progress: ProgressTable) -> int:
    """Trains the trials of a study with Ray; returns the exit code of a signal, or 0."""
    if not study_run.has_work():
        return 0
    # In this order: Ray handles signals itself once it has started.
    with (
        connected(study_run.args) as resources,
        StopSignal() as stop,
        TemporaryDirectory() as scratch,
    ):
        check_shared(study_run.folder.resolve())
        shared = {"trainer": study_run.trainer, "cpus": resources["cpu"]}
        stopper = NoopStopper()
        stopper.stop_all = stop.requested
        tune_trials = partial(
            tune.run,
            tune.with_parameters(train, working_dir=Path.cwd(), **shared),
            resources_per_trial=resources,
            max_failures=MAX_FAILURES,
            raise_on_failed_trial=False,
            reuse_actors=True,  # TensorFlow takes seconds to start
            stop=stopper,
            callbacks=[_Recorder(study_run, progress, stop)],
            storage_path=scratch,
            trial_dirname_creator=lambda trial: trial.trial_id,
            verbose=0,
        )
        if not isinstance(study_run, SearchRun):
            waiting = [[o.trial] for o in study_run.outcomes if o.status == WAITING]
            tune_trials(config={"trials": tune.grid_search(waiting)})
            return stop.exit_code
        for space in study_run.spaces:
            search = Suggestions(study_run, space)
            if search.num_left and not stop.requested():
                scheduler = _get_scheduler(study_run, space)
                tune_trials(search_alg=search, scheduler=scheduler, num_samples=search.num_left)
    return stop.exit_code


def _get_scheduler(study_run: SearchRun, space: Space) -> ASHAScheduler | None:
    """ASHA, which stops trials from a ninth of the epochs on."""
    epochs = count_epochs(study_run.get_trials(space, {})[0].config)
    if epochs == 1:
        return None
    first = max(1, epochs // REDUCTION_FACTOR**2)
    return ASHAScheduler(
        time_attr="epoch",
        metric="value",
        mode="max" if study_run.study.is_larger_better else "min",
        grace_period=first,
        max_t=max(first, epochs // REDUCTION_FACTOR),
        reduction_factor=REDUCTION_FACTOR,
        stop_last_trials=False,  # `max_t` is the last look, not the last epoch
    )


class _Recorder(tune.Callback):
    """Records and shows the results of jobs."""

    def __init__(self, study_run: StudyRun, progress: ProgressTable, stop: StopSignal):
        self._run = study_run
        self._progress = progress
        self._stop = stop

    def on_trial_result(
        self, trials: Sequence[TuneTrial], trial: TuneTrial, result: dict[str, Any], **_: Any
    ) -> None:
        if "epoch" in result:
            seconds = result["time_total_s"] / result["training_iteration"]
            running = trial.config["trials"][0]
            self._progress.show_epoch(running, result["epoch"], result["value"], seconds)
            self._progress.parallel = sum(other.status == TuneTrial.RUNNING for other in trials)

    def on_trial_complete(self, trial: TuneTrial, **_: Any) -> None:
        if "error" in trial.last_result:
            self._record(trial, trial.last_result["error"])
        elif not self._stop.requested():  # ASHA has stopped it
            self._run.stop(trial.config["trials"], trial.last_result["value"])
            self._record(trial)

    def on_trial_recover(self, trial: TuneTrial, **_: Any) -> None:
        name = trial.config["trials"][0].id
        self._progress.announce(f"{name}: process died; resuming in a new one")

    def on_experiment_end(self, trials: Sequence[TuneTrial], **_: Any) -> None:
        for trial in trials:
            if trial.status == TuneTrial.ERROR:  # its processes have died too often
                self._record(trial, str(trial.get_error()).strip().splitlines()[-1][:200])

    def _record(self, trial: TuneTrial, error: str | None = None) -> None:
        outcomes = self._run.get_outcomes(trial.config["trials"])
        if error is not None:
            for outcome in outcomes:
                self._run.judge(outcome, error)
        self._run.record()
        for outcome in outcomes:
            self._progress.show(outcome)


class Suggestions(OptunaSearch):
    """Optuna's suggestions in one search space; those of earlier starts come first.

    `num_left` of them are to be trained.
    """

    def __init__(self, study_run: SearchRun, space: Space):
        self._take_up = partial(study_run.take_up, space)
        waiting, finished = study_run.divide(space)
        vary = study_run.study.vary
        super().__init__(
            {
                key: (IntDistribution if drawn.is_whole else FloatDistribution)(
                    drawn.low, drawn.high, log=drawn.scale == "log"
                )
                for key, drawn in vary.search.items()
            },
            metric="value",
            mode="max" if study_run.study.is_larger_better else "min",
            sampler=optuna.samplers.TPESampler(
                # With the same seed in every start, the sampler would repeat its first draws.
                seed=vary.seed + len(space.suggestions),
                n_startup_trials=min(MAX_RANDOM, vary.samples // REDUCTION_FACTOR),
                constant_liar=True,  # keeps away from what is being trained
            ),
            points_to_evaluate=waiting,
        )
        for values, value in finished:
            self.add_evaluated_point(values, value, pruned=value is None)
        self.num_left = max(vary.samples, len(space.suggestions)) - len(finished)

    def suggest(self, trial_id: str) -> dict[str, list[Trial]]:
        """The trials of the next suggestion, as `trials`."""
        return {"trials": self._take_up(super().suggest(trial_id))}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Ignores epochs: ASHA follows them, Optuna learns from the value at the end."""

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the next start reads the trials."""
