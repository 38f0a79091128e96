"""Write lists and tables as plain text, for messages and for a terminal."""

from collections.abc import Iterable, Sequence


def first_few(items: Sequence[str], most: int = 10) -> str:
    """Join the first `most` items with commas, and say how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def first_few_lines(items: Sequence[str], most: int = 10) -> str:
    """Write the same as `first_few`, each item on an indented line of its own."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "".join(f"\n  {item}" for item in [*items[:most], *more])


def count_of(count: int, noun: str) -> str:
    """Write a count with its noun: 1 class, 2 classes, 0 axes."""
    if count == 1:
        return f"1 {noun}"
    endings = {"is": "es", "s": "ses", "y": "ies"}
    ending = next((ending for ending in endings if noun.endswith(ending)), "")
    return f"{count} {noun.removesuffix(ending)}{endings.get(ending, 's')}"


def align_columns(lines: Iterable[Sequence[str]]) -> str:
    """Write the cells of each line in columns, two spaces apart."""
    found = list(lines)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in found
    )
