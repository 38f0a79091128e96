"""Make the table, the Pareto front and the winner of a sweep from the metrics that its experiments committed."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx_release.choice.choice import Candidate, choose
from onnx_release.core.metrics import LEFT_OUT
from onnx_release.core.params import Gate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.variants import VARIANTS
from onnx_release.report.metrics import metric
from onnx_release.report.pareto import pareto_front
from onnx_release.report.text import number, table
from onnx_release.review.comparable import Pair
from onnx_release.review.gates import check_gates
from onnx_release.review.revisions import Revision, at_commit, namespace
from onnx_release.sweep.grid import RELEASED, TIMED_METRICS, Grid
from onnx_release.sweep.plan import Experiment
from onnx_release.timing.metrics import BenchmarkMetrics
from onnx_release.timing.speedup import OTHER_WORK, mostly_disturbed
from onnx_release.validate.metrics import ValidateMetrics

# A value and the ends of its interval; None where there is none.
Interval = tuple[float | None, float | None, float | None]
NO_VALUE: Interval = (None, None, None)
# Metrics in these units depend on other work on the machine.
TIMED_UNITS = ("ms", "s", "1/s")


@dataclass(frozen=True)
class ExperimentResult:
    """The result of one experiment of the grid.

    `passed` is whether every variant is within its bounds, and every gate passes that needs no base. `values` are those
    of the objectives, None if not measured. `released` and `machine` are None if nothing was timed. `exactness` is the
    SQNR in dB by which the winner is chosen. `doubt` says why its timing counts as not measured; it is empty if it is
    measured, or if nothing was timed.
    """

    name: str
    model: str
    params: dict[str, Any]
    passed: bool
    released: str | None
    machine: str | None
    values: tuple[Interval, ...]
    speedup: Interval
    exactness: float
    on_front: bool = False
    doubt: str = ""


def load_results(
    grid: Grid, plan: Sequence[Experiment], base: str, done: set[str], gates: Mapping[str, Sequence[Gate]]
) -> list[ExperimentResult]:
    """Return the results of the grid's experiments that are done, in the plan's order. `gates` are by model."""
    experiments = [experiment for experiment in plan if experiment.name in done and not experiment.prepares]
    results = [
        result_of(
            grid,
            experiment,
            at_commit(f"{namespace(base)}/{experiment.name}", experiment.name).of_model(experiment.model),
            gates[experiment.model],
        )
        for experiment in experiments
    ]
    return [result for model in grid.models for result in with_front(grid, of_model(model, results))]


def of_model(model: str, results: Sequence[ExperimentResult]) -> list[ExperimentResult]:
    return [result for result in results if result.model == model]


def with_front(grid: Grid, results: Sequence[ExperimentResult]) -> list[ExperimentResult]:
    """Mark which results of a model are on the Pareto front of those that passed on the usual machine."""
    usual = usual_machine(results)
    points = [
        [
            higher_is_better(objective, value) if result.passed and result.machine == usual else None
            for objective, (value, _, _) in zip(grid.objectives, result.values, strict=True)
        ]
        for result in results
    ]
    return [replace(result, on_front=front) for result, front in zip(results, pareto_front(points), strict=True)]


def result_of(grid: Grid, experiment: Experiment, revision: Revision, gates: Sequence[Gate]) -> ExperimentResult:
    """Return the result of an experiment by its metrics, without the base's timings if the grid is not timed."""
    if not grid.timing:
        folder = ModelFiles(experiment.model).metrics
        timed = {(folder / f"{file}.json").as_posix() for file in TIMED_METRICS}
        revision = replace(revision, files={path: file for path, file in revision.files.items() if path not in timed})
    metrics = revision.metrics
    validations = {
        variant: ValidateMetrics.parse(metrics[f"validate/{variant}"], revision.name)
        for variant in VARIANTS
        if LEFT_OUT not in metrics.get(f"validate/{variant}", {LEFT_OUT: True})
    }
    released = released_variant(validations, revision) if grid.timing else None
    passed = all(validation.passed for validation in validations.values())
    speedup = f"benchmark:{RELEASED}.speedup_vs_eager"
    found = {key: measured_value(key, revision, released) for key in (*grid.objectives, speedup)}
    made = [variant for variant, validation in validations.items() if validation.made]
    exact = released or ("int8_static" if "int8_static" in made else None)
    return ExperimentResult(
        name=experiment.name,
        model=experiment.model,
        params=experiment.params,
        passed=passed and not any(outcome.fails for outcome in check_gates(gates, revision, None)),
        released=released,
        machine=metrics["benchmark"]["machine"] if grid.timing else None,
        values=tuple(found[objective][0] for objective in grid.objectives),
        speedup=found[speedup][0],
        exactness=validations[exact].closeness.signal if exact else -math.inf,
        doubt=next((doubt for _, doubt in found.values() if doubt), ""),
    )


def released_variant(validations: Mapping[str, ValidateMetrics], revision: Revision) -> str | None:
    """Return the variant that an experiment would release; None if it may release none."""
    benchmark = BenchmarkMetrics.parse(revision.metrics["benchmark"], revision.name)
    best = choose(
        [Candidate(name, found, benchmark.contenders[name]) for name, found in validations.items() if found.made]
    )
    return best.name if best else None


