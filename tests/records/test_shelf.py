"""`experiments.py list, best, show, rm, prune` on runs written by hand."""

import json
import os
import sys
from datetime import UTC, datetime
from functools import partial

import pytest
from conftest import run_program
from report_folders import make_start

from cae.files import locked, write_json
from cae.records.run import FileRecord


def write_run(folder, day, kind="classifier", value=None, data="mnist", model=True, uses=()):
    """A run of that day; without a value an interrupted one."""
    path = folder / f"{day:02}-{kind}"
    path = path if value is not None else path.with_name(f"{path.name}.partial")
    path.mkdir(parents=True)
    models = [FileRecord(path=str(used / "model.keras"), sha256="0", bytes=1) for used in uses]
    changes = {"started": f"2026-11-{day:02}T00:00:00+00:00", "folder": str(folder)}
    flags, config = {"dataset": data}, {"batch_size": 32}
    start = make_start(kind, f"run of day {day}", config, flags, models=models, **changes)
    write_json(path / "run.json", start.to_json())
    if value is not None:
        metric = "val_mse" if kind == "autoencoder" else "val_accuracy"
        (path / "metrics.json").write_text(json.dumps({metric: value}))
        if model:
            (path / "model.keras").write_bytes(bytes(1000))
    return path


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


call = partial(run_program, "experiments")


def listed(*flags):
    return json.loads(call("list", "--json", *flags).out)


def test_list_names_every_run_the_latest_first(runs):
    write_run(runs, 1, value=0.5)
    write_run(runs / "study", 2, "autoencoder", 0.25, data="digits")
    partial = write_run(runs, 3)
    (write_run(runs, 4, value=1) / "run.json").write_text("{")
    with locked(partial, partial / "run.json"):
        rows = listed()
    assert [(row["path"], row["state"], row["value"]) for row in rows] == [
        ("runs/03-classifier.partial", "running", None),
        ("runs/study/02-autoencoder", "complete", 0.25),
        ("runs/01-classifier", "complete", 0.5),
        ("runs/04-classifier", "damaged", None),
    ]
    assert [row["path"] for row in listed("--kind", "autoencoder")] == ["runs/study/02-autoencoder"]


def test_paths_stay_whole_at_a_narrow_terminal(runs, screen):
    """So that they can be copied: the other facts follow on a line of their own."""
    path = write_run(runs / "a_study_of_many_configurations", 1, value=0.5)
    shown = screen(60)
    call("list").ok()
    lines = shown.getvalue().splitlines()
    assert lines[0].strip() == str(path.relative_to(runs.parent))
    assert max(map(len, lines)) <= 60
    assert "val_accuracy 0.5000" in lines[1] and "2026-11-01 00:00" in "".join(lines)


def write_test(folder, day, images):
    """A test of a saved classifier, recorded on that day."""
    path = folder / f"{day:02}-test"
    path.mkdir(parents=True)
    record = {"model": {"path": "m.keras"}, "data": [{"path": images}], "test_accuracy": 0.75}
    (path / "metrics.json").write_text(json.dumps(record))
    seconds = datetime(2026, 11, day, tzinfo=UTC).timestamp()
    os.utime(path / "metrics.json", (seconds, seconds))
    return path


def test_tests_stand_in_their_place_with_their_images(runs):
    write_run(runs, 1, value=0.5)
    write_test(runs, 2, "pictures")
    write_run(runs, 3, value=0.25)
    write_test(runs, 4, "/somewhere/data/mnist/t10k-images-idx3-ubyte")
    assert [(row["path"], row["data"], row["started"]) for row in listed()] == [
        ("runs/04-test", "mnist", "2026-11-04T00:00:00+00:00"),
        ("runs/03-classifier", "mnist", "2026-11-03T00:00:00+00:00"),
        ("runs/02-test", "pictures", "2026-11-02T00:00:00+00:00"),
        ("runs/01-classifier", "mnist", "2026-11-01T00:00:00+00:00"),
    ]
    assert "2026-11-04 00:00" in call("list").out
    call("prune", "--keep", 2, "--yes").ok()
    assert sorted(path.name for path in runs.iterdir()) == [
        "01-classifier", "03-classifier", "04-test",  # the best, and the latest two
    ]  # fmt: skip


def test_run_without_validation_shows_its_test_and_is_no_best(runs):
    path = write_run(runs, 1, value=0.9)
    (path / "metrics.json").write_text(json.dumps({"accuracy": 1.0, "test_accuracy": 0.75}))
    (row,) = listed()
    assert (row["metric"], row["value"]) == ("test_accuracy", 0.75)
    call("best").refused("1 without", "validation_split")


