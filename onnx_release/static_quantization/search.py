"""Search for the ranges, and for the layers to keep in float, with which a quantized graph keeps within its budget.

1. Quantize everything and fit the weights (rounding.py).
2. If the budget is not met, refine the ranges by the answers (refine.py) and fit again, as long as that gains.
3. If it is still not met, measure the sensitivity of each layer: how much the answers gain when only that layer is in
   float. Estimate sets of layers with the present weights: the 1, 2, 3, 5, 8 ... layers that gain most, those that gain
   most for their multiply-adds, and the first ones of the network. Fit the sets that seem to meet the budget, least
   float work first; after one has met it, only those with less float work.
4. Refine the ranges with the rest of the limit.

`minutes` is an amount of computing, not of time: the same parameters give the same bytes on a fast and a slow machine.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from onnx import ModelProto
from tqdm import tqdm

from onnx_release.core.spec import Budget
from onnx_release.data.samples import spread_evenly
from onnx_release.graph.targets import Target
from onnx_release.measure.budget import over_budget
from onnx_release.measure.closeness import Closeness
from onnx_release.static_quantization.compute_limit import ComputeLimit, multiply_adds
from onnx_release.static_quantization.qdq import Ranges, insert_qdq, with_float_layers
from onnx_release.static_quantization.refine import COARSE, FINE, refine_ranges, widest_factors
from onnx_release.static_quantization.rounding import copy_fit, fit_weights
from onnx_release.static_quantization.scoring import Scorer

# Everything is fitted to calibration samples, so results on them are too good: docs/quantization.md shows by how much.
MARGIN_DB = 2.0
# The cost of a fit grows with its samples.
FIT_SAMPLES = 160
# Few samples are enough to compare two graphs on the same samples.
FEW_SAMPLES = 32
# The numbers of samples and the steps with which the ranges are refined at the end, in turn.
STAGES = ((FEW_SAMPLES, COARSE), (64, FINE), (128, FINE), (FIT_SAMPLES, FINE))
# A sweep of all ranges that gains less than this, in dB, is the last one of its stage.
LEAST_SWEEP_GAIN = 0.1
# The share of the limit that is kept for layers in float, while the budget is not met.
RESERVE = 1 / 3
SIZES = (1, 2, 3, 5, 8, 13)


@dataclass(frozen=True)
class Attempt:
    """A quantized graph, its ranges, and how close it is to the float model on the calibration samples.

    `price` is the multiply-adds of its float layers, and `failures` are the bounds of the budget that it misses.
    """

    model: ModelProto
    ranges: Ranges
    float_layers: frozenset[str]
    price: float
    closeness: Closeness
    failures: list[str]


@dataclass(frozen=True)
class SearchResult:
    """The best graph, how many graphs were fitted, and how many ranges differ from the calibrated ones."""

    best: Attempt
    fitted: int
    refined_ranges: int


def search(
    model: ModelProto, ranges: Ranges, target: Target, scorer: Scorer, budget: Budget, minutes: float
) -> SearchResult:
    """Find the graph with the least float work that meets the budget, or else the one with the best SQNR."""
    steps = Search(model, target, scorer, budget, minutes)
    best = steps.fit(ranges, frozenset())
    if best.failures:
        steps.limit.reserved = steps.limit.left * RESERVE
        best = steps.sweep_ranges(best, COARSE, steps.few, until_met=True)
        steps.limit.reserved = 0.0
    if best.failures:
        best = steps.keep_layers_in_float(best)
    best = steps.refine_with_what_is_left(best)
    return SearchResult(best, steps.fitted, sum(best.ranges[name] != limits for name, limits in ranges.items()))


class Search:
    """The steps of a search, with the float model, the calibration samples and the limit that they share."""

    def __init__(self, model: ModelProto, target: Target, scorer: Scorer, budget: Budget, minutes: float) -> None:
        self.model, self.target, self.scorer, self.budget = model, target, scorer, budget
        self.macs = multiply_adds(model, scorer.samples)
        self.limit = ComputeLimit(minutes, self.macs)
        self.few = spread_evenly(len(scorer.samples), FEW_SAMPLES)
        self.fitted = 0

    def fit(self, ranges: Ranges, float_layers: frozenset[str]) -> Attempt:
        """Quantize with these ranges and float layers, and fit the weights to the calibration samples."""
        quantized = insert_qdq(self.model, ranges, self.target, float_layers)
        used = spread_evenly(len(self.scorer.samples), FIT_SAMPLES)
        fit_weights(self.model, quantized, ranges, self.target, self.scorer.samples, used)
        self.limit.fit(len(used))
        self.fitted += 1
        attempt = self.attempt(quantized, ranges, float_layers)
        print_progress(attempt)
        return attempt

    def estimate(self, best: Attempt, float_layers: frozenset[str]) -> Attempt:
        """Do the same without a fit, with the fitted weights of `best`."""
        quantized = insert_qdq(self.model, best.ranges, self.target, float_layers)
        copy_fit(best.model, quantized, self.model)
        return self.attempt(quantized, best.ranges, float_layers)

    def attempt(self, quantized: ModelProto, ranges: Ranges, float_layers: frozenset[str]) -> Attempt:
        """Score a quantized graph on all calibration samples."""
        closeness = self.scorer.score(quantized, range(len(self.scorer.samples)))
        self.limit.run(len(self.scorer.samples))
        price = sum(self.macs[name] for name in float_layers)
        return Attempt(
            quantized, ranges, float_layers, price, closeness, over_budget(closeness, self.budget, MARGIN_DB)
        )

    def refine(self, attempt: Attempt, steps: Sequence[float], indices: Sequence[int]) -> Attempt:
        """Sweep over all ranges, and fit with the new ones; return `attempt` itself if there are none."""
        widest = widest_factors(self.model, attempt.ranges)
        factors = refine_ranges(attempt.model, widest, steps, self.scorer, indices, self.limit)
        return self.fit(scale_ranges(attempt.ranges, factors), attempt.float_layers) if factors else attempt

    def sweep_ranges(self, best: Attempt, steps: Sequence[float], indices: Sequence[int], until_met: bool) -> Attempt:
        """Do sweeps until one gains too little, the limit is used up or, with `until_met`, the budget is met."""
        gains = True
        while gains and self.limit.left > 0 and (best.failures or not until_met):
            attempt = self.refine(best, steps, indices)
            best, gains = better(best, attempt), is_gain(best, attempt)
        return best

    def refine_with_what_is_left(self, best: Attempt) -> Attempt:
        """Do sweeps in smaller and smaller steps and on more and more samples, as long as they gain."""
        available = len(self.scorer.samples)
        for count, steps in dict.fromkeys((min(count, available), steps) for count, steps in STAGES):
            best = self.sweep_ranges(best, steps, spread_evenly(available, count), until_met=False)
        return best

    def keep_layers_in_float(self, best: Attempt) -> Attempt:
        """Fit the sets of float layers that seem to meet the budget; return the best, with the least float work."""
        for candidate in self.candidates(best, self.sensitivities(best.model)):
            if not best.failures and candidate.price >= best.price:
                continue
            best = better(best, self.fit(best.ranges, candidate.float_layers))
            if self.limit.left <= 0:
                break
        return best

    def sensitivities(self, quantized: ModelProto) -> dict[str, float]:
        """Return how much the SQNR gains, in dB, when only this layer computes in float, by the layer's name."""
        base = self.signal(quantized)
        gains = {}
        for name in tqdm(self.macs, "sensitivity", unit="layer"):
            if self.limit.left <= 0:
                break
            gains[name] = self.signal(with_float_layers(quantized, self.model, {name})) - base
        return gains

    def signal(self, quantized: ModelProto) -> float:
        """Return the SQNR in dB on few samples."""
        self.limit.run(len(self.few))
        return self.scorer.score(quantized, self.few).signal

    def candidates(self, best: Attempt, gains: Mapping[str, float]) -> list[Attempt]:
        """Estimate sets of float layers: those that seem to meet the budget by float work, then the rest by SQNR.

        Some are the first layers of the network: neighbours gain more together than apart, since nothing between them
        is quantized.
        """
        by_gain = sorted(gains, key=lambda name: -gains[name])
        by_price = sorted(gains, key=lambda name: -gains[name] / max(self.macs[name], 1))
        orders = by_gain, by_price, list(self.macs)
        sets = dict.fromkeys(frozenset(order[:size]) for size in SIZES for order in orders if gains)
        estimates: list[Attempt] = []
        for chosen in tqdm(sets, "candidates", unit="set"):
            if estimates and self.limit.left <= 0:
                break
            estimates.append(self.estimate(best, chosen))
        return sorted(estimates, key=rank, reverse=True)


