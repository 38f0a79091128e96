"""Search for the ranges, and for what to keep in float, with which a quantized graph keeps within its budget.

1. Quantize everything but operators that would only be converted (placement.py), and fit the weights (rounding.py).
2. If the budget is not met, refine the ranges by the answers (refine.py) and fit again, as long as that gains.
3. If it is still not met, measure the sensitivity of each layer, and of the operators without weights of each type:
   how much the answers gain when only these are in float. Estimate sets of them with the present weights: the 1, 2, 3,
   5, 8 ... that gain most, those that gain most for their multiply-adds, the first ones of the network, and all
   operators without weights. Fit the sets that seem to meet the budget, least float work first; after one has met it,
   only those with less float work. Types come first, then layers beside the types that helped.
4. If it is not met at the end of the limit, keep all operators without weights in float if that is enough: one run.
5. Refine the ranges with the rest of the limit.

`minutes` is an amount of computing, not of time: the same parameters give the same bytes on a fast and a slow machine.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from onnx import ModelProto
from tqdm import tqdm

from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Budget
from onnx_release.data.samples import spread_evenly
from onnx_release.graph.layers import initializers
from onnx_release.graph.targets import Target
from onnx_release.measure.budget import over_budget
from onnx_release.measure.closeness import Closeness
from onnx_release.static_quantization.compute_limit import ComputeLimit, measure_work
from onnx_release.static_quantization.fit_work import layer_works, rounded_plainly
from onnx_release.static_quantization.operators import PRODUCTS, Plan, Ranges, plan_quantization
from onnx_release.static_quantization.placement import float_by_placement
from onnx_release.static_quantization.qdq import insert_qdq
from onnx_release.static_quantization.refine import COARSE, FINE, Sweep, factor_bounds, refine_ranges
from onnx_release.static_quantization.rounding import Fit, copy_fit, fit_weights
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

# Sets of nodes by name.
Units = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Goal:
    """The budget to keep within, how much to compute for it, and the nodes that stay in float whatever it costs.

    `narrowest` has the least factor for a range, by the name of its activation: less would cut off shape cases, which
    the samples do not show.
    """

    budget: Budget
    minutes: float
    excluded: frozenset[str] = frozenset()
    narrowest: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """A quantized graph, its ranges, and how close it is to the float model on the calibration samples.

    `float_nodes` are the nodes that the search chose to keep in float, `price` is their multiply-adds, and `failures`
    are the bounds of the budget that it misses.
    """

    model: ModelProto
    ranges: Ranges
    float_nodes: frozenset[str]
    price: float
    closeness: Closeness
    failures: list[str]


@dataclass(frozen=True)
class SearchResult:
    """The best graph, how many graphs were fitted, and how many ranges differ from the calibrated ones.

    `plain` are the layers whose weights were rounded one by one, since fitting them takes too much memory or work.
    """

    best: Attempt
    fitted: int
    refined_ranges: int
    plain: frozenset[str]


def search(
    model: ModelProto,
    ranges: Ranges,
    target: Target,
    scorer: Scorer,
    goal: Goal,
    weights: Path | None = None,
) -> SearchResult:
    """Find the graph with the least float work that meets the budget, or else the one with the best SQNR.

    `weights` is the folder of the files that have weights of `model`; those of float layers stay there.
    """
    steps = Search(model, ranges, target, scorer, goal, weights)
    best = steps.fit(ranges, frozenset())
    if best.failures:
        steps.limit.reserved = steps.limit.left * RESERVE
        best = steps.sweep_ranges(best, Sweep(COARSE, steps.few), until_met=True)
        steps.limit.reserved = 0.0
    if best.failures:
        best = steps.keep_in_float(best, steps.types)
    if best.failures:
        best = steps.keep_in_float(best, steps.layers)
    if best.failures:
        best = steps.keep_types_in_float(best)
    best = steps.refine_with_what_is_left(best)
    changed = sum(best.ranges[name] != limits for name, limits in ranges.items())
    return SearchResult(best, steps.fitted, changed, steps.plain)


class Search:
    """The steps of a search, with the float model, the calibration samples and the limit that they share.

    `layers` and `types` are the sets of nodes that it may keep in float, by name: each layer with weights, and the
    other operators of each type. `float_nodes` are in float from the start.
    """

    def __init__(
        self,
        model: ModelProto,
        ranges: Ranges,
        target: Target,
        scorer: Scorer,
        goal: Goal,
        weights: Path | None = None,
    ) -> None:
        self.model, self.target, self.scorer, self.budget = model, target, scorer, goal.budget
        self.weights = weights
        self.narrowest = scale_ranges({name: ranges[name] for name in goal.narrowest}, goal.narrowest)
        work = measure_work(model, ranges, scorer.samples, weights)
        self.macs = work.macs
        self.limit = ComputeLimit(goal.minutes, self.macs)
        self.used = spread_evenly(len(scorer.samples), FIT_SAMPLES)
        self.few = spread_evenly(len(scorer.samples), FEW_SAMPLES)
        self.works = layer_works(model, len(self.used))
        self.plain = rounded_plainly(self.works, self.limit.total)
        self.float_nodes = goal.excluded | float_by_placement(model, ranges, work.sizes, goal.excluded, weights)
        plan = plan_quantization(model, ranges, target, self.float_nodes, weights)
        self.layers, self.types = quantized_units(model, plan)
        self.fitted = 0

    def fit(self, ranges: Ranges, float_nodes: frozenset[str]) -> Attempt:
        """Quantize with these ranges and float nodes, and fit the weights to the calibration samples."""
        quantized = insert_qdq(self.model, ranges, self.target, self.float_nodes | float_nodes, self.weights)
        fit = Fit(self.scorer.samples, self.used, self.plain, self.weights)
        fit_weights(self.model, quantized, ranges, self.target, fit)
        self.limit.fit(len(self.used), sum(work for name, work in self.works.items() if name not in self.plain))
        self.fitted += 1
        attempt = self.attempt(quantized, ranges, float_nodes)
        print_progress(attempt)
        return attempt

    def estimate(self, best: Attempt, float_nodes: frozenset[str]) -> Attempt:
        """Do the same without a fit, with the fitted weights of `best`."""
        return self.attempt(self.estimated(best, float_nodes), best.ranges, float_nodes)

    def estimated(self, best: Attempt, float_nodes: frozenset[str]) -> ModelProto:
        """Return the graph with these float nodes and the fitted weights of `best`."""
        quantized = insert_qdq(self.model, best.ranges, self.target, self.float_nodes | float_nodes, self.weights)
        copy_fit(best.model, quantized, self.model, self.weights)
        return quantized

    def attempt(self, quantized: ModelProto, ranges: Ranges, float_nodes: frozenset[str]) -> Attempt:
        """Score a quantized graph on all calibration samples."""
        closeness = self.scorer.score(quantized, range(len(self.scorer.samples)), self.weights)
        self.limit.run(len(self.scorer.samples))
        failures = over_budget(closeness, self.budget, MARGIN_DB)
        return Attempt(quantized, ranges, float_nodes, self.price(float_nodes), closeness, failures)

    def price(self, nodes: Iterable[str]) -> float:
        """Return the multiply-adds of some nodes."""
        return sum(self.macs.get(name, 0.0) for name in sorted(nodes))

    def refine(self, attempt: Attempt, sweep: Sweep) -> Attempt:
        """Sweep over all ranges, and fit with the new ones; return `attempt` itself if there are none."""
        bounds = factor_bounds(self.model, attempt.ranges, self.narrowest)
        factors = refine_ranges(attempt.model, bounds, sweep, self.scorer, self.limit, self.weights)
        return self.fit(scale_ranges(attempt.ranges, factors), attempt.float_nodes) if factors else attempt

    def sweep_ranges(self, best: Attempt, sweep: Sweep, until_met: bool) -> Attempt:
        """Do sweeps until one gains too little, the limit is used up or, with `until_met`, the budget is met."""
        gains = True
        while gains and self.limit.left > 0 and (best.failures or not until_met):
            attempt = self.refine(best, sweep)
            best, gains = better(best, attempt), is_gain(best, attempt)
        return best

    def refine_with_what_is_left(self, best: Attempt) -> Attempt:
        """Do sweeps in smaller and smaller steps and on more and more samples, as long as they gain."""
        available = len(self.scorer.samples)
        for count, steps in dict.fromkeys((min(count, available), steps) for count, steps in STAGES):
            best = self.sweep_ranges(best, Sweep(steps, spread_evenly(available, count)), until_met=False)
        return best

    def keep_in_float(self, best: Attempt, units: Units) -> Attempt:
        """Fit the sets of units in float that seem to meet the budget; return the best, with the least float work."""
        for candidate in self.candidates(best, units, self.sensitivities(best, units)):
            if not best.failures and candidate.price >= best.price:
                continue
            best = better(best, self.fit(best.ranges, candidate.float_nodes))
            if self.limit.left <= 0:
                break
        return best

    def keep_types_in_float(self, best: Attempt) -> Attempt:
        """Keep all operators without weights in float if that meets the budget, though the limit may be used up."""
        estimate = self.estimate(best, best.float_nodes.union(*self.types.values()))
        return best if estimate.failures else estimate

    def sensitivities(self, best: Attempt, units: Units) -> dict[str, float]:
        """Return how much the SQNR gains, in dB, when a unit computes in float besides what does, by its name."""
        gains: dict[str, float] = {}
        if not units or self.limit.left <= 0:
            return gains
        base = self.signal(best.model)
        for name, nodes in tqdm(units.items(), "sensitivity", unit="unit"):
            if self.limit.left <= 0:
                break
            gains[name] = self.signal(self.estimated(best, best.float_nodes | nodes)) - base
        return gains

    def signal(self, quantized: ModelProto) -> float:
        """Return the SQNR in dB on few samples."""
        self.limit.run(len(self.few))
        return self.scorer.score(quantized, self.few, self.weights).signal

    def candidates(self, best: Attempt, units: Units, gains: Mapping[str, float]) -> list[Attempt]:
        """Estimate sets of units in float: those that seem to meet the budget by float work, then the rest by SQNR.

        Some are the first units of the network: neighbours gain more together than apart, since nothing between them
        is quantized.
        """
        by_gain = sorted(gains, key=lambda name: -gains[name])
        by_price = sorted(gains, key=lambda name: -gains[name] / max(self.price(units[name]), 1))
        orders = by_gain, by_price, list(gains)
        sizes = (*SIZES, len(gains)) if units is self.types else SIZES
        chosen = [frozenset[str]().union(*(units[name] for name in order[:size])) for size in sizes for order in orders]
        estimates: list[Attempt] = []
        for nodes in tqdm(dict.fromkeys(chosen) if gains else (), "candidates", unit="set"):
            if estimates and self.limit.left <= 0:
                break
            estimates.append(self.estimate(best, best.float_nodes | nodes))
        return sorted(estimates, key=rank, reverse=True)


def quantized_units(model: ModelProto, plan: Plan) -> tuple[Units, Units]:
    """Return the sets of quantized nodes that can be kept in float: each with weights, and the others of each type."""
    constants = initializers(model)
    layers, types = dict[str, frozenset[str]](), dict[str, frozenset[str]]()
    for node in model.graph.node:
        if node.name not in plan.nodes or node.name in plan.removed:
            continue
        if node.op_type in PRODUCTS and node.input[1] in constants:
            layers[node.name] = frozenset([node.name])
        else:
            types[node.op_type] = types.get(node.op_type, frozenset()) | {node.name}
    return layers, types


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
    print(f"{count_of(len(attempt.float_nodes), 'more node')} in float: {found}: {verdict}", file=sys.stderr)
