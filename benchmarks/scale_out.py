"""Measure twelve experiments on two Ray nodes, and on one node one after the other.

    python -m benchmarks.scale_out

runs the pipeline of digits_cnn once, for the base revision, and then twice the twelve experiments without timing of
sweeps/digits.yaml, both from the same git and DVC remotes and with empty nodes: on one node, one experiment after the
other, and on two nodes. A node is pinned to one core, so that two nodes on a machine with two cores are like two
machines with one core; they share its disk and memory. Writes benchmarks/scale_out.json: seconds of both, how many
times as fast two nodes are, the seconds of every experiment, and what the sweep adds to the DVC remote. Needs
requirements-ray.txt and two cores. Takes less than ten minutes on 2 cores.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.pipeline import check
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE
from tests.clone import QUICK
from tools.clone import forget_runs, list_models, make_clone, run

RESULT = Path("benchmarks/scale_out.json")
GRID = "sweeps/digits.yaml"
ENDED = re.compile(r"^\S+ (\S+)(?: \(.*\))?: ran on \S+ in (\d+) s, ", re.MULTILINE)


def main(_: argparse.Namespace) -> None:
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("two cores are needed, one for each node")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        make_base(home)
        shutil.copytree(home, Path(folder) / "pristine", symlinks=True)
        trials = {}
        for name, used in (("one_node", cores[:1]), ("two_nodes", cores)):
            shutil.rmtree(home)
            shutil.copytree(Path(folder) / "pristine", home, symlinks=True)
            trials[name] = sweep(home, used)
            print(name, json.dumps(trials[name]), flush=True)
        result = {
            "machine": machine_name(read_json(home / "project" / HARDWARE)),
            **trials,
            "speedup": trials["one_node"]["seconds"] / trials["two_nodes"]["seconds"],
        }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def make_base(home: Path) -> None:
    """Clone the repository, run it once, and push it to a bare git repository and to a folder."""
    project = make_clone(home / "project", QUICK)
    list_models(project, "digits_cnn")
    forget_runs(project)
    check(run(project, "dvc", "repro", env={"TORCHDYNAMO_DISABLE": "1"}))  # no timing is read, so nothing is compiled
    check(run(project, "dvc", "remote", "add", "--default", "store", str(home / "store")))
    for command in (
        ["config", "user.name", "benchmark"],
        ["config", "user.email", "benchmark@example.invalid"],
        ["init", "--quiet", "--bare", str(home / "origin.git")],
        ["remote", "add", "origin", str(home / "origin.git")],
        ["add", "--all"],
        ["commit", "--quiet", "--message", "base"],
        ["push", "--quiet", "origin", "HEAD"],
    ):
        subprocess.run(["git", *command], cwd=project, check=True)
    check(run(project, "dvc", "push", "--run-cache"))


def sweep(home: Path, cores: list[int]) -> dict[str, Any]:
    """Run the sweep on a fresh cluster with a node on each of the cores."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp"}  # a socket's path is short
    before, allowed = stored(home / "store"), os.sched_getaffinity(0)
    cluster: Any = Cluster()
    try:
        for core in cores:
            temporary = home / f"node{core}"
            temporary.mkdir()
            os.sched_setaffinity(0, {core})  # the node's processes inherit it
            cluster.add_node(num_cpus=1, include_dashboard=False, env_vars={"TMPDIR": str(temporary)})
        os.sched_setaffinity(0, allowed)
        start = time.perf_counter()
        result = run(home / "project", "tools.sweep", GRID, "--ray", cluster.address)
        seconds = time.perf_counter() - start
    finally:
        os.sched_setaffinity(0, allowed)
        cluster.shutdown()
    check(result)
    after = stored(home / "store")
    return {
        "seconds": seconds,
        "experiments": {name: int(taken) for name, taken in ENDED.findall(result.stdout)},
        "new_files": after[0] - before[0],
        "new_mb": after[1] - before[1],
        "node_files": sum(stored(home / f"node{core}")[0] for core in cores),
        "node_mb": sum(stored(home / f"node{core}")[1] for core in cores),
    }


def stored(folder: Path) -> tuple[int, float]:
    """Count the files below a folder, and their MB (10^6 bytes)."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    return len(sizes), sum(sizes) / 1e6


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
