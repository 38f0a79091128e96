"""`gates` in params.yaml: bounds on figures, by themselves or against a base."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from onnx_release.core.errors import ParameterError
from onnx_release.core.metrics import Metric
from onnx_release.core.params import Gate
from onnx_release.core.variants import BASE, COMPILED
from onnx_release.report.metrics import METRICS, flatten, known_metric, nearest_names
from onnx_release.report.text import number
from onnx_release.review.comparable import NOT_MEASURED, VALUE_GONE, Pair, contender
from onnx_release.review.compare import CHOSEN_BY_NOISE, Comparison, Row, same, timed_interval
from onnx_release.review.noise import ALLOWANCES
from onnx_release.review.revisions import Revision

Status = Literal["passed", "FAILED", "not measured", "not held"]
OR_PASS = "Or give the gate `noisy: pass` in params.yaml"


@dataclass(frozen=True)
class Outcome:
    """What came of one gate on one figure; `figure` is the gate's own name where it met none.

    `fix` is what to do where it is not measured.
    """

    figure: str
    status: Status
    reason: str
    fix: str = ""

    @property
    def fails(self) -> bool:
        return self.status in ("FAILED", "not measured")

    def __str__(self) -> str:
        return f"{self.figure}: {self.status}, {self.reason}"


def check_gates(gates: Iterable[Gate]) -> None:
    """Raises ParameterError for a gate on a figure that there is not, or against a base on one without a direction."""
    for gate in gates:
        rows = [row for row in METRICS if fnmatchcase(gate.metric, row.name) or fnmatchcase(row.name, gate.metric)]
        if not rows:
            raise ParameterError(
                f"params.yaml has a gate on {gate.metric}, which no stage writes; the nearest figures are "
                + ", ".join(nearest_names(gate.metric))
            )
        if gate.relative and not any(may_regress(row) for row in rows):
            problem = f"params.yaml has a gate on how much worse {gate.metric} may become"
            raise ParameterError(f"{problem}, but {why_not(rows)}")


def may_regress(row: Metric) -> bool:
    """Whether a gate may bound how much worse the metric becomes."""
    return row.better != "neither" and row.is_compared


def why_not(rows: Iterable[Metric]) -> str:
    """Why a gate may not bound how much worse these metrics become, and what to do."""
    if any(row.noise == "latency" for row in rows):
        return (
            "latencies of two runs are not compared, since the speed of the machine changes: "
            "use speedup_vs_eager, which is measured in pairs, or give the gate min or max"
        )
    return "neither direction of it is better, or another metric says the same: give the gate min or max"


def hold(gates: Iterable[Gate], head: Revision, comparison: Comparison | None) -> list[Outcome]:
    """What comes of every gate on every figure that it names.

    Without a comparison, gates against a base are not held. Where the noise is too large to tell whether a bound is
    kept, it is not measured, which fails as a broken bound does, unless the gate says that it passes.
    """
    own = Pair(head, head)
    values = {f"{file}.{key}": value for file, found in head.metrics.items() for key, value in flatten(found)}
    outcomes = []
    for gate in gates:
        named = {name: value for name, value in values.items() if fnmatchcase(name, gate.metric)}
        if not gate.relative:
            found = [absolute(gate, name, value, own) for name, value in named.items()]
        elif comparison is None:
            found = [Outcome(gate.metric, "not held", f"{bound(gate)} is against a base: give --base")]
        else:
            rows = [row for row in comparison.rows if fnmatchcase(row.name, gate.metric) and may_regress(row.metric)]
            found = [against_base(gate, row, head) for row in rows]
            # A percentile that one side has too few calls for is not compared.
            left = named.keys() - {row.name for row in comparison.rows}
            found += [
                without_value(gate, name, head)
                for name, value in named.items()
                if value is None and name in left and may_regress(known_metric(*split(name)))
            ]
        found = found or [Outcome(gate.metric, "not held", f"{bound(gate)}: this model has no such figure")]
        if found[0].status == "not held" and len({one.reason for one in found}) == 1:
            found = [replace(found[0], figure=gate.metric)]  # said once for all of its figures
        outcomes += found
    return outcomes


def split(name: str) -> tuple[str, str]:
    """The file and the key of a figure's name."""
    file, _, key = name.partition(".")
    return file, key


