"""The harness: who is measured how often, and what is made of it. No test looks at a real timing."""

import subprocess
import sys

import numpy as np
import pytest
from onnx import helper

from onnx_release.benchmark import (
    Measurement,
    contender_metrics,
    contenders,
    latency_rows,
    measure,
    merged,
    metrics,
    real_batches,
)
from onnx_release.contenders import Contender, Loaded
from onnx_release.errors import BenchmarkError
from onnx_release.params import Benchmark
from onnx_release.samples import SampleFile, write_samples
from onnx_release.spec import Spec
from onnx_release.types import Sample
from onnx_release.variants import BASE, VARIANTS
from tests.imports import ROOT

PARAMS = Benchmark(batch=2, threads=1, starts=1, rounds=5, turn_seconds=0.001, settle_seconds=0.0, seed=0, replicate=0)
BATCHES = [{"x": np.ones((2, 3), np.float32)}, {"x": np.zeros((2, 3), np.float32)}]


def onnx_contender(save_graph, tmp_path, name):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = save_graph(nodes, [("x", ["batch", 3])], [("y", ["batch", 3])], name=f"{name}.onnx")
    return Contender(name, "onnx", str(path), tmp_path, threads=1)


def test_every_contender_has_a_turn_in_each_round(save_graph, tmp_path):
    entries = [onnx_contender(save_graph, tmp_path, name) for name in ("a", "b")]
    results = measure(entries, BATCHES, PARAMS)
    assert list(results) == ["a", "b"]
    for result in results.values():
        assert len(result.rounds) == PARAMS.rounds
        assert all(latency > 0 for turn in result.rounds for latency in turn)
        assert all(turn for turn in result.rounds)
        assert result.loaded.load_seconds > 0
        assert result.peak_memory > 10e6  # a Python process with numpy is more


def test_every_start_is_a_process_of_its_own_with_all_its_rounds(save_graph, tmp_path):
    entries = [onnx_contender(save_graph, tmp_path, "a")]
    twice = measure(entries, BATCHES, PARAMS.model_copy(update={"starts": 2}))
    assert len(twice["a"].rounds) == 2 * PARAMS.rounds


def test_starts_are_put_together():
    parts = [Measurement(Loaded(load, load / 10), [[load]], int(load)) for load in (1.0, 2.0, 9.0)]
    assert merged(parts) == Measurement(Loaded(2.0, 0.2), [[1.0], [2.0], [9.0]], 9)


def test_a_contender_that_cannot_be_loaded_is_named(tmp_path):
    missing = Contender("fp32", "onnx", str(tmp_path / "gone.onnx"), tmp_path, threads=1)
    with pytest.raises(BenchmarkError, match=r"fp32 cannot be measured: .*gone\.onnx"):
        measure([missing], BATCHES, PARAMS)


def test_a_contender_that_fails_on_the_input_is_named(save_graph, tmp_path):
    wrong = [{"x": np.ones((2, 4), np.float32)}]
    with pytest.raises(BenchmarkError, match=r"a cannot be measured: .*x \[2, 4\]"):
        measure([onnx_contender(save_graph, tmp_path, "a")], wrong, PARAMS)


def test_a_contender_that_dies_is_named(save_graph, tmp_path):
    # An array whose unpickling in the worker ends the process, as a crash in native code would.
    class Deadly:
        def __reduce__(self):
            return sys.exit, (7,)

    with pytest.raises(BenchmarkError, match="a died with exit code"):
        measure([onnx_contender(save_graph, tmp_path, "a")], [{"x": Deadly()}], PARAMS)  # type: ignore[dict-item]


