"""Compare the variants by quality and latency, and find those that no other one beats."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnx_release.choice.choice import Candidate, releasable
from onnx_release.core.spec import Budget
from onnx_release.core.variants import SHIPPABLE
from onnx_release.report.pareto import pareto_front
from onnx_release.report.text import number, percent
from onnx_release.validate.metrics import ValidateMetrics


@dataclass(frozen=True)
class Quality:
    """A key of validate/VARIANT.json for which higher is better; `share` if it is from 0 to 1."""

    key: str
    label: str
    share: bool

    def of(self, validation: ValidateMetrics) -> float | None:
        """Return the value of a variant; None if the metrics have none."""
        if self.key == "sqnr_db":
            return validation.closeness.signal
        value: float | None = getattr(validation, self.key)
        return value

    def written(self, value: float) -> str:
        """Write a value. The SQNR is infinite without any error, and minus infinity if an output is not finite."""
        if math.isinf(value):
            return "no error" if value > 0 else "not finite"
        return percent(value) if self.share else f"{number(value)} dB"

    def difference(self, value: float) -> str:
        """Write a difference of two values; that of two shares is in percentage points."""
        if not self.share:
            return f"{number(value)} dB"
        points = number(value * 100)
        return f"{points} point{'' if points == '1' else 's'}"


SQNR = Quality("sqnr_db", "SQNR, dB", share=False)


@dataclass(frozen=True)
class Point:
    """A variant that was timed. Latencies are in ms; without an interval, `low` and `high` are the value."""

    name: str
    latency: float
    quartile_low: float
    quartile_high: float
    value: float
    low: float
    high: float
    releasable: bool
    on_front: bool
    alike: tuple[str, ...]  # variants without a measured difference in speed from it


def qualities(candidates: Sequence[Candidate], agreement: str) -> list[Quality]:
    """Return what to compare variants by: accuracy if samples are labelled, else agreement; and always SQNR."""
    for quality in (Quality("accuracy", "accuracy", True), Quality("agreement", agreement, True)):
        if all(quality.of(one.validation) is not None for one in candidates):
            return [quality, SQNR]
    return [SQNR]


def make_points(candidates: Sequence[Candidate], latencies: Mapping[str, np.ndarray], quality: Quality) -> list[Point]:
    """Return a point for each candidate that was timed; the front is that of the variants that may be released."""
    timed = [(one, one.timing.latency_ms.median) for one in candidates if one.timing.latency_ms.median is not None]
    values = [quality.of(one.validation) or 0.0 for one, _ in timed]
    may_ship = {one.name for one in releasable(candidates)}
    on_front = pareto_front(
        [
            (value, -latency) if one.name in may_ship else (None, None)
            for (one, latency), value in zip(timed, values, strict=True)
        ]
    )
    points = []
    for (one, latency), value, on in zip(timed, values, on_front, strict=True):
        quartile_low, quartile_high = np.percentile(latencies[one.name], [25, 75])
        points.append(
            Point(
                name=one.name,
                latency=latency,
                quartile_low=float(quartile_low),
                quartile_high=float(quartile_high),
                value=value,
                low=getattr(one.validation, f"{quality.key}_low", value),
                high=getattr(one.validation, f"{quality.key}_high", value),
                releasable=one.name in may_ship,
                on_front=on,
                alike=tuple(one.timing.no_difference_from.split(", ")),
            )
        )
    return points


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points on the Pareto front, the fastest first."""
    return sorted((point for point in points if point.on_front), key=lambda point: (point.latency, point.value))


def standing(point: Point, points: Sequence[Point], quality: Quality) -> str:
    """Say which variant beats this one, or what it gains over the next faster one on the front."""
    if not point.releasable:
        return "failed" if point.name in SHIPPABLE else "is never released"
    members = front(points)
    if not point.on_front:
        better = next(one for one in members if one.latency <= point.latency and one.value >= point.value)
        return f"beaten by {better.name}{noise(point, better)}"
    faster = members[: members.index(point)]
    if faster:
        return gain(point, faster[-1], quality)
    rivals = [one.name for one in points if one.releasable and one is not point and one.name in point.alike]
    return f"the fastest, or as fast as {', '.join(rivals)}" if rivals else "the fastest"


def gain(point: Point, faster: Point, quality: Quality) -> str:
    """Say what a point of the front gains over the next faster one, and what that costs."""
    if (faster.latency, faster.value) == (point.latency, point.value):
        return f"the same as {faster.name}"
    slower = f"{number(point.latency - faster.latency)} ms slower{noise(point, faster)}"
    if math.isinf(point.value):
        return f"no error, unlike {faster.name}, and {slower}"
    return f"{quality.difference(point.value - faster.value)} better than {faster.name} and {slower}"


def noise(one: Point, other: Point) -> str:
    """Say which part of the difference of two points is within the noise."""
    within = []
    if (one.low < one.high or other.low < other.high) and one.low <= other.high and other.low <= one.high:
        within.append("the intervals overlap")
    if other.name in one.alike:
        within.append("no difference in speed")
    return f" ({', '.join(within)})" if within else ""


def levels(candidates: Sequence[Candidate], quality: Quality, budget: Budget | None) -> dict[str, float]:
    """Return the levels to compare points with: PyTorch's accuracy, and the budget with reduced precision."""
    known: dict[str, float | None] = {}
    asked = None
    if quality.key == "accuracy":
        known["PyTorch"] = torch = candidates[0].validation.accuracy_torch
        if torch is not None and budget and budget.accuracy_drop is not None:
            asked = torch - budget.accuracy_drop
    elif budget:
        asked = getattr(budget, quality.key)
    known["budget"] = asked
    return {name: level for name, level in known.items() if level is not None}
