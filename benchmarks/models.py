"""Run the pipeline on the models besides the default one, and measure its time and each variant.

    python -m benchmarks.models [NAME ...]

runs `make repro MODEL=NAME` for a detector and a sentence encoder, each in a fresh clone with this environment's
packages and an empty DVC cache, and writes benchmarks/models.json, from which `make docs` makes the tables of
docs/detection.md and docs/sequences.md. It fails if a gate fails. Takes about eight minutes on 2 cores.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.pipeline import timed_repro
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE, MODELS_BENCHMARK
from tools.clone import make_clone

OTHER_MODELS = ("face_pnet", "minilm")


def main(arguments: argparse.Namespace) -> None:
    result = read_json(MODELS_BENCHMARK) if MODELS_BENCHMARK.is_file() else {}
    for model in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            clone = make_clone(Path(folder) / "clone", {"model": model})
            (clone / "dvc.lock").unlink()  # otherwise the timings of another machine may skip the benchmark
            result[model] = measure_model(clone)
        write_json(MODELS_BENCHMARK, result)
    print(json.dumps(result, indent=2))


def measure_model(clone: Path) -> dict[str, Any]:
    seconds, _ = timed_repro(clone)
    benchmark = read_json(clone / "metrics/benchmark.json")
    validations = {path.stem: read_json(path) for path in sorted((clone / "metrics/validate").glob("*.json"))}
    return {
        "machine": machine_name(read_json(clone / HARDWARE)),
        "seconds": seconds,
        "prepare": read_json(clone / "metrics/prepare.json"),
        "summary": read_json(clone / "metrics/summary.json"),
        "validate": {name: row for name, row in validations.items() if "left_out" not in row},
        "benchmark": {
            **{key: benchmark[key] for key in ("batch", "threads")},
            **{name: row for name, row in benchmark.items() if isinstance(row, dict) and "latency_ms" in row},
        },
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=OTHER_MODELS, help=f"models to measure ({' '.join(OTHER_MODELS)})")
    run_tool(main, parser)
