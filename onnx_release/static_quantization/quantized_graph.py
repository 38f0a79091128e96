"""Read and write the weights, scales and biases of the layers of a quantized graph."""

from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from onnx_release.graph.graph import producers, tensor_array
from onnx_release.graph.layers import Layer, from_matrix, initializers, set_array
from onnx_release.static_quantization.insertion import least_scale


class QuantizedGraph:
    """A graph with QuantizeLinear and DequantizeLinear nodes, whose layers have the names of the float model.

    Writing changes the model itself. A quantized bias keeps its value when the scale of its weight changes. `weights`
    is the folder of the files that have weights of the model.
    """

    def __init__(self, model: ModelProto, weights: Path | None = None) -> None:
        self.weights = weights
        self.nodes: dict[str, NodeProto] = {node.name: node for node in model.graph.node}
        self.makers, self.tensors = producers(model), initializers(model)

    def is_quantized(self, name: str) -> bool:
        """Return whether both operands of a layer are dequantized."""
        found = [self.makers.get(operand) for operand in self.nodes[name].input[:2]]
        return all(maker is not None and maker.op_type == "DequantizeLinear" for maker in found)

    def array(self, name: str) -> np.ndarray:
        """Return the value of an initializer."""
        return tensor_array(self.tensors[name], self.weights)

    def input_value(self, name: str) -> str:
        """Return the name of a layer's input, before a DequantizeLinear if it has one."""
        taken = self.nodes[name].input[0]
        maker = self.makers.get(taken)
        return str(maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else taken)

    def as_floats(self, name: str, data: np.ndarray) -> np.ndarray:
        """Convert data of the `input_value` of a layer to the float32 input of the layer."""
        maker = self.makers.get(self.nodes[name].input[0])
        if maker is None or maker.op_type != "DequantizeLinear":
            return data
        scale, zero_point = (self.array(parameter).flat[0] for parameter in maker.input[1:3])
        return (data.astype(np.int32) - np.int32(zero_point)).astype(np.float32) * scale

    def weight_tensor(self, name: str) -> str:
        """Return the initializer of a quantized weight: integers, or the floats before a QuantizeLinear."""
        integers = self.makers[self.nodes[name].input[1]].input[0]
        return str(self.makers[integers].input[0] if integers in self.makers else integers)

    def weight_scale(self, name: str) -> str:
        """Return the initializer of the scales of a quantized weight."""
        return str(self.makers[self.nodes[name].input[1]].input[1])

    def set_weight(self, layer: Layer, integers: np.ndarray, scales: np.ndarray) -> None:
        """Give a quantized layer the weight int8 [groups, outputs, inputs] with `scales` [groups, outputs]."""
        bias = self.bias(layer.name) if self.has_quantized_bias(layer.name) else None
        scale = self.tensors[self.weight_scale(layer.name)]
        set_array(scale, scales.astype(np.float32).reshape(tuple(scale.dims)))
        tensor = self.tensors[self.weight_tensor(layer.name)]
        floats = tensor.data_type == TensorProto.FLOAT
        values = (integers * scales[:, :, None]).astype(np.float32) if floats else integers
        set_array(tensor, from_matrix(layer, values, tuple(tensor.dims)))
        if bias is not None:
            self.set_bias(layer.name, bias)

    def widened(
        self, name: str, weights: np.ndarray, integers: np.ndarray, scales: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the weight and scales of a layer, rounded again where int32 does not hold the bias at that scale."""
        if not self.has_quantized_bias(name):
            return integers, scales
        input_scale = self.array(self.makers[self.nodes[name].input[0]].input[1])
        least = least_scale(self.bias(name), input_scale).reshape(scales.shape)
        low = scales < least
        if low.any():
            scales = np.maximum(scales, least)
            integers = np.where(low[..., None], np.rint(weights / scales[..., None]), integers).astype(np.int8)
        return integers, scales

    def copy_weight(self, other: "QuantizedGraph", name: str) -> None:
        """Give a layer the quantized weight that it has in another graph of the same model and target."""
        bias = self.bias(name) if self.has_quantized_bias(name) else None
        for place in (QuantizedGraph.weight_tensor, QuantizedGraph.weight_scale):
            set_array(self.tensors[place(self, name)], other.array(place(other, name)))
        if bias is not None:
            self.set_bias(name, bias)

    def has_quantized_bias(self, name: str) -> bool:
        """Return whether a layer has a constant bias of integers; a computed bias does not count."""
        node = self.nodes[name]
        maker = self.makers.get(node.input[2]) if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else None
        return maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in self.tensors

    def bias_tensors(self, name: str) -> list[str]:
        """Return the initializers of a quantized bias: its integers and their scale."""
        return list(self.makers[self.nodes[name].input[2]].input[:2])

    def bias(self, name: str) -> np.ndarray:
        """Return the constant bias of a layer, in floats."""
        if not self.has_quantized_bias(name):
            return self.array(self.nodes[name].input[2])
        integers, scales = (self.array(tensor) for tensor in self.bias_tensors(name))
        return integers * scales.astype(np.float64)

    def set_bias(self, name: str, bias: np.ndarray) -> None:
        """Write a float bias as it is, and a quantized one as int32 with the scale of the products it is added to."""
        if not self.has_quantized_bias(name):
            set_array(self.tensors[self.nodes[name].input[2]], bias.astype(np.float32))
            return
        input_scale = self.array(self.makers[self.nodes[name].input[0]].input[1])
        scales = (input_scale.reshape(()) * self.array(self.weight_scale(name)).ravel()).astype(np.float32)
        bounds = np.iinfo(np.int32)
        integers = np.clip(np.rint(bias / scales), bounds.min, bounds.max).astype(np.int32)
        for tensor, array in zip(self.bias_tensors(name), (integers, scales), strict=True):
            set_array(self.tensors[tensor], array)
