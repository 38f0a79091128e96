"""Check the gates of one model: bounds on its metrics, and on how much worse than a base's they may be."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from onnx_release.core.addresses import address
from onnx_release.core.errors import ParameterError
from onnx_release.core.metrics import Metric
from onnx_release.core.params import Gate, load_overrides, merge_params
from onnx_release.core.paths import PARAMS, ModelFiles
from onnx_release.core.variants import BASE, COMPILED
from onnx_release.report.metrics import ALL_METRICS, flatten, known_metric, nearest_names
from onnx_release.report.text import number
from onnx_release.review.comparable import NOT_MEASURED, VALUE_GONE, Pair, contender
from onnx_release.review.compare import CHOSEN_BY_NOISE, Comparison, Row, same_value, timed_interval
from onnx_release.review.noise import ALLOWANCES
from onnx_release.review.revisions import Revision

Status = Literal["passed", "FAILED", "not measured", "not checked"]
# The reason if a model has no metric that a gate names, as one without labels has no accuracy.
NO_METRIC = "this model has no such metric"
# The reason if only one side has the metric.
ONE_SIDED = {"new": "the base has no such metric", "gone": "the head has no such metric"}
OR_PASS = "Or give the gate `noisy: pass` in params.yaml"


@dataclass(frozen=True)
class GateOutcome:
    """The outcome of a gate for one metric; `metric` is the gate's own pattern if no metric matches it.

    `fix` says what to do about a metric that is not measured.
    """

    metric: str
    status: Status
    reason: str
    fix: str = ""

    @property
    def fails(self) -> bool:
        return self.status in ("FAILED", "not measured")

    def __str__(self) -> str:
        return f"{self.metric}: {self.status}, {self.reason}"


def load_gates(files: ModelFiles) -> list[Gate]:
    """Return the gates of a model, those of params.yaml unless its own params.yaml has some.

    Raises ParameterError for one that cannot be checked, with the file that it is in.
    """
    gates = merge_params(files).gates
    refuse_bad_gates(gates, files.overrides if "gates" in load_overrides(files) else PARAMS)
    return gates


def refuse_bad_gates(gates: Iterable[Gate], source: Path = PARAMS) -> None:
    """Raise ParameterError for a gate on an unknown metric, or against a base on a metric without a direction."""
    for gate in gates:
        rows = [row for row in ALL_METRICS if fnmatchcase(gate.metric, row.name) or fnmatchcase(row.name, gate.metric)]
        if not rows:
            raise ParameterError(
                f"{source} has a gate on {gate.metric}, and no metric has that name; the nearest are "
                + ", ".join(nearest_names(gate.metric))
            )
        if gate.relative and not any(may_regress(row) for row in rows):
            problem = f"{source} has a gate on how much worse {gate.metric} may become"
            raise ParameterError(f"{problem}, but {why_not(rows)}")


def may_regress(row: Metric) -> bool:
    """Return whether a gate may limit how much worse the metric becomes."""
    return row.better != "neither" and row.is_compared


def why_not(rows: Iterable[Metric]) -> str:
    """Say why a gate may not limit how much worse these metrics become, and what to do."""
    if any(row.noise == "latency" for row in rows):
        return (
            "latencies of two runs are not compared, since the speed of the machine changes: "
            "use speedup_vs_eager, which is measured in pairs, or give the gate min or max"
        )
    return "it has no better direction, or another metric says the same: give the gate min or max"


def check_gates(gates: Iterable[Gate], head: Revision, comparison: Comparison | None) -> list[GateOutcome]:
    """Check every gate on every metric that it names.

    Without a comparison, gates against a base are not checked. If the noise is too large to tell whether a bound is
    met, the metric is not measured. That fails as a broken bound does, unless the gate lets noise pass.
    """
    own = Pair(head, head)
    values = {f"{file}.{key}": value for file, found in head.metrics.items() for key, value in flatten(found)}
    outcomes = []
    for gate in gates:
        named = {name: value for name, value in values.items() if fnmatchcase(name, gate.metric)}
        if not gate.relative:
            found = [check_value(gate, name, value, own) for name, value in named.items()]
        elif comparison is None:
            found = [GateOutcome(gate.metric, "not checked", f"{bound(gate)} needs a base: give --base")]
        else:
            rows = [row for row in comparison.rows if fnmatchcase(row.name, gate.metric) and may_regress(row.metric)]
            found = [check_regression(gate, row, own) for row in rows]
            # The comparison leaves out a percentile for which one side has too few calls.
            left = named.keys() - {row.name for row in comparison.rows}
            found += [
                check_null(gate, name, head)
                for name, value in named.items()
                if value is None and name in left and may_regress(known_metric(*split_name(name)))
            ]
        found = found or [GateOutcome(gate.metric, "not checked", f"{bound(gate)}: {NO_METRIC}")]
        if found[0].status == "not checked" and len({one.reason for one in found}) == 1:
            found = [replace(found[0], metric=gate.metric)]  # one line for all of its metrics
        outcomes += found
    return outcomes


def unmatched(gates: Iterable[Gate], head: Revision) -> set[str]:
    """Return what gates name and the model has no metric for."""
    names = [f"{file}.{key}" for file, found in head.metrics.items() for key, _ in flatten(found)]
    return {gate.metric for gate in gates if not any(fnmatchcase(name, gate.metric) for name in names)}


def split_name(name: str) -> tuple[str, str]:
    """Return the file and the key of a metric's name."""
    file, _, key = name.partition(".")
    return file, key


