"""Classifies images whose labels are known, and records how well: `predict.py evaluate`."""

import argparse
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import terminal
from cae.config.shapes import Shape
from cae.data.datasets import Dataset, Scaling, check_dataset, load_dataset
from cae.data.splits import encode_labels, get_classes, spread_out
from cae.errors import ModelFileError, Say, UsageError, as_sentence, counted, listed
from cae.files import get_record, write_csv, write_json, write_text
from cae.foreign.models import find_classifier, get_own_range
from cae.programs.images import (
    change_images,
    change_shape,
    check_reading,
    choose_scaling,
    get_reading,
    match_colour,
    report_skipped,
    warn_of_looks,
)
from cae.programs.starting_points import check_model_shape
from cae.records.calibration import UNCALIBRATED, Calibration, Typical
from cae.records.environment import read_origin
from cae.records.evaluation import Evaluation, evaluate
from cae.records.run import METRICS_FILE, PREDICTIONS_FILE, Run, check_run_dir, check_runs_dir
from cae.records.saved_models import load_model, read_metadata

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

# Enough for a temperature and a quantile of 99 %.
CALIBRATION_IMAGES = 5000
PRINTED_SCORES = {  # properties of an evaluation, and their names
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
}
# Values per image whose means are saved: the metadata of an `.h5` file must stay below 64 KB.
MAX_SUMMARY = 2048


def evaluate_model(
    model: "keras.Model",
    data: Dataset,
    scaling: Scaling,
    classes: np.ndarray,
    class_names: list[str] | None,
    indices: np.ndarray | None = None,
    calibration: Calibration = UNCALIBRATED,
) -> Evaluation:
    """Classifies images and compares the predictions with their labels.

    Args:
        model: A classifier, or one `with_summary`.
        data: Images and labels.
        scaling: Brings the images to [0, 1] as training did.
        classes: int64 (num_classes,), the labels that training saw, sorted.
        class_names: Their names; by default the labels themselves.
        indices: int64 (num_images,), the images to classify; by default all.
        calibration: Of the classifier.
    """
    from cae.training.predict import predict

    terminal.announce(f"Classifying {len(data.images if indices is None else indices):,} images")
    evaluation = evaluate(
        predict(model, data.images, scaling, indices)[:, -len(classes) :],
        data.labels if indices is None else data.labels[indices],
        classes,
        class_names,
        indices,
        calibration,
        paths=data.paths if indices is None or data.paths is None else data.paths[indices],
        other_names=data.class_names,
    )
    if evaluation.num_unseen:
        terminal.warn(
            f"{evaluation.num_unseen} test images have a label that training never saw; "
            "each counts as an error."
        )
    return evaluation


def calibrate(
    model: "keras.Model",
    data: Dataset,
    scaling: Scaling,
    split: tuple[np.ndarray, np.ndarray],
    classes: np.ndarray,
    unlabelled: Dataset | None = None,
) -> tuple[Calibration, dict[str, Any]]:
    """Calibrates a classifier, and measures how images like those of training are encoded.

    Args:
        model: A classifier `with_summary`.
        data: The images and labels that it was trained on.
        scaling: That of training.
        split: Indices of the images trained on, and of the validation images.
        classes: int64 (num_classes,), the labels, sorted.
        unlabelled: Other images that it was trained on, which say what is typical, too.

    Returns:
        The calibration, and what to save with the model.
    """
    from cae.training.predict import predict

    training, validation = (spread_out(part, CALIBRATION_IMAGES) for part in split)
    parts = [(data.images, training)]
    if unlabelled is not None:
        every = np.arange(len(unlabelled.images))
        parts.append((unlabelled.images, spread_out(every, CALIBRATION_IMAGES)))
    summaries, probabilities = np.split(
        predict(model, data.images, scaling, validation), [-len(classes)], axis=1
    )
    saved = {}
    if summaries.shape[1] <= MAX_SUMMARY:
        known = [predict(model, images, scaling, chosen) for images, chosen in parts]
        known = np.concatenate(known)[:, : -len(classes)]
        saved["typical"] = asdict(Typical.fit(known, summaries))
    if not len(validation):
        return UNCALIBRATED, saved
    calibration = Calibration.fit(probabilities, encode_labels(data.labels[validation], classes))
    return calibration, saved | {"calibration": asdict(calibration)}


