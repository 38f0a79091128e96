"""Find the operators of a graph that an older opset does not have."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, helper
from onnx.external_data_helper import uses_external_data
from onnx.version_converter import convert_version

from onnx_release.graph.graph import default_opset
from onnx_release.graph.layers import initializers
from onnx_release.graph.source_lines import file_and_line

# A constant input with more values than this does not matter to a conversion.
MOST_VALUES = 1024


def newer_operators(model: ModelProto, opset: int, sources: Mapping[str, Any]) -> list[tuple[str, str, int]]:
    """Return each operator that the graph cannot have in `opset`: a problem, FILE:LINE of its first use, and its opset.

    Such an operator has no version as old as `opset`, or onnx cannot rewrite the node for it. The line is empty if
    `sources` (a sources.json) has none.
    """
    own = default_opset(model)
    found = {}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type in found:
            continue
        since = onnx.defs.get_schema(node.op_type, own).since_version
        if since <= opset:
            continue
        first = min(schema.since_version for schema in operator_versions(node.op_type))
        if first > opset:
            problem, needed = f"{node.op_type} exists since opset {first}", first
        elif not converts(model, node, opset):
            problem, needed = f"{node.op_type} changed with opset {since}, and onnx cannot rewrite it", since
        else:
            continue
        found[node.op_type] = (problem, file_and_line(sources.get(node.name, {})), needed)
    return list(found.values())


def operator_versions(operator: str) -> Iterator[onnx.defs.OpSchema]:
    """Yield every version of an operator of ONNX itself."""
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.name == operator:
            yield schema


def converts(model: ModelProto, node: NodeProto, opset: int) -> bool:
    """Return whether onnx's version converter converts a graph of only this node to `opset`."""
    known = {value.name: value for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
    weights = initializers(model)
    names = [name for name in dict.fromkeys(node.input) if name]
    graph = helper.make_graph(
        [node],
        "node",
        [
            helper.make_tensor_value_info(name, weights[name].data_type, weights[name].dims)
            if name in weights
            else known.get(name, helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
            for name in names
        ],
        [known.get(name, helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)) for name in node.output],
        [weights[name] for name in names if name in weights and has_few_values(weights[name])],
    )
    alone = helper.make_model(graph, opset_imports=[helper.make_opsetid("", default_opset(model))], ir_version=10)
    try:
        convert_version(alone, opset)
    except RuntimeError:  # from C++; its message names a line of onnx's source
        return False
    return True


def has_few_values(tensor: onnx.TensorProto) -> bool:
    """Return whether the values are in the model itself, and few."""
    return math.prod(tensor.dims) <= MOST_VALUES and not uses_external_data(tensor)
