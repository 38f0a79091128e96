"""Metrics of a small release, as the pipeline writes them, for tests of what compares them."""

import functools
import json
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, get_origin

import numpy as np
import pandas as pd

from onnx_release.core.files import rounded
from onnx_release.core.metrics import Metrics
from onnx_release.core.params import Benchmark, Validate
from onnx_release.review.revisions import Revision
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.timing.benchmark import Measurement, Run, benchmark_metrics, latency_rows
from onnx_release.timing.conditions import Conditions
from onnx_release.timing.metrics import PreparationMetrics
from onnx_release.timing.worker import Loaded
from onnx_release.validate.metrics import ValidateMetrics
from onnx_release.validate.validate import answer_metrics

CONTENDERS = {"torch_eager": 10.0, "torch_compile": 6.0, "fp32": 2.0, "int8_static": 1.0}
STARTS, ROUNDS, CALLS = 3, 5, 20
DISTURBED = 100.0
BENCHMARK = Benchmark(
    batches=[1], threads=[2], starts=STARTS, rounds=ROUNDS, turn_seconds=0.1, settle_seconds=0, timeout_seconds=60,
    seed=0, replicate=0,
)  # fmt: skip
VALIDATE = Validate(resamples=200, confidence=0.95, seed=0)
SAMPLES, GROUPS = 200, 40
MODEL = "digits_cnn"
LOCK = f"pipelines/{MODEL}/dvc.lock"
LOCKED = b"""stages:
  benchmark:
    deps:
    - {path: models/digits_cnn, md5: a}
    - {path: data/raw/digits_cnn, md5: b}
    - {path: data/prepared/digits_cnn/evaluation.npz, md5: c}
    - {path: requirements.txt, md5: d}
    - {path: artifacts/hardware.json, md5: e}
    - {path: onnx_release, md5: f}
"""
# A program that times PyTorch, and a module that is no part of it.
SOURCES = {
    "onnx_release/timing/benchmark.py": b"from onnx_release.timing.worker import ContenderProcess\n",
    "onnx_release/timing/worker.py": b"class ContenderProcess: ...\n",
    "onnx_release/report/results.py": b"",
}


def release(seed: int = 0, wrong: Mapping[str, int] | None = None, **options: Any) -> dict[str, bytes]:
    """All files of a release; `wrong` says how many samples a variant gets wrong, `options` are for `timings`."""
    return {
        LOCK: LOCKED,
        **SOURCES,
        "metrics/digits_cnn/export.json": as_json({"opset": 18, "exporter": "dynamo", "nodes": 40, "size_mb": 0.25}),
        "metrics/digits_cnn/quantize_static.json": whole(QuantizeStaticMetrics, size_mb=0.08, budget_met=True),
        "metrics/digits_cnn/summary.json": as_json({"variant": "int8_static", "size_mb": 0.08}),
        **timings(seed, **options),
        **answers("fp32", (wrong or {}).get("fp32", 0)),
        **answers("int8_static", (wrong or {}).get("int8_static", 0)),
    }


def revision(files: Mapping[str, bytes], name: str = "a revision") -> Revision:
    sources = {path: content for path, content in files.items() if path.endswith(".py")}
    return Revision(name, {path: content for path, content in files.items() if path not in sources}, sources, MODEL)


def changed(files: Mapping[str, bytes], path: str, **values: Any) -> dict[str, bytes]:
    """The files with some values of one JSON file replaced; `...` for a value takes it away."""
    content = json.loads(files[path]) | values
    return {**files, path: as_json({key: value for key, value in content.items() if value is not ...})}


