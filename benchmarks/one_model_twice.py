"""Check that the harness finds no difference between two equal models: one model under two names, twenty times.

    python -m benchmarks.one_model_twice

prints in how many of the runs the interval of the speed-up contains 1, and fails if there are fewer than 18. From 95 %
intervals, 19 are expected. The model is a small convolution on random numbers. It takes about three minutes on 2 idle
cores.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_release.core.command import run_tool
from onnx_release.core.params import Benchmark, Runtime
from onnx_release.core.spec import Spec
from onnx_release.timing.benchmark import measure, paired_speedup
from onnx_release.timing.contenders import Contender
from onnx_release.timing.speedup import no_difference

RUNS, LEAST = 20, 18
PARAMS = Benchmark(
    batches=[1], threads=[1], starts=3, rounds=5, turn_seconds=0.01, settle_seconds=0.002, timeout_seconds=60, seed=0,
    replicate=0,
)  # fmt: skip
SIZE = (3, 96, 96)
SPEC = Spec.model_validate(
    {
        "task": "tensor",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", *SIZE]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 16, 1, 1]}],
    }
)


def main(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        same = sum(is_same(Path(folder), seed) for seed in range(RUNS))
    print(f"no difference in {same} of {RUNS} runs")
    if same < LEAST:
        sys.exit(f"error: at least {LEAST} are expected")


def is_same(folder: Path, seed: int) -> bool:
    """Time the model under two names, and return whether that shows no difference."""
    path = save_model(folder / "model.onnx")
    runtime = Runtime(provider="cpu", intra_threads=1)
    pair = [Contender(name, "onnx", str(path), folder, SPEC, runtime) for name in ("a", "b")]
    batches = [{"x": np.random.default_rng(1).standard_normal((1, *SIZE), np.float32)}]
    params = PARAMS.model_copy(update={"seed": seed})
    found = measure(pair, batches, params).measurements
    speedup = paired_speedup(found["a"], found["b"], params)
    return speedup is not None and no_difference(speedup[1], speedup[2])


def save_model(path: Path) -> Path:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["h"], ["y"]),
    ]
    weights = np.random.default_rng(0).standard_normal((16, 3, 3, 3), np.float32)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SIZE])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16, 1, 1])]
    graph = helper.make_graph(nodes, "one", inputs, outputs, [numpy_helper.from_array(weights, "w")])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
