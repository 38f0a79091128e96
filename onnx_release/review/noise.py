"""How far a timed figure moves when nothing but the measuring is done again, and whether two of them are further apart.

Two things are asked of a difference. It must be more than processes and rounds differ within the two runs, where the
metrics hold more than one start or round: that is a test. And it must be more than two runs of the same are apart,
which no run can know of itself: that is an allowance, measured by `python -m benchmarks.compare`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy.special import stdtr, stdtrit

from onnx_release.timing.speedup import CONFIDENCE, WIDEST, speedup_interval

# By how many times a figure of each kind may differ between two runs of the same, in either direction. Each is above
# what was seen beyond the intervals, and beyond what the machine's own speed had changed, in benchmarks/compare.json
# (tests/review/test_noise.py holds them against it) and among the measurements of mobilenet_v2 that this repository has
# committed on one machine: 2.9 times for a load of a file, which is measured once or thrice.
# By how much PyTorch eager may differ between two runs on a machine that has not changed.
UNCHANGED_MACHINE = 1.15
# Of single calls the larger of this and SLICES_MS is allowed.
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
# What a single call may lose to other work, in ms: a few time slices of the scheduler. Calls of a small network take
# less than one. A load starts a session's threads besides and waits for each of them.
SLICES_MS = {"tail": 10.0, "spread": 10.0, "load": 20.0}
# The profiler counts whole microseconds, in ms; a share of so few has no meaning either.
PROFILE_STEP = 0.005


@dataclass(frozen=True)
class Spread:
    """A figure's interval, and what it was made of: the standard error of its logarithm and the degrees of freedom."""

    low: float
    high: float
    error: float
    freedom: int

    @property
    def too_wide(self) -> bool:
        """Whether the interval says next to nothing of the figure."""
        return self.high / self.low > WIDEST


def spread_of(low: Any, high: Any, units: int) -> Spread | None:
    """The spread behind a 95 % interval of `speedup_interval` over so many starts, or rounds of one start.

    None where there is no interval, or one without a width: PyTorch by itself.
    """
    if low is None or high is None or not low or not math.isfinite(high) or low >= high or units < 2:
        return None
    margin = math.log(high / low) / 2
    return Spread(low, high, margin / float(stdtrit(units - 1, (1 + CONFIDENCE) / 2)), units - 1)


def round_latencies(latencies: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """The "median" and the "mean" of every round, in the order of the rounds, by contender.

    `latencies` has the columns `variant`, `round` and `latency_ms`, as metrics/plots/latency.csv.
    """
    rounds = latencies.groupby(["variant", "round"])["latency_ms"].agg(["median", "mean"])
    return {
        str(name): {statistic: found[statistic].tolist() for statistic in ("median", "mean")}
        for name, found in rounds.groupby(level="variant")
    }


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
    """How sure the change of a timing is: the standard error of its logarithm and the degrees of freedom."""

    error: float
    freedom: int

    @property
    def margin(self) -> float:
        """Half of the 95 % interval of the change, in its logarithm."""
        return self.error * float(stdtrit(self.freedom, (1 + CONFIDENCE) / 2)) if self.error else 0.0


def uncertainty(both: tuple[Spread, Spread], pool: tuple[float, int]) -> Uncertainty:
    """How sure the change between two spreads is.

    The larger of a side's own error and the pooled one counts, so that a contender that differs more from start to
    start than the others is not taken for steadier than it is. A side that is too wide for the pool has nothing but
    its own degrees of freedom.
    """
    error = math.hypot(*(max(item.error, pool[0]) for item in both))
    return Uncertainty(error, min([pool[1], *(item.freedom for item in both if item.too_wide)]))


def pooled(spreads: Iterable[Spread]) -> tuple[float, int]:
    """The mean standard error of the same figure of several contenders and both runs, and its degrees of freedom.

    Three starts say little of how far starts differ, and Student's t makes up for that with an interval in which
    next to anything fits. Contenders together say more, if less than the degrees of freedom count: their ratios to
    PyTorch eager share its starts. The allowance has to cover that (benchmarks/compare.json). A spread that is too wide
    to say anything of its own figure says nothing of the others, unless all are.
    """
    spreads = list(spreads)
    found = [item for item in spreads if not item.too_wide] or spreads
    freedom = sum(item.freedom for item in found)
    squares = sum(item.freedom * item.error**2 for item in found)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


@dataclass(frozen=True)
class Change:
    """By how many times a timing has changed, what the machine has moved taken off.

    What was measured may as well be `noise` times more or less than that: a factor, not below 1.
    """

    times: float
    noise: float


def change_of(base: float, head: float, kind: str, unit: str, drift: float, margin: float | None) -> Change | None:
    """The change of a timing; None for one without a ratio. `margin` is None where it has no interval.

    The interval is what the two runs know of themselves and the allowance is what they do not: two errors that have
    nothing to do with each other, whose half-widths add up as those do, by their squares.
    """
    if base <= 0 or head <= 0:
        return None
    noise = math.exp(math.hypot(math.log(ALLOWANCES[kind]), margin or 0.0))
    if margin is None:
        noise = max(noise, 1 + SLICES_MS.get(kind, 0.0) / base)
    return Change(head / base / moved_by(unit, drift), noise)


def moved_by(unit: str, drift: float) -> float:
    """By how many times a figure of the unit has moved on a machine that takes `drift` times as long.

    Times by as much, rates by as much the other way, and ratios and memory not at all.
    """
    return {"ms": drift, "s": drift, "1/s": 1 / drift}.get(unit, 1.0)


def allowed_range(noise: str, unit: str, drift: float) -> tuple[float, float]:
    """The factors between which one timing may be of another: what two runs of the same differ by, and the machine.

    A machine that takes `drift` times as long has moved a figure by something between 1 and `moved_by`.
    """
    moved = moved_by(unit, drift)
    return min(1.0, moved) / ALLOWANCES[noise], max(1.0, moved) * ALLOWANCES[noise]


def beyond(ratio: float, allowed: tuple[float, float]) -> float:
    """How far a ratio is outside of the range, in its logarithm; 0 within it."""
    low, high = allowed
    return max(math.log(low / ratio), math.log(ratio / high), 0.0)


def difference_p(ratio: float, sure: Uncertainty, allowed: tuple[float, float]) -> float:
    """The two-sided p-value of a ratio of two medians, were the true one within the range that is allowed."""
    distance = beyond(ratio, allowed)
    if distance == 0 or sure.error == 0:
        return 1.0 if distance == 0 else 0.0
    return 2 * float(stdtr(sure.freedom, -distance / sure.error))


def certain(drift: float, margin: float) -> float:
    """The machine's drift as far as it is sure.

    It counts in full where PyTorch eager's interval is no wider than two runs of the same differ by. What the interval
    is wider by is taken off, so that a disturbed yardstick explains nothing.
    """
    doubt = max(margin - math.log(UNCHANGED_MACHINE), 0.0)
    return math.exp(math.copysign(max(abs(math.log(drift)) - doubt, 0.0), math.log(drift)))


def within(base: float, head: float, noise: str, allowed: tuple[float, float]) -> bool:
    """Whether a figure without an interval, times in ms, is within what is allowed from the other side's."""
    if abs(head - base) <= {"profile": PROFILE_STEP, **SLICES_MS}.get(noise, 0.0):
        return True
    if base <= 0 or head <= 0:
        return base == head
    return beyond(head / base, allowed) == 0
