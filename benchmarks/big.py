"""Measure the time and memory of every stage, and of a start of the server, for a network of over 2 GB.

    python -m benchmarks.big

makes such a network in a clone of the repository, runs the stages one by one, starts the server with what they release,
and writes benchmarks/big.json: seconds, and the peak resident memory of a process as a multiple of the float32 file.
Takes about half an hour on 2 cores, and 20 GB of disk.
"""

import argparse
import json
import tempfile
from pathlib import Path

from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.variants import VARIANTS
from onnx_release.graph.graph import model_size_mb
from tests.big import Usage, add_big_model, measured, measured_server
from tools.clone import make_clone

RESULT = Path("benchmarks/big.json")
FILES = ModelFiles("big")
FIRST = ("hardware", "sources", "settings big", "fetch big")
MADE = ("prepare", "reference", "export", "slim", "fp16", "quantize_dynamic", "calibrate", "quantize_static")
LAST = (
    "explain fp16",
    "explain int8_dynamic",
    "explain int8_static",
    "benchmark",
    "choose",
    "optimize",
    "profile",
    "report",
    "package",
)
# The network has no data that a longer search would help, and turns of a tenth of a second hold a few calls.
PARAMETERS = {"quantize_static.minutes": "0.5", "benchmark.starts": "1", "benchmark.turn_seconds": "0.1"}


def main(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder) / "clone", PARAMETERS)
        add_big_model(clone, whole=True)
        for command in FIRST:
            stage(clone, command)
        usages: dict[str, Usage] = {}
        for command in (*MADE, *(f"validate {variant}" for variant in VARIANTS), *LAST):
            name, *variant = command.split()
            usages[command] = stage(clone, " ".join([name, "big", *variant]))
            print(f"{command}: {usages[command].seconds:.0f} s, {usages[command].peak_memory / 1e9:.1f} GB", flush=True)
        usages["start of the server"] = done(measured_server(clone / FILES.release))
        size = model_size_mb(clone / FILES.variant("fp32")) * 1e6
        result = {
            "machine": machine_name(read_json(clone / HARDWARE)),
            "model_mb": size / 1e6,
            "stages": {
                name: {"seconds": usage.seconds, "memory_multiple": usage.peak_memory / size}
                for name, usage in usages.items()
            },
        }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def stage(clone: Path, command: str) -> Usage:
    """Run a stage on what its command line names, and return what it used."""
    return done(measured(clone, "-m", *f"stages.{command}".split()))


def done(usage: Usage) -> Usage:
    if usage.exit_code:
        raise SystemExit(usage.output)
    return usage


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
