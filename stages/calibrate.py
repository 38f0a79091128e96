"""Equalize the float32 model and find the range of every activation on calibration samples."""

from onnx_release.calibrate import calibrate
from onnx_release.command import run_stage
from onnx_release.files import write_json
from onnx_release.params import load_params
from onnx_release.paths import CALIBRATED, CALIBRATION, METRICS, variant_model
from onnx_release.samples import SampleFile
from onnx_release.spec import load_spec


def main() -> None:
    params = load_params()
    samples = SampleFile(CALIBRATION)
    metrics = calibrate(variant_model("fp32"), load_spec(params.model), samples, params.calibrate, CALIBRATED)
    write_json(METRICS / "calibrate.json", metrics)


if __name__ == "__main__":
    run_stage(main)
