"""Keep operators without weights in float where quantizing them would only add conversions.

A QuantizeLinear or DequantizeLinear reads and writes a whole value. A residual Add between LayerNormalizations, or the
scores before a Softmax, would need one on each side: in float they are faster and exact. An Add between convolutions
has integers on all sides. Where integers end is the cut through the graph with the least converted values, which
maximum flow finds (Ford and Fulkerson, 1956); of equal cuts, it takes the one with more integer operators.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from onnx_release.static_quantization.operators import FLOAT_OUTPUT, PRODUCTS, Graph, Ranges

# The flow is counted in int32; a capacity of FIXED is never cut.
FIXED = 2**30
MOST = 2**26
INTEGER, FLOAT = 0, 1


def float_by_placement(
    model: ModelProto,
    ranges: Ranges,
    sizes: Mapping[str, int],
    float_nodes: Collection[str],
    weights: Path | None = None,
) -> set[str]:
    """Return the nodes without weights that stay in float; `sizes` has the elements of each value.

    `float_nodes` are in float in any case. `weights` is the folder of the files that have weights of `model`.
    """
    graph = Graph(model, ranges, weights)
    possible = {node.name for node in model.graph.node if node.name not in float_nodes and graph.can_quantize(node)}
    weighted = {
        node.name
        for node in model.graph.node
        if node.name in possible and node.op_type in PRODUCTS and node.input[1] in graph.constants
    }
    cut = Cut(sum(sizes.values()))
    for node in model.graph.node:
        if node.name in weighted:
            cut.join(INTEGER, cut.number(node.name), FIXED)
        elif node.name not in possible:
            cut.join(cut.number(node.name), FLOAT, FIXED)
    takers: dict[str, list[int]] = {value.name: [FLOAT] for value in model.graph.output}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            takers.setdefault(name, []).append(cut.number(node.name))
    makers = [(FLOAT, value.name) for value in model.graph.input]
    for node in model.graph.node:
        # The kernels of Gemm and MatMul return floats at no cost, whatever they take.
        maker = FLOAT if node.op_type in FLOAT_OUTPUT else cut.number(node.name)
        makers += [(maker, name) for name in node.output[:1]]
    for maker, name in makers:
        if name in sizes and name in takers:
            cut.convert(maker, takers[name], sizes[name])
    return possible - weighted - cut.integer_nodes()


class Cut:
    """A network of nodes on the side of the integers or of the floats, with the cost of values that change sides."""

    def __init__(self, total: int) -> None:
        self.unit = max(total / MOST, 1.0)
        self.numbers: dict[str, int] = {}
        self.count = 2
        self.edges: dict[tuple[int, int], int] = {}

    def number(self, name: str) -> int:
        """Return the number of a node."""
        if name not in self.numbers:
            self.numbers[name] = self.add()
        return self.numbers[name]

    def add(self) -> int:
        """Return the number of a new point."""
        self.count += 1
        return self.count - 1

    def join(self, one: int, other: int, cost: int) -> None:
        """Let it cost `cost` if `one` is on the side of the integers and `other` is not."""
        if one != other:
            self.edges[one, other] = min(self.edges.get((one, other), 0) + cost, FIXED)

    def convert(self, maker: int, takers: list[int], size: int) -> None:
        """Let a value of `size` elements cost once if any of its takers is on another side than its maker."""
        cost, anyone_float, anyone_integer = max(round(size / self.unit), 1), self.add(), self.add()
        self.join(maker, anyone_float, cost)
        self.join(anyone_integer, maker, cost)
        for taker in takers:
            self.join(anyone_float, taker, FIXED)
            self.join(taker, anyone_integer, FIXED)

    def integer_nodes(self) -> set[str]:
        """Return the nodes on the side of the integers: those from which the other side is out of reach."""
        keys = np.array(list(self.edges), np.int32).reshape(-1, 2)
        capacities = csr_array(
            (np.array(list(self.edges.values()), np.int32), (keys[:, 0], keys[:, 1])), shape=(self.count, self.count)
        )
        left = (capacities - maximum_flow(capacities, INTEGER, FLOAT).flow).tocsr()
        left.eliminate_zeros()
        reached = set(breadth_first_order(left.T.tocsr(), FLOAT, return_predecessors=False).tolist())
        return {name for name, number in self.numbers.items() if number not in reached}
