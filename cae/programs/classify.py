"""Classifies any images with a saved model: `predict.py classify`, and what its others share."""

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cae import terminal
from cae.config.choices import RESIZE
from cae.config.shapes import format_shape
from cae.data.datasets import Scaling, read_labels
from cae.data.inputs import BYTES, UNIT, Expected, Part, Report, find_shape, read_alike
from cae.data.labels import NO_LABEL, number_like
from cae.data.pictures import Form, encode_png
from cae.errors import DataError, ModelFileError, Say, UsageError
from cae.files import growing_text, new_file, new_folder, plain_cell, shorten_name, write_bytes
from cae.foreign.interfaces import check_channels_last
from cae.foreign.models import find_classifier, get_own_range
from cae.programs.evaluate import (
    check_classifier,
    get_class_names,
    name_outputs,
    print_evaluation,
)
from cae.records.calibration import Calibration, Typical
from cae.records.evaluation import count_predictions, evaluate
from cae.records.saved_models import load_model

if TYPE_CHECKING:
    import keras

MAX_SHOWN = 50  # rows of the table at the terminal
MAX_MATRIX = 20  # classes of the confusion matrix there
STANDARD_OUTPUT = "-"
COLUMNS = (
    *("image", "prediction", "probability", "runner_up", "runner_up_probability"),
    *("unsure", "unlike_training", "label", "correct"),
)

Write = Callable[[Sequence[dict[str, Any]]], object]


# --- Answers for any images -----------------------------------------------------------------


@dataclass(frozen=True)
class Classifier:
    """A saved classifier, and what its file says about its answers.

    Attributes:
        model: Of images in [0, 1] to probabilities, after the summary of the encoding if there is
            `typical`.
        expected: The images that it takes.
        classes: int64 (num_classes,), the labels, sorted.
        class_names: Their names.
        calibration: Of the probabilities.
        typical: How images like those of training are encoded; None where that is not known.
    """

    model: "keras.Model"
    expected: Expected
    classes: np.ndarray
    class_names: list[str]
    calibration: Calibration
    typical: Typical | None


class Answers(NamedTuple):
    """What a classifier says about some images.

    Attributes:
        part: The images.
        probabilities: float64 (num_images, num_classes), calibrated.
        unlike: bool (num_images,), whether an image is unlike those of training; None where that is
            not known.
    """

    part: Part
    probabilities: np.ndarray
    unlike: np.ndarray | None


def open_classifier(
    path: str | Path,
    *,
    input_range: str | None = None,
    inputs: Sequence[str] | None = None,
    transpose: bool = False,
    labels: np.ndarray | None = None,
    say: Say,
) -> Classifier:
    """Loads a saved classifier, of this program or of another one.

    Args:
        path: Its file.
        input_range: The pixels that it expects; see `adapt_input`.
        inputs: What it will be asked about; see `get_expected`.
        transpose: As for `ask`.
        labels: Of these images, if they are known; see `name_outputs`.
        say: Receives a sentence for each choice that the model does not make itself.

    Raises:
        ModelFileError: It is not a classifier.
    """
    with terminal.starting_keras():
        model, metadata = load_model(path)
    expected = get_expected(path, model, metadata, inputs, transpose=transpose)
    typical = Typical(**metadata["typical"]) if "typical" in metadata else None
    if typical:
        num_classes, model = model.output_shape[-1], summarize(path, model, typical)
    else:
        input_range = input_range or get_own_range(metadata)
        model = find_classifier(model, path, expected.form.shape, input_range=input_range, say=say)
        num_classes = model.output_shape[-1]
    classes = name_outputs(path, metadata, num_classes, labels, say)
    names = get_class_names(path, metadata, num_classes)
    names = [str(label) for label in classes.tolist()] if names is None else names
    return Classifier(
        model,
        expected,
        classes,
        names,
        Calibration(**metadata.get("calibration", {})),
        typical,
    )


