"""Probabilities and labels -> accuracy, report and predictions."""

import numpy as np
import pytest

from cae.files import write_csv
from cae.records.calibration import Calibration
from cae.records.evaluation import estimate, evaluate

CLASSES = np.array([-3, 0, 61])
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.6, 0.3, 0.1]], np.float32
)


def test_scores_by_hand():
    """Predictions -3, 0, 61, -3 against -3, 0, 61, 0: three of four."""
    result = evaluate(PROBABILITIES, np.array([-3, 0, 61, 0]), CLASSES)
    assert result.accuracy == 0.75
    # Wilson: (0.75 + z²/8 ± z √(0.75·0.25/4 + z²/64)) / (1 + z²/4) with z = 1.96.
    assert result.accuracy_interval == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert result.balanced_accuracy == pytest.approx((1 + 1 / 2 + 1) / 3)
    # F1: -3 has 1 hit, 1 label, 2 predictions: 2/3; 0 the reverse: 2/3; 61: 1.
    assert result.macro_f1 == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert list(result.targets) == [0, 1, 2, 1]
    assert result.report["-3"]["precision"] == 0.5
    assert result.num_unseen == 0


def test_intervals_of_classes_of_equal_size():
    """80 % of 500 images of each of two classes: the deviation of a draw is √(0.8·0.2/1000)."""
    labels = np.repeat([0, 1], 500)
    predictions = labels.copy()
    predictions[:100], predictions[500:600] = 1, 0
    result = evaluate(np.eye(2, dtype=np.float32)[predictions], labels, np.arange(2))
    expected = pytest.approx((0.8 - 1.96 * 0.01265, 0.8 + 1.96 * 0.01265), abs=0.004)
    assert result.class_intervals == {"balanced_accuracy": expected, "macro_f1": expected}


@pytest.mark.parametrize("wrong", [slice(0, 0), slice(30, 31), slice(0, 39)])
def test_draws_of_few_images_tell_nothing(wrong):
    """All right, a class of 9 images with a mistake, and all wrong."""
    labels = np.repeat([0, 1], [30, 9])
    predictions = labels.copy()
    predictions[wrong] = 1 - predictions[wrong]
    result = evaluate(np.eye(2, dtype=np.float32)[predictions], labels, np.arange(2))
    assert result.class_intervals == {}


def test_the_scores_are_inside_their_intervals():
    """Of many classes of few images, where the mean of the draws is lower than the score."""
    labels = np.repeat(np.arange(50), 10)
    predictions = np.where(np.arange(500) % 2, labels, (labels + 1) % 50)
    result = evaluate(np.eye(50, dtype=np.float32)[predictions], labels, np.arange(50))
    assert len(result.class_intervals) == 2
    for name, (low, high) in result.class_intervals.items():
        assert 0.4 < low < getattr(result, name) < high < 0.6


def test_a_label_that_training_never_saw_is_an_error():
    """It counts against accuracy and F1, and the report names it."""
    result = evaluate(PROBABILITIES, np.array([-3, 0, 61, 7]), CLASSES)
    assert result.num_unseen == 1
    assert result.accuracy == 0.75
    scores = dict.fromkeys(("precision", "recall", "f1-score"), 0.0)
    assert result.report["7 (unseen)"] == scores | {"support": 1.0}
    assert "7 (unseen)" in result.report_text
    assert list(result.targets) == [0, 1, 2, -1]


def test_class_names_appear_in_the_report():
    result = evaluate(PROBABILITIES, np.array([-3, 0, 61, 0]), CLASSES, ["shirt", "coat", "bag"])
    assert "coat" in result.report and "bag" in result.report_text


def test_predictions_as_csv(tmp_path):
    rows = evaluate(PROBABILITIES, np.array([-3, 0, 61, 0]), CLASSES).rows
    write_csv(tmp_path / "predictions.csv", rows)
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[0] == "index,label,prediction,correct,probability,p_-3,p_0,p_61"
    assert lines[1] == "0,-3,-3,1,0.700000,0.700000,0.200000,0.100000"
    assert lines[4].startswith("3,0,-3,0,0.600000")
    assert len(lines) == 5


def test_probabilities_in_the_csv_are_calibrated():
    """A temperature of 1/2 squares them: 0.49, 0.04 and 0.01 of 0.54."""
    labels = np.array([-3, 0, 61, 0])
    first = evaluate(PROBABILITIES, labels, CLASSES, calibration=Calibration(0.5)).rows[0]
    assert [first[key] for key in ("p_-3", "p_0", "p_61")] == ["0.907407", "0.074074", "0.018519"]


# ------------------------------------------------------------------ over seeds


def test_interval_of_three_values():
    """Student's t with 2 degrees of freedom: 4.3027 × 1 / √3 for a standard deviation of 1."""
    half = 4.302653 / 3**0.5
    expected = (2, 2 - half, 2 + half, 3, False, False)
    assert estimate([1.0, 2.0, 3.0]) == pytest.approx(expected)


def test_ends_beyond_what_is_possible_are_open():
    """With 1 degree of freedom 0.25 ± 12.706204 × 0.05."""
    assert estimate([0.2, 0.3], 0, 1) == pytest.approx((0.25, 0, 0.8853102, 2, True, False))
    assert estimate([0.7, 0.8], 0, 1) == pytest.approx((0.75, 0.1146898, 1, 2, False, True))


def test_equal_values_do_not_say_how_much_is_chance():
    """Two seeds that make the same one mistake more are no proof."""
    assert not estimate([0.01, 0.01], -1, 1).is_measurable
    assert estimate([0.01, 0.0101], -1, 1).is_measurable


def test_one_value_has_no_interval():
    found = estimate([0.5])
    assert found[::3] == (0.5, 1) and found.low != found.low and not found.is_measurable
