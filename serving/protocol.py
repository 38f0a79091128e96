"""Read requests of the Open Inference Protocol into arrays, and write arrays into answers.

Nothing here depends on HTTP. KServe and Triton share the protocol, and Triton adds binary tensor data to it:
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import orjson

from onnx_release.core.errors import InputError
from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import (
    Spec,
    Tensor,
    batch_axis,
    largest_batch,
)
from onnx_release.runtime.onnx_model import check_request
from serving.errors import RequestError
from serving.json_text import DataText, ShortJson, parse_short, write_numbers
from serving.settings import Settings
from serving.tensors import DATATYPES, abbreviated, from_binary, from_json

# A release has one model in one version.
VERSION = "1"
# Each Content-Encoding, with the window size that zlib reads it with.
ENCODINGS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
# Bytes of a request's JSON besides the numbers in data: generous ones for the whole, and for each input and output.
JSON_BYTES, TENSOR_JSON_BYTES = 65_536, 1_024
# Every shape of an array is within these.
MOST_AXES, MOST_ELEMENTS = 32, 2**48

Object = Mapping[str, Any]


@dataclass(frozen=True)
class InferenceRequest:
    """The inputs that a client sends, and the outputs that it asks for.

    `inputs` has every input of the spec, batch axis included. `outputs` has the names of the outputs that are asked
    for, in the answer's order, each with whether it is to be binary.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, bool]
    id: str | None = None


class Limits(NamedTuple):
    """What one request may have: `rows` of a symbolic batch, `bytes` of arrays, and time until time.monotonic()."""

    rows: int
    bytes: int
    deadline: float


def request_limits(spec: Spec, settings: Settings, deadline: float) -> Limits:
    """Return what one request may have by the settings of the server."""
    return Limits(most_rows(spec, settings.queue), settings.tensor_bytes, deadline)


def decode_request(spec: Spec, body: bytes, header_length: str | None, limits: Limits) -> InferenceRequest:
    """Read the request in `body`; arrays of binary data are read-only views of it where its alignment allows.

    `header_length` is the header Inference-Header-Content-Length: the bytes of the JSON object, after which the binary
    data follows; None if the header is missing. Raises RequestError: 413 if a limit or the size of the JSON is
    exceeded, 400 for everything else; and DeadlineError if there is more JSON than can be read until the deadline.
    """
    end = json_end(body, header_length)
    request, data = parse_json(spec, body[:end])
    given, outputs, identifier = check_asked(spec, request, limits)
    given = {name: with_data(entry, data) for name, entry in given.items()}
    place = end if header_length is not None else None
    return InferenceRequest(read_tensors(spec, given, body, place, limits.deadline), outputs, identifier)


def check_asked(spec: Spec, request: Object, limits: Limits) -> tuple[dict[str, Object], dict[str, bool], str | None]:
    """Return a request's inputs by name, the outputs that it asks for as in InferenceRequest, and its id.

    Raises RequestError like `decode_request`, before any data is read.
    """
    parameters = optional(request, "parameters", dict, "the request")
    if "sequence_id" in parameters:
        raise RequestError(400, "the parameter sequence_id is not supported: the model keeps nothing between requests")
    identifier = request.get("id")
    if "id" in request and not isinstance(identifier, str):
        raise RequestError(400, f"id is {abbreviated(identifier)}: give a string, or none")
    given = given_inputs(spec, request)
    check_shapes(spec, given, limits.rows, limits.bytes)
    return given, asked_outputs(spec, request, parameters), identifier


def json_end(body: bytes, header_length: str | None) -> int:
    """Return where the JSON object ends in `body`."""
    if header_length is None:
        return len(body)
    # int() would take signs, spaces, underscores and digits of other scripts.
    if not re.fullmatch("[0-9]{1,18}", header_length):
        raise RequestError(
            400, f"Inference-Header-Content-Length is {abbreviated(header_length)}: give the bytes of the JSON object"
        )
    if int(header_length) > len(body):
        raise RequestError(
            400,
            f"Inference-Header-Content-Length is {header_length}, but the body has only {count_of(len(body), 'byte')}",
        )
    return int(header_length)


def parse_json(spec: Spec, text: bytes) -> ShortJson:
    """Return the JSON object of a request, without its long data."""
    most = JSON_BYTES + TENSOR_JSON_BYTES * (len(spec.inputs) + len(spec.outputs))
    request = parse_short(text, most)
    if not isinstance(request.value, dict):
        raise RequestError(400, f"the request is {abbreviated(request.value)}: give a JSON object with inputs")
    return request


