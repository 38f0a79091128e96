"""What each variant keeps of PyTorch's answers for its latency, and which of them no other one beats."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_release.core.spec import Budget
from onnx_release.core.variants import SHIPPABLE
from onnx_release.measure.budget import signal
from onnx_release.report.pareto import pareto_front
from onnx_release.report.text import number, percent


@dataclass(frozen=True)
class Quality:
    """A key of metrics/validate/VARIANT.json, higher is better; `share` if it is one of 0 to 1."""

    key: str
    label: str
    share: bool

    def written(self, value: float) -> str:
        """The SQNR is infinite without any error, and minus infinity where an output is not finite."""
        if math.isinf(value):
            return "no error" if value > 0 else "not finite"
        return percent(value) if self.share else f"{number(value)} dB"

    def difference(self, value: float) -> str:
        """The difference of two shares is in percentage points."""
        if not self.share:
            return f"{number(value)} dB"
        points = number(value * 100)
        return f"{points} point{'' if points == '1' else 's'}"


SQNR = Quality("sqnr_db", "SQNR, dB", share=False)


@dataclass(frozen=True)
class Point:
    """A variant that was timed. Latencies in ms; without an interval, `low` and `high` are the value."""

    name: str
    latency: float
    quartile_low: float
    quartile_high: float
    value: float
    low: float
    high: float
    releasable: bool
    on_front: bool
    alike: tuple[str, ...]  # variants that no difference in speed sets apart from it


def qualities(rows: Sequence[Mapping[str, Any]], agreement: str) -> list[Quality]:
    """What variants are judged by: accuracy where samples are labelled, else agreement; and always SQNR, the finest."""
    for quality in (Quality("accuracy", "accuracy", True), Quality("agreement", agreement, True)):
        if all(row[quality.key] is not None for row in rows):
            return [quality, SQNR]
    return [SQNR]


def make_points(
    rows: Sequence[Mapping[str, Any]], latencies: Mapping[str, np.ndarray], quality: Quality
) -> list[Point]:
    """A point for each row that was timed; the front is that of the variants that may be released."""
    timed = [row for row in rows if not row["timing"]["failure"]]
    values = [signal(dict(row)) if quality == SQNR else float(row[quality.key]) for row in timed]
    releasable = [bool(row["passed"]) and row["name"] in SHIPPABLE for row in timed]
    on_front = pareto_front(
        [
            (value, -row["timing"]["latency_ms"]["median"]) if may else (None, None)
            for row, value, may in zip(timed, values, releasable, strict=True)
        ]
    )
    points = []
    for row, value, may, on in zip(timed, values, releasable, on_front, strict=True):
        low, high = np.percentile(latencies[row["name"]], [25, 75])
        points.append(
            Point(
                row["name"],
                row["timing"]["latency_ms"]["median"],
                float(low),
                float(high),
                value,
                row.get(f"{quality.key}_low", value),
                row.get(f"{quality.key}_high", value),
                may,
                on,
                tuple(row["timing"]["no_difference_from"].split(", ")),
            )
        )
    return points


def front(points: Sequence[Point]) -> list[Point]:
    """The points on the Pareto front, the fastest first."""
    return sorted((point for point in points if point.on_front), key=lambda point: (point.latency, point.value))


def standing(point: Point, points: Sequence[Point], quality: Quality) -> str:
    """Where a variant stands: which one beats it, or what it gains over the next faster one on the front."""
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
    """What a point of the front gains over the one before it, and what that costs."""
    if (faster.latency, faster.value) == (point.latency, point.value):
        return f"the same as {faster.name}"
    slower = f"{number(point.latency - faster.latency)} ms slower{noise(point, faster)}"
    if math.isinf(point.value):
        return f"has no error, {faster.name} has; {slower}"
    return f"{quality.difference(point.value - faster.value)} better than {faster.name} and {slower}"


def noise(one: Point, other: Point) -> str:
    """What of the difference of two points lies within the noise."""
    within = []
    if (one.low < one.high or other.low < other.high) and one.low <= other.high and other.low <= one.high:
        within.append("the intervals overlap")
    if other.name in one.alike:
        within.append("no difference in speed")
    return f" ({', '.join(within)})" if within else ""


def levels(rows: Sequence[Mapping[str, Any]], quality: Quality, budget: Budget | None) -> dict[str, float]:
    """Lines to hold the points against: PyTorch's own accuracy, and what the budget asks of variants of fewer bits."""
    known: dict[str, float | None] = {}
    asked = None
    if quality.key == "accuracy":
        known["PyTorch"] = torch = rows[0]["accuracy_torch"]
        asked = torch - budget.accuracy_drop if budget and budget.accuracy_drop is not None else None
    elif budget:
        asked = getattr(budget, quality.key)
    known["budget"] = asked
    return {name: level for name, level in known.items() if level is not None}


def tradeoff_rows(rows: Sequence[Mapping[str, Any]], latencies: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """metrics/plots/tradeoff.csv, a row for each variant that was timed: its qualities, and its latency in ms."""
    of = {row["name"]: row for row in rows}
    keys = [f"{key}{end}" for key in ("agreement", "accuracy") for end in ("", "_low", "_high")]
    return [
        {
            "variant": point.name,
            "latency_ms": point.latency,
            "latency_ms_low": round(point.quartile_low, 4),
            "latency_ms_high": round(point.quartile_high, 4),
            "sqnr_db": of[point.name]["sqnr_db"],
            **{key: of[point.name][key] for key in keys},
        }
        for point in make_points(rows, latencies, SQNR)
    ]
