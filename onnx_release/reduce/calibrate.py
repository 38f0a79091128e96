"""Equalize a float32 model, and find the range of every activation, in bounded memory.

Counts are integers, and every sample runs on its own on one thread: `chunk` and the number of cores change no result.
Ranges also cover the corners of the declared sizes: a text of 2 tokens has other activations than one of 64.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from onnx_release.core.errors import DataError
from onnx_release.core.files import replacing_folder, write_json
from onnx_release.core.params import Calibrate
from onnx_release.core.paths import RANGES_FILE
from onnx_release.core.plain_text import first_few
from onnx_release.core.spec import Spec
from onnx_release.core.types import Sample
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import SampleFile, check_sample
from onnx_release.graph.graph import copy_weights, external_tensors, load_model, save_checked
from onnx_release.graph.precision import check_not_quantized
from onnx_release.reduce.equalize import equalize_on
from onnx_release.reduce.fold_weights import fold_weights, name_nodes
from onnx_release.reduce.histograms import Observed
from onnx_release.reduce.metrics import CalibrateMetrics
from onnx_release.reduce.observe import Run, observe
from onnx_release.reduce.ranges import Range, clipped_count, cover_cases, include_zero, narrowest_factor
from onnx_release.reduce.runs import SAMPLES, corner_runs, sample_runs


@dataclass(frozen=True)
class RangeCounts:
    """How many activations have a range, how many never change, and the share of values outside of their range.

    `boundless` names the activations without a range, since they have infinity or NaN, as masks do. `narrowest` has the
    least factor by which the search for static INT8 may narrow a range, where shape cases need one.
    """

    tensors: int
    constant_tensors: int
    clipped_share: float
    boundless: list[str]
    narrowest: dict[str, float]


def calibrate(
    source: Path, spec: Spec, samples: SampleFile, params: Calibrate, folder: Path, data: ModelData | None = None
) -> CalibrateMetrics:
    """Write the equalized model and the ranges of its activations to `folder`, and return the metrics.

    The examples() of `data`, if it has them, fill the shape cases.

    An activation with infinity, or with NaN inside the network, has no range: its name is in the list `boundless` of
    the file, and nodes that take it must stay in float. Raises DataError if there is no sample, if a sample contradicts
    the spec, or if a sample or an output has NaN, and GraphError if the model is already quantized.
    """
    check_samples(samples, spec)
    model = load_model(source, weights=False)
    check_not_quantized(model, source)
    name_nodes(model)
    fold_weights(model, source.parent)
    equalized = equalize_on(model, samples, params.chunk, source.parent)
    ranges, found = find_ranges(equalized.model, samples, params, corner_runs(spec, samples, data), source.parent)
    with replacing_folder(folder) as partial_folder:
        if external_tensors(equalized.model):
            copy_weights(equalized.model, source.parent, partial_folder)
        save_checked(equalized.model, partial_folder)
        content = {"method": params.method, "samples": len(samples), "ranges": ranges}
        notes = {"boundless": found.boundless, "narrowest": found.narrowest}
        write_json(partial_folder / RANGES_FILE, content | notes)
    if found.boundless:
        print(f"note: without a range, since they are not finite: {first_few(found.boundless)}", file=sys.stderr)
    if equalized.failure:
        print(f"note: the model is not equalized: {equalized.failure}", file=sys.stderr)
    return CalibrateMetrics(
        method=params.method,
        samples=len(samples),
        equalized_values=equalized.values,
        equalize_failure=equalized.failure,
        tensors=found.tensors,
        constant_tensors=found.constant_tensors,
        clipped_share=found.clipped_share,
        boundless=", ".join(found.boundless),
    )


def check_samples(samples: SampleFile, spec: Spec) -> None:
    """Raise DataError if there is no sample, or one of them contradicts the spec or has NaN."""
    if not len(samples):
        raise DataError("there is no sample to calibrate with: samples(raw, 'calibration') in data.py must yield one")
    for index in range(len(samples)):
        check_sample(Sample(samples.inputs(index)), f"calibration sample {index}", spec)


def find_ranges(
    model: ModelProto,
    samples: SampleFile,
    params: Calibrate,
    corners: Sequence[Run] = (),
    weights: Path | None = None,
) -> tuple[dict[str, Range], RangeCounts]:
    """Return the range of every activation that can be quantized, by name, and counts of them.

    Every range includes 0, which quantization must represent exactly, and is not empty. It is the one that the method
    finds on the samples, widened for each part of `corners` that it would cut. `weights` is the folder of the
    files that have weights of `model`. Raises DataError for an output of the model with NaN.
    """
    bins = None if params.method == "minmax" else 4 * (params.bins // 2)
    parts = observe(model, [*sample_runs(samples), *corners], bins, params.chunk, weights)
    found = parts[SAMPLES]
    boundless = [name for name in found if any(part[name].boundless for part in parts.values())]
    cases = {name: [part[name] for part_name, part in parts.items() if part_name != SAMPLES] for name in found}
    ranges = {
        name: include_zero(*cover_cases(item, cases[name], params))
        for name, item in found.items()
        if name not in boundless
    }
    factors = {name: narrowest_factor(found[name], cases[name], limits) for name, limits in ranges.items()}
    narrowest = {name: factor for name, factor in factors.items() if factor}
    return ranges, count_ranges(found, ranges, boundless, narrowest)


def count_ranges(
    found: Mapping[str, Observed],
    ranges: Mapping[str, Range],
    boundless: list[str],
    narrowest: dict[str, float],
) -> RangeCounts:
    """Count the activations, and what the samples have outside of the ranges."""
    counts = [item.counts for name, item in found.items() if name in ranges and item.counts is not None]
    clipped = sum(clipped_count(found[name], limits) for name, limits in ranges.items())
    return RangeCounts(
        tensors=len(ranges),
        constant_tensors=sum(found[name].low == found[name].high for name in ranges),
        clipped_share=clipped / max(sum(int(each.sum()) for each in counts), 1),
        boundless=boundless,
        narrowest=narrowest,
    )