def test_an_onnx_worker_imports_no_torch():
    code = "import sys, onnx_release.contenders, onnx_release.session; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_figures_by_hand():
    item = Measurement(Loaded(0.5, 0.01), [[0.001, 0.003], [0.002, 0.002], [0.004, 0.006]], 250_000_000)
    figures = contender_metrics(item, base=[0.004, 0.006, 0.015], params=PARAMS)
    assert figures["latency_ms"]["median"] == pytest.approx(2.5)
    assert figures["latency_ms"]["mean"] == pytest.approx(3.0)
    assert figures["latency_ms"]["std"] == pytest.approx(np.sqrt((4 + 0 + 1 + 1 + 1 + 9) / 6))
    assert figures["latency_ms"]["min"] == pytest.approx(1.0)
    assert figures["latency_ms"]["max"] == pytest.approx(6.0)
    assert figures["latency_ms"]["p95"] is None
    assert figures["latency_ms"]["p99"] is None
    assert figures["samples"] == 6
    assert figures["throughput_per_s"] == pytest.approx(2 / 0.003)  # two items a call
    # Rounds give 4 / 2, 6 / 2 and 15 / 5.
    assert figures["speedup_vs_eager"] == pytest.approx(3.0)
    assert figures["speedup_low"] == pytest.approx(2.0)
    assert figures["speedup_high"] == pytest.approx(3.0)
    assert figures["load_ms"] == pytest.approx(500)
    assert figures["first_run_ms"] == pytest.approx(10)
    assert figures["peak_memory_mb"] == pytest.approx(250)


def test_a_high_percentile_needs_enough_samples():
    turn = (np.arange(1000) / 1e3).tolist()
    figures = contender_metrics(Measurement(Loaded(1, 1), [turn], 1), [1.0], PARAMS)["latency_ms"]
    assert figures["p95"] == pytest.approx(949.05)
    assert figures["p99"] == pytest.approx(989.01)
    fewer = contender_metrics(Measurement(Loaded(1, 1), [turn[:999]], 1), [1.0], PARAMS)["latency_ms"]
    assert fewer["p95"] is not None
    assert fewer["p99"] is None


def test_metrics_say_how_they_were_made():
    item = Measurement(Loaded(1, 1), [[0.001]] * 5, 1)
    found = metrics({BASE: item, "fp32": item}, PARAMS, threads=2, machine="a machine")
    assert (found["batch"], found["threads"], found["starts"], found["rounds"]) == (2, 2, 1, 5)
    assert found["machine"] == "a machine"
    assert found["fp32"]["speedup_vs_eager"] == 1.0


def test_pytorch_and_every_variant_compete():
    names = [entry.name for entry in contenders("net", threads=2)]
    assert names == ["torch_eager", *VARIANTS]


def spec():
    return Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "dimensions": {"batch": {"min": 1, "max": 8, "example": 2}, "width": {"min": 1, "max": 4, "example": 2}},
            "inputs": [{"name": name, "dtype": "int64", "shape": ["batch", "width"]} for name in ("ids", "mask")],
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch"]}],
        }
    )


def samples(tmp_path, widths):
    items = [
        Sample({name: np.full(width, index, np.int64) for name in ("mask", "ids")})
        for index, width in enumerate(widths)
    ]
    write_samples(tmp_path / "a.npz", items, 100, spec())
    return SampleFile(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("widths", "batch", "found"),
    [
        ([2, 2, 2], 1, [[0], [1], [2]]),
        ([2, 2, 2, 2, 2], 2, [[0, 1], [2, 3]]),  # what does not fill a batch is left out
        ([2, 3, 2, 2], 1, [[0], [2], [3]]),  # as is another shape than the first one's
        ([2, 2], 4, [[0, 1, 0, 1]]),  # too few are repeated
    ],
)
def test_batches_are_real_samples(tmp_path, widths, batch, found):
    batches = real_batches(samples(tmp_path, widths), batch, ["ids", "mask"])
    assert [entry["ids"][:, 0].tolist() for entry in batches] == found
    assert all(list(entry) == ["ids", "mask"] for entry in batches)  # in the order of the spec


def test_plotted_latencies_are_spread_over_the_turn():
    turn = [index / 1e3 for index in range(100)]
    rows = latency_rows({"fp32": Measurement(Loaded(1, 1), [turn, [0.5]], 1)})
    assert [row["latency_ms"] for row in rows] == [*(f"{value:.4f}" for value in range(2, 100, 5)), "500.0000"]
    assert rows[-1] == {"variant": "fp32", "round": 1, "latency_ms": "500.0000"}
