"""Measure how long sweeps of the small model take, and whether an experiment repeats the work of another.

    python -m benchmarks.sweep

clones the repository with an empty DVC cache, runs sweeps/digits.yaml, twelve experiments without timings, and
sweeps/digits_timed.yaml, four with timings, and writes benchmarks/sweep.json: seconds, how often a stage ran, how many
entries the run cache has gained, and which commands ran more than once on the same inputs. Takes about eight minutes on
2 cores.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE, LOCK
from onnx_release.sweep.queue import LOGS, repeated_work, stages_that_ran
from tools.clone import forget_runs, list_models, make_clone, run

RESULT = Path("benchmarks/sweep.json")
GRIDS = ("digits", "digits_timed")
MODEL = "digits_cnn"
NOTHING_RAN = "schema: '2.0'\nstages: {}\n"


def main(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder) / "clone")
        list_models(clone, MODEL)
        forget_runs(clone)
        (clone / LOCK).write_text(NOTHING_RAN, encoding="utf-8")  # DVC would look for outputs that the cache lacks
        for arguments in (
            ["config", "user.name", "benchmark"],
            ["config", "user.email", "benchmark@example.invalid"],
            ["commit", "--quiet", "--all", "--message", "one model that has not run"],
        ):
            subprocess.run(["git", *arguments], cwd=clone, check=True)
        result = {"machine": machine_name(read_json(HARDWARE)), **{grid: measure_sweep(clone, grid) for grid in GRIDS}}
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def measure_sweep(clone: Path, grid: str) -> dict[str, Any]:
    runs = clone / ".dvc/cache/runs"
    before = {entry.name for entry in runs.glob("*/*")}
    start = time.perf_counter()
    result = run(clone, "tools.sweep", f"sweeps/{grid}.yaml")
    seconds = time.perf_counter() - start
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)
    print(result.stdout)
    logs = sorted((clone / LOGS).glob(f"{grid}-*.log"))
    prepare = [log for log in logs if log.name.startswith(f"{grid}-prepare-")]
    return {
        "seconds": seconds,
        "experiments": len(logs) - len(prepare),
        "preparing_experiments": len(prepare),
        "stages_run": sum(len(stages_that_ran(log)) for log in logs),
        "new_in_run_cache": len({entry.name for entry in runs.glob("*/*")} - before),
        "repeated": repeated_work(logs, runs, before),
    }


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
