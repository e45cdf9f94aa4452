"""Folders of runs and studies as the programs leave them, and a reader of their pages."""

import json
from html.parser import HTMLParser

import numpy as np
from conftest import AUTOENCODER, CLASSIFIER
from PIL import Image

from cae.config.load import dump_config, validate_config
from cae.data.datasets import Dataset
from cae.files import FIGURE_DPI, write_csv
from cae.records.environment import describe_environment
from cae.records.history import DENSE_ONLY, FULL, History
from cae.records.run import Arguments, FileRecord, Start

SHA = "0123456789abcdef" * 4
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>&lt;\"'"


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