def measured_value(objective: str, revision: Revision, released: str | None) -> tuple[Interval, str]:
    """Return the value of FILE:KEY with its interval, or NO_VALUE and why it counts as not measured."""
    file, key = objective.split(":")
    if RELEASED in objective:
        if released is None:
            return NO_VALUE, ""
        file, key = file.replace(RELEASED, released), key.replace(RELEASED, released)
    experiment = Pair(revision, revision)
    doubt = experiment.doubt(1, file, key) or disturbed_latency(file, key, revision)
    if doubt:
        return NO_VALUE, doubt
    return (experiment.both(file, key)[1], *experiment.interval_ends(1, file, key)), ""


def disturbed_latency(file: str, key: str, revision: Revision) -> str:
    """Return why a time of the benchmark counts as not measured; empty where it is measured, and for other metrics."""
    if file != "benchmark" or metric(file, key).unit not in TIMED_UNITS:
        return ""
    run = revision.metrics.get("benchmark", {})
    return OTHER_WORK if mostly_disturbed(run.get("disturbed_rounds", 0), run.get("rounds", 0)) else ""


def higher_is_better(objective: str, value: float | None) -> float | None:
    """Return the value, negated if lower is better."""
    file, key = objective.split(":")
    return -value if value is not None and metric(file, key).better == "lower" else value


def usual_machine(results: Sequence[ExperimentResult]) -> str | None:
    """Return the machine of most results; None if nothing was timed. Timings of other machines cannot be compared."""
    machines = Counter(result.machine for result in results)
    return machines.most_common(1)[0][0] if machines else None


def winner(results: Sequence[ExperimentResult]) -> ExperimentResult | None:
    """Return the experiment of a model to apply; None if none passed.

    It is the most exact of those that are as fast as the fastest one that passed, within the intervals. Without timings
    it is the most exact on the front; if nothing was measured, it is the most exact one that passed.

    Speed-ups are over PyTorch in the same run, so runs on one machine can be compared. Two speed-ups do not differ if
    the distance of their logarithms is within both intervals' half-widths, added like independent errors.
    """
    passed = [result for result in results if result.passed]
    front = [result for result in results if result.on_front] or passed
    timed = [result for result in passed if result.speedup[0] is not None and result.machine == usual_machine(results)]
    if not timed:
        return max(front, key=lambda result: result.exactness, default=None)
    fastest = max(timed, key=lambda result: result.speedup[0] or 0.0)
    alike = [result for result in timed if no_faster(fastest.speedup, result.speedup)]
    return max(alike, key=lambda result: (result.exactness, result is fastest))


def no_faster(first: Interval, second: Interval) -> bool:
    """Return whether two speed-ups of different runs do not differ for sure; without ends, an interval hides any."""
    margins = []
    for value, low, high in (first, second):
        if value is None or low is None or high is None or low <= 0 or math.isinf(high):
            return True
        margins.append(math.log(high / low) / 2)
    return abs(math.log(first[0] / second[0])) <= math.hypot(*margins)  # type: ignore[operator]


def results_table(grid: Grid, keys: Sequence[str], results: Sequence[ExperimentResult]) -> str:
    """Make the table in Markdown: swept parameters `keys`, objectives, released variant, whether it passed, front.

    If the sweep is of several models, the first column says which.
    """
    several = len(grid.models) > 1
    header = [*(["model"] if several else []), *(key.rpartition(":")[2] for key in keys)]
    header += [objective_title(objective) for objective in grid.objectives]
    header += [*(["released"] if grid.timing else []), "passed", "front", "experiment"]
    usual = usual_machine(results)
    rows = []
    for result in results:
        row = [*([result.model] if several else []), *(json.dumps(result.params[key]).strip('"') for key in keys)]
        row += [
            "not measured" if value == NO_VALUE and result.doubt else interval_cell(value) for value in result.values
        ]
        if grid.timing:
            row.append(result.released or "none")
        row += ["yes" if result.passed else "no", "yes" if result.on_front else ""]
        other = "" if result.machine == usual else f" (timed on {result.machine}: not comparable)"
        doubt = f" (not measured: {result.doubt})" if result.doubt else ""
        rows.append([*row, result.name + other + doubt])
    return table(header, rows)


def describe_unranked(results: Sequence[ExperimentResult]) -> str:
    """Say which experiments are not ranked by speed, and what to do; empty if all are."""
    names = [result.name for result in results if result.doubt]
    if not names:
        return ""
    if any(result.doubt == OTHER_WORK for result in results):
        fix = (
            "end the other work or take a quiet machine, and give `set` in the grid file another `benchmark.replicate`"
        )
    else:
        fix = "give `set` in the grid file more `benchmark.starts`"
    return (
        f"Not ranked by speed, since it was not measured: {', '.join(names)}. To measure it, {fix}; then sweep again."
    )


def objective_title(objective: str) -> str:
    file, key = objective.split(":")
    unit = metric(file, key).unit
    subject = file.partition("/")[2]
    return " ".join(filter(None, (subject, key))) + (f", {unit}" if unit else "")


def interval_cell(value: Interval) -> str:
    interval = "" if value[1] is None or value[2] is None else f" [{number(value[1])}, {number(value[2])}]"
    return number(value[0]) + interval
