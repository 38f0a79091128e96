"""Compare static INT8 with onnxruntime's own recipes on the same photographs, and measure longer searches.

    python -m benchmarks.quantization           # the recipes and the pipeline's int8_static, about five minutes
    python -m benchmarks.quantization --nncf PYTHON   # and NNCF's: see benchmarks/nncf_recipes.py
    python -m benchmarks.quantization --curve   # the search at several quantize_static.minutes, about eight more

writes benchmarks/quantization.json and benchmarks/quantization_curve.json. Every model is calibrated on the calibration
samples and compared with the float32 ONNX model on the evaluation samples, which are of other photographs: agreement
and SQNR. Latency is at batch 1, each model in a process of its own, as a ratio to float32 in interleaved rounds. Needs
a finished `make repro MODEL=NAME`; without `--model NAME` it takes the first on the list. The page has the numbers of
mobilenet_v2.
"""

import argparse
import json
import logging
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from threadpoolctl import threadpool_limits

from benchmarks.calibration import Reader, onnxruntime_ranges
from benchmarks.onnxruntime_quantizer import run_quantizer
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.params import Calibrate, Params, Runtime, load_params
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import check_made
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches, spread_evenly
from onnx_release.graph.graph import save_model
from onnx_release.graph.targets import TARGETS, Target, load_target
from onnx_release.static_quantization.scoring import Scorer
from onnx_release.static_quantization.search import Goal, search
from onnx_release.timing.benchmark import Measurement, measure
from onnx_release.timing.contenders import Contender
from tools.models import add_model_option, chosen_model

RESULT = Path("benchmarks/quantization.json")
CURVE = Path("benchmarks/quantization_curve.json")
MINUTES = (0.25, 0.5, 1, 2, 4)
MINMAX_SAMPLES = 64  # onnxruntime's MinMax keeps every activation of all of them in memory


def main(arguments: argparse.Namespace) -> None:
    logging.getLogger().setLevel(logging.ERROR)
    files, hardware = chosen_model(arguments.model), read_json(HARDWARE)
    params, spec = load_params(files), load_spec(files.model)
    check_made("int8_static", spec)
    scorer = Scorer(files.variant("fp32"), spec, load_data(files.model), SampleFile(files.evaluation_samples))
    if arguments.curve:
        result: dict[str, Any] = {"minutes": curve(files, scorer)}
        path = CURVE
    else:
        with tempfile.TemporaryDirectory() as folder:
            models = made_models(files, params.calibrate, Path(folder), arguments.nncf)
            result = {"models": measure_models(models, files, params, scorer, hardware["cores"])}
        path = RESULT
    result = {"model": files.model, "machine": machine_name(hardware), **result}
    write_json(path, result)
    print(json.dumps(result, indent=2))


def made_models(files: ModelFiles, settings: Calibrate, folder: Path, nncf: str | None) -> dict[str, Path]:
    """Return the pipeline's own files and those of every other quantizer, by name."""
    own = {name: files.variant(name) for name in ("fp32", "int8_static")}
    return own | recipes(files, settings, folder) | (nncf_recipes(files, nncf, folder) if nncf else {})


def measure_models(
    models: Mapping[str, Path], files: ModelFiles, params: Params, scorer: Scorer, cores: int
) -> dict[str, Any]:
    """Return the metrics of every model by name; `latency` is the median ratio to float32."""
    runtime = Runtime(provider="cpu", intra_threads=cores)
    entries = [Contender(name, "onnx", str(path), files.raw, scorer.spec, runtime) for name, path in models.items()]
    batches = real_batches(scorer.samples, 1, scorer.spec, load_data(files.model))
    measurements = measure(entries, batches, params.benchmark).measurements
    return {
        name: {
            **evaluation_metrics(scorer, onnx.load(path)),
            "latency": ratio(measurements[name], measurements["fp32"]),
        }
        for name, path in models.items()
        if name != "fp32"
    }


