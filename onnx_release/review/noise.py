"""Compute the noise of a timing, and whether two timings differ by more.

A difference has to pass two hurdles. It must be larger than processes and rounds differ within the two runs, if the
metrics have more than one start or round: a test finds that out. It must also be larger than two runs of the same
program differ, which no single run shows: that is an allowance, measured by `python -m benchmarks.compare`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from onnx_release.timing.speedup import WIDEST, speedup_interval, standard_errors

if TYPE_CHECKING:
    import pandas as pd

Statistic = Literal["median", "mean"]

# The factor by which PyTorch eager may differ between two runs on a machine that has not changed.
UNCHANGED_MACHINE = 1.15
# The factor by which a metric of each kind may differ between two runs of the same program, in either direction. Each
# is above what was seen in benchmarks/compare.json (tests/review/test_noise.py compares them), with the intervals and
# the change of the machine's speed taken off, and above what was seen among the measurements of mobilenet_v2 that this
# repository has committed on one machine: 2.9 for a load of a file, which is measured once or three times.
# Single calls may differ by this or by SLICES_MS, whichever is larger.
ALLOWANCES = {
    "speedup": 1.15,
    "fastest": 1.25,
    "tail": 2.0,
    "spread": 10.0,
    "load": 4.0,
    "memory": 1.1,
    "preparation": 1.75,
    "profile": 2.5,
    "wall": 1.75,
}
# The time that a single call may lose to other work, in ms: a few time slices of the scheduler. A call of a small
# network takes less than one. A load also starts a session's threads and waits for each of them.
SLICES_MS = {"tail": 10.0, "spread": 10.0, "load": 20.0}
# In ms: the profiler counts whole microseconds, so smaller differences mean nothing. Nor do such shares.
PROFILE_STEP = 0.005


@dataclass(frozen=True)
class Spread:
    """A metric's interval, with the standard error of its logarithm and the degrees of freedom behind it."""

    low: float
    high: float
    error: float
    freedom: int

    @property
    def too_wide(self) -> bool:
        """Return whether the interval says almost nothing about the metric."""
        return self.high / self.low > WIDEST


def spread_of(low: Any, high: Any, units: int) -> Spread | None:
    """Return the spread behind a 95 % interval of `speedup_interval` over `units` starts, or rounds of one start.

    None if there is no interval, or one without a width: PyTorch over itself.
    """
    if low is None or high is None or not low or not math.isfinite(high) or low >= high or units < 2:
        return None
    margin = math.log(high / low) / 2
    return Spread(low, high, margin / standard_errors(units - 1), units - 1)


def round_latencies(latencies: "pd.DataFrame", contender: str, statistic: Statistic) -> list[float]:
    """Return the median or the mean of every round of a contender, in the order of the rounds.

    `latencies` has the columns `variant`, `round` and `latency_ms`, as plots/latency.csv of a model.
    """
    rounds = latencies[latencies["variant"] == contender].groupby("round")["latency_ms"]
    found: list[float] = rounds.agg(statistic).tolist()
    return found


