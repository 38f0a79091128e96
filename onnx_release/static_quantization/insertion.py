"""Write the QuantizeLinear and DequantizeLinear nodes of a plan into a graph.

Names are those of onnxruntime's own quantizer, which takes minutes for thousands of nodes, has no float outputs for
single nodes, and fails on one-element biases, 3-D weights and values without a range.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_release.graph.graph import DEQUANTIZED, node_inputs, tensor_array
from onnx_release.graph.layers import attributes, initializers
from onnx_release.graph.names import FreshNames, all_names
from onnx_release.graph.targets import Target
from onnx_release.static_quantization.operators import PRODUCTS, Plan
from onnx_release.static_quantization.saturation import FULL, HALVED

# The suffix for the name of an output of the graph before it is quantized.
QUANTIZED_INPUT = "_QuantizeLinear_Input"
QUANTIZED = "_QuantizeLinear_Output"
# The largest magnitude of a bias in int32, less what float32 may round up.
LARGEST_BIAS = 2**31 - 2**8


def insert_nodes(model: ModelProto, plan: Plan, target: Target, weights: Path | None = None) -> ModelProto:
    """Return a copy of `model` with the nodes of `plan`; float weights that nothing takes are left out.

    `weights` is the folder of the files that have weights of `model`.
    """
    return Insertion(model, plan, target, weights).result()


class Insertion:
    """A graph that is written node by node, in the order of the float graph."""

    def __init__(self, model: ModelProto, plan: Plan, target: Target, weights: Path | None) -> None:
        self.model, self.plan, self.target, self.weights = model, plan, target, weights
        self.source, self.outputs = initializers(model), {value.name for value in model.graph.output}
        self.nodes: list[NodeProto] = []
        self.names, self.constants = FreshNames(all_names(model)), dict[str, TensorProto]()
        self.node_names = FreshNames(node.name for node in model.graph.node)
        # The dequantized value and the scale of each constant, for each way in which it is quantized.
        self.dequantized: dict[tuple[str, int | None, bytes, bytes], tuple[str, str]] = {}
        # The scale and the zero point of each activation, and the scale of each node's weight.
        self.parameters: dict[str, list[str]] = {}
        self.weight_scales: dict[str, str] = {}
        # A removed Clip or Relu leaves its name to the value before it.
        self.renamed = {node.input[0]: node.output[0] for node in model.graph.node if node.name in plan.removed}
        self.takers: dict[str, int] = {}
        for node in model.graph.node:
            for name in node.input if node.name in plan.nodes else ():
                self.takers[name] = self.takers.get(name, 0) + 1
        self.pairs: dict[str, int] = {}

    def result(self) -> ModelProto:
        """Write all nodes, and return the model."""
        for value in self.model.graph.input:
            self.quantize_value(value.name)
        for node in self.model.graph.node:
            if node.name in self.plan.removed:
                continue
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [self.operand(node, index) for index in range(len(node.input))]
            copy.output[:] = [self.made_name(self.renamed.get(name, name)) for name in node.output]
            self.nodes.append(copy)
            for name in node.output:
                self.quantize_value(self.renamed.get(name, name))
        made = helper.make_model(
            helper.make_graph([], self.model.graph.name, self.model.graph.input, self.model.graph.output),
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            functions=self.model.functions,
        )
        made.graph.node.extend(self.nodes)
        made.graph.initializer.extend(self.used_constants())
        return made

    def used_constants(self) -> Iterator[TensorProto]:
        """Yield the float model's constants that are still taken, then the new ones."""
        taken = {name for node in self.nodes for name in node_inputs(node)} | self.outputs
        yield from (tensor for tensor in self.model.graph.initializer if tensor.name in taken)
        yield from self.constants.values()

    def made_name(self, name: str) -> str:
        """Return the name that a value has where it is made: an output of the graph is dequantized under its own."""
        return name + QUANTIZED_INPUT if name in self.outputs and name in self.plan.made else name

    def operand(self, node: NodeProto, index: int) -> str:
        """Return the name of an operand of a node, after what dequantizes it has been written."""
        name = self.renamed.get(node.input[index], node.input[index])
        quantized = node.name in self.plan.nodes
        if quantized and name in self.source:
            return self.constant_operand(node, index)
        if name in self.plan.made:
            return name if name in self.outputs else name + DEQUANTIZED
        if not quantized or name not in self.plan.values:
            return name
        if self.target.symmetric and self.takers[name] > 1:
            self.pairs[name] = self.pairs.get(name, 0) + 1
            return self.write_pair(name, name, f"_{self.pairs[name]}")
        return name + DEQUANTIZED

    def constant_operand(self, node: NodeProto, index: int) -> str:
        """Return the name of the dequantized constant of a quantized node; shapes, axes and bounds stay as they are."""
        name = node.input[index]
        if node.op_type in PRODUCTS and index == 2:
            return self.dequantized_bias(node)
        if node.op_type in PRODUCTS:
            return self.dequantized_weight(node)
        if node.op_type in ("Add", "Mul", "Concat"):
            array = self.array(name)
            limits = min(float(array.min()), 0.0), max(float(array.max()), 0.0)
            scale, zero_point = parameters(limits, self.target)
            return self.dequantized_constant(name, array, scale, zero_point, None)[0]
        return name

    def dequantized_weight(self, node: NodeProto) -> str:
        """Return the name of a node's weight dequantized from int8, with a scale for each output channel."""
        name = node.input[1]
        array = self.array(name)
        axis = weight_axis(node, array.ndim)
        others = tuple(i for i in range(array.ndim) if i != axis)
        largest = np.abs(array).max(axis=others if axis is not None else None)
        most = HALVED if self.target.reduce_range else FULL
        scale = np.asarray(largest.astype(np.float64) / most).astype(np.float32)
        scale = np.where(scale < np.finfo(np.float32).tiny, np.float32(1), scale)
        if len(node.input) > 2 and node.input[2] and not self.target.symmetric:
            taken, _ = parameters(self.limits_of(node.input[0]), self.target)
            scale = np.maximum(scale, least_scale(self.array(node.input[2]).reshape(-1), taken))
        zero_point = np.zeros(scale.shape, np.int8)
        made, self.weight_scales[node.name] = self.dequantized_constant(name, array, scale, zero_point, axis)
        return made

    def dequantized_constant(
        self, name: str, array: np.ndarray, scale: np.ndarray, zero_point: np.ndarray, axis: int | None
    ) -> tuple[str, str]:
        """Write a constant in 8 bits, or a QuantizeLinear for it, and what dequantizes it, once for each way.

        Nodes that share a weight may quantize it in two ways, as a Gemm with transB and a MatMul do. Returns the names
        of the dequantized value and of its scale.
        """
        key = name, axis, scale.tobytes(), zero_point.tobytes()
        if key in self.dequantized:
            return self.dequantized[key]
        shape = [1] * array.ndim
        if axis is not None:
            shape[axis] = -1
        parameters = [self.add(name + "_scale", scale), self.add(name + "_zero_point", zero_point)]
        keywords: dict[str, Any] = {} if axis is None else {"axis": axis}
        made = self.names.give(name + DEQUANTIZED)
        if self.target.symmetric:
            integers = self.names.give(name + QUANTIZED)
            self.write("QuantizeLinear", [name, *parameters], integers, f"{name}_QuantizeLinear", **keywords)
        else:
            bounds = np.iinfo(zero_point.dtype)
            rounded = np.rint(array / scale.reshape(shape)) + zero_point.reshape(shape).astype(np.float32)
            integers = self.add(name + "_quantized", np.clip(rounded, bounds.min, bounds.max).astype(zero_point.dtype))
        self.write("DequantizeLinear", [integers, *parameters], made, f"{name}_DequantizeLinear", **keywords)
        self.dequantized[key] = made, parameters[0]
        return self.dequantized[key]

    def dequantized_bias(self, node: NodeProto) -> str:
        """Return the name of a bias, one for each output of the node; in int32 with the scale of the products."""
        name = node.input[2]
        # A bias that several nodes take needs a scale for each of them.
        own = f"{name}_{node.name}" if name + "_quantized" in self.constants else name
        bias = self.array(name).reshape(-1).astype(np.float64)
        weights = self.constants[self.weight_scales[node.name]]
        bias = np.broadcast_to(bias, tuple(weights.dims))
        if self.target.symmetric:
            if tuple(self.source[name].dims) == bias.shape:
                return name
            return self.add(f"{name}_{node.name}", bias.astype(np.float32))
        taken, _ = parameters(self.limits_of(node.input[0]), self.target)
        products = (taken * numpy_helper.to_array(weights)).astype(np.float32)
        integers = np.clip(np.rint(bias / products), -LARGEST_BIAS, LARGEST_BIAS).astype(np.int32)
        names = [f"{own}_quantized", f"{own}_quantized_scale", f"{own}_quantized_zero_point"]
        arrays = integers, products, np.zeros(bias.shape, np.int32)
        names = [self.add(key, array) for key, array in zip(names, arrays, strict=True)]
        made = self.names.give(f"{own}{DEQUANTIZED}")
        self.write("DequantizeLinear", names, made, f"{own}_DequantizeLinear", axis=0)
        return made

    def quantize_value(self, name: str) -> None:
        """Write the nodes that quantize a value, once it is there; a dedicated pair waits for its node."""
        if name not in self.plan.values or (self.target.symmetric and self.takers.get(name, 0) > 1):
            return
        made = name in self.plan.made
        self.write_pair(name, self.made_name(name), "", name if made and name in self.outputs else None)

    def write_pair(self, name: str, source: str, suffix: str, output: str | None = None) -> str:
        """Write QuantizeLinear and DequantizeLinear for a value, and return the name of the dequantized value."""
        provider = self.provider(name)
        if provider not in self.parameters:
            scale, zero_point = parameters(self.plan.limits[provider], self.target)
            self.parameters[provider] = [
                self.add(f"{provider}_scale", scale),
                self.add(f"{provider}_zero_point", zero_point),
            ]
        names = self.parameters[provider]
        integers, made = name + QUANTIZED + suffix, output or name + DEQUANTIZED + suffix
        self.write("QuantizeLinear", [source, *names], integers, f"{name}_QuantizeLinear{suffix}")
        self.write("DequantizeLinear", [integers, *names], made, f"{name}_DequantizeLinear{suffix}")
        return made

    def provider(self, name: str) -> str:
        """Return the value whose scale `name` has."""
        while self.plan.values[name] != name:
            name = self.plan.values[name]
        return name

    def limits_of(self, name: str) -> tuple[float, float]:
        """Return the range of a quantized operand."""
        return self.plan.limits[self.provider(self.renamed.get(name, name))]

    def array(self, name: str) -> np.ndarray:
        """Return the value of a constant of the float model."""
        return tensor_array(self.source[name], self.weights)

    def write(self, operator: str, inputs: list[str], output: str, name: str, **keywords: Any) -> None:
        """Append a node, whose name is `name` or one like it."""
        self.nodes.append(helper.make_node(operator, inputs, [output], self.node_names.give(name), **keywords))

    def add(self, name: str, array: np.ndarray) -> str:
        """Make a constant, and return its name: `name`, or one like it where the graph has a value of that name."""
        made = self.names.give(name)
        self.constants[made] = numpy_helper.from_array(np.asarray(array), made)
        return made