def evaluate_file(
    path: str | Path,
    test: Dataset,
    training: Dataset | None = None,
    *,
    input_range: str | None = None,
) -> tuple[Evaluation, Scaling]:
    """Classifies test images with a saved classifier; also returns the scaling it requires.

    Args:
        path: The classifier.
        test: Images and labels.
        training: Gives classes and scaling where a file of another program names none; by default
            the test images do.
        input_range: The pixels that such a file expects; see `find_classifier`.

    Raises:
        ModelFileError: It is not a classifier, or takes images of another shape.
        DataError: It was trained on pixels of another kind.
    """
    with terminal.starting_keras():
        from cae.training import layers  # noqa: F401 - the rest is quick
    known = training or test
    model, metadata = load_model(path)
    _warn_of_training_images(path, metadata, test)
    input_range = input_range or get_own_range(metadata)
    model = find_classifier(
        model, path, test.images.shape[1:], input_range=input_range, say=terminal.say
    )
    num_classes = model.output_shape[1]
    classes = name_outputs(path, metadata, num_classes, known.labels, terminal.say)
    names = get_class_names(path, metadata, num_classes)
    if names is not None:
        test = test.numbered_like(dict(zip(classes, names, strict=True)))
    scaling = choose_scaling(path, known)
    calibration = Calibration(**metadata.get("calibration", {}))
    return evaluate_model(model, test, scaling, classes, names, calibration=calibration), scaling


def _warn_of_training_images(path: str | Path, metadata: Mapping[str, Any], test: Dataset) -> None:
    """Warns if the images come from a file that the classifier learned from.

    Not if it has been tested on as many images of that file: these are what was held out.
    """
    origin = None
    with suppress(ModelFileError):
        origin = read_origin(path, metadata)
    if origin is None or not test.files:
        return
    given = test.files[0]["sha256"]  # of the images; a file of labels may belong to several
    learned, tested = (origin.data.get(role) for role in ("training", "test"))
    shared = [file.path for file in learned.files if file.sha256 == given] if learned else []
    count = tested.shape[0] if tested and given in {x.sha256 for x in tested.files} else 0
    if shared and count != len(test.images):
        terminal.warn(
            f"{path} was trained on images of {shared[0]}. Its accuracy on images that it learned "
            "from says little about new ones."
        )


def get_class_names(
    path: str | Path, metadata: dict[str, Any], num_classes: int
) -> list[str] | None:
    """The names of a saved classifier's classes; None if its file does not say."""
    names = metadata.get("class_names")
    if names is not None and len(names) != num_classes:
        raise ModelFileError(path, f"must name its {num_classes} classes", names)
    return names


def name_outputs(
    path: str | Path,
    metadata: dict[str, Any],
    num_classes: int,
    labels: np.ndarray | None,
    say: Say,
) -> np.ndarray:
    """The labels that the outputs of a saved classifier stand for, in their order.

    Where its file does not say: the labels that occur, if they are as many; else those from 0 on,
    or from 1 on, as EMNIST counts, if the largest that occurs is the number of outputs.

    Args:
        path: Its file.
        metadata: What the file says.
        num_classes: The number of outputs.
        labels: Of images to test or train with, if there are any.
        say: Receives a sentence unless the numbers from 0 on are all there is.

    Returns:
        int64 (num_classes,), ascending.
    """
    classes = metadata.get("classes")
    if classes is not None and len(classes) == num_classes:
        return np.array(classes, np.int64)
    found = np.arange(num_classes)
    known = found if labels is None else get_classes(labels)
    if len(known) == num_classes:
        found = known
    elif known.size and known.max() == num_classes:
        found += 1
    if not np.array_equal(known, np.arange(num_classes)):
        words = [f"{found[0]} to {found[-1]}"]
        if found[-1] - found[0] >= num_classes:
            words = list(map(str, found.tolist()))
        say(
            f"{path} does not name its classes: its {num_classes} outputs are assumed to be the "
            f"labels {listed(words, 'and')}, in this order."
        )
    return found


def get_test_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """The results on test images that `metrics.json` holds."""
    ends = {
        f"test_{name}_{end}": value
        for name, interval in evaluation.class_intervals.items()
        for end, value in interval._asdict().items()
    }
    return ends | {
        "temperature": evaluation.calibration.temperature,
        "test_accuracy": evaluation.accuracy,
        "test_accuracy_low": evaluation.accuracy_interval.low,
        "test_accuracy_high": evaluation.accuracy_interval.high,
        "test_balanced_accuracy": evaluation.balanced_accuracy,
        "test_macro_f1": evaluation.macro_f1,
        "test_ece": evaluation.calibration_error,
        "test_images": len(evaluation.labels),
        "test_labels_unseen": evaluation.num_unseen,
    }


