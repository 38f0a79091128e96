"""Preprocess the samples of both splits once, and check them with the spec."""

import sys

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import calibration_note, sample_metrics, write_splits


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params = load_params(files).prepare
    write_splits(load_data(model), files, spec, params)
    metrics = sample_metrics(files)
    metrics.write(model)
    note = calibration_note(metrics.calibration_samples, spec, model, params)
    if note is not None:
        print(note, file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
