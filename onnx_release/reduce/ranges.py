"""Choose the range of an activation from its extremes and its histogram, by one of four methods."""

from collections.abc import Sequence

import numpy as np

from onnx_release.core.params import Calibrate
from onnx_release.reduce.histograms import Observed

Range = tuple[float, float]
ENTROPY_LEVELS = 128  # of TensorRT's method: https://on-demand.gputechconf.com/gtc/2017/presentation/s7310
ENTROPY_SMOOTHING = 1e-4  # the count of an empty bin, so that the divergence is finite
MSE_STEPS = 100  # shares of the full range that the method tries for each end
QUANTIZED_STEPS = 255  # between the least and the greatest 8-bit value
# The share of a shape case's power, 20 dB below it, that a range may cut off. Photographs lose 2e-3 at any size in
# face_pnet, where a wider range gains nothing; a text whose few tokens are all outliers loses much more.
LARGEST_LOSS = 1e-2
# The share, 30 dB below, that a range may cut off from a shape case when the search narrows it: 8 bits lose as much.
SMALL_LOSS = 1e-3
# The factors that `narrowest_factor` tries, each 0.95 of the one before, down to a twentieth.
NARROWER = tuple(0.95**step for step in range(1, 60))


def choose_range(observed: Observed, params: Calibrate) -> Range:
    """Choose the range by the method of `params`, within the extremes."""
    low, high, counts, edges = observed.low, observed.high, observed.counts, observed.edges
    if counts is None or low == high:
        return low, high
    if params.method == "percentile":
        found = percentile_range(counts, edges, params.percentile)
    elif params.method == "entropy":
        found = entropy_range(counts, edges)
    else:
        found = mse_range(counts, edges, (low, high))
    return max(low, found[0]), min(high, found[1])


def cover_cases(samples: Observed, cases: Sequence[Observed], params: Calibrate) -> Range:
    """Choose the range of the samples, and widen it to that of each case from which it would cut off too much.

    That is more than LARGEST_LOSS and twice the loss of the samples, or any value if the method is minmax: the range
    that the samples have stays as fine as it is where a case is no surprise.
    """
    low, high = chosen = choose_range(samples, params)
    allowed = max(LARGEST_LOSS, 2 * clipping_loss(samples, chosen))
    for case in cases:
        if clipping_loss(case, chosen) > allowed:
            wider = choose_range(case, params)
            low, high = min(low, wider[0]), max(high, wider[1])
    return low, high


def narrowest_factor(samples: Observed, cases: Sequence[Observed], chosen: Range) -> float:
    """Return the least factor for a range that cuts off no more from any shape case than it does from the samples.

    Twice the loss of the samples counts as no more, and so do SMALL_LOSS and what the range itself cuts off. It is 0 if
    any factor does. Without counts it is 1 if a case has values beyond those of the samples.
    """
    if not cases:
        return 0.0
    if samples.counts is None:
        beyond = any(case.low < samples.low or case.high > samples.high for case in cases)
        return 1.0 if beyond else 0.0
    known = [clipping_loss(case, chosen) for case in cases]
    least = 1.0
    for factor in NARROWER:
        narrowed = chosen[0] * factor, chosen[1] * factor
        allowed = max(SMALL_LOSS, 2 * clipping_loss(samples, narrowed))
        if any(clipping_loss(case, narrowed) > max(allowed, loss) for case, loss in zip(cases, known, strict=True)):
            return least
        least = factor
    return 0.0


def clipping_loss(observed: Observed, chosen: Range) -> float:
    """Return the sum of the squared distances from the range, with 0 in it, by the sum of the squares.

    Without counts it is infinite if any value is outside.
    """
    low, high = min(chosen[0], 0.0), max(chosen[1], 0.0)
    if observed.counts is None:
        return np.inf if observed.low < low or observed.high > high else 0.0
    centres = (observed.edges[:-1] + observed.edges[1:]) / 2
    distance = np.maximum(np.maximum(low - centres, centres - high), 0)
    power = float((observed.counts * centres**2).sum())
    return float((observed.counts * distance**2).sum()) / power if power else 0.0


