"""Records without training, and the page of each."""

import pytest
from conftest import run_program
from report_folders import HOSTILE, Page, write_run, write_study

from cae.report.report import REPORT_FILE


@pytest.fixture
def autoencoders(tmp_path):
    """Two configurations of two seeds each, far apart, the worse one first; one that failed."""
    folder = tmp_path / "encoders"
    runs = [
        (name, write_run(folder / f"{name}-seed{seed}", "autoencoder", value, seed, name, l2=l2))
        for name, l2, values in (("far", 0.5, (0.91, 0.92)), ("near", 0.0, (0.011, 0.012)))
        for seed, value in enumerate(values)
    ]
    return write_study(folder, runs, [("broken", "the disk must have room")], ["later"])


@pytest.fixture
def classifier_run(tmp_path):
    return write_run(tmp_path / "heads" / "head", "classifier", 0.875, model="models/e.keras")


@pytest.fixture
def report():
    """Writes the report of a folder and reads it."""

    def write(folder, *args):
        run_program("experiments", "report", folder, *args).ok()
        return Page(folder / REPORT_FILE)

    return write


@pytest.fixture
def hostile(tmp_path):
    """A study in which everything that can have a name has one that is markup."""
    folder = tmp_path / "hostile"
    run = write_run(folder / "run", "autoencoder", 0.1, name=HOSTILE, data=HOSTILE)
    return write_study(folder, [(HOSTILE, run)], [(HOSTILE, HOSTILE)])
