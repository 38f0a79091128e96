"""Equalize a float32 model, and find the range of every activation in one pass over the samples, in bounded memory.

Counts are integers, and every sample runs on its own on one thread: `chunk` and the number of cores change no result.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto
from tqdm import tqdm

from onnx_release.core.errors import DataError
from onnx_release.core.files import replacing_folder, write_json
from onnx_release.core.params import Calibrate
from onnx_release.core.paths import RANGES_FILE
from onnx_release.core.spec import Spec
from onnx_release.core.types import Sample
from onnx_release.core.workers import map_in_order
from onnx_release.data.samples import SampleFile, check_sample
from onnx_release.graph.activations import extract_subgraph, float_values, session_of
from onnx_release.graph.graph import load_model, save_checked
from onnx_release.graph.precision import check_not_quantized
from onnx_release.reduce.equalize import equalize_on
from onnx_release.reduce.histograms import Observed, observe_values
from onnx_release.reduce.metrics import CalibrateMetrics
from onnx_release.runtime.session import run_session

Range = tuple[float, float]
ENTROPY_LEVELS = 128  # of TensorRT's method: https://on-demand.gputechconf.com/gtc/2017/presentation/s7310
ENTROPY_SMOOTHING = 1e-4  # the count of an empty bin, so that the divergence is finite
MSE_STEPS = 100  # shares of the full range that the method tries for each end
QUANTIZED_STEPS = 255  # between the least and the greatest 8-bit value


@dataclass(frozen=True)
class RangeCounts:
    """How many activations have a range, how many never change, and the share of values outside of their range."""

    tensors: int
    constant_tensors: int
    clipped_share: float


def calibrate(source: Path, spec: Spec, samples: SampleFile, params: Calibrate, folder: Path) -> CalibrateMetrics:
    """Write the equalized model and the ranges of its activations to `folder`, and return the metrics.

    Raises DataError if there is no sample, if a sample contradicts the spec, or if a sample or an activation is not
    finite, and GraphError if the model is already quantized.
    """
    check_samples(samples, spec)
    model = load_model(source)
    check_not_quantized(model, source)
    equalized, values = equalize_on(model, samples, params.chunk)
    ranges, found = find_ranges(equalized, samples, params)
    with replacing_folder(folder) as partial:
        save_checked(equalized, partial)
        write_json(partial / RANGES_FILE, {"method": params.method, "samples": len(samples), "ranges": ranges})
    return CalibrateMetrics(method=params.method, samples=len(samples), equalized_values=values, **asdict(found))


def check_samples(samples: SampleFile, spec: Spec) -> None:
    """Raise DataError if there is no sample, or one of them contradicts the spec or is not finite."""
    if not len(samples):
        raise DataError("there is no sample to calibrate with: samples(raw, 'calibration') in data.py must yield one")
    for index in range(len(samples)):
        check_sample(Sample(samples.inputs(index)), f"calibration sample {index}", spec)


def find_ranges(model: ModelProto, samples: SampleFile, params: Calibrate) -> tuple[dict[str, Range], RangeCounts]:
    """Return the range of every activation that can be quantized, by name, and counts of them.

    Every range includes 0, which quantization must represent exactly, and is not empty. Raises DataError for an
    activation that is not finite.
    """
    observed = observe(model, samples, params)
    ranges = {name: include_zero(*choose_range(item, params)) for name, item in observed.items()}
    counted = [item for item in observed.values() if item.counts is not None]
    clipped = sum(clipped_count(item, ranges[name]) for name, item in observed.items())
    return ranges, RangeCounts(
        tensors=len(ranges),
        constant_tensors=sum(item.low == item.high for item in observed.values()),
        clipped_share=clipped / max(sum(int(item.counts.sum()) for item in counted if item.counts is not None), 1),
    )


def observe(model: ModelProto, samples: SampleFile, params: Calibrate) -> dict[str, Observed]:
    """Return the extremes of every activation over all samples and, unless the method is minmax, its histogram.

    A histogram has twice params.bins bins, since it reaches up to twice as far as the values. Raises DataError with the
    first activation that has NaN or infinity.
    """
    names = values_to_observe(model)
    session = session_of(extract_subgraph(model, names))
    bins = None if params.method == "minmax" else 4 * (params.bins // 2)

    def run(index: int) -> dict[str, Observed]:
        found = {}
        for name, array in run_session(session, samples.batch(index)).items():
            try:
                found[name] = observe_values(array, bins)
            except ValueError as cause:
                raise DataError(f"calibration sample {index} gives NaN or infinity in {name}, in float32") from cause
        return found

    observed: dict[str, Observed] = {}
    for found in tqdm(map_in_order(run, range(len(samples)), params.chunk), "ranges", len(samples), unit="sample"):
        for name, item in found.items():
            observed[name] = observed[name].merge(item) if name in observed else item
    return observed


def values_to_observe(model: ModelProto) -> list[str]:
    """Return the float values of the graph, without those that only go into a Clip or Relu.

    No target quantizes a value before a Clip or Relu; its output has the range.
    """
    takers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            takers.setdefault(name, []).append(node.op_type)
    made = {name for node in model.graph.node for name in node.output} - {value.name for value in model.graph.output}
    inner = {name for name in made if len(takers.get(name, [])) == 1 and takers[name][0] in ("Clip", "Relu")}
    return [name for name in float_values(model) if name not in inner]


def choose_range(observed: Observed, params: Calibrate) -> Range:
    """Choose the range by the method of `params`, within the extremes."""
    low, high, counts, edges = observed.low, observed.high, observed.counts, observed.edges
    if counts is None or low == high:
        return low, high
    if params.method == "percentile":
        found = percentile_range(counts, edges, params.percentile)
    elif params.method == "entropy":
        found = entropy_range(counts, edges)
    else:
        found = mse_range(counts, edges, (low, high))
    return max(low, found[0]), min(high, found[1])


def percentile_range(counts: np.ndarray, edges: np.ndarray, percentile: float) -> Range:
    """Leave out half of the 100 - `percentile` per cent of the values at each end, as ONNX Runtime does."""
    if percentile == 100:
        return float(edges[0]), float(edges[-1])
    shares = np.cumsum(counts) / counts.sum()
    tail = (100 - percentile) / 200
    left, right = np.searchsorted(shares, [tail, 1 - tail])
    if edges[right] <= 0:
        right += 1  # all but the tail is in the bin above 0
    return float(edges[left]), float(edges[right])


def entropy_range(counts: np.ndarray, edges: np.ndarray) -> Range:
    """Return the window around 0 whose ENTROPY_LEVELS levels lose the least information, by Kullback and Leibler.

    P is the histogram in the window, with the counts outside added to its ends. Q is the same histogram reduced to
    ENTROPY_LEVELS levels and spread over the bins that are not empty. Source: Migacz, 8-bit inference with TensorRT,
    GTC 2017.
    """
    middle = len(counts) // 2
    outside = np.concatenate([[0], np.cumsum(counts)])
    best, half_window = np.inf, middle
    for half in range(ENTROPY_LEVELS // 2, middle + 1):
        start, stop = middle - half, min(middle + half + 1, len(counts))
        window = counts[start:stop]
        expected = window.astype(np.float64)
        expected[0] += outside[start]
        expected[-1] += outside[-1] - outside[stop]
        divergence = kullback_leibler(expected, spread_levels(window, expected > 0))
        if divergence < best:
            best, half_window = divergence, half
    return float(edges[middle - half_window]), float(edges[min(middle + half_window + 1, len(counts))])


def spread_levels(window: np.ndarray, filled: np.ndarray) -> np.ndarray:
    """Merge the counts of `window` into ENTROPY_LEVELS levels, and spread each over its filled bins; float64.

    The bins left over by the division count for the last level, as in ONNX Runtime.
    """
    width = len(window) // ENTROPY_LEVELS
    used = width * ENTROPY_LEVELS
    levels = window[:used].reshape(ENTROPY_LEVELS, width).sum(axis=1)
    levels[-1] += window[used:].sum()
    shared = filled[:used].reshape(ENTROPY_LEVELS, width).sum(axis=1)
    each = np.divide(levels, shared, out=np.zeros(ENTROPY_LEVELS), where=shared > 0)
    spread = np.zeros(len(window))
    spread[:used] = np.repeat(each, width)
    return spread


def kullback_leibler(p: np.ndarray, q: np.ndarray) -> float:
    """Return sum p log(p / q) of two histograms, smoothed and scaled to the sum 1; infinite if one of them is empty."""
    if not p.any() or not q.any():
        return np.inf
    p, q = smoothed(p), smoothed(q)
    p, q = p / p.sum(), q / q.sum()
    return float((p * np.log(p / q)).sum())


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Give empty bins ENTROPY_SMOOTHING, taken from the others in equal parts."""
    empty = counts == 0
    taken = ENTROPY_SMOOTHING * empty.sum() / (~empty).sum()
    return np.where(empty, ENTROPY_SMOOTHING, counts - taken)


