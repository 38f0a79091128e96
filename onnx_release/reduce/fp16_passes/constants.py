"""Bring constants into the one form that the converter handles: an initializer, used by nodes of one precision."""

from collections.abc import Set

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_release.graph.graph import graphs
from onnx_release.graph.names import FreshNames, all_names

# The attributes of a Constant that hold its value as numbers, and their element types.
NUMBERS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def constants_to_initializers(model: ModelProto) -> None:
    """Replace Constant nodes by initializers: the converter overlooks `value_float`, and what uses a Constant."""
    for graph in graphs(model.graph):
        for node in [node for node in graph.node if node.op_type == "Constant" and not node.domain]:
            tensor = constant_tensor(node)
            if tensor is not None and node.output[0] not in {value.name for value in graph.output}:
                tensor.name = node.output[0]
                graph.initializer.append(tensor)
                graph.node.remove(node)


def constant_tensor(node: NodeProto) -> TensorProto | None:
    """Return the value of a Constant node, or None if it is sparse or has strings."""
    attribute = node.attribute[0]
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        return tensor
    if attribute.name in NUMBERS:
        value = helper.get_attribute_value(attribute)
        return numpy_helper.from_array(np.array(value, NUMBERS[attribute.name]))
    return None


def drop_initializer_inputs(model: ModelProto) -> None:
    """Remove the inputs that only give an initializer, as files before IR version 4 had to have them."""
    weights = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in weights]
    if len(kept) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(kept)


def write_out_fill_values(model: ModelProto) -> None:
    """Give a ConstantOfShape without a value the float32 zero that it stands for, which the converter then converts."""
    for graph in graphs(model.graph):
        for node in graph.node:
            if node.op_type == "ConstantOfShape" and not node.attribute:
                zero = helper.make_tensor("value", TensorProto.FLOAT, [1], [0.0])
                node.attribute.append(helper.make_attribute("value", zero))


def separate_shared_constants(model: ModelProto, kept: Set[str]) -> None:
    """Give the kept nodes a copy of each float32 initializer that others use too: the converter would keep the one."""
    fresh = FreshNames(all_names(model))
    users = users_by_name(model.graph)
    for graph in graphs(model.graph):
        for tensor in list(graph.initializer):
            own = [node for node in users.get(tensor.name, []) if node.name in kept]
            if tensor.data_type != TensorProto.FLOAT or not own or len(own) == len(users[tensor.name]):
                continue
            copy = graph.initializer.add()
            copy.CopyFrom(tensor)
            copy.name = fresh.give(f"{tensor.name}_float32")
            for node in own:
                node.input[:] = [copy.name if name == tensor.name else name for name in node.input]


def users_by_name(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Return the nodes, each once, that take each value, those of nested graphs included."""
    users: dict[str, list[NodeProto]] = {}
    for inner in graphs(graph):
        for node in inner.node:
            for name in dict.fromkeys(node.input):
                users.setdefault(name, []).append(node)
    return users
