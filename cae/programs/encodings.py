"""What saved models make of images: encodings, reconstructions, and scores of anomalies."""

import argparse
import csv
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import terminal
from cae.data.arrays import growing_npy
from cae.data.datasets import read_labels
from cae.data.idx import growing_idx
from cae.data.inputs import Expected, Part, read_alike
from cae.data.labels import NO_LABEL
from cae.data.pictures import Form, encode_png, to_bytes
from cae.errors import DataError, ModelFileError, UsageError, listed
from cae.files import (
    growing_text,
    new_file,
    new_folder,
    plain_cell,
    shorten_name,
    write_bytes,
    write_figures,
)
from cae.foreign.interfaces import OWN_RANGE
from cae.foreign.models import find_autoencoder, find_encoder, get_own_range
from cae.programs.classify import (
    get_expected,
    get_label_count_error,
    get_runner,
    open_csv,
    pick_labels,
    summarize,
)
from cae.records.calibration import Typical
from cae.records.saved_models import load_model, read_metadata

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

SHOWN = 20  # images in figures and in the table
COLUMNS = ("image", "score", "anomaly")


class Outputs:
    """The outputs of a model for images, part by part; what cannot be read is reported.

    Iterate over it for pairs of a `Part` of the images and float (num_images, *shape).

    Args:
        model: Of images in [0, 1].
        expected: The images that it takes.
        inputs: As for `inputs.read_parts`.
        finish: Turns the outputs of the model into these.
        changes: `invert` and `transpose`, as for `inputs.read_alike`.

    Attributes:
        shape: Of the output for one image.
        count: The images so far.
        exit_code: 2 if something could not be read.
    """

    def __init__(
        self,
        model: "keras.Model",
        expected: Expected,
        inputs: Sequence[str],
        *,
        finish: Callable[[np.ndarray], np.ndarray] = np.asarray,
        **changes: Any,
    ):
        self.shape = model.output_shape[1:]
        self.count = 0
        self.exit_code = 0
        run = get_runner(model)
        self._run = lambda images: finish(run(images))
        terminal.announce("Running the model on the images")
        tell = {"report": self._report, "say": terminal.say, "warn": terminal.warn}
        self._parts = read_alike(inputs, expected, **changes, **tell)

    def _report(self, error: DataError) -> None:
        self.exit_code = terminal.report(error)

    def __iter__(self) -> Iterator[tuple[Part, np.ndarray]]:
        """Raises a DataError if there is no image that can be read."""
        for part in self._parts:
            self.count += len(part.names)
            yield part, self._run(part.images)
        if not self.count:
            raise DataError("INPUT", "must contain an image that can be read", "none")


class _Highest:
    """Of images that come part by part, the `SHOWN` with the highest scores, those first.

    Attributes:
        scores: float64 (num_images,), descending.
        names: The name of each image.
        arrays: What else is kept of them.
    """

    def __init__(self) -> None:
        self.scores = np.empty(0)
        self.names: list[str] = []
        self.arrays: list[np.ndarray] = []

    def add(self, scores: np.ndarray, names: list[str], *arrays: np.ndarray) -> None:
        """Considers further images; NaN scores highest."""
        scores, names = np.concatenate([self.scores, scores]), self.names + names
        order = np.argsort(-np.nan_to_num(scores, nan=np.inf), kind="stable")[:SHOWN]
        before = self.arrays or [array[:0] for array in arrays]
        self.arrays = [np.concatenate(pair)[order] for pair in zip(before, arrays, strict=True)]
        self.scores, self.names = scores[order], [names[index] for index in order]


def _open(path: str) -> tuple["keras.Model", dict[str, Any]]:
    read_metadata(path)
    with terminal.starting_keras():
        return load_model(path)


def _get_changes(args: argparse.Namespace) -> dict[str, Any]:
    return {"invert": args.invert, "transpose": args.transpose}


def _check_output(path: str, suffixes: tuple[str, ...]) -> Path:
    output = new_file(path)
    if output.suffix not in suffixes:
        raise UsageError("--output", f"must end in {listed(suffixes)}", output)
    return output


# --- Encodings and reconstructions ----------------------------------------------------------


def encode(
    path: str,
    inputs: Sequence[str],
    *,
    until: str | None = None,
    input_range: str | None = None,
    invert: str | None = None,
    transpose: bool = False,
) -> Outputs:
    """Encodes images with the encoder of a saved autoencoder or classifier.

    Args:
        path: The file of the model.
        inputs: As for `inputs.read_parts`.
        until: The name of the encoder's last layer; see `find_encoder`.
        input_range: The pixels that the model expects; see `adapt_input`.
        invert: As for `inputs.read_alike`.
        transpose: Whether to swap the rows and columns of all images.

    Raises:
        ModelFileError: The model has no encoder that can be found.
    """
    model, metadata = _open(path)
    expected = get_expected(path, model, metadata, inputs, transpose=transpose)
    encoder = find_encoder(
        model,
        path,
        expected.form.shape,
        until=until,
        input_range=input_range or get_own_range(metadata),
        say=terminal.say,
    )
    return Outputs(encoder, expected, inputs, invert=invert, transpose=transpose)