def test_best_is_a_path_for_a_command_line(runs):
    write_run(runs, 1, value=0.9)
    write_run(runs, 2, value=0.8)
    write_run(runs, 3, value=0.95, model=False)
    write_run(runs, 4, "autoencoder", 0.02)
    write_run(runs, 5, "autoencoder", 0.01)
    write_run(runs, 6, "autoencoder", 0.001, data="digits")
    assert call("best").out == "runs/01-classifier/model.keras\n"
    best = call("best", "-d", "mnist", "--kind", "autoencoder")
    assert best.out == "runs/05-autoencoder/model.keras\n"
    call("best", "--kind", "autoencoder").refused("digits", "mnist")
    assert not call("best", "-d", "kmnist").refused("classifier", "kmnist").out


def test_show_prints_command_hyperparameters_and_results(runs):
    path = write_run(runs, 1, value=0.875)
    shown = call("show", path).out
    for fact in ("run of day 1", "classification.py -d mnist", "batch_size", "0.875"):
        assert fact in shown


def test_prune_keeps_the_latest_the_best_and_what_they_started_from(runs):
    encoder = write_run(runs, 1, "autoencoder", 0.5)
    write_run(runs, 2, "autoencoder", 0.1)  # the best autoencoder
    write_run(runs, 3, value=0.7)
    write_run(runs, 4, value=0.9, uses=[encoder])  # the best classifier
    write_run(runs, 5, value=0.6)
    write_run(runs, 6, value=0.5)  # the latest
    write_run(runs, 7)  # interrupted
    write_run(runs / "study", 1, value=0.1)
    (runs / "study" / "trials.json").write_text("{}")
    write_run(runs / "recipe", 1, value=0.1).rename(runs / "recipe" / "classifier-seed0")
    call("prune", "--keep", 1, "--yes").ok()
    assert sorted(path.name for path in runs.iterdir()) == [
        "01-autoencoder", "02-autoencoder", "04-classifier", "06-classifier",
        "07-classifier.partial", "recipe", "study",
    ]  # fmt: skip
    assert (runs / "recipe" / "classifier-seed0").exists()
    assert (runs / "study" / "01-classifier").exists()


def test_prune_keeps_what_an_interrupted_run_started_from(runs):
    """It is needed to resume; a run that goes itself keeps nothing."""
    encoders = [write_run(runs, day, "autoencoder", 0.5) for day in (1, 2)]
    write_run(runs, 3, "autoencoder", 0.1)  # the best
    write_run(runs, 4, value=0.5, uses=encoders[:1])
    write_run(runs, 5, uses=encoders[1:])  # interrupted
    write_run(runs, 6, value=0.9)  # the best and the latest
    call("prune", "--keep", 1, "--yes").ok()
    assert sorted(path.name for path in runs.iterdir()) == [
        "02-autoencoder", "03-autoencoder", "05-classifier.partial", "06-classifier",
    ]  # fmt: skip


def test_the_folder_one_is_in_can_be_a_run(runs, monkeypatch):
    monkeypatch.chdir(write_run(runs, 1, value=0.5))
    assert "run of day 1" in call("show", ".").ok().out
    monkeypatch.chdir(runs)
    call("show", ".").refused("must be the folder of a run")


def test_tests_of_classifiers_can_be_listed(runs):
    write_run(runs, 1, value=0.5)
    path = write_run(runs, 2, value=0.5)
    (path / "run.json").unlink()
    (path / "metrics.json").write_text(json.dumps({"test_accuracy": 0.75}))
    (row,) = listed("--kind", "test")
    assert "02-" in row["path"]


class TestRemoving:
    def test_nothing_goes_unless_all_can(self, runs):
        complete, running = write_run(runs, 1, value=0.5), write_run(runs, 2)
        with locked(running, running / "run.json"):
            call("rm", complete, running, "--yes").refused(running.name)
        assert complete.exists() and running.exists()
        call("rm", complete, running, "--yes").ok()
        assert not list(runs.iterdir())

    def test_a_run_named_twice_is_removed_once(self, runs):
        path = write_run(runs, 1)
        name = path.with_name(path.name.removesuffix(".partial"))
        call("rm", path, name, path, "--yes").ok()
        assert not path.exists()

    def test_only_runs_are_removed(self, runs):
        (runs / "mine").mkdir(parents=True)
        call("rm", runs / "mine", "--yes").refused("mine")
        assert (runs / "mine").exists()

    def test_nobody_can_be_asked(self, runs, monkeypatch):
        path = write_run(runs, 1, value=0.5)
        monkeypatch.setattr(sys, "stdin", None)
        call("rm", path).refused("--yes")
        assert path.exists()

    @pytest.mark.parametrize("command", ["rm", "prune"])
    def test_a_terminal_is_asked(self, runs, typed, monkeypatch, command):
        """No is the default."""
        path, best = write_run(runs, 1, value=0.25), write_run(runs, 2, value=0.5)
        named = [path] if command == "rm" else ["--keep", "0"]
        for answer in ("", "n", "y"):
            assert path.exists()
            typed(answer)
            monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
            assert "Remove 1 run" in call(command, *named).ok().out
        assert not path.exists() and best.exists()