def with_data(entry: Object, data: Mapping[str, DataText]) -> Object:
    """Return the entry of an input with the text of its long data in its place."""
    found = entry.get("data")
    return {**entry, "data": data[found]} if isinstance(found, str) and found in data else entry


def asked_outputs(spec: Spec, request: Object, parameters: Object) -> dict[str, bool]:
    """Return the names of the outputs to answer with, and whether each is to be binary."""
    declared = {tensor.name: tensor for tensor in spec.outputs}
    binary_data_output = flag(parameters, "binary_data_output", "the request", default=False)
    outputs: dict[str, bool] = {}
    for entry in entries(request, "outputs"):
        name = known_name(entry, declared, "output")
        if name in outputs:
            raise RequestError(400, f"the output {name} is asked for twice")
        options = optional(entry, "parameters", dict, f"the output {name}")
        if "classification" in options:
            raise RequestError(
                400, f"the output {name} is asked for as a classification: this server gives tensors only"
            )
        check_no_shared_memory(options, f"the output {name}")
        outputs[name] = flag(options, "binary_data", f"the output {name}", default=binary_data_output)
    outputs = outputs or dict.fromkeys(declared, binary_data_output)
    for name, binary in outputs.items():
        if declared[name].dtype == "float16" and not binary:
            raise RequestError(400, f"the output {name} is FP16, which JSON does not have: ask for it with binary_data")
    return outputs


def given_inputs(spec: Spec, request: Object) -> dict[str, Object]:
    """Return a request's inputs by name, after a check of their names and datatypes and of the form of their shapes."""
    declared = {tensor.name: tensor for tensor in spec.inputs}
    given: dict[str, Object] = {}
    for entry in entries(request, "inputs"):
        name = known_name(entry, declared, "input")
        if name in given:
            raise RequestError(400, f"the input {name} is given twice")
        datatype, shape = entry.get("datatype"), entry.get("shape")
        expected = DATATYPES[declared[name].dtype]
        if datatype != expected:
            raise RequestError(400, f"{name} has the datatype {abbreviated(datatype)} where {expected} is declared")
        if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
            raise RequestError(400, f"{name} has the shape {abbreviated(shape)}: give a list of whole numbers")
        if len(shape) > MOST_AXES or math.prod(max(size, 1) for size in shape) > MOST_ELEMENTS:
            raise RequestError(
                400, f"{name} has the shape {abbreviated(shape)} where {declared[name].shape} is declared"
            )
        given[name] = entry
    return given


def check_shapes(spec: Spec, given: Mapping[str, Object], most_rows: int, most_bytes: int) -> None:
    """Compare the names and shapes with the spec, before any data is read."""
    for tensor in spec.inputs:
        shape = given[tensor.name]["shape"] if tensor.name in given else []
        axis = batch_axis(tensor, spec)
        if axis is not None and len(shape) == len(tensor.shape) and shape[axis] > most_rows:
            raise RequestError(413, f"{tensor.name} has {shape[axis]} items: send at most {most_rows} in one request")
    sizes = [math.prod(given[t.name]["shape"]) * np.dtype(t.dtype).itemsize for t in spec.inputs if t.name in given]
    if sum(sizes) > most_bytes:
        raise RequestError(413, f"the inputs are {sum(sizes):,} bytes, and one request may have {most_bytes:,}")
    # These arrays have the dtypes and shapes, and take no memory.
    stand_ins = {
        tensor.name: np.broadcast_to(np.zeros((), tensor.dtype), given[tensor.name]["shape"])
        for tensor in spec.inputs
        if tensor.name in given
    }
    try:
        check_request(spec, stand_ins)
    except InputError as error:
        raise RequestError(400, str(error)) from error


