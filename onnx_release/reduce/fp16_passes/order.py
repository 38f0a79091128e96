"""Put the nodes in an order in which each value is made before it is used."""

import heapq

from onnx import GraphProto, ModelProto

from onnx_release.graph.graph import graphs, node_inputs


def sort_nodes(model: ModelProto) -> None:
    """Sort the nodes of every graph; those that may stand anywhere keep their order.

    The converter puts its Casts at the end and sorts by the inputs of nodes alone, without what nested graphs take.
    """
    for graph in list(graphs(model.graph)):
        sort_graph(graph)


def sort_graph(graph: GraphProto) -> None:
    """Sort the nodes of one graph: always the first, in the order so far, of those whose inputs are there."""
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    waits_for = [{maker[name] for name in node_inputs(node) if name in maker} for node in nodes]
    followers: dict[int, list[int]] = {}
    for index, before in enumerate(waits_for):
        for other in before:
            followers.setdefault(other, []).append(index)
    ready = [index for index, before in enumerate(waits_for) if not before]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers.get(index, []):
            waits_for[follower].discard(index)
            if not waits_for[follower]:
                heapq.heappush(ready, follower)
    if order != sorted(order):
        sorted_nodes = [nodes[index] for index in order]
        del graph.node[:]
        graph.node.extend(sorted_nodes)
