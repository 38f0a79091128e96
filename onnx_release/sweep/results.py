"""What came of a sweep: the table, the Pareto front and the winner, by the metrics that experiments have committed."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onnx_release.choice.choice import Candidate, choose
from onnx_release.core.metrics import LEFT_OUT
from onnx_release.core.params import Gate
from onnx_release.core.paths import METRICS
from onnx_release.core.variants import VARIANTS
from onnx_release.report.metrics import metric
from onnx_release.report.pareto import pareto_front
from onnx_release.report.text import number, table
from onnx_release.review.comparable import Pair
from onnx_release.review.gates import hold
from onnx_release.review.revisions import Revision, at_commit, namespace
from onnx_release.sweep.grid import RELEASED, TIMED_METRICS, Grid
from onnx_release.sweep.plan import Experiment
from onnx_release.timing.metrics import BenchmarkMetrics
from onnx_release.timing.speedup import OTHER_WORK, mostly_disturbed
from onnx_release.validate.metrics import ValidateMetrics

# A value and the ends of its interval, with None for what there is not.
Interval = tuple[float | None, float | None, float | None]
NOTHING: Interval = (None, None, None)
# Of figures that other work on the machine moves.
TIMED_UNITS = ("ms", "s", "1/s")


@dataclass(frozen=True)
class ExperimentResult:
    """One experiment of the grid.

    `passed` is whether every variant is within its bounds, and every gate holds that needs no base. `values` are those
    of the objectives, those that were not measured None. `released` and `machine` are None where nothing was timed.
    `exactness` is the SQNR in dB of what the winner is chosen by. `doubt` is why its timing counts as not measured;
    empty where it is measured, and where nothing was timed.
    """

    name: str
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
    grid: Grid, plan: Sequence[Experiment], base: str, done: set[str], gates: Sequence[Gate]
) -> list[ExperimentResult]:
    """The results of the experiments of the grid that are done, in the plan's order."""
    experiments = [experiment for experiment in plan if experiment.name in done and not experiment.prepares]
    results = [
        result_of(grid, experiment, at_commit(f"{namespace(base)}/{experiment.name}", experiment.name), gates)
        for experiment in experiments
    ]
    return with_front(grid, results)


def with_front(grid: Grid, results: Sequence[ExperimentResult]) -> list[ExperimentResult]:
    """The results with their place on or off the front, which is of what has passed, and was timed on one machine."""
    usual = usual_machine(results)
    points = [
        [
            signed(objective, value) if result.passed and result.machine == usual else None
            for objective, (value, _, _) in zip(grid.objectives, result.values, strict=True)
        ]
        for result in results
    ]
    return [replace(result, on_front=front) for result, front in zip(results, pareto_front(points), strict=True)]


def result_of(grid: Grid, experiment: Experiment, revision: Revision, gates: Sequence[Gate]) -> ExperimentResult:
    """The result by its metrics, below which those that are timed are the base's still where the grid is not timed."""
    if not grid.timing:
        timed = {(METRICS / f"{file}.json").as_posix() for file in TIMED_METRICS}
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
    exact = released or ("int8_static" if "int8_static" in validations else None)
    return ExperimentResult(
        name=experiment.name,
        params=experiment.params,
        passed=passed and not any(outcome.fails for outcome in hold(gates, revision, None)),
        released=released,
        machine=metrics["benchmark"]["machine"] if grid.timing else None,
        values=tuple(found[objective][0] for objective in grid.objectives),
        speedup=found[speedup][0],
        exactness=validations[exact].closeness.signal if exact else -math.inf,
        doubt=next((doubt for _, doubt in found.values() if doubt), ""),
    )


def released_variant(validations: Mapping[str, ValidateMetrics], revision: Revision) -> str | None:
    """The variant that would be released of an experiment; None if none may be."""
    benchmark = BenchmarkMetrics.parse(revision.metrics["benchmark"], revision.name)
    best = choose([Candidate(name, found, benchmark.contenders[name]) for name, found in validations.items()])
    return best.name if best else None


