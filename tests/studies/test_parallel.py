"""Studies with Ray: on a real cluster of two nodes, one of which dies, and in a search space."""

import contextlib
import importlib.util
import itertools
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from conftest import ROOT, run_python
from report_folders import table_of, trials_of, write_plan

import experiments
from cae.config.study import load_stages
from cae.errors import UserError
from cae.studies.run import RAY_PACKAGES
from cae.studies.search import SearchRun

NO_RAY = "needs Ray and Optuna: pip install -r requirements-ray.txt"
NEEDS_RAY = pytest.mark.skipif(not all(map(importlib.util.find_spec, RAY_PACKAGES)), reason=NO_RAY)


@pytest.fixture
def study(tmp_path, files):
    """Two rates of one base, with trainings of seconds that can be killed in the middle."""
    rates = {"grid": {"learning_rate": [0.01, 0.003]}}

    def write(vary=rates, seeds=1):
        return write_plan(tmp_path, files.images, epochs=300, vary=vary, seeds=seeds)

    return write


def files_of(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def wait_for(condition, process):
    while not condition():
        assert process.poll() is None, process.said()
        time.sleep(0.05)


# --- What needs no Ray ----------------------------------------------------------------------


def test_ray_that_is_not_installed(study, launch, monkeypatch):
    """One line, with what to type."""
    monkeypatch.setitem(sys.modules, "ray", None)
    done = launch("experiments", "run", study(), "--ray").refused()
    assert done.err.splitlines()[-1].endswith("Type: pip install -r requirements-ray.txt")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--cpus-per-trial", "1"], "require --ray"),
        (["--gpus-per-trial", "0"], "require --ray"),
        (["--ray", "--gpus-per-trial", "1.5"], "must be a number from 0 to 1, or a whole number"),
        (["--ray", "--cpus-per-trial", "0"], "must be a whole number from 1"),
    ],
)
def test_flags_that_do_not_go_together(study, launch, flags, said):
    launch("experiments", "run", study(), *flags).refused(said)


# --- Suggestions ----------------------------------------------------------------------------


SEARCH = {"learning_rate": {"low": 1e-5, "high": 0.1, "scale": "log"}}


@pytest.fixture
def search(study, tmp_path):
    """A study of one search space, and a function that draws all that is left to suggest."""
    pytest.importorskip("ray", reason=NO_RAY)
    pytest.importorskip("optuna", reason=NO_RAY)
    from cae.studies.parallel import Suggestions

    def search(folder, seed=0, samples=6, seeds=2, search=SEARCH):
        vary = {"search": search, "samples": samples, "seed": seed}
        _, (file,) = load_stages(study(vary=vary, seeds=seeds))
        flags = ["run", str(file.path), "--ray", "--runs-dir", str(tmp_path)]
        path = tmp_path / folder
        (path / "configuration").mkdir(parents=True, exist_ok=True)
        study_run = SearchRun(file, path, experiments.build_parser().parse_args(flags))
        (space,) = study_run.spaces

        def suggest():
            suggestions = Suggestions(study_run, space)
            jobs = [suggestions.suggest(str(n))["trials"] for n in range(suggestions.num_left)]
            for trial in itertools.chain(*jobs):
                study_run.trainer.get_arguments(trial)  # as when it starts
            return [tuple(trial.id for trial in job) for job in jobs]

        return study_run, suggest

    return search


@pytest.mark.filterwarnings("ignore")
def test_the_seed_fixes_the_suggestions(search):
    """Each has all seeds of the study, and no two are alike."""
    _, suggest = search("a")
    jobs = suggest()
    assert len(set(jobs)) == 6
    assert all("seed0" in first and "seed1" in second for first, second in jobs)
    assert search("b")[1]() == jobs
    assert search("c", seed=1)[1]() != jobs


@pytest.mark.filterwarnings("ignore")
def test_a_restart_begins_with_what_is_not_finished(search):
    """What is done or was stopped is not suggested again, and counts as one of the samples."""
    study_run, suggest = search("a")
    first, second, *others = suggest()
    for outcome in study_run.outcomes:
        if outcome.trial.id in (*first, *second):
            outcome.status, outcome.value, outcome.reason = "stopped", 0.5, "others were better"
    study_run.record()

    again, suggest = search("a", samples=7)
    assert [o.status for o in again.outcomes] == ["stopped"] * 4 + ["waiting"] * 8
    assert again.get_value([o.trial for o in again.outcomes[:2]]) == 0.5
    *jobs, new = suggest()
    assert jobs == others
    assert len({*jobs, new, first, second}) == 7


@pytest.mark.filterwarnings("ignore")
def test_values_outside_a_changed_space_are_forgotten(search):
    _, suggest = search("a")
    suggest()
    low = {"learning_rate": {**SEARCH["learning_rate"], "high": 1e-3}}
    study_run, _ = search("a", search=low)
    rates = [outcome.trial.config.optimizer[1] for outcome in study_run.outcomes]
    assert 0 < len(rates) < 12 and max(rates) <= 1e-3
    patience = {"early_stopping": {"low": 1, "high": 5}}  # which the earlier trials have not
    assert not search("a", search=patience)[0].outcomes


