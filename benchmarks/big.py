"""Measure the time and memory of a network of over 2 GB in each stage that makes, checks and times its float32 model.

    python -m benchmarks.big

makes such a network in a clone of the repository, runs the stages one by one with each exporter, and writes
benchmarks/big.json: seconds, and the peak resident memory of a process as a multiple of the model's size. Only PyTorch
and the float32 model are timed. Takes about three minutes on 2 cores, and 7 GB of disk.
"""

import argparse
import json
import tempfile
from pathlib import Path

from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.graph.graph import model_size_mb
from tests.big import BENCHMARK, Usage, add_big_model, measured
from tools.clone import make_clone, set_param

RESULT = Path("benchmarks/big.json")
FILES = ModelFiles("big")
FIRST = ("hardware", "sources", "settings big", "fetch big")
STAGES = ("prepare big", "reference big", "export big", "slim big", "validate big export", "validate big fp32")


def main(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder) / "clone", {"benchmark.starts": "1"})
        add_big_model(clone)
        for command in FIRST:
            measure_stage(clone, command)
        usages = {}
        for exporter in ("dynamo", "torchscript"):
            set_param(clone, "export.exporter", exporter)
            measure_stage(clone, "settings big")
            runs = {command.replace(" big", ""): measure_stage(clone, command) for command in STAGES}
            usages[exporter] = {**runs, "benchmark": done(measured(clone, "-c", BENCHMARK))}
        size = model_size_mb(clone / FILES.variant("fp32")) * 1e6
        result = {
            "machine": machine_name(read_json(clone / HARDWARE)),
            "model_mb": size / 1e6,
            "stages": {
                exporter: {
                    stage: {"seconds": usage.seconds, "memory_multiple": usage.peak_memory / size}
                    for stage, usage in runs.items()
                }
                for exporter, runs in usages.items()
            },
        }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def measure_stage(clone: Path, command: str) -> Usage:
    """Run a stage on what its command line names, and return what it used."""
    return done(measured(clone, "-m", *f"stages.{command}".split()))


def done(usage: Usage) -> Usage:
    if usage.exit_code:
        raise SystemExit(usage.output)
    return usage


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
