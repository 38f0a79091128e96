"""Equalize the float32 model and find the range of every activation on calibration samples."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import CALIBRATED, CALIBRATION, METRICS, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.calibrate import calibrate


def main() -> None:
    params = load_params()
    spec, metrics = load_spec(params.model), METRICS / "calibrate.json"
    if "int8_static" not in spec.variants:  # nothing else reads the ranges
        leave_out(metrics, CALIBRATED)
        return
    found = calibrate(variant_model("fp32"), spec, SampleFile(CALIBRATION), params.calibrate, CALIBRATED)
    write_json(metrics, found)


if __name__ == "__main__":
    run_stage(main)
