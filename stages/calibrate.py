"""Equalize the float32 model and find the range of every activation on calibration samples."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.calibrate import calibrate
from onnx_release.reduce.metrics import CalibrateMetrics


def main(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    if "int8_static" not in spec.variants:  # nothing else reads the ranges
        leave_out(CalibrateMetrics.path(model), files.calibration)
        return
    params, samples = load_params(files).calibrate, SampleFile(files.calibration_samples)
    calibrate(files.variant("fp32"), spec, samples, params, files.calibration).write(model)


if __name__ == "__main__":
    run_stage(main)
