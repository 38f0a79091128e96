"""Give every node and value a name of its own, since the converter finds both by name."""

from collections import Counter

from onnx import GraphProto, ModelProto, NodeProto

from onnx_release.graph.graph import graphs, produced_values, rename_inputs
from onnx_release.graph.names import FreshNames

# What an optional output is called that nothing uses. The converter takes two empty names for the same value.
UNUSED = "unused_output_"


def name_nodes(model: ModelProto) -> None:
    """Give every node, those of nested graphs included, a unique name."""
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    taken: set[str] = set()
    fresh = FreshNames(node.name for node in nodes)
    for index, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = fresh.give(f"{node.name or node.op_type}_{index}")
        taken.add(node.name)


def name_inner_values(model: ModelProto) -> None:
    """Rename the values of nested graphs that have the name of a value elsewhere, such as in the other branch.

    Inner graphs come first: what is left of a name there belongs to the graph around it.
    """
    counts = Counter(name for graph in graphs(model.graph) for name in produced_values(graph))
    fresh = FreshNames(counts)
    for graph in list(graphs(model.graph))[:0:-1]:
        renamed = {}
        for name in produced_values(graph):
            if counts[name] > 1:
                counts[name] -= 1
                renamed[name] = fresh.give(name)
        rename_defined(graph, renamed)


def rename_defined(graph: GraphProto, renamed: dict[str, str]) -> None:
    """Rename values that `graph` defines, wherever it or a graph nested in it mentions them."""
    if not renamed:
        return
    for item in (*graph.input, *graph.initializer):
        item.name = renamed.get(item.name, item.name)
    for node in graph.node:
        node.output[:] = [renamed.get(name, name) for name in node.output]
    rename_uses(graph, renamed)
    for value in (*graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)


def rename_uses(graph: GraphProto, renamed: dict[str, str]) -> None:
    """Rename values where nodes of `graph` take them and where graphs nested in it take or return them."""
    for node in graph.node:
        rename_inputs(node, renamed)


def has_graphs(node: NodeProto) -> bool:
    """Return whether the node is an If, a Loop, a Scan or another one with graphs of its own."""
    return any(item.HasField("g") or item.graphs for item in node.attribute)


def name_optional_outputs(model: ModelProto) -> None:
    """Name the outputs that nodes leave out, such as an LSTM's last cell state."""
    count = 0
    for graph in graphs(model.graph):
        for node in graph.node:
            for index, name in enumerate(node.output):
                if not name:
                    node.output[index] = f"{UNUSED}{count}"
                    count += 1


def leave_out_optional_outputs(model: ModelProto) -> None:
    """Undo `name_optional_outputs`, and drop the types of these values."""
    for graph in graphs(model.graph):
        for node in graph.node:
            node.output[:] = ["" if name.startswith(UNUSED) else name for name in node.output]
