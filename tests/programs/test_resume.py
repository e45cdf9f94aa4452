"""--resume ends an interrupted run as if nothing had happened, or says in one line what changed."""

import os
import re
import shutil
import signal

import pytest
from conftest import edit_json, read_json, write_dataset
from interruptions import read_record

from cae.records.run import Run
from cae.records.saved_models import load_model, read_metadata, save_model

pytestmark = pytest.mark.usefixtures("executions_of_16_images")


@pytest.mark.parametrize(("program", "execution"), [("autoencoder", 4), ("classification", 7)])
def test_a_run_is_resumed_in_its_folder(tmp_path, programs, interrupt, program, execution):
    """After Ctrl-C in an epoch; a run that nobody interrupted has the same weights and history."""
    whole = programs.start(program)
    saved = tmp_path / "saved.keras"
    interrupt(execution, signal.SIGINT)
    stopped = programs.start(program, "--save", saved)
    assert stopped.exit_code == 130
    assert not saved.exists()
    left = "checkpoint.npz config.json environment.json history.csv metrics.json model.keras"
    assert sorted(path.name for path in stopped.run.iterdir()) == [*left.split(), "run.json"]
    assert f"Resume with: python {program}.py --resume {stopped.run}" in stopped.err
    finished = programs.resume(program, stopped.run).ok()
    assert "resumed" in finished.out and " batches, " in finished.out
    if program == "autoencoder":  # epochs are counted as if nothing had happened
        assert "epoch 2/2" in finished.err and "epoch 1/1" not in finished.err
    run = stopped.run.with_suffix("")
    assert {*programs.runs_dir.iterdir()} == {whole.run, run}
    assert read_record(run) == read_record(whole.run)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.run.iterdir()}
    assert read_metadata(saved)["name"] == "trial"
    environment = read_json(run / "environment.json")
    assert environment["command"].endswith(f"--save {saved} --runs-dir {programs.runs_dir}")


def edit_arguments(run, **changes):
    edit_json(run / "run.json", "arguments", **changes)


def damage_checkpoint(run):
    (run / "checkpoint.npz").write_bytes(b"PK")


REFUSED = {
    "an edited configuration": (
        lambda run: edit_json(run / "config.json", batch_size=17),
        r"config\.json: batch_size: must be 16, .*got 17\.",
    ),
    "an edited flag": (
        lambda run: edit_arguments(run, limit=9),
        r"--limit: must select the same images as when the run began, null, got .*sha256",
    ),
    "a flag of another type": (
        lambda run: edit_arguments(run, limit="many"),
        r'run\.json: arguments\.limit: must be an integer, got "many"',
    ),
    "no run.json": (
        lambda run: (run / "run.json").unlink(),
        r"run\.json: must be readable, got No such file",
    ),
    "a damaged checkpoint": (damage_checkpoint, r"checkpoint\.npz: must be a complete checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), REFUSED.values(), ids=REFUSED)
def test_a_changed_run_is_refused(programs, stopped, change, words):
    """With one line, and it stays as it is."""
    change(stopped)
    before = {path.name: path.read_bytes() for path in stopped.iterdir()}
    done = programs.resume("autoencoder", stopped).refused()
    (line,) = done.err.splitlines()
    assert re.search(words, line), line
    assert {path.name: path.read_bytes() for path in stopped.iterdir()} == before


def test_other_data_are_refused(tmp_path, programs, stopped, monkeypatch):
    """The file is named; with the one of the beginning the run goes on, from another folder too."""
    start = (stopped / "run.json").read_bytes()
    other = write_dataset(tmp_path / "other", count=50)
    edit_arguments(stopped, dataset=str(other.images))
    programs.resume("autoencoder", stopped).refused(f"error: {other.images}: ", "SHA-256")
    (stopped / "run.json").write_bytes(start)
    monkeypatch.chdir(tmp_path)
    assert programs.resume("autoencoder", stopped).exit_code == 0


def test_an_encoder_that_changed_is_refused(tmp_path, programs, interrupt, trained_autoencoder):
    encoder = tmp_path / "encoder.keras"
    shutil.copy(trained_autoencoder.saved, encoder)
    interrupt(2, signal.SIGINT)
    run = programs.start("classification", "-model", encoder).run
    model, metadata = load_model(encoder)
    save_model(model, encoder, {**metadata, "name": "another"}, overwrite=True)
    done = programs.resume("classification", run).refused()
    assert re.search(r"encoder\.keras: .*SHA-256", done.err)


class TestWhatCannotBeResumed:
    def test_no_such_run(self, programs, stopped):
        """The nearest name of an interrupted one is suggested."""
        done = programs.resume("autoencoder", stopped.with_name("no-trial"))
        done.refused("no-trial", f"Did you mean {stopped}?")

    def test_a_complete_run(self, programs, stopped):
        """Its model can be begun with."""
        run = stopped.with_suffix("")
        assert programs.resume("autoencoder", run).exit_code == 0, "named without .partial"
        programs.resume("autoencoder", run).refused("complete", f"--init-from {run}")

    def test_a_run_of_the_other_program(self, programs, stopped):
        done = programs.resume("classification", stopped)
        done.refused(f"Type: python autoencoder.py --resume {stopped}")

    def test_with_other_flags(self, programs, stopped):
        done = programs.resume("autoencoder", stopped, "--epochs", 3, "-d", "mnist", "--show")
        done.refused("got --dataset, --epochs.")

    def test_a_run_in_use(self, programs, stopped):
        """The second of two programs is refused, and the first one's run is left alone."""
        before = {path.name for path in stopped.iterdir()}
        with Run.reopen(stopped) as run:
            run.interrupted = True
            programs.resume("autoencoder", stopped).refused(f"process {os.getpid()}")
        assert {path.name for path in stopped.iterdir()} == before
        assert programs.resume("autoencoder", stopped).exit_code == 0
