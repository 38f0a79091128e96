"""Quantize the weights of MatMul and Gemm; activations are quantized when the model runs."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import variant_model
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out
from onnx_release.graph.targets import load_target
from onnx_release.reduce.metrics import QuantizeDynamicMetrics
from onnx_release.reduce.quantize_dynamic import quantize_dynamically


def main() -> None:
    params, target = load_params(), load_target()
    folder = variant_model("int8_dynamic").parent
    if "int8_dynamic" not in load_spec(params.model).variants:
        leave_out(QuantizeDynamicMetrics.path(), folder)
        return
    quantize_dynamically(variant_model("fp32"), params.quantize_dynamic, target.reduce_range, folder).write()


if __name__ == "__main__":
    run_stage(main)
