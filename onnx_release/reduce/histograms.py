"""Make histograms of activations that can be added up, although the range of all samples is not known before.

Each is centred on 0 and reaches to a power of two. One that reaches further has bins that are twice, four times ... as
wide, and whose edges are also edges of the finer bins: to merge two, the bins of the finer one are added up in pairs
until both fit. The sum is the same in any order.
"""

import math
from dataclasses import dataclass

import numpy as np
from fast_histogram import histogram1d

# The reach of a tensor of zeros; any other tensor has more.
LEAST_EXPONENT = -100
# Masks are made of infinities, and of numbers that stand for them, such as the least float32.
BOUNDLESS = 1e30


@dataclass(frozen=True)
class Observed:
    """The extremes, and counts int64 [bins] in equal bins from -2^exponent to 2^exponent, or None.

    Both are those of the values below BOUNDLESS; `boundless` says whether there were others, NaN included.
    """

    low: float
    high: float
    exponent: int
    counts: np.ndarray | None
    boundless: bool = False

    @property
    def edges(self) -> np.ndarray:
        """Return the edges of the bins, float64 [bins + 1]."""
        bins = 0 if self.counts is None else len(self.counts)
        return np.linspace(-(2.0**self.exponent), 2.0**self.exponent, bins + 1)

    def merge(self, other: "Observed") -> "Observed":
        """Return what both have observed together."""
        exponent = max(self.exponent, other.exponent)
        one, two = self.reaching(exponent), other.reaching(exponent)
        counts = None if one is None or two is None else one + two
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Observed(low, high, exponent, counts, self.boundless or other.boundless)

    def reaching(self, exponent: int) -> np.ndarray | None:
        """Return the counts in the same number of bins from -2^exponent to 2^exponent."""
        counts = self.counts
        if counts is None:
            return None
        for _ in range(exponent - self.exponent):
            counts = np.pad(counts, len(counts) // 2).reshape(-1, 2).sum(axis=1)
        return counts


def observe_values(values: np.ndarray, bins: int | None) -> Observed:
    """Observe float32 values, with counts in `bins` bins, a multiple of 4, or without; no values count as a 0."""
    boundless = False
    if values.size and not (float(values.min()) > -BOUNDLESS and float(values.max()) < BOUNDLESS):
        values = values[np.abs(values) < BOUNDLESS]
        boundless = True
    if not values.size:
        return Observed(0.0, 0.0, LEAST_EXPONENT, None if bins is None else np.zeros(bins, np.int64), boundless)
    low, high = float(values.min()), float(values.max())
    limit = max(-low, high)
    exponent = max(math.ceil(math.log2(limit)), LEAST_EXPONENT) if limit > 0 else LEAST_EXPONENT
    return Observed(low, high, exponent, None if bins is None else count(values, 2.0**exponent, bins), boundless)


def count(values: np.ndarray, limit: float, bins: int) -> np.ndarray:
    """Count the float32 values, none beyond `limit`, in each bin from -limit to limit; int64 [bins].

    fast_histogram uses that the bins are equal, while numpy.histogram compares each value with the edges around it, and
    it releases Python's global lock.
    """
    counts = histogram1d(values, bins, (-limit, limit)).astype(np.int64)
    counts[-1] += values.size - counts.sum()  # the limit itself, which fast_histogram leaves out
    return counts
