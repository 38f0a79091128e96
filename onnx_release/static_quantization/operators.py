"""Say which nodes of a graph can be quantized, and which of their values.

An operator without a range, a kernel or a constant that it needs stays in float: that is never an error.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from onnx_release.graph.graph import axes, graphs, tensor_array
from onnx_release.graph.layers import attributes, clip_bounds, initializers, is_plain
from onnx_release.graph.targets import Target

Ranges = Mapping[str, tuple[float, float]]

# Operators that multiply with weights, or two activations.
PRODUCTS = ("Conv", "Gemm", "MatMul")
# Those with integer kernels that have a float output.
FLOAT_OUTPUT = ("Gemm", "MatMul")
# Operators that only move values.
MOVING = ("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze")
# Operators whose output has the scale of their input.
SAME_SCALE = (*MOVING, "MaxPool", "AveragePool", "Resize")
ACTIVATIONS = ("Clip", "Relu")
# The operators with integer kernels in ONNX Runtime on CPUs, and those that only move values.
OPERATORS = (
    *PRODUCTS,
    *SAME_SCALE,
    *ACTIVATIONS,
    *("Add", "Mul", "LeakyRelu", "Sigmoid", "Concat", "GlobalAveragePool"),
)
# ONNX Runtime computes a Softmax between 8-bit values on integers, with exponentials up to the largest float32 / exp(5)
# / the length of a row (qlinear_softmax.cc). It multiplies them by 1 / scale, and of more than this for each value in a
# row come infinity, and zeros.
SOFTMAX_STEPS = math.floor(math.exp(5))
# A value beyond this, such as the float32 minimum of a mask, leaves nothing of the others in 8 bits.
LARGEST = 1e30


@dataclass
class Plan:
    """What is quantized: `nodes` by name, and `values` with the value whose scale each has, often its own.

    `limits` are the ranges of the values with a scale of their own, `removed` the Clips and Relus that a range
    replaces, and `made` the values that come out of integer kernels, which have no other form.
    """

    nodes: set[str] = field(default_factory=set)
    values: dict[str, str] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)


def plan_quantization(
    model: ModelProto, ranges: Ranges, target: Target, float_nodes: Collection[str], weights: Path | None = None
) -> Plan:
    """Plan to quantize every node that can be, except `float_nodes`."""
    graph = Graph(model, ranges, weights)
    possible = {node.name for node in model.graph.node if node.name not in float_nodes and graph.can_quantize(node)}
    wanted = graph.wanted_values(possible)
    plan = Plan()

    def mark(name: str) -> None:
        if name not in graph.constants and name not in plan.values:
            plan.values[name], plan.limits[name] = name, graph.limits[name]

    for node in model.graph.node:
        if node.name not in possible:
            continue
        if node.op_type in SAME_SCALE:
            if node.input[0] in plan.values and (node.op_type not in MOVING or node.output[0] in wanted):
                plan.nodes.add(node.name)
                if not target.symmetric:
                    plan.values.setdefault(node.output[0], node.input[0])
                    plan.made.add(node.output[0])
            continue
        if node.op_type in ACTIVATIONS:
            replace_activation(node, graph, plan, target, mark)
            continue
        plan.nodes.add(node.name)
        for name in graph.activation_inputs(node):
            mark(name)
        if not target.symmetric and (node.op_type not in FLOAT_OUTPUT or node.output[0] in wanted):
            mark(node.output[0])
            plan.made.add(node.output[0])
    widen_softmax(model, plan)
    return plan


def widen_softmax(model: ModelProto, plan: Plan) -> None:
    """Widen the range of what a Softmax between quantized values gives, where the integer kernel needs it."""
    shapes = {value.name: axes(value) for value in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type == "Softmax" and node.input[0] in plan.values and node.output[0] in plan.limits:
            shape = shapes.get(node.input[0])
            length = shape[int(attributes(node).get("axis", -1))] if shape else None
            least = 255 / (SOFTMAX_STEPS * (length if isinstance(length, int) else 1))
            low, high = plan.limits[node.output[0]]
            plan.limits[node.output[0]] = low, max(high, low + least)


def replace_activation(
    node: NodeProto, graph: "Graph", plan: Plan, target: Target, mark: Callable[[str], None]
) -> None:
    """Let the range of a Clip or Relu stand for it, if nothing else takes its input."""
    taken, given = node.input[0], node.output[0]
    if taken not in plan.values:
        return
    if not target.symmetric and taken in plan.made and graph.uses[taken] == 1:
        plan.removed.add(node.name)
        plan.made.discard(taken)
        plan.values.pop(taken)
        plan.limits.pop(taken, None)
    plan.nodes.add(node.name)
    mark(given)
    if not target.symmetric:
        plan.made.add(given)


class Graph:
    """A float graph, some of whose weights may be in files of `weights`, with what decides about its quantization."""

    def __init__(self, model: ModelProto, ranges: Ranges, weights: Path | None = None) -> None:
        self.model, self.constants, self.weights = model, initializers(model), weights
        self.uses = count_uses(model)
        self.limits = {name: limits for name, limits in ranges.items() if usable(limits)}
        for node in model.graph.node:
            # The input of a Clip or Relu has no range of its own if nothing else takes it.
            if node.op_type in ACTIVATIONS and node.input[0] not in ranges and node.output[0] in self.limits:
                self.limits[node.input[0]] = self.limits[node.output[0]]

    def can_quantize(self, node: NodeProto) -> bool:
        """Return whether there is an integer kernel for a node, and a range for each value that it takes or makes."""
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            return False
        if node.op_type in ACTIVATIONS:
            return node.output[0] in self.limits and (node.op_type == "Relu" or self.has_fixed_bounds(node))
        if node.op_type in SAME_SCALE:
            return node.input[0] not in self.constants
        if node.op_type in PRODUCTS and not self.has_kernel(node):
            return False
        values = [name for name in self.activation_inputs(node) if name not in self.constants]
        known = all(name in self.limits for name in values) and bool(values)
        made = node.op_type in FLOAT_OUTPUT or node.output[0] in self.limits
        return known and made and all(self.is_number(name) for name in node.input if name in self.constants)

    def has_kernel(self, node: NodeProto) -> bool:
        """Return whether a product has operands for which ONNX Runtime has an integer kernel."""
        if node.input[0] in self.constants:
            return False
        weight = self.constants.get(node.input[1])
        if weight is None:
            return node.op_type == "MatMul"
        bias = node.input[2] if len(node.input) > 2 else ""
        if node.op_type == "Conv":
            return not bias or bias in self.constants
        if len(weight.dims) < 2 or node.op_type == "MatMul":
            return len(weight.dims) >= 2
        return is_plain(node) and (not bias or self.is_for_each_output(bias, node))

    def is_for_each_output(self, bias: str, node: NodeProto) -> bool:
        """Return whether the bias of a Gemm is constant, with one element for each output or one for all."""
        if bias not in self.constants:
            return False
        sizes, weight = self.constants[bias].dims, self.constants[node.input[1]].dims
        outputs = weight[0] if attributes(node).get("transB", 0) else weight[1]
        return bool(np.prod(sizes) in (1, outputs) and all(size == 1 for size in sizes[:-1]))

    def has_fixed_bounds(self, node: NodeProto) -> bool:
        """Return whether a range can stand for a Clip: it includes 0, and the bounds must be known and do so too."""
        bounds = clip_bounds(node, self.constants)
        return bounds is not None and bounds[0] <= 0 <= bounds[1]

    def is_number(self, name: str) -> bool:
        """Return whether a constant has values, in float32 and all of them finite and of a usable size."""
        tensor = self.constants[name]
        if tensor.data_type != TensorProto.FLOAT or 0 in tensor.dims:
            return False
        array = tensor_array(tensor, self.weights)
        return usable((float(array.min()), float(array.max())))

    def activation_inputs(self, node: NodeProto) -> list[str]:
        """Return the operands of a node that are quantized like activations, which may be constants."""
        if node.op_type in PRODUCTS:
            both = node.op_type == "MatMul" and node.input[1] not in self.constants
            return list(node.input[:2] if both else node.input[:1])
        return [name for name in node.input if name]

    def wanted_values(self, possible: Collection[str]) -> set[str]:
        """Return the values that a quantized node computes with, directly or after they were moved."""
        wanted: set[str] = set()
        for node in reversed(self.model.graph.node):
            if node.name not in possible:
                continue
            if node.op_type in (*MOVING, *ACTIVATIONS):
                if node.output[0] in wanted:
                    wanted.add(node.input[0])
            elif node.op_type in SAME_SCALE:
                wanted.add(node.input[0])
            else:
                wanted |= set(self.activation_inputs(node))
        return wanted


def usable(limits: tuple[float, float]) -> bool:
    """Return whether 8 bits can cover a range; false for NaN."""
    return bool(-LARGEST < limits[0] <= limits[1] < LARGEST)


def count_uses(model: ModelProto) -> dict[str, int]:
    """Return how often each value is taken: by nodes, by bodies of If and Loop, and as an output of the graph."""
    uses: dict[str, int] = {}
    for name in used_names(model):
        uses[name] = uses.get(name, 0) + 1
    return uses


def used_names(model: ModelProto) -> Iterator[str]:
    """Yield the name of each use of a value."""
    for graph in graphs(model.graph):
        for node in graph.node:
            yield from node.input
        yield from (value.name for value in graph.output)