def mse_range(counts: np.ndarray, edges: np.ndarray, extreme: Range) -> Range:
    """Return the ends within `extreme` with the least mean squared error in 8 bits, searching one end after the other.

    The squared error of a value in the range is step^2 / 12 on average, and outside the square of its distance.
    """
    centres = (edges[:-1] + edges[1:]) / 2
    shares = np.arange(MSE_STEPS, 0, -1) / MSE_STEPS
    low, high = min(extreme[0], 0.0), max(extreme[1], 0.0)

    def error(low: float, high: float) -> float:
        distance = np.maximum(np.maximum(low - centres, centres - high), 0)
        inside = counts[distance == 0].sum()
        return float((counts * distance**2).sum() + inside * ((high - low) / QUANTIZED_STEPS) ** 2 / 12)

    for _ in range(2):  # in the second round each end knows the other
        high = float(min((high * share for share in shares), key=lambda end: error(low, end)))
        low = float(min((low * share for share in shares), key=lambda end: error(end, high)))
    return low, high


def include_zero(low: float, high: float) -> Range:
    """Return the range with 0 in it, and not empty, since even a constant 0 needs a scale."""
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if low < high else (0.0, 1.0)


def clipped_count(observed: Observed, chosen: Range) -> int:
    """Return how many values are in bins that are entirely outside of the chosen range."""
    if observed.counts is None:
        return 0
    edges = observed.edges
    return int(observed.counts[(edges[1:] <= chosen[0]) | (edges[:-1] >= chosen[1])].sum())