def write_evaluation(run: Run, evaluation: Evaluation, data: Dataset) -> None:
    """Writes the report, and the prediction for every image by its position in the file."""
    evaluation = replace(evaluation, indices=data.positions[evaluation.indices])
    write_text(run.path / "classification_report.txt", evaluation.report_text)
    write_csv(run.path / PREDICTIONS_FILE, evaluation.rows)


def draw_evaluation(evaluation: Evaluation, data: Dataset, scaling: Scaling) -> dict[str, "Figure"]:
    """Draws report, confusion matrix, images that were classified, and calibration."""
    from cae.figures.classes import classifier_prediction_visualization, plot_reliability

    figures = classifier_prediction_visualization(
        scaling.apply(data.images[evaluation.indices]),
        evaluation.targets,
        evaluation.calibrated,
        evaluation.class_names,
        data.name_images(evaluation.indices),
        evaluation.report,
    )
    reliability = plot_reliability(
        evaluation.probabilities, evaluation.targets, evaluation.calibration
    )
    return figures | {"reliability": reliability}


def record_test(
    run: Run,
    model: str | Path,
    test: Dataset,
    evaluation: Evaluation,
    scaling: Scaling,
    *,
    plots: bool = True,
) -> dict[str, "Figure"]:
    """Records a test in a run of its own, prints its results, and returns the figures.

    Args:
        run: Where to record it.
        model: The file of the classifier.
        test: The images that were classified.
        evaluation: The result.
        scaling: Brings the images to [0, 1].
        plots: Whether to draw figures.
    """
    with run:
        report_skipped([test], run.path)
        write_evaluation(run, evaluation, test)
        record = {"model": get_record(model), "data": list(test.files)}
        write_json(run.path / METRICS_FILE, record | get_test_metrics(evaluation))
        if plots:
            terminal.announce("Drawing figures")
        figures = draw_evaluation(evaluation, test, scaling) if plots else {}
        run.save_figures(figures)
    print_evaluation(evaluation)
    written = "Report, predictions and figures" if plots else "Report and predictions"
    terminal.say(f"{written}: {terminal.relative(run.path)}")
    return figures


def print_evaluation(evaluation: Evaluation) -> None:
    """Prints the report, and the scores with their intervals."""
    terminal.print_as_is(evaluation.report_text)
    intervals = {"accuracy": evaluation.accuracy_interval, **evaluation.class_intervals}
    scores = []
    for key, name in PRINTED_SCORES.items():
        ends = intervals.get(key)
        interval = f" ({ends.low:.2%} to {ends.high:.2%})" if ends else ""
        scores.append(f"{name} {getattr(evaluation, key):.2%}{interval}")
    images = counted(len(evaluation.labels), "image")
    terminal.say(f"{as_sentence(', '.join(scores))} on {images}; 95 % intervals in brackets")


# --- The command ----------------------------------------------------------------------------


def evaluate_classifier(args: argparse.Namespace) -> int:
    """Tests a saved classifier, records the test as a run and returns the exit code."""
    images = args.test or args.dataset
    labels = args.test_labels or (None if args.test else args.labels)
    if images is None:
        raise UsageError("-d", "test images are required", "none", "Add -d DATA or -t TEST.")
    check_reading(args)
    options = {"split": "test", "labels_required": True, "reading": get_reading(args, "test")}
    _, shape = check_dataset(images, labels, **options)
    name = check_classifier(args.model, change_shape(shape, args, "test"))
    if args.run_dir:
        check_run_dir(args.run_dir)
    else:
        check_runs_dir(args.runs_dir)
    test = change_images(load_dataset(images, labels, **options), args, "test")
    test = match_colour(test, args.model)
    tested = evaluate_file(args.model, test, input_range=args.model_input_range)
    warn_of_looks(args.model, {"test": test}, tested[1], args, terminal.warn)
    run = Run(args.runs_dir, f"test-{name}", args.run_dir)
    record_test(run, args.model, test, *tested, plots=not args.no_plots)
    return 0


def check_classifier(path: str | Path, input_shape: Shape | None = None) -> str:
    """Checks a classifier as far as that is possible without Keras, and returns its name."""
    metadata = read_metadata(path)
    if metadata.get("kind", "classifier") != "classifier":
        raise ModelFileError(
            path, "must be a classifier", metadata["kind"], "Use one saved by classification.py."
        )
    if input_shape:
        remedy = "Use images of that shape, or pictures in files, which are converted."
        check_model_shape(path, input_shape, remedy, any_colour=True)
    return metadata.get("name", Path(path).stem)
