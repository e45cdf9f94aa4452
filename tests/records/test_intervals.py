"""Intervals by hand."""

import pytest

from cae.records.evaluation import estimate


def test_interval_of_three_values():
    """Student's t with 2 degrees of freedom: 4.3027 × 1 / √3 for a standard deviation of 1."""
    half = 4.302653 / 3**0.5
    expected = (2, 2 - half, 2 + half, 3, False, False)
    assert estimate([1.0, 2.0, 3.0]) == pytest.approx(expected)


def test_ends_beyond_what_is_possible_are_open():
    """With 1 degree of freedom 0.25 ± 12.706204 × 0.05."""
    assert estimate([0.2, 0.3], 0, 1) == pytest.approx((0.25, 0, 0.8853102, 2, True, False))
    assert estimate([0.7, 0.8], 0, 1) == pytest.approx((0.75, 0.1146898, 1, 2, False, True))


def test_one_value_has_no_interval():
    found = estimate([0.5])
    assert found[::3] == (0.5, 1) and found.low != found.low and not found.is_measurable