@pytest.mark.filterwarnings("ignore")
def test_bounds_with_more_digits_than_a_suggestion_has(search):
    """A value at a bound stays what it is: after a restart it is the same trial."""
    bounds = {"learning_rate": {"low": 0.0123456, "high": 0.0123457}}
    _, suggest = search("a", samples=1, search=bounds)
    jobs = suggest()
    again, suggest = search("a", samples=1, search=bounds)
    assert suggest() == jobs
    assert len(again.outcomes) == 2


# --- On a cluster ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each on this machine; each with a raylet and workers of its own."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
        cluster.other = cluster.add_node(**node)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def start(cluster, tmp_path):
    """Starts the program on the cluster, as one would in a terminal."""
    started = []

    def start(study, *flags, runs="runs"):
        command = [sys.executable, str(ROOT / "experiments.py"), "run", study, "--no-plots"]
        command += ["--ray", cluster.address, "--cpus-per-trial", "1", *flags]
        with (tmp_path / f"{runs}-{len(started)}.txt").open("w") as out:
            process = subprocess.Popen(
                [*command, "--runs-dir", str(tmp_path / runs)],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=tmp_path,
            )
        process.said = Path(out.name).read_text
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@NEEDS_RAY
@pytest.mark.slow
def test_a_node_that_dies_costs_only_time(cluster, start, study, tmp_path):
    """Its trial goes on where it was, on the other: the same files and numbers as without Ray."""
    path = study()
    process = start(path)
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: len([*folder.glob("*.partial/checkpoint.npz")]) == 2, process)
    cluster.other.kill_raylet()
    assert process.wait(120) == 0, process.said()
    assert "process died" in process.said()
    logs = [path.read_text() for path in (folder / "logs").iterdir()]
    assert sum("resumed" in log for log in logs) == 1, logs

    # With as many threads, the numbers are the same to the bit.
    command = [ROOT / "experiments.py", "run", path, "--no-plots", "--runs-dir", "alone"]
    alone = run_python(*command, cwd=tmp_path, TF_NUM_INTRAOP_THREADS="1")
    assert alone.returncode == 0, alone.stderr
    assert files_of(folder) == files_of(tmp_path / "alone" / "tiny")
    assert table_of(folder) == table_of(tmp_path / "alone" / "tiny")
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)


@NEEDS_RAY
@pytest.mark.slow
def test_a_trial_that_is_slow_to_stop_costs_no_other(cluster, search, tmp_path):
    """Ray waits two seconds for a trial that ASHA has stopped; more must not lose the next one."""
    from cae.studies import parallel
    from cae.studies.trials import TrialTrainer

    class SlowToStop(TrialTrainer):
        """Every trial is worse than those before."""

        def train(self, trial, on_epoch=None):
            value = next(n for n in itertools.count(1) if mark(self.folder / str(n)))
            try:
                for epoch in range(1, 300):
                    on_epoch({"epoch": epoch, self.study.metric: value})
            finally:
                time.sleep(3 if value > 2 else 0)
            return 0, ""

    def mark(path):
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return True

    study_run, _ = search("a", samples=5, seeds=1)
    study_run.trainer = SlowToStop(study_run.study, study_run.folder)
    study_run.args.ray, study_run.args.cpus_per_trial = cluster.address, 1
    study_run.run(parallel.train_side_by_side)
    # The first two leave no record, unless one has stopped the other.
    assert [outcome.status for outcome in study_run.outcomes[2:]] == ["stopped"] * 3
    with parallel.connected(study_run.args), pytest.raises(UserError, match="none: must be on all"):
        parallel.check_shared(tmp_path / "none")


@NEEDS_RAY
@pytest.mark.slow
def test_a_signal_stops_a_study_in_order(start, study, tmp_path):
    """And says how to go on; Ray prints nothing of its own."""
    process = start(study())
    folder = tmp_path / "runs" / "tiny"
    wait_for(lambda: [*folder.glob("*.partial/checkpoint.npz")], process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143, process.said()
    assert "experiments.py run" in process.said()
    assert "***" not in process.said()
    process = start(study())
    assert process.wait(120) == 0, process.said()
    assert all(trial["status"] == "done" for trial in trials_of(folder))


@NEEDS_RAY
@pytest.mark.slow
def test_a_killed_search_resumes(start, study, tmp_path):
    """Optuna suggests and ASHA stops; what was finished before the kill is not trained again."""
    path = study(vary={"search": SEARCH, "samples": 6, "seed": 3})
    folder = tmp_path / "runs" / "tiny"
    process = start(path)

    def find_finished():
        return [p for p in folder.glob("*/metrics.json") if p.parent.suffix != ".partial"]

    wait_for(find_finished, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in find_finished()}
    process = start(path)
    assert process.wait(120) == 0, process.said()
    trials = trials_of(folder)
    assert len(trials) == 6, process.said()
    assert {trial["status"] for trial in trials} == {"done", "stopped"}
    rates = [float(re.search(r"rate=([\d.e-]+?)-seed", trial["id"])[1]) for trial in trials]
    assert len(set(rates)) == 6 and all(1e-5 <= rate <= 0.1 for rate in rates)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    stopped = [
        folder / f"{trial['id']}.partial" for trial in trials if trial["status"] == "stopped"
    ]
    assert not any((path / "checkpoint.npz").exists() for path in stopped)
    assert len(table_of(folder)) == 6 - len(stopped)
    assert experiments.main(["compare", str(folder)]) == 0
