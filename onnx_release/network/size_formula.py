"""Find the formula by which the size of an output follows from a size of the inputs."""

from collections.abc import Sequence
from fractions import Fraction

LARGEST_DIVISOR = 1024
# Networks halve sizes more often than they divide them by another number.
DIVISORS = sorted(range(2, LARGEST_DIVISOR + 1), key=lambda divisor: (divisor & (divisor - 1) != 0, divisor))


def size_formula(name: str, given: Sequence[int], found: Sequence[int]) -> str | None:
    """Return a formula, in Python, that gives each of the sizes `found` from that in `given`, or None without one.

    It is the first that fits of a * size + b and (size + b) // k, with the b nearest to zero.
    """
    (first, *_, last), (small, *_, large) = given, found
    slope = Fraction(large - small, last - first) if last != first else Fraction(0)
    if slope.denominator == 1:
        rest = small - int(slope) * first
        if all(slope * size + rest == wanted for size, wanted in zip(given, found, strict=True)):
            return (name if slope == 1 else f"{slope} * {name}") + added(rest)
    for divisor in DIVISORS:
        # wanted <= (size + b) / divisor < wanted + 1
        bounds = [wanted * divisor - size for size, wanted in zip(given, found, strict=True)]
        lowest, highest = max(bounds), min(bounds) + divisor - 1
        if lowest <= highest:
            rest = (
                0
                if lowest <= 0 <= highest
                else divisor - 1
                if lowest <= divisor - 1 <= highest
                else max(lowest, min(highest, 0))
            )
            if rest == divisor - 1:
                return f"-(-{name} // {divisor})"
            return f"({name}{added(rest)}) // {divisor}" if rest else f"{name} // {divisor}"
    return None


def added(value: int) -> str:
    """Return what is added, as in " + 1"; empty for nothing."""
    return f" {'+' if value > 0 else '-'} {abs(value)}" if value else ""
