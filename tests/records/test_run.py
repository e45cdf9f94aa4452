"""Run folders are complete under their final name, or not there."""

import pytest
from matplotlib.figure import Figure
from report_folders import make_start

from cae.errors import DataError, UsageError
from cae.files import write_json, write_text
from cae.records.run import FileRecord, Run, read_start


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


def test_what_a_run_began_with_is_read_back(tmp_path):
    """Also from files of other versions, which hold other keys as well."""
    file = FileRecord(path="images", sha256="ab", bytes=3)
    start = make_start("autoencoder", "small", {"epochs": 3}, {"limit": 100})
    start = start.model_copy(update={"data": {"training": [file]}}).to_json()
    write_json(tmp_path / "run.json", start | {"cores": 2})
    read = read_start(tmp_path)
    assert read.arguments.limit == 100 and read.data["training"][0].bytes == 3
    with Run(tmp_path, "small") as run:
        run.begin(read)
    assert read_start(run.path) == read
    write_json(tmp_path / "run.json", start | {"config": 1, "name": 2})
    with pytest.raises(DataError, match=r"(?s)run.json: name: .*run.json: config: "):
        read_start(tmp_path)
