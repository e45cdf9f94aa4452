"""Intervals by hand."""

import math

import pytest

from cae.studies.intervals import Estimate, estimate


def test_interval_of_three_values():
    """Student's t with 2 degrees of freedom: 4.3027 × 1 / √3 for a standard deviation of 1."""
    assert estimate([1.0, 2.0, 3.0]) == pytest.approx(Estimate(2.0, 4.302653 / 3**0.5, 3))


def test_one_value_has_no_interval():
    assert estimate([0.5]) == (0.5, math.inf, 1)
    assert not estimate([0.5]).is_measurable
