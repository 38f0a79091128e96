"""Preprocess the samples of both splits once, and check them with the spec."""

import sys

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import RAW
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import calibration_note, sample_metrics, write_splits


def main() -> None:
    params = load_params()
    spec, data = load_spec(params.model), load_data(params.model)
    write_splits(data, RAW / params.model, spec, params.prepare)
    metrics = sample_metrics()
    metrics.write()
    note = calibration_note(metrics.calibration_samples, spec, params.model, params.prepare)
    if note is not None:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
