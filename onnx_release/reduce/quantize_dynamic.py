"""Quantize the weights of MatMul and Gemm to 8 bits; activations are quantized when the model runs."""

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from onnx_release.core.errors import GraphError, ParameterError
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import QuantizeDynamic
from onnx_release.graph.graph import (
    EXTERNAL_DATA_THRESHOLD,
    copy_weights,
    drop_unused_initializers,
    drop_unused_nodes,
    external_tensors,
    load_model,
    load_weights,
    model_size_mb,
    node_inputs,
    save_checked,
    total_weight_bytes,
)
from onnx_release.graph.layers import initializers
from onnx_release.graph.precision import check_not_quantized, only_errors
from onnx_release.reduce.dynamic_products import PRODUCTS, quantize_products
from onnx_release.reduce.metrics import QuantizeDynamicMetrics

# The other operators that ONNX Runtime quantizes dynamically, and their integer operators.
INTEGER = {"Conv": "ConvInteger", "Attention": "QAttention", "LSTM": "DynamicQuantizeLSTM"}


def quantize_dynamically(
    source: Path, params: QuantizeDynamic, reduce_range: bool, folder: Path, exclude: Collection[str] = ()
) -> QuantizeDynamicMetrics:
    """Write `source` to `folder` with int8 weights, one scale for each output channel, and return the metrics.

    `reduce_range` keeps 7 bits of the weights, which CPUs without VNNI need against saturation. The nodes named in
    `exclude` stay in float, and so do weights with infinity or NaN. A model without any of the operators is written as
    it is, and `quantized_nodes` is 0. Raises ParameterError for an operator that ONNX Runtime does not quantize
    dynamically, and GraphError for a model that is already quantized.
    """
    check_operators(params.operators)
    model = load_model(source, weights=False)
    check_not_quantized(model, source)
    nodes = len(model.graph.node)
    products = quantize_products(model, params.operators, exclude, reduce_range, source.parent)
    touched, added = len(products), len(model.graph.node) - nodes
    drop_unused_nodes(model)
    drop_unused_initializers(model)
    nodes = len(model.graph.node) - added
    others = [name for name in params.operators if name not in PRODUCTS]
    if any(node.op_type in others for node in model.graph.node):
        load_weights(model, source.parent)
        model = quantize_others(model, others, reduce_range, exclude)
        touched += sum(node.op_type in INTEGER.values() for node in model.graph.node)
    if total_weight_bytes(model) <= EXTERNAL_DATA_THRESHOLD:
        load_weights(model, source.parent)
    with replacing_folder(folder) as partial:
        if external_tensors(model):
            copy_weights(model, source.parent, partial)
        path = save_checked(model, partial)
        size = model_size_mb(path)
    return QuantizeDynamicMetrics(
        size_mb=size,
        quantized_nodes=touched,
        float_nodes=nodes - touched,
        weight_type="int8",
        reduce_range=reduce_range,
    )


def quantize_others(
    model: ModelProto, operators: Sequence[str], reduce_range: bool, exclude: Collection[str]
) -> ModelProto:
    """Return `model` with these operators quantized by onnxruntime's quantizer. Raises GraphError if it fails."""
    give_own_weights(model)
    with tempfile.TemporaryDirectory() as temporary, only_errors():
        quantized = Path(temporary) / "quantized.onnx"
        try:
            quantize_dynamic(
                model,
                quantized,
                op_types_to_quantize=list(operators),
                nodes_to_exclude=list(exclude),
                per_channel=True,
                reduce_range=reduce_range,
                weight_type=QuantType.QInt8,
                use_external_data_format=False,
            )
        except Exception as cause:  # it raises anything for a graph that it does not understand
            raise GraphError(
                f"onnxruntime's quantizer fails on {' or '.join(operators)}: {type(cause).__name__}: {cause}. "
                "Take the operator out of quantize_dynamic.operators, or name the node in `exclude`"
            ) from cause
        return load_model(quantized)


def give_own_weights(model: ModelProto) -> None:
    """Give each Gemm a weight of its own, in place: onnxruntime's quantizer transposes weights, also shared ones."""
    tensors = initializers(model)
    uses = Counter(name for node in model.graph.node for name in node_inputs(node))
    for node in model.graph.node:
        if node.op_type == "Gemm" and node.input[1] in tensors and uses[node.input[1]] > 1:
            copy = model.graph.initializer.add()
            copy.CopyFrom(tensors[node.input[1]])
            copy.name = node.input[1] = f"{node.output[0]}_weight"


def check_operators(operators: Sequence[str]) -> None:
    """Raise ParameterError for operators that ONNX Runtime does not quantize dynamically."""
    known = (*PRODUCTS, *INTEGER)
    unknown = sorted(set(operators) - set(known))
    if unknown:
        raise ParameterError(
            f"quantize_dynamic.operators: {', '.join(unknown)} cannot be quantized dynamically; {', '.join(known)} can"
        )
