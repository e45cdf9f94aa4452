"""Figures are tested through their artists: what they show, and that every text can be read."""

import ast
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from cae.errors import DataError
from cae.figures import style
from cae.figures.classes import classifier_prediction_visualization
from cae.figures.curves import classifier_loss_visualization, plot_curves, plot_label_efficiency
from cae.figures.encodings import plot_encodings, project_encodings
from cae.figures.images import autoencoder_visualization, plot_filters, plot_worst_reconstructions
from cae.figures.style import describe_architecture
from cae.records.history import DENSE_ONLY, FULL, History

AUTOENCODER = {
    "encoder_layers": [["conv", 32, [3, 3]], ["pool", [2, 2]], ["conv", 64, [3, 3]]],
    "decoder_layers": [["conv", 64, [3, 3]], ["upSample", [2, 2]], ["conv", 32, [3, 3]]],
    "optimizer": ["adam", 0.001],
    "batch_size": 128,
    "loss": "binary_crossentropy",
    "early_stopping": None,
    "augmentation": {"rotation": 10, "shift": 0.1},
    "l2": 0.0,
}
CLASSIFIER = {
    "encoder_layers": "saved/small.keras",
    "dense_layers": [["dense", 64], ["drop", 0.5]],
    "optimizer": ["adam", 0.001],
}
LONG_NAME = "autoencoder_large_" + "with_every_variation_there_is_" * 9 + "end"


@pytest.fixture(autouse=True)
def _close_figures():
    matplotlib.use("agg")
    yield
    plt.close("all")


def autoencoder_history(name="small", values=(0.3, 0.1, 0.2), *, validation=True, **info):
    rows = []
    for epoch, value in enumerate(values, 1):
        row = {"epoch": epoch, "phase": FULL, "loss": value, "mse": value / 10}
        if validation:
            row |= {"val_loss": value + 0.01, "val_mse": value / 10 + 0.001}
        rows.append(row)
    best = int(np.argmin(values)) + 1 if len(values) else None
    return History(name, "autoencoder", {**AUTOENCODER, **info}, rows, best, {"seconds": 12.5})


def classifier_history(name="head", dense_only=2, full=3, best_accuracy=0.99):
    rows = []
    for epoch in range(1, dense_only + full + 1):
        accuracy = best_accuracy - 0.01 * (dense_only + full - epoch)
        row = {"epoch": epoch, "phase": DENSE_ONLY if epoch <= dense_only else FULL}
        for prefix in ("", "val_"):
            row[f"{prefix}loss"] = 1 - accuracy
            for metric in ("accuracy", "precision", "recall", "f1"):
                row[prefix + metric] = accuracy
        rows.append(row)
    metrics = {"test_accuracy": 0.9876, "best_epoch": len(rows)}
    return History(name, "classifier", CLASSIFIER, rows, len(rows), metrics)


def make_report(num_classes):
    scores = {"precision": 0.5, "recall": 0.75, "f1-score": 0.6, "support": 1234.0}
    names = [f"class {number}" for number in range(num_classes)]
    averages = {"macro avg": scores, "weighted avg": scores}
    return {**dict.fromkeys(names, scores), "accuracy": 0.75, **averages}


def make_images(count, height=8, width=8, channels=1):
    return np.random.default_rng(0).random((count, height, width, channels), np.float32)


def predictions(num_classes, per_class=4):
    """Labels in order, and probabilities by which the last image of each class is mistaken."""
    labels = np.repeat(np.arange(num_classes), per_class)
    predicted = labels.copy()
    predicted[per_class - 1 :: per_class] = (np.arange(num_classes) + 1) % num_classes
    probabilities = np.full((len(labels), num_classes), 0.1 / num_classes, np.float32)
    probabilities[np.arange(len(labels)), predicted] = np.linspace(0.6, 0.9, len(labels))
    return labels, probabilities


