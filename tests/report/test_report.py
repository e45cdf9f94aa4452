"""Pages of records: what they say, that nothing in them acts, and how a browser shows them."""

import base64
import csv
import errno
import hashlib
import json
import math
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import AUTOENCODER, CLASSIFIER

import experiments
from cae.config.load import dump_config, validate_config
from cae.data import idx
from cae.data.datasets import Dataset
from cae.files import write_csv
from cae.records.history import DENSE_ONLY, FULL, History
from cae.records.run import Arguments, FileRecord, Start, describe_environment
from cae.report.pages import format_column
from cae.report.report import OUTPUT
from cae.studies.label_results import METHODS, Measurement

ROOT = Path(__file__).parents[2]
SHA = "0123456789abcdef" * 4
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>&lt;\"'"


# ------------------------------------------------------------------ records, without training


def png(width=240, height=120):
    """A gray picture."""

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\x80" * width) * height
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def describe(command, seed, data):
    images = np.zeros((48, 8, 8, 1), np.uint8)
    file = {"path": f"data/{data}", "sha256": SHA, "bytes": 3088}
    datasets = {"training": Dataset(data, images, None, {}, (file,))}
    environment = describe_environment(command, datasets, "CPU", seed)
    return environment | {"git_commit": "c0ffee" * 6 + "abcd-dirty"}


def write_run(folder, kind, value, seed=0, name="tiny", data="digits", model=None, **changes):
    """Writes the record of a run whose metric that decides has this value."""
    folder.mkdir(parents=True)
    base = AUTOENCODER if kind == "autoencoder" else CLASSIFIER
    config = validate_config({**base, **changes, "seed": seed}, name, kind)
    program = {"autoencoder": "autoencoder.py", "classifier": "classification.py"}[kind]
    command = f"{program} -d {data}"
    metric = {"autoencoder": "mse", "classifier": "accuracy"}[kind]
    epochs = [
        {
            "epoch": epoch,
            "phase": DENSE_ONLY if kind == "classifier" and epoch == 1 else FULL,
            "loss": 0.5 / epoch,
            "val_loss": 0.6 / epoch,
            metric: 0.5,
            f"val_{metric}": value,
        }
        for epoch in (1, 2, 3)
    ]
    metrics = {f"val_{metric}": value, "best_epoch": 2, "epochs": 3, "seconds": 7.5}
    metrics["parameters"] = 12345
    start = Start(
        program=program,
        name=name,
        command=command,
        started="2026-01-01T00:00:00+00:00",
        folder="somewhere",
        arguments=Arguments(
            dataset=data,
            labels=None,
            limit=40,
            save=None,
            overwrite=False,
            no_plots=True,
            init_from=None,
            model=model,
        ),
        config=config.model_dump(mode="json"),
        data={},
        models=[FileRecord(path=model, sha256=SHA[::-1], bytes=9)] if model else [],
    )
    if kind == "classifier":
        metrics |= {"test_accuracy": 0.75}
        # True classes 2, 2, 5, 7; 7 is one that training never saw.
        (folder / "predictions.csv").write_text(
            "index,label,prediction,correct,probability,p_2,p_5\n"
            "0,2,2,1,0.9,0.9,0.1\n1,2,5,0,0.6,0.4,0.6\n2,5,5,1,0.8,0.2,0.8\n3,7,2,0,0.7,0.7,0.3\n"
        )
    info = config.model_dump(mode="json")
    history = History(name, kind, info, epochs, 2, metrics)
    write_csv(folder / "history.csv", history.epochs)
    (folder / "config.json").write_text(dump_config(config))
    for file, content in (
        ("metrics.json", metrics),
        ("environment.json", describe(command, seed, data)),
        ("run.json", start.to_json()),
    ):
        (folder / file).write_text(json.dumps(content))
    return folder


def write_study(folder, runs, failed=(), waiting=(), metric="val_mse"):
    """Writes the record of a study of these runs, by their configurations."""
    trials = [
        {"id": run.name, "base": "base", "configuration": name, "status": "done", "reason": ""}
        for name, run in runs
    ]
    trials += [
        {"id": name, "base": "base", "configuration": name, "status": "failed", "reason": reason}
        for name, reason in failed
    ]
    trials += [
        {"id": name, "base": "base", "configuration": name, "status": "waiting", "reason": ""}
        for name in waiting
    ]
    folder.mkdir(exist_ok=True, parents=True)
    document = {
        "name": folder.name,
        "metric": metric,
        "command": f"experiments.py run {folder.name}.json",
        "trials": trials,
    }
    (folder / "trials.json").write_text(json.dumps(document))
    return folder


