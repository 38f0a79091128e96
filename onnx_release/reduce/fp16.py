"""Convert a float32 model to float16, and keep the nodes in float32 that overflow on real samples.

onnxconverter-common converts. This module gives nodes names, by which it blocks them; keeps the Casts of the source,
which it would leave with the wrong type; keeps the nodes on both sides of values beyond float16 in float32; and removes
Casts that cancel out.
"""

import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxconverter_common.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from onnx_release.core.errors import DataError
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import Fp16
from onnx_release.data.samples import SampleFile
from onnx_release.graph.activations import constant_values, extract_subgraph, float_values, session_of, value_types
from onnx_release.graph.graph import load_model, model_size_mb, save_checked, subgraphs
from onnx_release.graph.layers import initializers, set_array
from onnx_release.graph.precision import check_not_float16, check_not_quantized
from onnx_release.reduce.metrics import Fp16Metrics
from onnx_release.runtime.session import run_session

MAX_FLOAT16 = 65504.0
# Their sums may overflow although the mean does not.
MEANS = ("ReduceMean", "GlobalAveragePool")


def convert_to_fp16(source: Path, samples: SampleFile, params: Fp16, folder: Path) -> Fp16Metrics:
    """Write `source` in float16 to `folder`, with its inputs and outputs as they are, and return the metrics.

    Raises GraphError if `source` is already in float16 or quantized, or if the result is invalid, and DataError if the
    float32 model itself gives NaN or infinity on a sample, or if there is no sample.
    """
    if not len(samples):
        raise DataError("there is no sample to check float16 on: samples(raw, 'calibration') must yield at least one")
    model = load_model(source)
    check_not_quantized(model, source)
    check_not_float16(model, source)
    name_nodes(model.graph)
    operators = sorted({*DEFAULT_OP_BLOCK_LIST, *params.block_operators})
    overflowing = beyond_float16(model, samples)
    while True:
        converted = convert_graph(model, operators, overflowing, params.max_finite_val)
        more = find_overflows(model, converted, samples) - overflowing
        if not more:
            break
        overflowing |= more
    with replacing_folder(folder) as partial:
        path = save_checked(converted, partial)
        size = model_size_mb(path)
    return fp16_metrics(model, converted, overflowing, params, size)


def name_nodes(graph: GraphProto) -> None:
    """Give every node a unique name, by which the converter blocks nodes and names Casts."""
    taken = Counter(node.name for node in graph.node)
    for index, node in enumerate(graph.node):
        if not node.name or taken[node.name] > 1:
            node.name = f"{node.name or node.op_type}_{index}"
            while taken[node.name]:
                node.name += "_"


def beyond_float16(model: ModelProto, samples: SampleFile) -> set[str]:
    """Return the names of the nodes with an input, an output or a sum beyond float16 on any sample, in float32."""
    names = float_values(model)
    session = session_of(extract_subgraph(model, names))
    sums = {node.output[0]: node for node in model.graph.node if node.op_type in MEANS}
    large: set[str] = set()
    for index in range(len(samples)):
        values = run_session(session, samples.batch(index))
        for name, array in values.items():
            if not np.isfinite(array).all():
                raise DataError(f"calibration sample {index} gives NaN or infinity in {name}, even in float32")
            largest = float(np.abs(array).max(initial=0.0))
            if name in sums:
                largest *= values[sums[name].input[0]].size / max(array.size, 1)
            if largest > MAX_FLOAT16:
                large.add(name)
    return {node.name for node in model.graph.node if large & {*node.output, *node.input}}


def convert_graph(model: ModelProto, operators: list[str], nodes: set[str], max_finite_val: float) -> ModelProto:
    """Convert a copy of `model` to float16, except `operators` and `nodes`. No Cast in it cancels another."""
    source = ModelProto()
    source.CopyFrom(model)
    casts = {node.name for node in source.graph.node if node.op_type == "Cast" and cast_type(node) == TensorProto.FLOAT}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about clamped weights, which are a metric, and denormal ones
        converted = convert_float_to_float16(
            source,
            keep_io_types=True,
            max_finite_val=max_finite_val,
            op_block_list=operators,
            node_block_list=sorted(nodes | casts),
        )
    remove_cascaded_casts(converted)
    del converted.graph.value_info[:]  # the types before; the checker infers them anew
    return converted


def cast_type(node: NodeProto) -> int:
    """Return the element type of a Cast's output."""
    return int(helper.get_node_attr_value(node, "to"))