def reconstruct(
    path: str,
    inputs: Sequence[str],
    *,
    input_range: str | None = None,
    invert: str | None = None,
    transpose: bool = False,
) -> Outputs:
    """Reconstructs images in [0, 1] with a saved autoencoder; the arguments are as for `encode`."""
    model, metadata = _open(path)
    expected = get_expected(path, model, metadata, inputs, transpose=transpose)
    options = {"input_range": input_range or get_own_range(metadata), "say": terminal.say}
    autoencoder = find_autoencoder(model, path, expected.form.shape, **options)
    return Outputs(autoencoder, expected, inputs, invert=invert, transpose=transpose)


def write_encodings(args: argparse.Namespace) -> int:
    """Writes the encodings of images as `.npy` or `.csv`; returns the exit code."""
    path = _check_output(args.output, (".npy", ".csv"))
    names_path = path.with_suffix(".txt")
    if path.suffix == ".npy":
        new_file(str(names_path))
    options = {"until": args.encoder_until, "input_range": args.model_input_range}
    outputs = encode(args.model, args.inputs, **options, **_get_changes(args))
    if path.suffix == ".csv":
        with growing_text(path) as text:
            writer = csv.writer(text, lineterminator="\n")
            numbers = range(math.prod(outputs.shape))
            writer.writerow(["image", *(f"e{number}" for number in numbers)])
            for part, encodings in outputs:
                rows = encodings.reshape(len(encodings), -1).tolist()
                writer.writerows(
                    [plain_cell(name), *row] for name, row in zip(part.names, rows, strict=True)
                )
    else:
        with (
            growing_text(names_path) as text,
            growing_npy(path, outputs.shape, np.float32) as write,
        ):
            for part, encodings in outputs:
                write(encodings)
                text.writelines(f"{' '.join(name.splitlines())}\n" for name in part.names)
    terminal.say(f"{outputs.count:,} encodings: {path}")
    return outputs.exit_code


def write_reconstructions(args: argparse.Namespace) -> int:
    """Writes reconstructions as PNG files, idx or a figure; returns the exit code."""
    path = Path(args.output)
    if path.suffix:
        _check_output(args.output, (".idx", ".png"))
    options = {"input_range": args.model_input_range, **_get_changes(args)}
    outputs = reconstruct(args.model, args.inputs, **options)
    if path.suffix == ".idx":
        *size, channels = outputs.shape
        with growing_idx(path, (*size, channels) if channels > 1 else tuple(size)) as write:
            for _, drawn in outputs:
                write(to_bytes(drawn))
    elif path.suffix:
        write_figures(path.parent, {path.stem: _draw_worst(outputs)})
    else:
        new_folder("--output", args.output)
        for part, drawn in outputs:
            for number, name, image in zip(part.numbers, part.names, drawn, strict=True):
                file = path / f"{number:06}-{shorten_name(Path(name).stem, 200)}.png"
                write_bytes(file, encode_png(image))
    terminal.say(f"{outputs.count:,} reconstructions: {path}")
    return outputs.exit_code


def _draw_worst(outputs: Outputs) -> "Figure":
    from cae.figures.images import plot_worst_reconstructions

    worst = _Highest()
    for part, drawn in outputs:
        errors = np.square(part.images - drawn).mean(axis=(1, 2, 3))
        worst.add(errors, part.names, part.images, drawn)
    return plot_worst_reconstructions(*worst.arrays, SHOWN, worst.names, total=outputs.count)


# --- Anomalies ------------------------------------------------------------------------------


def score(
    path: str, inputs: Sequence[str], *, invert: str | None = None, transpose: bool = False
) -> tuple[Outputs, Typical]:
    """Scores images by how unlike those of training they are.

    Args:
        path: The file of an autoencoder or classifier of this program.
        inputs: As for `inputs.read_parts`.
        invert: As for `inputs.read_alike`.
        transpose: Whether to swap the rows and columns of all images.

    Returns:
        The scores, float64 (num_images,), larger for images that are less like those of training;
        and what is typical, whose `get_threshold` tells anomalies.
    """
    model, metadata = _open(path)
    if "typical" not in metadata:
        raise ModelFileError(
            path,
            "must record the scores of its validation images",
            "a model without them",
            "Train it again with this program.",
        )
    expected = get_expected(path, model, metadata)
    typical, scorer = _get_scorer(path, model, metadata, expected.form)

    def finish(values: np.ndarray) -> np.ndarray:
        return typical.get_scores(values[:, : max(1, len(typical.mean))])

    changes = {"invert": invert, "transpose": transpose}
    return Outputs(scorer, expected, inputs, finish=finish, **changes), typical


