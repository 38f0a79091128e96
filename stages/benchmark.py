"""Time PyTorch and every variant on real samples, in interleaved rounds, and time decoding and preprocessing."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_rows
from onnx_release.core.hardware import machine_name
from onnx_release.core.params import load_params
from onnx_release.core.paths import EVALUATION_SAMPLES, HARDWARE, PLOTS, PROVIDER, RAW
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.runtime.providers import CPU, device_id
from onnx_release.runtime.settings import load_runtime
from onnx_release.timing.benchmark import Conditions, benchmark_metrics, check_settings, latency_rows, measure, settings
from onnx_release.timing.contenders import all_contenders
from onnx_release.timing.preparation import time_preparation


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    hardware, provider = read_json(HARDWARE), read_json(PROVIDER)
    check_settings(params, spec, hardware["cores"])
    raw, samples = RAW / params.model, SampleFile(EVALUATION_SAMPLES)
    on_gpu = provider["provider"] != CPU
    device = f"cuda:{device_id(provider['provider'], params.runtime)}" if on_gpu else "cpu"
    runs = {}
    for batch, threads in settings(params, hardware["cores"]):
        runtime = load_runtime(params.runtime).model_copy(update={"intra_threads": threads})
        entries = all_contenders(params.model, raw, spec, runtime, device)
        runs[batch, threads] = measure(entries, real_batches(samples, batch, spec), params.benchmark)
    write_rows(PLOTS / "latency.csv", latency_rows(next(iter(runs.values()))))
    conditions = Conditions(
        machine=machine_name(hardware),
        provider=provider["provider"],
        provider_note=provider["note"],
        copies="included" if on_gpu else "none",
    )
    preparation = time_preparation(load_data(params.model), raw)
    benchmark_metrics(runs, params.benchmark, conditions, preparation).write()


if __name__ == "__main__":
    run_stage(main)
