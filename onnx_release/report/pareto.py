"""Find the Pareto front: the points that no other point beats."""

import math
from collections.abc import Sequence

Coordinates = Sequence[float | None]


def pareto_front(points: Sequence[Coordinates]) -> list[bool]:
    """Return whether each point is on the front. Higher is better on every axis; negate an axis where lower is.

    A point is off the front when another is at least as good on every axis and better on one. Equal points stay on it
    together. A point with None or NaN on any axis cannot be compared: it is never on the front and beats nothing.
    """
    numbers = [[math.nan if value is None else float(value) for value in point] for point in points]
    known = [point for point in numbers if not any(map(math.isnan, point))]
    return [point in known and not any(dominates(other, point) for other in known) for point in numbers]


def dominates(one: list[float], other: list[float]) -> bool:
    """Return whether `one` is at least as good on every axis, and better on one."""
    return one != other and all(mine >= theirs for mine, theirs in zip(one, other, strict=True))
