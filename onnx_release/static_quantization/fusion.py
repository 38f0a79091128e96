"""Find the quantized nodes that ONNX Runtime runs on integers, from the graph that it makes of the model."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto, NodeProto

from onnx_release.core.params import Runtime
from onnx_release.graph.graph import load_model, producers
from onnx_release.graph.layers import initializers
from onnx_release.runtime.session import save_optimized
from onnx_release.static_quantization.qdq import QUANTIZED_WHEN_LOADED

QDQ = ("QuantizeLinear", "DequantizeLinear")


def optimized_graph(path: Path) -> ModelProto:
    """Return the graph that ONNX Runtime runs for the model, with all optimizations, on this CPU."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "optimized.onnx"
        save_optimized(path, written, Runtime(provider="cpu", intra_threads=1))
        return load_model(written, weights=False)


@dataclass(frozen=True)
class FusedNodes:
    """How many nodes have 8-bit inputs, how many of them run on integers, and why the others do not.

    `float_nodes` have no 8-bit inputs. A node with 8-bit inputs that runs in float costs more than it saves: its inputs
    are converted to floats and its output back. `requantized` are float layers that ONNX Runtime quantizes by itself,
    which `keep_float` should prevent.
    """

    quantized_nodes: int
    float_nodes: int
    fused_nodes: int
    unfused_nodes: int
    requantized_nodes: int
    requantized: str
    unfused: str


def count_fused(path: Path) -> FusedNodes:
    """Count the nodes of a quantized model by how ONNX Runtime runs them on this CPU."""
    model = load_model(path, weights=False)
    makers = producers(model)
    nodes = [node for node in model.graph.node if node.op_type not in QDQ]
    quantized = [node for node in nodes if any(made_by_dequantize(name, makers) for name in node.input)]
    optimized = optimized_graph(path)
    # A fused node's output keeps the name of the original node; its own name may get a suffix.
    found = {node.name: node for node in optimized.graph.node} | producers(optimized)
    optimized_makers = producers(optimized)
    unfused = [node for node in quantized if not runs_on_integers(found.get(node.name), optimized_makers)]
    constants = initializers(model)
    in_float = [node for node in nodes if node.op_type in QUANTIZED_WHEN_LOADED and node.input[1] in constants]
    requantized = [node.name for node in in_float if has_quantized_weight(found.get(node.name), optimized_makers)]
    return FusedNodes(
        quantized_nodes=len(quantized),
        float_nodes=len(nodes) - len(quantized),
        fused_nodes=len(quantized) - len(unfused),
        unfused_nodes=len(unfused),
        requantized_nodes=len(requantized),
        requantized=", ".join(requantized),
        unfused="; ".join(f"{node.name} ({node.op_type}): {unfused_reason(node, model, makers)}" for node in unfused),
    )


def runs_on_integers(node: NodeProto | None, makers: dict[str, NodeProto]) -> bool:
    """Return whether a node of the optimized graph has integer inputs; one that is gone became part of a float node."""
    return node is not None and not any(made_by_dequantize(name, makers) for name in node.input[:1])


def has_quantized_weight(node: NodeProto | None, makers: dict[str, NodeProto]) -> bool:
    """Return whether a layer of the optimized graph is an integer operator, or has a dequantized weight."""
    return node is not None and (node.op_type.startswith("Q") or made_by_dequantize(node.input[1], makers))


def made_by_dequantize(name: str, makers: dict[str, NodeProto]) -> bool:
    """Return whether a value is the output of a DequantizeLinear."""
    return name in makers and makers[name].op_type == "DequantizeLinear"


def unfused_reason(node: NodeProto, model: ModelProto, makers: dict[str, NodeProto]) -> str:
    """Return why ONNX Runtime did not fuse a node, as far as the graph shows."""
    computed = [name for name in node.input if name in makers]
    floats = [name for name in computed if not made_by_dequantize(name, makers)]
    if floats:
        return f"its input {floats[0]} is in float"
    takers = [other for other in model.graph.node if node.output[0] in other.input]
    if not takers or any(other.op_type != "QuantizeLinear" for other in takers):
        return "its output stays in float"
    return "ONNX Runtime has no integer kernel for it in this form on this CPU"