def find_anomalies(args: argparse.Namespace) -> int:
    """Writes and shows the scores of images; returns the exit code."""
    if args.csv:
        new_file(args.csv)
    if args.figures:
        new_folder("--figures", args.figures)
    given = _read_given(args)
    outputs, typical = score(args.model, args.inputs, **_get_changes(args))
    threshold = typical.get_threshold(args.quantile)
    strangest = _Highest()
    scores, labels = np.empty(0), []
    with ExitStack() as stack:
        write = open_csv(stack, args.csv, COLUMNS) if args.csv else None
        for part, found in outputs:
            strangest.add(found, part.names, part.images)
            scores = np.concatenate([scores, found])
            if args.strange:
                labels += part.folders if given is None else pick_labels(part, given)
            if write:
                write(_get_rows(part.names, found, threshold))
        if given is not None and len(given) != outputs.count and not outputs.exit_code:
            raise get_label_count_error(given, f"{outputs.count:,}")
    rows = _get_rows(strangest.names, strangest.scores, threshold)
    shown = [{**row, "anomaly": "yes" * row["anomaly"]} for row in rows]
    terminal.print_rows("Images least like the training images", shown, ("score",))
    terminal.say(
        f"{np.sum(scores > threshold):,} of {len(scores):,} images score above the threshold "
        f"{threshold:.4g}, which {1 - args.quantile:.2%} of normal images exceed."
    )
    figures = {}
    if args.strange:
        is_known, is_strange = _find_strange(labels, args.strange)
        figures = _compare_with_labels(is_strange[is_known], scores[is_known])
    if args.figures:
        folder = Path(args.figures)
        figures["strangest"] = _draw_strangest(strangest)
        write_figures(folder, figures)
        terminal.say(f"Figures: {folder}")
    return outputs.exit_code


def _get_rows(names: list[str], scores: np.ndarray, threshold: float) -> list[dict[str, Any]]:
    return [
        {"image": name, "score": f"{score:.6g}", "anomaly": score > threshold}
        for name, score in zip(names, scores.tolist(), strict=True)
    ]


def _read_given(args: argparse.Namespace) -> np.ndarray | None:
    """The names of the labels of -tl, None for an image without one."""
    if args.test_labels is None:
        return None
    if not args.strange:
        raise UsageError("-tl", "requires --strange", None, "Name the strange labels with it.")
    labels, class_names = read_labels(args.test_labels)
    words = [class_names.get(label, str(label)) for label in labels.tolist()]
    return np.where(labels == NO_LABEL, None, np.array(words, object))


def _get_scorer(
    path: str, model: "keras.Model", metadata: dict[str, Any], form: Form
) -> tuple[Typical, "keras.Model"]:
    """What is typical for a model, and the model of the values that are compared with it."""
    from cae.training.build import with_error

    typical = Typical(**metadata["typical"])
    if typical.mean:
        return typical, summarize(path, model, typical)
    return typical, with_error(find_autoencoder(model, path, form.shape, input_range=OWN_RANGE))


def _find_strange(labels: list[str | None], strange: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Both bool (num_images,): which images have a label or folder, and whose is in --strange."""
    is_known = np.array([label is not None for label in labels])
    is_strange = np.array([label in strange for label in labels])
    if is_strange[is_known].all() or not is_strange.any():
        raise UsageError(
            "--strange",
            "must name labels or folders of some, but not all, labelled images",
            f"{is_strange.sum()} of {is_known.sum()} labelled images",
            "Check the names, or give labels with -tl.",
        )
    return is_known, is_strange


def _draw_strangest(strangest: _Highest) -> "Figure":
    from cae.figures.sheets import plot_captioned
    from cae.figures.style import name_image

    captions = [
        f"{name_image(index, strangest.names, 14)}\nscore {score:.4g}"
        for index, score in enumerate(strangest.scores)
    ]
    return plot_captioned(strangest.arrays[0], captions, "Images least like the training images")


def _compare_with_labels(is_strange: np.ndarray, scores: np.ndarray) -> dict[str, "Figure"]:
    from cae.figures.classes import plot_roc

    figure, area = plot_roc(is_strange, scores)
    terminal.say(f"Area under the ROC curve: {area:.4f}")
    return {"roc": figure}
