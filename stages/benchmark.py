"""Time PyTorch and every variant on real samples, in interleaved rounds."""

import pandas as pd

from onnx_release.benchmark import contenders, latency_rows, measure, metrics, real_batches
from onnx_release.command import run_stage
from onnx_release.files import read_json, replacing, write_json
from onnx_release.hardware import machine_name
from onnx_release.params import load_params
from onnx_release.paths import EVALUATION, HARDWARE, METRICS, PLOTS
from onnx_release.samples import SampleFile
from onnx_release.spec import load_spec


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    hardware = read_json(HARDWARE)
    threads = params.benchmark.threads or hardware["cores"]
    batches = real_batches(SampleFile(EVALUATION), params.benchmark.batch, [tensor.name for tensor in spec.inputs])
    measurements = measure(contenders(params.model, threads), batches, params.benchmark)
    with replacing(PLOTS / "latency.csv") as partial:
        pd.DataFrame(latency_rows(measurements)).to_csv(partial, index=False, lineterminator="\n")
    write_json(METRICS / "benchmark.json", metrics(measurements, params.benchmark, threads, machine_name(hardware)))


if __name__ == "__main__":
    run_stage(main)
