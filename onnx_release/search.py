"""Find the float layers and the ranges with which a quantized graph keeps within `budget`, with the least float work.

1. Quantize everything and fit the weights (see onnx_release/rounding.py). Where that is within the budget, go to 5.
2. Sensitivity: put one layer at a time back into float, and see what the answers gain.
3. Candidates: the layers that gain most, those that gain most for their multiply-adds, and the first of the network,
   1, 2, 3, 5, 8 ... of them. Neighbours gain more together than apart, since nothing between them is quantized. Each
   candidate is estimated with the weights at hand.
4. Fit anew those that seem to meet the budget, least float work first, until one does.
5. Refine the ranges of the best one by its answers (see onnx_release/refine.py), for as long as there is work left.

`budget.minutes` is an amount of work, not of time: the same parameters give the same bytes on a fast and a slow day.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto
from tqdm import tqdm

from onnx_release.activations import cut, float_values, session_of
from onnx_release.budget import over_budget
from onnx_release.judge import Judge
from onnx_release.layers import initializers, weighted_layers
from onnx_release.params import Budget
from onnx_release.qdq import Ranges, insert_qdq, quantized_activations, with_float_layers
from onnx_release.refine import refine_ranges
from onnx_release.rounding import copy_fit, fit_weights
from onnx_release.samples import with_batch_axis
from onnx_release.session import run_session
from onnx_release.targets import Target

# Multiply-adds a second of float32, on two cores of 2020: what turns minutes into work.
MACS_PER_SECOND = 50e9
# What a run costs beside its multiply-adds, as so many of them: a fifth of a millisecond.
OVERHEAD_MACS = 10e6
# One fit takes this share of the work, and the refinement of the ranges has at least this one.
FIT_SHARE = 0.2
REFINE_SHARE = 0.15
# Calibration samples, which everything here is fitted to, flatter by up to 1 dB against others (docs/quantization.md).
MARGIN_DB = 1.0
# What neighbours at the head of a network gain, at least, over their estimate when the weights behind are fitted anew:
# with the weights at hand, these still make good an error that is no longer there (docs/quantization.md).
SLACK_DB = 1.0
FEWEST_SAMPLES = 8
# What only compares two figures on the same samples does with few.
FEW_SAMPLES = 32
# What opening a session costs, in runs of a sample.
OPENING = 10
SIZES = (1, 2, 3, 5, 8, 13)


@dataclass
class Work:
    """Runs of one sample through the whole network that may still be made."""

    left: float

    def spend(self, runs: float) -> None:
        self.left -= runs


@dataclass(frozen=True)
class Trial:
    """A quantized graph, the layers that it keeps in float, and its figures on the calibration samples."""

    model: ModelProto
    float_layers: frozenset[str]
    figures: dict[str, Any]
    failures: list[str]


@dataclass(frozen=True)
class Result:
    """The best graph; how many were fitted; how many ranges are not those of calibration."""

    best: Trial
    fitted: int
    refined_ranges: int


def search(model: ModelProto, ranges: Ranges, target: Target, judge: Judge, budget: Budget) -> Result:
    """The first fitted graph that meets the budget, or else the one with the best SQNR, with its ranges refined."""
    macs = multiply_adds(model, judge)
    total = budget.minutes * 60 * MACS_PER_SECOND / (sum(macs.values()) + OVERHEAD_MACS)
    work = Work(total)
    # For every layer, a fit runs half of each of two graphs, in the mean.
    used = spread(len(judge.samples), int(total * FIT_SHARE / max(len(macs), 1)) - OPENING)
    fit_runs = len(macs) * (len(used) + OPENING)
    few = spread(len(judge.samples), FEW_SAMPLES)

    def fitted(float_layers: frozenset[str]) -> Trial:
        quantized = insert_qdq(model, ranges, target, float_layers)
        fit_weights(model, quantized, ranges, target, judge.samples, used)
        work.spend(fit_runs)
        trial = judged(quantized, float_layers, judge, budget)
        say(trial)
        return trial

    def score(trial: ModelProto) -> float:
        work.spend(len(few) + OPENING)
        return signal(judge.figures(trial, few))

    best, tried = fitted(frozenset()), 1
    if best.failures:
        everything = best.model
        gains = sensitivities(everything, model, macs, score, work)

        def estimate(float_layers: frozenset[str]) -> Trial:
            quantized = insert_qdq(model, ranges, target, float_layers)
            copy_fit(everything, quantized, model)
            work.spend(len(judge.samples) + OPENING)
            head = len(float_layers) > 1 and float_layers == frozenset(list(macs)[: len(float_layers)])
            return judged(quantized, float_layers, judge, budget, MARGIN_DB - SLACK_DB if head else MARGIN_DB)

        for float_layers in candidates(gains, macs, estimate, work):
            if tried > 1 and work.left < fit_runs + total * REFINE_SHARE:
                break
            trial = fitted(float_layers)
            tried += 1
            best = better(best, trial)
            if not trial.failures:
                break
    names = [name for name in float_values(model) if name in quantized_activations(best.model)]
    refined, factors = refine_ranges(best.model, names, score, lambda: work.left > 0)
    best = better(best, judged(refined, best.float_layers, judge, budget))
    say(best)
    return Result(best, tried, len(factors) if best.model is refined else 0)


def sensitivities(
    quantized: ModelProto,
    model: ModelProto,
    macs: dict[str, float],
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
    gains: dict[str, float],
    macs: dict[str, float],
    estimate: Callable[[frozenset[str]], Trial],
    work: Work,
) -> list[frozenset[str]]:
    """Sets of float layers: those that seem to meet the budget by float work, then the others by SQNR."""
    by_gain = sorted(gains, key=lambda name: -gains[name])
    by_price = sorted(gains, key=lambda name: -gains[name] / max(macs[name], 1))
    orders = by_gain, by_price, list(macs)
    sets = dict.fromkeys(frozenset(order[:size]) for size in SIZES for order in orders)
    estimates: list[Trial] = []
    for chosen in tqdm(sets, "candidates", unit="set"):
        if estimates and work.left <= 0:
            break
        estimates.append(estimate(chosen))
    price = {trial.float_layers: sum(macs[name] for name in trial.float_layers) for trial in estimates}
    meeting = sorted((trial for trial in estimates if not trial.failures), key=lambda trial: price[trial.float_layers])
    others = sorted((trial for trial in estimates if trial.failures), key=lambda trial: -signal(trial.figures))
    return [trial.float_layers for trial in (*meeting, *others)]


def judged(
    quantized: ModelProto, float_layers: frozenset[str], judge: Judge, budget: Budget, margin_db: float = MARGIN_DB
) -> Trial:
    figures = judge.figures(quantized, range(len(judge.samples)))
    return Trial(quantized, float_layers, figures, over_budget(figures, budget, margin_db))


def better(one: Trial, other: Trial) -> Trial:
    """A graph that meets the budget before one that does not, then the one with the better SQNR."""
    return max(one, other, key=lambda trial: (not trial.failures, signal(trial.figures)))


def signal(figures: dict[str, Any]) -> float:
    """The SQNR in dB: infinite without any error, and worse than any with NaN."""
    if figures["sqnr_db"] is None:
        return np.inf if figures["max_abs_error"] == 0 else -np.inf
    return float(figures["sqnr_db"])


def say(trial: Trial) -> None:
    figures = ", ".join(f"{name} {value:.4g}" for name, value in trial.figures.items() if value is not None)
    verdict = "within the budget" if not trial.failures else "; ".join(trial.failures)
    print(f"{len(trial.float_layers)} layers in float: {figures}: {verdict}", file=sys.stderr)


def spread(count: int, wanted: int) -> Sequence[int]:
    """At least FEWEST_SAMPLES and about `wanted` of `count` indices, evenly spread."""
    return range(0, count, -(-count // max(wanted, FEWEST_SAMPLES)))


def multiply_adds(model: ModelProto, judge: Judge) -> dict[str, float]:
    """Of each layer with weights, by name, for the first sample."""
    layers = weighted_layers(model)
    tensors = initializers(model)
    names = [layer.node.output[0] for layer in layers]
    outputs = run_session(session_of(cut(model, names)), with_batch_axis(judge.samples.inputs(0)))
    macs = {}
    for layer, name in zip(layers, names, strict=True):
        weight = tuple(tensors[layer.weight].dims)
        channels = outputs[name].shape[1 if layer.node.op_type == "Conv" else -1]
        macs[layer.name] = float(np.prod(weight)) * outputs[name].size / channels
    return macs
