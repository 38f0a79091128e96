"""A small network with what quantization meets: a first Conv, ReLU6, depthwise, a linear bottleneck, an Add, a Gemm.

Its input has one channel that is much larger than the others, and its bottleneck one that is much smaller.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from onnx_release.core.files import read_json
from onnx_release.core.params import Calibrate
from onnx_release.core.spec import Spec
from onnx_release.core.types import softmax_prediction
from onnx_release.data.samples import SampleFile
from onnx_release.reduce.calibrate import calibrate
from onnx_release.static_quantization.operators import Ranges
from onnx_release.static_quantization.scoring import Scorer
from tests.samples import save_samples

SHAPE = (3, 8, 8)
CLASSES = 5


class Data:
    """A model's data.py for classes."""

    def samples(self, raw, split):
        yield from ()

    def preprocess(self, item):
        return {"x": item}

    def postprocess(self, outputs):
        return softmax_prediction(outputs["y"], top=CLASSES)


def save_network(save_graph: Callable[..., Path], name: str = "model.onnx") -> Path:
    random = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return random.normal(size=shape, scale=1 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    project, inner = weight(4, 8, 1, 1), weight(4, 4, 1, 1)
    project[0] *= 0.01
    inner[0] *= 0.01
    weights = {
        "low": np.array(0.0, np.float32),
        "high": np.array(6.0, np.float32),
        "axes": np.array([2, 3]),
        **{"w1": weight(8, 3, 3, 3), "w2": weight(8, 1, 3, 3), "w3": project, "w4": inner},
        **{"w5": weight(8, 4, 1, 1), "w6": weight(8, CLASSES)},
        **{f"b{i}": random.normal(size=n, scale=0.3).astype(np.float32) for i, n in enumerate((8, 8, 4, 4, 8, 5), 1)},
    }
    for bias in ("b3", "b4"):
        weights[bias][0] *= 0.01
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c1", "low", "high"], ["r1"], name="clip1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c2", "low", "high"], ["r2"], name="clip2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], name="project"),
        helper.make_node("Conv", ["c3", "w4", "b4"], ["c4"], name="inner"),
        helper.make_node("Add", ["c3", "c4"], ["a"], name="add"),
        helper.make_node("Conv", ["a", "w5", "b5"], ["c5"], name="expand"),
        helper.make_node("Relu", ["c5"], ["r5"], name="relu"),
        helper.make_node("ReduceMean", ["r5", "axes"], ["m"], name="mean", keepdims=0),
        helper.make_node("Gemm", ["m", "w6", "b6"], ["y"], name="classify"),
    ]
    return save_graph(nodes, [("x", ["batch", *SHAPE])], [("y", ["batch", CLASSES])], weights, name)


def save_inputs(tmp_path: Path, count: int = 24, seed: int = 0) -> SampleFile:
    random = np.random.default_rng(seed)
    channels = np.array([5, 1, 1], np.float32).reshape(3, 1, 1)
    arrays = [(random.normal(size=SHAPE) * channels).astype(np.float32) for _ in range(count)]
    return save_samples(tmp_path / f"samples{seed}.npz", arrays)


SPEC = Spec.model_validate(
    {
        "task": "classification",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", *SHAPE]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", CLASSES]}],
    }
)
# Without counts, which such a small network can do without.
CALIBRATE = Calibrate(method="minmax", percentile=99.99, bins=2048, chunk=8)

# The calibrated network, its ranges, samples, and a scorer.
Case = tuple[onnx.ModelProto, Ranges, SampleFile, Scorer]


def calibrated(save_graph: Callable[..., Path], tmp_path: Path) -> Case:
    """Leaves the folder that `calibrate` writes in `tmp_path`/calibration."""
    source, samples, folder = save_network(save_graph), save_inputs(tmp_path), tmp_path / "calibration"
    calibrate(source, SPEC, samples, CALIBRATE, folder)
    ranges = read_json(folder / "ranges.json")["ranges"]
    return onnx.load(folder / "model.onnx"), ranges, samples, Scorer(source, SPEC, Data(), samples)
