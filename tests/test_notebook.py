"""The notebook: its outputs are there, small, and what a fresh execution gives."""

import json
import re
from pathlib import Path

import pytest
from conftest import ROOT, read_json
from rich.console import Console

from cae import terminal

PATH = ROOT / "docs" / "walkthrough.ipynb"
MAX_BYTES = 400_000
SETTINGS_CELL = 3
# Settings of a quick execution, apart from its folder of runs.
SETTINGS = {"LIMIT = 600": "LIMIT = 300", "EPOCHS = 4": "EPOCHS = 2", "SEEDS = 3": "SEEDS = 1"}
RUNS = 'RUNS = "runs/notebook"'


def code_cells(document):
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def kinds_of_outputs(cell):
    """What a cell leaves: standard output, and the richest type of what it displays.

    What stands on standard error depends on the time that steps take.
    """
    kinds = set()
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            kinds |= {output["name"]} - {"stderr"}
        elif output["output_type"] == "error":
            kinds.add(f"error {output['ename']}")
        else:
            kinds.add(min(output["data"]))  # image/png and text/html come before text/plain
    return kinds


@pytest.fixture(scope="module")
def committed():
    return read_json(PATH)


def test_the_file_is_small():
    """Figures are saved at a low resolution."""
    assert PATH.stat().st_size < MAX_BYTES


def test_cells_were_run_in_order(committed):
    counts = [cell["execution_count"] for cell in code_cells(committed)]
    assert counts == [*range(1, len(counts) + 1)]
    kinds = [kind for cell in code_cells(committed) for kind in kinds_of_outputs(cell)]
    assert not any(kind.startswith("error") for kind in kinds)


def test_it_shows_figures_and_a_conclusion(committed):
    """Curves, reconstructions, encodings, evaluation, the study and the label-efficiency curve."""
    outputs = [output for cell in code_cells(committed) for output in cell["outputs"]]
    images = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(images) == 8
    text = json.dumps(outputs)
    assert "macro avg" in text
    assert "No winner" in text or "Best: " in text
    assert "labels pretraining" in text


def test_nothing_of_the_machine_is_in_it(committed):
    text = json.dumps(committed)
    for folder in (str(Path.home()), "/home/", "/tmp", str(ROOT)):
        assert f"{folder}/" not in text


def test_files_are_named_as_they_are(committed):
    """What the text tells people to open, from docs/, and what the code loads, from the root."""
    text = "".join("".join(cell["source"]) for cell in committed["cells"])
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert links and all((PATH.parent / link).exists() for link in links)
    paths = re.findall(r"configuration/\w+\.json|requirements\.txt", text)
    assert len(set(paths)) == 3 and all((ROOT / path).exists() for path in paths)


def test_what_programs_print_can_be_redirected_in_a_notebook(monkeypatch):
    """Rich would show it below the cell, and leave the logs of trials empty."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert not Console(**terminal.PLAIN).is_jupyter


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["docs", pytest.param(".", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_fresh_execution_gives_the_same_kinds_of_outputs(committed, tmp_path, folder):
    """Opened in docs/ or in the root; with fewer images, epochs and seeds, and no network."""
    reason = "needs requirements-dev.txt"
    nbformat = pytest.importorskip("nbformat", reason=reason)
    nbclient = pytest.importorskip("nbclient", reason=reason)
    notebook = nbformat.read(PATH, as_version=4)
    settings = notebook.cells[SETTINGS_CELL]
    for old, new in {**SETTINGS, RUNS: f"RUNS = {str(tmp_path / 'runs')!r}"}.items():
        assert old in settings.source
        settings.source = settings.source.replace(old, new)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / folder)}},
    )
    client.execute()
    assert (tmp_path / "runs" / "rates" / "results.csv").exists()
    expected = [kinds_of_outputs(cell) for cell in code_cells(committed)]
    assert [kinds_of_outputs(cell) for cell in code_cells(notebook)] == expected
