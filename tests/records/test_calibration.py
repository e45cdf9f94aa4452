"""Temperatures, calibration errors, thresholds and scores, by hand-computed values."""

import numpy as np
import pytest

from cae.records.calibration import Calibration, Typical, get_calibration_error, get_reliability


def test_a_temperature_divides_the_logits():
    """Logits log 4 and log 1 become log 2 and 0: 2/3 and 1/3."""
    calibrated = Calibration(temperature=2.0).apply(np.array([[0.8, 0.2], [0.5, 0.5]]))
    np.testing.assert_allclose(calibrated, [[2 / 3, 1 / 3], [0.5, 0.5]])


def test_probabilities_of_zero_stay_finite():
    calibrated = Calibration(temperature=3.0).apply(np.array([[1.0, 0.0]], np.float32))
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_the_temperature_of_an_overconfident_classifier():
    """Of four answers with 90 %, three are right: calibrated, they have 75 %."""
    probabilities = np.array([[0.9, 0.1]] * 4)
    calibration = Calibration.fit(probabilities, np.array([0, 0, 0, 1]))
    assert calibration.apply(probabilities)[0, 0] == pytest.approx(0.75, abs=1e-4)
    assert calibration.temperature == pytest.approx(2.0, abs=1e-3)  # log 9 / log 3


def test_classes_without_validation_images_do_not_matter():
    """Of two answers with 4/5 for the first of three classes, one is right: 1/2 is likeliest."""
    probabilities = np.array([[0.8, 0.1, 0.1]] * 2, np.float32)
    calibration = Calibration.fit(probabilities, np.array([0, 2]))
    np.testing.assert_allclose(calibration.apply(probabilities)[0], [0.5, 0.25, 0.25], atol=1e-4)
    assert calibration.temperature == pytest.approx(3.0, abs=1e-3)  # log 8 / log 2


def test_answers_that_are_all_wrong_have_a_finite_temperature():
    calibration = Calibration.fit(np.array([[0.9, 0.1]]), np.array([1]))
    assert calibration.temperature == pytest.approx(20, rel=1e-3)


def test_without_a_mistake_the_temperature_remains():
    calibration = Calibration.fit(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1]))
    assert calibration == Calibration(1.0, 0.6)


def test_answers_are_unsure_below_the_probability_of_reliable_ones():
    """The first mistake comes at 70 %: the answers down to 80 % are all right."""
    first = np.array([0.95, 0.9, 0.8, 0.7, 0.6])
    probabilities, targets = np.stack([first, 1 - first], axis=1), np.array([0, 0, 0, 1, 0])
    calibration = Calibration.fit(probabilities, targets)
    assert calibration.unsure_below == pytest.approx(calibration.apply(probabilities)[2, 0])


def test_calibration_error_by_hand():
    """Half of the images: 60 % confident, all right. The others: 90 % confident, half right."""
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1], [0.9, 0.1]])
    reliability = get_reliability(probabilities, np.array([0, 0, 0, 1]))
    np.testing.assert_allclose(reliability, [[0.6, 1, 0.5], [0.9, 0.5, 0.5]])
    assert get_calibration_error(reliability) == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)


class TestTypical:
    def test_distances_in_standard_deviations(self):
        """Mean (0, 10), deviations 1 and 2: (2, 10) is 2 deviations off in one of two values."""
        training = np.array([[-1.0, 8.0], [1.0, 12.0]])
        typical = Typical.fit(training, training)
        (score,) = typical.get_scores(np.array([[2.0, 10.0]]))
        assert score == pytest.approx(2.0, rel=1e-4)

    def test_an_encoding_of_one_value(self):
        """Mean 0, deviation 1: 3 is 9 squared deviations off."""
        training = np.array([[-1.0], [1.0]])
        (score,) = Typical.fit(training, training).get_scores(np.array([[3.0]]))
        assert score == pytest.approx(9.0, rel=1e-4)

    def test_half_of_the_training_images_stand_for_validation_images(self):
        """Mean 0 and deviation 1 of the first and third; the others are 3 and 5 deviations off."""
        training = np.array([[-1.0], [3.0], [1.0], [5.0]])
        typical = Typical.fit(training, training[:0])
        assert typical.get_threshold(0) == pytest.approx(9, rel=1e-4)
        assert typical.get_threshold(1) == pytest.approx(25, rel=1e-4)

    def test_quantiles_of_errors(self):
        """Of errors from 0 to 1, a share of 75 % does not exceed 0.75."""
        errors = np.linspace(0, 1, 1001)[:, None]
        typical = Typical.fit(errors[:5], errors, of_errors=True)
        assert typical.get_threshold(0.75) == pytest.approx(0.75)
        np.testing.assert_allclose(typical.get_scores(errors), errors[:, 0])


def test_few_images_of_many_classes_cause_no_warning():
    """Warnings are errors in tests."""
    probabilities = np.full((50, 50), 0.01) + 0.5 * np.eye(50)
    targets = np.roll(np.arange(50), 25)
    assert Calibration.fit(probabilities, targets).temperature > 1
