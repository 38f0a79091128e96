"""Run every experiment of a grid, through DVC's queue or on Ray, and show which one to apply.

    python -m tools.sweep sweeps/digits.yaml
    python -m tools.sweep sweeps/digits.yaml --ray HOST:PORT     # on a Ray cluster, see docs/scale-out.md

Run again, it continues where it stopped. docs/sweeps.md explains the grid file and the table.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from onnx_release.core.command import run_tool
from onnx_release.core.errors import SweepError
from onnx_release.core.hardware import available_cores
from onnx_release.core.paths import ModelFiles
from onnx_release.core.plain_text import count_of
from onnx_release.review.gates import load_gates
from onnx_release.sweep import ray as sweep_ray
from onnx_release.sweep.grid import Grid, load_grid, swept_keys
from onnx_release.sweep.plan import Experiment, make_plan
from onnx_release.sweep.progress import Progress
from onnx_release.sweep.queue import run_on_queue
from onnx_release.sweep.repository import check_repository, only_sweep
from onnx_release.sweep.results import (
    ExperimentResult,
    describe_unranked,
    load_results,
    of_model,
    results_table,
    winner,
)

# Each experiment is a process with the libraries of a stage.
MOST_JOBS = 256


def main(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.jobs <= MOST_JOBS:
        raise SweepError(f"--jobs is the number of experiments at once: 1 to {MOST_JOBS}, not {arguments.jobs}")
    grid = load_grid(arguments.grid)
    base = check_repository(arguments.grid)
    # Now, since the workspace may be edited while the sweep runs.
    gates = {model: load_gates(ModelFiles(model)) for model in grid.models}
    with only_sweep():
        plan = make_plan(grid, base, arguments.grid.stem)
        wanted = [experiment.name for experiment in plan if not experiment.prepares]
        print(
            f"{count_of(len(wanted), 'experiment')} from {base[:7]}, and "
            f"{len(plan) - len(wanted)} that prepare shared stages"
        )
        progress = run_experiments(plan, base, swept_keys(grid), arguments)
    results = load_results(grid, plan, base, set(progress.done), gates)
    best = {model: winner(of_model(model, results)) for model in grid.models}
    show_results(grid, results, best)
    failed = [name for name in wanted if name in progress.failed]
    for name in failed:
        print(f"{name} failed: {progress.failed[name]}", file=sys.stderr)
    if arguments.ray is not None:
        # On its front, or else chosen where nothing was measured.
        sweep_ray.pull_data([result.name for result in results if result.on_front or result in best.values()])
    if failed:
        sys.exit(f"error: {len(failed)} of {len(wanted)} failed; the same command tries these again")


def run_experiments(plan: list[Experiment], base: str, keys: list[str], arguments: argparse.Namespace) -> Progress:
    """Run the plan on Ray or on this machine, and print a line for each experiment that ends."""
    labels = {experiment.name: label(experiment, keys) for experiment in plan}

    def say(name: str, what: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {labels.get(name, name)}: {what}", flush=True)

    try:
        if arguments.ray is not None:
            return sweep_ray.run_on_ray(plan, base, arguments.ray, say)
        return run_on_queue(plan, base, arguments.jobs, say)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command continues from here") from None


def show_results(grid: Grid, results: list[ExperimentResult], best: Mapping[str, ExperimentResult | None]) -> None:
    """Print the table, what was not measured, and the winner of each model."""
    if not results:
        return
    print("\n" + results_table(grid, swept_keys(grid), results) + "\n")
    if note := describe_unranked(results):
        print(f"{note}\n")
    for model, found in best.items():
        of = f" of {model}" if len(best) > 1 else ""
        if found is None:
            print(f"No experiment{of} passed: `dvc exp apply NAME` and `python -m tools.gate --model {model}` say why.")
            continue
        # Without timing, the metrics of timed stages are still HEAD's.
        print(f"The winner{of}: dvc exp apply {found.name}" + ("" if grid.timing else f" && make repro MODEL={model}"))


def label(experiment: Experiment, keys: list[str]) -> str:
    """Return the name, and for an experiment of the grid its model and its swept values."""
    if experiment.prepares:
        return experiment.name
    values = [f"{key.rpartition(':')[2]}={experiment.params[key]}" for key in keys]
    return f"{experiment.name} ({', '.join([experiment.model, *values])})"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path, help="a YAML file with what to vary")
    parser.add_argument(
        "--jobs", type=int, default=available_cores(), help="experiments at once where nothing is timed"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: HOST:PORT, or auto on one of its nodes")
    run_tool(main, parser)
