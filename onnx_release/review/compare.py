"""Compare the metrics of a model in two revisions; each gets a verdict from its direction and its noise.

Metrics are judged in four ways. Those that are the same in each run (sizes, nodes, SQNR) differ if the digits that are
written differ. Means over samples are tested with the samples of both sides in pairs. Timings are tested with their
starts and rounds, and have an allowance for the difference between two runs of the same program
(onnx_release/review/noise.py). Decisions made by timings differ only if something that they depend on has changed. All
tests of a kind are adjusted together, since among many metrics a few would differ by chance.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args

from onnx_release.core.files import SIGNIFICANT_DIGITS
from onnx_release.core.metrics import Metric
from onnx_release.core.variants import VARIANTS
from onnx_release.performance.metrics import LOADS
from onnx_release.report.metrics import ALL_METRICS, known_metric
from onnx_release.review.comparable import NOT_MEASURED, Pair, contender
from onnx_release.review.noise import (
    ALLOWANCES,
    Change,
    Spread,
    Uncertainty,
    allowed_range,
    change_of,
    difference_p,
    pooled,
    spread_of,
    uncertainty,
    within,
)
from onnx_release.review.revisions import Revision
from onnx_release.review.significance import holm, sign_flip_p

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["worse", "better", "changed", "gone", "new", "no difference", "not comparable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# The verdicts that do not say that a metric has changed.
UNMOVED: tuple[Verdict, ...] = ("no difference", "not comparable")
# The chance that any metric is called different although nothing is, for all tests of a kind together.
LEVEL = 0.05
# The files that the choice of a variant depends on.
CHOICE_INPUTS = ("benchmark", "validate/*")
# The reason if a decision differs and nothing that it depends on does; and why the summary then does not compare.
DECIDED_BY_NOISE = "decided by the noise of timings"
CHOSEN_BY_NOISE = f"another variant, {DECIDED_BY_NOISE}"


@dataclass(frozen=True)
class Row:
    """A metric on both sides; None where a side lacks it or has null. Intervals are (low, high).

    `reason` says why it is not comparable, or explains the verdict if it needs that. `p` is adjusted for all tests of
    its kind, None without a test. `allowed` is the range of a timing's ratio to the base's that counts as no
    difference; `change` is the ratio with its noise.
    """

    file: str
    key: str
    metric: Metric
    base: Any
    head: Any
    verdict: Verdict = "no difference"
    reason: str = ""
    base_interval: tuple[float, float] | None = None
    head_interval: tuple[float, float] | None = None
    p: float | None = None
    allowed: tuple[float, float] | None = None
    change: Change | None = None

    @property
    def name(self) -> str:
        return f"{self.file}.{self.key}"

    @property
    def open(self) -> bool:
        """Return whether the two sides differ and no verdict says so yet."""
        return self.verdict == "no difference" and not same_value(self.base, self.head)

    @property
    def moved(self) -> bool:
        """Return whether the metric differs, or is a decision that noise has changed."""
        return self.verdict not in UNMOVED or bool(self.reason and self.open)


@dataclass(frozen=True)
class Comparison:
    """The compared metrics of one model, a row each; `notes` are sentences to read before them."""

    rows: list[Row]
    notes: list[str]

    def counts(self) -> dict[Verdict, int]:
        """Return how many rows have each verdict, the worst first."""
        return {verdict: sum(row.verdict == verdict for row in self.rows) for verdict in VERDICTS}

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)


def compare(base: Revision, head: Revision) -> Comparison:
    """Compare every metric of the model that either side has.

    Ends of intervals and metrics about the measuring itself are left out.
    """
    pair = Pair(base, head)
    rows = [first_row(pair, *name) for name in compared_metrics(pair)]
    rows = judge_decisions(judge_timings(judge_answers(rows, pair), pair), pair)
    return Comparison(rows, pair.notes())


def timed_interval(pair: Pair, name: str) -> tuple[float, float] | None:
    """Return a timing's interval in the head, by the metric's name; None for a metric without one."""
    file, _, key = name.partition(".")
    known = known_metric(file, key)
    return interval(pair, Row(file, key, known, *pair.both(file, key)), 1) if known.noise else None


def compared_metrics(pair: Pair) -> list[tuple[str, str, Metric]]:
    """List file, key and metric of every row, in the order of the table; variants are in that of the pipeline."""
    keys = {(file, key) for side in pair.values for file, values in side.items() for key in values}
    found = [(file, key, known_metric(file, key)) for file, key in keys if not lacks_calls(pair, file, key)]
    files = {item.file: number for number, item in reversed(list(enumerate(ALL_METRICS)))}
    rows = {item: number for number, item in enumerate(ALL_METRICS)}

    def place(row: tuple[str, str, Metric]) -> tuple[Any, ...]:
        file, key, known = row
        variant = file.partition("/")[2]
        pattern = "validate/*" if variant else file
        order = VARIANTS.index(variant) if variant in VARIANTS else len(VARIANTS)
        owner = contender(key, known) if known.key.startswith("*.") else ""
        return files.get(pattern, len(rows)), order, file, owner, rows.get(known, len(rows)), key

    return sorted((item for item in found if item[2].is_compared), key=place)


def lacks_calls(pair: Pair, file: str, key: str) -> bool:
    """Return whether one side had too few calls for a percentile."""
    if known_metric(file, key).noise != "tail" or not all(key in side.get(file, {}) for side in pair.values):
        return False
    before, after = pair.both(file, key)
    failed = pair.both(file, f"{contender(key, known_metric(file, key))}.failure")
    return (before is None) != (after is None) and not any(failed)


def first_row(pair: Pair, file: str, key: str, known: Metric) -> Row:
    """Return the row with its verdict if that needs no test, and with "no difference" until it is tested if it does."""
    before, after = pair.both(file, key)
    row = Row(file, key, known, before, after)
    row = replace(row, base_interval=interval(pair, row, 0), head_interval=interval(pair, row, 1))
    if known.noise != "decision" and (reason := pair.other_choice(file)):
        return replace(row, verdict="not comparable", reason=reason)
    there = [key in side.get(file, {}) for side in pair.values]
    if not all(there):
        return replace(row, verdict="gone" if there[0] else "new")
    if reason := pair.obstacle(file, key, known):
        return replace(row, verdict="not comparable", reason=reason)
    tested = known.noise or known.column
    return replace(row, verdict=direction(row)) if row.open and not tested else row


def judge_answers(rows: list[Row], pair: Pair) -> list[Row]:
    """Judge means over samples, with the samples of both sides in pairs, by groups."""
    pending = {row.name: row for row in rows if row.metric.column and row.verdict == "no difference"}
    pairs = {name: paired_samples(pair, row) for name, row in pending.items()}
    found = {
        name: sign_flip_p((both["head"] - both["base"]).tolist(), both["group"].tolist())
        for name, both in pairs.items()
        if both is not None
    }
    # If no sample differs, a test could never reject, so the metric does not count among the tests (Tarone, "A Modified
    # Bonferroni Method for Discrete Data", 1990).
    adjusted = holm({name: p for name, p in found.items() if p is not None})
    for name, row in pending.items():
        both = pairs[name]
        if name in adjusted and both is not None:
            p = adjusted[name]
            # Samples with a value on one side only are in the means and not in the test, so the two may disagree.
            agree = ((both["head"] - both["base"]).sum() > 0) == (row.head > row.base)
            verdict = direction(row) if agree else "changed"
            pending[name] = replace(row, p=p, verdict=verdict if p < LEVEL else "no difference")
        elif row.open and both is None:
            pending[name] = replace(row, verdict=direction(row), reason="not tested: the samples are missing")
    return [pending.get(row.name, row) for row in rows]


def paired_samples(pair: Pair, row: Row) -> "pd.DataFrame | None":
    """Return `base`, `head` and `group` of each sample that has a value on both sides; None if there are none."""
    import pandas as pd  # late, as where the tables are read

    sides = [sample_values(pair, row, number) for number in range(2)]
    if sides[0] is None or sides[1] is None:
        return None
    both = pd.DataFrame({"base": sides[0]["value"], "head": sides[1]["value"], "group": sides[0]["group"]}).dropna()
    return None if both.empty else both


def sample_values(pair: Pair, row: Row, side: int) -> "pd.DataFrame | None":
    """Return `value` and `group` of each sample behind a mean; None without the table or its columns."""
    variant = pair.values[side][row.file].get("variant") if row.file == "summary" else row.file.partition("/")[2]
    table = (pair.base, pair.head)[side].table(f"validate/{variant}")
    wanted = ["torch_right", "variant_right"] if row.metric.column == "drop" else [row.metric.column]
    if table is None or not {*wanted, "sample", "group"} <= {*table.columns}:
        return None
    table = table.set_index("sample")
    values = table[wanted[0]] - table[wanted[1]] if len(wanted) == 2 else table[wanted[0]]
    return values.to_frame("value").assign(group=table["group"])


def judge_timings(rows: list[Row], pair: Pair) -> list[Row]:
    """Judge timings: by a test if both sides have a spread, else by the allowance alone."""
    timed = {
        row.name: replace(row, allowed=allowed_range(row.metric.noise, row.metric.unit, pair.drift))
        for row in rows
        if row.metric.noise in ALLOWANCES and row.verdict == "no difference" and is_number(row.base, row.head)
    }
    sure = uncertainties(pair, timed)
    adjusted = holm(
        {
            name: difference_p(timed[name].head / timed[name].base, found, allowed)
            for name, found in sure.items()
            if (allowed := timed[name].allowed)
        }
    )
    for name, row in timed.items():
        margin = sure[name].margin if name in sure else None
        change = change_of(row.base, row.head, row.metric.noise, row.metric.unit, pair.drift, margin)
        timed[name] = replace(judge_timing(row, adjusted.get(name)), change=change)
    return [timed.get(row.name, row) for row in rows]


def judge_timing(row: Row, p: float | None) -> Row:
    """Return a timing with its verdict: by the adjusted p-value of its test, or by the allowance without a test."""
    if p is not None:
        return replace(row, p=p, verdict=direction(row) if p < LEVEL else "no difference")
    if row.allowed and not within(row.base, row.head, row.metric.noise, row.allowed):
        low, high = row.allowed
        reason = f"measured once; a second measurement of the same may be {low:.2f} to {high:.2f} times as large"
        return replace(row, verdict=direction(row), reason=reason)
    return row


def uncertainties(pair: Pair, rows: dict[str, Row]) -> dict[str, Uncertainty]:
    """Return the uncertainty of the change of each metric with a spread on both sides, pooled with those of its kind.

    The summary repeats a metric of the benchmark, which counts once.
    """
    kinds: dict[tuple[str, str], dict[str, tuple[Spread, Spread]]] = {}
    for name, row in rows.items():
        before, after = (spread(pair, row, side) for side in (0, 1))
        if before is not None and after is not None and row.base > 0 and row.head > 0:
            file = "benchmark" if row.file == "summary" else row.file
            kinds.setdefault((file, row.metric.key.removeprefix("*.")), {})[name] = (before, after)
    found: dict[str, Uncertainty] = {}
    for spreads in kinds.values():
        own = {name: both for name, both in spreads.items() if rows[name].file != "summary"} or spreads
        pool = pooled(item for both in own.values() for item in both)
        found |= {name: uncertainty(both, pool) for name, both in spreads.items()}
    return found


def interval(pair: Pair, row: Row, side: int) -> tuple[float, float] | None:
    """Return a metric's interval from the metrics, or from its rounds."""
    if row.metric.interval:
        low, high = pair.interval_ends(side, row.file, row.key)
        return (low, high) if is_number(low, high) and low < high else None
    found = spread(pair, row, side)
    if found is None:
        return None
    if row.key.endswith("throughput_per_s"):  # the inverse of the mean
        items = pair.values[side]["benchmark"].get("batch", 1) * 1e3
        return items / found.high, items / found.low
    return found.low, found.high