def bound(gate: Gate) -> str:
    """The gate's one bound, as params.yaml has it."""
    return next(
        f"{name} {limit:g}"
        for name, limit in gate.model_dump(include={"min", "max", "max_regression", "max_regression_share"}).items()
        if limit is not None
    )


def absolute(gate: Gate, name: str, value: Any, own: Pair) -> Outcome:
    """A gate on a figure by itself. A timing with an interval passes or fails where all of the interval does."""
    if doubt := own.doubt(1, *split(name)):
        return not_measured(gate, name, doubt, again(name))
    if value is None:
        return without_value(gate, name, own.head)
    if not isinstance(value, int | float):
        return Outcome(name, "not held", f"{bound(gate)}: it is {value!r}")
    low, high = timed_interval(own, name) or (value, value)
    kept = [(gate.min is None or end >= gate.min) and (gate.max is None or end <= gate.max) for end in (low, high)]
    if kept[0] != kept[1]:
        why = f"{number(value, 4)} [{number(low, 4)}, {number(high, 4)}]: the interval has the bound in it"
        return not_measured(gate, name, why, again(name))
    return Outcome(name, "passed" if kept[0] else "FAILED", f"{number(value, 6)} ({bound(gate)})")


def without_value(gate: Gate, name: str, head: Revision) -> Outcome:
    """A gate on a figure that is null. One that should have been timed has not been measured, noise or not."""
    file, key = split(name)
    known = known_metric(file, key)
    if not known.noise or known.noise == "preparation":  # a model without raw items has nothing to prepare
        return Outcome(name, "not held", f"{bound(gate)}: it is null")
    reasons = failures(file, key, known, head)
    if known.noise == "tail" and not reasons:
        reasons = ["too few calls for a percentile, raise benchmark.turn_seconds"]
    return Outcome(name, "not measured", "; ".join([f"{bound(gate)}: it is null", *reasons]))


def failures(file: str, key: str, known: Metric, head: Revision) -> list[str]:
    """Why the contenders of a timing could not be measured, those that it is a ratio to among them."""
    benchmark = dict(flatten(head.metrics.get("benchmark", {})))
    owner = head.metrics[file].get("variant") if file == "summary" else contender(key, known)
    if owner is None:
        return ["no variant is released"]
    timed = [owner, *(name for end, name in (("vs_eager", BASE), ("vs_compile", COMPILED)) if key.endswith(end))]
    return [f"{one} failed, {benchmark[f'{one}.failure']}" for one in timed if benchmark.get(f"{one}.failure")]


def against_base(gate: Gate, row: Row, head: Revision) -> Outcome:
    """A gate on how much worse a figure is than the base's."""
    if row.reason.startswith(NOT_MEASURED):
        return not_measured(gate, row.name, row.reason.removeprefix(NOT_MEASURED).strip(), again(row.name))
    if row.metric.noise and row.reason == VALUE_GONE:
        return without_value(gate, row.name, head)
    null = row.base is None or row.head is None
    if not null and row.reason == CHOSEN_BY_NOISE and loss_of(row).raw > limit_of(gate, row):
        why = f"{amount(gate, row, loss_of(row).raw)} worse, {row.reason}"
        return not_measured(gate, row.name, f"{both(row)}: {why}", again(row.name))
    if null or row.verdict in ("new", "gone", "not comparable"):
        return Outcome(row.name, "not held", f"{bound(gate)}: {row.reason or ('it is null' if null else row.verdict)}")
    if same(row.base, row.head):
        return Outcome(row.name, "passed", f"{both(row)}: the same ({bound(gate)})")
    return judged(gate, row)


def judged(gate: Gate, row: Row) -> Outcome:
    """A gate on a figure that differs: broken beyond doubt, kept as far as was measured, or neither."""
    loss, limit = loss_of(row), limit_of(gate, row)
    worse = f"{amount(gate, row, loss.raw)} worse"
    if row.verdict == "worse" and loss.raw > limit:
        return Outcome(row.name, "FAILED", f"{both(row)}: {worse} ({bound(gate)})")
    if row.verdict == "better" or loss.within(limit):
        noise = f" of {amount(gate, row, loss.noise)}" if loss.noise else ""
        what = {"worse": worse, "no difference": f"no difference beyond the noise{noise}"}
        return Outcome(row.name, "passed", f"{both(row)}: {what.get(row.verdict, row.verdict)} ({bound(gate)})")
    if loss.noise > limit:
        why = f"the noise of {amount(gate, row, loss.noise)} is more than the bound"
    elif loss.raw > limit:
        why = f"{worse}, which noise may explain"
    else:
        why = f"the machine has become faster, which may hide that it is {amount(gate, row, loss.own)} worse"
    return not_measured(gate, row.name, f"{both(row)}: {why}", remedy(gate, row))


