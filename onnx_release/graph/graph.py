"""Write, check and describe ONNX files."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from onnx_release.core.errors import GraphError
from onnx_release.core.files import size_mb
from onnx_release.core.paths import MODEL_FILE
from onnx_release.core.plain_text import count_of
from onnx_release.runtime.session import open_session

if TYPE_CHECKING:
    import onnx_ir  # takes a second, which only what writes an export or large weights needs

EXTERNAL_DATA = "model.onnx.data"
# protobuf refuses a message of 2 GiB; the margin is for everything except weights.
EXTERNAL_DATA_THRESHOLD = 2**31 - 2**26
# Weights of up to this many bytes stay in the file itself.
SMALL_WEIGHT = 1023
# The suffix of onnxruntime's quantizer for the name of a dequantized value.
DEQUANTIZED = "_DequantizeLinear_Output"


def save_model(model: ModelProto, folder: Path, threshold: int = EXTERNAL_DATA_THRESHOLD) -> Path:
    """Write `model` to `folder`/model.onnx, and weights of more than `threshold` bytes to a file beside it.

    Weights that `to_proto` or `copy_weights` has put into the same folder stay there. Unused initializers are removed
    from `model` first.
    """
    drop_unused_initializers(model)
    if weight_bytes(model) > threshold:
        import onnx_ir

        model = write_weights(onnx_ir.from_proto(model), folder)
    path = folder / MODEL_FILE
    onnx.save_model(model, path)
    return path


def drop_unused_initializers(model: ModelProto) -> None:
    """Remove the initializers that no node uses and that are not an input or output, in place.

    Quantizers and fusions leave some behind, and ONNX Runtime warns of each one at every load.
    """
    inner = list(graphs(model.graph))
    used = {name for graph in inner for node in graph.node for name in node.input}
    used |= {value.name for graph in inner for value in (*graph.input, *graph.output)}
    for graph in inner:
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        if len(kept) < len(graph.initializer):
            del graph.initializer[:]
            graph.initializer.extend(kept)


def drop_unused_nodes(model: ModelProto) -> None:
    """Remove the nodes whose outputs neither a node nor an output of the graph takes, in place."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if not needed.isdisjoint(node.output):
            needed.update(node_inputs(node))
            kept.append(node)
    if len(kept) < len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(reversed(kept))


def to_proto(model: "onnx_ir.Model", folder: Path, threshold: int = EXTERNAL_DATA_THRESHOLD) -> ModelProto:
    """Convert `model` for `save_model` with the same `folder`; weights of more than `threshold` bytes go there."""
    import onnx_ir

    weights = (value.const_value for value in model.graph.initializers.values())
    if sum(weight.nbytes for weight in weights if weight is not None) > threshold:
        return write_weights(model, folder)
    return onnx_ir.to_proto(model)


def write_weights(model: "onnx_ir.Model", folder: Path) -> ModelProto:
    """Write the weights to `folder`/model.onnx.data, one at a time, and return a model that refers to them.

    Unlike with a ModelProto that has its weights, there is no second copy of them in memory.
    """
    import onnx_ir

    onnx_ir.external_data.unload_from_model(model, folder, EXTERNAL_DATA, size_threshold_bytes=SMALL_WEIGHT)
    return onnx_ir.to_proto(model)


def copy_weights(model: ModelProto, source: Path, folder: Path) -> None:
    """Copy the weights that `model` has in files of the folder `source` to `folder`, for `save_model`.

    Raises GraphError if a file is missing or too short.
    """
    with (folder / EXTERNAL_DATA).open("wb") as file:
        for tensor in external_tensors(model):
            content = read_weight(tensor, source)
            place = {"location": EXTERNAL_DATA, "offset": file.tell(), "length": len(content)}
            file.write(content)
            del tensor.external_data[:]
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))


def load_weights(model: ModelProto, source: Path) -> None:
    """Load the weights that `model` has in files of the folder `source` into it. Errors as in `copy_weights`."""
    for tensor in external_tensors(model):
        tensor.raw_data = read_weight(tensor, source)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def read_weight(tensor: TensorProto, source: Path) -> bytes:
    """Read a weight from a file of `source`. onnx refuses hard links, which DVC makes to its cache."""
    place = ExternalDataInfo(tensor)
    path = source / place.location
    try:
        with path.open("rb") as file:
            file.seek(place.offset or 0)
            content = file.read(place.length)
    except FileNotFoundError as cause:
        raise GraphError(f"{path} is not there: it should have the weight {tensor.name}") from cause
    if place.length is not None and len(content) < place.length:
        raise GraphError(
            f"{path} is too short: it lacks {count_of(place.length - len(content), 'byte')} of {tensor.name}"
        )
    return content


def tensor_array(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """Return the value of an initializer, which may be in a file of `folder`. Errors as in `copy_weights`."""
    if folder is None or not uses_external_data(tensor):
        return numpy_helper.to_array(tensor)
    held = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    held.raw_data = read_weight(tensor, folder)
    return numpy_helper.to_array(held)


def external_tensors(model: ModelProto) -> list[TensorProto]:
    """Return the weights in other files, including those of nested graphs."""
    return [tensor for graph in graphs(model.graph) for tensor in graph.initializer if uses_external_data(tensor)]


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the graph and all that are nested in it."""
    yield graph
    for node in graph.node:
        yield from subgraphs(node)


def subgraphs(node: NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs in the attributes of a node, such as the branches of an If, and all that are nested in them."""
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):  # an attribute of another kind has an empty g
            yield from graphs(inner)


def node_inputs(node: NodeProto) -> list[str]:
    """Return the values that a node needs: its inputs, and those that its subgraphs capture from the graph around."""
    inner = [graph for attribute in node.attribute for graph in (attribute.g, *attribute.graphs)]
    return [*(name for name in node.input if name), *(name for graph in inner for name in captured_values(graph))]


