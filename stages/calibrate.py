"""Equalize the float32 model and find the range of every activation on calibration samples."""

from onnx_release.calibrate import calibrate
from onnx_release.command import run_stage
from onnx_release.files import write_json
from onnx_release.params import load_params
from onnx_release.paths import CALIBRATED, CALIBRATION, METRICS, variant_model
from onnx_release.samples import SampleFile
from onnx_release.spec import load_spec
from onnx_release.variants import leave_out


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
