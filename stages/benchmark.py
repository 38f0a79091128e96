"""Time PyTorch and every variant on real samples, in interleaved rounds, and time decoding and preprocessing."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_rows
from onnx_release.core.params import load_params
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.timing.benchmark import benchmark_metrics, latency_rows, measure_settings
from onnx_release.timing.conditions import find_conditions, torch_device
from onnx_release.timing.preparation import time_preparation


def main(model: str) -> None:
    files = ModelFiles(model)
    params, spec = load_params(files), load_spec(model)
    hardware, provider = read_json(HARDWARE), read_json(files.provider)
    device = torch_device(provider["provider"], params.runtime)
    runs = measure_settings(files, params, spec, hardware["cores"], device)
    preparation = time_preparation(load_data(model), files.raw)
    write_rows(files.plots / "latency.csv", latency_rows(next(iter(runs.values()))))
    benchmark_metrics(runs, params.benchmark, find_conditions(hardware, provider), preparation).write(model)


if __name__ == "__main__":
    run_stage(main)
