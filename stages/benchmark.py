"""Time PyTorch and every variant on real samples, in interleaved rounds, and time decoding and preprocessing."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_rows
from onnx_release.core.params import load_params
from onnx_release.core.paths import EVALUATION_SAMPLES, HARDWARE, PLOTS, PROVIDER, RAW
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.timing.benchmark import benchmark_metrics, latency_rows, measure_settings
from onnx_release.timing.conditions import find_conditions, torch_device
from onnx_release.timing.preparation import time_preparation


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    hardware, provider = read_json(HARDWARE), read_json(PROVIDER)
    device = torch_device(provider["provider"], params.runtime)
    runs = measure_settings(params, spec, SampleFile(EVALUATION_SAMPLES), hardware["cores"], device)
    preparation = time_preparation(load_data(params.model), RAW / params.model)
    write_rows(PLOTS / "latency.csv", latency_rows(next(iter(runs.values()))))
    benchmark_metrics(runs, params.benchmark, find_conditions(hardware, provider), preparation).write()


if __name__ == "__main__":
    run_stage(main)
