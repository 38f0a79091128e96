"""Look inside a graph: cut it at inner values, and run what is left on samples."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from onnx_release.graph import save_model
from onnx_release.session import open_session


def float_values(model: ModelProto) -> list[str]:
    """The float32 inputs and node outputs of the graph, in its order; constants are not among them."""
    constants = constant_values(model)
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    outputs = [name for node in model.graph.node for name in node.output if name]
    types = value_types(model)
    return [name for name in (*inputs, *outputs) if name not in constants and types.get(name) == TensorProto.FLOAT]


def constant_values(model: ModelProto) -> set[str]:
    """Initializers and what is computed from nothing else."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if all(name in constants for name in node.input if name):
            constants |= set(node.output)
    return constants


def value_types(model: ModelProto) -> dict[str, int]:
    """The element type of every value that shape inference knows."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


def cut(model: ModelProto, names: Iterable[str]) -> ModelProto:
    """The part of `model` that computes the values `names`, which become its outputs; the inputs all stay."""
    wanted = list(names)
    needed, nodes = set(wanted), []
    for node in reversed(model.graph.node):
        if needed & set(node.output):
            needed |= {name for name in node.input if name}
            nodes.append(node)
    graph = helper.make_graph(
        list(reversed(nodes)),
        model.graph.name,
        list(model.graph.input),
        [ValueInfoProto(name=name) for name in wanted],
        [tensor for tensor in model.graph.initializer if tensor.name in needed],
    )
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def session_of(model: ModelProto, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on a model in memory, of any size. Raises GraphError if ONNX Runtime does not load it."""
    with tempfile.TemporaryDirectory() as folder:
        return open_session(save_model(model, Path(folder)), threads)
