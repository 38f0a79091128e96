"""Make every constant weight an initializer, and name every node, for the steps that look for layers by both."""

from collections import Counter
from pathlib import Path

from onnx import ModelProto, TensorProto, numpy_helper

from onnx_release.graph.activations import constant_values, extract_subgraph, session_of, value_types
from onnx_release.graph.graph import drop_unused_nodes
from onnx_release.graph.layers import initializers
from onnx_release.runtime.session import run_session


def fold_weights(model: ModelProto, weights: Path | None = None) -> int:
    """Compute the constant weights of Conv, Gemm and MatMul that are no initializers, in place; return their number.

    Such are the transposed embedding that language models multiply with, and weights that an export computes.
    `weights` is the folder of the files that have weights of `model`.
    """
    constants, known = constant_values(model), initializers(model)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    computed = {node.input[1] for node in layers if node.input[1] in constants and node.input[1] not in known}
    if not computed:
        return 0
    types = value_types(model)
    wanted = sorted(name for name in computed if types.get(name) == TensorProto.FLOAT)
    for name in wanted:
        session = session_of(extract_subgraph(model, [name], {}), weights=weights)
        model.graph.initializer.append(numpy_helper.from_array(run_session(session, {})[name], f"{name}_folded"))
    for node in layers:
        if node.input[1] in wanted:
            node.input[1] = f"{node.input[1]}_folded"
    drop_unused_nodes(model)
    return len(wanted)


def name_nodes(model: ModelProto) -> None:
    """Give every node without a name, and every one with the name of another, a name of its own, in place."""
    counts = Counter(node.name for node in model.graph.node)
    for index, node in enumerate(model.graph.node):
        if not node.name or counts[node.name] > 1:
            name = f"{node.name or node.op_type}_{index}"
            while name in counts:
                name += "_"
            counts[name] += 1
            node.name = name
