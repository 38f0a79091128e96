"""Convert a graph to float16, with the passes before and after onnxconverter-common."""

import warnings
from collections.abc import Iterable, Set

import onnx.inliner
from onnx import ModelProto
from onnxconverter_common.float16 import convert_float_to_float16

from onnx_release.graph.graph import graphs
from onnx_release.reduce.fp16_passes.boundaries import (
    isolate_inputs,
    isolate_outputs,
    name_captures,
    remove_boundaries,
)
from onnx_release.reduce.fp16_passes.casts import remove_cascaded_casts
from onnx_release.reduce.fp16_passes.constants import (
    constants_to_initializers,
    drop_initializer_inputs,
    separate_shared_constants,
    write_out_fill_values,
)
from onnx_release.reduce.fp16_passes.names import (
    leave_out_optional_outputs,
    name_inner_values,
    name_nodes,
    name_optional_outputs,
)
from onnx_release.reduce.fp16_passes.order import sort_nodes
from onnx_release.reduce.fp16_passes.types import declare_types, drop_stale_types, value_types


def prepare(model: ModelProto) -> ModelProto:
    """Return a float32 model that computes the same, without functions and Constants, and with all types declared."""
    prepared = ModelProto()
    prepared.CopyFrom(onnx.inliner.inline_local_functions(model) if model.functions else model)
    name_nodes(prepared)
    name_inner_values(prepared)
    constants_to_initializers(prepared)
    drop_initializer_inputs(prepared)
    write_out_fill_values(prepared)
    return declare_types(prepared)


def kinds_of(model: ModelProto, operators: Iterable[str]) -> set[str]:
    """Return the names of the nodes of some operators, those in nested graphs included."""
    wanted = set(operators)
    return {node.name for graph in graphs(model.graph) for node in graph.node if node.op_type in wanted}


def convert_graph(prepared: ModelProto, kept: Set[str], max_finite_val: float) -> ModelProto:
    """Convert a copy of a prepared model to float16, except the nodes named `kept`. No Cast in it undoes another.

    Weights that are references to another file get the type float16, and their content is left to the caller.
    """
    model = ModelProto()
    model.CopyFrom(prepared)
    name_optional_outputs(model)
    isolate_inputs(model)
    isolate_outputs(model)
    kept = kept | name_captures(model, value_types(model), kept)
    separate_shared_constants(model, kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about clamped weights, which are a metric, and denormal ones
        model = convert_float_to_float16(
            model,
            keep_io_types=True,
            max_finite_val=max_finite_val,
            disable_shape_infer=True,  # `prepare` has done it, and over 2 GB this would fail
            op_block_list=[],
            node_block_list=sorted(kept),
            check_fp16_ready=False,
        )
    remove_boundaries(model)
    sort_nodes(model)
    remove_cascaded_casts(model)
    leave_out_optional_outputs(model)
    drop_stale_types(model)
    return model
