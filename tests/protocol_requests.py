"""Requests of the Open Inference Protocol for the tests of what reads them."""

import json
import math

import numpy as np

from onnx_release.core.spec import Spec
from serving.protocol import (
    Limits,
    decode_request,
)
from serving.tensors import DATATYPES

SHAPE = ["batch", "width"]
SPEC = Spec.model_validate(
    {
        "task": "tensor",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}, "width": {"min": 2, "max": 8, "example": 3}},
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": SHAPE},
            {"name": "ids", "dtype": "int64", "shape": SHAPE},
            {"name": "mask", "dtype": "bool", "shape": ["batch", 2]},
        ],
        "outputs": [
            {"name": "y", "dtype": "float32", "shape": SHAPE},
            {"name": "half", "dtype": "float16", "shape": SHAPE},
        ],
    }
)


def one_input(dtype, shape=SHAPE, name="x"):
    return SPEC.model_copy(
        update={"inputs": [SPEC.inputs[0].model_copy(update={"name": name, "dtype": dtype, "shape": shape})]}
    )


def entry(name, datatype, shape, data=None, **parameters):
    described = {"name": name, "datatype": datatype, "shape": shape}
    if data is not None:
        described["data"] = data
    return {**described, "parameters": parameters} if parameters else described


def request(x=None, ids=None, mask=None, **top):
    """A good request in JSON, but for what is given."""
    return {
        "inputs": [
            x or entry("x", "FP32", [1, 2], [0.5, 1]),
            ids or entry("ids", "INT64", [1, 2], [1, -2]),
            mask or entry("mask", "BOOL", [1, 2], [True, False]),
        ],
        "outputs": [{"name": "y"}],
        **top,
    }


def changed(name, **changes):
    """A good request, with other values in the entry of one input; None takes a key out."""
    whole = request()
    for given in whole["inputs"]:
        if given["name"] == name:
            given.update(changes)
            for key in [key for key, value in changes.items() if value is None]:
                del given[key]
    return whole


def decode(content, header_length=None, spec=SPEC, rows=4, size=10**9, deadline=math.inf):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return decode_request(spec, body, header_length, Limits(rows, size, deadline))


def with_binary(arrays, declared=None, pad=0, **sizes):
    """The body and the header's length of a request whose inputs are all binary; `pad` spaces follow the JSON.

    `declared` are the arrays that its JSON describes, and `sizes` the bytes that it says; both are right by default.
    """
    inputs = []
    for name, array in (declared or arrays).items():
        size = sizes.get(name, arrays[name].nbytes)
        inputs.append(entry(name, DATATYPES[array.dtype.name], list(array.shape), binary_data_size=size))
    header = json.dumps({"inputs": inputs, "outputs": [{"name": "y"}]}).encode() + b" " * pad
    return header + b"".join(array.tobytes() for array in arrays.values()), str(len(header))


ARRAYS: dict[str, np.ndarray] = {
    "x": np.array([[0.5, 1, 2], [3, 4, 5]], np.float32),
    "ids": np.arange(6, dtype=np.int64).reshape(2, 3),
    "mask": np.array([[True, False], [False, True]]),
}