def limit_of(gate: Gate, row: Row) -> float:
    """The most that a figure may lose, in its own unit."""
    if gate.max_regression is not None:
        return gate.max_regression
    return (gate.max_regression_share or 0.0) * float(abs(row.base))


def amount(gate: Gate, row: Row, value: float) -> str:
    """Some of a figure as the gate bounds it: in the figure's own unit, or as a share of the base's.

    A share of ten and more is said in times: six digits of a percentage say nothing to anybody.
    """
    if gate.max_regression is not None:
        return number(value)
    share = value / abs(row.base) if row.base else math.inf
    return f"{number(share)} times" if share >= 10 else f"{share:.1%}".replace("%", " %")


@dataclass(frozen=True)
class Loss:
    """What a figure has lost against the base, in its own unit; less than 0 where it has gained.

    `raw` is as the two values have it. In `own`, what the machine has moved is taken off. `noise` is what would seem to
    be lost by noise alone, and `worst` is `own` with as much noise the other way. What comes out the same each time
    has no noise, and neither have means over samples, which their test judges.
    """

    raw: float
    own: float
    noise: float
    worst: float

    def within(self, limit: float) -> bool:
        """Whether it is measured well enough to say that no more than `limit` is lost."""
        return self.worst <= limit or max(self.own, self.noise) <= limit


def loss_of(row: Row) -> Loss:
    sign = -1 if row.metric.better == "higher" else 1
    raw = sign * (row.head - row.base)
    if row.metric.noise not in ALLOWANCES:
        return Loss(raw, raw, 0.0, raw)
    if row.change is None:  # of 0 there is no share
        return Loss(raw, raw, math.inf, math.inf)
    times, noise = row.change.times, row.change.noise**sign
    own, alone, worst = (sign * row.base * (factor - 1) for factor in (times, noise, times * noise))
    return Loss(raw, own, alone, worst)


def not_measured(gate: Gate, name: str, why: str, fix: str) -> Outcome:
    """What comes of a gate that the noise is too large for."""
    if gate.noisy == "pass":
        return Outcome(name, "passed", f"{why}, and noisy: pass ({bound(gate)})")
    return Outcome(name, "not measured", f"{why} ({bound(gate)})", fix)


def remedy(gate: Gate, row: Row) -> str:
    """What to do about a loss that is not measured."""
    if not row.metric.noise:
        return f"more samples tell more: raise prepare.evaluation in params.yaml. {OR_PASS}"
    if row.change is None:
        return again(row.name)
    # Without an interval no run has less noise than this one.
    floor = ALLOWANCES[row.metric.noise] if row.p is not None else row.change.noise
    least = loss_of(replace(row, change=replace(row.change, noise=floor))).noise
    if least > limit_of(gate, row):
        apart = amount(gate, row, least)
        return f"two runs of the same may be {apart} apart in {row.name}: raise the bound above that. {OR_PASS}"
    return again(row.name)


def again(name: str) -> str:
    """How to measure a timing again."""
    file = name.partition(".")[0]
    stage = "benchmark" if file == "summary" else file
    return (
        f"measure again on a quiet machine: `dvc repro -f -s {stage}`, then `dvc repro`. Where the base's interval is "
        f"the wide one, measure the base again (.ci/review measures both). {OR_PASS}"
    )


def both(row: Row) -> str:
    """Both values, with their intervals where they have some."""
    if not (isinstance(row.base, int | float) and isinstance(row.head, int | float)):
        return f"{row.base} to {row.head}"
    unit = f" {row.metric.unit}" if row.metric.unit else ""
    sides = ((row.base, row.base_interval), (row.head, row.head_interval))
    return " to ".join(number(value, 4) + ends(interval) for value, interval in sides) + unit


def ends(interval: tuple[float, float] | None) -> str:
    return f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
