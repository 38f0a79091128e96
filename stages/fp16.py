"""Convert the float32 model to float16; what overflows on calibration samples stays in float32."""

from onnx_release.core.command import run_stage
from onnx_release.core.files import write_json
from onnx_release.core.params import load_params
from onnx_release.core.paths import CALIBRATION, METRICS, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.fp16 import convert_to_fp16


def main() -> None:
    params = load_params()
    folder, metrics = variant_model("fp16").parent, METRICS / "fp16.json"
    if "fp16" not in load_spec(params.model).variants:
        leave_out(metrics, folder)
        return
    write_json(metrics, convert_to_fp16(variant_model("fp32"), SampleFile(CALIBRATION), params.fp16, folder))


if __name__ == "__main__":
    run_stage(main)
