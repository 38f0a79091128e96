"""Put an Identity wherever a float32 value enters or leaves a graph, so that the converter has a place for its Casts.

The converter changes the type of a value where it is an output, and knows nothing of values that the graph in an If, a
Loop or a Scan takes from outside. With an Identity there, both are ordinary values.
"""

from collections.abc import Set

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_release.graph.graph import graphs, produced_values
from onnx_release.reduce.fp16_passes.names import has_graphs, rename_defined, rename_uses

# What the names of the Identities of this module begin with.
BOUNDARY = "fp16_boundary_"


def isolate_inputs(model: ModelProto) -> None:
    """Let every float32 input of the model go into one Identity, whose output the nodes take."""
    graph = model.graph
    renamed = {value.name: f"{value.name}_inside" for value in graph.input if is_float(value)}
    rename_uses(graph, renamed)
    for value in graph.input:
        if value.name in renamed:
            insert(graph, 0, value.name, renamed[value.name], value)


def isolate_outputs(model: ModelProto) -> None:
    """Let every float32 output of the model and of its nested graphs come from an Identity."""
    for graph in graphs(model.graph):
        made = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
        for value in [value for value in graph.output if is_float(value)]:
            inside, outside = f"{value.name}_inside", value.name
            if graph is not model.graph and value.name not in made:  # an input, or a value from outside
                inside, outside = value.name, f"{value.name}_outside"
                value.name = outside
            elif value.name in made:
                kept = ValueInfoProto()
                kept.CopyFrom(value)
                rename_defined(graph, {outside: inside})
                next(item for item in graph.output if item.name == inside).name = outside
                graph.value_info.append(kept)
                graph.value_info[-1].name = inside
            else:
                continue  # an input of the model that is an output too: no node to convert
            graph.node.append(identity(inside, outside))


def name_captures(model: ModelProto, types: dict[str, int], kept: Set[str]) -> set[str]:
    """Give nested graphs their captured float32 values through an Identity, and return those that must be kept too.

    It stands inside of a graph that is converted, and before the node of a graph that is kept in float32. There its
    output has no declared type, so that the converter leaves it alone.
    """
    added: set[str] = set()
    for graph in graphs(model.graph):
        for node in [node for node in graph.node if has_graphs(node)]:
            for index, inner in enumerate(direct_subgraphs(node)):
                captured = [name for name in captures(inner) if types.get(name) == TensorProto.FLOAT]
                for name in captured:
                    local = f"{name}_in_{node.name}_{index}"
                    types[local] = TensorProto.FLOAT
                    rename_captured(inner, name, local)
                    if node.name in kept:
                        before = identity(name, local)
                        graph.node.insert([item.name for item in graph.node].index(node.name), before)
                        added.add(before.name)
                    else:
                        inner.node.insert(0, identity(name, local))
                        inner.value_info.append(helper.make_tensor_value_info(local, TensorProto.FLOAT, None))
    return added


def direct_subgraphs(node: NodeProto) -> list[GraphProto]:
    """Return the graphs in the attributes of a node, without those nested in them."""
    return [graph for item in node.attribute for graph in ([item.g] if item.HasField("g") else item.graphs)]


def captures(graph: GraphProto) -> list[str]:
    """Return the values that the graph, or one nested in it, takes from outside of it."""
    inner = list(graphs(graph))
    defined = {name for item in inner for name in produced_values(item)}
    used = [name for item in inner for node in item.node for name in node.input if name]
    used += [value.name for item in inner for value in item.output]
    return [name for name in dict.fromkeys(used) if name not in defined]


def rename_captured(graph: GraphProto, name: str, local: str) -> None:
    """Rename a value from outside in the graph and those nested in it."""
    rename_uses(graph, {name: local})
    for value in graph.output:
        if value.name == name:
            value.name = local


def remove_boundaries(model: ModelProto) -> None:
    """Remove the Identities again, except those that give an output what the graph has from outside."""
    for graph in graphs(model.graph):
        made = {name for node in graph.node for name in node.output}
        for node in list(graph.node):  # the converter names its Casts after the node that they belong to
            if node.op_type != "Identity" or not node.name.startswith(BOUNDARY):
                continue
            before, after = node.input[0], node.output[0]
            outputs = {value.name for value in graph.output}
            if after not in outputs:
                graph.node.remove(node)
                rename_uses(graph, {after: before})
            elif before in made and before not in outputs:
                graph.node.remove(node)
                rename_defined(graph, {before: after})


def insert(graph: GraphProto, index: int, before: str, after: str, like: ValueInfoProto) -> None:
    """Insert an Identity, and declare its output to be like another value."""
    graph.node.insert(index, identity(before, after))
    graph.value_info.append(like)
    graph.value_info[-1].name = after


def identity(before: str, after: str) -> NodeProto:
    return helper.make_node("Identity", [before], [after], name=f"{BOUNDARY}{after}")


def is_float(value: ValueInfoProto) -> bool:
    """Return whether the value is a float32 tensor."""
    return bool(value.type.tensor_type.elem_type == TensorProto.FLOAT)