def read_tensors(
    spec: Spec, given: Mapping[str, Object], body: bytes, place: int | None, deadline: float
) -> dict[str, np.ndarray]:
    """Return the arrays of all inputs. Binary data begins at `place` of the body; None means that there is none."""
    declared = {tensor.name: tensor for tensor in spec.inputs}
    arrays: dict[str, np.ndarray] = {}
    for name, entry in given.items():  # in the request's order, which is that of the binary data
        options = optional(entry, "parameters", dict, name)
        check_no_shared_memory(options, name)
        if "binary_data_size" not in options:
            arrays[name] = from_json(declared[name], entry["shape"], entry.get("data"), deadline)
            continue
        if "data" in entry:
            raise RequestError(400, f"{name} has both data and binary_data_size: give one of them")
        if place is None:
            raise RequestError(400, f"{name} has binary_data_size: give the header Inference-Header-Content-Length too")
        arrays[name] = from_binary(declared[name], entry["shape"], options["binary_data_size"], body, place)
        place += arrays[name].nbytes
    if place is not None and place < len(body):
        raise RequestError(
            400,
            f"the body has {count_of(len(body) - place, 'byte')} after the last input: "
            "check binary_data_size and the header's length",
        )
    return {tensor.name: arrays[tensor.name] for tensor in spec.inputs}


def entries(request: Object, key: str) -> list[Object]:
    """Return the objects in the list `key` of a request; an empty list if it is missing."""
    found = optional(request, key, list, "the request")
    for entry in found:
        if not isinstance(entry, dict):
            raise RequestError(400, f"{key} has {abbreviated(entry)}: give objects with a name")
    return found


def known_name(entry: Object, declared: Mapping[str, Tensor], kind: str) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or name not in declared:
        raise RequestError(400, f"there is no {kind} called {abbreviated(name)}: the model has {', '.join(declared)}")
    return name


def optional(owner: Object, key: str, kind: type, where: str) -> Any:
    """Return the object or list `key` of `owner`; an empty one if it is missing."""
    value = owner.get(key, kind())
    if not isinstance(value, kind):
        raise RequestError(
            400, f"{key} of {where} is {abbreviated(value)}: give {'an object' if kind is dict else 'a list'}"
        )
    return value


def flag(options: Object, key: str, where: str, default: bool) -> bool:
    value = options.get(key, default)
    if not isinstance(value, bool):
        raise RequestError(400, f"{key} of {where} is {abbreviated(value)}: give true or false")
    return value


def check_no_shared_memory(options: Object, where: str) -> None:
    if any(key.startswith("shared_memory") for key in options):
        raise RequestError(
            400, f"{where} asks for shared memory, which this server does not have: send the data itself"
        )


def encode_response(
    model: str, version: str, request: InferenceRequest, outputs: Mapping[str, np.ndarray]
) -> tuple[bytes, int | None]:
    """Return the body of the answer, and how many bytes of it are JSON if binary data follows, otherwise None.

    Raises RequestError for NaN or Infinity in an output that is to be JSON.
    """
    described: list[Object] = []
    binary: list[np.ndarray] = []
    for name, as_binary in request.outputs.items():
        array = np.ascontiguousarray(outputs[name])
        entry = {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": array.shape}
        if as_binary:
            described.append({**entry, "parameters": {"binary_data_size": array.nbytes}})
            binary.append(array)
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise RequestError(400, f"the output {name} has NaN or Infinity, which JSON lacks: ask for binary_data")
        else:
            described.append({**entry, "data": write_numbers(array)})
    answer = {"model_name": model, "model_version": version, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    header = orjson.dumps(answer)
    return (b"".join([header, *(array.data for array in binary)]), len(header)) if binary else (header, None)


def decompress(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return `body` as it was before its Content-Encoding.

    Raises RequestError: 415 for an encoding other than gzip and deflate, 413 for more than `limit` decompressed bytes,
    and 400 for data that is cut off or not in that encoding.
    """
    encoding = (encoding or "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding not in ENCODINGS:
        raise RequestError(415, f"the Content-Encoding is {abbreviated(encoding)}: use gzip, deflate or none")
    stream = zlib.decompressobj(ENCODINGS[encoding])
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(400, f"the body is not {encoding} data, as Content-Encoding says: {error}") from error
    if len(plain) > limit:
        raise RequestError(413, f"the body has more than {limit} bytes once decompressed: send fewer items at once")
    if not stream.eof:
        raise RequestError(400, f"the body's {encoding} data is cut off")
    if stream.unused_data:
        raise RequestError(400, f"the body has {count_of(len(stream.unused_data), 'byte')} after its {encoding} data")
    return plain


def most_rows(spec: Spec, queue: int) -> int:
    """Return the most rows of one request: as many as the spec's batch allows, and no more than fit into the queue."""
    return min(largest_batch(spec), queue)
