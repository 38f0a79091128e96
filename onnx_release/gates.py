"""`gates` in params.yaml: bounds on figures, by themselves or against a base."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from onnx_release.compare import Comparison, Row
from onnx_release.errors import ParameterError
from onnx_release.metrics import METRICS, Metric, flatten, nearest_names
from onnx_release.params import Gate
from onnx_release.text import number

Status = Literal["passed", "FAILED", "not held"]


@dataclass(frozen=True)
class Outcome:
    """What came of one gate on one figure; `figure` is the gate's own name where it met none."""

    figure: str
    status: Status
    reason: str

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
            raise ParameterError(
                f"params.yaml has a gate on how much worse {gate.metric} may become, but neither more nor less of it "
                "is better, or it is no figure of its own: give it min or max"
            )


def may_regress(row: Metric) -> bool:
    return row.better != "neither" and row.noise != "by-product" and not row.is_end


def hold(gates: Iterable[Gate], metrics: Mapping[str, Any], comparison: Comparison | None) -> list[Outcome]:
    """What comes of every gate on every figure that it names.

    `metrics` has the content of the files below metrics/ by name, without .json. Without a comparison, gates against a
    base are not held. A figure that differs from the base by no more than the noise passes.
    """
    values = {f"{file}.{key}": value for file, found in metrics.items() for key, value in flatten(found)}
    outcomes = []
    for gate in gates:
        if not gate.relative:
            found = [absolute(gate, name, values[name]) for name in values if fnmatchcase(name, gate.metric)]
        elif comparison is None:
            found = [Outcome(gate.metric, "not held", f"{bound(gate)} is against a base: give --base")]
        else:
            rows = [row for row in comparison.rows if fnmatchcase(row.name, gate.metric) and may_regress(row.metric)]
            found = [against_base(gate, row) for row in rows]
        found = found or [Outcome(gate.metric, "not held", f"{bound(gate)}: this model has no such figure")]
        if found[0].status == "not held" and len({one.reason for one in found}) == 1:
            found = [replace(found[0], figure=gate.metric)]  # said once for all of its figures
        outcomes += found
    return outcomes


def bound(gate: Gate) -> str:
    """The gate's one bound, as params.yaml has it."""
    return next(
        f"{name} {limit:g}"
        for name, limit in gate.model_dump(include={"min", "max", "max_regression", "max_regression_share"}).items()
        if limit is not None
    )


def absolute(gate: Gate, name: str, value: Any) -> Outcome:
    """A gate on a figure by itself; null is no figure, and neither is a text."""
    if not isinstance(value, int | float):
        return Outcome(name, "not held", f"{bound(gate)}: it is {'null' if value is None else repr(value)}")
    failed = (gate.min is not None and value < gate.min) or (gate.max is not None and value > gate.max)
    return Outcome(name, "FAILED" if failed else "passed", f"{number(value, 6)} ({bound(gate)})")


def against_base(gate: Gate, row: Row) -> Outcome:
    """A gate on how much worse a figure is than the base's."""
    if row.base is None or row.head is None:
        return Outcome(row.name, "not held", f"{bound(gate)}: {row.reason or 'it is null'}")
    if row.verdict in ("new", "gone", "not comparable"):
        return Outcome(row.name, "not held", f"{bound(gate)}: {row.reason or row.verdict}")
    if row.verdict != "worse":
        what = {"better": "better", "no difference": "no difference beyond the noise"}.get(row.verdict, row.verdict)
        same = "the same" if row.base == row.head else what
        return Outcome(row.name, "passed", f"{both(row)}: {same} ({bound(gate)})")
    lost = abs(row.head - row.base)
    share = lost / abs(row.base) if row.base else float("inf")
    if gate.max_regression is not None:
        failed, text = lost > gate.max_regression, f"{number(lost)} worse"
    else:
        failed, text = share > (gate.max_regression_share or 0), f"{share:.1%} worse".replace("%", " %")
    return Outcome(row.name, "FAILED" if failed else "passed", f"{both(row)}: {text} ({bound(gate)})")


def both(row: Row) -> str:
    if isinstance(row.base, int | float) and isinstance(row.head, int | float):
        unit = f" {row.metric.unit}" if row.metric.unit else ""
        return f"{number(row.base, 4)} to {number(row.head, 4)}{unit}"
    return f"{row.base} to {row.head}"
