"""Know the element type of every value, by which the converter decides where a Cast goes."""

import onnx
from onnx import ModelProto, ValueInfoProto

from onnx_release.graph.graph import graphs


def declare_types(model: ModelProto) -> ModelProto:
    """Return the model with the types that shape inference finds."""
    inferred = onnx.shape_inference.infer_shapes(model)
    declare_once(inferred)
    return inferred


def declare_once(model: ModelProto) -> None:
    """Leave one declaration of each value, in the graph whose node makes it: the converter would change no other.

    Exporters also declare in a nested graph what it takes from outside, and onnxslim declares values twice.
    """
    for graph in graphs(model.graph):
        declared = {value.name for value in (*graph.input, *graph.output)}
        open_values = {name for node in graph.node for name in node.output} - declared
        kept = []
        for value in graph.value_info:
            if value.name in open_values:
                kept.append(value)
                open_values.remove(value.name)
        if len(kept) < len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(kept)


def value_types(model: ModelProto) -> dict[str, int]:
    """Return the declared element type of every value, those of nested graphs included; 0 for a value of no tensor."""
    types: dict[str, int] = {}
    for graph in graphs(model.graph):
        for value in (*graph.value_info, *graph.input, *graph.output):
            types[value.name] = value.type.tensor_type.elem_type
        types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return types


def declared_values(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Return the declaration of every value that has one, those of nested graphs included."""
    return {
        value.name: value for graph in graphs(model.graph) for value in (*graph.value_info, *graph.input, *graph.output)
    }


def drop_stale_types(model: ModelProto) -> None:
    """Remove the declarations of values that no node makes any more, in place."""
    for graph in graphs(model.graph):
        made = {name for node in graph.node for name in node.output}
        kept = [value for value in graph.value_info if value.name in made]
        if len(kept) < len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(kept)
