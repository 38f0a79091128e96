"""Convert the float32 model to float16; what overflows on calibration samples stays in float32."""

from onnx_release.command import run_stage
from onnx_release.files import write_json
from onnx_release.fp16 import convert_to_fp16
from onnx_release.params import load_params
from onnx_release.paths import CALIBRATION, METRICS, variant_model
from onnx_release.samples import SampleFile


def main() -> None:
    samples = SampleFile(CALIBRATION)
    folder = variant_model("fp16").parent
    write_json(METRICS / "fp16.json", convert_to_fp16(variant_model("fp32"), samples, load_params().fp16, folder))


if __name__ == "__main__":
    run_stage(main)
