"""`experiments.py list, best, show, rm, prune` on runs written by hand."""

import io
import json
import os
import sys
from datetime import UTC, datetime

import pytest
from rich.console import Console

import experiments
from cae import terminal
from cae.files import locked

PROGRAMS = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}


def write_run(folder, day, kind="classifier", value=None, data="mnist", model=True, uses=()):
    """A run of that day; without a value an interrupted one."""
    path = folder / f"{day:02}-{kind}"
    path = path if value is not None else path.with_name(f"{path.name}.partial")
    path.mkdir(parents=True)
    arguments = dict.fromkeys(("labels", "limit", "save", "init_from"))
    start = {
        "program": PROGRAMS[kind],
        "name": f"run of day {day}",
        "command": f"{PROGRAMS[kind]} -d {data}",
        "started": f"2026-11-{day:02}T00:00:00+00:00",
        "folder": str(folder),
        "arguments": {"dataset": data, "overwrite": False, "no_plots": True, **arguments},
        "config": {"batch_size": 32},
        "data": {},
        "models": [{"path": str(used / "model.keras"), "sha256": "0", "bytes": 1} for used in uses],
    }
    (path / "run.json").write_text(json.dumps(start))
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


def call(capsys, *arguments):
    code = experiments.main(list(map(str, arguments)))
    return code, capsys.readouterr()


def test_list_names_every_run_the_latest_first(runs, capsys):
    write_run(runs, 1, value=0.5)
    write_run(runs / "study", 2, "autoencoder", 0.25, data="digits")
    partial = write_run(runs, 3)
    (write_run(runs, 4, value=1) / "run.json").write_text("{")
    with locked(partial, partial / "run.json"):
        _, output = call(capsys, "list", "--json")
    rows = json.loads(output.out)
    assert [(row["path"], row["state"], row["value"]) for row in rows] == [
        ("runs/03-classifier.partial", "running", None),
        ("runs/study/02-autoencoder", "complete", 0.25),
        ("runs/01-classifier", "complete", 0.5),
        ("runs/04-classifier", "damaged", None),
    ]
    _, output = call(capsys, "list", "--kind", "autoencoder")
    assert "runs/study/02-autoencoder" in output.out and "01-classifier" not in output.out


def test_paths_stay_whole_at_a_narrow_terminal(runs, capsys, monkeypatch):
    """So that they can be copied: the other facts follow on a line of their own."""
    path = write_run(runs / "a_study_of_many_configurations", 1, value=0.5)
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    monkeypatch.setattr(terminal, "OUT", console)
    call(capsys, "list")
    lines = console.file.getvalue().splitlines()
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


def test_tests_stand_in_their_place_with_their_images(runs, capsys):
    write_run(runs, 1, value=0.5)
    write_test(runs, 2, "pictures")
    write_run(runs, 3, value=0.25)
    write_test(runs, 4, "/somewhere/data/mnist/t10k-images-idx3-ubyte")
    _, output = call(capsys, "list", "--json")
    rows = [(row["path"], row["data"], row["started"]) for row in json.loads(output.out)]
    assert rows == [
        ("runs/04-test", "mnist", "2026-11-04T00:00:00+00:00"),
        ("runs/03-classifier", "mnist", "2026-11-03T00:00:00+00:00"),
        ("runs/02-test", "pictures", "2026-11-02T00:00:00+00:00"),
        ("runs/01-classifier", "mnist", "2026-11-01T00:00:00+00:00"),
    ]
    _, output = call(capsys, "list")
    assert "2026-11-04 00:00" in output.out
    _, output = call(capsys, "prune", "--keep", 2, "--yes")
    assert sorted(path.name for path in runs.iterdir()) == [
        "01-classifier", "03-classifier", "04-test",  # the best, and the latest two
    ]  # fmt: skip


def test_run_without_validation_shows_its_test_and_is_no_best(runs, capsys):
    path = write_run(runs, 1, value=0.9)
    (path / "metrics.json").write_text(json.dumps({"accuracy": 1.0, "test_accuracy": 0.75}))
    _, output = call(capsys, "list", "--json")
    [row] = json.loads(output.out)
    assert (row["metric"], row["value"]) == ("test_accuracy", 0.75)
    code, output = call(capsys, "best")
    assert code == 2 and "1 without" in output.err and "validation_split" in output.err


