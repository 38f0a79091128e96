"""How many times as fast one contender is as another, and how sure that is."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

RESAMPLES = 2000
CONFIDENCE = 0.95


def speedup_interval(base: Sequence[float], own: Sequence[float], starts: int, seed: int) -> tuple[float, float, float]:
    """The median of the paired ratios `base` by `own`, and a 95 % bootstrap interval of it, symmetric in the logarithm.

    The pairs come from `starts` starts of the processes, equally many from each, one start after the other. Two stages
    are resampled: starts, and within each start that was drawn its pairs. That gives the standard error. A percentile
    interval of so few starts would hold the truth far too seldom, so the error counts n / (n - 1) of its variance and
    the interval takes Student's t with n - 1 degrees of freedom, for n starts (Cameron, Gelbach and Miller,
    "Bootstrap-Based Improvements for Inference with Clustered Errors", 2008), or for n pairs of a single start. A
    single pair has no interval: it is from 0 to infinity.
    """
    ratios = np.log(np.asarray(base, np.float64) / np.asarray(own, np.float64)).reshape(starts, -1)
    units = starts if starts > 1 else ratios.shape[1]
    estimate = float(np.median(ratios))
    if units == 1:
        return math.exp(estimate), 0.0, math.inf
    random = np.random.default_rng(seed)
    drawn_starts = random.integers(starts, size=(RESAMPLES, starts, 1))
    drawn_pairs = random.integers(ratios.shape[1], size=(RESAMPLES, starts, ratios.shape[1]))
    medians = np.median(ratios[drawn_starts, drawn_pairs], axis=(1, 2))
    error = float(medians.std()) * math.sqrt(units / (units - 1))
    margin = float(stdtrit(units - 1, (1 + CONFIDENCE) / 2)) * error
    return math.exp(estimate), math.exp(estimate - margin), math.exp(estimate + margin)


def no_difference(low: float, high: float) -> bool:
    """Whether the interval of a speed-up leaves open which of the two is faster."""
    return low <= 1 <= high
