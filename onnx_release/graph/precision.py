"""Check that a graph is still in float32, and silence the quantizers, for the stages that reduce the precision."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnx import ModelProto, TensorProto

from onnx_release.core.errors import GraphError

QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
HINT = "give it the float32 model, artifacts/NAME/fp32/model.onnx in this pipeline"


def check_not_quantized(model: ModelProto, path: Path) -> None:
    """Raise GraphError if the graph has quantized operators: quantizing twice adds error and saves nothing."""
    found = {node.op_type for node in model.graph.node if node.op_type in QUANTIZED or "QLinear" in node.op_type}
    if found:
        raise GraphError(f"{path} is already quantized ({', '.join(sorted(found))}): {HINT}")


def check_not_float16(model: ModelProto, path: Path) -> None:
    """Raise GraphError if the graph has float16 weights; a float32 graph may take and return float16 through Casts."""
    if any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer):
        raise GraphError(f"{path} is already in float16: {HINT}")


@contextmanager
def only_errors() -> Iterator[None]:
    """Log only errors in the block: the quantizer advises to preprocess the model, which slimming has done."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
