"""Convert the float32 model to float16; nodes that overflow on calibration samples stay in float32."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import CALIBRATION_SAMPLES, variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.fp16 import convert_to_fp16
from onnx_release.reduce.metrics import Fp16Metrics


def main() -> None:
    params = load_params()
    folder = variant_model("fp16").parent
    if "fp16" not in load_spec(params.model).variants:
        leave_out(Fp16Metrics.path(), folder)
        return
    convert_to_fp16(variant_model("fp32"), SampleFile(CALIBRATION_SAMPLES), params.fp16, folder).write()


if __name__ == "__main__":
    run_stage(main)