def test_best_is_a_path_for_a_command_line(runs, capsys):
    write_run(runs, 1, value=0.9)
    write_run(runs, 2, value=0.8)
    write_run(runs, 3, value=0.95, model=False)
    write_run(runs, 4, "autoencoder", 0.02)
    write_run(runs, 5, "autoencoder", 0.01)
    write_run(runs, 6, "autoencoder", 0.001, data="digits")
    assert call(capsys, "best")[1].out == "runs/01-classifier/model.keras\n"
    _, output = call(capsys, "best", "-d", "mnist", "--kind", "autoencoder")
    assert output.out == "runs/05-autoencoder/model.keras\n"
    code, output = call(capsys, "best", "--kind", "autoencoder")
    assert code == 2 and "digits" in output.err and "mnist" in output.err
    code, output = call(capsys, "best", "-d", "kmnist")
    assert code == 2 and not output.out
    assert "classifier" in output.err and "kmnist" in output.err


def test_show_prints_command_hyperparameters_and_results(runs, capsys):
    path = write_run(runs, 1, value=0.875)
    _, output = call(capsys, "show", path)
    for fact in ("run of day 1", "classification.py -d mnist", "batch_size", "0.875"):
        assert fact in output.out


def test_prune_keeps_the_latest_the_best_and_what_they_started_from(runs, capsys):
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
    assert call(capsys, "prune", "--keep", 1, "--yes")[0] == 0
    assert sorted(path.name for path in runs.iterdir()) == [
        "01-autoencoder", "02-autoencoder", "04-classifier", "06-classifier",
        "07-classifier.partial", "recipe", "study",
    ]  # fmt: skip
    assert (runs / "recipe" / "classifier-seed0").exists()
    assert (runs / "study" / "01-classifier").exists()


def test_the_folder_one_is_in_can_be_a_run(runs, capsys, monkeypatch):
    monkeypatch.chdir(write_run(runs, 1, value=0.5))
    code, output = call(capsys, "show", ".")
    assert code == 0 and "run of day 1" in output.out
    monkeypatch.chdir(runs)
    code, output = call(capsys, "show", ".")
    assert code == 2 and "must be the directory of a run" in output.err


def test_tests_of_classifiers_can_be_listed(runs, capsys):
    write_run(runs, 1, value=0.5)
    path = write_run(runs, 2, value=0.5)
    (path / "run.json").unlink()
    (path / "metrics.json").write_text(json.dumps({"test_accuracy": 0.75}))
    code, output = call(capsys, "list", "--kind", "test")
    assert code == 0 and "02-" in output.out and "01-" not in output.out


class TestRemoving:
    def test_nothing_goes_unless_all_can(self, runs, capsys):
        complete, running = write_run(runs, 1, value=0.5), write_run(runs, 2)
        with locked(running, running / "run.json"):
            code, output = call(capsys, "rm", complete, running, "--yes")
        assert code == 2 and running.name in output.err
        assert complete.exists() and running.exists()
        assert call(capsys, "rm", complete, running, "--yes")[0] == 0
        assert not list(runs.iterdir())

    def test_a_run_named_twice_is_removed_once(self, runs, capsys):
        path = write_run(runs, 1)
        name = path.with_name(path.name.removesuffix(".partial"))
        assert call(capsys, "rm", path, name, path, "--yes")[0] == 0
        assert not path.exists()

    def test_only_runs_are_removed(self, runs, capsys):
        (runs / "mine").mkdir(parents=True)
        code, output = call(capsys, "rm", runs / "mine", "--yes")
        assert code == 2 and "mine" in output.err and (runs / "mine").exists()

    def test_nobody_can_be_asked(self, runs, capsys, monkeypatch):
        path = write_run(runs, 1, value=0.5)
        monkeypatch.setattr(sys, "stdin", None)
        code, output = call(capsys, "rm", path)
        assert code == 2 and "--yes" in output.err and path.exists()