def unmeasured(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files as if other work had taken cores in nearly all rounds."""
    files = changed(files, "metrics/digits_cnn/benchmark.json", disturbed_rounds=STARTS * ROUNDS - 1)
    nulls = dict.fromkeys(("speedup_vs_eager", "speedup_vs_compile"))
    return changed(files, "metrics/digits_cnn/summary.json", not_measured="other work took cores", **nulls)


@functools.cache
def timings(
    seed: int, noise: float = 0.03, speed: float = 1.0, disturbed: Collection[str] = (), **milliseconds: float
) -> dict[str, bytes]:
    """benchmark.json and plots/latency.csv of a run of the harness.

    The machine is `speed` times as fast. The run, each contender in it, each start and each round have a speed of their
    own, with `noise` as the standard deviation of its logarithm. `milliseconds` replace those of CONTENDERS. Of those
    that were `disturbed`, about every second round took DISTURBED times as long.
    """
    random = np.random.default_rng(seed)
    machine = random.normal(-np.log(speed), noise)
    run = Run({}, wall_seconds=30.0)
    for name, latency in (CONTENDERS | milliseconds).items():
        own = random.normal(machine, noise / 3)
        starts = np.repeat(random.normal(own, noise, STARTS), ROUNDS)
        rounds_of_own = random.normal(starts, noise)
        if name in disturbed:
            rounds_of_own += random.choice([0.0, np.log(DISTURBED)], STARTS * ROUNDS)
        calls = random.normal(rounds_of_own[:, np.newaxis], noise, (STARTS * ROUNDS, CALLS))
        rounds = (latency / 1e3 * np.exp(calls)).tolist()
        loads = 0.05 * np.exp(random.normal(machine, noise, STARTS))
        loaded = [Loaded(float(seconds), 0.1, "CPUExecutionProvider") for seconds in loads]
        run.measurements[name] = Measurement(loaded, rounds, peak_memory=200_000_000)
    conditions = Conditions("a machine", "CPUExecutionProvider", "", "none")
    nothing = PreparationMetrics(decode_ms=None, preprocess_ms=None, raw_items=0)
    found = benchmark_metrics({(1, 2): run}, BENCHMARK, conditions, nothing)
    return {
        "metrics/digits_cnn/benchmark.json": as_json(found.content()),
        "metrics/digits_cnn/plots/latency.csv": pd.DataFrame(latency_rows(run)).to_csv(index=False).encode(),
    }


def answers(variant: str, wrong: int) -> dict[str, bytes]:
    """A variant's validation: PyTorch is right on all samples, the variant wrong on the first `wrong` of them."""
    rows: list[dict[str, Any]] = [
        {
            "sample": number,
            "group": f"photograph_{number % GROUPS}",
            "agrees": int(number >= wrong),
            "torch_right": 1,
            "variant_right": int(number >= wrong),
        }
        for number in range(SAMPLES)
    ]
    return {
        f"metrics/digits_cnn/validate/{variant}.json": whole(
            ValidateMetrics, passed=True, sqnr_db=30.0, **answer_metrics("classification", rows, VALIDATE)
        ),
        f"metrics/digits_cnn/plots/validate/{variant}.csv": pd.DataFrame(rows).to_csv(index=False).encode(),
    }


def whole(file: type[Metrics], **values: Any) -> bytes:
    """A whole metrics file: what `values` do not give is null, or empty where it may not be null."""
    required = {name: field.annotation for name, field in file.model_fields.items() if field.is_required()}
    empty = {name: kind() if isinstance(kind, type) else None for name, kind in required.items()}
    empty |= {name: {} for name, kind in required.items() if get_origin(kind) is dict}
    return as_json(file.model_validate({**empty, **values}).content())


def as_json(content: Any) -> bytes:
    return json.dumps(rounded(content)).encode()


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def git(folder: Path, *arguments: str | Path, check: bool = True) -> str:
    """What a git command prints, run in the folder as the user `test`."""
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "-c", "init.defaultBranch=main"]
    result = subprocess.run([*command, *arguments], cwd=folder, capture_output=True, text=True, check=check)
    return result.stdout.strip()


def commit(folder: Path, message: str = "test") -> str:
    """Commit all that is in the folder; the commit."""
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", message)
    return git(folder, "rev-parse", "HEAD")
