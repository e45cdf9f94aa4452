"""Means over seeds with their 95 % intervals. No Keras."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95


class Estimate(NamedTuple):
    """A mean over seeds with its 95 % interval, by Student's t; NaN ends with one seed.

    An end beyond what is possible is open: it stands at the limit.
    """

    mean: float
    low: float
    high: float
    seeds: int
    is_low_open: bool = False
    is_high_open: bool = False

    @property
    def is_measurable(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low > 0 or self.high < 0


def estimate(
    values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf
) -> Estimate:
    """The mean of values, one per seed, that can lie between `lowest` and `highest`."""
    from scipy.stats import t

    mean, count = fmean(values), len(values)
    if count < 2:
        return Estimate(mean, math.nan, math.nan, count)
    margin = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * stdev(values) / math.sqrt(count)
    low, high = mean - margin, mean + margin
    ends = max(low, lowest), min(high, highest)
    return Estimate(mean, *ends, count, low < lowest, high > highest)
