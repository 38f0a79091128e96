"""Measure INT8 on the kernels of a CPU without VNNI, on any x86-64 CPU.

    python -m benchmarks.avx2 [--model NAME]

searches for int8_static with the target avx2 and runs it on the evaluation samples in an emulated CPU that has AVX2 and
nothing newer, so that ONNX Runtime takes the kernels that saturate. It does the same for the target vnni and for
onnxruntime's own recipes. Writes benchmarks/avx2.json: agreement and SQNR compared with the float32 model, on those
kernels. It says nothing about speed. Needs valgrind, x86-64, and a finished `make repro MODEL=NAME`. Takes about five
minutes on 2 cores with mobilenet_v2, of which the page has the numbers.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from threadpoolctl import threadpool_limits

from benchmarks.quantization import recipes
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.params import load_params
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import check_made
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.graph.graph import save_model
from onnx_release.graph.targets import TARGETS
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import Goal, search
from tests.avx2 import AVAILABLE, outputs_on_avx2
from tools.models import add_model_option, chosen_model

RESULT = Path("benchmarks/avx2.json")


def main(arguments: argparse.Namespace) -> None:
    if not AVAILABLE:
        sys.exit("this needs valgrind, on x86-64: apt install valgrind")
    files = chosen_model(arguments.model)
    params, spec, data = load_params(files), load_spec(files.model), load_data(files.model)
    check_made("int8_static", spec)
    assert spec.budget is not None  # or the spec would make no int8_static
    by_calibration, scorer = (
        Scorer(files.variant("fp32"), spec, data, SampleFile(path))
        for path in (files.calibration_samples, files.evaluation_samples)
    )
    minutes = params.quantize_static.minutes
    calibrated, ranges = onnx.load(files.variant("calibration")), read_json(files.ranges)["ranges"]
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(limits=1):
        # S8S8 runs mostly in float, which is slowest in the emulation.
        models = {name: path for name, path in recipes(files, params.calibrate, Path(folder)).items() if "U8S8" in name}
        for name in ("avx2", "vnni"):
            best = search(calibrated, ranges, TARGETS[name], by_calibration, Goal(spec.budget, minutes)).best
            (Path(folder) / f"searched for {name}").mkdir()
            models[f"int8_static for {name}"] = save_model(best.model, Path(folder) / f"searched for {name}")
        result = {
            "model": files.model,
            "models": {name: scores_on_avx2(scorer, path) for name, path in models.items()},
        }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def scores_on_avx2(scorer: Scorer, path: Path) -> dict[str, Any]:
    indices = range(len(scorer.samples))
    feeds = [scorer.samples.batch(index) for index in indices]
    found = scorer.score_outputs(outputs_on_avx2([(path, feed) for feed in feeds]), indices)
    return {"agreement": found.agreement, "sqnr_db": found.sqnr_db}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    run_tool(main, parser)
