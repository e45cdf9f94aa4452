"""Run directories are complete under their final name, or not there."""

import json

import pytest
from matplotlib.figure import Figure

from cae.config.load import load_config
from cae.errors import DataError, UsageError
from cae.files import write_json, write_text
from cae.records.history import FULL, History
from cae.records.run import Run, check_runs_dir, read_start


def test_a_run_has_its_name_when_it_is_complete(tmp_path):
    with Run(tmp_path / "deep" / "runs", "small") as run:
        write_text(run.path / "note.txt", "hello")
        assert run.path.name.endswith(".partial")
        assert not run.final_path.exists()
    assert [path.name for path in (tmp_path / "deep" / "runs").iterdir()] == [run.final_path.name]
    assert (run.final_path / "note.txt").read_text() == "hello"
    assert run.path == run.final_path
    assert run.final_path.name.endswith("Z-small")
    run.discard()  # only what is incomplete
    assert run.final_path.is_dir()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_run_that_fails_is_gone(tmp_path, error):
    with pytest.raises(error), Run(tmp_path, "small") as run:
        write_text(run.path / "note.txt", "hello")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_runs_of_one_second_have_different_names(tmp_path):
    """Both complete runs and runs that another process is still writing."""
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
        ("\N{CJK UNIFIED IDEOGRAPH-4E00}" * 300, "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 50),
    ],
)
def test_names_that_no_folder_can_have(tmp_path, name, expected):
    with Run(tmp_path, name) as run:
        pass
    assert run.final_path.parent == tmp_path
    assert run.final_path.name.partition("Z-")[2] == expected


def test_a_folder_that_vanished(tmp_path):
    run = Run(tmp_path, "small")
    run.path.rmdir()
    with pytest.raises(UsageError, match="No such file"):
        write_text(run.path / "note.txt", "hello")
    with pytest.raises(UsageError, match=r"plots: must be writable"):
        run.save_figures({"loss": Figure()})


def test_record(tmp_path, autoencoder_config):
    config = load_config(autoencoder_config, "autoencoder")
    history = History("small", "autoencoder", {}, metrics={"val_mse": 0.5})
    history.epochs = [{"epoch": 1, "phase": FULL, "loss": 0.25}]
    with Run(tmp_path, "small") as run:
        assert run.save_figures({}) == [] and not (run.path / "plots").exists()
        run.write_record(config, {"seed": 7}, history)
    assert load_config(run.path / "config.json", "autoencoder") == config
    assert json.loads((run.path / "environment.json").read_text()) == {"seed": 7}
    assert (run.path / "history.csv").read_text() == "epoch,phase,loss\n1,full,0.25\n"
    assert json.loads((run.path / "metrics.json").read_text()) == {"val_mse": 0.5}


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_place_of_the_folder(tmp_path, below):
    (tmp_path / "runs").touch()
    with pytest.raises(UsageError, match=r"must be a folder.*--runs-dir"):
        check_runs_dir(tmp_path / "runs" / below)


def test_what_a_run_began_with_is_read_back(tmp_path):
    """Also from files of other versions, which hold other keys as well."""
    start = {
        "program": "autoencoder.py",
        "name": "small",
        "command": "autoencoder.py -d mnist",
        "started": "2026-01-01T00:00:00+00:00",
        "folder": "/",
        "arguments": {
            **{"dataset": "mnist", "labels": None, "limit": 100, "save": None},
            **{"overwrite": False, "no_plots": True, "init_from": None},
        },
        "config": {"epochs": 3},
        "data": {"training": [{"path": "images", "sha256": "ab", "bytes": 3}]},
        "models": [],
    }
    write_json(tmp_path / "run.json", start | {"cores": 2})
    read = read_start(tmp_path)
    assert read.arguments.limit == 100 and read.data["training"][0].bytes == 3
    with Run(tmp_path, "small") as run:
        run.begin(read)
    assert read_start(run.path) == read
    write_json(tmp_path / "run.json", start | {"config": 1, "name": 2})
    with pytest.raises(DataError, match=r"(?s)run.json: name: .*run.json: config: "):
        read_start(tmp_path)