def percentile_range(counts: np.ndarray, edges: np.ndarray, percentile: float) -> Range:
    """Leave out half of the 100 - `percentile` per cent of the values at each end, as ONNX Runtime does."""
    if percentile == 100:
        return float(edges[0]), float(edges[-1])
    shares = np.cumsum(counts) / counts.sum()
    tail = (100 - percentile) / 200
    left, right = np.searchsorted(shares, [tail, 1 - tail])
    if edges[right] <= 0:
        right += 1  # all but the tail is in the bin above 0
    return float(edges[left]), float(edges[right])


def entropy_range(counts: np.ndarray, edges: np.ndarray) -> Range:
    """Return the window around 0 whose ENTROPY_LEVELS levels lose the least information, by Kullback and Leibler.

    P is the histogram in the window, with the counts outside added to its ends. Q is the same histogram reduced to
    ENTROPY_LEVELS levels and spread over the bins that are not empty. Source: Migacz, 8-bit inference with TensorRT,
    GTC 2017.
    """
    middle = len(counts) // 2
    outside = np.concatenate([[0], np.cumsum(counts)])
    best, half_window = np.inf, middle
    for half in range(ENTROPY_LEVELS // 2, middle + 1):
        start, stop = middle - half, min(middle + half + 1, len(counts))
        window = counts[start:stop]
        expected = window.astype(np.float64)
        expected[0] += outside[start]
        expected[-1] += outside[-1] - outside[stop]
        divergence = kullback_leibler(expected, spread_levels(window, expected > 0))
        if divergence < best:
            best, half_window = divergence, half
    return float(edges[middle - half_window]), float(edges[min(middle + half_window + 1, len(counts))])


def spread_levels(window: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Merge the counts of `window` into ENTROPY_LEVELS levels, and spread each over its filled bins; float64.

    The bins left over by the division count for the last level, as in ONNX Runtime.
    """
    width = len(window) // ENTROPY_LEVELS
    used = width * ENTROPY_LEVELS
    levels = window[:used].reshape(ENTROPY_LEVELS, width).sum(axis=1)
    levels[-1] += window[used:].sum()
    shared = filled[:used].reshape(ENTROPY_LEVELS, width).sum(axis=1)
    each = np.divide(levels, shared, out=np.zeros(ENTROPY_LEVELS), where=shared > 0)
    spread = np.zeros(len(window))
    spread[:used] = np.repeat(each, width)
    return spread


def kullback_leibler(p: np.ndarray, q: np.ndarray) -> float:
    """Return sum p log(p / q) of two histograms, smoothed and scaled to the sum 1; infinite if one of them is empty."""
    if not p.any() or not q.any():
        return np.inf
    p, q = smoothed(p), smoothed(q)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Give empty bins ENTROPY_SMOOTHING, taken from the others in equal parts."""
    empty = counts == 0
    taken = ENTROPY_SMOOTHING * empty.sum() / (~empty).sum()
    return np.where(empty, ENTROPY_SMOOTHING, counts - taken)


def mse_range(counts: np.ndarray, edges: np.ndarray, extreme: Range) -> Range:
    """Return the ends within `extreme` with the least mean squared error in 8 bits, searching one end after the other.

    The squared error of a value in the range is step^2 / 12 on average, and outside the square of its distance.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    shares = np.arange(MSE_STEPS, 0, -1) / MSE_STEPS
    low, high = min(extreme[0], 0.0), max(extreme[1], 0.0)

    def error(low: float, high: float) -> float:
        distance = np.maximum(np.maximum(low - centres, centres - high), 0)
        inside = counts[distance == 0].sum()
        return float((counts * distance**2).sum() + inside * ((high - low) / QUANTIZED_STEPS) ** 2 / 12)

    for _ in range(2):  # in the second round each end knows the other
        high = float(min((high * share for share in shares), key=lambda end: error(low, end)))
        low = float(min((low * share for share in shares), key=lambda end: error(end, high)))
    return low, high


def include_zero(low: float, high: float) -> Range:
    """Return the range with 0 in it, and not empty, since even a constant 0 needs a scale."""
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if low < high else (0.0, 1.0)


def clipped_count(observed: Observed, chosen: Range) -> int:
    """Return how many values are in bins that are entirely outside of the chosen range."""
    if observed.counts is None:
        return 0
    edges = observed.edges
    return int(observed.counts[(edges[1:] <= chosen[0]) | (edges[:-1] >= chosen[1])].sum())
