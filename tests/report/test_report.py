"""Pages of records: what they say, and that nothing in them acts."""

import base64
import hashlib
import json
import math
import re
import shlex

import numpy as np
import pytest
from conftest import CLASSIFIER, edit_json, read_json, run_program, run_python
from report_folders import (
    HOSTILE,
    SHA,
    describe,
    make_start,
    write_pictures,
    write_run,
    write_study,
)

from cae.config.choices import METHODS
from cae.config.load import validate_config
from cae.files import write_csv, write_json
from cae.report.origin import training_command
from cae.report.pages import format_column
from cae.report.report import REPORT_FILE


def test_a_study(autoencoders, report):
    """The verdict, the configurations with the best first, what failed, and how to repeat it."""
    page = report(autoencoders)
    assert "4 done, 1 failed, 1 waiting" in page.text
    heading, first, second = page.table("Configurations by val_mse")
    assert heading == ["configuration", "seeds", "mean", "sd", "best", "parameters", "seconds"]
    assert first[:5] == ["near best mean", "2", "0.0115", "0.000707", "0.0110"]
    assert second[:3] == ["far", "2", "0.9150"]
    assert page.table("Not counted")[1:] == [["broken", "failed", "the disk must have room"]]
    assert page.table("The configurations by the hyper") == [
        ["configuration", "val_mse", "l2"],
        ["near", "0.0115", "0.0"],
        ["far", "0.9150", "0.5"],
    ]
    assert len(page.table("Every trial")) == 5
    # What is shared stands once.
    assert [sum(text in code for code in page.code) for text in ('"l2": 0.5', '"noise"')] == [1, 1]
    repeat = page.code[-1].splitlines()
    assert repeat[0] == "git checkout " + "c0ffee" * 6 + "abcd"
    assert f"numpy=={np.__version__}" in repeat[1]
    assert repeat[2] == "python experiments.py run encoders.json"
    # Pictures from the records alone; each says what it shows.
    described = [image["alt"] for image in page.images]
    assert any("on validation images over 3 epochs" in alt for alt in described)
    assert sum("near has the best mean, val_mse 0.0115" in alt for alt in described) == 3
    for image in page.images:
        media_type, _, content = image["src"].partition(";base64,")
        assert media_type == "data:image/svg+xml"
        assert base64.b64decode(content).startswith(b"<?xml")


def test_a_study_without_a_finished_trial(tmp_path, report):
    page = report(write_study(tmp_path / "new", [], [("broken", "no room")], ["later"]))
    assert "1 failed, 1 waiting" in page.text
    assert page.images == []
    assert page.code == ["python experiments.py run new.json"]


def test_a_run_of_a_classifier(classifier_run, report):
    """Precision, recall and F1 by hand, an unseen class, and the command that repeats it."""
    page = report(classifier_run)
    assert "encoder | dense 8, with the encoder of models/e.keras" in page.text
    assert "2 of 4 test images" in page.text and "50.00 %" in page.text
    assert page.table("Each class") == [
        ["class", "precision", "recall", "F1", "images"],
        ["2", "0.5000", "0.5000", "0.5000", "2"],
        ["5", "0.5000", "1.0000", "0.6667", "1"],
        ["7 (unseen)", "0.0000", "0.0000", "0.0000", "1"],
    ]
    assert [row[0] for row in page.table("Values recorded")] == ["epoch", "1", "2", "3"]
    assert "75.00 %" in page.text and "12,345" in page.text
    files = page.table("Files")
    assert ["training", "data/digits", "3,088", SHA] in files
    assert ["model", "models/e.keras", "9", SHA[::-1]] in files
    config = classifier_run / "config.json"
    assert page.code[-1].splitlines()[-1] == (
        f"python classification.py -d digits --limit 40 -model somewhere/models/e.keras -c {config}"
    )
    (config,) = [code for code in page.code if code.startswith("{")]
    assert validate_config(json.loads(config), "page", "classifier")


