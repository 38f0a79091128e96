"""Count how often a gate on a speed-up would have been measured, over the runs that this repository has committed.

    python -m benchmarks.gate_bounds

compares each commit that changed metrics/NAME/benchmark.json of a model on the list with the one before, checks the
default gates on speed-ups with several bounds, and prints how many were measured. The bounds in params.yaml come from
this. It needs the whole history, and takes about a minute.
"""

import argparse
from itertools import pairwise

from onnx_release.core.command import run_tool
from onnx_release.core.git import git_output
from onnx_release.core.model_list import load_models
from onnx_release.core.params import Gate
from onnx_release.report.text import percent, table
from onnx_release.review.compare import Comparison, compare
from onnx_release.review.gates import check_gates
from onnx_release.review.revisions import Revision, load_pair
from onnx_release.timing.metrics import BenchmarkMetrics

METRICS = ("benchmark.fp*.speedup_vs_eager", "benchmark.int8_*.speedup_vs_eager", "summary.speedup_vs_eager")
SHARES = (0.15, 0.2, 0.25, 0.3)


def main(_: argparse.Namespace) -> None:
    compared = [pair for model in load_models() for pair in compared_runs(model)]
    rows = [[percent(share), *(str(count) for count in counts(share, compared))] for share in SHARES]
    print(table(["bound", "gates", "not measured", "of these, other work took cores"], rows))


def compared_runs(model: str) -> list[tuple[Revision, Comparison]]:
    """Return each committed run of the model but the first, with its comparison with the run before."""
    timings = BenchmarkMetrics.path(model).as_posix()
    commits = (git_output("log", "--reverse", "--format=%h", "--", timings) or "").split()
    pairs = [load_pair(before, after) for before, after in pairwise(commits)]
    return [(head.of_model(model), compare(base.of_model(model), head.of_model(model))) for base, head in pairs]


def counts(share: float, compared: list[tuple[Revision, Comparison]]) -> tuple[int, int, int]:
    """Return how many gates there were, how many were not measured, and how many of these for other work."""
    gates = [Gate(metric=metric, max_regression_share=share) for metric in METRICS]
    found = [one for head, comparison in compared for one in check_gates(gates, head, comparison)]
    checked = [one for one in found if one.status != "not checked"]
    missed = [one for one in checked if one.status == "not measured"]
    return len(checked), len(missed), sum("other work took cores" in one.reason for one in missed)


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
