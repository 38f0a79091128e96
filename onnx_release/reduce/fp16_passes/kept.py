"""Find the nodes that cannot compute in float16, whatever the converter says."""

from collections.abc import Sequence

import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.defs import OpSchema

from onnx_release.graph.graph import graphs
from onnx_release.reduce.fp16_passes.names import has_graphs
from onnx_release.reduce.fp16_passes.types import declared_values, value_types

FLOAT16 = "tensor(float16)"
# The converter changes the value of a ConstantOfShape, and with it the type of its output.
FOLLOWS_ITS_VALUE = ("ConstantOfShape", "Constant")


def nodes_without_float16(model: ModelProto) -> set[str]:
    """Return the names of the nodes that ONNX does not define, or ONNX Runtime does not run, in float16.

    Among them are those whose result is float32 by an attribute, such as a Cast or RandomNormal, those that add up in
    a scatter, and those with sequences of tensors, whose type the converter does not change.
    """
    types = value_types(model)
    declared = declared_values(model)
    sequences = {
        name for name, value in declared.items() if value.type.WhichOneof("value") not in ("tensor_type", None)
    }
    versions = {item.domain: item.version for item in model.opset_import}
    kept = set()
    for graph in graphs(model.graph):
        for node in graph.node:
            others = sequences & {*node.input, *node.output}
            if others or reduces_in_scatter(node) or not allows_float16(node, types, versions):
                kept.add(node.name)
    return kept


def reduces_in_scatter(node: NodeProto) -> bool:
    """Return whether the node is a scatter that combines values, for which ONNX Runtime has no float16."""
    if node.op_type not in ("ScatterND", "ScatterElements"):
        return False
    return any(item.name == "reduction" and item.s != b"none" for item in node.attribute)


def allows_float16(node: NodeProto, types: dict[str, int], versions: dict[str, int]) -> bool:
    """Return whether the operator's schema takes float16 for each float32 input and output of the node."""
    if has_graphs(node) or node.op_type in FOLLOWS_ITS_VALUE:
        return True
    floats = {name for name in (*node.input, *node.output) if name and types.get(name) == TensorProto.FLOAT}
    if not floats:
        return True
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return False  # an operator of another domain
    allowed = {item.type_param_str: item.allowed_type_strs for item in schema.type_constraints}
    inputs, outputs = used_types(node.input, schema.inputs, floats), used_types(node.output, schema.outputs, floats)
    given = {item.type_str for item in schema.inputs}
    return all(FLOAT16 in allowed.get(name, [name]) for name in inputs | outputs) and outputs <= given


def used_types(names: Sequence[str], parameters: Sequence[OpSchema.FormalParameter], floats: set[str]) -> set[str]:
    """Return the schema's types of those inputs or outputs that are float32; the last one may stand for many."""
    last = len(parameters) - 1
    return {parameters[min(index, last)].type_str for index, name in enumerate(names) if name in floats}