def test_the_answer_comes_first(classifier_run, report):
    """Before the table of contents: the score, its interval, data, model, and commands."""
    model = classifier_run / "model.keras"
    model.touch()
    page = report(classifier_run)
    answer, _, _ = page.text.partition(re.findall("<h2>(.*)</h2>", page.html)[0])
    for fact in ("75.00 %", "30.00 to 95.00 %", "4 images", "digits: 48 training images of 8×8×1"):
        assert fact in answer
    assert str(model) in answer
    assert page.code[0] == f"python predict.py classify {model} INPUT"
    assert page.code[1] == page.code[-1].splitlines()[-1]


@pytest.fixture
def recipe(tmp_path):
    """The folder of a recipe with seeds 0 and 1, whose classifiers err in 25 and 15 %."""
    folder = tmp_path / "few-digits"
    for seed, accuracy in enumerate((0.75, 0.85)):
        autoencoder = write_run(folder / f"autoencoder-seed{seed}", "autoencoder", 0.1, seed)
        model = str(autoencoder / "model.keras")
        run = write_run(folder / f"classifier-seed{seed}", "classifier", 0.9, seed, model=model)
        edit_json(run / "metrics.json", test_accuracy=accuracy)
        start = read_json(run / "run.json")
        start["models"][0]["sha256"] = f"{seed}" * 64
        write_json(run / "run.json", start)
    return folder


def test_a_recipe(recipe, report):
    """The mean of its seeds, the first pair in full, and what was read and began with."""
    page = report(recipe)
    assert "80.00 %, the mean of 2 seeds (standard deviation 7.07)" in page.text
    assert page.table("Each seed") == [
        ["seed", "test accuracy, %", "seconds"],
        ["0", "75.00", "15.00"],
        ["1", "85.00", "15.00"],
    ]
    assert re.findall("<h2>(.*)</h2>", page.html)[:2] == ["The classifier", "The autoencoder"]
    assert ["model", f"{recipe}/autoencoder-seed1/model.keras", "9", "1" * 64] in page.table(
        "Files"
    )


def test_a_recipe_whose_classifier_is_missing(recipe):
    for seed in (0, 1):
        (recipe / f"classifier-seed{seed}").rename(recipe / f"classifier-seed{seed}.partial")
    *_, line = run_program("experiments", "report", recipe).refused().err.splitlines()
    assert line.startswith(f"error: {recipe}: must contain a complete classifier")


def test_the_seeds_of_a_recipe_are_one_row(recipe):
    """Though each has an autoencoder of its own."""
    compared = run_program("experiments", "compare", recipe).ok()
    rows = [line.split("│") for line in compared.out.splitlines() if "│" in line]
    assert [(row[1].strip(), row[2].strip()) for row in rows] == [("tiny", "2")] * 2


def test_a_command_repeats_how_pictures_are_read(tmp_path):
    flags = {"image_size": (32, 24), "color": "gray", "test_split": 0.1}
    command = training_command(tmp_path, make_start("classifier", "pets", {}, flags))
    for words in ("--image-size 32x24", "--color gray", "--test-split 0.1"):
        assert words in command


def test_a_command_works_in_the_folder_of_the_page(tmp_path, monkeypatch):
    """Which may be another one than where the run began: its files are called as from here."""
    began, here = tmp_path / "began", tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    flags = {"dataset": "pets", "test": "digits", "class_names": "a,b", "model": "e.keras"}
    start = make_start("classifier", "pets", {}, flags, folder=str(began))
    words = shlex.split(training_command(here / "run", start))
    assert words[2:] == [
        *("-d", str(began / "pets"), "-t", "digits", "-model", str(began / "e.keras")),
        *("--class-names", "a,b", "-c", "run/config.json"),
    ]


def test_pictures_of_a_run(tmp_path, report):
    """Those that no record can give are taken from its figures, in the size they were drawn in."""
    run = write_run(tmp_path / "run", "autoencoder", 0.1)
    write_pictures(run, "filters", "reconstructions", "loss")
    page = report(run)
    shown = [image for image in page.images if image["src"].startswith("data:image/png")]
    assert ["reconstructions" in shown[0]["alt"], "Filters" in shown[1]["alt"]] == [True, True]
    # 240×120 pixels at 120 dpi are 2×1 inches, of 96 CSS pixels each.
    assert {(image["width"], image["height"]) for image in shown} == {("192", "96")}