def evaluation_metrics(scorer: Scorer, model: onnx.ModelProto) -> dict[str, float | None]:
    found = scorer.score(model, range(len(scorer.samples)))
    return {"agreement": found.agreement, "sqnr_db": found.sqnr_db}


def ratio(one: Measurement, other: Measurement) -> float:
    """Return the median over rounds of the ratio of the rounds' medians."""
    rounds = zip(one.rounds, other.rounds, strict=True)
    return float(np.median([np.median(turn) / np.median(base) for turn, base in rounds]))


def recipes(files: ModelFiles, settings: Calibrate, folder: Path) -> dict[str, Path]:
    """Quantize the float32 model with onnxruntime's quantizer alone, in several ways."""
    source, samples = files.variant("fp32"), SampleFile(files.calibration_samples)
    kinds = {
        "onnxruntime S8S8 MinMax, its defaults": {},
        "onnxruntime U8S8 per-channel MinMax": {"activation_type": QuantType.QUInt8, "per_channel": True},
        "onnxruntime U8S8 per-channel MinMax reduce_range": {
            **{"activation_type": QuantType.QUInt8, "per_channel": True, "reduce_range": True},
        },
    }
    made = {}
    for index, (name, options) in enumerate(kinds.items()):
        path = folder / f"{index}.onnx"
        reader = Reader(samples, spread_evenly(len(samples), MINMAX_SAMPLES))
        quantize_static(
            *(str(source), str(path), reader),
            quant_format=QuantFormat.QDQ,
            calibrate_method=CalibrationMethod.MinMax,
            **{"weight_type": QuantType.QInt8, **options},
        )
        made[name] = path
    percentile = onnxruntime_ranges(source, samples, settings)
    limits = {name: (min(low, 0.0), max(high, 0.0)) for name, (low, high, _) in percentile.items()}
    for target in (TARGETS["avx2"], TARGETS["vnni"]):
        name = f"onnxruntime U8S8 per-channel Percentile{' reduce_range' if target.reduce_range else ''}"
        made[name] = save_quantized(source, limits, target, folder / target.name)
    return made


def nncf_recipes(files: ModelFiles, python: str, folder: Path) -> dict[str, Path]:
    paths = (files.variant("fp32"), files.calibration_samples, folder)
    subprocess.run([python, "benchmarks/nncf_recipes.py", *map(str, paths)], check=True)
    return {f"NNCF, {name} bias correction": folder / f"{name}.onnx" for name in ("fast", "full")}


def save_quantized(source: Path, limits: dict[str, tuple[float, float]], target: Target, folder: Path) -> Path:
    folder.mkdir()
    return save_model(run_quantizer(onnx.load(source), limits, target, []), folder)


def curve(files: ModelFiles, scorer: Scorer) -> list[dict[str, Any]]:
    """Return what the search finds within the model's budget, by minutes of work."""
    calibration_scorer = Scorer(files.variant("fp32"), scorer.spec, scorer.data, SampleFile(files.calibration_samples))
    model, ranges = onnx.load(files.variant("calibration")), read_json(files.ranges)["ranges"]
    rows = []
    target, budget = load_target(files), scorer.spec.budget
    assert budget is not None  # or the spec would make no int8_static
    for minutes in MINUTES:
        with threadpool_limits(limits=1):
            result = search(model, ranges, target, calibration_scorer, Goal(budget, minutes))
        best = result.best
        rows.append(
            {
                **{"target": target.name, "minutes": minutes, "float_layers": len(best.float_nodes)},
                **{"budget_met": not best.failures, "calibration_sqnr_db": best.closeness.sqnr_db},
                "fitted_graphs": result.fitted,
                **evaluation_metrics(scorer, best.model),
            }
        )
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    parser.add_argument("--nncf", metavar="PYTHON", help="the Python of an environment that has NNCF")
    parser.add_argument("--curve", action="store_true", help="measure searches of several lengths")
    run_tool(main, parser)
