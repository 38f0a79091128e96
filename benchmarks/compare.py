"""Measure how often `python -m tools.compare` reports a difference that does not exist, and how often it finds one.

    python -m benchmarks.compare [--replicates 20]

runs the pipeline of digits_cnn in a clone and commits its metrics. Then it runs the stages that time something again
and again, with another `benchmark.replicate` and nothing else changed, compares each time with the first, and writes
benchmarks/compare.json: how many of the metrics were called no difference, and which were not; the largest factor
between two values of each kind of metric without the machine's own drift, from which the allowances in
onnx_release/review/noise.py come; and how often a variant was found to be slower after its timings were multiplied.
Turns are shorter than by default; 20 replicates take about 25 minutes on 2 idle cores.
"""

import argparse
import json
import math
import os
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.pipeline import check
from onnx_release.core.addresses import address
from onnx_release.core.command import run_tool
from onnx_release.core.errors import BenchmarkError
from onnx_release.core.files import read_json, write_json
from onnx_release.core.git import run_git
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE
from onnx_release.review.compare import Comparison, compare
from onnx_release.review.noise import ALLOWANCES, beyond
from onnx_release.review.revisions import Revision, load_pair
from onnx_release.timing.metrics import BenchmarkMetrics
from tools.clone import forget_runs, list_models, make_clone, run, set_param

COMPARE_BENCHMARK = Path("benchmarks/compare.json")
MODEL = "digits_cnn"
PARAMETERS = {
    "benchmark.starts": "3",
    "benchmark.turn_seconds": "0.1",
}
# The stages that time something, and the stages that read their results.
TIMED = ("benchmark", "choose", "optimize", "profile", "report")
# The variant that is made slower, by which factors, and the metric that should show it.
SLOWED = "int8_static"
SLOWDOWNS = (1.2, 1.5, 2.0)
TOLD_BY = f"benchmark.{SLOWED}.speedup_vs_eager"


def main(arguments: argparse.Namespace) -> None:
    replicates = arguments.replicates
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder) / "clone", PARAMETERS)
        list_models(clone, MODEL)
        forget_runs(clone)  # otherwise the timings of another machine may skip the benchmark
        check(run(clone, "tools.repro"))
        commit(clone)
        found = []
        for number in range(1, replicates + 1):
            set_param(clone, "benchmark.replicate", str(number))
            check(run(clone, "dvc", "repro", "--force", "--single-item", *(address(stage, MODEL) for stage in TIMED)))
            found.append(in_folder(clone))
            print(f"{number} of {replicates}: {dict(found[-1][0].counts())}", flush=True)
        result = {
            "machine": machine_name(read_json(clone / HARDWARE)),
            "model": MODEL,
            "settings": PARAMETERS,
            **summary([comparison for comparison, _ in found]),
            "slower": {
                f"{factor:g} times": {"speedup_vs_eager": sum(slower[factor] for _, slower in found)}
                for factor in SLOWDOWNS
            },
        }
    write_json(COMPARE_BENCHMARK, result)
    print(json.dumps(result, indent=2))


def commit(clone: Path) -> None:
    for command in ("add -A", "-c user.name=test -c user.email=test@example.invalid commit -q -m base"):
        result = run_git(*command.split(), cwd=clone)
        if result.returncode:
            raise BenchmarkError(f"git {command} failed: {result.stderr.decode()}")


def in_folder(clone: Path) -> tuple[Comparison, dict[float, bool]]:
    """Compare the workspace with its last commit; and say for each slowdown whether it is found."""
    before = Path.cwd()
    os.chdir(clone)
    try:
        base, head = (revision.of_model(MODEL) for revision in load_pair("HEAD", None))
    finally:
        os.chdir(before)
    rows = {factor: compare(base, slowed(head, factor)).row(TOLD_BY) for factor in SLOWDOWNS}
    slower = {factor: row is not None and row.verdict == "worse" for factor, row in rows.items()}
    return compare(base, head), slower


def slowed(revision: Revision, factor: float) -> Revision:
    """Return the revision as if every call of SLOWED had taken `factor` times as long."""
    timings = BenchmarkMetrics.path(MODEL).as_posix()
    benchmark = json.loads(revision.files[timings])
    own = benchmark[SLOWED]
    for key, value in own["latency_ms"].items():
        own["latency_ms"][key] = None if value is None else value * factor
    for key in own:
        if key.startswith("speedup") and own[key] is not None:
            own[key] /= factor
    return replace(revision, files={**revision.files, timings: json.dumps(benchmark).encode()})


def summary(comparisons: list[Comparison]) -> dict[str, Any]:
    rows = [row for comparison in comparisons for row in comparison.rows]
    others = Counter(f"{row.name}: {row.verdict}" for row in rows if row.verdict != "no difference")
    largest: dict[str, tuple[float, str]] = {}
    for row in rows:
        kind = row.metric.noise
        if row.allowed and row.base > 0 and row.head > 0:
            low, high = row.allowed
            moved = (low * ALLOWANCES[kind], high / ALLOWANCES[kind])  # the machine's drift, by PyTorch eager
            largest[kind] = max(largest.get(kind, (1.0, "")), (math.exp(beyond(row.head / row.base, moved)), row.name))
    return {
        "replicates": len(comparisons),
        "without_difference": sum(
            all(row.verdict == "no difference" for row in comparison.rows) for comparison in comparisons
        ),
        "figures": len(rows),
        "figures_without_difference": sum(row.verdict == "no difference" for row in rows),
        "others": dict(others),
        "largest_factor": {kind: {"factor": factor, "figure": name} for kind, (factor, name) in largest.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=20, help="how often to measure again (20)")
    run_tool(main, parser)