def write_pictures(folder, *names):
    (folder / "plots").mkdir()
    for name in names:
        (folder / "plots" / f"{name}.png").write_bytes(png())


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


class Page(HTMLParser):
    """What a page consists of.

    Attributes:
        text: All that is read.
        tags: (name, attributes) of every element.
        tables: Rows of cells, by caption.
        images: The attributes of its pictures.
        code: The texts that stand as they are.
    """

    def __init__(self, path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.text, self.tags, self.tables, self.images, self.code = "", [], {}, [], []
        self._caption, self._open = "", []
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("img", "meta"):
            if tag == "img":
                self.images.append(dict(attrs))
            return
        self._open.append(tag)
        if tag == "figcaption":
            self._caption = ""
        elif tag == "table":
            self._rows = self.tables[self._caption] = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        elif tag == "code":
            self.code.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if "figcaption" in self._open:
            self._caption += data
        elif {"th", "td"} & set(self._open):
            self._rows[-1][-1] += data
        elif "code" in self._open:
            self.code[-1] += data

    def table(self, start):
        (rows,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return rows


@pytest.fixture
def report(tmp_path):
    """Writes the report of a folder and reads it."""

    def write(folder, *args):
        assert experiments.main(["report", str(folder), *map(str, args)]) == 0
        return Page(folder / OUTPUT)

    return write


# ------------------------------------------------------------------ what a page says


def test_a_study(autoencoders, report):
    """The verdict, the configurations with the best first, what failed, and how to repeat it."""
    page = report(autoencoders)
    assert "Best: near, ahead of far" in page.text
    assert "6 trials: 4 done, 1 failed, 1 waiting" in page.text
    heading, first, second = page.table("Configurations by val_mse")
    assert heading == [
        "configuration",
        "seeds",
        "mean",
        "sd",
        "best",
        "parameters",
        "seconds",
    ]
    assert first[:5] == ["near best mean", "2", "0.0115", "0.000707", "0.0110"]
    assert second[:3] == ["far", "2", "0.9150"]
    assert page.table("They count nowhere") == [
        ["trial", "what became of it", "reason"],
        ["broken", "failed", "the disk must have room"],
    ]
    assert ["l2", "0.5", "1", "0.9150", "–"] in page.table("val_mse by the value")
    assert len(page.table("Every trial")) == 5
    assert sum('"l2": 0.5' in code for code in page.code) == 1
    repeat = page.code[-1].splitlines()
    assert repeat[0] == "git checkout " + "c0ffee" * 6 + "abcd"
    assert f"numpy=={np.__version__}" in repeat[1]
    assert repeat[2] == "python experiments.py run encoders.json"
    assert "changes that were not committed" in page.text
    # Pictures from the records alone; each says what it shows.
    described = [image["alt"] for image in page.images]
    assert any("Mean squared error on validation images over 3 epochs" in alt for alt in described)
    assert sum("near leads with val_mse 0.0115" in alt for alt in described) == 3
    for image in page.images:
        media_type, _, content = image["src"].partition(";base64,")
        assert media_type == "data:image/svg+xml"
        assert base64.b64decode(content).startswith(b"<?xml")


def test_a_study_without_a_finished_trial(tmp_path, report):
    page = report(write_study(tmp_path / "new", [], [("broken", "no room")], ["later"]))
    assert "2 trials: 1 failed, 1 waiting" in page.text
    assert page.images == []
    assert page.code == ["python experiments.py run new.json"]


def test_a_run_of_a_classifier(classifier_run, report):
    """Precision, recall and F1 by hand, an unseen class, and the command that repeats it."""
    page = report(classifier_run)
    assert "encoder | dense 8, with the encoder of models/e.keras. Trained on digits" in page.text
    assert "2 of 4 test images classified correctly, 50.00 %." in page.text
    assert page.table("Each class") == [
        ["class", "precision", "recall", "F1", "images"],
        ["2", "0.5000", "0.5000", "0.5000", "2"],
        ["5", "0.5000", "1.0000", "0.6667", "1"],
        ["7 (unseen)", "0.0000", "0.0000", "0.0000", "1"],
    ]
    assert [row[0] for row in page.table("What was recorded after each epoch")] == [
        *["epoch", "1", "2", "3"]
    ]
    assert "75.00 %" in page.text and "12,345" in page.text
    files = page.table("Files")
    assert ["training", "data/digits", "3,088", SHA] in files
    assert ["model", "models/e.keras", "9", SHA[::-1]] in files
    config = classifier_run / "config.json"
    assert page.code[-1].splitlines()[-1] == (
        f"python classification.py -d digits --limit 40 -model models/e.keras -c {config}"
    )
    assert validate_config(json.loads(page.code[0]), "page", "classifier")


def test_pictures_of_a_run(tmp_path, report):
    """Those that no record can give are taken from its figures, in the size they were drawn in."""
    run = write_run(tmp_path / "run", "autoencoder", 0.1)
    write_pictures(run, "filters", "reconstructions", "loss")
    page = report(run)
    shown = [image for image in page.images if image["src"].startswith("data:image/png")]
    assert [image["alt"].split(",")[0] for image in shown] == [
        "Images",
        "Filters of the first convolution.",
    ]
    # 240×120 pixels at 120 dpi are 2×1 inches, of 96 CSS pixels each.
    assert {(image["width"], image["height"]) for image in shown} == {("192", "96")}


def test_class_names_of_a_data_set(tmp_path, report):
    run = write_run(tmp_path / "run", "classifier", 0.1, data="fashion_mnist")
    assert [row[0] for row in report(run).table("Each class")][1:] == [
        "Pullover",
        "Sandal",
        "Sneaker (unseen)",
    ]


def test_a_chain(tmp_path, autoencoders, classifier_run, report):
    """All stages in the order in which they began, with one table of contents."""
    environment = classifier_run / "environment.json"
    late = json.loads(environment.read_text()) | {"started": "2999-01-01T00:00:00+00:00"}
    environment.write_text(json.dumps(late))
    # By its name it would come first.
    classifier_run.parent.rename(tmp_path / "a-heads")
    write_study(
        tmp_path / "a-heads", [("head", tmp_path / "a-heads" / "head")], metric="val_accuracy"
    )
    write_pictures(tmp_path / "a-heads", "wrong", "correct")
    page = report(tmp_path)
    headings = re.findall(r"<h2>(.*)</h2>", page.html)
    assert headings == [
        "In short",
        "Encoders",
        "A-heads",
        "Environment",
        "Data",
        "How to repeat it",
    ]
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert {target.removeprefix("#") for target in targets} < ids
    assert len(targets) > len(headings)
    assert "Best: head, the only one." in page.text
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
    results = [
        Measurement(
            method=method,
            per_class="10",
            seed=seed,
            labels=100,
            validation_labels=20,
            steps=50,
            test_error=error + seed / 1000,
            seconds=1.5,
        )
        for method, error in errors.items()
        for seed in range(3)
    ]
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, Measurement.model_fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(result.model_dump() for result in results)
    config = validate_config(CLASSIFIER, "head", "classifier").model_dump(mode="json")
    settings = dict.fromkeys(("data", "test", "pretraining", "model"), SHA)
    settings |= {"config": config, "steps": 50, "leakage": ["none of the test images"]}
    (folder / "settings.json").write_text(json.dumps(settings))
    command = "experiments.py label-efficiency -d digits -model m.keras"
    environment = describe(command, None, "digits") | {"device": None}
    (folder / "environment.json").write_text(json.dumps(environment))
    page = report(folder)
    assert "With 100 labels pretraining lowers the test error" in page.text
    assert page.table("Test error in %")[0] == [
        "labels",
        METHODS["fine-tuned"],
        METHODS["scratch"],
    ]
    assert page.table("Test error in %")[1][0] == "100"
    assert len(page.images) == 1
    assert len(page.table("Every model")) == 7
    assert "none of the test images" in page.text and SHA in page.text
    assert page.code[-1].splitlines()[-1] == f"python {command}"
    (folder / "settings.json").write_text("[]")
    assert experiments.main(["report", str(folder)]) == 2


def test_equal_decimals():
    """Four digits of the median, at most six decimals; whole numbers stay whole."""
    assert format_column([0.0123, 0.5, 0.0456, None, math.nan]) == [
        "0.01230",
        "0.50000",
        "0.04560",
        "–",
        "–",
    ]
    assert format_column([20.5, 1234.5, 0.0]) == ["20.5", "1,234.5", "0.0"]
    assert format_column([20.25, 20.5, math.inf]) == ["20.25", "20.50", "inf"]
    assert format_column([1e-9, 0.0]) == ["0.000000", "0.000000"]
    assert format_column([1234567, 5]) == ["1,234,567", "5"]
    assert format_column(["a", None]) == ["a", "–"]


# ------------------------------------------------------------------ nothing in it acts


@pytest.fixture
def hostile(tmp_path):
    """A study in which everything that can have a name has one that is markup."""
    folder = tmp_path / "hostile"
    run = write_run(folder / "run", "autoencoder", 0.1, name=HOSTILE, data=HOSTILE)
    return write_study(folder, [(HOSTILE, run)], [(HOSTILE, HOSTILE)])


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


# ------------------------------------------------------------------ the file


def test_writing_again_gives_the_same_bytes(classifier_run, report, tmp_path):
    """In place of the earlier page, or elsewhere."""
    report(classifier_run)
    first = (classifier_run / OUTPUT).read_bytes()
    (classifier_run / OUTPUT).write_bytes(first + b"old")
    report(classifier_run)
    assert (classifier_run / OUTPUT).read_bytes() == first
    report(classifier_run, "--output", tmp_path / "other.html")
    assert (tmp_path / "other.html").read_bytes() == first


def test_a_foreign_file_stays(classifier_run, tmp_path, capsys):
    """Whatever it is, if it is no report."""
    page = tmp_path / "notes.html"
    page.write_text("<!doctype html>\n<p>mine")
    for place in (page, tmp_path, tmp_path / "no" / "folder.html"):
        assert experiments.main(["report", str(classifier_run), "--output", str(place)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: --output: must")
    assert page.read_text() == "<!doctype html>\n<p>mine"


def test_a_full_disk_keeps_the_earlier_page(tmp_path, report, monkeypatch, capsys):
    folder = write_study(tmp_path / "new", [])
    report(folder)
    page = folder / OUTPUT
    page.write_bytes(page.read_bytes() + b"<!-- earlier -->")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(idx.os, "fsync", fail)
    assert experiments.main(["report", str(folder)]) == 2
    assert "report.html: must be writable, got No space left" in capsys.readouterr().err
    assert page.read_bytes().endswith(b"<!-- earlier -->")
    assert sorted(path.name for path in folder.iterdir()) == [OUTPUT, "trials.json"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("environment.json", b"{}"),
        ("environment.json", None),
        ("run.json", b"[1]"),
        ("config.json", b"{"),
        ("history.csv", None),
        ("predictions.csv", b"index,label\n1,2\n"),
        ("predictions.csv", b""),
        ("plots/wrong.png", png()[:60]),
        ("plots/wrong.png", b"GIF89a"),
    ],
)
def test_damaged_records_are_named(classifier_run, capsys, name, content):
    """A line per problem, and no page is written."""
    write_pictures(classifier_run, "wrong")
    path = classifier_run / name
    path.unlink() if content is None else path.write_bytes(content)
    assert experiments.main(["report", str(classifier_run)]) == 2
    for line in capsys.readouterr().err.splitlines():
        assert line.startswith("error: ") and str(classifier_run) in line
    assert not (classifier_run / OUTPUT).exists()


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_what_is_no_run(tmp_path, capsys, name):
    (tmp_path / "empty").mkdir()
    assert experiments.main(["report", str(tmp_path / name)]) == 2
    assert "must be the directory of a finished run or of a study" in capsys.readouterr().err


def test_no_tensorflow(classifier_run):
    """A page is written in seconds, also where TensorFlow is not installed."""
    code = (
        "import sys, experiments\n"
        f"assert experiments.main(['report', {str(classifier_run)!r}]) == 0\n"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser of its own profile; tests are skipped where there is none."""
    pytest.importorskip("fcntl", reason="needs the pipes of Unix")
    from browser import Browser, find_browser

    executable = find_browser()
    if executable is None:
        pytest.skip("needs a browser: chromium, google-chrome or microsoft-edge")
    browser = Browser(executable, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def too_wide(browser):
    """Elements that stick out of the window and are not inside a box that scrolls."""
    return browser.evaluate(
        "[...document.querySelectorAll('body *')]"
        ".filter(e => !e.parentElement.closest('.scroll, pre'))"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)"
        ".map(e => e.tagName + ' ' + e.textContent.slice(0, 40))"
    )


def test_a_page_fits_its_window(browser, autoencoders, report):
    """Wide tables scroll in their boxes; no request, no complaint, every picture is there."""
    report(autoencoders)
    path = autoencoders / OUTPUT
    for width in (360, 768, 1280):
        browser.open(path, width)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert too_wide(browser) == []
        assert browser.requests == [path.as_uri()]
        assert browser.complaints == []
        loaded = browser.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
        assert loaded == [True] * 5
    # The style is in force: the policy lets it through.
    aligned = "getComputedStyle(document.querySelector('th.number')).textAlign"
    assert browser.evaluate(aligned) == "right"


def test_names_that_are_markup_do_nothing_in_a_browser(browser, hostile, report):
    report(hostile)
    browser.open(hostile / OUTPUT, 360)
    assert browser.evaluate("document.title") == "Study hostile"
    assert browser.complaints == []
    assert browser.requests == [(hostile / OUTPUT).as_uri()]
    assert browser.evaluate("document.documentElement.scrollWidth") <= 360


def test_the_policy_stops_what_the_template_would_let_through(browser, classifier_run, report):
    """Had a name become markup after all, it could neither act nor call anybody."""
    report(classifier_run)
    path = classifier_run / OUTPUT
    attack = "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x.png'>"
    path.write_text(path.read_text().replace("<main>", f"{attack}<main>"))
    browser.open(path, 800)
    assert browser.evaluate("document.title") != "owned"
    assert len(browser.complaints) == 2
    assert all("Content Security Policy" in text for text in browser.complaints)


def test_a_page_prints(browser, autoencoders, report):
    """On white paper, also where the screen is dark."""
    report(autoencoders)
    browser.open(autoencoders / OUTPUT, 1280, dark=True)
    look = "getComputedStyle(document.body).backgroundColor"
    assert browser.evaluate(look) != "rgb(255, 255, 255)"
    printed = browser.print()
    assert printed.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 2 <= pages <= 8
    dark = {"name": "prefers-color-scheme", "value": "dark"}
    browser.send("Emulation.setEmulatedMedia", media="print", features=[dark])
    assert browser.evaluate(look) == "rgb(255, 255, 255)"


def test_words_can_be_read(browser, classifier_run, report):
    """WCAG 2.2 asks for a contrast of 4.5 between text and what is behind it, in both schemes."""
    report(classifier_run)
    for dark in (False, True):
        browser.open(classifier_run / OUTPUT, 1280, dark=dark)
        found = browser.evaluate(
            "[...document.querySelectorAll('h1, p, dt, dd, a, th, td, code, figcaption, .mark')]"
            ".map(e => { let b = e; const clear = 'rgba(0, 0, 0, 0)';"
            " while (getComputedStyle(b).backgroundColor === clear) b = b.parentElement;"
            " return [getComputedStyle(e).color, getComputedStyle(b).backgroundColor] })"
        )
        assert len(found) > 50
        for colors in {tuple(pair) for pair in found}:
            assert contrast(*colors) >= 4.5, colors


def contrast(*css_colors):
    """The ratio of two colours' relative luminances, https://www.w3.org/TR/WCAG22/."""

    def luminance(color):
        channels = np.array(re.findall(r"\d+", color)[:3], float) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ (0.2126, 0.7152, 0.0722)

    low, high = sorted(map(luminance, css_colors))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.slow
def test_pages_of_real_runs(browser, trained_autoencoder, trained_classifier, report, capsys):
    """What the programs leave has all that a page needs."""
    for trained, pictures in ((trained_autoencoder, 4 + 2), (trained_classifier, 3 + 5 + 1)):
        page = report(trained.run)
        assert len(page.images) == pictures
        browser.open(trained.run / OUTPUT, 360)
        assert browser.evaluate("document.documentElement.scrollWidth") <= 360
        assert browser.complaints == []
        assert browser.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
