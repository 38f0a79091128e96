"""A model that practically never ends: a Loop that runs as often as the largest of its inputs says."""

import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.picture_release import packaged

EVER = 2**62
DECLARED = {
    "task": "tensor",
    "sources": [],
    "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
    "inputs": [{"name": "x", "dtype": "int64", "shape": ["batch", 1]}],
    "outputs": [{"name": "y", "dtype": "int64", "shape": ["batch", 1]}],
    "variants": ["fp16", "int8_dynamic", "int8_static"],
    "budget": {"sqnr_db": 10},
}
DATA = """
def samples(raw, split):
    yield from ()

def preprocess(item):
    return {"x": item}
"""


def endless_graph() -> onnx.GraphProto:
    """y = x, after as many turns of a loop as the largest x."""
    integers, truth = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["goes_on"], ["still_goes_on"]),
            helper.make_node("Neg", ["before"], ["negated"]),
            helper.make_node("Neg", ["negated"], ["after"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("number", integers, []),
            helper.make_tensor_value_info("goes_on", truth, []),
            helper.make_tensor_value_info("before", integers, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("still_goes_on", truth, []),
            helper.make_tensor_value_info("after", integers, ["batch", 1]),
        ],
    )
    return helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["turns"], keepdims=0),
            helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body),
        ],
        "endless",
        [helper.make_tensor_value_info("x", integers, ["batch", 1])],
        [helper.make_tensor_value_info("y", integers, ["batch", 1])],
    )


def endless_model(path: Path) -> Path:
    """Write the model to `path`, and return that."""
    onnx.save_model(
        helper.make_model(endless_graph(), opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path
    )
    return path


def endless_release(folder: Path) -> Path:
    return packaged(folder, "endless", json.dumps(DECLARED), endless_graph(), DATA)