def summarize(path: str | Path, model: "keras.Model", typical: Typical) -> "keras.Model":
    """A classifier `with_summary`, whose summaries can be compared with typical ones.

    Raises:
        ModelFileError: They do not belong together.
    """
    from cae.training.build import with_summary

    size = len(typical.mean)
    if {layer.name for layer in model.layers} >= {"encoder", "fully_connected"}:
        summarized = with_summary(model)
        if len(typical.deviation) == size == summarized.output_shape[-1] - model.output_shape[-1]:
            return summarized
    raise ModelFileError(
        path,
        "must contain the statistics of its own encodings",
        f"{size} means, from another model",
        "Save the model again, or give another one.",
    )


def get_expected(
    path: str | Path,
    model: "keras.Model",
    metadata: dict[str, Any],
    inputs: Sequence[str] | None = None,
    *,
    transpose: bool = False,
) -> Expected:
    """The images that a saved model takes.

    Where it takes images of any size, or all pixels in a row, the first of `inputs` says the size,
    if it is an array; `transpose` swaps its sides.

    Raises:
        ModelFileError: The size is not known, or channels come first.
    """
    stated = tuple(metadata.get("input_shape") or model.inputs[0].shape[1:])
    shape = (*stated, 1) if len(stated) == 2 else stated
    if len(shape) != 3 or None in shape:
        *size, channels = (inputs and find_shape(inputs)) or (None, None)
        size = size[::-1] if transpose else size
        shape = (*size, (shape[-1] if len(shape) == 3 else None) or channels)
    if len(shape) != 3 or None in shape:
        required = "must state the height and width of its images"
        remedy = "Pass the images as one .idx or .npy file, which gives the size, or another model."
        raise ModelFileError(path, required, format_shape(stated), remedy)
    check_channels_last(shape, path)
    scaling = metadata.get("scaling")
    form = Form(*shape, metadata.get("resize", RESIZE[0]))
    scaling = Scaling(**scaling) if scaling else BYTES
    return Expected(form, scaling, metadata.get("appearance"))


def ask(
    classifier: Classifier,
    inputs: Iterable[str],
    *,
    invert: str | None = None,
    transpose: bool = False,
    report: Report = terminal.report,
    say: Say = terminal.say,
    warn: Say = terminal.warn,
) -> Iterator[Answers]:
    """Classifies images part by part, in order.

    Args:
        classifier: From `open_classifier`.
        inputs: As for `inputs.read_parts`.
        invert: As for `inputs.read_alike`, like all that follow.
        transpose: Whether to swap the rows and columns of all images.
        report: Receives the error of each file that cannot be used.
        say: Receives a sentence if images are inverted or rescaled.
        warn: Receives a sentence if images look unlike those of training as a whole.
    """
    num_classes = len(classifier.classes)
    threshold = classifier.typical and classifier.typical.get_threshold()
    run = get_runner(classifier.model)
    changes = {"invert": invert, "transpose": transpose}
    tell = {"report": report, "say": say, "warn": warn}
    for part in read_alike(inputs, classifier.expected, **changes, **tell):
        summaries, probabilities = np.split(run(part.images), [-num_classes], axis=1)
        unlike = classifier.typical and classifier.typical.get_scores(summaries) > threshold
        yield Answers(part, classifier.calibration.apply(probabilities), unlike)


def get_runner(model: "keras.Model") -> Callable[[np.ndarray], np.ndarray]:
    """Runs a model on parts of any size, compiled for the largest so far."""
    from cae.training.predict import predict

    size = 0

    def run(images: np.ndarray) -> np.ndarray:
        nonlocal size
        size = max(size, len(images))
        padded = images
        if len(images) < size:
            padded = np.zeros((size, *images.shape[1:]), np.float32)
            padded[: len(images)] = images
        return predict(model, padded, UNIT)[: len(images)]

    return run


# --- The command ----------------------------------------------------------------------------


