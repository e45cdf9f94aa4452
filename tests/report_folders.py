"""Files of studies, folders of runs and studies as the programs leave them, and their pages."""

import csv
from html.parser import HTMLParser

import numpy as np
from conftest import AUTOENCODER, CLASSIFIER, read_json
from PIL import Image

from cae.config.choices import PROGRAMS
from cae.config.load import validate_config
from cae.data.datasets import Dataset
from cae.files import FIGURE_DPI, write_csv, write_json
from cae.records.environment import describe_environment
from cae.records.history import DENSE_ONLY, FULL
from cae.records.run import Arguments, FileRecord, Start

SHA = "0123456789abcdef" * 4
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>&lt;\"'"


def describe(command, seed, data):
    images = np.zeros((48, 8, 8, 1), np.uint8)
    file = {"path": f"data/{data}", "sha256": SHA, "bytes": 3088}
    datasets = {"training": Dataset(data, images, None, {}, (file,))}
    environment = describe_environment(command, datasets, "CPU", seed)
    return environment | {"git_commit": "c0ffee" * 6 + "abcd-dirty"}


def make_start(kind, name, config, flags=(), **changes):
    """What a run began with."""
    arguments = {"dataset": "digits", "limit": None, "no_plots": True, "overwrite": False}
    arguments |= {"labels": None, "save": None, "init_from": None, **dict(flags)}
    command = f"{PROGRAMS[kind]} -d {arguments['dataset']}"
    given = {"program": PROGRAMS[kind], "name": name, "command": command, "config": config}
    given |= {"started": "2026-01-01T00:00:00+00:00", "folder": "somewhere"}
    start = Start(**given, arguments=Arguments(**arguments), data={}, models=[])
    return start.model_copy(update=changes)


def write_run(folder, kind, value, seed=0, name="tiny", data="digits", model=None, **changes):
    """Writes the record of a run whose ranking metric has this value."""
    bases = {"autoencoder": (AUTOENCODER, "mse"), "classifier": (CLASSIFIER, "accuracy")}
    base, metric = bases[kind]
    config = validate_config({**base, **changes, "seed": seed}, name, kind)
    phase = DENSE_ONLY if kind == "classifier" else FULL
    values = {metric: 0.5, f"val_{metric}": value}
    epochs = [
        {"epoch": n, "phase": phase if n == 1 else FULL, "loss": 0.5 / n, "val_loss": 0.6 / n}
        | values
        for n in (1, 2, 3)
    ]
    metrics = {f"val_{metric}": value, "best_epoch": 2, "epochs": 3, "seconds": 7.5}
    metrics |= {"parameters": 12345}
    if kind == "classifier":
        metrics |= {"test_accuracy": 0.75, "test_accuracy_low": 0.3, "test_accuracy_high": 0.95}
        metrics |= {"test_images": 4}
    files = [FileRecord(path=model, sha256=SHA[::-1], bytes=9)] if model else []
    flags = {"dataset": data, "limit": 40, "model": model}
    start = make_start(kind, name, config.model_dump(mode="json"), flags, models=files)
    folder.mkdir(parents=True)
    write_csv(folder / "history.csv", epochs)
    write_json(folder / "config.json", start.config)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "environment.json", describe(start.command, seed, data))
    write_json(folder / "run.json", start.to_json())
    if kind == "classifier":
        # True classes 2, 2, 5, 7; 7 is one that training never saw.
        (folder / "predictions.csv").write_text(
            "index,label,prediction,correct,probability,p_2,p_5\n"
            "0,2,2,1,0.9,0.9,0.1\n1,2,5,0,0.6,0.4,0.6\n2,5,5,1,0.8,0.2,0.8\n3,7,2,0,0.7,0.7,0.3\n"
        )
    return folder


def write_study(folder, runs, failed=(), waiting=(), metric="val_mse"):
    """Writes the record of a study of these runs, by their configurations."""
    rows = [
        *((run.name, name, "done", "") for name, run in runs),
        *((name, name, "failed", reason) for name, reason in failed),
        *((name, name, "waiting", "") for name in waiting),
    ]
    keys = ("id", "configuration", "status", "reason")
    trials = [{"base": "base", **dict(zip(keys, row, strict=True))} for row in rows]
    folder.mkdir(exist_ok=True, parents=True)
    command = f"experiments.py run {folder.name}.json"
    document = {"name": folder.name, "metric": metric, "command": command, "trials": trials}
    write_json(folder / "trials.json", document)
    return folder


def write_plan(folder, dataset, epochs=2, **changes):
    """Writes the file of a study: learning rates of one base, which has these epochs."""
    write_json(folder / "base.json", {**AUTOENCODER, "epochs": epochs})
    study = {"name": "tiny", "kind": "autoencoder", "metric": "val_mse", "seeds": 2}
    study |= {"data": {"dataset": str(dataset)}, "bases": [{"configuration": "base.json"}]}
    study["vary"] = {"grid": {"learning_rate": [0.02, 0.01, 0.03]}}
    write_json(folder / "study.json", study | changes)
    return str(folder / "study.json")


def trials_of(folder):
    """The trials of a study, as recorded."""
    return read_json(folder / "trials.json")["trials"]


def table_of(folder):
    """The rows of a study's table without what differs from start to start."""
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {key: row[key] for key in row if key not in ("seconds", "images_per_second")}
        for row in rows
    ]


def write_pictures(folder, *names):
    """Gray pictures of 2×1 inches."""
    (folder / "plots").mkdir()
    for name in names:
        image = Image.new("L", (2 * FIGURE_DPI, FIGURE_DPI), 128)
        image.save(folder / "plots" / f"{name}.png")


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
        if tag in ("img", "meta", "wbr"):
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
