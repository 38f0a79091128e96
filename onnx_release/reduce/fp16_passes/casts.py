"""Remove the Casts that undo each other or that nothing uses."""

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from onnx_release.graph.graph import graphs, node_inputs
from onnx_release.reduce.fp16_passes.names import rename_uses
from onnx_release.reduce.fp16_passes.types import value_types

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


def cast_type(node: NodeProto) -> int:
    """Return the element type of a Cast's output."""
    return int(helper.get_node_attr_value(node, "to"))


def remove_cascaded_casts(model: ModelProto) -> None:
    """Connect every Cast to the start of its chain of Casts, and remove those without effect or use.

    A pair from float32 to float16 and back is removed too: its rounding would bring the overflow that a kept node
    avoids.
    """
    types = value_types(model)
    for graph in graphs(model.graph):
        connect_casts(graph, types)
    for graph in reversed(list(graphs(model.graph))):
        remove_unused(graph, "Cast")


def connect_casts(graph: GraphProto, types: dict[str, int]) -> None:
    """Let each Cast to float32 or float16 take the start of its chain, and share one for each value and type."""
    outputs = {value.name for value in graph.output}
    origin: dict[str, str] = {}  # the output of a float Cast: the value at the start of its chain
    same: dict[tuple[str, int], str] = {}  # a value and a type: the first Cast that makes it
    replaced: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "Cast" or cast_type(node) not in FLOATS:
            continue
        start, to = origin.get(node.input[0], node.input[0]), cast_type(node)
        node.input[0] = origin[node.output[0]] = start
        if node.output[0] in outputs:
            continue
        if types.get(start) == to:
            replaced[node.output[0]] = start
        elif (start, to) in same:
            replaced[node.output[0]] = same[start, to]
        else:
            same[start, to] = node.output[0]
    rename_uses(graph, replaced)


def remove_unused(graph: GraphProto, operator: str) -> None:
    """Remove the nodes of one operator whose output nothing uses."""
    used = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if node.op_type == operator and not used & set(node.output):
            graph.node.remove(node)
        else:
            used.update(node_inputs(node))
