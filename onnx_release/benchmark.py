"""Time contenders against each other: all processes alive, one active at a time, turns interleaved in rounds.

Interleaving is what makes the ratios hold on a machine whose speed drifts: each round gives one ratio, and the
interval resamples starts of the processes and, within them, rounds.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_release.contenders import Arrays, Contender, Loaded, Worker
from onnx_release.params import Benchmark
from onnx_release.paths import RAW, variant_model
from onnx_release.samples import SampleFile
from onnx_release.statistics import ratio_interval
from onnx_release.variants import BASE, VARIANTS

# The fewest samples at which a percentile has ten values beyond it.
P95_SAMPLES, P99_SAMPLES = 200, 1000
MAX_BATCHES = 32
PLOTTED = 20
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Measurement:
    """What one contender did: latencies in seconds, one list a round; bytes for the peak memory."""

    loaded: Loaded
    rounds: list[list[float]]
    peak_memory: int


def contenders(model: str, threads: int) -> list[Contender]:
    """PyTorch as it is, then every variant."""
    raw = RAW / model
    return [
        Contender(BASE, "torch_eager", model, raw, threads),
        *(Contender(variant, "onnx", str(variant_model(variant)), raw, threads) for variant in VARIANTS),
    ]


def real_batches(samples: SampleFile, batch: int, input_names: list[str]) -> list[Arrays]:
    """Batches of evaluation samples, inputs in the order of the spec; the first shape decides, others are left out."""
    items = [samples.inputs(index) for index in range(min(len(samples), batch * MAX_BATCHES))]
    shapes = {name: items[0][name].shape for name in input_names}
    alike = [item for item in items if all(item[name].shape == shapes[name] for name in input_names)]
    alike = (alike * batch)[: max(len(alike) // batch, 1) * batch]
    starts = range(0, len(alike), batch)
    return [{name: np.stack([item[name] for item in alike[i : i + batch]]) for name in input_names} for i in starts]


def measure(entries: list[Contender], batches: list[Arrays], params: Benchmark) -> dict[str, Measurement]:
    """Start all contenders `params.starts` times, with `params.rounds` rounds each time.

    One process of PyTorch can be half as fast again as the next one of the same code, for as long as it lives, by where
    its memory and threads came to lie: rounds within one process would not show it. Raises BenchmarkError if a
    contender fails.
    """
    random = np.random.default_rng(params.seed)
    starts = [measure_start(entries, batches, params, random) for _ in range(params.starts)]
    return {contender.name: merged([start[contender.name] for start in starts]) for contender in entries}


def merged(starts: list[Measurement]) -> Measurement:
    """All rounds one after the other, the median of the loading times, the largest memory."""
    loaded = Loaded(
        float(np.median([start.loaded.load_seconds for start in starts])),
        float(np.median([start.loaded.first_run_seconds for start in starts])),
    )
    rounds = [turn for start in starts for turn in start.rounds]
    return Measurement(loaded, rounds, max(start.peak_memory for start in starts))


def measure_start(
    entries: list[Contender], batches: list[Arrays], params: Benchmark, random: np.random.Generator
) -> dict[str, Measurement]:
    """Start every contender, run a round to warm up and `params.rounds` that count, and end them all."""
    with ExitStack() as stack:
        workers, loaded = {}, {}
        for contender in entries:  # one after the other: loading is timed as well
            worker = stack.enter_context(Worker(contender, batches))
            workers[contender.name] = worker
            loaded[contender.name] = worker.answer()
        rounds: dict[str, list[list[float]]] = {name: [] for name in workers}
        for number in range(params.rounds + 1):
            for name in random.permutation(list(workers)):
                time.sleep(params.settle_seconds)
                latencies = workers[name].ask(("turn", params.turn_seconds))
                if number > 0:
                    rounds[name].append(latencies)
        memory = {name: worker.ask(("memory",)) for name, worker in workers.items()}
    return {name: Measurement(loaded[name], rounds[name], memory[name]) for name in workers}


def metrics(measurements: dict[str, Measurement], params: Benchmark, threads: int, machine: str) -> dict[str, Any]:
    """metrics/benchmark.json: figures by contender, and how they were made."""
    base = [float(np.median(turn)) for turn in measurements[BASE].rounds]
    return {
        "batch": params.batch,
        "threads": threads,
        "starts": params.starts,
        "rounds": params.starts * params.rounds,
        "machine": machine,
        **{name: contender_metrics(item, base, params) for name, item in measurements.items()},
    }


def contender_metrics(item: Measurement, base: list[float], params: Benchmark) -> dict[str, Any]:
    latencies = np.concatenate(item.rounds) * 1e3
    own = [float(np.median(turn)) for turn in item.rounds]
    speedup, low, high = ratio_interval(base, own, params.starts, RESAMPLES, CONFIDENCE, params.seed)
    return {
        "latency_ms": {
            "median": float(np.median(latencies)),
            "mean": float(latencies.mean()),
            "std": float(latencies.std()),
            "min": float(latencies.min()),
            "max": float(latencies.max()),
            "p95": percentile(latencies, 95, P95_SAMPLES),
            "p99": percentile(latencies, 99, P99_SAMPLES),
        },
        "samples": len(latencies),
        "throughput_per_s": params.batch * 1e3 / float(latencies.mean()),
        "speedup_vs_eager": speedup,
        "speedup_low": low,
        "speedup_high": high,
        "load_ms": item.loaded.load_seconds * 1e3,
        "first_run_ms": item.loaded.first_run_seconds * 1e3,
        "peak_memory_mb": item.peak_memory / 1e6,
    }


def percentile(latencies: np.ndarray, percent: float, needed: int) -> float | None:
    """None where there are too few samples for it."""
    return float(np.percentile(latencies, percent)) if len(latencies) >= needed else None


def latency_rows(measurements: dict[str, Measurement]) -> list[dict[str, Any]]:
    """Latencies for metrics/plots/latency.csv, which is in git: of each turn about PLOTTED, evenly spaced in time."""
    return [
        {"variant": name, "round": number, "latency_ms": f"{latency * 1e3:.4f}"}
        for name, item in measurements.items()
        for number, turn in enumerate(item.rounds)
        for latency in spread(turn)
    ]


def spread(turn: list[float]) -> list[float]:
    """About PLOTTED of the latencies; from the middle of each step, since a turn's first calls are its slowest."""
    step = max(len(turn) // PLOTTED, 1)
    return turn[step // 2 :: step]
