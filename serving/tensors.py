"""Read the data of one tensor from little-endian bytes, or from JSON's numbers and booleans."""

import math
import reprlib
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Tensor
from serving.errors import RequestError
from serving.json_text import PIECE, DataText, parse_short, read_numbers

# The protocol's datatype for each dtype of a spec.
DATATYPES: dict[str, str] = {
    "float32": "FP32",
    "float16": "FP16",
    "int64": "INT64",
    "int32": "INT32",
    "int8": "INT8",
    "uint8": "UINT8",
    "bool": "BOOL",
}
# The Python types of JSON values for each kind of dtype. bool is a subclass of int, so types are compared exactly.
JSON_TYPES: dict[str, set[type]] = {"f": {int, float}, "i": {int}, "u": {int}, "b": {bool}}
# The alignment of malloc, which all other arrays have. With another one, a vectorised sum may add in another order.
ALIGNMENT = 16


def from_binary(tensor: Tensor, shape: list[int], size: Any, body: bytes, place: int) -> np.ndarray:
    """Return the array of `size` bytes, little-endian and row-major, at `place` of `body`: a read-only view if aligned.

    Raises RequestError (400) for a size other than the shape's, missing bytes, NaN, and booleans that are neither 0 nor
    1. Infinity is a number here, as masks have it.
    """
    dtype, elements = np.dtype(tensor.dtype), math.prod(shape)
    expected = elements * dtype.itemsize
    if type(size) is not int or size != expected:
        found = f"binary_data_size {abbreviated(size)}"
        raise RequestError(
            400, f"{tensor.name} has {found} where {DATATYPES[tensor.dtype]} {shape} takes {expected} bytes"
        )
    if place + size > len(body):
        raise RequestError(
            400,
            f"the body ends after {len(body) - place} of the {count_of(size, 'byte')} of {tensor.name}: it is cut off",
        )
    array = aligned(np.frombuffer(body, dtype, elements, place).reshape(shape))
    if dtype.kind == "b" and array.view(np.uint8).max() > 1:
        raise RequestError(400, f"{tensor.name} has the byte {array.view(np.uint8).max()}: BOOL is 0 or 1")
    if dtype.kind == "f":
        bad = np.isnan(array)
        if bad.any():
            raise RequestError(400, f"{tensor.name} has nan at {np.argwhere(bad)[0].tolist()}: give numbers")
    return array


def aligned(array: np.ndarray) -> np.ndarray:
    """Return the array if its elements lie together, from an address that malloc could give; otherwise a copy."""
    apart = array.__array_interface__["data"][0] % ALIGNMENT or not array.flags.c_contiguous
    return array.copy(order="C") if apart else array


def from_json(tensor: Tensor, shape: list[int], data: Any, deadline: float) -> np.ndarray:
    """Return the array of `data`, a list or the text of a long one, which is flat or nested like `shape`, row-major.

    Raises RequestError (400) for FP16, a wrong number of elements, and values that the dtype does not have, and
    DeadlineError if reading a long text takes longer than until `deadline`.
    """
    if tensor.dtype == "float16":
        raise RequestError(400, f"{tensor.name} is FP16, which JSON does not have: send it as binary data")
    if isinstance(data, DataText) and data.stop - data.start <= PIECE:
        data = parse_short(data.text[data.start : data.stop], PIECE).value
    if not isinstance(data, list | DataText):
        raise RequestError(400, f"{tensor.name} has the data {abbreviated(data)}: give a list, or binary data")
    if isinstance(data, list):
        return typed_array(tensor, flatten_lists(tensor.name, data, shape)).reshape(shape)
    array, place = np.empty(math.prod(shape), tensor.dtype), 0
    for values in read_numbers(tensor.name, shape, data, deadline):
        part = typed_array(tensor, values)
        array[place : place + len(part)] = part
        place += len(part)
    return array.reshape(shape)


def typed_array(tensor: Tensor, values: list[Any]) -> np.ndarray:
    """Return the values in the dtype of the tensor. Raises RequestError (400) for the first that it does not have."""
    dtype = np.dtype(tensor.dtype)
    wrong = set(map(type, values)) - JSON_TYPES[dtype.kind]
    if wrong:
        refuse_value(tensor, next(value for value in values if type(value) in wrong))
    if dtype.kind in "iu" and values:
        limits = np.iinfo(dtype)
        for value in (min(values), max(values)):
            if not limits.min <= value <= limits.max:
                refuse_value(tensor, value)
    with np.errstate(over="ignore"):
        array = np.array(values, np.float64 if dtype.kind == "f" else dtype).astype(dtype, copy=False)
    if dtype.kind == "f" and not np.isfinite(array).all():  # over the largest of its dtype
        refuse_value(tensor, values[int(np.argmin(np.isfinite(array)))])
    return array


def flatten_lists(name: str, data: list[Any], shape: list[int]) -> list[Any]:
    """Return the elements of `data`. It goes through one level of lists after the other, without recursion."""
    level = data
    if list in set(map(type, data)):
        for depth, size in enumerate(shape):
            lists = [data] if depth == 0 else level
            odd = next((item for item in lists if type(item) is not list or len(item) != size), None)
            if odd is not None:
                found = f"a list of {len(odd)}" if type(odd) is list else abbreviated(odd)
                raise RequestError(
                    400, f"{name} has {found} at depth {depth} of its data, where the shape {shape} has lists of {size}"
                )
            level = list(chain.from_iterable(lists))
    if len(level) != math.prod(shape):
        raise RequestError(
            400, f"{name} has {count_of(len(level), 'element')} where the shape {shape} has {math.prod(shape)}"
        )
    return level


def refuse_value(tensor: Tensor, value: Any) -> NoReturn:
    dtype = np.dtype(tensor.dtype)
    takes = "true or false"
    if dtype.kind in "iu":
        takes = f"whole numbers from {np.iinfo(dtype).min} to {np.iinfo(dtype).max}"
    elif dtype.kind == "f":
        takes = f"numbers up to {np.finfo(dtype).max!s}, and infinity in binary data (of gRPC: raw_input_contents)"
    raise RequestError(400, f"{tensor.name} has {abbreviated(value)}: {DATATYPES[tensor.dtype]} takes {takes}")


def abbreviated(value: Any) -> str:
    """Write a client's value for an error message, shortened if it is long or deep."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = 60
    return "nothing" if value is None else short.repr(value)
