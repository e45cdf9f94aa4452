"""What saved models make of images: encodings, reconstructions, and scores of anomalies."""

import argparse
import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cae import terminal
from cae.data.datasets import Scaling, read_labels
from cae.data.idx import write_idx
from cae.data.inputs import Part, read_parts
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
    write_csv,
    write_figures,
    write_text,
)
from cae.foreign.interfaces import OWN_RANGE
from cae.foreign.models import find_autoencoder, find_encoder, get_own_range
from cae.programs.classify import (
    get_form,
    get_label_count_error,
    get_runner,
    pick_labels,
    summarize,
)
from cae.records.calibration import Typical
from cae.records.saved_models import load_model, read_metadata

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

SHOWN = 20  # images in figures and in the table


class Outputs:
    """The outputs of a model for images, part by part; what cannot be read is reported.

    Iterate over it for pairs of a `Part` of the images and float32 (num_images, *shape).

    Attributes:
        shape: Of the output for one image.
        count: The images so far.
        exit_code: 2 if something could not be read.
    """

    def __init__(self, model: "keras.Model", form: Form, scaling: Scaling, inputs: Sequence[str]):
        self.shape = model.output_shape[1:]
        self.count = 0
        self.exit_code = 0
        self._run = get_runner(model)
        terminal.announce("Running the model on the images")
        self._parts = read_parts(inputs, form, scaling, self._report, terminal.say)

    def _report(self, error: DataError) -> None:
        self.exit_code = terminal.report(error)

    def __iter__(self) -> Iterator[tuple[Part, np.ndarray]]:
        for part in self._parts:
            self.count += len(part.names)
            yield part, self._run(part.images)

    def collect(self) -> tuple[Part, np.ndarray]:
        """All images in one part, and their outputs.

        Raises:
            DataError: There are none.
        """
        found = list(self)
        if not found:
            raise DataError("INPUT", "must contain an image that can be read", "none")
        names = [name for part, _ in found for name in part.names]
        numbers = [number for part, _ in found for number in part.numbers]
        images = np.concatenate([part.images for part, _ in found])
        return Part(names, numbers, images), np.concatenate([outputs for _, outputs in found])


def _open(path: str) -> tuple["keras.Model", dict[str, Any]]:
    read_metadata(path)
    with terminal.starting_keras():
        return load_model(path)


def _check_output(path: str, suffixes: tuple[str, ...]) -> Path:
    output = new_file(path)
    if output.suffix not in suffixes:
        raise UsageError("--output", f"must end in {listed(suffixes)}", output)
    return output


# --- Encodings and reconstructions ----------------------------------------------------------


def encode(
    path: str, inputs: Sequence[str], *, until: str | None = None, input_range: str | None = None
) -> Outputs:
    """Encodes images with the encoder of a saved autoencoder or classifier.

    Args:
        path: The file of the model.
        inputs: As for `inputs.read_parts`.
        until: The name of the encoder's last layer; see `find_encoder`.
        input_range: The pixels that the model expects; see `adapt_input`.

    Raises:
        ModelFileError: The model has no encoder that can be found.
    """
    model, metadata = _open(path)
    form, scaling = get_form(path, model, metadata, inputs)
    encoder = find_encoder(
        model,
        path,
        form.shape,
        until=until,
        input_range=input_range or get_own_range(metadata),
        say=terminal.say,
    )
    return Outputs(encoder, form, scaling, inputs)


def reconstruct(path: str, inputs: Sequence[str], *, input_range: str | None = None) -> Outputs:
    """Reconstructs images in [0, 1] with a saved autoencoder; the arguments are as for `encode`."""
    model, metadata = _open(path)
    form, scaling = get_form(path, model, metadata, inputs)
    options = {"input_range": input_range or get_own_range(metadata), "say": terminal.say}
    return Outputs(find_autoencoder(model, path, form.shape, **options), form, scaling, inputs)


def write_encodings(args: argparse.Namespace) -> int:
    """Writes the encodings of images as `.npy` or `.csv`; returns the exit code."""
    path = _check_output(args.output, (".npy", ".csv"))
    names_path = path.with_suffix(".txt")
    if path.suffix == ".npy":
        new_file(str(names_path))
    options = {"until": args.encoder_until, "input_range": args.model_input_range}
    outputs = encode(args.model, args.inputs, **options)
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
        (names, *_), encodings = outputs.collect()
        content = io.BytesIO()
        np.save(content, encodings)
        write_bytes(path, content.getvalue())
        lines = (" ".join(name.splitlines()) for name in names)
        write_text(names_path, "".join(f"{line}\n" for line in lines))
    terminal.say(f"{outputs.count:,} encodings: {path}")
    return outputs.exit_code


