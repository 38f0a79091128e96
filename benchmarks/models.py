"""Measure how long the pipeline takes for models besides the default one.

    python -m benchmarks.models [NAME ...]

runs `make repro MODEL=NAME` for a detector and a sentence encoder, each in a fresh clone with this environment's
packages and an empty DVC cache, and writes the seconds to benchmarks/models.json, from which docs/detection.md and
docs/sequences.md have them. It fails if a gate fails. Takes about eight minutes on 2 cores.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.pipeline import fresh_clone, timed_repro
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE, MODELS_BENCHMARK
from tools.models import chosen_model

OTHER_MODELS = ("face_pnet", "minilm")


def main(arguments: argparse.Namespace) -> None:
    result = read_json(MODELS_BENCHMARK) if MODELS_BENCHMARK.is_file() else {}
    for model in [chosen_model(name).model for name in arguments.models]:
        with tempfile.TemporaryDirectory() as folder:
            clone = fresh_clone(Path(folder) / "clone")
            seconds, _ = timed_repro(clone, model)
            result[model] = {"machine": machine_name(read_json(clone / HARDWARE)), "seconds": seconds}
        write_json(MODELS_BENCHMARK, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=OTHER_MODELS, help=f"models to measure ({' '.join(OTHER_MODELS)})")
    run_tool(main, parser)
