"""From a folder of pictures to predictions: both programs, and the test of a saved classifier."""

import json

import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER, read_rows, run_program, write_json
from PIL import Image, ImageDraw

from cae.data import stored

SHAPES = {"circle": ImageDraw.ImageDraw.ellipse, "square": ImageDraw.ImageDraw.rectangle}


def draw_shapes(folder, count, size, rng):
    """So many noisy pictures of every shape at random places, in a subfolder each."""
    for name, draw in SHAPES.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            picture = Image.new("L", (size, size))
            left, top = rng.integers(0, size // 3, 2).tolist()
            side = int(rng.integers(size // 2, 2 * size // 3))
            draw(ImageDraw.Draw(picture), [left, top, left + side, top + side], fill=220)
            noisy = np.asarray(picture) + rng.integers(0, 30, (size, size), np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{number}.png")


def test_a_folder_through_the_programs(tmp_path, monkeypatch):
    """The autoencoder leaves out the images that the classifier is tested with."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "none")
    folder, model = tmp_path / "shapes", tmp_path / "model.keras"
    draw_shapes(folder, 30, 8, np.random.default_rng(0))
    (folder / "circle" / "readme.txt").write_text("circles")

    data, runs = ["-d", folder, "--no-plots"], tmp_path / "runs"
    config = write_json(tmp_path / "a.json", AUTOENCODER)
    encoder = run_program("autoencoder", *data, "-c", config, "--save", model, runs_dir=runs)
    assert encoder.exit_code == 0, encoder.err
    assert "48 of 8×8×1" in encoder.out and "12 other images" in encoder.out

    config, saved = write_json(tmp_path / "c.json", CLASSIFIER), tmp_path / "classifier.keras"
    flags = ["-c", config, "-model", model, "--save", saved]
    trained = run_program("classification", *data, *flags, runs_dir=runs)
    assert trained.exit_code == 0, trained.err
    rows = read_rows(trained.run / "predictions.csv")
    assert len(rows) == 12
    assert {row["label"] for row in rows} == set(SHAPES)
    assert all((folder / row["file"]).exists() for row in rows)
    positions = [int(row["index"]) for row in rows]  # of 30 circles, then 30 squares
    assert [index < 30 for index in positions] == [row["label"] == "circle" for row in rows]
    assert list(rows[0])[-2:] == ["p_circle", "p_square"]
    assert "readme.txt" in (trained.run / "skipped.csv").read_text()
    begun = json.loads((encoder.run / "run.json").read_text())["sample"]
    assert begun == json.loads((trained.run / "run.json").read_text())["sample"]

    tested = run_program(
        "predict", "evaluate", saved, "-t", folder / "square", "--no-plots", runs_dir=runs
    )
    assert tested.exit_code == 2 and "labels" in tested.err, "pictures without classes"
    (folder / "circle").rename(folder / "triangle")
    tested = run_program("predict", "evaluate", saved, "-t", folder, "--no-plots", runs_dir=runs)
    assert tested.exit_code == 0, tested.err
    rows = read_rows(tested.run / "predictions.csv")
    assert {row["label"] for row in rows} == {"square", "triangle"}
    assert "triangle (unseen)" in tested.out


def test_one_picture_per_class(tmp_path, monkeypatch):
    """Too few to set one apart: all are trained on, and a classifier says that none is tested."""
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path)
    folder, model = tmp_path / "shapes", tmp_path / "model.keras"
    draw_shapes(folder, 1, 8, np.random.default_rng(0))
    data, runs = ["-d", folder, "--no-plots"], tmp_path / "runs"
    config = write_json(tmp_path / "a.json", AUTOENCODER)
    encoder = run_program("autoencoder", *data, "-c", config, "--save", model, runs_dir=runs)
    assert encoder.exit_code == 0, encoder.err
    assert "2 of 8×8×1" in encoder.out

    flags = ["-c", write_json(tmp_path / "c.json", CLASSIFIER), "-model", model]
    trained = run_program("classification", *data, *flags, runs_dir=runs)
    assert trained.exit_code == 0, trained.err
    (warning,) = [line for line in trained.err.splitlines() if "set apart for testing" in line]
    assert "2 images, 2 of them different" in warning
    assert "test_accuracy" not in trained.metrics


@pytest.mark.slow
def test_5000_pictures(tmp_path, monkeypatch):
    """The shipped configurations tell circles from squares, in all three commands."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "none")
    folder, model = tmp_path / "shapes", tmp_path / "model.keras"
    draw_shapes(folder, 2500, 28, np.random.default_rng(0))
    data, runs = ["-d", folder, "--epochs", 1], tmp_path / "runs"
    flags = ["-c", "configuration/autoencoder_small.json", "--save", model]
    assert run_program("autoencoder", *data, *flags, runs_dir=runs).exit_code == 0
    flags = ["-c", "configuration/classifier_small_small.json", "-model", model]
    trained = run_program("classification", *data, *flags, runs_dir=runs)
    assert trained.exit_code == 0, trained.err
    rows = read_rows(trained.run / "predictions.csv")
    assert len(rows) == 1000
    assert np.mean([row["correct"] == "1" for row in rows]) > 0.95
    asked = ["classify", trained.run / "model.keras", folder, "--csv", tmp_path / "predictions.csv"]
    assert run_program("predict", *asked, runs_dir=None).exit_code == 0
    rows = read_rows(tmp_path / "predictions.csv")
    assert len(rows) == 5000
    assert np.mean([row["correct"] == "1" for row in rows]) > 0.95
