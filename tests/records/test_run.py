"""Run directories: complete under their name, or not there."""

import hashlib
import json
import subprocess

import numpy as np
import pytest
from matplotlib.figure import Figure

from cae.config.load import load_config
from cae.data import idx
from cae.data.datasets import load_dataset
from cae.errors import UsageError
from cae.files import write_text
from cae.records import run as run_module
from cae.records.history import FULL, History
from cae.records.run import Run, check_runs_dir, describe_environment


def test_a_run_has_its_name_when_it_is_complete(tmp_path):
    with Run(tmp_path / "deep" / "runs", "small") as run:
        write_text(run.path / "note.txt", "hello")
        assert run.path.name.endswith(".partial")
        assert not run.final_path.exists()
    assert [path.name for path in (tmp_path / "deep" / "runs").iterdir()] == [run.final_path.name]
    assert (run.final_path / "note.txt").read_text() == "hello"
    assert run.path == run.final_path
    assert run.final_path.name.endswith("Z-small")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_run_that_fails_is_gone(tmp_path, error):
    with pytest.raises(error), Run(tmp_path, "small") as run:
        write_text(run.path / "note.txt", "hello")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_a_complete_run_is_never_discarded(tmp_path):
    with Run(tmp_path, "small") as run:
        pass
    run.discard()
    assert run.final_path.is_dir()


def test_runs_of_one_second_have_different_names(tmp_path):
    """Complete ones and ones that another program is still writing."""
    with Run(tmp_path, "same"):
        pass
    names = {Run(tmp_path, "same").path.name for _ in range(3)}
    assert len(names) == 3
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("small", "small"),
        ("../../etc/x", "etc-x"),
        ("a b\n[c]", "a-b-c"),
        ("größe", "größe"),
        ("...", "run"),
        ("n" * 300, "n" * 50),
        ("\N{GRINNING FACE}" * 300, "run"),
        ("\N{CJK UNIFIED IDEOGRAPH-4E00}" * 300, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 50),
    ],
)
def test_names_that_no_folder_can_have(tmp_path, name, expected):
    with Run(tmp_path, name) as run:
        pass
    assert run.final_path.parent == tmp_path
    assert run.final_path.name.partition("Z-")[2] == expected


def test_a_folder_that_vanished_is_a_person_s_error(tmp_path):
    run = Run(tmp_path, "small")
    run.path.rmdir()
    with pytest.raises(UsageError, match="No such file"):
        write_text(run.path / "note.txt", "hello")
    with pytest.raises(UsageError, match=r"plots: must be writable"):
        run.save_figures({"loss": Figure()})


def test_no_figures_no_folder(tmp_path):
    with Run(tmp_path, "small") as run:
        assert run.save_figures({}) == []
    assert list(run.final_path.iterdir()) == []


def test_record(tmp_path, autoencoder_config):
    config = load_config(autoencoder_config, "autoencoder")
    history = History("small", "autoencoder", {}, metrics={"val_mse": 0.5})
    history.epochs = [{"epoch": 1, "phase": FULL, "loss": 0.25}]
    with Run(tmp_path, "small") as run:
        run.write_record(config, {"seed": 7}, history)
    assert load_config(run.path / "config.json", "autoencoder") == config
    assert json.loads((run.path / "environment.json").read_text()) == {"seed": 7}
    assert (run.path / "history.csv").read_text() == "epoch,phase,loss\n1,full,0.25\n"
    assert json.loads((run.path / "metrics.json").read_text()) == {"val_mse": 0.5}


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_place_of_the_folder(tmp_path, below):
    (tmp_path / "runs").touch()
    with pytest.raises(UsageError, match=r"must be a folder.*Give another folder"):
        check_runs_dir(tmp_path / "runs" / below)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module.os, "access", lambda path, mode: False)
    with pytest.raises(UsageError, match="--runs-dir: must be writable"):
        check_runs_dir(tmp_path)


def test_environment(tmp_path):
    idx.write_idx(tmp_path / "images", np.zeros((2, 3, 4), np.uint8))
    data = load_dataset(str(tmp_path / "images"))
    found = describe_environment("autoencoder.py -d x", {"training": data}, "CPU, 2 cores", 7)
    assert found["command"] == "autoencoder.py -d x"
    assert (found["device"], found["seed"]) == ("CPU, 2 cores", 7)
    training = found["data"]["training"]
    assert (training["name"], training["shape"], training["dtype"]) == (
        "images",
        [2, 3, 4, 1],
        "uint8",
    )
    digest = hashlib.sha256((tmp_path / "images").read_bytes()).hexdigest()
    assert training["files"][0]["sha256"] == digest
    assert json.loads(json.dumps(found)) == found


def test_environment_without_git(monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", fail)
    assert describe_environment("x", {}, "CPU", 0)["git_commit"] is None
