"""What saved models answer: the commands of `predict.py`."""

import argparse
from pathlib import Path

from cae import terminal
from cae.config.shapes import Shape
from cae.data.datasets import check_dataset, load_dataset
from cae.errors import ModelFileError, UsageError
from cae.programs.classify import classify_with_file, record_test
from cae.programs.starting_points import (
    change_images,
    change_shape,
    check_model_shape,
    warn_of_looks,
)
from cae.records.run import Run, check_run_dir, check_runs_dir
from cae.records.saved_models import read_metadata


def evaluate(args: argparse.Namespace) -> int:
    """Tests a saved classifier, records the test as a run and returns the exit code."""
    images = args.test or args.dataset
    labels = args.test_labels or (None if args.test else args.labels)
    if images is None:
        raise UsageError("-d", "test images are required", "none", "Add -d DATA or -t TEST.")
    _, shape = check_dataset(images, labels, split="test", labels_required=True)
    name = _check_classifier(args.model, change_shape(shape, args, "test"))
    if args.run_dir:
        check_run_dir(args.run_dir)
    else:
        check_runs_dir(args.runs_dir)
    test = load_dataset(images, labels, split="test", labels_required=True)
    test = change_images(test, args, "test")
    tested = classify_with_file(args.model, test, input_range=args.model_input_range)
    warn_of_looks(args.model, {"test": test}, tested[1], args, terminal.warn)
    run = Run(args.runs_dir, f"test-{name}", args.run_dir)
    record_test(run, args.model, test, *tested, plots=not args.no_plots)
    return 0


def _check_classifier(path: str, input_shape: Shape) -> str:
    """Checks a classifier as far as that is possible without Keras, and returns its name."""
    metadata = read_metadata(path)
    if metadata.get("kind", "classifier") != "classifier":
        raise ModelFileError(
            path, "must be a classifier", metadata["kind"], "Give one saved by classification.py."
        )
    check_model_shape(path, input_shape)
    return metadata.get("name", Path(path).stem)
