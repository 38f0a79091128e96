"""Compute how many times as fast one contender is as another, with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnx_release.core.addresses import address
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics, SettingMetrics

RESAMPLES = 2000
CONFIDENCE = 0.95
# An interval whose ends are further apart than this factor says almost nothing about the speed-up.
WIDEST = 3.0
OTHER_WORK = "other work took cores"
TOO_WIDE = f"the interval is wider than a factor of {WIDEST:g}"


@dataclass(frozen=True)
class Speedup:
    """How many times as fast one contender is as another, with the ends of its 95 % interval.

    `value` is None if one of the two could not be timed. The base itself is 1, from 1 to 1. Other work took cores in
    `disturbed` of its `rounds`.
    """

    value: float | None
    low: float | None
    high: float | None
    disturbed: int = 0
    rounds: int = 0

    @property
    def doubt(self) -> str:
        """Why the speed-up counts as not measured, in a few words; empty if it is measured, or is None."""
        if self.value is None or self.is_base:
            return ""
        if mostly_disturbed(self.disturbed, self.rounds):
            return OTHER_WORK
        if self.low is None or self.high is None or self.low <= 0 or self.high / self.low > WIDEST:
            return OTHER_WORK if self.disturbed else TOO_WIDE
        return ""

    @property
    def measured(self) -> bool:
        return self.value is not None and not self.doubt

    @property
    def figures(self) -> tuple[float, float, float]:
        """The value and the ends of its interval. Raises ValueError if there are none."""
        if self.value is None or self.low is None or self.high is None:
            raise ValueError("a speed-up without a value or without an interval has no figures")
        return self.value, self.low, self.high

    @property
    def is_base(self) -> bool:
        """Whether this is the base over itself, which has no interval."""
        return (self.value, self.low, self.high) == (1, 1, 1)

    @property
    def no_difference(self) -> bool:
        """Whether it is open which of the two is faster.

        An interval without 1 says which, however wide it is, if the times are not those of other work.
        """
        if self.low is None or self.high is None or mostly_disturbed(self.disturbed, self.rounds):
            return True
        return no_difference(self.low, self.high)


@dataclass(frozen=True)
class Rounds:
    """The rounds of a run that count, and how many of them were disturbed by other work."""

    rounds: int
    disturbed_rounds: int


def over_eager(
    timing: ContenderMetrics, run: BenchmarkMetrics | Rounds, setting: SettingMetrics | None = None
) -> Speedup:
    """Return a contender's speed-up over PyTorch eager, in a run of the benchmark or at one of its other settings."""
    ends = timing.speedup_low, timing.speedup_high
    return Speedup(timing.speedup_vs_eager, *ends, (setting or run).disturbed_rounds, run.rounds)


def over_compile(
    timing: ContenderMetrics, run: BenchmarkMetrics | Rounds, setting: SettingMetrics | None = None
) -> Speedup:
    """Return the same over torch.compile."""
    ends = timing.speedup_vs_compile_low, timing.speedup_vs_compile_high
    return Speedup(timing.speedup_vs_compile, *ends, (setting or run).disturbed_rounds, run.rounds)


def mostly_disturbed(disturbed: int, rounds: int) -> bool:
    """Return whether other work took cores in most rounds, so that their times say little about the contenders."""
    return 2 * disturbed > rounds


def describe_doubt(speedup: Speedup, model: str) -> str:
    """Say why a model's speed-up is not measured and what to do, in two sentences of Markdown; "" if it is measured."""
    if speedup.doubt == OTHER_WORK:
        benchmark = address("benchmark", model)
        return (
            f"Other work took cores in {speedup.disturbed} of {speedup.rounds} rounds. End that work or take a quiet "
            f"machine, then measure again: `dvc repro -f -s {benchmark}`, and then `make repro MODEL={model}` for the "
            "stages after it."
        )
    if speedup.doubt:
        return (
            f"Its 95 % interval is wider than a factor of {WIDEST:g}. Raise `benchmark.starts` or `benchmark.rounds` "
            f"in models/{model}/params.yaml, then run `make repro MODEL={model}`."
        )
    return ""


def speedup_interval(base: Sequence[float], own: Sequence[float], starts: int, seed: int) -> tuple[float, float, float]:
    """Return the median of the ratios `base` / `own`, and a 95 % bootstrap interval of it, symmetric in the logarithm.

    The pairs come from `starts` starts of the processes, equally many from each, one start after the other. The
    bootstrap resamples starts, and within each drawn start its pairs; this gives the standard error. A percentile
    interval of so few starts would contain the truth far too seldom, so the variance is multiplied by n / (n - 1), and
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
    margin = standard_errors(units - 1) * error
    return math.exp(estimate), math.exp(estimate - margin), math.exp(estimate + margin)


def no_difference(low: float, high: float) -> bool:
    """Return whether the interval of a speed-up leaves open which of the two is faster."""
    return low <= 1 <= high


def standard_errors(freedom: int) -> float:
    """Return half of a 95 % interval in standard errors, for so many degrees of freedom, by Student's t."""
    from scipy.special import stdtrit  # its import takes half a second, and many tools compare no timings

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
