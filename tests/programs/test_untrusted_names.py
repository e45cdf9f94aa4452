"""What strangers' names and addresses cannot do: act in what is written, or make us call home."""

import csv
import json
import os
import re

import numpy as np
import pytest
from conftest import (
    AUTOENCODER,
    CLASSIFIER,
    draw_images,
    read_json,
    read_rows,
    run_program,
    run_python,
    write_json,
)
from PIL import Image

from cae.data import idx, stored
from cae.errors import UserError
from cae.files import write_csv
from cae.records.evaluation import evaluate, read_predictions
from cae.records.run import read_start

FORMULA = "=cmd|'calc'!A0,<script>alert(1)<"
# What a spreadsheet takes for a formula; a number may begin with a sign.
FORMULA_STARTS = tuple("=+-@\t\r\n")


def dangerous_cells(text):
    cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
    numbers = re.compile(r"[+-]?(\d+(\.\d*)?([eE][+-]?\d+)?|nan|inf)")
    starts = [cell for cell in cells if cell.startswith(FORMULA_STARTS)]
    return [cell for cell in starts if not numbers.fullmatch(cell)]


def test_the_test_sees_formulas():
    """Minus one is a number, minus one plus a command is not."""
    assert dangerous_cells("a,=1+1,-1,-1+cmd\n@x,+2,-0.5e-3,b") == ["=1+1", "-1+cmd", "@x"]


def test_names_of_classes_are_no_formulas_in_csv(tmp_path):
    """They are texts for a spreadsheet, and come back as they were."""
    names = ["=1+1", "<b>x</b>", "@SUM(A1)"]
    probabilities = np.eye(3, dtype=np.float32)
    evaluation = evaluate(probabilities, np.arange(3) - 1, np.arange(3) - 1, names)
    write_csv(tmp_path / "p.csv", evaluation.rows)
    assert dangerous_cells((tmp_path / "p.csv").read_text()) == []
    assert set(names) <= set(read_predictions(tmp_path / "p.csv").names.values())


def test_everything_a_run_writes(tmp_path, launch):
    """Folders, files, names and labels of a stranger's data set, through a whole program."""
    folder = tmp_path / FORMULA.replace("/", "")
    folder.mkdir()
    images, _ = draw_images(24, (8, 8), (1, 2), seed=1)
    idx.write_idx(folder / "=images", images)
    idx.write_idx(folder / "@labels", np.tile(np.array([-1, 0], np.int8), 12))
    config = write_json(
        folder / "=1+1.json", CLASSIFIER, encoder_layers=[["conv", 2, [3, 3]]], dense_layers=[]
    )
    flags = ["-d", folder / "=images", "-dl", folder / "@labels", "-c", config, "--no-plots"]
    done = launch("classification", *flags, "--name", FORMULA).ok()
    assert re.fullmatch(r"[\w.-]+", done.run.name) and not done.run.name.startswith("-")
    tables = sorted(done.run.glob("*.csv"))
    assert {path.name for path in tables} == {"history.csv", "predictions.csv"}
    for path in tables:
        assert dangerous_cells(path.read_text()) == []
        assert "cmd" not in path.read_text()
    for path in done.run.glob("*.json"):
        read_json(path)
    assert not list(done.run.rglob("*.htm*"))


def test_names_that_are_not_utf8(tmp_path, monkeypatch, launch, trained_classifier):
    """As in ZIP files of Latin-1: shown and written as gr\\xf6, but opened as they are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "none")
    latin = os.fsdecode(b"gr\xf6")
    folder, run = tmp_path / latin, tmp_path / "runs" / latin
    for number in range(8):
        (folder / f"c{number % 2}").mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8), 30 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"c{number % 2}" / f"{latin}{number}.png")
    config = write_json(tmp_path / f"{latin}.json", AUTOENCODER)
    launch("autoencoder", "-d", folder, "-c", config, "--run-dir", run).ok()
    assert (run / "plots" / "worst_reconstructions.png").exists()
    assert read_start(run).arguments.dataset == str(folder)  # which --resume opens
    listed = launch("experiments", "list").ok()
    assert "damaged" not in listed.out + listed.err
    assert run_program("experiments", "report", run).exit_code == 0
    assert "gr\\xf6" in (run / "report.html").read_text("utf-8")

    config = write_json(tmp_path / "c.json", CLASSIFIER, encoder_layers=[["conv", 2, [3, 3]]])
    flags = ["-d", folder, "-c", config, "--test-split", "0.5", "--no-plots"]
    done = launch("classification", *flags).ok()
    (row, _, _, _) = read_rows(done.run / "predictions.csv")
    assert row["file"].startswith("c0/gr\\xf6")

    use = [trained_classifier.saved, folder / "c1", "-o"]
    for name, text in ("e.npy", "e.txt"), ("e.csv", "e.csv"):
        run_program("predict", "encode", *use, tmp_path / name).ok()
        assert f"{tmp_path}/gr\\xf6/c1/gr\\xf67.png" in (tmp_path / text).read_text("utf-8")
    run_program("predict", "show", folder / "missing.keras").refused("/gr\\xf6/missing.keras")


def test_terminal_codes_are_shown_not_sent():
    """A file's name may hold what clears a screen or moves the cursor."""
    message = str(UserError("\x1b[2Jx\x9b3A", "must be\tplain", "a\nb\x07", "日本 ü."))
    assert message == "\\x1b[2Jx\\x9b3A: must be plain, got a b\\x07. 日本 ü."


# Runs both programs on files, with every use of the network recorded and refused. What libraries
# do in C is not seen; what Python asks of the network is, whoever asks.
OFFLINE = """
import json, sys

asked = []

def refuse(event, args):
    # Making and binding a socket sends nothing: urllib3 does so to see whether there is IPv6.
    silent = ("socket.__new__", "socket.gethostname", "socket.bind")
    if event.startswith(("socket.", "urllib.", "http.client.")) and event not in silent:
        asked.append(event)
        raise OSError("no network in this test")

sys.addaudithook(refuse)
import urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:1")
except OSError:
    pass
assert asked.pop() == "urllib.Request" and not asked  # it would be seen

import autoencoder, classification

data, folder = sys.argv[1:]
images, saved = ["-d", f"{data}/images"], f"{folder}/a.keras"
shared = ["-dl", f"{data}/labels", "--runs-dir", f"{folder}/runs"]
test = ["-t", f"{data}/test", "-tl", f"{data}/test_labels"]
first = autoencoder.main([*images, *shared, "-c", f"{folder}/a.json", "--save", saved])
second = classification.main([*images, *shared, *test, "-c", f"{folder}/c.json", "-model", saved])
print(json.dumps([first, second, asked]))
"""


@pytest.mark.slow
def test_nobody_calls_home(tmp_path, files):
    """No telemetry, no look for newer versions, no fonts from afar."""
    write_json(tmp_path / "a.json", AUTOENCODER)
    write_json(tmp_path / "c.json", CLASSIFIER)
    done = run_python("-c", OFFLINE, files.images.parent, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, 0, []]
