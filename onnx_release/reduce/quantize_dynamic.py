"""Quantize the weights of MatMul and Gemm to 8 bits; activations are quantized when the model runs."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from onnxruntime.quantization import QuantType, quantize_dynamic

from onnx_release.core.errors import ParameterError
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import QuantizeDynamic
from onnx_release.graph.graph import load_model, model_size_mb, save_checked
from onnx_release.graph.precision import check_not_quantized, only_errors
from onnx_release.reduce.metrics import QuantizeDynamicMetrics

# The operators that ONNX Runtime quantizes dynamically, and their integer operators.
INTEGER = {
    "MatMul": "MatMulInteger",
    "Gemm": "MatMulInteger",
    "Conv": "ConvInteger",
    "Attention": "QAttention",
    "LSTM": "DynamicQuantizeLSTM",
}


def quantize_dynamically(
    source: Path, params: QuantizeDynamic, reduce_range: bool, folder: Path
) -> QuantizeDynamicMetrics:
    """Write `source` to `folder` with int8 weights, one scale for each output channel, and return the metrics.

    `reduce_range` keeps 7 bits of the weights, which CPUs without VNNI need against saturation. A model without any of
    the operators is written as it is, and `quantized_nodes` is 0. Raises ParameterError for an operator that ONNX
    Runtime does not quantize dynamically, and GraphError for a model that is already quantized.
    """
    check_operators(params.operators)
    model = load_model(source)
    check_not_quantized(model, source)
    before = len(model.graph.node)
    with tempfile.TemporaryDirectory() as temporary, only_errors():
        unchecked = Path(temporary) / "quantized.onnx"
        quantize_dynamic(
            model,
            unchecked,
            op_types_to_quantize=params.operators,
            per_channel=True,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            use_external_data_format=False,
        )
        quantized = load_model(unchecked)
    with replacing_folder(folder) as partial:
        path = save_checked(quantized, partial)
        size = model_size_mb(path)
    touched = sum(node.op_type in INTEGER.values() for node in quantized.graph.node)
    return QuantizeDynamicMetrics(
        size_mb=size,
        quantized_nodes=touched,
        float_nodes=before - touched,
        weight_type="int8",
        reduce_range=reduce_range,
    )


def check_operators(operators: Sequence[str]) -> None:
    """Raise ParameterError for operators that ONNX Runtime does not quantize dynamically."""
    unknown = sorted(set(operators) - set(INTEGER))
    if unknown:
        raise ParameterError(
            f"quantize_dynamic.operators: {', '.join(unknown)} cannot be quantized dynamically; "
            f"{', '.join(INTEGER)} can"
        )
