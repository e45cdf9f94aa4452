"""`experiments.py recipe`: the pair of a recipe, trained, skipped, resumed and refused."""

import shutil
import signal

import numpy as np
import pytest
from conftest import edit_json, read_rows, run_program, write_json

from cae.config import shipped
from cae.data import idx
from cae.files import locked
from cae.records.run import read_start
from cae.records.shelf import find_entries
from cae.studies.results import read_result

COMMON = {"optimizer": ["adam", 0.01], "batch_size": 8}
LAYERS = {"encoder_layers": [["conv", 2, [3, 3]], ["pool", [2, 2]], ["dense", 4]]}
AUTOENCODER = {**LAYERS, "decoder_layers": [["upSample", [2, 2]]], "epochs": 1, **COMMON}
CLASSIFIER = {
    **{"dense_layers": [], "dense_only_train_epochs": 0, "full_train_epochs": 1, **COMMON},
    **{"validation_split": 0, "best_epoch_by": "last"},
    "unlabelled": {"batch_size": 16, "label_spreading": {}},
}
RECIPE = {"labels": 15, "autoencoder": AUTOENCODER, "classifier": CLASSIFIER}


@pytest.fixture(scope="module")
def flags(shared, files):
    """Of 48 images 15 keep their label; 6 others have none."""
    more = shared / "more"
    idx.write_idx(more, np.random.default_rng(3).integers(0, 255, (6, 8, 8), np.uint8))
    return [*files.classifier, "--labels-per-class", 5, "--unlabelled", more, "--seed", 3]


@pytest.fixture(scope="module")
def recipe(shared):
    return write_json(shared / "tiny-recipe.json", RECIPE)


def start(*arguments, runs_dir):
    """Runs the program; the paths of `Finished.runs` are the folders of pairs."""
    flags = ["--name", "pair", "--no-plots"]
    return run_program("experiments", "recipe", *arguments, *flags, runs_dir=runs_dir)


@pytest.fixture(scope="module")
def pair(shared, recipe, flags):
    return start(recipe, *flags, runs_dir=shared / "recipe-runs")


