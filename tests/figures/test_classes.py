"""Reports, confusion matrices and labelled images."""

import numpy as np
import pytest
from artists import (
    assert_readable,
    classifier_history,
    drawn_images,
    make_images,
    tick_labels,
    words,
)

from cae.figures.classes import (
    classifier_loss_visualization,
    classifier_prediction_visualization,
)
from cae.records.evaluation import count_predictions


def make_report(num_classes):
    scores = {"precision": 0.5, "recall": 0.75, "f1-score": 0.6, "support": 1234.0}
    names = [f"class {number}" for number in range(num_classes)]
    averages = {"macro avg": scores, "weighted avg": scores}
    return {**dict.fromkeys(names, scores), "accuracy": 0.75, **averages}


def predictions(num_classes, per_class=4):
    """Labels in order, and probabilities by which the last image of each class is mistaken."""
    labels = np.repeat(np.arange(num_classes), per_class)
    predicted = labels.copy()
    predicted[per_class - 1 :: per_class] = (np.arange(num_classes) + 1) % num_classes
    probabilities = np.full((len(labels), num_classes), 0.1 / num_classes, np.float32)
    probabilities[np.arange(len(labels)), predicted] = np.linspace(0.6, 0.9, len(labels))
    return labels, probabilities


def test_classifier_figures_are_readable():
    histories = [classifier_history(f"classifier_{n}") for n in range(2)]
    figures = classifier_loss_visualization(histories, [make_report(10)] * 2)
    assert list(figures) == ["history-1", "report-1", "history-2", "report-2", "comparison"]
    for figure in list(figures.values())[2:]:
        assert_readable(figure)


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


def test_classes_that_do_not_occur_have_no_part_in_averages():
    """Of three classes two occur, and all of their images are right."""
    probabilities = np.eye(3)[[0, 0, 1]]
    figures = classifier_prediction_visualization(
        make_images(3, 16, 20), np.array([0, 0, 1]), probabilities, ["a", "b", "c"]
    )
    ax = figures["report"].axes[0]
    assert tick_labels(ax.yaxis) == ["a", "b", "macro avg", "weighted avg"]
    assert [text.get_text() for text in ax.texts].count("1.000") == 4 * 3


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
    if expected is None:
        assert not cells
    else:
        assert cells.count(expected) == num_classes
    assert "Accuracy 75.00%" in figures["confusion_matrix"].get_suptitle()


def test_mistakes_alone_are_coloured():
    labels = np.repeat([0, 1], 100)
    probabilities = np.eye(2, dtype=np.float32)[labels]
    probabilities[0] = (0.2, 0.8)  # one mistake in a hundred
    figures = classifier_prediction_visualization(make_images(200), labels, probabilities, "ab")
    matrix, bar = figures["confusion_matrix"].axes
    mistaken = matrix.images[-1]
    assert mistaken.get_clim() == bar.get_ylim() == (0, 0.01)
    assert mistaken.get_array().compressed() == pytest.approx([0.01])
    assert "a → b (1)" in words(matrix.figure)
    assert "1%" in tick_labels(bar.yaxis)


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
    wrong = words(figures["wrong"])
    for number in (2, 3):
        assert f"image {number}\ntrue unseen\npredicted a · 100.0%" in wrong
    # Precision suffers: one of three images called "a" is an "a".
    assert "0.333" in words(figures["report"])


def test_the_most_confident_mistakes_come_first():
    labels = np.zeros(3, int)
    probabilities = np.array([[0.3, 0.7], [0.1, 0.9], [0.2, 0.8]], np.float32)
    images = make_images(3)
    figure = classifier_prediction_visualization(images, labels, probabilities, "ab")["wrong"]
    shown = [image.get_array() for image in drawn_images(figure)]
    np.testing.assert_allclose(shown, images[[1, 2, 0], ..., 0])
    assert "image 1\ntrue a\npredicted b · 90.0%" in words(figure)


def test_names_that_read_from_right_to_left_keep_their_place():
    labels, probabilities = np.array([0]), np.array([[0.1, 0.9]], np.float32)
    figures = classifier_prediction_visualization(make_images(1), labels, probabilities, ["a", "ب"])
    assert "predicted \u200eب\u200e · 90.0%" in words(figures["wrong"])
    assert "a → \u200eب\u200e (1)" in words(figures["confusion_matrix"])


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
    assert words(perfect["wrong"]) == "No image was misclassified"
    assert words(hopeless["correct"]) == "No image was classified correctly"
    assert "No mistakes" in words(perfect["confusion_matrix"])
    for figure in (*perfect.values(), *hopeless.values()):
        assert_readable(figure)


def test_predictions_are_counted_by_true_and_predicted_class():
    labels, predicted = np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1])
    assert count_predictions(labels, predicted, 2).tolist() == [[1, 1], [0, 2]]
    labels[3] = -1
    assert count_predictions(labels, predicted, 2).tolist() == [[1, 1], [0, 1], [0, 1]]
