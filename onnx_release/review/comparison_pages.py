"""A comparison as a table for a terminal, as Markdown for a pull request, and as JSON."""

from collections import Counter
from typing import Any

from onnx_release.core.plain_text import align_columns
from onnx_release.report.text import number, table
from onnx_release.review.comparable import OF_THE_CHOICE, contender
from onnx_release.review.compare import Comparison, Row, Verdict, same

# What is shown of the release itself, then and now, whether it differs or not.
RELEASE = ("variant", "size_mb", "agreement", "accuracy_drop", "speedup_vs_eager", "speedup_vs_compile", "not_measured")
HIDDEN: tuple[Verdict, ...] = ("no difference", "not comparable")
# A comment is read on a telephone, and GitHub takes 65,536 characters.
LISTED = 40
LONGEST = 48
HEADER = ("", "figure", "base", "head", "change")


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything, every row included."""
    return {
        "base": comparison.base,
        "head": comparison.head,
        "notes": comparison.notes,
        "counts": comparison.counts(),
        "rows": [
            {
                "figure": row.name,
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
    """For a terminal: what differs, and a count of the rest; or every row."""
    parts = [f"base  {comparison.base}\nhead  {comparison.head}\n{counted(comparison)}"]
    if comparison.notes:
        parts.append("\n".join(f"note: {note}" for note in comparison.notes))
    parts.append(align_columns([("release", "base", "head", ""), *release(comparison)]))
    rows = listed(comparison, everything)
    if rows:
        parts.append(
            align_columns([("verdict", *HEADER[1:], "why"), *((row.verdict, *cells(row), row.reason) for row in rows)])
        )
    if not everything:
        parts += ["\n".join(lines)] if (lines := left_out(comparison)) else []
    return "\n\n".join(parts)


def as_markdown(comparison: Comparison, everything: bool) -> str:
    """For a comment on a pull request: what is worse, the release, what differs otherwise, and a count of the rest."""
    rows = listed(comparison, everything)
    told = rows if everything else without_repeats(rows)
    shown = told if everything else told[:LISTED]
    worse = [row for row in shown if row.verdict == "worse"]
    parts = [
        f"### Compared with {comparison.base}",
        f"Head is {comparison.head}. **{counted(comparison)}**",
        "\n".join(f"- {note}" for note in comparison.notes),
        changes(worse),
        table(("release", "base", "head", ""), (map(escaped, line) for line in release(comparison))),
        changes([row for row in shown if row not in worse]),
    ]
    lines = []
    if len(told) < len(rows):
        lines.append(f"{len(rows) - len(told)} that tell the same again (`python -m tools.compare` prints them)")
    if len(shown) < len(told):
        lines.append(f"{len(told) - len(shown)} more differ: `python -m tools.compare` prints all of them")
    if not everything:
        lines += left_out(comparison)
    return "\n\n".join(part for part in [*parts, "\n".join(f"- {line}" for line in lines)] if part)


def changes(rows: list[Row]) -> str:
    """A table in Markdown with a line for each row; empty without any."""
    lines = [(marked(row), escaped(f"`{row.name}`"), *map(escaped, cells(row)[1:])) for row in rows]
    return table(HEADER, lines) if lines else ""


def without_repeats(rows: list[Row]) -> list[Row]:
    """The first row of each piece of news, of the summary only what no other row tells, and the choice once."""
    first: dict[tuple[str, ...], Row] = {}
    for row in rows:
        news = (row.file, contender(row.key, row.metric), row.metric.news, row.verdict)
        first.setdefault(news if row.metric.news else (row.name,), row)
    told = list(first.values())
    chosen_again = {f"{file}.variant" for file in OF_THE_CHOICE}
    others = {repeated(row) for row in rows if row.file != "summary" and row.name not in chosen_again}
    if any(row.name == "summary.variant" for row in told):
        told = [row for row in told if row.name not in chosen_again]
    return [row for row in told if row.file != "summary" or repeated(row) not in others]


def repeated(row: Row) -> tuple[str, ...]:
    """What a figure of the chosen variant and its repetition in the summary have in common."""
    return row.key.rpartition(".")[2], str(row.base), str(row.head), row.verdict


def counted(comparison: Comparison) -> str:
    """How many figures have which verdict, in words."""
    return ", ".join(f"{count} {verdict}" for verdict, count in comparison.counts().items() if count) or "no figures"


def release(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """The released variant and its figures, then and now, with a verdict where they are not the same."""
    rows = [comparison.row(f"summary.{key}") for key in RELEASE]
    return [
        (
            row.key,
            value(row.base, row.base_interval, row),
            value(row.head, row.head_interval, row),
            "" if same(row.base, row.head) else row.verdict,
        )
        for row in rows
        if row is not None and not {row.base, row.head} <= {None, ""}
    ]


def listed(comparison: Comparison, everything: bool) -> list[Row]:
    """The rows that differ, or all, the worst verdict first. A decision that noise has turned round is shown, too."""
    order = list(comparison.counts())
    rows = [row for row in comparison.rows if everything or row.verdict not in HIDDEN or (row.reason and row.open)]
    return sorted(rows, key=lambda row: order.index(row.verdict))


def left_out(comparison: Comparison) -> list[str]:
    """A line on what is not shown: how many are the same, and how many are not comparable for which reason."""
    reasons = Counter(row.reason for row in comparison.rows if row.verdict == "not comparable")
    lines = [f"{count} not comparable, {reason}" for reason, count in reasons.most_common()]
    same = sum(row.verdict == "no difference" for row in comparison.rows)
    return [*lines, f"{same} without difference (--all lists them)"]


def cells(row: Row) -> tuple[str, str, str, str]:
    """Name, both values with their intervals, and the change."""
    both = (value(row.base, row.base_interval, row), value(row.head, row.head_interval, row))
    return row.name, *both, change(row)


def value(content: Any, interval: tuple[float, float] | None, row: Row) -> str:
    """A value with its unit and interval, in as many digits as tell both sides apart."""
    if content is None:
        return "–"
    if isinstance(content, bool):
        return "yes" if content else "no"
    if not isinstance(content, int | float):
        text = str(content)
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    unit = f" {row.metric.unit}" if row.metric.unit else ""
    ends = f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
    return f"{number(content, digits_apart(row))}{unit}{ends}"


def digits_apart(row: Row) -> int:
    """The fewest significant digits, from three on, that show that both sides differ if they do."""
    if not isinstance(row.base, int | float) or not isinstance(row.head, int | float) or row.base == row.head:
        return 3
    return next((digits for digits in range(3, 6) if number(row.base, digits) != number(row.head, digits)), 6)


def change(row: Row) -> str:
    """By how much a number has changed: shares, decibels and counts by their difference, others by a share of base."""
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


def marked(row: Row) -> str:
    return f"**{row.verdict}**" if row.verdict == "worse" else row.verdict


def escaped(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("\n", " ")
