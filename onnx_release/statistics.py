"""Intervals that say how sure a number is."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

# Of speed-ups.
RESAMPLES = 2000
CONFIDENCE = 0.95


def grouped_interval(
    values: Sequence[float], groups: Sequence[str], resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """A percentile bootstrap interval of the mean of 0/1 `values`, which resamples whole groups.

    Crops of one photograph go right or wrong together, so the photograph is what is drawn (the cluster bootstrap of
    Davison and Hinkley, "Bootstrap Methods", 1997, section 3.8). Where all values are 0 or all are 1 the bootstrap
    shows no spread; the interval is then that of Clopper and Pearson (1934), with the groups as the trials.
    """
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, np.float64))
    counts = np.bincount(index)
    mean = sums.sum() / counts.sum()
    if mean in (0.0, 1.0):
        margin = 1 - ((1 - confidence) / 2) ** (1 / len(names))
        return (0.0, float(margin)) if mean == 0.0 else (float(1 - margin), 1.0)
    drawn = np.random.default_rng(seed).integers(len(names), size=(resamples, len(names)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return percentile_interval(means, confidence)


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


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