def least_scale(bias: np.ndarray, input_scale: np.ndarray) -> np.ndarray:
    """Return the least scales of weights, float32, with which int32 holds the bias at the scale of the products."""
    return np.asarray(np.abs(bias.astype(np.float64)) * 1.001 / LARGEST_BIAS / input_scale, np.float32)


def weight_axis(node: NodeProto, rank: int) -> int | None:
    """Return the axis of a weight's output channels; None for one of more axes in a MatMul, which has one scale."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attributes(node).get("transB", 0) else 1
    return 1 if rank == 2 else None


def parameters(limits: tuple[float, float], target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Return the scale, float32, and the zero point of the range, which includes 0, for activations of the target."""
    low, high = (np.float64(np.float32(limit)) for limit in (min(limits[0], 0.0), max(limits[1], 0.0)))
    bounds = np.iinfo(target.activation_type)
    least, most = (-127, 127) if target.symmetric else (bounds.min, bounds.max)
    if target.symmetric:
        high = np.maximum(-low, high)
        low = -high
    scale = (high - low) / (most - least)
    if scale < np.finfo(np.float32).tiny:
        return np.array(1, np.float32), np.array(0, target.activation_type)
    zero_point = np.rint((least + most) / 2 if target.symmetric else least - low / scale)
    return np.array(scale, np.float32), np.array(zero_point, target.activation_type)
