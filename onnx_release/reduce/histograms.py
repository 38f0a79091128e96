"""Histograms of activations that can be added up although no sample knows how large the others get.

Each is centred on 0 and reaches to a power of two. One that reaches further has bins twice, four times ... as wide,
whose edges are also edges of the finer bins: to merge two, the finer one's bins are added up in pairs until they fit.
The sum is the same in any order.
"""

import math
from dataclasses import dataclass

import numpy as np
from fast_histogram import histogram1d

# The reach of a tensor of zeros, which any other exceeds.
LEAST_EXPONENT = -100


@dataclass(frozen=True)
class Observed:
    """Least and greatest value; int64 [bins] equal bins between -2^exponent and 2^exponent, or None without counts."""

    low: float
    high: float
    exponent: int
    counts: np.ndarray | None

    @property
    def edges(self) -> np.ndarray:
        """Return float64 [bins + 1]."""
        bins = 0 if self.counts is None else len(self.counts)
        return np.linspace(-(2.0**self.exponent), 2.0**self.exponent, bins + 1)

    def merge(self, other: "Observed") -> "Observed":
        exponent = max(self.exponent, other.exponent)
        one, two = self.reaching(exponent), other.reaching(exponent)
        counts = None if one is None or two is None else one + two
        return Observed(min(self.low, other.low), max(self.high, other.high), exponent, counts)

    def reaching(self, exponent: int) -> np.ndarray | None:
        """Return the counts in as many bins between -2^exponent and 2^exponent."""
        counts = self.counts
        if counts is None:
            return None
        for _ in range(exponent - self.exponent):
            counts = np.pad(counts, len(counts) // 2).reshape(-1, 2).sum(axis=1)
        return counts


def observe_values(values: np.ndarray, bins: int | None) -> Observed:
    """Extremes of float32 values, at least one, and their counts in `bins` bins, a multiple of 4, or None.

    Raises ValueError for NaN and infinity.
    """
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low + high):
        raise ValueError("not finite")
    limit = max(-low, high)
    exponent = max(math.ceil(math.log2(limit)), LEAST_EXPONENT) if limit > 0 else LEAST_EXPONENT
    return Observed(low, high, exponent, None if bins is None else count(values, 2.0**exponent, bins))


def count(values: np.ndarray, limit: float, bins: int) -> np.ndarray:
    """Return int64 [bins]: how many of the float32 values, none beyond `limit`, fall into each bin between -limit and limit.

    fast_histogram knows that bins are equally wide, where numpy.histogram compares each value with the edges around it,
    and lets go of Python's global lock meanwhile.
    """
    counts = histogram1d(values, bins, (-limit, limit)).astype(np.int64)
    counts[-1] += values.size - counts.sum()  # the limit itself, which it leaves out
    return counts