def bound(gate: Gate) -> str:
    """Write the gate's bound as params.yaml has it."""
    return next(
        f"{name} {limit:g}"
        for name, limit in gate.model_dump(include={"min", "max", "max_regression", "max_regression_share"}).items()
        if limit is not None
    )


def check_value(gate: Gate, name: str, value: Any, own: Pair) -> GateOutcome:
    """Check `min` or `max`. A timing with an interval passes or fails if its whole interval does."""
    if doubt := own.doubt(1, *split_name(name)):
        return not_measured(gate, name, doubt, measure_again(name, own.head.model))
    if value is None:
        return check_null(gate, name, own.head)
    if not isinstance(value, int | float):
        return GateOutcome(name, "not checked", f"{bound(gate)}: {value!r} is not a number")
    low, high = timed_interval(own, name) or (value, value)
    met = [(gate.min is None or end >= gate.min) and (gate.max is None or end <= gate.max) for end in (low, high)]
    if met[0] != met[1]:
        why = f"{number(value, 4)} [{number(low, 4)}, {number(high, 4)}]: the bound is within the interval"
        return not_measured(gate, name, why, measure_again(name, own.head.model))
    return GateOutcome(name, "passed" if met[0] else "FAILED", f"{number(value, 6)} ({bound(gate)})")


def check_null(gate: Gate, name: str, head: Revision) -> GateOutcome:
    """Check a gate on a metric that is null. A timing that is null was not measured, even if noise may pass."""
    file, key = split_name(name)
    known = known_metric(file, key)
    if not known.noise or known.noise == "preparation":  # a model without raw items has nothing to prepare
        return GateOutcome(name, "not checked", f"{bound(gate)}: it is null")
    reasons = failures(file, key, known, head)
    if known.noise == "tail" and not reasons:
        reasons = ["too few calls for a percentile, raise benchmark.turn_seconds"]
    return GateOutcome(name, "not measured", "; ".join([f"{bound(gate)}: it is null", *reasons]))


def failures(file: str, key: str, known: Metric, head: Revision) -> list[str]:
    """Return why the contenders of a timing could not be measured; a speed-up has two."""
    benchmark = dict(flatten(head.metrics.get("benchmark", {})))
    owner = head.metrics[file].get("variant") if file == "summary" else contender(key, known)
    if owner is None:
        return ["no variant is released"]
    timed = [owner, *(name for end, name in (("vs_eager", BASE), ("vs_compile", COMPILED)) if key.endswith(end))]
    return [f"{one} failed, {benchmark[f'{one}.failure']}" for one in timed if benchmark.get(f"{one}.failure")]


def check_regression(gate: Gate, row: Row, own: Pair) -> GateOutcome:
    """Check how much worse a metric is than the base's."""
    if row.reason.startswith(NOT_MEASURED):
        return not_measured(
            gate, row.name, row.reason.removeprefix(NOT_MEASURED).strip(), measure_again(row.name, own.head.model)
        )
    if row.metric.noise and row.reason == VALUE_GONE:
        return check_value(gate, row.name, None, own)
    null = row.base is None or row.head is None
    if not null and row.reason == CHOSEN_BY_NOISE and loss_of(row).raw > limit_of(gate, row):
        why = f"{amount(gate, row, loss_of(row).raw)} worse, {row.reason}"
        return not_measured(gate, row.name, f"{both(row)}: {why}", measure_again(row.name, own.head.model))
    if null or row.verdict in ("new", "gone", "not comparable"):
        why = row.reason or ONE_SIDED.get(row.verdict, "it is null")
        return GateOutcome(row.name, "not checked", f"{bound(gate)}: {why}")
    if same_value(row.base, row.head):
        return GateOutcome(row.name, "passed", f"{both(row)}: the same ({bound(gate)})")
    return check_difference(gate, row, own.head.model)