def scale_ranges(ranges: Ranges, factors: Mapping[str, float]) -> Ranges:
    """Multiply each range by its factor, if it has one."""
    return {name: (low * factors.get(name, 1.0), high * factors.get(name, 1.0)) for name, (low, high) in ranges.items()}


def is_gain(before: Attempt, after: Attempt) -> bool:
    """Return whether a sweep gained enough; one from infinity to infinity did not."""
    return after.closeness.signal - before.closeness.signal >= LEAST_SWEEP_GAIN


def better(one: Attempt, other: Attempt) -> Attempt:
    """Return the one of the higher `rank`, and `one` if both are equal."""
    return max(one, other, key=rank)


def rank(attempt: Attempt) -> tuple[bool, float, float]:
    """Rank graphs: those that meet the budget first, then those with less float work, then the closer ones."""
    return not attempt.failures, 0.0 if attempt.failures else -attempt.price, attempt.closeness.signal


def print_progress(attempt: Attempt) -> None:
    """Print the result of a fit, the only sign of progress for minutes."""
    found = ", ".join(f"{name} {value:.4g}" for name, value in asdict(attempt.closeness).items() if value is not None)
    verdict = "within the budget" if not attempt.failures else "; ".join(attempt.failures)
    print(f"{len(attempt.float_layers)} layers in float: {found}: {verdict}", file=sys.stderr)