def measured_value(objective: str, revision: Revision, released: str | None) -> tuple[Interval, str]:
    """Return the value of FILE:KEY with its interval, or NOTHING and why it counts as not measured."""
    file, key = objective.split(":")
    if RELEASED in objective:
        if released is None:
            return NOTHING, ""
        file, key = file.replace(RELEASED, released), key.replace(RELEASED, released)
    experiment = Pair(revision, revision)
    doubt = experiment.doubt(1, file, key) or disturbed_latency(file, key, revision)
    if doubt:
        return NOTHING, doubt
    return (experiment.both(file, key)[1], *experiment.interval_ends(1, file, key)), ""


def disturbed_latency(file: str, key: str, revision: Revision) -> str:
    """Return why a time of the benchmark counts as not measured; empty where it is measured, and for other metrics."""
    if file != "benchmark" or metric(file, key).unit not in TIMED_UNITS:
        return ""
    run = revision.metrics.get("benchmark", {})
    return OTHER_WORK if mostly_disturbed(run.get("disturbed_rounds", 0), run.get("rounds", 0)) else ""


def signed(objective: str, value: float | None) -> float | None:
    """The value so that higher is better."""
    file, key = objective.split(":")
    return -value if value is not None and metric(file, key).better == "lower" else value


def usual_machine(results: Sequence[ExperimentResult]) -> str | None:
    """The machine of most results; None where nothing was timed. Timings of others do not compare with its."""
    machines = Counter(result.machine for result in results)
    return machines.most_common(1)[0][0] if machines else None


def winner(results: Sequence[ExperimentResult]) -> ExperimentResult | None:
    """What to apply; None if nothing passed.

    Of those that passed the fastest, and of those that no difference sets apart from it the most exact. Without
    timings the most exact on the front, and where none was measured the most exact of those that passed.

    Speed-ups are over PyTorch in the same run, so that they compare among runs on one machine. Two are no different if
    the distance of their logarithms is within both intervals' half-widths, added as independent errors are.
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
    """Whether no difference is sure between two speed-ups of different runs; an interval without ends hides any."""
    margins = []
    for value, low, high in (first, second):
        if value is None or low is None or high is None or low <= 0 or math.isinf(high):
            return True
        margins.append(math.log(high / low) / 2)
    return abs(math.log(first[0] / second[0])) <= math.hypot(*margins)  # type: ignore[operator]


def results_table(grid: Grid, keys: Sequence[str], results: Sequence[ExperimentResult]) -> str:
    """Markdown: the swept parameters `keys`, objectives, what is released, whether it passed, the front."""
    header = [key.rpartition(":")[2] for key in keys]
    header += [title(objective) for objective in grid.objectives]
    header += [*(["released"] if grid.timing else []), "passed", "front", "experiment"]
    usual = usual_machine(results)
    rows = []
    for result in results:
        row = [json.dumps(result.params[key]).strip('"') for key in keys]
        row += ["not measured" if value == NOTHING and result.doubt else cell(value) for value in result.values]
        if grid.timing:
            row.append(result.released or "none")
        row += ["yes" if result.passed else "no", "yes" if result.on_front else ""]
        other = "" if result.machine == usual else f" (timed on {result.machine}: does not compare)"
        doubt = f" (not measured: {result.doubt})" if result.doubt else ""
        rows.append([*row, result.name + other + doubt])
    return table(header, rows)


def unmeasured(results: Sequence[ExperimentResult]) -> str:
    """Which experiments are not ranked by speed, and what to do; empty if none."""
    names = [result.name for result in results if result.doubt]
    if not names:
        return ""
    if any(result.doubt == OTHER_WORK for result in results):
        fix = (
            "end the other work or take a quiet machine, and give `set` in the grid file another `benchmark.replicate`"
        )
    else:
        fix = "give `set` in the grid file more `benchmark.starts`"
    return f"Not ranked by speed, which was not measured: {', '.join(names)}. To measure it, {fix}; then sweep again."


def title(objective: str) -> str:
    file, key = objective.split(":")
    unit = metric(file, key).unit
    subject = file.partition("/")[2]
    return " ".join(filter(None, (subject, key))) + (f", {unit}" if unit else "")


def cell(value: Interval) -> str:
    interval = "" if value[1] is None or value[2] is None else f" [{number(value[1])}, {number(value[2])}]"
    return number(value[0]) + interval
