"""Every run has a folder of its own, whoever else starts then and wherever the clock stands."""

import datetime
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from faults import assert_no_half_runs

from cae.records import run as run_module
from cae.records.run import Run
from cae.records.saved_models import load_model


class StoppedClock:
    """Stands where `now` says."""

    def __init__(self, monkeypatch):
        self.now = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
        clock = self

        class Frozen(datetime.datetime):
            @classmethod
            def now(cls, tz=None):
                return clock.now

        monkeypatch.setattr(run_module.datetime, "datetime", Frozen)


class TestSameNameAtOnce:
    def test_directories(self, tmp_path):
        """Of runs that start in the same second."""
        with ThreadPoolExecutor(16) as threads:
            runs = list(threads.map(lambda _: Run(tmp_path, "same"), range(64)))
        assert len({run.path for run in runs}) == 64
        with ThreadPoolExecutor(16) as threads:
            finished = set(threads.map(lambda run: run.finish(), runs))
        assert len(finished) == 64
        assert set(tmp_path.iterdir()) == finished

    def test_a_name_that_was_finished_a_moment_ago(self, tmp_path, monkeypatch):
        """Between the look at the names and the making of the folder."""
        StoppedClock(monkeypatch)
        other = Run(tmp_path, "same")
        make = Path.mkdir

        def finish_first(path, *args, **kwargs):
            if path == other.path:
                other.finish()
            make(path, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", finish_first)
        with Run(tmp_path, "same"):
            pass
        assert {path.name for path in tmp_path.iterdir()} == {
            other.final_path.name,
            f"{other.final_path.name}-2",
        }

    @pytest.mark.slow
    def test_programs(self, tmp_path, files, autoencoder_config):
        """Each trains a run of its own, to the same result; --save is kept by the first."""
        saved = tmp_path / "saved.keras"
        command = [sys.executable, "autoencoder.py", *files.autoencoder, "-c", autoencoder_config]
        command += ["--name", "same", "--no-plots", "--save", str(saved)]
        command += ["--runs-dir", str(tmp_path / "runs")]
        programs = [
            subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        errors = [program.communicate()[1].decode() for program in programs]
        exit_codes = [program.returncode for program in programs]
        assert sorted(set(exit_codes)) in ([0], [0, 2]), errors
        for exit_code, error in zip(exit_codes, errors, strict=True):
            assert ("must not exist yet" in error) == (exit_code == 2)
        assert_no_half_runs(tmp_path / "runs")
        runs = list((tmp_path / "runs").iterdir())
        models = [load_model(run / "model.keras")[0].get_weights() for run in runs]
        assert len(models) == 2
        for weights in (*models, load_model(saved)[0].get_weights()):
            assert all(map(np.array_equal, models[0], weights))


class TestClock:
    def test_moved_back(self, tmp_path, monkeypatch):
        """By an hour, to a second in which a run began: every run is there, under its own name."""
        clock = StoppedClock(monkeypatch)

        def record():
            with Run(tmp_path, "same") as run:
                pass
            return run.final_path

        first = record()
        clock.now -= datetime.timedelta(hours=1)
        second = record()
        clock.now += datetime.timedelta(hours=1)
        third = record()
        assert third.name == f"{first.name}-2"
        assert second.name < first.name
        assert set(tmp_path.iterdir()) == {first, second, third}
