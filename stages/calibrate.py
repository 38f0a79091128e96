"""Equalize the float32 model and find the range of every activation on calibration samples."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out, make_variant
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.calibrate import calibrate
from onnx_release.reduce.metrics import CalibrateMetrics


def main(model: str) -> None:
    folder, metrics = ModelFiles(model).calibration, CalibrateMetrics.path(model)
    if "int8_static" not in load_spec(model).variants:  # nothing else reads the ranges
        leave_out(metrics, folder)
    else:
        make_variant(model, "int8_static", metrics, folder, make)


def make(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    params, samples = load_params(files).calibrate, SampleFile(files.calibration_samples)
    calibrate(files.variant("fp32"), spec, samples, params, files.calibration, load_data(model)).write(model)


if __name__ == "__main__":
    run_stage(main)