def check_difference(gate: Gate, row: Row, model: str) -> GateOutcome:
    """Check a metric that differs from the base's: the bound is broken beyond doubt, met beyond doubt, or neither."""
    loss, limit = loss_of(row), limit_of(gate, row)
    worse = f"{amount(gate, row, loss.raw)} worse"
    if row.verdict == "worse" and loss.raw > limit:
        return GateOutcome(row.name, "FAILED", f"{both(row)}: {worse} ({bound(gate)})")
    if row.verdict == "better" or loss.within(limit):
        noise = f" of {amount(gate, row, loss.noise)}" if loss.noise else ""
        what = {"worse": worse, "no difference": f"no difference beyond the noise{noise}"}
        return GateOutcome(row.name, "passed", f"{both(row)}: {what.get(row.verdict, row.verdict)} ({bound(gate)})")
    if loss.noise > limit:
        why = f"the noise of {amount(gate, row, loss.noise)} is more than the bound"
    elif loss.raw > limit:
        why = f"{worse}, which noise may explain"
    else:
        why = f"the machine has become faster, which may hide a loss of {amount(gate, row, loss.own)}"
    return not_measured(gate, row.name, f"{both(row)}: {why}", describe_fix(gate, row, model))


def limit_of(gate: Gate, row: Row) -> float:
    """Return the most that a metric may lose, in its own unit."""
    if gate.max_regression is not None:
        return gate.max_regression
    return (gate.max_regression_share or 0.0) * float(abs(row.base))


def amount(gate: Gate, row: Row, value: float) -> str:
    """Write an amount as the gate limits it: in the metric's own unit, or as a share of the base's.

    A share of ten or more is written as a factor, since nobody reads six digits of a percentage.
    """
    if gate.max_regression is not None:
        return number(value)
    share = value / abs(row.base) if row.base else math.inf
    return f"{number(share)} times" if share >= 10 else f"{share:.1%}".replace("%", " %")


@dataclass(frozen=True)
class Loss:
    """What a metric has lost against the base, in its own unit; negative if it has gained.

    `raw` is the difference of the two values, and `own` is without the part that the machine's speed explains. `noise`
    is the loss that noise alone may show, and `worst` is `own` plus as much noise. Metrics that are the same in each
    run have no noise. Means over samples have none here, since their test judges them.
    """

    raw: float
    own: float
    noise: float
    worst: float

    def within(self, limit: float) -> bool:
        """Return whether it is measured well enough to say that at most `limit` is lost."""
        return self.worst <= limit or max(self.own, self.noise) <= limit


def loss_of(row: Row) -> Loss:
    sign = -1 if row.metric.better == "higher" else 1
    raw = sign * (row.head - row.base)
    if row.metric.noise not in ALLOWANCES:
        return Loss(raw, raw, 0.0, raw)
    if row.change is None:  # 0 has no ratio
        return Loss(raw, raw, math.inf, math.inf)
    times, noise = row.change.times, row.change.noise**sign
    own, alone, worst = (sign * row.base * (factor - 1) for factor in (times, noise, times * noise))
    return Loss(raw, own, alone, worst)


def not_measured(gate: Gate, name: str, why: str, fix: str) -> GateOutcome:
    """Return the outcome of a gate if the noise is too large to check it."""
    if gate.noisy == "pass":
        return GateOutcome(name, "passed", f"{why}, and noisy: pass ({bound(gate)})")
    return GateOutcome(name, "not measured", f"{why} ({bound(gate)})", fix)


def describe_fix(gate: Gate, row: Row, model: str) -> str:
    """Say what to do about a loss that is not measured."""
    if not row.metric.noise:
        return f"use more samples: raise prepare.evaluation in params.yaml. {OR_PASS}"
    if row.change is None:
        return measure_again(row.name, model)
    # A metric without an interval has the same noise in every run.
    floor = ALLOWANCES[row.metric.noise] if row.p is not None else row.change.noise
    least = loss_of(replace(row, change=replace(row.change, noise=floor))).noise
    if least > limit_of(gate, row):
        apart = amount(gate, row, least)
        return (
            f"two runs of the same program may differ by {apart} in {row.name}: raise the bound above that. {OR_PASS}"
        )
    return measure_again(row.name, model)


def measure_again(name: str, model: str) -> str:
    """Say how to measure a timing of the model again."""
    file = name.partition(".")[0]
    stage = "benchmark" if file == "summary" else file
    return (
        f"measure again on a quiet machine: `dvc repro -f -s {address(stage, model)}`, then "
        f"`make repro MODEL={model}`. If the base has the wide interval, measure the base again (.ci/review). {OR_PASS}"
    )


def both(row: Row) -> str:
    """Write both values, with their intervals if they have any."""
    if not (isinstance(row.base, int | float) and isinstance(row.head, int | float)):
        return f"{row.base} to {row.head}"
    unit = f" {row.metric.unit}" if row.metric.unit else ""
    sides = ((row.base, row.base_interval), (row.head, row.head_interval))
    return " to ".join(number(value, 4) + ends(interval) for value, interval in sides) + unit


def ends(interval: tuple[float, float] | None) -> str:
    return f" [{number(interval[0])}, {number(interval[1])}]" if interval else ""