def write_reconstructions(args: argparse.Namespace) -> int:
    """Writes reconstructions as PNG files, idx or a figure; returns the exit code."""
    path = Path(args.output)
    if path.suffix:
        _check_output(args.output, (".idx", ".png"))
    else:
        new_folder("--output", args.output)
    outputs = reconstruct(args.model, args.inputs, input_range=args.model_input_range)
    if path.suffix:
        (names, _, images), drawn = outputs.collect()
        if path.suffix == ".idx":
            write_idx(path, to_bytes(drawn))
        else:
            from cae.figures.images import plot_worst_reconstructions

            figure = plot_worst_reconstructions(images, drawn, SHOWN, names)
            write_figures(path.parent, {path.stem: figure})
    else:
        for part, drawn in outputs:
            for number, name, image in zip(part.numbers, part.names, drawn, strict=True):
                file = path / f"{number:06}-{shorten_name(Path(name).stem, 200)}.png"
                write_bytes(file, encode_png(image))
    terminal.say(f"{outputs.count:,} reconstructions: {path}")
    return outputs.exit_code


# --- Anomalies ------------------------------------------------------------------------------


def score(path: str, inputs: Sequence[str]) -> tuple[Part, np.ndarray, Typical, int]:
    """Scores images by how unlike those of training they are.

    Args:
        path: The file of an autoencoder or classifier of this program.
        inputs: As for `inputs.read_parts`.

    Returns:
        The images; float64 (num_images,), larger for images that are less like those of training;
        what is typical, whose `get_threshold` tells anomalies; 2 if something could not be read,
        otherwise 0.
    """
    model, metadata = _open(path)
    if "typical" not in metadata:
        raise ModelFileError(
            path,
            "must record the scores of its validation images",
            "a model without them",
            "Train it again with this program.",
        )
    form, scaling = get_form(path, model, metadata)
    typical, scorer = _get_scorer(path, model, metadata, form)
    outputs = Outputs(scorer, form, scaling, inputs)
    part, values = outputs.collect()
    scores = typical.get_scores(values[:, : max(1, len(typical.mean))])
    return part, scores, typical, outputs.exit_code


def find_anomalies(args: argparse.Namespace) -> int:
    """Writes and shows the scores of images; returns the exit code."""
    if args.csv:
        new_file(args.csv)
    if args.figures:
        new_folder("--figures", args.figures)
    given = None
    if args.test_labels is not None:
        if not args.strange:
            raise UsageError("-tl", "requires --strange", None, "Name the strange labels with it.")
        labels, class_names = read_labels(args.test_labels)
        words = [class_names.get(label, str(label)) for label in labels.tolist()]
        given = np.where(labels == NO_LABEL, None, np.array(words, object))
    part, scores, typical, exit_code = score(args.model, args.inputs)
    if given is not None and len(given) != len(part.names) and not exit_code:
        raise get_label_count_error(given, f"{len(part.names):,}")
    if args.strange:
        is_known, is_strange = _find_strange(part, given, args.strange)
    names, _, images = part
    threshold = typical.get_threshold(args.quantile)
    order = np.argsort(-scores, kind="stable")
    rows = [
        {"image": names[index], "score": f"{scores[index]:.6g}", "anomaly": int(is_anomaly)}
        for index, is_anomaly in enumerate(scores > threshold)
    ]
    if args.csv:
        write_csv(Path(args.csv), rows)
    shown = [{**rows[index], "anomaly": "yes" * rows[index]["anomaly"]} for index in order]
    terminal.print_rows("Images least like the training images", shown[:SHOWN], ("score",))
    terminal.say(
        f"{np.sum(scores > threshold):,} of {len(scores):,} images score above the threshold "
        f"{threshold:.4g}, which {1 - args.quantile:.2%} of normal images exceed."
    )
    figures = {}
    if args.strange:
        figures = _compare_with_labels(is_strange[is_known], scores[is_known])
    if args.figures:
        folder = Path(args.figures)
        figures["strangest"] = _draw_strangest(images, names, scores, order[:SHOWN])
        write_figures(folder, figures)
        terminal.say(f"Figures: {folder}")
    return exit_code


def _get_scorer(
    path: str, model: "keras.Model", metadata: dict[str, Any], form: Form
) -> tuple[Typical, "keras.Model"]:
    """What is typical for a model, and the model of the values that are compared with it."""
    from cae.training.build import with_error

    typical = Typical(**metadata["typical"])
    if typical.mean:
        return typical, summarize(path, model, typical)
    return typical, with_error(find_autoencoder(model, path, form.shape, input_range=OWN_RANGE))


def _find_strange(
    part: Part, given: np.ndarray | None, strange: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Both bool (num_images,): which images have a label or folder, and whose is in --strange."""
    labels = part.folders if given is None else pick_labels(part, given)
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


def _draw_strangest(
    images: np.ndarray, names: list[str], scores: np.ndarray, chosen: np.ndarray
) -> "Figure":
    from cae.figures.sheets import plot_captioned
    from cae.figures.style import name_image

    captions = [f"{name_image(index, names, 14)}\nscore {scores[index]:.4g}" for index in chosen]
    return plot_captioned(images[chosen], captions, "Images least like the training images")


def _compare_with_labels(is_strange: np.ndarray, scores: np.ndarray) -> dict[str, "Figure"]:
    from cae.figures.classes import plot_roc

    figure, area = plot_roc(is_strange, scores)
    terminal.say(f"Area under the ROC curve: {area:.4f}")
    return {"roc": figure}
