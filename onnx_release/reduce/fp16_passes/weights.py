"""Bring the weights that are in another file to float16, a part at a time."""

import warnings
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnxconverter_common.float16 import convert_np_to_float16

from onnx_release.graph.graph import external_tensors, graphs, read_weight

# The converter makes ten arrays of the size of the one that it converts.
PART = 2**22


def load_converted_weights(converted: ModelProto, source: Path, max_finite_val: float) -> None:
    """Load the weights that `converted` has in files of the folder `source`: as float16 where that is their type now.

    Raises GraphError if a file is missing or too short.
    """
    for tensor in external_tensors(converted):
        content = read_weight(tensor, source)
        if tensor.data_type == TensorProto.FLOAT16:
            content = to_float16(np.frombuffer(content, "<f4"), max_finite_val).tobytes()
        tensor.raw_data = content
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def to_float16(array: np.ndarray, max_finite_val: float) -> np.ndarray:
    """Return the float32 [n] array in float16, as the converter makes it."""
    result = np.empty(array.shape, np.float16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about clamped weights, which are a metric, and denormal ones
        for start in range(0, len(array), PART):
            part = array[start : start + PART]
            result[start : start + PART] = convert_np_to_float16(part, max_finite_val=max_finite_val)
    return result


def count_beyond(model: ModelProto, folder: Path, limit: float) -> int:
    """Return how many float32 weights of the model, with its files in `folder`, are finite and beyond `limit`."""
    count = 0
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                external = tensor.data_location == TensorProto.EXTERNAL
                array = np.frombuffer(read_weight(tensor, folder), "<f4") if external else numpy_helper.to_array(tensor)
                count += sum(
                    int(((np.abs(part) > limit) & np.isfinite(part)).sum())
                    for part in np.array_split(array.reshape(-1), max(array.size // PART, 1))
                )
    return count