def state(folder):
    """Every file of the runs, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def table(finished):
    return [line.split("│") for line in finished.out.splitlines() if line.startswith("│")]


def test_a_pair(pair):
    assert pair.exit_code == 0, pair.err
    entries = {entry.path.name: entry for entry in find_entries(pair.run)}
    assert sorted(entries) == ["autoencoder-seed3", "classifier-seed3"]
    assert {entry.state for entry in entries.values()} == {"complete"}
    autoencoder, classifier = (entries[name].start for name in sorted(entries))
    assert "54 of 8×8×1" in pair.out and "15 of 8×8×1" in pair.out
    assert autoencoder.config["seed"] == classifier.config["seed"] == classifier.sample["seed"] == 3
    assert classifier.arguments.model.endswith("autoencoder-seed3/model.keras")
    # autoencoder.py can resume and repeat its run: it has all the flags.
    assert autoencoder.arguments.unlabelled and autoencoder.arguments.test is None
    error = 1 - read_result(pair.run / "classifier-seed3").history.metrics["test_accuracy"]
    assert [row[2].strip() for row in table(pair)] == [f"{error:.2%}"]
    assert f"predict.py evaluate {pair.run}/classifier-seed3/model.keras" in pair.out


def test_the_same_command_trains_nothing_again(pair, recipe, flags):
    before = state(pair.run)
    again = start(recipe, *flags, runs_dir=pair.run.parent).ok()
    assert state(pair.run) == before
    assert table(again) == table(pair)


def test_the_folder_of_a_pair_can_be_compared_and_reported(pair, tmp_path):
    """A table for each half, and a page of both."""
    run_program("experiments", "compare", pair.run, "--csv", tmp_path / "r.csv").ok()
    rows = read_rows(tmp_path / "r.csv")
    assert [row["run"] for row in rows] == ["autoencoder-seed3", "classifier-seed3"]
    page = tmp_path / "r.html"
    run_program("experiments", "report", pair.run, "--output", page).ok()
    text = page.read_text(encoding="utf-8")
    accuracy = read_result(pair.run / "classifier-seed3").history.metrics["test_accuracy"]
    assert f"{100 * accuracy:.2f} %" in text and f"{pair.run}/classifier-seed3/model.keras" in text


def test_the_next_command_stays_on_one_line(pair, recipe, flags, monkeypatch):
    """At a narrow terminal too, where it is to be copied."""
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "40")):
        monkeypatch.setenv(name, value)
    again = start(recipe, *flags, runs_dir=pair.run.parent)
    (line,) = [line for line in again.out.splitlines() if line.startswith("Next: ")]
    (whole,) = [line for line in pair.out.splitlines() if line.startswith("Next: ")]
    assert line == whole


def test_the_recipe_is_chosen_by_the_labels(pair, flags, tmp_path, monkeypatch):
    for labels, name in ((5, "five"), (15, "tiny-recipe"), (16, "sixteen"), ("all", "all")):
        path = tmp_path / "configuration" / "recipes" / f"{name}.json"
        write_json(path, RECIPE | {"labels": labels})
    monkeypatch.setattr(shipped, "ROOTS", (tmp_path,))
    chosen = start(*flags, runs_dir=pair.run.parent).ok()
    assert "15 labels: tiny-recipe" in chosen.out
    assert table(chosen) == table(pair)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--labels-per-class", 6], "labels_per_class: must be 5"),
        (["--invert", "test"], "invert: must be null"),
        (["--limit", 40], "limit: must be null"),
        (["--unlabelled", "OTHER"], "other: must be unchanged"),
        ({"epochs": 2}, "epochs: must be 1"),
    ],
    ids=str,
)
def test_other_settings_and_data_are_refused(pair, recipe, flags, changes, named, tmp_path):
    before = state(pair.run)
    if isinstance(changes, dict):
        changed = RECIPE | {"autoencoder": AUTOENCODER | changes}
        recipe, changes = write_json(tmp_path / "tiny-recipe.json", changed), []
    idx.write_idx(tmp_path / "other", np.zeros((6, 8, 8), np.uint8))
    changes = [tmp_path / "other" if flag == "OTHER" else flag for flag in changes]
    refused = start(recipe, *flags, *changes, runs_dir=pair.run.parent).refused()
    (line,) = [line for line in refused.err.splitlines() if line.startswith("error: ")]
    assert named in line
    assert state(pair.run) == before


def test_a_key_that_is_newer_than_the_pair_has_its_default(pair, recipe, flags, tmp_path):
    """As when an earlier version has trained it."""
    shutil.copytree(pair.run, tmp_path / "pair")
    for path in (tmp_path / "pair").glob("*/run.json"):
        edit_json(path, "config", min_steps=None)
    done = start(recipe, *flags, runs_dir=tmp_path).ok()
    assert done.err.count("Complete: ") == 2


def test_another_start_at_the_same_time_is_refused(pair, recipe, flags):
    with locked(pair.run):
        refused = start(recipe, *flags, runs_dir=pair.run.parent)
    assert refused.exit_code == 2
    assert str(pair.run) in refused.err


def test_what_was_interrupted_is_resumed(pair, recipe, flags, tmp_path, monkeypatch):
    """Ctrl-C while the classifier trains; the same command ends with the same weights."""
    from cae.training import train

    train_classifier = train.train_classifier

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return train_classifier(*args, **kwargs)

    folder = tmp_path / "runs" / "pair"
    shutil.copytree(pair.run / "autoencoder-seed3", folder / "autoencoder-seed3")
    monkeypatch.setattr(train, "train_classifier", interrupted)
    stopped = start(recipe, *flags, runs_dir=tmp_path / "runs")
    assert stopped.exit_code == 128 + signal.SIGINT
    assert "Resume with: python " in stopped.err and "experiments.py recipe " in stopped.err
    assert (folder / "classifier-seed3.partial").is_dir()
    monkeypatch.setattr(train, "train_classifier", train_classifier)
    start(recipe, *flags, runs_dir=tmp_path / "runs").ok()
    one, other = (
        read_result(path / "classifier-seed3").history.metrics for path in (folder, pair.run)
    )
    assert one["test_accuracy"] == other["test_accuracy"]


def test_a_classifier_alone_with_two_seeds(files, tmp_path):
    """It learns from the labelled images, and needs no others; a table has mean and deviation."""
    classifier = CLASSIFIER | LAYERS | {"unlabelled": None}
    recipe = write_json(tmp_path / "mine.json", {"classifier": classifier})
    finished = start(recipe, *files.classifier, "--seeds", 2, runs_dir=tmp_path / "runs").ok()
    names = ["classifier-seed0", "classifier-seed1"]
    assert sorted(path.name for path in finished.run.iterdir()) == names
    assert read_start(finished.run / names[0]).models == []
    results = [read_result(finished.run / name).history.metrics for name in names]
    errors = [1 - values["test_accuracy"] for values in results]
    expected = [*errors, np.mean(errors), np.std(errors, ddof=1)]
    assert [row[2].strip() for row in table(finished)] == [f"{error:.2%}" for error in expected]


@pytest.mark.parametrize(
    ("recipe", "flags", "named"),
    [
        (["few_labels"], [], "few_labels_100"),
        (["few_labels_100"], [], "--unlabelled"),
        (["few_labels_100"], ["-d", "none"], "none"),
        (["few_labels_100"], ["--labels-per-class", 99], "--labels-per-class"),
        (["BROKEN"], [], "classifier: batch_size: "),
        (["LARGE"], ["--labels-per-class", 5], "encoder_layers[0]"),
    ],
    ids=str,
)
def test_faults_are_told_before_anything_is_written(recipe, flags, named, files, tmp_path):
    paths = {
        "BROKEN": {"classifier": CLASSIFIER | LAYERS | {"batch_size": 0}},
        "LARGE": RECIPE | {"autoencoder": AUTOENCODER | {"encoder_layers": [["pool", [9, 9]]]}},
    }
    recipe = [write_json(tmp_path / x, paths[x]) if x in paths else x for x in recipe]
    runs = tmp_path / "runs"
    given = [*recipe, *files.classifier, *flags]
    refused = run_program("experiments", "recipe", *given, runs_dir=runs).refused()
    (line,) = refused.err.splitlines()
    assert named in line
    assert not runs.exists()
