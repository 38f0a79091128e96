"""Try narrower and wider activation ranges on the quantized graph itself, and keep those that bring the answers closer.

A calibration method sees one tensor at a time and treats every value as equally important. Only the answers show which
outliers the network does not need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import ModelProto, helper
from tqdm import tqdm

from onnx_release.core.workers import map_in_order
from onnx_release.graph.activations import descendants, extract_subgraph, run_on, session_of
from onnx_release.graph.layers import clip_bounds, initializers, set_array
from onnx_release.static_quantization.compute_limit import ComputeLimit
from onnx_release.static_quantization.operators import Ranges
from onnx_release.static_quantization.qdq import in_order_of, quantized_values, shared_values
from onnx_release.static_quantization.quantized_graph import QuantizedGraph
from onnx_release.static_quantization.scoring import Scorer

# Half of a range drops outliers that do not matter; smaller steps alone stop before that.
COARSE = (0.5, 0.8, 1.25)
FINE = (0.9, 1.1)
# A gain of less than this, in dB, changes nothing.
LEAST_GAIN = 0.02
CHUNK = 16
# Float values are kept as well, if all values together take less than this many bytes.
MOST_KEPT = 2**30

# The least and the largest factor of a range, by the name of its activation.
FactorBounds = Mapping[str, tuple[float, float]]


@dataclass
class KeptValues:
    """The inputs and the quantized values of every sample by name, and the names of those that are out of date.

    `weights` is the folder of the files that have weights of the graph.
    """

    samples: list[dict[str, np.ndarray]]
    weights: Path | None = None
    outdated: set[str] = field(default_factory=set)

    def run(self, trial: ModelProto, affected: set[str]) -> tuple[list[dict[str, np.ndarray]], set[str]]:
        """Compute the outputs of `trial` for every sample from what is kept, except the values in `affected`.

        Returns them and the names of the nodes that ran.
        """
        types = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in self.samples[0].items()}
        usable = {name: kind for name, kind in types.items() if name not in affected | self.outdated}
        part = extract_subgraph(trial, [value.name for value in trial.graph.output], usable)
        outputs = list(map_in_order(partial(run_on, session_of(part, weights=self.weights)), self.samples, CHUNK))
        return outputs, {node.name for node in part.graph.node}


@dataclass(frozen=True)
class Sweep:
    """One pass over all ranges: the steps to try on each, and the indices of the samples to try them on."""

    steps: Sequence[float]
    indices: Sequence[int]


def refine_ranges(
    quantized: ModelProto,
    bounds: FactorBounds,
    sweep: Sweep,
    scorer: Scorer,
    limit: ComputeLimit,
    weights: Path | None = None,
) -> dict[str, float]:
    """Return factors for the ranges of some activations that improve the answers on the samples of the sweep.

    `bounds` has the activations to try and the least and the largest factor for each; a factor is a product of steps.
    The search goes once through the graph, from its end, until the limit is used up. A trial computes only what depends
    on its range, since all quantized values of every sample are kept, in 8 bits. `weights` is the folder of the files
    that have weights of the graph.
    """
    if not quantized_values(quantized):
        return {}
    known = keep_values(quantized, [scorer.samples.batch(index) for index in sweep.indices], weights)
    limit.run(len(sweep.indices))
    best = scorer.score(quantized, sweep.indices, weights).signal
    factors = {name: 1.0 for name in one_per_scale(quantized) if name in bounds}
    for name in tqdm(reversed(factors), "ranges", len(factors), unit="range"):
        least, most = bounds[name]
        for step in sweep.steps:
            while limit.left > 0 and least <= factors[name] * step <= most:
                trial, changed = with_scaled_range(quantized, name, step)
                affected = descendants(trial, changed)
                answers, ran = known.run(trial, affected)
                limit.run(len(sweep.indices), ran)
                found = scorer.score_outputs(answers, sweep.indices).signal
                if not found - best >= LEAST_GAIN:  # also if both are infinite
                    break
                best, quantized = found, trial
                known.outdated |= affected
                factors[name] *= step
    return {name: factor for name, factor in factors.items() if factor != 1.0}


def keep_values(
    quantized: ModelProto, feeds: Sequence[Mapping[str, np.ndarray]], weights: Path | None = None
) -> KeptValues:
    """Compute the quantized values of every sample of `feeds`, which are batches of one."""
    names = [name for names in quantized_values(quantized).values() for name in names]
    both = in_order_of(quantized, [*names, *shared_values(quantized)])

    def session(wanted: Sequence[str]) -> onnxruntime.InferenceSession:
        return session_of(extract_subgraph(quantized, wanted), weights=weights)

    size = sum(array.nbytes for array in run_on(session(both), feeds[0]).values())
    run = partial(run_on, session(both if size * len(feeds) < MOST_KEPT else names))
    found = map_in_order(run, feeds, CHUNK)
    return KeptValues([{**feed, **values} for feed, values in zip(feeds, found, strict=True)], weights)


def one_per_scale(quantized: ModelProto) -> list[str]:
    """Return the activations with a range of their own, unlike the output of a MaxPool or a Flatten."""
    integers = {name: values[0] for name, values in quantized_values(quantized).items()}
    graph = QuantizedGraph(quantized)
    first: dict[str, str] = {}
    for name, value in integers.items():
        first.setdefault(graph.makers[value].input[1], name)
    return list(first.values())


def factor_bounds(model: ModelProto, ranges: Ranges, narrowest: Ranges | None = None) -> FactorBounds:
    """Return the least and the largest factor for each range.

    A range stays at least as wide as that in `narrowest`, which shape cases need. That of a Clip goes only up to its
    bounds, which only the range enforces.
    """
    tensors, factors = initializers(model), dict.fromkeys(ranges, np.inf)
    for node in model.graph.node:
        bounds = clip_bounds(node, tensors) if node.op_type == "Clip" else None
        if bounds is not None and node.output[0] in ranges:
            pairs = zip(bounds, ranges[node.output[0]], strict=True)
            factors[node.output[0]] = min((bound / end for bound, end in pairs if end), default=np.inf)
    needed = {name: zip(least, ranges[name], strict=True) for name, least in (narrowest or {}).items()}
    least = {name: max((end / now for end, now in pairs if now), default=0.0) for name, pairs in needed.items()}
    return {name: (least.get(name, 0.0), most) for name, most in factors.items()}


def with_scaled_range(quantized: ModelProto, name: str, factor: float) -> tuple[ModelProto, set[str]]:
    """Return a copy with the range of the activation `name` scaled by `factor`, and the changed initializers.

    The zero point stays the same.
    """
    result = ModelProto()
    result.CopyFrom(quantized)
    graph = QuantizedGraph(result)
    integers = set(quantized_values(result)[name])
    converts = [node for node in result.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    scales = {node.input[1] for node in converts if integers & {node.input[0], node.output[0]}}
    # A quantized bias has the scale of the products, which changes with that of the input.
    biases = {
        layer: graph.bias(layer)
        for layer, node in graph.nodes.items()
        if graph.has_quantized_bias(layer) and graph.makers[node.input[0]].input[1] in scales
    }
    for scale in scales:
        set_array(graph.tensors[scale], graph.array(scale) * np.float32(factor))
    for layer, bias in biases.items():
        graph.set_bias(layer, bias)
    return result, scales.union(*(graph.bias_tensors(layer) for layer in biases))