def rounds_spread(rounds: Sequence[float], starts: int) -> Spread | None:
    """Return the spread of a contender's latency over starts and, within them, rounds.

    None if there are fewer than two rounds, or if they do not divide by the starts.
    """
    if starts < 1 or len(rounds) < 2 or len(rounds) % starts:
        return None
    _, low, high = speedup_interval(rounds, [1.0] * len(rounds), starts, seed=0)
    return spread_of(low, high, starts if starts > 1 else len(rounds))


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of the change of a timing: the standard error of its logarithm and the degrees of freedom."""

    error: float
    freedom: int

    @property
    def margin(self) -> float:
        """Return half of the 95 % interval of the change, in its logarithm."""
        return self.error * standard_errors(self.freedom) if self.error else 0.0


def uncertainty(both: tuple[Spread, Spread], pool: tuple[float, int]) -> Uncertainty:
    """Return the uncertainty of the change between two spreads.

    The larger of a side's own error and the pooled one counts, so that a contender that differs more from start to
    start than the others is not taken for a steadier one. A side that is too wide for the pool has only its own degrees
    of freedom.
    """
    error = math.hypot(*(max(item.error, pool[0]) for item in both))
    return Uncertainty(error, min([pool[1], *(item.freedom for item in both if item.too_wide)]))


def pooled(spreads: Iterable[Spread]) -> tuple[float, int]:
    """Return the mean standard error of a metric over several contenders and both runs, and its degrees of freedom.

    Three starts say little about how much starts differ, and Student's t then gives an interval in which almost
    anything fits. Contenders together say more, though less than the degrees of freedom count, since their ratios to
    PyTorch eager share its starts. The allowance has to cover that (benchmarks/compare.json). A spread that is too wide
    to say anything about its own metric says nothing about the others, unless all are.
    """
    spreads = list(spreads)
    found = [item for item in spreads if not item.too_wide] or spreads
    freedom = sum(item.freedom for item in found)
    squares = sum(item.freedom * item.error**2 for item in found)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


@dataclass(frozen=True)
class Change:
    """The ratio of a timing to the base's, without the change of the machine's speed.

    The true ratio may be `noise` times larger or smaller: a factor, not below 1.
    """

    times: float
    noise: float


def change_of(base: float, head: float, kind: str, unit: str, drift: float, margin: float | None) -> Change | None:
    """Return the change of a timing; None for one without a ratio. `margin` is None if it has no interval.

    The interval has the error that the two runs show, and the allowance the error that they do not. The two are
    independent, so the squares of their half-widths add up.
    """
    if base <= 0 or head <= 0:
        return None
    noise = math.exp(math.hypot(math.log(ALLOWANCES[kind]), margin or 0.0))
    if margin is None:
        noise = max(noise, 1 + SLICES_MS.get(kind, 0.0) / base)
    return Change(head / base / moved_by(unit, drift), noise)


def moved_by(unit: str, drift: float) -> float:
    """Return the factor by which a metric of the unit changes on a machine that takes `drift` times as long.

    Times change by that factor, and ratios and memory not at all. No rate is compared.
    """
    return drift if unit in ("ms", "s") else 1.0


def allowed_range(noise: str, unit: str, drift: float) -> tuple[float, float]:
    """Return the range of the ratio of two timings that counts as no difference: by the allowance and the machine.

    A machine that takes `drift` times as long changes a metric by a factor between 1 and `moved_by`.
    """
    moved = moved_by(unit, drift)
    return min(1.0, moved) / ALLOWANCES[noise], max(1.0, moved) * ALLOWANCES[noise]


def beyond(ratio: float, allowed: tuple[float, float]) -> float:
    """Return how far a ratio is outside of the range, in its logarithm; 0 within it."""
    low, high = allowed
    return max(math.log(low / ratio), math.log(ratio / high), 0.0)


def difference_p(ratio: float, sure: Uncertainty, allowed: tuple[float, float]) -> float:
    """Return the two-sided p-value of a ratio of two medians if the true one is within the range that is allowed."""
    distance = beyond(ratio, allowed)
    if distance == 0 or sure.error == 0:
        return 1.0 if distance == 0 else 0.0
    from scipy.special import stdtr  # late, as in standard_errors

    return 2 * float(stdtr(sure.freedom, -distance / sure.error))


def certain(drift: float, margin: float) -> float:
    """Return the certain part of the machine's drift.

    All of it counts if PyTorch eager's interval is no wider than two runs of the same program differ. The part of the
    interval beyond that is subtracted, so that a disturbed PyTorch eager explains nothing.
    """
    doubt = max(margin - math.log(UNCHANGED_MACHINE), 0.0)
    return math.exp(math.copysign(max(abs(math.log(drift)) - doubt, 0.0), math.log(drift)))


def within(base: float, head: float, noise: str, allowed: tuple[float, float]) -> bool:
    """Return whether a metric without an interval, times in ms, differs by no more than is allowed."""
    if abs(head - base) <= {"profile": PROFILE_STEP, **SLICES_MS}.get(noise, 0.0):
        return True
    if base <= 0 or head <= 0:
        return base == head
    return beyond(head / base, allowed) == 0
