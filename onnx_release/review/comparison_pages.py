"""Write the comparison of one model as a table for a terminal, as Markdown for a pull request, or as JSON."""

from collections import Counter
from typing import Any

from onnx_release.core.plain_text import align_columns
from onnx_release.report.text import number, table
from onnx_release.review.comparable import CHOSEN_ONLY, contender
from onnx_release.review.compare import Comparison, Row, same_value

# The metrics of the release that are shown whether they differ or not.
RELEASE_KEYS = (
    "variant",
    "size_mb",
    "agreement",
    "accuracy_drop",
    "speedup_vs_eager",
    "speedup_vs_compile",
    "not_measured",
)
# A comment is read on a phone, and GitHub takes 65,536 characters: rows at most, and characters of a text.
COMMENT_ROWS = 40
LONGEST_TEXT = 48
HEADER = ("", "metric", "base", "head", "change")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the whole comparison with every row."""
    return {
        "notes": comparison.notes,
        "counts": comparison.counts(),
        "rows": [
            {
                "metric": row.name,
                "unit": row.metric.unit,
                "better": row.metric.better,
                "meaning": row.metric.meaning,
                "base": row.base,
                "base_interval": row.base_interval,
                "head": row.head,
                "head_interval": row.head_interval,
                "change": change(row),
                "verdict": row.verdict,
                "reason": row.reason,
                "p": row.p,
                "allowed_factors": row.allowed,
            }
            for row in comparison.rows
        ],
    }


def as_text(comparison: Comparison, everything: bool) -> str:
    """Write the rows that differ and a count of the others, or every row, for a terminal."""
    parts = [counted(comparison)]
    if comparison.notes:
        parts.append("\n".join(f"note: {note}" for note in comparison.notes))
    parts.append(align_columns([("release", "base", "head", ""), *release(comparison)]))
    rows = listed(comparison, everything)
    if rows:
        parts.append(
            align_columns(
                [("verdict", *HEADER[1:], "why"), *((row.verdict, *row_cells(row), row.reason) for row in rows)]
            )
        )
    if not everything:
        parts += ["\n".join(lines)] if (lines := left_out(comparison)) else []
    return "\n\n".join(parts)


def as_markdown(comparison: Comparison, everything: bool) -> str:
    """Write a part of a comment on a pull request: what is worse, the release, what else differs, and a count."""
    rows = listed(comparison, everything)
    told = rows if everything else without_repeats(rows)
    shown = told if everything else told[:COMMENT_ROWS]
    worse = [row for row in shown if row.verdict == "worse"]
    parts = [
        f"**{counted(comparison)}**",
        "\n".join(f"- {note}" for note in comparison.notes),
        changes(worse),
        table(("release", "base", "head", ""), (map(escaped, line) for line in release(comparison))),
        changes([row for row in shown if row not in worse]),
    ]
    lines = []
    if len(told) < len(rows):
        lines.append(f"{len(rows) - len(told)} more say the same (`python -m tools.compare` prints them)")
    if len(shown) < len(told):
        lines.append(f"{len(told) - len(shown)} more differ: `python -m tools.compare` prints all of them")
    if not everything:
        lines += left_out(comparison)
    return "\n\n".join(part for part in [*parts, "\n".join(f"- {line}" for line in lines)] if part)


def changes(rows: list[Row]) -> str:
    """Return a table in Markdown with a line for each row; empty without any."""
    lines = [(verdict_cell(row), escaped(f"`{row.name}`"), *map(escaped, row_cells(row)[1:])) for row in rows]
    return table(HEADER, lines) if lines else ""


def without_repeats(rows: list[Row]) -> list[Row]:
    """Return the first row of each piece of news, the summary's rows that no other row repeats, and the choice once."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        news = (row.file, contender(row.key, row.metric), row.metric.news, row.verdict)
        first.setdefault(news if row.metric.news else (row.name,), row)
    told = list(first.values())
    chosen_again = {f"{file}.variant" for file in CHOSEN_ONLY}
    others = {repeated(row) for row in rows if row.file != "summary" and row.name not in chosen_again}
    if any(row.name == "summary.variant" for row in told):
        told = [row for row in told if row.name not in chosen_again]
    return [row for row in told if row.file != "summary" or repeated(row) not in others]


