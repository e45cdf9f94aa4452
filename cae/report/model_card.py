"""The card of a saved model: what it is, what it was trained on, and how good it is.

The sections are those of Mitchell et al. 2019, "Model cards for model reporting", as far as a
model file can fill them.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cae import terminal
from cae.config.shapes import format_shape
from cae.errors import as_sentence, printable
from cae.files import get_record
from cae.records.environment import Origin, read_origin
from cae.records.run import FileRecord
from cae.records.saved_models import load_model, read_metadata
from cae.report.answer import SCORES, USES, describe_data, describe_scores, use_command
from cae.report.pages import Code, KeyFacts, Page, Section, Table, check_page_path, write_page

if TYPE_CHECKING:
    import keras

UNKNOWN = "not known"
PURPOSES = {
    "classifier": "Classifies images like those of {data} into {classes} classes. Every image gets "
    "one of these classes, whatever it shows.",
    "autoencoder": "Encodes images like those of {data}, as a start for classifiers, and "
    "reconstructs them.",
}


def show(args: argparse.Namespace) -> int:
    """Shows the card of a saved model and returns the exit code."""
    if args.html:
        check_page_path(Path(args.html), "--html")
    card = get_card(args.model)
    if args.json:
        sys.stdout.write(json.dumps(card, indent=2) + "\n")
    elif args.html:
        write_page(Path(args.html), describe_card(card))
        terminal.say(f"Card: {args.html}")
    else:
        print_card(describe_card(card))
    return 0


def get_card(path: str | Path) -> dict[str, Any]:
    """What is known of a saved model, as JSON types; None stands for what is not known.

    Raises:
        ModelFileError: It cannot be loaded.
    """
    read_metadata(path)
    with terminal.starting_keras():
        model, metadata = load_model(path)
    origin = read_origin(path, metadata)
    classes = metadata.get("classes", [])
    names = metadata.get("class_names", classes)
    return {
        "file": get_record(path),
        "kind": metadata.get("kind"),
        "name": metadata.get("name"),
        "purpose": _get_purpose(metadata),
        "input_shape": list(model.input_shape[1:]),
        "output_shape": list(model.output_shape[1:]),
        "scaling": metadata.get("scaling"),
        "classes": dict(zip(map(str, classes), map(str, names), strict=False)),
        "parameters": model.count_params(),
        "layers": list(_list_layers(model)),
        "scores": _get_scores(metadata.get("metrics", {})),
        "calibration": metadata.get("calibration"),
        "hyperparameters": metadata.get("model_info"),
        "origin": origin and origin.model_dump(mode="json"),
        "encoders": [_compare(file, Path(path)) for file in origin.models] if origin else None,
    }


def _get_purpose(metadata: Mapping[str, Any]) -> str | None:
    purpose = PURPOSES.get(metadata.get("kind"))
    data, classes = metadata.get("data", "its training data"), metadata.get("classes", ())
    return purpose and purpose.format(data=data, classes=len(classes))


def _list_layers(model: "keras.Model", part: str = "") -> Iterator[dict[str, Any]]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _list_layers(layer, f"{part}{layer.name}/")
        elif type(layer).__name__ != "InputLayer":
            yield {
                "layer": part + layer.name,
                "type": type(layer).__name__,
                "output": format_shape(layer.output.shape[1:]),
                "parameters": layer.count_params(),
            }


def _get_scores(metrics: Mapping[str, Any]) -> dict[str, float]:
    ends = (key.replace("_low", "_high") for key in SCORES if key.endswith("_low"))
    keys = (*SCORES, *ends, "test_images")
    return {key: metrics[key] for key in keys if isinstance(metrics.get(key), int | float)}


def _compare(file: FileRecord, model: Path) -> dict[str, str]:
    """Whether a saved model that training started from is still the same file.

    Its path may have been relative to the folder of the training: usually one that holds `model`.
    """
    folders = [Path(), *model.resolve().parents]
    found = [path for folder in folders if (path := folder / file.path).is_file()]
    state = "changed since" if found else "missing"
    if any(get_record(path)["sha256"] == file.sha256 for path in dict.fromkeys(found)):
        state = "unchanged"
    return {"path": file.path, "sha256": file.sha256, "state": state}


# --- Shown ----------------------------------------------------------------------------------


def describe_card(card: Mapping[str, Any]) -> Page:
    """The card as a page."""
    shape = format_shape(card["input_shape"])
    origin, kind, path = card["origin"], card["kind"], card["file"]["path"]
    data = Origin.model_validate(origin).data if origin else {}
    facts = {
        "intended use": card["purpose"] or UNKNOWN,
        "use it": Code(use_command(kind, path)) if kind in USES else UNKNOWN,
        "data set": describe_data(data),
        "classes": _describe_classes(card["classes"]),
        "images": f"{shape}, {_describe_scaling(card['scaling'])}",
        "calibration": _describe_calibration(card["calibration"]),
        "parameters": f"{card['parameters']:,}",
        "file": f"{path}, {card['file']['bytes']:,} bytes",
        "SHA-256": card["file"]["sha256"],
    }
    if kind == "autoencoder":
        del facts["classes"], facts["calibration"]
    scores = KeyFacts(describe_scores(card["scores"]))
    answer = [scores, facts] if scores else [facts]
    sections = [
        Section("Layers", [_table("Layers and the shapes of their outputs", card["layers"])]),
        Section("Training", _describe_training(card)),
    ]
    title = f"{kind or 'model'} {card['name'] or Path(path).stem}"
    return Page(printable(as_sentence(title)), "Model card", answer, sections)


def _describe_scaling(scaling: Mapping[str, Any] | None) -> str:
    if scaling is None:
        return f"scaling {UNKNOWN}"
    low, high = scaling["offset"], scaling["offset"] + scaling["scale"]
    return f"{scaling['dtype']}, scaled from {low:g}..{high:g} to 0..1"


def _describe_classes(classes: Mapping[str, str]) -> str:
    names = (label if label == name else f"{label} {name}" for label, name in classes.items())
    return f"{len(classes)}: {', '.join(names)}" if classes else "none"


def _describe_calibration(calibration: Mapping[str, float] | None) -> str:
    if calibration is None:
        return UNKNOWN
    temperature, threshold = calibration["temperature"], calibration["unsure_below"]
    return f"temperature {temperature:.4g}; answers below {100 * threshold:.1f} % are unsure"


def _describe_training(card: Mapping[str, Any]) -> list[dict[str, str] | Table]:
    origin, settings = card["origin"], card["hyperparameters"]
    facts = {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in (settings or {}).items()
        if value is not None
    }
    if origin is None:
        return [{"origin": UNKNOWN, **facts}]
    facts |= {
        "started": origin["started"],
        "device": origin["device"] or UNKNOWN,
        "versions": ", ".join(f"{name} {version}" for name, version in origin["versions"].items()),
        "program": origin["git_commit"] or UNKNOWN,
    }
    for encoder in card["encoders"]:
        facts["encoder"] = f"{encoder['path']} ({encoder['state']}), SHA-256 {encoder['sha256']}"
    files = [
        {
            "images": f"{role}: {data['name']}",
            "file": terminal.relative(file["path"]),
            "SHA-256": file["sha256"],
        }
        for role, data in origin["data"].items()
        for file in data["files"]
    ]
    return [facts, _table("Files of the images and labels", files)]


def _table(caption: str, rows: list[dict[str, Any]]) -> Table:
    headings = rows[0] if rows else ()
    return Table(caption, {name: [row[name] for row in rows] for name in headings})


def print_card(page: Page) -> None:
    """Prints a card at the terminal."""
    terminal.say(page.title)
    answer = {name: text for facts in page.answer for name, text in facts.items()}
    for section in [Section("Model", [answer]), *page.sections]:
        for block in section.blocks:
            if isinstance(block, dict):
                facts = {printable(name): printable(text) for name, text in block.items()}
                terminal.show_facts(section.title, facts)
            else:
                numeric = [name for name in block.columns if block.is_numeric(name)]
                terminal.print_rows(block.caption, block.rows, numeric)
