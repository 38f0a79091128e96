"""Find the ranges and the float layers with which a quantized graph keeps within `budget`, with the least float work.

1. Quantize everything and fit the weights (see onnx_release/static/rounding.py).
2. Refine the ranges by the answers (see onnx_release/static/refine.py) and fit again, as long as that gains: before
   anything else where the budget is not met, and in the end with what work is left.
3. Where that is not within the budget: the sensitivity of each layer, which is what the answers gain when it alone is
   in float; the layers that gain most, those that gain most for their multiply-adds, and the first of the network, 1,
   2, 3, 5, 8 ... of them, each set estimated with the weights at hand; those that seem to do fitted anew, least float
   work first, and once one does, those with still less float work.

`minutes` is an amount of work, not of time: the same parameters give the same bytes on a fast and a slow day.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto
from tqdm import tqdm

from onnx_release.core.spec import Budget
from onnx_release.data.samples import spread
from onnx_release.graph.targets import Target
from onnx_release.measure.budget import over_budget, signal
from onnx_release.static.compute_limit import Work, multiply_adds
from onnx_release.static.qdq import Ranges, insert_qdq, with_float_layers
from onnx_release.static.refine import COARSE, FINE, refine_ranges, widest_factors
from onnx_release.static.rounding import copy_fit, fit_weights
from onnx_release.static.scoring import Judge

# Calibration samples, which everything here is fitted to, flatter: docs/quantization.md shows by how much.
MARGIN_DB = 2.0
# A fit costs as much as it has samples.
FIT_SAMPLES = 160
# What only compares two figures on the same samples does with few.
FEW_SAMPLES = 32
# On how many samples, and in which steps, the ranges of what is found are refined, one after the other.
STAGES = ((FEW_SAMPLES, COARSE), (64, FINE), (128, FINE), (FIT_SAMPLES, FINE))
# A sweep of all ranges that gains less, in dB, is the last one of its stage.
LEAST_SWEEP_GAIN = 0.1
# The share of the work that is kept for layers in float, while the budget is not met.
RESERVE = 1 / 3
SIZES = (1, 2, 3, 5, 8, 13)


@dataclass(frozen=True)
class Trial:
    """A quantized graph, the ranges it is made with, and its figures on the calibration samples.

    `price` is the multiply-adds of the layers that it keeps in float.
    """

    model: ModelProto
    ranges: Ranges
    float_layers: frozenset[str]
    price: float
    figures: dict[str, Any]
    failures: list[str]


@dataclass(frozen=True)
class Result:
    """The best graph; how many were fitted; how many ranges are not those of calibration."""

    best: Trial
    fitted: int
    refined_ranges: int


def search(model: ModelProto, ranges: Ranges, target: Target, judge: Judge, budget: Budget, minutes: float) -> Result:
    """The graph with the least float work that meets the budget, or else the one with the best SQNR."""
    macs = multiply_adds(model, judge.samples)
    work = Work(minutes, macs)
    used, few = spread(len(judge.samples), FIT_SAMPLES), spread(len(judge.samples), FEW_SAMPLES)
    fits = 0

    def judged(quantized: ModelProto, ranges: Ranges, float_layers: frozenset[str]) -> Trial:
        figures = judge.figures(quantized, range(len(judge.samples)))
        work.run(len(judge.samples))
        price = sum(macs[name] for name in float_layers)
        return Trial(quantized, ranges, float_layers, price, figures, over_budget(figures, budget, MARGIN_DB))

    def fitted(ranges: Ranges, float_layers: frozenset[str]) -> Trial:
        nonlocal fits
        quantized = insert_qdq(model, ranges, target, float_layers)
        fit_weights(model, quantized, ranges, target, judge.samples, used)
        work.fit(len(used))
        fits += 1
        trial = judged(quantized, ranges, float_layers)
        say(trial)
        return trial

    def refined(trial: Trial, steps: Sequence[float], indices: Sequence[int]) -> Trial:
        factors = refine_ranges(trial.model, widest_factors(model, trial.ranges), steps, judge, indices, work)
        return fitted(scaled(trial.ranges, factors), trial.float_layers) if factors else trial

    def estimated(float_layers: frozenset[str]) -> Trial:
        quantized = insert_qdq(model, best.ranges, target, float_layers)
        copy_fit(best.model, quantized, model)
        return judged(quantized, best.ranges, float_layers)

    def score(quantized: ModelProto) -> float:
        work.run(len(few))
        return signal(judge.figures(quantized, few))

    best = fitted(ranges, frozenset())
    gains, work.held = True, work.left * RESERVE
    while best.failures and gains and work.left > 0:
        trial = refined(best, COARSE, few)
        best, gains = better(best, trial), is_gain(best, trial)
    work.held = 0.0
    if best.failures:
        alone = sensitivities(best.model, model, macs, score, work)
        for candidate in candidates(alone, macs, estimated, work):
            if not best.failures and candidate.price >= best.price:
                continue
            best = better(best, fitted(best.ranges, candidate.float_layers))
            if work.left <= 0:
                break
    for count, steps in dict.fromkeys((min(count, len(judge.samples)), steps) for count, steps in STAGES):
        gains = True
        while gains and work.left > 0:
            trial = refined(best, steps, spread(len(judge.samples), count))
            best, gains = better(best, trial), is_gain(best, trial)
    return Result(best, fits, sum(best.ranges[name] != limits for name, limits in ranges.items()))


def scaled(ranges: Ranges, factors: Mapping[str, float]) -> Ranges:
    """The ranges, each multiplied by its factor if it has one."""
    return {name: (low * factors.get(name, 1.0), high * factors.get(name, 1.0)) for name, (low, high) in ranges.items()}


def sensitivities(
    quantized: ModelProto,
    model: ModelProto,
    macs: Mapping[str, float],
    score: Callable[[ModelProto], float],
    work: Work,
) -> dict[str, float]:
    """For each layer by name, what the SQNR gains, in dB, when it alone computes in float."""
    base = score(quantized)
    gains = {}
    for name in tqdm(macs, "sensitivity", unit="layer"):
        if work.left <= 0:
            break
        gains[name] = score(with_float_layers(quantized, model, {name})) - base
    return gains


def candidates(
    gains: Mapping[str, float],
    macs: Mapping[str, float],
    estimated: Callable[[frozenset[str]], Trial],
    work: Work,
) -> list[Trial]:
    """Estimates of sets of float layers: those that seem to meet the budget by float work, then the others by SQNR.

    Among them are the first layers of the network: neighbours gain more together than apart, since nothing between
    them is quantized.
    """
    by_gain = sorted(gains, key=lambda name: -gains[name])
    by_price = sorted(gains, key=lambda name: -gains[name] / max(macs[name], 1))
    orders = by_gain, by_price, list(macs)
    sets = dict.fromkeys(frozenset(order[:size]) for size in SIZES for order in orders if gains)
    estimates: list[Trial] = []
    for chosen in tqdm(sets, "candidates", unit="set"):
        if estimates and work.left <= 0:
            break
        estimates.append(estimated(chosen))
    return sorted(estimates, key=rank, reverse=True)


def is_gain(before: Trial, after: Trial) -> bool:
    """Whether a sweep was worth it; one from or to infinity is not."""
    return signal(after.figures) - signal(before.figures) >= LEAST_SWEEP_GAIN


def better(one: Trial, other: Trial) -> Trial:
    return max(one, other, key=rank)


def rank(trial: Trial) -> tuple[bool, float, float]:
    """A graph that meets the budget before one that does not, of those the cheaper one, and then the closer one."""
    return not trial.failures, 0.0 if trial.failures else -trial.price, signal(trial.figures)


def say(trial: Trial) -> None:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in trial.figures.items() if value is not None)
    verdict = "within the budget" if not trial.failures else "; ".join(trial.failures)
    print(f"{len(trial.float_layers)} layers in float: {figures}: {verdict}", file=sys.stderr)