def drawn_texts(figure):
    """The texts that reach the canvas: an axis also keeps labels of ticks outside its limits."""
    drawn = []
    draw = Text.draw

    def record(text, renderer):
        if text.get_text().strip() and text.get_visible():
            drawn.append(text)
        draw(text, renderer)

    with patch.object(Text, "draw", record):
        FigureCanvasAgg(figure).draw()
    return drawn


def words(figure):
    """All texts of a figure, with plain spaces."""
    return "\n".join(text.get_text() for text in drawn_texts(figure)).replace("\xa0", " ")


def assert_readable(figure):
    """No text is cut off by the edge of the figure, and no text lies on another."""
    texts = drawn_texts(figure)
    assert texts
    # `Text`'s own extent: that of an annotation would include its arrow.
    extents = [Text.get_window_extent(text).extents for text in texts]
    boxes = np.add(extents, (1, 1, -1, -1))  # a pixel of tolerance
    for text, box in zip(texts, boxes, strict=True):
        inside = (box[:2] >= 0).all() and (box[2:] <= figure.bbox.size).all()
        assert inside, f"{text.get_text()!r} is cut off: {box} in {figure.bbox.size}"
    low, high = boxes[:, None, :2], boxes[None, :, 2:]
    overlap = (low < high).all(-1) & (low < high).all(-1).T & ~np.eye(len(boxes), dtype=bool)
    pairs = [(texts[i].get_text(), texts[j].get_text()) for i, j in np.argwhere(overlap)]
    assert not pairs, f"overlapping: {pairs[:3]}"


def drawn_images(figure):
    return [image for ax in figure.axes for image in ax.images]


def label_of(line):
    return line.get_label()


# Words.


def test_describe_architecture_of_an_autoencoder():
    assert describe_architecture(AUTOENCODER) == (
        "conv 32 3×3 → pool 2×2 → conv 64 3×3 | conv 64 3×3 → upSample 2×2 → conv 32 3×3"
    )


def test_describe_architecture_calls_a_decoders_pool_what_it_does():
    info = {"encoder_layers": [["pool", [2, 2]]], "decoder_layers": [["pool", [2, 2]]]}
    assert describe_architecture(info) == "pool 2×2 | upSample 2×2"


@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        ("saved/small.keras", "encoder of small.keras"),
        (None, "encoder"),
        ([["batchNorm"], ["drop", 0.25]], "batchNorm → drop 0.25"),
    ],
)
def test_describe_architecture_of_a_classifier(encoder, words):
    info = {"encoder_layers": encoder, "dense_layers": [["dense", 64], ["drop", 0.5]]}
    assert describe_architecture(info) == f"{words} | dense 64 → drop 0.5"


def test_describe_architecture_without_dense_layers():
    assert describe_architecture({"encoder_layers": None, "dense_layers": []}) == "encoder"


# Curves.


def test_plot_curves_draws_training_dashed_and_validation_solid():
    ax = plt.figure().subplots()
    assert plot_curves(autoencoder_history(), "loss", ax, color="red") is ax
    training, validation, kept = ax.lines
    assert (label_of(training), label_of(validation)) == ("training", "validation")
    assert (training.get_linestyle(), validation.get_linestyle()) == ("--", "-")
    assert {training.get_color(), validation.get_color()} == {"red"}
    np.testing.assert_allclose(training.get_ydata(), [0.3, 0.1, 0.2])
    np.testing.assert_allclose(validation.get_xydata(), [[1, 0.31], [2, 0.11], [3, 0.21]])
    np.testing.assert_allclose(kept.get_xydata(), [[2, 0.11]])
    assert label_of(kept) == "weights kept (epoch 2)"
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylabel() == "loss per pixel (binary crossentropy)"


def test_plot_curves_marks_training_values_without_validation_data():
    ax = plt.figure().subplots()
    plot_curves(autoencoder_history(validation=False), "loss", ax)
    assert [label_of(line) for line in ax.lines] == ["training", "weights kept (epoch 2)"]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[2, 0.1]])