def spread(pair: Pair, row: Row, side: int) -> Spread | None:
    """Return the spread of a timing within its own run; None if the metrics do not tell."""
    values = pair.values[side]
    if row.metric.noise == "latency":
        return pair.latency_spread(
            side, contender(row.key, row.metric), "median" if row.key.endswith("median") else "mean"
        )
    if row.metric.noise != "speedup":
        return None
    file, key = pair.timed_as(side, row.file, row.key)
    starts, rounds = pair.starts(side), values.get("benchmark", {}).get("rounds", 0)
    units = LOADS if file == "optimize" else starts if starts > 1 else rounds
    return spread_of(*pair.interval_ends(side, file, key), units)


def judge_decisions(rows: list[Row], pair: Pair) -> list[Row]:
    """Judge decisions made by timings: changed if something that they depend on has changed or does not compare.

    If nothing has, noise has decided, and the summary's metrics of the two variants are not comparable.
    """
    moved = any(
        row.verdict != "no difference" and row.metric.noise != "decision" and row.metric.better != "neither"
        for row in rows
        if any(fnmatchcase(row.file, file) for file in CHOICE_INPUTS) and not pair.other_choice(row.file)
    )
    if moved:
        return [replace(row, verdict="changed") if decided(row) else row for row in rows]
    other = any(decided(row) for row in rows if row.name == "summary.variant")
    return [
        replace(row, reason=DECIDED_BY_NOISE)
        if decided(row)
        else replace(row, verdict="not comparable", reason=CHOSEN_BY_NOISE)
        if other and row.file == "summary" and not row.reason.startswith(NOT_MEASURED)
        else row
        for row in rows
    ]


def decided(row: Row) -> bool:
    """Return whether a decision differs from the base's."""
    return row.metric.noise == "decision" and row.open


def direction(row: Row) -> Verdict:
    """Return the verdict on a metric that differs."""
    if row.metric.better == "neither" or not is_number(row.base, row.head):
        return "changed"
    return "better" if (row.head > row.base) == (row.metric.better == "higher") else "worse"


def is_number(*values: Any) -> bool:
    """Return whether all are numbers; True and False count as 1 and 0."""
    return all(isinstance(value, int | float) for value in values)


def same_value(base: Any, head: Any) -> bool:
    """Return whether two values are the same except for the last of the digits that are written."""
    if is_number(base, head):
        return abs(head - base) <= 10.0 ** (1 - SIGNIFICANT_DIGITS) * max(abs(base), abs(head))
    return bool(base == head)
