"""Compare calibration with ONNX Runtime's own: speed, ranges, and memory by the number of samples.

    python -m benchmarks.calibration [--model NAME]

runs the pipeline's calibration and onnxruntime's HistogramCalibrater for percentiles, with the same bins, on the same
model and samples, one after the other; then the pipeline's on 100 and on 2,000 samples, in a process each. Writes
benchmarks/calibration.json: seconds of both and their ratio, in all and only for counting the same values, each on as
many cores as it uses; how many ends of ranges that both have differ by more than the wider bin of the two; peak
resident memory in MB. Needs a finished `make repro MODEL=NAME`. Takes about four minutes on 2 cores with mobilenet_v2,
of which the page has the numbers.
"""

import argparse
import json
import logging
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import CalibrationDataReader, HistogramCollector, PercentileCalibrater

from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.params import Calibrate, load_params
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.workers import map_in_order
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, write_samples
from onnx_release.graph.activations import extract_subgraph, session_of
from onnx_release.reduce.calibrate import find_ranges
from onnx_release.reduce.histograms import Observed, observe_values
from onnx_release.reduce.observe import observe, values_to_observe
from onnx_release.reduce.ranges import Range
from onnx_release.reduce.runs import SAMPLES, sample_runs
from onnx_release.timing.worker import peak_memory_bytes
from tools.models import add_model_option, chosen_model

RESULT = Path("benchmarks/calibration.json")
# onnxruntime keeps the activations of a chunk in memory.
CHUNK = 8
COUNTS = (100, 2000)


def main(arguments: argparse.Namespace) -> None:
    files = chosen_model(arguments.model)
    configured = load_params(files).calibrate
    settings = configured.model_copy(update={"method": "percentile"})
    model, samples = files.variant("calibration"), SampleFile(files.calibration_samples)
    # Measured first, since a new process counts the memory that its parent has then as its own.
    memory = {count: memory_mb(files, configured, count) for count in COUNTS}
    start = time.perf_counter()
    ours, _ = find_ranges(onnx.load(model), samples, settings)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    theirs = onnxruntime_ranges(model, samples, settings)
    their_seconds = time.perf_counter() - start
    collecting, their_collecting = histogram_seconds(onnx.load(model), samples, settings)
    result = {
        "model": files.model,
        "machine": machine_name(read_json(HARDWARE)),
        "samples": len(samples),
        "seconds": seconds,
        "onnxruntime_seconds": their_seconds,
        "speedup": their_seconds / seconds,
        "histogram_speedup": their_collecting / collecting,
        "ranges": len(ours),
        "onnxruntime_ranges": len(theirs),
        "beyond_one_bin": beyond_one_bin(
            ours,
            theirs,
            observe(onnx.load(model), sample_runs(samples), 4 * (settings.bins // 2), settings.chunk)[SAMPLES],
        ),
        **{f"memory_mb_{count}": value for count, value in memory.items()},
        "memory_ratio": memory[COUNTS[1]] / memory[COUNTS[0]],
    }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, samples: SampleFile, indices: range) -> None:
        self.feeds = iter([samples.batch(index) for index in indices])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.feeds, None)


def onnxruntime_ranges(model: Path, samples: SampleFile, settings: Calibrate) -> dict[str, tuple[float, float, float]]:
    """Return the ends of every range and the width of its bins, from onnxruntime's calibrater."""
    with tempfile.TemporaryDirectory() as folder:
        calibrater = PercentileCalibrater(
            str(model),
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            num_bins=settings.bins,
            percentile=settings.percentile,
        )
        logging.getLogger().setLevel(logging.ERROR)
        calibrater.augment_graph()
        calibrater.create_inference_session()
        for first in range(0, len(samples), CHUNK):
            calibrater.collect_data(Reader(samples, range(first, min(first + CHUNK, len(samples)))))
        found = calibrater.compute_data()
    edges = {name: entry[1] for name, entry in calibrater.collector.histogram_dict.items()}
    return {
        name: (float(data.lowest), float(data.highest), float(edges[name][1] - edges[name][0]))
        for name, data in found.items()
    }


def beyond_one_bin(
    ours: dict[str, Range], theirs: dict[str, tuple[float, float, float]], observed: Mapping[str, Observed]
) -> int:
    """Count the ends that differ by more than the wider bin, after onnxruntime's ranges are extended to contain 0."""
    count = 0
    for name, limits in ours.items():
        low, high, width = theirs[name]
        bin_width = max(width, observed[name].edges[1] - observed[name].edges[0])
        for one, other in zip(limits, (min(low, 0.0), max(high, 0.0)), strict=True):
            count += abs(one - other) > bin_width * 1.001
    return int(count)


def histogram_seconds(model: onnx.ModelProto, samples: SampleFile, settings: Calibrate) -> tuple[float, float]:
    """Return the seconds to count the activations of eight samples, here on every core, and by onnxruntime on one."""
    names = values_to_observe(model)
    session = session_of(extract_subgraph(model, names))
    found = [dict(zip(names, session.run(None, samples.batch(i)), strict=True)) for i in range(8)]
    start = time.perf_counter()
    for _ in map_in_order(
        lambda values: [observe_values(array, 2 * settings.bins) for array in values.values()], found, 8
    ):
        pass
    middle = time.perf_counter()
    collector = HistogramCollector("percentile", False, settings.bins, 128, settings.percentile, "same")
    for values in found:
        collector.collect({name: [array] for name, array in values.items()})
    return middle - start, time.perf_counter() - middle


def memory_mb(files: ModelFiles, settings: Calibrate, count: int) -> float:
    """Return the peak resident memory, in MB, of a process that calibrates on `count` samples."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.npz"
        every = load_data(files.model).samples(files.raw, "calibration")
        write_samples(path, every, count, load_spec(files.model))
        context = multiprocessing.get_context("spawn")
        with context.Pool(1, signal.signal, (signal.SIGINT, signal.SIG_DFL)) as pool:
            return pool.apply(calibrate_alone, (files.variant("calibration"), path, settings))


def calibrate_alone(model: Path, samples: Path, settings: Calibrate) -> float:
    found: Any = find_ranges(onnx.load(model), SampleFile(samples), settings)
    assert found[0]
    return peak_memory_bytes() / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    run_tool(main, parser)