def test_plot_curves_marks_the_end_of_the_first_phase():
    ax = plt.figure().subplots()
    plot_curves(classifier_history(dense_only=2, full=3), "accuracy", ax)
    boundary = ax.lines[-1]
    assert boundary.get_xdata() == [2.5, 2.5]
    assert label_of(boundary) == "left: encoder frozen, right: all layers trained"
    assert ax.get_ylabel() == "accuracy (0 to 1)"


@pytest.mark.parametrize(("dense_only", "full"), [(3, 0), (0, 3)])
def test_plot_curves_draws_no_boundary_for_one_phase(dense_only, full):
    ax = plt.figure().subplots()
    plot_curves(classifier_history(dense_only=dense_only, full=full), "loss", ax)
    assert not any("frozen" in label_of(line) for line in ax.lines)


def test_plot_curves_shows_a_single_epoch():
    ax = plt.figure().subplots()
    plot_curves(autoencoder_history(values=[0.1]), "loss", ax)
    assert {line.get_marker() for line in ax.lines} == {"o"}
    assert [tick for tick in ax.get_xticks() if 0.5 <= tick <= 1.5] == [1]


@pytest.mark.parametrize("num_epochs", [2, 3, 7, 50, 400])
def test_epoch_ticks_are_integers(num_epochs):
    ax = plt.figure().subplots()
    plot_curves(autoencoder_history(values=np.linspace(0.2, 0.1, num_epochs)), "loss", ax)
    assert all(tick == int(tick) for tick in ax.get_xticks())


def test_losses_over_more_than_a_decade_get_a_logarithmic_axis_that_says_so():
    figure = plt.figure(layout="constrained")
    near, far = figure.subplots(1, 2)
    plot_curves(autoencoder_history(values=[0.5, 0.1]), "loss", near)
    plot_curves(autoencoder_history(values=[5.0, 0.1]), "loss", far)
    assert (near.get_yscale(), far.get_yscale()) == ("linear", "log")
    assert far.get_ylabel().endswith(", log scale")
    assert "0.2" in words(figure).split("\n")


@pytest.mark.parametrize("values", [[], [np.nan, np.nan], [0.1, np.nan], [np.inf, 0.1]])
def test_curves_of_a_failed_training_can_be_drawn(values):
    history = autoencoder_history(values=values)
    images = make_images(2)
    both = [history, autoencoder_history()]
    for figure in autoencoder_visualization(both, images, [images, images]).values():
        assert_readable(figure)


# Autoencoders.


@pytest.mark.parametrize("count", [1, 3, 25])
def test_autoencoder_figures_are_readable(count):
    histories = [autoencoder_history(f"autoencoder_{n}_small") for n in range(count)]
    images = make_images(3)
    figures = autoencoder_visualization(histories, images, [1 - images] * count)
    if count == 1:
        assert list(figures) == ["loss", "reconstructions"]
    else:
        keys = [f"{k}-{n + 1}" for n in range(count) for k in ("loss", "reconstructions")]
        assert list(figures) == [*keys, "comparison"]
    last = list(figures)[-3:]
    for key in last:
        assert_readable(figures[key])


def test_autoencoder_loss_figure_states_values_and_hyperparameters():
    history = autoencoder_history("my run", early_stopping=5)
    images = make_images(1)
    text = words(autoencoder_visualization([history], images, [images])["loss"])
    for expected in (
        "my run",
        "conv 32 3×3 → pool 2×2 → conv 64 3×3",
        "epoch 2 (kept)",
        "epoch 3 (last)",
        "0.1100",  # validation loss of the epoch kept
        "0.02100",  # validation error of the last epoch
        "12.50",
        "optimizer: adam, 0.001;",
        "early stopping: 5;",
        "rotation 10, shift 0.1",
    ):
        assert expected in text


def test_hyperparameters_that_are_off_are_left_out():
    images = make_images(1)
    text = words(autoencoder_visualization([autoencoder_history()], images, [images])["loss"])
    assert "early stopping" not in text