def repeated(row: Row) -> tuple[str, ...]:
    """Return what a metric of the chosen variant and its repetition in the summary have in common."""
    return row.key.rpartition(".")[2], str(row.base), str(row.head), row.verdict


def counted(comparison: Comparison) -> str:
    """Write how many metrics have which verdict."""
    return ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts().items() if count) or "no metrics"


def release(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return the released variant and its metrics on both sides, with a verdict if they differ."""
    rows = [comparison.row(f"summary.{key}") for key in RELEASE_KEYS]
    return [
        (
            row.key,
            value(row.base, row.base_interval, row),
            value(row.head, row.head_interval, row),
            "" if same_value(row.base, row.head) else row.verdict,
        )
        for row in rows
        if row is not None and not {row.base, row.head} <= {None, ""}
    ]


def listed(comparison: Comparison, everything: bool) -> list[Row]:
    """Return the rows that differ, or all, the worst verdict first. Decisions that noise changed are listed, too."""
    order = list(comparison.counts())
    rows = [row for row in comparison.rows if everything or row.moved]
    return sorted(rows, key=lambda row: order.index(row.verdict))


def left_out(comparison: Comparison) -> list[str]:
    """Write lines about the rows that are not shown: how many are not comparable, by reason, and how many the same."""
    reasons = Counter(row.reason for row in comparison.rows if row.verdict == "not comparable")
    lines = [f"{count} not comparable, {reason}" for reason, count in reasons.most_common()]
    same = sum(row.verdict == "no difference" for row in comparison.rows)
    return [*lines, f"{same} without difference (--all lists them)"]


def row_cells(row: Row) -> tuple[str, str, str, str]:
    """Return the name, both values with their intervals, and the change."""
    both = (value(row.base, row.base_interval, row), value(row.head, row.head_interval, row))
    return row.name, *both, change(row)


def value(content: Any, interval: tuple[float, float] | None, row: Row) -> str:
    """Write a value with its unit and interval, in enough digits to tell both sides apart."""
    if content is None:
        return "–"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if not isinstance(content, int | float):
        text = str(content)
        return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    unit = f" {row.metric.unit}" if row.metric.unit else ""
    ends = f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
    return f"{number(content, digits_apart(row))}{unit}{ends}"


def digits_apart(row: Row) -> int:
    """Return the fewest significant digits, at least three, that show a difference of the two sides if there is one."""
    if not isinstance(row.base, int | float) or not isinstance(row.head, int | float) or row.base == row.head:
        return 3
    return next((digits for digits in range(3, 6) if number(row.base, digits) != number(row.head, digits)), 6)


def change(row: Row) -> str:
    """Write by how much a number has changed: for shares, decibels and counts a difference, else a share of base."""
    if isinstance(row.base, bool) or not all(isinstance(side, int | float) for side in (row.base, row.head)):
        return ""
    difference = row.head - row.base
    counts = isinstance(row.base, int) and isinstance(row.head, int)
    shares = not row.metric.noise and not row.metric.unit and max(abs(row.base), abs(row.head)) <= 1
    if difference == 0:
        return ""
    if row.metric.unit == "dB" or counts or shares or row.base == 0:
        unit = f" {row.metric.unit}" if row.metric.unit == "dB" else ""
        return ("+" if difference > 0 else "-") + number(abs(difference)) + unit
    return f"{difference / abs(row.base):+.1%}".replace("%", " %")


def verdict_cell(row: Row) -> str:
    """Return the verdict, in bold if it is worse."""
    return f"**{row.verdict}**" if row.verdict == "worse" else row.verdict


def escaped(text: str) -> str:
    """Return a text that is safe in a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
