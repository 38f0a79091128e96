"""What the real validate() writes of a small network of each task, for tests of what reads it."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnx_release.core.params import Runtime, Validate
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec, Task
from onnx_release.core.types import Answer, Detections, Embedding, Sample, softmax_prediction
from onnx_release.data.samples import write_samples
from onnx_release.network.reference import write_reference
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.validate.validate import validate

TASKS: tuple[Task, ...] = ("classification", "detection", "embedding", "tensor")
# Each task without labels, those that take labels with them, and a detector that finds nothing.
KINDS = [*((task, 0) for task in TASKS), ("classification", 3), ("detection", 3)]
WEIGHTS = np.array([[1.1, 0.3, 0, 0], [0.3, 1.1, 0, 0], [0, 0, 1.1, 0.3], [0, 0.3, 0, 1.1]], np.float32)
ITEMS = ([1, 2, 7, 9], [3, 1, 8, 6], [0, 4, 5, 9], [2, 2, 6, 7], [5, 1, 9, 8])


class Data:
    """A data.py for the task: the four outputs are logits, a box of corners x1, y1, x2, y2, or a vector."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def samples(self, raw, split):
        yield from ()

    def preprocess(self, item):
        return {"x": np.array(item, np.float32)}

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Answer:
        if self.task == "detection":
            boxes = outputs["y"].reshape(1, 4)
            return Detections(boxes, np.ones(1, np.float32), np.zeros(1, np.int64))
        if self.task == "embedding":
            return Embedding(outputs["y"])
        return softmax_prediction(outputs["y"], top=2)


class FindsNothing(Data):
    """A detector without a box."""

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Detections:
        return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))


def small_spec(task: Task) -> dict[str, object]:
    """A spec.yaml of the task, which is valid and no more."""
    return {
        "task": task,
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 4]}],
    }


@functools.cache
def validated(task: Task, labelled: int = 0, finds_nothing: bool = False) -> dict[str, Any]:
    """validate/VARIANT.json of a product of matrices, the first `labelled` of whose samples have a label."""
    spec = Spec.model_validate(small_spec(task))
    network = torch.nn.Linear(4, 4, bias=False)
    network.load_state_dict({"weight": torch.from_numpy(WEIGHTS)})
    data = FindsNothing(task) if finds_nothing else Data(task)
    samples = [Sample(data.preprocess(item), 1 if n < labelled else None) for n, item in enumerate(ITEMS)]
    files = ModelFiles("small")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_samples(files.evaluation_samples, samples, len(samples), spec)
        write_reference(network.eval(), spec, files, seed=0)
        save_product(files.variant("fp32"))
        model = OnnxModel(files.variant("fp32"), spec, Runtime(provider="cpu", intra_threads=1))
        params = Validate(resamples=100, confidence=0.95, seed=0)
        return validate(model, data, files, params)[0].content()


def save_product(path: Path) -> None:
    """x times WEIGHTS, as torch's Linear has them."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.ascontiguousarray(WEIGHTS.T), "weights")],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
