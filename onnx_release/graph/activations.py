"""Look at the inner values of a graph: extract the part that computes them, and run it on samples."""

import tempfile
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from onnx_release.core.workers import map_in_order
from onnx_release.graph.graph import (
    EXTERNAL_DATA_THRESHOLD,
    SMALL_WEIGHT,
    external_tensors,
    load_weights,
    node_inputs,
    save_model,
    weight_bytes,
    weight_size,
)
from onnx_release.runtime.session import open_bytes, open_session, run_session

# Operators whose output is another one at each run, although their inputs are constant.
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")


def float_values(model: ModelProto) -> list[str]:
    """Return the float32 inputs and node outputs of the graph, in its order and without constants."""
    constants = constant_values(model)
    return [name for name in float_tensors(model) if name not in constants]


def float_tensors(model: ModelProto) -> list[str]:
    """Return the float32 inputs and node outputs of the graph, in its order, without initializers."""
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input]
    outputs = [name for node in model.graph.node for name in node.output if name]
    types = value_types(model)
    return [name for name in (*inputs, *outputs) if name not in known and types.get(name) == TensorProto.FLOAT]


def constant_values(model: ModelProto) -> set[str]:
    """Return the initializers and the values that are computed only from them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in RANDOM and constants.issuperset(node_inputs(node)):
            constants.update(name for name in node.output if name)
    return constants


def value_types(model: ModelProto) -> dict[str, int]:
    """Return the element type of every value whose type shape inference finds."""
    graph = infer_shapes(model).graph
    return {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}


def infer_shapes(model: ModelProto) -> ModelProto:
    """Return a copy of `model`, of any size, with the types and shapes that shape inference finds.

    Weights of more than SMALL_WEIGHT bytes are inputs of the copy, since onnx refuses a message over 2 GB and no shape
    depends on them.
    """
    graph = model.graph
    large = [tensor for tensor in graph.initializer if weight_size(tensor) > SMALL_WEIGHT]
    names, inputs = {tensor.name for tensor in large}, {value.name for value in graph.input}
    weights = [
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in large
        if tensor.name not in inputs
    ]
    small = [tensor for tensor in graph.initializer if tensor.name not in names]
    light = helper.make_graph(graph.node, graph.name, [*graph.input, *weights], graph.output, small)
    light.value_info.extend(graph.value_info)
    return onnx.shape_inference.infer_shapes(
        helper.make_model(
            light, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
        )
    )


def extract_subgraph(model: ModelProto, names: Iterable[str], known: Mapping[str, int] | None = None) -> ModelProto:
    """Return the part of `model` that computes the values `names`, which become its outputs.

    Its inputs are all inputs of `model`; or, with `known`, which has element types by name, those of the values in
    `known` that it needs.
    """
    wanted = list(names)
    nodes, needed = ancestors(model, wanted, known or {})
    if known is None:
        inputs = list(model.graph.input)
    else:
        made = {name for node in nodes for name in node.output}  # an output of the model may be known, too
        taken = (name for name in known if name in needed and name not in made)
        inputs = [helper.make_tensor_value_info(name, known[name], None) for name in taken]
    graph = helper.make_graph(
        nodes,
        model.graph.name,
        inputs,
        [ValueInfoProto(name=name) for name in wanted],
        [tensor for tensor in model.graph.initializer if tensor.name in needed or tensor.name in wanted],
    )
    return helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )


def ancestors(model: ModelProto, wanted: Collection[str], known: Container[str]) -> tuple[list[NodeProto], set[str]]:
    """Return the nodes that compute `wanted` from the inputs and the values `known`, and the names of their inputs."""
    open_values, taken, nodes = set(wanted), set(), []
    for node in reversed(model.graph.node):
        if not open_values.isdisjoint(node.output):
            inputs = set(node_inputs(node))
            taken |= inputs
            open_values |= {name for name in inputs if name not in known}
            nodes.append(
                with_outputs_renamed(node, [name for name in node.output if name in known and name not in wanted])
            )
    return nodes[::-1], taken


def with_outputs_renamed(node: NodeProto, names: Collection[str]) -> NodeProto:
    """Return the node with other names for some of its outputs, as those of a Split that are known; itself for none."""
    if not names:
        return node
    renamed = NodeProto()
    renamed.CopyFrom(node)
    renamed.output[:] = [f"{name}/again" if name in names else name for name in node.output]
    return renamed


def descendants(model: ModelProto, names: Iterable[str]) -> set[str]:
    """Return the values that depend on any of `names`, which may be initializers."""
    found = set(names)
    for node in model.graph.node:
        if not found.isdisjoint(node_inputs(node)):
            found.update(name for name in node.output if name)
    return found - set(names)


def step_by_step(
    model: ModelProto,
    names: Sequence[str],
    feeds: Sequence[Mapping[str, np.ndarray]],
    chunk: int,
    weights: Path | None = None,
) -> Iterator[list[np.ndarray]]:
    """Yield the value of each of `names`, in this order, for every feed.

    Each value is computed on demand from those before it, so that no node runs twice, and with the weights that `model`
    has at that time. A value is dropped when no later one needs it. `weights` is the folder of the files that have
    weights of `model`.
    """
    given = {value.name for value in model.graph.input}
    needs = [ancestors(model, [name], {*given, *names[:index]})[1] for index, name in enumerate(names)]
    known: list[dict[str, np.ndarray]] = [dict(feed) for feed in feeds]
    for index, name in enumerate(names):
        if name not in known[0]:
            types = {key: helper.np_dtype_to_tensor_dtype(array.dtype) for key, array in known[0].items()}
            session = session_of(extract_subgraph(model, [name], types), weights=weights)
            for values, found in zip(known, map_in_order(partial(run_on, session), known, chunk), strict=True):
                values.update(found)
        yield [values[name] for values in known]
        later = set().union(*needs[index + 1 :], names[index + 1 :])
        known = [{key: array for key, array in values.items() if key in later} for values in known]


def run_on(session: onnxruntime.InferenceSession, known: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a session whose inputs are some of the values `known`, and return all outputs by name."""
    return run_session(session, {value.name: known[value.name] for value in session.get_inputs()})


def session_of(model: ModelProto, threads: int = 1, weights: Path | None = None) -> onnxruntime.InferenceSession:
    """Open a session on a model in memory, of any size. Raises GraphError if ONNX Runtime does not load it.

    `weights` is the folder of the files that have weights of `model`; without it, all are in `model` itself.
    """
    if weights is not None and external_tensors(model):
        if weight_bytes(model) <= EXTERNAL_DATA_THRESHOLD:
            return open_bytes(model.SerializeToString(), weights, threads)
        whole = ModelProto()
        whole.CopyFrom(model)
        load_weights(whole, weights)
        return session_of(whole, threads)
    with tempfile.TemporaryDirectory() as folder:
        return open_session(save_model(model, Path(folder)), threads)
