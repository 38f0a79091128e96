"""Run the whole benchmark twice, and measure how much the speed-ups change.

    python -m benchmarks.repeat [--model NAME]

times PyTorch and every variant of a model twice, as the stage does, and writes benchmarks/repeat.json: for each
contender both speed-ups over PyTorch eager, the change as a share of the first, and whether the second is in the
first's interval; and for each run the parts of its time, as in metrics/NAME/benchmark.json. If openvino is installed
(`pip install openvino==2026.4.1`), it runs the same files. Needs a finished `make repro MODEL=NAME`. Takes about three
minutes on 2 cores.
"""

import argparse
import json
from typing import Any

from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import installed, machine_name
from onnx_release.core.params import load_params
from onnx_release.core.paths import HARDWARE, REPEAT_BENCHMARK
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.timing.benchmark import contender_metrics, measure, settings, time_spent
from onnx_release.timing.contenders import all_contenders
from onnx_release.timing.metrics import ContenderMetrics
from tools.models import add_model_option, chosen_model


def main(arguments: argparse.Namespace) -> None:
    files, hardware = chosen_model(arguments.model), read_json(HARDWARE)
    params, spec = load_params(files), load_spec(files.model)
    batch, threads = settings(params, hardware["cores"])[0]
    runtime = params.runtime.model_copy(update={"provider": "cpu", "intra_threads": threads})
    batches = real_batches(SampleFile(files.evaluation_samples), batch, spec, load_data(files.model))
    entries = all_contenders(files, spec, runtime, "cpu")
    runs = [
        measure(entries, batches, params.benchmark.model_copy(update={"seed": params.benchmark.seed + number}))
        for number in range(2)
    ]
    first, second = (contender_metrics(run, batch, params.benchmark) for run in runs)
    contenders = {name: speedup_change(figures, second[name]) for name, figures in first.items()}
    changes = [item["change"] for item in contenders.values() if item["change"] is not None]
    result = {
        "model": files.model,
        "machine": machine_name(hardware),
        "openvino": installed("openvino"),
        "runs": [time_spent([run]) for run in runs],
        "largest_change": max(changes, default=None),
        "contenders": contenders,
    }
    write_json(REPEAT_BENCHMARK, result)
    print(json.dumps(result, indent=2))


def speedup_change(first: ContenderMetrics, second: ContenderMetrics) -> dict[str, Any]:
    """Return both speed-ups of one contender, and their difference as a share of the first; None without either."""
    before, after = first.speedup_vs_eager, second.speedup_vs_eager
    low, high = first.speedup_low, first.speedup_high
    figures = {
        "latency_ms": [first.latency_ms.median, second.latency_ms.median],
        "speedups": [before, after],
        "interval": [low, high],
    }
    if before is None or after is None or low is None or high is None:
        return {**figures, "change": None, "within": None}
    return {**figures, "change": abs(after / before - 1), "within": low <= after <= high}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    run_tool(main, parser)