def rename_inputs(node: NodeProto, renamed: Mapping[str, str]) -> None:
    """Rename values where a node takes them, and where graphs nested in it take or return them, in place."""
    node.input[:] = [renamed.get(name, name) for name in node.input]
    for inner in subgraphs(node):
        for nested in inner.node:
            nested.input[:] = [renamed.get(name, name) for name in nested.input]
        for value in inner.output:
            value.name = renamed.get(value.name, value.name)


def captured_values(graph: onnx.GraphProto) -> list[str]:
    """Return the values that the nodes and outputs of a subgraph take from the graphs around it."""
    if not graph.node and not graph.output:
        return []  # the empty graph of an attribute of another kind
    own = set(produced_values(graph))
    taken = [name for node in graph.node for name in node_inputs(node)] + [value.name for value in graph.output]
    return [name for name in dict.fromkeys(taken) if name not in own]


def save_checked(model: ModelProto, folder: Path) -> Path:
    """Save the model, and check the file."""
    path = save_model(model, folder)
    check_model_file(path)
    return path


def load_model(path: Path, weights: bool = True) -> ModelProto:
    """Load a model; without `weights`, only the file itself. Raises GraphError if it is missing or damaged."""
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError as cause:
        raise GraphError(f"{path} is not there") from cause
    except Exception as cause:  # protobuf's DecodeError is not public in onnx
        raise GraphError(f"{path} is not an ONNX model, or damaged: {cause}") from cause
    if weights:
        load_weights(model, path.parent)
    return model


def check_model_file(path: Path) -> None:
    """Raise GraphError unless onnx.checker accepts it, each value has one producer, and ONNX Runtime loads it."""
    graph = load_model(path, weights=False).graph
    twice = [name for name, count in Counter(produced_values(graph)).items() if count > 1]
    if twice:
        raise GraphError(f"{path} is invalid: {', '.join(twice)} is produced more than once")
    try:
        onnx.checker.check_model(str(path), full_check=True)  # by path, the only way over 2 GB
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as cause:
        raise GraphError(f"{path} is invalid: {cause}") from cause
    open_session(path)


def produced_values(graph: onnx.GraphProto) -> list[str]:
    """Return the names of all values that the graph defines: inputs, initializers that are not inputs, node outputs."""
    inputs = [value.name for value in graph.input]
    initializers = [tensor.name for tensor in graph.initializer if tensor.name not in inputs]
    return inputs + initializers + [name for node in graph.node for name in node.output if name]


def weight_bytes(model: ModelProto) -> int:
    """Return the bytes of the weights in the model itself, without those in another file."""
    return sum(weight_size(tensor) for tensor in model.graph.initializer if not uses_external_data(tensor))


def total_weight_bytes(model: ModelProto) -> int:
    """Return the bytes of all weights, in the model and in other files."""
    return sum(weight_size(tensor) for tensor in model.graph.initializer)


def weight_size(tensor: TensorProto) -> int:
    """Return the bytes of a weight, wherever they are."""
    return int(np.prod(tensor.dims)) * element_bytes(tensor.data_type)


def element_bytes(data_type: int) -> int:
    """Return the size of an element of this type in bytes."""
    return helper.tensor_dtype_to_np_dtype(data_type).itemsize


def parameter_count(model: ModelProto) -> int:
    """Return how many elements all initializers have, folded constants included."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def default_opset(model: ModelProto) -> int:
    """Return the version of the ai.onnx opset that the file declares. Raises GraphError if it declares none."""
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            return opset.version
    raise GraphError("the model imports no ai.onnx opset")


def axes(value: ValueInfoProto) -> list[int | str]:
    """Return a size or a symbol for each axis; "?" if the file has neither."""
    return [
        axis.dim_value if axis.HasField("dim_value") else axis.dim_param or "?"
        for axis in value.type.tensor_type.shape.dim
    ]


def describe_model(path: Path) -> dict[str, Any]:
    """Describe an ONNX file: opsets, inputs, outputs, symbolic dimensions, operators, parameters and size."""
    model = load_model(path, weights=False)
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in initializers]
    values = {
        kind: [{"name": value.name, "dtype": dtype_name(value), "shape": axes(value)} for value in group]
        for kind, group in (("inputs", inputs), ("outputs", model.graph.output))
    }
    operators = Counter(f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in model.graph.node)
    return {
        **values,
        "ir_version": model.ir_version,
        "opsets": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "symbols": sorted(
            {axis for value in (*inputs, *model.graph.output) for axis in axes(value) if isinstance(axis, str)}
        ),
        "nodes": len(model.graph.node),
        "operators": dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        "parameters": parameter_count(model),
        "size_mb": model_size_mb(path),
    }


def dtype_name(value: ValueInfoProto) -> str:
    """Return numpy's name of the element type, as in a model's spec."""
    element = value.type.tensor_type.elem_type
    return "string" if element == TensorProto.STRING else str(helper.tensor_dtype_to_np_dtype(element))


def model_size_mb(path: Path) -> float:
    """Return the size in MB (10^6 bytes) of the model and its files of weights. Raises GraphError if one is missing."""
    files = [path, *(path.parent / name for name in sorted(external_files(path)))]
    for file in files:
        if not file.is_file():
            raise GraphError(f"{file} is not there: it should have weights of {path}")
    return sum(size_mb(file) for file in files)


def external_files(path: Path) -> set[str]:
    """Return the names of the files beside the model that have its weights."""
    return {ExternalDataInfo(tensor).location for tensor in external_tensors(load_model(path, weights=False))}


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Return the node that produces each value, by the value's name."""
    return {name: node for node in model.graph.node for name in node.output}
