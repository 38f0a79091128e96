"""Equalize the float32 model and find the range of every activation on calibration samples."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import CALIBRATION_FOLDER, CALIBRATION_SAMPLES, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.calibrate import calibrate
from onnx_release.reduce.metrics import CalibrateMetrics


def main() -> None:
    params = load_params()
    spec = load_spec(params.model)
    if "int8_static" not in spec.variants:  # nothing else reads the ranges
        leave_out(CalibrateMetrics.path(), CALIBRATION_FOLDER)
        return
    calibrate(
        variant_model("fp32"), spec, SampleFile(CALIBRATION_SAMPLES), params.calibrate, CALIBRATION_FOLDER
    ).write()


if __name__ == "__main__":
    run_stage(main)