def test_a_test_without_training(tmp_path, classifier_run, report):
    """What `predict.py evaluate` leaves."""
    folder = tmp_path / "test"
    folder.mkdir()
    (classifier_run / "predictions.csv").rename(folder / "predictions.csv")
    file = {"path": "models/c.keras", "sha256": SHA, "bytes": 9}
    metrics = {"model": file, "data": [file | {"path": "new.idx"}], "test_accuracy": 0.5}
    write_json(folder / "metrics.json", metrics | {"temperature": 2.0})
    page = report(folder)
    assert page.text.index("50.00 %") < page.text.index("new.idx")
    assert page.code == ["python predict.py classify models/c.keras INPUT"]
    assert len(page.table("Each class")) == 4 and len(page.images) == 2
    assert ["test", "new.idx", "9", SHA] in page.table("Files")


def test_class_names(tmp_path, report):
    run = write_run(tmp_path / "run", "classifier", 0.1)
    (run / "predictions.csv").write_text(
        "index,label,prediction,correct,probability,p_cat,p_dog\n"
        "0,cat,cat,1,0.9,0.9,0.1\n1,cat,dog,0,0.6,0.4,0.6\n2,<b>,cat,0,0.7,0.7,0.3\n"
    )
    names = [row[0] for row in report(run).table("Each class")]
    assert names[1:] == ["cat", "dog", "<b> (unseen)"]


def test_a_chain(tmp_path, autoencoders, classifier_run, report):
    """All studies in the order in which they began; the last one answers first."""
    edit_json(classifier_run / "environment.json", started="2999-01-01T00:00:00+00:00")
    # By its name it would come first.
    classifier_run.parent.rename(tmp_path / "a-heads")
    heads = tmp_path / "a-heads"
    write_study(heads, [("head", heads / "head")], metric="val_accuracy")
    write_pictures(heads, "wrong", "correct")
    page = report(tmp_path)
    assert page.text.index("75.00 %") < page.text.index("Summary")
    headings = re.findall(r"<h2>(.*)</h2>", page.html)
    assert headings[1:5] == ["Encoders", "A-heads", "Environment", "Data"]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {target.removeprefix("#") for target in targets} < ids
    assert len(targets) > len(headings)
    assert sum("classified" in image["alt"] for image in page.images) == 3
    assert page.code[-1].splitlines()[2:] == [
        "python experiments.py run encoders.json",
        "python experiments.py run a-heads.json",
    ]


def test_label_efficiency(tmp_path, report):
    """The sentences, the figure, the table, and what it was measured with."""
    folder = tmp_path / "curve"
    folder.mkdir()
    errors = {"fine-tuned": 0.1, "scratch": 0.2}
    given = {"per_class": "10", "labels": 100, "validation_labels": 20, "steps": 50, "seconds": 1.5}
    rows = [
        {**given, "method": method, "seed": seed, "test_error": error + seed / 1000}
        for method, error in errors.items()
        for seed in range(3)
    ]
    write_csv(folder / "results.csv", rows)
    config = validate_config(CLASSIFIER, "head", "classifier").model_dump(mode="json")
    settings = dict.fromkeys(("data", "test", "pretraining", "model"), SHA)
    settings |= {"config": config, "steps": 50, "leakage": ["none of the test images"]}
    write_json(folder / "settings.json", settings)
    command = "experiments.py label-efficiency -d digits -model m.keras"
    environment = describe(command, None, "digits") | {"device": None}
    write_json(folder / "environment.json", environment)
    page = report(folder)
    assert page.table("Test error in %") == [
        ["labels", METHODS["fine-tuned"], METHODS["scratch"]],
        ["100", "10.1 ± 0.2", "20.1 ± 0.2"],
    ]
    assert len(page.images) == 1
    assert len(page.table("Every model")) == 7
    assert "none of the test images" in page.text and SHA in page.text
    assert page.code[-1].splitlines()[-1] == f"python {command}"
    recipe = {"name": "few", "autoencoder": None, "classifier": config}
    write_json(folder / "settings.json", settings | {"model": None, "recipes": {"10": recipe}})
    page = report(folder)
    assert "recipe few" in page.text and "batch_size" in page.code[-2]
    (folder / "settings.json").write_text("[]")
    run_program("experiments", "report", folder).refused()


