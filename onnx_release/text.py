"""How pages write numbers, and tables in Markdown."""

from collections.abc import Iterable

from onnx_release.speedup import no_difference


def number(value: float | None, digits: int = 3) -> str:
    """A number in `digits` significant digits; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def percent(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value * 100:.1f} %"


def speedup_cell(speedup: float | None, low: float | None, high: float | None) -> str:
    """The speed-up with its interval; the base of it has none."""
    if speedup is None or low is None or high is None:
        return "–"
    if low == high:
        return number(speedup)
    interval = f"[{number(low)}, {number(high)}]"
    return f"no difference {interval}" if no_difference(low, high) else f"{number(speedup)} {interval}"


def share_cell(value: float | None, low: float | None, high: float | None) -> str:
    """A share with its interval."""
    if value is None or low is None or high is None:
        return percent(value)
    return f"{percent(value)} [{percent(low)}, {percent(high)}]"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Markdown."""
    lines = [list(header), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("|" + "|".join(f" {cell} " if cell else " " for cell in line) + "|" for line in lines)