def classify(args: argparse.Namespace) -> int:
    """Classifies any images; returns the exit code, 2 if some could not be read."""
    check_classifier(args.model)
    _check_outputs(args)
    given, names = (None, {}) if args.test_labels is None else read_labels(args.test_labels)
    say = partial(terminal.print_sentence, terminal.ERR)  # standard output may be JSON
    options = {"input_range": args.model_input_range, "inputs": args.inputs}
    options |= {"transpose": args.transpose}
    classifier = open_classifier(args.model, labels=None if names else given, say=say, **options)
    names_of = dict(zip(classifier.classes.tolist(), classifier.class_names, strict=True))
    if given is not None:
        given, own = number_like(names_of, given, names)
        names_of |= own
    terminal.announce("Classifying images")
    failures: list[int] = []
    count = 0
    shown: list[dict[str, Any]] = []
    known: list[tuple[np.ndarray, list[int]]] = []
    with ExitStack() as stack:
        writers = [open_csv(stack, args.csv, COLUMNS)] if args.csv else []
        writers += [_open_json(stack, args.json)] if args.json else []
        for answers in ask(
            classifier,
            args.inputs,
            invert=args.invert,
            transpose=args.transpose,
            report=lambda error: failures.append(terminal.report(error)),
            say=say,
        ):
            labels = _find_labels(classifier, answers.part, given)
            label_names = [x if x is None else names_of.get(x, str(x)) for x in labels]
            rows = _get_rows(classifier, answers, label_names, args.unsure_below)
            for write in writers:
                write(rows)
            shown += rows[: MAX_SHOWN - len(shown)]
            count += len(rows)
            has_label = [label is not None for label in labels]
            known.append((answers.probabilities[has_label], [x for x in labels if x is not None]))
            if args.errors:
                _write_errors(Path(args.errors), answers.part, rows)
        if given is not None and count != len(given) and not failures:
            raise get_label_count_error(given, f"{count:,}")
    if args.json != STANDARD_OUTPUT:
        _show(shown, count)
        _show_evaluation(classifier, known)
    return max(failures, default=0)


def _check_outputs(args: argparse.Namespace) -> None:
    for path in (args.csv, None if args.json == STANDARD_OUTPUT else args.json):
        if path is not None:
            new_file(path)
    if args.csv and args.json and Path(args.csv).resolve() == Path(args.json).resolve():
        raise UsageError("--json", "must name another file than --csv", args.json)
    if args.errors:
        new_folder("--errors", args.errors)


def _find_labels(classifier: Classifier, part: Part, given: np.ndarray | None) -> list[int | None]:
    """The labels of images: those given, or the folder of each if it is called like a class."""
    if given is None:
        of_name = dict(zip(classifier.class_names, classifier.classes.tolist(), strict=True))
        return list(map(of_name.get, part.folders))
    return [None if label == NO_LABEL else label for label in pick_labels(part, given)]


def pick_labels(part: Part, given: np.ndarray) -> list[int]:
    """The labels of images among those that -tl gives to all, unreadable ones included."""
    if part.numbers[-1] >= len(given):
        raise get_label_count_error(given, f"at least {part.numbers[-1] + 1:,}")
    return given[part.numbers].tolist()


def get_label_count_error(given: np.ndarray, images: str) -> DataError:
    """Labels of -tl that are not as many as the images."""
    found = f"{len(given):,} labels for {images} images"
    return DataError("-tl", "must give a label for every image", found)


def _get_rows(
    classifier: Classifier,
    answers: Answers,
    label_names: Sequence[str | None],
    unsure_below: float | None,
) -> list[dict[str, Any]]:
    """One row per image; None stands for what is not known."""
    threshold = classifier.calibration.unsure_below if unsure_below is None else unsure_below
    order = np.argsort(-answers.probabilities, axis=1, kind="stable")[:, :2]
    likeliest = np.take_along_axis(answers.probabilities, order, axis=1)
    unsure = (likeliest[:, 0] < threshold).tolist()
    unlike = [None] * len(label_names) if answers.unlike is None else answers.unlike.tolist()
    rows = []
    columns = answers.part.names, order.tolist(), likeliest.round(6).tolist(), unsure, unlike
    for image, positions, (probability, *others), is_unsure, is_unlike, label in zip(
        *columns, label_names, strict=True
    ):
        best, *second = (classifier.class_names[position] for position in positions)
        rows.append(
            {
                "image": image,
                "prediction": best,
                "probability": probability,
                "runner_up": second[0] if second else None,
                "runner_up_probability": others[0] if others else None,
                "unsure": is_unsure,
                "unlike_training": is_unlike,
                "label": label,
                "correct": None if label is None else label == best,
            }
        )
    return rows