def test_equal_decimals():
    """Four digits of the median, at most six decimals; whole numbers stay whole."""
    shown = format_column([0.0123, 0.5, 0.0456, None, math.nan])
    assert shown == ["0.01230", "0.50000", "0.04560", "–", "–"]
    assert format_column([20.5, 1234.5, 0.0]) == ["20.5", "1,234.5", "0.0"]
    assert format_column([20.25, 20.5, math.inf]) == ["20.25", "20.50", "inf"]
    assert format_column([1e-9, 0.0]) == ["0.000000", "0.000000"]
    assert format_column([1234567, 5]) == ["1,234,567", "5"]
    assert format_column(["a", None]) == ["a", "–"]


def test_names_are_text(hostile, report):
    """Markup in them is shown, not obeyed: no script, no other image, no handler."""
    page = report(hostile)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "svg"}
    attributes = {name for _, attributes in page.tags for name in attributes}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert page.text.count(HOSTILE) >= 5
    for _, given in page.tags:
        for key in ("src", "href"):
            assert given.get(key, "#").startswith(("#", "data:image/"))


def test_the_policy_forbids_scripts_and_network(tmp_path, report):
    """And allows, of styles, the page's own alone."""
    page = report(write_study(tmp_path / "new", []))
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    style = re.search("<style>(.*)</style>", page.html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert page.html.index("Content-Security-Policy") < page.html.index("<style>")


def test_writing_again_gives_the_same_bytes(classifier_run, report, tmp_path):
    """In place of the earlier page, or elsewhere."""
    report(classifier_run)
    first = (classifier_run / REPORT_FILE).read_bytes()
    (classifier_run / REPORT_FILE).write_bytes(first + b"old")
    report(classifier_run)
    assert (classifier_run / REPORT_FILE).read_bytes() == first
    report(classifier_run, "--output", tmp_path / "other.html")
    assert (tmp_path / "other.html").read_bytes() == first


def test_a_foreign_file_stays(classifier_run, tmp_path):
    """Whatever it is, if it is no report."""
    page = tmp_path / "notes.html"
    page.write_text("<!doctype html>\n<p>mine")
    for place in (page, tmp_path, tmp_path / "no" / "folder.html"):
        done = run_program("experiments", "report", classifier_run, "--output", place).refused()
        (line,) = done.err.splitlines()
        assert line.startswith("error: --output: must")
    assert page.read_text() == "<!doctype html>\n<p>mine"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", b"{}"),
        ("environment.json", None),
        ("run.json", b"[1]"),
        ("metrics.json", b"{"),
        ("history.csv", None),
        ("predictions.csv", b"index,label\n1,2\n"),
        ("predictions.csv", b""),
        ("plots/wrong.png", b"GIF89a"),
        ("plots/wrong.png", lambda content: content[:60]),
        ("plots/wrong.png", lambda content: content[:-12]),
    ],
)
def test_damaged_records_are_named(classifier_run, name, content):
    """A line per problem, and no page is written."""
    write_pictures(classifier_run, "wrong")
    path = classifier_run / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)
    _, *lines = run_program("experiments", "report", classifier_run).refused().err.splitlines()
    assert any(path.name in line for line in lines)
    for line in lines:
        assert line.startswith("error: ") and str(classifier_run) in line
    assert not (classifier_run / REPORT_FILE).exists()


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_what_is_no_run(tmp_path, name):
    (tmp_path / "empty").mkdir()
    done = run_program("experiments", "report", tmp_path / name)
    done.refused(f"error: {tmp_path / name}: must be")


def test_no_tensorflow(classifier_run):
    """A page is written in seconds, also where TensorFlow is not installed."""
    code = (
        "import sys, experiments\n"
        f"assert experiments.main(['report', {str(classifier_run)!r}]) == 0\n"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules)\n"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