def test_long_names_are_wrapped_and_shortened():
    images = make_images(1)
    histories = [autoencoder_history(LONG_NAME), autoencoder_history("W" * 300)]
    figures = autoencoder_visualization(histories, images, [images] * 2)
    for key in ("loss-1", "loss-2", "reconstructions-1", "comparison"):
        assert_readable(figures[key])
    title = figures["loss-1"].get_suptitle().split("\n")
    assert 1 < len(title) <= 3
    assert title[0].endswith("_")
    assert title[-1].endswith("end")


def test_a_name_is_not_taken_for_mathematics():
    images = make_images(1)
    figures = autoencoder_visualization([autoencoder_history(r"$\frac$")], images, [images])
    assert r"$\frac$" in words(figures["loss"])


def test_reconstructions_stand_below_their_originals_with_their_error():
    images = np.zeros((2, 8, 8, 1), np.float32)
    outputs = images.copy()
    outputs[1] = 0.5
    figure = autoencoder_visualization([autoencoder_history()], images, [outputs])[
        "reconstructions"
    ]
    text = words(figure).replace("\n", " ")
    assert "MSE 0.2500" in text
    assert "mean squared error 0.1250" in text
    original, reconstruction, difference = drawn_images(figure)[3:6]
    lefts = {image.get_extent()[0] for image in (original, reconstruction, difference)}
    tops = [image.get_extent()[3] for image in (original, reconstruction, difference)]
    assert len(lefts) == 1
    assert tops == sorted(tops)
    assert reconstruction.get_array().max() == 0.5
    assert difference.get_clim() == (0, 0.5)


