"""Where training starts."""

import pytest
from conftest import CLASSIFIER, write_json
from report_folders import make_start

import classification
from cae.programs.starting_points import read_configs


@pytest.mark.parametrize(("given", "found"), [("names.txt", "begun/names.txt"), ("a,b", "a,b")])
def test_a_resumed_run_finds_its_file_of_names(tmp_path, monkeypatch, given, found):
    """From another folder too; names separated by commas stay as they are."""
    run = tmp_path / "run.partial"
    for folder in (run, tmp_path / "begun"):
        folder.mkdir()
    (tmp_path / "begun" / "names.txt").write_text("a\nb\n")
    changes = {"class_names": given, "dataset": "digits"}
    start = make_start("classifier", "tiny", CLASSIFIER, changes, folder=str(tmp_path / "begun"))
    write_json(run / "run.json", start.to_json())
    (run / "checkpoint.npz").touch()
    monkeypatch.chdir(tmp_path)
    args = classification.build_parser().parse_args(["--resume", str(run)])
    read_configs(args, "classifier")
    assert args.class_names == (found if given == "a,b" else str(tmp_path / found))
