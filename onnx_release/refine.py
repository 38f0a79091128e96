"""Try narrower and wider activation ranges on the quantized graph itself, and keep what brings the answers closer.

A calibration method sees one tensor at a time and takes every value for equally important. Which outliers the network
can do without only its answers tell.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from onnx import ModelProto, helper
from tqdm import tqdm

from onnx_release.activations import cut, descendants, run_on, session_of
from onnx_release.judge import Judge, signal
from onnx_release.layers import set_array
from onnx_release.qdq import quantized_values
from onnx_release.quantized_graph import QuantizedGraph
from onnx_release.samples import with_batch_axis
from onnx_release.work import Work
from onnx_release.workers import in_order

# Half of a range tells outliers that do not matter from those that do; smaller steps stop short of it.
FACTORS = (0.5, 0.8, 1.25)
# Less than this, in dB, is no reason to move.
LEAST_GAIN = 0.02
CHUNK = 16


def refine_ranges(
    quantized: ModelProto, judge: Judge, indices: Sequence[int], work: Work, reserve: float = 0.0
) -> dict[str, float]:
    """What to multiply the ranges of which activations by, for better answers on some samples.

    Goes once through the graph, from its end, as long as there is more work left than `reserve`. A trial computes only
    what depends on its range: all quantized values of every sample are kept, in 8 bits.
    """
    activations = quantized_values(quantized)
    outputs = [value.name for value in quantized.graph.output]
    feeds = [with_batch_axis(judge.samples.inputs(index)) for index in indices]
    session = session_of(cut(quantized, [name for names in activations.values() for name in names]))
    known = [feed | found for feed, found in zip(feeds, in_order(partial(run_on, session), feeds, CHUNK), strict=True)]
    work.run(len(indices))
    types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in known[0].items()}
    best = signal(judge.figures(quantized, indices))
    factors: dict[str, float] = {}
    stale: set[str] = set()
    for name in tqdm(reversed(activations), "ranges", len(activations), unit="range"):
        for factor in FACTORS:
            while work.left > reserve:
                trial, changed = with_scaled_range(quantized, name, factor)
                affected = descendants(trial, changed)
                usable = {key: kind for key, kind in types.items() if key not in affected | stale}
                session = session_of(cut(trial, outputs, usable))
                answers = list(in_order(partial(run_on, session), known, CHUNK))
                work.run(len(indices), {node.name for node in trial.graph.node if affected & set(node.output)})
                found = signal(judge.compare(answers, indices))
                if found < best + LEAST_GAIN:
                    break
                best, quantized = found, trial
                stale |= affected
                factors[name] = factors.get(name, 1.0) * factor
    return {name: factor for name, factor in factors.items() if factor != 1.0}


def with_scaled_range(quantized: ModelProto, name: str, factor: float) -> tuple[ModelProto, set[str]]:
    """A copy in which the range of the activation `name` is `factor` times as wide, with the same zero point.

    Also gives the names of the initializers that are not as they were.
    """
    result = ModelProto()
    result.CopyFrom(quantized)
    graph = QuantizedGraph(result)
    integers = set(quantized_values(result)[name])
    scales = {node.input[1] for node in result.graph.node if integers & {node.input[0], node.output[0]}}
    changed = set(scales)
    for scale in scales:
        set_array(graph.tensors[scale], graph.array(scale) * np.float32(factor))
    for node in result.graph.node:
        data = graph.makers.get(node.input[0]) if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else None
        bias = graph.makers.get(node.input[2]) if data is not None else None
        if data is not None and bias is not None and data.op_type == "DequantizeLinear" and data.input[1] in scales:
            # A quantized bias has the scale of the products, so it moves with that of the input.
            steps, unit = bias.input[:2]
            set_array(graph.tensors[steps], np.rint(graph.array(steps) / factor).astype(np.int32))
            set_array(graph.tensors[unit], graph.array(unit) * np.float32(factor))
            changed |= {steps, unit}
    return result, changed
