"""Quantize the weights of MatMul and Gemm; activations are quantized when the model runs."""

from onnx_release.core.command import run_stage
from onnx_release.core.params import load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import leave_out, make_variant
from onnx_release.graph.excluded import excluded_nodes
from onnx_release.graph.graph import load_model
from onnx_release.graph.targets import load_target
from onnx_release.reduce.metrics import QuantizeDynamicMetrics
from onnx_release.reduce.quantize_dynamic import quantize_dynamically


def main(model: str) -> None:
    folder, metrics = ModelFiles(model).variant("int8_dynamic").parent, QuantizeDynamicMetrics.path(model)
    if "int8_dynamic" not in load_spec(model).variants:
        leave_out(metrics, folder)
    else:
        make_variant(model, "int8_dynamic", metrics, folder, make)


def make(model: str) -> None:
    files, spec = ModelFiles(model), load_spec(model)
    source, folder = files.variant("fp32"), files.variant("int8_dynamic").parent
    params, reduce_range = load_params(files).quantize_dynamic, load_target(files).reduce_range
    excluded = excluded_nodes(spec.exclude, load_model(source, weights=False), files.sources)
    quantize_dynamically(source, params, reduce_range, folder, excluded).write(model)


if __name__ == "__main__":
    run_stage(main)