@pytest.mark.parametrize("shape", [(8, 8), (32, 32), (16, 20), (20, 16)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_shape_keep_their_proportions(shape, channels):
    images = make_images(3, *shape, channels)
    figure = plot_worst_reconstructions(images, 1 - images)
    assert_readable(figure)
    for image in drawn_images(figure)[:9]:
        left, right, bottom, top = image.get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(shape[0] / shape[1])


def test_channels_become_colour_or_their_mean():
    for channels, shape in ((1, (8, 8)), (2, (8, 8)), (3, (8, 8, 3))):
        images = make_images(1, channels=channels)
        original = drawn_images(plot_worst_reconstructions(images, images))[0]
        expected = images[0] if channels == 3 else images[0].mean(axis=-1)
        assert original.get_array().shape == shape
        np.testing.assert_allclose(original.get_array(), expected)
        assert original.get_clim() == (0, 1)
        assert original.get_cmap().name == "gray"


def test_worst_reconstructions_come_worst_first():
    images = np.zeros((4, 8, 8, 1), np.float32)
    outputs = images + np.array([0.1, 0.4, np.nan, 0.2], np.float32).reshape(4, 1, 1, 1)
    figure = plot_worst_reconstructions(images, outputs, count=3)
    captions = [line for line in words(figure).split("\n") if line.startswith(("image", "MSE"))]
    assert captions == ["image 2", "MSE nan", "image 1", "MSE 0.1600", "image 3", "MSE 0.04000"]
    assert "3 of 4" in words(figure)


def test_many_reconstructions_continue_below():
    images = make_images(25)
    figure = plot_worst_reconstructions(images, 1 - images, count=25)
    assert_readable(figure)
    assert len(drawn_images(figure)) == 3 * 25


# Comparisons.


def bar_values(figure):
    return [bar.get_x() + bar.get_width() for bar in figure.axes[-1].patches]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_comparison_sorts_the_best_validation_losses():
    histories = [
        autoencoder_history("middle", [0.4, 0.2]),
        autoencoder_history("best", [0.3, 0.1, 0.5]),
        autoencoder_history("worst", [0.9]),
    ]
    images = make_images(1)
    figure = autoencoder_visualization(histories, images, [images] * 3)["comparison"]
    curves, bars = figure.axes
    assert tick_labels(bars.yaxis) == ["2 · best", "1 · middle", "3 · worst"]
    np.testing.assert_allclose(bar_values(figure), [0.11, 0.21, 0.91])
    assert bars.get_xlabel() == "best validation loss"
    assert bars.get_xlim()[0] == 0
    np.testing.assert_allclose(curves.lines[0].get_ydata(), [0.41, 0.21])
    colors = {line.get_color() for line in curves.lines}
    markers = {line.get_marker() for line in curves.lines}
    assert (len(colors), len(markers)) == (3, 3)
    first_bar = bars.patches[0].get_facecolor()[:3]
    assert first_bar == matplotlib.colors.to_rgb(curves.lines[1].get_color())


@pytest.mark.parametrize("different", [{"loss": "mse"}, {"l2": 0.01}])
def test_losses_of_different_kinds_are_compared_by_squared_error(different):
    histories = [autoencoder_history("a"), autoencoder_history("b", [0.6], **different)]
    images = make_images(1)
    figure = autoencoder_visualization(histories, images, [images] * 2)["comparison"]
    np.testing.assert_allclose(bar_values(figure), [0.011, 0.061])
    assert "by mean squared error" in figure.get_suptitle()
    assert figure.axes[-1].get_xlabel() == "best validation mean squared error"


def test_without_validation_data_training_losses_are_compared():
    histories = [autoencoder_history("a"), autoencoder_history("b", [0.6], validation=False)]
    images = make_images(1)
    figure = autoencoder_visualization(histories, images, [images] * 2)["comparison"]
    np.testing.assert_allclose(bar_values(figure), [0.1, 0.6])
    assert "best training loss" in figure.axes[-1].get_xlabel()


def test_an_axis_that_does_not_start_at_zero_says_so():
    histories = [classifier_history("a", best_accuracy=v) for v in (0.98, 0.99)]
    figure = classifier_loss_visualization(histories, [None, None])["comparison"]
    bars = figure.axes[-1]
    assert 0.97 < bars.get_xlim()[0] < 0.98
    assert "the axis starts at 0.9775, not at 0" in bars.get_xlabel()
    assert max(bars.get_xticks()) <= 1


def test_only_the_best_of_many_experiments_are_in_colour():
    histories = [autoencoder_history(str(n), [0.1 + n / 100]) for n in range(25)]
    images = make_images(1)
    figure = autoencoder_visualization(histories, images, [images] * 25)["comparison"]
    curves, bars = figure.axes
    colors = [line.get_color() for line in curves.lines]
    assert len(set(colors[:7])) == 7
    assert len(set(colors[7:])) == 1
    assert "the best 7 in colour" in bars.get_title(loc="left")


# Classifiers.


@pytest.mark.parametrize("count", [1, 3, 25])
def test_classifier_figures_are_readable(count):
    histories = [classifier_history(f"classifier_{n}") for n in range(count)]
    figures = classifier_loss_visualization(histories, [make_report(10)] * count)
    if count == 1:
        assert list(figures) == ["history", "report"]
    else:
        keys = [f"{k}-{n + 1}" for n in range(count) for k in ("history", "report")]
        assert list(figures) == [*keys, "comparison"]
    for key in list(figures)[-3:]:
        assert_readable(figures[key])


def test_classifier_history_shows_five_metrics_and_a_record():
    figures = classifier_loss_visualization([classifier_history()], [None])
    assert list(figures) == ["history"]
    figure = figures["history"]
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    expected = ["Loss", "Accuracy", "Macro precision", "Macro recall", "Macro F1", ""]
    assert titles == expected
    text = words(figure)
    for part in ("encoder of small.keras", "dense 64 → drop 0.5", "test accuracy", "0.9876"):
        assert part in text
    labels = [label.get_text() for label in figure.legends[0].get_texts()]
    assert labels[:2] == ["training", "validation"]
    assert len(labels) == len(set(labels)) == 4


def test_classifiers_are_compared_by_accuracy():
    histories = [classifier_history("a", best_accuracy=0.9), classifier_history("b")]
    figure = classifier_loss_visualization(histories, [None, None])["comparison"]
    loss, accuracy, bars = figure.axes
    assert loss.get_ylabel().startswith("loss per image")
    assert accuracy.get_ylabel() == "accuracy (0 to 1)"
    assert tick_labels(bars.yaxis) == ["2 · b", "1 · a"]


@pytest.mark.parametrize("num_classes", [2, 10, 62])
def test_report_is_a_heat_map_of_all_classes(num_classes):
    figures = classifier_loss_visualization([classifier_history()], [make_report(num_classes)])
    figure = figures["report"]
    assert_readable(figure)
    ax = figure.axes[0]
    names = [f"class {number}" for number in range(num_classes)]
    assert tick_labels(ax.yaxis) == [*names, "macro avg", "weighted avg"]
    assert tick_labels(ax.xaxis) == ["precision", "recall", "F1", "images"]
    values = [text.get_text() for text in ax.texts]
    for value in ("0.500", "0.750", "0.600", "1,234"):
        assert values.count(value) == num_classes + 2
    assert ax.images[0].get_clim() == (0.5, 1)


@pytest.mark.parametrize("num_classes", [2, 10, 32, 62])
def test_prediction_figures_are_readable(num_classes):
    labels, probabilities = predictions(num_classes)
    names = [f"a rather long name {number}" for number in range(num_classes)]
    images = make_images(len(labels), 16, 20)
    figures = classifier_prediction_visualization(images, labels, probabilities, names)
    assert list(figures) == ["report", "confusion_matrix", "correct", "wrong"]
    for figure in figures.values():
        assert_readable(figure)
    matrix = figures["confusion_matrix"].axes[0]
    assert len(tick_labels(matrix.yaxis)) == num_classes
    cells = [text.get_text() for text in matrix.texts]
    expected = {2: "3\n75.0%", 10: "3\n75.0%", 32: "3", 62: None}[num_classes]
    assert cells.count(expected) == (num_classes if expected else 0)
    assert "Accuracy 75.00%" in figures["confusion_matrix"].get_suptitle()


def test_mistakes_have_a_colour_scale_of_their_own():
    labels = np.repeat([0, 1], 100)
    probabilities = np.eye(2, dtype=np.float32)[labels]
    probabilities[0] = (0.2, 0.8)  # one mistake in a hundred
    figures = classifier_prediction_visualization(make_images(200), labels, probabilities, "ab")
    correct, mistaken = figures["confusion_matrix"].axes[0].images
    assert correct.get_clim() == (0, 1)
    assert mistaken.get_clim() == (0, 0.01)
    assert mistaken.get_array().count() == 1
    title = figures["confusion_matrix"].axes[0].get_title(loc="left")
    assert title == "Most frequent mistakes: a → b (1)"


def test_unseen_classes_count_as_mistakes():
    labels = np.array([0, 1, -1, -1])
    probabilities = np.eye(2, dtype=np.float32)[[0, 1, 0, 0]]
    figures = classifier_prediction_visualization(make_images(4), labels, probabilities, "ab")
    for figure in figures.values():
        assert_readable(figure)
    matrix = figures["confusion_matrix"]
    assert tick_labels(matrix.axes[0].yaxis) == ["a", "b", "unseen"]
    assert tick_labels(matrix.axes[0].xaxis) == ["a", "b"]
    assert "2\n100.0%" in words(matrix)
    title = matrix.get_suptitle().replace("\n", " ")
    assert title == "Accuracy 50.00% on 4 images, 2 of them of classes training never saw"
    assert words(figures["wrong"]).count("true unseen\npredicted a · 100.0%") == 2
    # Precision suffers: one of three images called "a" is an "a".
    assert "0.333" in words(figures["report"])


def test_the_most_confident_mistakes_come_first():
    labels = np.zeros(3, int)
    probabilities = np.array([[0.3, 0.7], [0.1, 0.9], [0.2, 0.8]], np.float32)
    images = make_images(3)
    figure = classifier_prediction_visualization(images, labels, probabilities, "ab")["wrong"]
    shown = [image.get_array() for image in drawn_images(figure)]
    np.testing.assert_allclose(shown, images[[1, 2, 0], ..., 0])
    assert "true a\npredicted b · 90.0%" in words(figure)


def test_correct_images_are_spread_over_the_classes():
    """25 of 62 classes, and of a rare class among frequent ones, all it has."""
    labels = np.arange(62).repeat(3)
    probabilities = np.eye(62, dtype=np.float32)[labels]
    names = [str(number) for number in range(62)]
    figures = classifier_prediction_visualization(make_images(186), labels, probabilities, names)
    shown = [w for w in words(figures["correct"]).split("\n") if w.startswith("true")]
    assert len(set(shown)) == 25
    assert {"true 0", "true 61"} <= set(shown)

    labels = np.array([0] * 100 + [1] * 2)
    probabilities = np.eye(2, dtype=np.float32)[labels]
    figures = classifier_prediction_visualization(make_images(102), labels, probabilities, "ab")
    shown = [w for w in words(figures["correct"]).split("\n") if w.startswith("true")]
    assert (shown.count("true a"), shown.count("true b")) == (23, 2)


def test_a_grid_without_images_says_so():
    labels = np.array([0, 1])
    right, wrong = np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32)[::-1]
    perfect = classifier_prediction_visualization(make_images(2), labels, right, "ab")
    hopeless = classifier_prediction_visualization(make_images(2), labels, wrong, "ab")
    assert words(perfect["wrong"]) == "No image was classified wrongly"
    assert words(hopeless["correct"]) == "No image was classified correctly"
    assert "No mistakes" in words(perfect["confusion_matrix"])
    for figure in (*perfect.values(), *hopeless.values()):
        assert_readable(figure)


# Encodings and filters.


def test_project_encodings_of_few_images_gives_their_principal_components():
    """Points on a line in four dimensions keep their distances, and need one component."""
    encodings = np.outer(np.arange(5), [1, 1, 1, 1]).reshape(5, 2, 2)
    points = project_encodings(encodings)
    assert points.dtype == np.float32
    np.testing.assert_allclose(np.abs(np.diff(points[:, 0])), 2, rtol=1e-5)
    np.testing.assert_allclose(points[:, 1], 0, atol=1e-5)


def test_project_encodings_keeps_clusters_apart_and_repeats_itself():
    rng = np.random.default_rng(0)
    encodings = rng.normal(size=(60, 3, 3, 2)) + np.repeat([0, 50], 30).reshape(60, 1, 1, 1)
    points = project_encodings(encodings, seed=1)
    assert points.shape == (60, 2)
    np.testing.assert_array_equal(points, project_encodings(encodings, seed=1))
    nearest = [np.argsort(np.linalg.norm(points - point, axis=1))[1] for point in points]
    assert all((near < 30) == (index < 30) for index, near in enumerate(nearest))


@pytest.mark.parametrize("shape", [(1, 4), (40, 4), (2, 3, 3, 1)])
def test_project_encodings_of_a_collapsed_encoder_are_one_point(shape):
    np.testing.assert_array_equal(project_encodings(np.ones(shape)), np.zeros((shape[0], 2)))


@pytest.mark.parametrize("count", [3, 40])
def test_project_encodings_of_one_number_each(count):
    points = project_encodings(np.arange(count).reshape(count, 1))
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()


def test_project_encodings_refuses_what_is_not_finite():
    with pytest.raises(DataError, match=r"^encodings: must be finite numbers, got NaN"):
        project_encodings(np.array([[1.0, np.nan], [0, 1]]))


@pytest.mark.parametrize("layout", ["none", "constrained"])
@pytest.mark.parametrize("num_classes", [2, 10, 62])
def test_plot_encodings_names_every_class_once_without_overlap(num_classes, layout):
    """Even when all classes lie in one place, and their names are long."""
    points = np.random.default_rng(0).normal(size=(500, 2))
    labels = np.arange(500) % num_classes
    names = [f"name {number}" for number in range(num_classes)]
    figure, ax = plt.subplots(figsize=(9, 8), layout=layout)
    assert plot_encodings(points, labels, names, ax) is ax
    assert sorted(text.get_text() for text in ax.texts) == sorted(names)
    assert_readable(figure)
    looks = {
        (tuple(marks.get_facecolor()[0]), marks.get_paths()[0].vertices.tobytes())
        for marks in ax.collections
    }
    assert len(looks) == num_classes


def test_plot_encodings_marks_unseen_classes():
    ax = plt.figure().subplots()
    plot_encodings(np.eye(2), np.array([0, -1]), ["cat"], ax)
    assert sorted(text.get_text() for text in ax.texts) == ["cat", "unseen"]
    unseen = ax.collections[0].get_facecolor()[0, :3]
    np.testing.assert_allclose(unseen, matplotlib.colors.to_rgb(style.GRAY))


def test_plot_encodings_without_labels_draws_points_alike():
    ax = plt.figure().subplots()
    plot_encodings(np.zeros((5, 2)), None, [], ax)
    (points,) = ax.collections
    assert len(points.get_offsets()) == 5
    assert not ax.texts


@pytest.mark.parametrize("in_channels", [1, 2, 3])
@pytest.mark.parametrize("out_channels", [1, 4, 130])
def test_filters(in_channels, out_channels):
    kernels = np.random.default_rng(0).normal(size=(3, 5, in_channels, out_channels))
    figure = plot_filters(kernels)
    assert_readable(figure)
    sheet, *bars = figure.axes
    assert len(sheet.images) == out_channels
    assert f"{out_channels} filters" in words(figure).replace("\n", " ")
    first = sheet.images[0].get_array()
    if in_channels == 3:
        assert not bars
        np.testing.assert_allclose(first, 0.5 + kernels[..., 0] / (2 * np.abs(kernels).max()))
    else:
        assert len(bars) == 1
        np.testing.assert_allclose(first, kernels[..., 0].mean(axis=-1))
        low, high = sheet.images[0].get_clim()
        assert -low == high == np.abs(kernels.mean(axis=2)).max()


# The rules for all figures.


def test_a_callers_settings_stay_as_they_are():
    before = dict(matplotlib.rcParams)
    images = make_images(1)
    autoencoder_visualization([autoencoder_history()], images, [images])
    assert dict(matplotlib.rcParams) == before


def test_scikit_learn_is_loaded_only_when_it_is_needed():
    code = "import sys, visualization; print([m for m in ('sklearn', 'keras') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_no_function_shows_saves_or_selects_a_backend():
    folder = Path(__file__).parents[2] / "cae" / "figures"
    paths = [path for path in folder.glob("*.py") if path.name != "windows.py"]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    assert not names & {"show", "savefig", "use"}


def test_worst_reconstructions_name_the_place_in_the_file():
    """Validation images keep the number that finds them again."""
    images = np.zeros((2, 8, 8, 1), np.float32)
    figure = plot_worst_reconstructions(images, images + 0.5, indices=np.array([17, 42]))
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any(text.startswith("image 17\n") for text in texts)
    assert any(text.startswith("image 42\n") for text in texts)


def test_label_efficiency_shows_means_and_intervals_in_percent():
    """One seed has no interval; an interval below 0 ends above it, where a log axis does."""
    curves = {
        "pretrained": [(10, 0.5, 0.1), (100, 0.1, 0.2)],
        "from scratch": [(10, 0.6, np.inf), (100, 0.05, 0.01)],
    }
    figure, ax = plt.subplots()
    assert plot_label_efficiency(curves, ax) is ax
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["10", "100"]
    (first, _, (bars,)), (second, _, (other_bars,)) = ax.containers
    assert first.get_xdata() == pytest.approx([10, 100], rel=0.05)
    assert first.get_ydata() == pytest.approx([50, 10])
    assert second.get_ydata() == pytest.approx([60, 5])
    ends = [segment[:, 1].tolist() for segment in bars.get_segments()]
    assert ends == [pytest.approx([40, 60]), pytest.approx([1, 30])]
    assert other_bars.get_segments()[0][:, 1].tolist() == pytest.approx([60, 60])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(curves)


def test_label_efficiency_draws_an_error_of_zero():
    _, ax = plt.subplots()
    plot_label_efficiency({"perfect": [(10, 0.0, 0.0), (20, 0.0, np.inf)]}, ax)
    assert ax.get_yscale() == "linear"
