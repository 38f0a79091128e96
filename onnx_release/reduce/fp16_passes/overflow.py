"""Find the nodes that overflow in float16, by running the float32 model with and without its rounding."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import uses_external_data

from onnx_release.core.errors import DataError
from onnx_release.graph.activations import constant_values, extract_subgraph, session_of
from onnx_release.graph.layers import initializers, set_array
from onnx_release.reduce.fp16_passes.types import value_types
from onnx_release.reduce.observe import RUN_BYTES, Run, largest_input, split_by_size, value_bytes
from onnx_release.reduce.runs import SAMPLES
from onnx_release.runtime.session import run_session

MAX_FLOAT16 = 65504.0
# Their sums may overflow although the mean does not.
MEANS = ("ReduceMean", "GlobalAveragePool")


@dataclass(frozen=True)
class NotFinite:
    """Where a value is NaN, infinity and minus infinity: packed bits, of the elements in order."""

    shape: tuple[int, ...]
    nan: bytes
    positive: bytes
    negative: bytes


@dataclass(frozen=True)
class Observed:
    """The nodes with values beyond float16 in any run, and for each run what is not finite in float32.

    `groups` has the names of the values, in groups of which one run returns only one at a time.
    """

    large: set[str]
    not_finite: list[dict[str, NotFinite]]
    groups: list[list[str]]


def observe(model: ModelProto, runs: Sequence[Run], folder: Path) -> Observed:
    """Run the float32 model, whose large weights may be in `folder`, on all inputs.

    Infinity is allowed inside, where masks have it, and as an output. Raises DataError if an output has NaN on a
    sample.
    """
    sizes = value_bytes(model, observable_values(model), largest_input(runs), folder)
    groups = list(split_by_size(sizes, RUN_BYTES))
    outputs = {value.name for value in model.graph.output}
    sums = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in MEANS}
    squares = {node.output[0] for node in model.graph.node if node.op_type == "ReduceL2"}
    large: set[str] = set()
    not_finite: list[dict[str, NotFinite]] = [{} for _ in runs]
    for group in groups:
        averaged = [sums[name] for name in group if name in sums]
        session = session_of(extract_subgraph(model, dict.fromkeys([*group, *averaged])), weights=folder)
        for run, found in zip(runs, not_finite, strict=True):
            values = run_session(session, run.arrays())
            found.update(find_not_finite(values))
            for name, array in values.items():
                if name in outputs and run.part == SAMPLES and np.isnan(array).any():
                    raise DataError(f"{run.name} gives NaN in {name}, even in float32")
                largest = largest_finite(array)
                if name in sums and sums[name] in values:
                    largest *= values[sums[name]].size / max(array.size, 1)
                if name in squares:
                    largest **= 2
                if largest > MAX_FLOAT16:
                    large.add(name)
    nodes = {node.name for node in model.graph.node if large & {*node.output, *node.input}}
    return Observed(nodes, not_finite, groups)


def largest_finite(array: np.ndarray) -> float:
    """Return the largest magnitude of the finite elements; 0 if there is none."""
    largest = float(np.abs(array).max(initial=0.0))
    if np.isfinite(largest):
        return largest
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))


def find_not_finite(values: Mapping[str, np.ndarray]) -> dict[str, NotFinite]:
    """Describe the values that have NaN or infinity."""
    return {name: describe(array) for name, array in values.items() if not np.isfinite(array).all()}


def describe(array: np.ndarray) -> NotFinite:
    nan, positive, negative = (np.packbits(test(array)).tobytes() for test in (np.isnan, np.isposinf, np.isneginf))
    return NotFinite(array.shape, nan, positive, negative)


def observable_values(model: ModelProto) -> list[str]:
    """Return the float32 inputs and node outputs of the outer graph, in its order and without constants."""
    types = value_types(model)
    constants = constant_values(model)
    names = [value.name for value in model.graph.input]
    names += [name for node in model.graph.node for name in node.output if name and name not in constants]
    return [name for name in names if types.get(name) == TensorProto.FLOAT]


def find_overflows(
    model: ModelProto,
    converted: ModelProto,
    runs: Sequence[Run],
    observed: Observed,
    folder: Path,
    known: Set[str],
) -> set[str]:
    """Return the nodes where float16 first has another NaN or infinity, or lacks it, and those that take such a value.

    They are those of the first run that has others than `known`.
    """
    rounded = with_float16_rounding(model, converted)
    not_finite: list[dict[str, NotFinite]] = [{} for _ in runs]
    for group in observed.groups:
        session = session_of(extract_subgraph(rounded, group), weights=folder)
        for run, found in zip(runs, not_finite, strict=True):
            found.update(find_not_finite(run_session(session, run.arrays())))
    for found, before in zip(not_finite, observed.not_finite, strict=True):
        bad = {name for name in {**found, **before} if found.get(name) != before.get(name)}
        first = {name for node in model.graph.node for name in node.output if name in bad and not bad & set(node.input)}
        nodes = {node.name for node in model.graph.node if first & {*node.output, *node.input}}
        if not nodes <= known:
            return nodes
    return set()


def with_float16_rounding(model: ModelProto, converted: ModelProto) -> ModelProto:
    """Return the float32 `model` with each value rounded to float16 that is float16 in `converted`.

    ONNX Runtime has hardly any float16 kernels for CPUs: it computes in float32 and skips the rounding where it can.
    This graph shows the results of a device that computes in float16. Weights in another file stay as they are: a
    rounded weight makes no value overflow that is not close to it already.
    """
    types = value_types(converted)
    floats = observable_values(model)
    half = {name for name in floats if types.get(name) == TensorProto.FLOAT16}
    weights = initializers(converted)
    result = ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        other = weights.get(tensor.name)
        changed = other is not None and other.data_type != tensor.data_type
        if other is not None and changed and not uses_external_data(tensor):
            set_array(tensor, numpy_helper.to_array(other).astype(np.float32))
    nodes = list(result.graph.node)
    del result.graph.node[:]
    inputs = {value.name: f"{value.name}_rounded" for value in model.graph.input if value.name in floats}
    for name, after in inputs.items():
        result.graph.node.extend(rounding(name, after))
    for node in nodes:
        exact = {name: f"{name}_exact" for name in node.output if name in half}
        if exact:
            node.input[:] = [inputs.get(name, name) for name in node.input]
        node.output[:] = [exact.get(name, name) for name in node.output]
        result.graph.node.append(node)
        for name, before in exact.items():
            result.graph.node.extend(rounding(before, name))
    return result


def rounding(before: str, after: str) -> list[NodeProto]:
    """Return the nodes that round a value to float16 and bring it back."""
    return [
        helper.make_node("Cast", [before], [f"{after}_half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [f"{after}_half"], [after], to=TensorProto.FLOAT),
    ]
