"""Observe the activations of a model on many inputs, in one pass where memory allows, and in several where not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper
from tqdm import tqdm

from onnx_release.core.errors import DataError
from onnx_release.core.workers import map_in_order
from onnx_release.graph.activations import constant_values, extract_subgraph, float_tensors, session_of
from onnx_release.graph.graph import default_opset, node_inputs
from onnx_release.graph.layers import attributes
from onnx_release.reduce.histograms import Observed, observe_values
from onnx_release.runtime.session import run_session

Arrays = dict[str, np.ndarray]
# The bytes of the activations that one run returns, and of those that all runs at a time return.
RUN_BYTES = 2**29
ALL_BYTES = 2**31
# A Softmax gives less than exp(-16), about 1e-7, to a value that is this far below the largest of its row.
SOFTMAX_REACH = 16.0


@dataclass(frozen=True)
class Run:
    """Inputs to observe: `arrays` makes them, and `part` is what they are counted for, such as one shape case."""

    name: str
    part: str
    arrays: Callable[[], Arrays]


def observe(
    model: ModelProto,
    runs: Sequence[Run],
    bins: int | None,
    chunk: int,
    weights: Path | None = None,
    run_bytes: int = RUN_BYTES,
) -> dict[str, dict[str, Observed]]:
    """Return what is observed of each activation that can be quantized, by part and by name.

    At most `chunk` runs are under way at once, and each returns at most `run_bytes` of activations. `weights` is the
    folder of the files that have weights of `model`. Raises DataError with the first output of the model that has NaN.
    """
    parts: dict[str, dict[str, Observed]] = {run.part: {} for run in runs}
    names = values_to_observe(model)
    if not names:
        return parts
    outputs, axes = {value.name for value in model.graph.output}, softmax_axes(model)
    sizes = value_bytes(model, names, largest_input(runs), weights)
    for group in split_by_size(sizes, run_bytes):
        session = session_of(extract_subgraph(model, group), weights=weights)
        work = partial(observe_run, session=session, bins=bins, outputs=outputs, axes=axes)
        at_once = min(chunk, max(1, ALL_BYTES // max(sum(sizes[name] for name in group), 1)))
        found = map_in_order(work, runs, at_once)
        for run, items in zip(runs, tqdm(found, "ranges", len(runs), unit="sample"), strict=True):
            part = parts[run.part]
            for name, item in items.items():
                part[name] = part[name].merge(item) if name in part else item
    return parts


def observe_run(
    run: Run,
    session: onnxruntime.InferenceSession,
    bins: int | None,
    outputs: set[str],
    axes: Mapping[str, int],
) -> dict[str, Observed]:
    """Return what is observed of the session's outputs. Raises DataError as `observe` does."""
    found = {}
    for name, array in run_session(session, run.arrays()).items():
        if name in outputs and np.isnan(array).any():
            raise DataError(f"{run.name} gives NaN in the output {name}, in float32")
        found[name] = observe_values(within_reach(array, axes[name]) if name in axes else array, bins)
    return found


def within_reach(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the values before a Softmax with those that it makes 0 raised to the least that it does not.

    A mask, infinite or not, then leaves its mark on the range only as far as the answers need it. A row that is masked
    as a whole is left out.
    """
    largest = values.max(axis=axis, keepdims=True, initial=-np.inf)
    raised = np.maximum(values, largest - SOFTMAX_REACH)
    return np.asarray(raised[np.broadcast_to(np.isnan(largest) | (largest > -1e30), raised.shape)])


def values_to_observe(model: ModelProto) -> list[str]:
    """Return the float values of the graph, without those that only go into a Clip or Relu.

    No target quantizes a value before a Clip or Relu; its output has the range. A constant that nodes compute counts
    where a node that is not constant takes it.
    """
    constants = constant_values(model)
    takers: dict[str, list[str]] = {}
    wanted = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for position, name in enumerate(node_inputs(node)):
            takers.setdefault(name, []).append(node.op_type if position == 0 else "")
        if not constants.issuperset(name for name in node.output if name):
            wanted.update(node_inputs(node))
    made = {name for node in model.graph.node for name in node.output} - {value.name for value in model.graph.output}
    inner = {name for name in made if takers.get(name, []) in (["Clip"], ["Relu"])}
    return [name for name in float_tensors(model) if name not in inner and (name not in constants or name in wanted)]


def softmax_axes(model: ModelProto) -> dict[str, int]:
    """Return the axis of the Softmax that takes a value, by the value's name, if nothing else takes it."""
    if default_opset(model) < 13:
        return {}  # where a Softmax flattens its input
    found: dict[str, set[int | None]] = {value.name: {None} for value in model.graph.output}
    for node in model.graph.node:
        axis = int(attributes(node).get("axis", -1)) if node.op_type == "Softmax" else None
        for name in node_inputs(node):
            found.setdefault(name, set()).add(axis)
    single = {name: next(iter(axes)) for name, axes in found.items() if len(axes) == 1}
    return {name: axis for name, axis in single.items() if axis is not None}


def largest_input(runs: Sequence[Run]) -> Arrays:
    """Return the arrays of the run whose inputs have the most elements."""
    best: Arrays = {}
    for run in runs:
        arrays = run.arrays()
        if not best or elements(arrays) > elements(best):
            best = arrays
    return best


def elements(arrays: Arrays) -> int:
    """Return how many elements the arrays have together."""
    return sum(array.size for array in arrays.values())


def value_bytes(model: ModelProto, names: Sequence[str], arrays: Arrays, weights: Path | None) -> dict[str, int]:
    """Return the bytes of each of the float32 values `names` for these inputs, without keeping the values."""
    counting = extract_subgraph(model, names)
    del counting.graph.output[:]
    for index, name in enumerate(names):
        counting.graph.node.append(helper.make_node("Size", [name], [f"size of value {index}"]))
        counting.graph.output.append(helper.make_tensor_value_info(f"size of value {index}", TensorProto.INT64, []))
    found = run_session(session_of(counting, weights=weights), arrays)
    return {name: 4 * int(found[f"size of value {index}"]) for index, name in enumerate(names)}


def split_by_size(sizes: Mapping[str, int], limit: int) -> Iterator[list[str]]:
    """Yield the names in groups of at most `limit` bytes, or of one name that is larger."""
    group: list[str] = []
    total = 0
    for name, size in sizes.items():
        if group and total + size > limit:
            yield group
            group, total = [], 0
        group.append(name)
        total += size
    if group:
        yield group
