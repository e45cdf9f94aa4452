"""Means over seeds with their 95 % intervals. No Keras."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval, of Student's t distribution.

    Attributes:
        mean: The mean.
        margin: Half the interval's width; infinite with one seed.
        seeds: How many seeds there are.
    """

    mean: float
    margin: float
    seeds: int

    @property
    def is_measurable(self) -> bool:
        """Whether 0 lies outside the interval."""
        return abs(self.mean) > self.margin


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of values, one per seed, with its 95 % interval."""
    from scipy.stats import t

    count = len(values)
    if count < 2:
        return Estimate(float(np.mean(values)), math.inf, count)
    quantile = t.ppf((1 + CONFIDENCE) / 2, count - 1)
    margin = quantile * np.std(values, ddof=1) / math.sqrt(count)
    return Estimate(float(np.mean(values)), float(margin), count)
