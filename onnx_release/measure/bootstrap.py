"""Compute confidence intervals with the bootstrap."""

from collections.abc import Sequence

import numpy as np


def grouped_interval(
    values: Sequence[float], groups: Sequence[str], resamples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """Return a percentile bootstrap interval of the mean of `values` in 0..1, which resamples whole groups.

    Crops of one photograph are right or wrong together, so photographs are drawn and not crops (the cluster bootstrap
    of Davison and Hinkley, "Bootstrap Methods", 1997, section 3.8). If all values are 0 or all are 1, the bootstrap
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


def percentile_interval(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the two percentiles between which the share `confidence` of the values lies."""
    tail = (1 - confidence) / 2 * 100
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