def remove_cascaded_casts(model: ModelProto) -> None:
    """Connect every Cast to the start of its chain of Casts, and remove those without effect or use.

    A pair from float32 to float16 and back is removed too: its rounding would bring the overflow that a blocked node
    avoids.
    """
    graph = model.graph
    types = value_types(model) | {tensor.name: tensor.data_type for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    origin: dict[str, str] = {}  # the output of a float Cast: the value at the start of its chain
    same: dict[tuple[str, int], str] = {}  # a value and a type: the first Cast that makes it
    replaced: dict[str, str] = {}
    for node in graph.node:
        node.input[:] = [replaced.get(name, name) for name in node.input]
        if node.op_type != "Cast" or cast_type(node) not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        start, to = origin.get(node.input[0], node.input[0]), cast_type(node)
        node.input[0] = origin[node.output[0]] = start
        if node.output[0] in outputs:
            continue
        if types.get(start) == to:
            replaced[node.output[0]] = start
        elif (start, to) in same:
            replaced[node.output[0]] = same[start, to]
        else:
            same[start, to] = node.output[0]
    remove_unused(graph, "Cast")


def remove_unused(graph: GraphProto, operator: str) -> None:
    """Remove the nodes of one operator whose output nothing uses."""
    used = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if node.op_type == operator and not used & set(node.output):
            graph.node.remove(node)
        else:
            used |= {*node.input, *(name for graph in subgraphs(node) for inner in graph.node for name in inner.input)}


def find_overflows(model: ModelProto, converted: ModelProto, samples: SampleFile) -> set[str]:
    """Return the nodes where NaN or infinity begins in float16, and those after them, on the first sample with any."""
    names = float_values(model)
    session = session_of(extract_subgraph(with_float16_rounding(model, converted), names))
    for index in range(len(samples)):
        values = run_session(session, samples.batch(index))
        bad = {name for name, array in values.items() if not np.isfinite(array).all()}
        first = {name for node in model.graph.node for name in node.output if name in bad and not bad & set(node.input)}
        if first:
            return {node.name for node in model.graph.node if first & {*node.output, *node.input}}
    return set()


def with_float16_rounding(model: ModelProto, converted: ModelProto) -> ModelProto:
    """Return the float32 `model` with each value rounded to float16 that is float16 in `converted`.

    ONNX Runtime has hardly any float16 kernels for CPUs: it computes in float32 and skips the rounding where it can.
    This graph shows the results of a device that computes in float16.
    """
    types = value_types(converted)
    floats = float_values(model)
    half = {name for name in floats if types.get(name) == TensorProto.FLOAT16}
    weights = initializers(converted)
    result = ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        other = weights.get(tensor.name)
        if is_float(tensor) and other is not None and other.data_type == TensorProto.FLOAT16:
            set_array(tensor, numpy_helper.to_array(other).astype(np.float32))
    nodes = list(result.graph.node)
    del result.graph.node[:]

    def add_rounding(before: str, after: str) -> None:
        result.graph.node.append(helper.make_node("Cast", [before], [f"{after}_half"], to=TensorProto.FLOAT16))
        result.graph.node.append(helper.make_node("Cast", [f"{after}_half"], [after], to=TensorProto.FLOAT))

    inputs = {value.name: f"{value.name}_rounded" for value in model.graph.input if value.name in floats}
    for name, after in inputs.items():
        add_rounding(name, after)
    for node in nodes:
        exact = {name: f"{name}_exact" for name in node.output if name in half}
        if exact:
            node.input[:] = [inputs.get(name, name) for name in node.input]
        node.output[:] = [exact.get(name, name) for name in node.output]
        result.graph.node.append(node)
        for name, before in exact.items():
            add_rounding(before, name)
    return result


def fp16_metrics(
    model: ModelProto, converted: ModelProto, overflowing: set[str], params: Fp16, size_mb: float
) -> Fp16Metrics:
    """Count nodes by the type of their first output, Casts separately, and the clamped weights."""
    types, constants = value_types(converted), constant_values(converted)
    nodes = [node for node in converted.graph.node if node.op_type != "Cast" and node.output[0] not in constants]
    counts = Counter(types.get(node.output[0]) for node in nodes)
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if is_float(tensor)]
    return Fp16Metrics(
        size_mb=size_mb,
        fp16_nodes=counts[TensorProto.FLOAT16],
        float_nodes=counts[TensorProto.FLOAT],
        casts=sum(node.op_type == "Cast" for node in converted.graph.node),
        blocked_nodes=len(overflowing),
        blocked=", ".join(node.name for node in model.graph.node if node.name in overflowing),
        clamped_weights=int(sum((np.abs(array) > params.max_finite_val).sum() for array in weights)),
    )


def is_float(tensor: TensorProto) -> bool:
    return bool(tensor.data_type == TensorProto.FLOAT)
