"""Convert the float32 model to float16; nodes that overflow on calibration samples stay in float32."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out, make_variant
from onnx_release.reduce.fp16 import convert_in_child
from onnx_release.reduce.metrics import Fp16Metrics


def main(model: str) -> None:
    folder, metrics = ModelFiles(model).variant("fp16").parent, Fp16Metrics.path(model)
    if "fp16" not in load_spec(model).variants:
        leave_out(metrics, folder)
    else:
        make_variant(make, model, "fp16", metrics, folder)


def make(model: str) -> None:
    files = ModelFiles(model)
    folder, params = files.variant("fp16").parent, load_params(files).fp16
    convert_in_child(files.variant("fp32"), files.calibration_samples, params, folder).write(model)


if __name__ == "__main__":
    run_stage(main)