def open_csv(stack: ExitStack, path: str, columns: Sequence[str]) -> Write:
    """Opens a table that appears when all rows are written; returns what writes some."""
    text = stack.enter_context(growing_text(Path(path)))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    return lambda rows: writer.writerows(
        {key: int(x) if isinstance(x, bool) else plain_cell(x) for key, x in row.items()}
        for row in rows
    )


def _open_json(stack: ExitStack, path: str) -> Write:
    is_file = path != STANDARD_OUTPUT
    text = stack.enter_context(growing_text(Path(path))) if is_file else sys.stdout
    separators = chain(["["], repeat(","))
    stack.callback(lambda: text.write("\n]\n" if next(separators) == "," else "[]\n"))

    def write(rows: Sequence[dict[str, Any]]) -> None:
        text.writelines(f"{next(separators)}\n{json.dumps(row)}" for row in rows)

    return write


def _write_errors(folder: Path, part: Part, rows: Sequence[dict[str, Any]]) -> None:
    """Writes images that were classified wrongly as PNG files whose names say how."""
    for number, image, row in zip(part.numbers, part.images, rows, strict=True):
        if row["correct"] is False:
            words = [row["label"], row["prediction"], f"{row['probability']:.3f}", f"{number:06}"]
            name = "-".join(shorten_name(re.sub(r"[^\w.]+", "_", word)) for word in words)
            write_bytes(folder / f"{name}.png", encode_png(image))


# --- Results at the terminal ----------------------------------------------------------------


def _show(rows: Sequence[dict[str, Any]], total: int) -> None:
    """Prints the first answers as a table."""
    cells = []
    for row in rows:
        notes = ("unsure" * row["unsure"], "unlike training" * bool(row["unlike_training"]))
        runner_up = ""
        if row["runner_up"] is not None:
            runner_up = f"{row['runner_up']} {row['runner_up_probability']:.1%}"
        cells.append(
            {
                "image": row["image"],
                "class": row["prediction"],
                "probability": f"{row['probability']:.1%}",
                "runner-up": runner_up,
                "note": ", ".join(filter(None, notes)),
            }
        )
    if cells:
        terminal.print_rows("Answers", cells, ("probability",))
    if rows and rows[0]["unlike_training"] is None:
        terminal.say("This model cannot tell which images are unlike its training images.")
    if total > len(rows):
        terminal.say(f"{total - len(rows):,} more rows: --csv FILE or --json FILE lists all.")


def _show_evaluation(classifier: Classifier, known: Sequence[tuple[np.ndarray, list[int]]]) -> None:
    """Prints accuracy, report and confusion matrix of the images whose labels are known."""
    labels = np.array([label for _, labels in known for label in labels], np.int64)
    if not len(labels):
        return
    probabilities = np.concatenate([probabilities for probabilities, _ in known])
    evaluation = evaluate(probabilities, labels, classifier.classes, classifier.class_names)
    print_evaluation(evaluation)
    names, predicted = evaluation.class_names, evaluation.probabilities.argmax(axis=1)
    if len(names) > MAX_MATRIX:
        terminal.say(f"predict.py evaluate draws the matrix of more than {MAX_MATRIX} classes.")
        return
    counts = count_predictions(evaluation.targets, predicted, len(names))
    heading = "true class"
    while heading in names:
        heading += " "
    rows = [
        {heading: name, **dict(zip(names, map(str, row), strict=True))}
        for name, row in zip([*names, "unseen"], counts.tolist(), strict=False)
    ]
    terminal.print_rows("Images by true class and prediction", rows, names)
