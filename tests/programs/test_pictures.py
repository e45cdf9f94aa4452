"""From a folder of pictures to predictions: both programs, and the test of a saved classifier."""

from functools import partial

import numpy as np
import pytest
from conftest import CLASSIFIER, read_json, read_rows, run_program, write_json
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


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache of each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "DATA_DIR", tmp_path / "none")


def test_a_folder_through_the_programs(tmp_path, autoencode, classify, launch):
    """The autoencoder leaves out the images that the classifier is tested with."""
    folder, model, saved = (tmp_path / name for name in ("shapes", "a.keras", "c.keras"))
    draw_shapes(folder, 30, 8, np.random.default_rng(0))
    (folder / "circle" / "readme.txt").write_text("circles")

    encoder = autoencode("--save", model, data=["-d", folder]).ok()
    assert "48 of 8×8×1" in encoder.out and "12 other images" in encoder.out

    trained = classify("--save", saved, data=["-d", folder], model=model).ok()
    rows = read_rows(trained.run / "predictions.csv")
    assert len(rows) == 12
    assert {row["label"] for row in rows} == set(SHAPES)
    assert all((folder / row["file"]).exists() for row in rows)
    positions = [int(row["index"]) for row in rows]  # of 30 circles, then 30 squares
    assert [index < 30 for index in positions] == [row["label"] == "circle" for row in rows]
    assert list(rows[0])[-2:] == ["p_circle", "p_square"]
    assert "readme.txt" in (trained.run / "skipped.csv").read_text()
    begun = read_json(encoder.run / "run.json")["sample"]
    assert begun == read_json(trained.run / "run.json")["sample"]

    evaluate = partial(launch, "predict", "evaluate", saved, "--no-plots", "-t")
    evaluate(folder / "square").refused("labels")
    (folder / "circle").rename(folder / "triangle")
    tested = evaluate(folder).ok()
    rows = read_rows(tested.run / "predictions.csv")
    assert {row["label"] for row in rows} == {"square", "triangle"}
    assert "triangle (unseen)" in tested.out


def test_one_picture_per_class(tmp_path, autoencode, classify):
    """Too few to set one apart: all are trained on, and a classifier says that none is tested."""
    data = ["-d", tmp_path / "shapes"]
    draw_shapes(tmp_path / "shapes", 1, 8, np.random.default_rng(0))
    encoder = autoencode(data=data).ok()
    assert "2 of 8×8×1" in encoder.out
    trained = classify(data=data, model=encoder.run / "model.keras").ok()
    (warning,) = [line for line in trained.err.splitlines() if "held out for testing" in line]
    assert "2 images, 2 of them different" in warning
    assert "test_accuracy" not in trained.metrics


@pytest.mark.slow
def test_5000_pictures(tmp_path, autoencode, classify, launch):
    """The shipped configurations tell circles from squares, in all three commands."""
    folder = tmp_path / "shapes"
    draw_shapes(folder, 2500, 28, np.random.default_rng(0))
    options = {"data": ["-d", folder, "--epochs", 1], "plots": True}
    encoder = autoencode(config="configuration/autoencoder_small.json", **options).ok()
    head = {"config": "configuration/classifier_small_small.json"}
    trained = classify(model=encoder.run / "model.keras", **head, **options).ok()
    asked = ["classify", trained.run / "model.keras", folder, "--csv", tmp_path / "predictions.csv"]
    run_program("predict", *asked).ok()
    for table, count in (
        (trained.run / "predictions.csv", 1000),
        (tmp_path / "predictions.csv", 5000),
    ):
        rows = read_rows(table)
        assert len(rows) == count
        assert np.mean([row["correct"] == "1" for row in rows]) > 0.95


def test_a_study_of_transposed_pictures(tmp_path, launch):
    """Pictures that are not square: what is drawn of the best is what was tested."""
    rng = np.random.default_rng(0)
    for name, left in (("bar", 3), ("wall", 12)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 60, (8, 18)).astype(np.uint8)
            pixels[:, left : left + 3] = 220
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{number}.png")
    write_json(tmp_path / "head.json", CLASSIFIER, encoder_layers=[["conv", 2, [3, 3]]])
    study = write_json(
        tmp_path / "study.json",
        name="bars",
        kind="classifier",
        data={"dataset": str(tmp_path / "pictures"), "transpose": "all"},
        bases=[{"configuration": "head.json"}],
        metric="val_accuracy",
    )
    launch("experiments", "run", study, "--epochs", "1").ok()
    assert (tmp_path / "runs" / "bars" / "plots" / "confusion_matrix.png").exists()
